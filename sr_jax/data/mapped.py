"""Batches of a packed set that does not fit the device, cut on the host from its mapped file.

They equal the batches of the bank bit for bit, so a run may change from one to the other.
"""

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import jax
import jax.numpy as jnp
import numpy as np

from sr_jax.data import bank
from sr_jax.data.bank import CropSpec
from sr_jax.data.packed import Packed

STEPS_PER_DRAW = 64  # steps whose crop positions are drawn in one call


def batches(packed: Packed, seed: int, start: int, crop_spec: CropSpec,
            rows: Sequence[int] | None = None) -> Iterator[dict[str, np.ndarray]]:
  """Yields the crops of step `start` and of every later step, equal to those of `bank.crops_at`.

  Args:
    packed: the packed set.
    seed: seed of the run.
    start: the first step.
    crop_spec: the crops of a batch.
    rows: which crops of each batch are made; None makes all.
  """
  rows = list(range(crop_spec.count) if rows is None else rows)

  @jax.jit
  def draw(table: jax.Array, first: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    steps = first + jnp.arange(STEPS_PER_DRAW)
    return jax.vmap(lambda step: bank.draw(table, seed, step, crop_spec))(steps)

  while True:
    with _on_host():
      drawn = jax.device_get(draw(packed.table, start))
    for table_rows, y, x in zip(*drawn, strict=True):
      yield _cut(packed.pixels, table_rows[rows], y[rows], x[rows], crop_spec)
    start += STEPS_PER_DRAW


def _cut(pixels: np.ndarray, table_rows: np.ndarray, ys: np.ndarray, xs: np.ndarray,
         crop_spec: CropSpec) -> dict[str, np.ndarray]:
  """Copies the crops at (ys, xs), in LR pixels, of the images described by rows of the table."""
  _, patch, scale, channels, with_lr = crop_spec
  side = patch // scale
  batch = {'hr': np.empty((len(ys), patch, patch, channels), np.uint8)}
  if with_lr:
    batch = {'lr': np.empty((len(ys), side, side, channels), np.uint8)} | batch
  places = zip(table_rows.tolist(), ys.tolist(), xs.tolist(), strict=True)
  for index, ((chunk, hr_offset, lr_offset, height, width), y, x) in enumerate(places):
    hr = _image(pixels[chunk], hr_offset, (height * scale, width * scale, channels))
    batch['hr'][index] = hr[y * scale:y * scale + patch, x * scale:x * scale + patch]
    if with_lr:
      lr = _image(pixels[chunk], lr_offset, (height, width, channels))
      batch['lr'][index] = lr[y:y + side, x:x + side]
  return batch


def _image(chunk: np.ndarray, offset: int, shape: tuple[int, int, int]) -> np.ndarray:
  """Returns a view of the image of this shape that begins at `offset`."""
  height, width, channels = shape
  return chunk[offset:offset + height * width * channels].reshape(shape)


def _on_host() -> AbstractContextManager:
  """Makes JAX compute on the CPU: an accelerator would answer only after the queued steps."""
  try:
    return jax.default_device(jax.local_devices(backend='cpu')[0])
  except RuntimeError:  # JAX_PLATFORMS excludes the CPU
    return contextlib.nullcontext()
