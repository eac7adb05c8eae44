"""Reports the metrics of a training call: progress bar, log, warnings."""

import time
from typing import NamedTuple

import jax

from sr_jax.experiment.phases import Phase
from sr_jax.step import nonfinite
from sr_jax.step.compilation import Compiled
from sr_jax.step.state import Metrics, TrainState
from sr_jax.train.out_of_memory import explain_oom
from sr_jax.train.start import Run


class Call(NamedTuple):
  """A dispatched call of the step, or of a loop of steps on the device.

  Attributes:
    step: the number of its last step.
    phase: the phase that it belongs to.
    metrics: of its last step, still on the device.
  """

  step: int
  phase: Phase
  metrics: Metrics


class StepLog:
  """Reports the calls of a run in order."""

  def __init__(self, run: Run, state: TrainState) -> None:
    self._run, self._begin = run, int(state.step)
    self._skipped, self._saturated = int(state.health.skipped), False

  def report(self, call: Call, state: TrainState, compiled: Compiled | None) -> dict[str, float]:
    """Waits for a call and reports its metrics.

    Args:
      state: of the last call that was dispatched.
      compiled: the step, for the message if memory is exhausted.

    Returns:
      {}, or the metrics if `config.max_bad_steps` non-finite steps in a row have stalled it.
    """
    run, config, phase = self._run, self._run.config, call.phase
    # On a CPU a call that was dispatched fails here.
    with explain_oom(config, run.feed.mode, compiled, phase.name):
      values = {name: float(value) for name, value in jax.device_get(call.metrics).items()}
    stalled = values['bad'] >= config.max_bad_steps
    number = int(state.step) if stalled else call.step  # a loop on the device ends early
    run.log.progress(number, phase.name, values)
    if number == self._begin + 1:
      run.log.say(f'first step after {time.monotonic() - run.started:.1f} s')
    if number in (self._begin + 1, phase.start + 1):
      run.log.say(f'{phase.name} step {number}, weighted terms: ' + ', '.join(
          f'{name} {value:.4g}' for name, value in values.items()
          if name.startswith('g/') and name not in ('g/grad_norm', 'g/ema_distance')))
    if number == 1 or number % config.log_every == 0 or number == config.steps:
      if run.folder:
        run.folder.ensure()
      rates = {f'learning_rate/{net}': float(schedule(number - 1 - phase.since))
               for net, schedule in phase.schedules.items()}
      run.log.scalars(number, phase.name, values | rates)
    self._report_skipped(number, values)
    self._warn_if_saturated(number, values)
    return values if stalled else {}

  def _report_skipped(self, number: int, values: dict[str, float]) -> None:
    if values['skipped'] <= self._skipped:
      return
    count = int(values['skipped'] - self._skipped)
    self._run.log.say(
        f'step {number}: {count} more non-finite (NaN/Inf) update{"s" * (count > 1)} skipped'
        + (f' ({", ".join(nonfinite.root_causes(values))})' if values['bad'] else '')
        + f'; {values["skipped"]:.0f} in all')
    self._skipped = values['skipped']

  def _warn_if_saturated(self, number: int, values: dict[str, float]) -> None:
    before = self._saturated
    self._saturated = 0 < self._run.config.saturated_steps <= values.get('d/saturated', 0)
    if self._saturated and not before:
      self._run.log.say(nonfinite.saturation_warning(number, int(values['d/saturated'])))
