"""The bank: every picture of a set on the device as uint8, crops cut inside the step.

Nothing is decoded, copied or waited for while training.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from sr_jax.data.augment import step_keys
from sr_jax.data.packed import Packed
from sr_jax.system.memory import host_memory


class Bank(NamedTuple):
  """A packed set on the device: a pytree, always an argument of the step, never captured."""

  pixels: jax.Array  # uint8 [chunks, width]
  table: jax.Array  # int32 [pictures, 5]: chunk, HR offset, LR offset, LR height, LR width


class CropSpec(NamedTuple):
  """What is cut out of pictures for a batch.

  Attributes:
    count: crops; 1 where a batch is one crop and its variants.
    patch: side of the HR crops, a multiple of `scale`.
    scale: HR / LR.
    channels: 3 or 1.
  """

  count: int
  patch: int
  scale: int
  channels: int = 3


def to_device(packed: Packed) -> Bank:
  return Bank(jnp.asarray(packed.pixels), jnp.asarray(packed.table))


def device_budget() -> int:
  """Bytes that a bank may take: 60% of what JAX holds of an accelerator's memory,
  or half of what a host has free."""
  stats = jax.local_devices()[0].memory_stats() or {}
  if 'bytes_limit' in stats:
    return int(0.6 * stats['bytes_limit'])
  return host_memory() // 2


def draw(table: jax.Array, seed, step, cut: CropSpec):
  """What the batch of a step is cut out of: (rows of the table [n, 5], y [n], x [n]).

  A pure function, so a resumed run sees what it would have seen. Pictures are drawn evenly,
  with replacement, whatever their size; then a place in each, in LR pixels.
  """
  keys, side = step_keys(seed, step), cut.patch // cut.scale
  rows = table[jax.random.randint(keys.picture, (cut.count,), 0, len(table))]
  height, width = rows[:, 3], rows[:, 4]
  y = jax.random.randint(keys.row, (cut.count,), 0, height - side + 1)
  x = jax.random.randint(keys.column, (cut.count,), 0, width - side + 1)
  return rows, y, x


def crops_at(bank: Bank, seed, step, cut: CropSpec) -> dict[str, jax.Array]:
  """The crops of a step's batch.

  Returns:
    {'lr': uint8 [n, patch / scale, patch / scale, C], 'hr': uint8 [n, patch, patch, C]}.
  """
  rows, y, x = draw(bank.table, seed, step, cut)
  chunk, hr_at, lr_at, _, width = rows.T
  scale, side = cut.scale, cut.patch // cut.scale
  return {'lr': _crops(bank.pixels, chunk, lr_at, y, x, width, side, cut.channels),
          'hr': _crops(bank.pixels, chunk, hr_at, y * scale, x * scale, width * scale, cut.patch,
                       cut.channels)}


def _crops(pixels, chunk, start, y, x, width, side, channels):
  """uint8 [n, side, side, C]: rows are contiguous, so each is one slice."""
  def row(chunk, at):
    return lax.dynamic_slice(pixels, (chunk, at), (1, side * channels))[0]
  offsets = start[:, None] + ((y[:, None] + jnp.arange(side)) * width[:, None]
                              + x[:, None]) * channels
  rows = jax.vmap(jax.vmap(row, (None, 0)))(chunk, offsets)
  return rows.reshape(len(chunk), side, side, channels)
