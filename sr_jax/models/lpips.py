"""LPIPS 0.1 (Zhang et al. 2018), a learnt distance between images; lower is closer."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax.models.vgg import MEAN, STD, VGG16

# LPIPS states its shift and scale for [-1, 1]. On [0, 1] they equal ImageNet's to 0.002.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
VGG_LAYERS = ('relu1_2', 'relu2_2', 'relu3_3', 'relu4_3', 'relu5_3')


class AlexNet(nn.Module):
  """Maps [B, H, W, 3] to the outputs of AlexNet's five convolutions and ReLUs, finest first."""

  @nn.compact
  def __call__(self, x: jax.Array) -> list[jax.Array]:
    features = []
    for width, kernel, stride, padding in ((64, 11, 4, 2), (192, 5, 1, 2), (384, 3, 1, 1),
                                           (256, 3, 1, 1), (256, 3, 1, 1)):
      if len(features) in (1, 2):
        x = nn.max_pool(x, (3, 3), (2, 2))
      x = nn.relu(nn.Conv(width, (kernel, kernel), stride, padding)(x))
      features.append(x)
    return features


class LPIPS(nn.Module):
  """Maps two batches [B, H, W, 3] in [0, 1], at least 32 pixels a side, to distances [B].

  Attributes:
    network: 'alex', which papers report, or 'vgg'.
  """

  network: str = 'alex'

  @nn.compact
  def __call__(self, a: jax.Array, b: jax.Array) -> jax.Array:
    both = jnp.concatenate([2 * a - 1, 2 * b - 1])
    both = (both - jnp.array(SHIFT)) / jnp.array(SCALE)
    if self.network == 'alex':
      features = AlexNet(name='net')(both)
    else:
      # VGG normalises its input, which is undone here so that LPIPS's normalisation applies.
      named = VGG16(VGG_LAYERS, name='net')(both * STD + MEAN)
      features = [named[layer] for layer in VGG_LAYERS]
    total = 0.0
    for index, feature in enumerate(features):
      feature = feature / (jnp.linalg.norm(feature, axis=-1, keepdims=True) + 1e-10)
      a, b = jnp.split(feature, 2)
      difference = nn.Conv(1, (1, 1), use_bias=False, name=f'head{index}')(jnp.square(a - b))
      total = total + jnp.mean(difference, axis=(1, 2, 3))
    return total
