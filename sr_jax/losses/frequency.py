"""The focal frequency loss (Jiang et al. 2021)."""

import jax
import jax.numpy as jnp
from jax import lax

from sr_jax.losses.pixel import refuse_unlike


def focal_frequency(sr: jax.Array, hr: jax.Array, alpha: float = 1.0) -> jax.Array:
  """Returns mean w |F(sr) - F(hr)|^2 over frequencies, channels and images.

  Jiang et al. 2021, "Focal frequency loss for image reconstruction and synthesis", equation 8,
  with F the orthonormal two-dimensional discrete Fourier transform of each channel (their code's
  patch factor 1, without logarithm). The weight of equation 6 is

    w = |F(sr) - F(hr)|^alpha / (its largest value in the spectrum of this image and channel),

  in [0, 1] and a constant of the gradient. Frequencies that differ most count most. With alpha 0
  the weights would be equal and this the squared error of pixels (Parseval's theorem).

  Args:
    sr, hr: float [B, H, W, C] in [0, 1].
    alpha: exponent of the weight.
  """
  refuse_unlike(sr, hr)
  spectrum = jnp.fft.fft2(sr - hr, axes=(1, 2), norm='ortho')  # the transform is linear
  power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
  weight = lax.stop_gradient(power)**(alpha / 2)
  largest = weight.max((1, 2), keepdims=True)
  weight = jnp.where(largest > 0, weight / jnp.where(largest > 0, largest, 1), 0)
  return jnp.mean(weight * power)
