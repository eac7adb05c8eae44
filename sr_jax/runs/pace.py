"""Measures how fast a run trains, and how long it will still take."""

import contextlib
import time
from collections.abc import Iterator


class Pace:
  """The speed of a run, without compilation.

  Validations and checkpoints are not part of the training speed; they are part of the time that is
  left, since they come again.
  """

  def __init__(self, step: int) -> None:
    """Begins after `step`, the step that training resumes from."""
    # (time, step) of the last speed, and of the end of the first step of this phase.
    self._last = time.monotonic(), step
    self._phase, self._first = '', (0.0, step)

  def reached(self, step: int, phase: str) -> None:
    """Notes that a step is finished. The first one of each phase is not typical."""
    if phase != self._phase:
      self._phase, self._first = phase, (time.monotonic(), step)

  def steps_per_second(self, step: int) -> float:
    """Returns the speed since the last call, without pauses."""
    now, (last_time, last_step) = time.monotonic(), self._last
    self._last = now, step
    return (step - last_step) / max(now - last_time, 1e-9)

  def seconds_left(self, step: int, steps: int) -> float | None:
    """Returns the time from `step` to `steps`; None before the second step of a phase."""
    first_time, first_step = self._first
    if step <= first_step or not self._phase:
      return None
    return (time.monotonic() - first_time) / (step - first_step) * (steps - step)

  @contextlib.contextmanager
  def pause(self, recurs: bool = True) -> Iterator[None]:
    """Excludes the time of the block from the speed.

    Args:
      recurs: whether it comes again, as validations do; if not, as with compilation, it is not
        part of the time that is left either.
    """
    begin = time.monotonic()
    yield
    seconds = time.monotonic() - begin
    self._last = self._last[0] + seconds, self._last[1]
    if not recurs:
      self._first = self._first[0] + seconds, self._first[1]
