"""The layers with trainable kernels that all networks use: `Conv`, `ConvTranspose` and `Dense`.

They differ from Flax's layers of these names in two ways; parameters, names and float32 results
are the same.

Biases are added in float32, and the sum is rounded to the layer's dtype. Flax rounds the bias
first, so that in bfloat16 the bias's gradient, a sum over all pixels, is accumulated in bfloat16
too, which has eight bits: a sum of 147,456 ones was 2,304 on the CPU.

On the CPU, the gradient of a convolution with respect to its kernel is computed faster. XLA:CPU
computes it as a convolution whose kernel is the entire cotangent. On two cores it took 0.7 to 1.7
times as long as PyTorch's oneDNN up to 32x32 pixels, and 2 to 7 times as long at 48x48 and 96x96.
Forward passes and input gradients took 0.5 to 1.4 times as long, and up to 1.9 times with strides.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

Padding = Sequence[Sequence[int]]  # ((above, below), (left, right))

MIN_TILED_PIXELS = 32 * 32  # output pixels above which the tiled gradient was measured faster
MIN_TILE_SIDE = 16
MAX_TILES_PER_AXIS = 8
DIMENSION_NUMBERS = ('NHWC', 'HWIO', 'NHWC')


def convolve(x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: str | Padding,
             **options: Any) -> jax.Array:
  """Computes `lax.conv_general_dilated` of [B, H, W, C] and [k, l, C, O], for `nn.Conv`.

  On the CPU the kernel gradient of a large convolution is `kernel_gradient`; it has no
  forward-mode derivative (jax.jvp). All other convolutions are lax's.
  """
  steps = strides, options['lhs_dilation'], options['rhs_dilation']
  is_plain = (x.ndim == 4 and options['feature_group_count'] == 1
              and all(tuple(step) == (1, 1) for step in steps))
  if jax.default_backend() == 'cpu' and is_plain:
    if isinstance(padding, str):
      padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    padding = tuple(tuple(pair) for pair in padding)
    sides = (side + sum(pair) - span + 1
             for side, pair, span in zip(x.shape[1:3], padding, kernel.shape[:2], strict=True))
    if math.prod(sides) > MIN_TILED_PIXELS:
      return tiled_convolution(x, kernel, padding, options['precision'])
  return lax.conv_general_dilated(x, kernel, strides, padding, **options)


def _get_convolve() -> Callable[..., jax.Array]:
  return convolve


def _promote_all_but_bias(inputs: jax.Array, kernel: jax.Array, bias: jax.Array | None, *,
                          dtype: jnp.dtype) -> list[jax.Array | None]:
  return [*nn.dtypes.promote_dtype(inputs, kernel, dtype=dtype), bias]


def _apply_flax(layer: type[nn.Module], module: nn.Module, x: jax.Array) -> jax.Array:
  """Calls the layer's method without Flax's wrapper, with which interceptors would see two calls.

  The result, float32 because of the bias, is rounded to the module's dtype.
  """
  return layer.__call__.__wrapped__(module, x).astype(module.dtype)


class Conv(nn.Conv):
  """`nn.Conv` that adds its bias in float32 and uses `convolve`; `dtype` is that of the result."""

  dtype: jnp.dtype = jnp.float32
  promote_dtype: Callable = _promote_all_but_bias
  conv_general_dilated_cls: Callable | None = _get_convolve

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    return _apply_flax(nn.Conv, self, x)


class ConvTranspose(nn.ConvTranspose):
  """`nn.ConvTranspose` that adds its bias in float32; `dtype` is that of the result."""

  dtype: jnp.dtype = jnp.float32
  promote_dtype: Callable = _promote_all_but_bias

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    return _apply_flax(nn.ConvTranspose, self, x)


class Dense(nn.Dense):
  """`nn.Dense` that adds its bias in float32; `dtype` is that of the result."""

  dtype: jnp.dtype = jnp.float32
  promote_dtype: Callable = _promote_all_but_bias

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    return _apply_flax(nn.Dense, self, x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def tiled_convolution(x: jax.Array, kernel: jax.Array, padding: Padding,
                      precision: lax.PrecisionLike = None) -> jax.Array:
  """Computes a convolution of stride 1 whose kernel gradient is computed in tiles."""
  return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=DIMENSION_NUMBERS,
                                  precision=precision)


def _forward(x: jax.Array, kernel: jax.Array, padding: Padding, precision: lax.PrecisionLike
             ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return tiled_convolution(x, kernel, padding, precision), (x, kernel)


def _backward(padding: Padding, precision: lax.PrecisionLike,
              residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array
              ) -> tuple[jax.Array, jax.Array]:
  x, kernel = residuals
  x_gradient = jax.linear_transpose(lambda x: lax.conv_general_dilated(
      x, kernel, (1, 1), padding, dimension_numbers=DIMENSION_NUMBERS, precision=precision), x)
  k_gradient = kernel_gradient(x, cotangent, padding, precision).astype(kernel.dtype)
  return *x_gradient(cotangent), k_gradient  # XLA removes whichever of the two isn't used


tiled_convolution.defvjp(_forward, _backward)


def kernel_gradient(x: jax.Array, cotangent: jax.Array, padding: Padding,
                    precision: lax.PrecisionLike = None) -> jax.Array:
  """Returns the gradient of a convolution of stride 1 with respect to its kernel.

  It is a sum over tiles of the cotangent: each is convolved with the part of x that the kernel
  reads there. What XLA packs for one matrix product then fits into the caches.

  Args:
    x: [B, H, W, C].
    cotangent: [B, h, w, O], of the convolution's output.
    padding: ((above, below), (left, right)) of the convolution.

  Returns:
    [k, l, C, O] in float32, or in float64 if x is.
  """
  spans = [side + sum(pair) - out + 1 for side, pair, out in
           zip(x.shape[1:3], padding, cotangent.shape[1:3], strict=True)]
  if cotangent.shape[3] < x.shape[3]:
    # Slides x over the cotangent instead, so that the long side of the matrix product is the
    # smaller number of channels times the kernel. The result is flipped, with C and O exchanged.
    flipped_padding = [(span - 1 - low, span - 1 - high)
                       for span, (low, high) in zip(spans, padding, strict=True)]
    gradient = _sum_over_tiles(cotangent, x, flipped_padding, spans, precision)
    return jnp.flip(gradient, (0, 1)).swapaxes(2, 3)
  return _sum_over_tiles(x, cotangent, padding, spans, precision)


def _sum_over_tiles(x: jax.Array, cotangent: jax.Array, padding: Padding, spans: Sequence[int],
                    precision: lax.PrecisionLike) -> jax.Array:
  height, width = cotangent.shape[1:3]
  x = lax.pad(x, jnp.zeros((), x.dtype),
              [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)])
  side = max(MIN_TILE_SIDE, math.ceil(max(height, width) / MAX_TILES_PER_AXIS))
  total = 0.0
  for top in range(0, height, side):
    for left in range(0, width, side):
      tile = cotangent[:, top:top + side, left:left + side]
      rows, columns = (size + span - 1 for size, span in zip(tile.shape[1:3], spans, strict=True))
      total += lax.conv_general_dilated(
          x[:, top:top + rows, left:left + columns], tile, (1, 1), 'VALID',
          dimension_numbers=('CHWN', 'IHWO', 'HWNC'), precision=precision,
          preferred_element_type=jnp.promote_types(x.dtype, jnp.float32))
  return total
