"""BasicSR's names for EDSR, MSRResNet, RRDBNet and SRVGGNetCompact; Real-ESRGAN has the same.

Source: https://github.com/XPixelGroup/BasicSR, basicsr/archs.
"""

from typing import NamedTuple

from sr_jax.errors import InputError
from sr_jax.models.edsr import EDSR
from sr_jax.pretrained.shapes import Unstated, convolution, count, folding, shuffled_scale

# EDSR's residual scale is in no tensor; the paper's networks are known by their size.
EDSR_RESIDUAL_SCALES = {(64, 16): 1.0, (256, 32): 0.1}  # (features, blocks)
NETWORKS = {  # what BasicSR has, and which of it
    'edsr': lambda generator: generator.channels == 3,  # its mean has three
    'msrresnet': lambda generator: generator.scale <= 4,
    'rrdb': lambda generator: generator.scale * generator.unshuffle == 4,  # doubles twice, always
    'compact': lambda generator: True}
MOST_STAGES = 4  # of upsampling; a generator has its own number of them


def infer(tensors: dict, told: dict) -> tuple[str, dict] | None:
  """(name in models.GENERATORS, its fields); None where these are other names.

  Args:
    told: fields that somebody has told.
  """
  def any_begins(*beginnings):
    return any(name.startswith(beginnings) for name in tensors)

  if any_begins('body.0.rdb1.'):
    return 'rrdb', infer_rrdb(tensors, LayerNames())
  if any_begins('body.0.conv1.') and any_begins('conv_after_body.', 'upsample.'):
    return 'edsr', _edsr(tensors)
  if any_begins('body.0.conv1.') and any_begins('upconv1.', 'conv_hr.'):
    return 'msrresnet', _msrresnet(tensors)
  if 'body.0.weight' in tensors and 'body.2.weight' in tensors:
    return 'compact', _compact(tensors)
  return None


class LayerNames(NamedTuple):
  """What RRDBNet's layers are called; ESRGAN's later names differ from these in words only."""

  block: str = 'body'
  dense: str = 'rdb'
  body_end: str = 'conv_body'
  stage: str = 'conv_up'
  refinement: str = 'conv_hr'


def infer_rrdb(tensors: dict, words: LayerNames) -> dict:
  """Fields of an RRDB."""
  features, inputs = convolution(tensors, 'conv_first')
  channels, _ = convolution(tensors, 'conv_last')
  growth, _ = convolution(tensors, f'{words.block}.0.{words.dense}1.conv1')
  unshuffle = folding(tensors, 'conv_first', channels, inputs)
  stages = max(count(tensors, rf'{words.stage}(\d+)\.') - 1, 0)  # counted from 1
  return {'features': features, 'blocks': count(tensors, rf'{words.block}\.(\d+)\.'),
          'growth': growth, 'unshuffle': unshuffle, 'scale': nearest_scale(stages, unshuffle),
          'channels': channels}


def nearest_scale(stages: int, unshuffle: int) -> int | Unstated:
  """The scale of an RRDB that repeats pixels in so many stages of a picture folded first.

  Raises:
    InputError: less than the picture's.
  """
  if 2**stages < unshuffle or 2**stages % unshuffle:
    raise InputError(f'its input is folded {unshuffle}x{unshuffle} and enlarged only {stages} '
                     'times by two: tensors of the upsampling are missing')
  scale = 2**stages // unshuffle
  # Repeating pixels three times instead of two leaves no trace; there are few such.
  return Unstated(2) if stages == unshuffle == 1 else scale


def _edsr(tensors: dict) -> dict:
  features, channels = convolution(tensors, 'conv_first')
  blocks = count(tensors, r'body\.(\d+)\.')
  stages = [f'upsample.{index}' for index in range(0, count(tensors, r'upsample\.(\d+)\.'), 2)]
  return {'features': features, 'blocks': blocks, 'channels': channels,
          'scale': shuffled_scale(tensors, stages, features),
          **edsr_unstated(features, blocks)}


def edsr_unstated(features: int, blocks: int) -> dict:
  """Fields of an EDSR that no tensor tells."""
  return {'residual_scale': Unstated(EDSR_RESIDUAL_SCALES.get((features, blocks))),
          'mean': Unstated(EDSR.mean), 'image_range': Unstated(EDSR.image_range)}


def _msrresnet(tensors: dict) -> dict:
  features, channels = convolution(tensors, 'conv_first')
  stages = [f'upconv{index}' for index in range(1, count(tensors, r'upconv(\d+)\.'))]
  return {'features': features, 'blocks': count(tensors, r'body\.(\d+)\.'), 'channels': channels,
          'scale': shuffled_scale(tensors, stages, features)}


def _compact(tensors: dict) -> dict:
  last = count(tensors, r'body\.(\d+)\.') - 1
  features, channels = convolution(tensors, 'body.0')
  outputs, _ = convolution(tensors, f'body.{last}')
  # Convolutions and activations take turns; only PReLU has a tensor.
  activation = 'prelu' if 'body.1.weight' in tensors else Unstated()
  return {'features': features, 'blocks': (last - 2) // 2, 'channels': channels,
          'scale': folding(tensors, f'body.{last}', channels, outputs), 'activation': activation}


def names(name: str, generator) -> dict[str, str]:
  """{our layer: theirs} of a generator, such as {'body_0/Conv_1': 'body.0.conv2'}."""
  if name == 'compact':
    layers = range(generator.blocks + 1)
    found = {f'layers_{index}': f'body.{2 * index}' for index in layers}
    if generator.activation == 'prelu':
      found |= {f'activations_{index}': f'body.{2 * index + 1}' for index in layers}
    return found | {'last': f'body.{2 * len(layers)}'}
  if name == 'rrdb':
    return names_rrdb(generator, LayerNames())
  found = {'head': 'conv_first', 'last': 'conv_last'}
  found |= {f'body_{block}/Conv_{index}': f'body.{block}.conv{index + 1}'
            for block in range(generator.blocks) for index in range(2)}
  if name == 'edsr':
    found |= {f'stages_{stage}/Conv_0': f'upsample.{2 * stage}' for stage in range(MOST_STAGES)}
    return found | {'body_end': 'conv_after_body'}
  found |= {f'stages_{stage}/Conv_0': f'upconv{stage + 1}' for stage in range(MOST_STAGES)}
  return found | {'refinement': 'conv_hr'}


def names_rrdb(generator, words: LayerNames) -> dict[str, str]:
  """As `names`, of an RRDB."""
  found = {f'body_{block}/DenseBlock_{dense}/Conv_{index}':
           f'{words.block}.{block}.{words.dense}{dense + 1}.conv{index + 1}'
           for block in range(generator.blocks) for dense in range(3) for index in range(5)}
  found |= {f'stages_{stage}/Conv_0': f'{words.stage}{stage + 1}' for stage in range(MOST_STAGES)}
  return found | {'head': 'conv_first', 'body_end': words.body_end,
                  'refinement': words.refinement, 'last': 'conv_last'}
