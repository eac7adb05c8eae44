"""Times, traces and costs one jitted training step."""

import functools
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

from sr_jax import build, build_data, steps
from sr_jax.data import bank, feed
from sr_jax.errors import InputError

STEPS, TRACED, LOOP = 20, 3, 10


def profile_run(config, workdir) -> dict:
  """Profiles each phase of a config on random pictures and prints a table for each.

  The optimiser, the losses and the VGG weights are the real ones; pictures make no
  difference to the time. A trace of three dispatches goes to WORKDIR/profile/PHASE, which
  Perfetto (ui.perfetto.dev) opens.

  Returns:
    {phase: figures}, as `profile_step` has them.
  """
  # No pictures are read: what is counted in epochs is counted in steps of some.
  experiment = build.build(build_data.in_steps(config, 1_000 * config.batch_size))
  cut = build_data.build_cut(config)
  pictures = random_bank(cut)
  batch_at = feed.bank_batches(cut, config.batch_size, build_data.build_augmentation(config))
  state, results = experiment.new_state(), {}
  for phase in experiment.phases:
    state = steps.begin_phase(state, phase.g_tx)
    bound = {'step': phase.step, 'batch_at': batch_at}
    arguments = pictures, experiment.frozen
    if experiment.device_loop:
      step, count = functools.partial(steps.train_steps, **bound), LOOP
      arguments += jnp.int32(0), jnp.int32(LOOP)
    else:
      step, count = functools.partial(steps.one_step, **bound), 1
    folder = pathlib.Path(workdir) / 'profile' / phase.name
    state, figures = profile_step(step, state, arguments, folder, count)
    results[phase.name] = figures
    print(f'\n{phase.name} step, batch {config.batch_size} of {config.hr_patch}x{config.hr_patch}, '
          f'{config.dtype}, {jax.devices()[0].device_kind}')
    seconds = figures['seconds']
    rows = {
        'compile': f'{figures["compile_seconds"]:.2f} s',
        'step': f'{1e3 * seconds[50]:.1f} ms median, {1e3 * seconds[10]:.1f} and '
                f'{1e3 * seconds[90]:.1f} at the 10th and 90th percentile of {STEPS}',
        'dispatch': f'{count} steps in a loop on the device' if count > 1 else 'one step',
        'images': f'{config.batch_size / seconds[50]:.1f} a second',
        'arithmetic': f'{figures["flops"] / 1e9:.2f} GFLOP a step, '
                      f'{figures["flops"] / 1e9 / seconds[50]:.1f} GFLOP/s',
        'memory traffic': f'{figures["bytes"] / 1e9:.2f} GB a step, '
                          f'{figures["bytes"] / 1e9 / seconds[50]:.1f} GB/s',
        'device memory': f'{figures["memory_bytes"] / 2**20:,.0f} MiB for the step'
                         + (f', {figures["peak_bytes"] / 2**20:,.0f} MiB at peak'
                            if figures['peak_bytes'] else ''),
        'trace': str(figures['trace'] or 'none written')}
    for name, text in rows.items():
      print(f'  {name:15} {text}')
  return results


def profile_step(step, state, rest, folder, count: int = 1) -> tuple:
  """Compiles step(state, *rest) -> (state, metrics), runs it and traces it.

  Args:
    count: steps that one call takes.

  Returns:
    (state, figures): compile_seconds; seconds a step {10, 50, 90: percentile}; flops and
    bytes of one step by XLA's cost analysis, which counts the body of a loop once;
    memory_bytes of its arguments and temporaries by XLA's memory analysis; peak_bytes of
    the device, or 0 where it does not say; trace, the file.
  """
  begin = time.perf_counter()
  compiled = jax.jit(step, donate_argnums=0).lower(state, *rest).compile()
  compile_seconds = time.perf_counter() - begin
  cost, memory = compiled.cost_analysis() or {}, compiled.memory_analysis()

  def timed():
    nonlocal state
    begin = time.perf_counter()
    state, metrics = compiled(state, *rest)
    jax.block_until_ready((state, metrics))
    return (time.perf_counter() - begin) / count

  timed()  # the first one also loads the program
  seconds = [timed() for _ in range(STEPS)]
  try:
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    with jax.profiler.trace(str(folder), create_perfetto_trace=True):
      for _ in range(TRACED):
        timed()
  except OSError as error:
    raise InputError(f'{folder}: can not be written ({error.strerror})') from None
  traces = sorted(pathlib.Path(folder).rglob('perfetto_trace.json.gz'))
  peak = (jax.devices()[0].memory_stats() or {}).get('peak_bytes_in_use', 0)
  return state, {
      'compile_seconds': compile_seconds,
      'seconds': {rank: float(np.percentile(seconds, rank)) for rank in (10, 50, 90)},
      'flops': cost.get('flops', float('nan')),
      'bytes': cost.get('bytes accessed', float('nan')),
      'memory_bytes': memory.temp_size_in_bytes + memory.argument_size_in_bytes if memory else 0,
      'peak_bytes': peak, 'trace': traces[-1] if traces else None}


def random_bank(cut: bank.Cut) -> bank.Bank:
  """Eight random pictures of twice the patch."""
  scale, side = cut.scale, 2 * cut.patch // cut.scale
  size = cut.channels * side * side * (scale**2 + 1)
  pixels = np.random.default_rng(0).integers(0, 256, (1, 8 * size), np.uint8)
  table = [(0, at, at + cut.channels * (side * scale)**2, side, side)
           for at in range(0, 8 * size, size)]
  return bank.Bank(jnp.asarray(pixels), jnp.asarray(np.array(table, np.int32)))
