"""Trains networks of about 300,000 parameters for the time of 20 minutes each, and compares them.

  python -m tests.benchmarks.compare_networks DATA OUTPUT --measure
  python -m tests.benchmarks.compare_networks DATA OUTPUT --run edsr
  python -m tests.benchmarks.compare_networks DATA OUTPUT --table

DATA has the folders BSDS500 (photographs, to train on), Set5 and Set14. `--measure` writes the
seconds of a step of each network to OUTPUT/seconds.json, on an otherwise idle machine. A run has as
many steps as these make of --minutes, so the training itself may share the machine: on one core
each, `taskset -c 0 python -m ...`. A run that was interrupted goes on with the same command.
`--table` writes OUTPUT/table.md and OUTPUT/chart.png: luma PSNR of Set5 and Set14 at each tenth of
the runs, against steps and minutes; --window 16 adds the SwinIRs with other windows than they were
trained with.

Every run: x4, 8 crops of 32x32 LR pixels, L1, Adam (.9, .99), a ramp of 2% of the steps and a
cosine to 0, weights averaged (.99), no stochastic depth. The learning rate is 1e-3 for EDSR,
RRDBNet and SPAN, and 5e-4 for RealPLKSR and the transformers, as is common for networks of this
size. The proportions are close to the published ones. SPAN is counted as it is used, its branches
fused. A network's second seed has the suffix -2.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from sr_jax import restore, train
from sr_jax.data.benchmarks import find_set, read_set
from sr_jax.errors import InputError
from sr_jax.experiment.base_config import defaults
from sr_jax.metrics import scorer
from sr_jax.models import factory, variable_shapes
from sr_jax.models.attention import POSITIONS
from sr_jax.runs.metrics_log import read_metrics
from sr_jax.system import cli, files
from tests.benchmarks import turns, versus_torch

SCALE, CROP, BATCH = 4, 32, 8
PARAMETERS, TOLERANCE = 300_000, 0.05
TENTHS = 10  # validations of a run
SETS = {'Set5': 'valid/', 'Set14': 'test/'}
CONVOLUTIONS = {
    'edsr': {'name': 'edsr', 'features': 32, 'blocks': 12},
    'rrdb': {'name': 'rrdb', 'features': 28, 'blocks': 2, 'growth': 14},
    'span': {'name': 'span', 'features': 40, 'blocks': 6},
    'realplksr': {'name': 'realplksr', 'features': 24, 'blocks': 8, 'norm': 'layer'}}
SWINIR = {'name': 'swinir', 'features': 48, 'groups': 2, 'blocks': 6, 'heads': 4, 'window': 8,
          'mlp_ratio': 1.75, 'upsample': 'direct', 'drop_path': 0.0}
STEM = SWINIR | {'blocks': 4, 'stem': 'edsr', 'stem_blocks': 3, 'stem_features': 32}
NETWORKS = CONVOLUTIONS | {
    f'swinir-{position}': SWINIR | {'position': position} for position in POSITIONS} | {
        f'stem-{position}': STEM | {'position': position} for position in ('bias', 'rope_mixed')}
RATES = dict.fromkeys(('edsr', 'rrdb', 'span'), 1e-3)
OTHER_RATE = 5e-4
# {run: (network, seed)}.
RUNS = {name: (name, 0) for name in NETWORKS} | {
    f'swinir-{position}-2': (f'swinir-{position}', 1) for position in POSITIONS}


def config_of(network: str, data: pathlib.Path, steps: int, seed: int = 0) -> ConfigDict:
  """Returns the settings of a run; `steps` is a multiple of TENTHS."""
  config = defaults()
  config.seed, config.scale, config.hr_patch, config.batch_size = seed, SCALE, SCALE * CROP, BATCH
  config.steps, config.ema = steps, 0.99
  config.generator.update(NETWORKS[network])
  config.optimizer.g.update({
      'learning_rate': RATES.get(network, OTHER_RATE), 'beta2': 0.99, 'schedule': 'cosine',
      'ramp': steps // 50})
  config.data.source = f'folder:{data / "BSDS500"}'
  config.data.valid, config.data.test = (str(data / name) for name in SETS)
  config.eval.every = steps // TENTHS
  config.eval.pictures, config.eval.lpips = 14, 'none'
  config.log_every = max(steps // 100, 1)
  config.sample_every, config.progress_pictures = steps, 0
  return config


def count_parameters(network: str) -> int:
  """Returns the number of parameters of a network, with fused branches.

  Raises:
    InputError: it is too far from PARAMETERS.
  """
  fields = NETWORKS[network] | ({'fused': True} if network == 'span' else {})
  shapes = variable_shapes(factory.build_generator(fields, SCALE, 'float32'))
  count = sum(leaf.size for leaf in jax.tree.leaves(shapes['params']))
  if abs(count - PARAMETERS) > TOLERANCE * PARAMETERS:
    raise InputError(f'{network}: {count:,} parameters, expected {PARAMETERS:,} within '
                     f'{TOLERANCE:.0%}')
  return count


def measure(networks: Sequence[str], seconds: float) -> dict[str, float]:
  """Returns the median of the seconds of a training step of each network; they take turns.

  Args:
    seconds: approximate duration of all turns.
  """
  runs, durations = {}, {name: [] for name in networks}
  for name in networks:
    config = config_of(name, pathlib.Path(), 1_000)
    runs[name] = versus_torch.jax_step(config, versus_torch.build_experiment(config), 1)
    first = [turns.timed(runs[name], jax.block_until_ready) for _ in range(2)]
    print(f'{name}: {count_parameters(name):,} parameters, first step {first[0]:.1f} s', flush=True)
  while min(map(len, durations.values())) < turns.MIN_ROUNDS or (
      sum(map(sum, durations.values())) < seconds):
    for name, run in runs.items():
      durations[name].append(turns.timed(run, jax.block_until_ready))
  return {name: round(float(np.median(values)), 4) for name, values in durations.items()}


def steps_in(minutes: float, seconds: float) -> int:
  """Returns the number of steps of `seconds` each in so many minutes, a multiple of TENTHS."""
  return max(round(60 * minutes / seconds / TENTHS), 1) * TENTHS


def run(name: str, data: pathlib.Path, output: pathlib.Path, minutes: float) -> None:
  """Trains a run of RUNS in its folder of `output`, or continues it."""
  network, seed = RUNS[name]
  steps = steps_in(minutes, read_seconds(output)[network])
  print(f'{name}: {count_parameters(network):,} parameters, {steps} steps')
  train.train(config_of(network, data, steps, seed), output / name)


def read_seconds(output: pathlib.Path) -> dict[str, float]:
  """Returns the seconds of a step of each network, {} for those that were not measured.

  Raises:
    InputError: nothing was measured.
  """
  path = output / 'seconds.json'
  if not path.exists():
    raise InputError(f'{path}: does not exist; --measure writes it')
  return json.loads(path.read_text())


# The table and the chart -------------------------------------------------------------------


def curves(output: pathlib.Path, name: str) -> dict[str, dict[int, float]]:
  """Returns {set: {step: PSNR}} of a run; step 0 is bicubic's."""
  lines = read_metrics(output / name)
  return {title: {line['step']: line[f'{prefix}psnr_y'] for line in lines
                  if line.get(f'{prefix}psnr_y') is not None}
          for title, prefix in SETS.items()}


def table(output: pathlib.Path, names: Sequence[str]) -> str:
  """Returns a Markdown table of the runs: PSNR after a fifth, half and all of the minutes."""
  seconds, rows = read_seconds(output), []
  for name in names:
    network, found = RUNS[name][0], curves(output, name)
    steps = json.loads((output / name / 'config.json').read_text())['steps']
    minutes = steps * seconds[network] / 60
    scores = ' | '.join(' / '.join(
        f'{values[at]:.2f}' if (at := int(share * steps)) in values else '-'
        for share in (0.2, 0.5, 1)) for values in found.values())
    rows.append(f'| {name} | {count_parameters(network):,} | {1e3 * seconds[network]:,.0f} ms '
                f'| {steps:,} | {minutes:.1f} | {scores} |')
  return '\n'.join(['| run | parameters | a step | steps | minutes | ' + ' | '.join(
      f'{title} after 20% / 50% / 100%' for title in SETS) + ' |', '|---' * 7 + '|', *rows]) + '\n'


def chart(output: pathlib.Path, names: Sequence[str]) -> None:
  """Draws the PSNR of both sets against steps and against minutes to chart.png."""
  from matplotlib.figure import Figure
  seconds, figure = read_seconds(output), Figure((12, 9), layout='constrained')
  axes = figure.subplots(len(SETS), 2, sharey='row')
  colours = {network: f'C{index}' for index, network in enumerate(NETWORKS)}
  for name in names:
    network, seed = RUNS[name]
    for row, values in zip(axes, curves(output, name).values(), strict=True):
      steps, scores = (np.array(list(part)[1:]) for part in (values, values.values()))
      for axis, factor in zip(row, (1, seconds[network] / 60), strict=True):
        axis.plot(steps * factor, scores, ('--' if seed else '-'), color=colours[network],
                  marker='.', label=name)
  for row, title in zip(axes, SETS, strict=True):
    row[0].set_ylabel(f'{title} x4, luma PSNR, dB')
    for axis, label in zip(row, ('steps', 'minutes on two idle cores'), strict=True):
      axis.set_xlabel(label)
      axis.grid(alpha=0.3)
  axes[0, 0].legend(fontsize=7, ncols=2)
  figure.savefig(output / 'chart.png', dpi=120)


def window_table(output: pathlib.Path, names: Sequence[str], data: pathlib.Path,
                 window: int) -> str:
  """Returns a Markdown table of SwinIRs with the windows of their training and with others."""
  rows = []
  for name in names:
    model = restore.load_run(output / name)
    other = model.with_window(window)
    cells = []
    for title in SETS:
      pairs = list(read_set(find_set(str(data / title), SCALE), SCALE))
      scores = [scorer.mean(scorer.score_set(pairs, of, scorer.make_scorer(SCALE, 'none')))[
          'psnr_y'] for of in (model, other)]
      cells += [f'{scores[0]:.2f}', f'{scores[1]:.2f} ({scores[1] - scores[0]:+.2f})']
    rows.append(f'| {name} | {" | ".join(cells)} |')
  heads = [f'{title}, window {side}' for title in SETS for side in (SWINIR['window'], window)]
  return '\n'.join([f'| run | {" | ".join(heads)} |', '|---' * 5 + '|', *rows]) + '\n'


def write_table(args: argparse.Namespace) -> None:
  names = [name for name in RUNS if (args.output / name / 'metrics.jsonl').exists()]
  if not names:
    raise InputError(f'{args.output}: contains no runs; --run trains one')
  text = table(args.output, names)
  chart(args.output, names)
  if args.window:
    text += '\n' + window_table(args.output, [name for name in names if name.startswith('swinir')],
                                args.data, args.window)
  files.write_text(args.output / 'table.md', text)
  print(text)


def main(arguments: Sequence[str] | None = None) -> None:
  """Runs the command line."""
  parser = cli.Parser('python -m tests.benchmarks.compare_networks', __doc__)
  add = parser.add_argument
  add('data', type=cli.path, help='folder with BSDS500, Set5 and Set14')
  add('output', type=cli.path, help='folder of the runs')
  add('--measure', nargs='*', choices=NETWORKS, metavar='NETWORK',
      help='measure steps of these networks, or of all')
  add('--seconds', type=float, default=300, help='duration of --measure without compiling')
  add('--run', choices=RUNS, help='train or continue a run')
  add('--minutes', type=float, default=20, help='of a run, at the measured speed')
  add('--table', action='store_true', help='write the table and the chart')
  add('--window', type=int, default=0, help='also evaluate the SwinIRs with this window')
  args = parser.parse_args(arguments)
  args.output.mkdir(parents=True, exist_ok=True)
  if args.measure is not None:
    path = args.output / 'seconds.json'
    before = read_seconds(args.output) if path.exists() else {}
    files.write_json(path, before | measure(args.measure or list(NETWORKS), args.seconds))
  if args.run:
    run(args.run, args.data, args.output, args.minutes)
  if args.table:
    write_table(args)


if __name__ == '__main__':
  sys.exit(cli.run(main))
