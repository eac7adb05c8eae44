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
import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from sr_jax import restore
from sr_jax.errors import InputError, listed
from sr_jax.images import decoders
from sr_jax.inference import upscale_jobs, upscale_options
from sr_jax.inference.planner import DEFAULT_TILE
from sr_jax.inference.upscale_file import FileOptions
from sr_jax.inference.upscale_jobs import Plan
from sr_jax.inference.upscale_options import RANGES, Options
from sr_jax.inference.upscale_run import Result, UpscaleRun
from sr_jax.inference.upscaler import Upscaler
from sr_jax.media import photos, video
from sr_jax.pretrained.published import PUBLISHED
from sr_jax.restore import Model
from sr_jax.system import cli, compile_cache, files

WINDOWS = int, 2, 64  # type, minimum and maximum of --window

__all__ = ['Options', 'Result', 'upscale']

Path = os.PathLike | str


def upscale(inputs: Path | Sequence[Path], output: Path, model: Model | Path, *,
            show_progress: bool = True, **options: Any) -> Result:
  """Upscales image and video files, as the command does; `model(array)` upscales an array.

    result = sr_jax.upscale.upscale('scans/', 'large', 'realesrgan-x4plus', format='jpeg')
    result.written, result.errors

  Args:
    inputs: an image, a video, a folder, whose structure is kept, a glob pattern, or several.
    output: the folder for the results, or for a single file the file to write.
    model: a `restore.Model`, or what `sr_jax.load` takes.
    show_progress: whether progress, notes and errors are printed.
    **options: fields of `Options`, named as the command's flags: format, quality, overwrite,
      outscale, ensemble, backproject, correct, tile, memory, max_pixels, crf.

  Returns:
    The results that were written, those that existed and were kept, a line for each input that
    could not be upscaled, and notes.

  Raises:
    InputError: an option is unknown, invalid or without effect, none of the inputs can be upscaled,
      a result would overwrite an input, or the model cannot be loaded.
  """
  checked = upscale_options.from_names(options)
  paths = [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)
  if not paths or not all(map(os.fspath, (*paths, output))):
    raise InputError(f'inputs={inputs!r}, output={output!r}: expected names that are not empty')
  plan = _plan([files.expand(path) for path in paths], files.expand(output), checked)
  if not plan.jobs:
    raise _none_upscaled(plan.errors)
  for note in plan.notes if show_progress else ():
    print(note)
  if not isinstance(model, Model):
    model = restore.load(model)
  result = _run(plan, model, checked, show_progress)
  if not result.written and not result.existed:
    raise _none_upscaled(result.errors)
  for error in result.errors if show_progress else ():
    print(error)
  return result


def _none_upscaled(errors: Sequence[str]) -> InputError:
  return InputError(f'{len(errors)} not upscaled: {listed(errors)}')


def _plan(inputs: Sequence[os.PathLike], output: os.PathLike, options: Options) -> Plan:
  """Finds the files to upscale; its notes name options without effect, too."""
  plan = upscale_jobs.plan(inputs, output, options.format)
  if not plan.jobs:
    return plan
  named = all(path.is_file() for path in inputs)
  return plan._replace(notes=plan.notes + upscale_options.without_effect(options, plan, named))


def _run(plan: Plan, model: Model, options: Options, shown: bool) -> Result:
  """Upscales the files of a plan whose results do not exist."""
  jobs = [job for job in plan.jobs if options.overwrite or not job.target.exists()]
  existed = [job.target for job in plan.jobs if job not in jobs]
  result = Result(existed=existed, errors=list(plan.errors), notes=list(plan.notes))
  for folder in dict.fromkeys(job.target.parent for job in plan.jobs):
    files.remove_leftovers(folder)  # of calls that were killed
  decoders.silence_libraries()

  def make_upscaler(sizes: Sequence[tuple[int, int]]) -> Upscaler:
    memory = options.memory and int(options.memory * 2**30)
    return model.upscaler(tile=options.tile, memory=memory, sizes=sizes)

  UpscaleRun(make_upscaler, model.scale, functools.partial(_identity, model), options, result,
             shown).run(jobs)
  return result


def _identity(model: Model) -> str:
  """Returns a text that differs between networks."""
  arrays = map(np.asarray, jax.tree.leaves(model.variables))
  weights = hashlib.sha256(b''.join(map(np.ndarray.tobytes, arrays))).hexdigest()
  return f'{weights}, {model.fields}'


def _argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
  """Returns the argparse type of a function that raises ValueError, whose message is shown."""
  def parse_argument(text: str) -> Any:
    try:
      return parse(text)
    except ValueError as error:
      raise argparse.ArgumentTypeError(str(error)) from None
  return parse_argument


def _correct(text: str) -> str:
  """Parses --correct."""
  _argument(upscale_options.parse_correction)(text)
  return text


def _tile(text: str) -> int | None:
  """Parses --tile."""
  try:
    return None if text == 'none' else cli.number(*RANGES['tile'])(text)
  except argparse.ArgumentTypeError as error:
    raise argparse.ArgumentTypeError(f'{error}, or none') from None


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
  add('--window', type=cli.number(*WINDOWS), metavar='N',
      help='side of the windows of attention in pixels, if the network is to have others than in '
      'training; biases of positions are interpolated')
  add('--format', type=_argument(upscale_options.format_name), choices=(*photos.FORMATS, 'same'),
      help="format of image results; 'same' keeps that of each image (default: png, or the suffix "
      'of --output)')
  add('--quality', type=cli.number(*RANGES['quality']),
      help=f'quality of JPEG and WebP; WebP with 100 is lossless (default: {FileOptions.quality})')
  add('--overwrite', action='store_true', help='overwrite existing results')
  add('--outscale', type=cli.number(*RANGES['outscale']), metavar='X',
      help='resample the result (bicubic) to X times the size of the input')
  add('--ensemble', action='store_true',
      help='return the mean over the 8 rotations and reflections of the image; takes 8 times as '
      'long')
  add('--backproject', type=cli.number(*RANGES['backproject']), default=0, metavar='N',
      help='add N times the difference between the input and the downscaled result, which removes '
      'colour shifts; 5 is enough (default: 0)')
  add('--correct', type=_correct, metavar='[smooth:]T[,T,T]',
      help='replace samples that differ from bilinear interpolation by more than T, in [0, 1], by '
      'bilinear interpolation')
  add('--tile', type=_tile, default=DEFAULT_TILE, metavar='N',
      help="side, in the input's pixels, of the tiles in which the last layers run, or none; does "
      f'not change the result (default: {DEFAULT_TILE})')
  add('--memory', type=cli.number(*RANGES['memory']), metavar='GIB',
      help='memory that a computation may use (default: most of the free memory)')
  add('--max-pixels', type=cli.number(*RANGES['max_pixels']), default=photos.MAX_PIXELS,
      metavar='N', help=f'refuse images with more pixels (default: {photos.MAX_PIXELS:,})')
  add('--crf', type=cli.number(*RANGES['crf']),
      help=f"x264's CRF for videos; lower is better (default: {video.VideoOptions.crf})")
  return parser


def main(argv: list[str] | None = None) -> None:
  """Runs the command line."""
  args = _parser().parse_args(argv)
  if args.workdir and not args.workdir.is_dir():
    raise InputError(f'--workdir {args.workdir}: no such run folder')
  options = Options(**{field.name: getattr(args, field.name)
                       for field in dataclasses.fields(Options)})
  plan = _plan(args.sources, args.output, options)
  if not plan.jobs:
    _report_errors(plan.errors)
  for note in plan.notes:
    print(note)
  compile_cache.use_cache()
  model = restore.load(args.workdir or args.weights or '', step=args.step, wrapper=args.key,
                       fields=cli.parse_fields(args.set))
  model = model.with_window(args.window) if args.window else model
  result = _run(plan, model, options, shown=True)
  if result.written:
    print(f'Upscaled {len(result.written)} of {len(plan.jobs)} x'
          f'{options.extras(model.scale).outscale or model.scale:g} to {args.output} with '
          f'{model.origin}')
  if result.existed:
    print(f'Skipped {len(result.existed)} of {len(plan.jobs)}: the output exists (--overwrite '
          'replaces it)')
  _report_errors(result.errors)


def _report_errors(errors: list[str]) -> None:
  """Raises an InputError if there are errors, after printing each of several on its own line."""
  if len(errors) > 1:
    for error in errors:
      cli.refuse(error, 1)
  if errors:
    raise InputError(f'{len(errors)} not upscaled' + f': {errors[0]}' * (len(errors) == 1))


if __name__ == '__main__':
  cli.leave(cli.run(main))
