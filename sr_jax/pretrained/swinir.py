"""The authors' tensor names for SwinIR, which KAIR, BasicSR and spandrel have, too.

Source: https://github.com/JingyunLiang/SwinIR, models/network_swinir.py. `pretrained.hat` has what
HAT's files have besides.
"""

from typing import Any

import numpy as np
from flax import linen as nn

from sr_jax.errors import InputError
from sr_jax.models.attention import relative_position_index
from sr_jax.pretrained import transformers
from sr_jax.pretrained.basicsr import MAX_STAGES
from sr_jax.pretrained.shapes import (
  Tensors,
  conv_channels,
  dense_outputs,
  index_count,
  shuffle_factor,
  shuffle_scale,
  shuffle_stages,
)

NETWORKS = {'swinir': lambda generator: True}
JPEG_WINDOW = 7  # only the networks that remove JPEG artefacts have it, and an image range of 255
# Windows along each side of the crops for which masks are written, 64 pixels for a window of 8 as
# in the published files of `light` and `real`. Masks for other sizes are computed when needed.
MASK_WINDOWS = 8
FIRST = 'layers.0.residual_group.blocks.0'


def infer(tensors: Tensors, given: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
  """Infers the network as `basicsr.infer` does."""
  if (f'{FIRST}.attn.relative_position_bias_table' not in tensors
      or f'{FIRST}.attn.qkv.weight' not in tensors
      or f'{FIRST}.conv_block.cab.0.weight' in tensors):  # HAT's
    return None
  fields = fields_of(tensors, given)
  return 'swinir', fields | {'image_range': 255.0 if fields['window'] == JPEG_WINDOW else 1.0}


def fields_of(tensors: Tensors, given: dict[str, Any]) -> dict[str, Any]:
  """Returns the fields that SwinIR and HAT have in common, as far as tensors determine them.

  Raises:
    InputError: tensors are missing or contradict each other, or `given` has another window.
  """
  head = 'conv_first.1' if 'conv_first.1.weight' in tensors else 'conv_first'
  features, inputs = conv_channels(tensors, head)
  table = f'{FIRST}.attn.relative_position_bias_table'
  side, heads = transformers.table_sides(tensors, table, '(2 * window - 1)^2')
  if side % 2 == 0:
    raise InputError(f'{table} has {side}^2 rows, expected (2 * window - 1)^2')
  window = (side + 1) // 2
  if given.get('window', window) != window:
    raise InputError(f'window={given["window"]}: {table} has {side}^2 rows, which is that of '
                     f'window={window}')
  hidden = dense_outputs(tensors, f'{FIRST}.mlp.fc1')
  upsample, scale, channels, unshuffle = _upsampling(tensors, head, features, inputs)
  one = 'conv_after_body.weight' in tensors
  return {
      'features': features, **_depths(tensors), 'heads': heads, 'window': window,
      'mlp_ratio': hidden / features, 'position': 'bias',
      'residual_conv': '1conv' if one else '3conv', 'upsample': upsample, 'scale': scale,
      'unshuffle': unshuffle, 'channels': channels}


def _depths(tensors: Tensors) -> dict[str, int]:
  """Returns the numbers of groups and of blocks in each."""
  groups = index_count(tensors, r'layers\.(\d+)\.')
  blocks = [index_count(tensors, rf'layers\.{group}\.residual_group\.blocks\.(\d+)\.')
            for group in range(groups)]
  if len(set(blocks)) > 1:
    raise InputError(f'its groups (layers.N) have {", ".join(map(str, blocks))} blocks, expected '
                     'equally many')
  return {'groups': groups, 'blocks': blocks[0]}


def _upsampling(tensors: Tensors, head: str, features: int, inputs: int
                ) -> tuple[str, int, int, int]:
  """Returns (upsample, scale, channels, unshuffle)."""
  if 'conv_last.weight' in tensors:
    channels, _ = conv_channels(tensors, 'conv_last')
  else:
    channels = inputs if head == 'conv_first' else 3 - 2 * bool(inputs % 3)
  unshuffle = shuffle_factor(tensors, head, channels, inputs)
  if 'conv_up1.weight' in tensors:
    upsample, factor = 'nearest', 2**(index_count(tensors, r'conv_up(\d+)\.') - 1)
  elif 'conv_before_upsample.0.weight' in tensors:
    width, _ = conv_channels(tensors, 'conv_before_upsample.0')
    upsample, factor = 'shuffle', shuffle_scale(tensors, shuffle_stages(tensors), width)
  elif 'upsample.0.weight' in tensors:
    outputs, _ = conv_channels(tensors, 'upsample.0')
    upsample, factor = 'direct', shuffle_factor(tensors, 'upsample.0', channels, outputs)
  else:
    upsample, factor = 'none', 1
  if factor % unshuffle:
    raise InputError(f'its input is pixel-unshuffled by {unshuffle}, but upsampled by {factor}: '
                     'tensors of the upsampling are missing')
  return upsample, factor // unshuffle, channels, unshuffle


def names(name: str, generator: nn.Module) -> dict[str, str]:
  """Maps our layers to the authors', as `basicsr.names` does.

  Raises:
    InputError: the network has a stem, for which the authors have no names.
  """
  if generator.stem != 'conv':
    raise InputError(f"stem={generator.stem!r}: the authors' {name} has only stem='conv'; use "
                     '--names sr_jax')
  mapping = {'head': 'conv_first' if generator.unshuffle == 1 else 'conv_first.1',
             'embed_norm': 'patch_embed.norm', 'norm': 'norm', 'widen': 'conv_before_upsample.0',
             'refinement': 'conv_hr',
             'last': 'upsample.0' if generator.upsample == 'direct' else 'conv_last'}
  stage_name = 'conv_up{0}' if generator.upsample == 'nearest' else 'upsample.{1}'
  mapping |= {f'stages_{stage}/Conv_0': stage_name.format(stage + 1, 2 * stage)
              for stage in range(MAX_STAGES)}
  mapping |= transformers.residual_names('body_end', 'conv_after_body', generator)
  for group in range(generator.groups):
    mapping |= transformers.residual_names(f'body_{group}/conv', f'layers.{group}.conv', generator)
    for block in range(generator.blocks):
      ours, theirs = f'body_{group}/body_{block}', f'layers.{group}.residual_group.blocks.{block}'
      mapping |= {f'{ours}/{layer}': f'{theirs}.{layer}' for layer in ('norm1', 'norm2')}
      mapping |= {f'{ours}/attention': f'{theirs}.attn',
                  f'{ours}/attention/qkv': f'{theirs}.attn.qkv',
                  f'{ours}/attention/projection': f'{theirs}.attn.proj',
                  f'{ours}/hidden': f'{theirs}.mlp.fc1', f'{ours}/output': f'{theirs}.mlp.fc2'}
  return mapping


def buffers(generator: nn.Module) -> dict[str, np.ndarray]:
  """Returns the index of each bias table, int64, and the mask of each shifted block, float32."""
  window = (generator.window,) * 2
  mask = transformers.mask((MASK_WINDOWS * generator.window,) * 2, window)
  index, tensors = relative_position_index(window), {}
  for group in range(generator.groups):
    for block in range(generator.blocks):
      prefix = f'layers.{group}.residual_group.blocks.{block}'
      tensors[f'{prefix}.attn.relative_position_index'] = index
      if block % 2:
        tensors[f'{prefix}.attn_mask'] = mask
  return tensors
