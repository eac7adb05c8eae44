"""One step of a run again: what it was given, what came of it, and what the log says of it."""

import contextlib
import functools
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from sr_jax import images
from sr_jax.errors import InputError, listed
from sr_jax.experiment import compatibility, inputs, phases
from sr_jax.experiment.check import check
from sr_jax.images import montage
from sr_jax.runs import metadata, metrics_log
from sr_jax.runs.checkpoints import Checkpoints
from sr_jax.step import nonfinite, train_step
from sr_jax.step.state import TrainState
from sr_jax.system import files, sharding
from sr_jax.train.start import run_state

FOLDER = 'replay'
SHOWN = 16  # crops of a batch in a picture

# What a step goes by, beside what `runs.check_resumable` looks at and the digest of the data.
KEYS = ('steps', 'warmup_steps', 'batch_size', 'hr_patch', 'dtype', 'ema', 'loss', 'optimizer',
        'max_bad_steps', 'accumulate')
SURROUNDINGS = ('device', 'devices', 'jax', 'device_loop')  # of run.json: another, other bits


class ReplayedBatch(NamedTuple):
  """A step's batch and what the generator makes of it: float32 [B, H, W, C]."""

  lr: np.ndarray
  hr: np.ndarray
  sr: np.ndarray


def replay_run(config, workdir, step: str | int) -> dict:
  """Runs the step that the log calls `step` again, from the checkpoint before it, and prints it.

  That is the step that takes `state.step` from step - 1 to step, on the way there every one
  before it. On the machine and with the JAX that the run had its figures have the run's bits, if
  the run was on one device, as this is. Its batch goes to WORKDIR/replay/STEP.png; nothing else
  of the run is touched, which may be training meanwhile.

  Args:
    config: the run's own.

  Returns:
    {'step', 'phase', 'checkpoint', 'metrics', 'logged' (as metrics.jsonl has it, or {}),
    'differing' (names, of those logged), 'not_finite' (names), 'picture'}.

  Raises:
    InputError: no run there, or of another config or other data; `step` is no number, before
      the first checkpoint or past the config's last step.
  """
  if not str(step).isdecimal() or int(step) < 1:
    raise InputError(f'--step={step}: --mode replay expected the number of a step')
  number = int(step)
  check(config)
  workdir = files.expand(workdir)
  trained = metadata.read_config(workdir)
  begin = _checkpoint_before(workdir, number)
  found = inputs.training_set(config)
  config = inputs.epochs_to_steps(config, len(found), trained)
  compatibility.check_resumable(workdir, trained, begin, config)
  _refuse_unless_its_own(workdir, trained, config)
  if number > config.steps:
    raise InputError(f'--step={number}: the run in {workdir} has {config.steps} steps')
  experiment = phases.build(config)
  state = run_state(experiment.new_state(), workdir, begin)
  start, changed = _start_that_took(workdir, number)
  with contextlib.closing(inputs.build_feed(config, found, begin, experiment.device_loop,
                                                start.get('data_mode', ''), print)) as feed:
    if start.get('data_digest', feed.digest) != feed.digest:
      raise InputError(f'config.data: batches are not made as they were when {workdir} took step '
                       f'{number} (other pictures, data or batch settings)')
    print(f'{workdir}: from checkpoint {begin}, step {number}'
          + (f' after {number - 1 - begin} before it' if number - 1 > begin else ''), flush=True)
    phase, crops, metrics = _run_again(experiment, feed, state, number)
  try:
    path = _write(workdir, number, crops)
  except InputError as error:  # the figures are what was asked for
    path = error
  logged = next((line for line in metrics_log.read_metrics(workdir)
                 if line['step'] == number and 'g/total' in line), {})
  differing = [name for name in metrics if logged and not _same(metrics[name], logged.get(name))]
  here = {'device': jax.devices()[0].device_kind, 'devices': 1, 'jax': jax.__version__,
          'device_loop': experiment.device_loop}
  print('\n'.join([*_describe(f'{phase} step {number}', metrics, logged, differing),
                   *(f'then {key} was {start[key]!r}, now it is {here[key]!r}'
                     for key in SURROUNDINGS if start.get(key, here[key]) != here[key]),
                   *(f'then config.{key} was {before!r}, now it is {now!r}'
                     for key, (before, now) in changed.items()),
                   *_describe_crops(crops), str(path)]))
  return {'step': number, 'phase': phase, 'checkpoint': begin, 'metrics': metrics,
          'logged': logged, 'differing': differing, 'not_finite': nonfinite.nonfinite_names(metrics),
          'picture': path}


def keep_batch(workdir, experiment: phases.Experiment, before: TrainState, source,
               batch_at: Callable) -> pathlib.Path:
  """Writes WORKDIR/replay/STEP.png of the step that `before` is the state before.

  Args:
    before: not given away (donated) yet; `guard.rewound` of a state that stands still.
    source, batch_at: of a `feed.Feed`, the source of that very step.

  Returns:
    The file: a row for each crop, low (its pixels repeated), generated by `before`, original.

  Raises:
    InputError: it can not be written.
  """
  return _write(workdir, int(before.step) + 1, _crops(experiment, before, source, batch_at))


def stop_message(config, experiment, before, feed, found, workdir, bad) -> str:
  """What is said where only bad steps came; the first one's batch is drawn.

  Args:
    before: the state before it.
    bad: the last one's metrics.
  """
  step, count = int(before.step), int(bad['bad'])
  with contextlib.ExitStack() as stack:
    if feed.mode != 'bank':  # its batches are past
      feed = stack.enter_context(contextlib.closing(inputs.build_feed(
          config, found, step, experiment.device_loop, feed.mode, lambda _: None)))
    try:
      source = sharding.local_copy(feed.source_for(step, step + 1))
      picture = keep_batch(workdir, experiment, before, source, feed.batch_at)
    except InputError:
      picture = ''
  return f'{workdir}: ' + nonfinite.nonfinite_message(step + count, count, config.seed, bad, picture)


# Before the step ---------------------------------------------------------------------------


def _checkpoint_before(workdir, number: int) -> int:
  """The step of the last whole one that `number` can be reached from."""
  checkpoints = Checkpoints(workdir, read_only=True)
  try:
    kept = checkpoints.steps()
    if not kept and checkpoints.latest() is None:  # it raises where there are, and none is whole
      raise InputError(f'{checkpoints.folder}: no checkpoint in it')
  finally:
    checkpoints.close()
  for step, fault in checkpoints.damaged.items():
    print(f'{checkpoints.folder / str(step)}: damaged ({fault}), passed over')
  if kept[0] >= number:
    raise InputError(f'--step={number}: the first checkpoint of {workdir} is of step {kept[0]}, '
                     f'the first step that can be run again is {kept[0] + 1}')
  return max(step for step in kept if step < number)


def _refuse_unless_its_own(workdir, trained: dict, config) -> None:
  have, want = (metadata.flat({key: tree[key] for key in KEYS if key in tree})
                for tree in (trained, compatibility.as_json(config)))
  for key in want:
    if have.get(key, want[key]) != want[key]:  # a key that is not there is younger than the run
      raise InputError(f'{workdir}: the run has {key}={have[key]!r}, the config {want[key]!r}; a '
                       'step is run again by the config that it was taken by')


def _start_that_took(workdir, number: int) -> tuple[dict, dict]:
  """Of run.json, the start of the run whose step it was, and what later ones changed in the
  config: {key: [then, now]}. ({}, {}) where that is not known.
  """
  starts = metadata.start_records(workdir)
  at = max((index for index, start in enumerate(starts) if start.get('from_step', 0) < number),
           default=None)
  if at is None:
    return {}, {}
  changed = {}
  for start in starts[at + 1:]:
    found = start.get('changed')
    for key, values in found.items() if isinstance(found, dict) else ():
      if isinstance(values, list) and len(values) == 2:
        changed[key] = [changed.get(key, values)[0], values[1]]
  return starts[at], changed


# The step ----------------------------------------------------------------------------------


def _run_again(experiment, feed, state: TrainState, number: int):
  """(phase, Crops, metrics) of step `number`, the steps before it taken as training takes them."""
  step, phase = int(state.step), None
  while True:
    if phase is None or step >= phase.stop:
      phase, state, run = phases.enter_phase(experiment, state, step, feed.batch_at)
    stop = min(step + (feed.max_steps if experiment.device_loop else 1), phase.stop,
               number if step == number - 1 else number - 1)
    source = feed.source_for(step, stop)
    if stop == number:
      if int(state.step) < step:
        raise InputError(f'--step={number}: was never taken; after {experiment.max_bad} steps in a '
                         f'row without finite numbers the run stands still at step '
                         f'{int(state.step)}')
      crops = _crops(experiment, state, source, feed.batch_at)
    state, metrics = run(state, source, experiment.frozen, step, stop)
    step = stop
    if step == number:
      return phase.name, crops, {name: float(value)
                                 for name, value in jax.device_get(metrics).items()}


def _crops(experiment, state: TrainState, source, batch_at: Callable) -> ReplayedBatch:
  generate = functools.partial(train_step.generated, generator=experiment.generator,
                               trainable=experiment.trainable)

  @jax.jit
  def look(state, source):
    batch = batch_at(source, state.seed, state.step)
    return ReplayedBatch(batch['lr'], batch['hr'], generate(state, batch))

  return ReplayedBatch(*(np.asarray(array, np.float32) for array in look(state, source)))


# What is shown -----------------------------------------------------------------------------


def _same(value: float, logged: float | None) -> bool:
  """A number that is none is null in the log."""
  return value == logged if math.isfinite(value) else logged is None


def _describe(title: str, metrics: Mapping[str, float], logged: dict, differing: list) -> list[str]:
  lines = [f'\n{title:22}{"again":>16}' + (f'{"logged":>16}' if logged else '  (not logged)')]
  for name, value in metrics.items():
    then = logged.get(name)
    lines.append(f'  {name:20}{value:16.9g}' + (
        f'{"null" if then is None else format(then, ".9g"):>16}  '
        f'{"differs" if name in differing else "equal"}' if logged else ''))
  if metrics['bad']:
    lines.append(f'not finite: {listed(nonfinite.nonfinite_names(metrics) or nonfinite.root_causes(metrics))}; the '
                 'update was left out')
  return lines


def _describe_crops(crops: ReplayedBatch) -> list[str]:
  """Min, mean and max of each crop's pictures, and whether a sample of one is no number."""
  lines = [f'\n{"crop":>4}' + ''.join(f'  {f"{name} min":>9}{"mean":>9}{"max":>9}'
                                      for name in ReplayedBatch._fields)]
  with np.errstate(all='ignore'):
    for index, pictures in enumerate(zip(*crops, strict=True)):
      lines.append(f'{index:>4}' + ''.join(
          f'  {picture.min():9.4g}{picture.mean():9.4g}{picture.max():9.4g}'
          for picture in pictures))
  return lines


def _write(workdir, number: int, crops: ReplayedBatch) -> pathlib.Path:
  scale = crops.hr.shape[1] // crops.lr.shape[1]
  low = crops.lr.repeat(scale, 1).repeat(scale, 2)
  rows = []
  for pictures in list(zip(low, crops.sr, crops.hr, strict=True))[:SHOWN]:
    # What is no number has no colour: nan is shown black.
    pictures = (images.to_uint8(np.nan_to_num(picture, posinf=1, neginf=0))
                for picture in pictures)
    rows.append(montage.side_by_side([images.as_rgb(picture) for picture in pictures]))
  path = pathlib.Path(workdir) / FOLDER / f'{number}.png'
  images.write_image(path, montage.side_by_side([row.swapaxes(0, 1) for row in rows]).swapaxes(0, 1))
  return path
