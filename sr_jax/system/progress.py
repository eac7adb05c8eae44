"""Progress of long jobs: a bar in a terminal, otherwise a line from time to time."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

import tqdm

from sr_jax.system.text import format_seconds

FIRST_SECONDS, SECONDS = 10, 30  # until the first line, and between two lines
BAR_FORMAT = '{desc}{percentage:3.0f}% [{elapsed}, {remaining} left, {rate_fmt}] |{bar}|'
COUNT_FORMAT = '{desc}{n_fmt}/{total_fmt} [{elapsed}, {remaining} left, {rate_fmt}] |{bar}|'


class Progress:
  """The state of a job whose progress is shown; `progress` creates it.

  Attributes:
    name: what is being processed, such as a file.
    total: amount of work; 0 if it is unknown.
    done: finished amount of work.
  """

  def __init__(self, name: str, total: int, unit: str, bar: tqdm.tqdm) -> None:
    self.name, self.total, self.done, self._unit, self._bar = name, total, 0, unit, bar
    self._started = time.monotonic()

  def update(self, done: int) -> None:
    """Sets the finished amount of work."""
    self.done = done
    if not self._bar.disable:
      self._bar.total = self.total or None
      self._bar.set_description(_short(self.name), refresh=False)
      self._bar.update(done - self._bar.n)

  def write(self, line: str) -> None:
    """Prints a line to stdout without breaking the bar."""
    self._bar.write(line)
    sys.stdout.flush()

  def line(self) -> str:
    """Returns the progress in words: 'a.mp4: 25% (30 of 120 frames), 00:40 elapsed, 02:00 left'."""
    elapsed, done = time.monotonic() - self._started, self.done
    amount = f'{_compact(done)} of {_compact(self.total)}' if self.total else _compact(done)
    words = [f'{self.name}: ' + (f'{min(100, 100 * done // self.total)}% ' if self.total else '')
             + f'({amount} {self._unit})', f'{format_seconds(elapsed)} elapsed']
    if 0 < done < self.total:
      words.append(f'{format_seconds(elapsed * (self.total - done) / done)} left')
    return ', '.join(words)


@contextlib.contextmanager
def progress(name: str, total: int, unit: str, shown: bool = True) -> Iterator[Progress]:
  """Shows the progress of the block.

  In a terminal it is a bar on stderr. Without a terminal a thread prints a line to stdout after
  FIRST_SECONDS and then every SECONDS, however long a single step of the job takes.

  Args:
    name: what is being processed; may be changed during the block.
    total: amount of work; 0 if it is unknown.
    unit: of the amount, such as 'frames'.
    shown: whether anything is shown at all.
  """
  pixels = unit == 'pixels'
  with tqdm.tqdm(desc=f'{_short(name)}: ' if name else '', total=total or None,
                 unit='px' if pixels else f' {unit}', unit_scale=pixels,
                 leave=False, disable=None if shown else True, dynamic_ncols=True,
                 bar_format=BAR_FORMAT if pixels else COUNT_FORMAT) as bar:
    state, finished = Progress(name, total, unit, bar), threading.Event()

    def print_lines() -> None:
      wait = FIRST_SECONDS
      while not finished.wait(wait):
        print(state.line(), flush=True)
        wait = SECONDS

    thread = threading.Thread(target=print_lines, daemon=True)
    if bar.disable and shown:
      thread.start()
    try:
      yield state
    finally:
      finished.set()
      if bar.disable and shown:
        thread.join()


def _short(name: str) -> str:
  """Returns the last part of a path, shortened to at most 20 characters."""
  name = name.rpartition('/')[2]
  return name if len(name) <= 20 else f'{name[:9]}..{name[-9:]}'


def _compact(count: int) -> str:
  """Returns a number in digits; a large one in thousands or millions: '12.3M'."""
  return str(count) if count < 10_000 else tqdm.tqdm.format_sizeof(count)
