"""This start's entry in run.json."""

import contextlib
import datetime
from collections.abc import Iterator
from typing import Any

from sr_jax.experiment import compatibility
from sr_jax.runs import metadata
from sr_jax.runs.lock import LockedByOther
from sr_jax.step.state import TrainState
from sr_jax.system import files
from sr_jax.train.reporting import write_report
from sr_jax.train.start import Origin, Run


@contextlib.contextmanager
def start_record(run: Run, origin: Origin, state: TrainState, environment: dict[str, Any],
                 changed: dict[str, list], began: datetime.datetime) -> Iterator[dict[str, Any]]:
  """Writes this start's entry before training, and completes it and the report afterwards.

  Args:
    environment: of `metadata.environment`.
    changed: {key: [before, now]} of what changed in the config since the previous start.
    began: when the start began.

  Yields:
    the entry; what is added to it is written at the end.
  """
  paths = run.folder.paths
  entry = {
      'started': began.isoformat(timespec='seconds'), 'from_step': origin.step,
      'parameters': {name: net.params.size for name, net in (
          ('generator', state.g), ('discriminator', state.d)) if net},
      'data_mode': run.feed.mode, 'data_digest': run.feed.digest, **environment}
  if changed:
    entry['changed'] = changed
  if origin.model:
    entry |= {'init_from': origin.model.origin, 'taken': origin.loaded,
              'fresh': origin.initialised, 'unused': origin.unused}
  files.write_json(paths.run_json, [*origin.records, entry])
  # Last: if the process is killed between the two, the next start still finds what has changed.
  files.write_json(paths.config, compatibility.as_json(run.config))
  try:
    yield entry
  except LockedByOther:
    run.checkpoints.give_up()
    raise
  finally:
    entry |= {'skipped_pictures': run.feed.skipped + run.validation.skipped,
              **metadata.end_fields(began)}
    if run.folder.lock.still_held():
      with run.log.trying(paths.run_json):
        files.write_json(paths.run_json, [*origin.records, entry])
      write_report(run.log)
