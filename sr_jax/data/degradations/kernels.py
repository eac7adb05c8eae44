"""Blur kernels with own parameters for each image of a batch, made on the device.

The kernels of Real-ESRGAN (Wang et al. 2021, sections 3.1 and 3.3), with the formulas of BasicSR
(https://github.com/XPixelGroup/BasicSR, basicsr/data/degradations.py). A kernel of an odd size up
to `width` lies in the middle of a [width, width] array, is zero around that, and sums to 1.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np


def bessel_j1(x: jax.Array, largest: float = 60.0) -> jax.Array:
  """Computes the Bessel function of the first kind of order 1, for |x| at most `largest`.

  By its integral, J1(x) = 2 / pi * int_0^(pi / 2) sin(x sin t) sin t dt, with the midpoint rule,
  whose error falls faster than any power of the number of points since the integrand is periodic;
  within 1e-6 in float32 up to 60, within 3e-6 up to 120.
  """
  points = math.ceil(0.3 * largest) + 6  # fewer could not follow the integrand
  angles = (np.arange(points) + 0.5) * (np.pi / 2 / points)
  total = sum(jnp.sin(x * np.float32(sine)) * np.float32(sine) for sine in np.sin(angles))
  return total / points


def bump_kernels(sizes: jax.Array, sigmas: jax.Array, rotations: jax.Array, exponents: jax.Array,
                 plateau: jax.Array, width: int) -> jax.Array:
  """Makes Gaussian, generalised Gaussian and plateau kernels.

  With q = u^2 / sigma_0^2 + v^2 / sigma_1^2 along the rotated axes u and v, a generalised Gaussian
  is exp(-q^b / 2), which is the Gaussian at b = 1, and a plateau is 1 / (1 + q^b).

  Args:
    sizes: int32 [B], odd, at most `width`.
    sigmas: float32 [B, 2], in pixels, along the first and the second axis.
    rotations: float32 [B], angles in radians from the horizontal axis to the first axis, towards
      the rows below.
    exponents: float32 [B], b.
    plateau: bool [B], whether a kernel is a plateau.
    width: odd.

  Returns:
    float32 [B, width, width].
  """
  x, y = _offsets(width)
  cosine, sine = jnp.cos(rotations)[:, None, None], jnp.sin(rotations)[:, None, None]
  first, second = sigmas[:, 0, None, None], sigmas[:, 1, None, None]
  q = jnp.square((x * cosine + y * sine) / first) + jnp.square((y * cosine - x * sine) / second)
  power = jnp.power(q, exponents[:, None, None])
  values = jnp.where(plateau[:, None, None], 1 / (1 + power), jnp.exp(-power / 2))
  return _normalised(values, sizes, width)


def sinc_kernels(sizes: jax.Array, cutoffs: jax.Array, width: int) -> jax.Array:
  """Makes circular low-pass kernels, which add ringing at edges.

  At distance r from the centre, c / (2 pi r) * J1(c r) for the cut-off c (Real-ESRGAN, equation 6).

  Args:
    sizes: int32 [B], odd, at most `width`.
    cutoffs: float32 [B], in radians per pixel, in (0, pi].
    width: odd.

  Returns:
    float32 [B, width, width].
  """
  x, y = _offsets(width)
  distance = np.sqrt(x**2 + y**2)
  centre = distance == 0
  cutoffs = cutoffs[:, None, None]
  j1 = bessel_j1(cutoffs * distance, max(60.0, math.pi * float(distance.max())))
  values = cutoffs * j1 / (2 * np.pi * np.where(centre, 1, distance))
  return _normalised(jnp.where(centre, cutoffs**2 / (4 * np.pi), values), sizes, width)


def _offsets(width: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns horizontal and vertical distances from the centre, float32 [width, width] each."""
  line = np.arange(width, dtype=np.float32) - width // 2
  return tuple(np.meshgrid(line, line))


def _normalised(values: jax.Array, sizes: jax.Array, width: int) -> jax.Array:
  """Sets values [B, width, width] outside the kernels of `sizes` to zero and their sum to 1."""
  distance = np.max(np.abs(_offsets(width)), axis=0)
  values = jnp.where(distance <= (sizes // 2)[:, None, None], values, 0)
  return values / jnp.sum(values, axis=(1, 2), keepdims=True)
