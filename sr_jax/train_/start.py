"""A run's first state: fresh, resumed, or from other weights."""

from sr_jax.runs.checkpoints import Checkpoints
from sr_jax.runs.metadata import run_config


def stopped_at(workdir) -> tuple[int | None, dict]:
  """(latest step, config.json) of a run that is there to go on with; or (None, {}).

  A damaged checkpoint is passed over, and a line says so.

  Raises:
    InputError: there are checkpoints and none is whole; or no config.json beside them.
  """
  checkpoints = Checkpoints(workdir, read_only=True)
  try:
    latest = checkpoints.latest()
  finally:
    checkpoints.close()
  return latest, {} if latest is None else run_config(workdir)
