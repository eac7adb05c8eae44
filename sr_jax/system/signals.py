"""Defers Ctrl-C, SIGTERM and SIGHUP until work that must not be interrupted is done."""

import contextlib
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator
from typing import Self

_watched = False  # whether `exit_on_second_signal` acknowledges signals

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DeferredSignals:
  """A context that records the first signal of ENDING instead of being interrupted by it.

  The owner of the block reads `caught` and ends at the next opportunity. A line on stderr says so.
  A second signal raises KeyboardInterrupt. A SIGHUP that is ignored (nohup) stays ignored. Outside
  the main thread, where Python cannot set handlers, nothing is deferred.

  Attributes:
    caught: number of the signal that arrived; 0 if none did.
  """

  def __init__(self) -> None:
    self.caught = 0
    self._previous_handlers = {}

  def _record_signal(self, number: int, frame: types.FrameType | None) -> None:
    """Handles a signal: records the first one and raises KeyboardInterrupt for the second."""
    if self.caught:
      signal.default_int_handler(number, frame)
    self.caught = number
    if not _watched:
      _acknowledge(number)

  def __enter__(self) -> Self:
    self._previous_handlers = {}
    with contextlib.suppress(ValueError):  # not the main thread
      for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN or number != signal.SIGHUP:
          self._previous_handlers[number] = signal.signal(number, self._record_signal)
    return self

  def __exit__(self, *_: object) -> None:
    for number, handler in self._previous_handlers.items():
      signal.signal(number, handler)


@contextlib.contextmanager
def exit_on_second_signal() -> Iterator[None]:
  """Ends the process at once when a second signal of ENDING arrives inside the block.

  The first one, if it is deferred, is acknowledged by a line on stderr.

  A Python signal handler runs only between bytecodes, and not while XLA compiles, which may take
  minutes. Here a thread reads the numbers that the C handler writes to the wakeup pipe on arrival.
  For command lines, from their main thread.
  """
  global _watched
  read_end, write_end = os.pipe()
  os.set_blocking(write_end, False)
  previous = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
  thread = threading.Thread(target=_watch_pipe, args=(read_end,), daemon=True)
  thread.start()
  _watched = True
  try:
    yield
  finally:
    _watched = False
    signal.set_wakeup_fd(previous)
    os.close(write_end)
    thread.join()
    os.close(read_end)


def _watch_pipe(read_end: int) -> None:
  """Reads signal numbers from the wakeup pipe until its other end is closed."""
  first_arrived = False
  while data := os.read(read_end, 1):
    number = data[0]
    if number not in ENDING:
      continue
    if first_arrived:
      os._exit(128 + number)
    first_arrived = True
    if isinstance(getattr(signal.getsignal(number), '__self__', None), DeferredSignals):
      _acknowledge(number)


def _acknowledge(number: int) -> None:
  """Says on stderr that a signal has arrived."""
  # The terminal was closed, or the signal arrived while a line was being written.
  with contextlib.suppress(OSError, RuntimeError):
    print(f'\nsr_jax: {signal.Signals(number).name}: finishing the work in progress and saving '
          'it; a second signal exits at once', file=sys.stderr, flush=True)
