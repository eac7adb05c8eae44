"""Converts decoded samples: their depth, and alpha."""

import numpy as np

from sr_jax.images import dropped
from sr_jax.images.formats import UnsupportedError


def to_full_range(array: np.ndarray, bits: int) -> tuple[np.ndarray, list[str]]:
  """Scales samples to the full range of uint8, or of uint16 if they have more than 8 bits.

  Args:
    array: unsigned integers with `bits` bits, or floats, which are assumed to be in [0, 1].
    bits: per sample.

  Returns:
    (the samples; notes on clipped values).

  Raises:
    UnsupportedError: samples of another type.
  """
  if array.dtype.kind == 'f':
    inside = np.min(array) >= 0 and np.max(array) <= 1  # false if there is a NaN
    array = np.nan_to_num(np.clip(np.float32(array), 0, 1), nan=0)
    return (np.uint16(array * np.float32(65535) + np.float32(0.5)),
            [] if inside else [dropped.CLIPPED])
  if array.dtype.kind != 'u':
    raise UnsupportedError(f'samples of type {array.dtype}')
  full, dtype = (16, np.uint16) if bits > 8 else (8, np.uint8)
  if bits > full:
    array = array >> (bits - full)
  elif bits < full:
    white = 2**bits - 1
    array = (np.uint32(np.minimum(array, white)) * (2**full - 1) + white // 2) // white
  return array.astype(dtype, copy=False), []  # in the machine's byte order


def unmultiply(array: np.ndarray) -> np.ndarray:
  """Divides the colours of [h, w, 2 or 4] by the alpha that they were multiplied by."""
  white, alpha = np.iinfo(array.dtype).max, array[..., -1:]
  colors = np.float64(array[..., :-1]) * white / np.maximum(np.float64(alpha), 1)
  colors = np.minimum(np.floor(colors + 0.5), white).astype(array.dtype)
  return np.concatenate([colors, alpha], -1)


def over_white(samples: np.ndarray, alpha: np.ndarray) -> np.ndarray:
  """Composites [h, w, C] over white by [h, w, 1], both uint8 or both uint16."""
  white = np.uint32(np.iinfo(samples.dtype).max)  # white * white + white / 2 is below 2^32
  mixed = samples * np.uint32(alpha) + white * (white - alpha)
  return ((mixed + white // 2) // white).astype(samples.dtype)


def eight_bit(samples: np.ndarray) -> np.ndarray:
  """Rounds uint16 to uint8, 65535 to 255."""
  return np.uint8((np.uint32(samples) + 128) // 257)


def is_opaque(alpha: np.ndarray) -> bool:
  """Returns whether alpha, uint8 or uint16, is at its maximum everywhere."""
  return bool((alpha == np.iinfo(alpha.dtype).max).all())
