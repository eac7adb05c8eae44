"""Thinning, smoothing and the description of a curve's trend."""

import numpy as np
import pytest

from sr_jax.report import curves
from sr_jax.report.curves import Curve


def make(values, every=10):
  values = np.asarray(values, float)
  return Curve(np.arange(1, len(values) + 1) * every, values)


def test_a_short_curve_is_not_thinned():
  curve = make([1, np.nan, 3])
  assert curves.thin(curve, 3) is curve


def test_thinning_keeps_extremes_ends_and_gaps():
  rng = np.random.default_rng(0)
  values = rng.normal(0, 1, 100_000)
  values[31_417], values[77_777], values[50_000:50_010] = 99, -99, np.nan
  thinned = curves.thin(make(values), 2_000)
  assert len(thinned.steps) <= 2_000 + 3
  assert (np.diff(thinned.steps) > 0).all()
  assert list(thinned.steps[[0, -1]]) == [10, 1_000_000]
  kept = dict(zip(thinned.steps.tolist(), thinned.values, strict=True))
  assert (kept[314_180], kept[777_780]) == (99, -99)
  assert np.isnan(thinned.values).sum() == 1
  assert all(values[step // 10 - 1] == value for step, value in kept.items() if value == value)
  # The envelope is that of the full curve everywhere.
  for start in range(0, 50_000, 10_000):
    inside = (thinned.steps > start * 10) & (thinned.steps <= (start + 10_000) * 10)
    part = values[start:start + 10_000]
    assert (thinned.values[inside].min(), thinned.values[inside].max()) == (part.min(), part.max())


def test_smoothing_is_the_mean_of_the_finite_values_of_a_window():
  values = np.arange(100.0)
  np.testing.assert_allclose(curves.smooth(make(values)).values[2:-2], values[2:-2])
  rng = np.random.default_rng(1)
  values = rng.normal(5, 1, 400)
  values[100:140] = np.nan
  smoothed = curves.smooth(make(values)).values
  for place in (0, 5, 99, 120, 250, 399):
    window = values[max(0, place - 10):place + 11]
    expected = np.nanmean(window) if np.isfinite(window).any() else np.nan
    np.testing.assert_allclose(smoothed[place], expected)


def test_a_line_is_fitted_to_the_last_tenth():
  rng = np.random.default_rng(0)
  values = np.concatenate([np.zeros(89), 0.5 + 0.01 * np.arange(11) + rng.normal(0, 1e-3, 11)])
  found = curves.trend(make(values), 0, 1_000)  # to step 1,000
  assert found.change == pytest.approx(0.1, rel=0.05)
  assert found.share == pytest.approx(0.1)
  slope, _ = np.polyfit(np.arange(90, 101), values[89:], 1)
  assert found.change == pytest.approx(slope * 10)


def test_the_change_of_noise_exceeds_its_error_one_time_in_twenty():
  rng = np.random.default_rng(2)
  changes = []
  for _ in range(400):
    found = curves.trend(make(rng.normal(0, 1, 1_000), 1), 0, 1_000)
    changes.append(abs(found.change) > found.error)
  assert 0.02 < np.mean(changes) < 0.08
  eight = [curves.trend(make(rng.normal(0, 1, 8)), 0, 80) for _ in range(400)]
  assert 0.02 < np.mean([abs(found.change) > found.error for found in eight]) < 0.08


def test_few_points_are_fitted_over_more_of_the_curve_and_too_few_have_no_trend():
  found = curves.trend(make(range(1, 11), 100), 0, 1_000)
  assert (found.change, found.share) == (pytest.approx(7), pytest.approx(0.7))
  assert curves.trend(make(range(7)), 0, 70) is None
  assert curves.trend(make([*range(7), np.nan]), 0, 80) is None
  assert curves.trend(make(range(20)), 135, 200) is None  # the first of the last eight is at 130
  assert curves.trend(make(range(20)), 125, 200) is not None


@pytest.mark.parametrize(('change', 'error', 'options', 'sentence'), [
    (0.024, 0.001, {'digits': 2, 'unit': 'dB', 'higher_is_better': True},
     'PSNR rose 0.02 dB in the last 10%, still improving'),
    (-0.024, 0.001, {'digits': 2, 'unit': 'dB', 'higher_is_better': True},
     'PSNR fell 0.02 dB in the last 10%, getting worse'),
    (-0.0123, 0.001, {'digits': 4, 'higher_is_better': False},
     'PSNR fell 0.0123 in the last 10%, still improving'),
    (0.02, 0.024, {'digits': 2, 'unit': 'dB', 'higher_is_better': True},
     'PSNR: no clear change in the last 10% (+0.02 ± 0.02 dB)'),
    (0.001, 0.0, {'digits': 2}, 'PSNR: no clear change in the last 10% (+0.00 ± 0.00)'),
    # Of a run that rose 29.24, 29.86, 30.13, 30.20, as an earlier version fitted it.
    (0.34, 1.52, {'digits': 2, 'unit': 'dB', 'higher_is_better': True},
     'PSNR: too few validations for a trend in the last 10% (its 95% interval is 3.04 dB wide)'),
    (9.0, 0.026, {'digits': 2, 'unit': 'dB', 'higher_is_better': True},
     'PSNR: too few validations for a trend in the last 10% (its 95% interval is 0.05 dB wide)')])
def test_a_trend_is_described_in_a_sentence(change, error, options, sentence):
  found = curves.Trend(change, error, 2.0, 0.1)
  assert curves.describe_trend('PSNR', found, 0.05, **options) == sentence


def test_a_loss_is_described_in_percent():
  found = curves.Trend(-0.5, 0.01, 2.0, 0.1)
  assert curves.describe_trend('pixel', found, 10.0) == 'pixel fell 25.0% in the last 10%'
  found = curves.Trend(-0.5, 0.11, 2.0, 0.1)
  assert 'too few points' in curves.describe_trend('pixel', found, 10.0)
