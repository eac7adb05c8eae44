"""Tests of correction by bilinear interpolation: which samples are kept and replaced."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest

from sr_jax import images, metrics
from sr_jax.inference import correction

THRESHOLDS = (0.05, 0.1, 0.2)


@pytest.fixture(scope='module')
def pair() -> tuple[np.ndarray, np.ndarray]:
  """Returns (sr, bilinear), float32 [7, 9, 3], whose deviations vary from zero to large."""
  rng = np.random.default_rng(0)
  bilinear = rng.uniform(0, 1, (7, 9, 3)).astype(np.float32)
  sr = np.clip(bilinear + rng.normal(0, 0.15, bilinear.shape), 0, 1).astype(np.float32)
  return sr, bilinear


@pytest.mark.parametrize('kind', correction.KINDS)
def test_samples_within_the_thresholds_are_unchanged(pair: tuple[np.ndarray, np.ndarray],
                                                     kind: str) -> None:
  sr, bilinear = pair
  for thresholds in (1.0, (1, 1, 1), float(np.abs(sr - bilinear).max())):
    np.testing.assert_array_equal(correction.correct(sr, bilinear, thresholds, kind), sr)
  np.testing.assert_array_equal(correction.correct(sr, sr, (0, 0, 0), kind), sr)
  np.testing.assert_array_equal(correction.correct(sr, bilinear, 0, kind), bilinear)


def test_replace_equals_a_loop_over_pixels(pair: tuple[np.ndarray, np.ndarray]) -> None:
  sr, bilinear = pair
  expected = sr.copy()
  for y in range(sr.shape[0]):
    for x in range(sr.shape[1]):
      for channel, threshold in enumerate(THRESHOLDS):
        if abs(sr[y, x, channel] - bilinear[y, x, channel]) > np.float32(threshold):
          expected[y, x, channel] = bilinear[y, x, channel]
  assert 0.2 < (expected == sr).mean() < 0.8
  for convert in (np.asarray, jnp.asarray):
    result = correction.correct(convert(sr), convert(bilinear), THRESHOLDS)
    assert result.dtype == sr.dtype
    np.testing.assert_array_equal(result, expected)
    # A batch gives the same as its images.
    batch = correction.correct(*(convert(np.stack([one, one[::-1]])) for one in pair), THRESHOLDS)
    np.testing.assert_array_equal(batch, np.stack([expected, expected[::-1]]))


@pytest.mark.parametrize('kind', correction.KINDS)
def test_channels_are_independent(pair: tuple[np.ndarray, np.ndarray], kind: str) -> None:
  sr, bilinear = pair
  whole = correction.correct(sr, bilinear, THRESHOLDS, kind)
  for channel, threshold in enumerate(THRESHOLDS):
    alone = np.s_[..., channel:channel + 1]
    np.testing.assert_array_equal(
        correction.correct(sr[alone], bilinear[alone], threshold, kind), whole[alone])


def test_smooth_fades_without_a_step() -> None:
  threshold, deviation = 0.1, np.linspace(0, 0.4, 4001, dtype=np.float32)[:, None, None]
  bilinear = np.full_like(deviation, 0.5)
  for sr in (bilinear + deviation, bilinear - deviation):
    result = np.asarray(correction.correct(sr, bilinear, threshold, 'smooth'))
    low, high = np.minimum(sr, bilinear), np.maximum(sr, bilinear)
    assert (result >= low - 1e-7).all()
    assert (result <= high + 1e-7).all()
    kept, gone = (np.s_[:1000], np.s_[2001:])
    np.testing.assert_array_equal(result[kept], sr[kept])
    np.testing.assert_array_equal(result[gone], bilinear[gone])
    # Neither the value nor its slope jumps from one sample to the next.
    slope = np.diff(result[:, 0, 0].astype(np.float64)) / 1e-4
    assert np.abs(slope).max() < 4
    assert np.abs(np.diff(slope)).max() < 0.05
    share = (result - bilinear)[1:] / (sr - bilinear)[1:]
    assert (np.diff(share[:, 0, 0]) <= 1e-5).all()
    # Calculated by hand: at one and a half thresholds, half of each.
    assert share[1499, 0, 0] == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize('kind', correction.KINDS)
def test_injected_aberrant_samples_are_removed(picture: Callable, kind: str) -> None:
  hr = picture(48, 64)
  good = images.imresize(images.imresize(hr, 1 / 2), 2)
  bilinear = images.to_float(images.imresize(images.imresize(hr, 1 / 2), 2, 'bilinear'))
  sr, rng = images.to_float(good), np.random.default_rng(1)
  threshold = float(np.abs(sr - bilinear).max())  # the intact samples stay below it
  broken, places = sr.copy(), rng.random(sr.shape) < 0.01
  broken[places] = np.where(bilinear[places] < 0.5, 1, 0)
  assert np.abs(broken - bilinear)[places].min() > 2 * threshold
  result = np.asarray(correction.correct(broken, bilinear, threshold, kind))
  np.testing.assert_array_equal(result[places], bilinear[places])
  np.testing.assert_array_equal(result[~places], sr[~places])

  def psnr(sr: np.ndarray) -> float:
    return float(metrics.psnr(sr[None], images.to_float(hr)[None])[0])
  assert psnr(result) > psnr(broken) + 3
  assert psnr(result) == pytest.approx(psnr(sr), abs=0.3)


@pytest.mark.parametrize('kind', correction.KINDS)
def test_grey_uses_the_mean_of_three_thresholds(pair: tuple[np.ndarray, np.ndarray],
                                                kind: str) -> None:
  sr, bilinear = (one[..., :1] for one in pair)
  result = correction.correct(sr, bilinear, THRESHOLDS, kind)
  assert result.shape == sr.shape
  np.testing.assert_allclose(
      result, correction.correct(sr, bilinear, np.mean(THRESHOLDS), kind), atol=1e-6)


@pytest.mark.parametrize('kind', correction.KINDS)
def test_non_finite_samples_are_replaced(kind: str) -> None:
  bilinear = np.full((1, 3, 1), 0.5, np.float32)
  sr = np.float32([np.nan, np.inf, 0.5]).reshape(1, 3, 1)
  np.testing.assert_array_equal(correction.correct(sr, bilinear, 0.1, kind), bilinear)


def test_wrong_arguments_are_refused(pair: tuple[np.ndarray, np.ndarray]) -> None:
  sr, bilinear = pair
  for arguments, message in (((sr, bilinear, 0.1, 'none'), "kind='none'.*replace, smooth"),
                             ((sr, bilinear[:1], 0.1), r'shapes.*\(7, 9, 3\).*\(1, 9, 3\)'),
                             ((sr, bilinear, (0.1, 0.2)), '2 thresholds.*3 channels'),
                             ((np.uint8(sr), np.uint8(bilinear), 0.1), 'uint8.*float')):
    with pytest.raises(ValueError, match=message):
      correction.correct(*arguments)
