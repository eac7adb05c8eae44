"""Builds a `Graph` of nodes from arrays whose pixels may be moved or resampled."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from sr_jax.errors import InputError
from sr_jax.pretrained.export import movements
from sr_jax.pretrained.export.graph import Graph


@dataclasses.dataclass
class Moved:
  """An array whose elements are those of a node's image, in the places that `index` says.

  None is the image itself.
  """

  node: int
  index: np.ndarray | None = None


@dataclasses.dataclass
class Resampled:
  """The product of a matrix [after, before] and a node's image along an axis, its axes reordered.

  `resized` is its node, once there is one.
  """

  node: int
  axis: int
  matrix: np.ndarray
  order: tuple[int, ...]
  resized: int | None = None


@dataclasses.dataclass
class Compared:
  """x >= 0 or x > 0 for a node x."""

  node: int


class Builder:
  """Adds nodes; values are arrays of NumPy or of one of the classes above.

  Attributes:
    size: height and width of the network's input.
    graph: the nodes so far.
    shapes: [B, h, w, C] of each node.
    layer: path of the layer that is translated.
    greedy: whether moved pixels are recognised after each operation.
  """

  def __init__(self, size: tuple[int, int]) -> None:
    self.size, self.graph, self.shapes = size, Graph(), []
    self.layer, self.greedy = '', True
    self.functions: dict[str, tuple[str, dict[str, Any]] | None] = {}
    self.result_shape: tuple[int, ...] = ()  # of the equation that is translated

  def refused(self, what: str) -> InputError:
    where = f'layer {self.layer}' if self.layer else 'the network'  # outside of its layers
    return InputError(f'{where} has {what}, which cannot be exported')

  def add(self, kind: str, *inputs: int, shape: tuple[int, ...] | None = None,
          **values: Any) -> int:
    """Adds a node and returns its number; `shape` is [B, h, w, C], by default the input's."""
    node = self.graph.add(kind, *inputs, layer=self.layer, **values)
    if node == len(self.shapes):  # and not an earlier one
      self.shapes.append(self.shapes[inputs[0]] if shape is None else shape)
    return node

  def image(self, node: int) -> Moved:
    return Moved(node)

  def resolve(self, value: Any) -> int:
    """Returns the node whose image a value is."""
    if isinstance(value, Resampled) and value.order == (0, 1, 2, 3):
      if value.resized is None:
        found = movements.recognise_resize(value.matrix)
        value.resized = self.resized(value, *found) if found else None
      if value.resized is not None:
        return value.resized
    if isinstance(value, Moved) and value.index is None:
      return value.node
    raise self.refused('an array that is no image or whose pixels are moved in an unknown way')

  def moved(self, value: Any) -> Moved:
    """Returns a value with its index."""
    if isinstance(value, Moved) and value.index is not None:
      return value
    node = self.resolve(value)
    return Moved(node, movements.numbered(self.shapes[node]))

  def recognised(self, value: Moved) -> Moved:
    """Returns the image of a new node if the movement is one of those of nodes, else the value."""
    found = self.greedy and movements.recognise(value.index, self.shapes[value.node], self.size)
    if not found:
      return value
    kind, values = found
    if kind == 'nothing':
      return Moved(value.node)
    source, shape = value.node, value.index.shape
    if kind == 'resize':
      return self.image(self.resize(source, values['method'], values['scale'], shape))
    if kind == 'channels':
      part = self.part(source, **values)
      if part is not None:
        return Moved(part)
    if kind == 'unshuffle':
      source = self.before_padding(source, values['factor'])
      values = values | {'channels': self.shapes[source][3]}
    return self.image(self.add(kind, source, shape=shape, **values))

  def part(self, source: int, start: int, stop: int) -> int | None:
    """Returns the node that a concatenation has as these channels, or None."""
    if self.graph.nodes[source].kind == 'concat':
      at = 0
      for part in self.graph.nodes[source].inputs:
        if (at, at + self.shapes[part][3]) == (start, stop):
          return part
        at += self.shapes[part][3]
    return None

  def before_padding(self, source: int, factor: int) -> int:
    """Returns what was padded to multiples of `factor` before a folding of blocks."""
    node = self.graph.nodes[source]
    if node.kind == 'pad' and node.values['mode'] == 'reflect':
      h, w = self.shapes[node.inputs[0]][1:3]
      if node.values['pads'] == (0, 0, -h % factor, -w % factor):
        return node.inputs[0]
    raise self.refused('an unshuffle of an image that is not padded by layers.fold')

  def resized(self, value: Resampled, method: str, scale: float) -> int:
    shape = list(self.shapes[value.node])
    shape[value.axis] = len(value.matrix)
    scales = (scale, 1) if value.axis == 1 else (1, scale)
    return self.resize(value.node, method, scales, tuple(shape))

  def resize(self, source: int, method: str, scale: tuple[float, float],
             shape: tuple[int, ...]) -> int:
    """Adds a resizing; that of rows after that of columns, or the reverse, becomes one node."""
    node = self.graph.nodes[source]
    if node.kind == 'resize' and node.values['method'] == method:
      old = node.values['scale']
      if (old[0] == 1) != (scale[0] == 1) and (old[1] == 1) != (scale[1] == 1):
        source, scale = node.inputs[0], (old[0] * scale[0], old[1] * scale[1])
    return self.add('resize', source, shape=shape, method=method, scale=scale)

  def reordered(self, value: Resampled, permutation: Sequence[int]) -> Resampled | Moved:
    order = tuple(value.order[axis] for axis in permutation)
    value = dataclasses.replace(value, order=order)
    return self.image(self.resolve(value)) if order == (0, 1, 2, 3) else value
