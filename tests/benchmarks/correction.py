"""Measures the effect of correction on a network's results, and its speed, as Markdown.

  python -m tests.benchmarks.correction --set data/Set14
  python -m tests.benchmarks.correction --set data/Set14 --workdir runs/edsr-x2

Without --workdir it trains configs/edsr.py:sample,x2 twice, for 100 steps, after which bilinear
interpolation is closer to HR for most samples, and for all 600: a minute on two CPU cores. The
results of the latter, or of the run, are also evaluated with a fraction of their samples replaced
by random levels.

Then it measures the seconds for an image of 512x512: a Python loop over samples, NumPy, and
`correction.correct`.
"""

import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from configs import edsr
from sr_jax import evaluate, images, restore, train
from sr_jax.data import pictures
from sr_jax.data.benchmarks import find_set, read_set, set_name
from sr_jax.inference import correction
from sr_jax.metrics.scorer import make_scorer, mean
from sr_jax.system import cli

THRESHOLDS = 0.02, 0.05, 0.1, 0.2
ABERRANT = 0, 0.001, 0.01  # fraction of aberrant samples
SIDE, ROUNDS = 512, 9


def train_model(steps: int, folder: pathlib.Path) -> restore.Model:
  """Trains the sample network for `steps` of the 600 steps of its schedule."""
  config = edsr.get_config('sample,x2')
  config.data.valid, config.data.cache = '', str(folder / 'packed')
  config.steps, config.checkpoint_every = steps, config.steps
  train.train(config, folder / str(steps))
  return restore.load(folder / str(steps))


def add_aberrant(sr: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
  """Returns sr with a fraction of its samples replaced by random levels."""
  aberrant = rng.random(sr.shape) < fraction
  return np.where(aberrant, rng.integers(0, 256, sr.shape), sr).astype(np.uint8)


def corrections(model: restore.Model, fraction: float
                ) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
  """Returns upscale(lr) -> {method: sr}, for `evaluate.score_methods`."""
  rng = np.random.default_rng(0)

  def upscale(lr: np.ndarray) -> dict[str, np.ndarray]:
    bilinear = images.imresize(lr, model.scale, 'bilinear')
    results = {'bilinear': bilinear, 'model': add_aberrant(model(lr), fraction, rng)}
    pair = images.to_float(results['model']), images.to_float(bilinear)
    return results | {f'{kind} {threshold:g}': images.to_uint8(
        correction.correct(*pair, threshold, kind))
        for kind in correction.KINDS for threshold in THRESHOLDS}

  return upscale


def bilinear_closer(model: restore.Model, pairs: Sequence[pictures.Pair]) -> float:
  """Returns the fraction of samples for which bilinear is closer to HR than the model."""
  fractions = []
  for pair in pairs:
    errors = [np.abs(np.int32(sr) - pair.hr) for sr in (
        images.imresize(pair.lr, model.scale, 'bilinear'), model(pair.lr))]
    fractions.append((errors[0] < errors[1]).mean())
  return float(np.mean(fractions))


def compare(models: dict[str, restore.Model], pairs: Sequence[pictures.Pair], scale: int) -> str:
  """Returns a table of PSNR, luma / RGB, of each method, for each network.

  The last network is also evaluated with aberrant samples.
  """
  scorer, columns = make_scorer(scale, 'none'), {}
  for name, model in models.items():
    for fraction in ABERRANT if model is list(models.values())[-1] else ABERRANT[:1]:
      heading = f'{name}, {fraction:.1%} aberrant' if fraction else name
      methods = evaluate.score_methods(pairs, corrections(model, fraction), scorer)
      columns[heading] = {method: mean(scores) for method, scores in methods.items()}
  rows = [['', *columns], ['---'] * (len(columns) + 1)]
  for method in next(iter(columns.values())):
    rows.append([method, *(f'{scores[method]["psnr_y"]:.2f} / {scores[method]["psnr_rgb"]:.2f}'
                           for scores in columns.values())])
  return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def by_loop(sr: np.ndarray, bilinear: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
  """Corrects with a Python loop over samples."""
  result = sr.copy()
  for y in range(sr.shape[0]):
    for x in range(sr.shape[1]):
      for channel in range(sr.shape[2]):
        if abs(sr[y, x, channel] - bilinear[y, x, channel]) > thresholds[channel]:
          result[y, x, channel] = bilinear[y, x, channel]
  return result


def by_numpy(sr: np.ndarray, bilinear: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
  """Corrects with NumPy."""
  return np.where(np.abs(sr - bilinear) > thresholds, bilinear, sr)


def measure_speed() -> str:
  """Returns a table of median seconds after compilation; images are NumPy unless stated."""
  rng = np.random.default_rng(0)
  bilinear = rng.random((SIDE, SIDE, 3), np.float32)
  sr = np.float32(np.clip(bilinear + rng.normal(0, 0.1, bilinear.shape), 0, 1))
  thresholds = np.float32([0.1, 0.1, 0.1])
  on_device = jax.device_put((sr, bilinear, thresholds))
  functions = {
      'Python loop': lambda: by_loop(sr, bilinear, thresholds),
      'NumPy': lambda: by_numpy(sr, bilinear, thresholds),
      'replace': lambda: np.asarray(correction.correct(sr, bilinear, thresholds)),
      'smooth': lambda: np.asarray(correction.correct(sr, bilinear, thresholds, 'smooth')),
      'replace, on the device': lambda: jax.block_until_ready(correction.correct(*on_device))}
  expected, seconds = by_loop(sr, bilinear, thresholds), {}
  for name, function in functions.items():
    if name != 'smooth':
      np.testing.assert_array_equal(function(), expected)
    times = []
    for _ in range(3 if name == 'Python loop' else 10 * ROUNDS):
      start = time.perf_counter()
      function()
      times.append(time.perf_counter() - start)
    seconds[name] = statistics.median(times)
  rows = [f'| {SIDE}x{SIDE} | seconds | speed-up |', '|---|---|---|']
  return '\n'.join(rows + [f'| {name} | {value:.5f} | {seconds["Python loop"] / value:.0f} |'
                           for name, value in seconds.items()])


def main() -> None:
  parser = cli.Parser('python -m tests.benchmarks.correction', __doc__)
  parser.add_argument('--set', default='sample:valid',
                      help='the set to evaluate on, as in config.eval.sets')
  parser.add_argument('--workdir', type=cli.path, metavar='RUN',
                      help='the folder of a run to use instead of training')
  parser.add_argument('--steps', type=int, default=100,
                      help='training steps of the undertrained network')
  args = parser.parse_args()
  run = restore.load(args.workdir) if args.workdir else None
  scale = run.scale if run else 2
  pairs = list(read_set(find_set(args.set, scale), scale))  # fails before anything is trained
  if run:
    models = {f'step {run.step}': run}
  else:
    with tempfile.TemporaryDirectory() as folder:
      models = {f'{steps} steps': train_model(steps, pathlib.Path(folder))
                for steps in (args.steps, edsr.get_config('sample').steps)}
  print(f'\n{set_name(args.set)} x{scale}: PSNR in dB, luma / RGB, border {scale}\n')
  print(compare(models, pairs, scale))
  for name, model in models.items():
    print(f'\n{name}: bilinear interpolation is closer to HR than the model for '
          f'{bilinear_closer(model, pairs):.0%} of samples')
  print(f'\n{measure_speed()}')


if __name__ == '__main__':
  sys.exit(cli.run(main))
