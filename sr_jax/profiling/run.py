"""Finds what a training step waits for: times it whole, in parts and in a row, and traces it."""

import contextlib
import datetime
import pathlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from sr_jax.data import bank, feed
from sr_jax.errors import InputError
from sr_jax.experiment import inputs, phases
from sr_jax.experiment.check import check
from sr_jax.profiling import ceilings, parts, table, timing, traces
from sr_jax.profiling.bottleneck import Spent, bottleneck, verdict
from sr_jax.runs import metadata
from sr_jax.step import compilation, train_step
from sr_jax.system import files, threads

ROUNDS, SECONDS = 10, 15.0  # of the parts beside the whole step: so many, or for so long
ROWS, ROW_SECONDS = 3, 1.0  # of dispatches, each about so long
TRACED = 3  # dispatches
LOOP = 10  # steps of a dispatch, where there may be many


def profile_run(config, workdir) -> dict:
  """Profiles each phase of a config, prints a table for each and writes WORKDIR/profile.

  The steps are those that train dispatches, on the pictures that it would train on; where
  `data.source` can not be read, on random ones, which takes as long but for reading them.
  Nothing else in WORKDIR is written, and none of its weights are read: times do not depend on
  them.

  Returns:
    What profile.json says.

  Raises:
    InputError: a config that can not be trained, a folder that can not be written.
  """
  check(config)
  workdir = files.expand(workdir)
  with _replacing(workdir / 'profile') as folder, contextlib.ExitStack() as stack:
    found, data = _pictures(config)
    # Without pictures: what is counted in epochs is counted in steps of some.
    config = inputs.in_steps(config, len(found) if found else 1_000 * config.batch_size)
    experiment = phases.build(config)
    if found:
      earlier = metadata.start_records(workdir)
      source = stack.enter_context(contextlib.closing(inputs.build_feed(
          config, found, 0, experiment.device_loop,
          earlier[-1].get('data_mode', '') if earlier else '', print)))
    else:
      source = random_feed(config)
    device = jax.devices()[0]
    result = {
        'time': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
        **metadata.environment(experiment.device_loop), 'dtype': config.dtype,
        'batch_size': config.batch_size, 'hr_patch': config.hr_patch,
        'workers': config.data.workers if config.data.workers >= 0 else threads.cores(),
        'data': f'{source.mode}, {data}', 'ceilings': ceilings.measured(config.dtype),
        'phases': {}}
    print(table.heading(result))
    rule = {'mode': source.mode, 'workers': result['workers'], 'cores': threads.cores(),
            'loops': experiment.device_loop, 'dtype': config.dtype,
            'accelerator': device.platform != 'cpu'}
    state = experiment.new_state()
    for phase in experiment.phases:
      state = train_step.begin_phase(state, phase.g_tx)
      state, figures = profile_phase(experiment, phase, source, state, folder / phase.name)
      best = result['ceilings'] = ceilings.again(result['ceilings'], config.dtype)
      spent = _spent(figures, best)
      figures |= {'spent': spent._asdict(), 'bottleneck': bottleneck(spent)[0],
                  'verdict': verdict(spent, **rule, bfloat16_gain=(
                      best.get('flops_bfloat16', 0) / best['flops']))}
      result['phases'][phase.name] = figures
      print(table.table(phase.name, figures, result))
    files.write_json(folder / 'profile.json', result)
  print(f'\n{workdir / "profile"}: profile.json, and of each phase a trace\n'
        '  for ui.perfetto.dev: PHASE/**/perfetto_trace.json.gz\n'
        f'  for XProf: tensorboard --logdir {workdir / "profile"}')
  return result


@contextlib.contextmanager
def _replacing(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """An empty folder that takes the place of `folder` if the block succeeds, and else is gone."""
  new = not folder.parent.exists()
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists() and not folder.is_dir():
      raise InputError(f'{folder}: is there already, and no folder')
    for left in folder.parent.glob(f'{files.UNFINISHED}profile-*'):  # by one that was killed
      shutil.rmtree(left, ignore_errors=True)
    made = pathlib.Path(tempfile.mkdtemp(prefix=f'{files.UNFINISHED}profile-', dir=folder.parent))
  except OSError as error:
    raise InputError(f'{folder}: can not be written ({error.strerror or error})') from None
  try:
    (made / 'new').mkdir()
    yield made / 'new'
    if folder.exists():
      folder.rename(made / 'old')
    (made / 'new').rename(folder)
  finally:
    shutil.rmtree(made, ignore_errors=True)
    if new:
      with contextlib.suppress(OSError):  # it is not empty where all went well
        folder.parent.rmdir()


# Data --------------------------------------------------------------------------------------


def _pictures(config):
  """(those to train on, or None; what they are, in words)."""
  try:
    found = inputs.training_set(config)
  except InputError as error:
    print(f'random pictures, and no time for reading any: {error}')
    return None, 'random pictures'
  return found, f'{len(found):,} pictures of {config.data.source}'


def random_feed(config) -> feed.Feed:
  """A bank of eight random pictures of twice the patch."""
  cut = inputs.build_cut(config)
  side = 2 * cut.patch // cut.scale
  size = cut.channels * side * side * (cut.scale**2 + 1)
  pixels = np.random.default_rng(0).integers(0, 256, (1, 8 * size), np.uint8)
  table = [(0, at, at + cut.channels * (side * cut.scale)**2, side, side)
           for at in range(0, 8 * size, size)]
  pictures = bank.Bank(jnp.asarray(pixels), jnp.asarray(np.array(table, np.int32)))
  batch_at = feed.bank_batches(cut, config.batch_size, inputs.build_augmentation(config))
  return feed.Feed('bank', batch_at, lambda start, stop: pictures, 2**31, [], '', lambda: None)


# One phase ---------------------------------------------------------------------------------


def profile_phase(experiment, phase, source: feed.Feed, state, folder) -> tuple:
  """Times a phase's step whole, in parts and in a row, and traces it.

  Args:
    folder: of the trace.

  Returns:
    (state, figures): seconds, FLOPs and bytes are of one step, seconds medians.
  """
  frozen, step = experiment.frozen, int(state.step)
  count = min(LOOP, source.max_steps) if experiment.device_loop else 1
  held = source.take(step, step + count)
  compiled = compilation.compile_step(phases.jit_step(experiment, phase, source.batch_at), state,
                                    held, frozen, step, step + count)
  dispatch = single = compiled.program
  if experiment.device_loop:
    single = phases.jit_step(experiment._replace(device_loop=False), phase,
                              source.batch_at).lower(state, held, frozen, step, step + 1).compile()
  nothing = jax.jit(timing.idle_step, donate_argnums=0).lower(
      state, held, frozen, step, step + 1).compile()

  timed, take, begin = timing.Timed({'step': single}), timing.lying(held), time.monotonic()
  for taken in range(ROUNDS + 1):
    step = int(state.step)
    state, _ = parts.take_step(timed, phase.step, source.batch_at, state, take(step, step + 1),
                               frozen)
    state, _ = timed('step', single, state, take(step + 1, step + 2), frozen, step + 1, step + 2)
    if taken >= 3 and time.monotonic() - begin > SECONDS:
      break

  many = int(np.clip(ROW_SECONDS / timed.median('step') / count, 3, 100))
  rows = {name: [] for name in ('held', 'nothing', 'single', 'fed', 'take', 'made')}

  def in_a_row(program, take, dispatches, count):
    nonlocal state
    state, seconds = timing.row(program, state, frozen, take, dispatches, count)
    return seconds

  for _ in range(ROWS):
    rows['held'].append(in_a_row(dispatch, take, many, count)['step'])
    rows['nothing'].append(in_a_row(nothing, take, 20, 1)['step'])
    if experiment.device_loop:
      rows['single'].append(in_a_row(single, take, many, 1)['step'])
    if source.mode != 'bank':
      rows['made'].append(timing.made_alone(source, 4, int(state.step)))
      fed = in_a_row(dispatch, source.take, -(-many // 4) * 4, count)
      rows['fed'].append(fed['step'])
      rows['take'].append(fed['take'])
  rows = {name: statistics.median(seconds) for name, seconds in rows.items() if seconds}

  trace = traces.record(folder, lambda: in_a_row(dispatch, source.take, TRACED, count))
  traces.name_rows(trace, traces.scopes(dispatch.as_text()))
  idle, operations = traces.idle_share(traces.read(trace)), traces.operations(single.as_text())
  untouched = _untouched(timed, source.batch_at, held, state)
  figures = {
      'compile_seconds': compiled.seconds, 'from_cache': compiled.read,
      'steps_of_dispatch': count, 'operations': operations,
      'step': {'seconds': timed.median('step'), **timing.cost(single)},
      'parts': parts.figures(phase.step, timed), 'in_a_row': rows, 'idle_share': idle,
      'memory_bytes': compiled.argument_bytes + compiled.working_bytes,
      'peak_bytes': (jax.devices()[0].memory_stats() or {}).get('peak_bytes_in_use', 0),
      'trace': str(trace.relative_to(folder.parent))}
  if jax.default_backend() != 'cpu':
    # There XLA counts no convolution, and of a batch gone through in parts one part.
    for key in ('flops', 'bytes'):
      figures['step'][key] = sum(part[key] for part in figures['parts'].values())
  for counted in (figures['step'], figures['parts']['batch']):
    counted['bytes'] = max(counted['bytes'] - untouched, 0.0)
  return state, figures


def _untouched(timed: timing.Timed, batch_at, held, state) -> float:
  """Bytes that XLA counts for making a batch, and that are only there: the whole bank, twice."""
  if not isinstance(held, bank.Bank):
    return 0.0
  small = jax.ShapeDtypeStruct((1, min(held.pixels.shape[1], 2**16)), np.uint8)
  program = jax.jit(batch_at).lower(held._replace(pixels=small), state.seed, state.step).compile()
  return timing.cost(timed.programs['batch'])['bytes'] - timing.cost(program)['bytes']


def _spent(figures: dict, ceiling: dict) -> Spent:
  rows, step = figures['in_a_row'], figures['step']
  held = rows['held']
  fed = max(rows.get('fed', held), held)
  if figures['idle_share'] is None:  # no trace tells: what the pieces of starting it take
    dispatch = rows['nothing'] + figures['operations'] * ceiling['launch']
  else:  # the feed's batches are traced, so a wait for them is idle too
    dispatch = max(figures['idle_share'] * fed - (fed - held), 0.0)
  return Spent(fed, fed - held, min(dispatch, held), step['flops'] / ceiling['flops'],
               step['bytes'] / ceiling['bytes'])
