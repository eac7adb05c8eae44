"""The generator's loss: a weighted sum of named terms."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax import images
from sr_jax.losses.features import perceptual
from sr_jax.losses.pixel import PIXEL, Distance, total_variation


class Term(NamedTuple):
  """A loss term, weight * distance(sr, hr)."""

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
    extra: further terms that compare images, and those of the user's own, by the name that they
      have in logs.
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
