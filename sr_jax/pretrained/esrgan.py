"""ESRGAN's own names for RRDBNet: the old ones, by position, and its later ones.

Source: https://github.com/xinntao/ESRGAN; most community models of that time have the old
names (`model.0`, `model.1.sub.0.RDB1.conv1.0`), BSRGAN and RealSR the later ones
(`RRDB_trunk.0.RDB1.conv1`).
"""

import re

from sr_jax.errors import InputError
from sr_jax.models.layers import STAGES
from sr_jax.pretrained import basicsr
from sr_jax.pretrained.shapes import convolution, count, folding, shuffled_scale

NETWORKS = {'rrdb': lambda generator: True}
NETWORKS_LATER = {'rrdb': lambda generator: generator.scale * generator.unshuffle in (2, 4)}
LATER = basicsr.LayerNames('RRDB_trunk', 'RDB', 'trunk_conv', 'upconv', 'HRconv')


def infer_later(tensors: dict, told: dict) -> tuple[str, dict] | None:
  """As `basicsr.infer`, of the later names."""
  if not any(name.startswith('RRDB_trunk.0.') for name in tensors):
    return None
  return 'rrdb', basicsr.infer_rrdb(tensors, LATER)


def names_later(name: str, generator) -> dict[str, str]:
  """As `basicsr.names`, in the later names."""
  return basicsr.names_rrdb(generator, LATER)


def infer(tensors: dict, told: dict) -> tuple[str, dict] | None:
  """As `basicsr.infer`, of the old names."""
  blocks = count(tensors, r'model\.1\.sub\.(\d+)\.RDB1\.')
  if not blocks:
    return None
  # 0 is the first convolution, 1 the trunk; then the stages' convolutions, after each its
  # activation, with the enlargement before it ('nearest') or after it ('shuffle'); the last
  # two have an activation between them.
  outer = sorted({int(match[1]) for name in tensors if (match := re.match(
      r'model\.(\d+)\.(weight|bias)$', name))} - {0})
  upsample = 'shuffle' if outer[:1] == [2] and len(outer) > 2 else 'nearest'
  if outer != _outer(len(outer) - 2, upsample):
    raise InputError(f'its outer convolutions are model.{", model.".join(map(str, [0, *outer]))}: '
                     'one is missing or one too many (x4 has 0, 3, 6, 8 and 10)')
  features, inputs = convolution(tensors, 'model.0')
  channels, _ = convolution(tensors, f'model.{outer[-1]}')
  growth, _ = convolution(tensors, 'model.1.sub.0.RDB1.conv1.0')
  unshuffle = folding(tensors, 'model.0', channels, inputs)
  stages = outer[:-2]
  if upsample == 'shuffle':
    scale = shuffled_scale(tensors, [f'model.{index}' for index in stages], features) // unshuffle
  else:
    scale = basicsr.nearest_scale(len(stages), unshuffle)
  return 'rrdb', {'features': features, 'blocks': blocks, 'growth': growth,
                  'unshuffle': unshuffle, 'scale': scale, 'upsample': upsample,
                  'channels': channels}


def _outer(stages: int, upsample: str) -> list[int]:
  """Where the convolutions after the trunk stand: each stage's, then the last two."""
  first = 3 if upsample == 'nearest' else 2
  return [first + 3 * stage for stage in range(stages)] + [3 * stages + 2, 3 * stages + 4]


def names(name: str, generator) -> dict[str, str]:
  """As `basicsr.names`, in the old names."""
  *stages, refinement, last = _outer(len(STAGES[generator.scale * generator.unshuffle]),
                                     generator.upsample)
  found = {f'body_{block}/DenseBlock_{dense}/Conv_{index}':
           f'model.1.sub.{block}.RDB{dense + 1}.conv{index + 1}.0'
           for block in range(generator.blocks) for dense in range(3) for index in range(5)}
  found |= {f'stages_{stage}/Conv_0': f'model.{index}' for stage, index in enumerate(stages)}
  return found | {'head': 'model.0', 'body_end': f'model.1.sub.{generator.blocks}',
                  'refinement': f'model.{refinement}', 'last': f'model.{last}'}
