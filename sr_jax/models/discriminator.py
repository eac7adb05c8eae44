"""The VGG-style discriminator of SRGAN (Ledig et al. 2017, figure 4)."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax.models.batch_norm import BatchNorm, convolve_and_normalize
from sr_jax.models.convolution import Conv, Dense
from sr_jax.models.layers import check_choices


class Discriminator(nn.Module):
  """Maps images [B, H, W, 3] in [0, 1] to logits [B], which are above zero for "real".

  For each width it has two 3x3 convolutions, the second of stride 2. Each is followed by
  BatchNorm, except the very first, and by LeakyReLU 0.2.

  Attributes:
    widths: channels of each pair of convolutions.
    batch_norm: uses BatchNorm; training then calls the network with `train=True` and
      `mutable=['batch_stats']`.
    head: 'dense' flattens the image into dense layers of `hidden` units and 1 (Ledig), which
      fixes the patch size; 'conv' averages over the image and applies two 1x1 convolutions to
      `hidden` channels and 1, for any patch size. With the paper's widths and 'conv' the network
      has 5,215,425 parameters.
    hidden: width of the head's hidden layer.
    kernel_init: of all kernels; the paper names none. Biases start at zero.
    dtype: dtype of the computation; parameters and logits stay float32.

  Raises:
    ValueError: another head, on the first call.
  """

  widths: tuple[int, ...] = (64, 128, 256, 512)
  batch_norm: bool = True
  head: str = 'dense'
  hidden: int = 1024
  kernel_init: Callable = nn.initializers.lecun_normal()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    check_choices(self, head=('dense', 'conv'))
    options = {'kernel_init': self.kernel_init, 'dtype': self.dtype}
    conv, dense = partial(Conv, **options), partial(Dense, **options)
    x = (2 * images - 1).astype(self.dtype)  # [-1, 1], the range of the paper's HR
    for pair, width in enumerate(self.widths):
      for stride in (1, 2):
        # Pads all sides equally, as PyTorch does. XLA's SAME pads a strided 3x3 only below and
        # to the right, which would shift the image by a pixel for imported weights.
        layer = conv(width, (3, 3), (stride, stride), padding=1)
        if self.batch_norm and (pair, stride) != (0, 1):
          x = convolve_and_normalize(layer, BatchNorm(dtype=self.dtype), x, train)
        else:
          x = layer(x)
        x = nn.leaky_relu(x, 0.2)
    if self.head == 'conv':
      x = jnp.mean(x.astype(jnp.float32), axis=(1, 2), keepdims=True)
      x = nn.leaky_relu(conv(self.hidden, (1, 1))(x), 0.2)
      x = conv(1, (1, 1))(x)
    else:
      x = nn.leaky_relu(dense(self.hidden)(x.reshape(len(x), -1)), 0.2)
      x = dense(1)(x)
    return x.reshape(-1).astype(jnp.float32)
