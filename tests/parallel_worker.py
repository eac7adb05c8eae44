"""Processes of test_parallel.py: a config for `python -m sr_jax.main`, steps on several devices.

  python -m tests.parallel_worker steps PICTURES OUT float64 gan,loop 10 8,1
  python -m tests.parallel_worker batches PICTURES OUT 8,1
  python -m tests.parallel_worker checkpoint PICTURES OUT pixel,gan 8-1,1-8
  python -m tests.parallel_worker degraded PICTURES OUT 8,1
"""

import base64
import dataclasses
import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np

from sr_jax.train import previous
from tests import smallest


def get_config(variant=''):
  """Returns the smallest experiment of the tests; all variants have BatchNorm.

  'loop' joins arrays to vectors, as on a GPU.
  """
  config = smallest.get_config()
  config.batch_size, config.loss.adversarial.weight = 8, 1e-2
  if variant == 'pixel':
    config.discriminator.name, config.loss.adversarial.weight, config.warmup_steps = 'none', 0.0, 0
  if variant in ('gan', 'relativistic', 'loop'):
    config.warmup_steps = 0
    config.device_loop = 'yes' if variant == 'loop' else 'no'
    config.loss.adversarial.kind = 'relativistic' if variant == 'relativistic' else 'vanilla'
  if variant == 'degraded':
    smallest.degrade(config)
  return config


def feed_of(kind, pictures, devices, mode):
  """(config, mesh, feed)."""
  from sr_jax.data.feed import open_feed
  from sr_jax.experiment import inputs
  from sr_jax.system import sharding
  config = get_config(kind)
  config.data.source, config.devices = f'folder:{pictures}', devices
  config.data.mode, config.data.workers = mode, 0
  mesh = sharding.make_mesh(config.devices, config.batch_size, config.accumulate)
  feed = open_feed(inputs.training_set(config), inputs.build_feed_spec(config, False), 0,
                   lambda text: None, mesh)
  return config, mesh, feed


def begin(kind, pictures, devices):
  """(run, mesh, feed, state on the mesh); run(state, number) takes the step of this number."""
  from sr_jax.experiment import phases
  from sr_jax.system import sharding
  # In float64 the positions in a bank would be float64 as well.
  mode = 'mapped' if jnp.float32 is jnp.float64 else 'bank'
  config, mesh, feed = feed_of(kind, pictures, devices, mode)
  if jnp.float32 is jnp.float64:
    phases.check_given, config.dtype = lambda config, _: config, 'float64'  # refused otherwise
  experiment = phases.build(config)
  state = experiment.new_state()
  if jnp.float32 is jnp.float64:
    state = jax.tree.map(lambda leaf: leaf if leaf.dtype.kind == 'i' else jnp.float64(leaf), state)
  step = phases.jit_step(experiment, experiment.phases[0], feed.batch_at, mesh)

  def run(state, number):
    source = feed.source_for(number, number + 1)
    return step(state, source, experiment.frozen, number, number + 1)

  return run, mesh, feed, sharding.replicate(state, mesh)


def take(run, mesh, state, steps):
  """(state, metrics of each step with `norm`, the norm of all weights)."""
  import optax

  from sr_jax.system import sharding
  told = []
  for _ in range(steps):
    state, metrics = run(state, int(state.step))
    own = sharding.local_copy(state)
    params = [own.g.params, own.d.params if own.d else ()]
    assert mesh is None or all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))
    told.append({name: float(value) for name, value in metrics.items()}
                | {'norm': float(optax.global_norm(params))})
  return state, told


def steps(pictures, dtype, kinds, count, devices):
  found = {}
  for number in devices.split(','):
    for kind in kinds.split(','):
      run, mesh, feed, state = begin(kind, pictures, int(number))
      assert jax.tree.leaves(state.g.params)[0].dtype == dtype
      found[f'{kind}/{number}'] = take(run, mesh, state, int(count))[1]
      feed.close()
  return found


def batches(pictures, devices):
  """{'mode/devices': [(mean, digest) of three batches]}, with every kind of augmentation."""
  import hashlib

  from sr_jax.data import feed as feeds
  from sr_jax.experiment import inputs
  from sr_jax.system import sharding
  found = {}
  for number in devices.split(','):
    for mode in ('bank', 'mapped', 'stream'):
      config, mesh, feed = feed_of('pixel', pictures, int(number), mode)
      kinds = inputs.build_augmentation(config)._replace(
          brightness=(0.5, 0.5), mixup=(0.5, 1.2), shuffle=0.5)
      spec = dataclasses.replace(inputs.build_feed_spec(config, False), augmentation=kinds)
      make = feeds.bank_batches if mode == 'bank' else feeds.host_batches
      look = jax.jit(sharding.sharded(make(spec), mesh))
      for step in range(3):
        batch = look(feed.source_for(step, step + 1), 0, step)
        if mesh:
          assert not batch['hr'].sharding.is_fully_replicated
          batch = jax.jit(lambda batch: batch, **sharding.jit_shardings(mesh))(batch)
        pixels = np.concatenate([np.asarray(array).ravel() for array in
                                 sharding.local_copy(batch).values()])
        levels = np.uint8(np.round(255 * pixels))
        found.setdefault(f'{mode}/{number}', []).append(
            [float(pixels.mean()), hashlib.sha256(levels).hexdigest()])
      feed.close()
  return found


def degraded(pictures, devices):
  """What runs with degradations and a U-Net have in common on any number of devices.

  Returns:
    {'batches/devices': {'levels': of LR, HR and target of 40 batches, in base 64, 'collectives':
    of the program that makes a batch}} and {'steps/devices': (metrics of three steps, {name: vector
    of the power iteration on each of this process's devices})}.
  """
  from sr_jax.step.flat import named_arrays
  from sr_jax.system import sharding
  found = {}
  for number in devices.split(','):
    _, mesh, feed = feed_of('degraded', pictures, int(number), 'bank')
    # As in a step, whose batch stays on the devices.
    make = jax.jit(sharding.sharded(feed.batch_at, mesh)).lower(
        feed.source_for(0, 1), 0, 0).compile()
    gather = jax.jit(lambda batch: batch, **sharding.jit_shardings(mesh))
    levels = []
    for step in range(1, 41):
      batch = make(feed.source_for(step, step + 1), 0, step)
      batch = sharding.local_copy(gather(batch) if mesh else batch)
      levels += [np.uint8(np.round(255 * np.asarray(batch[name]))).ravel()
                 for name in ('lr', 'hr', 'target')]
    feed.close()
    found[f'batches/{number}'] = {
        'levels': base64.b64encode(np.concatenate(levels).tobytes()).decode(),
        'collectives': re.findall(r' ((?:all|collective)-[\w-]+|reduce-scatter)\(',
                                  make.as_text())}
    run, mesh, feed, state = begin('degraded', pictures, int(number))
    state, told = take(run, mesh, state, 3)
    feed.close()
    if mesh and jax.process_count() == 1:
      draw_last_batch(pictures, int(number), state)
    vectors = {name: [np.asarray(shard.data).tolist() for shard in array.addressable_shards]
               for name, array in named_arrays(state.d.batch_stats).items()}
    found[f'steps/{number}'] = told, vectors
  return found


def draw_last_batch(pictures, devices, state):
  """Draws the batch of a run that non-finite steps have stopped, as one process does alone."""
  import tempfile
  import types

  from sr_jax import images
  from sr_jax.experiment import phases
  from sr_jax.system import sharding
  from sr_jax.train import replay
  config, _, feed = feed_of('degraded', pictures, devices, 'bank')
  with tempfile.TemporaryDirectory() as folder:
    run = types.SimpleNamespace(config=config, experiment=phases.build(config),
                                feed=types.SimpleNamespace(mode=feed.mode, enter=lambda *_: feed),
                                folder=types.SimpleNamespace(workdir=folder))
    metrics = {'bad': 2.0, 'g/pixel': np.nan}
    message = replay.stop_message(run, sharding.local_copy(state), metrics)
    assert images.read_image(f'{folder}/replay/{int(state.step) + 1}.png').size, message


def checkpoint(pictures, kinds, changes):
  """Takes a step on some devices, saves it, and continues there and on others: '8-1,1-8'."""
  import tempfile

  from sr_jax.runs.checkpoints import Checkpoints
  from sr_jax.system import sharding
  found = {}
  for kind in kinds.split(','):
    runs = {number: begin(kind, pictures, int(number)) for number in re.findall(r'\d+', changes)}
    # On the host, because a step deletes the state that it is given.
    initial = {number: jax.tree.map(np.array, sharding.local_copy(state))
               for number, (*_, state) in runs.items()}
    for change in changes.split(','):
      before, after = change.split('-')
      (run, mesh, *_), (other, mesh_after, *_) = runs[before], runs[after]
      state = sharding.replicate(jax.tree.map(jnp.array, initial[before]), mesh)
      state, told = take(run, mesh, state, 1)
      with tempfile.TemporaryDirectory() as folder:
        kept = Checkpoints(folder)
        own = sharding.local_copy(state)
        kept.save(own)
        kept.close()
        restored = previous.run_state(jax.tree.map(jnp.array, initial[after]), folder, 1)
      same = jax.tree.map(lambda a, b: np.asarray(a).tobytes() == np.asarray(b).tobytes(),
                          own, restored)
      found[f'{kind}/{change}'] = {
          'same': all(jax.tree.leaves(same)), 'first': told[0],
          'continued': take(run, mesh, state, 1)[1][0],
          'restored': take(other, mesh_after, sharding.replicate(restored, mesh_after), 1)[1][0]}
    for _, _, feed, _ in runs.values():
      feed.close()
  return found


if __name__ == '__main__':
  what, pictures, out, *rest = sys.argv[1:]
  if 'float64' in rest:
    jax.config.update('jax_enable_x64', True)
    jnp.float32 = jnp.float64  # before Flax and sr_jax are imported and read it
  from sr_jax.system import multihost
  with multihost.distributed(120):
    told = {'steps': steps, 'batches': batches, 'checkpoint': checkpoint,
            'degraded': degraded}[what](pictures, *rest)
    if multihost.is_first():
      with open(out, 'w', encoding='utf-8') as file:
        json.dump(told, file)
