"""One picture's scores, and their means."""

import math
import threading
from collections.abc import Callable, Iterable
from fractions import Fraction

import jax
import numpy as np

from sr_jax import images
from sr_jax.data.pictures import Pair
from sr_jax.metrics import psnr_ssim
from sr_jax.models.lpips import LPIPS
from sr_jax.pretrained.lpips import load_lpips

SMALLEST_LPIPS = 32  # AlexNet shrinks a picture 16 times and more


def protocol(border: int, lpips: str, own_lr: bool) -> dict[str, str]:
  """What the figures mean, to be printed beside them.

  Args:
    own_lr: LR pictures were there; else they were made from HR.
  """
  cut = f'border {border}'
  text = {
      'psnr_y': f'PSNR in dB on the luma (MATLAB rgb2ycbcr, not rounded) of 8-bit pictures, '
                f'{cut}; grey originals on their channel; equal pictures: inf, in JSON null',
      'ssim_y': f'SSIM on the same: 11x11 Gaussian, sigma 1.5, K .01 .03, valid windows, {cut}',
      'psnr_rgb': f'PSNR over R, G and B together, {cut}',
      'ssim_rgb': f'mean SSIM of R, G and B, {cut}',
      'psnr_lr': "LR consistency: RGB PSNR of SR shrunk by MATLAB's bicubic to the LR"}
  if lpips != 'none':
    text[f'lpips_{lpips}'] = f'LPIPS 0.1 ({lpips}), whole picture, lower is closer'
  return text | {'lr': 'as it was given' if own_lr else "HR shrunk by MATLAB's bicubic"}


def make_scorer(scale: int, lpips: str = 'alex', border: int | None = None) -> Callable:
  """score(sr, hr, lr=None) -> {figure: value} of uint8 [H, W, 3 or 1], HR's shape being SR's.

  The figures are those of `metrics.figures`, `psnr_lr` and, asked for, `lpips_alex` or
  `lpips_vgg`. Whatever the pictures' shapes, PSNR and SSIM are compiled once; LPIPS is
  compiled for each shape. A colour SR of a grey HR is scored by its channels' mean. SSIM is
  left out of what is under 11 pixels a side without its border, LPIPS of what is under 32.

  Args:
    scale: HR / LR.
    lpips: 'alex', 'vgg' or 'none'.
    border: pixels left out on each side, for all but LPIPS and psnr_lr; `scale` if None.

  Raises:
    InputError: the package with LPIPS's weights is not installed. The scorer: ValueError
      where shapes differ or the border leaves nothing.
  """
  border = scale if border is None else border
  if lpips != 'none':
    variables = load_lpips(lpips)
    one_at_a_time = threading.Lock()  # VGG's features of a large picture are gigabytes

  @jax.jit
  def distance(variables, sr, hr):
    # A GPU would otherwise take float32 convolutions in TF32, and lose the third decimal.
    with jax.default_matmul_precision('highest'):
      return LPIPS(lpips).apply(variables, sr, hr)

  def shrink(picture):
    return images.imresize(images.crop_to_multiple(picture, scale), Fraction(1, scale))

  def score(sr, hr, lr=None):
    figures = psnr_ssim.image_scores(sr, hr, border)
    if min(hr.shape[:2]) >= scale:
      lr = shrink(hr) if lr is None else lr
      figures['psnr_lr'] = psnr_ssim.image_psnr(shrink(sr), lr)
    if lpips != 'none' and min(hr.shape[:2]) >= SMALLEST_LPIPS:
      pair = [images.to_float(images.as_rgb(picture))[None] for picture in (sr, hr)]
      with one_at_a_time:
        figures[f'lpips_{lpips}'] = float(distance(variables, *pair)[0])
    return figures

  return score


def mean(scores: dict[str, dict]) -> dict[str, float]:
  """Each figure's mean over the pictures that have it."""
  names = {name: None for figures in scores.values() for name in figures}
  return {name: float(np.mean([figures[name] for figures in scores.values() if name in figures]))
          for name in names}


def summary(scores: dict[str, dict]) -> dict:
  """What JSON files hold of scores: {'images': {picture: figures}, 'mean': figures}.

  JSON has no infinity: the PSNR of equal pictures is null.
  """
  def finite(figures):
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}
  return {'images': {name: finite(figures) for name, figures in scores.items()},
          'mean': finite(mean(scores))}


def score_set(pairs: Iterable[Pair], upscale: Callable[[np.ndarray], np.ndarray],
              scorer) -> dict[str, dict]:
  """{picture: figures} of `upscale` over pairs."""
  return {pair.name: scorer(upscale(pair.lr), pair.hr, pair.lr) for pair in pairs}
