"""Formats numbers of bytes, seconds and metrics for logs, messages and reports."""

# Unit: (bytes, digits after the decimal point).
_UNITS = {'MB': (10**6, 0), 'GB': (10**9, 1), 'MiB': (2**20, 0), 'GiB': (2**30, 1)}


def format_bytes(count: float, unit: str = 'MiB') -> str:
  """Returns a number of bytes in a unit, such as '1,234 MiB' or '2.5 GB'.

  Args:
    unit: 'MiB' or 'GiB', as is usual for memory; 'MB' or 'GB', as is usual for disks and downloads.
  """
  size, digits = _UNITS[unit]
  return f'{count / size:,.{digits}f} {unit}'


def format_seconds(seconds: float, always_hours: bool = False) -> str:
  """Returns a duration as 'MM:SS', from one hour on as 'H:MM:SS', and from one day on with days.

  Fractions are cut off. Two days and three hours are '2 d 03:00:00'.

  Args:
    always_hours: returns 'H:MM:SS' for shorter durations too, where 'MM:SS' could be mistaken for
      hours and minutes.
  """
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  days, hours = divmod(hours, 24)
  clock = f'{minutes:02}:{seconds:02}'
  if days:
    return f'{days:,} d {hours:02}:{clock}'
  return f'{hours}:{clock}' if hours or always_hours else clock


def format_metric(name: str, value: float, psnr_digits: int = 4) -> str:
  """Returns the value of a metric with the digits that are usual for it.

  A metric of the user's own has five significant digits, because its size is unknown.

  Args:
    psnr_digits: digits of a PSNR after the decimal point; SSIM, LPIPS and NIQE have four.
  """
  if not name.startswith(('psnr', 'ssim', 'lpips')) and name != 'niqe':
    return f'{value:.5g}'
  return f'{value:.{psnr_digits if name.startswith("psnr") else 4}f}'


def better_when_lower(metric: str) -> bool:
  """Returns whether a metric, not one of the user's own, is better when it is lower."""
  return metric.startswith('lpips') or metric == 'niqe'
