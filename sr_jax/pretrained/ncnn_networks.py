"""Names the tensors of an ncnn network, whose layers have to be connected as those of ours are.

Which network it is follows from the kinds of its layers, its size from their number and shapes.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sr_jax.errors import InputError
from sr_jax.pretrained import basicsr, span
from sr_jax.pretrained.ncnn_graph import Graph, Layer, evaluate, scalar_of

NETWORKS = 'RRDBNet, SRVGGNetCompact or SPAN'
Weights = dict[str, dict[str, np.ndarray]]  # by the names of layers
Named = tuple[dict[str, np.ndarray], dict[str, Any], int]  # tensors, stated fields, the output


def named_tensors(layers: Sequence[Layer], weights: Weights) -> tuple[
    dict[str, np.ndarray], dict[str, Any]]:
  """Returns the weights by their names and the stated fields, after comparing connections."""
  layers, weights = _restored(layers, weights)
  convolutions = [layer for layer in layers if layer.kind == 'Convolution']
  kinds = {layer.kind for layer in layers}
  if len(convolutions) < 3:
    raise InputError(f'{len(convolutions)} convolutions: not an {NETWORKS}')
  graph, stated = Graph(), {}
  if 'PReLU' in kinds:
    tensors, stated, output = _named_compact(graph, layers, convolutions, weights)
  elif kinds & {'Swish', 'Sigmoid'}:
    tensors, stated, output = _named_span(graph, layers, convolutions, weights)
  else:
    tensors, stated, output = _named_rrdb(graph, layers, convolutions, weights)
  if evaluate(graph, layers) != output:
    raise InputError(f'layer {layers[-1].name} is not the last layer of the network')
  return tensors, stated


def _named_compact(graph: Graph, layers: Sequence[Layer], convolutions: Sequence[Layer],
                   weights: Weights) -> Named:
  slopes, stated = [layer for layer in layers if layer.kind == 'PReLU'], {}
  names = {f'body.{2 * index}': layer for index, layer in enumerate(convolutions)}
  names |= {f'body.{2 * index + 1}': layer for index, layer in enumerate(slopes)}
  tensors = _by_name(names, weights)
  name, fields = basicsr.infer(tensors, {}) or ('', {})
  if name != 'compact' or len(slopes) != len(convolutions) - 1:
    raise InputError(f'{len(convolutions)} convolutions and {len(slopes)} PReLU: not an '
                     'SRVGGNetCompact')
  output = _compact(graph, len(convolutions), fields['scale'])
  if layers[-1].kind == 'Interp' and layers[-1].parameters.get(0) == 3:
    stated = _downscaled(layers[-1], fields['scale'])
    output = graph.node('bicubic', stated['scale'] / fields['scale'], output)
  return tensors, stated, output


def _restored(layers: Sequence[Layer], weights: Weights) -> tuple[list[Layer], Weights]:
  """Returns the layers with those in place of which our own files have convolutions.

  These are the subtraction of a mean, as a 1x1 convolution with the identity, and the folding of
  blocks into channels, as a padding by reflection and a convolution whose stride is its side.
  """
  restored, known, skipped = [], dict(weights), {}
  for position, layer in enumerate(layers):
    get = layer.parameters.get
    following = layers[position + 1] if position + 1 < len(layers) else layer
    if layer.kind == 'Padding':
      side = int(following.parameters.get(1, 0))
      if [int(get(key, 0)) for key in range(5)] != [0, side - 1, 0, side - 1, 2] or not (
          _is_identity(following, weights, side)) or following.inputs != layer.outputs:
        raise InputError(f'layer {layer.name} (Padding) is not that of a folded input')
      skipped[layer.outputs[0]] = layer.inputs[0]
    elif layer.inputs and layer.inputs[0] in skipped:
      restored.append(Layer('Unshuffle', layer.name, [skipped[layer.inputs[0]]], layer.outputs,
                            {0: int(get(1, 0))}))
    elif _is_identity(layer, weights, 1):
      mean = f'{layer.name} mean'
      known[mean] = {'data': -weights[layer.name]['bias']}
      restored += [Layer('MemoryData', mean, [], [mean], {}),
                   Layer('BinaryOp', layer.name, [*layer.inputs, mean], layer.outputs, {0: 1})]
    else:
      restored.append(layer)
  return restored, known


def _is_identity(layer: Layer, weights: Weights, side: int) -> bool:
  """Returns whether a convolution, with its side as its stride, only moves numbers."""
  if layer.kind != 'Convolution' or layer.parameters.get(3, 1) != side:
    return False
  weight = weights[layer.name]['weight']
  return weight.shape[2:] == (side, side) and np.array_equal(
      weight.reshape(len(weight), -1), np.eye(len(weight)))


def _named_rrdb(graph: Graph, layers: Sequence[Layer], convolutions: Sequence[Layer],
                weights: Weights) -> Named:
  start = set()  # blobs of the input
  for layer in layers:
    if layer.kind == 'Input' or (layer.kind == 'Split' and layer.inputs[0] in start):
      start.update(layer.outputs)
  factors = [layer.parameters.get(1) for layer in layers
             if layer.kind == 'Interp' and layer.inputs[0] not in start]
  names = _rrdb_names(len(convolutions), len(factors))
  tensors = _by_name(dict(zip(names, convolutions, strict=True)), weights)
  fold = next((layer.parameters[0] for layer in layers if layer.kind == 'Unshuffle'), 1)
  triples = factors == [3]
  output = _rrdb(graph, (len(convolutions) - 4 - len(factors)) // 15,
                 (3,) if triples else (2,) * len(factors), fold)
  return tensors, {'scale': 3} if triples else {}, output


def _named_span(graph: Graph, layers: Sequence[Layer], convolutions: Sequence[Layer],
                weights: Weights) -> Named:
  blocks, remainder = divmod(len(convolutions) - 4, 3)
  if remainder or blocks < 1:
    raise InputError(f'{len(convolutions)} convolutions: not a SPAN, which has 4 and 3 in each '
                     'block')
  names = ['conv_1.eval_conv', *(f'block_{block + 1}.c{index + 1}_r.eval_conv'
                                 for block in range(blocks) for index in range(3)),
           'conv_2.eval_conv', 'conv_cat', 'upsampler.0']
  tensors = _by_name(dict(zip(names, convolutions, strict=True)), weights)
  _, fields = span.infer(tensors, {})
  stated = _normalisation(layers, convolutions[0], weights)
  return tensors, stated, _span(graph, blocks, fields['scale'], **stated)


def _normalisation(layers: Sequence[Layer], convolution: Layer,
                   weights: Weights) -> dict[str, Any]:
  """Returns the fields `mean` and `image_range` of a SPAN, from what precedes a convolution."""
  stated = dict(span.NOT_NORMALISED)
  for layer in layers[:layers.index(convolution)]:
    if layer.kind == 'MemoryData':
      values = weights[layer.name]['data']
      if values.shape != (3,):
        raise InputError(f'layer {layer.name} has {values.size} values, expected a mean of 3')
      # The shortest decimals that round to these float32: 0.4488, not 0.4487999975681305.
      stated['mean'] = tuple(float(str(value)) for value in values)
    elif layer.kind == 'BinaryOp' and scalar_of(layer, 2) is not None:
      stated['image_range'] = scalar_of(layer, 2)
  return stated


def _downscaled(interp: Layer, inner_scale: int) -> dict[str, int]:
  """Returns the fields of a Compact whose output is resized by the layer `interp`."""
  scale = round(inner_scale * interp.parameters.get(1, 1))
  if not 0 < scale < inner_scale:
    raise InputError(f'layer {interp.name} does not downscale the image')
  return {'inner_scale': inner_scale, 'scale': scale}


def _rrdb_names(convolutions: int, stages: int) -> list[str]:
  """Returns BasicSR's names of an RRDBNet's convolutions, in the order of the layers."""
  blocks, remainder = divmod(convolutions - 4 - stages, 15)
  if remainder or blocks < 1:
    raise InputError(f'{convolutions} convolutions and no PReLU: not an RRDBNet, which with '
                     f'{stages} Interp has {4 + stages} and 15 in each block, and not an '
                     'SRVGGNetCompact with PReLU')
  return ['conv_first', *(f'body.{block}.rdb{dense}.conv{index}' for block in range(blocks)
                          for dense in (1, 2, 3) for index in (1, 2, 3, 4, 5)),
          'conv_body', *(f'conv_up{stage + 1}' for stage in range(stages)), 'conv_hr',
          'conv_last']


def _by_name(names: dict[str, Layer], weights: Weights) -> dict[str, np.ndarray]:
  return {f'{name}.{kind}': array for name, layer in names.items()
          for kind, array in weights[layer.name].items()}


def _compact(graph: Graph, convolutions: int, scale: int) -> int:
  """Enters an SRVGGNetCompact and returns the number of its output."""
  x = graph.node('input')
  for index in range(convolutions - 1):
    x = graph.node('prelu', index + 1, graph.convolution(x))
  x, lr = graph.convolution(x), graph.node('input')
  if scale == 1:
    return graph.add((1, x), (1, lr))
  x = graph.node('shuffle', scale, x)
  return graph.add((1, x), (1, graph.node('nearest', scale, lr)))


def _rrdb(graph: Graph, blocks: int, stages: Sequence[int], fold: int) -> int:
  """Enters an RRDBNet and returns the number of its output."""
  def activated(x: int) -> int:
    return graph.node('leaky', 0.2, graph.convolution(x))

  def dense(x: int) -> int:
    features = [x]
    for _ in range(4):
      features.append(activated(graph.node('concat', *features) if len(features) > 1 else x))
    return graph.add((0.2, graph.convolution(graph.node('concat', *features))), (1, x))

  lr = graph.node('input')
  first = x = graph.convolution(lr if fold == 1 else graph.node('unshuffle', fold, lr))
  for _ in range(blocks):
    x = graph.add((0.2, dense(dense(dense(x)))), (1, x))
  x = graph.add((1, graph.convolution(x)), (1, first))
  for factor in stages:
    x = activated(graph.node('nearest', factor, x))
  x = graph.convolution(activated(x))
  if fold == 1:
    return x
  scale = math.prod(stages) // fold
  return graph.node('crop', x, lr if scale == 1 else graph.node('nearest', scale, lr))


def _span(graph: Graph, blocks: int, scale: int, mean: tuple[float, ...],
          image_range: float) -> int:
  """Enters a SPAN and returns the number of its output."""
  x = graph.node('input')
  if any(mean):
    x = graph.node('minus', x, graph.node('data'))
  if image_range != 1:
    x = graph.node('times', image_range, x)
  first = x = graph.convolution(x)
  outputs = []

  def swish(x: int) -> int:
    graph.node('sigmoid', x)  # some files have it and a product
    return graph.node('swish', x)

  for _ in range(blocks):
    tapped = swish(graph.convolution(x))
    y = graph.convolution(swish(graph.convolution(tapped)))
    gate = graph.node('offset', -0.5, graph.node('sigmoid', y))
    x = graph.product(graph.add((1, y), (1, x)), gate)
    outputs.append(x)
  x = graph.node('concat', first, graph.convolution(x), outputs[0], tapped)
  return graph.node('shuffle', scale, graph.convolution(graph.convolution(x, side=1)))
