"""Ctrl-C, SIGTERM and a closed terminal, held back until what must not be cut in two is done."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DeferredSignals:
  """Notes a signal that should end the process as `.caught`, 0 or its number, for the block's
  owner to see.

  The second one is not held back. A SIGHUP that is ignored (nohup) stays so. Outside the main
  thread nothing is held: whoever owns it decides.
  """

  def __init__(self):
    self.caught = 0

  def note(self, number, frame):
    if self.caught:
      signal.default_int_handler(number, frame)
    self.caught = number

  def __enter__(self):
    self._old = {}
    with contextlib.suppress(ValueError):  # not the main thread
      for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN or number != signal.SIGHUP:
          self._old[number] = signal.signal(number, self.note)
    return self

  def __exit__(self, *_):
    for number, handler in self._old.items():
      signal.signal(number, handler)


@contextlib.contextmanager
def exit_on_second_signal() -> Iterator[None]:
  """Inside, a second signal of ENDING ends the process at once; the first, where it is held, is
  answered by a line.

  A Python handler waits for the interpreter, which waits for XLA while that compiles, maybe
  for minutes. Here a thread reads the numbers, which C writes down as they come. For command
  lines, from their main thread: it ends the whole process.
  """
  read, write = os.pipe()
  os.set_blocking(write, False)
  before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
  thread = threading.Thread(target=_watch, args=(read,), daemon=True)
  thread.start()
  try:
    yield
  finally:
    signal.set_wakeup_fd(before)
    os.close(write)
    thread.join()
    os.close(read)


def _watch(read: int) -> None:
  caught = False
  while number := os.read(read, 1):
    number = number[0]
    if number not in ENDING:
      continue
    if caught:
      os._exit(128 + number)
    caught = True
    if isinstance(getattr(signal.getsignal(number), '__self__', None), DeferredSignals):
      with contextlib.suppress(OSError):  # a closed terminal
        print(f'\nsr_jax: {signal.Signals(number).name}: what is in hand is finished and saved; '
              'a second one ends it at once', file=sys.stderr, flush=True)
