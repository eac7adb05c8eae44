"""ESRGAN's own tensor names for RRDBNet: the old ones, by position, and the later ones.

Source: https://github.com/xinntao/ESRGAN. Most community models of that time have the old
names (`model.0`, `model.1.sub.0.RDB1.conv1.0`); BSRGAN and RealSR have the later ones
(`RRDB_trunk.0.RDB1.conv1`).
"""

import re
from typing import Any

from flax import linen as nn

from sr_jax.errors import InputError
from sr_jax.models.layers import STAGES
from sr_jax.pretrained import basicsr
from sr_jax.pretrained.shapes import (
    Tensors,
    conv_channels,
    index_count,
    shuffle_factor,
    shuffle_scale,
)

NETWORKS = {'rrdb': lambda generator: True}
NETWORKS_LATER = {'rrdb': lambda generator: generator.scale * generator.unshuffle in (2, 4)}
LATER = basicsr.LayerNames('RRDB_trunk', 'RDB', 'trunk_conv', 'upconv', 'HRconv')


def infer_later(tensors: Tensors, given: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
  """Infers the network from the later names, as `basicsr.infer` does."""
  if not any(name.startswith('RRDB_trunk.0.') for name in tensors):
    return None
  return 'rrdb', basicsr.infer_rrdb(tensors, LATER)


def names_later(name: str, generator: nn.Module) -> dict[str, str]:
  """Maps our layers to the later names, as `basicsr.names` does."""
  return basicsr.names_rrdb(generator, LATER)


def infer(tensors: Tensors, given: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
  """Infers the network from the old names, as `basicsr.infer` does."""
  blocks = index_count(tensors, r'model\.1\.sub\.(\d+)\.RDB1\.')
  if not blocks:
    return None
  # model.0 is the first convolution and model.1 the trunk. The upsampling stages follow, each a
  # convolution and an activation, with the upsampling before the convolution ('nearest') or
  # after it ('shuffle'). The last two convolutions have an activation between them.
  outer = sorted({int(match[1]) for name in tensors if (match := re.match(
      r'model\.(\d+)\.(weight|bias)$', name))} - {0})
  upsample = 'shuffle' if outer[:1] == [2] and len(outer) > 2 else 'nearest'
  if outer != _outer_positions(len(outer) - 2, upsample):
    raise InputError('its convolutions outside the trunk are '
                     f'model.{", model.".join(map(str, [0, *outer]))}: one is missing or there is '
                     'one too many (a x4 network has 0, 3, 6, 8 and 10)')
  features, inputs = conv_channels(tensors, 'model.0')
  channels, _ = conv_channels(tensors, f'model.{outer[-1]}')
  growth, _ = conv_channels(tensors, 'model.1.sub.0.RDB1.conv1.0')
  unshuffle = shuffle_factor(tensors, 'model.0', channels, inputs)
  stages = outer[:-2]
  if upsample == 'shuffle':
    scale = shuffle_scale(tensors, [f'model.{index}' for index in stages], features) // unshuffle
  else:
    scale = basicsr.nearest_scale(len(stages), unshuffle)
  return 'rrdb', {'features': features, 'blocks': blocks, 'growth': growth,
                  'unshuffle': unshuffle, 'scale': scale, 'upsample': upsample,
                  'channels': channels}


def _outer_positions(stages: int, upsample: str) -> list[int]:
  """Returns the positions of the convolutions after the trunk: one per stage, then two."""
  first = 3 if upsample == 'nearest' else 2
  return [first + 3 * stage for stage in range(stages)] + [3 * stages + 2, 3 * stages + 4]


def names(name: str, generator: nn.Module) -> dict[str, str]:
  """Maps our layers to the old names, as `basicsr.names` does."""
  *stages, refinement, last = _outer_positions(len(STAGES[generator.scale * generator.unshuffle]),
                                               generator.upsample)
  mapping = {f'body_{block}/DenseBlock_{dense}/Conv_{index}':
             f'model.1.sub.{block}.RDB{dense + 1}.conv{index + 1}.0'
             for block in range(generator.blocks) for dense in range(3) for index in range(5)}
  mapping |= {f'stages_{stage}/Conv_0': f'model.{index}' for stage, index in enumerate(stages)}
  return mapping | {'head': 'model.0', 'body_end': f'model.1.sub.{generator.blocks}',
                    'refinement': f'model.{refinement}', 'last': f'model.{last}'}
