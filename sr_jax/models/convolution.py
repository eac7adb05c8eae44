"""Convolution as lax has it, but for its gradient with respect to the kernel on a CPU.

XLA:CPU takes that gradient as a convolution whose kernel is the whole cotangent. Measured on two
cores beside PyTorch's oneDNN, it took 0.7 to 1.7 times as long up to 32x32 pixels, 2 to 7 times as
long at 48x48 and 96x96. Forwards and the other gradients were at 0.5 to 1.4, strided ones to 1.9.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

LARGE = 32 * 32  # pixels of the output, beyond which tiles were measured faster
TILE, TILES = 16, 8  # the side of a tile at least, and how many in a row at most
NUMBERS = ('NHWC', 'HWIO', 'NHWC')


def convolve(x, kernel, strides, padding, **options):
  """`lax.conv_general_dilated` of [B, H, W, C] and [k, l, C, O], for `nn.Conv`.

  On a CPU a large convolution's kernel gradient is `kernel_gradient`; such a one has no forward
  mode (jax.jvp). Elsewhere, and for all others, this is lax's own.
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
    if math.prod(sides) > LARGE:
      return tiled(x, kernel, padding, options['precision'])
  return lax.conv_general_dilated(x, kernel, strides, padding, **options)


def _convolve():
  return convolve


Conv = functools.partial(nn.Conv, conv_general_dilated_cls=_convolve)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def tiled(x, kernel, padding, precision=None):
  """The convolution of stride 1 whose kernel gradient is taken in tiles."""
  return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=NUMBERS,
                                  precision=precision)


def _forward(x, kernel, padding, precision):
  return tiled(x, kernel, padding, precision), (x, kernel)


def _backward(padding, precision, kept, cotangent):
  x, kernel = kept
  of_x = jax.linear_transpose(lambda x: lax.conv_general_dilated(
      x, kernel, (1, 1), padding, dimension_numbers=NUMBERS, precision=precision), x)
  of_kernel = kernel_gradient(x, cotangent, padding, precision).astype(kernel.dtype)
  return *of_x(cotangent), of_kernel  # what of the two nobody asks for, XLA leaves out


tiled.defvjp(_forward, _backward)


def kernel_gradient(x: jax.Array, cotangent: jax.Array, padding, precision=None) -> jax.Array:
  """The gradient of a convolution of stride 1 with respect to its kernel: [k, l, C, O].

  A sum over tiles of the picture, of the same convolution each: x's tile with what the kernel sees
  around it, by the cotangent's. What XLA packs for one matmul then stays in the caches.

  Args:
    x: [B, H, W, C]; cotangent: [B, h, w, O], of the convolution's output.
    padding: ((above, below), (left, right)) of the convolution.

  Returns:
    In float32, or float64 where x is.
  """
  spans = [side + sum(pair) - out + 1 for side, pair, out in
           zip(x.shape[1:3], padding, cotangent.shape[1:3], strict=True)]
  if cotangent.shape[3] < x.shape[3]:
    # x slides over the cotangent instead, so that the long side of the matmul is the one with
    # the few channels times the kernel: the kernel comes out upside down, C and O exchanged.
    around = [(span - 1 - low, span - 1 - high)
              for span, (low, high) in zip(spans, padding, strict=True)]
    return jnp.flip(_tiles(cotangent, x, around, spans, precision), (0, 1)).swapaxes(2, 3)
  return _tiles(x, cotangent, padding, spans, precision)


def _tiles(x, cotangent, padding, spans, precision):
  height, width = cotangent.shape[1:3]
  x = lax.pad(x, jnp.zeros((), x.dtype),
              [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)])
  side = max(TILE, math.ceil(max(height, width) / TILES))
  total = 0.0
  for top in range(0, height, side):
    for left in range(0, width, side):
      part = cotangent[:, top:top + side, left:left + side]
      seen = x[:, top:top + part.shape[1] + spans[0] - 1, left:left + part.shape[2] + spans[1] - 1]
      total += lax.conv_general_dilated(
          seen, part, (1, 1), 'VALID', dimension_numbers=('CHWN', 'IHWO', 'HWNC'),
          precision=precision, preferred_element_type=jnp.promote_types(x.dtype, jnp.float32))
  return total
