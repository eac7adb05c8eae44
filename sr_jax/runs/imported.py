"""A run made of imported weights."""

import pathlib
import signal
import tempfile

import jax
import jax.numpy as jnp

from sr_jax.errors import InputError
from sr_jax.runs.checkpoints import Checkpoints
from sr_jax.step.state import NetState, TrainState
from sr_jax.system import files, signals


def save_imported(workdir, variables: dict, config: dict, imported: dict) -> None:
  """Makes a run at step 0 of a generator, for evaluating, upscaling and `config.init_from`.

  Args:
    variables: its {'params', 'batch_stats'}.
    config: what describes it: `generator`, `scale`, `dtype`.
    imported: where it is from, kept in config.json.

  Raises:
    InputError: there is something in `workdir` already, or it can not be written.
  """
  workdir = files.expand(workdir).resolve()
  if workdir == pathlib.Path.cwd() or (workdir.exists() and (
      not workdir.is_dir() or any(workdir.iterdir()))):
    raise InputError(f'{workdir}: is there already; name a new folder')
  params, batch_stats = (variables[key] for key in ('params', 'batch_stats'))
  state = TrainState(jnp.int32(0), jnp.int32(0), NetState(params, batch_stats, ()), None,
                     {'params': params, 'batch_stats': batch_stats})
  try:
    workdir.parent.mkdir(parents=True, exist_ok=True)
    # Orbax's threads can not be cut short; made beside its place, nobody sees half of a run.
    with signals.DeferredSignals() as held, tempfile.TemporaryDirectory(prefix='.',
                                                             dir=workdir.parent) as folder:
      made = pathlib.Path(folder) / 'run'
      failed = []
      checkpoints = Checkpoints(made, warn=failed.append)
      try:
        checkpoints.save(jax.tree.map(jnp.asarray, state))
        checkpoints.wait()
      finally:
        checkpoints.close()
      if failed:
        raise InputError(failed[0].partition(';')[0].replace(str(made), str(workdir)))
      files.write_json(made / 'config.json', config | {'imported': imported})
      if not held.caught:
        made.rename(workdir)  # an empty folder gives way, a filled one does not
  except OSError as error:
    raise InputError(f'{workdir}: can not be written ({error.strerror or error})') from None
  if held.caught:
    signal.raise_signal(held.caught)
