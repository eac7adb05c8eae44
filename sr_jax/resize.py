"""Makes low-resolution pictures as MATLAB's imresize does, or larger ones.

  python -m sr_jax.resize data/Set5/HR data/Set5/LRbicx4 --scale 1/4
  python -m sr_jax.resize photo.png photo_x2.png --scale 2 --method bilinear

IN is a file or a folder, whose structure is kept; OUT gets PNG files. A picture that is
to shrink is cropped first, at the bottom and right, to a multiple of what it shrinks by.
"""

import collections
import pathlib
import sys
from fractions import Fraction

from sr_jax import command, images
from sr_jax.data import sources
from sr_jax.errors import InputError

LARGEST = 64  # times larger or smaller: more is a slip of the pen


def resize_file(source, target, scale: Fraction, method: str = 'bicubic') -> bool:
  """Writes one picture's resized copy.

  Args:
    scale: its denominator's multiple is what the picture is cropped to.
    method: as in `images.imresize`.

  Returns:
    Whether anything had to be cropped.

  Raises:
    InputError: the picture can't be read or is too small, the target can't be written.
  """
  whole = images.read_image(source)
  image = images.crop_to_multiple(whole, scale.denominator)
  if not image.size:
    raise InputError(f'{source}: {whole.shape[0]}x{whole.shape[1]} is too small for scale {scale}')
  try:
    images.write_image(target, images.imresize(image, scale, method))
  except MemoryError:
    raise InputError(f'{source}: not enough memory to resize {image.shape[0]}x{image.shape[1]} '
                     f'by {scale}') from None
  return image.shape != whole.shape


def plan(source: pathlib.Path, target: pathlib.Path) -> list[tuple[pathlib.Path, pathlib.Path]]:
  """(picture, its PNG) of a file or of every picture of a folder.

  Raises:
    InputError: nothing there; OUT lies in IN or would overwrite it; two pictures of one name.
  """
  if not source.is_dir():
    if not source.exists():
      raise InputError(f'{source}: no such file or folder')
    if target.is_dir() or not target.suffix:
      target = target / f'{source.stem}.png'
    if target.suffix.lower() != '.png':
      raise InputError(f'{target}: only PNG is written; name a .png file or a folder')
    return _kept({source: target})
  if target.resolve().is_relative_to(source.resolve()):
    raise InputError(f'{target}: lies in {source}, whose pictures are read; name another folder')
  if target.is_file():
    raise InputError(f'{target}: is a file; a folder of pictures needs a folder')
  files = {path: target / path.relative_to(source).with_suffix('.png')
           for path in sources.open_source(f'folder:{source}')}
  times = collections.Counter(files.values())
  clashes = [path for path, png in files.items() if times[png] > 1]
  if clashes:
    raise InputError(f'several pictures of one name but for the suffix: {sources.listed(clashes)}')
  return _kept(files)


def _kept(files: dict[pathlib.Path, pathlib.Path]) -> list[tuple[pathlib.Path, pathlib.Path]]:
  """The items, if none of the originals would be overwritten."""
  originals = {path.resolve() for path in files}
  for target in files.values():
    if target.resolve() in originals:
      raise InputError(f'{target}: would overwrite an original')
  return list(files.items())


def parse_scale(text: str) -> Fraction:
  """'1/4', '0.25', '2' to a Fraction.

  Raises:
    InputError: no number, or beyond 1/64 .. 64.
  """
  try:
    scale = Fraction(text)
  except (ValueError, ZeroDivisionError):
    raise InputError(f'--scale={text}: expected a number such as 1/4 or 2') from None
  if not Fraction(1, LARGEST) <= scale <= LARGEST or scale.denominator > LARGEST:
    raise InputError(f'--scale={text}: expected 1/{LARGEST} to {LARGEST}, as a simple fraction')
  return scale


def main(argv: list[str] | None = None) -> None:
  parser = command.Parser('python -m sr_jax.resize', __doc__)
  add = parser.add_argument
  add('source', metavar='IN', type=command.path, help='a picture or a folder of pictures')
  add('target', metavar='OUT', type=command.path, help='a .png file or a folder')
  add('--scale', required=True, help='1/4 shrinks four times, 2 doubles')
  add('--method', choices=tuple(images.KERNELS), default='bicubic')
  args = parser.parse_args(argv)
  scale = parse_scale(args.scale)
  files = plan(args.source, args.target)

  def one(paths):
    try:
      return resize_file(*paths, scale, args.method), None
    except InputError as error:
      return False, str(error)

  done = command.on_all_cores(one, files)
  cropped = [path for (path, _), (cut, _) in zip(files, done, strict=True) if cut]
  wrong = [reason for _, reason in done if reason]
  if cropped:
    print(f'{len(cropped)} cropped to a multiple of {scale.denominator}: '
          f'{sources.listed([path.name for path in cropped], 5)}')
  if len(files) > len(wrong):
    print(f'{len(files) - len(wrong)} of {len(files)} written to {args.target}')
  if wrong:
    raise InputError(f'{len(wrong)} not resized: {sources.listed(wrong)}')


if __name__ == '__main__':
  sys.exit(command.run(main))
