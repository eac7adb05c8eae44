"""Curves for people: thinned with their extremes, smoothed, and what their end says in words."""

import math
from typing import NamedTuple

import numpy as np
from scipy import special

LAST = 0.1  # the share of the steps that `trend` looks at
FEWEST = 3  # points, without which it says nothing


class Curve(NamedTuple):
  """What a log says of one figure.

  Attributes:
    steps: int64 [N], rising.
    values: float64 [N]; nan where the log has null, which no number is.
  """

  steps: np.ndarray
  values: np.ndarray

  @property
  def finite(self) -> 'Curve':
    kept = np.isfinite(self.values)
    return Curve(self.steps[kept], self.values[kept])


class Trend(NamedTuple):
  """How a curve moved towards its end.

  Attributes:
    change: over the last part, by a straight line through its points.
    error: half of its 95% interval, by Student's t: of three points it is wide.
    level: mean of the last part.
    share: of all the steps, how much the last part is.
  """

  change: float
  error: float
  level: float
  share: float


def thin(curve: Curve, most: int = 2_000) -> Curve:
  """At most about `most` points, the extremes among them.

  The curve is cut into parts of as many points; of each the lowest, the highest and the first
  without a number stay, and the first and the last of all.
  """
  count = len(curve.steps)
  if count <= most:
    return curve
  width = math.ceil(count / (most // 2))
  parts = np.pad(curve.values, (0, -count % width), mode='edge').reshape(-1, width)
  missing = np.isnan(parts)
  begins = np.arange(len(parts)) * width
  lowest = begins + np.where(missing, np.inf, parts).argmin(1)
  highest = begins + np.where(missing, -np.inf, parts).argmax(1)
  gaps = (begins + missing.argmax(1))[missing.any(1)]
  places = np.unique(np.concatenate([[0, count - 1], lowest, highest, gaps]))
  places = places[places < count]
  return Curve(curve.steps[places], curve.values[places])


def smooth(curve: Curve, share: float = 0.05) -> Curve:
  """The mean of the numbers in a window about each point, `share` of all points wide.

  The window is cut off at both ends, so that nothing is invented there, and is no point late, as
  a moving average of the past would be.
  """
  values, count = curve.values, len(curve.values)
  half = max(1, int(count * share)) // 2
  there = np.isfinite(values)
  sums, counts = (np.concatenate([[0.0], np.cumsum(part)])
                  for part in (np.where(there, values, 0.0), there))
  low = np.maximum(np.arange(count) - half, 0)
  high = np.minimum(np.arange(count) + half + 1, count)
  with np.errstate(invalid='ignore', divide='ignore'):
    mean = (sums[high] - sums[low]) / (counts[high] - counts[low])
  return Curve(curve.steps, mean)


def trend(curve: Curve, begin: int, end: int) -> Trend | None:
  """Least squares through the last tenth of the steps after `begin` to `end`, or as much more as
  holds three points; None where not even the whole has as many numbers.
  """
  curve = curve.finite
  inside = (curve.steps > begin) & (curve.steps <= end)
  steps, values = curve.steps[inside].astype(float), curve.values[inside]
  if len(steps) < FEWEST or end <= begin:
    return None
  start = min(end - LAST * (end - begin), steps[-FEWEST])
  last = steps >= start
  x, y = steps[last] - steps[last].mean(), values[last]
  spread = (x**2).sum()
  if not spread:
    return None
  slope = (x * y).sum() / spread
  rest = y - y.mean() - slope * x
  span = steps[-1] - start
  freedom = len(x) - 2
  error = special.stdtrit(freedom, 0.975) * math.sqrt((rest**2).sum() / freedom / spread) * span
  return Trend(slope * span, error, float(y.mean()), (end - start) / (end - begin))


def describe_trend(name: str, found: Trend, digits: int | None = None, unit: str = '',
             up: bool | None = None) -> str:
  """'PSNR rose 0.02 dB in the last 10%': what a trend says, and whether it is more than chance.

  Args:
    digits: after the point; None tells the change in percent of the level.
    up: whether higher is better; None where neither is.
  """
  change, error = found.change, found.error
  if digits is None:
    change, error = (100 * part / max(abs(found.level), 1e-12) for part in (change, error))
    digits, unit = 1, '%'
  elif unit:
    unit = f' {unit}'
  where = f'in the last {found.share:.0%}'
  if abs(change) <= error or round(abs(change), digits) == 0:
    return (f'{name} stood still {where} '
            f'({change:+.{digits}f}{unit}, give or take {error:.{digits}f})')
  verdict = '' if up is None else ', still better' if (change > 0) == up else ', worse'
  return (f'{name} {"rose" if change > 0 else "fell"} {abs(change):.{digits}f}{unit} '
          f'{where}{verdict}')
