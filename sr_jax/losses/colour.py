"""A colour term, which keeps brightness, hue and saturation where they belong."""

import jax
import jax.numpy as jnp

from sr_jax import images
from sr_jax.errors import InputError
from sr_jax.losses.pixel import block_means, refuse_unlike


def colour(sr: jax.Array, hr: jax.Array, block: int = 16) -> jax.Array:
  """Returns the mean over blocks of sum over Y, Cb, Cr of |mean of sr - mean of hr|.

  With T the transform to Y, Cb and Cr (`images.rgb_to_ycbcr`) and A the mean over each square of
  `block` pixels it is

    mean over blocks of |A(T(sr)) - A(T(hr))|_1.

  It is for networks that are fine-tuned with perceptual and adversarial terms and become grey, dark
  or tinted. VGG features and a discriminator hardly change with a small shift of a whole region,
  and a pixel term strong enough to prevent it blurs texture. The means over blocks contain no
  texture finer than a block, so this term leaves texture to the others. They hardly depend on
  noise either: where the colour of a pixel is uncertain, an L1 of pixels is least at the median of
  the possible colours, which is greyer than each of them; the mean of a block is known better.
  Chroma counts by itself: a shift of a region by d in one of R, G and B costs 0.6 d to 1.2 d, and
  one in all three 0.86 d, where `l1` has d / 3 and d.

  The blocks do not overlap: crops are cut at random, so they fall everywhere on an image.

  Args:
    sr, hr: float [B, H, W, 3 or 1] in [0, 1]; one channel is luma. Rows and columns beyond the
      last whole block do not count.
    block: side of the blocks in pixels.

  Raises:
    InputError: the images are smaller than a block, or as for `losses.l1`.
  """
  refuse_unlike(sr, hr)
  height, width = sr.shape[1:3]
  if min(height, width) < block:
    raise InputError(f'images of {height}x{width}: expected at least {block}x{block}, the block '
                     'of the colour term')
  shift = block_means(sr - hr, block)
  if shift.shape[-1] == 3:  # of T only the offset has to be taken away for differences
    shift = images.rgb_to_ycbcr(shift) - images.rgb_to_ycbcr(jnp.zeros(3, shift.dtype))
  return jnp.mean(jnp.sum(jnp.abs(shift), -1))
