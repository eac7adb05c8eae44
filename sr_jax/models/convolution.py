"""The layers with trainable kernels that all networks use: `Conv`, `ConvTranspose` and `Dense`.

They differ from Flax's layers of these names in two ways; parameters, names and float32 results
are the same.

Biases are added in float32, and the sum is rounded to the layer's dtype. Flax rounds the bias
first, so that in bfloat16 the bias's gradient, a sum over all pixels, is accumulated in bfloat16
too, which has eight bits: a sum of 147,456 ones was 2,304 on the CPU.

On the CPU, large convolutions have the gradients of `gradients`, and those with large kernels are
trained by `fourier`, because XLA computes them faster.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from sr_jax.models import fourier, gradients

MIN_PIXELS = 12 * 12  # of the smallest input for which `gradients` was measured faster than lax


def convolve(x: jax.Array, kernel: jax.Array, strides: Sequence[int],
             padding: str | gradients.Padding, **options: Any) -> jax.Array:
  """Computes `lax.conv_general_dilated` of [B, H, W, C] and [k, l, C, O], for `nn.Conv`.

  On the CPU a large convolution is that of `gradients` or `fourier`, which have no forward-mode
  derivative (jax.jvp). All other convolutions are lax's.
  """
  dilations = options['lhs_dilation'], options['rhs_dilation']
  is_plain = (x.ndim == 4 and options['feature_group_count'] == 1
              and all(tuple(dilation) == (1, 1) for dilation in dilations))
  if is_plain and jax.default_backend() == 'cpu' and _is_large(x):
    if isinstance(padding, str):
      padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    padding = tuple(map(tuple, padding))
    if fourier.is_faster(x, kernel, strides):
      return fourier.convolution(x, kernel, padding, options['precision'])
    return gradients.convolution(x, kernel, tuple(strides), padding, options['precision'])
  return lax.conv_general_dilated(x, kernel, strides, padding, **options)


def transpose_convolve(x: jax.Array, kernel: jax.Array, strides: Sequence[int]) -> jax.Array:
  """Computes `lax.conv_transpose` of [B, h, w, C] and [k, l, C, O] with padding 'SAME'.

  It is that of `gradients`, which has no forward-mode derivative (jax.jvp), except for small images
  on the CPU.
  """
  if jax.default_backend() == 'cpu' and not _is_large(x):
    return lax.conv_transpose(x, kernel, strides, 'SAME')
  steps = list(zip(strides, kernel.shape[:2], x.shape[1:3], strict=True))
  lows = [max(0, (span - step) // 2) for step, span, _ in steps]
  padding = tuple((low, span - step - low)
                  for low, (step, span, _) in zip(lows, steps, strict=True))
  # XLA recognises the transpose of a convolution by a reversed kernel, so it must not see that this
  # one is reversed twice.
  flipped = lax.optimization_barrier(jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
  return gradients.transposed_convolution(
      x, flipped, tuple(side * step for step, _, side in steps),
      tuple(strides), padding)


def _is_large(x: jax.Array) -> bool:
  return math.prod(x.shape[1:3]) >= MIN_PIXELS


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
  def __call__(self, x: jax.Array, separate_bias: bool = False
               ) -> jax.Array | tuple[jax.Array, jax.Array | None]:
    """Returns the convolution; with `separate_bias` (result without the bias, bias or None)."""
    if not separate_bias:
      return _apply_flax(nn.Conv, self, x)
    if not self.use_bias:
      return _apply_flax(nn.Conv, self, x), None
    bias = self.param('bias', self.bias_init, (self.features,), self.param_dtype)
    # Flax's method neither makes nor adds a bias if this field is False, and a module refuses to
    # change its fields.
    object.__setattr__(self, 'use_bias', False)
    try:
      return _apply_flax(nn.Conv, self, x), bias
    finally:
      object.__setattr__(self, 'use_bias', True)


class ConvTranspose(nn.Module):
  """A transposed convolution, [B, h, w, C] to [B, h * s, w * s, features] for strides (s, s).

  Same parameters and results as `nn.ConvTranspose` with padding 'SAME'; the bias is added in
  float32.

  Attributes:
    features: number of channels of the result.
    kernel_size, strides: of rows and columns.
    kernel_init: initialiser of the kernel [k, l, C, features]. The bias starts at zero.
    dtype: dtype of the result.
  """

  features: int
  kernel_size: tuple[int, int]
  strides: tuple[int, int]
  kernel_init: Callable = nn.initializers.lecun_normal()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    kernel = self.param('kernel', self.kernel_init,
                        (*self.kernel_size, x.shape[-1], self.features), jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32)
    x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
    return (transpose_convolve(x, kernel, self.strides) + bias).astype(self.dtype)


class Dense(nn.Dense):
  """`nn.Dense` that adds its bias in float32; `dtype` is that of the result."""

  dtype: jnp.dtype = jnp.float32
  promote_dtype: Callable = _promote_all_but_bias

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    return _apply_flax(nn.Dense, self, x)
