"""What the names and shapes of foreign tensors tell of their network."""

import math
import re
from typing import Any, NamedTuple

from sr_jax.errors import InputError


class Unstated(NamedTuple):
  """A field that no name and no shape tells: its usual value, or None where there is none."""

  usual: Any = None


def convolution(tensors: dict, name: str) -> tuple[int, int]:
  """(outputs, inputs) of the convolution `name`.

  Raises:
    InputError: its weight is missing or no square kernel [out, in, side, side].
  """
  weight = tensors.get(f'{name}.weight')
  if weight is None:
    raise InputError(f'{name}.weight is missing, expected a kernel [out, in, 3, 3]')
  if weight.ndim != 4 or weight.shape[2] != weight.shape[3] or not weight.size:
    raise InputError(f'{name}.weight is {list(weight.shape)}, expected a kernel [out, in, 3, 3]')
  return weight.shape[:2]


def count(tensors: dict, pattern: str) -> int:
  """1 + the largest number that the pattern's group finds at the start of a name.

  Raises:
    InputError: a number that so few tensors can not reach; nothing is made in its size.
  """
  largest = -1
  for name in tensors:
    match = re.match(pattern, name)
    if not match:
      continue
    if len(match[1]) > 9 or int(match[1]) > 2 * len(tensors):  # counting weights and biases
      raise InputError(f'{name[:80]} has a number beyond the {len(tensors)} tensors that there are')
    largest = max(largest, int(match[1]))
  return largest + 1


def folding(tensors: dict, name: str, channels: int, whole: int) -> int:
  """The side f of a PixelShuffle or its inverse, where `whole` is channels * f * f.

  Raises:
    InputError: it is not, naming the convolution.
  """
  side = math.isqrt(whole // channels)
  if not side or side**2 * channels != whole:
    raise InputError(f'{name}.weight is {list(tensors[f"{name}.weight"].shape)}: {whole} is not '
                     f'{channels} times a square')
  return side


def shuffled_scale(tensors: dict, names: list[str], features: int) -> int:
  """The product of stages of a convolution and a PixelShuffle each, which keep the features.

  Raises:
    InputError: as `convolution` and `folding`.
  """
  return math.prod(folding(tensors, name, features, convolution(tensors, name)[0])
                   for name in names)
