"""Counts the kernels of training steps, compiled for a GPU that need not be present.

  pip install "jax[cuda13]"   (3.9 GB)
  python -m tests.benchmarks.kernels
  python -m tests.benchmarks.kernels --only srresnet --dump FOLDER
  python -m tests.benchmarks.kernels --write

Compiles the steps of srresnet, srgan, esrgan, edsr, compact and realesrgan for an NVIDIA H200, as a
run on one would: in bfloat16, with the batch of the config, in a loop on the device. Prints the
kernels of one step by part ('batch' contains the degradations of realesrgan), and seconds to trace,
to lower and to compile. Exit status 1 if a step has over 5% more kernels than in
tests/golden/kernels.json (for this version of jax), if a convolution is not a call of cuDNN in NHWC
and bfloat16, or if the convolutions and products have not the FLOPs of the step's jaxpr within 3%.
cuDNN's algorithms are not tuned, since there is nothing to time them on; a tuned program may have a
few kernels more or less.
"""

import argparse
import json
import pathlib
import time
from typing import NamedTuple

import jax

from sr_jax.profiling import gpu_compiler, program, target_file
from sr_jax.profiling.products import products
from sr_jax.profiling.target_programs import jitted_step
from tests.benchmarks.versus_torch import task_config

STEPS = ('srresnet', 'srgan', 'esrgan', 'edsr', 'compact', 'realesrgan')
GOLDEN = pathlib.Path(__file__).parents[1] / 'golden' / 'kernels.json'
SPARE = 1.05
FLOPS_RANGE = 0.97, 1.03  # of the compiled program to the jaxpr; XLA pads some products
CONVOLUTIONS = 'cuDNN bfloat16 NHWC'


class Compiled(NamedTuple):
  """A compiled step: its program's text, seconds of each stage, FLOPs of the jaxpr's products."""

  text: str
  seconds: dict[str, float]
  flops: float


def gpu() -> jax.Device:
  """Returns an H200 that is not present."""
  gpu_compiler.use_cpu_alone()
  gpu_compiler.check_plugin()
  return gpu_compiler.device(target_file.read('h200'))


def compile_step(name: str, device: jax.Device) -> Compiled:
  """Compiles the step of a config's last phase."""
  times = []
  with gpu_compiler.traced_for(device):
    run, shapes = jitted_step(task_config(name, precision='bfloat16'))
    times.append(time.perf_counter())
    traced = run.trace(*shapes)
    times.append(time.perf_counter())
    lowered = traced.lower(lowering_platforms=('cuda',))
    times.append(time.perf_counter())
    text = lowered.compile(gpu_compiler.OPTIONS).as_text()
    times.append(time.perf_counter())
  seconds = {stage: end - begin for stage, begin, end in zip(
      ('trace', 'lower', 'compile'), times, times[1:], strict=False)}
  return Compiled(text, seconds, products(traced.jaxpr)['flops'])


def problems(counts: program.Counts, compiled: Compiled, most: int | None) -> list[str]:
  """Returns what is wrong with a step.

  Args:
    most: the largest number of kernels that is accepted; None if unknown.
  """
  found = []
  if most is not None and counts.kernels > most:
    found.append(f'{counts.kernels} kernels, at most {most} were expected')
  found += [f'{number} convolutions are {kind}, expected {CONVOLUTIONS}'
            for kind, number in counts.convolutions.items() if kind != CONVOLUTIONS]
  ratio = sum(counts.product_flops.values()) / compiled.flops
  if not FLOPS_RANGE[0] < ratio < FLOPS_RANGE[1]:
    found.append(f'{ratio:.2f} of the FLOPs of the jaxpr')
  return found


def describe(name: str, counts: program.Counts, compiled: Compiled) -> str:
  parts = ', '.join(f'{part} {number}' for part, number in sorted(
      counts.kernels_by_part.items(), key=lambda item: -item[1]))
  kinds = ', '.join(f'{number} {kind}' for kind, number in counts.convolutions.items())
  times = ', '.join(f'{stage} {seconds:.1f}' for stage, seconds in compiled.seconds.items())
  flops = sum(counts.product_flops.values())
  return '\n  '.join([
      f'{name}: {counts.kernels} kernels', parts,
      f'convolutions: {kinds}; copies and casts {counts.copies}, transposes {counts.transposes}',
      f'{flops / 1e12:.3f} TFLOP in products, {flops / compiled.flops:.3f} of the jaxpr\'s; '
      f'{sum(counts.bytes.values()) / 1e9:.2f} GB', f'seconds: {times}'])


def main(args: argparse.Namespace) -> int:
  stored = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
  expected, failed, device = stored.setdefault(jax.__version__, {}), False, gpu()
  for name in args.only:
    compiled = compile_step(name, device)
    counts = program.read(compiled.text)
    print(describe(name, counts, compiled), flush=True)
    if args.dump:
      args.dump.mkdir(parents=True, exist_ok=True)
      (args.dump / f'{name}.hlo.txt').write_text(compiled.text)
    if args.write:
      expected[name] = counts.kernels
    elif name not in expected:
      print(f'  tests/golden/kernels.json has no number for jax {jax.__version__}: --write adds it')
    most = int(SPARE * expected[name]) if name in expected else None
    for problem in problems(counts, compiled, most):
      print(f'  wrong: {problem}')
      failed = True
    jax.clear_caches()
  if args.write:
    GOLDEN.write_text(json.dumps(stored, indent=1) + '\n')
  return int(failed)


def parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  add = parser.add_argument
  add('--only', nargs='+', choices=STEPS, default=STEPS, metavar='STEP', help='compile these')
  add('--dump', type=pathlib.Path, help='also write the programs to this folder')
  add('--write', action='store_true', help='store the numbers of kernels')
  return parser


if __name__ == '__main__':
  raise SystemExit(main(parser().parse_args()))
