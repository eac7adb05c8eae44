"""SRCNN (Dong et al. 2014, 2016): three convolutions of the bicubically upscaled image."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax import images
from sr_jax.models.convolution import Conv
from sr_jax.models.layers import add_chroma, match_channels


class SRCNN(nn.Module):
  """Generator that refines bicubic: lr [B, h, w, C] to sr [B, h * scale, w * scale, C].

  Borders are replicated before each convolution, as in the authors' test code.

  Attributes:
    widths: channels of the hidden layers (64, 32: patch extraction, non-linear mapping).
    kernels: sides of the convolutions, one more than there are widths: (9, 1, 5) in the
      conference paper, or the better (9, 5, 5) of the journal version.
    scale: any positive integer; the layers don't depend on it.
    luma_only: the network reads and predicts only Y, as in both papers' tables, and Cb and Cr
      are bicubic; a grey image is used as Y. False: it processes R, G and B (the journal
      version's "experiments on color channels").
    kernel_init: LeCun's normal initialisation, a variance of 1 / fan-in. The papers' kernels
      start with a standard deviation of 0.001.
    dtype: see `sr_jax.models`.
  """

  widths: tuple[int, ...] = (64, 32)
  kernels: tuple[int, ...] = (9, 5, 5)
  scale: int = 4
  luma_only: bool = True
  kernel_init: Callable = nn.initializers.lecun_normal()
  dtype: jnp.dtype = jnp.float32

  def setup(self) -> None:
    if len(self.kernels) != len(self.widths) + 1:
      raise ValueError(f'kernels={self.kernels}: expected one value more than widths={self.widths}')
    if any(side % 2 == 0 for side in self.kernels):
      raise ValueError(f'kernels={self.kernels}: expected odd sides')
    widths = (*self.widths, 1 if self.luma_only else 3)
    self.layers = [Conv(width, (side, side), padding='VALID', kernel_init=self.kernel_init,
                        dtype=self.dtype)
                   for width, side in zip(widths, self.kernels, strict=True)]

  def trunk(self, lr: jax.Array, train: bool = False) -> jax.Array:
    """Returns lr unchanged: nothing is computed at low resolution."""
    return lr

  def tail(self, features: jax.Array, lr: jax.Array) -> jax.Array:
    """Maps lr, which is also the features, to float32 sr."""
    channels = 1 if self.luma_only else 3
    x = match_channels(features, channels, full_range=False)
    x = self._apply_layers(images.resize(x, self.scale, 'bicubic'))
    return add_chroma(x, lr, self.scale, full_range=False)

  def _apply_layers(self, x: jax.Array) -> jax.Array:
    for index, layer in enumerate(self.layers):
      if index:
        x = nn.relu(x)
      margin = layer.kernel_size[0] // 2
      x = layer(jnp.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)), 'edge'))
    return x.astype(jnp.float32)

  def __call__(self, lr: jax.Array, train: bool = False) -> jax.Array:
    return self.tail(self.trunk(lr, train), lr)

