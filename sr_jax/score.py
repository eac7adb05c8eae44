"""Scores pictures against their originals: the one scorer, and its tables.

  python -m sr_jax.score --sr results/Set5 --hr data/Set5/HR --scale 4
  python -m sr_jax.score --sr mine.png --hr original.png --scale 2 --lpips none --json s.json

Pairs files by name; baby_x4.png, babyx4.png and baby_SR.png are scored against baby.png.
"""

import math
import pathlib
import sys
import threading
from collections.abc import Callable
from fractions import Fraction

import jax
import numpy as np

from sr_jax import command, files, images, metrics
from sr_jax.data import sources
from sr_jax.errors import InputError
from sr_jax.models.lpips import LPIPS
from sr_jax.weights.lpips import load_lpips

SMALLEST_LPIPS = 32  # AlexNet shrinks a picture 16 times and more


def figure_names(lpips: str) -> tuple[str, ...]:
  """The figures that a picture gets, with `lpips` 'alex', 'vgg' or 'none'."""
  return (*metrics.FIGURES, 'psnr_lr', *([] if lpips == 'none' else [f'lpips_{lpips}']))


def protocol(border: int, lpips: str, own_lr: bool) -> dict[str, str]:
  """What the figures mean, to be printed beside them.

  Args:
    own_lr: LR pictures were there; else they were made from HR.
  """
  cut = f'border {border}'
  text = {
      'psnr_y': f'PSNR in dB on the luma (MATLAB rgb2ycbcr, not rounded) of 8-bit pictures, '
                f'{cut}; grey originals on their channel; equal pictures: inf, in JSON null',
      'ssim_y': f'SSIM on the same: 11x11 Gaussian, sigma 1.5, K .01 .03, valid windows, {cut}',
      'psnr_rgb': f'PSNR over R, G and B together, {cut}',
      'ssim_rgb': f'mean SSIM of R, G and B, {cut}',
      'psnr_lr': "LR consistency: RGB PSNR of SR shrunk by MATLAB's bicubic to the LR"}
  if lpips != 'none':
    text[f'lpips_{lpips}'] = f'LPIPS 0.1 ({lpips}), whole picture, lower is closer'
  return text | {'lr': 'as it was given' if own_lr else "HR shrunk by MATLAB's bicubic"}


# One picture ---------------------------------------------------------------------------


def make_scorer(scale: int, lpips: str = 'alex', border: int | None = None) -> Callable:
  """score(sr, hr, lr=None) -> {figure: value} of uint8 [H, W, 3 or 1], HR's shape being SR's.

  The figures are those of `metrics.figures`, `psnr_lr` and, asked for, `lpips_alex` or
  `lpips_vgg`. Whatever the pictures' shapes, PSNR and SSIM are compiled once; LPIPS is
  compiled for each shape. A colour SR of a grey HR is scored by its channels' mean. SSIM is
  left out of what is under 11 pixels a side without its border, LPIPS of what is under 32.

  Args:
    scale: HR / LR.
    lpips: 'alex', 'vgg' or 'none'.
    border: pixels left out on each side, for all but LPIPS and psnr_lr; `scale` if None.

  Raises:
    InputError: the package with LPIPS's weights is not installed. The scorer: ValueError
      where shapes differ or the border leaves nothing.
  """
  border = scale if border is None else border
  if lpips != 'none':
    variables, distance = load_lpips(lpips), jax.jit(LPIPS(lpips).apply)
    one_at_a_time = threading.Lock()  # VGG's features of a large picture are gigabytes

  def shrink(picture):
    return images.imresize(images.crop_to_multiple(picture, scale), Fraction(1, scale))

  def score(sr, hr, lr=None):
    figures = metrics.figures_of_picture(sr, hr, border)
    if min(hr.shape[:2]) >= scale:
      lr = shrink(hr) if lr is None else lr
      figures['psnr_lr'] = metrics.psnr_of_picture(shrink(sr), lr)
    if lpips != 'none' and min(hr.shape[:2]) >= SMALLEST_LPIPS:
      pair = [images.to_float(images.as_rgb(picture))[None] for picture in (sr, hr)]
      with one_at_a_time:
        figures[f'lpips_{lpips}'] = float(distance(variables, *pair)[0])
    return figures

  return score


# Tables --------------------------------------------------------------------------------


def mean(scores: dict[str, dict]) -> dict[str, float]:
  """Each figure's mean over the pictures that have it."""
  names = {name: None for figures in scores.values() for name in figures}
  return {name: float(np.mean([figures[name] for figures in scores.values() if name in figures]))
          for name in names}


def summary(scores: dict[str, dict]) -> dict:
  """What JSON files hold of scores: {'images': {picture: figures}, 'mean': figures}.

  JSON has no infinity: the PSNR of equal pictures is null.
  """
  def finite(figures):
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}
  return {'images': {name: finite(figures) for name, figures in scores.items()},
          'mean': finite(mean(scores))}


def table(methods: dict[str, dict[str, dict]], markdown: bool = False) -> str:
  """A row for each picture and method, then the means.

  Args:
    methods: {'bicubic': {picture: {'psnr_y': ...}}, 'model': {...}}, of the same pictures.
    markdown: pipes, as GitHub reads them, instead of spaces alone.
  """
  means = {method: mean(scores) for method, scores in methods.items()}
  names = list(dict.fromkeys(name for figures in means.values() for name in figures))
  rows = [['picture', *(['method'] if len(methods) > 1 else []), *names]]
  for picture in [*next(iter(methods.values())), None]:
    for place, (method, scores) in enumerate(methods.items()):
      figures = means[method] if picture is None else scores[picture]
      cells = (f'{figures[name]:.{_digits(name)}f}' if name in figures else '' for name in names)
      word = '' if place else picture or 'mean'  # once for all its methods
      rows.append([word, *([method] if len(methods) > 1 else []), *cells])
  words = len(rows[0]) - len(names)
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = [[cell.ljust(width) if column < words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))] for row in rows]
  if not markdown:
    return '\n'.join('  '.join(line).rstrip() for line in lines)
  rule = ['-' * width if column < words else '-' * (width - 1) + ':'
          for column, width in enumerate(widths)]
  return '\n'.join('| ' + ' | '.join(line) + ' |' for line in (lines[0], rule, *lines[1:]))


def _digits(name: str) -> int:
  return 3 if name.startswith('psnr') else 4


def legend(meanings: dict[str, str], markdown: bool = False) -> str:
  """The protocol, a line for each figure."""
  return '\n'.join(f'- `{name}`: {text}' if markdown else f'{name}: {text}'
                   for name, text in meanings.items())


# The command line ----------------------------------------------------------------------


def main(argv: list[str] | None = None) -> None:
  parser = command.Parser('python -m sr_jax.score', __doc__)
  parser.add_argument('--sr', required=True, help='results: a folder or a picture')
  parser.add_argument('--hr', required=True, help='originals: a folder or a picture')
  parser.add_argument('--lr', help='the LR pictures that SR was made from, for psnr_lr; without '
                      "it HR by MATLAB's bicubic")
  parser.add_argument('--scale', required=True, type=int, help='HR / LR')
  parser.add_argument('--border', type=int, help='pixels left out on each side; default: the scale')
  parser.add_argument('--lpips', choices=('alex', 'vgg', 'none'), default='alex')
  parser.add_argument('--json', metavar='FILE', help='writes figures and protocol there too')
  parser.add_argument('--markdown', metavar='FILE', help='writes the table there too')
  args = parser.parse_args(argv)
  border = args.scale if args.border is None else args.border
  if args.scale < 1 or border < 0:
    raise InputError(f'--scale={args.scale}, --border={border}: expected at least 1 and 0')

  triples = _partners(args)
  _check_sizes(triples, args.scale, border)
  scorer = make_scorer(args.scale, args.lpips, border)

  def score_one(triple):
    name, hr_path, sr_path, lr_path = triple
    sr, hr = images.read_image(sr_path), images.read_image(hr_path)
    lr = images.read_image(lr_path) if lr_path else None
    cropped = hr.shape[:2] != sr.shape[:2]
    if cropped:
      hr = images.crop_to_multiple(hr, args.scale)
    try:
      return name, scorer(sr, hr, lr), cropped
    except ValueError as error:  # a header may lie about what the picture is
      raise InputError(f'{sr_path} and {hr_path}: {error}') from None

  results = command.on_all_cores(score_one, triples)
  scores = {name: figures for name, figures, _ in results}
  meanings = protocol(border, args.lpips, bool(args.lr))
  cropped = [name for name, _, cut in results if cut]
  if args.json:
    files.write_json(args.json, {'protocol': meanings, **summary(scores)})
  if args.markdown:
    files.write_text(args.markdown, f'{table({"": scores}, markdown=True)}\n\n'
                                    f'{legend(meanings, markdown=True)}\n')
  print(table({'': scores}))
  if cropped:
    print(f'HR cropped to a multiple of {args.scale}: {sources.listed(cropped)}')
  print(f'\n{legend(meanings)}')


def _partners(args) -> list[tuple[str, pathlib.Path, pathlib.Path, pathlib.Path | None]]:
  """(name, HR, SR, LR or None) of every picture."""
  sides = {}
  for side in ('hr', 'sr', 'lr'):
    path = getattr(args, side) and pathlib.Path(getattr(args, side)).expanduser()
    if path and not path.exists():
      raise InputError(f'{path}: no such file or folder')
    sides[side] = path and (sources.named(path) if path.is_dir() else {path.stem: path})
  if all(len(found) == 1 for found in sides.values() if found):  # names do not matter then
    hr, sr, lr = (next(iter(found.values())) if found else None for found in sides.values())
    return [(hr.stem, hr, sr, lr)]
  pairs, alone = sources.pair_by_name(sides['hr'], sides['sr'], args.scale)
  sources.refuse_unpaired(alone)
  if not sides['lr']:
    return [(*pair, None) for pair in pairs]
  with_lr, alone = sources.pair_by_name(sides['hr'], sides['lr'], args.scale)
  sources.refuse_unpaired(alone)
  lr = {name: path for name, _, path in with_lr}
  return [(*pair, lr[pair[0]]) for pair in pairs]


def _check_sizes(triples, scale: int, border: int) -> None:
  """Refuses before the first is scored what can't be, all of it in one line."""
  wrong = []
  for _, hr_path, sr_path, lr_path in triples:
    hr, sr = images.image_size(hr_path), images.image_size(sr_path)
    cropped = tuple(side // scale * scale for side in hr)
    if sr not in (hr, cropped):
      wrong.append(f'{sr_path} is {sr[0]}x{sr[1]}, {hr_path.name} {hr[0]}x{hr[1]}')
    elif min(sr) <= 2 * border:
      wrong.append(f'{sr_path}: a border of {border} leaves nothing of {sr[0]}x{sr[1]}')
    elif lr_path:
      lr = images.image_size(lr_path)
      if lr != tuple(side // scale for side in sr):
        wrong.append(f'{lr_path} is {lr[0]}x{lr[1]}, its SR {sr[0]}x{sr[1]}')
  if wrong:
    raise InputError(f'{len(wrong)} of wrong size: {sources.listed(wrong)}')


if __name__ == '__main__':
  sys.exit(command.run(main))
