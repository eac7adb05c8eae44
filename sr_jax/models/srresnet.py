"""SRResNet, the generator of SRGAN (Ledig et al. 2017), and its descendants.

The published variants are one module with different fields. `SRRESNET` is the paper's network:
9x9 convolutions, BatchNorm, PReLU, a skip connection across the trunk, and tanh at the end.
`MSRRESNET` is the network without BatchNorm that BasicSR and mmagic call MSRResNet: 3x3
convolutions, with the bilinearly upscaled input added to the output.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax import images
from sr_jax.models.batch_norm import BatchNorm, convolve_and_normalize
from sr_jax.models.convolution import Conv
from sr_jax.models.layers import (
  SMALL_KAIMING,
  Activation,
  Upsample,
  add_chroma,
  check_choices,
  crop,
  fold,
  match_channels,
  pixel_shuffle,
  stages_of,
)


class ResidualBlock(nn.Module):
  """x + conv(act(conv(x))), with BatchNorm after each convolution if `batch_norm` is set."""

  features: int
  batch_norm: bool
  activation: str
  kernel_init: Callable
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    def conv_norm(x: jax.Array) -> jax.Array:
      conv = Conv(self.features, (3, 3), kernel_init=self.kernel_init, dtype=self.dtype)
      if not self.batch_norm:
        return conv(x)
      return convolve_and_normalize(conv, BatchNorm(dtype=self.dtype), x, train)

    return x + conv_norm(Activation(self.activation)(conv_norm(x)))


class SRResNet(nn.Module):
  """Residual generator: lr [B, h, w, C] to sr [B, h * scale, w * scale, C].

  Attributes:
    features: channels of the trunk.
    blocks: residual blocks.
    scale: 1 (restoration), 2, 3, 4 or 8.
    unshuffle: factor by which the image is first folded into channels, see `layers.fold`; what is
      computed at h / unshuffle is faster, and the upsampling compensates for it.
    kernel: side of the first and last convolutions.
    batch_norm: uses BatchNorm in the trunk; training then calls the network with `train=True`
      and `mutable=['batch_stats']`.
    skip: 'features' adds the first features to the trunk's last (Ledig);
      'bilinear' adds the upscaled input to the output instead (MSRResNet).
    upsample: 'shuffle', 'nearest' or 'transposed' are stages of factor 2 or 3
      (`layers.Upsample`), each followed by an activation; 'direct' is one convolution to
      channels * scale^2 and one PixelShuffle (ESPCN, Shi et al. 2016), which computes everything
      at low resolution, for small and fast networks.
    refine: adds a 3x3 convolution at high resolution before the last (MSRResNet); ignored with
      'direct', which has no features at high resolution.
    output: 'linear', or 'tanh', mapped to [0, 1].
    activation: kind of the `Activation` outside the blocks.
    block_activation: kind of the `Activation` inside the blocks.
    channels, remat, kernel_init, dtype: see `sr_jax.models`.
  """

  features: int = 64
  blocks: int = 16
  scale: int = 4
  unshuffle: int = 1
  channels: int = 3
  kernel: int = 9
  batch_norm: bool = True
  skip: str = 'features'
  upsample: str = 'shuffle'
  refine: bool = False
  output: str = 'tanh'
  activation: str = 'prelu'
  block_activation: str = 'prelu'
  remat: bool = False
  kernel_init: Callable = nn.initializers.lecun_normal()
  dtype: jnp.dtype = jnp.float32

  def setup(self) -> None:
    check_choices(self, skip=('features', 'bilinear'), output=('linear', 'tanh'),
                  upsample=('shuffle', 'nearest', 'transposed', 'direct'), scale=(1, 2, 3, 4, 8))
    options = {'kernel_init': self.kernel_init, 'dtype': self.dtype}
    wide = (self.kernel, self.kernel)
    self.head = Conv(self.features, wide, **options)
    self.head_activation = Activation(self.activation)
    # `train` is a Python bool and must stay static: it is argument 2 of __call__(self, x, train).
    block = nn.remat(ResidualBlock, static_argnums=2) if self.remat else ResidualBlock
    self.body = [block(self.features, self.batch_norm, self.block_activation, **options)
                 for _ in range(self.blocks)]
    if self.skip == 'features':
      self.body_end = Conv(self.features, (3, 3), **options)
      if self.batch_norm:
        self.body_end_norm = BatchNorm(dtype=self.dtype)
    if self.upsample == 'direct':
      self.last = Conv(self.channels * (self.scale * self.unshuffle)**2, wide, **options)
      return
    self.stages = [
        Upsample(stage, self.features, self.upsample, self.activation, **options)
        for stage in stages_of(self)
    ]
    if self.refine:
      self.refinement = Conv(self.features, (3, 3), **options)
      self.refinement_activation = Activation(self.activation)
    self.last = Conv(self.channels, wide, **options)

  def trunk(self, lr: jax.Array, train: bool = False) -> jax.Array:
    """Maps lr [B, h, w, C] to [B, ceil(h / unshuffle), ceil(w / unshuffle), features]."""
    x = fold(match_channels(lr, self.channels), self.unshuffle)
    first = x = self.head_activation(self.head(x.astype(self.dtype)))
    for block in self.body:
      x = block(x, train)
    if self.skip == 'features':
      x = first + (convolve_and_normalize(self.body_end, self.body_end_norm, x, train)
                   if self.batch_norm else self.body_end(x))
    return x

  def tail(self, features: jax.Array, lr: jax.Array) -> jax.Array:
    """Maps features and the lr [B, h, w, C] they were computed from to float32 sr."""
    x = features
    if self.upsample == 'direct':
      x = pixel_shuffle(self.last(x), self.scale * self.unshuffle)
    else:
      for stage in self.stages:
        x = stage(x)
      if self.refine:
        x = self.refinement_activation(self.refinement(x))
      x = self.last(x)
    x = crop(x, lr, self.scale).astype(jnp.float32)
    if self.skip == 'bilinear':
      x = x + images.resize(match_channels(lr, self.channels), self.scale, 'bilinear')
    return add_chroma((jnp.tanh(x) + 1) / 2 if self.output == 'tanh' else x, lr, self.scale)

  def __call__(self, lr: jax.Array, train: bool = False) -> jax.Array:
    return self.tail(self.trunk(lr, train), lr)


SRRESNET = partial(SRResNet, kernel=9, batch_norm=True, skip='features', output='tanh',
                   activation='prelu', block_activation='prelu')
MSRRESNET = partial(SRResNet, kernel=3, batch_norm=False, skip='bilinear', refine=True,
                    output='linear', activation='leaky_relu', block_activation='relu',
                    kernel_init=SMALL_KAIMING)
