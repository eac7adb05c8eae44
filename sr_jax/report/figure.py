"""Draws the comparison figure of a paper: an image with a box, and the box as each method shows it.

  sr-jax report compare --hr data/Set14/HR --sr SRResNet=results/srresnet \\
      --sr SRGAN=results/srgan --picture comic --output comic.pdf
  sr-jax report compare --hr photo.png --sr bicubic=b.png --sr EDSR=e.png \\
      --crop 120,80,64,48 --output photo.png

Below each crop are PSNR (luma) and LPIPS of the full image, computed as by `sr_jax.score`.
"""

import argparse
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sr_jax import images
from sr_jax.data import file_names, folders
from sr_jax.errors import InputError, listed
from sr_jax.metrics.scorer import make_scorer
from sr_jax.system import cli, compile_cache, files

SUFFIXES = ('.png', '.pdf', '.svg')
MAX_COLUMNS = 4  # of crops, next to the image
CELL_INCHES = 1.5  # width of a crop
# An original whose sides are no multiple of the scale is larger than its results, by less than the
# scale. No scale is above 8.
MAX_EXCESS = 8


class Box(NamedTuple):
  """A rectangle in an image: its upper left corner and its sides, in pixels."""

  x: int
  y: int
  width: int
  height: int

  def __str__(self) -> str:
    return ','.join(map(str, self))

  def crop(self, image: np.ndarray) -> np.ndarray:
    """Returns the part of an image [H, W, C] inside the rectangle."""
    return image[self.y:self.y + self.height, self.x:self.x + self.width]


def most_different(original: np.ndarray, results: Sequence[np.ndarray]) -> Box:
  """Returns the square in which the methods differ most from one another.

  That is where the sum of the variance of their luma is largest. With a single method it is where
  the method differs most from the original. The side is a fifth of the image's shorter side, and
  at least 32 pixels.

  Args:
    original, results: uint8 [H, W, 1 or 3].
  """
  variance = _luma_variance(original, results)
  height, width = variance.shape
  side = min(height, width, max(32, min(height, width) // 5))
  sums = np.pad(variance.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
  inside = (sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side])
  y, x = np.unravel_index(inside.argmax(), inside.shape)
  return Box(int(x), int(y), side, side)


def _luma_variance(original: np.ndarray, results: Sequence[np.ndarray]) -> np.ndarray:
  compared = results if len(results) > 1 else [original, *results]
  return np.var([_luma(image) for image in compared], axis=0)


def _luma(image: np.ndarray) -> np.ndarray:
  return images.luma(np.float64(images.as_rgb(image)) / 255)[..., 0]


def difference(original: np.ndarray, results: Sequence[np.ndarray]) -> float:
  """Returns the mean variance inside the box of `most_different`, by which images are ranked."""
  box = most_different(original, results)
  return float(_luma_variance(box.crop(original), [box.crop(image) for image in results]).mean())


def draw(path: os.PathLike | str, original: np.ndarray, results: Mapping[str, np.ndarray],
         labels: Mapping[str, str], box: Box) -> None:
  """Writes the figure as PNG, PDF or SVG, depending on the suffix of the path.

  The crop of the original comes first. Pixels of crops are drawn as squares, without
  interpolation.

  Args:
    original: uint8 [H, W, 1 or 3].
    results: {method: uint8 [H, W, 1 or 3]}.
    labels: {method or 'original': text below its name}.
  """
  import matplotlib
  from matplotlib.figure import Figure
  from matplotlib.patches import Rectangle
  crops = {'original': original, **results}
  columns = min(MAX_COLUMNS, math.ceil(len(crops) / 2)) if len(crops) > 2 else len(crops)
  rows = math.ceil(len(crops) / columns)
  image_height, image_width = original.shape[:2]
  row_inches = CELL_INCHES * box.height / box.width + 0.42
  image_inches = rows * row_inches * image_width / image_height
  size = image_inches + columns * (CELL_INCHES + 0.08), rows * row_inches
  with matplotlib.rc_context({'font.size': 8, 'pdf.fonttype': 42, 'svg.fonttype': 'none'}):
    figure = Figure(figsize=size, layout='constrained')
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    grid = figure.add_gridspec(rows, columns + 1,
                               width_ratios=[image_inches, *[CELL_INCHES] * columns])
    left = figure.add_subplot(grid[:, 0])
    left.imshow(images.as_rgb(original), interpolation='antialiased')
    left.add_patch(Rectangle((box.x - 0.5, box.y - 0.5), box.width, box.height, fill=False,
                             edgecolor='#e03131', linewidth=1.2))
    left.set_axis_off()
    for index, (name, image) in enumerate(crops.items()):
      axes = figure.add_subplot(grid[index // columns, 1 + index % columns])
      axes.imshow(images.as_rgb(box.crop(image)), interpolation='nearest')
      axes.set_xticks([])
      axes.set_yticks([])
      # A $ in a name is a $: matplotlib would typeset what is between two of them as a formula.
      axes.set_xlabel('\n'.join((name, labels.get(name, ''))).rstrip(), labelpad=2,
                      parse_math=False)
      for spine in axes.spines.values():
        spine.set_visible(False)
    with files.atomic_write(path) as temporary:
      figure.savefig(temporary, dpi=200)


# The command line ----------------------------------------------------------------------


def main(argv: list[str]) -> None:
  args = _parser().parse_args(argv)
  _check(args)
  name, original, results = _choose_image(_paired_files(args.hr, args.sr, args.scale), args)
  box = args.crop or most_different(original, list(results.values()))
  height, width = original.shape[:2]
  if box.x + box.width > width or box.y + box.height > height:
    raise InputError(f'--crop {box}: extends beyond the image {name}, which is {width} pixels wide '
                     f'and {height} high')
  if min(height, width) <= 2 * args.scale:
    raise InputError(f'{name}: a border of {args.scale}, which PSNR excludes, leaves no pixels of '
                     f'{width}x{height}; use a smaller --scale')
  compile_cache.use_cache()
  scorer = make_scorer(1, args.lpips, args.scale)
  labels = {'original': 'PSNR' if args.lpips == 'none' else 'PSNR / LPIPS'} | {
      method: _score_label(scorer(image, original), args.lpips)
      for method, image in results.items()}
  draw(args.output, original, results, labels, box)
  print(f'{args.output}: {name}, crop {box}')


def _parser() -> cli.Parser:
  parser = cli.Parser('sr-jax report compare', __doc__)
  add = parser.add_argument
  add('--hr', required=True, type=cli.path, help='original images: a folder or a file')
  add('--sr', required=True, action='append', type=_method, metavar='NAME=PATH',
      help='results of a method, matched with the originals by file name; repeat for each method')
  add('--picture', default='', help='which image of the folder to show (default: the one in which '
      'the methods differ most)')
  add('--crop', type=_box, metavar='X,Y,W,H', help='the region to show, in pixels of the original '
      '(default: where the methods differ most)')
  add('--scale', type=int, default=4, help='HR / LR; PSNR excludes a border of this many pixels '
      '(default: %(default)s)')
  add('--lpips', choices=('alex', 'vgg', 'none'), default='alex',
      help='network of LPIPS (default: %(default)s)')
  add('--output', required=True, metavar='FILE', type=cli.path,
      help=f'the file to write: {", ".join(SUFFIXES)}')
  return parser


def _check(args: argparse.Namespace) -> None:
  if args.output.suffix.lower() not in SUFFIXES:
    raise InputError(f'--output {args.output}: expected a file name that ends in '
                     f'{", ".join(SUFFIXES)}')
  if args.output.is_dir():
    raise InputError(f'{args.output}: cannot write the figure (it is a folder)')
  if args.scale < 1:
    raise InputError(f'--scale {args.scale}: expected at least 1')
  names = [name for name, _ in args.sr]
  for name in names:
    if names.count(name) > 1 or name == 'original':
      raise InputError(f"--sr {name}=...: expected a different name for each method, and not "
                       "'original'")


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
    raise argparse.ArgumentTypeError(f'{text}: expected a width and a height of at least 1')
  return box


def _paired_files(hr: pathlib.Path, methods: Sequence[tuple[str, pathlib.Path]],
                  scale: int) -> dict[str, list[pathlib.Path]]:
  """Returns {name: [original, result of each method]} of the images that every method has."""
  def by_name(path: pathlib.Path) -> dict[str, pathlib.Path]:
    if not path.exists():
      raise InputError(f'{path}: no such file or folder')
    if path.is_dir():
      return folders.images_by_name(path, notes)
    return {hr.stem if hr.is_file() else path.stem: path}  # two files are a pair by whatever name
  notes = []
  originals = by_name(hr)
  paired = {name: [path] for name, path in originals.items()}
  for method, path in methods:
    pairs, _ = file_names.pair_by_name(originals, by_name(path), scale)
    results = {name: result for name, _, result in pairs}
    paired = {name: [*paths, results[name]] for name, paths in paired.items() if name in results}
    if not paired:
      raise InputError(f'--sr {method}={path}: no file name matches one in {hr}')
  for note in dict.fromkeys(notes):
    print(note)
  return paired


def _choose_image(paired: dict[str, list[pathlib.Path]], args: argparse.Namespace) -> tuple[
    str, np.ndarray, dict[str, np.ndarray]]:
  """Returns (name, original, {method: result}) of the image to show.

  Raises:
    InputError: an image that is not there, or sizes that do not match.
  """
  if args.picture:
    if args.picture not in paired:
      raise InputError(f'--picture {args.picture}: expected one of {listed(list(paired))}')
    paired = {args.picture: paired[args.picture]}
  if len(paired) > 1 and args.crop:
    raise InputError(f'--picture is missing: --crop refers to one image of {listed(list(paired))}')
  best, best_difference = None, -math.inf
  for name, paths in paired.items():
    original, results = _read_images(paths)
    ranked_by = difference(original, results) if len(paired) > 1 else 0.0
    if ranked_by > best_difference:
      best, best_difference = (name, original, results), ranked_by
  name, original, results = best
  return name, original, dict(zip([method for method, _ in args.sr], results, strict=True))


def _read_images(paths: Sequence[pathlib.Path]) -> tuple[np.ndarray, list[np.ndarray]]:
  """Returns the original, cropped to the size of the results, and the results.

  Raises:
    InputError: results of different sizes, or of another size than the original, which may be a
      few pixels larger where its sides are no multiple of the scale.
  """
  original, *results = map(images.read_image, paths)
  for result, path in zip(results, paths[1:], strict=True):
    if not all(0 <= full - part < MAX_EXCESS
               for full, part in zip(original.shape[:2], result.shape[:2], strict=True)):
      raise InputError(f'{path} is {_size(result)}, {paths[0]} is {_size(original)}; expected '
                       'equal sizes')
    if result.shape[:2] != results[0].shape[:2]:
      raise InputError(f'{path} is {_size(result)}, {paths[1]} is {_size(results[0])}; expected '
                       'equal sizes')
  height, width = results[0].shape[:2]
  return original[:height, :width], results


def _size(image: np.ndarray) -> str:
  return f'{image.shape[0]}x{image.shape[1]}'


def _score_label(scores: Mapping[str, float], lpips: str) -> str:
  parts = [f'{scores["psnr_y"]:.2f} dB']
  if f'lpips_{lpips}' in scores:
    parts.append(f'{scores[f"lpips_{lpips}"]:.3f}')
  return ' / '.join(parts)
