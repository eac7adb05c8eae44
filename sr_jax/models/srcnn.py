"""SRCNN (Dong et al. 2014, 2016): three convolutions on the bicubically enlarged picture."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax import images
from sr_jax.models.convolution import Conv
from sr_jax.models.layers import coloured, seen


class SRCNN(nn.Module):
  """lr [B, h, w, C] in [0, 1] to sr [B, h * scale, w * scale, C].

  Attributes:
    widths: channels of the hidden layers (64, 32: patch extraction, non-linear mapping).
    kernels: sides of the convolutions, one more than there are widths: the conference's
      (9, 1, 5), or the better (9, 5, 5) of the journal version.
    scale: any positive integer; the network itself knows no scale.
    luma_only: the network sees and makes Y alone, as in both papers' tables, and Cb and Cr
      stay bicubic; a grey picture is its own Y. False: R, G and B through the network (the
      journal version's "experiments on color channels").
    dtype: of the computation; parameters stay float32.

  Borders are replicated before each convolution, as in the authors' test code.
  """

  widths: tuple[int, ...] = (64, 32)
  kernels: tuple[int, ...] = (9, 5, 5)
  scale: int = 4
  luma_only: bool = True
  kernel_init: Callable = nn.initializers.lecun_normal()
  dtype: jnp.dtype = jnp.float32

  tail_interpolates = 2  # LR pixels that bicubic enlargement sees, before the layers

  def setup(self):
    if len(self.kernels) != len(self.widths) + 1:
      raise ValueError(f'kernels={self.kernels}: expected one more than widths={self.widths}')
    if any(side % 2 == 0 for side in self.kernels):
      raise ValueError(f'kernels={self.kernels}: expected odd sides')
    widths = (*self.widths, 1 if self.luma_only else 3)
    self.layers = [Conv(width, (side, side), padding='VALID', kernel_init=self.kernel_init,
                           dtype=self.dtype)
                   for width, side in zip(widths, self.kernels, strict=True)]

  def trunk(self, lr: jax.Array, train: bool = False) -> jax.Array:
    """Nothing happens at low resolution: the features are the picture."""
    return lr

  def tail(self, features: jax.Array, lr: jax.Array) -> jax.Array:
    """lr to float32 sr; the features are lr itself."""
    enlarged = images.resize(seen(features, 1 if self.luma_only else 3), self.scale, 'bicubic')
    return coloured(self._layers(enlarged), lr, self.scale)

  def _layers(self, x):
    for index, layer in enumerate(self.layers):
      if index:
        x = nn.relu(x)
      around = layer.kernel_size[0] // 2
      x = layer(jnp.pad(x, ((0, 0), (around, around), (around, around), (0, 0)), 'edge'))
    return x.astype(jnp.float32)

  def __call__(self, lr: jax.Array, train: bool = False) -> jax.Array:
    return self.tail(self.trunk(lr, train), lr)

