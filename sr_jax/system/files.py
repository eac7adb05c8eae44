"""Writes files whole or not at all, so that neither a reader nor a crash leaves half of one."""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import TextIO

from sr_jax.errors import InputError


def expand(path) -> pathlib.Path:
  """A path with the ~ of a known user written out; of an unknown one it stays a name."""
  return pathlib.Path(os.path.expanduser(path))


def cache_folder() -> pathlib.Path:
  """$SR_JAX_CACHE, or the user's own: ~/.cache/sr_jax."""
  import pooch  # late: it is slow, and most commands have no use for it
  return expand(os.environ.get('SR_JAX_CACHE') or pooch.os_cache('sr_jax'))


def free_bytes(path) -> int:
  """Of the disk that `path` lies on or would lie on."""
  path = pathlib.Path(path).absolute()
  return shutil.disk_usage(next(place for place in (path, *path.parents) if place.exists())).free


UNFINISHED = '.unfinished-'  # what the name of a file begins with until it is whole


@contextlib.contextmanager
def atomic_write(path) -> Iterator[pathlib.Path]:
  """Yields an empty file beside `path`, which takes its place if the block succeeds.

  The folder is made where there is none. The file keeps the suffix, by which some writers
  choose a format.

  Raises:
    InputError: it can not be written.
  """
  path, temporary = expand(path), None
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=UNFINISHED, suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = pathlib.Path(name)
    yield temporary
    temporary.chmod(0o644)  # mkstemp's are for the owner alone
    temporary.replace(path)
  except OSError as error:
    raise InputError(f'{path}: can not be written ({error.strerror or error})') from None
  finally:
    if temporary:
      temporary.unlink(missing_ok=True)


def append(path, data: bytes) -> None:
  """Adds data to the end of a file, all of it or none; the file is made where there is none.

  Raises:
    OSError: it can not be written.
  """
  with open(path, 'ab', buffering=0) as file:
    size = file.tell()
    try:
      while data:  # the disk may have room for a part
        data = data[file.write(data):]
    except OSError as error:
      file.truncate(size)
      error.filename = str(path)
      raise


def remove_leftovers(folder, *below: str) -> None:
  """Removes what `replacing` was writing into `folder`, or below those in it, at a kill.

  For who is alone at work there.
  """
  folder = pathlib.Path(folder)
  for path in (*folder.glob(f'{UNFINISHED}*'),
               *(path for name in below for path in (folder / name).rglob(f'{UNFINISHED}*'))):
    with contextlib.suppress(OSError):
      path.unlink()


@contextlib.contextmanager
def locked(path, wait: bool = True) -> Iterator[TextIO]:
  """Alone, of all that lock the file `path`; made where there is none, and left there.

  The lock is gone with the process that holds it, however it ends.

  Yields:
    the file, open for reading and writing: whoever waits in vain may read who is at work.

  Raises:
    BlockingIOError: another process has it, and `wait` is false.
    OSError: it can not be made, or the file system has no locks.
  """
  with open(path, 'a+', encoding='utf-8') as file:
    fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    yield file


def write_text(path, text: str) -> None:
  """UTF-8, whatever the locale."""
  with atomic_write(path) as temporary:
    temporary.write_text(text, encoding='utf-8')


def write_json(path, value) -> None:
  write_text(path, json.dumps(value, indent=2) + '\n')
