"""Batches a second of bank, mapped and stream beside a plain PyTorch DataLoader.

  python tests/benchmarks/data_speed.py data/BSDS500/train [--rounds 3] [--seconds 4]

On 200 photographs as PNG and on 40 PNGs of 2040x1400 made by tiling them; all methods by
turns in one process, medians over the rounds. Batches are 16 crops of 96x96 with their x4
LR, flipped and turned, float32 in [0, 1], on the CPU. The DataLoader does what the usual
trainers do: it decodes a PNG for every crop, crops, resizes the crop by Pillow's bicubic,
flips and turns, with two workers that stay.

Then a training step with batches from the bank over the same step with a batch that never
changes: SRResNet's with 16 features and 4 blocks, 16 crops.
"""

import argparse
import functools
import pathlib
import statistics
import tempfile
import time

import jax
import numpy as np
import torch
from PIL import Image

from configs.common import defaults
from sr_jax import images
from sr_jax.data import feed, sources
from sr_jax.data.augment import Augmentation
from sr_jax.data.bank import CropSpec
from sr_jax.experiment import phases
from sr_jax.step import train_step

CUT, BATCH = CropSpec(16, 96, 4), 16


class Usual(torch.utils.data.Dataset):
  """A crop of a picture that is decoded for it."""

  def __init__(self, paths):
    self.paths = paths * 1000  # the epoch's end would stop the workers' reading ahead

  def __len__(self):
    return len(self.paths)

  def __getitem__(self, index):
    rng = np.random.default_rng(index)
    with Image.open(self.paths[index]) as file:
      picture = file.convert('RGB')
    x, y = (int(rng.integers(0, side - CUT.patch + 1)) for side in picture.size)
    hr = picture.crop((x, y, x + CUT.patch, y + CUT.patch))
    lr = hr.resize((CUT.patch // CUT.scale,) * 2, Image.Resampling.BICUBIC)
    turn, mirror = rng.integers(0, 4), rng.integers(0, 2)
    return tuple(torch.from_numpy(np.array(
        np.rot90(np.asarray(crop), turn)[:, ::-1 if mirror else 1])).permute(2, 0, 1).float() / 255
        for crop in (lr, hr))


def usual(paths, workers: int):
  loader = torch.utils.data.DataLoader(Usual(paths), BATCH, shuffle=True, num_workers=workers,
                                       persistent_workers=True, drop_last=True)
  return iter(loader)


def fed(opened):
  """Batches of a feed, as the training step gets them."""
  batch_at, step = jax.jit(opened.batch_at), 0
  while True:
    yield jax.block_until_ready(batch_at(opened.take(step, step + 1), 0, step))
    step += 1


def rate(batches, seconds: float) -> float:
  """Batches a second, after one that may have waited for its like to be made ahead."""
  for _ in range(4):
    next(batches)
  begin, count = time.perf_counter(), 0
  while time.perf_counter() - begin < seconds:
    next(batches)
    count += 1
  return count / (time.perf_counter() - begin)


def compare(name: str, folder: pathlib.Path, cache: pathlib.Path, rounds: int, seconds: float,
            workers: int) -> None:
  found = sources.open_source(f'folder:{folder}', CUT.scale)
  open_feed = functools.partial(feed.open_feed, found, CUT, BATCH, Augmentation(), seed=0, begin=0,
                                cache=cache, workers=workers)
  makers = {'DataLoader': lambda: usual([str(picture.hr) for picture in found], workers)} | {
      mode: functools.partial(open_feed, mode=mode) for mode in ('bank', 'mapped', 'stream')}
  rates = {method: [] for method in makers}
  for _ in range(rounds):
    for method, make in makers.items():  # one at a time: workers of another would compete
      made = make()
      rates[method].append(rate(made if method == 'DataLoader' else fed(made), seconds))
      if method == 'DataLoader':
        del made
      else:
        made.close()
  medians = {method: statistics.median(values) for method, values in rates.items()}
  print(f'\n{name}: {len(found)} pictures, {workers} workers')
  for method, values in rates.items():
    times = medians[method] / medians['DataLoader']
    print(f'  {method:10} {medians[method]:9.1f} batches/s  {times:7.1f}x'
          f'   ({min(values):.1f} to {max(values):.1f})')


def compare_steps(folder: pathlib.Path, cache: pathlib.Path, rounds: int) -> None:
  config = defaults()
  config.generator.update({'name': 'msrresnet', 'features': 16, 'blocks': 4})
  experiment = phases.build(config)
  step = experiment.phases[0].step
  opened = feed.open_feed(sources.open_source(f'folder:{folder}', CUT.scale), CUT, BATCH,
                          Augmentation(), mode='bank', seed=0, begin=0, cache=cache)
  bank = opened.take(0, 1)
  batch = jax.jit(opened.batch_at)(bank, 0, 0)
  with_bank = jax.jit(functools.partial(train_step.one_step, step=step, batch_at=opened.batch_at))
  constant = jax.jit(functools.partial(train_step.one_step, step=step,
                                       batch_at=lambda source, seed, step: source))
  state = experiment.new_state()
  times = {'bank': [], 'constant': []}
  for _ in range(10 * rounds):
    for name, run, source in (('bank', with_bank, bank), ('constant', constant, batch)):
      begin = time.perf_counter()
      jax.block_until_ready(run(state, source, {}))
      times[name].append(time.perf_counter() - begin)
  bank_time, constant_time = (statistics.median(times[name]) for name in ('bank', 'constant'))
  print(f'\nstep with the bank {1e3 * bank_time:.1f} ms, with a constant batch '
        f'{1e3 * constant_time:.1f} ms: {bank_time / constant_time:.3f}x')


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('photographs', type=pathlib.Path)
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--seconds', type=float, default=4)
  parser.add_argument('--workers', type=int, default=2)
  arguments = parser.parse_args()
  with tempfile.TemporaryDirectory() as temporary:
    small, large, cache = (pathlib.Path(temporary, name) for name in ('small', 'large', 'cache'))
    photographs = sources.open_source(f'folder:{arguments.photographs}', 1)[:200]
    for index, photograph in enumerate(photographs):
      picture = images.read_image(photograph.hr)
      images.write_image(small / f'{index:03}.png', picture)
      if index < 40:
        tiles = np.tile(picture, (-(-1400 // picture.shape[0]), -(-2040 // picture.shape[1]), 1))
        images.write_image(large / f'{index:03}.png', tiles[:1400, :2040])
    for name, folder in (('481x321', small), ('2040x1400', large)):
      compare(name, folder, cache, arguments.rounds, arguments.seconds, arguments.workers)
    compare_steps(small, cache, arguments.rounds)


if __name__ == '__main__':
  main()
