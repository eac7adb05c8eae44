"""What correction does to a network's pictures, and how long it takes, as Markdown.

  python -m tests.benchmarks.correction --set data/Set14
  python -m tests.benchmarks.correction --set data/Set14 --workdir runs/edsr-x2

Without --workdir it trains configs/edsr.py:sample,x2 twice, for 100 steps, after which bilinear
is closer to most samples, and for all 600: a minute on two CPU cores. The pictures of the
latter, or of the run, are also broken: a share of their samples becomes random levels.

Then seconds for a picture of 512x512: a Python loop over samples, NumPy, ours.
"""

import pathlib
import statistics
import sys
import tempfile
import time

import jax
import numpy as np

from configs import edsr
from sr_jax import evaluate, images, restore, train
from sr_jax.data.benchmarks import find_set, read_set
from sr_jax.inference import correction
from sr_jax.metrics.scorer import make_scorer, mean
from sr_jax.system import cli

THRESHOLDS = 0.02, 0.05, 0.1, 0.2
BROKEN = 0, 0.001, 0.01  # share of aberrant samples
SIDE, ROUNDS = 512, 9


def trained(steps: int, folder: pathlib.Path) -> restore.Model:
  """The sample network after so many of the 600 steps of its own schedule."""
  config = edsr.get_config('sample,x2')
  config.data.valid, config.data.cache = '', str(folder / 'packed')
  config.steps, config.checkpoint_every = steps, config.steps
  train.train(config, folder / str(steps))
  return restore.load(folder / str(steps))


def broken(sr: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
  """SR with a share of its samples at random levels."""
  return np.where(rng.random(sr.shape) < share, rng.integers(0, 256, sr.shape), sr).astype(np.uint8)


def corrections(model: restore.Model, share: float):
  """upscale(lr) -> {method: sr}, for `evaluate.score_methods`; errors as seeded as pictures."""
  rng = np.random.default_rng(0)

  def upscale(lr):
    bilinear = images.imresize(lr, model.scale, 'bilinear')
    results = {'bilinear': bilinear, 'model': broken(model(lr), share, rng)}
    pair = images.to_float(results['model']), images.to_float(bilinear)
    return results | {f'{kind} {threshold:g}': images.to_uint8(
        correction.correct(*pair, threshold, kind))
        for kind in correction.KINDS for threshold in THRESHOLDS}

  return upscale


def closer(model: restore.Model, pairs) -> float:
  """The share of samples to which bilinear is closer than the model."""
  counts = []
  for pair in pairs:
    errors = [np.abs(np.int32(sr) - pair.hr) for sr in (
        images.imresize(pair.lr, model.scale, 'bilinear'), model(pair.lr))]
    counts.append((errors[0] < errors[1]).mean())
  return float(np.mean(counts))


def compare(models: dict[str, restore.Model], pairs, scale: int) -> str:
  """PSNR of each method, luma / RGB; columns are networks, the last one's broken too."""
  scorer, columns = make_scorer(scale, 'none'), {}
  for name, model in models.items():
    for share in BROKEN if model is list(models.values())[-1] else BROKEN[:1]:
      heading = f'{name}, {share:.1%} aberrant' if share else name
      methods = evaluate.score_methods(pairs, corrections(model, share), scorer)
      columns[heading] = {method: mean(scores) for method, scores in methods.items()}
  rows = [['', *columns], ['---'] * (len(columns) + 1)]
  for method in next(iter(columns.values())):
    rows.append([method, *(f'{found[method]["psnr_y"]:.2f} / {found[method]["psnr_rgb"]:.2f}'
                           for found in columns.values())])
  return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def by_loop(sr, enlarged, thresholds):
  result = sr.copy()
  for y in range(sr.shape[0]):
    for x in range(sr.shape[1]):
      for channel in range(sr.shape[2]):
        if abs(sr[y, x, channel] - enlarged[y, x, channel]) > thresholds[channel]:
          result[y, x, channel] = enlarged[y, x, channel]
  return result


def by_numpy(sr, enlarged, thresholds):
  return np.where(np.abs(sr - enlarged) > thresholds, enlarged, sr)


def speeds() -> str:
  """Medians; compiled first, pictures from and to NumPy unless said otherwise."""
  rng = np.random.default_rng(0)
  enlarged = rng.random((SIDE, SIDE, 3), np.float32)
  sr = np.float32(np.clip(enlarged + rng.normal(0, 0.1, enlarged.shape), 0, 1))
  thresholds = np.float32([0.1, 0.1, 0.1])
  lying = jax.device_put((sr, enlarged, thresholds))
  ways = {
      'Python loop': lambda: by_loop(sr, enlarged, thresholds),
      'NumPy': lambda: by_numpy(sr, enlarged, thresholds),
      'replace': lambda: np.asarray(correction.correct(sr, enlarged, thresholds)),
      'smooth': lambda: np.asarray(correction.correct(sr, enlarged, thresholds, 'smooth')),
      'replace, on the device': lambda: jax.block_until_ready(correction.correct(*lying))}
  expected, seconds = by_loop(sr, enlarged, thresholds), {}
  for name, way in ways.items():
    if name != 'smooth':
      np.testing.assert_array_equal(way(), expected)
    times = []
    for _ in range(3 if name == 'Python loop' else 10 * ROUNDS):
      begin = time.perf_counter()
      way()
      times.append(time.perf_counter() - begin)
    seconds[name] = statistics.median(times)
  rows = [f'| {SIDE}x{SIDE} | seconds | times as fast |', '|---|---|---|']
  return '\n'.join(rows + [f'| {name} | {value:.5f} | {seconds["Python loop"] / value:.0f} |'
                           for name, value in seconds.items()])


def main() -> None:
  parser = cli.Parser('python -m tests.benchmarks.correction', __doc__)
  parser.add_argument('--set', default='sample:valid', help='to be scored on: as eval.sets')
  parser.add_argument('--workdir', type=cli.path, metavar='RUN', help='in place of training')
  parser.add_argument('--steps', type=int, default=100, help='of the undertrained network')
  args = parser.parse_args()
  run = restore.load(args.workdir) if args.workdir else None
  scale = run.scale if run else 2
  pairs = list(read_set(find_set(args.set, scale), scale))  # before anything is trained
  if run:
    models = {f'step {run.step}': run}
  else:
    with tempfile.TemporaryDirectory() as folder:
      models = {f'{steps} steps': trained(steps, pathlib.Path(folder))
                for steps in (args.steps, edsr.get_config('sample').steps)}
  print(f'\n{evaluate.set_name(args.set)} x{scale}: PSNR in dB, luma / RGB, border {scale}\n')
  print(compare(models, pairs, scale))
  for name, model in models.items():
    print(f'\n{name}: bilinear is closer than the model to {closer(model, pairs):.0%} of samples')
  print(f'\n{speeds()}')


if __name__ == '__main__':
  sys.exit(cli.run(main))
