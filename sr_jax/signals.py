"""Ctrl-C and SIGTERM, held back until what must not be cut in two is done."""

import contextlib
import signal


class Held:
  """Notes SIGINT and SIGTERM as `.caught`, 0 or the number, for the block's owner to see.

  The second one is not held back. Outside the main thread nothing is held: whoever owns it
  decides.
  """

  def __init__(self):
    self.caught = 0

  def _note(self, number, frame):
    if self.caught:
      signal.default_int_handler(number, frame)
    self.caught = number

  def __enter__(self):
    self._old = {}
    with contextlib.suppress(ValueError):  # not the main thread
      for number in (signal.SIGINT, signal.SIGTERM):
        self._old[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *_):
    for number, handler in self._old.items():
      signal.signal(number, handler)
