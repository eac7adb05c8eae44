"""Recognises what moves pixels, such as a PixelShuffle, by where it moves the numbers of an array.

The operations are applied to an array that numbers the elements of an image [B, h, w, C]. Whatever
they were, the result tells what they amount to.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from sr_jax.images.resizing import cubic_kernel, taps

ZERO = -1  # the number of an element that is zero, not one of the image


def _broadcast(x: np.ndarray, shape: tuple[int, ...], broadcast_dimensions: tuple[int, ...],
               **_: Any) -> np.ndarray:
  axes = [1] * len(shape)
  for axis, side in zip(broadcast_dimensions, x.shape, strict=True):
    axes[axis] = side
  return np.broadcast_to(x.reshape(axes), shape)


# JAX's primitives that move elements of one array, on NumPy's; keywords are their parameters.
MOVES: dict[str, Callable[..., np.ndarray]] = {
    'reshape': lambda x, new_sizes, **_: x.reshape(new_sizes),
    'transpose': lambda x, permutation, **_: x.transpose(permutation),
    'slice': lambda x, start_indices, limit_indices, strides, **_: x[tuple(
        slice(*limits) for limits in zip(start_indices, limit_indices, strides or (1,) * x.ndim,
                                         strict=True))],
    'rev': lambda x, dimensions, **_: np.flip(x, dimensions),
    'squeeze': lambda x, dimensions, **_: np.squeeze(x, tuple(dimensions)),
    'broadcast_in_dim': _broadcast,
    'copy': lambda x, **_: x, 'copy_p': lambda x, **_: x, 'stop_gradient': lambda x, **_: x,
    'optimization_barrier': lambda x, **_: x}


def numbered(shape: tuple[int, ...]) -> np.ndarray:
  """Returns an array whose elements are their own numbers."""
  return np.arange(np.prod(shape), dtype=np.int32).reshape(shape)


def recognise(index: np.ndarray, shape: tuple[int, ...], image: tuple[int, int]
              ) -> tuple[str, dict[str, Any]] | None:
  """Returns the kind and values of the node that moves elements in this way, or None.

  The kind 'nothing' is the image itself.

  Args:
    index: number of the element at each place of the result.
    shape: [B, h, w, C] of the image whose elements are numbered.
    image: height and width of the network's input.
  """
  before = numbered(shape)
  if index.shape == shape and np.array_equal(index, before):
    return 'nothing', {}
  if index.ndim != 4 or index.shape[0] != shape[0]:
    return None
  batch, height, width, channels = index.shape
  _, h, w, c = shape
  if (height, width) == (h, w):
    return _channels(index, before)
  if channels == c:
    return _spatial(index, before, image)
  if channels < c and height % h == 0 and channels * (height // h)**2 == c:
    s = height // h
    x = before.reshape(batch, h, w, channels, s, s).transpose(0, 1, 4, 2, 5, 3)
    return ('shuffle', {'factor': s}) if np.array_equal(x.reshape(-1), index.ravel()) else None
  if channels > c and h % height == 0 and c * (h // height)**2 == channels:
    f = h // height
    x = before.reshape(batch, height, f, width, f, c).transpose(0, 1, 3, 5, 2, 4)
    return ('unshuffle', {'factor': f}) if np.array_equal(x.reshape(-1), index.ravel()) else None
  return None


def _channels(index: np.ndarray, before: np.ndarray) -> tuple[str, dict[str, Any]] | None:
  chosen, total = index[0, 0, 0], before.shape[-1]
  if chosen.min() < 0 or chosen.max() >= total or not np.array_equal(
      index, before[..., :1] + chosen):
    return None
  if np.array_equal(chosen, np.arange(chosen[0], chosen[0] + len(chosen))):
    return ('channels', {'start': int(chosen[0]), 'stop': int(chosen[-1]) + 1})
  weight = np.float32(chosen[:, None] == np.arange(total))[:, :, None, None]
  return ('conv', plain_conv(weight, None))


def plain_conv(weight: np.ndarray, bias: np.ndarray | None, stride: int = 1) -> dict[str, Any]:
  """Returns the values of a `conv` without padding."""
  return {'weight': weight, 'bias': bias, 'strides': (stride, stride), 'dilation': (1, 1),
          'groups': 1, 'pads': (0, 0, 0, 0)}


def _spatial(index: np.ndarray, before: np.ndarray, image: tuple[int, int]
             ) -> tuple[str, dict[str, Any]] | None:
  height, width = index.shape[1:3]
  h, w = before.shape[1:3]
  if height % h == 0 and width % w == 0:
    scale = (height // h, width // w)
    if np.array_equal(index, before.repeat(scale[0], 1).repeat(scale[1], 2)):
      return ('resize', {'method': 'nearest', 'scale': scale})
  if height <= h and width <= w:
    scale = height // image[0]
    if (height, width) == (scale * image[0], scale * image[1]) and np.array_equal(
        index, before[:, :height, :width]):
      return ('crop', {'scale': scale})
  if height < h or width < w:
    return None
  plane, target = before[0, :, :, 0], index[0, :, :, 0]
  for top in range(height - h + 1):
    for left in range(width - w + 1):
      if target[top, left] != 0:  # the number of the first element
        continue
      sides = (top, height - h - top), (left, width - w - left)
      for mode, options in (('constant', {'constant_values': ZERO}), ('edge', {}),
                            ('reflect', {})):
        if np.array_equal(np.pad(plane, sides, mode, **options), target) and np.array_equal(
            np.pad(before, ((0, 0), *sides, (0, 0)), mode, **options), index):
          return ('pad', {'mode': mode, 'pads': (top, left, sides[0][1], sides[1][1])})
  return None


def recognise_resize(matrix: np.ndarray) -> tuple[str, float] | None:
  """Returns the method and scale of a resampling [samples after, before] along an axis, or None."""
  after, before = matrix.shape
  scale = after / before
  for method in ('bilinear', 'bicubic'):
    if scale < 1 or scale != int(scale):
      break
    indices, weights = taps(before, scale, method)
    expected = np.zeros(matrix.shape)
    np.add.at(expected, (np.arange(after)[:, None], indices), weights)
    if np.allclose(matrix, expected, atol=1e-6):
      return method, scale
  centre = (np.arange(after) + 0.5) / scale - 0.5
  samples = np.floor(centre).astype(int)[:, None] + np.arange(-1, 3)
  expected = np.zeros(matrix.shape)
  np.add.at(expected, (np.arange(after)[:, None], np.clip(samples, 0, before - 1)),
            cubic_kernel(centre[:, None] - samples, a=-0.75))
  return ('bicubic_0.75', scale) if np.allclose(matrix, expected, atol=1e-6) else None
