"""VGG feature extractors (Simonyan & Zisserman 2015) for the perceptual loss.

The weights are read by `sr_jax.pretrained.vgg`. ReLU and the maximum over 2x2 pixels have the
values and gradients of `nn.relu` and `nn.max_pool`, computed by fewer and faster kernels.
"""

from collections.abc import Sequence
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

# Of ImageNet's RGB values in [0, 1].
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


class VGG(nn.Module):
  """Maps images [B, H, W, 3] in [0, 1] to a dict of named features.

  Attributes:
    depths: number of convolutions in each of the five blocks.
    layers: names of the features to return: 'conv5_4' is block 5's fourth convolution before
      its ReLU, 'relu5_4' after it. Layers beyond the last of these aren't computed.
    dtype: dtype of the computation; features are float32.

  Raises:
    ValueError: an unknown layer or an image that is not float, on the first call.
  """

  depths: tuple[int, ...]
  layers: Sequence[str]
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array) -> dict[str, jax.Array]:
    names = convolution_names(self.depths)
    for layer in self.layers:
      if layer.replace('relu', 'conv') not in names:
        raise ValueError(f'VGG layer {layer!r}: expected one of {", ".join(names)}, or the same '
                         'with relu in place of conv')
    if not jnp.issubdtype(images.dtype, jnp.floating):
      raise ValueError(f'{images.dtype}: expected float in [0, 1] (sr_jax.images.to_float converts '
                       'uint8)')
    wanted, features = set(self.layers), {}
    x = ((images - MEAN) / STD).astype(self.dtype)
    for block, depth in enumerate(self.depths, 1):
      if block > 1:
        x = max_pool(x)
      for index in range(1, depth + 1):
        name = f'{block}_{index}'
        x = nn.Conv(min(32 << block, 512), (3, 3), dtype=self.dtype, name=f'conv{name}')(x)
        for kind in ('conv', 'relu'):
          if kind == 'relu':
            x = relu(x)
          if kind + name in wanted:
            features[kind + name] = x.astype(jnp.float32)
        if len(features) == len(wanted):
          return features
    return features


@jax.custom_vjp
def relu(x: jax.Array) -> jax.Array:
  """Computes max(x, 0); the gradient is derived from the result.

  The argument is then used only once, so that XLA lets cuDNN's convolution compute the maximum.
  """
  return jnp.maximum(x, 0)


def _relu_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  result = relu(x)
  # Without the barrier, XLA simplifies max(x, 0) > 0 to x > 0 and keeps the argument after all.
  return result, lax.optimization_barrier(result)


def _relu_backward(result: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
  return jnp.where(result > 0, cotangent, 0),


relu.defvjp(_relu_forward, _relu_backward)


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
  """Takes the maximum of every 2x2 pixels: [B, H, W, C] to [B, H // 2, W // 2, C].

  The gradient goes to the first of equal maxima. `nn.max_pool` finds it with three arrays of
  indices and a scatter on a GPU, and took longer on the CPU.
  """
  return reduce(jnp.maximum, _corners(x))


def _corners(x: jax.Array) -> list[jax.Array]:
  """Returns the top left, top right, bottom left and bottom right pixels of all windows."""
  height, width = (side // 2 * 2 for side in x.shape[1:3])
  return [x[:, row:height:2, column:width:2] for row in (0, 1) for column in (0, 1)]


def _pool_forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  result = max_pool(x)
  return result, (x, result)


def _pool_backward(residuals: tuple[jax.Array, jax.Array],
                   cotangent: jax.Array) -> tuple[jax.Array]:
  x, result = residuals
  batch, height, width, channels = x.shape
  parts, is_left = [], jnp.ones(result.shape, bool)
  for corner in _corners(x):
    parts.append(jnp.where(is_left & (corner == result), cotangent, 0))
    is_left &= corner != result
  rows = [jnp.stack(parts[:2], 3), jnp.stack(parts[2:], 3)]  # [B, H // 2, W // 2, 2, C]
  gradient = jnp.stack(rows, 2).reshape(batch, height // 2 * 2, width // 2 * 2, channels)
  return jnp.pad(gradient, ((0, 0), (0, height % 2), (0, width % 2), (0, 0))),


max_pool.defvjp(_pool_forward, _pool_backward)


def convolution_names(depths: Sequence[int]) -> list[str]:
  """Returns ['conv1_1', 'conv1_2', 'conv2_1', ...] for the numbers of convolutions per block."""
  return [f'conv{block}_{index}' for block, depth in enumerate(depths, 1)
          for index in range(1, depth + 1)]


VGG16_DEPTHS, VGG19_DEPTHS = (2, 2, 3, 3, 3), (2, 2, 4, 4, 4)
VGG16 = partial(VGG, VGG16_DEPTHS)
VGG19 = partial(VGG, VGG19_DEPTHS)
VGGS = {'vgg16': VGG16, 'vgg19': VGG19}
