"""Scores pictures against their originals: the one scorer, and its tables."""

from collections.abc import Callable

import jax
import numpy as np

from sr_jax import images, metrics
from sr_jax.models.lpips import LPIPS
from sr_jax.weights.lpips import load_lpips

SMALLEST_LPIPS = 32  # AlexNet shrinks a picture 16 times and more


def protocol(scale: int, lpips: str) -> dict:
  """What the figures mean, to be printed beside them."""
  text = {'psnr_y': f'PSNR in dB on luma (MATLAB rgb2ycbcr) of 8-bit pictures, border {scale}; '
                    'grey originals on their channel'}
  if lpips != 'none':
    text[f'lpips_{lpips}'] = f'LPIPS 0.1 ({lpips}), whole picture, lower is closer'
  return text


def make_scorer(scale: int, lpips: str = 'alex') -> Callable[[np.ndarray, np.ndarray], dict]:
  """score(sr, hr) -> {'psnr_y': dB, 'lpips_alex': distance} of two uint8 [H, W, C].

  Args:
    scale: its pixels are left out at each border for PSNR.
    lpips: 'alex', 'vgg' or 'none'; left out of a picture under 32 pixels a side.

  Raises:
    InputError: the package with LPIPS's weights is not installed.
  """
  if lpips != 'none':
    variables, distance = load_lpips(lpips), jax.jit(LPIPS(lpips).apply)

  def score(sr, hr):
    figures = {'psnr_y': metrics.psnr_y(sr, hr, scale)}
    if lpips != 'none' and min(hr.shape[:2]) >= SMALLEST_LPIPS:
      pair = (images.to_float(images.as_rgb(picture))[None] for picture in (sr, hr))
      figures[f'lpips_{lpips}'] = float(distance(variables, *pair)[0])
    return figures

  return score


def mean(scores: dict[str, dict]) -> dict[str, float]:
  """Each figure's mean over the pictures that have it."""
  names = {name: None for figures in scores.values() for name in figures}
  return {name: float(np.mean([figures[name] for figures in scores.values() if name in figures]))
          for name in names}


def table(columns: dict[str, dict[str, dict]]) -> str:
  """A plain-text table: a row for each picture and their mean, figures of each column.

  Args:
    columns: {'bicubic': {picture: {'psnr_y': ...}}, 'model': {...}}, the same pictures.
  """
  columns = {column: scores | {'mean': mean(scores)} for column, scores in columns.items()}
  heads = [(column, name) for column, scores in columns.items() for name in scores['mean']]
  rows = [['picture', *(f'{column} {name}' for column, name in heads)]]
  for picture in next(iter(columns.values())):
    figures = (columns[column][picture].get(name) for column, name in heads)
    rows.append([picture, *('' if figure is None else f'{figure:.{_digits(name)}f}'
                            for figure, (_, name) in zip(figures, heads, strict=True))])
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return '\n'.join('  '.join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in
                                                          zip(row[1:], widths[1:], strict=True))])
                   for row in rows)


def _digits(name: str) -> int:
  return 3 if name.startswith('psnr') else 4
