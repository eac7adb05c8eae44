"""A run from its start to its end: build or restore, train (loop.py), say what was done."""

import contextlib
import datetime
import time

import jax
import ml_collections

from sr_jax.errors import InputError
from sr_jax.experiment import compatibility, inputs, phases
from sr_jax.experiment.check import check, describe_steps
from sr_jax.runs import checkpoints, lock, logs, metadata, wandb_sync
from sr_jax.step.state import TrainState
from sr_jax.system import files, multihost, sharding, signals
from sr_jax.train import announce, overfitting, replay, start, validation
from sr_jax.train.loop import run_steps
from sr_jax.train.stopping import _unless_stopped


def train(config: ml_collections.ConfigDict, workdir) -> TrainState:
  """Trains as config says, or goes on where the run in `workdir` stopped.

  Writes config.json, run.json, metrics.jsonl, tensorboard/, samples/, progress/, report.html and
  checkpoints/ to workdir, which is locked meanwhile. Ctrl-C, SIGTERM and SIGHUP end it after the
  dispatch in flight (a step; on an accelerator, those up to the next log; with several
  processes, of which any may be sent it, those too), saved; a second one at once.

  Of several processes (sr_jax/system/multihost.py) each calls it; workdir is the first one's alone.

  Args:
    config: `configs.common.defaults()` and what an experiment changed.
    workdir: folder of the run; made where there is none.

  Returns:
    The last state.

  Raises:
    InputError: anything that the user can put right.
    Stopped: a signal asked for it; the state is saved.
  """
  started, since = datetime.datetime.now(datetime.UTC), time.monotonic()
  workdir = files.expand(workdir)
  check(config)
  # Before the devices of one wait for those of another, which would compute something else.
  multihost.refuse_different(metadata.flat(compatibility.as_json(config), 'config.')
                            | {'JAX': jax.__version__})
  first, mesh = multihost.is_first(), sharding.make_mesh(
      config.devices, config.batch_size, config.accumulate)
  if first and config.wandb:
    wandb_sync.check_installed()
  with contextlib.ExitStack() as stack:
    begun = first and (workdir / 'config.json').exists()
    if begun:
      hold = stack.enter_context(lock.run_lock(workdir))
    found = inputs.training_set(config)
    reached, before, earlier = multihost.broadcast_json(
        lambda: (*start.stopped_at(workdir), metadata.start_records(workdir)))
    resumes = reached is not None
    config = inputs.epochs_to_steps(config, len(found), before)
    if resumes and first:
      compatibility.check_resumable(workdir, before, reached, config)
    initial = start.initial(config) if first and config.init_from and not resumes else None
    watched = validation.open_validation(config, found) if first else validation.Validation({}, {}, [])
    experiment = phases.build(config)
    state, taken, fresh = experiment.new_state(), [], []
    if resumes and first:
      state = start.run_state(state, workdir, reached)
    elif initial:
      state, taken, fresh = start.start_from(state, experiment.generator, initial)
    state = sharding.replicate(multihost.broadcast_arrays(state), mesh)
    begin = int(state.step)
    last = earlier[-1] if resumes and earlier else {}
    # Decoding last: it takes longest, and a mistake elsewhere should not wait for it.
    feed = stack.enter_context(contextlib.closing(inputs.build_feed(
        config, found, begin, experiment.device_loop, last.get('data_mode', ''),
        print if first else lambda _: None, mesh)))
    multihost.refuse_different({'the mode of the data': feed.mode, 'their digest': feed.digest})
    experiment = experiment._replace(frozen=sharding.replicate(
        multihost.broadcast_arrays(experiment.frozen), mesh))
    if not first:  # it computes; what is read, written and said is the first one's part
      with signals.DeferredSignals() as held:
        state, _ = run_steps(config, experiment, mesh, state, feed, watched, None, logs.NullLogs(),
                             held, since)
      return _unless_stopped(config, state, held)
    try:  # not before here: a refused start leaves the run as it was
      workdir.mkdir(parents=True, exist_ok=True)
      if not begun:
        hold = stack.enter_context(lock.run_lock(workdir))
        if (workdir / 'config.json').exists():
          raise InputError(f'{workdir}: another run has begun there meanwhile')
      files.remove_leftovers(workdir, 'samples', 'progress')
      checkpoints.clear(workdir)
      log = logs.Logs(workdir, begin, config.steps, config.batch_size,
                      inputs.steps_per_epoch(config, len(found)))
      stack.callback(log.close)
      kept = checkpoints.Checkpoints(workdir, config.best_metric, (config.warmup_steps,),
                                     begin=begin, warn=log.say)
      stack.callback(kept.close)
      if config.wandb:
        stack.callback(wandb_sync.start(
            config.wandb, compatibility.as_json(config), workdir))
    except OSError as error:
      path = error.filename or workdir
      raise InputError(f'{path}: can not be written ({error.strerror})') from None
    changed = metadata.differences(before, compatibility.as_json(config)) if resumes else {}
    told = len(feed.skipped)  # a stream decodes ahead and may meet another at any moment
    log.say(announce.opening(experiment, state, feed.skipped[:told] + watched.skipped, workdir,
                            begin)
            + (f'; {describe_steps(config, "")}' if config.epochs else ''))
    for line in announce.start(config, experiment, resumes, initial, taken, fresh, changed):
      log.say(line)
    around = metadata.environment(experiment.device_loop, mesh)
    for line in announce.devices(around, last):
      log.say(line)
    if begun and not earlier and (workdir / 'run.json').exists():
      with contextlib.suppress(OSError):
        (workdir / 'run.json').rename(workdir / 'run.json.damaged')
      log.say(f'{workdir}/run.json: can not be read and is run.json.damaged now; whether batches '
              'are made as they were is not known')
    if begun and not resumes:
      log.say('a run was begun here and has no checkpoint: it begins anew; what it had logged is '
              'in metrics.jsonl.lost')
    if last.get('data_digest', feed.digest) != feed.digest:
      log.say('batches are not made as they were when the run last ran (other pictures, data or '
              'batch settings): it goes on, but not as it would have without a stop')
    record = {'started': started.isoformat(timespec='seconds'), 'from_step': begin,
              'parameters': {key: sum(array.size for array in jax.tree.leaves(net.params))
                             for key, net in (('generator', state.g), ('discriminator', state.d))
                             if net is not None},
              'data_mode': feed.mode, 'data_digest': feed.digest,
              **around}
    if changed:
      record['changed'] = changed
    if initial:
      record |= {'init_from': initial.origin, 'taken': taken, 'fresh': fresh}
    files.write_json(workdir / 'run.json', [*earlier, record])
    # Last: killed between the two, the next start still knows what has changed.
    files.write_json(workdir / 'config.json', compatibility.as_json(config))
    try:
      with signals.DeferredSignals() as held:
        state, bad = run_steps(config, experiment, mesh, state, feed, watched, kept, log, held,
                               since, told, hold)
      if bad:
        record['bad_steps'] = int(bad['bad'])
    except lock.LockedByOther:
      kept.give_up()
      raise
    finally:
      record |= {'skipped_pictures': feed.skipped + watched.skipped, **metadata.end_fields(started)}
      if hold.still_held():
        with log.trying(workdir / 'run.json'):
          files.write_json(workdir / 'run.json', [*earlier, record])
        log.page()
    if bad:
      raise InputError(replay.stop_message(config, experiment, state, feed, found, workdir, bad))
    log.say(f'{workdir}: step {int(state.step)} of {config.steps}. Started {record["started"]}, '
            f'ended {record["ended"]}, {record["total"]} in all.')
    _unless_stopped(config, state, held)
  announce.print_validations(workdir)
  overfitting.print_terms(workdir, watched.crops)
  return state


