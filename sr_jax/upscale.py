"""Makes pictures and clips larger with a trained network.

  python -m sr_jax.upscale photo.jpg scans/ --output out --weights realesrgan-x4plus
  python -m sr_jax.upscale 'data/*/LRbicx4' --output out --workdir runs/srgan --format tiff
  python -m sr_jax.upscale clip.mp4 --output out --weights realesr-animevideov3-x2

IN is a picture, a clip, a folder, whose structure is kept, or a glob. The weights are those of a
run, of a weight file (`.safetensors`, `.pth`, ncnn) or of a published network. Grey, 16-bit and
transparent pictures come out as they are; EXIF and the colour profile are kept. What is there
already is left alone, so a job that was stopped goes on. A clip keeps its times and its sound; it
is thousands of pictures, so the Compact networks (realesr-animevideov3-x2, -x3, -x4, or what
configs/compact.py trains) are the practical choice for one.

A picture is cut so that no cut can be seen: the result is that of the whole picture, in the memory
there is (sr_jax/inference/upscaler.py).
"""

import argparse
import glob
import hashlib
import math
import os
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np
import tqdm

from sr_jax import images, restore
from sr_jax.data import folders
from sr_jax.errors import InputError
from sr_jax.inference import correction
from sr_jax.inference.upscale_file import Extras, upscale_file, upscale_samples
from sr_jax.inference.upscaler import TILE, Upscaler
from sr_jax.media import decoders, photos, video
from sr_jax.pretrained.published import PUBLISHED
from sr_jax.system import cli, compile_cache

READABLE = (*images.SUFFIXES, '.gif', '.avif', '.jfif', *video.SUFFIXES)  # of what lies in a folder
BY_SUFFIX = {'.jpg': 'jpeg', '.jpeg': 'jpeg', '.jfif': 'jpeg', '.webp': 'webp', '.tif': 'tiff',
             '.tiff': 'tiff', '.bmp': 'bmp'}  # --format same; all others become PNG
LARGEST = 64  # --outscale
BAR = '{desc}{percentage:3.0f}% [{elapsed}, {remaining} left, {rate_fmt}] |{bar}|'


def plan_outputs(places: Sequence[pathlib.Path], folder: pathlib.Path, format: str):
  """(what is read, what is written) of pictures, clips, folders and globs; what is wrong with
  some of the places, a line each. What a glob finds keeps its path from where the glob begins.

  Raises:
    InputError: two of one name; one that would be overwritten.
  """
  def suffix(path):
    if path.suffix.lower() in video.SUFFIXES:
      return '.mp4'
    return photos.FORMATS[format_of(path, format)].suffix

  found, roots, wrong, seen = [], {}, [], set()
  for place in places:
    matches = [place]
    if not place.exists() and glob.has_magic(str(place)):
      matches = [pathlib.Path(match) for match in sorted(glob.glob(str(place), recursive=True))
                 ] or [place]
      fixed = next(index for index, part in enumerate(place.parts) if glob.has_magic(part))
      roots |= dict.fromkeys(matches, pathlib.Path(*place.parts[:fixed]))
    for match in matches:
      try:
        folders.output_paths([match], folder, READABLE, suffix, roots)
      except InputError as error:
        wrong.append(str(error))
        continue
      if (real := os.path.realpath(match)) not in seen:  # '**' follows links, in circles too
        seen.add(real)
        found.append(match)
  return found and folders.output_paths(found, folder, READABLE, suffix, roots), wrong


def format_of(path: pathlib.Path, format: str) -> str:
  return BY_SUFFIX.get(path.suffix.lower(), 'png') if format == 'same' else format


def parse_correction(text: str) -> tuple[str, tuple[float, ...]]:
  """'0.1', '0.1,0.2,0.1' or 'smooth:0.1' to (kind, thresholds)."""
  kind, _, numbers = text.rpartition(':')
  try:
    thresholds = tuple(float(number) for number in numbers.split(','))
  except ValueError:
    thresholds = ()
  if (kind or 'replace') not in correction.KINDS or len(thresholds) not in (1, 3) or not all(
      0 <= threshold <= 1 for threshold in thresholds):
    raise argparse.ArgumentTypeError(f"{text!r}: expected one threshold or three in [0, 1], such "
                                     "as 0.1 or smooth:0.1,0.2,0.1")
  return kind or 'replace', thresholds


def _number(kind: Callable, least: float, most: float) -> Callable[[str], float]:
  """The type of an argument that is a number in [least, most]."""
  def parse(text: str):
    try:
      value = kind(text)
    except ValueError:
      value = math.nan
    if not least <= value <= most:
      sort = 'a whole number' if kind is int else 'a number'
      raise argparse.ArgumentTypeError(f'{text!r}: expected {sort} from {least:,} to {most:,}')
    return value
  return parse


def _tile(text: str) -> int | None:
  try:
    return None if text == 'none' else _number(int, 8, 10**6)(text)
  except argparse.ArgumentTypeError as error:
    raise argparse.ArgumentTypeError(f'{error}, or none') from None


def _parser() -> cli.Parser:
  parser = cli.Parser('python -m sr_jax.upscale', __doc__)
  add = parser.add_argument
  add('sources', metavar='IN', nargs='+', type=cli.path,
      help='pictures, clips, folders of them, globs')
  add('--output', required=True, metavar='DIR', type=cli.path,
      help='is made where there is none')
  network = parser.add_mutually_exclusive_group(required=True)
  network.add_argument('--workdir', type=cli.path, metavar='RUN', help='a run')
  network.add_argument('--weights', metavar='FILE', help='a weight file, or one of '
                       + ', '.join(PUBLISHED))
  add('--step', default='latest', help="of a run: a number, 'latest' or 'best'")
  cli.add_file_options(parser)
  add('--format', choices=(*photos.FORMATS, 'same'), default='png',
      help="of pictures; 'same' as the original (default: png)")
  add('--quality', type=_number(int, 1, 100), default=95,
      help='of JPEG and WebP; a WebP of 100 has no loss (default: 95)')
  add('--overwrite', action='store_true', help='make what is there already again')
  add('--outscale', type=_number(float, 0.01, LARGEST), metavar='X',
      help='the result resampled (bicubic) to so many times the size of the original')
  add('--ensemble', action='store_true',
      help='the mean over the 8 turns and reflections of the picture: 8 times the time')
  add('--backproject', type=_number(int, 0, 100), default=0, metavar='N',
      help='N times what the result, made small again, lacks of the original is added: no shift '
      'of colours; 5 are plenty')
  add('--correct', type=parse_correction, metavar='[smooth:]T[,T,T]', default=('replace', ()),
      help="samples further than T of [0, 1] from bilinear's become bilinear's")
  add('--tile', type=_tile, default=TILE, metavar='N', help="side of the tiles in which the last "
      f"layers run, in the original's pixels, or none; never seen in the result (default: {TILE})")
  add('--memory', type=_number(float, 0.001, 10**6), metavar='GIB',
      help='that a computation may take (default: most of what is free)')
  add('--max-pixels', type=_number(int, 1, 1 << 40), default=photos.MAX_PIXELS, metavar='N',
      help=f'a file of more is not read (default: {photos.MAX_PIXELS:,})')
  add('--crf', type=_number(int, 0, 51), default=18,
      help="of clips, x264's quality, less is better (default: 18)")
  return parser


def _pictures(jobs, args, model: restore.Model, extras: Extras) -> list[str]:
  """Upscales pictures; what is wrong with some of them."""
  sizes, readable, wrong = [], [], []
  for job in jobs:
    try:
      sizes.append(photos.size(job[0], args.max_pixels))
      readable.append(job)
    except InputError as error:
      wrong.append(str(error))
  turned = [size[::-1] for size in sizes] if args.ensemble else []
  upscaler, told = _upscaler(model, args, sizes + turned), 0
  # Of pixels, for pictures differ; so the time that is left is no guess.
  with tqdm.tqdm(total=sum(map(math.prod, sizes)), unit='px', unit_scale=True, leave=False,
                 disable=None, dynamic_ncols=True, bar_format=BAR) as bar:
    done = 0
    for (source, target), size in zip(readable, sizes, strict=True):
      bar.set_description(_short(source))
      try:
        lost = upscale_file(upscaler, source, target, format_of(source, args.format), extras,
                            args.quality, args.max_pixels,
                            lambda rows, width=size[1]: bar.update(rows * width))
        for note in [lost] * bool(lost) + upscaler.notes[told:]:
          bar.write(f'{source}: {note}')
      except InputError as error:
        wrong.append(str(error))
      told, done = len(upscaler.notes), done + math.prod(size)
      bar.update(done - bar.n)
  return wrong


def _clips(jobs, args, model: restore.Model, extras: Extras) -> list[str]:
  """Upscales clips; what is wrong with some of them."""
  if not jobs:
    return []
  upscaler, wrong, told = _upscaler(model, args), [], 0
  scale = extras.outscale or model.scale
  if scale % 1:
    return [f'{source}: --outscale {scale:g}, of a clip a whole number' for source, _ in jobs]
  weights = hashlib.sha256(b''.join(map(np.ndarray.tobytes, map(
      np.asarray, jax.tree.leaves(model.variables))))).hexdigest()

  def upscale(frames):
    if not any(extras):
      return upscaler(frames)
    return np.stack([upscale_samples(upscaler, frame, extras) for frame in frames])

  for source, target in jobs:
    with tqdm.tqdm(desc=_short(source), unit=' frames', leave=False, disable=None,
                   dynamic_ncols=True) as bar:
      def watch(done, total, bar=bar):
        bar.total = total or None
        bar.update(done - bar.n)

      try:
        made = video.upscale_video(
            upscale, int(scale), source, target, crf=args.crf, max_pixels=args.max_pixels,
            identity=f'{weights}, {model.fields}, {extras}', progress=watch)
        for note in [f'{target}: {made}'] + [f'{source}: {note}' for note in upscaler.notes[told:]]:
          bar.write(note)
      except (MemoryError, InputError) as error:
        wrong.append(str(error) or f'{source}: too large for the memory')
      told = len(upscaler.notes)
  return wrong


def _short(path: pathlib.Path) -> str:
  """Its name, in a few columns."""
  return path.name if len(path.name) <= 20 else f'{path.name[:9]}..{path.name[-9:]}'


def _upscaler(model: restore.Model, args, sizes: Sequence[tuple[int, int]] = ()) -> Upscaler:
  return model.upscaler(tile=args.tile, memory=args.memory and int(args.memory * 2**30),
                        sizes=sizes)


def main(argv: list[str] | None = None) -> None:
  args = _parser().parse_args(argv)
  if args.workdir and not args.workdir.is_dir():
    raise InputError(f'{args.workdir}: no run there')
  found, wrong = plan_outputs(args.sources, args.output, args.format)
  if not found:
    _refuse(wrong)
  jobs = [job for job in found if args.overwrite or not job[1].exists()]
  clips = [job for job in jobs if job[0].suffix.lower() in video.SUFFIXES]
  pictures = [job for job in jobs if job not in clips]
  compile_cache.use_cache()
  model = restore.load(args.workdir or args.weights or '', step=args.step, wrapper=args.key,
                       fields=cli.parse_fields(args.set))
  kind, thresholds = args.correct
  outscale = 0 if args.outscale in (None, model.scale) else args.outscale
  extras = Extras(args.ensemble, args.backproject, thresholds, kind if thresholds else '', outscale)
  decoders.quiet()
  failed = _pictures(pictures, args, model, extras) + _clips(clips, args, model, extras)
  if len(jobs) > len(failed):
    print(f'{len(jobs) - len(failed)} of {len(found)} upscaled x{outscale or model.scale:g} to '
          f'{args.output} by {model.origin}')
  if len(found) > len(jobs):
    print(f'{len(found) - len(jobs)} of {len(found)} left alone, for there is a file of their name '
          '(--overwrite makes it again)')
  _refuse(wrong + failed)


def _refuse(wrong: list[str]) -> None:
  """A line for each and, if there are several, one with their number; nothing of none."""
  if len(wrong) > 1:
    for reason in wrong:
      cli.refuse(reason, 1)
  if wrong:
    raise InputError(f'{len(wrong)} not upscaled' + f': {wrong[0]}' * (len(wrong) == 1))


if __name__ == '__main__':
  cli.leave(cli.run(main))
