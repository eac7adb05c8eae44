"""VGG feature extractors (Simonyan & Zisserman 2015) for the perceptual loss.

The weights are read by `sr_jax.pretrained.vgg`.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

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
        x = nn.max_pool(x, (2, 2), (2, 2))
      for index in range(1, depth + 1):
        name = f'{block}_{index}'
        x = nn.Conv(min(32 << block, 512), (3, 3), dtype=self.dtype, name=f'conv{name}')(x)
        for kind in ('conv', 'relu'):
          if kind == 'relu':
            x = nn.relu(x)
          if kind + name in wanted:
            features[kind + name] = x.astype(jnp.float32)
        if len(features) == len(wanted):
          return features
    return features


def convolution_names(depths: Sequence[int]) -> list[str]:
  """Returns ['conv1_1', 'conv1_2', 'conv2_1', ...] for the numbers of convolutions per block."""
  return [f'conv{block}_{index}' for block, depth in enumerate(depths, 1)
          for index in range(1, depth + 1)]


VGG16_DEPTHS, VGG19_DEPTHS = (2, 2, 3, 3, 3), (2, 2, 4, 4, 4)
VGG16 = partial(VGG, VGG16_DEPTHS)
VGG19 = partial(VGG, VGG19_DEPTHS)
VGGS = {'vgg16': VGG16, 'vgg19': VGG19}
