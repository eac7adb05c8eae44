"""Training steps and inference beside PyTorch: the same networks, losses, batch and precision.

  python -m tests.benchmarks.versus_torch
  python -m tests.benchmarks.versus_torch --only srresnet srgan --precision bfloat16 --compile
  python -m tests.benchmarks.versus_torch --only srresnet --blocks 4 --batch 4 --seconds 10

Ours is what train.py dispatches: batches cut out of a bank, the guard, the moving average,
donated buffers, on an accelerator --steps a dispatch. PyTorch (tests/benchmarks/torch_networks.py)
has its batch on the device already, keeps no average, and runs in channels_last with plain Adam
as it comes (foreach or fused); --eager adds its default layout, --compile adds torch.compile.
BasicSR's steps are followed, which pass D three times in a step of SRGAN and five times in one of
ESRGAN. All sides take turns in one process, on as many threads; a figure is the median of the
rounds, a ratio that of each round's, with its quartiles. VGG's weights are random.

Tasks: the steps srresnet, edsr, rrdb, srgan, esrgan, of configs/; inference srresnet-128,
edsr-128, rrdb-128 (128x128 to 512x512) and srresnet-720, ... (1280x720 to 5120x2880). On a CPU
the default leaves -720 out and makes some batches smaller, which the table shows.
"""

import argparse
import contextlib
import copy
import datetime
import functools
import importlib
import os
import pathlib
import platform
import time
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from sr_jax.experiment import phases
from sr_jax.models.vgg import VGG19
from sr_jax.profiling.run import random_feed
from sr_jax.step import train_step
from sr_jax.system.memory import host_memory

STEPS = ('srresnet', 'edsr', 'rrdb', 'srgan', 'esrgan')
SIZES = {'128': (1, 128, 128, 3), '720': (1, 720, 1280, 3)}
INFERENCE = tuple(f'{name}-{size}' for size in SIZES for name in STEPS[:3])
CPU_BATCH = {'edsr': 4, 'rrdb': 2, 'esrgan': 2}


def task_config(name: str, batch: int | None = None, patch: int | None = None,
                blocks: int | None = None, precision: str = 'float32'):
  """A config of configs/, its main phase alone."""
  config = importlib.import_module(f'configs.{name}').get_config(
      'torchvision' if name == 'srgan' else '')
  config.warmup_steps, config.init_from = 0, ''
  config.dtype = precision
  config.batch_size = batch or config.batch_size
  config.hr_patch = patch or config.hr_patch
  config.generator.blocks = blocks or {'rrdb': 23, 'esrgan': 23}.get(name, 16)
  return config


def random_vgg(*_):
  """VGG19 variables, He's normal, so that features keep their size from layer to layer."""
  module = VGG19(('relu5_4',))
  shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda leaf: jnp.asarray(
      rng.standard_normal(leaf.shape, np.float32) * (2 / np.prod(leaf.shape[:3]))**0.5
      if leaf.ndim == 4 else np.zeros(leaf.shape, np.float32)), shapes)


def build_experiment(config) -> phases.Experiment:
  with mock.patch.object(phases, 'load_vgg', random_vgg):
    return phases.build(config)


def our_step(config, experiment, count: int):
  """run() -> metrics of the last of `count` steps, which the caller waits for."""
  source = random_feed(config)
  pictures, phase = source.take(0, count), experiment.phases[-1]
  dispatch = phases.jit_step(experiment, phase, source.batch_at)
  state, at = train_step.begin_phase(experiment.new_state(), phase.g_tx), 0

  def run():
    nonlocal state, at
    for start in range(at, at + count, count if experiment.device_loop else 1):
      state, metrics = dispatch(state, pictures, experiment.frozen, start, start + count)
    at += count
    return metrics

  return run


def torch_networks(config, experiment, state, torch, device):
  """(G, D or None, VGG or None): a TrainState's weights in PyTorch, channels_last."""
  from tests.benchmarks import torch_networks as networks
  g, d = experiment.generator, experiment.discriminator
  make = {'SRResNet': networks.SRResNet, 'EDSR': networks.EDSR,
          'RRDB': lambda features, blocks: networks.RRDB(features, blocks, g.growth)}
  pairs = [(make[type(g).__name__](g.features, g.blocks), state.g)]
  if d:
    pairs.append((networks.Discriminator(d.widths, d.hidden, config.hr_patch), state.d))
  made = []
  for module, net in pairs:
    networks.copy_weights(module, {'params': net.params, 'batch_stats': net.batch_stats})
    made.append(module)
  made += [None] * (2 - len(made))
  if 'vgg' in experiment.frozen:
    vgg = networks.VGG19(relu='relu' in config.loss.perceptual.layers)
    networks.copy_weights(vgg, experiment.frozen['vgg'])
    made.append(vgg)
  made += [None] * (3 - len(made))
  return [module and module.to(device).to(memory_format=torch.channels_last) for module in made]


def torch_step(config, networks, torch, device):
  """step(lr, hr) -> losses, with new optimisers for those networks."""
  from tests.benchmarks import torch_networks as written
  g, d, vgg = networks
  autocast = functools.partial(torch.autocast, device, torch.bfloat16,
                               enabled=config.dtype == 'bfloat16')
  adams = [torch.optim.Adam(module.parameters(), lr=fields.learning_rate,
                            betas=(fields.beta1, fields.beta2), eps=fields.epsilon)
           for module, fields in ((g, config.optimizer.g), (d, config.optimizer.d))
           if module is not None]  # a compiled one has no truth value
  if d is None:
    return written.pixel_step(g, adams[0], config.loss.pixel.kind, autocast)
  make = {'vanilla': written.srgan_step, 'relativistic': written.esrgan_step}
  return make[config.loss.adversarial.kind](g, d, vgg, *adams, phases.build_loss(config), autocast)


def to_torch(array, torch, device):
  """[B, H, W, C] of numpy or JAX to channels_last [B, C, H, W] on the device."""
  found = torch.from_numpy(np.array(array).transpose(0, 3, 1, 2)).to(device)
  return found.contiguous(memory_format=torch.channels_last)


def sides_of_step(config, args, torch, device) -> dict:
  experiment = build_experiment(config)
  count = args.steps if experiment.device_loop else 1
  networks = torch_networks(config, experiment, experiment.new_state(), torch, device)
  rng, side = np.random.default_rng(0), config.hr_patch
  lr, hr = (to_torch(rng.random((config.batch_size, size, size, 3), np.float32), torch, device)
            for size in (side // config.scale, side))
  found = {'sr_jax': our_step(config, experiment, count)}
  for name, compiled, plain in _ways(args):
    copied = copy.deepcopy(networks)
    batch = lr, hr
    if plain:
      copied = [module and module.to(memory_format=torch.contiguous_format) for module in copied]
      batch = lr.contiguous(), hr.contiguous()
    if compiled:
      copied = [module and torch.compile(module) for module in copied]
    step = torch_step(config, copied, torch, device)
    found[name] = functools.partial(_times, step, count, *batch)
  return found, count


def _ways(args):
  """(name, whether compiled, whether in the default layout)."""
  return ([('channels_last', False, False)] + [('eager', False, True)] * args.eager
          + [('compile', True, False)] * args.compile)


def _times(step, count, *batch):
  for _ in range(count):
    result = step(*batch)
  return result


def sides_of_inference(config, shape, args, torch, device) -> dict:
  """One picture through G, in evaluation, from float32 to float32 on the device."""
  experiment = build_experiment(config)
  state = experiment.new_state()
  lr = np.random.default_rng(0).random(shape, np.float32)
  variables = {'params': state.g.params, 'batch_stats': state.g.batch_stats}
  ours = jax.jit(experiment.generator.apply).lower(variables, jnp.asarray(lr)).compile()
  memory, free = ours.memory_analysis(), host_memory()
  needed = memory.temp_size_in_bytes + memory.output_size_in_bytes if memory else 0
  if device == 'cpu' and needed > free:  # a GPU refuses by itself
    raise MemoryError(f'needs {needed / 2**30:.0f} GiB, there are {free / 2**30:.0f}')
  count, picture = (args.steps if device != 'cpu' else 1), jnp.asarray(lr)
  found = {'sr_jax': lambda: [ours(variables, picture) for _ in range(count)][-1]}
  g = torch_networks(config, experiment, state, torch, device)[0].eval()
  dtype = torch.bfloat16 if config.dtype == 'bfloat16' else None
  for name, compiled, plain in _ways(args):
    module, x = copy.deepcopy(g), to_torch(lr, torch, device)
    if plain:
      module, x = module.to(memory_format=torch.contiguous_format), x.contiguous()
    module = torch.compile(module) if compiled else module

    def forward(x, module=module):
      with torch.inference_mode(), torch.autocast(device, dtype, enabled=dtype is not None):
        return module(x)

    found[name] = functools.partial(_times, forward, count, x)
  return found, count


def timed(run, wait) -> float:
  begin = time.perf_counter()
  wait(run())
  return time.perf_counter() - begin


def alternate(sides: dict, seconds: float, synchronize) -> dict[str, list[float]]:
  """Seconds of every call of every side, which take turns; the order turns around each time."""
  def wait(result):
    jax.block_until_ready(result)  # leaves what is not JAX's alone
    synchronize()

  found = {name: [] for name in sides}
  for name, run in list(sides.items()):  # compiles, then settles
    try:
      for _ in range(2):
        timed(run, wait)
    except Exception as error:  # torch.compile's are of all types
      if name != 'compile':
        raise
      print(f'torch.compile: {type(error).__name__}: {str(error).strip().splitlines()[0]}')
      del sides[name]
  begin = time.perf_counter()
  while (len(found['sr_jax']) < 5
         or (time.perf_counter() - begin < seconds and len(found['sr_jax']) < 500)):
    for name in list(sides)[::1 if len(found['sr_jax']) % 2 else -1]:
      found[name].append(timed(sides[name], wait))
  last = sides['sr_jax']()
  if isinstance(last, dict) and float(last['skipped']):  # which may take no time
    raise SystemExit(f'{float(last["skipped"]):.0f} of our steps gave no finite numbers')
  return found


def row(name: str, what: str, found: dict, count: int) -> str:
  """A line of the table: ms of each side, and how many times ours the others take."""
  ours = np.array(found['sr_jax'])
  cells = [name, what, f'{1e3 * np.median(ours) / count:.2f}']
  for seconds in list(found.values())[1:]:
    if not seconds:
      cells += ['', 'failed']
      continue
    low, middle, high = np.percentile(np.array(seconds) / ours, (25, 50, 75))
    cells += [f'{1e3 * np.median(seconds) / count:.2f}', f'{middle:.2f} ({low:.2f} to {high:.2f})']
  return f'| {" | ".join([*cells, str(len(ours))])} |'


def heading(args, torch, device) -> str:
  ways = [name for name, _, _ in _ways(args)]
  processor = platform.processor() or platform.machine()
  with contextlib.suppress(OSError):
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
    processor = next((line.split(': ')[1] for line in lines if line.startswith('model name')),
                     processor)
  where = processor if device == 'cpu' else torch.cuda.get_device_name()
  version = f', CUDA {torch.version.cuda}' if device != 'cpu' else ''
  cells = ['', 'batch', 'sr_jax, ms']
  for way in ways:
    cells += [f'PyTorch {way}, ms', f'{way} / sr_jax']
  return '\n'.join([
      f'{datetime.date.today()}, {where}, {args.threads} threads, {args.precision}, jax '
      f'{jax.__version__}, torch {torch.__version__}{version}', '',
      f'| {" | ".join([*cells, "rounds"])} |', '|' + '---|' * (len(cells) + 1)])


def measure(name: str, args, torch, device) -> str:
  network, _, size = name.partition('-')
  batch = args.batch or (CPU_BATCH.get(network) if device == 'cpu' else None)
  config = task_config(network, batch, args.patch, args.blocks, args.precision)
  if size:
    shape = SIZES[size]
    what = f'{shape[2]}x{shape[1]}'
  else:
    what = f'{config.batch_size} of {config.hr_patch}x{config.hr_patch}'
  if args.blocks:
    what += f', {args.blocks} blocks'
  try:
    sides, count = (sides_of_inference(config, shape, args, torch, device) if size
                    else sides_of_step(config, args, torch, device))
    synchronize = torch.cuda.synchronize if device == 'cuda' else lambda: None
    return row(name, what, alternate(sides, args.seconds, synchronize), count)
  except (MemoryError, torch.OutOfMemoryError, jax.errors.JaxRuntimeError) as error:
    return f'| {name} | {what} | {str(error).splitlines()[0]} |'


def main(args) -> None:
  if hasattr(os, 'sched_setaffinity'):  # XLA's pool has as many threads; before it is made
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:args.threads])
  import torch
  torch.set_num_threads(args.threads)
  torch.backends.cudnn.benchmark = True
  torch.backends.cuda.matmul.allow_tf32 = True  # as convolutions do, and as XLA does
  device = 'cpu' if jax.default_backend() == 'cpu' else 'cuda'
  if device == 'cuda' and not torch.cuda.is_available():
    raise SystemExit('JAX has a GPU, this PyTorch has none')
  lines = [heading(args, torch, device)]
  print(lines[0], flush=True)
  for name in args.only or [*STEPS, *(name for name in INFERENCE
                                      if device != 'cpu' or name.endswith('-128'))]:
    lines.append(measure(name, args, torch, device))
    print(lines[-1], flush=True)
    jax.clear_caches()
    if device == 'cuda':
      torch.cuda.empty_cache()
  if args.output:
    args.output.write_text('\n'.join(lines) + '\n')


def positive(text: str) -> int:
  number = int(text)
  if number < 1:
    raise ValueError(text)
  return number


def parser() -> argparse.ArgumentParser:
  threads = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
  made = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
  made.add_argument('--only', nargs='+', choices=(*STEPS, *INFERENCE), metavar='TASK')
  made.add_argument('--batch', type=positive, help="crops; each config's if not given")
  made.add_argument('--patch', type=positive, help='side of the HR crops')
  made.add_argument('--blocks', type=positive, help='of the generator; 16, or 23 of RRDB')
  made.add_argument('--precision', choices=('float32', 'bfloat16'), default='float32')
  made.add_argument('--eager', action='store_true', help="PyTorch's default layout as well")
  made.add_argument('--compile', action='store_true', help='torch.compile as well')
  made.add_argument('--steps', type=positive, default=20, help='on a GPU, in each turn')
  made.add_argument('--seconds', type=float, default=60, help='of each task, about')
  made.add_argument('--threads', type=int, default=threads, help='of both on the CPU')
  made.add_argument('--output', type=pathlib.Path, help='a file for the table')
  return made


if __name__ == '__main__':
  # Both share the GPU's memory, so that neither may take all of it at the start.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  main(parser().parse_args())
