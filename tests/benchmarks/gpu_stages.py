"""The stages of gpu.py, each in a process of its own.

  python -m tests.benchmarks.gpu_stages STAGE FOLDER SECONDS [--cpu-sizes]

Writes FOLDER/STAGE.json, with the key 'error' if something failed.
"""

import argparse
import collections
import functools
import importlib.metadata
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from sr_jax.profiling import traces
from sr_jax.profiling.run import TRACED_CALLS
from sr_jax.report import history
from sr_jax.runs import metadata
from sr_jax.system import files, memory, threads
from tests.benchmarks import torch_device, turns, versus_torch
from tests.benchmarks.gpu import STEPS

PACKAGES = ('jax', 'torch', 'triton', 'nvidia-cudnn', 'nvidia-cublas', 'nvidia-cuda-nvcc')
GPU_FIELDS = ('name', 'driver_version', 'memory.total', 'power.limit', 'clocks.max.sm',
              'compute_cap')
TINY = ('--config=srresnet:sample', '--config.generator.blocks=1', '--config.generator.features=8',
        '--config.batch_size=2', '--config.hr_patch=32')
LONGEST = 12  # kernels of the trace that are named
STOP_SECONDS = 25  # for a training to save its state after it was told to stop


class Request(NamedTuple):
  """What a stage may use.

  Attributes:
    folder: for what it writes.
    seconds: that it may take.
    tiny: whether it runs tiny sizes, for a CPU.
  """

  folder: pathlib.Path
  seconds: float
  tiny: bool


# Environment -------------------------------------------------------------------------------


def environment(request: Request) -> dict[str, Any]:
  """Returns the device, its driver and the versions of the packages."""
  return {**metadata.environment(jax.default_backend() != 'cpu'),
          'cpu': torch_device.processor_name(), 'cores': threads.cores(),
          'free_memory_bytes': memory.host_memory(), 'nvidia_smi': nvidia_smi(),
          'packages': {package.name: package.version for package in
                       sorted(importlib.metadata.distributions(), key=lambda found: found.name)
                       if package.name.startswith(PACKAGES)}}


def nvidia_smi() -> list[dict[str, str]]:
  """Returns GPU_FIELDS of each GPU; [] if nvidia-smi is missing or fails."""
  command = ['nvidia-smi', f'--query-gpu={",".join(GPU_FIELDS)}', '--format=csv,noheader']
  try:
    found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
  except (OSError, subprocess.SubprocessError):
    return []
  return [dict(zip(GPU_FIELDS, line.split(', '), strict=False))
          for line in found.stdout.splitlines()]


# Steps beside PyTorch ----------------------------------------------------------------------


def steps(request: Request, name: str, compiled: bool) -> dict[str, Any]:
  """Times the training step of a config beside PyTorch, eager or by torch.compile.

  If PyTorch is missing or fails, an eager stage times sr_jax alone.
  """
  sizes = ['--batch=2', '--patch=32', '--blocks=1', '--seconds=0'] if request.tiny else [
      f'--seconds={min(15, request.seconds / 4)}', f'--steps={5 if name == "esrgan" else 20}']
  args = versus_torch.parser().parse_args(
      ['--precision=bfloat16', '--compile' if compiled else '--eager', *sizes])
  try:
    device = torch_device.open_device(args.threads)
    measured = versus_torch.measure(name, args, device)
    failures = [f'{variant}: {line}' for variant, line in measured.failures.items()]
    allocated = device.torch.cuda.max_memory_allocated() if device.name == 'cuda' else None
  except (Exception, SystemExit) as error:
    if compiled:
      raise
    measured, failures, allocated = alone(name, args), [f'PyTorch: {one_line(error)}'], None
  stats = jax.devices()[0].memory_stats() or {}
  result = {'batch': measured.described, 'precision': args.precision,
            'steps_per_call': measured.count, 'rounds': len(measured.durations['sr_jax']),
            'variants': {variant: {**found, 'first_call_seconds': measured.first[variant]}
                         for variant, found in measured.quartiles().items()},
            'peak_bytes': {'sr_jax': stats.get('peak_bytes_in_use'), 'PyTorch': allocated}}
  return result | ({'error': '; '.join(failures)} if failures else {})


def alone(name: str, args: argparse.Namespace) -> turns.Measured:
  """Times the step of sr_jax without PyTorch."""
  config, described = versus_torch.described_config(name, args, jax.default_backend() == 'cpu')
  experiment = versus_torch.build_experiment(config)
  count = args.steps if experiment.device_loop else 1
  runs = {'sr_jax': versus_torch.jax_step(config, experiment, count)}
  return turns.take_turns(runs, args.seconds, lambda: None, described, count)


# Profile -----------------------------------------------------------------------------------


def profile(request: Request) -> dict[str, Any]:
  """Runs sr-jax profile on srresnet and returns a summary of its measurements and its trace."""
  workdir = request.folder / 'profile'
  process = start_command('profile', workdir, settings(request))
  if process.wait():
    raise SystemExit(f'sr-jax profile ended with status {process.returncode}, see profile.log')
  found = json.loads((workdir / 'profile' / 'profile.json').read_text('utf-8'))
  measured, = found['phases'].values()
  events = traces.read(workdir / 'profile' / measured['trace'])
  return {'data': found['data'], 'ceilings': found['ceilings'],
          **{key: measured[key] for key in (
              'step', 'in_a_row', 'parts', 'operations', 'idle_share', 'memory_bytes',
              'peak_bytes', 'compile_seconds', 'verdict')},
          'trace': summarise_trace(events, TRACED_CALLS * measured['steps_of_dispatch'])}


def summarise_trace(events: Sequence[traces.Event], count: int) -> dict[str, Any]:
  """Summarises what the device ran in a trace of `count` steps.

  Returns:
    'kernels_per_step', 'kernel_ms_per_step' (their sum), and 'longest': [name, ms per step, number
    per step] of those that took the most time in all; null and [] without a device.
  """
  operations = [event for found in traces.operations_by_device(events).values() for event in found]
  microseconds, number = collections.Counter(), collections.Counter()
  for event in operations:
    microseconds[event['name']] += event['dur']
    number[event['name']] += 1
  return {'steps': count, 'kernels_per_step': len(operations) / count if operations else None,
          'kernel_ms_per_step': (sum(microseconds.values()) / 1e3 / count if operations else None),
          'longest': [[name, total / 1e3 / count, number[name] / count]
                      for name, total in microseconds.most_common(LONGEST)]}


# Training ----------------------------------------------------------------------------------


def training(request: Request) -> dict[str, Any]:
  """Trains srresnet until the time is over and returns its speed and PSNR."""
  if not request.tiny and not os.environ.get('SR_JAX_ASSETS'):
    raise SystemExit('SR_JAX_ASSETS is not set: it names the folder that has BSDS500 and Set5')
  stop, workdir = time.monotonic() + request.seconds - STOP_SECONDS, request.folder / 'training'
  every = 4 if request.tiny else 2_000
  process = start_command('train', workdir, [
      *settings(request), f'--config.eval.every={every}', '--config.eval.lpips=none',
      *(['--config.steps=8', '--config.optimizer.g.ramp=0', '--config.log_every=1']
        if request.tiny else ['--config.checkpoint_every=10000', '--config.sample_every=10000'])])
  try:
    process.wait(max(stop - time.monotonic(), 1))
  except subprocess.TimeoutExpired:
    process.send_signal(signal.SIGTERM)  # the run saves its state
    process.wait(STOP_SECONDS)
  finally:
    process.kill()  # does nothing if it has ended
  if process.returncode not in (0, 128 + signal.SIGTERM):
    raise SystemExit(f'sr-jax train ended with status {process.returncode}, see training.log')
  return summarise_training(workdir)


def summarise_training(workdir: pathlib.Path) -> dict[str, Any]:
  """Reads the speed and the last PSNR from the log of a run.

  Raises:
    ValueError: the log has too few lines to tell a speed.
  """
  run = history.read(workdir)
  speeds = run.curves.get('images_per_second')
  if speeds is None or len(speeds.finite.values) < 2:
    raise ValueError(f'{workdir}: fewer than two logged steps')
  psnr = run.curves.get('valid/psnr_y')
  # The first logged step follows a single call.
  per_second = speeds.finite.values[1:] / run.config['batch_size']
  result = {'steps': run.step, 'seconds': run.seconds, 'batch_size': run.config['batch_size'],
            'dtype': run.config['dtype'], 'source': run.config['data']['source'],
            'valid': run.config['data']['valid'],
            'steps_per_second': np.percentile(per_second, (25, 50, 75)).tolist(),
            'psnr_y_bicubic': run.baselines.get('bicubic', {}).get('valid/psnr_y')}
  if psnr is None or not len(psnr.finite.values):
    return result | {'psnr_y': None, 'error': f'no validation in {run.step} steps'}
  return result | {'psnr_y': float(psnr.finite.values[-1]),
                   'psnr_y_step': int(psnr.finite.steps[-1])}


def settings(request: Request) -> list[str]:
  """Returns the config of the profile and the training, without images if there are none."""
  if request.tiny:
    return [*TINY, '--config.dtype=bfloat16']
  assets = os.environ.get('SR_JAX_ASSETS')
  data = [f'--config.data.source=folder:{assets}/BSDS500',
          f'--config.data.valid=hr:{assets}/Set5/HR_x4'] if assets else []
  return ['--config=srresnet', '--config.dtype=bfloat16', *data]


def start_command(name: str, workdir: pathlib.Path, arguments: Sequence[str]) -> subprocess.Popen:
  """Starts sr-jax NAME in this process's group, so that it ends with this process."""
  return subprocess.Popen([sys.executable, '-m', 'sr_jax.main', f'--mode={name}',
                           f'--workdir={workdir}', *arguments])


# A stage -----------------------------------------------------------------------------------


STAGES = {'environment': environment, 'profile': profile, 'training': training,
          **{name: functools.partial(steps, name=name, compiled=False) for name in STEPS},
          **{f'{name}-compile': functools.partial(steps, name=name, compiled=True)
             for name in STEPS}}


def one_line(error: BaseException) -> str:
  """Returns the type and the first line of an error."""
  lines = str(error).strip().splitlines()
  text = lines[0] if lines else ''
  return text if isinstance(error, SystemExit) else f'{type(error).__name__}: {text}'


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs a stage, writes its JSON file and returns the exit status."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('stage', choices=STAGES)
  parser.add_argument('folder', type=pathlib.Path)
  parser.add_argument('seconds', type=float)
  parser.add_argument('--cpu-sizes', action='store_true')
  args = parser.parse_args(arguments)
  try:
    result = STAGES[args.stage](Request(args.folder, args.seconds, args.cpu_sizes))
  except (Exception, SystemExit) as error:
    traceback.print_exc()
    result = {'error': one_line(error)}
  files.write_json(args.folder / f'{args.stage}.json', result)
  return 1 if 'error' in result else 0


if __name__ == '__main__':
  sys.exit(main())
