"""Figures of merit: pure functions of pictures on the device, jitted, batched.

Pictures are float [B, H, W, C] in [0, 1]. Papers' tables are of 8-bit pictures, on luma,
without `scale` pixels at each border; `figures` does all of that.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics as clu_metrics

from sr_jax import images

WINDOW, SIGMA = 11, 1.5  # of SSIM's Gaussian
METRICS = ('psnr_y', 'ssim_y', 'psnr_rgb', 'ssim_rgb')
C1, C2 = 0.01**2, 0.03**2  # SSIM's (K L)^2 with the range L = 1


def metric_names(lpips: str) -> tuple[str, ...]:
  """The figures that score.py gives a picture, with `lpips` 'alex', 'vgg' or 'none'."""
  return (*METRICS, 'psnr_lr', *([] if lpips == 'none' else [f'lpips_{lpips}']))


def decibels(mean_squared_error):
  """PSNR of a mean squared error of samples in [0, 1]; infinity for zero."""
  return -10 * jnp.log10(mean_squared_error)


@functools.partial(jax.jit, static_argnames='border')
def psnr(a: jax.Array, b: jax.Array, border: int = 0) -> jax.Array:
  """Peak signal-to-noise ratio, 10 log10(1 / mean (a - b)^2), over all channels.

  Args:
    a, b: [B, H, W, C] in [0, 1], of one shape.
    border: pixels left out on each side.

  Returns:
    [B] in decibels; infinity where a and b are equal.

  Raises:
    ValueError: shapes differ, or the border leaves nothing.
  """
  a, b = _inner(a, b, border, 1)
  return decibels(jnp.mean(jnp.square(a - b), axis=(1, 2, 3)))


@functools.partial(jax.jit, static_argnames='border')
def ssim(a: jax.Array, b: jax.Array, border: int = 0) -> jax.Array:
  """Structural similarity (Wang et al. 2004), the mean of `ssim_map`.

  Args:
    a, b: [B, H, W, C] in [0, 1], of one shape.
    border: pixels left out on each side; at least 11x11 must remain.

  Returns:
    [B] in [-1, 1], 1 where a and b are equal; channels are averaged.

  Raises:
    ValueError: shapes differ, or fewer than 11x11 pixels remain.
  """
  a, b = _inner(a, b, border, WINDOW)
  return jnp.mean(ssim_map(a, b), axis=(1, 2, 3))


def ssim_map(a: jax.Array, b: jax.Array) -> jax.Array:
  """SSIM of every 11x11 window that lies within the picture, each channel by itself.

  Gaussian weights of sigma 1.5, K = 0.01 and 0.03, population variances: Wang's code, and
  scikit-image's with gaussian_weights=True, use_sample_covariance=False.

  The windows are weighted by two banded matrices, the quickest way up to a few hundred
  pixels a side; `figures_of_picture` cuts whole pictures into tiles.

  Args:
    a, b: [B, H, W, C] in [0, 1].

  Returns:
    [B, H - 10, W - 10, C].
  """
  # Variances do not change when a constant is taken off first, and float32 loses less in the
  # difference of squares.
  centre = jnp.mean((a + b) / 2, axis=(1, 2), keepdims=True)
  a, b = a - centre, b - centre
  mean_a, mean_b, aa, bb, ab = (_window_mean(x) for x in (a, b, a * a, b * b, a * b))
  variances = aa - mean_a * mean_a + bb - mean_b * mean_b
  covariance = ab - mean_a * mean_b
  mean_a, mean_b = mean_a + centre, mean_b + centre
  similarity = ((2 * mean_a * mean_b + C1) * (2 * covariance + C2)
                / ((mean_a * mean_a + mean_b * mean_b + C1) * (variances + C2)))
  return jnp.clip(similarity, -1, 1)  # beyond by rounding alone


def _window_mean(x):
  weights = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / SIGMA) ** 2)
  weights /= weights.sum()
  for axis, product in ((1, 'oh,bhwc->bowc'), (2, 'ow,bhwc->bhoc')):
    size = x.shape[axis]
    matrix = sum(weight * np.eye(size - WINDOW + 1, size, offset)
                 for offset, weight in enumerate(weights))
    x = jnp.einsum(product, matrix.astype(x.dtype), x, precision=jax.lax.Precision.HIGHEST)
  return x


def _inner(a, b, border, smallest):
  if a.shape != b.shape:
    raise ValueError(f'pictures of different shapes: {a.shape} and {b.shape}')
  height, width = a.shape[1:3]
  if min(height, width) - 2 * border < smallest:
    raise ValueError(f'a border of {border} leaves less than {smallest}x{smallest} of '
                     f'{height}x{width}')
  return (x[:, border:height - border, border:width - border] for x in (a, b))


@functools.partial(jax.jit, static_argnames='border')
def batch_scores(sr: jax.Array, hr: jax.Array, border: int) -> dict[str, jax.Array]:
  """PSNR and SSIM as papers print them: of 8-bit pictures, on luma and on RGB.

  Args:
    sr, hr: [B, H, W, 3] in [0, 1], or [B, H, W, 1], which is scored on its channel. Rounded
      to 256 levels here; the luma is not rounded again.
    border: pixels left out on each side; in papers, the scale.

  Returns:
    {'psnr_y': [B], 'ssim_y': [B], 'psnr_rgb': [B], 'ssim_rgb': [B]}.
  """
  sr, hr = _inner(images.to_levels(sr), images.to_levels(hr), border, WINDOW)
  errors, similarity = _errors_and_ssim(
      sr, hr, *((images.LUMA, images.BLACK) if sr.shape[-1] == 3 else (np.ones(1), 0)))
  errors, similarity = jnp.mean(errors, axis=(1, 2)), jnp.mean(similarity, axis=(1, 2))
  return dict(zip(METRICS, (decibels(errors[:, 0]), similarity[:, 0],
                            decibels(jnp.mean(errors[:, 1:], axis=-1)),
                            jnp.mean(similarity[:, 1:], axis=-1)), strict=True))


def _errors_and_ssim(sr, hr, weights, black):
  """Squared errors and `ssim_map` of Y and of every channel.

  Args:
    sr, hr: [B, H, W, C], whole numbers from 0 to 255. Their difference is exact, so equal
      pictures have an error of zero; of fractions, the compiler may round one side only.
    weights, black: Y is black + the channels times weights, for channels in [0, 1].

  Returns:
    ([B, H, W, 1 + C], [B, H - 10, W - 10, 1 + C]), for samples in [0, 1].
  """
  def with_y(levels, black):
    y = jnp.sum(levels * jnp.asarray(weights, jnp.float32), axis=-1, keepdims=True) / 255 + black
    return jnp.concatenate([y, levels / 255], axis=-1)
  return (jnp.square(with_y(sr - hr, 0)), ssim_map(with_y(sr, black), with_y(hr, black)))


@functools.partial(jax.jit, static_argnames='scale')
def lr_consistency(sr: jax.Array, lr: jax.Array, scale: int) -> jax.Array:
  """PSNR between the LR and the SR shrunk again by MATLAB's bicubic, RGB, whole picture.

  What an SR network may add is what the LR has lost; where this is low, it has shifted
  colours or invented low frequencies. The NTIRE 2021 challenge on the super-resolution
  space (Lugmayr et al. 2021) calls it LR-PSNR and asks for 45 dB.

  Args:
    sr: [B, h * scale, w * scale, C] in [0, 1]; lr: [B, h, w, C]; both rounded to 8 bits.

  Returns:
    [B] in decibels.
  """
  shrunk = images.resize(sr, 1 / scale, eight_bit=True)
  difference = images.to_levels(shrunk) - images.to_levels(lr)  # exact, as in _errors_and_ssim
  return decibels(jnp.mean(jnp.square(difference / 255), axis=(1, 2, 3)))


def accumulator(border: int) -> type[clu_metrics.Collection]:
  """A clu Collection of the means of `figures` over all pictures, kept on the device.

    totals = accumulator(4).single_from_model_output(sr=sr, hr=hr)     # in a jitted step
    totals = totals.merge(...)                                         # once a batch
    totals.compute()                                                   # {'psnr_y': ...}

  `mask`, a bool for each picture, leaves out those that only fill up a last batch.
  """
  def figure(name):
    return clu_metrics.Average.from_fun(lambda sr, hr, **_: batch_scores(sr, hr, border)[name])

  return clu_metrics.Collection.create(**{name: figure(name) for name in METRICS})


# Whole pictures, on the host's side -----------------------------------------------------

TILE, BATCH = 128, 8  # pixels a side, tiles a call; SSIM's banded products grow with TILE
STEP = TILE - WINDOW + 1  # SSIM windows that a tile holds along each axis


def image_scores(sr: np.ndarray, hr: np.ndarray, border: int) -> dict[str, float]:
  """`figures` of two pictures of any size: sums over tiles of one shape, compiled once.

  Args:
    sr, hr: uint8 [H, W, 3 or 1]. A colour SR of a grey HR is scored by its channels' mean.
    border: as in `figures`.

  Returns:
    {'psnr_y': ...}; SSIM is left out where less than 11x11 pixels remain.

  Raises:
    ValueError: heights or widths differ, or the border leaves nothing.
  """
  if sr.shape[:2] != hr.shape[:2]:
    raise ValueError(f'pictures of different shapes: {sr.shape} and {hr.shape}')
  height, width = (side - 2 * border for side in hr.shape[:2])
  if min(height, width) < 1:
    raise ValueError(f'a border of {border} leaves nothing of {hr.shape[0]}x{hr.shape[1]}')
  inner = np.s_[border:border + height, border:border + width]
  pair = np.stack([images.as_rgb(picture)[inner] for picture in (sr, hr)])
  windows = [max(0, side - WINDOW + 1) for side in (height, width)]
  tiles = [(pair[:, top:top + TILE, left:left + TILE], *zip(rows, columns, strict=True))
           for top, *rows in _cuts(height) for left, *columns in _cuts(width)]
  squares, similarity = np.zeros(4), np.zeros(4)
  for first in range(0, len(tiles), BATCH):
    pixels = np.zeros((2, BATCH, TILE, TILE, 3), np.uint8)
    sizes = np.zeros((2, BATCH, 2), np.int32)
    for index, (tile, *counts) in enumerate(tiles[first:first + BATCH]):
      # Filled up with the edge: black would take part in ssim_map's mean.
      missing = [(0, TILE - side) for side in tile.shape[1:3]]
      pixels[:, index] = np.pad(tile, ((0, 0), *missing, (0, 0)), 'edge')
      sizes[:, index] = counts
    sums = jax.device_get(_tile_sums(pixels, sizes, hr.shape[-1] == 1))
    squares += sums[0].sum(axis=0, dtype=np.float64)
    similarity += sums[1].sum(axis=0, dtype=np.float64)
  squares /= height * width
  found = {'psnr_y': _decibels(squares[0]), 'psnr_rgb': _decibels(squares[1:].mean())}
  if min(windows):
    similarity /= windows[0] * windows[1]
    found |= {'ssim_y': similarity[0], 'ssim_rgb': similarity[1:].mean()}
  return {name: float(found[name]) for name in METRICS if name in found}


def _cuts(side: int) -> list[tuple[int, int, int]]:
  """(start, pixels, SSIM windows) of each tile along an axis, so that each counts once.

  Tiles overlap by WINDOW - 1 pixels, which are the later one's.
  """
  windows = max(0, side - WINDOW + 1)
  starts = range(0, max(1, windows), STEP)
  return [(start, side - start if start == starts[-1] else STEP, min(STEP, windows - start))
          for start in starts]


@jax.jit
def _tile_sums(pair, sizes, grey):
  """Sums over each tile, of Y, R, G and B.

  Args:
    pair: uint8 [2, N, TILE, TILE, 3], SR and HR.
    sizes: [2, N, 2], rows and columns of pixels, then of SSIM windows, that count.
    grey: Y is the mean of the channels instead of the luma.

  Returns:
    ([N, 4] squared errors, [N, 4] of `ssim_map`).
  """
  sr, hr = pair.astype(jnp.float32)
  errors, similarity = _errors_and_ssim(sr, hr, jnp.where(grey, 1 / 3, images.LUMA),
                                        jnp.where(grey, 0, images.BLACK))

  def total(values, size):
    rows, columns = (jnp.arange(values.shape[axis]) < size[:, axis - 1:axis] for axis in (1, 2))
    inside = rows[:, :, None, None] & columns[:, None, :, None]
    return jnp.sum(jnp.where(inside, values, 0), axis=(1, 2))

  return total(errors, sizes[0]), total(similarity, sizes[1])


def image_psnr(a: np.ndarray, b: np.ndarray) -> float:
  """PSNR over all channels of two uint8 pictures of a size, in float64 on the host."""
  a, b = (images.as_rgb(picture).astype(np.float64) for picture in (a, b))
  return _decibels(np.mean(np.square(a - b)) / 255**2)


def _decibels(mean_squared_error: float) -> float:
  """As `decibels`, in float64."""
  return -10 * math.log10(mean_squared_error) if mean_squared_error else math.inf
