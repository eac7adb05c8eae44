"""The bank: all images of a set in device memory as uint8, from which the step itself cuts crops.

Training needs no decoding, no copies from the host and no waiting for data.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from sr_jax.data.augment import step_keys
from sr_jax.data.packed import Packed
from sr_jax.system.memory import host_memory

DEVICE_SHARE = 0.6  # of the memory that JAX may use on an accelerator


class Bank(NamedTuple):
  """A packed set on the device.

  It is a pytree and always passed to the step as an argument, never captured by a closure.
  """

  pixels: jax.Array  # uint8 [chunks, width]
  table: jax.Array  # int32 [images, 5], see `packed.Packed`


class CropSpec(NamedTuple):
  """The crops that are cut for a batch.

  Attributes:
    count: number of crops; 1 if the batch consists of one crop and its variants.
    patch: side of the HR crops in pixels, a multiple of `scale`.
    scale: HR / LR; 1 without LR.
    channels: 3 or 1.
    with_lr: whether LR crops are cut too. Degradations make LR of the HR crops instead.
  """

  count: int
  patch: int
  scale: int
  channels: int = 3
  with_lr: bool = True


def to_device(packed: Packed) -> Bank:
  """Copies a packed set to the default device."""
  return Bank(jnp.asarray(packed.pixels), jnp.asarray(packed.table))


def device_budget() -> int:
  """Returns how many bytes a bank may occupy.

  This is `DEVICE_SHARE` of the memory that JAX may use on an accelerator, or half of the free
  memory of a host without one.
  """
  stats = jax.local_devices()[0].memory_stats() or {}
  if 'bytes_limit' in stats:
    return int(DEVICE_SHARE * stats['bytes_limit'])
  return host_memory() // 2


def draw(table: jax.Array, seed: int | jax.Array, step: int | jax.Array,
         crop_spec: CropSpec) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Draws the crops of a step's batch.

  Images are drawn uniformly with replacement, whatever their sizes, and then a position in each.
  This is a pure function of its arguments, so a resumed run sees the batches of an uninterrupted
  one.

  Returns:
    (rows of the table [n, 5], y [n], x [n]), with y and x in LR pixels.
  """
  keys, side = step_keys(seed, step), crop_spec.patch // crop_spec.scale
  rows = table[jax.random.randint(keys.image, (crop_spec.count,), 0, len(table))]
  height, width = rows[:, 3], rows[:, 4]
  y = jax.random.randint(keys.row, (crop_spec.count,), 0, height - side + 1)
  x = jax.random.randint(keys.column, (crop_spec.count,), 0, width - side + 1)
  return rows, y, x


def crops_at(bank: Bank, seed: int | jax.Array, step: int | jax.Array,
             crop_spec: CropSpec) -> dict[str, jax.Array]:
  """Returns the crops of a step's batch.

  Returns:
    {'lr': uint8 [n, patch / scale, patch / scale, C], 'hr': uint8 [n, patch, patch, C]}, the
    first only `with_lr`.
  """
  rows, y, x = draw(bank.table, seed, step, crop_spec)
  chunk, hr_offset, lr_offset, _, width = rows.T
  _, patch, scale, channels, with_lr = crop_spec
  crops = {'hr': _crops(bank.pixels, chunk, _offsets(hr_offset, y * scale, x * scale,
                                                     width * scale, patch, channels), channels)}
  if with_lr:
    offsets = _offsets(lr_offset, y, x, width, patch // scale, channels)
    crops = {'lr': _crops(bank.pixels, chunk, offsets, channels)} | crops
  return crops


def _offsets(start: jax.Array, y: jax.Array, x: jax.Array, width: jax.Array, side: int,
             channels: int) -> jax.Array:
  """Returns [n, side]: where each row of a crop begins in the image's row of `Bank.pixels`.

  Args:
    start: [n], where the image begins.
    y, x: [n], position of the crop in the image.
    width: [n], width of the image.
  """
  return start[:, None] + ((y[:, None] + jnp.arange(side)) * width[:, None]
                           + x[:, None]) * channels


def _crops(pixels: jax.Array, chunk: jax.Array, offsets: jax.Array, channels: int) -> jax.Array:
  """Returns uint8 [n, side, side, C]; rows of a crop are contiguous, so each is one slice."""
  count, side = offsets.shape

  def row(chunk: jax.Array, offset: jax.Array) -> jax.Array:
    return lax.dynamic_slice(pixels, (chunk, offset), (1, side * channels))[0]

  rows = jax.vmap(jax.vmap(row, (None, 0)))(chunk, offsets)
  return rows.reshape(count, side, side, channels)
