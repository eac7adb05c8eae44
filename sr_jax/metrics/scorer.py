"""The metrics of one image, and their means over a set."""

import math
import threading
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import jax
import numpy as np

from sr_jax import images
from sr_jax.data.pictures import Pair
from sr_jax.metrics import psnr_ssim
from sr_jax.metrics.niqe import is_large_enough
from sr_jax.metrics.niqe import niqe as compute_niqe
from sr_jax.metrics.own import OwnMetric, own_scores
from sr_jax.models.lpips import LPIPS
from sr_jax.pretrained.lpips import load_lpips

MIN_LPIPS_SIDE = 32  # AlexNet reduces an image by a factor of more than 16
NO_METRICS: Mapping[str, OwnMetric] = types.MappingProxyType({})

Scores = dict[str, float]  # by the name of the metric
Scorer = Callable[..., Scores]  # scorer(sr, hr, lr=None, image='')


def protocol(border: int, lpips: str, has_lr: bool, stored: bool = False,
             own: Mapping[str, OwnMetric] = NO_METRICS, niqe: bool = False) -> dict[str, str]:
  """Returns {metric: how it is computed}, to be printed beside the scores.

  Args:
    border: pixels that are ignored on each side.
    lpips: 'alex', 'vgg' or 'none'.
    has_lr: LR images were given; otherwise they were made from HR.
    stored: the samples are those of the files (`images.read_samples`) instead of 8 bits without
      alpha (`images.read_image`).
    own: metrics of the user's own by name.
    niqe: NIQE is computed.
  """
  crop = f'border {border}'
  text = {
      'psnr_y': 'PSNR in dB on the luma (MATLAB rgb2ycbcr, not rounded), '
                f'{crop}; for grey HR, on its channel; inf (null in JSON) for identical images, '
                'excluded from means',
      'ssim_y': 'SSIM on the same luma: 11x11 Gaussian, sigma 1.5, K .01 .03, valid windows, '
                f'{crop}',
      'psnr_rgb': f'PSNR over R, G and B together, {crop}',
      'ssim_rgb': f'mean SSIM of R, G and B, {crop}',
      'psnr_lr': "LR consistency: RGB PSNR of SR downscaled by MATLAB's bicubic to the LR"}
  if lpips != 'none':
    text[f'lpips_{lpips}'] = f'LPIPS 0.1 ({lpips}), entire image, lower is better'
  if niqe:
    text['niqe'] = ('NIQE of SR alone (model: 200 photographs of BSDS500), on the rounded luma or '
                    'the grey channel, entire image, lower is better; values of other programs '
                    'differ')
  text |= {name: metric.meaning for name, metric in own.items()}
  text['samples'] = ('as stored: those of more than 8 bits have 16, alpha is ignored' if stored else
                     '8 bits, alpha composited over white')
  return text | {'lr': 'read from files' if has_lr else "HR downscaled by MATLAB's bicubic"}


def make_scorer(scale: int, lpips: str = 'alex', border: int | None = None,
                own: Mapping[str, OwnMetric] = NO_METRICS, niqe: bool = False) -> Scorer:
  """Returns score(sr, hr, lr=None, image='') -> {metric: value} for uint8 or uint16 [H, W, 3 or 1].

  The metrics are those of `image_scores`, `psnr_lr`, if requested `lpips_alex` or `lpips_vgg` and
  `niqe`, and those of the user's own. PSNR and SSIM are compiled once for all image sizes, LPIPS
  once for each size. A colour SR of a grey HR is scored by its channels' mean. SSIM is omitted for
  images of less than 11 pixels a side without the border, LPIPS for less than 32, NIQE for less
  than two patches of 96x96. `image` is the name of the image, for messages.

  Args:
    scale: HR / LR.
    lpips: 'alex', 'vgg' or 'none'.
    border: pixels to ignore on each side, in all metrics but LPIPS, NIQE, psnr_lr and the user's
      own; `scale` if None.
    own: metrics of the user's own by name.
    niqe: also computes NIQE, which depends on SR only.

  Raises:
    InputError: the package with LPIPS's weights is not installed; from the scorer, if a metric of
      the user's own fails.
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

  def score(sr: np.ndarray, hr: np.ndarray, lr: np.ndarray | None = None,
            image: str = '') -> Scores:
    sr, hr = psnr_ssim.same_depth(sr, hr)
    scores = psnr_ssim.image_scores(sr, hr, border)
    if min(hr.shape[:2]) >= scale:
      lr = downscale(hr) if lr is None else lr
      scores['psnr_lr'] = psnr_ssim.image_psnr(downscale(sr), lr)
    if lpips != 'none' and min(hr.shape[:2]) >= MIN_LPIPS_SIDE:
      pair = [images.to_float(images.as_rgb(image), np.iinfo(image.dtype).max)[None]
              for image in (sr, hr)]
      with lpips_lock:
        scores[f'lpips_{lpips}'] = float(distance(variables, *pair)[0])
    if niqe and is_large_enough(sr):
      scores['niqe'] = compute_niqe(sr)
    return scores | own_scores(own, sr, hr, image)

  return score


def against_clean_lr(score: Scorer) -> Scorer:
  """Returns a scorer whose psnr_lr compares with the reduced HR, for LR that is degraded."""
  return lambda sr, hr, lr=None, image='': score(sr, hr, image=image)


def score_set(pairs: Iterable[Pair], upscale: Callable[[np.ndarray], np.ndarray],
              scorer: Scorer) -> dict[str, Scores]:
  """Returns {image: scores} of `upscale(lr)` for all pairs."""
  return {pair.name: scorer(upscale(pair.lr), pair.hr, pair.lr, image=pair.name)
          for pair in pairs}


def means(methods: Mapping[str, Mapping[str, Scores]]) -> dict[str, Scores]:
  """Returns each method's mean of each metric. All non-finite values are handled by this rule.

  A mean is over the images that have the metric and for which it is finite with every method, so
  that the means of all methods are of the same images. An infinite PSNR (identical images) or a NaN
  is left out, and `exclusions` states how often. A metric without any such image has no finite
  mean, unless it is finite for all images of one method.

  Args:
    methods: {method: {image: scores}}, all of the same images.

  Returns:
    {method: {metric: mean}}; inf or NaN for a metric that has no finite mean.
  """
  kept = {metric: _finite_images(methods, metric) for metric in _metrics_of(methods)}
  return {method: {metric: _mean([values[metric] for image, values in scores.items()
                                  if metric in values and (image in images or not images)])
                   for metric, images in kept.items()
                   if any(metric in values for values in scores.values())}
          for method, scores in methods.items()}


def mean(scores: Mapping[str, Scores], compared: Mapping[str, Scores] | None = None) -> Scores:
  """Returns the `means` of one method.

  Args:
    scores: {image: scores}.
    compared: scores of another method on the same images; where they are not finite, the image is
      left out here too.
  """
  return means({'': scores} | ({'compared': compared} if compared else {}))['']


def exclusions(methods: Mapping[str, Mapping[str, Scores]]) -> list[str]:
  """Returns a line for the metrics whose `means` leave out images, with the reasons and counts.

  Such a line is 'psnr_y, psnr_rgb: mean over 1 of 2 images, 1 infinite (identical)'.
  """
  lines: dict[str, list[str]] = {}
  count = len({image for scores in methods.values() for image in scores})
  for metric in _metrics_of(methods):
    values = {image: [scores.get(image, {}).get(metric) for scores in methods.values()]
              for image in next(iter(methods.values()))}
    missing = sum(all(value is None for value in of) for of in values.values())
    infinite = sum(any(value is not None and math.isinf(value) for value in of)
                   for of in values.values())
    finite = len(_finite_images(methods, metric))
    reasons = [f'{number} {reason}' for number, reason in (
        (infinite, 'infinite' + ' (identical)' * metric.startswith('psnr')),
        (count - finite - infinite - missing, 'NaN'),
        (missing, 'too small')) if number]
    if reasons:
      over = f'mean over {finite} of {count} images' if finite else 'no finite mean'
      lines.setdefault(f'{over}, {", ".join(reasons)}', []).append(metric)
  return [f'{", ".join(metrics)}: {text}' for text, metrics in lines.items()]


def _metrics_of(methods: Mapping[str, Mapping[str, Scores]]) -> list[str]:
  return list(dict.fromkeys(metric for scores in methods.values() for values in scores.values()
                            for metric in values))


def _finite_images(methods: Mapping[str, Mapping[str, Scores]], metric: str) -> set[str]:
  """Returns the images that have a metric and for which it is finite with every method."""
  found: dict[str, list[bool]] = {}
  for scores in methods.values():
    for image, values in scores.items():
      if metric in values:
        found.setdefault(image, []).append(math.isfinite(values[metric]))
  return {image for image, finite in found.items() if all(finite)}


def _mean(values: Sequence[float]) -> float:
  return float(np.mean(values)) if all(map(math.isfinite, values)) else (
      math.inf if math.inf in values else math.nan)


def summaries(methods: Mapping[str, Mapping[str, Scores]]) -> dict[str, dict[str, Any]]:
  """Returns the scores of several methods on the same images, with their means.

  Returns:
    {method: {'images': {image: scores}, 'mean': scores, 'excluded': lines of `exclusions`}}.
  """
  averaged, excluded = means(methods), exclusions(methods)
  return {method: {'images': {name: dict(values) for name, values in scores.items()},
                   'mean': averaged[method], 'excluded': excluded}
          for method, scores in methods.items()}


def summary(scores: Mapping[str, Scores]) -> dict[str, Any]:
  """Returns the `summaries` of one method."""
  return summaries({'': scores})['']


def with_nulls(result: Any) -> Any:
  """Returns nested dicts with None for floats that are not finite, for a JSON file.

  JSON has no infinity, which the PSNR of equal images is.
  """
  if isinstance(result, Mapping):
    return {key: with_nulls(value) for key, value in result.items()}
  return None if isinstance(result, float) and not math.isfinite(result) else result
