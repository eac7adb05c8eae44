"""Computes the table of all full-size experiments on the GPUs of sr-jax profile --target.

  pip install "jax[cuda13]"   (3.9 GB)
  JAX_PLATFORMS=cpu python -m tests.benchmarks.target_table --store FOLDER --write
  JAX_PLATFORMS=cpu python -m tests.benchmarks.target_table --store FOLDER --only srresnet srgan

Compiles every phase of each experiment once for each compute capability, in the dtype of the
config, and puts the table into docs/performance.md (--write) or prints it. What was compiled is
kept in FOLDER as JSON, so that an interrupted run goes on; begin with an empty folder after a
change of the code. Images on the GPU are not counted. Takes some 15 minutes on two idle cores.
"""

import argparse
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from sr_jax.experiment import config_file, inputs, phases
from sr_jax.profiling import gpu_compiler, program, target_file
from sr_jax.profiling.target_file import Target
from sr_jax.profiling.target_fit import largest_batch
from sr_jax.profiling.target_programs import Programs, vgg_shapes
from sr_jax.profiling.target_times import times

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'performance.md'
BEGIN, END = '<!-- table of targets -->\n\n', '\n<!-- end of the table -->\n'
# With the number of training images where the config counts epochs.
EXPERIMENTS = {
    'srresnet': 0, 'srgan': 0, 'edsr': 0, 'compact': 0, 'srcnn': 0, 'coco_gan': 0,
    'celeba_srgan': 0, 'usc_srgan': 800, 'edsr:full': 0, 'rrdb': 0, 'esrgan': 0,
    'esrgan_finetune': 80}
TARGETS = {name: target_file.read(name) for name in target_file.TARGETS}
COMPILED = dict.fromkeys(target_file.compiled_as(target) for target in TARGETS.values())


def load(name: str) -> ConfigDict:
  config = config_file.override(config_file.load(name, 'profile'), {}, name)
  return inputs.epochs_to_steps(config, EXPERIMENTS[name] or 1)


def compile_experiment(name: str, target: Target) -> dict[str, Any]:
  """Returns the counts and bytes of each phase, and the largest batch of GPUs that it does not fit.
  """
  config = load(name)
  programs, found = Programs(config, target), {'phases': {}, 'largest': {}}
  for phase in phases.build(config, vgg_shapes).phases:
    step = programs.step(phase.name)
    found['phases'][phase.name] = {
        'steps': phase.stop - phase.start, 'bytes': step.bytes,
        'counts': program.read(step.program.text)._asdict()}
  main = max(reversed(found['phases']), key=lambda name: found['phases'][name]['bytes'])

  def need(batch: int) -> int:
    changes = {} if batch == config.batch_size else {'batch_size': batch}
    return programs.step(main, **changes).bytes

  for key, other in TARGETS.items():
    if other.capability == target.capability and need(config.batch_size) > other.budget:
      found['largest'][key] = largest_batch(need, other.budget, config.batch_size,
                                            config.accumulate)
  return found


def cell(found: Mapping[str, Any], name: str, target: Target) -> str:
  """Returns '11 ms, 0.8 h': the estimates of the last phase's step and of all steps."""
  if name in found['largest']:
    largest = found['largest'][name]
    return f'batch {largest}' if largest else 'does not fit'
  estimates = {phase: times(program.Counts(**values['counts']), target).estimate
               for phase, values in found['phases'].items()}
  hours = sum(values['steps'] * estimates[phase]
              for phase, values in found['phases'].items()) / 3600
  last = 1e3 * list(estimates.values())[-1]
  total = f'{hours:,.{0 if hours >= 10 else 1}f} h' if hours >= 0.1 else f'{3600 * hours:.0f} s'
  return f'{last:,.0f} ms, {total}'


def row(name: str, store: Mapping[str, Mapping[str, Any]]) -> str:
  config = load(name)
  needs = max(phase['bytes'] for found in store.values() for phase in found['phases'].values())
  cells = [cell(store[target.capability], key, target) for key, target in TARGETS.items()]
  size = f'{config.batch_size} of {config.hr_patch}x{config.hr_patch}'
  return f'| `{name}`, {size} | {needs / 2**30:.1f} | {" | ".join(cells)} |'


def main(args: argparse.Namespace) -> None:
  gpu_compiler.use_cpu_alone()
  gpu_compiler.check_plugin()
  args.store.mkdir(parents=True, exist_ok=True)
  titles = [target.name.removeprefix('NVIDIA ').removeprefix('GeForce ')
            for target in TARGETS.values()]
  lines = [f'| experiment, batch | GiB | {" | ".join(titles)} |', '|---' * (2 + len(titles)) + '|']
  for name in args.only:
    store = {}
    for target in COMPILED:
      path = args.store / f'{name.replace(":", "-")}-{target.capability}.json'
      if not path.exists():
        print(name)
        path.write_text(json.dumps(compile_experiment(name, target)))
      store[target.capability] = json.loads(path.read_text())
    lines.append(row(name, store))
    print(lines[-1], flush=True)
  table = '\n'.join(lines) + '\n'
  if args.write:
    before, rest = PAGE.read_text('utf-8').split(BEGIN)
    PAGE.write_text(f'{before}{BEGIN}{table}{END}{rest.split(END)[1]}', 'utf-8')
  else:
    print(table)


def parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  add = parser.add_argument
  add('--store', type=pathlib.Path, required=True, help='folder of what was compiled')
  add('--only', nargs='+', choices=EXPERIMENTS, default=list(EXPERIMENTS), metavar='NAME',
      help='these experiments')
  add('--write', action='store_true', help='put the table into docs/performance.md')
  return parser


if __name__ == '__main__':
  main(parser().parse_args())
