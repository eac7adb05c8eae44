"""The windows of structural similarity (Wang et al. 2004), for metrics and losses."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

WINDOW, SIGMA = 11, 1.5  # of SSIM's Gaussian
C1, C2 = 0.01**2, 0.03**2  # SSIM's (K L)^2 with the range L = 1


class Moments(NamedTuple):
  """Statistics of two images in every window inside them, [B, H - 10, W - 10, C].

  Attributes:
    mean_a, mean_b: weighted means.
    variances: the sum of both variances (of the population).
    covariance: of the two.
  """

  mean_a: jax.Array
  mean_b: jax.Array
  variances: jax.Array
  covariance: jax.Array


def moments(a: jax.Array, b: jax.Array) -> Moments:
  """Returns the statistics of all 11x11 windows, with Gaussian weights of sigma 1.5.

  Windows are weighted by products with two banded matrices, the fastest way up to a few hundred
  pixels a side.

  Args:
    a, b: float [B, H, W, C] in [0, 1], of one shape, with H and W of at least 11.
  """
  # Variances don't change when a constant is subtracted first, and float32 then loses less in
  # the difference of squares.
  centre = jnp.mean((a + b) / 2, axis=(1, 2), keepdims=True)
  a, b = a - centre, b - centre
  mean_a, mean_b, aa, bb, ab = (_window_mean(x) for x in (a, b, a * a, b * b, a * b))
  return Moments(mean_a + centre, mean_b + centre,
                 aa - mean_a * mean_a + bb - mean_b * mean_b, ab - mean_a * mean_b)


def ssim_terms(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns SSIM's luminance term and its contrast-structure term in every window.

  They are (2 m_a m_b + C1) / (m_a^2 + m_b^2 + C1) and (2 cov + C2) / (var_a + var_b + C2); their
  product is SSIM.

  Args:
    a, b: as for `moments`.
  """
  mean_a, mean_b, variances, covariance = moments(a, b)
  return ((2 * mean_a * mean_b + C1) / (mean_a * mean_a + mean_b * mean_b + C1),
          (2 * covariance + C2) / (variances + C2))


def _window_mean(x: jax.Array) -> jax.Array:
  weights = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / SIGMA) ** 2)
  weights /= weights.sum()
  for axis, product in ((1, 'oh,bhwc->bowc'), (2, 'ow,bhwc->bhoc')):
    size = x.shape[axis]
    matrix = sum(weight * np.eye(size - WINDOW + 1, size, offset)
                 for offset, weight in enumerate(weights))
    x = jnp.einsum(product, matrix.astype(x.dtype), x, precision=jax.lax.Precision.HIGHEST)
  return x
