"""Measures sr_jax on a GPU, in stages with a time limit each, and writes one JSON file.

  bash tests/benchmarks/gpu.sh --output gpu-run
  bash tests/benchmarks/gpu.sh --output again --only srgan-compile training
  bash tests/benchmarks/gpu.sh --output trial --cpu-sizes --only srresnet training

--computed FOLDER puts the computed times of `sr-jax profile --config NAME --config.dtype=bfloat16
--target h200 --workdir FOLDER/NAME` (NAME is srresnet, srgan or esrgan) beside the measured ones.

Stages, in this order (gpu_stages.py):
  environment                 GPU, driver, versions
  srresnet, srgan, esrgan     training steps beside eager PyTorch, bfloat16, as in versus_torch.py;
                              without PyTorch, sr_jax alone
  profile                     sr-jax profile of srresnet, with a trace
  srresnet-compile, ...       the same steps beside torch.compile
  training                    sr-jax train of srresnet on BSDS500, for the rest of the time; PSNR on
                              Set5

Each stage is a process of its own. One that fails or exceeds its limit is recorded as one line, and
the next one runs. FOLDER/gpu.json is written after each stage:
  environment                 device, driver (in `nvidia_smi`), packages
  steps                       {stage: {'variants': {variant: {'ms': quartiles, 'ratio': quartiles,
                              'first_call_seconds'}}}}; ratio: its time divided by that of sr_jax
  profile, training           summaries; all of the profile and its trace are in FOLDER/profile
  computed_by_profile_target  {step: {'measured_ms', 'measured_kernels', 'computed'}}, the last of
                              which is what --computed has for each GPU, or null
  stage_seconds, errors       of each stage
The exit status is 1 if a stage failed, and 2, with nothing written, on a machine without a GPU.
"""

import argparse
import contextlib
import datetime
import json
import math
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sr_jax.errors import InputError
from sr_jax.system import files

ROOT = pathlib.Path(__file__).parents[2]


class Stage(NamedTuple):
  """A stage and the seconds that it may take."""

  name: str
  limit: float


STEPS = 'srresnet', 'srgan', 'esrgan'
PROFILED = 'srresnet'
STAGES = (Stage('environment', 60), Stage('srresnet', 80), Stage('srgan', 90),
          Stage('esrgan', 120), Stage('profile', 90),
          *(Stage(f'{name}-compile', 110) for name in STEPS), Stage('training', math.inf))
TRAINING_SECONDS = 120  # that the stages before it leave to the training
MIN_SECONDS = 15  # a stage with less time is not started
GRACE_SECONDS = 5  # for a stage that has its time's end in view itself


def network(stage: str) -> str:
  """Returns 'srgan' for the stages srgan and srgan-compile."""
  return stage.removesuffix('-compile')


def run_stages(args: argparse.Namespace) -> int:
  """Runs the stages, writes gpu.json after each, and returns the exit status.

  Raises:
    InputError: the output folder is in use, or there is no GPU.
  """
  start, folder = time.monotonic(), files.expand(args.output).absolute()
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    raise InputError(f'--output {args.output}: exists already; name a new folder')
  computed = {name: read_computed(files.expand(args.computed), name)
              for name in STEPS if args.computed}
  if args.computed and not any(computed.values()):
    raise InputError(f'--computed {args.computed}: no {STEPS[0]}/profile/target-NAME.json there')
  stages = [stage for stage in STAGES
            if stage.name == 'environment' or not args.only or stage.name in args.only]
  report = new_report(args)
  with killed_children() as children:
    for stage in stages:
      began = time.monotonic()
      left = args.seconds - (began - start)
      kept = TRAINING_SECONDS if stages[-1].name == 'training' and stage != stages[-1] else 0
      seconds = left if args.cpu_sizes else min(stage.limit, left - kept)
      result = ({'error': 'no time was left'} if seconds < MIN_SECONDS else
                run_stage(stage.name, seconds, folder, args.cpu_sizes, children))
      if stage.name == 'environment' and result.get('backend') == 'cpu' and not args.cpu_sizes:
        shutil.rmtree(folder)
        raise InputError('no GPU: JAX computes on the CPU here; --cpu-sizes tries the script out '
                         'with tiny networks')
      add(report, stage.name, result, time.monotonic() - began)
      report['computed_by_profile_target'] = compare(report, computed)
      files.write_json(folder / 'gpu.json', report)
      print(f'{stage.name}: {report["errors"].get(stage.name, "done")}, '
            f'{report["stage_seconds"][stage.name]:.0f} s', flush=True)
  print(folder / 'gpu.json')
  return 1 if report['errors'] else 0


# The JSON file -----------------------------------------------------------------------------


def new_report(args: argparse.Namespace) -> dict[str, Any]:
  """Returns the content of gpu.json before the first stage."""
  return {'started': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
          'sizes': 'tiny' if args.cpu_sizes else 'of the configs', 'seconds_allowed': args.seconds,
          'environment': None, 'steps': {}, 'profile': None, 'training': None,
          'computed_by_profile_target': {}, 'stage_seconds': {}, 'errors': {}}


def add(report: dict[str, Any], stage: str, result: dict[str, Any], seconds: float) -> None:
  """Adds the result of a stage to a report; its 'error' goes to the errors."""
  result = dict(result)
  report['stage_seconds'][stage] = round(seconds, 1)
  if 'error' in result:
    report['errors'][stage] = result.pop('error')
  if network(stage) not in STEPS:
    report[stage] = result or None
  elif result:
    report['steps'][stage] = result


def compare(report: dict[str, Any], computed: dict[str, Any]) -> dict[str, Any]:
  """Returns the measured times and kernels of each step beside the computed ones.

  Args:
    report: content of gpu.json.
    computed: `read_computed` of each step.
  """
  result = {}
  for name in STEPS:
    ours = report['steps'].get(name, {}).get('variants', {}).get('sr_jax')
    trace = (report['profile'] or {}).get('trace', {}) if name == PROFILED else {}
    if ours:
      result[name] = {'measured_ms': ours['ms'][1],
                      'measured_kernels': trace.get('kernels_per_step'),
                      'computed': computed.get(name)}
  return result


def read_computed(folder: pathlib.Path, name: str) -> dict[str, Any] | None:
  """Reads what `sr-jax profile --target` computed for a config's last phase, by target.

  Raises:
    InputError: a file has not the content that it writes.
  """
  found = {}
  for path in sorted((folder / name / 'profile').glob('target-*.json')):
    try:
      content = json.loads(path.read_text('utf-8'))
      *_, phase = content['phases'].values()
      found[path.stem.removeprefix('target-')] = {
          'lower_bound_ms': 1e3 * phase['lower_bound_seconds'],
          'estimate_ms': 1e3 * phase['estimate_seconds'], 'kernels': phase['kernels'],
          'needed_bytes': phase['needed_bytes'],
          **{key: content[key] for key in ('dtype', 'batch_size', 'hr_patch', 'jax')}}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
      raise InputError(f'{path}: not written by sr-jax profile --target '
                       f'({type(error).__name__}: {error})') from None
  return found or None


# Processes ---------------------------------------------------------------------------------


def run_stage(name: str, seconds: float, folder: pathlib.Path, cpu_sizes: bool,
              children: list[subprocess.Popen]) -> dict[str, Any]:
  """Runs a stage in a process of its own and returns what it found.

  Returns:
    The result, with 'error' if something failed. What the stage prints is in FOLDER/NAME.log.
  """
  folder.mkdir(parents=True, exist_ok=True)
  result, log = folder / f'{name}.json', folder / f'{name}.log'
  command = [sys.executable, '-m', 'tests.benchmarks.gpu_stages', name, str(folder),
             str(seconds - GRACE_SECONDS), *['--cpu-sizes'] * cpu_sizes]
  environment = {**os.environ, 'SR_JAX_CACHE': str(folder / 'cache'),
                 'JAX_COMPILATION_CACHE_DIR': str(folder / 'cache' / 'xla'),
                 'PYTHONPATH': f'{ROOT}{os.pathsep}{os.environ.get("PYTHONPATH", "")}'}
  if network(name) in STEPS:  # JAX and PyTorch share the GPU's memory
    environment['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'
  if os.environ.get('SR_JAX_ASSETS'):
    environment['SR_JAX_ASSETS'] = os.path.abspath(os.environ['SR_JAX_ASSETS'])
  with open(log, 'wb') as output:
    child = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
                             stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    children.append(child)
    try:
      status = child.wait(seconds)
    except subprocess.TimeoutExpired:
      kill(child)
      return {'error': f'exceeded {seconds:.0f} s'}
  try:
    return json.loads(result.read_text('utf-8'))
  except (OSError, ValueError):
    lines = log.read_text('utf-8', 'replace').strip().splitlines()
    return {'error': f'ended with status {status}: {lines[-1][:200] if lines else "no output"}'}


def kill(child: subprocess.Popen) -> None:
  """Kills a stage with the processes that it started, and waits for it."""
  with contextlib.suppress(ProcessLookupError):
    os.killpg(child.pid, signal.SIGKILL)
  child.wait()


@contextlib.contextmanager
def killed_children() -> Iterator[list[subprocess.Popen]]:
  """Yields a list whose processes are killed at the end, also by Ctrl-C and SIGTERM."""
  children = []
  previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
  try:
    yield children
  finally:
    for child in children:
      if child.poll() is None:
        kill(child)
    signal.signal(signal.SIGTERM, previous)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(prog='gpu.sh', description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  add = parser.add_argument
  add('--output', default='gpu-run', metavar='FOLDER', help='a new folder (default: gpu-run)')
  add('--only', nargs='+', choices=[stage.name for stage in STAGES], metavar='STAGE',
      help='run the environment stage and these')
  add('--computed', metavar='FOLDER', help='where profile --target wrote, see above')
  add('--seconds', type=float, default=570, help='that all stages may take (default: 570)')
  add('--cpu-sizes', action='store_true', help='tiny networks and batches, on a CPU too')
  return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs a command line and returns the exit status."""
  args = parse(arguments)
  try:
    return run_stages(args)
  except InputError as error:
    print(f'gpu.sh: {error}', file=sys.stderr)
    return 2


if __name__ == '__main__':
  sys.exit(main())
