"""Batches of a packed set that does not fit the device, copied on the host from its mapped file.

They are the bank's, to the bit: a run may change from one to the other.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sr_jax.data import bank
from sr_jax.data.bank import CropSpec
from sr_jax.data.packed import Packed

AHEAD = 64  # steps whose places are drawn in one call


def batches(packed: Packed, seed: int, begin: int, cut: CropSpec,
            mine: Sequence[int] | None = None) -> Iterator[dict[str, np.ndarray]]:
  """The crops of step `begin`, of the one after it and so on, as `bank.crops_at` has them.

  Args:
    mine: which of a batch's are made (None: all).
  """
  mine = list(range(cut.count) if mine is None else mine)
  @jax.jit
  def draw(table, first):
    return jax.vmap(lambda step: bank.draw(table, seed, step, cut))(first + jnp.arange(AHEAD))

  while True:
    with _on_the_host():
      drawn = jax.device_get(draw(packed.table, begin))
    for rows, y, x in zip(*drawn, strict=True):
      yield _cut(packed.pixels, rows[mine], y[mine], x[mine], cut)
    begin += AHEAD


def _cut(pixels, rows, ys, xs, cut: CropSpec) -> dict[str, np.ndarray]:
  scale, patch = cut.scale, cut.patch
  side = patch // scale
  batch = {'lr': np.empty((len(ys), side, side, cut.channels), np.uint8),
           'hr': np.empty((len(ys), patch, patch, cut.channels), np.uint8)}
  places = zip(rows.tolist(), ys.tolist(), xs.tolist(), strict=True)
  for index, ((chunk, hr_at, lr_at, height, width), y, x) in enumerate(places):
    view = functools.partial(_view, pixels[chunk], channels=cut.channels)
    batch['lr'][index] = view(lr_at, height, width)[y:y + side, x:x + side]
    batch['hr'][index] = view(hr_at, height * scale, width * scale)[
        y * scale:y * scale + patch, x * scale:x * scale + patch]
  return batch


def _view(row, at, height, width, channels):
  return row[at:at + height * width * channels].reshape(height, width, channels)


def _on_the_host():
  """An accelerator would answer only when it is through with the steps before."""
  try:
    return jax.default_device(jax.local_devices(backend='cpu')[0])
  except RuntimeError:  # JAX_PLATFORMS leaves the CPU out
    return contextlib.nullcontext()
