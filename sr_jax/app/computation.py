"""Runs one computation at a time in a thread, and estimates how long it still takes."""

import ctypes
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Value = TypeVar('Value')
_WORKER = ThreadPoolExecutor(1)  # one: a second image would halve the speed and double the memory


class Computation:
  """One computation in the thread, and how far it is.

  Attributes:
    fraction: the part that is done, from 0 to 1.
    started: whether the computation runs; before, it waits for another one.
    stopped: whether the computation should end; see `stop`.
  """

  def __init__(self, expected_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
    self.fraction, self.started, self.stopped = 0.0, False, False
    self._expected, self._clock, self._start = expected_seconds, clock, clock()
    self._first: tuple[float, float] | None = None  # time and fraction of the first update
    self._thread, self._lock = 0, threading.Lock()  # the thread that computes, 0 if none does

  def run(self, work: Callable[[Callable[[float], None]], Value]) -> Value:
    """Starts the clock and returns work(self.update).

    Raises:
      StoppedError: the computation was stopped.
    """
    self.started, self._start = True, self._clock()
    self._thread = threading.get_ident()
    try:
      self.update(0.0)
      return work(self.update)
    finally:
      with self._lock:
        self._thread = 0

  def stop(self) -> None:
    """Ends the computation: at its next update, or when XLA has computed the current program.

    A program that runs cannot be interrupted, but CPython raises an exception in the thread when
    it is back in Python. Between two updates of a large image there may be an hour of programs.
    """
    self.stopped = True
    with self._lock:  # the thread must not begin the next computation in between
      if self._thread:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread),
                                                   ctypes.py_object(StoppedError))

  def update(self, fraction: float) -> None:
    """Records the part that is done.

    Raises:
      StoppedError: the computation should end.
    """
    if self.stopped:
      raise StoppedError
    self.fraction = fraction
    if fraction and self._first is None:
      self._first = self._clock(), fraction

  def elapsed_seconds(self) -> float:
    """Returns the seconds since the start."""
    return self._clock() - self._start

  def seconds_left(self) -> float:
    """Returns about how many seconds are left; 0 if that is unknown.

    From the second update on, the rate since the first one counts: until the first, most of a
    network runs on the whole image, and afterwards only its last layers.
    """
    if self._first and self.fraction > self._first[1]:
      seconds, fraction = self._clock() - self._first[0], self.fraction - self._first[1]
      return (1 - self.fraction) * seconds / fraction
    return max(0.0, self._expected - self.elapsed_seconds())


class StoppedError(Exception):
  """The computation was stopped before its end."""


def start(work: Callable[[Callable[[float], None]], Value], computation: Computation
          ) -> Future[Value]:
  """Starts work(computation.update) in a thread, after those that were started earlier."""
  return _WORKER.submit(computation.run, work)


def approximate(seconds: float) -> str:
  """Returns a duration in one unit, such as '40 s', '12 min' or '2.5 h'."""
  if seconds < 90:
    return f'{max(1, round(seconds))} s'
  return f'{seconds / 60:.0f} min' if seconds < 5400 else f'{seconds / 3600:.1f} h'
