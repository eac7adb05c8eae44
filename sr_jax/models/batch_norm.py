"""BatchNorm (Ioffe and Szegedy 2015) that takes the bias of the convolution before it.

With the statistics of a batch, the normalised features do not depend on that bias: it only shifts
the mean, which is subtracted. Adding it costs a gradient, a sum over all pixels, that is zero but
for rounding, which Adam scales up to full steps. So it is added to the running mean alone, and its
gradient is exactly zero.

The backward pass takes one sum over pixels of two numbers, where the gradient of Flax's BatchNorm
takes several: on a GPU each is one to two kernels.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from sr_jax.models.convolution import Conv


class BatchNorm(nn.Module):
  """`nn.BatchNorm` of a convolution's result and its bias: same parameters, names and results.

  Attributes:
    momentum: decay of the running statistics.
    epsilon: is added to the variance.
    dtype: dtype of the result. Parameters, statistics and sums are float32.
  """

  momentum: float = 0.9
  epsilon: float = 1e-5
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, bias: jax.Array | None = None, *,
               use_running_average: bool) -> jax.Array:
    """Normalises x + bias over all axes but the last.

    Args:
      x: [..., C].
      bias: [C]; None: x has it already.
      use_running_average: normalises by the running statistics, and the bias has its gradient.
        False: normalises by the statistics of x and, except in `init`, moves the running ones.

    Returns:
      [..., C]. Only x, scale and this layer's own bias have a gradient through the batch's
      statistics; the running statistics have none.
    """
    shape = x.shape[-1:]
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, shape, jnp.float32)
    running_var = self.variable('batch_stats', 'var', jnp.ones, shape, jnp.float32)
    scale = self.param('scale', nn.initializers.ones, shape, jnp.float32)
    offset = self.param('bias', nn.initializers.zeros, shape, jnp.float32)
    if use_running_average:
      if bias is not None:
        x = (x + bias).astype(x.dtype)  # rounded as by a `Conv` that adds its bias
      factor = lax.rsqrt(running_var.value + self.epsilon) * scale
      return ((x - running_mean.value) * factor + offset).astype(self.dtype)
    result, mean, var = normalize(x, scale, offset, self.epsilon)
    if not self.is_initializing():
      for running, new in ((running_mean, mean if bias is None else mean + bias),
                           (running_var, var)):
        running.value = (self.momentum * running.value
                         + (1 - self.momentum) * lax.stop_gradient(new))
    return result.astype(self.dtype)


def convolve_and_normalize(conv: Conv, norm: BatchNorm, x: jax.Array, train: bool) -> jax.Array:
  """Applies a convolution and the BatchNorm after it, by the batch's statistics if `train`.

  Without `train`, each layer maps one array to one, as layer by layer inference expects.
  """
  if not train:
    return norm(conv(x), use_running_average=True)
  return norm(*conv(x, separate_bias=True), use_running_average=False)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalize(x: jax.Array, scale: jax.Array, offset: jax.Array, epsilon: float
              ) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Normalises [..., C] by the statistics of its pixels, which are computed in float32.

  Args:
    scale, offset: [C], float32.

  Returns:
    (scale * (x - mean) / sqrt(var + epsilon) + offset in the dtype of x, mean, var). The variance
    is that of the population. The gradient is that of the first; it is not differentiable twice.
  """
  return _forward(x, scale, offset, epsilon)[0]


def _forward(x: jax.Array, scale: jax.Array, offset: jax.Array, epsilon: float
             ) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
  wide = _widened(x)
  mean, square = (total / _pixels(x) for total in sum_pixels(wide, jnp.square(wide)))
  var = jnp.maximum(0.0, square - jnp.square(mean))  # rounding may make the difference negative
  inverse = lax.rsqrt(var + epsilon)
  result = ((wide - mean) * (inverse * scale) + offset).astype(x.dtype)
  return (result, mean, var), (x, mean, inverse, scale)


def _backward(epsilon: float, residuals: tuple[jax.Array, ...],
              cotangents: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
  """Computes the gradients as on page 4 of the paper, simplified."""
  x, mean, inverse, scale = residuals
  cotangent, normalized = _widened(cotangents[0]), (_widened(x) - mean) * inverse
  to_offset, to_scale = sum_pixels(cotangent, cotangent * normalized)
  to_x = inverse * scale * (cotangent - (to_offset + normalized * to_scale) / _pixels(x))
  return to_x.astype(x.dtype), to_scale, to_offset


normalize.defvjp(_forward, _backward)


def sum_pixels(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Sums two arrays [..., C] over all axes but the last.

  A GPU does it with half of the kernels in one reduction, which XLA:CPU does not vectorise: there
  the gradient of a BatchNorm took 2 to 4 times as long.
  """
  axes, zero = tuple(range(a.ndim - 1)), jnp.zeros((), a.dtype)
  if jax.default_backend() == 'cpu':
    return jnp.sum(a, axes), jnp.sum(b, axes)
  return lax.reduce((a, b), (zero, zero), lambda x, y: (x[0] + y[0], x[1] + y[1]), axes)


def _widened(x: jax.Array) -> jax.Array:
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _pixels(x: jax.Array) -> int:
  return x.size // x.shape[-1]
