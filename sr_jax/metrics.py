"""Figures of merit, on the host in float64, by the protocol that papers share."""

import numpy as np

from sr_jax import images


def psnr(a: np.ndarray, b: np.ndarray, border: int = 0) -> float:
  """10 log10(255^2 / mean (a - b)^2), in decibels.

  Args:
    a, b: [H, W] or [H, W, C] of one shape, samples in [0, 255].
    border: pixels left out on each side.

  Returns:
    Infinity where they are equal.

  Raises:
    ValueError: shapes differ, or the border leaves nothing.
  """
  if a.shape != b.shape:
    raise ValueError(f'pictures of different shapes: {a.shape} and {b.shape}')
  if min(a.shape[:2]) <= 2 * border:
    raise ValueError(f'a border of {border} leaves nothing of {a.shape[0]}x{a.shape[1]}')
  inner = slice(border, -border or None)
  error = np.mean(np.square(a[inner, inner].astype(np.float64) - b[inner, inner]))
  return float('inf') if error == 0 else float(10 * np.log10(255.0**2 / error))


def psnr_y(sr: np.ndarray, hr: np.ndarray, border: int) -> float:
  """PSNR of the luma, as tables in papers have it (border = scale).

  The luma is taken from the rounded 8-bit pictures and not rounded itself. A grey HR is
  scored on its one channel, peak 255; a colour SR of a grey HR by its channels' mean.

  Args:
    sr, hr: uint8 [H, W, 3 or 1].
  """
  if hr.shape[-1] == 1:
    return psnr(sr.astype(np.float64).mean(-1), hr[..., 0].astype(np.float64), border)
  return psnr(*(images.luma(images.as_rgb(x).astype(np.float64) / 255) for x in (sr, hr)), border)
