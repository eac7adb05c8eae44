"""Scores networks on degraded photographs, and saves what they make of them side by side.

  python -m tests.benchmarks.degraded_photos photos --chain realesrgan --count 20 \\
      --network bicubic=runs/srresnet --network ours=runs/realesrnet --output table
  python -m tests.benchmarks.degraded_photos photos --jpeg 10 --grey --network ours=runs/restore

The photographs are the first ones of a folder, by name. LR is made by a chain of
sr_jax/data/degradations, the same at every call (`degradations.fixed`), by bicubic reduction
(--chain none), or by saving HR as JPEG (--jpeg QUALITY, for networks of scale 1).

With --grey, HR is Y of the photograph (MATLAB's rgb2ycbcr), the protocol of ARCNN and DnCNN.
Besides the usual metrics `lab_shift` is the distance of the mean colours of SR and HR in CIELAB.
"""

import argparse
import dataclasses
import functools
import io
import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from skimage.color import rgb2lab

from sr_jax import images, restore
from sr_jax.data import benchmarks
from sr_jax.data.degradations import chains, fixed
from sr_jax.data.pictures import Pair
from sr_jax.errors import InputError
from sr_jax.images import montage
from sr_jax.metrics import tables
from sr_jax.metrics.own import OwnMetric
from sr_jax.metrics.scorer import make_scorer, means, score_set
from sr_jax.system import cli


class Protocol(NamedTuple):
  """How LR is made of a photograph."""

  scale: int
  chain: str
  sharpen: float | None
  jpeg: int | None
  grey: bool


def lab_shift(sr: np.ndarray, hr: np.ndarray) -> float:
  """Returns the distance of the mean colours in CIELAB of two images, float [H, W, 3] in [0, 1]."""
  means_of = [rgb2lab(images.as_rgb(image)).mean((0, 1)) for image in (sr, hr)]
  return float(np.linalg.norm(means_of[0] - means_of[1]))


def read_pairs(folder: str, count: int, protocol: Protocol) -> list[Pair]:
  """Returns the first `count` photographs of a folder with LR of the protocol."""
  found = benchmarks.find_set(folder, protocol.scale)[:count]
  pairs = list(benchmarks.read_set(found, protocol.scale))
  if protocol.grey:
    pairs = [pair._replace(lr=None, hr=grey_levels(pair.hr)) for pair in pairs]
  if protocol.jpeg:
    return [pair._replace(lr=saved_as_jpeg(pair.hr, protocol.jpeg)) for pair in pairs]
  if protocol.chain == 'none':
    return pairs
  places = {pair.name: place for place, pair in enumerate(pairs)}
  chain = chains.PRESETS[protocol.chain]
  if protocol.sharpen is not None:
    chain = dataclasses.replace(chain, sharpen=protocol.sharpen)
  return fixed.degrade_pairs(pairs, places, chain, protocol.scale)


def grey_levels(image: np.ndarray) -> np.ndarray:
  """Returns Y of an image, rounded: uint8 [H, W, 1]."""
  return images.to_uint8(np.asarray(images.luma(images.to_float(image))))


def saved_as_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
  """Returns what Pillow reads from a JPEG file (4:2:0) of an image, uint8 [H, W, 1 or 3]."""
  file = io.BytesIO()
  Image.fromarray(image.squeeze()).save(file, 'JPEG', quality=quality)
  return np.array(Image.open(file)).reshape(image.shape)


def upscalers(networks: Sequence[str], scale: int
              ) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
  """Returns {name: upscale} of bicubic and of the networks NAME=RUN or NAME=FILE."""
  found = {'input' if scale == 1 else 'bicubic': functools.partial(images.imresize, scale=scale)}
  for entry in networks:
    name, _, source = entry.partition('=')
    model = restore.load(source)
    if model.scale != scale:
      raise InputError(f'--network {entry}: has scale {model.scale}, --scale is {scale}')
    found[name] = model
  return found


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
  """Parses the command line."""
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('folder', help='photographs')
  parser.add_argument('--network', action='append', default=[], help='NAME=RUN or NAME=FILE')
  parser.add_argument('--scale', type=int, default=4)
  parser.add_argument('--chain', choices=('none', *chains.PRESETS), default='realesrgan')
  parser.add_argument('--sharpen', type=float,
                      help='weight of the unsharp mask of HR before LR is made of it; default: of '
                           'the chain')
  parser.add_argument('--jpeg', type=int, help='quality')
  parser.add_argument('--grey', action='store_true')
  parser.add_argument('--count', type=int, default=20)
  parser.add_argument('--lpips', choices=('alex', 'vgg', 'none'), default='alex')
  parser.add_argument('--output', help='folder for the montages and scores.json')
  return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
  """Prints a table of the means, and writes montages and all scores."""
  args = parse(arguments)
  protocol = Protocol(1 if args.jpeg else args.scale, args.chain, args.sharpen, args.jpeg,
                      args.grey)
  pairs = read_pairs(args.folder, args.count, protocol)
  shift = OwnMetric(lab_shift, 'lab_shift', 'lower')
  score = make_scorer(protocol.scale, args.lpips, own={'lab_shift': shift})
  methods, results = {}, {}
  for name, upscale in upscalers(args.network, protocol.scale).items():
    results[name] = [upscale(pair.lr) for pair in pairs]
    kept = iter(results[name])
    methods[name] = score_set(pairs, lambda lr, kept=kept: next(kept), score)
  print(tables.means_table({f'{len(pairs)} photographs': methods}))
  if args.output:
    folder = pathlib.Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    for pair, *of_pair in zip(pairs, *results.values(), strict=True):
      row = montage.centre_row(pair.lr, pair.hr, *of_pair)
      images.write_image(folder / f'{pair.name}.png', montage.side_by_side(row))
    (folder / 'scores.json').write_text(json.dumps(
        {'methods': methods, 'means': means(methods)}, indent=1))
  return 0


if __name__ == '__main__':
  cli.leave(cli.run(functools.partial(main, sys.argv[1:])))
