"""Correction: what is kept, what is replaced, each sample by itself."""

import jax.numpy as jnp
import numpy as np
import pytest

from sr_jax import images, metrics
from sr_jax.inference import correction

THRESHOLDS = (0.05, 0.1, 0.2)


@pytest.fixture(scope='module')
def pair():
  """(sr, enlarged), float32 [7, 9, 3]: what a deviation is varies from none to large."""
  rng = np.random.default_rng(0)
  enlarged = rng.uniform(0, 1, (7, 9, 3)).astype(np.float32)
  sr = np.clip(enlarged + rng.normal(0, 0.15, enlarged.shape), 0, 1).astype(np.float32)
  return sr, enlarged


@pytest.mark.parametrize('kind', correction.KINDS)
def test_nothing_happens_up_to_the_thresholds(pair, kind):
  sr, enlarged = pair
  for thresholds in (1.0, (1, 1, 1), float(np.abs(sr - enlarged).max())):
    np.testing.assert_array_equal(correction.correct(sr, enlarged, thresholds, kind), sr)
  np.testing.assert_array_equal(correction.correct(sr, sr, (0, 0, 0), kind), sr)
  np.testing.assert_array_equal(correction.correct(sr, enlarged, 0, kind), enlarged)


def test_replace_is_the_loop_over_pixels(pair):
  sr, enlarged = pair
  expected = sr.copy()
  for y in range(sr.shape[0]):
    for x in range(sr.shape[1]):
      for channel, threshold in enumerate(THRESHOLDS):
        if abs(sr[y, x, channel] - enlarged[y, x, channel]) > np.float32(threshold):
          expected[y, x, channel] = enlarged[y, x, channel]
  assert 0.2 < (expected == sr).mean() < 0.8
  for convert in (np.asarray, jnp.asarray):
    result = correction.correct(convert(sr), convert(enlarged), THRESHOLDS)
    assert result.dtype == sr.dtype
    np.testing.assert_array_equal(result, expected)
    # A batch is its pictures.
    batch = correction.correct(*(convert(np.stack([one, one[::-1]])) for one in pair), THRESHOLDS)
    np.testing.assert_array_equal(batch, np.stack([expected, expected[::-1]]))


@pytest.mark.parametrize('kind', correction.KINDS)
def test_channels_do_not_see_each_other(pair, kind):
  sr, enlarged = pair
  whole = correction.correct(sr, enlarged, THRESHOLDS, kind)
  for channel, threshold in enumerate(THRESHOLDS):
    alone = np.s_[..., channel:channel + 1]
    np.testing.assert_array_equal(
        correction.correct(sr[alone], enlarged[alone], threshold, kind), whole[alone])


def test_smooth_fades_from_one_to_the_other():
  threshold, deviation = 0.1, np.linspace(0, 0.4, 4001, dtype=np.float32)[:, None, None]
  enlarged = np.full_like(deviation, 0.5)
  for sr in (enlarged + deviation, enlarged - deviation):
    result = np.asarray(correction.correct(sr, enlarged, threshold, 'smooth'))
    low, high = np.minimum(sr, enlarged), np.maximum(sr, enlarged)
    assert (result >= low - 1e-7).all()
    assert (result <= high + 1e-7).all()
    kept, gone = (np.s_[:1000], np.s_[2001:])
    np.testing.assert_array_equal(result[kept], sr[kept])
    np.testing.assert_array_equal(result[gone], enlarged[gone])
    # No step, and no kink: neither the value nor its slope jumps from one sample to the next.
    slope = np.diff(result[:, 0, 0].astype(np.float64)) / 1e-4
    assert np.abs(slope).max() < 4
    assert np.abs(np.diff(slope)).max() < 0.05
    share = (result - enlarged)[1:] / (sr - enlarged)[1:]
    assert (np.diff(share[:, 0, 0]) <= 1e-5).all()
    # By hand: at one and a half thresholds half of each.
    assert share[1499, 0, 0] == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize('kind', correction.KINDS)
def test_injected_aberrant_samples_are_removed(picture, kind):
  hr = picture(48, 64)
  good = images.imresize(images.imresize(hr, 1 / 2), 2)
  enlarged = images.to_float(images.imresize(images.imresize(hr, 1 / 2), 2, 'bilinear'))
  sr, rng = images.to_float(good), np.random.default_rng(1)
  threshold = float(np.abs(sr - enlarged).max())  # the good ones' own deviations stay
  broken, places = sr.copy(), rng.random(sr.shape) < 0.01
  broken[places] = np.where(enlarged[places] < 0.5, 1, 0)
  assert np.abs(broken - enlarged)[places].min() > 2 * threshold
  result = np.asarray(correction.correct(broken, enlarged, threshold, kind))
  np.testing.assert_array_equal(result[places], enlarged[places])
  np.testing.assert_array_equal(result[~places], sr[~places])

  def psnr(sr):
    return float(metrics.psnr(sr[None], images.to_float(hr)[None])[0])
  assert psnr(result) > psnr(broken) + 3
  assert psnr(result) == pytest.approx(psnr(sr), abs=0.3)


@pytest.mark.parametrize('kind', correction.KINDS)
def test_grey_has_one_threshold_or_the_mean_of_three(pair, kind):
  sr, enlarged = (one[..., :1] for one in pair)
  result = correction.correct(sr, enlarged, THRESHOLDS, kind)
  assert result.shape == sr.shape
  np.testing.assert_allclose(
      result, correction.correct(sr, enlarged, np.mean(THRESHOLDS), kind), atol=1e-6)


@pytest.mark.parametrize('kind', correction.KINDS)
def test_what_is_no_number_is_replaced(kind):
  enlarged = np.full((1, 3, 1), 0.5, np.float32)
  sr = np.float32([np.nan, np.inf, 0.5]).reshape(1, 3, 1)
  np.testing.assert_array_equal(correction.correct(sr, enlarged, 0.1, kind), enlarged)


def test_what_can_not_be_corrected_is_refused(pair):
  sr, enlarged = pair
  for arguments, message in (((sr, enlarged, 0.1, 'none'), "kind='none': expected one of replace"),
                             ((sr, enlarged[:1], 0.1), 'different shapes'),
                             ((sr, enlarged, (0.1, 0.2)), '2 thresholds of 3 channels'),
                             ((np.uint8(sr), np.uint8(enlarged), 0.1), 'of uint8: expected float')):
    with pytest.raises(ValueError, match=message):
      correction.correct(*arguments)
