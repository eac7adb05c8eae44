"""Compares the connections between the layers of an ncnn network with those of ours.

A graph numbers expressions, and equal expressions have equal numbers. First the network that the
shapes suggest is entered. Then the layers of the file are evaluated: the first one whose
expression is not in the graph yet is where the file differs from the network.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sr_jax.errors import InputError
from sr_jax.pretrained import basicsr


class Layer(NamedTuple):
  """A line of a `.param`; inputs and outputs are names of blobs."""

  kind: str
  name: str
  inputs: list[str]
  outputs: list[str]
  parameters: dict[int, Any]


class _Graph:
  """Numbers for expressions such as ('concat', x, y), where x and y are numbers again."""

  def __init__(self) -> None:
    self.numbers: dict[tuple, int] = {}
    self.convolutions = 0

  def node(self, *expression: Any) -> int:
    return self.numbers.setdefault(expression, len(self.numbers))

  def convolution(self, x: int) -> int:
    self.convolutions += 1
    return self.node('convolution', self.convolutions, x)

  def add(self, *terms: tuple[float, int]) -> int:
    return self.node('sum', *sorted((round(float(np.float32(factor)), 6), x)
                                    for factor, x in terms))


def named_tensors(layers: Sequence[Layer], weights: dict[str, dict[str, np.ndarray]]) -> tuple[
    dict[str, np.ndarray], dict[str, Any]]:
  """Returns the weights in BasicSR's names and the stated fields, after comparing connections."""
  convolutions = [layer for layer in layers if layer.kind == 'Convolution']
  slopes = [layer for layer in layers if layer.kind == 'PReLU']
  if len(convolutions) < 3:
    raise InputError(f'{len(convolutions)} convolutions: not an RRDBNet or SRVGGNetCompact')
  graph, stated = _Graph(), {}
  if slopes:
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
  else:
    stages = sum(layer.kind == 'Interp' for layer in layers)
    names = _rrdb_names(len(convolutions), stages)
    tensors = _by_name(dict(zip(names, convolutions, strict=True)), weights)
    output = _rrdb(graph, (len(convolutions) - 4 - stages) // 15, stages)
  if _evaluate(graph, layers) != output:
    raise InputError(f'layer {layers[-1].name} is not the last layer of the network')
  return tensors, stated


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


def _by_name(names: dict[str, Layer],
             weights: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
  return {f'{name}.{kind}': array for name, layer in names.items()
          for kind, array in weights[layer.name].items()}


def _compact(graph: _Graph, convolutions: int, scale: int) -> int:
  """Enters an SRVGGNetCompact and returns the number of its output."""
  x = graph.node('input')
  for index in range(convolutions - 1):
    x = graph.node('prelu', index + 1, graph.convolution(x))
  x = graph.node('shuffle', scale, graph.convolution(x))
  return graph.add((1, x), (1, graph.node('nearest', scale, graph.node('input'))))


def _rrdb(graph: _Graph, blocks: int, stages: int) -> int:
  """Enters an RRDBNet and returns the number of its output."""
  def activated(x: int) -> int:
    return graph.node('leaky', 0.2, graph.convolution(x))

  def dense(x: int) -> int:
    features = [x]
    for _ in range(4):
      features.append(activated(graph.node('concat', *features) if len(features) > 1 else x))
    return graph.add((0.2, graph.convolution(graph.node('concat', *features))), (1, x))

  first = x = graph.convolution(graph.node('input'))
  for _ in range(blocks):
    x = graph.add((0.2, dense(dense(dense(x)))), (1, x))
  x = graph.add((1, graph.convolution(x)), (1, first))
  for _ in range(stages):
    x = activated(graph.node('nearest', 2, x))
  return graph.convolution(activated(x))


def _evaluate(graph: _Graph, layers: Sequence[Layer]) -> int:
  """Returns the number of the last layer's output.

  Raises:
    InputError: a layer computes something that is not in the graph; the message names it.
  """
  size, blobs, factors = len(graph.numbers), {}, {}
  graph.convolutions = slopes = 0
  for layer in layers:
    if any(blob not in blobs for blob in layer.inputs):
      raise InputError(f'layer {layer.name} reads a blob that no earlier layer outputs')
    x, get = [blobs[blob] for blob in layer.inputs], layer.parameters.get
    # A multiplication by a scalar is not a node: its factor applies in the sum that must follow.
    input_factors = [factors.get(blob, 1) for blob in layer.inputs]
    factor, output = 1, None
    if layer.kind == 'BinaryOp' and get(0, 0) == 0 and len(x) == 2:
      output = graph.add(*zip(input_factors, x, strict=True))
    elif any(value != 1 for value in input_factors):
      pass
    elif layer.kind == 'BinaryOp' and get(0) == 2 and get(1) == 1:
      output, factor = x[0], get(2, 0)
    elif layer.kind == 'Eltwise' and get(0) == 1:
      output = graph.add(*zip(get(1) or (1,) * len(x), x, strict=True))
    elif layer.kind == 'Input':
      output = graph.node('input')
    elif layer.kind in ('Split', 'Noop'):
      output = x[0]
    elif layer.kind == 'Convolution' and _is_plain(layer):
      output = _activated(graph, graph.convolution(x[0]), get(9, 0), get(10, (0,)))
    elif layer.kind == 'ReLU':
      output = _activated(graph, x[0], 2, (get(0, 0),))
    elif layer.kind == 'PReLU':
      slopes += 1
      output = graph.node('prelu', slopes, x[0])
    elif layer.kind == 'Concat' and get(0, 0) == 0:
      output = graph.node('concat', *x)
    elif layer.kind == 'PixelShuffle' and get(1, 0) == 0:
      output = graph.node('shuffle', get(0, 1), x[0])
    elif layer.kind == 'Interp' and get(0) in (1, 3) and get(1) == get(2):
      output = graph.node('nearest' if get(0) == 1 else 'bicubic', get(1), x[0])
    if output is None or output >= size:
      raise _unexpected(layer)
    for blob in layer.outputs:
      blobs[blob], factors[blob] = output, factor
  if factor != 1:
    raise _unexpected(layers[-1])
  return output


def _unexpected(layer: Layer) -> InputError:
  return InputError(f'layer {layer.name} ({layer.kind}) differs from the network at that place')


def _activated(graph: _Graph, x: int, kind: float, parameters: tuple) -> int | None:
  """Applies ncnn's activation of a kind: 0 is none, 2 a leaky ReLU; other kinds give None."""
  if kind == 0:
    return x
  return graph.node('leaky', round(parameters[0], 6), x) if kind == 2 and parameters else None


def _is_plain(layer: Layer) -> bool:
  """Returns whether a convolution is 3x3 with stride 1 and keeps the image size."""
  get = layer.parameters.get
  pads = {get(key, get(4, 0)) for key in (4, 14, 15, 16)}
  return (get(1), get(11, get(1)), pads) == (3, 3, {1}) and {
      get(key, 1) for key in (2, 3, 12, 13)} == {1}
