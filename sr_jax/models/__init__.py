"""Networks: flax.linen modules, pure functions of (variables, x)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from sr_jax.models.compact import Compact
from sr_jax.models.discriminator import Discriminator
from sr_jax.models.edsr import EDSR, EDSR_BASELINE, EDSR_FULL
from sr_jax.models.rrdb import RRDB
from sr_jax.models.srcnn import SRCNN
from sr_jax.models.srresnet import MSRRESNET, SRRESNET, SRResNet

GENERATORS = {'srcnn': SRCNN, 'srresnet': SRRESNET, 'msrresnet': MSRRESNET, 'edsr': EDSR,
              'rrdb': RRDB, 'compact': Compact}
DISCRIMINATORS = {'vgg_style': Discriminator}

__all__ = ['DISCRIMINATORS', 'EDSR', 'EDSR_BASELINE', 'EDSR_FULL', 'GENERATORS', 'MSRRESNET',
           'RRDB', 'SRCNN', 'SRRESNET', 'Compact', 'Discriminator', 'SRResNet', 'architecture',
           'variable_shapes']


def architecture(module) -> dict:
  """The kind of a network and the fields that its result depends on; {} of None."""
  if module is None:
    return {}
  fields = {field.name: getattr(module, field.name) for field in dataclasses.fields(module)
            if field.name not in ('parent', 'name', 'dtype', 'remat', 'kernel_init')}
  return {'network': type(module).__name__} | fields


def variable_shapes(generator, method: str | None = None) -> dict:
  """{'params', 'batch_stats'} of a generator as shapes, or those that a `method` of it needs."""
  lr = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
  init = functools.partial(generator.init, method=method)
  return {'batch_stats': {}} | dict(jax.eval_shape(init, jax.random.key(0), lr))
