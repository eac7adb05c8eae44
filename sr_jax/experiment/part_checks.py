"""Refuses crops of config.phases that a network or a loss cannot take, before training starts."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from sr_jax.errors import InputError
from sr_jax.experiment import crops, inputs
from sr_jax.experiment.loss import build_loss, check_features
from sr_jax.models import failures

PyTree = Any


def check_parts(config: ConfigDict, vgg: nn.Module | None, frozen: dict[str, PyTree],
                networks: tuple[nn.Module, nn.Module | None]) -> None:
  """Refuses crops of a part of the main phase that networks or losses cannot take.

  Nothing is computed.

  Args:
    vgg, frozen: of `loss.build_vgg`.
    networks: the generator and the discriminator.

  Raises:
    InputError: names the part.
  """
  generator, discriminator = networks
  for part in crops.of_main_phase(config) if config.phases.steps else ():
    cut = crops.with_crops(config, part)
    with crops.named(part):
      build_loss(cut)  # tries losses of the user's own
      if vgg is not None:
        check_features(cut, vgg, frozen['vgg'])
      _check_shapes(config, 'generator', generator,
                    (cut.hr_patch // cut.scale, config.hr_patch // config.scale))
      if discriminator is not None:
        _check_shapes(config, 'discriminator', discriminator, (cut.hr_patch, config.hr_patch))


def _check_shapes(config: ConfigDict, key: str, network: nn.Module,
                  sides: tuple[int, int]) -> None:
  """Raises InputError if the shapes of a network's arrays depend on which side its input has."""
  def shapes(side: int) -> PyTree:
    images = jax.ShapeDtypeStruct((1, side, side, inputs.batch_channels(config)), jnp.float32)
    with failures.one_line(network, f'config.{key}: '):
      variables = jax.eval_shape(network.init, jax.random.key(0), images)
    return jax.tree.map(lambda leaf: leaf.shape, variables)

  if sides[0] != sides[1] and shapes(sides[0]) != shapes(sides[1]):
    raise InputError(f'config.{key}.name={config[key].name!r}: the shapes of its arrays depend on '
                     f'the size of its input, which is {sides[0]} here and {sides[1]} in the end; '
                     "vgg_style needs config.discriminator.head='conv'")
