"""How a run is stopped by a signal."""

import signal

import jax

from sr_jax.step.state import TrainState
from sr_jax.system import multihost
from sr_jax.system.signals import DeferredSignals


class Stopped(KeyboardInterrupt):
  """A signal ended the run early; everything is saved.

  It is a KeyboardInterrupt, as Ctrl-C raises anywhere in Python, so `except Exception` around a
  training does not go on to the next one.

  Attributes:
    signal: the signal's number.
  """

  def __init__(self, number: int, step: int = 0, steps: int = 0) -> None:
    super().__init__(f'{signal.Signals(number).name} at step {step} of {steps}; the state is '
                     'saved, and the same call resumes the run')
    self.signal = number


class StopVote:
  """Whether a signal asks the run to end, agreed on by all processes.

  Several processes must end at the same step, whichever of them received the signal. They exchange
  one message at a step that is logged, or after validation at a step where something is due. In
  the same message they tell the images that they skipped, so that the first process can log them.
  """

  def __init__(self, signals: DeferredSignals, skipped: list[str]) -> None:
    """Takes the deferred signals of this process and the growing list of its feed."""
    self._signals, self._skipped = signals, skipped
    self._sent: set[str] = set()
    self._several = jax.process_count() > 1

  @property
  def received(self) -> bool:
    """Whether a signal has arrived and no other process needs to agree."""
    return bool(self._signals.caught) and not self._several

  def agreed(self, at_common_step: bool) -> bool:
    """Returns whether the run ends now.

    Args:
      at_common_step: whether every process makes this call at this step with True; several
        processes exchange messages only then.
    """
    if not self._several:
      return bool(self._signals.caught)
    if not at_common_step:
      return False
    # A decoding thread may add lines meanwhile: these are sent the next time.
    lines = [line for line in self._skipped if line not in self._sent]
    answers = multihost.gather([self._signals.caught, lines])
    lines = [line for _, theirs in answers for line in theirs]
    self._sent.update(lines)
    self._skipped.extend(line for line in dict.fromkeys(lines) if line not in self._skipped)
    number = next((number for number, _ in answers if number), 0)
    self._signals.caught = self._signals.caught or number
    return bool(number)

  def raise_if_stopped(self, state: TrainState, steps: int) -> None:
    """Raises Stopped if a signal ended the run before `steps`."""
    if self._signals.caught and int(state.step) < steps:
      raise Stopped(self._signals.caught, int(state.step), steps)
