"""NIQE against BasicSR, its fits against samples of known distributions, and its properties."""

import json
import pathlib

import numpy as np
import pytest
from scipy import ndimage, stats
from skimage import data

from sr_jax import images
from sr_jax.errors import InputError
from sr_jax.metrics import niqe
from sr_jax.metrics.scorer import make_scorer
from tests.golden import make_niqe


def photo(height: int = 192, width: int = 288) -> np.ndarray:
  """Returns a part of a photograph, uint8 [height, width, 3]."""
  return data.chelsea()[:height, 100:100 + width]


def noisy(image: np.ndarray, levels: float) -> np.ndarray:
  noise = np.random.default_rng(0).normal(0, levels, image.shape)
  return images.to_uint8((image + noise) / 255)


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
  return images.to_uint8(ndimage.gaussian_filter(np.float64(image), (sigma, sigma, 0)) / 255)


def test_values_of_basicsr_with_our_model() -> None:
  """It resizes with other borders, and its shapes are multiples of 0.001: 0.15% of the value."""
  expected = json.loads((make_niqe.HERE / 'niqe.json').read_text())
  assert {name: niqe.niqe(image) for name, image in make_niqe.pictures().items()
          } == pytest.approx(expected, rel=2e-3)


@pytest.mark.slow
def test_the_model_is_what_the_script_fits(assets: pathlib.Path) -> None:
  fitted = make_niqe.fit_model(assets / 'BSDS500' / 'train')
  with np.load(niqe.MODEL) as file:
    assert set(file) == set(fitted)
    for name in fitted:  # JPEG decoders differ by a level here and there
      np.testing.assert_allclose(file[name], fitted[name], rtol=0.02, atol=1e-4, err_msg=name)


@pytest.mark.parametrize('shape', [0.7, 1.0, 2.0, 5.0])
def test_fits_of_samples_of_generalised_gaussians(shape: float) -> None:
  """Samples of scipy.stats; an asymmetric density has a share of each side like its scale."""
  rng = np.random.default_rng(1)
  for left, right in ((1.5, 1.5), (0.5, 2.0)):
    sizes = abs(stats.gennorm.rvs(shape, size=(2, 200_000), random_state=rng))
    below = rng.random(sizes.shape) < left / (left + right)
    found = niqe.fit_asymmetric(np.where(below, -left * sizes, right * sizes))
    for values, expected in zip(found, (shape, left, right), strict=True):
      assert values == pytest.approx(np.full(2, expected), rel=0.03)


def test_stronger_distortions_have_a_higher_value() -> None:
  plain = niqe.niqe(photo())
  for distort, strengths in ((noisy, (8, 20, 50)), (blurred, (1, 2, 4))):
    values = [plain, *(niqe.niqe(distort(photo(), strength)) for strength in strengths)]
    assert values == sorted(values)
    assert values[-1] > 2 * plain


def test_depth_and_incomplete_patches_do_not_matter() -> None:
  expected = niqe.niqe(photo())
  assert niqe.niqe(np.uint16(photo()) * 257) == expected
  assert niqe.niqe(photo(192 + 40, 288 + 30)) == expected
  grey = photo()[..., 1:2]
  assert niqe.niqe(np.uint16(grey) * 257) == niqe.niqe(grey) != expected


def test_flat_images_have_no_value() -> None:
  flat = np.full((200, 300, 3), 77, np.uint8)
  assert np.isnan(niqe.niqe(flat))
  flat[:, 100:] = photo(200, 200)
  assert np.isfinite(niqe.niqe(flat))


@pytest.mark.parametrize(('image', 'words'), [
    (np.zeros((191, 191, 3), np.uint8), '191x191'), (np.zeros((95, 900, 1), np.uint8), '95x900'),
    (np.zeros((192, 192, 3), np.float32), 'float32'), (np.zeros((192, 192), np.uint8), '192, 192'),
    (np.zeros((192, 192, 4), np.uint8), '192, 192, 4')])
def test_images_without_niqe_are_refused(image: np.ndarray, words: str) -> None:
  with pytest.raises(InputError, match=words):
    niqe.niqe(image)


def test_the_scorer_computes_it_of_sr_alone() -> None:
  score = make_scorer(2, 'none', niqe=True)
  sr, hr = blurred(photo(), 1), photo()
  assert score(sr, hr)['niqe'] == niqe.niqe(sr)
  assert score(sr, np.uint16(hr) * 257)['niqe'] == niqe.niqe(sr)
  assert 'niqe' not in score(sr[:190, :190], hr[:190, :190])
  assert 'niqe' not in make_scorer(2, 'none')(sr, hr)
