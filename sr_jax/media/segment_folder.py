"""The hidden folder beside a video in which its segments are made.

A process locks it, so that two calls do not write one video, and records in it what the segments
depend on, so that a later call uses only those of the same job.
"""

import contextlib
import errno
import itertools
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from sr_jax.errors import InputError, listed
from sr_jax.system import files

_LOCK = 'lock'


def lock(folder: pathlib.Path, target: pathlib.Path, stack: contextlib.ExitStack) -> None:
  """Creates the folder for segments and locks it until `stack` is closed.

  Raises:
    InputError: another process has the lock, or the folder cannot be written.
  """
  try:
    while True:
      folder.mkdir(parents=True, exist_ok=True)
      with contextlib.ExitStack() as attempt:
        file = attempt.enter_context(files.locked(folder / _LOCK, wait=False))
        # The previous holder may have finished and deleted the folder in the meantime.
        if (folder / _LOCK).exists() and os.path.samestat(os.fstat(file.fileno()),
                                                          (folder / _LOCK).stat()):
          stack.enter_context(attempt.pop_all())
          return
  except BlockingIOError:
    raise InputError(f'{target}: another process is upscaling a video to this file; wait until it '
                     'has finished, or choose another --output') from None
  except OSError as error:
    if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # the file system has no locks
      raise InputError(f'{target}: cannot write ({error.strerror or error})') from None


@contextlib.contextmanager
def removed_if_empty(folder: pathlib.Path) -> Iterator[None]:
  """Deletes the folder if its block is refused before there is a segment to resume from."""
  try:
    yield
  except (InputError, MemoryError):
    if not any(folder.glob('*.mp4')):
      shutil.rmtree(folder, ignore_errors=True)
    raise


def prepare(folder: pathlib.Path, target: pathlib.Path, job: dict[str, Any]) -> str:
  """Clears the folder for segments if it belongs to a different job.

  Returns:
    What differs from that job, or ''.

  Raises:
    InputError: the folder cannot be written.
  """
  job_file = folder / 'job.json'
  try:
    previous = json.loads(job_file.read_text(encoding='utf-8')) if job_file.exists() else {}
  except (OSError, ValueError):
    previous = {}
  try:
    # Remove what a killed call left, or everything.
    patterns = ('.*', 'whole.*') if previous == job else ('*',)
    for leftover in itertools.chain.from_iterable(map(folder.glob, patterns)):
      if leftover.name != _LOCK:
        leftover.unlink()
    if previous != job:
      files.write_json(job_file, job)
  except OSError as error:
    raise InputError(f'{target}: cannot write ({error.strerror or error})') from None
  return listed(['video' if key == 'clip' else key for key in job
                 if key in previous and previous[key] != job[key]])
