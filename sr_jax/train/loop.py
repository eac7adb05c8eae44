"""The training loop: dispatch a call, report the one before, do what is due."""

from typing import Any

from sr_jax.errors import InputError
from sr_jax.experiment import phases
from sr_jax.experiment.phases import Phase, RunSteps
from sr_jax.step import compilation, nonfinite
from sr_jax.step.compilation import Compiled
from sr_jax.step.state import TrainState
from sr_jax.system import sharding
from sr_jax.train.out_of_memory import explain_oom
from sr_jax.train.reporting import write_report
from sr_jax.train.schedule import Due, Schedule
from sr_jax.train.start import Run
from sr_jax.train.step_log import Call, StepLog
from sr_jax.train.validation import Validator


class Trainer:
  """Trains a run to `config.steps`. The host stays one call ahead of what it reports.

  Attributes:
    step: the last step that was dispatched.
    stalled: {}, or the metrics of the last step if `config.max_bad_steps` non-finite steps in a
      row have stopped the run.
  """

  def __init__(self, run: Run, state: TrainState, printed: int = 0) -> None:
    """Prepares a run that continues from `state`, which is donated to the first call.

    Args:
      printed: the number of lines in `run.feed.skipped` that were printed before.
    """
    self._run, self._state, self._printed = run, state, printed
    self.step = self._begin = int(state.step)
    self.stalled: dict[str, float] = {}
    self._phase: Phase | None = None
    self._run_steps: RunSteps | None = None
    self._compiled: Compiled | None = None
    self._pending: Call | None = None  # dispatched and not yet reported
    self._schedule = Schedule(run.config)
    self._step_log = StepLog(run, state)
    is_best = run.checkpoints.is_best if run.checkpoints else lambda scores: False
    self._validator = Validator(run.config, run.experiment, run.validation, run.log, is_best)

  def train(self) -> TrainState:
    """Takes all steps, or those before a signal or too many non-finite steps; returns the state.

    Raises:
      InputError: the data can't be read on, memory is exhausted, or the last state couldn't be
        saved.
    """
    if self.step == 0:
      with self._run.log.pause():
        self._validator.before_training(self._state)
    # All processes exchange a message here, so that no device waits for the one that validates.
    self._run.stop_vote.agreed(True)
    while self.step < self._run.config.steps:
      self._enter_phase()
      end = self._end_of_next_call()
      try:
        source = self._run.feed.current.source_for(self.step, end)
      except InputError:  # a stream met too many damaged images or lost a worker
        self._save_what_there_is()
        if self._run.stop_vote.received:  # the signal may be what ended the worker
          break
        raise
      # While the device computes this call, the host reports the one before.
      previous, self._pending = self._pending, self._dispatch(source, end)
      if previous and self._has_stalled(previous):
        break
      due = self._schedule.due(self.step, self._phase.stop)
      is_log_step = self.step % self._run.config.log_every == 0
      stopping = self._run.stop_vote.agreed(is_log_step and not due.by_step)
      save_overdue = due.overdue and self._run.checkpoints is not None
      if (stopping or due.by_step or save_overdue) and self._do_what_is_due(due, stopping):
        break
    return self._finish()

  def _enter_phase(self) -> None:
    run = self._run
    if self._phase is None or self.step >= self._phase.stop:
      feed = run.feed.enter(run.experiment.phase_at(self.step), self.step)
      self._phase, self._state, self._run_steps = phases.enter_phase(
          run.experiment, self._state, self.step, feed.batch_at, run.mesh)
      self._compiled = None
      run.log.use_batches_of(self._phase.crops.batch_size)

  def _end_of_next_call(self) -> int:
    """Returns the number of steps that will be done after the next call."""
    run = self._run
    # The first call of a phase takes one step, so that its terms are logged at once.
    if not run.experiment.device_loop or self.step in (self._begin, self._phase.start):
      return self.step + 1
    return min(self._schedule.next_event(self.step, self._phase.stop),
               self.step + run.feed.current.max_steps)

  def _dispatch(self, source: Any, end: int) -> Call:
    """Starts the steps up to `end` and returns without waiting for them."""
    run = self._run
    for line in run.feed.skipped[self._printed:]:
      run.log.say(f'skipped {line}')
      self._printed += 1
    arguments = self._state, source, run.experiment.frozen, self.step, end
    with explain_oom(run.config, run.feed.mode, self._compiled, self._phase.name):
      if self._compiled is None:
        with run.log.pause(recurs=False):
          self._compiled = compilation.compile_step(self._run_steps, *arguments)
        run.log.say(compilation.describe_compilation(self._phase.name, self._compiled))
      self._state, metrics = self._run_steps(*arguments)
    self.step = end
    return Call(end, self._phase, metrics)

  def _has_stalled(self, call: Call) -> bool:
    """Reports a call; returns whether only non-finite steps came and the state stays as it is."""
    self.stalled = self._step_log.report(call, self._state, self._compiled)
    return bool(self.stalled)

  def _do_what_is_due(self, due: Due, stopping: bool) -> bool:
    """Waits for the last call, validates, samples, saves; returns whether the run ends here."""
    run, pending, scores = self._run, self._pending, {}
    if self._has_stalled(pending):
      return True
    self._pending = None
    if run.folder:
      run.folder.ensure()
    with run.log.pause():
      if due.validation:
        scores = self._validator.validate(self.step, self._phase, self._state)
      if due.sample:
        self._validator.sample(self.step, self._state)
      if due.progress:
        self._validator.keep_progress(self.step, self._state)
      stopping = run.stop_vote.agreed(due.by_step) or stopping  # a signal may have come meanwhile
      if run.checkpoints and (stopping or due.checkpoint or due.overdue
                              or run.checkpoints.is_best(scores)):
        self._save(scores)
      if due.validation and not run.validation.is_empty and self.step < run.config.steps:
        write_report(run.log)  # train() writes the last one
    self._schedule.resume()
    return stopping

  def _save(self, scores: dict[str, float] | None = None) -> None:
    if self._run.checkpoints:
      self._run.folder.ensure(recreate=True)
      self._run.checkpoints.save(self._settled_state(), scores or None)
      self._schedule.saved()

  def _settled_state(self) -> TrainState:
    """Returns the state to save: without the non-finite steps at its end.

    A resumed run takes these again, so that they are counted together with those that may follow.
    Where new optimisers begin the counter is reset anyway, and nothing is rewound.
    """
    ends = self._run.experiment.ends_optimisers(self.step)
    state = sharding.local_copy(self._state)
    return state if ends and not self.stalled else nonfinite.rewind(state)

  def _save_what_there_is(self) -> None:
    if self.step > self._begin:
      if self._pending:
        self._step_log.report(self._pending, self._state, self._compiled)
      self._save()
      if self._run.checkpoints:
        self._run.checkpoints.wait()

  def _finish(self) -> TrainState:
    saved = self._run.checkpoints
    if self.stalled:
      self._save()
    if saved:
      saved.wait()
    state = self._settled_state()
    if saved and int(state.step) > self._begin and saved.latest() != int(state.step):
      raise InputError(f'{saved.folder}: cannot save step {int(state.step)} '
                       f'({saved.failure or "deleted or damaged by another process"})')
    return state
