"""The comparison figure of papers: a picture with a box, and what is in the box by each method.

  python -m sr_jax.report compare --hr data/Set14/HR --sr SRResNet=results/srresnet \\
      --sr SRGAN=results/srgan --picture comic --output comic.pdf
  python -m sr_jax.report compare --hr photo.png --sr bicubic=b.png --sr EDSR=e.png \\
      --crop 120,80,64,48 --output photo.png

Under each crop stand PSNR (luma) and LPIPS of the whole picture, as `sr_jax.score` has them.
"""

import argparse
import math
import pathlib
from typing import NamedTuple

import numpy as np

from sr_jax import images
from sr_jax.data import folders
from sr_jax.errors import InputError, listed
from sr_jax.metrics.scorer import make_scorer
from sr_jax.system import cli, compile_cache, files

SUFFIXES = ('.png', '.pdf', '.svg')
COLUMNS = 4  # of crops, beside the picture
MOST_CUT = 8  # pixels by which an original may be larger than its results: no scale is larger


class Box(NamedTuple):
  """Of a picture: its left upper corner and its sides, in pixels."""

  x: int
  y: int
  width: int
  height: int

  def of(self, image: np.ndarray) -> np.ndarray:
    return image[self.y:self.y + self.height, self.x:self.x + self.width]


def most_different(original: np.ndarray, results: list[np.ndarray]) -> Box:
  """Where methods differ most from one another: the variance of their luma, summed over a square of
  a fifth of the shorter side (32 pixels at least). Of one method: where it is furthest from the
  original.

  Args:
    original, results: uint8 [H, W, 1 or 3].
  """
  lumas = [_luma(image) for image in (results if len(results) > 1 else [original, *results])]
  height, width = lumas[0].shape
  side = min(height, width, max(32, min(height, width) // 5))
  variance = np.var(lumas, axis=0)
  sums = np.pad(variance.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
  inside = (sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side])
  y, x = np.unravel_index(inside.argmax(), inside.shape)
  return Box(int(x), int(y), side, side)


def _luma(image: np.ndarray) -> np.ndarray:
  return images.luma(np.float64(images.as_rgb(image)) / 255)[..., 0]


def strength(original: np.ndarray, results: list[np.ndarray]) -> float:
  """How much there is in the box of `most_different`: among pictures, which to show."""
  box = most_different(original, results)
  shown = [box.of(image) for image in (results if len(results) > 1 else [original, *results])]
  return float(np.var([_luma(image) for image in shown], axis=0).mean())


def draw(path, original: np.ndarray, results: dict[str, np.ndarray], labels: dict[str, str],
         box: Box) -> None:
  """Writes the figure, as PNG, PDF or SVG by the path's suffix.

  Crops are enlarged pixel by pixel; the original's comes first.

  Args:
    original: uint8 [H, W, 1 or 3].
    results: {method: as `original`}.
    labels: {method or 'original': what stands below its name}.
  """
  import matplotlib
  from matplotlib.figure import Figure
  from matplotlib.patches import Rectangle
  crops = {'original': original, **results}
  columns = min(COLUMNS, math.ceil(len(crops) / 2)) if len(crops) > 2 else len(crops)
  rows = math.ceil(len(crops) / columns)
  height, width = original.shape[:2]
  cell = 1.5  # inches, a crop's width
  tall = cell * box.height / box.width + 0.42
  whole = rows * tall * width / height
  with matplotlib.rc_context({'font.size': 8, 'pdf.fonttype': 42, 'svg.fonttype': 'none'}):
    figure = Figure(figsize=(whole + columns * (cell + 0.08), rows * tall), layout='constrained')
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    grid = figure.add_gridspec(rows, columns + 1,
                               width_ratios=[whole, *[cell] * columns])
    left = figure.add_subplot(grid[:, 0])
    left.imshow(images.as_rgb(original), interpolation='antialiased')
    left.add_patch(Rectangle((box.x - 0.5, box.y - 0.5), box.width, box.height, fill=False,
                             edgecolor='#e03131', linewidth=1.2))
    left.set_axis_off()
    for index, (name, image) in enumerate(crops.items()):
      axes = figure.add_subplot(grid[index // columns, 1 + index % columns])
      axes.imshow(images.as_rgb(box.of(image)), interpolation='nearest')
      axes.set_xticks([])
      axes.set_yticks([])
      axes.set_xlabel('\n'.join((name, labels.get(name, ''))).rstrip(), labelpad=2,
                      parse_math=False)  # a $ in a name is a $
      for spine in axes.spines.values():
        spine.set_visible(False)
    with files.atomic_write(path) as temporary:
      figure.savefig(temporary, dpi=200)


# The command line ----------------------------------------------------------------------


def main(argv: list[str]) -> None:
  parser = cli.Parser('python -m sr_jax.report compare', __doc__)
  add = parser.add_argument
  add('--hr', required=True, type=cli.path, help='originals: a folder or a picture')
  add('--sr', required=True, action='append', type=_method, metavar='NAME=PATH',
      help='results of a method, paired with the originals by name; once for each method')
  add('--picture', default='', help='which one of the folder; if not given, that on which the '
      'methods differ most')
  add('--crop', type=_box, metavar='X,Y,W,H', help='of the original, in pixels; if not given, '
      'where the methods differ most')
  add('--scale', type=int, default=4, help='HR / LR: PSNR leaves out as many pixels at each '
      'border (default: %(default)s)')
  add('--lpips', choices=('alex', 'vgg', 'none'), default='alex')
  add('--output', required=True, metavar='FILE', type=cli.path,
      help=f'the figure: {", ".join(SUFFIXES)}')
  args = parser.parse_args(argv)
  if args.output.suffix.lower() not in SUFFIXES:
    raise InputError(f'--output {args.output}: expected a name that ends in {", ".join(SUFFIXES)}')
  if args.output.is_dir():
    raise InputError(f'{args.output}: can not be written, it is a folder')
  if args.scale < 1:
    raise InputError(f'--scale={args.scale}: expected at least 1')
  names = [name for name, _ in args.sr]
  for name in names:
    if names.count(name) > 1 or name == 'original':
      raise InputError(f'--sr {name}=...: each method needs a name of its own')
  name, original, results = _choose(_found(args.hr, args.sr, args.scale), args)
  box = args.crop or most_different(original, list(results.values()))
  height, width = original.shape[:2]
  if box.x + box.width > width or box.y + box.height > height:
    raise InputError(f'--crop {",".join(map(str, box))}: reaches out of {name}, which is '
                     f'{width} wide and {height} high')
  if min(height, width) <= 2 * args.scale:
    raise InputError(f'{name}: a border of {args.scale} leaves nothing of {width}x{height}')
  compile_cache.use_cache()
  scorer = make_scorer(1, args.lpips, args.scale)
  labels = {'original': 'PSNR' if args.lpips == 'none' else 'PSNR / LPIPS'} | {
      method: _label(scorer(image, original), args.lpips) for method, image in results.items()}
  draw(args.output, original, results, labels, box)
  print(f'{args.output}: {name}, crop {",".join(map(str, box))}')


def _method(text: str) -> tuple[str, pathlib.Path]:
  name, _, path = text.partition('=')
  if not name or not path:
    raise argparse.ArgumentTypeError(f'{text}: expected NAME=PATH')
  return name, cli.path(path)


def _box(text: str) -> Box:
  parts = text.split(',')
  if len(parts) != 4 or not all(part.isdecimal() for part in parts):
    raise argparse.ArgumentTypeError(f'{text}: expected X,Y,WIDTH,HEIGHT in pixels')
  box = Box(*map(int, parts))
  if not box.width or not box.height:
    raise argparse.ArgumentTypeError(f'{text}: there is nothing in it')
  return box


def _found(hr: pathlib.Path, methods, scale: int) -> dict[str, list[pathlib.Path]]:
  """{picture: [original, each method's]} of those that all have."""
  def named(path):
    if not path.exists():
      raise InputError(f'{path}: no such file or folder')
    if path.is_dir():
      return folders.images_by_name(path)
    return {hr.stem if hr.is_file() else path.stem: path}  # two files need no common name
  originals = named(hr)
  found = {name: [path] for name, path in originals.items()}
  for method, path in methods:
    pairs, _ = folders.pair_by_name(originals, named(path), scale)
    mine = {name: partner for name, _, partner in pairs}
    found = {name: [*paths, mine[name]] for name, paths in found.items() if name in mine}
    if not found:
      raise InputError(f'--sr {method}={path}: no picture there is called as one of {hr}')
  return found


def _choose(found: dict[str, list[pathlib.Path]], args):
  """(name, original, {method: result}) of the picture to show."""
  if args.picture:
    if args.picture not in found:
      raise InputError(f'--picture {args.picture}: expected one of {listed(list(found))}')
    found = {args.picture: found[args.picture]}
  if len(found) > 1 and args.crop:
    raise InputError(f'--picture is missing: --crop is of one of {listed(list(found))}')
  best = None
  for name, paths in found.items():
    original, *results = map(images.read_image, paths)
    for result, path in zip(results, paths[1:], strict=True):
      _check_size(result, path, original, paths[0])
      if result.shape[:2] != results[0].shape[:2]:
        raise InputError(f'{path} is {_size(result)}, {paths[1]} {_size(results[0])}')
    cut = original[:results[0].shape[0], :results[0].shape[1]]
    merit = strength(cut, results) if len(found) > 1 else 0.0
    if best is None or merit > best[0]:
      best = merit, name, cut, results
  _, name, original, results = best
  return name, original, dict(zip([method for method, _ in args.sr], results, strict=True))


def _check_size(result: np.ndarray, path, original: np.ndarray, hr) -> None:
  """Originals may be a few pixels larger, where no scale divides them.

  Raises:
    InputError: one that is of another picture's size.
  """
  if not all(0 <= whole - part < MOST_CUT
             for whole, part in zip(original.shape[:2], result.shape[:2], strict=True)):
    raise InputError(f'{path} is {_size(result)}, {hr} {_size(original)}')


def _size(image: np.ndarray) -> str:
  return f'{image.shape[0]}x{image.shape[1]}'


def _label(figures: dict[str, float], lpips: str) -> str:
  parts = [f'{figures["psnr_y"]:.2f} dB']
  if f'lpips_{lpips}' in figures:
    parts.append(f'{figures[f"lpips_{lpips}"]:.3f}')
  return ' / '.join(parts)
