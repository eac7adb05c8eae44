"""Scores pictures against their originals: the one scorer, and its tables.

  python -m sr_jax.score --sr results/Set5 --hr data/Set5/HR --scale 4
  python -m sr_jax.score --sr mine.png --hr original.png --scale 2 --lpips none --json s.json

Pairs files by name; baby_x4.png, babyx4.png and baby_SR.png are scored against baby.png.
"""

import math
import sys
import threading
from collections.abc import Callable
from fractions import Fraction

import jax
import numpy as np

from sr_jax import images, metrics
from sr_jax.data import folders
from sr_jax.errors import InputError, listed
from sr_jax.models.lpips import LPIPS
from sr_jax.pretrained.lpips import load_lpips
from sr_jax.system import cli, compile_cache, files, threads

SMALLEST_LPIPS = 32  # AlexNet shrinks a picture 16 times and more


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
    variables = load_lpips(lpips)
    one_at_a_time = threading.Lock()  # VGG's features of a large picture are gigabytes

  @jax.jit
  def distance(variables, sr, hr):
    # A GPU would otherwise take float32 convolutions in TF32, and lose the third decimal.
    with jax.default_matmul_precision('highest'):
      return LPIPS(lpips).apply(variables, sr, hr)

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
  parser = cli.Parser('python -m sr_jax.score', __doc__)
  add = parser.add_argument
  add('--sr', required=True, type=cli.path, help='results: a folder or a picture')
  add('--hr', required=True, type=cli.path, help='originals: a folder or a picture')
  add('--lr', type=cli.path, help='the LR pictures that SR was made from, for psnr_lr; '
      "without it HR shrunk by MATLAB's bicubic")
  add('--scale', required=True, type=int, help='HR / LR')
  add('--border', type=int, help='pixels left out on each side; default: the scale')
  add('--lpips', choices=('alex', 'vgg', 'none'), default='alex')
  add('--json', metavar='FILE', type=cli.path, help='writes figures and protocol there too')
  add('--markdown', metavar='FILE', type=cli.path, help='writes the table there too')
  args = parser.parse_args(argv)
  border = args.scale if args.border is None else args.border
  if args.scale < 1 or border < 0:
    raise InputError(f'--scale={args.scale}, --border={border}: expected at least 1 and 0')
  for path in filter(None, (args.json, args.markdown)):
    if path.is_dir():
      raise InputError(f'{path}: can not be written, it is a folder')

  compile_cache.use_cache()
  triples = _partners(args.hr, args.sr, args.lr, args.scale)
  _check_sizes(triples, args.scale, border)
  scorer = make_scorer(args.scale, args.lpips, border)

  def score_one(triple):
    name, *paths = triple
    hr, sr, lr = (images.read_image(path) if path else None for path in paths)
    cropped = hr.shape[:2] != sr.shape[:2]
    if cropped:
      hr = images.crop_to_multiple(hr, args.scale)
    return name, scorer(sr, hr, lr), cropped

  results = threads.on_all_cores(score_one, triples)
  scores = {name: figures for name, figures, _ in results}
  cropped = [name for name, _, cut in results if cut]
  meanings = protocol(border, args.lpips, bool(args.lr))
  print(table({'': scores}))
  if cropped:
    print(f'HR cropped to a multiple of {args.scale}: {listed(cropped)}')
  print(f'\n{legend(meanings)}')
  if args.json:
    files.write_json(args.json, {'protocol': meanings, **summary(scores)})
  if args.markdown:
    files.write_text(args.markdown, f'{table({"": scores}, markdown=True)}\n\n'
                                    f'{legend(meanings, markdown=True)}\n')


def _partners(hr, sr, lr, scale: int):
  """[(name, HR file, SR file, LR file or None)] of every picture.

  Raises:
    InputError: something is not there, or has no partner.
  """
  sides = [path for path in (hr, sr, lr) if path]
  for path in sides:
    if not path.exists():
      raise InputError(f'{path}: no such file or folder')
  if not any(path.is_dir() for path in sides):
    return [(hr.stem, hr, sr, lr)]  # two files need no common name
  first, *others = ({path.stem: path} if path.is_file() else folders.named(path)
                    for path in sides)
  found = {name: [path] for name, path in first.items()}
  for other in others:
    for name, _, partner in folders.partners(first, other, scale):
      found[name].append(partner)
  return [(name, *paths, *([] if lr else [None])) for name, paths in found.items()]


def _check_sizes(triples, scale: int, border: int) -> None:
  """Refuses before the first is scored what can't be, all of it in one line."""
  def fault(hr_path, sr_path, lr_path, size):
    hr, sr = size(hr_path), size(sr_path)
    if sr not in (hr, tuple(side // scale * scale for side in hr)):
      return f'{sr_path} is {sr[0]}x{sr[1]}, {hr_path.name} {hr[0]}x{hr[1]}'
    if min(sr) <= 2 * border:
      return f'{sr_path}: a border of {border} leaves nothing of {sr[0]}x{sr[1]}'
    if lr_path and (lr := size(lr_path)) != tuple(side // scale for side in sr):
      return f'{lr_path} is {lr[0]}x{lr[1]}, its SR {sr[0]}x{sr[1]}'
    return None

  # The header is quickly read, and seldom wrong: an EXIF tag may follow the pixels.
  wrong = [paths for _, *paths in triples if fault(*paths, images.image_size)]
  wrong = list(filter(None, (fault(*paths, lambda path: images.read_image(path).shape[:2])
                             for paths in wrong)))
  if wrong:
    raise InputError(f'{len(wrong)} of wrong size: {listed(wrong)}')


if __name__ == '__main__':
  sys.exit(cli.run(main))
