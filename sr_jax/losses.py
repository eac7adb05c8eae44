"""Loss functions of arrays, each differentiated with respect to its first argument.

Images are in [0, 1]. Papers that state their loss on [-1, 1] have squared errors four times and
absolute errors twice as large. Means are over all elements, in float32, the dtype of the networks'
results whatever dtype they compute in.

Pixel losses, `PIXEL`: `l1`, `mse`, `charbonnier`; and `total_variation`. They take NumPy or JAX
arrays of any float type and raise InputError for integers, whose differences would wrap around, and
for two shapes that would broadcast. `perceptual` compares features of a VGG network. `ADVERSARIAL`
has the losses of G and D of a discriminator's logits. `GeneratorLoss` is a weighted sum of terms.
All of them can be called inside jit, grad and vmap.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn import softplus

from sr_jax import images
from sr_jax.errors import InputError

# distance(sr, hr) -> scalar, of images [B, H, W, C] in [0, 1]
Distance = Callable[[jax.Array, jax.Array], jax.Array]

# Pixel losses ------------------------------------------------------------------------------


def l1(sr: jax.Array, hr: jax.Array) -> jax.Array:
  """Returns mean |sr - hr|.

  Args:
    sr, hr: float arrays of one shape, such as images [B, H, W, C] in [0, 1].
  """
  _refuse_unlike(sr, hr)
  return jnp.mean(jnp.abs(sr - hr))


def mse(sr: jax.Array, hr: jax.Array) -> jax.Array:
  """Returns mean (sr - hr)^2.

  Args:
    sr, hr: as for `l1`.
  """
  _refuse_unlike(sr, hr)
  return jnp.mean(jnp.square(sr - hr))


def charbonnier(sr: jax.Array, hr: jax.Array, epsilon: float = 1e-3) -> jax.Array:
  """Returns mean sqrt((sr - hr)^2 + epsilon^2), a smooth L1 (Lai et al. 2017, equation 3).

  For equal images it is epsilon, not zero.

  Args:
    sr, hr: as for `l1`.
    epsilon: difference below which it is nearly quadratic.
  """
  _refuse_unlike(sr, hr)
  return jnp.mean(jnp.sqrt(jnp.square(sr - hr) + epsilon**2))


def _refuse_unlike(*arrays: jax.Array) -> None:
  """Raises InputError unless all arrays are of float types and have one shape."""
  if len({jnp.shape(array) for array in arrays}) > 1 or not all(
      jnp.issubdtype(jnp.result_type(array), jnp.floating) for array in arrays):
    found = ' and '.join(f'{jnp.result_type(array)} {list(jnp.shape(array))}' for array in arrays)
    raise InputError(f'{found}: expected float, such as images in [0, 1] (sr_jax.images.to_float '
                     'converts uint8)' + ', of one shape' * (len(arrays) > 1))


PIXEL = {'l1': l1, 'mse': mse, 'charbonnier': charbonnier}


def total_variation(sr: jax.Array) -> jax.Array:
  """Returns the anisotropic total variation.

  It is mean |sr[y + 1, x] - sr[y, x]| + mean |sr[y, x + 1] - sr[y, x]|.

  Args:
    sr: float [B, H, W, C], H and W at least 2.
  """
  _refuse_unlike(sr)
  return (jnp.mean(jnp.abs(sr[:, 1:] - sr[:, :-1]))
          + jnp.mean(jnp.abs(sr[:, :, 1:] - sr[:, :, :-1])))


# Perceptual loss ----------------------------------------------------------------------------


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


# Adversarial losses -------------------------------------------------------------------------
# All are functions of logits: softplus(x) = log(1 + e^x) neither overflows nor takes log(0).
# A generator's loss takes (fake, real), a discriminator's (real, fake).


def vanilla_generator(fake: jax.Array, real: jax.Array | None = None) -> jax.Array:
  """Returns mean -log sigmoid(D(fake)), the non-saturating form (Ledig et al. 2017, equation 6)."""
  del real
  return jnp.mean(softplus(-fake))


def vanilla_discriminator(real: jax.Array, fake: jax.Array) -> jax.Array:
  """Returns mean -log sigmoid(D(real)) + mean -log(1 - sigmoid(D(fake))).

  This is the loss of Goodfellow et al. 2014.
  """
  return jnp.mean(softplus(-real)) + jnp.mean(softplus(fake))


def least_squares_generator(fake: jax.Array, real: jax.Array | None = None) -> jax.Array:
  """Returns 1/2 mean (D(fake) - 1)^2 (Mao et al. 2017, equation 9)."""
  del real
  return 0.5 * jnp.mean(jnp.square(fake - 1))


def least_squares_discriminator(real: jax.Array, fake: jax.Array) -> jax.Array:
  """Returns 1/2 mean (D(real) - 1)^2 + 1/2 mean D(fake)^2 (Mao et al. 2017, equation 9)."""
  return 0.5 * (jnp.mean(jnp.square(real - 1)) + jnp.mean(jnp.square(fake)))


def relativistic_generator(fake: jax.Array, real: jax.Array) -> jax.Array:
  """Returns 1/2 [mean -log D(fake, real) + mean -log(1 - D(real, fake))].

  Here D(a, b) = sigmoid(C(a) - mean C(b)) with logits C (Wang et al. 2018, equation 2, times 1/2
  as in their code). Means are over the entire batch.
  """
  return 0.5 * (jnp.mean(softplus(-(fake - jnp.mean(real))))
                + jnp.mean(softplus(real - jnp.mean(fake))))


def relativistic_discriminator(real: jax.Array, fake: jax.Array) -> jax.Array:
  """Returns 1/2 [mean -log D(real, fake) + mean -log(1 - D(fake, real))].

  Wang et al. 2018, equation 1, times 1/2 as in their code; see `relativistic_generator`.
  """
  return 0.5 * (jnp.mean(softplus(-(real - jnp.mean(fake))))
                + jnp.mean(softplus(fake - jnp.mean(real))))


def accuracy(kind: str, real: jax.Array, fake: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns the fractions of real and of generated images that D classifies correctly.

  A logit counts as "real" above 0 (vanilla), above the midpoint of the targets 0 and 1
  (least squares), or above the mean of the other kind's logits (relativistic).

  Args:
    kind: a name in `ADVERSARIAL`.
  """
  thresholds = {'vanilla': (0.0, 0.0), 'least_squares': (0.5, 0.5),
                'relativistic': (jnp.mean(fake), jnp.mean(real))}[kind]
  return (jnp.mean(real > thresholds[0], dtype=jnp.float32),
          jnp.mean(fake < thresholds[1], dtype=jnp.float32))


# (G's loss of (fake, real) logits, D's loss of (real, fake) logits); `accuracy` knows each, too.
ADVERSARIAL = {
    'vanilla': (vanilla_generator, vanilla_discriminator),
    'least_squares': (least_squares_generator, least_squares_discriminator),
    'relativistic': (relativistic_generator, relativistic_discriminator),
}


# Weighted sum ----------------------------------------------------------------------------


class Term(NamedTuple):
  """A loss term of the user's own, weight * distance(sr, hr)."""

  distance: Distance
  weight: float


@dataclass(frozen=True)
class GeneratorLoss:
  """The generator's weighted loss terms; terms of weight zero aren't computed.

  Attributes:
    pixel: a name in `PIXEL`, or a function of the user's own.
    layers: weights of the VGG layers, which `perceptual_weight` multiplies.
    scale, distance: see `perceptual`.
    adversarial: a name in `ADVERSARIAL`, which selects D's loss too.
    extra: terms of the user's own by the name that they have in logs.
  """

  pixel: str | Distance = 'l1'
  pixel_weight: float = 1.0
  perceptual_weight: float = 0.0
  layers: Mapping[str, float] = field(default_factory=dict)
  scale: float = 1.0
  distance: str = 'mse'
  adversarial: str = 'vanilla'
  adversarial_weight: float = 0.0
  total_variation_weight: float = 0.0
  extra: Mapping[str, Term] = field(default_factory=dict)

  def reconstruction(self, sr: jax.Array, hr: jax.Array, vgg: nn.Module | None,
                     frozen: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Returns the weighted terms that compare images, without the adversarial one.

    Args:
      sr, hr: [B, H, W, 1 or 3] in [0, 1].
      vgg: module of the perceptual term; may be None without that term.
      frozen: holds the module's variables under 'vgg'.
    """
    return self.reconstruction_terms(
        sr, hr, self.features(sr, vgg, frozen), self.features(hr, vgg, frozen))

  def features(self, image: jax.Array, vgg: nn.Module | None,
               frozen: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Returns the VGG features of images for the perceptual term; {} without that term."""
    if not self.perceptual_weight:
      return {}
    with jax.named_scope('vgg'):
      return vgg.apply(frozen['vgg'], images.as_rgb(image))

  @jax.named_scope('losses')
  def reconstruction_terms(self, sr: jax.Array, hr: jax.Array,
                           sr_features: Mapping[str, jax.Array],
                           hr_features: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns the terms of `reconstruction` from features that were computed before."""
    terms = {}
    if self.pixel_weight:
      distance = PIXEL[self.pixel] if isinstance(self.pixel, str) else self.pixel
      terms['pixel'] = self.pixel_weight * _float32(distance(sr, hr))
    if self.perceptual_weight:
      terms['perceptual'] = self.perceptual_weight * perceptual(
          sr_features, hr_features, self.layers, self.scale, self.distance)
    if self.total_variation_weight:
      terms['total_variation'] = self.total_variation_weight * total_variation(sr)
    return terms | {name: term.weight * _float32(term.distance(sr, hr))
                    for name, term in self.extra.items() if term.weight}


def _float32(value: jax.Array | float) -> jax.Array:
  """Converts the result of a user's own function, which may be of another float type."""
  return jnp.asarray(value, jnp.float32)
