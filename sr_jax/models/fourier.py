"""Convolutions with large kernels by the fast Fourier transform, for training on the CPU.

A kernel of 17x17 needs 289 products for each pixel and pair of channels. Transformed, it needs one,
and the transforms cost little where a batch shares that of the kernel. The result equals lax's to
rounding (2e-6 of its largest value).

Measured with jax 0.10.2 on two cores of an AMD EPYC, 17x17 with 16 channels in float32, the time of
`gradients.convolution` by this module's, for the result with both gradients: 4.5 for a batch of 16
images of 48x48 (0.128 s and 0.029 s), 3.6 for 8 of 24x24, but 0.5 for one of 128x128, where the
transform of the kernel dominates. 13x13: 3.7, 2.6 and 0.5; 9x9: 1.6, 1.5 and 0.3. PyTorch took
0.34 s for the first. A matrix product for each row of the kernel took 6 times as long as lax. The
gradient of a RealPLKSR of three blocks, of which the large kernels are a quarter of the operations,
took 0.27 s instead of 0.34 s for 8 images of 32x32.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from sr_jax.models.gradients import Padding, Pair, lax_convolution

MIN_SIDE = 11  # of the smallest kernel that is transformed


def is_faster(x: jax.Array, kernel: jax.Array, strides: Pair) -> bool:
  """Returns whether `convolution` trains faster on the CPU than `gradients.convolution`.

  Args:
    x: [B, H, W, C].
    kernel: [k, l, C, O].
    strides: of rows and columns.
  """
  inputs, outputs = kernel.shape[2:]
  # The transforms of the images must not be much fewer than those of the kernel.
  return (min(kernel.shape[:2]) >= MIN_SIDE and tuple(strides) == (1, 1)
          and 2 * len(x) * (inputs + outputs) >= inputs * outputs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolution(x: jax.Array, kernel: jax.Array, padding: Padding,
                precision: lax.PrecisionLike = None) -> jax.Array:
  """Computes the convolution [B, h, w, O] of [B, H, W, C] and [k, l, C, O] with stride 1.

  Only where it is differentiated is it computed by transforms; it has no forward-mode derivative.

  Args:
    padding: ((above, below), (left, right)), not negative.
    precision: of lax's convolution.
  """
  return lax_convolution(x, kernel, (1, 1), padding, precision)


def _forward(x: jax.Array, kernel: jax.Array, padding: Padding, precision: lax.PrecisionLike
             ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  size = _size(x, padding)
  product = jnp.einsum('bchw,cohw->bohw', _transform_padded(x, padding),
                       jnp.conj(_transform_kernel(kernel, size)))
  sides = tuple(side + sum(pair) - taps + 1 for side, pair, taps in zip(
      x.shape[1:3], padding, kernel.shape[:2], strict=True))
  return _invert(product, size, (0, 0), sides).astype(x.dtype), (x, kernel)


def _backward(padding: Padding, precision: lax.PrecisionLike,
              residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array
              ) -> tuple[jax.Array, jax.Array]:
  x, kernel = residuals
  size = _size(x, padding)
  # XLA computes the transforms of x and the kernel once for both passes.
  transformed = _transform(jnp.moveaxis(_widened(cotangent), 3, 1), size)
  to_x = jnp.einsum('bohw,cohw->bchw', transformed, _transform_kernel(kernel, size))
  to_kernel = jnp.einsum('bchw,bohw->cohw', _transform_padded(x, padding), jnp.conj(transformed))
  starts = padding[0][0], padding[1][0]
  taps = _invert(to_kernel, size, (0, 0), kernel.shape[:2])  # [C, k, l, O]
  return (_invert(to_x, size, starts, x.shape[1:3]).astype(x.dtype),
          taps.transpose(1, 2, 0, 3).astype(kernel.dtype))


convolution.defvjp(_forward, _backward)


def _widened(x: jax.Array) -> jax.Array:
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _size(x: jax.Array, padding: Padding) -> Pair:
  """Returns the sides of the transforms, which have small prime factors."""
  return tuple(-(-(side + sum(pair)) // 8) * 8
               for side, pair in zip(x.shape[1:3], padding, strict=True))


def _transform(x: jax.Array, size: Pair) -> jax.Array:
  return jnp.fft.rfft2(x, size)


def _transform_padded(x: jax.Array, padding: Padding) -> jax.Array:
  """Transforms [B, H, W, C], padded, to [B, C, *]."""
  padded = jnp.pad(jnp.moveaxis(_widened(x), 3, 1), ((0, 0), (0, 0), *map(tuple, padding)))
  return _transform(padded, _size(x, padding))


def _transform_kernel(kernel: jax.Array, size: Pair) -> jax.Array:
  """Transforms [k, l, C, O] to [C, O, *]."""
  return _transform(_widened(kernel).transpose(2, 3, 0, 1), size)


def _invert(product: jax.Array, size: Pair, starts: Pair, sides: Pair) -> jax.Array:
  """Returns [A, h, w, C], the part of these sides of the inverse transform of [A, C, *]."""
  result = jnp.fft.irfft2(product, size)
  rows, columns = (slice(start, start + side) for start, side in zip(starts, sides, strict=True))
  return jnp.moveaxis(result[:, :, rows, columns], 1, 3)
