"""Convolutions that XLA computes faster than lax's; they equal lax's to rounding.

On a GPU, this is the transposed convolution alone: `lax.conv_transpose` multiplies the zeros
between the strides, four times the operations at stride 2, while the transpose of a strided
convolution is one call of cuDNN, and so is its gradient. On the CPU:

- The gradient with respect to the kernel is a convolution of the input whose window is the entire
  cotangent. XLA of jax 0.10.2 gives it to YNNPACK, which is slow for such windows; one row of zeros
  makes the window larger than the input, which YNNPACK doesn't take, so that Eigen computes it.
- The gradient of a strided convolution with respect to its input is, in lax, a convolution of the
  cotangent with s * s - 1 zeros for each value. Here it consists of s * s convolutions of stride
  1 without the zeros, one for each phase of the input: the pixels whose row and column leave given
  remainders when divided by s. A transposed convolution is the same operation.

Measured with jax 0.10.2 on two cores of an AMD EPYC, in processor time, for the layers of SRResNet,
EDSR, RRDB, Discriminator and `Upsample` at the batch sizes of tests/benchmarks/versus_torch.py:

  lax's time by this module's                    its time by that of PyTorch's oneDNN
  kernel gradient, stride 1        0.9 to 3.9    0.6 to 1.7 (2.8 for three input channels)
  input gradient, stride 2         1.0 to 1.6    1.0 to 2.4
  transposed convolution           1.9 to 3.8    1.3 to 2.6
  its kernel gradient              37 to 74      1.0 to 2.0

The kernel gradient of strided convolutions is lax's (0.6 to 2.5 times oneDNN's time): by phases it
took 0.8 to 1.5 times as long. Tiles, a matrix product for each tap, and one of shifted copies took
longer than one convolution.
"""

import functools
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

Pair = tuple[int, int]  # of rows and columns
Padding = Sequence[Sequence[int]]  # ((above, below), (left, right))

DIMENSION_NUMBERS = ('NHWC', 'HWIO', 'NHWC')


def lax_convolution(x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding,
                    precision: lax.PrecisionLike = None) -> jax.Array:
  """Computes the convolution [B, h, w, O] of [B, H, W, C] and [k, l, C, O]."""
  return lax.conv_general_dilated(x, kernel, strides, padding, precision=precision,
                                  dimension_numbers=DIMENSION_NUMBERS)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def convolution(x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding,
                precision: lax.PrecisionLike = None) -> jax.Array:
  """Computes `lax_convolution`, with the gradients of this module."""
  return lax_convolution(x, kernel, strides, padding, precision)


def _convolution_forward(x: jax.Array, kernel: jax.Array, *static: object
                         ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return convolution(x, kernel, *static), (x, kernel)


def _convolution_backward(strides: Pair, padding: Padding, precision: lax.PrecisionLike,
                          residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array
                          ) -> tuple[jax.Array, jax.Array]:
  x, kernel = residuals  # XLA removes whichever of the two gradients isn't used
  return (input_gradient(cotangent, kernel, x.shape[1:3], strides, padding, precision),
          _kernel_gradient(x, kernel, cotangent, strides, padding, precision))


convolution.defvjp(_convolution_forward, _convolution_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def transposed_convolution(x: jax.Array, kernel: jax.Array, size: Pair, strides: Pair,
                           padding: Padding, precision: lax.PrecisionLike = None) -> jax.Array:
  """Computes the transpose of the `convolution` of these strides and padding.

  Args:
    x: [B, h, w, O].
    kernel: [k, l, C, O], of the convolution.
    size: (H, W) of the result, which is [B, H, W, C].
  """
  return input_gradient(x, kernel, size, strides, padding, precision)


def _transposed_forward(x: jax.Array, kernel: jax.Array, *static: object
                        ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return transposed_convolution(x, kernel, *static), (x, kernel)


def _transposed_backward(size: Pair, strides: Pair, padding: Padding,
                         precision: lax.PrecisionLike, residuals: tuple[jax.Array, jax.Array],
                         cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
  x, kernel = residuals
  return (convolution(cotangent, kernel, strides, padding, precision),
          _kernel_gradient(cotangent, kernel, x, strides, padding, precision))


transposed_convolution.defvjp(_transposed_forward, _transposed_backward)


def input_gradient(cotangent: jax.Array, kernel: jax.Array, size: Pair, strides: Pair,
                   padding: Padding, precision: lax.PrecisionLike = None) -> jax.Array:
  """Returns the gradient of a convolution with respect to its input.

  Args:
    cotangent: [B, h, w, O], of the convolution's output.
    kernel: [k, l, C, O].
    size: (H, W) of the input.

  Returns:
    [B, H, W, C] in the cotangent's dtype.
  """
  if jax.default_backend() != 'cpu':
    x = jax.ShapeDtypeStruct((len(cotangent), *size, kernel.shape[2]), cotangent.dtype)
    return jax.linear_transpose(lambda x: lax_convolution(
        x, kernel, strides, padding, precision), x)(cotangent)[0]
  total = jnp.zeros((), cotangent.dtype)
  for phase in itertools.product(*map(range, strides)):
    # Input pixel i * s + p is the sum over t of tap r + t * s times output pixel i + offset - t.
    (first, offsets, counts) = zip(*(((p + low) % s, (p + low) // s, len(range(p, side, s)))
                                     for p, s, (low, _), side in zip(
                                         phase, strides, padding, size, strict=True)), strict=True)
    taps = kernel[first[0]::strides[0], first[1]::strides[1]]
    if not all((*counts, *taps.shape[:2])):
      continue  # these pixels don't exist, or no tap reads them
    margins = [(reach - 1 - offset, count + offset - out) for reach, offset, count, out in zip(
        taps.shape[:2], offsets, counts, cotangent.shape[1:3], strict=True)]
    pixels = lax_convolution(cotangent, jnp.flip(taps, (0, 1)).swapaxes(2, 3), (1, 1), margins,
                             precision)
    # The sum of the phases, with zeros between their pixels, becomes one loop.
    total += lax.pad(pixels, jnp.zeros((), pixels.dtype), [
        (0, 0, 0), *((p, side - p - (count - 1) * s - 1, s - 1) for p, side, count, s in zip(
            phase, size, counts, strides, strict=True)), (0, 0, 0)])
  return jnp.broadcast_to(total, (len(cotangent), *size, kernel.shape[2]))


def _kernel_gradient(x: jax.Array, kernel: jax.Array, cotangent: jax.Array, strides: Pair,
                     padding: Padding, precision: lax.PrecisionLike) -> jax.Array:
  if tuple(strides) == (1, 1) and jax.default_backend() == 'cpu':
    return kernel_gradient(x, cotangent, padding, precision).astype(kernel.dtype)
  transpose = jax.linear_transpose(lambda kernel: lax_convolution(
      x, kernel, strides, padding, precision), kernel)
  return transpose(cotangent)[0]


def kernel_gradient(x: jax.Array, cotangent: jax.Array, padding: Padding,
                    precision: lax.PrecisionLike = None) -> jax.Array:
  """Returns the gradient of a convolution of stride 1 with respect to its kernel.

  Args:
    x: [B, H, W, C].
    cotangent: [B, h, w, O], of the convolution's output.
    padding: ((above, below), (left, right)) of the convolution.

  Returns:
    [k, l, C, O] in float32, or in float64 if x is.
  """
  if cotangent.shape[3] >= x.shape[3]:
    return _slide(x, cotangent, padding, precision)
  # Slides x over the cotangent instead, so that the long side of the matrix product is the
  # smaller number of channels times the kernel. The result is flipped, with C and O exchanged.
  sides = zip(x.shape[1:3], padding, cotangent.shape[1:3], strict=True)
  flipped = [(side + high - out, side + low - out) for side, (low, high), out in sides]
  return jnp.flip(_slide(cotangent, x, flipped, precision), (0, 1)).swapaxes(2, 3)


def _slide(x: jax.Array, window: jax.Array, padding: Padding,
           precision: lax.PrecisionLike) -> jax.Array:
  """Returns [k, l, C, O], the products of x [B, H, W, C] with windows [B, h, w, O] on it."""
  zeros, inner = [0, 0], [(0, 0), (0, 0)]  # rows and columns added to the window; lax's padding
  sides = [side + sum(pair) for side, pair in zip(x.shape[1:3], padding, strict=True)]
  for axis in (0, 1):
    # Of x, only the other axis is padded before the convolution.
    given, larger = list(sides), list(window.shape[1:3])
    given[axis] = x.shape[1 + axis]
    larger[axis] = max(larger[axis], given[axis] + 1)
    # XLA exchanges x and the window if the window has more pixels, and is then 60 times slower.
    if min(map(min, padding)) >= 0 and math.prod(larger) <= math.prod(given):
      zeros[axis] = larger[axis] - window.shape[1 + axis]
      inner[axis] = padding[axis][0], padding[axis][1] + zeros[axis]
      break
  outer = [(0, 0) if any(own) else pair for own, pair in zip(inner, padding, strict=True)]
  x = _pad(x, outer)
  return lax.conv_general_dilated(
      x, _pad(window, [(0, count) for count in zeros]), (1, 1), inner, precision=precision,
      dimension_numbers=('CHWN', 'IHWO', 'HWNC'),
      preferred_element_type=jnp.promote_types(x.dtype, jnp.float32))


def _pad(x: jax.Array, padding: Padding) -> jax.Array:
  return lax.pad(x, jnp.zeros((), x.dtype),
                 [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)])
