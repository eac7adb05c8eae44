"""Thins and smooths logged curves, and describes their trend in words."""

import math
from typing import NamedTuple

import numpy as np
from scipy import special

TREND_SHARE = 0.1  # the share of the steps, counted from the end, that `trend` fits
MIN_POINTS = 8  # with fewer points `trend` returns None


class Curve(NamedTuple):
  """The logged values of one metric.

  Attributes:
    steps: int64 [N], increasing.
    values: float64 [N]; NaN where the log has null, which stands for a non-finite value.
  """

  steps: np.ndarray
  values: np.ndarray

  @property
  def finite(self) -> 'Curve':
    """The curve without its non-finite values."""
    is_finite = np.isfinite(self.values)
    return Curve(self.steps[is_finite], self.values[is_finite])


class Trend(NamedTuple):
  """The change of a curve towards its end.

  Attributes:
    change: change over the fitted steps, by a least-squares line.
    error: half of the 95% interval of `change`, by Student's t.
    level: mean of the fitted values.
    share: share of all steps that was fitted.
  """

  change: float
  error: float
  level: float
  share: float


def thin(curve: Curve, max_points: int = 2_000) -> Curve:
  """Returns at most about `max_points` points of a curve, including its extremes.

  The curve is split into bins of equally many points. The lowest, the highest and the first
  non-finite point of each bin remain, and the first and the last point of the curve.
  """
  count = len(curve.steps)
  if count <= max_points:
    return curve
  width = math.ceil(count / (max_points // 2))
  bins = np.pad(curve.values, (0, -count % width), mode='edge').reshape(-1, width)
  missing = np.isnan(bins)
  starts = np.arange(len(bins)) * width
  lowest = starts + np.where(missing, np.inf, bins).argmin(1)
  highest = starts + np.where(missing, -np.inf, bins).argmax(1)
  gaps = (starts + missing.argmax(1))[missing.any(1)]
  places = np.unique(np.concatenate([[0, count - 1], lowest, highest, gaps]))
  places = places[places < count]
  return Curve(curve.steps[places], curve.values[places])


def smooth(curve: Curve, share: float = 0.05) -> Curve:
  """Returns the mean of the finite values in a window centred on each point.

  The window is `share` of all points wide and truncated at both ends, so that nothing is
  extrapolated. A centred window does not lag behind the curve, as a moving average of past values
  would.
  """
  values, count = curve.values, len(curve.values)
  half = max(1, int(count * share)) // 2
  is_finite = np.isfinite(values)
  sums, counts = (np.concatenate([[0.0], np.cumsum(part)])
                  for part in (np.where(is_finite, values, 0.0), is_finite))
  low = np.maximum(np.arange(count) - half, 0)
  high = np.minimum(np.arange(count) + half + 1, count)
  with np.errstate(invalid='ignore', divide='ignore'):
    mean = (sums[high] - sums[low]) / (counts[high] - counts[low])
  return Curve(curve.steps, mean)


def trend(curve: Curve, start: int, stop: int) -> Trend | None:
  """Fits a line to the last tenth of the steps in (start, stop].

  If the last tenth has fewer than MIN_POINTS finite points, the last MIN_POINTS of the interval are
  fitted. Returns None if the interval has fewer.
  """
  curve = curve.finite
  inside = (curve.steps > start) & (curve.steps <= stop)
  steps, values = curve.steps[inside].astype(float), curve.values[inside]
  if len(steps) < MIN_POINTS or stop <= start:
    return None
  first = min(stop - TREND_SHARE * (stop - start), steps[-MIN_POINTS])
  fitted = steps >= first
  x, y = steps[fitted] - steps[fitted].mean(), values[fitted]
  spread = (x**2).sum()
  if not spread:
    return None
  slope = (x * y).sum() / spread
  residuals = y - y.mean() - slope * x
  span = steps[-1] - first
  degrees = len(x) - 2
  error = (special.stdtrit(degrees, 0.975)
           * math.sqrt((residuals**2).sum() / degrees / spread) * span)
  return Trend(slope * span, error, float(y.mean()), (stop - first) / (stop - start))


def describe_trend(name: str, found: Trend, widest: float, digits: int | None = None,
                   unit: str = '', higher_is_better: bool | None = None) -> str:
  """Returns a trend as a sentence, such as 'PSNR rose 0.02 dB in the last 10%, still improving'.

  A change within its 95% interval is reported as no clear change, and none is stated if the
  interval is too wide to show a change that matters.

  Args:
    widest: the width of the 95% interval up to which a change is stated, in the unit of the text.
    digits: digits after the decimal point; None gives the change in percent of the level.
    higher_is_better: None for a curve that is neither better when it rises nor when it falls.
  """
  change, error = found.change, found.error
  if digits is None:
    change, error = (100 * part / max(abs(found.level), 1e-12) for part in (change, error))
    digits, unit = 1, '%'
  elif unit:
    unit = f' {unit}'
  where = f'in the last {found.share:.0%}'
  if 2 * error > widest:
    what = 'validations' if higher_is_better is not None else 'points'
    return (f'{name}: too few {what} for a trend {where} (its 95% interval is '
            f'{2 * error:.{digits}f}{unit} wide)')
  if abs(change) <= error or round(abs(change), digits) == 0:
    return f'{name}: no clear change {where} ({change:+.{digits}f} ± {error:.{digits}f}{unit})'
  verdict = ''
  if higher_is_better is not None:
    verdict = ', still improving' if (change > 0) == higher_is_better else ', getting worse'
  return (f'{name} {"rose" if change > 0 else "fell"} {abs(change):.{digits}f}{unit} '
          f'{where}{verdict}')
