"""Loss functions of arrays, each differentiated with respect to its first argument.

Images are in [0, 1]. Papers that state their loss on [-1, 1] have squared errors four times and
absolute errors twice as large. Means are over all elements, in float32, the dtype of the networks'
results whatever dtype they compute in.

Pixel losses, `PIXEL`: `l1`, `mse`, `charbonnier`; and `total_variation`. They take NumPy or JAX
arrays of any float type and raise InputError for integers, whose differences would wrap around, and
for two shapes that would broadcast. So do `ms_ssim` (structure), `colour` (low frequencies of luma
and chroma) and `focal_frequency` (spectra). `perceptual` compares features of a VGG network.
`ADVERSARIAL` has the losses of G and D of a discriminator's logits. `GeneratorLoss` is a weighted
sum of terms. All of them can be called inside jit, grad and vmap.
"""

from sr_jax.losses.adversarial import (
  ADVERSARIAL,
  accuracy,
  least_squares_discriminator,
  least_squares_generator,
  relativistic_discriminator,
  relativistic_generator,
  vanilla_discriminator,
  vanilla_generator,
)
from sr_jax.losses.colour import colour
from sr_jax.losses.features import perceptual
from sr_jax.losses.frequency import focal_frequency
from sr_jax.losses.generator import GeneratorLoss, Term
from sr_jax.losses.pixel import PIXEL, Distance, charbonnier, l1, mse, total_variation
from sr_jax.losses.structure import ms_ssim, smallest_side

__all__ = ['ADVERSARIAL', 'PIXEL', 'Distance', 'GeneratorLoss', 'Term', 'accuracy', 'charbonnier',
           'colour', 'focal_frequency', 'l1', 'least_squares_discriminator',
           'least_squares_generator', 'ms_ssim', 'mse', 'perceptual',
           'relativistic_discriminator', 'relativistic_generator', 'smallest_side',
           'total_variation', 'vanilla_discriminator', 'vanilla_generator']
