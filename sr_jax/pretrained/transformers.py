"""What the weight files of SwinIR, HAT and DAT have in common."""

import functools
import math

import numpy as np
from flax import linen as nn

from sr_jax.errors import InputError
from sr_jax.models.attention import MASKED, Pair, regions, split_windows
from sr_jax.pretrained.shapes import Tensors


def table_sides(tensors: Tensors, name: str, rows: str) -> tuple[int, int]:
  """Returns (square root of the rows, heads) of a table of position biases, [rows, heads].

  Args:
    rows: what the number of rows is expected to be, for the message.

  Raises:
    InputError: the table is missing or has another shape.
  """
  if name not in tensors:
    raise InputError(f'{name} is missing, expected [{rows}, heads]')
  shape = tensors[name].shape
  if len(shape) != 2 or not all(shape) or math.isqrt(shape[0])**2 != shape[0]:
    raise InputError(f'{name} is {list(shape)}, expected [{rows}, heads]')
  return math.isqrt(shape[0]), shape[1]


def residual_names(ours: str, theirs: str, generator: nn.Module) -> dict[str, str]:
  """Maps the layers of a `ResidualConv` to the authors', which count activations, too."""
  if generator.residual_conv == '1conv':
    return {f'{ours}/Conv_0': theirs}
  return {f'{ours}/Conv_{index}': f'{theirs}.{2 * index}' for index in range(3)}


@functools.lru_cache(maxsize=4)
def mask(sides: Pair, window: Pair) -> np.ndarray:
  """Returns what is added to the logits of windows that are shifted by half of their sides.

  Args:
    sides: height and width of an image.
    window: rows and columns.

  Returns:
    float32 [windows, N, N] for queries and keys of N = rows * columns pixels.
  """
  labels = np.asarray(regions(sides, window, (window[0] // 2, window[1] // 2)))
  labels = split_windows(labels[None], window)[0]
  return np.where(labels[:, :, None] == labels[:, None], np.float32(0), np.float32(MASKED))
