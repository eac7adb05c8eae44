"""Trains a run from its start to its end."""

import contextlib
import datetime
import functools
import os
import pathlib
import types

import jax
from ml_collections import ConfigDict

from sr_jax import images
from sr_jax.errors import InputError, brief
from sr_jax.experiment import compatibility
from sr_jax.experiment.check import check_given
from sr_jax.runs import metadata
from sr_jax.runs.lock import LockedByOther
from sr_jax.runs.logs import Logs, NullLogs
from sr_jax.step import nonfinite
from sr_jax.step.state import TrainState
from sr_jax.system import files, multihost
from sr_jax.system.signals import DeferredSignals
from sr_jax.train import announce, overfitting, record, replay
from sr_jax.train.loop import Trainer
from sr_jax.train.previous import finished_state, read_previous
from sr_jax.train.start import Origin, Run, open_run
from sr_jax.train.stopping import Stopped


def train(config: ConfigDict, workdir: os.PathLike | str, resume: bool = False) -> TrainState:
  """Trains as config says, or resumes the run in `workdir`.

    config = sr_jax.get_config('srgan:sample')
    config.data.source, config.steps = 'folder:photos', 2000
    state = sr_jax.train.train(config, 'runs/srgan')

  The log is printed, line by line or as a bar in a terminal. What was trained is best read by
  `sr_jax.load(workdir)`.

  A run that is finished is left as it is. With a changed config it is refused, unless the number of
  steps was raised: then the run continues.

  Writes config.json, run.json, metrics.jsonl, train.log, tensorboard/, samples/, progress/,
  report.html and checkpoints/ to workdir, which is locked meanwhile. Ctrl-C (the stop button of a
  notebook), SIGTERM and SIGHUP end the run after the call in flight, with everything saved; a
  second signal ends it at once. In a thread other than the main one signals are not handled. A call
  is one step, or with `config.device_loop` the steps up to the next log, validation or
  checkpoint. Several processes end together at the next step that is logged or validated.

  Each of several processes (sr_jax/system/multihost.py) calls this function; only the first
  one uses workdir.

  Args:
    config: of `sr_jax.get_config`, or `base_config.defaults()` with the changes of an experiment.
      It may be changed freely before; it is checked here, and is not modified.
    workdir: folder of the run; it is created if necessary.
    resume: whether to resume a run although settings that its result depends on have changed
      (docs/config.md says which); without it, the changed keys are named and refused.

  Returns:
    The last state: `step.variables(state.ema)` are the generator's averaged weights, `state.g` has
    its weights, `state.step` is the number of steps.

  Raises:
    InputError: anything that the user can put right; all invalid keys of the config are named.
    Stopped: a signal ended the run; the state is saved. It is a KeyboardInterrupt.
  """
  began, workdir = datetime.datetime.now(datetime.UTC), files.expand(workdir)
  with contextlib.ExitStack() as stack:
    config = check_given(config, 'train')
    # Compared before the devices of one process wait for those of another with another program.
    multihost.refuse_different(
        metadata.flat({'config': compatibility.as_json(config)}) | {'JAX': jax.__version__})
    previous = read_previous(config, workdir, stack)
    if previous.finished:
      state = finished_state(config, workdir, previous)
      _refuse_untrained(workdir, state)
      return state
    signals = DeferredSignals()
    run, origin, state = open_run(config, workdir, previous, resume, stack, signals)
    stack.push(functools.partial(_note_failure, run.log))
    if run.folder is None:  # another process logs, validates and saves
      with signals:
        state = Trainer(run, state).train()
    else:
      state = _train_and_record(run, origin, state, signals, began)
    run.stop_vote.raise_if_stopped(state, run.config.steps)
    _refuse_untrained(workdir, state)
  return state


def _note_failure(log: Logs | NullLogs, kind: type[BaseException] | None,
                  error: BaseException | None, _: types.TracebackType | None) -> None:
  """Appends to train.log why a run ends early; the caller prints it."""
  if error and not isinstance(error, (Stopped, LockedByOther)):
    name = '' if isinstance(error, InputError) else f'{kind.__name__}: '
    log.note(f'error: {name}{brief(error)}')


def _train_and_record(run: Run, origin: Origin, state: TrainState, signals: DeferredSignals,
                      began: datetime.datetime) -> TrainState:
  workdir: pathlib.Path = run.folder.workdir
  changed = (metadata.differences(origin.config, compatibility.as_json(run.config))
             if origin.resumed else {})
  environment = metadata.environment(run.experiment.device_loop, run.mesh)
  if origin.resumed and origin.step == origin.config.get('steps'):
    run.log.say(f'{workdir}: this run had finished at step {origin.step} and is continued to step '
                f'{run.config.steps}')
  printed = announce.before_training(run, origin, state, changed, environment)
  with record.start_record(run, origin, state, environment, changed, began) as entry:
    with signals:
      trainer = Trainer(run, state, printed)
      state = trainer.train()
    if trainer.stalled:
      entry['bad_steps'] = int(trainer.stalled['bad'])
  if trainer.stalled:
    raise InputError(replay.stop_message(run, state, trainer.stalled))
  if int(state.step) == run.config.steps:
    baseline = images.baseline_name('bicubic', run.config.scale)
    for lines in (announce.validation_tables(workdir, baseline),
                  overfitting.term_lines(workdir, run.validation.crops)):
      run.log.say('\n'.join(lines))
  run.log.say(announce.final_line(run, int(state.step), entry, int(state.health.skipped)))
  return state


def _refuse_untrained(workdir: pathlib.Path, state: TrainState) -> None:
  """Raises InputError if a finished run has skipped every update."""
  if int(state.health.skipped) == int(state.step) > 0:
    raise InputError(f'{workdir}: {nonfinite.untrained_message(int(state.step))}')
