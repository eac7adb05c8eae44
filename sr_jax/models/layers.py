"""Layers that more than one network uses."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax import images
from sr_jax.models.convolution import Conv

STAGES = {1: (), 2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2), 16: (2, 2, 2, 2)}  # of upsampling

# Kaiming's variance times 0.1^2: networks without BatchNorm start near the identity
# (ESRGAN, Wang et al. 2018, section 3.1 and its supplement).
SMALL_KAIMING = nn.initializers.variance_scaling(0.02, 'fan_in', 'normal')
# PyTorch's default for kernels, which networks have whose papers name no other.
PYTORCH_UNIFORM = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
# Of kernels, by the names that configs use.
INITIALIZERS = {
    'xavier': nn.initializers.xavier_uniform(),  # Glorot and Bengio 2010, equation 16
    'xavier_normal': nn.initializers.xavier_normal(),
    'kaiming': nn.initializers.he_normal(),  # He et al. 2015, equation 10
    'kaiming_uniform': nn.initializers.he_uniform(),
    'kaiming_0.1': SMALL_KAIMING,
    'lecun': nn.initializers.lecun_normal(),
    'pytorch': PYTORCH_UNIFORM}


def pixel_shuffle(x: jax.Array, scale: int) -> jax.Array:
  """Moves channels into space: [B, h, w, C * s * s] to [B, h * s, w * s, C].

  Channel c * s * s + i * s + j goes to row i, column j of its block, PyTorch's order,
  so that foreign weights need no permutation (Shi et al. 2016, equation 4).
  """
  batch, height, width, channels = x.shape
  x = x.reshape(batch, height, width, channels // scale**2, scale, scale)
  x = x.transpose(0, 1, 4, 2, 5, 3)
  return x.reshape(batch, height * scale, width * scale, channels // scale**2)


def pixel_unshuffle(x: jax.Array, factor: int) -> jax.Array:
  """The inverse of `pixel_shuffle`: [B, H, W, C] to [B, H / f, W / f, C * f * f]."""
  batch, height, width, channels = x.shape
  x = x.reshape(batch, height // factor, factor, width // factor, factor, channels)
  x = x.transpose(0, 1, 3, 5, 2, 4)
  return x.reshape(batch, height // factor, width // factor, channels * factor**2)


def nearest(x: jax.Array, scale: int) -> jax.Array:
  """Every pixel scale x scale times: [B, h, w, C] to [B, h * s, w * s, C]."""
  return x.repeat(scale, axis=1).repeat(scale, axis=2)


def seen(lr: jax.Array, channels: int) -> jax.Array:
  """What a network of 1 or 3 channels sees of lr [B, h, w, 1 or 3]: of one channel, luma.

  Raises:
    ValueError: three channels and a grey picture, or neither one nor three.
  """
  if channels == 1 and lr.shape[-1] == 3:
    return images.luma(lr)
  if channels not in (1, 3) or lr.shape[-1] != channels:
    raise ValueError(f'channels={channels} and a picture of {lr.shape[-1]}')
  return lr


def coloured(sr: jax.Array, lr: jax.Array, scale: int) -> jax.Array:
  """sr, or where the network made luma of an RGB lr: with lr's Cb and Cr, enlarged by bicubic."""
  if sr.shape[-1] == lr.shape[-1]:
    return sr
  chroma = images.rgb_to_ycbcr(images.resize(lr, scale, 'bicubic'))[..., 1:]
  return images.ycbcr_to_rgb(jnp.concatenate([sr, chroma], axis=-1))


SLOPES = {'leaky_relu': 0.1, 'leaky_relu_0.2': 0.2}


class Activation(nn.Module):
  """'none', 'relu', 'leaky_relu' (slope 0.1), 'leaky_relu_0.2' or 'prelu' (learnt, from 0.25).

  Attributes:
    slopes: 'prelu' has one for all channels, or one for each: their number.

  Raises:
    ValueError: when it is first called, another kind.
  """

  kind: str
  slopes: int = 1

  @nn.compact
  def __call__(self, x):
    if self.kind == 'none':
      return x
    if self.kind == 'relu':
      return nn.relu(x)
    if self.kind in SLOPES:
      return nn.leaky_relu(x, SLOPES[self.kind])
    if self.kind == 'prelu':
      slope = self.param('negative_slope', nn.initializers.constant(0.25), (self.slopes,),
                         jnp.float32)
      return jnp.where(x >= 0, x, slope.astype(x.dtype) * x)
    raise ValueError(f"activation {self.kind!r}: expected 'none', 'relu', 'prelu' or one of "
                     f'{", ".join(SLOPES)}')


class Upsample(nn.Module):
  """Doubles or triples the resolution: [B, h, w, C] to [B, h * s, w * s, C].

  Attributes:
    scale: 2 or 3.
    method: 'shuffle', a 3x3 convolution to C * s * s channels and a PixelShuffle;
      'nearest', every pixel repeated, then a 3x3 convolution (Odena et al. 2016, ESRGAN); or
      'transposed', a 3x3 convolution and a transposed one of stride s and kernel 4 (s = 2)
      or 9 (s = 3): a kernel that the stride divides leaves no checkerboard, and one that
      exceeds it by an even number does not move the picture.
    activation: applied after it.
  """

  scale: int
  features: int
  method: str
  activation: str
  kernel_init: Callable
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x):
    options = {'kernel_init': self.kernel_init, 'dtype': self.dtype}
    if self.method == 'shuffle':
      x = Conv(self.features * self.scale**2, (3, 3), **options)(x)
      x = pixel_shuffle(x, self.scale)
    elif self.method == 'nearest':
      x = Conv(self.features, (3, 3), **options)(nearest(x, self.scale))
    else:
      x = Conv(self.features, (3, 3), **options)(x)
      side = {2: 4, 3: 9}[self.scale]
      x = nn.ConvTranspose(self.features, (side, side), (self.scale, self.scale), **options)(x)
    return Activation(self.activation)(x)
