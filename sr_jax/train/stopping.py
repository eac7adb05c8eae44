"""How a run is stopped."""

import signal

from sr_jax.step.state import TrainState


class Stopped(Exception):  # noqa: N818, it is no error
  """A signal ended the run early; everything is saved. `.signal` is its number."""

  def __init__(self, number: int):
    super().__init__(signal.Signals(number).name)
    self.signal = number


def _unless_stopped(config, state: TrainState, held) -> TrainState:
  if held.caught and int(state.step) < config.steps:
    raise Stopped(held.caught)
  return state
