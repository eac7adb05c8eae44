"""Losses: arrays in, scalars out. The first argument is what is differentiated.

Pictures are in [0, 1]. A recipe stated on [-1, 1] differs: its squared errors are four
times ours, its absolute errors twice. Every mean is over all elements and in float32: that is
what the networks give, whatever they compute in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax.nn import softplus

from sr_jax import images

# Pixels ------------------------------------------------------------------------------


def l1(sr: jax.Array, hr: jax.Array) -> jax.Array:
  """mean |sr - hr|."""
  return jnp.mean(jnp.abs(sr - hr))


def mse(sr: jax.Array, hr: jax.Array) -> jax.Array:
  """mean (sr - hr)^2."""
  return jnp.mean(jnp.square(sr - hr))


def charbonnier(sr: jax.Array, hr: jax.Array, epsilon: float = 1e-3) -> jax.Array:
  """mean sqrt((sr - hr)^2 + epsilon^2): L1 made smooth (Lai et al. 2017, equation 3).

  At identity it is epsilon, not zero.
  """
  return jnp.mean(jnp.sqrt(jnp.square(sr - hr) + epsilon**2))


PIXEL = {'l1': l1, 'mse': mse, 'charbonnier': charbonnier}


def total_variation(sr: jax.Array) -> jax.Array:
  """mean |sr[y + 1, x] - sr[y, x]| + mean |sr[y, x + 1] - sr[y, x]|, anisotropic.

  Args:
    sr: [B, H, W, C], H and W at least 2.
  """
  return (jnp.mean(jnp.abs(sr[:, 1:] - sr[:, :-1]))
          + jnp.mean(jnp.abs(sr[:, :, 1:] - sr[:, :, :-1])))


# Features ----------------------------------------------------------------------------


def perceptual(sr: Mapping[str, jax.Array], hr: Mapping[str, jax.Array],
               layers: Mapping[str, float], scale: float = 1.0, distance: str = 'mse'):
  """sum over layers of weight * distance(scale * phi(sr), scale * phi(hr)).

  Ledig et al. 2017, equation 5, with the mean over a layer's elements in place of the sum
  over positions divided by their number. Their features are scaled by 1/12.75, which
  scales this loss by 0.00615.

  Args:
    sr, hr: features by layer name, [B, h, w, C].
    layers: weight of each layer by name.
    scale: multiplies features before the distance; it belongs to one identity of weights.
    distance: 'mse' (SRGAN) or 'l1' (ESRGAN).
  """
  return sum(weight * PIXEL[distance](scale * sr[name], scale * hr[name])
             for name, weight in layers.items())


# Adversarial -------------------------------------------------------------------------
# All from logits: softplus(x) = log(1 + e^x) has no overflow and no log of zero.
# A generator's loss takes (fake, real), a discriminator's (real, fake).


def vanilla_generator(fake: jax.Array, real: jax.Array | None = None) -> jax.Array:
  """mean -log sigmoid(D(fake)), the non-saturating form (Ledig et al. 2017, equation 6)."""
  del real
  return jnp.mean(softplus(-fake))


def vanilla_discriminator(real: jax.Array, fake: jax.Array) -> jax.Array:
  """mean -log sigmoid(D(real)) + mean -log(1 - sigmoid(D(fake))) (Goodfellow et al. 2014)."""
  return jnp.mean(softplus(-real)) + jnp.mean(softplus(fake))


def least_squares_generator(fake: jax.Array, real: jax.Array | None = None) -> jax.Array:
  """1/2 mean (D(fake) - 1)^2 (Mao et al. 2017, equation 9)."""
  del real
  return 0.5 * jnp.mean(jnp.square(fake - 1))


def least_squares_discriminator(real: jax.Array, fake: jax.Array) -> jax.Array:
  """1/2 mean (D(real) - 1)^2 + 1/2 mean D(fake)^2 (Mao et al. 2017, equation 9)."""
  return 0.5 * (jnp.mean(jnp.square(real - 1)) + jnp.mean(jnp.square(fake)))


def relativistic_generator(fake: jax.Array, real: jax.Array) -> jax.Array:
  """1/2 [mean -log D(fake, real) + mean -log(1 - D(real, fake))].

  D(a, b) = sigmoid(C(a) - mean C(b)), C the logits (Wang et al. 2018, equation 2, times
  1/2 as their code has it). The means are over the whole batch.
  """
  return 0.5 * (jnp.mean(softplus(-(fake - jnp.mean(real))))
                + jnp.mean(softplus(real - jnp.mean(fake))))


def relativistic_discriminator(real: jax.Array, fake: jax.Array) -> jax.Array:
  """1/2 [mean -log D(real, fake) + mean -log(1 - D(fake, real))] (equation 1, times 1/2)."""
  return 0.5 * (jnp.mean(softplus(-(real - jnp.mean(fake))))
                + jnp.mean(softplus(fake - jnp.mean(real))))


def accuracy(kind: str, real: jax.Array, fake: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Shares of real and of generated pictures that D takes for what they are.

  A logit counts as "real" above 0 (vanilla), above the midpoint of the targets 0 and 1
  (least squares), or above the mean of the other kind (relativistic).
  """
  bounds = {'vanilla': (0.0, 0.0), 'least_squares': (0.5, 0.5),
            'relativistic': (jnp.mean(fake), jnp.mean(real))}[kind]
  return (jnp.mean(real > bounds[0], dtype=jnp.float32),
          jnp.mean(fake < bounds[1], dtype=jnp.float32))


ADVERSARIAL = {
    'vanilla': (vanilla_generator, vanilla_discriminator),
    'least_squares': (least_squares_generator, least_squares_discriminator),
    'relativistic': (relativistic_generator, relativistic_discriminator),
}


# Together ----------------------------------------------------------------------------


@dataclass(frozen=True)
class GeneratorLoss:
  """The generator's weighted terms; a weight of zero leaves a term out.

  Attributes:
    pixel, pixel_weight: a name in `PIXEL`.
    layers: weights of the VGG layers, times perceptual_weight; scale and distance as in
      `perceptual`.
    adversarial, adversarial_weight: a name in `ADVERSARIAL`; it names D's loss too.
  """

  pixel: str = 'l1'
  pixel_weight: float = 1.0
  perceptual_weight: float = 0.0
  layers: Mapping[str, float] = field(default_factory=dict)
  scale: float = 1.0
  distance: str = 'mse'
  adversarial: str = 'vanilla'
  adversarial_weight: float = 0.0
  total_variation_weight: float = 0.0

  def reconstruction(self, sr, hr, vgg, frozen) -> dict[str, jax.Array]:
    """The weighted terms that compare pictures: functions of sr alone."""
    return self.compared(sr, hr, *(self.features(picture, vgg, frozen) for picture in (sr, hr)))

  def features(self, picture, vgg, frozen) -> dict[str, jax.Array]:
    """What the perceptual term sees of a picture; {} without that term."""
    if not self.perceptual_weight:
      return {}
    with jax.named_scope('vgg'):
      return vgg.apply(frozen['vgg'], images.as_rgb(picture))

  @jax.named_scope('losses')
  def compared(self, sr, hr, sr_features, hr_features) -> dict[str, jax.Array]:
    """`reconstruction` of pictures whose features are known."""
    terms = {}
    if self.pixel_weight:
      terms['pixel'] = self.pixel_weight * PIXEL[self.pixel](sr, hr)
    if self.perceptual_weight:
      terms['perceptual'] = self.perceptual_weight * perceptual(
          sr_features, hr_features, self.layers, self.scale, self.distance)
    if self.total_variation_weight:
      terms['total_variation'] = self.total_variation_weight * total_variation(sr)
    return terms
