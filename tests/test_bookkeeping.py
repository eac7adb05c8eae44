"""What a step does beside its networks and losses is a few operations, however deep they are.

On a GPU every operation is a kernel of some microseconds. Kept for each array by itself, optimiser
states, averages, the non-finite guard and norms were half of the kernels of a step.
"""

import collections
from collections.abc import Iterator

import jax
import numpy as np
import pytest

from sr_jax import get_config
from sr_jax.experiment import phases
from sr_jax.step.state import begin_phase

KINDS = ('select_n', 'reduce', 'convert_element_type', 'concatenate')
PARTS = ('generator', 'discriminator', 'vgg', 'losses')


def equations(jaxpr: jax.extend.core.Jaxpr, outer: str = '') -> Iterator[tuple[str, str]]:
  """Yields (primitive, scope) of all equations, including those of nested jaxprs."""
  for equation in jaxpr.eqns:
    scope = f'{outer}/{equation.source_info.name_stack}'
    nested = [value for value in equation.params.values() if hasattr(value, 'jaxpr')]
    if not nested:
      yield equation.primitive.name, scope
    for value in nested:
      yield from equations(value.jaxpr, scope)


def bookkeeping(name: str, blocks: int) -> collections.Counter:
  """Counts the operations of `KINDS` of a config's last phase outside its networks and losses."""
  config = get_config(f'{name}:sample')
  config.generator.blocks, config.device_loop, config.dtype = blocks, 'yes', 'bfloat16'
  config.optimizer.g.clip_norm, config.optimizer.g.weight_decay = 1.0, 0.01
  if config.discriminator.name != 'none':  # neither is counted, and tracing them takes seconds
    config.discriminator.widths, config.loss.perceptual.layers = (4, 8), 'relu1_2'
  experiment = phases.build(config)
  phase, side = experiment.phases[-1], config.hr_patch
  state = jax.eval_shape(lambda: begin_phase(experiment.new_state(), phase.g_tx))
  batch = {kind: jax.ShapeDtypeStruct((2, size, size, 3), np.float32)
           for kind, size in (('lr', side // config.scale), ('hr', side))}
  jaxpr = jax.make_jaxpr(phase.step)(state, batch, experiment.frozen).jaxpr
  return collections.Counter(
      kind for primitive, scope in equations(jaxpr)
      for kind in KINDS if primitive.startswith(kind)
      and not any(part in scope for part in PARTS))


@pytest.mark.parametrize(('name', 'most'), [
    ('srresnet', 46), ('edsr', 46), ('compact', 46), ('srgan', 69), ('esrgan', 72)])
def test_bookkeeping_does_not_grow_with_the_network(name, most):
  small, large = (bookkeeping(name, blocks) for blocks in (1, 3))
  assert large == small
  assert 5 < sum(small.values()) <= most, small
