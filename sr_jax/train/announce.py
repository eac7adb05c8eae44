"""What is printed before and after training."""

import contextlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from sr_jax import images
from sr_jax.experiment.check import describe_steps
from sr_jax.runs.metrics_log import SETS, read_metrics
from sr_jax.step import freezing
from sr_jax.step.state import TrainState
from sr_jax.system.text import format_metric
from sr_jax.train.start import Origin, Run

NAMED = 10  # skipped images that are named, at most


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
  """Returns the skipped images, the phases and the numbers of parameters."""
  lines = describe_skipped(skipped)
  divided = len({phase.crops.size for phase in run.experiment.phases}) > 1
  phases = ', '.join(f'{phase.name} to step {phase.stop}' + f' ({phase.crops})' * divided
                     for phase in run.experiment.phases)
  begins = (f'already finished, step {origin.step} of {run.config.steps}'
            if origin.step == run.config.steps
            else f'resuming from step {origin.step}' if origin.step
            else 'a new run' if origin.model else 'training from scratch')
  epochs = f'; {describe_steps(run.config, "")}' if run.config.epochs else ''
  lines.append(f'{run.folder.workdir}: {begins}; {phases}{epochs}; '
               + describe_parameters(state))
  return '\n'.join(lines)


def describe_parameters(state: TrainState) -> str:
  """Returns 'G 354,672 parameters (9,216 frozen), D 80,945', by the networks that there are."""
  counts = {name: net.params.size for name, net in (('G', state.g), ('D', state.d)) if net}
  frozen = counts['G'] - state.g.params.trained().size
  text = f'G {counts["G"]:,} parameters' + (f' ({frozen:,} frozen)' if frozen else '')
  return text + (f', D {counts["D"]:,}' if 'D' in counts else '')


def describe_skipped(skipped: Sequence[str]) -> list[str]:
  """Returns lines on the first `NAMED` skipped images, and their number."""
  if not skipped:
    return []
  more = ', of which run.json names all' if len(skipped) > NAMED else ''
  return [*(f'skipped {reason}' for reason in skipped[:NAMED]), f'{len(skipped):,} skipped{more}']


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
        + ''.join(f'; {field} {model.fields[field]} is assumed, the file does not state it'
                  for field in model.assumed))
    if origin.initialised:
      lines.append(f'{len(origin.initialised)} arrays newly initialised '
                   f'({layers(origin.initialised)})')
    if origin.unused:
      lines.append(f'{len(origin.unused)} arrays of {model.origin} not used '
                   f'({layers(origin.unused)})')
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


def validation_tables(workdir: pathlib.Path, baseline: str = 'bicubic') -> list[str]:
  """Returns metrics against step, bicubic first: the lines of one table for each set.

  Args:
    baseline: what bicubic is called, see `images.baseline_name`.
  """
  lines = [line | {'phase': baseline}
           if line['phase'] == 'bicubic' else line for line in read_metrics(workdir)]
  rows = {prefix: [line for line in lines if any(name.startswith(prefix) for name in line)]
          for prefix in SETS}
  rows = {prefix: found for prefix, found in rows.items() if found}
  degraded = ', degraded LR' if 'clean/' in rows else ''
  titles = {'valid/': f'data.valid{degraded}', 'clean/': 'data.valid, clean LR',
            'test/': f'data.test{degraded}', 'lr_images/': 'eval.lr_images'}
  return [text for prefix, found in rows.items()
          for text in _table(found, prefix, titles[prefix] if len(rows) > 1 else '')]


def _table(rows: list[dict], prefix: str, title: str) -> list[str]:
  names = dict.fromkeys(name for row in rows for name in row if name.startswith(prefix))
  heads = (name.removeprefix(prefix) for name in names)
  lines = [title] if title else []
  lines.append(f'{"step":>8}  {"phase":10}' + ''.join(f'  {head:>10}' for head in heads))
  for row in rows:  # null is a mean that is not finite; an earlier start may lack a metric
    cells = (format_metric(name.removeprefix(prefix), row[name]) if row.get(name) is not None
             else '' for name in names)
    lines.append(f'{row["step"]:>8}  {row["phase"]:10}' + ''.join(f'  {cell:>10}'
                                                                  for cell in cells))
  return lines


def final_line(run: Run, step: int, entry: Mapping[str, Any], skipped: int = 0) -> str:
  """Returns how a start ended: step, duration, best checkpoint and where the report is.

  Args:
    step: of the last state.
    entry: this start's record in run.json.
    skipped: number of non-finite updates since the start of the run.
  """
  steps = run.config.steps
  text = [f'Finished: step {step} of {steps} in {entry["total"]}' if step == steps else
          f'Stopped at step {step} of {steps} after {entry["total"]}; run the same command to '
          'resume']
  if skipped:
    which = f'All {step}' if skipped == step else f'{skipped} of {step}'
    text.append(f'{which} updates were non-finite (NaN/Inf) and skipped')
  best = run.checkpoints.best()
  if best is not None:
    text.append(f'Best: step {best}{_score(run, best)}')
  elif any(line['step'] and any(key.startswith('valid/') for key in line)
           for line in read_metrics(run.folder.workdir)):
    text.append(f'No best step: {run.config.best_metric} was finite at no validation')
  if run.folder.paths.report.exists():
    text.append(f'Report: {run.folder.paths.report}')
  return '. '.join(text)


def _score(run: Run, step: int) -> str:
  """Returns ' (psnr_y 30.1966, bicubic 28.4302)', the metric that decides which step is best."""
  metric = run.config.best_metric
  scores = {line['phase'] if not line['step'] else metric: line.get(f'valid/{metric}')
            for line in read_metrics(run.folder.workdir)
            if line['step'] == step or line['phase'] == 'bicubic'}
  names = {metric: metric, 'bicubic': images.baseline_name('bicubic', run.config.scale)}
  shown = ', '.join(f'{shown_name} {format_metric(metric, scores[name])}'
                    for name, shown_name in names.items() if scores.get(name) is not None)
  return f' ({shown})' if shown else ''
