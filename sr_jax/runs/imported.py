"""Saves imported weights as a run, so that every command that takes a run can use them."""

import contextlib
import os
import pathlib
import signal
import time

import jax
import jax.numpy as jnp

from sr_jax.errors import InputError
from sr_jax.runs.checkpoints import Checkpoints
from sr_jax.runs.folder import RunFolder
from sr_jax.step.flat import flatten
from sr_jax.step.state import Average, NetState, TrainState
from sr_jax.system import files, signals


def save_imported(workdir: os.PathLike | str, variables: dict, config: dict,
                  imported: dict) -> None:
  """Creates a run at step 0 from a generator, for evaluating, upscaling and `config.init_from`.

  Args:
    workdir: the folder to create; it may exist if it is empty.
    variables: the generator's {'params', 'batch_stats'}.
    config: the keys that describe it: `generator`, `scale`, `dtype`.
    imported: where the weights come from; stored in config.json under `imported`.

  Raises:
    InputError: `workdir` is not empty, or cannot be written.
  """
  shown = files.expand(workdir)
  workdir = shown.resolve()
  if workdir == pathlib.Path.cwd() or (workdir.exists() and (
      not workdir.is_dir() or any(workdir.iterdir()))):
    raise InputError(f'{shown}: already exists; choose a new folder')
  arrays = [flatten(jax.tree.map(jnp.asarray, variables[key]), joined=False)
            for key in ('params', 'batch_stats')]
  state = TrainState(jnp.int32(0), jnp.int32(0), NetState(*arrays, ()), None, Average(*arrays))
  try:
    # Signals are deferred because Orbax's threads cannot be interrupted.
    with (signals.DeferredSignals() as deferred, contextlib.suppress(_Interrupted),
          files.atomic_folder(workdir) as folder):
      failures = []
      checkpoints = Checkpoints(folder, warn=failures.append)
      try:
        checkpoints.save(state)
        checkpoints.wait()
      finally:
        checkpoints.close()
      if failures:
        time.sleep(1)  # Orbax's threads may go on for a moment, and would create the folder again
        raise InputError(failures[0].partition(';')[0].replace(str(folder), str(shown)))
      files.write_json(RunFolder(folder).config, config | {'imported': imported})
      if deferred.caught:
        raise _Interrupted
  except OSError as error:
    raise InputError(f'{shown}: cannot write ({error.strerror or error})') from None
  if deferred.caught:
    signal.raise_signal(deferred.caught)


class _Interrupted(Exception):  # noqa: N818, not an error
  """Discards the folder that is being written."""
