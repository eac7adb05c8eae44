"""One run at a time in a folder."""

import contextlib
import errno
import os
import socket
from collections.abc import Iterator

from sr_jax.errors import InputError
from sr_jax.system import files


class LockedByOther(InputError):  # noqa: N818, it is no fault
  """Another run has the folder."""


class RunLock:
  """What keeps other runs out of a folder, by a lock that ends with the process.

  Deleted or renamed, the folder takes the lock with it, and one of its name may be another run's:
  `is_ours` tells before each time that something is written.
  """

  def __init__(self, workdir, stack: contextlib.ExitStack):
    """Takes the folder; `stack` gives it free.

    Raises:
      Taken: another process trains there.
      InputError: nothing can be written.
    """
    self._workdir, self._stack = workdir, stack
    self._file = self._folder = None
    self.acquire()

  def still_held(self) -> bool:
    try:
      same = os.path.samestat(self._folder, self._workdir.stat())
      return same and (self._file is None or os.path.samestat(
          os.fstat(self._file.fileno()), (self._workdir / '.lock').stat()))
    except OSError:
      return False

  def acquire(self) -> None:
    """As at first; again where it is not ours any more, and is there.

    Raises:
      Taken, InputError: as at first; or another run has begun there and ended.
    """
    path = self._workdir / '.lock'
    try:
      file = self._stack.enter_context(files.locked(path, wait=False))
      file.truncate(0)
      file.write(f'process {os.getpid()} on {socket.gethostname()}')
      file.flush()
    except BlockingIOError:
      who = path.read_text(errors='replace') or 'another process'
      raise LockedByOther(f'{self._workdir}: {who} trains there') from None
    except OSError as error:
      if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
        raise InputError(f'{path}: can not be written ({error.strerror})') from None
      print(f'{path}: this file system has no locks; see that nothing else trains there')
      file = None
    folder = self._workdir.stat()
    if self._folder and not os.path.samestat(folder, self._folder) and (
        self._workdir / 'config.json').exists():
      raise LockedByOther(f'{self._workdir}: was deleted or renamed, and another run has begun there')
    self._file, self._folder = file, folder


@contextlib.contextmanager
def run_lock(workdir) -> Iterator[RunLock]:
  """Alone in training in `workdir`; raises as `Hold`."""
  with contextlib.ExitStack() as stack:
    yield RunLock(workdir, stack)
