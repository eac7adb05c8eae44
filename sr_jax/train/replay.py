"""sr-jax replay: runs one step of a run again and compares it with the log."""

import contextlib
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from sr_jax import images
from sr_jax.data.feed import bank_batches, open_feed
from sr_jax.errors import InputError, listed
from sr_jax.experiment import compatibility, crops, inputs, phases
from sr_jax.experiment.check import check_given
from sr_jax.experiment.named_keys import named_key
from sr_jax.experiment.phase_feed import PhaseFeed, open_phases
from sr_jax.experiment.phases import Experiment
from sr_jax.images import montage
from sr_jax.runs import metadata
from sr_jax.runs.checkpoints import Checkpoints
from sr_jax.runs.folder import RunFolder
from sr_jax.runs.metrics_log import read_metrics
from sr_jax.step import nonfinite, train_step
from sr_jax.step.device_loop import BatchAt
from sr_jax.step.state import TrainState
from sr_jax.system import files, sharding
from sr_jax.train import previous
from sr_jax.train.start import Run

MAX_ROWS = 16  # crops of a batch in an image

# What determines a step, besides what `check_resumable` compares and the digest of the data.
KEYS = ('seed', 'steps', 'warmup_steps', 'batch_size', 'hr_patch', 'phases', 'dtype', 'ema',
        'loss', 'optimizer', 'max_bad_steps', 'accumulate')
ENVIRONMENT = ('device', 'devices', 'jax', 'device_loop')  # of run.json; bits depend on them


class ReplayedBatch(NamedTuple):
  """A step's batch and the output of the generator for it: float32 [B, H, W, C]."""

  lr: np.ndarray
  hr: np.ndarray
  sr: np.ndarray


class Replayed(NamedTuple):
  """A replayed step: the name of its phase, its batch and its metrics."""

  phase: str
  batch: ReplayedBatch
  metrics: dict[str, float]


def replay_run(config: ConfigDict, workdir: os.PathLike | str, step: str | int) -> dict[str, Any]:
  """Runs the step that the log calls `step` again, from the checkpoint before it, and prints it.

  This is the step that takes `state.step` from step - 1 to step; the steps from the checkpoint
  up to it are run too. On the same machine, with the same JAX, and if the run used one device as
  this does, the metrics have the bits of the run. The batch is written to WORKDIR/replay/STEP.png;
  nothing else of the run is changed, which may be training meanwhile.

  Args:
    config: the run's own.

  Returns:
    {'step', 'phase', 'checkpoint', 'metrics', 'logged' (as in metrics.jsonl, or {}), 'differing'
    (names, of those logged), 'not_finite' (names), 'picture'}.

  Raises:
    InputError: there is no run, or it has another config or other data; `step` is not a number,
      not after the first checkpoint, or after the config's last step.
  """
  if not str(step).isdecimal() or int(step) < 1:
    raise InputError(f'--step {step}: replay expects the number of a step, at least 1')
  number = int(step)
  config = check_given(config, 'replay')
  workdir = files.expand(workdir)
  trained = metadata.read_config(workdir)
  begin = _checkpoint_before(workdir, number)
  training_set = inputs.training_set(config)
  config = inputs.epochs_to_steps(config, len(training_set), trained)
  compatibility.check_resumable(workdir, trained, begin, config)
  _refuse_other_config(workdir, trained, config)
  if number > config.steps:
    raise InputError(f'--step {number}: the run in {workdir} has {config.steps} steps')
  record, changed = _record_of_step(workdir, number)
  config.seed = changed.get('seed', [config.seed])[0]
  experiment = phases.build(config)
  new = phases.state_at(experiment, begin)
  state = previous.run_state(new, workdir, begin)._replace(seed=new.seed)
  with contextlib.closing(open_phases(config, experiment, training_set, begin,
                                      record.get('data_mode', ''))) as feed:
    if record.get('data_digest', feed.digest) != feed.digest:
      raise InputError(f'config.data: images, data settings or batch settings have changed since '
                       f'{workdir} ran step {number}')
    print(f'{workdir}: replaying step {number} from checkpoint {begin}'
          + (f' (steps before it: {number - 1 - begin})' if number - 1 > begin else ''), flush=True)
    replayed = _run_again(experiment, feed, state, number)
  try:
    path = write_batch(workdir, number, replayed.batch)
  except InputError as error:  # the metrics were asked for first of all
    path = error
  metrics = replayed.metrics
  logged = next((line for line in read_metrics(workdir)
                 if line['step'] == number and 'g/total' in line), {})
  differing = [name for name in metrics if logged and not _equal(metrics[name], logged.get(name))]
  title = f'{replayed.phase} step {number}'
  print('\n'.join([*_describe_metrics(title, metrics, logged, differing),
                   *_describe_environment(experiment, record, changed),
                   *_describe_batch(replayed.batch), str(path)]))
  return {'step': number, 'phase': replayed.phase, 'checkpoint': begin, 'metrics': metrics,
          'logged': logged, 'differing': differing,
          'not_finite': nonfinite.nonfinite_names(metrics), 'picture': path}


def stop_message(run: Run, state: TrainState, metrics: Mapping[str, float]) -> str:
  """Returns the message of a run that only non-finite steps have stopped, and draws a batch.

  Args:
    state: before the first of these steps, whose batch is drawn.
    metrics: of the last of them.
  """
  step, count, feed = int(state.step), int(metrics['bad']), run.feed
  workdir = run.folder.workdir
  phase = run.experiment.phase_at(step)
  spec = inputs.build_feed_spec(crops.with_crops(run.config, phase.crops),
                                run.experiment.device_loop, feed.mode)
  with contextlib.ExitStack() as stack:
    try:
      if feed.mode == 'bank':  # degraded on this device, not on all that share a batch
        source, batch_at = feed.enter(phase, step).source_for(step, step + 1), bank_batches(spec)
      else:  # this feed is past the batch
        again = stack.enter_context(contextlib.closing(open_feed(
            run.training_set, spec, step, lambda _: None)))
        source, batch_at = again.source_for(step, step + 1), again.batch_at
      image = keep_batch(workdir, run.experiment, state, sharding.local_copy(source), batch_at)
    except InputError:
      image = ''
  return f'{workdir}: ' + nonfinite.nonfinite_message(step + count, count, run.config.seed, metrics,
                                                      image)


def keep_batch(workdir: pathlib.Path, experiment: Experiment, before: TrainState, source: Any,
               batch_at: BatchAt) -> pathlib.Path:
  """Writes WORKDIR/replay/STEP.png of the step that follows the state `before`.

  Args:
    before: not donated yet; `nonfinite.rewind` of a state that no longer changes.
    source, batch_at: of a `feed.Feed`, for that step.

  Returns:
    The file. It has a row for each crop: low (with repeated pixels), generated, original.

  Raises:
    InputError: it cannot be written.
  """
  return write_batch(workdir, int(before.step) + 1,
                     _replayed_batch(experiment, before, source, batch_at))


def write_batch(workdir: pathlib.Path, number: int, batch: ReplayedBatch) -> pathlib.Path:
  """Writes WORKDIR/replay/NUMBER.png of a batch, at most `MAX_ROWS` crops of it."""
  scale = batch.hr.shape[1] // batch.lr.shape[1]
  low = batch.lr.repeat(scale, 1).repeat(scale, 2)
  rows = []
  for row in list(zip(low, batch.sr, batch.hr, strict=True))[:MAX_ROWS]:
    # NaN has no colour and is shown black.
    shown = [images.to_uint8(np.nan_to_num(image, posinf=1, neginf=0)) for image in row]
    rows.append(montage.side_by_side([images.as_rgb(image) for image in shown]))
  path = RunFolder(pathlib.Path(workdir)).replay / f'{number}.png'
  images.write_image(
      path, montage.side_by_side([row.swapaxes(0, 1) for row in rows]).swapaxes(0, 1))
  return path


# Before the step ---------------------------------------------------------------------------


def _checkpoint_before(workdir: pathlib.Path, number: int) -> int:
  """Returns the step of the last intact checkpoint before step `number`."""
  with contextlib.closing(Checkpoints(workdir, read_only=True)) as checkpoints:
    steps = checkpoints.steps()
    if not steps and checkpoints.latest() is None:  # raises if there are some and none is intact
      raise InputError(f'{checkpoints.folder}: contains no checkpoint')
  for step, fault in checkpoints.damaged.items():
    print(f'{checkpoints.folder / str(step)}: damaged ({fault}), skipped')
  if steps[0] >= number:
    raise InputError(f'--step {number}: the first checkpoint of {workdir} is of step {steps[0]}, '
                     f'so the first step that can be replayed is {steps[0] + 1}')
  return max(step for step in steps if step < number)


def _refuse_other_config(workdir: pathlib.Path, trained: dict[str, Any],
                         config: ConfigDict) -> None:
  have, want = (metadata.flat({key: tree[key] for key in KEYS if key in tree})
                for tree in (trained, compatibility.as_json(config)))
  for key in (*want, *filter(named_key, have)):
    if have.get(key) != want.get(key):
      raise InputError(f'{workdir}: the run has {key}={have.get(key)!r}, the config '
                       f'{want.get(key)!r}; replaying a step needs the config of its run')


def _record_of_step(workdir: pathlib.Path, number: int) -> tuple[dict[str, Any], dict[str, list]]:
  """Returns the entry of run.json of the start that took step `number`, and later changes.

  The changes are those of the config, {key: [then, now]}. Returns ({}, {}) if no entry is known.
  """
  records = metadata.start_records(workdir)
  index = max((index for index, record in enumerate(records)
               if record.get('from_step', 0) < number), default=None)
  if index is None:
    return {}, {}
  changed: dict[str, list] = {}
  for record in records[index + 1:]:
    changes = record.get('changed')
    for key, values in changes.items() if isinstance(changes, dict) else ():
      if isinstance(values, list) and len(values) == 2:
        changed[key] = [changed.get(key, values)[0], values[1]]
  return records[index], changed


# The step ----------------------------------------------------------------------------------


def _run_again(experiment: Experiment, feeds: PhaseFeed, state: TrainState,
               number: int) -> Replayed:
  """Takes the steps up to `number` as training takes them."""
  step, phase = int(state.step), None
  while True:
    if phase is None or step >= phase.stop:
      feed = feeds.enter(experiment.phase_at(step), step)
      phase, state, run = phases.enter_phase(experiment, state, step, feed.batch_at)
    stop = min(step + (feed.max_steps if experiment.device_loop else 1), phase.stop,
               number if step == number - 1 else number - 1)
    source = feed.source_for(step, stop)
    if stop == number:
      if int(state.step) < step:
        raise InputError(f'--step {number}: was never run; the run stopped at step '
                         f'{int(state.step)} after {experiment.max_bad} non-finite steps in a row')
      batch = _replayed_batch(experiment, state, source, feed.batch_at)
    state, metrics = run(state, source, experiment.frozen, step, stop)
    step = stop
    if step == number:
      return Replayed(phase.name, batch, {name: float(value) for name, value
                                          in jax.device_get(metrics).items()})


def _replayed_batch(experiment: Experiment, state: TrainState, source: Any,
                    batch_at: BatchAt) -> ReplayedBatch:
  @jax.jit
  def generate(state: TrainState, source: Any) -> ReplayedBatch:
    batch = batch_at(source, state.seed, state.step)
    sr, _ = train_step.generate(experiment.generator, state.g.params.tree(), state.g.batch_stats,
                                batch['lr'], experiment.trainable,
                                train_step.step_rngs(experiment.generator, state))
    return ReplayedBatch(batch['lr'], batch['hr'], sr)

  return ReplayedBatch(*(np.asarray(array, np.float32) for array in generate(state, source)))


# What is printed ---------------------------------------------------------------------------


def _equal(value: float, logged: float | None) -> bool:
  """Compares a metric with the log, where a non-finite number is null."""
  return value == logged if math.isfinite(value) else logged is None


def _describe_metrics(title: str, metrics: Mapping[str, float], logged: Mapping[str, float | None],
                      differing: list[str]) -> list[str]:
  lines = [f'\n{title:22}{"again":>16}' + (f'{"logged":>16}' if logged else '  (not logged)')]
  for name, value in metrics.items():
    then = logged.get(name)
    lines.append(f'  {name:20}{value:16.9g}' + (
        f'{"null" if then is None else format(then, ".9g"):>16}  '
        f'{"differs" if name in differing else "equal"}' if logged else ''))
  if metrics['bad']:
    names = nonfinite.nonfinite_names(metrics) or nonfinite.root_causes(metrics)
    lines.append(f'non-finite: {listed(names)}; the update was skipped')
  return lines


def _describe_environment(experiment: Experiment, record: Mapping[str, Any],
                          changed: Mapping[str, list]) -> list[str]:
  here = {'device': jax.devices()[0].device_kind, 'devices': 1, 'jax': jax.__version__,
          'device_loop': experiment.device_loop}
  return [*(f'{key} was {record[key]!r} in the run and is {here[key]!r} now'
            for key in ENVIRONMENT if record.get(key, here[key]) != here[key]),
          *(f'config.{key} was {before!r} at that step and is {now!r} now'
            for key, (before, now) in changed.items())]


def _describe_batch(batch: ReplayedBatch) -> list[str]:
  """Returns a table with the minimum, mean and maximum of each crop."""
  lines = [f'\n{"crop":>4}' + ''.join(f'  {f"{name} min":>9}{"mean":>9}{"max":>9}'
                                      for name in ReplayedBatch._fields)]
  with np.errstate(all='ignore'):
    for index, crops in enumerate(zip(*batch, strict=True)):
      lines.append(f'{index:>4}' + ''.join(
          f'  {crop.min():9.4g}{crop.mean():9.4g}{crop.max():9.4g}' for crop in crops))
  return lines
