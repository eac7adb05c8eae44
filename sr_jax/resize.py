"""Makes low-resolution pictures as MATLAB's imresize does, or larger ones.

  python -m sr_jax.resize data/Set5/HR data/Set5/LRbicx4 --scale 1/4
  python -m sr_jax.resize photo.png photo_x2.png --scale 2 --method bilinear

IN is a file or a folder, whose structure is kept; OUT gets PNG files. A picture that is
to shrink is cropped first, at the bottom and right, to a multiple of what it shrinks by.
"""

import pathlib
import sys
from fractions import Fraction

from sr_jax import images
from sr_jax.data import folders
from sr_jax.errors import InputError, listed
from sr_jax.system import cli, threads

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


def plan_outputs(source: pathlib.Path, target: pathlib.Path) -> list[tuple[pathlib.Path, pathlib.Path]]:
  """(picture, its PNG) of a file, whose PNG `target` may name, or of a folder's pictures.

  Raises:
    InputError: as `sources.targets`; or `target` is a file that is no PNG.
  """
  if source.is_file() and target.suffix and not target.is_dir():
    if target.suffix.lower() != '.png':
      raise InputError(f'{target}: only PNG is written; name a .png file or a folder')
    return folders.refuse_originals({source: target})
  return folders.output_paths([source], target)


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
  parser = cli.Parser('python -m sr_jax.resize', __doc__)
  add = parser.add_argument
  add('source', metavar='IN', type=cli.path, help='a picture or a folder of pictures')
  add('target', metavar='OUT', type=cli.path, help='a .png file or a folder')
  add('--scale', required=True, help='1/4 shrinks four times, 2 doubles')
  add('--method', choices=tuple(images.KERNELS), default='bicubic')
  args = parser.parse_args(argv)
  scale = parse_scale(args.scale)
  files = plan_outputs(args.source, args.target)

  def one(paths):
    try:
      return resize_file(*paths, scale, args.method), None
    except InputError as error:
      return False, str(error)

  done = threads.on_all_cores(one, files)
  cropped = [path for (path, _), (cut, _) in zip(files, done, strict=True) if cut]
  wrong = [reason for _, reason in done if reason]
  if cropped:
    print(f'{len(cropped)} cropped to a multiple of {scale.denominator}: '
          f'{listed([path.name for path in cropped], 5)}')
  if len(files) > len(wrong):
    print(f'{len(files) - len(wrong)} of {len(files)} written to {args.target}')
  if wrong:
    raise InputError(f'{len(wrong)} not resized: {listed(wrong)}')


if __name__ == '__main__':
  sys.exit(cli.run(main))
