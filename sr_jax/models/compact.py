"""SRVGGNetCompact, the small network of Real-ESRGAN (https://github.com/xinntao/Real-ESRGAN).

A plain stack of convolutions at low resolution and one PixelShuffle on top of the enlarged
input: what practitioners take where RRDB is too slow, for video above all.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from sr_jax.models.convolution import Conv
from sr_jax.models.layers import (
  PYTORCH_UNIFORM,
  Activation,
  coloured,
  nearest,
  pixel_shuffle,
  seen,
)


class Compact(nn.Module):
  """lr [B, h, w, C] in [0, 1] to sr [B, h * scale, w * scale, C].

  Attributes:
    features: channels of the trunk.
    blocks: convolutions between the first and the last (16 for video, 32 in general).
    scale: any positive integer.
    inner_scale: the network's own, where it is not `scale`: its picture is then resized, as
      the x2 and x3 of realesr-animevideov3 are its x4 made smaller.
    channels: 3 (RGB) or 1 (luma; of a colour picture, Cb and Cr are enlarged by bicubic).
    activation: 'prelu' (a slope for each channel), 'relu' or 'leaky_relu'.
    kernel_init: PyTorch's default, as the authors'. Biases start at zero.
    dtype: of the computation; parameters stay float32.

  Raises:
    ValueError: when it is first called, a field that makes no sense, or a picture of other
      channels.
  """

  features: int = 64
  blocks: int = 16
  scale: int = 4
  inner_scale: int | None = None
  channels: int = 3
  activation: str = 'prelu'
  kernel_init: Callable = PYTORCH_UNIFORM
  dtype: jnp.dtype = jnp.float32

  @property
  def tail_interpolates(self) -> float:
    """LR pixels that the resizing of the network's own picture sees, after its last layer."""
    return 0 if self._inner() == self.scale else 2 / self._inner()

  def setup(self):
    widths = [self.features] * (self.blocks + 1) + [self.channels * self._inner()**2]
    *self.layers, self.last = [
        Conv(width, (3, 3), kernel_init=self.kernel_init, dtype=self.dtype)
        for width in widths]
    self.activations = [Activation(self.activation, self.features) for _ in self.layers]

  def trunk(self, lr: jax.Array, train: bool = False) -> jax.Array:
    """lr [B, h, w, C] to features [B, h, w, features]."""
    x = seen(lr, self.channels).astype(self.dtype)
    for layer, activation in zip(self.layers, self.activations, strict=True):
      x = activation(layer(x))
    return x

  def tail(self, features: jax.Array, lr: jax.Array) -> jax.Array:
    """features [B, h, w, features] and the lr they came from to float32 sr."""
    x = pixel_shuffle(self.last(features), self._inner()).astype(jnp.float32)
    x = x + nearest(seen(lr, self.channels), self._inner())
    if self._inner() != self.scale:
      x = _interpolate(x, (lr.shape[1] * self.scale, lr.shape[2] * self.scale))
    return coloured(x, lr, self.scale)

  def __call__(self, lr: jax.Array, train: bool = False) -> jax.Array:
    return self.tail(self.trunk(lr, train), lr)

  def _inner(self) -> int:
    return self.inner_scale or self.scale


def _interpolate(x: jax.Array, size: tuple[int, int]) -> jax.Array:
  """[B, H, W, C] to [B, *size, C] as ncnn's and PyTorch's bicubic: Keys' kernel with
  a = -0.75, borders replicated, and no antialiasing, which MATLAB's would have.
  """
  a = -0.75
  for axis, length in zip((1, 2), size, strict=True):
    have = x.shape[axis]
    centre = (np.arange(length) + 0.5) * have / length - 0.5
    index = np.floor(centre)[:, None] + np.arange(-1, 3)
    d = np.abs(centre[:, None] - index)
    weights = np.where(d <= 1, (a + 2) * d**3 - (a + 3) * d**2 + 1,
                       a * (d**3 - 5 * d**2 + 8 * d - 4))
    index = np.clip(index, 0, have - 1).astype(np.int32)
    shape = [1, 1, 1, 1]
    shape[axis] = length
    x = sum(jnp.float32(weights[:, tap]).reshape(shape) * x.take(index[:, tap], axis)
            for tap in range(4))
  return x
