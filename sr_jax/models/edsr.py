"""EDSR (Lim et al. 2017, "Enhanced Deep Residual Networks for Single Image Super-Resolution").

SRResNet without BatchNorm and without activations outside the blocks. Each block's residual is
multiplied by a factor, without which wide networks don't train. `EDSR_BASELINE` and `EDSR_FULL` are
the paper's networks.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from sr_jax.models.convolution import Conv
from sr_jax.models.layers import (
  PYTORCH_UNIFORM,
  Upsample,
  add_chroma,
  check_choices,
  crop,
  fold,
  match_channels,
  stages_of,
)

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)  # of R, G and B over its training images


class ResidualBlock(nn.Module):
  """x + residual_scale * conv(relu(conv(x))), [B, h, w, features] to the same shape."""

  features: int
  residual_scale: float
  kernel_init: Callable
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    conv = partial(Conv, self.features, (3, 3), kernel_init=self.kernel_init, dtype=self.dtype)
    y = nn.relu(conv()(x))
    return x + self.residual_scale * conv()(y)


class EDSR(nn.Module):
  """Residual generator: lr [B, h, w, C] to sr [B, h * scale, w * scale, C].

  Attributes:
    features: channels of the trunk.
    blocks: residual blocks.
    residual_scale: factor of each block's residual; 0.1 in wide networks (section 3.3).
    scale: 1 (restoration), 2, 3, 4 or 8.
    unshuffle: factor by which the image is first folded into channels, see `layers.fold`; what is
      computed at h / unshuffle is faster, and the upsampling compensates for it.
    mean: RGB value in [0, 1] that is subtracted from the input and added to the output; with
      one channel, its luma is used.
    image_range: value of white inside the network. The authors' networks and weights use 255.
    kernel_init: the paper names none; PyTorch's default is that of its code.
    channels, remat, dtype: see `sr_jax.models`.
  """

  features: int = 64
  blocks: int = 16
  residual_scale: float = 1.0
  scale: int = 4
  unshuffle: int = 1
  channels: int = 3
  mean: tuple[float, ...] = DIV2K_MEAN
  image_range: float = 255.0
  remat: bool = False
  kernel_init: Callable = PYTORCH_UNIFORM
  dtype: jnp.dtype = jnp.float32

  def setup(self) -> None:
    check_choices(self, scale=(1, 2, 3, 4, 8))
    if len(self.mean) != 3:
      raise ValueError(f'mean={self.mean}: expected three numbers')
    if self.image_range <= 0:
      raise ValueError(f'image_range={self.image_range}: expected a number above 0')
    options = {'kernel_init': self.kernel_init, 'dtype': self.dtype}
    block = nn.remat(ResidualBlock) if self.remat else ResidualBlock
    self.head = Conv(self.features, (3, 3), **options)
    self.body = [block(self.features, self.residual_scale, **options)
                 for _ in range(self.blocks)]
    self.body_end = Conv(self.features, (3, 3), **options)
    self.stages = [Upsample(stage, self.features, 'shuffle', 'none', **options)
                   for stage in stages_of(self)]
    self.last = Conv(self.channels, (3, 3), **options)

  def trunk(self, lr: jax.Array, train: bool = False) -> jax.Array:
    """Maps lr [B, h, w, C] to [B, ceil(h / unshuffle), ceil(w / unshuffle), features]."""
    x = (match_channels(lr, self.channels).astype(jnp.float32) - self._mean()) * self.image_range
    first = x = self.head(fold(x, self.unshuffle).astype(self.dtype))
    for block in self.body:
      x = block(x)
    return self.body_end(x) + first

  def tail(self, features: jax.Array, lr: jax.Array) -> jax.Array:
    """Maps features and the lr [B, h, w, C] they were computed from to float32 sr."""
    x = features
    for stage in self.stages:
      x = stage(x)
    x = self.last(x).astype(jnp.float32) / self.image_range + self._mean()
    return add_chroma(crop(x, lr, self.scale), lr, self.scale)

  def __call__(self, lr: jax.Array, train: bool = False) -> jax.Array:
    return self.tail(self.trunk(lr, train), lr)

  def _mean(self) -> np.ndarray:
    mean = np.array(self.mean, np.float32)
    return match_channels(mean, self.channels)


EDSR_BASELINE = partial(EDSR, features=64, blocks=16, residual_scale=1.0)
EDSR_FULL = partial(EDSR, features=256, blocks=32, residual_scale=0.1)
