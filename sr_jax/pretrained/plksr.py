"""The authors' tensor names for PLKSR, and neosr's and traiNNer-redux's for RealPLKSR.

Sources: https://github.com/dslisleedh/PLKSR, plksr/archs/plksr_arch.py, and
https://github.com/muslll/neosr, neosr/archs/realplksr_arch.py.
"""

from typing import Any

import numpy as np
from flax import linen as nn

from sr_jax.errors import InputError
from sr_jax.models.dysample import groups_of, initial_positions
from sr_jax.models.plksr import MIXERS
from sr_jax.pretrained.shapes import Tensors, Unstated, conv_channels, index_count, shuffle_factor

# The mixer in each network's blocks; the first is the authors' spelling.
MIXER_NAMES = {'plksr': 'channe_mixer', 'realplksr': 'channel_mixer'}
NETWORKS = {name: lambda generator: generator.channels == 3 for name in MIXER_NAMES}


def infer(tensors: Tensors, given: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
  """Returns (name in models.GENERATORS, its fields), or None if the names are not PLKSR's.

  Args:
    given: fields that the user or the file's metadata states.

  Raises:
    InputError: it is a variant of PLKSR that this project does not have.
  """
  name = next((name for name, mixer in MIXER_NAMES.items()
               if f'feats.1.{mixer}.0.weight' in tensors), None)
  if not name:
    return None
  features, channels = conv_channels(tensors, 'feats.0')
  last = index_count(tensors, r'feats\.(\d+)\.') - 1
  outputs, _ = conv_channels(tensors, f'feats.{last}')
  for tensor in tensors:
    if tensor.startswith(('feats.1.lk.convs.', 'feats.1.lk.mn_conv.')):
      raise InputError(f'{tensor} belongs to a sparse large kernel, which is not supported; only '
                       'PLKSR with feats.1.lk.conv is')
  large, _ = conv_channels(tensors, 'feats.1.lk.conv')
  share = given.get('share')
  if not isinstance(share, float) or int(features * share + 1e-6) != large:
    share = large / features
  fields = {
      'features': features, 'channels': channels, 'blocks': last - (1 if name == 'plksr' else 2),
      'scale': shuffle_factor(tensors, f'feats.{last}', channels, outputs), 'unshuffle': 1,
      'kernel': tensors['feats.1.lk.conv.weight'].shape[2], 'share': share,
      'mixer': _mixer(tensors, f'feats.1.{MIXER_NAMES[name]}'),
      'gate': 'feats.1.attn.f.0.weight' in tensors}
  if name == 'plksr':
    return name, fields | {'activation': 'gelu', 'norm': 'none', 'upsample': 'shuffle'}
  upsample = 'dysample' if 'to_img.offset.weight' in tensors else 'shuffle'
  norm = 'layer' if 'feats.1.layer_norm.weight' in tensors else 'group'
  return name, fields | {'activation': 'mish', 'norm': norm, 'norm_groups': Unstated(4),
                         'upsample': upsample}


def _mixer(tensors: Tensors, name: str) -> str:
  for index in (0, 2):
    conv_channels(tensors, f'{name}.{index}')
  sides = tuple(tensors[f'{name}.{index}.weight'].shape[2] for index in (0, 2))
  mixer = next((mixer for mixer, known in MIXERS.items() if known == sides), None)
  if not mixer:
    raise InputError(f'{name}.0.weight and {name}.2.weight have sides of {sides[0]} and {sides[1]} '
                     f'pixels, expected one of {", ".join(map(str, MIXERS.values()))}')
  return mixer


def names(name: str, generator: nn.Module) -> dict[str, str]:
  """Maps our layers to the project's, for example {'body_0/large': 'feats.1.lk.conv'}.

  Args:
    name: 'plksr' or 'realplksr'.
  """
  mapping = {'head': 'feats.0',
             'last': f'feats.{generator.blocks + (1 if name == "plksr" else 2)}',
             'sampler/offset': 'to_img.offset', 'sampler/scope': 'to_img.scope',
             'sampler/end': 'to_img.end_conv'}
  layers = {'norm': 'layer_norm', 'mixer_0': f'{MIXER_NAMES[name]}.0',
            'mixer_1': f'{MIXER_NAMES[name]}.2', 'large': 'lk.conv', 'gate': 'attn.f.0',
            'refine': 'refine'}
  for block in range(generator.blocks):
    mapping |= {f'body_{block}/{ours}': f'feats.{block + 1}.{theirs}'
                for ours, theirs in layers.items()}
    mapping[f'norms_{block}'] = f'feats.{block + 1}.norm'
  return mapping


def constants(generator: nn.Module) -> dict[str, np.ndarray]:
  """Returns the tensor of DySample that is not trainable, or {}."""
  if generator.upsample != 'dysample':
    return {}
  positions = initial_positions(generator.scale, groups_of(generator.scale, generator.channels))
  return {'to_img.init_pos': positions[None, :, None, None]}
