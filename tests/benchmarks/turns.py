"""Times several programs that do the same, in turns, so that a busy machine slows all of them."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

MIN_ROUNDS, MAX_ROUNDS = 5, 500

Run = Callable[[], Any]  # starts a call of several steps and returns its result


class Measured(NamedTuple):
  """What a task took.

  Attributes:
    described: the size of its batch or image.
    count: steps or forward passes in each call.
    first: seconds of the first call of each variant, which compiles.
    durations: seconds of the later calls of each variant, as many of each; [] of one that failed.
    failures: a line on each variant that failed.
  """

  described: str
  count: int
  first: dict[str, float]
  durations: dict[str, list[float]]
  failures: dict[str, str]

  def quartiles(self) -> dict[str, dict[str, list[float]]]:
    """Returns {variant: {'ms': of a step, 'ratio': of the duration to that of sr_jax}}.

    Each is [lower quartile, median, upper quartile]; a variant that failed is missing.
    """
    ours = np.array(self.durations['sr_jax'])
    def found(values: np.ndarray) -> list[float]:
      return np.percentile(values, (25, 50, 75)).tolist()
    return {name: {'ms': found(1e3 * np.array(seconds) / self.count),
                   'ratio': found(np.array(seconds) / ours)}
            for name, seconds in self.durations.items() if seconds}


def timed(run: Run, wait: Callable[[Any], None]) -> float:
  start = time.perf_counter()
  wait(run())
  return time.perf_counter() - start


def take_turns(runs: dict[str, Run], seconds: float, synchronize: Callable[[], None],
               described: str = '', count: int = 1) -> Measured:
  """Times every call; the runs take turns, in reversed order each time.

  Args:
    seconds: approximate duration of all turns.
    synchronize: waits for the results of PyTorch.
    described, count: of `Measured`.
  """
  def wait(result: Any) -> None:
    jax.block_until_ready(result)  # does nothing to PyTorch's tensors
    synchronize()

  first, failures = {}, {}
  for name, run in list(runs.items()):
    try:
      first[name] = timed(run, wait)
      timed(run, wait)
    except Exception as error:  # torch.compile raises many types
      if name != 'compile':
        raise
      failures[name] = f'{type(error).__name__}: {str(error).strip().splitlines()[0]}'
  durations = {name: [] for name in runs}
  working = [name for name in runs if name not in failures]
  start, rounds = time.perf_counter(), 0
  while rounds < MIN_ROUNDS or (time.perf_counter() - start < seconds and rounds < MAX_ROUNDS):
    for name in working[::1 if rounds % 2 else -1]:
      durations[name].append(timed(runs[name], wait))
    rounds += 1
  last = runs['sr_jax']()
  if isinstance(last, dict) and float(last['skipped']):  # a skipped step may take less time
    raise SystemExit(f'{float(last["skipped"]):.0f} steps of sr_jax were non-finite (NaN/Inf)')
  return Measured(described, count, first, durations, failures)
