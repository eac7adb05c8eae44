"""Opens a run: from scratch, resumed, or from other weights."""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jax.sharding import Mesh
from ml_collections import ConfigDict

from sr_jax import images
from sr_jax.data.pictures import Picture
from sr_jax.errors import InputError
from sr_jax.experiment import compatibility, inputs, phases
from sr_jax.experiment.phase_feed import PhaseFeed, open_phases
from sr_jax.experiment.phases import Experiment
from sr_jax.restore import Model
from sr_jax.runs import checkpoints, lock, lr_strips, metadata, wandb_sync
from sr_jax.runs.checkpoints import Checkpoints
from sr_jax.runs.folder import RunFolder
from sr_jax.runs.logs import Logs, NullLogs
from sr_jax.step.state import TrainState
from sr_jax.system import files, multihost, sharding
from sr_jax.system.signals import DeferredSignals
from sr_jax.train import initial
from sr_jax.train.ownership import OwnedFolder
from sr_jax.train.previous import Previous, refuse_resume, run_state
from sr_jax.train.stopping import StopVote
from sr_jax.train.validation_data import ValidationData, open_validation


class Origin(NamedTuple):
  """Where a start takes its weights and settings from.

  Attributes:
    step: the step that training starts after.
    resumed: whether there was a checkpoint to resume from.
    restarted: whether the folder holds a run without a checkpoint, which starts over.
    config: config.json of the previous start of a resumed run, else {}.
    records: run.json, the entries of all previous starts.
    model: what `config.init_from` names, if this start has read it.
    loaded, initialised, unused: see `initial.Sources`.
  """

  step: int
  resumed: bool
  restarted: bool
  config: dict[str, Any]
  records: list[dict[str, Any]]
  model: Model | None
  loaded: list[str]
  initialised: list[str]
  unused: list[str]

  @property
  def last_record(self) -> dict[str, Any]:
    """The entry of the previous start of a resumed run, else {}."""
    return self.records[-1] if self.resumed and self.records else {}


@dataclasses.dataclass(frozen=True)
class Run:
  """An opened run. Only the first of several processes has a folder, checkpoints and logs.

  Attributes:
    config: the run's settings, with epochs converted to steps.
    experiment: what the config stands for.
    training_set: the images that the feed takes batches from.
    notes: lines on which folders hold the images, and on files that are skipped.
    feed: makes the batches of each phase.
    mesh: the devices that share a batch, or None for one device.
    validation: what the run is validated on.
    log: metrics.jsonl, TensorBoard and the terminal.
    checkpoints: saves and restores the state.
    folder: the run's folder, locked.
    stop_vote: tells whether a signal asks the run to end.
    started: `time.monotonic()` at the start.
  """

  config: ConfigDict
  experiment: Experiment
  training_set: Sequence[Picture]
  notes: Sequence[str]
  feed: PhaseFeed
  mesh: Mesh | None
  validation: ValidationData
  log: Logs | NullLogs
  checkpoints: Checkpoints | None
  folder: OwnedFolder | None
  stop_vote: StopVote
  started: float


def open_run(config: ConfigDict, workdir: pathlib.Path, previous: Previous, resume: bool,
             stack: contextlib.ExitStack, signals: DeferredSignals
             ) -> tuple[Run, Origin, TrainState]:
  """Opens the run in `workdir`, new or resumed; everything is closed with `stack`.

  Nothing is written before the config, the data and the weights are known to be usable, so a start
  that is refused leaves the run as it was.

  Args:
    config: of `check`.
    workdir: folder of the run; only the first process uses it.
    previous: of `read_previous`; not finished.
    resume: whether a run is resumed although its settings have changed.
    signals: deferred by the caller while the run trains.

  Raises:
    InputError: anything that the user can put right.
  """
  started, first = time.monotonic(), multihost.is_first()
  mesh, transcript = previous.mesh, previous.transcript
  if first and config.wandb:
    wandb_sync.check_usable()
  notes = []
  training_set = inputs.training_set(config, notes)
  config = inputs.epochs_to_steps(config, len(training_set), previous.config)
  resumed = previous.step is not None
  if resume and first and not previous.existed:
    raise InputError(f'--resume: {workdir} contains no run to resume; leave out --resume to start '
                     'one there')
  if resumed and first:
    refuse_resume(config, workdir, previous, resume)
  model = initial.load_initial(config) if first and config.init_from and not resumed else None
  if first and config.data.degrade.name != 'none' and (config.data.valid or config.data.test):
    transcript.say('making degraded LR for validation; at the first start it is compiled, which '
                   'takes up to a minute on a CPU')
  data = (open_validation(config, training_set, notes) if first
          else ValidationData({}, {}, []))
  experiment = phases.build(config)
  state = phases.state_at(experiment, previous.step or 0)
  sources = initial.Sources([], [], [])
  if resumed and first:
    state = run_state(state, workdir, previous.step)._replace(seed=state.seed)
  elif model:
    state, sources = initial.start_from(state, experiment.generator, model)
  state = sharding.replicate(multihost.broadcast_arrays(state), mesh)
  origin = Origin(int(state.step), resumed, previous.existed and not resumed, previous.config,
                  previous.records, model, *sources)
  # Decoding comes last: it takes longest, and a mistake elsewhere should not wait for it.
  feed = stack.enter_context(contextlib.closing(open_phases(
      config, experiment, training_set, origin.step, origin.last_record.get('data_mode', ''),
      transcript.say if first else lambda _: None, mesh)))
  multihost.refuse_different({'the mode of the data': feed.mode, 'their digest': feed.digest})
  experiment = experiment._replace(frozen=sharding.replicate(
      multihost.broadcast_arrays(experiment.frozen), mesh))
  log, saved, folder = NullLogs(), None, None
  if first:
    log, saved, folder = _open_folder(
        config, workdir, previous, origin.step, inputs.epoch_at(config, len(training_set)), stack)
  notes = list(dict.fromkeys((*notes, *feed.notes)))
  run = Run(config, experiment, training_set, notes, feed, mesh, data, log, saved, folder,
            StopVote(signals, feed.skipped), started)
  return run, origin, state


def _open_folder(config: ConfigDict, workdir: pathlib.Path, previous: Previous, begin: int,
                 epoch_at: Callable[[int], float], stack: contextlib.ExitStack
                 ) -> tuple[Logs, Checkpoints, OwnedFolder]:
  """Opens what the first process writes to; `begin` and `epoch_at` are those of `Logs`."""
  paths, plain_config = RunFolder(workdir), compatibility.as_json(config)
  run_lock = previous.lock
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    if run_lock is None:
      # A run without a lock file was read unlocked; a file by now is that of another start.
      overtaken = previous.existed and paths.lock.exists()
      run_lock = stack.enter_context(lock.run_lock(workdir))
      if overtaken or paths.config.exists() != previous.existed:
        raise InputError(f'{workdir}: another run was started in this folder at the same time')
    files.remove_leftovers(workdir, paths.samples.name, paths.progress.name,
                           paths.lr_images.name)
    lr_strips.forget_after(paths.lr_images, begin)
    checkpoints.clear(workdir)
    if config.wandb:  # before the event file is created: wandb ignores files older than its start
      stack.callback(wandb_sync.start(config.wandb, plain_config, workdir))
    log = Logs(workdir, begin, config.steps, config.batch_size, epoch_at, previous.transcript,
               images.baseline_name('bicubic', config.scale))
    stack.callback(log.close)
    saved = Checkpoints(
        workdir, config.best_metric, (config.warmup_steps,), begin=begin, warn=log.say,
        lower_is_better=metadata.lower_is_better(config.best_metric, plain_config))
    stack.callback(saved.close)
  except OSError as error:
    path = error.filename or workdir
    raise InputError(f'{path}: cannot write ({error.strerror})') from None
  return log, saved, OwnedFolder(workdir, run_lock, plain_config, log)
