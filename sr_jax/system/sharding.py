"""Placement of arrays on several devices.

A batch is split along its first axis over a mesh with one axis; the state, the bank of images and
the frozen arrays are replicated on every device. A jitted step on such arrays computes what it
computes on one device, and XLA inserts the communication: BatchNorm statistics, the means of the
relativistic loss, losses and gradient norms are those of the whole batch, so that neither models
nor losses mention devices. The devices may belong to several processes, which
sr_jax/system/multihost.py starts.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from sr_jax.errors import InputError

AXIS = 'batch'

PyTree = Any


def make_mesh(devices: int, batch_size: int, accumulate: int) -> Mesh | None:
  """Returns the mesh to train on, or None for one device: then nothing is sharded.

  Args:
    devices: `config.devices`: how many devices to use; 0 uses all.
    batch_size: `config.batch_size`: images in a batch, over all devices.
    accumulate: `config.accumulate`: parts of a batch that are computed one after another.

  Raises:
    InputError: there are fewer devices, or they cannot share the batch equally.
  """
  available = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
  count = devices or len(available)
  if count > len(available):
    raise InputError(f'config.devices={count}: expected at most {len(available)}, the number of '
                     f'devices ({available[0].device_kind})')
  if jax.process_count() > 1 and count < len(available):
    raise InputError(f'config.devices={count}: {jax.process_count()} processes train on all of '
                     f'their {len(available)} devices; use 0')
  if batch_size % (count * accumulate):
    raise InputError(_describe_unequal_shares(count, batch_size, accumulate))
  if count == 1:
    return None
  return Mesh(np.array(available[:count]), (AXIS,), axis_types=(AxisType.Auto,))


def _describe_unequal_shares(count: int, batch_size: int, accumulate: int) -> str:
  """Returns the message that suggests batch sizes and numbers of devices that would fit."""
  fitting_count = next(number for number in range(count, 0, -1)
                       if batch_size % (number * accumulate) == 0)
  unit = count * accumulate
  fitting_sizes = [size for size in (batch_size // unit * unit, -(-batch_size // unit) * unit)
                   if size]
  parts = f'each of {accumulate} parts (config.accumulate) of a batch' if accumulate > 1 else (
      'a batch')
  return (f'config.batch_size={batch_size}: {count} devices need equal shares of {parts}; use '
          + ' or '.join(f'--config.batch_size={size}' for size in fitting_sizes)
          + (f', or --config.devices={fitting_count}' if jax.process_count() == 1 else ''))


def replicate(tree: PyTree, mesh: Mesh | None) -> PyTree:
  """Copies arrays to every device of the mesh; each process passes its own, equal arrays."""
  if mesh is None:
    return tree
  everywhere = NamedSharding(mesh, P())
  if jax.process_count() == 1:
    return jax.device_put(tree, everywhere)

  def put(array: jax.Array) -> jax.Array:
    # Not device_put, with which all processes would first compare their arrays.
    array = np.asarray(array)
    return jax.make_array_from_callback(array.shape, everywhere, lambda index: array[index])

  return jax.tree.map(put, tree)


def local_copy(tree: PyTree) -> PyTree:
  """Returns this process's copies of replicated arrays, on its first device, for use by it alone.

  Other leaves, and arrays on one device, are returned unchanged.
  """
  def first_shard(array: Any) -> Any:
    replicated = isinstance(array, jax.Array) and len(array.sharding.device_set) > 1
    return array.addressable_data(0) if replicated else array
  return jax.tree.map(first_shard, tree)


def sharded(batch_at: Callable[..., PyTree], mesh: Mesh | None) -> Callable[..., PyTree]:
  """Wraps the `batch_at` of a `feed.Feed` so that the devices have equal shares of its batch."""
  if mesh is None:
    return batch_at

  def sharded_batch_at(source: Any, seed: jax.Array, step: jax.Array) -> PyTree:
    batch = batch_at(source, seed, step)
    return jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, P(AXIS)))

  return sharded_batch_at


def on_each_device(function: Callable[..., PyTree], mesh: Mesh | None) -> Callable[..., PyTree]:
  """Wraps a function so that each device calls it with its share of the arguments' first axes.

  Args:
    function: of arrays [B, ...], to a tree of arrays [B, ...], whose entries do not depend on one
      another.
  """
  if mesh is None:
    return function
  return jax.shard_map(function, mesh=mesh, in_specs=P(AXIS), out_specs=P(AXIS))


def jit_shardings(mesh: Mesh | None) -> dict[str, jax.sharding.Sharding]:
  """Returns the arguments of `jax.jit` that keep a step's state and metrics on every device.

  On one device the sharding of the inputs is fixed instead. Otherwise arrays with an explicit
  placement (from a checkpoint) and without one (a new state) would compile to two programs, and a
  resumed run would not find the first one's in the compilation cache.
  """
  if mesh is None:
    return {'in_shardings': SingleDeviceSharding(jax.local_devices()[0])}
  return {'out_shardings': NamedSharding(mesh, P())}


def process_rows(count: int, mesh: Mesh | None) -> range:
  """Returns which of a batch's `count` crops this process makes: those of its own devices."""
  if mesh is None or count % mesh.size:  # one crop with its variants: every process has the crop
    return range(count)
  per_device = count // mesh.size
  own_places = [place for place, device in enumerate(mesh.devices.flat)
                if device.process_index == jax.process_index()]
  return range(per_device * min(own_places), per_device * (max(own_places) + 1))


def scatter(crops: np.ndarray, count: int, mesh: Mesh | None) -> jax.Array:
  """Puts the crops of all processes on their devices.

  Args:
    crops: [steps, n, ...], the n crops of `process_rows(count, mesh)`.
    count: crops per step, over all processes.

  Returns:
    An array [steps, count, ...], sharded along its second axis if the devices share it equally.
  """
  if mesh is None:
    return jnp.asarray(crops)
  sharding = NamedSharding(mesh, P() if count % mesh.size else P(None, AXIS))
  return jax.make_array_from_process_local_data(
      sharding, crops, (len(crops), count, *crops.shape[2:]))
