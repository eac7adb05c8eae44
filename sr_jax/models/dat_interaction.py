"""DAT's adaptive interaction: attention beside a depthwise convolution, weighted by each other."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax.models.attention import LINEAR
from sr_jax.models.batch_norm import BatchNorm, convolve_and_normalize
from sr_jax.models.convolution import Conv, Dense
from sr_jax.models.dat_attention import ChannelAttention, WindowAttention

CHANNEL_REDUCTION, SPATIAL_REDUCTION = 8, 16  # channels of the interaction, in fractions of all


class DepthwiseConv(nn.Module):
  """3x3 convolution of each channel by itself with zero padding, [B, h, w, C] to the same shape.

  It is a sum of nine shifted products, which XLA fuses: on a CPU that took a thirtieth of the time
  of XLA's grouped convolution, and a quarter for the gradient.
  """

  kernel_init: Callable
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array, separate_bias: bool = False
               ) -> jax.Array | tuple[jax.Array, jax.Array]:
    """Returns the convolution; with `separate_bias` (result without the bias, bias)."""
    height, width, channels = x.shape[1:]
    kernel = self.param('kernel', self.kernel_init, (3, 3, 1, channels), jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (channels,), jnp.float32)
    # In float32, because the gradient of the kernel is a sum over all pixels, as in `Conv`.
    around = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))).astype(jnp.float32)
    total = sum(around[:, row:row + height, column:column + width] * kernel[row, column, 0]
                for row in range(3) for column in range(3))
    if separate_bias:
      return total.astype(self.dtype), bias
    return (total + bias).astype(self.dtype)


class ChannelInteraction(nn.Module):
  """Maps the mean over the pixels [B, C] to one number for each channel [B, 1, 1, C]."""

  kernel_init: Callable
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, mean: jax.Array, train: bool) -> jax.Array:
    channels, options = mean.shape[-1], {'kernel_init': self.kernel_init, 'dtype': self.dtype}
    x = mean[:, None, None].astype(self.dtype)
    reduce = Conv(channels // CHANNEL_REDUCTION, (1, 1), **options, name='reduce')
    x = convolve_and_normalize(reduce, BatchNorm(dtype=self.dtype, name='norm'), x, train)
    return Conv(channels, (1, 1), **options, name='expand')(nn.gelu(x, approximate=False))


class SpatialInteraction(nn.Module):
  """Maps [B, h, w, C] to one number for each pixel [B, h, w, 1]."""

  kernel_init: Callable
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    options = {'kernel_init': self.kernel_init, 'dtype': self.dtype}
    reduce = Conv(x.shape[-1] // SPATIAL_REDUCTION, (1, 1), **options, name='reduce')
    x = convolve_and_normalize(reduce, BatchNorm(dtype=self.dtype, name='norm'), x, train)
    return Conv(1, (1, 1), **options, name='expand')(nn.gelu(x, approximate=False))


class AdaptiveAttention(nn.Module):
  """Attention beside a depthwise convolution of its values (section 3.2, equations 6 to 8).

  Each is weighted by what the other says. Attention over windows gets weights for its channels and
  gives weights for pixels, attention over channels the reverse. `sr_jax.models` explains the
  methods by which an image is computed in windows.

  Attributes:
    features: channels C of the input.
    heads: number of heads.
    split_size: sides of the windows, see `WindowAttention`; None for attention over channels.
    shift: whether the windows are shifted.
  """

  features: int
  heads: int
  split_size: tuple[int, ...] | None
  shift: bool
  kernel_init: Callable
  dtype: jnp.dtype

  @property
  def window_grid(self) -> tuple[int, int]:
    """Where windows of an image may lie, see `sr_jax.models`."""
    if self.split_size is None:
      return 1, 1  # of the convolution
    longest = max(self.split_size)
    return longest, (longest - longest // 2 if self.shift else 1)

  def setup(self) -> None:
    options = {'kernel_init': self.kernel_init, 'dtype': self.dtype}
    dense = {'kernel_init': LINEAR, 'dtype': self.dtype}
    self.qkv, self.project = Dense(3 * self.features, **dense), Dense(self.features, **dense)
    self.conv, self.norm = DepthwiseConv(**options), BatchNorm(dtype=self.dtype)
    self.channel_interaction = ChannelInteraction(**options)
    self.spatial_interaction = SpatialInteraction(**options)
    if self.split_size is None:
      self.channels = ChannelAttention(self.heads)
    else:
      self.windows = WindowAttention(self.heads, self.split_size, self.shift)

  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Maps [B, h, w, C] to the same shape."""
    branches = self._branches(x, train)
    return self._join(*branches, self._sums(*branches), x.shape[1] * x.shape[2], train)

  def statistics(self, x: jax.Array, inside: jax.Array | None = None) -> Any:
    """Returns the sums over the pixels of x that are `inside`."""
    return self._sums(*self._branches(x, False), inside)

  def apply_statistics(self, x: jax.Array, sums: Any, count: float | jax.Array) -> jax.Array:
    """Returns the result for x, from the sums over an image of `count` pixels."""
    return self._join(*self._branches(x, False), sums, count, False)

  def _branches(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
    """Returns queries, keys and values [B, h, w, 3 C], and the convolution of the values."""
    qkv = self.qkv(x)
    local = convolve_and_normalize(self.conv, self.norm, qkv[..., 2 * self.features:], train)
    return qkv, nn.gelu(local, approximate=False)

  def _sums(self, qkv: jax.Array, local: jax.Array, inside: jax.Array | None = None) -> Any:
    if self.split_size is None:
      return self.channels.sums(qkv, inside)
    local = local if inside is None else jnp.where(inside[..., None], local, 0)
    return jnp.sum(local, (1, 2), jnp.float32)

  def _join(self, qkv: jax.Array, local: jax.Array, sums: Any, count: float | jax.Array,
            train: bool) -> jax.Array:
    by_channel, by_pixel = self.channel_interaction, self.spatial_interaction
    if self.split_size is None:
      x, mean = self.channels(qkv, sums, count)
      to_x, to_local = by_pixel(local, train), by_channel(mean, train)
    else:
      x = self.windows(qkv)
      to_x, to_local = by_channel(sums / count, train), by_pixel(x, train)
    return self.project(x * nn.sigmoid(to_x) + local * nn.sigmoid(to_local))
