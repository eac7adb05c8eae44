"""Profiles the training step of each phase: in full, in parts, in a row, and in a trace."""

import contextlib
import dataclasses
import datetime
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sr_jax.data import bank, feed
from sr_jax.data.pictures import Picture
from sr_jax.errors import InputError
from sr_jax.experiment import crops, inputs, phases
from sr_jax.experiment.check import check_given
from sr_jax.experiment.phase_feed import open_phases
from sr_jax.profiling import ceilings, parts, table, timing, traces
from sr_jax.profiling.bottleneck import Setup, Spent, bottleneck, verdict
from sr_jax.runs import metadata
from sr_jax.runs.folder import RunFolder
from sr_jax.step import compilation
from sr_jax.step.state import TrainState, begin_phase
from sr_jax.system import files, threads

PART_ROUNDS, PART_SECONDS = 10, 15.0  # the step and its parts are timed until one is reached
ROWS, ROW_SECONDS = 3, 1.0  # rows of calls, and the approximate duration of each
TRACED_CALLS = 3
LOOP_STEPS = 10  # steps per call with the device loop
RANDOM_IMAGES = 8


def profile_run(config: ConfigDict, workdir: os.PathLike | str) -> dict[str, Any]:
  """Profiles each phase of a config, prints a table for each and writes WORKDIR/profile.

  The steps are those of training, on the images of the config. If `data.source` cannot be read,
  random images are used, which take equally long except for reading them. Nothing else in WORKDIR
  is written, and its checkpoints are not read: durations do not depend on the weights.

  Returns:
    The content of profile.json.

  Raises:
    InputError: a config that cannot be trained, or a folder that cannot be written.
  """
  config = check_given(config, 'profile')
  workdir = files.expand(workdir)
  destination = RunFolder(workdir).profile
  with _replaced_folder(destination) as folder, contextlib.ExitStack() as stack:
    found, data = _training_images(config)
    # Epochs are converted to steps with an assumed number of images if there are none.
    config = inputs.epochs_to_steps(config, len(found) if found else 1_000 * config.batch_size)
    experiment = phases.build(config)
    earlier, feeds = metadata.start_records(workdir), None
    if found:
      feeds = stack.enter_context(contextlib.closing(open_phases(
          config, experiment, found, 0, earlier[-1].get('data_mode', '') if earlier else '')))
    setup = Setup(
        mode=feeds.mode if feeds else 'bank', workers=inputs.workers(config),
        cores=threads.cores(), device_loop=experiment.device_loop, dtype=config.dtype,
        accelerator=jax.devices()[0].platform != 'cpu')
    result = {
        'time': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
        **metadata.environment(experiment.device_loop), 'dtype': config.dtype,
        'batch_size': config.batch_size, 'hr_patch': config.hr_patch, 'workers': setup.workers,
        'data': f'{setup.mode}, {data}', 'ceilings': ceilings.measure(config.dtype), 'phases': {}}
    print(table.heading(result))
    state = experiment.new_state()
    for phase in experiment.phases:
      if phase.start == phase.since:
        state = begin_phase(state, phase.g_tx)
      source = (feeds.enter(phase, int(state.step)) if feeds
                else random_feed(crops.with_crops(config, phase.crops)))
      state, measured = profile_phase(experiment, phase, source, state, folder / phase.name)
      result['ceilings'] = ceilings.measure_again(result['ceilings'], config.dtype)
      measured |= {'hr_patch': phase.crops.hr_patch, 'batch_size': phase.crops.batch_size}
      measured |= _verdict(measured, result['ceilings'], setup)
      result['phases'][phase.name] = measured
      print(table.table(phase.name, measured, result))
    files.write_json(folder / 'profile.json', result)
  print(f'\n{destination}: profile.json, and a trace of each phase\n'
        '  for ui.perfetto.dev: PHASE/**/perfetto_trace.json.gz\n'
        f'  for XProf: tensorboard --logdir {destination}')
  return result


@contextlib.contextmanager
def _replaced_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields an empty folder that replaces `folder` if the block succeeds, and is removed otherwise.

  Raises:
    InputError: the folder cannot be written.
  """
  if folder.exists() and not folder.is_dir():
    raise InputError(f'{folder}: cannot write the profile (it is not a folder)')
  files.remove_unfinished(folder)
  with contextlib.ExitStack() as stack:
    try:
      new = stack.enter_context(files.atomic_folder(folder, replace=True))
    except OSError as error:
      raise InputError(f'{folder}: cannot write the profile ({error.strerror or error})') from None
    yield new


# Data --------------------------------------------------------------------------------------


def _training_images(config: ConfigDict) -> tuple[Sequence[Picture] | None, str]:
  """Returns (the training images or None, their description)."""
  try:
    notes = []
    found = inputs.training_set(config, notes)
    for note in notes:
      print(note)
  except InputError as error:
    print(f'Profiling with random images, so reading images is not measured: {error}')
    return None, 'random images'
  return found, f'{len(found):,} images of {config.data.source}'


def random_feed(config: ConfigDict) -> feed.Feed:
  """Returns a feed of a bank with eight random images, whose sides are twice the patch."""
  cut = inputs.build_crop_spec(config)
  side = 2 * cut.patch // cut.scale
  size = cut.channels * side * side * (cut.scale**2 + cut.with_lr)
  pixels = np.random.default_rng(0).integers(0, 256, (1, RANDOM_IMAGES * size), np.uint8)
  rows = [(0, at, at + cut.with_lr * cut.channels * (side * cut.scale)**2, side, side)
          for at in range(0, RANDOM_IMAGES * size, size)]
  images = bank.Bank(jnp.asarray(pixels), jnp.asarray(np.array(rows, np.int32)))
  batch_at = feed.bank_batches(inputs.build_feed_spec(config, device_loop=False))
  return feed.Feed('bank', batch_at, lambda start, stop: images, 2**31, [], '', lambda: None)


# One phase ---------------------------------------------------------------------------------


@dataclasses.dataclass
class _PhaseProfiler:
  """Measures the step of one phase.

  Attributes:
    state: the current training state; every measured step donates it and replaces it.
    steps_per_call: steps of one call of `compiled`; more than one with the device loop.
    batches: a source that is on the device, for measurements that must not wait for data.
    compiled: the program that training runs.
    single: the same for one step.
    empty: a step that computes nothing.
  """

  experiment: phases.Experiment
  phase: phases.Phase
  source: feed.Feed
  state: TrainState

  def __post_init__(self) -> None:
    looped = self.experiment.device_loop
    self.steps_per_call = min(LOOP_STEPS, self.source.max_steps) if looped else 1
    step = int(self.state.step)
    self.batches = self.source.source_for(step, step + self.steps_per_call)
    arguments = self.state, self.batches, self.experiment.frozen, step
    self.compiled = compilation.compile_step(
        phases.jit_step(self.experiment, self.phase, self.source.batch_at), *arguments,
        step + self.steps_per_call)
    self.single = self.compiled.program
    if looped:
      plain = self.experiment._replace(device_loop=False)
      self.single = phases.jit_step(plain, self.phase, self.source.batch_at).lower(
          *arguments, step + 1).compile()
    self.empty = jax.jit(timing.empty_step, donate_argnums=0).lower(
        *arguments, step + 1).compile()

  def time_parts(self) -> timing.Timed:
    """Times single steps and their parts in turns."""
    timed, source_for = timing.Timed({'step': self.single}), timing.repeated(self.batches)
    frozen, start = self.experiment.frozen, time.monotonic()
    for completed in range(PART_ROUNDS + 1):
      step = int(self.state.step)
      self.state, _ = parts.take_step(timed, self.phase.step, self.source.batch_at, self.state,
                                      source_for(step, step + 1), frozen)
      self.state, _ = timed('step', self.single, self.state, source_for(step + 1, step + 2),
                            frozen, step + 1, step + 2)
      if completed >= 3 and time.monotonic() - start > PART_SECONDS:
        break
    return timed

  def time_rows(self, step_seconds: float) -> dict[str, float]:
    """Times rows of calls and returns median seconds of a step for each kind of row.

    Args:
      step_seconds: of a single step, from which the length of a row follows.

    Returns:
      'held': with batches that are on the device; 'nothing': the empty step; 'single': steps called
      one by one, with the device loop only; 'fed', 'take', 'made', unless the data is a bank: with
      the feed's batches, the time spent on getting them, and the time of the host alone.
    """
    calls = int(np.clip(ROW_SECONDS / step_seconds / self.steps_per_call, 3, 100))
    batches, looped = timing.repeated(self.batches), self.experiment.device_loop
    rows = {name: [] for name in ('held', 'nothing', 'single', 'fed', 'take', 'made')}
    for _ in range(ROWS):
      rows['held'].append(self._time(self.compiled.program, batches, calls)['step'])
      rows['nothing'].append(self._time(self.empty, batches, 20, steps_per_call=1)['step'])
      if looped:
        rows['single'].append(self._time(self.single, batches, calls, steps_per_call=1)['step'])
      if self.source.mode != 'bank':
        rows['made'].append(timing.time_host_batches(self.source, 4, int(self.state.step)))
        fed = self._time(self.compiled.program, self.source.source_for, -(-calls // 4) * 4)
        rows['fed'].append(fed['step'])
        rows['take'].append(fed['take'])
    return {name: statistics.median(seconds) for name, seconds in rows.items() if seconds}

  def trace(self, folder: pathlib.Path) -> pathlib.Path:
    """Records a trace of calls with the feed's batches and names its operations."""
    path = traces.record(folder, lambda: self._time(self.compiled.program, self.source.source_for,
                                                    TRACED_CALLS))
    traces.name_operations(path, traces.scopes(self.compiled.program.as_text()))
    return path

  def _time(self, program: Callable, source_for: Callable[[int, int], Any], calls: int,
            steps_per_call: int | None = None) -> dict[str, float]:
    self.state, seconds = timing.time_calls(program, self.state, self.experiment.frozen, source_for,
                                            calls, steps_per_call or self.steps_per_call)
    return seconds


def profile_phase(experiment: phases.Experiment, phase: phases.Phase, source: feed.Feed,
                  state: TrainState, folder: pathlib.Path) -> tuple[TrainState, dict[str, Any]]:
  """Times the step of a phase in full, in parts and in a row, and records a trace of it.

  Args:
    folder: for the trace.

  Returns:
    (state, measurements): seconds, FLOPs and bytes are those of one step; seconds are medians.
  """
  profiler = _PhaseProfiler(experiment, phase, source, state)
  timed = profiler.time_parts()
  rows = profiler.time_rows(timed.median('step'))
  trace = profiler.trace(folder)
  compiled, single = profiler.compiled, profiler.single
  measured = {
      'compile_seconds': compiled.seconds, 'from_cache': compiled.from_cache,
      'steps_of_dispatch': profiler.steps_per_call,
      'operations': traces.count_operations(single.as_text()),
      'step': {'seconds': timed.median('step'), **timing.cost(single)},
      'parts': parts.part_costs(phase.step, timed), 'in_a_row': rows,
      'idle_share': traces.idle_share(traces.read(trace)),
      'memory_bytes': compiled.argument_bytes + compiled.working_bytes,
      'peak_bytes': (jax.devices()[0].memory_stats() or {}).get('peak_bytes_in_use', 0),
      'trace': str(trace.relative_to(folder.parent))}
  if jax.default_backend() != 'cpu':
    # XLA does not count convolutions there, and counts only one part of an accumulated batch.
    for key in ('flops', 'bytes'):
      measured['step'][key] = sum(part[key] for part in measured['parts'].values())
  unread = _unread_bytes(timed, source.batch_at, profiler.batches, profiler.state)
  for counted in (measured['step'], measured['parts']['batch']):
    counted['bytes'] = max(counted['bytes'] - unread, 0.0)
  return profiler.state, measured


def _unread_bytes(timed: timing.Timed, batch_at: Callable, batches: Any,
                  state: TrainState) -> float:
  """Returns the bytes that XLA counts for making a batch from a bank, but which are not accessed.

  XLA counts the entire bank, twice, although a batch reads only its crops from it.
  """
  if not isinstance(batches, bank.Bank):
    return 0.0
  small = jax.ShapeDtypeStruct((1, min(batches.pixels.shape[1], 2**16)), np.uint8)
  program = jax.jit(batch_at).lower(
      batches._replace(pixels=small), state.seed, state.step).compile()
  return timing.cost(timed.programs['batch'])['bytes'] - timing.cost(program)['bytes']


# The verdict -------------------------------------------------------------------------------


def _verdict(measured: Mapping[str, Any], best: Mapping[str, float],
             setup: Setup) -> dict[str, Any]:
  """Returns the entries of profile.json that follow from the measurements and the ceilings."""
  spent = _spent(measured, best)
  setup = setup._replace(bfloat16_gain=best.get('flops_bfloat16', 0) / best['flops'])
  return {'spent': spent._asdict(), 'bottleneck': bottleneck(spent)[0],
          'verdict': verdict(spent, setup)}


def _spent(measured: Mapping[str, Any], best: Mapping[str, float]) -> Spent:
  rows, step = measured['in_a_row'], measured['step']
  held = rows['held']
  fed = max(rows.get('fed', held), held)
  if measured['idle_share'] is None:  # no trace of the device: estimated from the cost of a call
    dispatch = rows['nothing'] + measured['operations'] * best['launch']
  else:  # the trace is of steps with the feed's batches, so waiting for these is idle time too
    dispatch = max(measured['idle_share'] * fed - (fed - held), 0.0)
  return Spent(fed, fed - held, min(dispatch, held), step['flops'] / best['flops'],
               step['bytes'] / best['bytes'])
