"""RRDBNet, the generator of ESRGAN (Wang et al. 2018) and of Real-ESRGAN (Wang et al. 2021).

It consists of residual-in-residual dense blocks: no BatchNorm, five convolutions of which each
reads the outputs of all earlier ones, and residuals scaled by 0.2 at both levels.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax.models.convolution import Conv
from sr_jax.models.layers import (
  PYTORCH_UNIFORM,
  SMALL_KAIMING,
  Activation,
  Upsample,
  add_chroma,
  check_choices,
  crop,
  fold,
  match_channels,
  stages_of,
)

RESIDUAL_SCALE = 0.2
ACTIVATION = 'leaky_relu_0.2'


class DenseBlock(nn.Module):
  """x + 0.2 * (five 3x3 convolutions, each of x and all earlier outputs), [B, h, w, C]."""

  growth: int
  kernel_init: Callable
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    features = x.shape[-1]
    conv = partial(Conv, kernel_size=(3, 3), kernel_init=self.kernel_init, dtype=self.dtype)
    activate = Activation(ACTIVATION)
    outputs = [x]
    for _ in range(4):
      outputs.append(activate(conv(self.growth)(jnp.concatenate(outputs, axis=-1))))
    return x + RESIDUAL_SCALE * conv(features)(jnp.concatenate(outputs, axis=-1))


class ResidualDenseBlocks(nn.Module):
  """One RRDB: x + 0.2 * (three dense blocks of x), [B, h, w, C]."""

  growth: int
  kernel_init: Callable
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y = x
    for _ in range(3):
      y = DenseBlock(self.growth, self.kernel_init, self.dtype)(y)
    return x + RESIDUAL_SCALE * y


class RRDB(nn.Module):
  """Generator of RRDBs: lr [B, h, w, C] to sr [B, h * scale, w * scale, C].

  Attributes:
    features: channels of the trunk.
    blocks: RRDBs, of three dense blocks each.
    growth: channels that each convolution of a dense block adds.
    scale: 1 (restoration), 2, 3, 4 or 8.
    unshuffle: factor by which the image is first folded into channels, so that the trunk
      works at h / unshuffle; the upsampling compensates for it. Real-ESRGAN's networks have 2
      at scale 2 and 4 at scale 1, all others 1. Sides that aren't multiples of it are padded by
      reflection and the result is cropped.
    upsample: 'nearest' or 'shuffle' (a PixelShuffle), as in `layers.Upsample`.
    kernel_init: of the dense blocks, Kaiming's times 0.1 ("smaller initialization", section 3.1,
      for the residual structure). The few convolutions around them have PyTorch's default, as
      in BasicSR: with a tenth there too, 1,000 steps of `rrdb.py:sample` produced grey images.
    channels, remat, dtype: see `sr_jax.models`.
  """

  features: int = 64
  blocks: int = 23
  growth: int = 32
  scale: int = 4
  unshuffle: int = 1
  upsample: str = 'nearest'
  channels: int = 3
  remat: bool = False
  kernel_init: Callable = SMALL_KAIMING
  dtype: jnp.dtype = jnp.float32

  def setup(self) -> None:
    check_choices(self, scale=(1, 2, 3, 4, 8), upsample=('nearest', 'shuffle'))
    options = {'kernel_init': PYTORCH_UNIFORM, 'dtype': self.dtype}
    block = nn.remat(ResidualDenseBlocks) if self.remat else ResidualDenseBlocks
    self.head = Conv(self.features, (3, 3), **options)
    self.body = [block(self.growth, self.kernel_init, self.dtype) for _ in range(self.blocks)]
    self.body_end = Conv(self.features, (3, 3), **options)
    self.stages = [Upsample(stage, self.features, self.upsample, ACTIVATION, **options)
                   for stage in stages_of(self)]
    self.refinement = Conv(self.features, (3, 3), **options)
    self.activation = Activation(ACTIVATION)
    self.last = Conv(self.channels, (3, 3), **options)

  def trunk(self, lr: jax.Array, train: bool = False) -> jax.Array:
    """Maps lr [B, h, w, C] to [B, ceil(h / unshuffle), ceil(w / unshuffle), features]."""
    x = fold(match_channels(lr, self.channels), self.unshuffle)
    first = x = self.head(x.astype(self.dtype))
    for block in self.body:
      x = block(x)
    return self.body_end(x) + first

  def tail(self, features: jax.Array, lr: jax.Array) -> jax.Array:
    """Maps features and the lr [B, h, w, C] they were computed from to float32 sr."""
    x = features
    for stage in self.stages:
      x = stage(x)
    x = self.last(self.activation(self.refinement(x))).astype(jnp.float32)
    return add_chroma(crop(x, lr, self.scale), lr, self.scale)

  def __call__(self, lr: jax.Array, train: bool = False) -> jax.Array:
    return self.tail(self.trunk(lr, train), lr)
