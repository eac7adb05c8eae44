"""The blocks of SwinIR and their groups; HAT's blocks are made of the same parts.

Liang et al. 2021, "SwinIR: Image Restoration Using Swin Transformer", section 3.1; Liu et al. 2021,
"Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", section 3.2.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax.models.attention import (
  LINEAR,
  LayerNorm,
  WindowAttention,
  in_strips,
  join_windows,
  regions,
  split_windows,
)
from sr_jax.models.convolution import Dense
from sr_jax.models.layers import ResidualConv, scale_residual


class BlockFields(NamedTuple):
  """What all blocks of a network have in common; see the fields of `SwinIR`."""

  features: int
  heads: int
  window: int
  mlp_ratio: float
  position: str
  dtype: jnp.dtype


class SwinBlock(nn.Module):
  """x + attention(norm(x)), then x + mlp(norm(x)), [B, h, w, features] to the same shape.

  Attributes:
    fields: of the network.
    shifted: whether the windows are shifted by half a side.
  """

  fields: BlockFields
  shifted: bool

  @property
  def window_grid(self) -> tuple[int, int]:
    """Where windows of an image may lie, see `sr_jax.models`."""
    # The windows at the end of the shifted image have pixels of both ends, apart from each other.
    window = self.fields.window
    return window, (window - window // 2 if self.shifted else 0)

  def setup(self) -> None:
    features, heads, window, mlp_ratio, position, dtype = self.fields
    dense = partial(Dense, kernel_init=LINEAR, dtype=dtype)
    self.norm1, self.norm2 = LayerNorm(dtype=dtype), LayerNorm(dtype=dtype)
    self.attention = WindowAttention(heads, window, position, dtype)
    self.hidden, self.output = dense(int(features * mlp_ratio)), dense(features)

  def __call__(self, x: jax.Array, scales: jax.Array | None = None) -> jax.Array:
    """Returns the result; `scales` [2, B] are the factors of both residuals, or None for 1."""
    window = self.fields.window
    shift = window // 2 if self.shifted else 0
    labels = regions(x.shape[1:3], (window,) * 2, (shift,) * 2) if shift else None
    # All of a block is computed in the shifted image, since each window is computed by itself.
    x = jnp.roll(x, (-shift, -shift), (1, 2)) if shift else x
    x = in_strips(self, partial(_apply_to_windows, scales), x, window, labels)
    return jnp.roll(x, (shift, shift), (1, 2)) if shift else x


def _apply_to_windows(scales: jax.Array | None, block: SwinBlock, x: jax.Array,
                      labels: jax.Array | None) -> jax.Array:
  """Returns the block's result for x [B, h, w, features] of whole windows, with their labels."""
  window = (block.fields.window,) * 2
  if labels is not None:
    labels = split_windows(labels[None], window)[0]
  attended = block.attention(split_windows(block.norm1(x), window), labels)
  attended = join_windows(attended, window, x.shape[1:3])
  return add_feed_forward(scales, block, x + scale_residual(attended, scales, 0))


def add_feed_forward(scales: jax.Array | None, block: nn.Module, x: jax.Array,
                     _: None = None) -> jax.Array:
  """Returns x + mlp(norm(x)) with layers of a block; `scales` are those of `SwinBlock`.

  The last argument is not used; `in_strips` gives it.
  """
  hidden = nn.gelu(block.hidden(block.norm2(x)), approximate=False)
  return x + scale_residual(block.output(hidden), scales, 1)


class SwinGroup(nn.Module):
  """x + conv(blocks(x)), a residual Swin Transformer block (RSTB, section 3.1, equation 6).

  Attributes:
    fields: of the network.
    blocks: number of `SwinBlock`s; every second one is shifted.
    residual_conv: kind of the `ResidualConv`.
    remat, kernel_init: of the network.
  """

  fields: BlockFields
  blocks: int
  residual_conv: str
  remat: bool
  kernel_init: Callable

  layered = True  # see `sr_jax.models`

  def setup(self) -> None:
    block = nn.remat(SwinBlock) if self.remat else SwinBlock
    self.body = [block(self.fields, bool(index % 2)) for index in range(self.blocks)]
    self.conv = ResidualConv(self.residual_conv, self.kernel_init, self.fields.dtype)

  def __call__(self, x: jax.Array, scales: jax.Array | None = None) -> jax.Array:
    """Returns the result; `scales` [blocks, 2, B] are those of the blocks."""
    y = x
    for index, block in enumerate(self.body):
      y = block(y, None if scales is None else scales[index])
    return x + self.conv(y)
