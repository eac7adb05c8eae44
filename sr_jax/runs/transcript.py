"""The lines that training prints, each with its date and time, for the terminal and for a file."""

import contextlib
import datetime
import sys
from collections.abc import Callable


class Transcript:
  """Prints lines with the local date and time, and collects them for the log file of a run."""

  def __init__(self, first_line: Callable[[], str] = str) -> None:
    """Creates a transcript.

    Args:
      first_line: returns a line that precedes all others; it is called when there is another one,
        so that a start that is refused prints nothing.
    """
    self._first_line: Callable[[], str] | None = first_line
    self._collected: list[str] = []

  def say(self, text: str, write: Callable[[str], None] = print) -> None:
    """Prints the lines of `text` and collects them; continues if the terminal was closed.

    Args:
      write: prints a line, for example above a progress bar.
    """
    for line in self.note(text):
      with contextlib.suppress(OSError):
        write(line)
        sys.stdout.flush()

  def note(self, text: str) -> list[str]:
    """Collects the lines of `text` without printing them; returns them with date and time."""
    if self._first_line:
      first, self._first_line = self._first_line(), None
      text = f'{first}\n{text}' if first else text
    now = f'{datetime.datetime.now():%Y-%m-%d %H:%M:%S}'
    lines = [f'{now} {line}'.rstrip() for line in text.splitlines()]
    self._collected += lines
    return lines

  def take(self) -> bytes:
    """Returns the lines that were collected since the last call."""
    lines, self._collected = self._collected, []
    return ''.join(f'{line}\n' for line in lines).encode(errors='replace')
