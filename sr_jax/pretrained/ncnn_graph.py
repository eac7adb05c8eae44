"""Evaluates the layers of an ncnn network as expressions, for comparison with those of ours.

A graph numbers expressions, and equal expressions have equal numbers. First the network that the
shapes suggest is entered (ncnn_networks.py). Then the layers of the file are evaluated: the first
one whose expression is not in the graph yet is where the file differs from the network.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sr_jax.errors import InputError


class Layer(NamedTuple):
  """A line of a `.param`; inputs and outputs are names of blobs."""

  kind: str
  name: str
  inputs: list[str]
  outputs: list[str]
  parameters: dict[int, Any]


class Graph:
  """Numbers for expressions such as ('concat', x, y), where x and y are numbers again."""

  def __init__(self) -> None:
    self.numbers: dict[tuple, int] = {}
    self.convolutions = 0

  def node(self, *expression: Any) -> int:
    return self.numbers.setdefault(expression, len(self.numbers))

  def convolution(self, x: int, side: int = 3) -> int:
    self.convolutions += 1
    return self.node('convolution', side, self.convolutions, x)

  def add(self, *terms: tuple[float, int]) -> int:
    return self.node('sum', *sorted((round(float(np.float32(factor)), 6), x)
                                    for factor, x in terms))

  def product(self, *factors: int) -> int:
    return self.node('product', *sorted(factors))


def evaluate(graph: Graph, layers: Sequence[Layer]) -> int:
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
    elif layer.kind == 'BinaryOp':
      output, factor = _binary(graph, layer, x)
    elif layer.kind == 'Eltwise' and get(0) == 1:
      output = graph.add(*zip(get(1) or (1,) * len(x), x, strict=True))
    elif layer.kind == 'Input':
      output = graph.node('input')
    elif layer.kind in ('Split', 'Noop'):
      output = x[0]
    elif layer.kind == 'Unshuffle':
      output = graph.node('unshuffle', get(0), x[0])
    elif layer.kind == 'Crop' and len(x) == 2:
      output = graph.node('crop', *x)
    elif layer.kind == 'MemoryData':
      output = graph.node('data')
    elif layer.kind in ('Swish', 'Sigmoid'):
      output = graph.node(layer.kind.lower(), x[0])
    elif layer.kind == 'Convolution' and _plain_side(layer):
      output = _activated(graph, graph.convolution(x[0], _plain_side(layer)), get(9, 0),
                          get(10, (0,)))
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


def _activated(graph: Graph, x: int, kind: float, parameters: tuple) -> int | None:
  """Applies ncnn's activation of a kind: 0 is none, 2 a leaky ReLU; other kinds give None."""
  if kind == 0:
    return x
  return graph.node('leaky', round(parameters[0], 6), x) if kind == 2 and parameters else None


def _binary(graph: Graph, layer: Layer, x: Sequence[int]) -> tuple[int | None, float]:
  """Returns (number of a BinaryOp's output, a factor by which it is to be multiplied)."""
  minus, times = scalar_of(layer, 1), scalar_of(layer, 2)
  if minus is not None:
    return graph.node('offset', -minus, x[0]), 1
  if times is not None:
    known = graph.numbers.get(('times', times, x[0]))
    return (x[0], times) if known is None else (known, 1)
  if len(x) == 2 and layer.parameters.get(0) in (1, 2):
    if layer.parameters[0] == 1:
      return graph.node('minus', *x), 1
    for y, gate in (x, x[::-1]):
      if graph.numbers.get(('sigmoid', y)) == gate:
        return graph.node('swish', y), 1
    return graph.product(*x), 1
  return None, 1


def scalar_of(layer: Layer, operation: int) -> float | None:
  """Returns the number in a BinaryOp that subtracts one (1) or multiplies by one (2), or None."""
  get = layer.parameters.get
  return get(2, 0) if (get(0, 0), get(1, 0)) == (operation, 1) and len(layer.inputs) == 1 else None


def _plain_side(layer: Layer) -> int | None:
  """Returns the kernel size of a convolution with stride 1 that keeps the image size, or None.

  It is 3, or 1 in a SPAN.
  """
  get, side = layer.parameters.get, int(layer.parameters.get(1, 0))
  pads = {get(key, get(4, 0)) for key in (4, 14, 15, 16)}
  keeps = side in (1, 3) and (get(11, side), pads) == (side, {side // 2})
  return side if keeps and {get(key, 1) for key in (2, 3, 12, 13)} == {1} else None
