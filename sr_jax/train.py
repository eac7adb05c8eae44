"""The training loop: build or restore, dispatch, log, save. All side effects are here."""

import contextlib
import datetime
import functools
import json
import os
import platform
import signal

import jax
import ml_collections

from sr_jax import (
  build,
  build_data,
  evaluate,
  files,
  freezing,
  images,
  logs,
  restore,
  runs,
  score,
  signals,
  steps,
  watch,
)
from sr_jax.check import check, in_words
from sr_jax.checkpoints import Checkpoints
from sr_jax.errors import InputError
from sr_jax.models import architecture
from sr_jax.state import TrainState


def train(config: ml_collections.ConfigDict, workdir) -> TrainState:
  """Trains as config says, or goes on where the run in `workdir` stopped.

  Writes config.json, run.json, metrics.jsonl, tensorboard/, samples/, progress/ and
  checkpoints/ to workdir. Ctrl-C and SIGTERM end it after the dispatch in flight (a step; on an
  accelerator, those up to the next log), saved; a second one at once.

  Args:
    config: `configs.common.defaults()` and what an experiment changed.
    workdir: folder of the run; made where there is none.

  Returns:
    The last state.

  Raises:
    InputError: anything that the user can put right.
    Stopped: a signal asked for it; the state is saved.
  """
  started = datetime.datetime.now(datetime.UTC)
  workdir = files.expand(workdir)
  check(config)
  found = build_data.training_set(config)
  reached, before = runs.stopped_at(workdir)
  resumes = reached is not None
  config = build_data.in_steps(config, len(found), before)
  if resumes:
    runs.check_resumable(workdir, before, reached, config)
  initial = None if resumes or not config.init_from else _initial(config)
  watched = watch.open_watched(config, found)
  experiment = build.build(config)
  state, taken = experiment.new_state(), []
  if resumes:
    state = _restored(state, workdir)
  elif initial:
    state, taken, fresh = restore.start_from(state, experiment.generator, initial)
  begin = int(state.step)
  earlier = runs.starts(workdir)
  last = earlier[-1] if resumes and earlier else {}
  # Decoding last: it takes longest, and a mistake elsewhere should not wait for it.
  with contextlib.closing(build_data.build_feed(config, found, begin, experiment.device_loop,
                                                last.get('data_mode', ''), print)) as feed:
    try:  # not before here: a refused start leaves the run as it was
      workdir.mkdir(parents=True, exist_ok=True)
      log = logs.Logs(workdir, begin, config.steps, config.batch_size,
                      build_data.steps_of_epoch(config, len(found)))
      files.write_json(workdir / 'config.json', json.loads(config.to_json_best_effort()))
      checkpoints = Checkpoints(workdir, config.best_metric, (config.warmup_steps,))
    except OSError as error:
      path = error.filename or workdir
      raise InputError(f'{path}: can not be written ({error.strerror})') from None
    log.say(_opening(experiment, state, feed.skipped + watched.skipped, workdir, begin)
            + (f'; {in_words(config, "")}' if config.epochs else ''))
    if last.get('data_digest', feed.digest) != feed.digest:
      log.say('batches are not made as they were when the run last ran (other pictures, data or '
              'batch settings): it goes on, but not as it would have without a stop')
    record = {'started': started.isoformat(timespec='seconds'), 'from_step': begin,
              'data_mode': feed.mode, 'data_digest': feed.digest, **_surroundings(experiment)}
    if resumes and config.init_from:
      log.say('config.init_from is for the start alone, and not read again')
    random = set(freezing.frozen_names(experiment.trainable)) - set(taken)
    if random and not resumes:
      log.say(f'frozen as they are at random: {restore.layers(sorted(random))}; config.init_from '
              'gives them no weights')
    if initial:
      log.say(f'starts from {initial.origin}: {len(taken)} arrays taken ({restore.layers(taken)})'
              + (f', {len(fresh)} fresh ({restore.layers(fresh)})' if fresh else '')
              + ''.join(f'; {field} {initial.fields[field]}, which the file does not tell'
                        for field in initial.usual))
      record |= {'init_from': initial.origin, 'taken': taken, 'fresh': fresh}
    files.write_json(workdir / 'run.json', [*earlier, record])
    try:
      with signals.Held() as held:
        state = _loop(config, experiment, state, feed, watched, checkpoints, log, held)
    finally:
      log.close()
      checkpoints.close()
      record |= {'skipped_pictures': feed.skipped + watched.skipped, **_ending(started)}
      files.write_json(workdir / 'run.json', [*earlier, record])
  print(f'{workdir}: step {int(state.step)} of {config.steps}. Started {record["started"]}, ended '
        f'{record["ended"]}, {record["total"]} in all.')
  if held.caught and int(state.step) < config.steps:
    raise Stopped(held.caught)
  logs.print_validations(workdir)
  watch.print_terms(workdir, watched.crops)
  return state


class Stopped(Exception):  # noqa: N818, it is no error
  """A signal ended the run early; everything is saved. `.signal` is its number."""

  def __init__(self, number: int):
    super().__init__(signal.Signals(number).name)
    self.signal = number


# The loop ----------------------------------------------------------------------------------


def _loop(config, experiment, state, feed, watched, checkpoints, log, held) -> TrainState:
  """Runs to config.steps. The host stays one dispatch ahead of what it looks at."""
  begin = step = int(state.step)
  skipped = len(feed.skipped)
  phase = pending = None
  upscale = restore.make_upscaler(experiment.generator)
  scorer = score.make_scorer(config.scale, config.eval.lpips) if watched.sets else None

  measures = {phase.name: jax.jit(phase.terms) for phase in experiment.phases}

  def validate(step, name, upscale, measure=None):
    figures = {kind: score.mean(evaluate.score_set(pairs, upscale, scorer))
               for kind, pairs in watched.sets.items()}
    log.validation(step, name, figures, {} if measure is None else watch.terms_of(
        measure, state, watched.crops, experiment.frozen))
    return figures.get('valid', {})  # the test set decides nothing

  def show(entry):
    number, name, metrics = entry
    values = {key: float(value) for key, value in jax.device_get(metrics).items()}
    log.progress(number, name, values)
    if number in (begin + 1, phase.start + 1):
      log.say(f'{name} step {number}, weighted terms: ' + ', '.join(
          f'{key} {value:.4g}' for key, value in values.items()
          if key.startswith('g/') and key != 'g/grad_norm'))
    if number == 1 or number % config.log_every == 0 or number == config.steps:
      rates = {f'learning_rate/{net}': float(schedule(number - 1 - phase.start))
               for net, schedule in phase.schedules.items()}
      log.scalars(number, name, values | rates)

  if watched.sets and step == 0:
    validate(0, 'bicubic', lambda lr: images.imresize(lr, config.scale))
    if config.init_from:  # what is to be bettered
      validate(0, 'start', functools.partial(upscale, state.ema),
               measures[experiment.phase_at(0).name])
  while step < config.steps:
    if phase is None or step >= phase.stop:
      phase = experiment.phase_at(step)
      if step == phase.start:
        state = steps.begin_phase(state, phase.g_tx)
      run = build.dispatcher(experiment, phase, feed.batch_at)
    # One step at first, whose terms are shown at once; then as many as fit, in a device loop.
    stop = step + 1
    if experiment.device_loop and step not in (begin, phase.start):
      stop = min(_next_event(config, step, phase.stop), step + feed.most)
    try:
      source = feed.take(step, stop)
    except InputError:  # a stream met too many damaged pictures or has lost a worker
      if step > begin:
        checkpoints.save(state)
        checkpoints.wait()
      if held.caught:  # by the signal that stops us, too
        break
      raise
    for line in feed.skipped[skipped:]:
      log.say(f'skipped {line}')
    skipped = len(feed.skipped)
    state, metrics = run(state, source, experiment.frozen, step, stop)
    step = stop
    if pending:
      show(pending)
    pending = (step, phase.name, metrics)
    ending, last = bool(held.caught), step == phase.stop
    scoring, sampling, saving = (last or step % every == 0 for every in (
        config.eval.every, config.sample_every, config.checkpoint_every))
    keeping = step in watch.quarters(config.steps).values()
    if not (ending or scoring or sampling or saving or keeping):
      continue  # its figures are shown once the next dispatch is on its way
    show(pending)
    pending, figures = None, {}
    with log.pause():
      if watched.sets and scoring:
        figures = validate(step, phase.name, functools.partial(upscale, state.ema),
                           measures[phase.name])
      for pair in watched.valid[:1] if sampling else ():
        row = watch.middle(pair, images.imresize(pair.lr, config.scale),
                           upscale(state.ema, pair.lr))
        log.picture(step, pair.name, logs.strip(row))
      for pair in watched.valid[:config.progress_pictures] if keeping else ():
        watch.keep_progress(log.workdir / 'progress', pair, upscale(state.ema, pair.lr), step,
                            config.steps)
      ending = bool(held.caught)  # it may have come meanwhile
      if ending or saving or checkpoints.is_best(figures):
        checkpoints.save(state, figures or None)
    if ending:
      break
  checkpoints.wait()
  return state


def _next_event(config, step: int, phase_stop: int) -> int:
  """The first step after `step` at which the host has something to do."""
  every = config.log_every, config.sample_every, config.checkpoint_every, config.eval.every
  quarters = (at for at in watch.quarters(config.steps).values() if at > step)
  return min(phase_stop, *quarters, *(step - step % interval + interval for interval in every))


def _initial(config) -> restore.Model:
  """The generator that `config.init_from` names, if the config's may start from it.

  Raises:
    InputError: it can not be read, or is another network; another scale is none.
  """
  generator = build.build_generator(config)
  try:  # what nobody can know of a file's network is as the config has it
    model = restore.load(config.init_from, usual=architecture(generator))
  except InputError as error:
    raise InputError(f'config.init_from: {error}') from None
  runs.refuse_unless_equal(model.generator, model.origin, generator, 'the config', ('scale',),
                           '--config.generator.')
  return model


def _restored(state: TrainState, workdir) -> TrainState:
  """The run's latest checkpoint."""
  checkpoints = Checkpoints(workdir, read_only=True)
  try:
    return checkpoints.restore(state)
  finally:
    checkpoints.close()


# Around the loop ---------------------------------------------------------------------------


def _opening(experiment, state, skipped, workdir, begin) -> str:
  """What is said before the first step."""
  lines = ['Generator', logs.overview(state.g.params, experiment.trainable)]
  if state.d is not None:
    lines += ['Discriminator', logs.overview(state.d.params)]
  lines += [f'skipped {reason}' for reason in skipped]
  if skipped:
    lines.append(f'{len(skipped)} skipped')
  phases = ', '.join(f'{phase.name} to step {phase.stop}' for phase in experiment.phases)
  lines.append(f'{workdir}: {f"goes on from step {begin}" if begin else "begins"}; {phases}')
  return '\n'.join(lines)


def _surroundings(experiment) -> dict:
  device = jax.devices()[0]
  return {'device': device.device_kind, 'backend': jax.default_backend(),
          'device_loop': experiment.device_loop, 'python': platform.python_version(),
          'jax': jax.__version__, 'xla_flags': os.environ.get('XLA_FLAGS', '')}


def _ending(started: datetime.datetime) -> dict:
  ended = datetime.datetime.now(datetime.UTC)
  return {'ended': ended.isoformat(timespec='seconds'),
          'total': str(datetime.timedelta(seconds=int((ended - started).total_seconds())))}
