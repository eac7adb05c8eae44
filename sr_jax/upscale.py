"""Upscales images and videos with a trained network.

  sr-jax upscale photo.jpg scans/ --output out --weights realesrgan-x4plus
  sr-jax upscale 'data/*/LRbicx4' --output out --workdir runs/srgan --format tiff
  sr-jax upscale clip.mp4 --output out --weights realesr-animevideov3-x2
  sr-jax upscale photo.jpg --output photo_x4.jpg --weights realesrgan-x4plus

IN is an image, a video, a folder, whose structure is kept, or a glob pattern. Other files in a
folder are skipped and named. For a single file, --output may be the file to write; its suffix is
the format. The weights are those of a run, of a weight file (`.safetensors`, `.pth`, ncnn) or of a
published network. Grey, 16-bit and transparent images stay so; EXIF and the colour profile are
kept. Existing results are skipped, so the same command resumes an interrupted job. A video keeps
its timestamps and its sound; it has thousands of frames, so the Compact networks
(realesr-animevideov3-x2, -x3, -x4, or what --config compact trains) are the practical choice for
videos.

Large images are processed in tiles whose result is that of the whole image, in the available memory
(sr_jax/inference/upscaler.py).
"""

import argparse
import dataclasses
import hashlib
import math
from collections.abc import Sequence

import jax
import numpy as np

from sr_jax import restore
from sr_jax.errors import InputError
from sr_jax.images import decoders
from sr_jax.inference import correction, upscale_jobs
from sr_jax.inference.planner import DEFAULT_TILE
from sr_jax.inference.upscale_file import Extras, FileOptions, upscale_file, upscale_samples
from sr_jax.inference.upscale_jobs import Job
from sr_jax.inference.upscaler import Upscaler
from sr_jax.media import clips, photos, video
from sr_jax.pretrained.published import PUBLISHED
from sr_jax.system import cli, compile_cache, files
from sr_jax.system.progress import Progress, progress

MAX_OUTSCALE = 64


@dataclasses.dataclass
class Outcome:
  """What became of the jobs."""

  done: int = 0
  existed: int = 0  # results that existed already
  errors: list[str] = dataclasses.field(default_factory=list)


def parse_correction(text: str) -> tuple[str, tuple[float, ...]]:
  """Parses '0.1', '0.1,0.2,0.1' or 'smooth:0.1' to (kind, thresholds)."""
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


def _tile(text: str) -> int | None:
  """Parses --tile."""
  try:
    return None if text == 'none' else cli.number(int, 8, 10**6)(text)
  except argparse.ArgumentTypeError as error:
    raise argparse.ArgumentTypeError(f'{error}, or none') from None


def _format(text: str) -> str:
  """Parses --format: a suffix such as jpg stands for its format, in either case."""
  if f'.{text.lower()}' in clips.SUFFIXES:
    raise argparse.ArgumentTypeError(
        f"{text!r}: is a format of videos, expected one of {', '.join(photos.FORMATS)} or same; "
        f"videos become {' or '.join(video.OUTPUT_SUFFIXES)}: for a single one, name the file by "
        '--output')
  return upscale_jobs.FORMAT_BY_SUFFIX.get(f'.{text.lower()}', text.lower())


def _parser() -> cli.Parser:
  parser = cli.Parser('sr-jax upscale', __doc__)
  add = parser.add_argument
  add('sources', metavar='IN', nargs='+', type=cli.path,
      help='images, videos, folders of them, or glob patterns')
  add('--output', required=True, metavar='OUT', type=cli.path,
      help='folder for the results, created if it does not exist; for a single file also the file '
      'to write')
  network = parser.add_mutually_exclusive_group(required=True)
  network.add_argument('--workdir', type=cli.path, metavar='RUN', help='the folder of a run')
  network.add_argument('--weights', metavar='FILE', help='a weight file, or one of '
                       + ', '.join(f'{name} ({known.suits})' for name, known in PUBLISHED.items()))
  add('--step', default='latest',
      help="checkpoint of the run: a step, 'latest' or 'best' (default: latest)")
  cli.add_file_options(parser)
  add('--format', type=_format, choices=(*photos.FORMATS, 'same'),
      help="format of image results; 'same' keeps that of each image (default: png, or the suffix "
      'of --output)')
  add('--quality', type=cli.number(int, 1, 100),
      help=f'quality of JPEG and WebP; WebP with 100 is lossless (default: {FileOptions.quality})')
  add('--overwrite', action='store_true', help='overwrite existing results')
  add('--outscale', type=cli.number(float, 0.01, MAX_OUTSCALE), metavar='X',
      help='resample the result (bicubic) to X times the size of the input')
  add('--ensemble', action='store_true',
      help='return the mean over the 8 rotations and reflections of the image; takes 8 times as '
      'long')
  add('--backproject', type=cli.number(int, 0, 100), default=0, metavar='N',
      help='add N times the difference between the input and the downscaled result, which removes '
      'colour shifts; 5 is enough (default: 0)')
  add('--correct', type=parse_correction, metavar='[smooth:]T[,T,T]', default=('replace', ()),
      help='replace samples that differ from bilinear interpolation by more than T, in [0, 1], by '
      'bilinear interpolation')
  add('--tile', type=_tile, default=DEFAULT_TILE, metavar='N',
      help="side, in the input's pixels, of the tiles in which the last layers run, or none; does "
      f'not change the result (default: {DEFAULT_TILE})')
  add('--memory', type=cli.number(float, 0.001, 10**6), metavar='GIB',
      help='memory that a computation may use (default: most of the free memory)')
  add('--max-pixels', type=cli.number(int, 1, 1 << 40), default=photos.MAX_PIXELS, metavar='N',
      help=f'refuse images with more pixels (default: {photos.MAX_PIXELS:,})')
  add('--crf', type=cli.number(int, 0, 51),
      help=f"x264's CRF for videos; lower is better (default: {video.VideoOptions.crf})")
  return parser


def _upscale_images(jobs: Sequence[Job], args: argparse.Namespace, model: restore.Model,
                    extras: Extras, outcome: Outcome) -> None:
  """Upscales image files."""
  sizes, readable = [], []
  for job in jobs:
    try:
      sizes.append(photos.size(job.source, args.max_pixels))
      readable.append(job)
    except InputError as error:
      outcome.errors.append(str(error))
  rotated = [size[::-1] for size in sizes] if args.ensemble else []
  upscaler, notes_printed = _upscaler(model, args, sizes + rotated), 0
  # Progress counts pixels: images differ in size, and the remaining time is computed from it.
  with progress('', sum(map(math.prod, sizes)), 'pixels') as bar:
    done = 0
    for number, (job, size) in enumerate(zip(readable, sizes, strict=True), 1):
      bar.name = f'{job.source}' + f' ({number} of {len(sizes)})' * (len(sizes) > 1)
      bar.update(done)
      if not _already_done(job, args, outcome):
        options = FileOptions(job.format, extras, args.quality or FileOptions.quality,
                              args.max_pixels)
        try:
          loss = upscale_file(upscaler, job.source, job.target, options,
                              lambda rows, width=size[1]: bar.update(bar.done + rows * width))
          outcome.done += 1
          for note in [loss] * bool(loss) + upscaler.notes[notes_printed:]:
            bar.write(f'{job.source}: {note}')
        except InputError as error:
          outcome.errors.append(str(error))
      notes_printed, done = len(upscaler.notes), done + math.prod(size)
      bar.update(done)


def _upscale_videos(jobs: Sequence[Job], args: argparse.Namespace, model: restore.Model,
                    extras: Extras, outcome: Outcome) -> None:
  """Upscales video files."""
  if not jobs:
    return
  upscaler, notes_printed = _upscaler(model, args), 0
  scale = extras.outscale or model.scale
  if scale % 1:
    outcome.errors += [f'{job.source}: --outscale {scale:g}: expected an integer for a video'
                       for job in jobs]
    return
  weights_hash = hashlib.sha256(b''.join(map(np.ndarray.tobytes, map(
      np.asarray, jax.tree.leaves(model.variables))))).hexdigest()
  crf = video.VideoOptions.crf if args.crf is None else args.crf  # 0 is a value, too
  options = video.VideoOptions(crf=crf, max_pixels=args.max_pixels,
                               identity=f'{weights_hash}, {model.fields}, {extras}')

  def upscale(frames: np.ndarray) -> np.ndarray:
    if not any(extras):
      return upscaler(frames)
    return np.stack([upscale_samples(upscaler, frame, extras) for frame in frames])

  for number, job in enumerate(jobs, 1):
    if _already_done(job, args, outcome):
      continue
    with progress(f'{job.source}' + f' ({number} of {len(jobs)})' * (len(jobs) > 1), 0,
                  'frames') as bar:
      def show_progress(done: int, total: int, bar: Progress = bar) -> None:
        bar.total = total
        bar.update(done)

      try:
        result = video.upscale_video(upscale, int(scale), job.source, job.target, options,
                                     show_progress)
        outcome.done += 1
        for note in [f'{job.target}: {result}',
                     *(f'{job.source}: {note}' for note in upscaler.notes[notes_printed:])]:
          bar.write(note)
      except (MemoryError, InputError) as error:
        outcome.errors.append(str(error) or f'{job.source}: the video does not fit in memory')
      notes_printed = len(upscaler.notes)


def _without_effect(args: argparse.Namespace, plan: upscale_jobs.Plan) -> list[str]:
  """Returns a line for each given option that no result uses.

  Raises:
    InputError: there is such an option, and it cannot have been meant for other contents of a
      folder or of a pattern, or for an input that cannot be used.
  """
  formats = {job.format for job in plan.jobs}
  only_videos, unused = formats == {upscale_jobs.VIDEO}, {}
  if args.quality is not None and formats.isdisjoint(('jpeg', 'webp')):
    unused[f'--quality {args.quality}'] = (
        'IN has only videos, whose quality is --crf' if only_videos else
        'no result is a JPEG or WebP; --format chooses the format')
  if args.format and only_videos:
    unused[f'--format {args.format}'] = 'it applies to images, and IN has only videos'
  if args.crf is not None and upscale_jobs.VIDEO not in formats:
    unused[f'--crf {args.crf}'] = 'it applies to videos, and IN has only images'
  named = not plan.errors and all(path.is_file() for path in args.sources)
  for option, reason in unused.items():
    never_jpeg = option.startswith('--quality') and args.format not in ('same', 'jpeg', 'webp')
    if named or never_jpeg:
      raise InputError(f'{option}: has no effect here: {reason}; leave the option out')
  return [f'{option}: has no effect here: {reason}' for option, reason in unused.items()]


def _already_done(job: Job, args: argparse.Namespace, outcome: Outcome) -> bool:
  """Returns whether the result exists by now: another call may write to the same folder."""
  existed = job.target.exists() and not args.overwrite
  outcome.existed += existed
  return existed


def _upscaler(model: restore.Model, args: argparse.Namespace,
              sizes: Sequence[tuple[int, int]] = ()) -> Upscaler:
  return model.upscaler(tile=args.tile, memory=args.memory and int(args.memory * 2**30),
                        sizes=sizes)


def main(argv: list[str] | None = None) -> None:
  """Runs the command line."""
  args = _parser().parse_args(argv)
  if args.workdir and not args.workdir.is_dir():
    raise InputError(f'--workdir {args.workdir}: no such run folder')
  plan = upscale_jobs.plan(args.sources, args.output, args.format)
  if not plan.jobs:
    _report_errors(plan.errors)
  for note in plan.notes + _without_effect(args, plan):
    print(note)
  new_jobs = [job for job in plan.jobs if args.overwrite or not job.target.exists()]
  outcome = Outcome(existed=len(plan.jobs) - len(new_jobs))
  for folder in dict.fromkeys(job.target.parent for job in plan.jobs):
    files.remove_leftovers(folder)  # of calls that were killed
  compile_cache.use_cache()
  model = restore.load(args.workdir or args.weights or '', step=args.step, wrapper=args.key,
                       fields=cli.parse_fields(args.set))
  kind, thresholds = args.correct
  outscale = 0 if args.outscale in (None, model.scale) else args.outscale
  extras = Extras(args.ensemble, args.backproject, thresholds, kind if thresholds else '', outscale)
  decoders.silence_libraries()
  _upscale_images([job for job in new_jobs if job.format != upscale_jobs.VIDEO], args, model,
                  extras, outcome)
  _upscale_videos([job for job in new_jobs if job.format == upscale_jobs.VIDEO], args, model,
                  extras, outcome)
  if outcome.done:
    print(f'Upscaled {outcome.done} of {len(plan.jobs)} x{outscale or model.scale:g} to '
          f'{args.output} with {model.origin}')
  if outcome.existed:
    print(f'Skipped {outcome.existed} of {len(plan.jobs)}: the output exists (--overwrite replaces '
          'it)')
  _report_errors(plan.errors + outcome.errors)


def _report_errors(errors: list[str]) -> None:
  """Raises an InputError if there are errors, after printing each of several on its own line."""
  if len(errors) > 1:
    for error in errors:
      cli.refuse(error, 1)
  if errors:
    raise InputError(f'{len(errors)} not upscaled' + f': {errors[0]}' * (len(errors) == 1))


if __name__ == '__main__':
  cli.leave(cli.run(main))
