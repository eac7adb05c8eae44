"""What is due at a step of a run: validation, samples, checkpoints, progress images."""

import math
import time
from typing import NamedTuple

from ml_collections import ConfigDict

from sr_jax.runs import progress


class Due(NamedTuple):
  """What is due after a step.

  Attributes:
    overdue: a checkpoint is due because `config.checkpoint_every_seconds` would pass otherwise.
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
    self._config = config
    self._progress_steps = set(progress.quarters(config.steps).values())
    self._saved = self._last = time.monotonic()

  def next_event(self, step: int, phase_stop: int) -> int:
    """Returns the first step after `step` at which the host has something to do."""
    config = self._config
    every = config.log_every, config.sample_every, config.checkpoint_every, config.eval.every
    quarters = (at for at in self._progress_steps if at > step)
    return min(phase_stop, *quarters, *(step - step % interval + interval for interval in every))

  def due(self, step: int, phase_stop: int) -> Due:
    """Returns what is due at `step`, which has just been dispatched. Call it once a step."""
    config = self._config
    now, before = time.monotonic(), self._last
    self._last = now
    last = step == phase_stop
    validation, sample, checkpoint = (last or step % every == 0 for every in (
        config.eval.every, config.sample_every, config.checkpoint_every))
    # The next call will take about as long as the last one.
    overdue = now - self._saved + (now - before) > (config.checkpoint_every_seconds or math.inf)
    return Due(validation, sample, checkpoint, step in self._progress_steps, overdue)

  def saved(self) -> None:
    """Notes that a checkpoint has just been saved."""
    self._saved = time.monotonic()

  def resume(self) -> None:
    """Restarts the clock of a call after a pause for validation or saving."""
    self._last = time.monotonic()
