"""Infers network fields from the names and shapes of tensors."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sr_jax.errors import InputError

Tensors = Mapping[str, np.ndarray]  # tensors by name; here only names and shapes matter


class Unstated(NamedTuple):
  """A field that no name and no shape determines.

  Attributes:
    assumed: the value that the field commonly has, or None if there is no such value.
  """

  assumed: Any = None


def conv_channels(tensors: Tensors, name: str) -> tuple[int, int]:
  """Returns (output channels, input channels) of the convolution `name`.

  Raises:
    InputError: its weight is missing or is not a square kernel [out, in, side, side].
  """
  weight = tensors.get(f'{name}.weight')
  if weight is None:
    raise InputError(f'{name}.weight is missing, expected a kernel [out, in, 3, 3]')
  if weight.ndim != 4 or weight.shape[2] != weight.shape[3] or not weight.size:
    raise InputError(f'{name}.weight is {list(weight.shape)}, expected a kernel [out, in, 3, 3]')
  return weight.shape[:2]


def dense_outputs(tensors: Tensors, name: str) -> int:
  """Returns the number of outputs of the dense layer `name`.

  Raises:
    InputError: its weight is missing or is not a matrix [out, in].
  """
  weight = tensors.get(f'{name}.weight')
  if weight is None:
    raise InputError(f'{name}.weight is missing, expected a matrix [out, in]')
  if weight.ndim != 2 or not weight.size:
    raise InputError(f'{name}.weight is {list(weight.shape)}, expected a matrix [out, in]')
  return len(weight)


def index_count(tensors: Tensors, pattern: str) -> int:
  """Returns 1 + the largest index that the pattern's group matches at the start of a name.

  Raises:
    InputError: an index is implausibly large for the number of tensors. Without this check a
      hostile file could make the caller build a network of that many layers.
  """
  largest = -1
  for name in tensors:
    match = re.match(pattern, name)
    if not match:
      continue
    if len(match[1]) > 9 or int(match[1]) > 2 * len(tensors):  # a layer may have only one tensor
      raise InputError(f'{name[:80]}: its index is too large for a file of {len(tensors)} tensors')
    largest = max(largest, int(match[1]))
  return largest + 1


def shuffle_factor(tensors: Tensors, name: str, channels: int, shuffled_channels: int) -> int:
  """Returns the factor f of a PixelShuffle or its inverse: shuffled_channels = channels * f * f.

  Args:
    name: the convolution next to it, which the message names.

  Raises:
    InputError: there is no such integer f.
  """
  factor = math.isqrt(shuffled_channels // channels)
  if not factor or factor**2 * channels != shuffled_channels:
    raise InputError(f'{name}.weight is {list(tensors[f"{name}.weight"].shape)}: '
                     f'{shuffled_channels} is not {channels} times a square')
  return factor


def shuffle_stages(tensors: Tensors) -> list[str]:
  """Returns the convolutions of upsampling stages that alternate with PixelShuffles."""
  return [f'upsample.{index}' for index in range(0, index_count(tensors, r'upsample\.(\d+)\.'), 2)]


def shuffle_scale(tensors: Tensors, names: Sequence[str], features: int) -> int:
  """Returns the total scale of upsampling stages, each a convolution and a PixelShuffle.

  Args:
    names: the stages' convolutions.
    features: the number of channels before and after each stage.

  Raises:
    InputError: as `conv_channels` and `shuffle_factor`.
  """
  return math.prod(shuffle_factor(tensors, name, features, conv_channels(tensors, name)[0])
                   for name in names)
