"""EDSR-PyTorch's names for EDSR, with the mean shift that it keeps as 1x1 convolutions.

Source: https://github.com/sanghyun-son/EDSR-PyTorch, src/model/edsr.py and common.py.
"""

import numpy as np

from sr_jax.errors import InputError
from sr_jax.models.edsr import EDSR
from sr_jax.pretrained.basicsr import MOST_STAGES, edsr_unstated
from sr_jax.pretrained.shapes import Unstated, convolution, count, shuffled_scale

NETWORKS = {'edsr': lambda generator: generator.channels == 3}  # its mean has three


def infer(tensors: dict, told: dict) -> tuple[str, dict] | None:
  """As `basicsr.infer`."""
  if not any(name.startswith('body.0.body.0.') and name.count('.') == 4 for name in tensors):
    return None
  features, channels = convolution(tensors, 'head.0')
  blocks = count(tensors, r'body\.(\d+)\.body\.')
  stages = [f'tail.0.{index}' for index in range(0, count(tensors, r'tail\.0\.(\d+)\.'), 2)]
  fields = {'features': features, 'blocks': blocks, 'channels': channels,
            'scale': shuffled_scale(tensors, stages, features), **edsr_unstated(features, blocks)}
  if 'sub_mean.bias' in tensors:
    fields |= _mean_shift(tensors['sub_mean.bias'], told)
  return 'edsr', fields


def _mean_shift(bias: np.ndarray, told: dict) -> dict:
  """mean and image_range of a shift by -image_range * mean.

  Only the product is there: DIV2K's mean times a whole number tells the range, else it must
  be told.
  """
  if bias.shape != (3,):
    raise InputError(f'sub_mean.bias is {list(bias.shape)}, expected [3]')
  both = {field: told[field] for field in ('mean', 'image_range') if field in told}
  if len(both) == 2 and np.array_equal(_shift(**both), -bias):
    return both
  image_range = float(np.round(-bias[0] / EDSR.mean[0]))
  if image_range > 0 and np.array_equal(_shift(image_range, EDSR.mean), -bias):
    return {'mean': EDSR.mean, 'image_range': image_range}
  if 'image_range' not in told:
    return {'image_range': Unstated()}
  image_range = float(told['image_range'])
  if not image_range > 0:
    raise InputError(f'image_range={image_range}: expected more than 0')
  return {'mean': tuple(float(value) for value in -np.float64(bias) / image_range),
          'image_range': image_range}


def _shift(image_range: float, mean: tuple[float, ...]) -> np.ndarray:
  """image_range * mean as PyTorch has it: of DIV2K's decimals, rounded before the product."""
  if mean == EDSR.mean:
    return np.float32(image_range) * np.array(mean, np.float32)
  return np.float32(image_range * np.array(mean, np.float64))


def names(name: str, generator) -> dict[str, str]:
  """As `basicsr.names`."""
  found = {f'body_{block}/Conv_{index}': f'body.{block}.body.{2 * index}'
           for block in range(generator.blocks) for index in range(2)}
  found |= {f'stages_{stage}/Conv_0': f'tail.0.{2 * stage}' for stage in range(MOST_STAGES)}
  return found | {'head': 'head.0', 'body_end': f'body.{generator.blocks}', 'last': 'tail.1'}


def constants(generator) -> dict[str, np.ndarray]:
  """Tensors that are not learnt: x - image_range * mean, and back."""
  shift = _shift(generator.image_range, generator.mean)
  identity = np.eye(3, dtype=np.float32)[:, :, None, None]
  return {'sub_mean.weight': identity, 'sub_mean.bias': -shift,
          'add_mean.weight': identity, 'add_mean.bias': shift}
