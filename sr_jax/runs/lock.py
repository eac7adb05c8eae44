"""A lock that admits one training run at a time to a folder."""

import contextlib
import errno
import os
import pathlib
import socket
from collections.abc import Iterator

from sr_jax.errors import InputError
from sr_jax.runs.folder import RunFolder
from sr_jax.system import files


class LockedByOther(InputError):  # noqa: N818, the state of a folder
  """Another run uses the folder."""


class RunLock:
  """An exclusive lock on the folder of a run, which ends with the process.

  If the folder is deleted or renamed, the lock goes with it, and a new folder of the same name may
  belong to another run. Therefore the holder asks `still_held` each time before it writes.
  """

  def __init__(self, workdir: pathlib.Path, stack: contextlib.ExitStack) -> None:
    """Acquires the lock; closing `stack` releases it.

    Raises:
      LockedByOther: another process trains in the folder.
      InputError: the folder cannot be written.
    """
    self._workdir, self._path, self._stack = workdir, RunFolder(workdir).lock, stack
    self._file = self._folder_stat = None
    self.acquire()

  def still_held(self) -> bool:
    """Returns whether the folder and the lock file are still the ones that were locked."""
    try:
      same_folder = os.path.samestat(self._folder_stat, self._workdir.stat())
      return same_folder and (self._file is None or os.path.samestat(
          os.fstat(self._file.fileno()), self._path.stat()))
    except OSError:
      return False

  def acquire(self) -> None:
    """Acquires the lock, or acquires it again after the folder was deleted and recreated.

    Raises:
      LockedByOther: another process trains in the folder, or another run was created in it.
      InputError: the folder cannot be written.
    """
    try:
      file = self._stack.enter_context(files.locked(self._path, wait=False))
      file.truncate(0)
      file.write(f'process {os.getpid()} on {socket.gethostname()}')
      file.flush()
    except BlockingIOError:
      holder = self._path.read_text(errors='replace') or 'another process'
      raise LockedByOther(f'{self._workdir}: {holder} is training in this folder') from None
    except OSError as error:
      if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
        raise InputError(f'{self._path}: cannot write ({error.strerror})') from None
      print(f'{self._path}: this file system does not support locks; make sure that no other '
            'process trains in this folder')
      file = None
    folder_stat = self._workdir.stat()
    if self._folder_stat and not os.path.samestat(folder_stat, self._folder_stat) and (
        RunFolder(self._workdir).config.exists()):
      raise LockedByOther(f'{self._workdir}: the folder was deleted or renamed, and another run '
                          'was started under its name')
    self._file, self._folder_stat = file, folder_stat


@contextlib.contextmanager
def run_lock(workdir: pathlib.Path) -> Iterator[RunLock]:
  """Holds the lock of a run's folder for the block; raises as `RunLock`."""
  with contextlib.ExitStack() as stack:
    yield RunLock(workdir, stack)
