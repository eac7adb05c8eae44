"""The VGG-style discriminator of SRGAN (Ledig et al. 2017, figure 4)."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax.models.convolution import Conv


class Discriminator(nn.Module):
  """Images [B, H, W, 3] in [0, 1] to logits [B]: above zero means "real".

  Two 3x3 convolutions per width, the second of stride 2, each with LeakyReLU 0.2 and,
  but for the very first, BatchNorm.

  Attributes:
    widths: channels of each pair.
    batch_norm: call with `train=True, mutable=['batch_stats']` in training.
    head: 'dense' flattens into 1024 -> 1 (Ledig; bound to one patch size); 'conv' pools
      over the picture and takes any size, two 1x1 convolutions to 1024 and 1. With the
      paper's widths and 'conv' it has 5,215,425 parameters.
    kernel_init: of all kernels; the paper names none. Biases start at zero.
    dtype: of the computation; parameters and logits stay float32.
  """

  widths: tuple[int, ...] = (64, 128, 256, 512)
  batch_norm: bool = True
  head: str = 'dense'
  hidden: int = 1024
  kernel_init: Callable = nn.initializers.lecun_normal()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    if self.head not in ('dense', 'conv'):
      raise ValueError(f"head={self.head!r}: expected 'dense' or 'conv'")
    options = {'kernel_init': self.kernel_init, 'dtype': self.dtype}
    conv, dense = partial(Conv, **options), partial(nn.Dense, **options)
    x = (2 * images - 1).astype(self.dtype)  # [-1, 1]: centred, as the paper's HR
    for pair, width in enumerate(self.widths):
      for stride in (1, 2):
        # Padded alike on all sides, as PyTorch does: XLA's SAME pads a strided 3x3 below
        # and to the right only, and foreign weights would see a picture moved by a pixel.
        x = conv(width, (3, 3), (stride, stride), padding=1)(x)
        if self.batch_norm and (pair, stride) != (0, 1):
          x = nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype)(x)
        x = nn.leaky_relu(x, 0.2)
    if self.head == 'conv':
      x = jnp.mean(x.astype(jnp.float32), axis=(1, 2), keepdims=True)
      x = nn.leaky_relu(conv(self.hidden, (1, 1))(x), 0.2)
      x = conv(1, (1, 1))(x)
    else:
      x = nn.leaky_relu(dense(self.hidden)(x.reshape(len(x), -1)), 0.2)
      x = dense(1)(x)
    return x.reshape(-1).astype(jnp.float32)
