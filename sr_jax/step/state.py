"""What a run carries from step to step, and nothing else. All of it is in the checkpoint."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from sr_jax.errors import InputError
from sr_jax.models import failures
from sr_jax.step import trial

PyTree = Any
Batch = Mapping[str, jax.Array]  # {'lr': [B, h, w, C], 'hr': [B, h * s, w * s, C]} in [0, 1]
# float32 scalars by name: 'g/TERM', 'g/total', 'g/grad_norm' and, in an adversarial phase,
# 'd/total', 'd/real', 'd/fake', 'd/grad_norm'. Logs, replay and SkipNonfinite use these names.
Metrics = dict[str, jax.Array]


class NetState(NamedTuple):
  """One network: its weights, its BatchNorm statistics and the state of its optimiser."""

  params: PyTree
  batch_stats: PyTree  # {} without BatchNorm
  opt_state: PyTree


class Health(NamedTuple):
  """Counters that are kept on the device, int32; sr_jax/step/nonfinite.py updates them."""

  skipped: jax.Array = np.int32(0)  # updates skipped since the start of the run
  bad: jax.Array = np.int32(0)  # consecutive steps up to now that were skipped
  # Consecutive steps up to now in which D classified every real and generated image correctly.
  saturated: jax.Array = np.int32(0)


class TrainState(NamedTuple):
  """The state of a run. `d` is None if there is no discriminator."""

  step: jax.Array  # int32: steps taken, which is also the number of the next batch
  seed: jax.Array  # int32: with `step`, the source of all randomness
  g: NetState
  d: NetState | None
  ema: dict[str, PyTree]  # {'params', 'batch_stats'}: the generator's moving average
  health: Health = Health()


# A training step: (state, batch, frozen arrays) -> (state, metrics).
Step = Callable[[TrainState, Batch, Mapping[str, PyTree]], tuple[TrainState, Metrics]]


def init_state(seed: int, generator: nn.Module, g_tx: optax.GradientTransformation,
               lr_shape: tuple[int, ...], discriminator: nn.Module | None = None,
               d_tx: optax.GradientTransformation | None = None,
               hr_shape: tuple[int, ...] | None = None) -> TrainState:
  """Returns the state at step 0, a function of the seed alone.

  Args:
    lr_shape, hr_shape: [B, H, W, C] of the inputs of the generator and the discriminator.

  Raises:
    InputError: the result of the generator does not have `hr_shape`, or a network of the user's own
      cannot be used (step/trial.py).
  """
  if hr_shape:
    trial.refuse_unusable(generator, 'config.generator', lr_shape, hr_shape)
    if discriminator is not None:
      trial.refuse_unusable(discriminator, 'config.discriminator', hr_shape)

  @jax.jit  # one program for both: most of the time goes into compiling the random numbers
  def variables() -> tuple[PyTree, PyTree]:
    g_key, d_key = jax.random.split(jax.random.key(seed))
    with failures.one_line(generator, 'config.generator: '):
      sr, g = generator.init_with_output(g_key, jnp.zeros(lr_shape))
    if hr_shape and getattr(sr, 'shape', None) != hr_shape:
      found = list(sr.shape) if hasattr(sr, 'shape') else type(sr).__name__
      raise InputError(f'config.generator: the result of class {type(generator).__name__} for an '
                       f'image of {list(lr_shape)} is {found}, expected {list(hr_shape)}')
    if discriminator is None:
      return g, None
    with failures.one_line(discriminator, 'config.discriminator: '):
      return g, discriminator.init(d_key, jnp.zeros(hr_shape))

  g, d = (initial and NetState(initial['params'], initial.get('batch_stats', {}),
                               tx.init(initial['params']))
          for initial, tx in zip(variables(), (g_tx, d_tx), strict=True))
  # Copies, because the step donates the state and a buffer can't be donated twice.
  ema = jax.tree.map(jnp.copy, {'params': g.params, 'batch_stats': g.batch_stats})
  return TrainState(jnp.int32(0), jnp.int32(seed), g, d, ema,
                    Health(jnp.int32(0), jnp.int32(0), jnp.int32(0)))


def begin_phase(state: TrainState, g_tx: optax.GradientTransformation) -> TrainState:
  """Returns the state that a phase starts from: a new optimiser state for G, counters at zero.

  The gradients of another loss have another size: with the optimiser state of the old loss the
  first hundreds of steps would be too long. A second call changes nothing, and neither does a call
  at step 0, so a run that resumes at the boundary continues as an uninterrupted one.
  """
  health = state.health._replace(bad=jnp.int32(0), saturated=jnp.int32(0))
  return state._replace(g=state.g._replace(opt_state=g_tx.init(state.g.params)), health=health)
