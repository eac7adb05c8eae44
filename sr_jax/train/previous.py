"""What an earlier start has left in the folder of a run, and whether it may be resumed."""

import contextlib
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from jax.sharding import Mesh
from ml_collections import ConfigDict

from sr_jax.experiment import compatibility, crops, inputs, phases
from sr_jax.runs import lock, metadata
from sr_jax.runs.checkpoints import Checkpoints
from sr_jax.runs.folder import RunFolder
from sr_jax.runs.transcript import Transcript
from sr_jax.step.state import TrainState
from sr_jax.system import accelerator, multihost, sharding


class Previous(NamedTuple):
  """What the folder of a run contains before a start.

  Attributes:
    existed: whether there is a config.json.
    lock: held if it existed and had a lock file, in the first process. A lock file is created only
      once nothing can be refused any more.
    step: of the latest checkpoint, or None.
    config: config.json of a run with a checkpoint, else {}.
    records: run.json.
    mesh: the devices of this start, or None for one device.
    transcript: the lines that this start has printed.
    finished: whether there is nothing left to train.
  """

  existed: bool
  lock: lock.RunLock | None
  step: int | None
  config: dict[str, Any]
  records: list[dict[str, Any]]
  mesh: Mesh | None
  transcript: Transcript
  finished: bool = False


def read_previous(config: ConfigDict, workdir: pathlib.Path, stack: contextlib.ExitStack
                  ) -> Previous:
  """Reads what an earlier start has left in `workdir`; holds its lock until `stack` is closed.

  Raises:
    InputError: the run is finished and the config has changed; or another process trains there.
  """
  first = multihost.is_first()
  mesh = sharding.make_mesh(config.devices, config.batch_size, config.accumulate)
  for part in crops.of_main_phase(config) if config.phases.steps else ():
    with crops.named(part):
      sharding.make_mesh(config.devices, part.batch_size, config.accumulate)
  transcript = Transcript(lambda: accelerator.describe_devices(mesh.size if mesh else 1))
  paths = RunFolder(workdir)
  existed = first and paths.config.exists()
  run_lock = (stack.enter_context(lock.run_lock(workdir))
              if existed and paths.lock.exists() else None)
  step, before, records = multihost.broadcast_json(
      lambda: (*stopped_at(workdir, transcript.say), metadata.start_records(workdir)))
  previous = Previous(existed, run_lock, step, before, records, mesh, transcript)
  known = inputs.with_known_steps(config, before) if step is not None else None
  if known is None or step != known.steps:
    return previous
  if first:
    compatibility.check_resumable(workdir, before, step, known)
    compatibility.refuse_finished(workdir, step, compatibility.changes(before, known))
  return previous._replace(finished=True)


def finished_state(config: ConfigDict, workdir: pathlib.Path, previous: Previous) -> TrainState:
  """Returns the last state of a finished run, and prints that it is finished."""
  experiment = phases.build(inputs.with_known_steps(config, previous.config))
  state = phases.state_at(experiment, previous.step)
  if multihost.is_first():
    state = run_state(state, workdir, previous.step)
    report = RunFolder(workdir).report
    print(f'{workdir}: this run has finished at step {previous.step}; report: {report}. To '
          f'continue it, set --config.steps above {previous.step}')
  return multihost.broadcast_arrays(state)


def refuse_resume(config: ConfigDict, workdir: pathlib.Path, previous: Previous,
                  resume: bool) -> None:
  """Refuses to resume a run whose settings do not fit, or have changed without --resume.

  Raises:
    InputError: as `check_resumable`, `refuse_finished` and `refuse_changed` of `compatibility`.
  """
  step, before = previous.step, previous.config
  compatibility.check_resumable(workdir, before, step, config)
  changed = compatibility.changes(before, config)
  if step == config.steps:  # after other epochs than those of the previous start
    compatibility.refuse_finished(workdir, step, changed)
  if not resume:
    last = previous.records[-1] if previous.records else {}
    streamed = last.get('data_mode', before.get('data', {}).get('mode')) == 'stream'
    rates = {} if step == before.get('steps') else compatibility.rescheduled(before, config)
    compatibility.refuse_changed(workdir, step, changed, streamed, rates)


def stopped_at(workdir: pathlib.Path, warn: Callable[[str], None] = print
               ) -> tuple[int | None, dict[str, Any]]:
  """Returns (latest step, config.json) of a run that can be resumed, or (None, {}).

  A damaged checkpoint is skipped, and a line says so.

  Raises:
    InputError: there are checkpoints and none is intact, or there is no config.json beside them.
  """
  with contextlib.closing(Checkpoints(workdir, read_only=True, warn=warn)) as saved:
    latest = saved.latest()
  return latest, {} if latest is None else metadata.read_config(workdir)


def run_state(target: TrainState, workdir: pathlib.Path, step: int) -> TrainState:
  """Restores a run's checkpoint of `step`; `target` gives names, shapes and devices.

  Raises:
    InputError: it does not exist, is damaged, or is of another architecture or optimiser.
  """
  with contextlib.closing(Checkpoints(workdir, read_only=True)) as saved:
    return saved.restore(target, step)
