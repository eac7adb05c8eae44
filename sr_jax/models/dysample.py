"""DySample (Liu et al. 2023, "Learning to Upsample by Learning to Sample"), as RealPLKSR has it."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from sr_jax.models.convolution import Conv
from sr_jax.models.layers import PYTORCH_UNIFORM, pixel_shuffle


class DySample(nn.Module):
  """Upsampling at positions that the features choose: [B, h, w, channels * s * s] to [B, H, W, C].

  Each pixel of the result is the bilinear interpolation of x at its own position plus
  0.5 * conv(x) * sigmoid(conv'(x)), in pixels of x, one position for each group of consecutive
  channels; positions outside x are moved to its border. A 1x1 convolution makes C = channels of
  them, except at scale 1. Positions are not limited, so that the layer needs the whole image.

  Attributes:
    scale: s.
    channels: of the result.
    kernel_init: of the offsets; their factors start at sigmoid(0).
  """

  scale: int
  channels: int
  kernel_init: Callable

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    groups, s = groups_of(self.scale, self.channels), self.scale
    conv = partial(Conv, 2 * groups * s**2, (1, 1))
    offset = conv(kernel_init=self.kernel_init, name='offset')(x)
    scope = conv(use_bias=False, kernel_init=nn.initializers.zeros, name='scope')(x)
    offset = pixel_shuffle(0.5 * offset * nn.sigmoid(scope) + initial_positions(s, groups), s)
    columns, rows = offset[..., :groups], offset[..., groups:]
    rows += (jnp.arange(rows.shape[1]) // s)[:, None, None]
    columns += (jnp.arange(columns.shape[2]) // s)[:, None]
    x = x.reshape(*x.shape[:3], groups, -1)
    if s == 1:
      return _sample(x, rows, columns).reshape(*rows.shape[:3], -1)
    # Interpolation is linear: channels are mixed first, where there are fewer pixels.
    x, bias = Mixing(self.channels, name='end')(x)
    return _sample(x, rows, columns).sum(3) + bias


class Mixing(nn.Module):
  """A 1x1 convolution whose sum over groups is left to do: [B, h, w, G, c] to [B, h, w, G, C].

  It returns its bias [C] too.
  """

  channels: int

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    groups, inputs = x.shape[3:]
    kernel = self.param('kernel', PYTORCH_UNIFORM, (1, 1, groups * inputs, self.channels),
                        jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (self.channels,), jnp.float32)
    return jnp.einsum('bhwgi,gio->bhwgo', x, kernel.reshape(groups, inputs, -1)), bias


def groups_of(scale: int, channels: int) -> int:
  """Returns the number of groups of channels that share a position."""
  return channels if scale % 2 else 4


def initial_positions(scale: int, groups: int) -> np.ndarray:
  """Returns the positions of a pixel's parts relative to its middle, [2 * groups * s * s].

  The order is that of `layers.pixel_shuffle`: columns of each group, then rows.
  """
  steps = np.float32((np.arange(scale) - (scale - 1) / 2) / scale)
  rows, columns = np.meshgrid(steps, steps, indexing='ij')
  return np.concatenate([np.tile(part.ravel(), groups) for part in (columns, rows)])


def _sample(x: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
  """Interpolates [B, h, w, G, C] at [B, H, W, G] of each to [B, H, W, G, C]."""
  def sample(image: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
    total = 0.0
    for y, y_weight in _neighbours(row, image.shape[0]):
      for x, x_weight in _neighbours(column, image.shape[1]):
        total += image[y, x] * (y_weight * x_weight)[..., None]
    return total

  return jax.vmap(jax.vmap(sample, (2, 2, 2), 2))(x, rows, columns)


def _neighbours(position: jax.Array, side: int) -> list[tuple[jax.Array, jax.Array]]:
  """Returns the two pixels next to each position on an axis of a side, and their weights."""
  position = jnp.clip(position, 0, side - 1)
  first = jnp.floor(position)
  weight = position - first
  first = first.astype(jnp.int32)
  return [(first, 1 - weight), (jnp.minimum(first + 1, side - 1), weight)]
