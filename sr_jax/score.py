"""Scores images against their originals and prints a table.

  python -m sr_jax.score --sr results/Set5 --hr data/Set5/HR --scale 4
  python -m sr_jax.score --sr mine.png --hr original.png --scale 2 --lpips none --json s.json

Images are paired by name; baby_x4.png, babyx4.png and baby_SR.png are scored against baby.png.
Samples are compared as they are stored: those of more than 8 bits with 16, colours without alpha.
"""

import argparse
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from sr_jax import images
from sr_jax.data import file_names, folders
from sr_jax.errors import InputError, listed
from sr_jax.images import decoders, dropped
from sr_jax.metrics.scorer import make_scorer, protocol, summary
from sr_jax.metrics.tables import legend, table
from sr_jax.system import cli, compile_cache, files, threads


class Triple(NamedTuple):
  """The files of one image."""

  name: str
  hr: pathlib.Path
  sr: pathlib.Path
  lr: pathlib.Path | None = None


def main(argv: list[str] | None = None) -> None:
  """Runs the command line."""
  args = _parse(argv)
  border = args.scale if args.border is None else args.border
  if args.scale < 1 or border < 0:
    raise InputError(f'--scale {args.scale}, --border {border}: expected a scale of at least 1 and '
                     'a border of at least 0')
  for path in filter(None, (args.json, args.markdown)):
    if path.is_dir():
      raise InputError(f'{path}: cannot write (it is a folder)')

  compile_cache.use_cache()
  notes = []
  triples = _pair_files([path for path in (args.hr, args.sr, args.lr) if path], args.scale, notes)
  _check_sizes(triples, args.scale, border)
  scorer = make_scorer(args.scale, args.lpips, border)

  decoders.silence_libraries()
  lost = {}

  def score_one(triple: Triple) -> tuple[dict[str, float], bool]:
    def read(path: pathlib.Path) -> np.ndarray:
      array, lost[path] = images.read_samples(path)
      return array

    hr, sr, lr = read(triple.hr), read(triple.sr), triple.lr and read(triple.lr)
    cropped = hr.shape[:2] != sr.shape[:2]
    if cropped:
      hr = images.crop_to_multiple(hr, args.scale)
    return scorer(sr, hr, lr), cropped

  results = dict(zip([triple.name for triple in triples],
                     threads.on_all_cores(score_one, triples), strict=True))
  scores = {name: values for name, (values, _) in results.items()}
  cropped = [name for name, (_, was_cropped) in results.items() if was_cropped]
  meanings = protocol(border, args.lpips, bool(args.lr), stored=True)
  print(table({'': scores}))
  notes += dropped.summary({str(path): lost[path] for path in sorted(lost)})
  for note in dict.fromkeys(notes):  # SR and HR may be one folder
    print(note)
  if cropped:
    print(f'HR cropped to a multiple of {args.scale}: {listed(cropped)}')
  print(f'\n{legend(meanings)}')
  if args.json:
    files.write_json(args.json, {'protocol': meanings, **summary(scores)})
  if args.markdown:
    files.write_text(args.markdown, f'{table({"": scores}, markdown=True)}\n\n'
                                    f'{legend(meanings, markdown=True)}\n')


def _parse(argv: list[str] | None) -> argparse.Namespace:
  parser = cli.Parser('python -m sr_jax.score', __doc__)
  add = parser.add_argument
  add('--sr', required=True, type=cli.path, help='results: a folder or an image')
  add('--hr', required=True, type=cli.path, help='originals: a folder or an image')
  add('--lr', type=cli.path, help='the LR images that SR was made from, for psnr_lr; default: HR '
      "downscaled by MATLAB's bicubic")
  add('--scale', required=True, type=int, help='HR / LR')
  add('--border', type=int, help='pixels to ignore on each side; default: the scale')
  add('--lpips', choices=('alex', 'vgg', 'none'), default='alex',
      help='network of LPIPS; default: %(default)s')
  add('--json', metavar='FILE', type=cli.path, help='also writes scores and protocol to this file')
  add('--markdown', metavar='FILE', type=cli.path, help='also writes the table to this file')
  return parser.parse_args(argv)


def _pair_files(sides: Sequence[pathlib.Path], scale: int, notes: list[str]) -> list[Triple]:
  """Pairs the images of folders by name.

  Args:
    sides: HR, SR and possibly LR, each a file or a folder.
    scale: HR / LR.
    notes: receives a line on files in the folders that are skipped.

  Raises:
    InputError: a path doesn't exist, or an image has no partner.
  """
  for path in sides:
    if not path.exists():
      raise InputError(f'{path}: no such file or folder')
  if not any(path.is_dir() for path in sides):
    return [Triple(sides[0].stem, *sides)]  # single files don't need a common name
  originals, *others = ({path.stem: path} if path.is_file()
                        else folders.images_by_name(path, notes) for path in sides)
  paired = {name: [path] for name, path in originals.items()}
  for other in others:
    for name, _, partner in file_names.partners(originals, other, scale):
      paired[name].append(partner)
  return [Triple(name, *paths) for name, paths in paired.items()]


def _check_sizes(triples: Sequence[Triple], scale: int, border: int) -> None:
  """Raises InputError with all images whose sizes don't fit, before any is scored."""
  # Reads headers first, which is fast. A mismatch there isn't final, since an EXIF orientation may
  # follow the pixels, and is verified with the decoded images.
  suspects = [triple for triple in triples if _size_fault(triple, scale, border, images.image_size)]
  faults = [_size_fault(triple, scale, border, lambda path: images.read_image(path).shape[:2])
            for triple in suspects]
  faults = list(filter(None, faults))
  if faults:
    raise InputError(f'{len(faults)} of wrong size: {listed(faults)}')


def _size_fault(triple: Triple, scale: int, border: int,
                size: Callable[[pathlib.Path], tuple[int, int]]) -> str | None:
  """Returns what is wrong with the sizes of an image, or None."""
  hr, sr = size(triple.hr), size(triple.sr)
  if sr not in (hr, tuple(side // scale * scale for side in hr)):
    return f'{triple.sr} is {sr[0]}x{sr[1]}, but {triple.hr.name} is {hr[0]}x{hr[1]}'
  if min(sr) <= 2 * border:
    return f'{triple.sr}: a border of {border} leaves no pixels of {sr[0]}x{sr[1]}'
  if triple.lr and (lr := size(triple.lr)) != tuple(side // scale for side in sr):
    return (f'{triple.lr} (--lr) is {lr[0]}x{lr[1]}, but {triple.sr} is {sr[0]}x{sr[1]}, of which '
            f'--scale={scale} makes {sr[0] // scale}x{sr[1] // scale}')
  return None


if __name__ == '__main__':
  sys.exit(cli.run(main))
