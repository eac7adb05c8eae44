"""What is due at a step of a run: validation, samples, checkpoints, progress images."""

import math
import time
from typing import NamedTuple

from ml_collections import ConfigDict

from sr_jax.runs import progress


class Due(NamedTuple):
  """What is due after a step.

  Attributes:
    overdue: a checkpoint is due because waiting for another call would exceed
      `config.checkpoint_every_seconds`.
  """

  validation: bool
  sample: bool
  checkpoint: bool
  progress: bool
  overdue: bool

  @property
  def by_step(self) -> bool:
    """Whether something is due that depends on the step alone, so in every process."""
    return self.validation or self.sample or self.checkpoint or self.progress


class Schedule:
  """Tells what is due, from the step numbers and from the time since the last checkpoint."""

  def __init__(self, config: ConfigDict) -> None:
    self._log_every = config.log_every
    self._every = {'validation': config.eval.every, 'sample': config.sample_every,
                   'checkpoint': config.checkpoint_every}
    self._progress_steps = set(progress.quarters(config.steps).values())
    self._max_seconds = config.checkpoint_every_seconds or math.inf
    self._save_time = self._call_time = time.monotonic()

  def next_event(self, step: int, phase_stop: int) -> int:
    """Returns the first step after `step` at which the host has something to do."""
    intervals = self._log_every, *self._every.values()
    quarters = (at for at in self._progress_steps if at > step)
    return min(phase_stop, *quarters, *(step - step % every + every for every in intervals))

  def due(self, step: int, phase_stop: int) -> Due:
    """Returns what is due at `step`. Call it once after each call is dispatched; it takes time."""
    now, before = time.monotonic(), self._call_time
    self._call_time = now
    due = {name: step == phase_stop or step % every == 0 for name, every in self._every.items()}
    # The next call will take about as long as the last one.
    overdue = now - self._save_time + (now - before) > self._max_seconds
    return Due(**due, progress=step in self._progress_steps, overdue=overdue)

  def saved(self) -> None:
    """Notes that a checkpoint has just been saved."""
    self._save_time = time.monotonic()

  def resume(self) -> None:
    """Restarts the clock of a call after a pause for validation or saving."""
    self._call_time = time.monotonic()
