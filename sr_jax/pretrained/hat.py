"""The authors' tensor names for HAT, which spandrel has, too: SwinIR's and some more.

Source: https://github.com/XPixelGroup/HAT, hat/archs/hat_arch.py. Two buffers number the positions
of queries and keys; they are the same for all blocks. No file has masks.
"""

from typing import Any

import numpy as np
from flax import linen as nn

from sr_jax.errors import InputError
from sr_jax.models.attention import relative_position_index
from sr_jax.models.hat import HAT
from sr_jax.models.overlap_attention import overlap_margin, overlap_position_index
from sr_jax.pretrained import swinir, transformers
from sr_jax.pretrained.shapes import Tensors, Unstated, conv_channels

NETWORKS = {'hat': lambda generator: (
    generator.upsample == 'shuffle' and generator.unshuffle == 1 and generator.image_range == 1
    and generator.residual_conv == '1conv')}
CAB = {'compress': '0', 'restore': '2', 'squeeze': '3.attention.1', 'excite': '3.attention.3'}


def infer(tensors: Tensors, given: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
  """Infers the network as `basicsr.infer` does."""
  if f'{swinir.FIRST}.conv_block.cab.0.weight' not in tensors:
    return None
  fields = swinir.fields_of(tensors, given)
  return 'hat', fields | {
      'compress': _divisor(tensors, 'compress', fields['features'], given),
      'squeeze': _divisor(tensors, 'squeeze', fields['features'], given),
      'overlap': _overlap(tensors, fields['window']), 'image_range': 1.0,
      'conv_scale': Unstated(HAT.conv_scale)}


def _divisor(tensors: Tensors, field: str, features: int, given: dict[str, Any]) -> int:
  """Returns the field that gives a layer its number of channels, the quotient of the features.

  Several divisors give the same number. The result is that of `given`, if it does, or the largest,
  which is the authors'.
  """
  name = f'{swinir.FIRST}.conv_block.cab.{CAB[field]}'
  channels, _ = conv_channels(tensors, name)
  stated = given.get(field)
  divisor = stated if isinstance(stated, int) and stated > 0 else features // channels
  if divisor < 1 or features // divisor != channels:
    divisor = features // channels
    works = f', which is that of {field}={divisor}' if divisor and (
        features // divisor == channels) else ''
    raise InputError((f'{field}={stated}: ' if stated else '') + f'{name}.weight has {channels} of '
                     f'{features} channels{works}')
  return divisor


def _overlap(tensors: Tensors, window: int) -> float:
  name = 'layers.0.residual_group.overlap_attn.relative_position_bias_table'
  rows = '(2 * window + overlap * window - 1)^2'
  side, _ = transformers.table_sides(tensors, name, rows)
  larger = side - (2 * window - 1)
  if larger % 2 or not 0 <= larger <= window:
    raise InputError(f'{name} has {side}^2 rows, expected {rows} with window={window}')
  return larger / window


def names(name: str, generator: nn.Module) -> dict[str, str]:
  """Maps our layers to the authors', as `basicsr.names` does."""
  mapping = swinir.names(name, generator)
  for group in range(generator.groups):
    ours, theirs = f'body_{group}', f'layers.{group}.residual_group'
    mapping |= {f'{ours}/body_{block}/{layer}': f'{theirs}.blocks.{block}.conv_block.cab.{index}'
                for block in range(generator.blocks) for layer, index in CAB.items()}
    ours, theirs = f'{ours}/overlap', f'{theirs}.overlap_attn'
    mapping |= {f'{ours}/{layer}': f'{theirs}.{layer}' for layer in ('norm1', 'norm2', 'qkv')}
    mapping |= {f'{ours}/attention': theirs, f'{ours}/attention/projection': f'{theirs}.proj',
                f'{ours}/hidden': f'{theirs}.mlp.fc1', f'{ours}/output': f'{theirs}.mlp.fc2'}
  return mapping


def buffers(generator: nn.Module) -> dict[str, np.ndarray]:
  """Returns the numbers of positions in windows and in overlapping windows, int64."""
  margin = overlap_margin(generator.window, generator.overlap)
  return {'relative_position_index_SA': relative_position_index((generator.window,) * 2),
          'relative_position_index_OCA': overlap_position_index(generator.window, margin)}
