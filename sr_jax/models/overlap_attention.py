"""Attention from windows to larger ones, which overlap, for HAT (Chen et al. 2023, section 3.2)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from sr_jax.models.attention import (
  LINEAR,
  LayerNorm,
  Pair,
  WindowAttention,
  in_strips,
  join_windows,
  resample_bias_table,
  split_windows,
)
from sr_jax.models.convolution import Dense
from sr_jax.models.swin_blocks import BlockFields, add_feed_forward


def overlap_margin(window: int, overlap: float) -> int:
  """Returns the pixels by which the keys' window exceeds the queries' on each side."""
  return round(window * overlap / 2)


def overlap_position_index(window: int, margin: int) -> np.ndarray:
  """Numbers the difference of positions of each query and key, int64 [queries, keys].

  The number, counted from the end of the bias table if it is negative, is the row of that table.
  In the authors' code each axis begins at 2 - window - 2 * margin instead of 0, so that many of the
  numbers are negative; all differences still have rows of their own.
  """
  side = window + 2 * margin
  queries = np.indices((window,) * 2).reshape(2, -1, 1)
  keys = np.indices((side,) * 2).reshape(2, 1, -1)
  down, right = keys - queries - 2 * margin + 1
  return down * (window + side - 1) + right


def resample_overlap_table(table: np.ndarray | jax.Array, before: Pair, after: Pair) -> np.ndarray:
  """Returns a table of `CrossAttention` for another window, as `attention.resample_bias_table`.

  Args:
    table: [rows, heads], whose rows `overlap_position_index` numbers.
    before, after: window and margin of the table and of the result.
  """
  first, new_first = (int(overlap_position_index(*sides).min()) for sides in (before, after))
  rows = (2 * after[0] + 2 * after[1] - 1)**2
  ordered = np.roll(np.asarray(table), -first, 0)  # the rows of negative numbers are the last ones
  return np.roll(resample_bias_table(ordered, rows), new_first, 0)


class CrossAttention(WindowAttention):
  """Attention of the pixels of windows to those of larger windows, which overlap.

  Attributes:
    heads, window, position, dtype: as of `WindowAttention`. Positions of keys are counted from the
      first query of the window, so that they begin at -margin.
    margin: pixels by which the keys' window is larger on each side.
  """

  margin: int

  @nn.compact
  def __call__(self, query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Returns [B, n, w * w, C] of queries [B, n, w * w, heads, C / heads] and keys and values."""
    return self._attend(query, key, value)

  @property
  def _margin(self) -> int:
    return self.margin

  def _index(self) -> np.ndarray:
    return overlap_position_index(self.window, self.margin)


def overlapping_windows(x: jax.Array, window: int, margin: int) -> jax.Array:
  """Divides [B, h + 2 * margin, w + 2 * margin, C] into windows, as PyTorch's `unfold`.

  Returns:
    [B, n, side * side, C] with side = window + 2 * margin: the windows of [B, h, w, C] and
    `margin` pixels around them, at most half a window.
  """
  rows = _overlapping(x, 1, window, margin)  # [B, rows, side, w + 2 * margin, C]
  blocks = _overlapping(rows, 3, window, margin).swapaxes(2, 3)
  return blocks.reshape(len(x), -1, (window + 2 * margin)**2, x.shape[-1])


def _overlapping(x: jax.Array, axis: int, window: int, margin: int) -> jax.Array:
  """Divides an axis of n * window + 2 * margin into [n, window + 2 * margin], which overlap."""
  count = (x.shape[axis] - 2 * margin) // window

  def parts(start: int, stop: int) -> jax.Array:
    some = lax.slice_in_dim(x, start, stop, axis=axis)
    missing = [(0, count * window - some.shape[axis] if at == axis else 0) for at in range(x.ndim)]
    return jnp.pad(some, missing).reshape(*x.shape[:axis], count, window, *x.shape[axis + 1:])

  own = parts(0, count * window)
  if not margin:
    return own
  after = parts(window, min(x.shape[axis], (count + 1) * window))
  return jnp.concatenate([own, lax.slice_in_dim(after, 0, 2 * margin, axis=axis + 1)], axis + 1)


class OverlapBlock(nn.Module):
  """Overlapping cross-attention block (OCAB, section 3.2), [B, h, w, features] to the same shape.

  x + attention(norm(x)), then x + mlp(norm(x)); queries are those of windows, keys and values
  those of windows with a margin. Beyond the image's border keys and values are zero; as in the
  authors' code they take part in the softmax, with the position bias as their logits.

  Attributes:
    fields: of the network.
    margin: see `CrossAttention`.
  """

  fields: BlockFields
  margin: int

  @property
  def window_grid(self) -> tuple[int, int]:
    """Where windows of an image may lie, see `sr_jax.models`."""
    # All queries of a window depend on all of its keys.
    return self.fields.window, self.fields.window if self.margin else 0

  def setup(self) -> None:
    features, heads, window, mlp_ratio, position, dtype = self.fields
    dense = partial(Dense, kernel_init=LINEAR, dtype=dtype)
    self.norm1, self.norm2 = LayerNorm(dtype=dtype), LayerNorm(dtype=dtype)
    self.qkv = dense(3 * features)
    self.attention = CrossAttention(heads, window, position, dtype, margin=self.margin)
    self.hidden, self.output = dense(int(features * mlp_ratio)), dense(features)

  def __call__(self, x: jax.Array) -> jax.Array:
    window, margin = self.fields.window, self.margin
    around = (0, 0), (margin, margin), (margin, margin), (0, 0)
    # Of the whole image, since a strip needs keys of its neighbours, which may be computed already.
    qkv = jnp.pad(self.qkv(self.norm1(x)), around)
    starts = jnp.arange(0, x.shape[1], window)
    return in_strips(self, partial(_apply_to_strip, qkv), x, window, starts,
                     (window + 2 * margin)**2)


def _apply_to_strip(qkv: jax.Array, block: OverlapBlock, x: jax.Array, starts: jax.Array
                    ) -> jax.Array:
  """Returns the block's result for a strip of whole rows of windows.

  Args:
    qkv: queries, keys and values of the image and of a margin around it, side by side.
    block: the block.
    x: the strip [B, h, w, features].
    starts: the first row of each row of windows.
  """
  (batch, height, width, features), margin = x.shape, block.margin
  heads, window = block.fields.heads, block.fields.window
  if qkv.shape[1] != height + 2 * margin:
    qkv = lax.dynamic_slice_in_dim(qkv, starts[0], height + 2 * margin, 1)
  query = qkv[:, margin:margin + height, margin:margin + width, :features]
  query = split_windows(query, (window, window)).reshape(batch, -1, window**2, heads,
                                                         features // heads)
  keys = overlapping_windows(qkv[..., features:], window, margin)
  keys = keys.reshape(*keys.shape[:3], 2, heads, features // heads)
  attended = block.attention(query, keys[..., 0, :, :], keys[..., 1, :, :])
  attended = join_windows(attended, (window, window), (height, width))
  return add_feed_forward(None, block, x + attended)
