"""Statistics of a degraded LR image, which tell one kind of degradation from another."""

import numpy as np

NAMES = ('PSNR', 'clipped %', 'variation', 'slope', 'brightness', 'colour', 'grid', 'coherence')


def of(lr: np.ndarray, clean: np.ndarray) -> tuple[float, ...]:
  """Returns the values that NAMES lists.

  PSNR to the clean LR in dB; share of samples at 0 or 255 in per cent; mean difference of
  neighbours in levels; slope of the spectrum of the mean over channels, log power by log frequency;
  shift of the mean in levels; spread of this shift over the channels; differences of neighbours
  at the border of 8x8 blocks compared with the others (1 without JPEG); correlation of what was
  added to R and B (near 1 for grey noise).

  Args:
    lr, clean: uint8 [h, w, 3].
  """
  lr, added = lr.astype(np.float64), lr.astype(np.float64) - clean
  shift = added.mean((0, 1))
  steps = [np.abs(np.diff(lr, axis=axis)).mean((1 - axis, 2)) for axis in (0, 1)]
  at_border = np.mean([step[7::8].mean() for step in steps])
  inside = np.mean([np.delete(step, np.s_[7::8]).mean() for step in steps])
  return (
      float(10 * np.log10(255**2 / max(np.mean(added**2), 1e-3))),
      float(100 * np.isin(lr, (0, 255)).mean()),
      float(np.mean([step.mean() for step in steps])),
      _spectrum_slope(lr.mean(2)),
      float(shift.mean()),
      float(shift.std()),
      float((at_border + 0.1) / (inside + 0.1)),
      float(np.mean((added - shift)[..., 0] * (added - shift)[..., 2])
            / (added[..., 0].std() * added[..., 2].std() + 1e-3)))


def _spectrum_slope(plane: np.ndarray) -> float:
  """Returns the slope of log power by log frequency of [h, w] between 1/16 and 1/2 per pixel."""
  window = np.outer(np.hanning(plane.shape[0]), np.hanning(plane.shape[1]))
  power = np.abs(np.fft.fft2((plane - plane.mean()) * window))**2
  frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(side) for side in plane.shape),
                                    indexing='ij'))
  edges = np.geomspace(1 / 16, 1 / 2, 9)
  ring = np.digitize(frequency, edges)
  means = [np.log(power[ring == number].mean() + 1) for number in range(1, len(edges))]
  return float(np.polyfit(np.log(edges[:-1]), means, 1)[0])
