"""SRVGGNetCompact, the small network of Real-ESRGAN (https://github.com/xinntao/Real-ESRGAN).

A plain stack of convolutions at low resolution and one PixelShuffle, whose result is added to the
upscaled input. It is used where RRDB is too slow, above all for video.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from sr_jax.images.resizing import cubic_kernel
from sr_jax.models.convolution import Conv
from sr_jax.models.layers import (
  KAIMING,
  Activation,
  add_chroma,
  crop,
  fold,
  match_channels,
  pixel_shuffle,
  repeat_pixels,
)

# A hundredth of Kaiming's standard deviation.
LAST = nn.initializers.variance_scaling(2e-4, 'fan_in', 'normal')


class Compact(nn.Module):
  """Generator without residual blocks: lr [B, h, w, C] to sr [B, h * scale, w * scale, C].

  Attributes:
    features: channels of the trunk.
    blocks: convolutions between the first and the last (16 for video, 32 in general).
    scale: any positive integer.
    unshuffle: factor by which the image is first folded into channels, see `layers.fold`; what is
      computed at h / unshuffle is faster, and the PixelShuffle compensates for it.
    inner_scale: scale of the network itself if it isn't `scale`; its result is then resized.
      realesr-animevideov3 makes its x2 and x3 so from a network of x4.
    activation: 'prelu' (one slope per channel), 'relu' or 'leaky_relu'.
    kernel_init: of all convolutions but the last. With PyTorch's default, as in the authors' code,
      features of 17 convolutions are about 1e-7 at first, and hundreds of steps change nothing.
      The last convolution has a hundredth of Kaiming's, so that sr begins as the repeated pixels.
    channels, dtype: see `sr_jax.models`.
  """

  features: int = 64
  blocks: int = 16
  scale: int = 4
  unshuffle: int = 1
  inner_scale: int | None = None
  channels: int = 3
  activation: str = 'prelu'
  kernel_init: Callable = KAIMING
  dtype: jnp.dtype = jnp.float32

  def setup(self) -> None:
    widths = [self.features] * (self.blocks + 1) + [
        self.channels * (self._inner() * self.unshuffle)**2]
    inits = [self.kernel_init] * (self.blocks + 1) + [LAST]
    *self.layers, self.last = [Conv(width, (3, 3), kernel_init=init, dtype=self.dtype)
                               for width, init in zip(widths, inits, strict=True)]
    self.activations = [Activation(self.activation, self.features) for _ in self.layers]

  def trunk(self, lr: jax.Array, train: bool = False) -> jax.Array:
    """Maps lr [B, h, w, C] to [B, ceil(h / unshuffle), ceil(w / unshuffle), features]."""
    x = fold(match_channels(lr, self.channels), self.unshuffle).astype(self.dtype)
    for layer, activation in zip(self.layers, self.activations, strict=True):
      x = activation(layer(x))
    return x

  def tail(self, features: jax.Array, lr: jax.Array) -> jax.Array:
    """Maps features and the lr [B, h, w, C] they were computed from to float32 sr."""
    x = pixel_shuffle(self.last(features), self._inner() * self.unshuffle).astype(jnp.float32)
    x = crop(x, lr, self._inner()) + repeat_pixels(match_channels(lr, self.channels), self._inner())
    if self._inner() != self.scale:
      x = _interpolate(x, (lr.shape[1] * self.scale, lr.shape[2] * self.scale))
    return add_chroma(x, lr, self.scale)

  def __call__(self, lr: jax.Array, train: bool = False) -> jax.Array:
    return self.tail(self.trunk(lr, train), lr)

  def _inner(self) -> int:
    return self.inner_scale or self.scale


def _interpolate(x: jax.Array, size: tuple[int, int]) -> jax.Array:
  """Resizes [B, H, W, C] to [B, *size, C] by the bicubic of ncnn and PyTorch.

  Unlike MATLAB's it uses Keys' kernel with a = -0.75 and has no antialiasing. Borders are
  replicated.
  """
  for axis, length in zip((1, 2), size, strict=True):
    side = x.shape[axis]
    centre = (np.arange(length) + 0.5) * side / length - 0.5
    index = np.floor(centre)[:, None] + np.arange(-1, 3)
    weights = cubic_kernel(centre[:, None] - index, a=-0.75)
    index = np.clip(index, 0, side - 1).astype(np.int32)
    shape = [1, 1, 1, 1]
    shape[axis] = length
    x = sum(jnp.float32(weights[:, tap]).reshape(shape) * x.take(index[:, tap], axis)
            for tap in range(4))
  return x
