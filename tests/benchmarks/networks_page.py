"""Writes docs/networks.md, the table by which to choose a network.

  python -m tests.benchmarks.networks_page > docs/networks.md
  python -m tests.benchmarks.networks_page --count [--only edsr span]
  python -m tests.benchmarks.networks_page --time
  JAX_PLATFORMS=cpu python -m tests.benchmarks.networks_page --gpu     (with jax[cuda13])

The page is made of the code and of networks.json beside this file, whose figures take minutes: the
options add those of all networks, or of --only. --count traces each network for an LR of 256x256.
--time times it at 128x128 on an otherwise idle machine, in turns with EDSR's baseline in the same
process. --gpu compiles it for an H200, in bfloat16 for 256x256, and computes a time as `sr-jax
profile --target` does. Of another machine or version, measure all networks again.

Neither the published figures nor the measured ones are of use to an installed sr_jax, so that this
program is here and not in the package.
"""

import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from sr_jax.models import variable_shapes
from sr_jax.pretrained import families
from sr_jax.profiling import gpu_compiler, program, target_file
from sr_jax.profiling.products import products
from sr_jax.profiling.summary import receptive_field
from sr_jax.profiling.target_times import times
from sr_jax.system import cli, files
from tests.benchmarks.networks_list import NETWORKS, Network
from tests.benchmarks.turns import take_turns

FIGURES = pathlib.Path(__file__).with_name('networks.json')
COUNTED_SIDE, TIMED_SIDE, REFERENCE, TARGET = 256, 128, 'edsr', 'h200'
WHOLE = 'the image'

OPENING = '''\
<!-- Generated: python -m tests.benchmarks.networks_page > docs/networks.md -->

# Networks

Every network of sr_jax in its published sizes, at x4. `sr-jax summary --config NAME` has the same
for any other size, and [training](training.md#the-experiments) says what each experiment trains. A
cell without a figure is unmeasured.
'''
COST = '''\
## Size and cost

GFLOP are those of the convolutions and matrix products for one LR of 256x256, two for each
multiplication and addition. The field is the side of the square of LR pixels that a pixel of the
result depends on. "{whole}" means that there is no such square: sums over the image reach all of
it, and windows of attention pass on from block to block what they see. CPU is the time for an LR of
128x128 on two cores, compared with EDSR's{seconds}. GPU is computed, not measured: kernels and
milliseconds for an LR of 256x256 in bfloat16 on an {gpu}
([how](performance.md#a-gpu-that-you-do-not-have)).
'''
QUALITY = '''\
## Quality

PSNR in dB and SSIM, luma, border of 4 pixels. Published figures are those of the source, with the
images that it trained on; DF2K is DIV2K and Flickr2K. "Here" are the authors' weights, evaluated by
sr_jax. No network has been trained here in full size;
[training](training.md#the-experiments) has the results of small ones.
'''
SCORES = '''\
## Published weights at other scales

Evaluated by sr_jax ([which there are](weights.md#published-networks)).
'''
EXPORTS = '''\
## Exports

The names in which `sr-jax weights export` writes a network and `import` reads it, for the tools of
[weights](weights.md#which-files-are-read). All can be written in our own, `sr_jax`.
'''


def page() -> str:
  """Returns the text of docs/networks.md."""
  figures = json.loads(FIGURES.read_text())
  cpu = figures['cpu']
  seconds = f" ({cpu['reference_seconds']:.2f} s, float32)" if cpu else ''
  cost = COST.format(whole=WHOLE, seconds=seconds, gpu=target_file.read(TARGET).name)
  return '\n'.join([OPENING, cost, _cost_table(figures), QUALITY, _quality_table(figures),
                    SCORES, _scores_table(figures['scores']), EXPORTS, _exports_table()])


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  lines = [heads, ['---'] * len(heads), *rows]
  return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def _cost_table(figures: Mapping[str, Any]) -> str:
  rows = []
  for key, network in NETWORKS.items():
    counted, gpu = figures['counted'].get(key), figures['gpu'].get(key)
    ratio = figures['cpu'].get('ratios', {}).get(key)
    rows.append([
        network.title, f'`{network.config}`',
        *([f'{counted["parameters"]:,}', f'{counted["gflop"]:,.0f}',
           str(counted['field'] or WHOLE)] if counted else ['', '', '']),
        f'{ratio:.2g}' if ratio else '',
        f'{gpu["kernels"]:,}, {gpu["ms"]:.1f} ms' if gpu else ''])
  return _table(['network', 'experiment', 'parameters', 'GFLOP', 'field', 'CPU', 'GPU'], rows)


def _quality_table(figures: Mapping[str, Any]) -> str:
  rows = []
  for network in NETWORKS.values():
    if not network.published and not network.weights:
      continue
    score = figures['scores'].get(network.weights, {})
    here = ', '.join(f'{name} {_score(values)}' for name, values in score.items())
    sets = [network.published.get(name, '') for name in ('Set5', 'Set14', 'Urban100')]
    rows.append([network.title, *sets, network.source,
                 f'`{network.weights}`: {here}' if here else ''])
  return _table(['network', 'Set5', 'Set14', 'Urban100', 'source', 'here'], rows)


def _scores_table(scores: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
  shown = {network.weights for network in NETWORKS.values()}
  return _table(['weights', 'Set5', 'Set14'],
                [[f'`{weights}`', *(_score(found.get(name, ())) for name in ('Set5', 'Set14'))]
                 for weights, found in scores.items() if weights not in shown])


def _score(values: Sequence[float]) -> str:
  """Returns '32.204 / .8952' of PSNR and, if there is one, SSIM."""
  return ' / '.join(f'{value:.3f}' if value > 1 else f'{value:.4f}'.lstrip('0')
                    for value in values)


def _exports_table() -> str:
  rows = []
  for network in NETWORKS.values():
    found = [f'`{family}`' for family, of in families.FAMILIES.items()
             if network.name in of.networks and of.networks[network.name](network.build())]
    rows.append([network.title, ', '.join(found)])
  return _table(['network', 'names of other tools'], rows)


# Figures ---------------------------------------------------------------------------------------


def count(network: Network) -> dict[str, Any]:
  """Returns {'parameters', 'gflop', 'field'}; the field is None if it is the whole image."""
  generator = network.build()
  field, _ = receptive_field(generator.clone(groups=1) if _groups(generator) else generator)
  if field is not None and _groups(generator):
    raise ValueError(f'{network.title}: local, but counted with one group')
  return _sizes(generator) | {'field': field}


def _groups(generator: nn.Module) -> int:
  return getattr(generator, 'groups', 0)


def _sizes(generator: nn.Module) -> dict[str, float]:
  groups = _groups(generator)
  if groups > 2:  # they are alike; tracing all of them takes minutes
    one, two = (_sizes(generator.clone(groups=number)) for number in (1, 2))
    return {key: round(one[key] + (groups - 1) * (two[key] - one[key]), 3) for key in one}
  shapes = variable_shapes(generator)
  lr = jax.ShapeDtypeStruct((1, COUNTED_SIDE, COUNTED_SIDE, 3), jnp.float32)
  flops = products(jax.make_jaxpr(generator.apply)(shapes, lr))['flops']
  return {'parameters': sum(leaf.size for leaf in jax.tree.leaves(shapes['params'])),
          'gflop': round(flops / 1e9, 3)}


def time_ratio(network: Network, seconds: float) -> tuple[float, float]:
  """Returns (seconds of the reference, those of the network over them): medians of turns."""
  runs = {}
  for name, of in (('sr_jax', NETWORKS[REFERENCE]), ('other', network)):
    generator = of.build()
    variables = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01, leaf.dtype),
                             variable_shapes(generator))
    lr = jnp.asarray(np.random.default_rng(0).random((1, TIMED_SIDE, TIMED_SIDE, 3), np.float32))
    apply = jax.jit(generator.apply)
    runs[name] = lambda apply=apply, variables=variables, lr=lr: apply(variables, lr)
  durations = take_turns(runs, seconds, lambda: None).durations
  reference, other = (np.array(durations[name]) for name in runs)
  return float(np.median(reference)), float(np.median(other / reference))


def compile_for_gpu(network: Network) -> dict[str, float]:
  """Returns {'kernels', 'ms'} of the compiled network, in bfloat16."""
  target = target_file.read(TARGET)
  gpu, generator = gpu_compiler.device(target), network.build(jnp.bfloat16)
  with gpu_compiler.traced_for(gpu):
    run = jax.jit(generator.apply, in_shardings=jax.sharding.SingleDeviceSharding(gpu))
    lr = jax.ShapeDtypeStruct((1, COUNTED_SIDE, COUNTED_SIDE, 3), jnp.float32)
    compiled = gpu_compiler.compile_for_gpu(run, variable_shapes(generator), lr)
  counts = program.read(compiled.text)
  return {'kernels': counts.kernels, 'ms': round(1e3 * times(counts, target).estimate, 3)}


def measure(kind: str, keys: Sequence[str], seconds: float) -> None:
  """Adds figures of networks to networks.json, each when it is known.

  Args:
    kind: 'counted', 'cpu' or 'gpu'.
  """
  if kind == 'gpu':
    gpu_compiler.use_cpu_alone()
    gpu_compiler.check_plugin()
  for key in keys:
    figures, network = json.loads(FIGURES.read_text()), NETWORKS[key]
    if kind == 'cpu':
      reference, ratio = time_ratio(network, seconds)
      ratios = figures['cpu'].get('ratios', {}) | {key: round(ratio, 3)}
      found = {'reference_seconds': round(reference, 3), 'ratios': ratios}
      figures['cpu'] = {'command': 'python -m tests.benchmarks.networks_page --time'} | found
    else:
      found = count(network) if kind == 'counted' else compile_for_gpu(network)
      figures[kind][key] = found
    print(key, found, flush=True)
    files.write_json(FIGURES, figures)


def main(arguments: Sequence[str] | None = None) -> None:
  """Runs the command line."""
  parser = cli.Parser('python -m tests.benchmarks.networks_page', __doc__)
  add = parser.add_argument
  for flag, kind in (('--count', 'counted'), ('--time', 'cpu'), ('--gpu', 'gpu')):
    add(flag, dest='kind', action='store_const', const=kind, help=f'add figures: {kind}')
  add('--only', nargs='+', choices=NETWORKS, default=list(NETWORKS), metavar='NETWORK',
      help=f'of these networks: {", ".join(NETWORKS)}')
  add('--seconds', type=float, default=20, help='of --time, for each network')
  args = parser.parse_args(arguments)
  if args.kind:
    measure(args.kind, args.only, args.seconds)
  else:
    print(page(), end='')


if __name__ == '__main__':
  sys.exit(cli.run(main))
