"""NIQE (Mittal, Soundararajan, Bovik 2013), the quality of an image without an original.

"Making a 'completely blind' image quality analyzer", IEEE Signal Processing Letters 20 (3). In
photographs, samples that are normalised by the mean and the deviation around them have a certain
distribution, which blur, noise and compression change. NIQE is the distance between a Gaussian
model of an image's patches and one of sharp patches of photographs, `niqe.npz`, which
tests/golden/make_niqe.py has fitted to the 200 training images of BSDS500.
"""

import functools
import pathlib

import numpy as np
from scipy import ndimage, special

from sr_jax import images
from sr_jax.errors import InputError

PATCH = 96  # pixels a side, at full size
MIN_PATCHES = 2  # fewer have no covariance
MODEL = pathlib.Path(__file__).with_name('niqe.npz')

# The window of the local mean and deviation: 7x7 pixels.
_WINDOW = np.exp(-0.5 * (np.arange(-3, 4) / (7 / 6))**2)
_WINDOW /= _WINDOW.sum()
# Of a generalised Gaussian with shape alpha: (mean |x|)^2 / mean x^2, which grows with alpha.
_SHAPES = np.linspace(0.2, 10, 9801)
_RATIOS = np.exp(2 * special.gammaln(2 / _SHAPES) - special.gammaln(1 / _SHAPES)
                 - special.gammaln(3 / _SHAPES))


def niqe(image: np.ndarray) -> float:
  """Returns the NIQE of an image, of whole patches of 96x96; lower is better.

  It is computed on levels of 8 bits: of the rounded luma of colours (MATLAB's rgb2ycbcr), or of the
  grey channel. The values of different implementations cannot be compared, since their models are
  fitted to different photographs.

  Args:
    image: uint8 or uint16 [H, W, 3 or 1] for which `is_large_enough`.

  Returns:
    A number of at least 0; NaN if fewer than two patches have variation on both sides of the
    mean, as those of a flat image.

  Raises:
    InputError: the image has another type or is too small.
  """
  if image.dtype not in (np.uint8, np.uint16) or image.ndim != 3 or image.shape[-1] not in (1, 3):
    raise InputError(f'{image.dtype} {list(image.shape)}: expected uint8 or uint16 [H, W, 3 or 1]')
  if not is_large_enough(image):
    raise InputError(f'an image of {image.shape[0]}x{image.shape[1]} has fewer than {MIN_PATCHES} '
                     f'patches of {PATCH}x{PATCH}, which NIQE needs')
  features, _ = patch_features(grey_levels(image))
  features = features[np.isfinite(features).all(axis=1)]
  if len(features) < MIN_PATCHES:
    return float('nan')
  mean, covariance = _pristine()
  difference = features.mean(axis=0) - mean
  covariance = (covariance + np.cov(features, rowvar=False)) / 2
  return float(np.sqrt(difference @ np.linalg.solve(covariance, difference)))


def is_large_enough(image: np.ndarray) -> bool:
  """Returns whether [H, W, C] has at least two patches of 96x96."""
  return (image.shape[0] // PATCH) * (image.shape[1] // PATCH) >= MIN_PATCHES


@functools.cache
def _pristine() -> tuple[np.ndarray, np.ndarray]:
  """Returns the mean [36] and the covariance [36, 36] of the features of sharp patches."""
  with np.load(MODEL) as file:
    return file['mean'], file['covariance']


def grey_levels(image: np.ndarray) -> np.ndarray:
  """Returns the rounded luma of colours, or the grey channel, as float64 [H, W] in [0, 255]."""
  image = image.astype(np.float64) / np.iinfo(image.dtype).max
  return images.to_levels(images.luma(image) if image.shape[-1] == 3 else image)[..., 0]


def patch_features(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Computes what NIQE models, for each whole patch from the upper left corner.

  Args:
    levels: float [H, W] in [0, 255], with H and W at least 96.

  Returns:
    ([N, 36] features, 18 at full and 18 at half size; [N] mean deviations at full size, the
    sharpness by which patches of the model are chosen). Rows of patches without variation have
    values that are not finite.
  """
  rows, columns = (side // PATCH for side in levels.shape)
  levels = levels[:rows * PATCH, :columns * PATCH]
  features, sharpness = [], None
  for size in (PATCH, PATCH // 2):
    normalised, deviation = _normalise(levels)

    def cut(field: np.ndarray, size: int = size) -> np.ndarray:  # [N, size, size]
      return field.reshape(rows, size, columns, size).swapaxes(1, 2).reshape(-1, size, size)

    features.append(_features(cut(normalised)))
    if sharpness is None:
      sharpness = cut(deviation).mean(axis=(1, 2))
      levels = images.imresize(np.float32(levels)[..., None], 0.5)[..., 0].astype(np.float64)
  return np.concatenate(features, axis=1), sharpness


def _normalise(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the normalised samples, (x - mean) / (deviation + 1), and the local deviations."""
  def local_mean(field: np.ndarray) -> np.ndarray:
    for axis in (0, 1):
      field = ndimage.correlate1d(field, _WINDOW, axis, mode='nearest')
    return field

  mean = local_mean(levels)
  deviation = np.sqrt(np.abs(local_mean(levels * levels) - mean * mean))
  difference = levels - mean
  difference[np.abs(difference) < 1e-8] = 0  # rounding errors in flat areas, of either sign
  return difference / (deviation + 1), deviation


def _features(patches: np.ndarray) -> np.ndarray:
  """Returns [N, 18] of [N, S, S]: the fits of the samples and of the products of neighbours."""
  shape, left, right = fit_asymmetric(patches)
  features = [shape, (left + right) / 2]
  for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
    shape, left, right = fit_asymmetric(patches * np.roll(patches, shift, axis=(1, 2)))
    mean = (right - left) * np.exp(special.gammaln(2 / shape) - special.gammaln(1 / shape))
    features += [shape, mean, left, right]
  return np.stack(features, axis=1)


def fit_asymmetric(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Fits asymmetric generalised Gaussian distributions by their moments (Lasmar et al. 2009).

  Their density is proportional to exp(-(|x| / left)^shape) below 0 and exp(-(x / right)^shape)
  above. If both scales are equal it is a generalised Gaussian.

  Args:
    values: float [N, ...], one sample for each of N distributions.

  Returns:
    (shape in [0.2, 10], left, right), each [N]; NaN without values on both sides of 0.
  """
  values = values.reshape(len(values), -1)
  absolute = np.abs(values)
  squares = values * values
  with np.errstate(invalid='ignore', divide='ignore'):
    left, right = (np.sqrt((squares * side).sum(axis=1) / side.sum(axis=1))
                   for side in (values < 0, values > 0))
    ratio = left / right
    moments = absolute.mean(axis=1)**2 / squares.mean(axis=1)
    moments = moments * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1)**2
    shape = np.interp(moments, _RATIOS, _SHAPES)
    scale = np.exp((special.gammaln(1 / shape) - special.gammaln(3 / shape)) / 2)
  return shape, left * scale, right * scale
