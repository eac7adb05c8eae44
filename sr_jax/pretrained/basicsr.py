"""BasicSR's tensor names for EDSR, MSRResNet, RRDBNet and SRVGGNetCompact; Real-ESRGAN's too.

Source: https://github.com/XPixelGroup/BasicSR, basicsr/archs.
"""

from typing import Any, NamedTuple

from flax import linen as nn

from sr_jax.errors import InputError
from sr_jax.models.edsr import EDSR
from sr_jax.pretrained.shapes import (
    Tensors,
    Unstated,
    conv_channels,
    index_count,
    shuffle_factor,
    shuffle_scale,
    shuffle_stages,
)

# No tensor contains EDSR's residual scale; the networks of the paper are recognised by their size.
EDSR_RESIDUAL_SCALES = {(64, 16): 1.0, (256, 32): 0.1}  # (features, blocks)
NETWORKS = {  # the networks that BasicSR has, and whether it has this configuration of one
    'edsr': lambda generator: generator.channels == 3,  # its mean has three values
    'msrresnet': lambda generator: generator.scale <= 4,
    'rrdb': lambda generator: generator.scale * generator.unshuffle == 4,  # always two stages
    'compact': lambda generator: True}
MAX_STAGES = 4  # of upsampling; names for stages that a generator does not have are not used


def infer(tensors: Tensors, given: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
  """Returns (name in models.GENERATORS, its fields), or None if the names are not BasicSR's.

  Args:
    given: fields that the user or the file's metadata states.
  """
  def has_prefix(*prefixes: str) -> bool:
    return any(name.startswith(prefixes) for name in tensors)

  if has_prefix('body.0.rdb1.'):
    return 'rrdb', infer_rrdb(tensors, LayerNames())
  if has_prefix('body.0.conv1.') and has_prefix('conv_after_body.', 'upsample.'):
    return 'edsr', _edsr(tensors)
  if has_prefix('body.0.conv1.') and has_prefix('upconv1.', 'conv_hr.'):
    return 'msrresnet', _msrresnet(tensors)
  if 'body.0.weight' in tensors and 'body.2.weight' in tensors:
    return 'compact', _compact(tensors)
  return None


class LayerNames(NamedTuple):
  """Names of RRDBNet's layers; ESRGAN's later files have the same layers under other names."""

  block: str = 'body'
  dense: str = 'rdb'
  body_end: str = 'conv_body'
  stage: str = 'conv_up'
  refinement: str = 'conv_hr'


def infer_rrdb(tensors: Tensors, layers: LayerNames) -> dict[str, Any]:
  """Returns the fields of an RRDB."""
  features, inputs = conv_channels(tensors, 'conv_first')
  channels, _ = conv_channels(tensors, 'conv_last')
  growth, _ = conv_channels(tensors, f'{layers.block}.0.{layers.dense}1.conv1')
  unshuffle = shuffle_factor(tensors, 'conv_first', channels, inputs)
  stages = max(index_count(tensors, rf'{layers.stage}(\d+)\.') - 1, 0)  # numbered from 1
  return {'features': features, 'blocks': index_count(tensors, rf'{layers.block}\.(\d+)\.'),
          'growth': growth, 'unshuffle': unshuffle, 'scale': nearest_scale(stages, unshuffle),
          'channels': channels}


def nearest_scale(stages: int, unshuffle: int) -> int | Unstated:
  """Returns the scale of an RRDB with nearest-neighbour upsampling.

  Args:
    stages: the number of upsampling stages.
    unshuffle: the factor by which the input is folded (PixelUnshuffle) before the first layer.

  Raises:
    InputError: the output would be smaller than the input.
  """
  if 2**stages < unshuffle or 2**stages % unshuffle:
    raise InputError(f'its input is pixel-unshuffled by {unshuffle}, but it has only {stages} x2 '
                     'upsampling stages: tensors of the upsampling are missing')
  scale = 2**stages // unshuffle
  # A x3 network also has one stage, and the same tensors as a x2 network; x3 is rare.
  return Unstated(2) if stages == unshuffle == 1 else scale


def _edsr(tensors: Tensors) -> dict[str, Any]:
  features, channels = conv_channels(tensors, 'conv_first')
  blocks = index_count(tensors, r'body\.(\d+)\.')
  return {'features': features, 'blocks': blocks, 'channels': channels,
          'scale': shuffle_scale(tensors, shuffle_stages(tensors), features),
          **edsr_unstated(features, blocks)}


def edsr_unstated(features: int, blocks: int) -> dict[str, Unstated]:
  """Returns the fields of an EDSR that no tensor determines, with the values to assume."""
  return {'residual_scale': Unstated(EDSR_RESIDUAL_SCALES.get((features, blocks))),
          'mean': Unstated(EDSR.mean), 'image_range': Unstated(EDSR.image_range)}


def _msrresnet(tensors: Tensors) -> dict[str, Any]:
  features, channels = conv_channels(tensors, 'conv_first')
  stages = [f'upconv{index}' for index in range(1, index_count(tensors, r'upconv(\d+)\.'))]
  return {'features': features, 'blocks': index_count(tensors, r'body\.(\d+)\.'),
          'channels': channels, 'scale': shuffle_scale(tensors, stages, features)}


def _compact(tensors: Tensors) -> dict[str, Any]:
  last = index_count(tensors, r'body\.(\d+)\.') - 1
  features, channels = conv_channels(tensors, 'body.0')
  outputs, _ = conv_channels(tensors, f'body.{last}')
  # Convolutions and activations alternate, and PReLU is the only activation with a tensor.
  activation = 'prelu' if 'body.1.weight' in tensors else Unstated()
  return {'features': features, 'blocks': (last - 2) // 2, 'channels': channels,
          'scale': shuffle_factor(tensors, f'body.{last}', channels, outputs),
          'activation': activation}


def names(name: str, generator: nn.Module) -> dict[str, str]:
  """Maps our layers to BasicSR's, for example {'body_0/Conv_1': 'body.0.conv2'}.

  Args:
    name: the generator's name in models.GENERATORS.
  """
  if name == 'compact':
    layers = range(generator.blocks + 1)
    mapping = {f'layers_{index}': f'body.{2 * index}' for index in layers}
    if generator.activation == 'prelu':
      mapping |= {f'activations_{index}': f'body.{2 * index + 1}' for index in layers}
    return mapping | {'last': f'body.{2 * len(layers)}'}
  if name == 'rrdb':
    return names_rrdb(generator, LayerNames())
  mapping = {'head': 'conv_first', 'last': 'conv_last'}
  mapping |= {f'body_{block}/Conv_{index}': f'body.{block}.conv{index + 1}'
              for block in range(generator.blocks) for index in range(2)}
  if name == 'edsr':
    mapping |= {f'stages_{stage}/Conv_0': f'upsample.{2 * stage}' for stage in range(MAX_STAGES)}
    return mapping | {'body_end': 'conv_after_body'}
  mapping |= {f'stages_{stage}/Conv_0': f'upconv{stage + 1}' for stage in range(MAX_STAGES)}
  return mapping | {'refinement': 'conv_hr'}


def names_rrdb(generator: nn.Module, layers: LayerNames) -> dict[str, str]:
  """Maps the layers of an RRDB as `names` does, to the given layer names."""
  mapping = {f'body_{block}/DenseBlock_{dense}/Conv_{index}':
             f'{layers.block}.{block}.{layers.dense}{dense + 1}.conv{index + 1}'
             for block in range(generator.blocks) for dense in range(3) for index in range(5)}
  mapping |= {f'stages_{stage}/Conv_0': f'{layers.stage}{stage + 1}'
              for stage in range(MAX_STAGES)}
  return mapping | {'head': 'conv_first', 'body_end': layers.body_end,
                    'refinement': layers.refinement, 'last': 'conv_last'}
