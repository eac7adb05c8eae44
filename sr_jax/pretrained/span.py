"""The authors' tensor names for SPAN, as spandrel reads them.

Source: https://github.com/hongyuanyu/SPAN, basicsr/archs/span_arch.py. A file holds each
convolution twice: its branches (`sk`, `conv.0` to `conv.2`), and the 3x3 convolution `eval_conv`
that they amount to. A file from a training may hold an outdated `eval_conv`, and spandrel computes
it again; so it is only read from files without branches.
"""

from typing import Any

import numpy as np
from flax import linen as nn

from sr_jax.models import span
from sr_jax.models.edsr import DIV2K_MEAN
from sr_jax.pretrained.shapes import (
    Tensors,
    Unstated,
    conv_channels,
    index_count,
    shuffle_factor,
)

NORMALISED = {'mean': DIV2K_MEAN, 'image_range': 255.0}
NOT_NORMALISED = {'mean': (0.0, 0.0, 0.0), 'image_range': 1.0}  # marked by a tensor `no_norm`
BRANCHES = {span.EXPAND: 'conv.0', span.MIDDLE: 'conv.1', span.REDUCE: 'conv.2', span.SKIP: 'sk'}


def _is_known(generator: nn.Module) -> bool:
  """Returns whether the authors' network has this configuration, which no tensor contains."""
  normalisation = {field: getattr(generator, field) for field in NORMALISED}
  return generator.blocks == 6 and (normalisation == NOT_NORMALISED or (
      normalisation == NORMALISED and generator.channels == 3))


NETWORKS = {'span': _is_known}


def infer(tensors: Tensors, given: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
  """Infers the network as `basicsr.infer` does."""
  heads = [head for head in ('conv_1.sk', 'conv_1.eval_conv') if f'{head}.weight' in tensors]
  if not heads or not any(name.startswith('block_1.c1_r.') for name in tensors):
    return None
  features, channels = conv_channels(tensors, heads[0])
  outputs, _ = conv_channels(tensors, 'upsampler.0')
  fields = {'features': features, 'blocks': index_count(tensors, r'block_(\d+)\.') - 1,
            'channels': channels, 'fused': heads[0] == 'conv_1.eval_conv',
            'scale': shuffle_factor(tensors, 'upsampler.0', channels, outputs)}
  if 'no_norm' in tensors:
    return 'span', fields | NOT_NORMALISED
  return 'span', fields | {field: Unstated(value) for field, value in NORMALISED.items()}


def names(name: str, generator: nn.Module) -> dict[str, str]:
  """Maps our layers to the authors', as `basicsr.names` does."""
  layers = {'head': 'conv_1', 'body_end': 'conv_2'}
  layers |= {f'body_{block}/layers_{index}': f'block_{block + 1}.c{index + 1}_r'
             for block in range(generator.blocks) for index in range(3)}
  plain = {'merge': 'conv_cat', 'last': 'upsampler.0'}
  if generator.fused:
    return plain | {ours: f'{theirs}.eval_conv' for ours, theirs in layers.items()}
  return plain | {f'{ours}/{branch}': f'{theirs}.{part}' for ours, theirs in layers.items()
                  for branch, part in BRANCHES.items()}


def constants(generator: nn.Module) -> dict[str, np.ndarray]:
  """Returns the tensor that marks a network without normalisation of its input."""
  is_normalised = any(getattr(generator, field) != value
                      for field, value in NOT_NORMALISED.items())
  return {} if is_normalised else {'no_norm': np.zeros(1, np.float32)}


def forms(generator: nn.Module) -> tuple[nn.Module, ...]:
  """Returns the two networks whose tensors a file has, the one that is read if it has both first.

  They compute the same.
  """
  return generator.clone(fused=False), generator.clone(fused=True)


def convert(variables: dict[str, Any], form: nn.Module, generator: nn.Module) -> dict[str, Any]:
  """Converts variables of one of the `forms` to those of the other one, `generator`."""
  if form.fused == generator.fused:
    return variables
  return span.fuse(variables) if generator.fused else span.split(variables)
