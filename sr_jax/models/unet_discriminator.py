"""Real-ESRGAN's discriminator (Wang et al. 2021, figure 6): a U-Net with spectral normalisation."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from sr_jax.models.convolution import Conv, convolve
from sr_jax.models.layers import PYTORCH_UNIFORM, double_bilinear

MULTIPLE = 8  # the sides of images must be multiples of it: resolution is halved three times
EPSILON = 1e-12  # smallest norm that a vector of the power iteration is divided by


class SpectralConv(nn.Module):
  """A convolution without bias, whose kernel is divided by an estimate of its spectral norm.

  The kernel is the matrix W [features, rows * columns * C]. One step of the power iteration (Miyato
  et al. 2018, "Spectral normalization for generative adversarial networks", algorithm 1) is

    v = W^T u / |W^T u|,  u' = W v / |W v|,  sigma = u'^T W v,  result = convolution by W / sigma

  in float32. u and v are constants of the gradient. u is a variable of the collection
  'batch_stats', so that a run keeps it as it does running statistics; with `train` it becomes u'.
  It depends on weights alone, not on the images.

  Without `train` the step is taken too, but u' is not kept: the result is the same. PyTorch's
  evaluation mode uses the vectors of the last training pass instead.

  Attributes:
    features: number of channels of the result.
    kernel_size, strides: of rows and columns.
    padding: pixels of zeros on every side.
    kernel_init: initialiser of the kernel [rows, columns, C, features].
    dtype: dtype of the convolution and the result.
  """

  features: int
  kernel_size: tuple[int, int]
  strides: tuple[int, int] = (1, 1)
  padding: int = 1
  kernel_init: Callable = PYTORCH_UNIFORM
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    kernel = self.param('kernel', self.kernel_init,
                        (*self.kernel_size, x.shape[-1], self.features), jnp.float32)
    u = self.variable('batch_stats', 'u', lambda: _normalize(
        jax.random.normal(self.make_rng('params'), (self.features,))))
    sigma, moved = spectral_norm(kernel, u.value)
    if train and not self.is_initializing():
      u.value = moved
    padding = ((self.padding,) * 2,) * 2
    return convolve(x.astype(self.dtype), (kernel / sigma).astype(self.dtype), self.strides,
                    padding, lhs_dilation=(1, 1), rhs_dilation=(1, 1), feature_group_count=1,
                    dimension_numbers=('NHWC', 'HWIO', 'NHWC'), precision=None)


def spectral_norm(kernel: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Takes one step of the power iteration, see `SpectralConv`.

  Products are sums of products, which are exact in float32 on every device and need no copy of the
  kernel in another order.

  Args:
    kernel: float32 [rows, columns, C, features].
    u: float32 [features], not zero.

  Returns:
    (sigma, a scalar that has a gradient for the kernel; u' [features], of length 1).
  """
  back = jnp.sum(lax.stop_gradient(kernel) * u, -1)  # W^T u, [rows, columns, C]
  product = jnp.sum(kernel * back[..., None], (0, 1, 2))  # W W^T u, |W^T u| times W v
  constant = lax.stop_gradient(product)
  length = jnp.sqrt(jnp.sum(u * constant))  # |W^T u|, from few numbers: a GPU needs fewer kernels
  moved = _normalize(constant)
  return jnp.sum(moved * product) / jnp.maximum(length, EPSILON), moved


def _normalize(vector: jax.Array) -> jax.Array:
  return vector / jnp.maximum(jnp.sqrt(jnp.sum(jnp.square(vector))), EPSILON)


class UNetDiscriminator(nn.Module):
  """Maps images [B, H, W, C] in [0, 1] to logits [B, H, W], which are above zero for "real".

  Three convolutions of stride 2 and as many bilinear enlargements, each followed by a 3x3
  convolution; then three convolutions of 3x3. All but the first and the last are `SpectralConv`s,
  all but the last are followed by LeakyReLU 0.2. With 64 features there are 4,376,897 parameters.

  Attributes:
    features: channels of the first and last layers; 8 times as many at an eighth of the resolution.
    skip: adds the features on the way down to those of the same resolution on the way up.
    kernel_init: of all kernels. Biases, of the first and the last convolution, start at zero.
    dtype: dtype of the computation; parameters and logits stay float32.

  Raises:
    ValueError: H or W is not a multiple of 8, on the first call.
  """

  features: int = 64
  skip: bool = True
  kernel_init: Callable = PYTORCH_UNIFORM
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    height, width = images.shape[1:3]
    if height % MULTIPLE or width % MULTIPLE:
      raise ValueError(f'images of {height}x{width}: expected sides that are multiples of '
                       f'{MULTIPLE}')
    options = {'kernel_init': self.kernel_init, 'dtype': self.dtype}
    plain, spectral = partial(Conv, **options), partial(SpectralConv, **options)
    activate = partial(nn.leaky_relu, negative_slope=0.2)
    x = activate(plain(self.features, (3, 3), name='head')(images.astype(self.dtype)))
    levels = [x]
    for index, factor in enumerate((2, 4, 8)):
      down = spectral(factor * self.features, (4, 4), (2, 2), name=f'down_{index}')
      levels.append(activate(down(levels[-1], train)))
    x = levels.pop()
    for index, factor in enumerate((4, 2, 1)):
      up = spectral(factor * self.features, (3, 3), name=f'up_{index}')
      x, level = activate(up(double_bilinear(x), train)), levels.pop()
      if self.skip:
        x = x + level
    for index in range(2):
      x = activate(spectral(self.features, (3, 3), name=f'refinement_{index}')(x, train))
    return plain(1, (3, 3), name='last')(x)[..., 0].astype(jnp.float32)
