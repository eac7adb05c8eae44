"""Resizes images as MATLAB's imresize does.

  sr-jax resize data/Set5/HR data/Set5/LRbicx4 --scale 1/4
  sr-jax resize photo.png photo_x2.png --scale 2 --method bilinear

IN is a file or a folder, whose structure is kept; the results in OUT are PNG files of 8 bits
without alpha, which keep the colour profile and other metadata; existing ones are overwritten. To
downscale by N, an image is first cropped at the bottom and right to a multiple of N.
"""

import dataclasses
import os
import pathlib
import sys
from fractions import Fraction
from typing import NamedTuple

from sr_jax import images
from sr_jax.data import folders
from sr_jax.errors import InputError, listed
from sr_jax.images import decoders, dropped
from sr_jax.media import clips, photo_formats, photos
from sr_jax.system import cli, files, threads

MAX_SCALE = 64  # up or down; a larger value is most likely a typing error


class Resized(NamedTuple):
  """What became of an image."""

  cropped: bool = False  # whether it had to be cropped
  notes: tuple[str, ...] = ()  # what the result lacks, see `dropped`
  error: str = ''  # why there is no result


def resize_file(source: os.PathLike | str, target: os.PathLike | str, scale: Fraction,
                method: str = 'bicubic') -> Resized:
  """Writes the resized copy of an image as a PNG.

  Args:
    source: image file.
    target: file to write.
    scale: the image is cropped to a multiple of its denominator first.
    method: as in `images.imresize`.

  Raises:
    InputError: the image cannot be read or is too small, or the target cannot be written.
  """
  try:
    photo = photo_formats.eight_bit_opaque(photos.read(source))
  except InputError:
    if _is_video(pathlib.Path(source)):
      raise InputError(f'{source}: is a video; expected an image') from None
    raise
  original = photo.samples
  image = images.crop_to_multiple(original, scale.denominator)
  if not image.size:
    raise InputError(f'{source}: {original.shape[0]}x{original.shape[1]} is too small for scale '
                     f'{scale}')
  try:
    result = dataclasses.replace(photo, samples=images.imresize(image, scale, method))
  except MemoryError:
    raise InputError(f'{source}: not enough memory to resize {image.shape[0]}x{image.shape[1]} '
                     f'by {scale}') from None
  lost = photos.write(target, result, 'png')
  return Resized(image.shape != original.shape, (*photo.notes, *filter(None, [lost])))


def _is_video(path: pathlib.Path) -> bool:
  """Returns whether a file that is no image is a video, by its suffix or its content."""
  if path.suffix.lower() in (*images.SUFFIXES, *images.HEIF_SUFFIXES):
    return False
  try:
    with clips.open_video(path):
      return True
  except InputError:
    return path.is_file() and path.suffix.lower() in clips.SUFFIXES


def plan_outputs(source: pathlib.Path, target: pathlib.Path,
                 found: dict[pathlib.Path, folders.Found] | None = None
                 ) -> list[tuple[pathlib.Path, pathlib.Path]]:
  """Returns (image, PNG to write) for an image or for all images of a folder.

  Args:
    source: an image or a folder.
    target: a folder; for an image also the .png file to write.
    found: receives what the folder contains.

  Raises:
    InputError: as `folders.output_paths`, or `target` is a file other than a PNG.
  """
  if source.is_file() and target.suffix and not target.is_dir():
    if target.suffix.lower() != '.png':
      raise InputError(f'{target}: only PNG is supported; give a .png file or a folder')
    return folders.refuse_originals({source: target})
  return folders.output_paths([source], target, found=found)


def parse_scale(text: str) -> Fraction:
  """Converts '1/4', '0.25' or '2' to a Fraction.

  Raises:
    InputError: the text is not a number, or not in 1/64 ... 64.
  """
  try:
    scale = Fraction(text)
  except (ValueError, ZeroDivisionError):
    raise InputError(f'--scale {text}: expected a number such as 1/4 or 2') from None
  if not Fraction(1, MAX_SCALE) <= scale <= MAX_SCALE or scale.denominator > MAX_SCALE:
    raise InputError(f'--scale {text}: expected 1/{MAX_SCALE} to {MAX_SCALE}, as a fraction whose '
                     f'denominator is at most {MAX_SCALE}')
  return scale


def main(argv: list[str] | None = None) -> None:
  """Runs the command."""
  parser = cli.Parser('sr-jax resize', __doc__)
  add = parser.add_argument
  add('source', metavar='IN', type=cli.path, help='image or folder of images')
  add('target', metavar='OUT', type=cli.path, help='.png file or folder')
  add('--scale', required=True, help='1/4 downscales by 4, 2 upscales by 2')
  add('--method', choices=tuple(images.KERNELS), default='bicubic')
  args = parser.parse_args(argv)
  scale = parse_scale(args.scale)
  found = {}
  jobs = plan_outputs(args.source, args.target, found)
  for folder in {target.parent for _, target in jobs}:
    files.remove_leftovers(folder)  # of calls that were killed

  decoders.silence_libraries()

  def resize_one(paths: tuple[pathlib.Path, pathlib.Path]) -> Resized:
    try:
      return resize_file(*paths, scale, args.method)
    except InputError as error:
      return Resized(error=str(error))

  results = dict(zip([path for path, _ in jobs], threads.on_all_cores(resize_one, jobs),
                     strict=True))
  cropped = [path.name for path, result in results.items() if result.cropped]
  errors = [result.error for result in results.values() if result.error]
  written = len(jobs) - len(errors)
  unreadable, notes = folders.describe_inputs(found)
  errors += unreadable
  notes += dropped.summary({str(path): result.notes for path, result in results.items()})
  for note in notes:
    print(note)
  if cropped:
    print(f'{len(cropped)} cropped to a multiple of {scale.denominator}: {listed(cropped)}')
  if written:
    print(f'{written} of {len(jobs)} written to {args.target}')
  if errors:
    raise InputError(f'{len(errors)} not resized: {listed(errors)}')


if __name__ == '__main__':
  sys.exit(cli.run(main))
