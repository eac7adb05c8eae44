"""EDSR-PyTorch's tensor names for EDSR, including its mean shift, stored as 1x1 convolutions.

Source: https://github.com/sanghyun-son/EDSR-PyTorch, src/model/edsr.py and common.py.
"""

from typing import Any

import numpy as np
from flax import linen as nn

from sr_jax.errors import InputError
from sr_jax.models.edsr import EDSR
from sr_jax.pretrained.basicsr import MAX_STAGES, edsr_unstated
from sr_jax.pretrained.shapes import (
    Tensors,
    Unstated,
    conv_channels,
    index_count,
    shuffle_scale,
)

NETWORKS = {'edsr': lambda generator: generator.channels == 3}  # its mean has three values


def infer(tensors: Tensors, given: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
  """Infers the network as `basicsr.infer` does."""
  if not any(name.startswith('body.0.body.0.') and name.count('.') == 4 for name in tensors):
    return None
  features, channels = conv_channels(tensors, 'head.0')
  blocks = index_count(tensors, r'body\.(\d+)\.body\.')
  stages = [f'tail.0.{index}' for index in range(0, index_count(tensors, r'tail\.0\.(\d+)\.'), 2)]
  fields = {'features': features, 'blocks': blocks, 'channels': channels,
            'scale': shuffle_scale(tensors, stages, features), **edsr_unstated(features, blocks)}
  if 'sub_mean.bias' in tensors:
    fields |= _mean_shift(tensors['sub_mean.bias'], given)
  return 'edsr', fields


def _mean_shift(bias: np.ndarray, given: dict[str, Any]) -> dict[str, Any]:
  """Returns mean and image_range of a shift by -image_range * mean.

  The file contains only the product. If it is DIV2K's mean times an integer, that integer is
  the range; otherwise the range must be given.
  """
  if bias.shape != (3,):
    raise InputError(f'sub_mean.bias is {list(bias.shape)}, expected [3]')
  both = {field: given[field] for field in ('mean', 'image_range') if field in given}
  if len(both) == 2 and np.array_equal(_shift(**both), -bias):
    return both
  image_range = float(np.round(-bias[0] / EDSR.mean[0]))
  if image_range > 0 and np.array_equal(_shift(image_range, EDSR.mean), -bias):
    return {'mean': EDSR.mean, 'image_range': image_range}
  if 'image_range' not in given:
    return {'image_range': Unstated()}
  image_range = float(given['image_range'])
  if not image_range > 0:
    raise InputError(f'image_range={image_range}: expected more than 0')
  return {'mean': tuple(float(value) for value in -np.float64(bias) / image_range),
          'image_range': image_range}


def _shift(image_range: float, mean: tuple[float, ...]) -> np.ndarray:
  """Returns image_range * mean with PyTorch's rounding: DIV2K's mean is float32 there."""
  if mean == EDSR.mean:
    return np.float32(image_range) * np.array(mean, np.float32)
  return np.float32(image_range * np.array(mean, np.float64))


def names(name: str, generator: nn.Module) -> dict[str, str]:
  """Maps our layers to EDSR-PyTorch's, as `basicsr.names` does."""
  mapping = {f'body_{block}/Conv_{index}': f'body.{block}.body.{2 * index}'
             for block in range(generator.blocks) for index in range(2)}
  mapping |= {f'stages_{stage}/Conv_0': f'tail.0.{2 * stage}' for stage in range(MAX_STAGES)}
  return mapping | {'head': 'head.0', 'body_end': f'body.{generator.blocks}', 'last': 'tail.1'}


def constants(generator: nn.Module) -> dict[str, np.ndarray]:
  """Returns the tensors that are not trainable: x - image_range * mean, and its inverse."""
  shift = _shift(generator.image_range, generator.mean)
  identity = np.eye(3, dtype=np.float32)[:, :, None, None]
  return {'sub_mean.weight': identity, 'sub_mean.bias': -shift,
          'add_mean.weight': identity, 'add_mean.bias': shift}
