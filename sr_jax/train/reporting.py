"""Writes the HTML report of a run while it trains."""

from sr_jax.errors import brief
from sr_jax.report import page
from sr_jax.runs.folder import RunFolder
from sr_jax.runs.lock import LockedByOther
from sr_jax.runs.logs import Logs
from sr_jax.system import memory


def write_report(log: Logs) -> None:
  """Writes report.html of the run that `log` belongs to; training continues if that fails.

  Raises:
    LockedByOther: the folder belongs to another run by now.
  """
  path = RunFolder(log.workdir).report
  try:
    with log.trying(path):
      page.write([log.workdir])
  except LockedByOther:
    raise
  except Exception as error:
    log.say(f'{path}: {type(error).__name__}: {brief(error, 200)}; training continues')
  memory.release_free_memory()  # a report takes megabytes
