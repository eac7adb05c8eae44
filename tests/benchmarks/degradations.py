"""Compares the degradations of data.degrade.name=realesrgan with an independent implementation.

  python -m tests.benchmarks.degradations distribution BSDS500/train --cache cache
  python -m tests.benchmarks.degradations distribution BSDS500/train --without sharpen noise noise2
  python -m tests.benchmarks.degradations speed BSDS500/train

`distribution` degrades the same crops with sr_jax, with torch_degradations.py and with the latter
once more by other draws, and prints statistics of the LR images: means and two-sample
Kolmogorov-Smirnov distances to the reference. The third column shows the distances that chance
alone gives. --without leaves out stages of both, to find the one that makes a difference. With
--cache the statistics of the reference are kept in files. --float-jpeg adds the published chain
with its JPEG in floating point (torch_chain.py, batches of one).

`speed` prints milliseconds for 16 crops of 256 from 400, of sr_jax and of the published chain, with
its unsharp mask as published and as two passes. They take turns in one process.
"""

import argparse
import dataclasses
import functools
import hashlib
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import torch
from scipy import stats

from sr_jax import images
from sr_jax.data import sources
from sr_jax.data.degradations import chains
from sr_jax.data.degradations.blur import Sinc
from sr_jax.data.degradations.chains import Degradation
from sr_jax.data.degradations.resizing import ResizeToGoal
from sr_jax.system import threads
from tests.benchmarks import lr_statistics, torch_degradations, torch_device
from tests.benchmarks.torch_chain import TorchChain
from tests.benchmarks.torch_degradations import SECOND, Options, Order
from tests.benchmarks.turns import take_turns

SCALE, BATCH = 4, 20
STAGES = ('sharpen', 'blur', 'resize', 'noise', 'jpeg', 'blur2', 'resize2', 'noise2', 'jpeg2',
          'sinc')

Chain = Callable[[np.ndarray, int], np.ndarray]  # uint8 [N, H, W, 3] and a seed -> LR images


# Chains ------------------------------------------------------------------------------------


def reference_options(without: Sequence[str]) -> Options:
  """Returns the options of the reference without some of STAGES."""
  def order(values: Order, suffix: str) -> Order:
    probs = {f'{name}_prob': 0.0 for name in ('blur', 'noise', 'jpeg') if name + suffix in without}
    keep = {'resize_probs': (0.0, 0.0, 1.0)} if f'resize{suffix}' in without else {}
    return dataclasses.replace(values, **probs, **keep)
  return Options(order(Order(), ''), order(SECOND, '2'),
                 final_sinc_prob=0.0 if 'sinc' in without else 0.8,
                 sharpen='sharpen' not in without)


def reference_chain(without: Sequence[str], crops: np.ndarray, seed: int) -> np.ndarray:
  options = reference_options(without)
  def degraded(index: int) -> np.ndarray:
    rng = np.random.default_rng((seed, index))
    return torch_degradations.degrade_one(crops[index], rng, options)
  return np.stack(threads.on_all_cores(degraded, range(len(crops)), 'reference'))


def float_jpeg_chain(crops: np.ndarray, seed: int) -> np.ndarray:
  chain = TorchChain(separable=True, patch=crops.shape[1])
  def degraded(index: int) -> np.ndarray:
    rng = np.random.default_rng((seed, index))
    lr = chain(_tensor(crops[index:index + 1]), rng, chain.kernels(rng, 1))['lr']
    return np.rint(lr[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
  torch.manual_seed(seed)
  return np.stack([degraded(index) for index in range(len(crops))])


def our_chain_without(without: Sequence[str]) -> Degradation:
  """Returns sr_jax's chain without some of STAGES."""
  chain = chains.PRESETS['realesrgan']
  stages = {name: stage for name, stage in chain.stages
            if name not in without or name.startswith('resize')}
  for name in {'resize', 'resize2'}.intersection(without):  # the second still makes LR of HR
    stages[name] = dataclasses.replace(stages[name], directions=(0.0, 0.0, 1.0))
  final = stages['final']
  if 'sinc' in without:
    stages['final'] = final = dataclasses.replace(final, sinc=0.0)
  if 'jpeg2' in without:
    del stages['final']
    stages |= {'reduce': ResizeToGoal(final.methods), 'sinc': Sinc(final.sinc, final.size)}
  return dataclasses.replace(chain, stages=tuple(stages.items()),
                             sharpen=0.0 if 'sharpen' in without else chain.sharpen)


def our_chain(without: Sequence[str], crops: np.ndarray, seed: int) -> np.ndarray:
  chain = our_chain_without(without)

  @jax.jit
  def degrade(hr: jax.Array, keys: jax.Array) -> jax.Array:
    sizes = jnp.full((len(hr), 2), hr.shape[1], jnp.int32)
    return chains.degrade(chains.sharpened(hr, chain), sizes, keys, chain, SCALE)[0].pixels

  keys, parts = jax.random.split(jax.random.key(seed), len(crops)), []
  for start in range(0, len(crops), BATCH):
    part = slice(start, start + BATCH)
    parts.append(np.asarray(degrade(images.to_float(crops[part]), keys[part])))
  return np.rint(np.concatenate(parts) * 255).astype(np.uint8)


def _tensor(crops: np.ndarray) -> torch.Tensor:
  return torch.from_numpy(crops.astype(np.float32) / 255).permute(0, 3, 1, 2).contiguous()


# Distributions -----------------------------------------------------------------------------


def read_crops(folder: pathlib.Path, count: int, size: int) -> np.ndarray:
  """Returns random crops uint8 [count, size, size, 3], equally many of each photograph."""
  rng, crops = np.random.default_rng(0), []
  photographs = sources.open_source(f'folder:{folder}', 1)[:count]
  for number, photograph in enumerate(photographs):
    image = images.as_rgb(images.read_image(photograph.hr))
    # Smaller photographs are mirrored at the bottom and right, as published.
    image = np.pad(image, [(0, max(0, size - side)) for side in image.shape[:2]] + [(0, 0)],
                   mode='reflect')
    for _ in range(len(range(number, count, len(photographs)))):
      top, left = (int(rng.integers(0, side - size + 1)) for side in image.shape[:2])
      crops.append(image[top:top + size, left:left + size])
  return np.stack(crops)


def measured(name: str, chain: Chain, crops: np.ndarray, clean: np.ndarray, seed: int,
             cache: pathlib.Path | None) -> np.ndarray:
  """Returns the statistics of a chain's LR images, [N, statistics]; kept in `cache`, if any."""
  digest = hashlib.sha256(crops.tobytes()).hexdigest()[:8]
  path = cache and cache / f'{name}-{len(crops)}x{crops.shape[1]}-{digest}-{seed}.npy'
  if path and path.exists():
    return np.load(path)
  start = time.perf_counter()
  degraded = chain(crops, seed)
  print(f'{name}, seed {seed}: {(time.perf_counter() - start) / len(crops) * 1e3:.0f} ms a crop')
  result = np.array([lr_statistics.of(*pair) for pair in zip(degraded, clean, strict=True)])
  if path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, result)
  return result


def compare(args: argparse.Namespace) -> None:
  """Prints statistics of all chains, and histograms of the PSNR."""
  torch.set_num_threads(1)  # the reference takes an image per core
  crops = read_crops(args.photographs, args.crops, args.size)
  clean = np.stack([images.imresize(crop, 1 / SCALE) for crop in crops])
  label = '-without-' + '-'.join(args.without) if args.without else ''
  reference, ours = (functools.partial(chain, args.without)
                     for chain in (reference_chain, our_chain))
  found = {'reference': measured(f'reference{label}', reference, crops, clean, 0, args.cache)}
  if not args.reference_only:
    found['sr_jax'] = measured(f'sr_jax{label}', ours, crops, clean, args.seed, None)
  found['again'] = measured(f'reference{label}', reference, crops, clean, 1, args.cache)
  if args.float_jpeg:
    found['float JPEG'] = measured('float', float_jpeg_chain, crops, clean, 0, args.cache)
  print(f'\n{len(crops)} crops of {args.size} from {args.photographs}'
        f'{", without " if args.without else ""}{", ".join(args.without)}\n')
  print(table(found))
  columns = ['reference', 'again' if args.reference_only else 'sr_jax']
  print('\nPSNR to the clean LR, share of the crops\n')
  print(histograms({name: found[name][:, 0] for name in columns}))


def table(found: dict[str, np.ndarray]) -> str:
  """Returns the means, and in brackets the distance to the reference, of all statistics."""
  lines = [f'{"":12}' + ''.join(f'{name:>22}' for name in found)]
  for column, name in enumerate(lr_statistics.NAMES):
    cells, first = '', found['reference'][:, column]
    for chain, values in found.items():
      distance = ('' if chain == 'reference' else
                  f' ({stats.ks_2samp(first, values[:, column]).statistic:.4f})')
      cells += f'{values[:, column].mean():.4f}{distance}'.rjust(22)
    lines.append(f'{name:12}{cells}')
  return '\n'.join(lines)


def histograms(values: dict[str, np.ndarray], bins: int = 24, width: int = 32) -> str:
  """Returns the histograms of two samples side by side, in characters."""
  low, high = np.percentile(np.concatenate(list(values.values())), (0.1, 99.9))
  edges = np.linspace(low, high, bins + 1)
  shares = {name: np.histogram(np.clip(sample, low, high), edges)[0] / len(sample)
            for name, sample in values.items()}
  most = max(share.max() for share in shares.values())
  lines = [' ' * 16 + ''.join(f'{name:{width + 8}}' for name in values)]
  for number in range(bins):
    bars = (f'{share[number]:6.2%} {"#" * round(share[number] / most * width):{width}} '
            for share in shares.values())
    lines.append(f'{edges[number]:6.2f} - {edges[number + 1]:5.2f} ' + ''.join(bars).rstrip())
  return '\n'.join(lines)


# Speed -------------------------------------------------------------------------------------


def measure_speed(args: argparse.Namespace) -> None:
  """Prints milliseconds of each chain for 16 crops of 256 from 400."""
  torch_device.open_device(threads.cores())
  crops = read_crops(args.photographs, 16, 400)
  tensor, rng = _tensor(crops), np.random.default_rng(0)
  drawing = []

  def torch_run(chain: TorchChain) -> torch.Tensor:
    start = time.perf_counter()
    kernels = chain.kernels(rng, len(crops))
    drawing.append(time.perf_counter() - start)
    return chain(tensor, rng, kernels)['lr']

  def our_run() -> jax.Array:
    nonlocal key
    key, now = jax.random.split(key)
    return jax.block_until_ready(degrade(hr, jax.random.split(now, len(crops))))['lr']

  runs = {'separable': functools.partial(torch_run, TorchChain(separable=True)),
          'published': functools.partial(torch_run, TorchChain())}
  if args.reference_only:
    runs['sr_jax'] = runs.pop('separable')  # `take_turns` compares with this name
  else:
    degrade = jax.jit(chains.Degrader(chains.PRESETS['realesrgan'], SCALE, 256))
    key, hr = jax.random.key(0), jnp.asarray(images.to_float(crops))
    runs['sr_jax'] = our_run
  result = take_turns(runs, args.seconds, lambda: None)
  for name, seconds in result.durations.items():
    low, middle, high = np.percentile(seconds, (25, 50, 75)) * 1e3
    print(f'{"separable" if args.reference_only and name == "sr_jax" else name:10} '
          f'{middle:7.0f} ms ({low:.0f} to {high:.0f}), mean {np.mean(seconds) * 1e3:.0f}, '
          f'first call {result.first[name]:.1f} s, {len(seconds)} calls')
  print(f'drawing the kernels takes {statistics.median(drawing) * 1e3:.1f} ms of this in PyTorch')


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  commands = parser.add_subparsers(required=True)
  for name, run in (('distribution', compare), ('speed', measure_speed)):
    command = commands.add_parser(name)
    command.set_defaults(run=run)
    command.add_argument('photographs', type=pathlib.Path, help='folder of photographs')
    command.add_argument('--reference-only', action='store_true', help='without sr_jax')
    if name == 'speed':
      command.add_argument('--seconds', type=float, default=60, help='duration of all turns')
      continue
    command.add_argument('--crops', type=int, default=2000)
    command.add_argument('--size', type=int, default=320, help='side of the crops')
    command.add_argument('--seed', type=int, default=0, help="of sr_jax's draws")
    command.add_argument('--without', nargs='*', default=[], choices=STAGES, help='stages')
    command.add_argument('--float-jpeg', action='store_true', help='adds the published chain')
    command.add_argument('--cache', type=pathlib.Path, help="folder for the reference's figures")
  args = parser.parse_args()
  if getattr(args, 'float_jpeg', False) and args.without:
    parser.error('--float-jpeg cannot leave out stages; omit --without')
  args.run(args)


if __name__ == '__main__':
  main()
