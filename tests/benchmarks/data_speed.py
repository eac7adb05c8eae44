"""Compares batches per second of bank, mapped and stream with a plain PyTorch DataLoader.

  python tests/benchmarks/data_speed.py data/BSDS500/train [--rounds 3] [--seconds 4]

Measures on 200 photographs as PNG and on 40 PNG files of 2040x1400 pixels made by tiling them.
All methods take turns in one process; medians over the rounds are printed. Batches are 16 crops of
96x96 with their x4 LR, flipped and turned, float32 in [0, 1], on the CPU. The DataLoader does what
common trainers do: it decodes a PNG file for every crop, crops, resizes the crop with Pillow's
bicubic, flips and turns, in two persistent workers.

Then a training step with batches from the bank is compared with the same step on a constant batch:
SRResNet with 16 features and 4 blocks, 16 crops.
"""

import argparse
import functools
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import torch
from PIL import Image

from sr_jax import images
from sr_jax.data import feed, sources
from sr_jax.data.augment import Augmentation
from sr_jax.data.bank import CropSpec
from sr_jax.data.feed import Feed, FeedSpec
from sr_jax.experiment import phases
from sr_jax.experiment.base_config import defaults
from sr_jax.step import device_loop

CROP_SPEC = CropSpec(16, 96, 4)


class DecodedCrops(torch.utils.data.Dataset):
  """One crop of an image, which is decoded for it."""

  def __init__(self, paths: list[str]) -> None:
    self.paths = paths * 1000  # at the end of an epoch the workers would stop reading ahead

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(index)
    patch = CROP_SPEC.patch
    with Image.open(self.paths[index]) as file:
      image = file.convert('RGB')
    x, y = (int(rng.integers(0, side - patch + 1)) for side in image.size)
    hr = image.crop((x, y, x + patch, y + patch))
    lr = hr.resize((patch // CROP_SPEC.scale,) * 2, Image.Resampling.BICUBIC)
    turn, mirror = rng.integers(0, 4), rng.integers(0, 2)
    return tuple(torch.from_numpy(np.array(
        np.rot90(np.asarray(crop), turn)[:, ::-1 if mirror else 1])).permute(2, 0, 1).float() / 255
        for crop in (lr, hr))


def loader_batches(paths: list[str], workers: int) -> Iterator[Any]:
  """Returns the batches of a DataLoader."""
  loader = torch.utils.data.DataLoader(DecodedCrops(paths), CROP_SPEC.count, shuffle=True,
                                       num_workers=workers, persistent_workers=True,
                                       drop_last=True)
  return iter(loader)


def feed_batches(opened: Feed) -> Iterator[Any]:
  """Yields the batches of a feed as the training step receives them."""
  batch_at, step = jax.jit(opened.batch_at), 0
  while True:
    yield jax.block_until_ready(batch_at(opened.source_for(step, step + 1), 0, step))
    step += 1


def rate(batches: Iterator[Any], seconds: float) -> float:
  """Returns batches per second, after a few that fill the prefetch queues."""
  for _ in range(4):
    next(batches)
  start, count = time.perf_counter(), 0
  while time.perf_counter() - start < seconds:
    next(batches)
    count += 1
  return count / (time.perf_counter() - start)


def open_feed(folder: pathlib.Path, cache: pathlib.Path, mode: str, workers: int = 0) -> Feed:
  """Opens the images of a folder."""
  spec = FeedSpec(CROP_SPEC, CROP_SPEC.count, Augmentation(), seed=0, mode=mode, workers=workers,
                  cache=cache)
  return feed.open_feed(sources.open_source(f'folder:{folder}', CROP_SPEC.scale), spec)


def rate_of(method: str, folder: pathlib.Path, cache: pathlib.Path, seconds: float,
            workers: int) -> float:
  """Returns batches per second of the DataLoader or of a mode of the feed."""
  if method == 'DataLoader':
    paths = [str(picture.hr) for picture in sources.open_source(f'folder:{folder}', 1)]
    return rate(loader_batches(paths, workers), seconds)
  opened = open_feed(folder, cache, method, workers)
  try:
    return rate(feed_batches(opened), seconds)
  finally:
    opened.close()


def compare(name: str, folder: pathlib.Path, rate_of_method: Callable[[str], float],
            rounds: int) -> None:
  """Prints batches per second of all methods on the images of a folder."""
  rates = {method: [] for method in ('DataLoader', 'bank', 'mapped', 'stream')}
  for _ in range(rounds):
    for method in rates:  # one at a time: the workers of another one would compete
      rates[method].append(rate_of_method(method))
  medians = {method: statistics.median(values) for method, values in rates.items()}
  print(f'\n{name}: {len(list(folder.iterdir()))} images')
  for method, values in rates.items():
    ratio = medians[method] / medians['DataLoader']
    print(f'  {method:10} {medians[method]:9.1f} batches/s  {ratio:7.1f}x'
          f'   ({min(values):.1f} to {max(values):.1f})')


def compare_steps(folder: pathlib.Path, cache: pathlib.Path, rounds: int) -> None:
  """Prints the time of a step with batches from the bank and with a constant batch."""
  config = defaults()
  config.generator.update({'name': 'msrresnet', 'features': 16, 'blocks': 4})
  experiment = phases.build(config)
  step = experiment.phases[0].step
  opened = open_feed(folder, cache, 'bank')
  bank = opened.source_for(0, 1)
  batch = jax.jit(opened.batch_at)(bank, 0, 0)
  with_bank = jax.jit(functools.partial(device_loop.one_step, step=step, batch_at=opened.batch_at))
  constant = jax.jit(functools.partial(device_loop.one_step, step=step,
                                       batch_at=lambda source, seed, step: source))
  state = experiment.new_state()
  times = {'bank': [], 'constant': []}
  for _ in range(10 * rounds):
    for name, run, source in (('bank', with_bank, bank), ('constant', constant, batch)):
      start = time.perf_counter()
      jax.block_until_ready(run(state, source, {}))
      times[name].append(time.perf_counter() - start)
  bank_time, constant_time = (statistics.median(times[name]) for name in ('bank', 'constant'))
  print(f'\nstep with the bank {1e3 * bank_time:.1f} ms, with a constant batch '
        f'{1e3 * constant_time:.1f} ms: {bank_time / constant_time:.3f}x')


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('photographs', type=pathlib.Path, help='folder of photographs')
  parser.add_argument('--rounds', type=int, default=3, help='measurements of each method')
  parser.add_argument('--seconds', type=float, default=4, help='seconds of each measurement')
  parser.add_argument('--workers', type=int, default=2, help='worker processes')
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as temporary:
    small, large, cache = (pathlib.Path(temporary, name) for name in ('small', 'large', 'cache'))
    photographs = sources.open_source(f'folder:{args.photographs}', 1)[:200]
    for index, photograph in enumerate(photographs):
      image = images.read_image(photograph.hr)
      images.write_image(small / f'{index:03}.png', image)
      if index < 40:
        tiles = np.tile(image, (-(-1400 // image.shape[0]), -(-2040 // image.shape[1]), 1))
        images.write_image(large / f'{index:03}.png', tiles[:1400, :2040])
    for name, folder in (('481x321', small), ('2040x1400', large)):
      rate_of_method = functools.partial(rate_of, folder=folder, cache=cache,
                                         seconds=args.seconds, workers=args.workers)
      compare(f'{name}, {args.workers} workers', folder, rate_of_method, args.rounds)
    compare_steps(small, cache, args.rounds)


if __name__ == '__main__':
  main()
