"""HAT (Chen et al. 2023, "Activating More Pixels in Image Super-Resolution Transformer").

SwinIR with three changes: windows of 16x16 pixels, a convolutional block with channel attention
beside the attention of each block (hybrid attention block, HAB, section 3.2 of the paper), and at
the end of each group a block whose keys come from windows that overlap (`overlap_attention`).
`HAT_S`, HAT's defaults and `HAT_L` are the authors' networks; https://github.com/XPixelGroup/HAT.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax.models.attention import in_strips, join_windows, regions, split_windows
from sr_jax.models.convolution import Conv
from sr_jax.models.layers import ResidualConv, scale_residual
from sr_jax.models.overlap_attention import OverlapBlock, overlap_margin
from sr_jax.models.swin_blocks import BlockFields, SwinBlock, add_feed_forward
from sr_jax.models.swinir import SwinIR

CONV_REACH = 2  # pixels that the two convolutions of a block see


class ConvFields(NamedTuple):
  """The convolutional block of a `HybridBlock`; see the fields of `HAT`."""

  compress: int
  squeeze: int
  scale: float
  kernel_init: Callable


class HybridBlock(SwinBlock):
  """Hybrid attention block (equation 2), [B, h, w, features] to the same shape.

  x + attention(norm(x)) + scale * convolutions(norm(x)), then x + mlp(norm(x)). The convolutions
  end with channel attention: each channel is multiplied by a number that depends on the means of
  all channels over the image.

  Attributes:
    fields, shifted: as of `SwinBlock`.
    conv_fields: of the network.
  """

  conv_fields: ConvFields

  @property
  def window_grid(self) -> tuple[int, int]:
    """Where windows of an image may lie, see `sr_jax.models`."""
    window = self.fields.window
    return window, max(CONV_REACH, window - window // 2 if self.shifted else 0)

  def setup(self) -> None:
    super().setup()
    features, (compress, squeeze, _, kernel_init) = self.fields.features, self.conv_fields
    conv = partial(Conv, kernel_init=kernel_init, dtype=self.fields.dtype)
    self.compress = conv(features // compress, (3, 3))
    self.restore = conv(features, (3, 3))
    self.squeeze, self.excite = conv(features // squeeze, (1, 1)), conv(features, (1, 1))

  def __call__(self, x: jax.Array, scales: jax.Array | None = None) -> jax.Array:
    """Returns the result; `scales` [2, B] are the factors of attention and MLP, or None for 1."""
    normed = self.norm1(x)
    convolved = self._convolve(normed)
    return self._add(x, normed, convolved, jnp.mean(convolved, (1, 2), jnp.float32), scales)

  def statistics(self, x: jax.Array, inside: jax.Array | None = None) -> jax.Array:
    """Returns the sums [B, features] of the convolutions' result over the pixels `inside`."""
    convolved = self._convolve(self.norm1(x))
    where = None if inside is None else inside[..., None]
    return jnp.sum(convolved, (1, 2), jnp.float32, where=where)

  def apply_statistics(self, x: jax.Array, sums: jax.Array, count: float | jax.Array) -> jax.Array:
    """Returns the result for a window x of an image of `count` pixels with these sums."""
    normed = self.norm1(x)
    return self._add(x, normed, self._convolve(normed), sums / count)

  def _convolve(self, normed: jax.Array) -> jax.Array:
    return self.restore(nn.gelu(self.compress(normed), approximate=False))

  def _add(self, x: jax.Array, normed: jax.Array, convolved: jax.Array, mean: jax.Array,
           scales: jax.Array | None = None) -> jax.Array:
    """Returns the result, for the mean of `convolved` over the image, float32 [B, features]."""
    mean, window = mean[:, None, None].astype(convolved.dtype), self.fields.window
    gate = nn.sigmoid(self.excite(nn.relu(self.squeeze(mean))))
    shift = window // 2 if self.shifted else 0
    labels = regions(x.shape[1:3], (window,) * 2, (shift,) * 2) if shift else None
    attended = jnp.roll(normed, (-shift, -shift), (1, 2)) if shift else normed
    attended = in_strips(self, _attend_in_windows, attended, window, labels)
    attended = jnp.roll(attended, (shift, shift), (1, 2)) if shift else attended
    x = x + scale_residual(attended, scales, 0) + convolved * (self.conv_fields.scale * gate)
    return in_strips(self, partial(add_feed_forward, scales), x, window)


def _attend_in_windows(block: HybridBlock, x: jax.Array, labels: jax.Array | None) -> jax.Array:
  """Returns the attention of normalised x [B, h, w, features] of whole windows."""
  window = (block.fields.window,) * 2
  if labels is not None:
    labels = split_windows(labels[None], window)[0]
  return join_windows(block.attention(split_windows(x, window), labels), window, x.shape[1:3])


class HybridGroup(nn.Module):
  """x + conv(overlap(blocks(x))), a residual hybrid attention group (RHAG, section 3.2).

  Attributes:
    fields, conv_fields: of the network.
    margin: of the `OverlapBlock`.
    blocks: number of `HybridBlock`s; every second one is shifted.
    residual_conv: kind of the `ResidualConv`.
    remat: of the network.
  """

  fields: BlockFields
  conv_fields: ConvFields
  margin: int
  blocks: int
  residual_conv: str
  remat: bool

  layered = True  # see `sr_jax.models`

  def setup(self) -> None:
    hybrid, overlap = ((nn.remat(kind) if self.remat else kind)
                       for kind in (HybridBlock, OverlapBlock))
    self.body = [hybrid(self.fields, bool(index % 2), conv_fields=self.conv_fields)
                 for index in range(self.blocks)]
    self.overlap = overlap(self.fields, self.margin)
    self.conv = ResidualConv(self.residual_conv, self.conv_fields.kernel_init, self.fields.dtype)

  def __call__(self, x: jax.Array, scales: jax.Array | None = None) -> jax.Array:
    """Returns the result; `scales` [blocks, 2, B] are those of the blocks."""
    y = x
    for index, block in enumerate(self.body):
      y = block(y, None if scales is None else scales[index])
    return x + self.conv(self.overlap(y))


class HAT(SwinIR):
  """Transformer generator: lr [B, h, w, C] to sr [B, h * scale, w * scale, C].

  It has the fields of `SwinIR` and these. Stochastic depth (`drop_path`) leaves out neither the
  convolutions nor the blocks with overlapping windows.

  Attributes:
    window: side of the windows in pixels of the features.
    position: also of the overlapping windows, in which rotation counts from the first query.
    upsample: the authors have 'shuffle' only, also with scale 1.
    compress: divisor of the features, for the channels between the two convolutions of a block.
    squeeze: divisor of the features, for the channels inside the channel attention.
    overlap: pixels by which the windows of keys are larger than those of queries, both sides
      together, for each pixel of `window`; 0 to 1. `window` * `overlap` is an even number.
    conv_scale: factor of the result of the convolutions.
  """

  window: int = 16
  compress: int = 3
  squeeze: int = 30
  overlap: float = 0.5
  conv_scale: float = 0.01

  @nn.nowrap
  def _new_group(self, fields: BlockFields) -> nn.Module:
    conv_fields = ConvFields(self.compress, self.squeeze, self.conv_scale, self.kernel_init)
    return HybridGroup(fields, conv_fields, overlap_margin(self.window, self.overlap), self.blocks,
                       self.residual_conv, self.remat)

  def _check(self) -> None:
    super()._check()
    for field in ('compress', 'squeeze'):
      if not 1 <= getattr(self, field) <= self.features:
        raise ValueError(f'{field}={getattr(self, field)}: expected a number from 1 to '
                         f'features={self.features}')
    margin = overlap_margin(self.window, self.overlap)
    if not 0 <= self.overlap <= 1 or not math.isclose(
        2 * margin, self.window * self.overlap, abs_tol=1e-3):
      nearest = 2 * min(max(0, margin), self.window // 2) / self.window
      raise ValueError(f'overlap={self.overlap} with window={self.window}: expected a number from '
                       f'0 to 1 whose product with window is even, such as {nearest:g}')


HAT_S = partial(HAT, features=144, compress=24, squeeze=24)
HAT_L = partial(HAT, groups=12)
