"""PLKSR (Lee, Yun and Ro 2024, "Partial Large Kernel CNNs for Efficient Super-Resolution").

A convolution of 17x17 pixels on a quarter of the channels sees as far as a transformer's attention
at a fraction of its cost. RealPLKSR (muslll/neosr) is the same with another activation and a
normalisation, without which training against a discriminator is unstable. Published sizes are
`PLKSR`, `PLKSR_TINY`, `REALPLKSR` and `REALPLKSR_TINY`.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax.models.convolution import Conv
from sr_jax.models.dysample import DySample
from sr_jax.models.group_norm import GroupNorm
from sr_jax.models.layers import (
  PYTORCH_UNIFORM,
  add_chroma,
  check_choices,
  crop,
  fold,
  match_channels,
  pixel_shuffle,
  repeat_pixels,
)

# Sides of the two convolutions of a channel mixer, by the paper's names.
MIXERS = {'dccm': (3, 3), 'ccm': (3, 1), 'iccm': (1, 3)}
ACTIVATIONS = {'gelu': partial(nn.gelu, approximate=False), 'mish': jax.nn.mish}
NORMAL = nn.initializers.normal(0.02)  # of the authors' code, which cuts off what never occurs


class PartialBlock(nn.Module):
  """A residual of PLKSR, [B, h, w, features] to the same shape; the trunk adds x to it.

  y = mixer(x), with twice as many channels between its two convolutions;
  y[:large] = conv_kernel(y[:large]); y = y * sigmoid(conv_3(y)) if gate; result = conv_1(y).

  Attributes:
    large: number of channels of the large convolution.
    layer_norm: whether x is first normalised over its channels (Ba et al. 2016).
    kernel, mixer, activation, gate, kernel_init, dtype: as of `PLKSR`.
  """

  large: int
  layer_norm: bool
  kernel: int
  mixer: str
  activation: str
  gate: bool
  kernel_init: Callable
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    def conv(y: jax.Array, features: int, side: int, name: str,
             init: Callable = self.kernel_init) -> jax.Array:
      return Conv(features, (side, side), kernel_init=init, dtype=self.dtype, name=name)(y)

    features, sides, y = x.shape[-1], MIXERS[self.mixer], x
    if self.layer_norm:
      y = nn.LayerNorm(1e-6, dtype=self.dtype, use_fast_variance=False, name='norm')(y)
    y = ACTIVATIONS[self.activation](conv(y, 2 * features, sides[0], 'mixer_0', PYTORCH_UNIFORM))
    y = conv(y, features, sides[1], 'mixer_1')
    y = jnp.concatenate([conv(y[..., :self.large], self.large, self.kernel, 'large'),
                         y[..., self.large:]], axis=-1)
    if self.gate:
      y = y * nn.sigmoid(conv(y, features, 3, 'gate'))
    return conv(y, features, 1, 'refine')


class PLKSR(nn.Module):
  """Generator with large kernels: lr [B, h, w, C] to sr [B, h * scale, w * scale, C].

  The upsampling is one convolution and a PixelShuffle, added to the repeated pixels of lr.
  RealPLKSR has a DySample in some networks, of the sum of both before the PixelShuffle.

  Attributes:
    features: channels of the trunk.
    blocks: residual blocks.
    scale: any positive integer.
    unshuffle: factor by which the image is first folded into channels, see `layers.fold`; what is
      computed at h / unshuffle is faster, and the PixelShuffle compensates for it.
    kernel: side of the large kernels, an odd number.
    share: of the channels on which they work.
    mixer: 'dccm' (two convolutions of 3x3), 'ccm' (3x3 and 1x1) or 'iccm' (1x1 and 3x3).
    activation: of the mixer, 'gelu' (exact, not by tanh) or 'mish' (Misra 2019).
    gate: whether each block's result is multiplied by a sigmoid of itself (the paper's
      element-wise attention).
    norm: 'none'; 'group', a GroupNorm of each block's result, whose statistics are those of the
      whole image; or 'layer', a LayerNorm over the channels before each block.
    norm_groups: number of groups of channels of the GroupNorm.
    upsample: 'shuffle' or 'dysample', which needs unshuffle = 1.
    kernel_init: the authors', a normal distribution. The first convolution of each mixer has
      PyTorch's default.
    channels, remat, dtype: see `sr_jax.models`.
  """

  features: int = 64
  blocks: int = 28
  scale: int = 4
  unshuffle: int = 1
  kernel: int = 17
  share: float = 0.25
  mixer: str = 'dccm'
  activation: str = 'gelu'
  gate: bool = True
  norm: str = 'none'
  norm_groups: int = 4
  upsample: str = 'shuffle'
  channels: int = 3
  remat: bool = False
  kernel_init: Callable = NORMAL
  dtype: jnp.dtype = jnp.float32

  def setup(self) -> None:
    check_choices(self, mixer=tuple(MIXERS), activation=tuple(ACTIVATIONS),
                  norm=('none', 'group', 'layer'), upsample=('shuffle', 'dysample'))
    if self.upsample == 'dysample' and self.unshuffle != 1:
      raise ValueError(f"upsample='dysample': expected unshuffle=1, not {self.unshuffle}")
    large = int(self.features * self.share + 1e-6)  # as in PyTorch, apart from rounding
    if not 1 <= large <= self.features:
      raise ValueError(f'share={self.share}: expected a share of at least one of '
                       f'{self.features} features, and at most 1')
    if self.kernel % 2 == 0:
      raise ValueError(f'kernel={self.kernel}: expected an odd number')
    if self.norm == 'group' and self.features % self.norm_groups:
      raise ValueError(f'norm_groups={self.norm_groups}: expected a divisor of '
                       f'features={self.features}')
    options = {'kernel_init': self.kernel_init, 'dtype': self.dtype}
    block = nn.remat(PartialBlock) if self.remat else PartialBlock
    self.head = Conv(self.features, (3, 3), **options)
    self.body = [block(large, self.norm == 'layer', self.kernel, self.mixer, self.activation,
                       self.gate, **options) for _ in range(self.blocks)]
    self.norms = [GroupNorm(self.norm_groups, dtype=self.dtype)
                  for _ in range(self.blocks)] if self.norm == 'group' else []
    self.last = Conv(self.channels * (self.scale * self.unshuffle)**2, (3, 3), **options)
    self.sampler = DySample(self.scale, self.channels, self.kernel_init
                            ) if self.upsample == 'dysample' else None

  def trunk(self, lr: jax.Array, train: bool = False) -> jax.Array:
    """Maps lr [B, h, w, C] to [B, ceil(h / unshuffle), ceil(w / unshuffle), features]."""
    x = fold(match_channels(lr, self.channels), self.unshuffle)
    x = self.head(x.astype(self.dtype))
    for index, block in enumerate(self.body):
      y = block(x)
      x = x + (self.norms[index](y) if self.norms else y)
    return x

  def tail(self, features: jax.Array, lr: jax.Array) -> jax.Array:
    """Maps features and the lr [B, h, w, C] they were computed from to float32 sr."""
    x, base = self.last(features).astype(jnp.float32), match_channels(lr, self.channels)
    if self.sampler:
      x = self.sampler(x + base.repeat(self.scale**2, axis=3))
    else:
      x = pixel_shuffle(x, self.scale * self.unshuffle)
      x = crop(x, lr, self.scale) + repeat_pixels(base, self.scale)
    return add_chroma(x, lr, self.scale)

  def __call__(self, lr: jax.Array, train: bool = False) -> jax.Array:
    return self.tail(self.trunk(lr, train), lr)


PLKSR_TINY = partial(PLKSR, blocks=12, kernel=13, gate=False)
REALPLKSR = partial(PLKSR, activation='mish', norm='group')
REALPLKSR_TINY = partial(REALPLKSR, blocks=12, kernel=13, gate=False)
