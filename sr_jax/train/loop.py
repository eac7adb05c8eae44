"""The training loop: dispatch, look, log, score, save; the host one dispatch ahead."""

import functools
import math
import time

import jax

from sr_jax import images
from sr_jax.errors import InputError
from sr_jax.experiment import compatibility, phases
from sr_jax.images import montage
from sr_jax.inference import upscaler
from sr_jax.metrics.scorer import make_scorer, mean, score_set
from sr_jax.runs import progress
from sr_jax.step import compilation, nonfinite
from sr_jax.system import files, multihost, sharding
from sr_jax.train import out_of_memory, validation


def run_steps(config, experiment, mesh, state, feed, watched, kept, log, held, started, told=0,
              hold=None):
  """Runs to config.steps. The host stays one dispatch ahead of what it looks at.

  On a mesh `state` is on every device, and what is looked at and saved is the first's copy. Of
  several processes only the first has `kept` and something to watch. Of the lines in `feed.skipped`
  the first `told` have been said; a stream adds to them at any time. `hold` is the folder's.

  Returns:
    (the last state, which is saved; {} or, where only bad steps came, the last one's metrics).
  """
  begin = step = int(state.step)
  left_out, saturated = int(state.health.skipped), False
  several, gathered = jax.process_count() > 1, set()
  saved = now = time.monotonic()
  longest = config.checkpoint_every_seconds or math.inf
  phase = pending = bad = compiled = None
  upscale = upscaler.make_upscaler(experiment.generator)
  scorer = make_scorer(config.scale, config.eval.lpips) if watched.sets else None

  measures = {phase.name: jax.jit(phase.terms) for phase in experiment.phases}

  def validate(step, name, upscale, measure=None):
    figures = {kind: mean(score_set(pairs, upscale, scorer))
               for kind, pairs in watched.sets.items()}
    log.validation(step, name, figures, {} if measure is None else validation.terms_of(
        measure, sharding.local_copy(state), watched.crops, sharding.local_copy(experiment.frozen)))
    return figures.get('valid', {})  # the test set decides nothing

  def keep_progress(step, ema):
    for pair in watched.valid[:config.progress_pictures]:
      sr = upscale(ema, pair.lr)
      with log.trying(log.workdir / 'progress'):
        strip = progress.keep_progress(log.workdir / 'progress', pair, sr, step, config.steps)
        log.show(step, f'progress/{pair.name}', strip)

  def settled():
    """The state to save: none is amid bad steps, of which more may come, but at a phase's end,
    where they are counted anew.
    """
    end, own = phase.stop if phase else config.steps, sharding.local_copy(state)
    return own if step == end and not bad else nonfinite.rewind(own)

  def ending(due: bool) -> bool:
    """Whether a signal asks for it. Several processes must hear of it at one step, whoever was
    sent it: they ask one another where it is `due`, at the logs and where they wait anyway.
    """
    if not several:
      return bool(held.caught)
    if not due:
      return False
    # A thread adds to them meanwhile: what it adds while we wait is told the next time.
    mine = [line for line in feed.skipped if line not in gathered]
    heard = multihost.gather([held.caught, mine])
    lines = [line for _, theirs in heard for line in theirs]
    gathered.update(lines)
    feed.skipped.extend(line for line in dict.fromkeys(lines) if line not in feed.skipped)
    caught = next((number for number, _ in heard if number), 0)
    held.caught = held.caught or caught
    return bool(caught)

  def own(anew=False):
    """Sees that the folder is still this run's; one that is gone is made `anew`."""
    if hold is None:
      return
    there = (log.workdir / 'config.json').exists()  # without it no run is read
    if (there and hold.still_held()) or not (anew or log.workdir.exists()):
      return
    with log.trying(log.workdir / 'config.json'):
      log.workdir.mkdir(parents=True, exist_ok=True)
      if not hold.still_held():
        hold.acquire()
      if not there:
        files.write_json(log.workdir / 'config.json', compatibility.as_json(config))
        log.say(f'{log.workdir}: its files are gone; what comes from here on is written there anew')

  def save(figures=None):
    nonlocal saved
    if kept is None:
      return
    own(anew=True)
    kept.save(settled(), figures)
    saved = time.monotonic()

  def show(entry):
    """The figures of a dispatch; those of one after which the state stands still."""
    nonlocal left_out, saturated
    number, name, metrics = entry
    with out_of_memory.explain_oom(config, feed.mode, compiled):  # on a CPU what was dispatched fails here
      values = {key: float(value) for key, value in jax.device_get(metrics).items()}
    if values['bad'] >= config.max_bad_steps:
      number = int(state.step)  # a device loop ends there
    log.progress(number, name, values)
    if number == begin + 1:
      log.say(f'first step after {time.monotonic() - started:.1f} s')
    if number in (begin + 1, phase.start + 1):
      log.say(f'{name} step {number}, weighted terms: ' + ', '.join(
          f'{key} {value:.4g}' for key, value in values.items()
          if key.startswith('g/') and key not in ('g/grad_norm', 'g/ema_distance')))
    if number == 1 or number % config.log_every == 0 or number == config.steps:
      own()
      rates = {f'learning_rate/{net}': float(schedule(number - 1 - phase.start))
               for net, schedule in phase.schedules.items()}
      log.scalars(number, name, values | rates)
    if values['skipped'] > left_out:
      log.say(f'step {number}: {values["skipped"] - left_out:.0f} more without finite numbers'
              + (f' ({", ".join(nonfinite.root_causes(values))})' if values['bad'] else '')
              + f', left out; {values["skipped"]:.0f} in all')
      left_out = values['skipped']
    was, saturated = saturated, 0 < config.saturated_steps <= values.get('d/saturated', 0)
    if saturated and not was:
      log.say(nonfinite.saturation_warning(number, int(values['d/saturated'])))
    return values if values['bad'] >= config.max_bad_steps else {}

  if watched.sets and step == 0:
    validate(0, 'bicubic', lambda lr: images.imresize(lr, config.scale))
    if config.init_from:  # what is to be bettered
      validate(0, 'start', functools.partial(upscale, sharding.local_copy(state.ema)),
               measures[experiment.phase_at(0).name])
    keep_progress(0, sharding.local_copy(state.ema))
  ending(True)  # nobody's devices wait for those of who scores yet
  while step < config.steps:
    if phase is None or step >= phase.stop:
      phase, state, run = phases.enter_phase(experiment, state, step, feed.batch_at, mesh)
      compiled = None
    # One step at first, whose terms are shown at once; then as many as fit, in a device loop.
    stop = step + 1
    if experiment.device_loop and step not in (begin, phase.start):
      stop = min(next_event(config, step, phase.stop), step + feed.max_steps)
    try:
      source = feed.source_for(step, stop)
    except InputError:  # a stream met too many damaged pictures or has lost a worker
      if step > begin:
        if pending:
          show(pending)
        save()
        if kept:
          kept.wait()
      if held.caught and not several:  # by the signal that stops us, too
        break
      raise
    for line in feed.skipped[told:]:
      log.say(f'skipped {line}')
      told += 1
    with out_of_memory.explain_oom(config, feed.mode, compiled):
      arguments = state, source, experiment.frozen, step, stop
      if compiled is None:
        compiled = compilation.compile_step(run, *arguments)
        log.say(compilation.describe_compilation(phase.name, compiled))
      state, metrics = run(*arguments)
    step = stop
    if pending and (bad := show(pending)):
      break
    pending = (step, phase.name, metrics)
    now, then = time.monotonic(), now
    # By the end of another such dispatch.
    overdue, last = kept and now - saved + (now - then) > longest, step == phase.stop
    scoring, sampling, saving = (last or step % every == 0 for every in (
        config.eval.every, config.sample_every, config.checkpoint_every))
    keeping = step in progress.quarters(config.steps).values()
    looking = scoring or sampling or saving or keeping
    leaving = ending(step % config.log_every == 0 and not looking)
    if not (leaving or looking or overdue):
      continue  # its figures are shown once the next dispatch is on its way
    if bad := show(pending):
      break
    pending, figures = None, {}
    own()
    with log.pause():
      ema = sharding.local_copy(state.ema)
      if watched.sets and scoring:
        figures = validate(step, phase.name, functools.partial(upscale, ema),
                           measures[phase.name])
      for pair in watched.valid[:1] if sampling else ():
        row = montage.centre_row(pair.lr, pair.hr, images.imresize(pair.lr, config.scale),
                           upscale(ema, pair.lr))
        log.picture(step, pair.name, montage.side_by_side(row))
      if keeping:
        keep_progress(step, ema)
      leaving = ending(looking) or leaving  # it may have come meanwhile
      if leaving or saving or overdue or (kept and kept.is_best(figures)):
        save(figures or None)
      if watched.sets and scoring and step < config.steps:  # after the last train.py writes it
        log.page()
    now = time.monotonic()
    if leaving:
      break
  if bad:
    save()
  if kept:
    kept.wait()
  state = settled()
  if kept and int(state.step) > begin and kept.latest() != int(state.step):
    raise InputError(f'{kept.folder}: step {int(state.step)} could not be saved')
  return state, bad


def next_event(config, step: int, phase_stop: int) -> int:
  """The first step after `step` at which the host has something to do."""
  every = config.log_every, config.sample_every, config.checkpoint_every, config.eval.every
  quarters = (at for at in progress.quarters(config.steps).values() if at > step)
  return min(phase_stop, *quarters, *(step - step % interval + interval for interval in every))
