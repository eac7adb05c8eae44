"""RRDBNet, the generator of ESRGAN (Wang et al. 2018) and of Real-ESRGAN (Wang et al. 2021).

Residual-in-residual dense blocks: no BatchNorm, five convolutions that each see all earlier
ones' outputs, and residuals scaled by 0.2 at both levels.
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
  STAGES,
  Activation,
  Upsample,
  coloured,
  pixel_unshuffle,
  seen,
)

RESIDUAL_SCALE = 0.2
ACTIVATION = 'leaky_relu_0.2'


class DenseBlock(nn.Module):
  """x + 0.2 * (five 3x3 convolutions, each on x and all outputs before it), [B, h, w, C] both."""

  growth: int
  kernel_init: Callable
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x):
    features = x.shape[-1]
    conv = partial(Conv, kernel_size=(3, 3), kernel_init=self.kernel_init, dtype=self.dtype)
    activate = Activation(ACTIVATION)
    known = [x]
    for _ in range(4):
      known.append(activate(conv(self.growth)(jnp.concatenate(known, axis=-1))))
    return x + RESIDUAL_SCALE * conv(features)(jnp.concatenate(known, axis=-1))


class ResidualDenseBlocks(nn.Module):
  """x + 0.2 * (three dense blocks of it), [B, h, w, C] both: an RRDB."""

  growth: int
  kernel_init: Callable
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x):
    y = x
    for _ in range(3):
      y = DenseBlock(self.growth, self.kernel_init, self.dtype)(y)
    return x + RESIDUAL_SCALE * y


class RRDB(nn.Module):
  """lr [B, h, w, C] in [0, 1] to sr [B, h * scale, w * scale, C].

  Attributes:
    features: channels of the trunk.
    blocks: RRDBs, of three dense blocks each.
    growth: channels that each convolution of a dense block adds.
    scale: 1 (restoration), 2, 3, 4 or 8.
    unshuffle: the picture is folded by so much into channels first, so that the trunk works
      at h / unshuffle; the upsampling makes up for it. Real-ESRGAN's networks have 2 at
      scale 2 and 4 at scale 1, all others 1. A side that it does not divide is continued
      by reflection and cut afterwards.
    upsample: 'nearest' or 'shuffle' (a PixelShuffle), as in `layers.Upsample`.
    channels: 3 (RGB) or 1 (luma; of a colour picture, Cb and Cr are enlarged by bicubic).
    remat: computes the blocks anew in the backward pass rather than keep their activations:
      memory for a third more time. (XLA:CPU was seen to keep them all the same.)
    kernel_init: of the dense blocks, Kaiming's times 0.1 ("smaller initialization", section 3.1,
      for the residual structure). The few convolutions around them have PyTorch's default, as
      in BasicSR: with a tenth there too, 1,000 steps of `rrdb.py:sample` brought no colour.
    dtype: of the computation; parameters stay float32.

  Raises:
    ValueError: when it is first called, a field that makes no sense, or a picture of other
      channels.
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

  def setup(self):
    if self.scale not in (1, 2, 3, 4, 8):
      raise ValueError(f'scale={self.scale}: expected 1, 2, 3, 4 or 8')
    if self.scale * self.unshuffle not in STAGES:
      raise ValueError(f'unshuffle={self.unshuffle} at scale {self.scale}: expected their product '
                       f'to be one of {tuple(STAGES)}')
    if self.upsample not in ('nearest', 'shuffle'):
      raise ValueError(f"upsample={self.upsample!r}: expected 'nearest' or 'shuffle'")
    options = {'kernel_init': PYTORCH_UNIFORM, 'dtype': self.dtype}
    block = nn.remat(ResidualDenseBlocks) if self.remat else ResidualDenseBlocks
    self.head = Conv(self.features, (3, 3), **options)
    self.body = [block(self.growth, self.kernel_init, self.dtype) for _ in range(self.blocks)]
    self.body_end = Conv(self.features, (3, 3), **options)
    self.stages = [Upsample(stage, self.features, self.upsample, ACTIVATION, **options)
                   for stage in STAGES[self.scale * self.unshuffle]]
    self.refinement = Conv(self.features, (3, 3), **options)
    self.activation = Activation(ACTIVATION)
    self.last = Conv(self.channels, (3, 3), **options)

  def trunk(self, lr: jax.Array, train: bool = False) -> jax.Array:
    """lr [B, h, w, C] to features [B, ceil(h / unshuffle), ceil(w / unshuffle), features]."""
    x = seen(lr, self.channels)
    if self.unshuffle > 1:
      rows, columns = (-side % self.unshuffle for side in x.shape[1:3])
      x = jnp.pad(x, ((0, 0), (0, rows), (0, columns), (0, 0)), 'reflect')
      x = pixel_unshuffle(x, self.unshuffle)
    first = x = self.head(x.astype(self.dtype))
    for block in self.body:
      x = block(x)
    return self.body_end(x) + first

  def tail(self, features: jax.Array, lr: jax.Array) -> jax.Array:
    """features of the trunk and the lr [B, h, w, C] they came from to float32 sr."""
    x = features
    for stage in self.stages:
      x = stage(x)
    x = self.last(self.activation(self.refinement(x))).astype(jnp.float32)
    height, width = (side * self.scale for side in lr.shape[1:3])
    return coloured(x[:, :height, :width], lr, self.scale)

  def __call__(self, lr: jax.Array, train: bool = False) -> jax.Array:
    return self.tail(self.trunk(lr, train), lr)
