"""What is printed before and after training."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from clu import parameter_overview
from flax import traverse_util

from sr_jax.experiment.check import describe_steps
from sr_jax.runs.metrics_log import read_metrics
from sr_jax.step import freezing
from sr_jax.step.freezing import Trainable
from sr_jax.step.state import PyTree, TrainState
from sr_jax.train.start import Origin, Run


def before_training(run: Run, origin: Origin, state: TrainState, changed: Mapping[str, list],
                    environment: Mapping[str, Any]) -> int:
  """Prints the networks, skipped images, phases, and where weights and settings come from.

  Args:
    changed: {key: [before, now]} of what changed in the config since the previous start.
    environment: of `metadata.environment`.

  Returns:
    The number of lines of `run.feed.skipped` that were printed. A stream decodes ahead and may add
    another one at any moment.
  """
  printed, say = len(run.feed.skipped), run.log.say
  skipped = run.feed.skipped[:printed] + run.validation.skipped
  say(describe_networks(run, origin, state, skipped))
  for line in (*run.notes, *describe_origin(run, origin, changed),
               *describe_devices(environment, origin.last_record)):
    say(line)
  paths = run.folder.paths
  if (origin.resumed or origin.restarted) and not origin.records and paths.run_json.exists():
    with contextlib.suppress(OSError):
      paths.run_json.rename(paths.damaged_run_json)
    say(f'{paths.run_json}: cannot read, renamed to {paths.damaged_run_json.name}; changes of '
        'images or settings since the last start cannot be detected')
  if origin.restarted:
    say('found a run without checkpoints; starting over. The longest log of such a run is kept in '
        'metrics.jsonl.lost')
  if origin.last_record.get('data_digest', run.feed.digest) != run.feed.digest:
    say('warning: images, data settings or batch settings have changed since the last start; the '
        'resumed run will differ from an uninterrupted one')
  return printed


def describe_networks(run: Run, origin: Origin, state: TrainState,
                      skipped: Sequence[str]) -> str:
  """Returns tables of the networks' arrays, the skipped images and the phases."""
  lines = ['Generator', parameter_table(state.g.params, run.experiment.trainable)]
  if state.d is not None:
    lines += ['Discriminator', parameter_table(state.d.params)]
  lines += [f'skipped {reason}' for reason in skipped]
  if skipped:
    lines.append(f'{len(skipped)} skipped')
  phases = ', '.join(f'{phase.name} to step {phase.stop}' for phase in run.experiment.phases)
  begins = (f'resuming from step {origin.step}' if origin.step
            else 'a new run' if origin.model else 'training from scratch')
  epochs = f'; {describe_steps(run.config, "")}' if run.config.epochs else ''
  lines.append(f'{run.folder.workdir}: {begins}; {phases}{epochs}')
  return '\n'.join(lines)


def describe_devices(environment: Mapping[str, Any], last: Mapping[str, Any]) -> list[str]:
  """Returns lines on the number of devices, if there are several or if it has changed.

  Args:
    environment, last: entries of run.json of this start and of the previous one.
  """
  lines, count, processes = [], environment['devices'], environment['processes']
  if count > 1:
    lines.append(f'{count} devices share each batch' + (
        f', in {processes} processes' if processes > 1 else ''))
  if last.get('devices', count) != count:
    lines.append(f'resuming on {count} devices, the last start had {last["devices"]}: sums are '
                 'computed in another order, so results will not be bitwise identical')
  return lines


def describe_origin(run: Run, origin: Origin, changed: Mapping[str, list]) -> list[str]:
  """Returns lines on where a start takes its settings and weights from."""
  lines = [f'config.{key} changed since the last start: {before!r} -> {now!r}'
           for key, (before, now) in changed.items()]
  if origin.resumed and run.config.init_from:
    lines.append('config.init_from is only used when a run starts from scratch; ignored')
  random = set(freezing.frozen_names(run.experiment.trainable)) - set(origin.loaded)
  if random and not origin.resumed:
    lines.append(f'warning: frozen at random initial values: {layers(sorted(random))}; '
                 'config.init_from loads no weights for them')
  if origin.model:
    model = origin.model
    lines.append(
        f'starting from {model.origin}: {len(origin.loaded)} arrays loaded '
        f'({layers(origin.loaded)})'
        + (f', {len(origin.initialised)} newly initialised ({layers(origin.initialised)})'
           if origin.initialised else '')
        + ''.join(f'; {field} {model.fields[field]} is assumed, the file does not state it'
                  for field in model.assumed))
  return lines


def layers(names: Sequence[str]) -> str:
  """Summarises names of arrays as 'head, body_0 to body_15'."""
  numbers: dict[str, list[int] | None] = {}
  for layer in dict.fromkeys(name.split('/')[1] for name in names):
    stem, _, number = layer.rpartition('_')
    numbers.setdefault(*((stem, []) if number.isdecimal() else (layer, None)))
    if number.isdecimal():
      numbers[stem].append(int(number))
  return ', '.join(stem if not series else f'{stem}_{min(series)}' + (
      f' to {stem}_{max(series)}' if len(series) > 1 else '') for stem, series in numbers.items())


@dataclasses.dataclass
class _Row:  # the names of its fields are the heads of clu's table
  name: str
  shape: str
  size: str
  trainable: str


def parameter_table(params: PyTree, trainable: Trainable | None = None) -> str:
  """Returns a table of a network's arrays; if some are frozen, it says which."""
  if trainable is None:
    return parameter_overview.get_parameter_overview(params)
  arrays, flags = (traverse_util.flatten_dict(tree, sep='/')
                   for tree in (params, trainable.params))
  rows = [_Row(name, str(array.shape), f'{array.size:,}', 'yes' if flags[name] else 'frozen')
          for name, array in sorted(arrays.items())]
  trained, frozen = (sum(array.size for name, array in arrays.items() if flags[name] == flag)
                     for flag in (True, False))
  return (f'{parameter_overview.make_table(rows)}\n'
          f'Total: {trained + frozen:,} ({trained:,} trainable, {frozen:,} frozen)')


def print_validations(workdir: pathlib.Path) -> None:
  """Prints metrics against step, bicubic first: one table for each set."""
  lines = read_metrics(workdir)
  rows = {kind: [line for line in lines if any(name.startswith(f'{kind}/') for name in line)]
          for kind in ('valid', 'test')}
  for kind in filter(rows.get, rows):
    _print_table(rows[kind], f'{kind}/', f'data.{kind}' if rows['test'] else '')


def _print_table(rows: list[dict], prefix: str, title: str) -> None:
  names = dict.fromkeys(name for row in rows for name in row if name.startswith(prefix))
  heads = (name.removeprefix(prefix) for name in names)
  print(f'\n{title}' if title else '')
  print(f'{"step":>8}  {"phase":10}' + ''.join(f'  {head:>10}' for head in heads))
  for row in rows:  # null is an infinite PSNR; an earlier start may lack a metric
    cells = (f'{row[name]:.4f}' if row.get(name) is not None else '' for name in names)
    print(f'{row["step"]:>8}  {row["phase"]:10}' + ''.join(f'  {cell:>10}' for cell in cells))
