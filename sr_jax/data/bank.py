"""The bank: every picture of a set on the device as uint8, crops cut inside the step.

Nothing is decoded, copied or waited for while training. Pictures lie back to back, HR and
then its LR, in a [chunks, width] array (one row, up to 1 GiB; indices within a row fit
int32), so a set of any mix of sizes wastes almost nothing.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jax import lax

from sr_jax import images
from sr_jax.errors import InputError

CHUNK = 1 << 30


class Bank(NamedTuple):
  """A packed set: a pytree, always an argument of the jitted step, never captured."""

  pixels: jax.Array  # uint8 [chunks, width]
  table: jax.Array  # int32 [pictures, 5]: chunk, HR offset, LR offset, LR height, LR width


# Packing -------------------------------------------------------------------------------


def pack(paths: Sequence, scale: int, patch: int, limit: int | None = None):
  """Decodes pictures into a bank; LR is MATLAB's bicubic of the whole picture.

  Args:
    paths: picture files of any mix of sizes; grey ones become RGB.
    scale: HR / LR. HR is cropped to a multiple of it.
    patch: side of the HR crops that will be asked for.
    limit: bytes that the bank may take; None asks the device (`room`).

  Returns:
    (bank, skipped): `skipped` holds one line for each picture left out and why.

  Raises:
    InputError: the bank needs more than `limit`, or no picture is usable.
  """
  usable, skipped = [], []
  for path in paths:
    try:
      height, width = (side // scale * scale for side in images.image_size(path))
      if min(height, width) < patch:
        raise InputError(f'{path}: {height}x{width} is smaller than the {patch}x{patch} crop')
      if 3 * height * width * (1 + 1 / scale**2) > CHUNK:
        raise InputError(f'{path}: {height}x{width} is more than a row of the bank holds')
      usable.append((path, height // scale, width // scale))
    except InputError as error:
      skipped.append(str(error))
  rows, shape = _plan([(h, w) for _, h, w in usable], scale)
  limit = room() if limit is None else limit
  if np.prod(shape, dtype=np.int64) > limit:
    raise InputError(f'the {len(usable)} pictures need {np.prod(shape, dtype=np.int64):,} bytes '
                     f'on the device, which has room for {limit:,}: train on fewer or smaller ones')
  pixels = np.zeros(shape, np.uint8)

  def decode(index):
    """Lays one picture in its place; its row of the table, or why there is none."""
    path, height, width = usable[index]
    chunk, hr_at, lr_at = rows[index]
    try:
      hr = images.crop_to_multiple(images.as_rgb(images.read_image(path)), scale)
    except InputError as error:
      return str(error)
    lr = images.imresize(hr, Fraction(1, scale))
    if sorted(lr.shape[:2]) != sorted((height, width)):  # a late EXIF tag may have turned it
      return f'{path}: {hr.shape[0]}x{hr.shape[1]} is not what its header says'
    pixels[chunk, hr_at:hr_at + hr.size] = hr.reshape(-1)
    pixels[chunk, lr_at:lr_at + lr.size] = lr.reshape(-1)
    return (chunk, hr_at, lr_at, *lr.shape[:2])

  with ThreadPoolExecutor(os.cpu_count()) as pool:
    decoded = list(tqdm.tqdm(pool.map(decode, range(len(usable))), 'decoding', len(usable),
                             unit=' pictures', disable=None, leave=False))
  table = [row for row in decoded if isinstance(row, tuple)]
  skipped += [reason for reason in decoded if isinstance(reason, str)]
  if not table:
    more = f' (and {len(skipped) - 1} more like it)' if len(skipped) > 1 else ''
    raise InputError(f'no usable picture: {skipped[0]}{more}' if skipped else 'no pictures')
  return Bank(jnp.asarray(pixels), jnp.asarray(np.array(table, np.int32))), skipped


def _plan(sizes: Sequence[tuple[int, int]], scale: int):
  """Where each picture goes: ([(chunk, HR offset, LR offset)], shape of the bank)."""
  needs = [3 * height * width * (scale**2 + 1) for height, width in sizes]
  chunks = max(1, -(-sum(needs) // (CHUNK - max(needs, default=0))))
  target = -(-sum(needs) // chunks)  # rows of about equal length waste the least
  rows, chunk, at, longest = [], 0, 0, 0
  for (height, width), need in zip(sizes, needs, strict=True):
    if at >= target:
      chunk, at = chunk + 1, 0
    rows.append((chunk, at, at + 3 * height * width * scale**2))
    at += need
    longest = max(longest, at)
  return rows, (chunk + 1, longest)


def room() -> int:
  """Bytes that a bank may take: 60% of what JAX holds of an accelerator's memory,
  or half of what a host has free."""
  stats = jax.devices()[0].memory_stats() or {}
  if 'bytes_limit' in stats:
    return int(0.6 * stats['bytes_limit'])
  try:
    with open('/proc/meminfo') as file:  # free memory alone would not count the page cache
      free = next(1024 * int(line.split()[1]) for line in file if line.startswith('MemAvailable'))
  except (OSError, StopIteration):
    free = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  return free // 2


# Reading -------------------------------------------------------------------------------


def batch_at(bank: Bank, seed, step, *, batch_size: int, patch: int, scale: int,
             augment: bool = True) -> dict[str, jax.Array]:
  """The batch of a step: a pure function, so a resumed run sees what it would have seen.

  Pictures are drawn evenly, with replacement, whatever their size; then a place in each.

  Args:
    seed, step: integers, traced or not.
    patch: side of the HR crop, a multiple of `scale`.
    augment: one of the eight flips and quarter turns, the same for LR and HR.

  Returns:
    {'lr': [batch_size, patch / scale, patch / scale, 3], 'hr': [batch_size, patch, patch, 3]},
    float32 in [0, 1].
  """
  side = patch // scale
  keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), step), 4)
  draw = jax.random.randint(keys[0], (batch_size,), 0, len(bank.table))
  chunk, hr_at, lr_at, height, width = bank.table[draw].T
  y = jax.random.randint(keys[1], (batch_size,), 0, height - side + 1)
  x = jax.random.randint(keys[2], (batch_size,), 0, width - side + 1)
  lr = _crops(bank.pixels, chunk, lr_at, y, x, width, side)
  hr = _crops(bank.pixels, chunk, hr_at, y * scale, x * scale, width * scale, patch)
  if augment:
    turn = jax.random.bits(keys[3], (3, batch_size), jnp.uint8) & 1
    lr, hr = _turn(lr, turn), _turn(hr, turn)
  return {'lr': images.to_float(lr), 'hr': images.to_float(hr)}


def _crops(pixels, chunk, start, y, x, width, side):
  """uint8 [B, side, side, 3]: rows are contiguous, so each is one slice."""
  def row(chunk, at):
    return lax.dynamic_slice(pixels, (chunk, at), (1, side * 3))[0]
  offsets = start[:, None] + ((y[:, None] + jnp.arange(side)) * width[:, None] + x[:, None]) * 3
  rows = jax.vmap(jax.vmap(row, (None, 0)))(chunk, offsets)
  return rows.reshape(len(chunk), side, side, 3)


def _turn(crops, turn):
  """Transpose, mirror and upset each crop or not: together the eight symmetries."""
  for flag, turned in zip(turn, (lambda c: c.swapaxes(1, 2), lambda c: c[:, :, ::-1],
                                 lambda c: c[:, ::-1]), strict=True):
    crops = jnp.where(flag[:, None, None, None] == 1, turned(crops), crops)
  return crops
