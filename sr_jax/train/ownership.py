"""Keeps the folder of a run this run's own while it trains."""

import pathlib
from typing import Any

from sr_jax.runs.folder import RunFolder
from sr_jax.runs.lock import RunLock
from sr_jax.runs.logs import Logs
from sr_jax.system import files


class OwnedFolder:
  """The locked folder of a run that trains.

  A folder can be deleted, renamed or unmounted while a run trains, and another run may begin in a
  folder of the same name.

  Attributes:
    workdir: the folder.
    paths: of the files in it.
    lock: held while the run trains.
  """

  def __init__(self, workdir: pathlib.Path, lock: RunLock, config: dict[str, Any],
               log: Logs) -> None:
    """Takes over a locked folder; `config` is what config.json holds."""
    self.workdir, self.paths, self.lock = workdir, RunFolder(workdir), lock
    self._config, self._log = config, log

  def ensure(self, recreate: bool = False) -> None:
    """Re-acquires the lock and writes config.json again where the folder was replaced.

    Args:
      recreate: makes the folder again if it does not exist.

    Raises:
      LockedByOther: another run has begun in a folder of this name.
    """
    complete = self.paths.config.exists()  # a folder without it is not read as a run
    if (complete and self.lock.still_held()) or not (recreate or self.workdir.exists()):
      return
    with self._log.trying(self.paths.config):
      self.workdir.mkdir(parents=True, exist_ok=True)
      if not self.lock.still_held():
        self.lock.acquire()
      self._log.adopt_folder()
      if not complete:
        files.write_json(self.paths.config, self._config)
        self._log.say(f'{self.workdir}: the files of this run were deleted; training continues '
                      'and writes new files there')
