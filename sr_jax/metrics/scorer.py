"""The metrics of one image, and their means over a set."""

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any

import jax
import numpy as np

from sr_jax import images
from sr_jax.data.pictures import Pair
from sr_jax.metrics import psnr_ssim
from sr_jax.models.lpips import LPIPS
from sr_jax.pretrained.lpips import load_lpips

MIN_LPIPS_SIDE = 32  # AlexNet reduces an image by a factor of more than 16

Scores = dict[str, float]  # by the name of the metric
Scorer = Callable[..., Scores]  # scorer(sr, hr, lr=None)


def protocol(border: int, lpips: str, has_lr: bool) -> dict[str, str]:
  """Returns {metric: how it is computed}, to be printed beside the scores.

  Args:
    border: pixels that are ignored on each side.
    lpips: 'alex', 'vgg' or 'none'.
    has_lr: LR images were given; otherwise they were made from HR.
  """
  crop = f'border {border}'
  text = {
      'psnr_y': 'PSNR in dB on the luma (MATLAB rgb2ycbcr, not rounded) of 8-bit images, '
                f'{crop}; for grey HR, on its channel; inf (null in JSON) for identical images',
      'ssim_y': 'SSIM on the same luma: 11x11 Gaussian, sigma 1.5, K .01 .03, valid windows, '
                f'{crop}',
      'psnr_rgb': f'PSNR over R, G and B together, {crop}',
      'ssim_rgb': f'mean SSIM of R, G and B, {crop}',
      'psnr_lr': "LR consistency: RGB PSNR of SR downscaled by MATLAB's bicubic to the LR"}
  if lpips != 'none':
    text[f'lpips_{lpips}'] = f'LPIPS 0.1 ({lpips}), entire image, lower is better'
  return text | {'lr': 'read from files' if has_lr else "HR downscaled by MATLAB's bicubic"}


def make_scorer(scale: int, lpips: str = 'alex', border: int | None = None) -> Scorer:
  """Returns score(sr, hr, lr=None) -> {metric: value} for uint8 [H, W, 3 or 1] images.

  The metrics are those of `image_scores`, `psnr_lr` and, if requested, `lpips_alex` or
  `lpips_vgg`. PSNR and SSIM are compiled once for all image sizes, LPIPS once for each size. A
  colour SR of a grey HR is scored by its channels' mean. SSIM is omitted for images of less than
  11 pixels a side without the border, LPIPS for less than 32.

  Args:
    scale: HR / LR.
    lpips: 'alex', 'vgg' or 'none'.
    border: pixels to ignore on each side, in all metrics but LPIPS and psnr_lr; `scale` if None.

  Raises:
    InputError: the package with LPIPS's weights is not installed.
    ValueError: from the scorer, if shapes differ or the border leaves nothing.
  """
  border = scale if border is None else border
  if lpips != 'none':
    variables = load_lpips(lpips)
    lpips_lock = threading.Lock()  # VGG's features of a large image take gigabytes

  @jax.jit
  def distance(variables: Mapping[str, Any], sr: jax.Array, hr: jax.Array) -> jax.Array:
    # A GPU would otherwise compute float32 convolutions in TF32 and lose the third decimal.
    with jax.default_matmul_precision('highest'):
      return LPIPS(lpips).apply(variables, sr, hr)

  def downscale(image: np.ndarray) -> np.ndarray:
    return images.imresize(images.crop_to_multiple(image, scale), Fraction(1, scale))

  def score(sr: np.ndarray, hr: np.ndarray, lr: np.ndarray | None = None) -> Scores:
    scores = psnr_ssim.image_scores(sr, hr, border)
    if min(hr.shape[:2]) >= scale:
      lr = downscale(hr) if lr is None else lr
      scores['psnr_lr'] = psnr_ssim.image_psnr(downscale(sr), lr)
    if lpips != 'none' and min(hr.shape[:2]) >= MIN_LPIPS_SIDE:
      pair = [images.to_float(images.as_rgb(image))[None] for image in (sr, hr)]
      with lpips_lock:
        scores[f'lpips_{lpips}'] = float(distance(variables, *pair)[0])
    return scores

  return score


def score_set(pairs: Iterable[Pair], upscale: Callable[[np.ndarray], np.ndarray],
              scorer: Scorer) -> dict[str, Scores]:
  """Returns {image: scores} of `upscale(lr)` for all pairs."""
  return {pair.name: scorer(upscale(pair.lr), pair.hr, pair.lr) for pair in pairs}


def mean(scores: Mapping[str, Scores]) -> Scores:
  """Returns each metric's mean over the images that have it."""
  names = {name: None for values in scores.values() for name in values}
  return {name: float(np.mean([values[name] for values in scores.values() if name in values]))
          for name in names}


def summary(scores: Mapping[str, Scores]) -> dict[str, Any]:
  """Returns what JSON files hold of scores: {'images': {image: scores}, 'mean': scores}.

  JSON has no infinity: the PSNR of equal images is null.
  """
  def finite(values: Scores) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
  return {'images': {name: finite(values) for name, values in scores.items()},
          'mean': finite(mean(scores))}
