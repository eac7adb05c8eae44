"""Compares training steps and inference with PyTorch: same networks, losses, batches and dtype.

  python -m tests.benchmarks.versus_torch
  python -m tests.benchmarks.versus_torch --only srresnet srgan --precision bfloat16 --compile
  python -m tests.benchmarks.versus_torch --only srresnet --blocks 4 --batch 4 --seconds 10

sr_jax runs the step of training: batches cropped from a bank, the non-finite guard, the EMA,
donated buffers, and on an accelerator --steps per call. PyTorch (torch_networks.py beside this
file) has its batch on the device already and keeps no EMA; it runs in channels_last with the
default Adam (foreach or fused). --eager adds PyTorch's default memory layout, --compile adds
torch.compile. On a CPU both flush denormal numbers to zero (torch_device.py), which the heading of
the table confirms. The PyTorch steps follow BasicSR, which evaluates D three times in a step of
SRGAN and five times in a step of ESRGAN. All variants take turns in one process, with the same
number of threads. Times are medians over rounds; ratios are medians of the ratios of each round,
with quartiles. VGG's weights are random.

Tasks: training steps srresnet, edsr, rrdb, srgan, esrgan, as in configs/; inference srresnet-128,
edsr-128, rrdb-128 (128x128 to 512x512) and srresnet-720, ... (1280x720 to 5120x2880). On a CPU
the -720 tasks are skipped by default, and some batches are smaller, which the table shows.
"""

import argparse
import copy
import datetime
import functools
import importlib
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sr_jax.experiment import phases
from sr_jax.experiment.optimizer import with_defaults
from sr_jax.models.vgg import VGG19
from sr_jax.profiling.run import random_feed
from sr_jax.step.state import TrainState, begin_phase, variables
from sr_jax.system.memory import host_memory
from sr_jax.system.text import format_bytes
from tests.benchmarks import torch_device
from tests.benchmarks.torch_device import Device
from tests.benchmarks.turns import Measured, Run, take_turns

if TYPE_CHECKING:
  import torch

STEPS = ('srresnet', 'edsr', 'rrdb', 'srgan', 'esrgan')
LR_SHAPES = {'128': (1, 128, 128, 3), '720': (1, 720, 1280, 3)}
INFERENCE = tuple(f'{name}-{size}' for size in LR_SHAPES for name in STEPS[:3])
CPU_BATCH = {'edsr': 4, 'rrdb': 2, 'esrgan': 2}


class Variant(NamedTuple):
  """A way to run PyTorch: with torch.compile or without, in its default layout or channels_last."""

  name: str
  compiled: bool = False
  default_layout: bool = False


def variants(args: argparse.Namespace) -> list[Variant]:
  """Returns the variants that the command line selects."""
  return ([Variant('channels_last')] + [Variant('eager', default_layout=True)] * args.eager
          + [Variant('compile', compiled=True)] * args.compile)


# Setting up --------------------------------------------------------------------------------


def task_config(name: str, batch: int | None = None, patch: int | None = None,
                blocks: int | None = None, precision: str = 'float32') -> ConfigDict:
  """Returns a config of configs/, reduced to its main phase."""
  config = importlib.import_module(f'configs.{name}').get_config(
      'torchvision' if name == 'srgan' else '')
  config.warmup_steps, config.init_from = 0, ''
  config.dtype = precision
  config.batch_size = batch or config.batch_size
  config.hr_patch = patch or config.hr_patch
  config.generator.blocks = blocks or {'rrdb': 23, 'esrgan': 23, 'realesrgan': 23}.get(name, 16)
  return config


def random_vgg(network: str = 'vgg19', weights: str = '', identity: str = '',
               dtype: Any = jnp.float32) -> Any:
  """Returns VGG19 variables by He's initialisation, which preserves the scale of features."""
  del network, weights, identity
  module = VGG19(('relu5_4',))
  shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda leaf: jnp.asarray(
      rng.standard_normal(leaf.shape, np.float32) * (2 / np.prod(leaf.shape[:3]))**0.5
      if leaf.ndim == 4 else np.zeros(leaf.shape, np.float32), dtype), shapes)


def build_experiment(config: ConfigDict) -> phases.Experiment:
  return phases.build(config, random_vgg)


def jax_step(config: ConfigDict, experiment: phases.Experiment, count: int) -> Run:
  """Returns run() -> metrics of the last of `count` steps; the caller waits for them."""
  source = random_feed(config)
  batches, phase = source.source_for(0, count), experiment.phases[-1]
  step = phases.jit_step(experiment, phase, source.batch_at)
  state, done = begin_phase(experiment.new_state(), phase.g_tx), 0

  def run() -> Mapping[str, jax.Array]:
    nonlocal state, done
    for start in range(done, done + count, count if experiment.device_loop else 1):
      state, metrics = step(state, batches, experiment.frozen, start, start + count)
    done += count
    return metrics

  return run


def torch_networks(config: ConfigDict, experiment: phases.Experiment, state: TrainState,
                   device: Device) -> list['torch.nn.Module | None']:
  """Returns [G, D or None, VGG or None] in PyTorch, channels_last, with a TrainState's weights."""
  from tests.benchmarks import torch_networks as networks
  g, d = experiment.generator, experiment.discriminator
  make = {'SRResNet': networks.SRResNet, 'EDSR': networks.EDSR,
          'RRDB': lambda features, blocks: networks.RRDB(features, blocks, g.growth)}
  generator, discriminator, vgg = make[type(g).__name__](g.features, g.blocks), None, None
  networks.copy_weights(generator, _variables(state.g))
  if d:
    discriminator = networks.Discriminator(d.widths, d.hidden, config.hr_patch)
    networks.copy_weights(discriminator, _variables(state.d))
  if 'vgg' in experiment.frozen:
    vgg = networks.VGG19(relu='relu' in config.loss.perceptual.layers)
    networks.copy_weights(vgg, experiment.frozen['vgg'])
  return [module and module.to(device.name).to(memory_format=device.torch.channels_last)
          for module in (generator, discriminator, vgg)]


def _variables(net: Any) -> dict[str, Any]:
  return variables(net)


def torch_step(config: ConfigDict, networks: list['torch.nn.Module | None'],
               device: Device) -> Callable[..., dict[str, 'torch.Tensor']]:
  """Returns step(lr, hr) -> losses, with new optimisers for these networks."""
  from tests.benchmarks import torch_networks as steps
  torch = device.torch
  g, d, vgg = networks
  autocast = functools.partial(torch.autocast, device.name, torch.bfloat16,
                               enabled=config.dtype == 'bfloat16')
  # `is not None`, because a module made by torch.compile has no truth value.
  adams = [torch.optim.Adam(module.parameters(), lr=fields.learning_rate,
                            betas=(fields.beta1, fields.beta2), eps=fields.epsilon)
           for module, fields in ((g, with_defaults(config.optimizer.g)),
                                  (d, with_defaults(config.optimizer.d)))
           if module is not None]
  if d is None:
    return steps.pixel_step(g, adams[0], config.loss.pixel.kind, autocast)
  make = {'vanilla': steps.srgan_step, 'relativistic': steps.esrgan_step}
  return make[config.loss.adversarial.kind](g, d, vgg, *adams, phases.build_loss(config), autocast)


def to_torch(array: np.ndarray | jax.Array, device: Device) -> 'torch.Tensor':
  """Converts an array [B, H, W, C] to a channels_last tensor [B, C, H, W] on the device."""
  tensor = device.torch.from_numpy(np.array(array).transpose(0, 3, 1, 2)).to(device.name)
  return tensor.contiguous(memory_format=device.torch.channels_last)


# The compared runs -------------------------------------------------------------------------


def training_runs(config: ConfigDict, args: argparse.Namespace,
                  device: Device) -> tuple[dict[str, Run], int]:
  """Returns ({variant: run}, the number of training steps in each run)."""
  experiment = build_experiment(config)
  count = args.steps if experiment.device_loop else 1
  networks = torch_networks(config, experiment, experiment.new_state(), device)
  rng, side = np.random.default_rng(0), config.hr_patch
  lr, hr = (to_torch(rng.random((config.batch_size, size, size, 3), np.float32), device)
            for size in (side // config.scale, side))
  runs = {'sr_jax': jax_step(config, experiment, count)}
  for variant in variants(args):
    copied = [module and _prepare(module, variant, device) for module in networks]
    batch = (lr.contiguous(), hr.contiguous()) if variant.default_layout else (lr, hr)
    runs[variant.name] = functools.partial(_repeat, torch_step(config, copied, device), count,
                                           *batch)
  return runs, count


def inference_runs(config: ConfigDict, shape: tuple[int, ...], args: argparse.Namespace,
                   device: Device) -> tuple[dict[str, Run], int]:
  """Returns ({variant: run}, the number of forward passes in each run).

  A forward pass is G in evaluation mode on one image, float32 to float32 on the device.
  """
  experiment = build_experiment(config)
  state = experiment.new_state()
  lr = np.random.default_rng(0).random(shape, np.float32)
  variables, image = _variables(state.g), jnp.asarray(lr)
  forward = jax.jit(experiment.generator.apply).lower(variables, image).compile()
  memory, free = forward.memory_analysis(), host_memory()
  needed = memory.temp_size_in_bytes + memory.output_size_in_bytes if memory else 0
  if device.name == 'cpu' and needed > free:  # a GPU raises an error, the host might swap
    raise MemoryError(f'needs {format_bytes(needed, "GiB")} of memory, '
                      f'{format_bytes(free, "GiB")} are free')
  count = 1 if device.name == 'cpu' else args.steps
  runs = {'sr_jax': functools.partial(_repeat, forward, count, variables, image)}
  g = torch_networks(config, experiment, state, device)[0].eval()
  for variant in variants(args):
    x = to_torch(lr, device)
    runs[variant.name] = functools.partial(
        _repeat, _torch_inference(_prepare(g, variant, device), config.dtype, device), count,
        x.contiguous() if variant.default_layout else x)
  return runs, count


def _torch_inference(module: 'torch.nn.Module', dtype: str, device: Device) -> Callable:
  torch, enabled = device.torch, dtype == 'bfloat16'

  def forward(x: 'torch.Tensor') -> 'torch.Tensor':
    with torch.inference_mode(), torch.autocast(device.name, torch.bfloat16, enabled=enabled):
      return module(x)

  return forward


def _prepare(module: 'torch.nn.Module', variant: Variant, device: Device) -> 'torch.nn.Module':
  """Returns a copy of a network in the variant's memory layout, compiled if it asks for it."""
  module = copy.deepcopy(module)
  if variant.default_layout:
    module = module.to(memory_format=device.torch.contiguous_format)
  return device.torch.compile(module) if variant.compiled else module


def _repeat(function: Callable, count: int, *arguments: Any) -> Any:
  for _ in range(count):
    result = function(*arguments)
  return result


# Measuring ---------------------------------------------------------------------------------


def row(name: str, measured: Measured) -> str:
  """Returns a line of the table: ms of each variant, and its ratio to sr_jax."""
  quartiles = measured.quartiles()
  cells = [name, measured.described, f'{quartiles["sr_jax"]["ms"][1]:.2f}']
  for variant in list(measured.durations)[1:]:
    if variant not in quartiles:
      cells += ['', 'failed']
      continue
    low, middle, high = quartiles[variant]['ratio']
    cells += [f'{quartiles[variant]["ms"][1]:.2f}', f'{middle:.2f} ({low:.2f} to {high:.2f})']
  return f'| {" | ".join([*cells, str(len(measured.durations["sr_jax"]))])} |'


def heading(args: argparse.Namespace, device: Device) -> str:
  """Returns a line on the machine, and the head of the table."""
  torch, is_cpu = device.torch, device.name == 'cpu'
  name = torch_device.processor_name() if is_cpu else torch.cuda.get_device_name()
  cuda = '' if is_cpu else f', CUDA {torch.version.cuda}'
  denormals = f', {torch_device.describe_denormals(torch)}' if is_cpu else ''
  cells = ['', 'batch', 'sr_jax, ms']
  for variant in variants(args):
    cells += [f'PyTorch {variant.name}, ms', f'{variant.name} / sr_jax']
  return '\n'.join([
      f'{datetime.date.today()}, {name}, {args.threads} threads, {args.precision}, jax '
      f'{jax.__version__}, torch {torch.__version__}{cuda}{denormals}', '',
      f'| {" | ".join([*cells, "rounds"])} |', '|' + '---|' * (len(cells) + 1)])


def described_config(name: str, args: argparse.Namespace, is_cpu: bool) -> tuple[ConfigDict, str]:
  """Returns the config of a task on this device, and the size of its batch or image."""
  network, _, size = name.partition('-')
  batch = args.batch or (CPU_BATCH.get(network) if is_cpu else None)
  config = task_config(network, batch, args.patch, args.blocks, args.precision)
  described = (f'{LR_SHAPES[size][2]}x{LR_SHAPES[size][1]}' if size else
               f'{config.batch_size} of {config.hr_patch}x{config.hr_patch}')
  return config, described + (f', {args.blocks} blocks' if args.blocks else '')


def measure(name: str, args: argparse.Namespace, device: Device) -> Measured:
  """Times the variants of a task.

  Raises:
    MemoryError, torch.OutOfMemoryError, jax.errors.JaxRuntimeError: it does not fit.
  """
  config, described = described_config(name, args, device.name == 'cpu')
  size = name.partition('-')[2]
  runs, count = (inference_runs(config, LR_SHAPES[size], args, device) if size
                 else training_runs(config, args, device))
  synchronize = device.torch.cuda.synchronize if device.name == 'cuda' else lambda: None
  return take_turns(runs, args.seconds, synchronize, described, count)


def line(name: str, args: argparse.Namespace, device: Device) -> str:
  """Times a task and returns its line of the table, or the error that it ended with."""
  try:
    measured = measure(name, args, device)
  except (MemoryError, device.torch.OutOfMemoryError, jax.errors.JaxRuntimeError) as error:
    described = described_config(name, args, device.name == 'cpu')[1]
    return f'| {name} | {described} | {str(error).splitlines()[0]} |'
  for variant, failure in measured.failures.items():
    print(f'{variant}: {failure}')
  return row(name, measured)


def main(args: argparse.Namespace) -> None:
  device = torch_device.open_device(args.threads)
  lines = [heading(args, device)]
  print(lines[0], flush=True)
  for name in args.only or [*STEPS, *(name for name in INFERENCE
                                      if device.name != 'cpu' or name.endswith('-128'))]:
    lines.append(line(name, args, device))
    print(lines[-1], flush=True)
    jax.clear_caches()
    if device.name == 'cuda':
      device.torch.cuda.empty_cache()
  if args.output:
    args.output.write_text('\n'.join(lines) + '\n')


def positive(text: str) -> int:
  number = int(text)
  if number < 1:
    raise ValueError(text)
  return number


def parser() -> argparse.ArgumentParser:
  threads = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  add = parser.add_argument
  add('--only', nargs='+', choices=(*STEPS, *INFERENCE), metavar='TASK', help='run these tasks')
  add('--batch', type=positive, help="crops in a batch (default: the config's)")
  add('--patch', type=positive, help="side of the HR crops (default: the config's)")
  add('--blocks', type=positive, help="the generator's blocks (default: 16; 23 for RRDB)")
  add('--precision', choices=('float32', 'bfloat16'), default='float32')
  add('--eager', action='store_true', help="also run PyTorch's default memory layout")
  add('--compile', action='store_true', help='also run torch.compile')
  add('--steps', type=positive, default=20, help='steps in each turn, on a GPU')
  add('--seconds', type=float, default=60, help='approximate duration of each task')
  add('--threads', type=int, default=threads, help='CPU threads of JAX and of PyTorch')
  add('--output', type=pathlib.Path, help='also write the table to this file')
  return parser


if __name__ == '__main__':
  # JAX and PyTorch share the GPU's memory, so JAX must not reserve most of it.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  main(parser().parse_args())
