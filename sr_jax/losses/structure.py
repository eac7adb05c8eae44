"""Structural similarity at several scales (Wang et al. 2003)."""

import jax
import jax.numpy as jnp
import numpy as np

from sr_jax.errors import InputError
from sr_jax.images import similarity
from sr_jax.losses.pixel import block_means, refuse_unlike

# Exponents of the scales, the finest first: section 3.2 of the paper.
EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
LEAST = 1e-4  # of a factor; a power of zero would have an infinite gradient


def ms_ssim(sr: jax.Array, hr: jax.Array, scales: int = 5) -> jax.Array:
  """Returns 1 - MS-SSIM, the mean over images and channels.

  Wang, Simoncelli and Bovik 2003, "Multiscale structural similarity for image quality assessment",
  equation 7: with M scales, scale j being the images after j - 1 reductions,

    MS-SSIM = mean(l_M cs_M)^b_M * product over j < M of mean(cs_j)^b_j,

  where l and cs are the luminance and the contrast-structure term of SSIM in windows of 11x11
  pixels inside the image (Gaussian of sigma 1.5, K .01 and .03), means are over windows, and
  images are reduced by the mean of 2x2 pixels. As in pytorch-msssim and tf.image.ssim_multiscale,
  each channel is compared by itself. A factor below 1e-4, such as that of opposite structures,
  counts as 1e-4; both implementations take zero, which has no finite gradient.

  Args:
    sr, hr: float [B, H, W, C] in [0, 1]. Each reduction leaves out the last row or column of an
      odd number.
    scales: M, from 1 to 5. The first M exponents b are divided by their sum.

  Raises:
    InputError: the images are smaller than `smallest_side(scales)`, or as for `losses.l1`.
  """
  refuse_unlike(sr, hr)
  height, width = sr.shape[1:3]
  if min(height, width) < smallest_side(scales):
    raise InputError(f'images of {height}x{width}: MS-SSIM at {scales} scales needs at least '
                     f'{smallest_side(scales)} pixels a side')
  exponents = np.array(EXPONENTS[:scales]) / sum(EXPONENTS[:scales])
  result = 1.0
  for scale, exponent in enumerate(exponents):
    if scale:
      sr, hr = block_means(sr, 2), block_means(hr, 2)
    luminance, structure = similarity.ssim_terms(sr, hr)
    factor = luminance * structure if scale == scales - 1 else structure
    result *= jnp.maximum(jnp.mean(factor, (1, 2)), LEAST)**exponent
  return 1 - jnp.mean(result)


def smallest_side(scales: int) -> int:
  """Returns the number of pixels a side that `ms_ssim` needs: 176 for five scales."""
  return similarity.WINDOW * 2**(scales - 1)
