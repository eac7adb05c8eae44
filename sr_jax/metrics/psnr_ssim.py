"""PSNR and SSIM, of batches on the device and of images of any size as they are stored.

Batches are float [B, H, W, C] in [0, 1]. Tables in papers are of 8-bit images, on the luma, without
`scale` pixels at each border; `image_scores` computes these.
"""

import functools
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from sr_jax import images
from sr_jax.errors import InputError
from sr_jax.images.similarity import C1, C2, WINDOW, moments

METRICS = ('psnr_y', 'ssim_y', 'psnr_rgb', 'ssim_rgb')


def metric_names(lpips: str, niqe: bool = False) -> tuple[str, ...]:
  """Returns the names of the metrics of `make_scorer`, with `lpips` 'alex', 'vgg' or 'none'."""
  return (*METRICS, 'psnr_lr', *([] if lpips == 'none' else [f'lpips_{lpips}']),
          *(['niqe'] if niqe else []))


# Batches, on the device ------------------------------------------------------------------


def decibels(mean_squared_error: jax.Array) -> jax.Array:
  """Returns the PSNR of a mean squared error of samples in [0, 1]; infinity for zero."""
  return -10 * jnp.log10(mean_squared_error)


@functools.partial(jax.jit, static_argnames='border')
def psnr(a: jax.Array, b: jax.Array, border: int = 0) -> jax.Array:
  """Returns the peak signal-to-noise ratio, 10 log10(1 / mean (a - b)^2), over all channels.

  Args:
    a, b: [B, H, W, C] in [0, 1], of the same shape.
    border: pixels to ignore on each side.

  Returns:
    [B] in decibels; infinity where a and b are equal.

  Raises:
    InputError: shapes differ, the arrays are not float, or the border leaves nothing.
  """
  a, b = _crop_borders(a, b, border, 1)
  return decibels(jnp.mean(jnp.square(a - b), axis=(1, 2, 3)))


@functools.partial(jax.jit, static_argnames='border')
def ssim(a: jax.Array, b: jax.Array, border: int = 0) -> jax.Array:
  """Returns the structural similarity (Wang et al. 2004), the mean of `ssim_map`.

  Args:
    a, b: [B, H, W, C] in [0, 1], of the same shape.
    border: pixels to ignore on each side; at least 11x11 must remain.

  Returns:
    [B] in [-1, 1], 1 where a and b are equal; channels are averaged.

  Raises:
    InputError: shapes differ, the arrays are not float, or fewer than 11x11 pixels remain.
  """
  a, b = _crop_borders(a, b, border, WINDOW)
  return jnp.mean(ssim_map(a, b), axis=(1, 2, 3))


def ssim_map(a: jax.Array, b: jax.Array) -> jax.Array:
  """Returns the SSIM of every 11x11 window inside the image, for each channel separately.

  Gaussian weights of sigma 1.5, K = 0.01 and 0.03, population variances: as Wang's code, and
  scikit-image with gaussian_weights=True, use_sample_covariance=False.

  The cost of a window grows with H and W; `image_scores` cuts images into tiles.

  Args:
    a, b: [B, H, W, C] in [0, 1].

  Returns:
    [B, H - 10, W - 10, C].

  Raises:
    InputError: shapes differ, the arrays are not float, or H or W is below 11.
  """
  _crop_borders(a, b, 0, WINDOW)
  mean_a, mean_b, variances, covariance = moments(a, b)
  similarity = ((2 * mean_a * mean_b + C1) * (2 * covariance + C2)
                / ((mean_a * mean_a + mean_b * mean_b + C1) * (variances + C2)))
  return jnp.clip(similarity, -1, 1)  # only rounding can exceed this range


def _crop_borders(a: jax.Array, b: jax.Array, border: int, min_side: int) -> Iterator[jax.Array]:
  if a.shape != b.shape or a.ndim != 4 or not all(
      jnp.issubdtype(x.dtype, jnp.floating) for x in (a, b)):
    raise InputError(f'{a.dtype} {list(a.shape)} and {b.dtype} {list(b.shape)}: expected float '
                     '[B, H, W, C] in [0, 1], of one shape (sr_jax.images.to_float converts uint8)')
  height, width = a.shape[1:3]
  if min(height, width) - 2 * border < min_side:
    raise InputError(f'a border of {border} leaves less than {min_side}x{min_side} of '
                     f'{height}x{width}')
  return (x[:, border:height - border, border:width - border] for x in (a, b))


# Stored images of any size ---------------------------------------------------------------

# Pixels a side and tiles per call. The cost of SSIM's banded products grows with TILE.
TILE, BATCH = 128, 8
STRIDE = TILE - WINDOW + 1  # also the number of SSIM windows along each axis of a tile


def image_scores(sr: np.ndarray, hr: np.ndarray, border: int) -> dict[str, float]:
  """Computes PSNR and SSIM as papers report them: of stored levels, on the luma and on RGB.

  If one image has 16 bits and the other 8, both are compared with 16 (`same_depth`). The images
  are cut into tiles of one shape, for which the device's part is compiled only once.
  The luma isn't rounded.

  Args:
    sr, hr: uint8 or uint16 [H, W, 3 or 1]. A colour SR of a grey HR is scored by its channels'
      mean.
    border: pixels to ignore on each side; in papers, the scale.

  Returns:
    {'psnr_y': ..., 'ssim_y': ..., 'psnr_rgb': ..., 'ssim_rgb': ...}; without SSIM if less than
    11x11 pixels remain.

  Raises:
    InputError: heights or widths differ, the arrays are not uint8 or uint16, or the border leaves
      nothing.
  """
  if sr.shape[:2] != hr.shape[:2]:
    raise InputError(f'images of different shapes: {sr.shape} and {hr.shape}')
  height, width = (side - 2 * border for side in hr.shape[:2])
  if min(height, width) < 1:
    raise InputError(f'a border of {border} leaves no pixels of {hr.shape[0]}x{hr.shape[1]}')
  inner = np.s_[border:border + height, border:border + width]
  sr, hr = same_depth(sr, hr)
  white = int(np.iinfo(hr.dtype).max)
  pair = np.stack([images.as_rgb(image)[inner] for image in (sr, hr)])
  squares, similarity = np.zeros(4), np.zeros(4)
  for pixels, counts in _batches_of_tiles(pair):
    sums = jax.device_get(_tile_sums(pixels, counts, hr.shape[-1] == 1, white))
    squares += sums[0].sum(axis=0, dtype=np.float64)
    similarity += sums[1].sum(axis=0, dtype=np.float64)
  squares /= height * width
  scores = {'psnr_y': _decibels(squares[0]), 'psnr_rgb': _decibels(squares[1:].mean())}
  windows = [max(0, side - WINDOW + 1) for side in (height, width)]
  if min(windows):
    similarity /= windows[0] * windows[1]
    scores |= {'ssim_y': similarity[0], 'ssim_rgb': similarity[1:].mean()}
  return {name: float(scores[name]) for name in METRICS if name in scores}


def _batches_of_tiles(pair: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields the arguments of `_tile_sums` for a pair of images, [2, H, W, 3]."""
  tiles = [(pair[:, top:top + TILE, left:left + TILE], *zip(rows, columns, strict=True))
           for top, *rows in _cuts(pair.shape[1]) for left, *columns in _cuts(pair.shape[2])]
  for first in range(0, len(tiles), BATCH):
    pixels = np.zeros((2, BATCH, TILE, TILE, 3), pair.dtype)
    counts = np.zeros((2, BATCH, 2), np.int32)
    for index, (tile, *tile_counts) in enumerate(tiles[first:first + BATCH]):
      # Padded with the edge: black would change the mean that ssim_map subtracts.
      missing = [(0, TILE - side) for side in tile.shape[1:3]]
      pixels[:, index] = np.pad(tile, ((0, 0), *missing, (0, 0)), 'edge')
      counts[:, index] = tile_counts
    yield pixels, counts


def _cuts(side: int) -> list[tuple[int, int, int]]:
  """Returns (start, pixels, SSIM windows) of each tile along an axis, so that each counts once.

  Tiles overlap by WINDOW - 1 pixels, which count in the later one.
  """
  windows = max(0, side - WINDOW + 1)
  starts = range(0, max(1, windows), STRIDE)
  return [(start, side - start if start == starts[-1] else STRIDE, min(STRIDE, windows - start))
          for start in starts]


@functools.partial(jax.jit, static_argnames='white')
def _tile_sums(pair: jax.Array, counts: jax.Array, grey: jax.Array, white: int
               ) -> tuple[jax.Array, jax.Array]:
  """Sums errors and similarities over each tile, for Y, R, G and B.

  Args:
    pair: uint8 or uint16 [2, N, TILE, TILE, 3], SR and HR.
    counts: [2, N, 2], rows and columns of pixels, then of SSIM windows, to sum over.
    grey: Y is the mean of the channels instead of the luma.
    white: the largest level, 255 or 65535.

  Returns:
    ([N, 4] squared errors, [N, 4] of `ssim_map`).
  """
  sr, hr = pair.astype(jnp.float32)
  errors, similarity = _errors_and_ssim(sr, hr, jnp.where(grey, 1 / 3, images.LUMA),
                                        jnp.where(grey, 0, images.BLACK), white)

  def total(values: jax.Array, count: jax.Array) -> jax.Array:
    rows, columns = (jnp.arange(values.shape[axis]) < count[:, axis - 1:axis] for axis in (1, 2))
    inside = rows[:, :, None, None] & columns[:, None, :, None]
    return jnp.sum(jnp.where(inside, values, 0), axis=(1, 2))

  return total(errors, counts[0]), total(similarity, counts[1])


def _errors_and_ssim(sr: jax.Array, hr: jax.Array, weights: jax.Array, black: jax.Array,
                     white: int) -> tuple[jax.Array, jax.Array]:
  """Returns squared errors and `ssim_map` of Y and of every channel.

  Args:
    sr, hr: [B, H, W, C], integers from 0 to `white`. Their difference is exact, so equal images
      have an error of zero; with fractions, the compiler may round only one side.
    weights, black: Y is black + the channels times weights, for channels in [0, 1].
    white: the largest level.

  Returns:
    ([B, H, W, 1 + C], [B, H - 10, W - 10, 1 + C]), for samples in [0, 1].
  """
  def with_y(levels: jax.Array, black: jax.Array | int) -> jax.Array:
    y = jnp.sum(levels * jnp.asarray(weights, jnp.float32), axis=-1, keepdims=True) / white + black
    return jnp.concatenate([y, levels / white], axis=-1)
  return (jnp.square(with_y(sr - hr, 0)), ssim_map(with_y(sr, black), with_y(hr, black)))


def image_psnr(a: np.ndarray, b: np.ndarray) -> float:
  """Returns the PSNR over all channels of two images of one size, in float64 on the host.

  Args:
    a, b: uint8 or uint16 [H, W, 3 or 1].
  """
  a, b = same_depth(a, b)
  white = float(np.iinfo(a.dtype).max)
  a, b = (images.as_rgb(image).astype(np.float64) for image in (a, b))
  return _decibels(np.mean(np.square(a - b)) / white**2)


def same_depth(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns uint8 or uint16 images with the larger depth of the two; 255 becomes 65535.

  Raises:
    InputError: they have another dtype.
  """
  for image in (a, b):
    if image.dtype not in (np.uint8, np.uint16):
      raise InputError(f'{image.dtype} {list(image.shape)}: expected uint8 or uint16; psnr and '
                       'ssim take float, sr_jax.score.score takes all of them')
  if a.dtype == b.dtype:
    return a, b
  return tuple(image if image.dtype == np.uint16 else image * np.uint16(257) for image in (a, b))


def _decibels(mean_squared_error: float) -> float:
  """Computes `decibels` in float64."""
  return -10 * math.log10(mean_squared_error) if mean_squared_error else math.inf
