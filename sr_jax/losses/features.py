"""The perceptual loss: a distance between features of a VGG network."""

from collections.abc import Mapping

import jax

from sr_jax.losses.pixel import PIXEL


def perceptual(sr: Mapping[str, jax.Array], hr: Mapping[str, jax.Array],
               layers: Mapping[str, float], scale: float = 1.0, distance: str = 'mse'
               ) -> jax.Array:
  """Returns the sum over layers of weight * distance(scale * phi(sr), scale * phi(hr)).

  This is equation 5 of Ledig et al. 2017, but with the mean over all elements of a layer instead
  of the sum divided by the number of positions. Their features are scaled by 1/12.75, which
  scales this loss by 0.00615.

  Args:
    sr, hr: features phi by layer name, [B, h, w, C].
    layers: weight of each layer by name.
    scale: factor of the features, which depends on the VGG weights in use.
    distance: a name in `PIXEL`: 'mse' (SRGAN) or 'l1' (ESRGAN).
  """
  return sum(weight * PIXEL[distance](scale * sr[name], scale * hr[name])
             for name, weight in layers.items())
