"""Several devices: where arrays lie.

A batch is cut along its first axis over a mesh of one axis; state, bank and frozen arrays lie on
every device. A jitted step over such arrays computes what it computes on one device, and XLA adds
the communication: statistics of BatchNorm, means of the relativistic loss, losses and norms of
gradients are the whole batch's, and neither a model nor a loss has a word about it. The devices
may be those of several processes, which processes.py starts.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from sr_jax.errors import InputError

AXIS = 'batch'


def make_mesh(config) -> Mesh | None:
  """The devices that `config.devices` names, or None where it is one: then nothing is sharded.

  Raises:
    InputError: more than there are; `config.batch_size` is no multiple of their number.
  """
  there = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
  count, size = config.devices or len(there), config.batch_size
  if count > len(there):
    raise InputError(f'config.devices={count}: there are {len(there)} ({there[0].device_kind})')
  if jax.process_count() > 1 and count < len(there):
    raise InputError(f'config.devices={count}: {jax.process_count()} processes train on all their '
                     f'{len(there)} devices; leave it at 0')
  parts = config.accumulate
  if size % (count * parts):
    fits = next(number for number in range(count, 0, -1) if size % (number * parts) == 0)
    near = [number for number in (size // (count * parts) * count * parts,
                                  -(-size // (count * parts)) * count * parts) if number]
    raise InputError(
        f'config.batch_size={size}: {count} devices take equal shares of '
        + (f'each of {parts} parts (config.accumulate) of a batch; ' if parts > 1 else 'a batch; ')
        + ' or '.join(f'--config.batch_size={number}' for number in near)
        + (f' would do, or --config.devices={fits}' if jax.process_count() == 1 else ' would do'))
  if count == 1:
    return None
  return Mesh(np.array(there[:count]), (AXIS,), axis_types=(AxisType.Auto,))


def replicate(tree, mesh: Mesh | None):
  """Arrays, the same on every device; each process gives its own, which are equal."""
  if mesh is None:
    return tree
  everywhere = NamedSharding(mesh, P())
  if jax.process_count() == 1:
    return jax.device_put(tree, everywhere)

  def put(array):  # device_put would first have all processes compare what they hold
    array = np.asarray(array)
    return jax.make_array_from_callback(array.shape, everywhere, lambda index: array[index])

  return jax.tree.map(put, tree)


def local_copy(tree):
  """This process's copies of replicated arrays, on its first device: to be used by it alone."""
  def own(array):
    several = isinstance(array, jax.Array) and len(array.sharding.device_set) > 1
    return array.addressable_data(0) if several else array
  return jax.tree.map(own, tree)


def sharded(batch_at: Callable, mesh: Mesh | None) -> Callable:
  """A `feed.Feed`'s batch_at whose batch lies in equal shares on the devices."""
  if mesh is None:
    return batch_at

  def shares_at(source, seed, step):
    batch = batch_at(source, seed, step)
    return jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, P(AXIS)))

  return shares_at


def jit_shardings(mesh: Mesh | None) -> dict:
  """Of jax.jit, for a step: its state and metrics stay on every device.

  On one device it is said of what is given. Otherwise arrays that were put there (a checkpoint's)
  make another program than those that came to be there (a new state's): what one start has
  compiled, the cache would not have for the next.
  """
  if mesh is None:
    return {'in_shardings': SingleDeviceSharding(jax.local_devices()[0])}
  return {'out_shardings': NamedSharding(mesh, P())}


def process_rows(count: int, mesh: Mesh | None) -> range:
  """Which of a batch's `count` crops this process makes: those that its devices take."""
  if mesh is None or count % mesh.size:  # of one crop and its variants each has the crop
    return range(count)
  each = count // mesh.size
  mine = [place for place, device in enumerate(mesh.devices.flat)
          if device.process_index == jax.process_index()]
  return range(each * min(mine), each * (max(mine) + 1))


def scatter(crops: np.ndarray, count: int, mesh: Mesh | None) -> jax.Array:
  """Crops [steps, n, ...], n being those of `rows`, to an array [steps, count, ...]."""
  if mesh is None:
    return jnp.asarray(crops)
  cut = NamedSharding(mesh, P() if count % mesh.size else P(None, AXIS))
  return jax.make_array_from_process_local_data(
      cut, crops, (len(crops), count, *crops.shape[2:]))
