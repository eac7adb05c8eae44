"""A network as a small graph of layers on images, from which files of other runtimes are written.

Images are [B, C, H, W]. A layer's size depends on that of its input alone, so that one graph serves
images of any size. Kinds of nodes, with their attributes:

  input: channels.
  conv: weight [O, C / groups, k, l], bias [O] or None; strides, dilation (rows, columns), groups,
    pads (top, left, bottom, right) of zeros.
  add, sub, mul, div: of two images. concat: of several, along channels.
  offset, times: x + value and x * value, a number or [C].
  relu, sigmoid, tanh, erfc, silu, gelu (exact), gelu_tanh, mish, softplus; leaky: slope, a number;
    prelu: slope [C].
  channels: x[start:stop] of the channels.
  shuffle: PixelShuffle by `factor`. unshuffle: its inverse, after a padding of the image by
    reflection at the bottom and right to multiples of `factor`; channels, before it.
  resize: method 'nearest', 'bilinear', 'bicubic' (a = -0.5) or 'bicubic_0.75' (a = -0.75, without
    antialiasing), scale (of rows, of columns).
  pad: mode 'constant' (zeros), 'edge' or 'reflect'; pads (top, left, bottom, right).
  crop: the top left part of the sides of the network's input times `scale`.
  group_norm: groups, epsilon, scale [C], bias [C]. layer_norm: over channels; epsilon, scale, bias.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass
class Node:
  """A layer; `inputs` are indices of earlier nodes, `layer` is its path in the generator."""

  kind: str
  inputs: tuple[int, ...]
  values: dict[str, Any]
  layer: str = ''


class Graph:
  """Nodes in the order of their computation; the last one is the output."""

  def __init__(self, nodes: Sequence[Node] = ()) -> None:
    self.nodes = list(nodes)

  def add(self, kind: str, *inputs: int, layer: str = '', **values: Any) -> int:
    """Appends a node and returns its index; for what changes nothing, that of an earlier one."""
    if kind in ('offset', 'times') and np.ndim(values['value']) == 0:
      source, value = self.nodes[inputs[0]], values['value']
      if source.kind == kind and np.ndim(source.values['value']) == 0:
        before = source.values['value']
        value, inputs = before + value if kind == 'offset' else before * value, source.inputs
      if abs(value - float(kind == 'times')) < 1e-6:
        return inputs[0]
      values['value'] = value
    self.nodes.append(Node(kind, inputs, values, layer))
    return len(self.nodes) - 1

  def users(self) -> list[list[int]]:
    """Returns for each node the indices of the nodes that read it, one for each time."""
    users = [[] for _ in self.nodes]
    for index, node in enumerate(self.nodes):
      for source in node.inputs:
        users[source].append(index)
    return users

  def pruned(self, output: int) -> 'Graph':
    """Returns the graph of the nodes that `output`, which becomes the last one, depends on."""
    needed, waiting = {0}, [output]
    while waiting:
      index = waiting.pop()
      if index not in needed:
        needed.add(index)
        waiting += self.nodes[index].inputs
    order = sorted(needed - {output}) + [output]
    number = {index: position for position, index in enumerate(order)}
    return Graph([dataclasses.replace(node, inputs=tuple(number[at] for at in node.inputs))
                  for node in (self.nodes[index] for index in order)])


def differing(a: Graph, b: Graph) -> Node | None:
  """Returns the first node of `a` that is not the same layer in `b`, or None."""
  for node, other in zip(a.nodes, b.nodes, strict=False):
    if (node.kind, node.inputs, node.values.keys()) != (
        other.kind, other.inputs, other.values.keys()) or not all(
            np.array_equal(value, other.values[key]) for key, value in node.values.items()):
      return node
  return None if len(a.nodes) == len(b.nodes) else a.nodes[-1]


def simplified(graph: Graph) -> Graph:
  """Folds what follows a convolution channel by channel (a bias, a BatchNorm) into its weights."""
  nodes = [dataclasses.replace(node) for node in graph.nodes]
  replaced: dict[int, int] = {}
  users = graph.users()
  for index, node in enumerate(nodes):
    node.inputs = tuple(replaced.get(at, at) for at in node.inputs)
    if node.kind not in ('offset', 'times') or np.ndim(node.values['value']) != 1:
      continue
    source = nodes[node.inputs[0]]
    if source.kind == 'conv' and len(users[graph.nodes[index].inputs[0]]) == 1:
      source.values = _folded(source.values, node)
      replaced[index] = node.inputs[0]
  for node in nodes:
    if node.kind == 'conv':
      node.values = node.values | {
          key: None if node.values[key] is None else np.float32(node.values[key])
          for key in ('weight', 'bias')}
  output = len(nodes) - 1
  return Graph(nodes).pruned(replaced.get(output, output))


def _folded(values: Mapping[str, Any], node: Node) -> dict[str, Any]:
  """Returns the values of a convolution, in float64, with an `offset` or `times` after it."""
  weight, bias, value = values['weight'], values['bias'], np.float64(node.values['value'])
  if node.kind == 'offset':
    return {**values, 'bias': value if bias is None else np.float64(bias) + value}
  return {**values, 'weight': np.float64(weight) * value[:, None, None, None],
          'bias': None if bias is None else np.float64(bias) * value}
