"""Layers that more than one network uses."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

# Kaiming's variance times 0.1^2: networks without BatchNorm start near the identity
# (ESRGAN, Wang et al. 2018, section 3.1 and its supplement).
SMALL_KAIMING = nn.initializers.variance_scaling(0.02, 'fan_in', 'normal')


def pixel_shuffle(x: jax.Array, scale: int) -> jax.Array:
  """Moves channels into space: [B, h, w, C * s * s] to [B, h * s, w * s, C].

  Channel c * s * s + i * s + j goes to row i, column j of its block, PyTorch's order,
  so that foreign weights need no permutation (Shi et al. 2016, equation 4).
  """
  batch, height, width, channels = x.shape
  x = x.reshape(batch, height, width, channels // scale**2, scale, scale)
  x = x.transpose(0, 1, 4, 2, 5, 3)
  return x.reshape(batch, height * scale, width * scale, channels // scale**2)


class Activation(nn.Module):
  """'relu', 'leaky_relu' (slope 0.1) or 'prelu' (one learnt slope, from 0.25, as PyTorch)."""

  kind: str

  @nn.compact
  def __call__(self, x):
    if self.kind == 'relu':
      return nn.relu(x)
    if self.kind == 'leaky_relu':
      return nn.leaky_relu(x, 0.1)
    if self.kind == 'prelu':
      slope = self.param('negative_slope', nn.initializers.constant(0.25), (1,), jnp.float32)
      return jnp.where(x >= 0, x, slope.astype(x.dtype) * x)
    raise ValueError(f"activation {self.kind!r}: expected 'relu', 'leaky_relu' or 'prelu'")


class Upsample(nn.Module):
  """Doubles or triples the resolution: [B, h, w, C] to [B, h * s, w * s, C].

  Attributes:
    scale: 2 or 3.
    method: 'shuffle', a 3x3 convolution to C * s * s channels and a PixelShuffle, or
      'transposed', a 3x3 convolution and a transposed one of stride s and kernel 4 (s = 2)
      or 9 (s = 3): a kernel that the stride divides leaves no checkerboard (Odena et al.
      2016), and one that exceeds it by an even number does not move the picture.
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
      x = nn.Conv(self.features * self.scale**2, (3, 3), **options)(x)
      x = pixel_shuffle(x, self.scale)
    else:
      x = nn.Conv(self.features, (3, 3), **options)(x)
      side = {2: 4, 3: 9}[self.scale]
      x = nn.ConvTranspose(self.features, (side, side), (self.scale, self.scale), **options)(x)
    return Activation(self.activation)(x)
