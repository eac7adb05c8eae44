"""Paths, and files that are written completely or not at all.

Neither a reader nor a crash ever sees half of a file that is written here.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any, TextIO

from sr_jax.errors import InputError

UNFINISHED = '.unfinished-'  # prefix of a file's name while it is being written
MAX_NAME_BYTES = 255  # of a file's name, in the file systems of Linux and macOS


def expand(path: os.PathLike | str) -> pathlib.Path:
  """Returns a path with ~ expanded; the ~ of an unknown user stays part of the name."""
  return pathlib.Path(os.path.expanduser(path))


def cache_folder() -> pathlib.Path:
  """Returns $SR_JAX_CACHE, or the user's own cache folder: ~/.cache/sr_jax."""
  import pooch  # imported late: it is slow, and most commands do not need it
  return expand(os.environ.get('SR_JAX_CACHE') or pooch.os_cache('sr_jax'))


def free_bytes(path: os.PathLike | str) -> int:
  """Returns the free space of the disk that contains `path`, which need not exist."""
  path = pathlib.Path(path).absolute()
  return shutil.disk_usage(next(place for place in (path, *path.parents) if place.exists())).free


def hidden_beside(path: pathlib.Path, ending: str) -> pathlib.Path:
  """Returns '.NAME' + ending beside `path`; a hash replaces a NAME that would make it too long."""
  name = f'.{path.name}{ending}'
  if len(os.fsencode(name)) > MAX_NAME_BYTES:
    name = f'.{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]}{ending}'
  return path.with_name(name)


@contextlib.contextmanager
def atomic_write(path: os.PathLike | str) -> Iterator[pathlib.Path]:
  """Yields an empty temporary file beside `path`, which replaces `path` if the block succeeds.

  Missing folders are created. The temporary file has the suffix of `path`, because some writers
  choose the format by it. It is locked until the block ends, so that `remove_leftovers` of another
  process recognises that it is in use.

  Raises:
    InputError: the file cannot be written.
  """
  path, temporary = expand(path), None
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = _locked_temporary(path)
    with open(handle, 'rb'):
      yield temporary
      temporary.chmod(0o644)  # mkstemp creates a file that only its owner may read
      temporary.replace(path)
  except OSError as error:
    raise InputError(f'{path}: cannot write ({error.strerror or error})') from None
  finally:
    if temporary:
      temporary.unlink(missing_ok=True)


def _locked_temporary(path: pathlib.Path) -> tuple[int, pathlib.Path]:
  """Creates and locks a temporary file beside `path`; returns its descriptor and its path."""
  suffix = path.suffix if len(os.fsencode(path.suffix)) < MAX_NAME_BYTES // 2 else ''
  while True:
    handle, name = tempfile.mkstemp(prefix=UNFINISHED, suffix=suffix, dir=path.parent)
    try:
      fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # `remove_leftovers` of another process is about to delete it
      os.close(handle)
      continue
    except OSError:  # the file system has no locks: `remove_leftovers` leaves the file alone
      return handle, pathlib.Path(name)
    if os.path.exists(name):
      return handle, pathlib.Path(name)
    os.close(handle)


@contextlib.contextmanager
def atomic_folder(path: os.PathLike | str, *, replace: bool = False) -> Iterator[pathlib.Path]:
  """Yields an empty temporary folder beside `path`, which becomes `path` if the block succeeds.

  If the block raises, the temporary folder is deleted, and so are the parents of `path` that were
  created for it. What a killed process leaves beside `path`, `remove_unfinished` deletes.

  Args:
    path: the folder to create; an empty folder there is replaced.
    replace: whether a folder that is not empty is replaced, too.

  Raises:
    OSError: the folder cannot be written, or `path` exists and is not to be replaced.
  """
  path = expand(path)
  created = [parent for parent in path.parents if not parent.exists()]
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=f'{UNFINISHED}{path.name}-', dir=path.parent))
    try:
      (temporary / 'new').mkdir()  # only the owner may read mkdtemp's folder, anybody this one
      yield temporary / 'new'
      if replace and path.is_dir():
        path.rename(temporary / 'old')
      (temporary / 'new').rename(path)
    finally:
      shutil.rmtree(temporary, ignore_errors=True)
  except BaseException:
    for parent in created:
      with contextlib.suppress(OSError):  # another process may have written to it
        parent.rmdir()
    raise


def remove_unfinished(folder: os.PathLike | str) -> None:
  """Deletes the temporary folders that a kill during `atomic_folder(folder)` left behind.

  Only for a process that is known to be the only one that writes the folder.
  """
  folder = pathlib.Path(folder)
  for leftover in folder.parent.glob(f'{UNFINISHED}{folder.name}-*'):
    shutil.rmtree(leftover, ignore_errors=True)


def append(path: os.PathLike | str, data: bytes) -> None:
  """Appends all of `data` to a file, or nothing; creates the file if it does not exist.

  Raises:
    OSError: the file cannot be written; `filename` is its path.
  """
  with open(path, 'ab', buffering=0) as file:
    size = file.tell()
    try:
      while data:  # a disk that is almost full may accept a part
        data = data[file.write(data):]
    except OSError as error:
      file.truncate(size)
      error.filename = str(path)
      raise


def remove_leftovers(folder: os.PathLike | str, *subfolders: str) -> None:
  """Deletes the temporary files that a kill during `atomic_write` left behind.

  Files that a living process writes are locked and stay.

  Args:
    folder: searched without its subfolders.
    subfolders: names of folders in it that are searched with everything below them.
  """
  folder = pathlib.Path(folder)
  for path in (*folder.glob(f'{UNFINISHED}*'), *(
      path for name in subfolders for path in (folder / name).rglob(f'{UNFINISHED}*'))):
    # It is a folder, in use, another user's, or on a file system without locks.
    with contextlib.suppress(OSError), open(path, 'rb') as file:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      path.unlink()


@contextlib.contextmanager
def locked(path: os.PathLike | str, wait: bool = True) -> Iterator[TextIO]:
  """Holds an exclusive lock on the file `path`, which is created if missing and never deleted.

  The operating system releases the lock when the process ends, however it ends.

  Yields:
    The file, open for reading and writing. A process that did not get the lock may read in it
    which process has it.

  Raises:
    BlockingIOError: another process has the lock, and `wait` is false.
    OSError: the file cannot be created, or the file system has no locks.
  """
  with open(path, 'a+', encoding='utf-8') as file:
    fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    yield file


def write_text(path: os.PathLike | str, text: str) -> None:
  """Writes a text file atomically, in UTF-8 whatever the locale; raises as `atomic_write`."""
  with atomic_write(path) as temporary:
    temporary.write_text(text, encoding='utf-8')


def write_json(path: os.PathLike | str, value: Any) -> None:
  """Writes a JSON file atomically; raises as `atomic_write`."""
  write_text(path, json.dumps(value, indent=2) + '\n')
