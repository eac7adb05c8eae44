"""The trunk of EDSR or RRDBNet in front of a transformer, in place of its first convolution.

It is the trunk of these networks as it is, with its own range and mean, so that the weights of a
trained network fit. Its features are divided by the value that white has in it and multiplied by
that of the transformer: of an untrained stem they are then as large as those of a convolution.
"""

import jax
from flax import linen as nn

from sr_jax.models.edsr import EDSR
from sr_jax.models.layers import check_choices, fold
from sr_jax.models.rrdb import RRDB

STEMS = ('conv', 'edsr', 'rrdb')


def stem_network(module: nn.Module) -> EDSR | RRDB | None:
  """Returns the network whose trunk is the stem of a transformer, or None for one convolution.

  Only the trunk's size matters; its other fields have the defaults of the class, and RRDBNet's
  `growth` is half of its features, as in all published networks. The scale has no effect.

  Args:
    module: the transformer, with the fields stem, stem_blocks, stem_features, features, channels,
      unshuffle, remat and dtype.

  Raises:
    ValueError: a field of the stem is invalid, missing, or has no effect.
  """
  check_choices(module, stem=STEMS)
  if module.stem == 'conv':
    for field in ('stem_blocks', 'stem_features'):
      if getattr(module, field) is not None:
        raise ValueError(f"{field}={getattr(module, field)} has no effect with stem='conv': "
                         f"expected {field}=None, or stem='edsr' or 'rrdb'")
    return None
  if module.stem_blocks is None:
    raise ValueError(f'stem_blocks=None with stem={module.stem!r}: expected the number of its '
                     'blocks, such as 4')
  features = stem_features(module)
  options = {'features': features, 'blocks': module.stem_blocks, 'scale': 1,
             'unshuffle': module.unshuffle, 'channels': module.channels, 'remat': module.remat,
             'dtype': module.dtype}
  return EDSR(**options) if module.stem == 'edsr' else RRDB(growth=max(features // 2, 1), **options)


def stem_features(module: nn.Module) -> int:
  """Returns the number of channels of a transformer's stem."""
  return module.stem_features or module.features


def apply_stem(network: EDSR | RRDB, lr: jax.Array, multiple: int, image_range: float) -> jax.Array:
  """Returns features [B, H, W, F] of lr [B, h, w, C], with sides that are multiples of a number.

  Args:
    network: of `stem_network`, bound.
    lr: in [0, 1]; it is padded by reflection at the bottom and right.
    multiple: number whose multiples H and W are.
    image_range: the value of white in units of the result.
  """
  features = network.trunk(fold(lr, 1, multiple * network.unshuffle))
  return features * (image_range / getattr(network, 'image_range', 1.0))
