"""Makes pictures larger with a trained network.

  python -m sr_jax.upscale photo.jpg --output out --weights realesrgan-x4plus
  python -m sr_jax.upscale data/Set5/LRbicx4 scan.png --output out --workdir runs/srgan

IN is a picture or a folder, whose structure is kept; DIR gets PNG files. The weights are
those of a run, of a weight file (`.safetensors`, `.pth`, ncnn) or of a published network.
A picture is upscaled as a whole, so a large one needs much memory.
"""

import sys

import jax
import tqdm

from sr_jax import command, images, restore
from sr_jax.data import sources
from sr_jax.errors import InputError, listed
from sr_jax.weights.published import PUBLISHED


def upscale_file(model: restore.Model, source, target) -> None:
  """Writes the upscaled copy of one picture as PNG.

  Raises:
    InputError: it can't be read or written, or is too large for the memory.
  """
  lr = images.read_image(source)
  try:
    sr = model(lr)
  except (MemoryError, jax.errors.JaxRuntimeError) as error:
    if not isinstance(error, MemoryError) and 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    raise InputError(f'{source}: {lr.shape[0]}x{lr.shape[1]} is too large for the memory') from None
  images.write_image(target, sr)


def main(argv: list[str] | None = None) -> None:
  parser = command.Parser('python -m sr_jax.upscale', __doc__)
  add = parser.add_argument
  add('sources', metavar='IN', nargs='+', type=command.path, help='pictures and folders of them')
  add('--output', required=True, metavar='DIR', type=command.path)
  network = parser.add_mutually_exclusive_group(required=True)
  network.add_argument('--workdir', type=command.path, metavar='RUN')
  network.add_argument('--weights', metavar='FILE', help='a weight file, or one of '
                       + ', '.join(PUBLISHED))
  add('--step', default='latest', help="of a run: a number, 'latest' or 'best'")
  command.add_file_options(parser)
  args = parser.parse_args(argv)
  pictures = sources.png_targets(args.sources, args.output)
  if args.workdir and not args.workdir.is_dir():
    raise InputError(f'{args.workdir}: no run there')
  model = restore.load(args.workdir or args.weights or '', step=args.step, wrapper=args.key,
                       fields=command.parse_fields(args.set))
  wrong = []
  for source, target in tqdm.tqdm(pictures, unit=' pictures', leave=False, disable=None):
    try:
      upscale_file(model, source, target)
    except InputError as error:
      wrong.append(str(error))
  if len(pictures) > len(wrong):
    print(f'{len(pictures) - len(wrong)} of {len(pictures)} upscaled x{model.scale} to '
          f'{args.output} by {model.origin}')
  if wrong:
    raise InputError(f'{len(wrong)} not upscaled: {listed(wrong)}')


if __name__ == '__main__':
  sys.exit(command.run(main))
