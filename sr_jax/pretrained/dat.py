"""DAT's tensor names, which its authors and spandrel share, and the buffers in their files.

Source: https://github.com/zhengchen1999/DAT, basicsr/archs/dat_arch.py. The buffers follow from the
windows' sides and from the side of the training crops: the distances and the index of the position
bias, and the masks of shifted windows, which make up most of a light network's file. BatchNorm also
counts its batches there, which nothing depends on.
"""

import functools
import math
from typing import Any

import numpy as np
from flax import linen as nn

from sr_jax.errors import InputError
from sr_jax.models.attention import relative_position_index
from sr_jax.models.dat import DAT, TAIL_FEATURES, is_shifted
from sr_jax.pretrained import transformers
from sr_jax.pretrained.basicsr import MAX_STAGES
from sr_jax.pretrained.shapes import (
    Tensors,
    Unstated,
    conv_channels,
    dense_outputs,
    index_count,
    shuffle_factor,
    shuffle_scale,
    shuffle_stages,
)

NETWORKS = {'dat': lambda generator: True}
CROP = 64  # side of the authors' crops, for which their files have masks
ATTENTION = {  # our layers of an attention that both kinds have
    'qkv': 'qkv', 'conv': 'dwconv.0', 'norm': 'dwconv.1', 'project': 'proj', 'channels': '',
    'channel_interaction/reduce': 'channel_interaction.1',
    'channel_interaction/norm': 'channel_interaction.2',
    'channel_interaction/expand': 'channel_interaction.4',
    'spatial_interaction/reduce': 'spatial_interaction.0',
    'spatial_interaction/norm': 'spatial_interaction.1',
    'spatial_interaction/expand': 'spatial_interaction.3'}
POSITION = {  # our layers of a position bias
    'Dense_0': 'pos_proj', 'LayerNorm_0': 'pos1.0', 'Dense_1': 'pos1.2', 'LayerNorm_1': 'pos2.0',
    'Dense_2': 'pos2.2', 'LayerNorm_2': 'pos3.0', 'Dense_3': 'pos3.2'}
FEED_FORWARD = {'expand': 'fc1', 'norm': 'sg.norm', 'conv': 'sg.conv', 'reduce': 'fc2'}


def infer(tensors: Tensors, given: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
  """Infers the network as `basicsr.infer` does."""
  if 'before_RG.1.weight' not in tensors:
    return None
  features, channels = conv_channels(tensors, 'conv_first')
  block = 'layers.0.blocks'
  hidden = dense_outputs(tensors, f'{block}.0.ffn.fc1')
  fields = {
      'features': features, 'channels': channels,
      'groups': index_count(tensors, r'layers\.(\d+)\.'),
      'blocks': index_count(tensors, r'layers\.0\.blocks\.(\d+)\.'),
      'heads': 2 * dense_outputs(tensors, f'{block}.0.attn.attns.0.pos.pos3.2'),
      'split_size': _split_size(tensors, f'{block}.0.attn.attns.0.rpe_biases'),
      'mlp_ratio': hidden / features,
      'residual_conv': '1conv' if 'conv_after_body.weight' in tensors else '3conv'}
  if 'conv_last.weight' in tensors:
    scale = shuffle_scale(tensors, shuffle_stages(tensors), TAIL_FEATURES)
    return 'dat', fields | {'upsample': 'shuffle', 'scale': scale}
  outputs, _ = conv_channels(tensors, 'upsample.0')
  scale = shuffle_factor(tensors, 'upsample.0', channels, outputs)
  return 'dat', fields | {'upsample': 'direct', 'scale': scale}


def _split_size(tensors: Tensors, name: str) -> tuple[int, ...] | Unstated:
  """Returns the sides of the windows, which are in the last of their distances; no shape has them.

  Files without buffers do not say; the authors' networks except DAT-S have (8, 32).
  """
  if name not in tensors:
    return Unstated(DAT.split_size)
  distances = tensors[name]
  if distances.ndim == 2 and distances.shape[1] == 2 and distances.size:
    sides = [float(value) + 1 for value in distances[-1]]
    if all(1 <= side < 2**16 and side.is_integer() for side in sides) and (
        math.prod(2 * side - 1 for side in sides) == len(distances)):
      return tuple(int(side) for side in sides)
  raise InputError(f'{name} {list(distances.shape)}: not the distances of a window, one [rows, '
                   'columns] for each two pixels')


def names(name: str, generator: nn.Module) -> dict[str, str]:
  """Maps our layers to the authors', as `basicsr.names` does."""
  mapping = {'head': 'conv_first', 'head_norm': 'before_RG.1', 'norm': 'norm'}
  mapping |= transformers.residual_names('body_end', 'conv_after_body', generator)
  for group in range(generator.groups):
    mapping |= transformers.residual_names(f'body_{group}/conv', f'layers.{group}.conv', generator)
    for block in range(generator.blocks):
      ours, theirs = f'body_{group}/block_{block}', f'layers.{group}.blocks.{block}'
      mapping |= {f'{ours}/{norm}': f'{theirs}.{norm}' for norm in ('norm1', 'norm2')}
      mapping |= {f'{ours}/feed_forward/{layer}': f'{theirs}.ffn.{name}'
                  for layer, name in FEED_FORWARD.items()}
      mapping |= {f'{ours}/attention/{layer}': f'{theirs}.attn.{name}'.removesuffix('.')
                  for layer, name in ATTENTION.items()}
      mapping |= {f'{ours}/attention/windows/PositionBias_{branch}/{layer}':
                  f'{theirs}.attn.attns.{branch}.pos.{name}'
                  for layer, name in POSITION.items() for branch in range(2)}
  if generator.upsample == 'direct':
    return mapping | {'last': 'upsample.0'}
  mapping |= {f'stages_{stage}/Conv_0': f'upsample.{2 * stage}' for stage in range(MAX_STAGES)}
  return mapping | {'before_upsample': 'conv_before_upsample.0', 'last': 'conv_last'}


def buffers(generator: nn.Module) -> dict[str, np.ndarray]:
  """Returns the buffers; masks are for crops of 64x64 pixels, as in the authors' files."""
  found = {}
  for group in range(generator.groups):
    for block in range(generator.blocks):
      attention = f'layers.{group}.blocks.{block}.attn'
      found |= {f'{attention}.{norm}.num_batches_tracked': np.zeros((), np.int64) for norm in (
          'dwconv.1', 'channel_interaction.2', 'spatial_interaction.1')}
      for branch in range(2) if block % 2 == 0 else ():
        sides = tuple(generator.split_size[::-1] if branch else generator.split_size)
        found[f'{attention}.attns.{branch}.rpe_biases'] = _distances(sides)
        found[f'{attention}.attns.{branch}.relative_position_index'] = (
            relative_position_index(sides))
        if is_shifted(group, block):
          crop = (math.lcm(CROP, *sides),) * 2
          found[f'{attention}.attn_mask_{branch}'] = transformers.mask(crop, sides)
  return found


@functools.lru_cache(maxsize=4)
def _distances(sides: tuple[int, int]) -> np.ndarray:
  """Returns the distances in rows and columns that two pixels of a window can have, [n, 2]."""
  rows, columns = (np.arange(1 - side, side, dtype=np.float32) for side in sides)
  return np.stack(np.meshgrid(rows, columns, indexing='ij'), -1).reshape(-1, 2)
