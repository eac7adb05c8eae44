"""DAT (Chen et al. 2023, "Dual Aggregation Transformer for Image Super-Resolution").

Transformer blocks with attention over windows of pixels alternate with blocks of attention over
channels (section 3.1 of the paper); `dat_attention` has both, and `dat_interaction` what is beside
them. `DAT_LIGHT`, `DAT_S`, `DAT_2` and
DAT's defaults are the authors' networks.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from sr_jax.models.attention import LINEAR, LayerNorm, transformer_mean
from sr_jax.models.convolution import Conv, Dense
from sr_jax.models.dat_interaction import SPATIAL_REDUCTION, AdaptiveAttention, DepthwiseConv
from sr_jax.models.layers import (
  PYTORCH_UNIFORM,
  STAGES,
  ResidualConv,
  Upsample,
  add_chroma,
  check_choices,
  check_drop_path,
  match_channels,
  pixel_shuffle,
  residual_scales,
  scale_residual,
)

MIN_FEATURES = 2 * SPATIAL_REDUCTION  # below it, layers with a fraction of the channels have none
MAX_PIXELS = 4096  # of a window; the authors' networks have at most 256
TAIL_FEATURES = 64  # channels of the upsampling 'shuffle', whatever the trunk has
TAIL_SLOPE = 0.01  # of the leaky ReLU before it


class GatedFeedForward(nn.Module):
  """Spatial-gate feed-forward network (section 3.3, equation 9), [B, h, w, C] to the same shape.

  One half of the hidden channels is multiplied by a depthwise convolution of the other half.
  """

  hidden: int
  kernel_init: Callable
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    hidden = Dense(self.hidden, kernel_init=LINEAR, dtype=self.dtype, name='expand')(x)
    kept, gate = jnp.split(nn.gelu(hidden, approximate=False), 2, axis=-1)
    gate = LayerNorm(dtype=self.dtype, name='norm')(gate)
    gate = DepthwiseConv(self.kernel_init, self.dtype, name='conv')(gate)
    return Dense(x.shape[-1], kernel_init=LINEAR, dtype=self.dtype, name='reduce')(kept * gate)


class Block(nn.Module):
  """One transformer block: x + attention(x), then x + feed-forward(x), each of normalised x.

  Attributes:
    heads, split_size, shift: see `AdaptiveAttention`.
    hidden: channels inside the feed-forward network.
  """

  heads: int
  split_size: tuple[int, ...] | None
  shift: bool
  hidden: int
  kernel_init: Callable
  dtype: jnp.dtype

  layered = True  # see `sr_jax.models`

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, scales: jax.Array | None) -> jax.Array:
    """Returns the result; `scales` [2, B] are the factors of both residuals, or None for 1."""
    options = {'kernel_init': self.kernel_init, 'dtype': self.dtype}
    attention = AdaptiveAttention(x.shape[-1], self.heads, self.split_size, self.shift, **options,
                                  name='attention')
    attended = attention(LayerNorm(dtype=self.dtype, name='norm1')(x), train)
    x = x + scale_residual(attended, scales, 0)
    feed_forward = GatedFeedForward(self.hidden, **options, name='feed_forward')
    hidden = feed_forward(LayerNorm(dtype=self.dtype, name='norm2')(x))
    return x + scale_residual(hidden, scales, 1)


class ResidualGroup(nn.Module):
  """x + convolution(blocks(x)), [B, h, w, C] to the same shape.

  Attributes:
    index: of the group in the network; in odd groups the first windows are shifted.
    blocks: number of blocks.
    residual_conv: see `ResidualConv`.
    remat, kernel_init, dtype: see `sr_jax.models`.
  """

  index: int
  blocks: int
  heads: int
  split_size: tuple[int, ...]
  hidden: int
  residual_conv: str
  remat: bool
  kernel_init: Callable
  dtype: jnp.dtype

  layered = True  # see `sr_jax.models`

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, scales: jax.Array | None) -> jax.Array:
    """Returns the result; `scales` [blocks, 2, B] are those of the blocks."""
    first, options = x, {'kernel_init': self.kernel_init, 'dtype': self.dtype}
    # `train` is a Python bool and must stay static; it is argument 2, of __call__(self, x, train).
    block = nn.remat(Block, static_argnums=2) if self.remat else Block
    for index in range(self.blocks):
      split_size = self.split_size if index % 2 == 0 else None
      x = block(self.heads, split_size, is_shifted(self.index, index), self.hidden, **options,
                name=f'block_{index}')(x, train, None if scales is None else scales[index])
    return first + ResidualConv(self.residual_conv, **options, name='conv')(x)


def is_shifted(group: int, block: int) -> bool:
  """Returns whether the windows of a block are shifted: every other time, later in even groups."""
  return block % 4 == (2 if group % 2 == 0 else 0)


class DAT(nn.Module):
  """Generator with attention over windows and over channels: lr [B, h, w, C] to [B, h*s, w*s, C].

  Attributes:
    features: channels of the trunk, a multiple of `heads` and at least 32. With fewer than 64 the
      layers that compute the position bias have one channel, so that LayerNorm makes it the same
      for all positions; the authors' light network is such.
    groups: residual groups.
    blocks: blocks of each group; the first has attention over windows, the second over channels,
      and so on.
    heads: attention heads of each block, an even number.
    split_size: sides of the windows; half of the heads have windows of split_size[0] rows and
      split_size[1] columns, the others the reverse. The longer side is a multiple of the shorter.
    mlp_ratio: hidden channels of the feed-forward networks, in multiples of `features`.
    residual_conv: '1conv' or '3conv', see `ResidualConv`.
    upsample: 'shuffle', stages of a convolution and a PixelShuffle at 64 channels, or 'direct', one
      convolution and one PixelShuffle for the entire scale.
    scale: 1 (restoration), 2, 3, 4 or 8.
    drop_path: largest probability with which training leaves out residuals, see
      `layers.residual_scales`; 0.1 in the authors' code. Above 0, calls with `train=True` need an
      rng named 'drop_path'.
    kernel_init: of the convolutions, PyTorch's default as in the authors' code; its dense layers
      have a normal distribution of deviation 0.02.
    channels, remat, dtype: see `sr_jax.models`.
  """

  features: int = 180
  groups: int = 6
  blocks: int = 6
  heads: int = 6
  split_size: tuple[int, ...] = (8, 32)
  mlp_ratio: float = 4.0
  residual_conv: str = '1conv'
  upsample: str = 'shuffle'
  scale: int = 4
  channels: int = 3
  drop_path: float = 0.1
  remat: bool = False
  kernel_init: Callable = PYTORCH_UNIFORM
  dtype: jnp.dtype = jnp.float32

  def setup(self) -> None:
    self._check()
    options = {'kernel_init': self.kernel_init, 'dtype': self.dtype}
    self.head = Conv(self.features, (3, 3), **options)
    self.head_norm = LayerNorm(dtype=self.dtype)
    hidden = int(self.features * self.mlp_ratio)
    self.body = [
        ResidualGroup(index, self.blocks, self.heads, self.split_size, hidden, self.residual_conv,
                      self.remat, **options) for index in range(self.groups)]
    self.norm = LayerNorm(dtype=self.dtype)
    self.body_end = ResidualConv(self.residual_conv, **options)
    if self.upsample == 'direct':
      self.last = Conv(self.channels * self.scale**2, (3, 3), **options)
      return
    self.before_upsample = Conv(TAIL_FEATURES, (3, 3), **options)
    self.stages = [Upsample(stage, TAIL_FEATURES, 'shuffle', 'none', **options)
                   for stage in STAGES[self.scale]]
    self.last = Conv(self.channels, (3, 3), **options)

  def trunk(self, lr: jax.Array, train: bool = False) -> jax.Array:
    """Maps lr [B, h, w, C] to [B, h, w, features]."""
    x = match_channels(lr, self.channels).astype(jnp.float32) - self._mean()
    first = self.head(x.astype(self.dtype))
    x = self.head_norm(first)
    scales = residual_scales(self, len(lr), train)
    for index, group in enumerate(self.body):
      x = group(x, train, None if scales is None else scales[index])
    return self.body_end(self.norm(x)) + first

  def tail(self, features: jax.Array, lr: jax.Array) -> jax.Array:
    """Maps features and the lr [B, h, w, C] they were computed from to float32 sr."""
    x = features
    if self.upsample == 'direct':
      x = pixel_shuffle(self.last(x), self.scale)
    else:
      x = nn.leaky_relu(self.before_upsample(x), TAIL_SLOPE)
      for stage in self.stages:
        x = stage(x)
      x = self.last(x)
    return add_chroma(x.astype(jnp.float32) + self._mean(), lr, self.scale)

  def __call__(self, lr: jax.Array, train: bool = False) -> jax.Array:
    return self.tail(self.trunk(lr, train), lr)

  def _mean(self) -> np.ndarray:
    return transformer_mean(self.channels)

  def _check(self) -> None:
    """Raises ValueError for invalid fields."""
    check_choices(self, scale=(1, 2, 3, 4, 8), residual_conv=('1conv', '3conv'),
                  upsample=('shuffle', 'direct'))
    check_drop_path(self)
    if self.heads < 2 or self.heads % 2:
      raise ValueError(f'heads={self.heads}: expected an even number, one half for each '
                       'orientation of the windows')
    if self.features % self.heads or self.features < MIN_FEATURES:
      least = -(-MIN_FEATURES // self.heads) * self.heads
      raise ValueError(f'features={self.features}: expected a multiple of heads={self.heads}, at '
                       f'least {least}')
    if len(self.split_size) != 2 or min(self.split_size) < 2 or (
        max(self.split_size) % min(self.split_size)):
      raise ValueError(f'split_size={self.split_size}: expected two sides of at least 2, the '
                       'longer a multiple of the shorter, such as (8, 32)')
    if math.prod(self.split_size) > MAX_PIXELS:
      raise ValueError(f'split_size={self.split_size}: makes {math.prod(self.split_size)} pixels, '
                       f'expected at most {MAX_PIXELS}, the square of which attention needs memory '
                       'for')
    hidden = int(self.features * self.mlp_ratio)
    if hidden < 2 or hidden % 2:
      raise ValueError(f'mlp_ratio={self.mlp_ratio}: makes {hidden} channels of {self.features}; '
                       'expected an even number of at least 2')


DAT_LIGHT = partial(DAT, features=60, groups=1, blocks=18, mlp_ratio=2.0, residual_conv='3conv',
                    upsample='direct')
DAT_S = partial(DAT, split_size=(8, 16), mlp_ratio=2.0)
DAT_2 = partial(DAT, mlp_ratio=2.0)
