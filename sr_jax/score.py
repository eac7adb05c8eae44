"""Scores pictures against their originals: the one scorer, and its tables.

  python -m sr_jax.score --sr results/Set5 --hr data/Set5/HR --scale 4
  python -m sr_jax.score --sr mine.png --hr original.png --scale 2 --lpips none --json s.json

Pairs files by name; baby_x4.png, babyx4.png and baby_SR.png are scored against baby.png.
"""

import sys

from sr_jax import images
from sr_jax.data import folders
from sr_jax.errors import InputError, listed
from sr_jax.metrics.scorer import make_scorer, protocol, summary
from sr_jax.metrics.tables import legend, table
from sr_jax.system import cli, compile_cache, files, threads

# One picture ---------------------------------------------------------------------------


# Tables --------------------------------------------------------------------------------


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
  first, *others = ({path.stem: path} if path.is_file() else folders.images_by_name(path)
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
