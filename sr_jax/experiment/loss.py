"""config.loss -> the generator's loss and the feature extractor of its perceptual term."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from sr_jax import losses
from sr_jax.errors import InputError
from sr_jax.experiment import inputs, own_functions
from sr_jax.models.vgg import VGGS
from sr_jax.pretrained.vgg import load_vgg

PyTree = Any
# (network, weights, identity, dtype) -> variables
LoadVGG = Callable[[str, str, str, jnp.dtype], PyTree]


def parse_layers(text: str) -> dict[str, float]:
  """Parses 'relu2_2:0.5,relu5_4' to {'relu2_2': 0.5, 'relu5_4': 1.0}.

  Raises:
    InputError: a weight is not a number.
  """
  layers = {}
  for part in text.split(','):
    name, _, weight = part.strip().partition(':')
    try:
      layers[name] = float(weight or 1)
    except ValueError:
      raise InputError(f'config.loss.perceptual.layers={text!r}: {weight!r} is not a number'
                       ) from None
  return layers


def build_loss(config: ConfigDict) -> losses.GeneratorLoss:
  """Builds the generator's loss of the main phase.

  Raises:
    InputError: a loss function of the user's own cannot be used.
  """
  loss = config.loss
  shape = (config.batch_size // config.accumulate, config.hr_patch, config.hr_patch,
           inputs.batch_channels(config))
  return losses.GeneratorLoss(
      pixel=own_functions.find_pixel(config, shape), pixel_weight=loss.pixel.weight,
      perceptual_weight=loss.perceptual.weight, layers=parse_layers(loss.perceptual.layers),
      scale=loss.perceptual.scale, distance=loss.perceptual.distance,
      adversarial=loss.adversarial.kind, adversarial_weight=loss.adversarial.weight,
      total_variation_weight=loss.total_variation.weight,
      extra=_image_terms(config) | own_functions.find_terms(config, shape))


def _image_terms(config: ConfigDict) -> dict[str, losses.Term]:
  """Returns the terms that compare images besides the pixel and the perceptual one, by name."""
  loss = config.loss
  distances = {
      'ms_ssim': functools.partial(losses.ms_ssim, scales=loss.ms_ssim.scales),
      'colour': functools.partial(losses.colour, block=loss.colour.block),
      'focal_frequency': functools.partial(losses.focal_frequency,
                                           alpha=loss.focal_frequency.alpha)}
  return {name: losses.Term(distance, loss[name].weight) for name, distance in distances.items()}


def build_vgg(config: ConfigDict,
              load: LoadVGG = load_vgg) -> tuple[nn.Module | None, dict[str, PyTree]]:
  """Builds the feature extractor of the perceptual term and loads its weights.

  Args:
    config: the experiment.
    load: called as `load_vgg`; for a program that is not run, shapes suffice.

  Returns:
    (module, {'vgg': variables in its dtype}), or (None, {}) if the term has no weight.

  Raises:
    InputError: the weights are missing, a layer does not exist or has no pixel left.
  """
  perceptual = config.loss.perceptual
  if not perceptual.weight:
    return None, {}
  vgg = VGGS[perceptual.network](tuple(parse_layers(perceptual.layers)),
                                 dtype=jnp.dtype(config.dtype))
  variables = load(perceptual.network, perceptual.weights, perceptual.identity, vgg.dtype)
  check_features(config, vgg, variables)
  return vgg, {'vgg': variables}


def check_features(config: ConfigDict, vgg: nn.Module, variables: PyTree) -> None:
  """Refuses crops of which a layer of VGG has no output.

  Args:
    vgg, variables: of `build_vgg`.

  Raises:
    InputError: so it is, or there is no such layer.
  """
  try:
    features = jax.eval_shape(vgg.apply, variables,
                              jnp.zeros((1, config.hr_patch, config.hr_patch, 3)))
  except ValueError as error:
    raise InputError(f'config.loss.perceptual.layers: {error}') from None
  for name, feature in features.items():
    if not feature.size:
      raise InputError(f'config.loss.perceptual.layers: {name} has no output for a patch of '
                       f'hr_patch={config.hr_patch} pixels; use a larger hr_patch')
