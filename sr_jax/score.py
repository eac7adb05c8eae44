"""Scores images against their originals and prints a table.

  sr-jax score --sr results/Set5 --hr data/Set5/HR --scale 4
  sr-jax score --sr mine.png --hr original.png --scale 2 --lpips none --json s.json
  sr-jax score --sr results/holiday --niqe

Images are paired by name; baby_x4.png, babyx4.png and baby_SR.png are scored against baby.png.
Samples are compared as they are stored: those of more than 8 bits with 16, colours without alpha.
NIQE needs no originals: without --hr it is the only metric.
"""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from sr_jax import images
from sr_jax.errors import InputError, brief, listed
from sr_jax.images import dropped
from sr_jax.images.decoders import silence_libraries
from sr_jax.metrics import own, score_inputs
from sr_jax.metrics.niqe import is_large_enough
from sr_jax.metrics.niqe import niqe as compute_niqe
from sr_jax.metrics.score_inputs import Triple
from sr_jax.metrics.scorer import make_scorer, protocol, summary, with_nulls
from sr_jax.metrics.tables import legend, table
from sr_jax.system import cli, compile_cache, files, threads

Array = np.ndarray | jax.Array
LPIPS = ('alex', 'vgg', 'none')


def score(sr: os.PathLike | str | Array | Sequence[Array],
          hr: os.PathLike | str | Array | Sequence[Array], scale: int, *,
          lr: os.PathLike | str | Array | Sequence[Array] | None = None,
          border: int | None = None, lpips: str = 'alex',
          niqe: bool = False,
          metrics: Mapping[str, str | Callable[..., float]] | Sequence[str] | str = ()
          ) -> dict[str, Any]:
  """Scores images against their originals.

    scores = sr_jax.score.score('results/Set5', 'data/Set5/HR', 4)
    scores['mean']['psnr_y'], scores['images']['baby']['lpips_alex']

  Args:
    sr: the images to score. The path of a file or of a folder, whose images are paired with those
      of `hr` by name; or arrays: one image [H, W] or [H, W, C], a batch [B, H, W, C] or a list of
      images, with C 1 or 3; NumPy or JAX, uint8, uint16, or float in [0, 1]. Float is compared
      with 16 bits; published tables are of 8 bits, `images.to_uint8(sr)`.
    hr: the originals, of the same size and in the same form. An original whose sides are no
      multiples of the scale is cropped to such sides if SR is smaller by so much.
    scale: HR / LR.
    lr: the images that SR was made from, for psnr_lr; None takes `hr`, downscaled by MATLAB's
      bicubic.
    border: pixels to ignore on each side, in all metrics but LPIPS, NIQE and psnr_lr; None is
      `scale`.
    lpips: the network of LPIPS, 'alex', 'vgg' or 'none'.
    niqe: also computes NIQE of `sr`; `score_without_hr` computes nothing else.
    metrics: metrics of your own, {name: function or 'module:name'}; or one 'module:name', which is
      called as the function, one 'NAME=module:name', or a sequence of these. A function takes
      (sr, hr), float32 [H, W, C] in [0, 1], whole images, and returns a number. It may be called
      from several threads at once.

  Returns:
    {'images': {name: scores}, 'mean': scores, 'excluded': lines on images that a mean leaves out,
    'protocol': {metric: how it is computed}, 'notes': lines on files that are skipped, and on what
    is ignored or converted}. Scores are {'psnr_y', 'ssim_y', 'psnr_rgb', 'ssim_rgb', 'psnr_lr',
    'lpips_alex': float}, with 'niqe' if requested; `protocol` describes each. PSNR is infinite for
    equal images. Small images have no SSIM (fewer than 11 pixels a side), LPIPS (fewer than 32) or
    NIQE (fewer than 96x192). The name of an array is its number, from '0'.

  Raises:
    InputError: an image that is missing, unreadable or of another size, an array of another type or
      range, a missing LPIPS package, an invalid scale, border or lpips, or a metric of your own
      that cannot be found, raises an exception or does not return a number.
  """
  border = _checked_border(scale, border, lpips)
  notes = []
  triples = score_inputs.pair(sr, hr, lr, scale, notes)
  score_inputs.check_sizes(triples, scale, border)
  own_metrics = own.find_metrics(metrics)
  scorer, lost = make_scorer(scale, lpips, border, own_metrics, niqe), {}
  silence_libraries()

  def score_one(triple: Triple) -> tuple[dict[str, float], bool]:
    def read(image: score_inputs.ScoredImage) -> np.ndarray:
      samples, lost[image.label] = image.read()
      return samples

    hr, sr, lr = read(triple.hr), read(triple.sr), triple.lr and read(triple.lr)
    cropped = hr.shape[:2] != sr.shape[:2]
    if cropped:
      hr = images.crop_to_multiple(hr, scale)
    return scorer(sr, hr, lr, image=triple.name), cropped

  results = dict(zip([triple.name for triple in triples],
                     threads.on_all_cores(score_one, triples), strict=True))
  notes += dropped.summary({label: lost[label] for label in sorted(lost)})
  if cropped := [name for name, (_, was_cropped) in results.items() if was_cropped]:
    notes.append(f'HR cropped to a multiple of {scale}: {listed(cropped)}')
  return {'protocol': protocol(border, lpips, lr is not None, stored=True, own=own_metrics,
                               niqe=niqe),
          **summary({name: scores for name, (scores, _) in results.items()}),
          'notes': list(dict.fromkeys(notes))}  # SR and HR may be one folder


def score_without_hr(sr: os.PathLike | str | Array | Sequence[Array]) -> dict[str, Any]:
  """Computes NIQE of images that have no originals.

    sr_jax.score.score_without_hr('results/holiday')['mean']['niqe']

  Args:
    sr: as for `score`.

  Returns:
    What `score` returns, with 'niqe' as the only metric. Images of fewer than two patches of 96x96
    have none.

  Raises:
    InputError: an image that is missing or unreadable, an array of another type or range, or none
      of the images is large enough.
  """
  notes = []
  alone = score_inputs.without_partners(sr, notes)
  silence_libraries()

  def score_one(image: score_inputs.ScoredImage) -> tuple[dict[str, float], Sequence[str]]:
    samples, lost = image.read()
    return {'niqe': compute_niqe(samples)} if is_large_enough(samples) else {}, lost

  results = dict(zip(alone, threads.on_all_cores(score_one, [*alone.values()]), strict=True))
  scores = {name: of for name, (of, _) in results.items()}
  if not any(scores.values()):
    raise InputError(f'{listed([image.label for image in alone.values()])}: too small for NIQE, '
                     'which needs two patches of 96x96 pixels')
  notes += dropped.summary({alone[name].label: lost for name, (_, lost) in results.items()})
  meanings = protocol(0, 'none', False, stored=True, niqe=True)
  return {'protocol': {name: meanings[name] for name in ('niqe', 'samples')}, **summary(scores),
          'notes': notes}


def _checked_border(scale: int, border: int | None, lpips: str) -> int:
  """Returns the border.

  Raises:
    InputError: one of the arguments is invalid.
  """
  for name, value, least in (('scale', scale, 1), ('border', border, 0)):
    integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not (integer and value >= least) and not (name == 'border' and value is None):
      raise InputError(f'{name}={brief(value, 80)}: expected an integer of at least {least}')
  if lpips not in LPIPS:
    raise InputError(f'lpips={brief(repr(lpips), 80)}: expected one of {", ".join(LPIPS)}')
  return int(scale if border is None else border)


def main(argv: list[str] | None = None) -> None:
  """Runs the command line."""
  args = _parse(argv)
  for path in filter(None, (args.json, args.markdown)):
    if path.is_dir():
      raise InputError(f'{path}: cannot write (it is a folder)')
  compile_cache.use_cache()
  result = _score_without_hr(args) if args.hr is None else score(
      args.sr, args.hr, args.scale, lr=args.lr, border=args.border, lpips=args.lpips or 'alex',
      niqe=args.niqe, metrics=args.metric)
  scores, meanings = {'': result['images']}, result['protocol']
  print(table(scores))
  for note in result['notes']:
    print(note)
  print(f'\n{legend(meanings)}')
  if args.json:
    files.write_json(args.json, with_nulls(result))
  if args.markdown:
    files.write_text(args.markdown, f'{table(scores, markdown=True)}\n\n'
                                    f'{legend(meanings, markdown=True)}\n')


def _score_without_hr(args: argparse.Namespace) -> dict[str, Any]:
  """Runs `score_without_hr` for a command line without --hr.

  Raises:
    InputError: --niqe is missing, or there is an option that needs HR.
  """
  if not args.niqe:
    raise InputError('--hr: missing; all metrics but NIQE (--niqe) need the originals')
  for name in ('lr', 'scale', 'border', 'lpips', 'metric'):
    if getattr(args, name) not in (None, [], 'none'):
      raise InputError(f'--{name}: needs --hr; without it NIQE is the only metric')
  return score_without_hr(args.sr)


def _parse(argv: list[str] | None) -> argparse.Namespace:
  parser = cli.Parser('sr-jax score', __doc__)
  add = parser.add_argument
  add('--sr', required=True, type=cli.path, help='results: a folder or an image')
  add('--hr', type=cli.path, help='originals: a folder or an image; needed by all metrics but NIQE')
  add('--lr', type=cli.path, help='the LR images that SR was made from, for psnr_lr; default: HR '
      "downscaled by MATLAB's bicubic")
  add('--scale', type=cli.number(int, 1, 10**6), help='HR / LR; needed with --hr')
  add('--border', type=cli.number(int, 0, 10**6),
      help='pixels to ignore on each side; default: the scale')
  add('--lpips', choices=LPIPS, help='network of LPIPS; default: alex')
  add('--niqe', action='store_true', help='also computes NIQE, which needs no originals')
  add('--metric', action='append', default=[], metavar='[NAME=]MODULE:FUNCTION',
      help='a metric of your own: a function of (sr, hr), float32 [H, W, C] in [0, 1], that '
      'returns a number; may be given several times')
  add('--json', metavar='FILE', type=cli.path, help='also writes scores and protocol to this file')
  add('--markdown', metavar='FILE', type=cli.path, help='also writes the table to this file')
  args = parser.parse_args(argv)
  if args.hr and not args.scale:
    raise InputError('--scale: missing; expected HR / LR, an integer')
  return args


if __name__ == '__main__':
  sys.exit(cli.run(main))
