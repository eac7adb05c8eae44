"""ncnn's `.param` (layers as text) and `.bin` (their numbers) of RRDBNet and SRVGGNetCompact.

Source: https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure and
operation-param-weight-table. The numbers carry no names: which convolution is which is told
by the wiring, so it is compared with the network's, layer by layer.
"""

import pathlib
from typing import Any, NamedTuple

import numpy as np

from sr_jax.errors import InputError, brief
from sr_jax.pretrained import basicsr

MAGIC = 7767517
HALF = 0x01306B47  # the flag before weights in float16; zero is before float32
READ = {  # kinds of layers and the parameters that are looked at; others must be zero
    'Input': {0, 1, 2}, 'Split': set(), 'ReLU': {0}, 'PReLU': {0}, 'Concat': {0},
    'Convolution': {*range(7), *range(9, 17)}, 'Eltwise': {0, 1}, 'BinaryOp': {0, 1, 2},
    'Interp': {0, 1, 2}, 'PixelShuffle': {0, 1}, 'Noop': set()}
HINTS = {30, 31}  # any layer's: shapes of its blobs, features that a device may use


class Layer(NamedTuple):
  kind: str
  name: str
  inputs: list[str]
  outputs: list[str]
  parameters: dict[int, Any]


def read_ncnn(path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """(tensors in BasicSR's names, fields that only the wiring tells) of a pair of files.

  Args:
    path: either of the two; the other one has the same name.

  Raises:
    InputError: one is missing or damaged, they do not belong together, or the layers are
      not those of an RRDBNet or SRVGGNetCompact; the message names the layer.
  """
  param, binary = (pathlib.Path(path).with_suffix(suffix) for suffix in ('.param', '.bin'))
  for file in (param, binary):
    if not file.is_file():
      raise InputError(f'{file}: no such file; an ncnn network is a .param and a .bin')
  at = param
  try:
    layers = _read_param(param.read_text(encoding='utf-8'))
    at = binary
    numbers = _read_bin(layers, binary.read_bytes())
    at = param
    return _named(layers, numbers)
  except InputError as error:
    raise InputError(f'{at}: {brief(error)}') from None
  except (ValueError, TypeError, LookupError, ArithmeticError) as error:
    raise InputError(f'{at}: not readable as ncnn\'s ({brief(error)})') from None


def _read_param(text: str) -> list[Layer]:
  lines = [line.split() for line in text.splitlines() if line.strip()]
  if lines[0] != [str(MAGIC)]:
    raise InputError(f'does not begin with {MAGIC}, as ncnn\'s text format does')
  layers, names = [], set()
  for kind, name, inputs, outputs, *rest in lines[2:]:
    if kind not in READ:
      raise InputError(f'layer {name} is a {kind}, which no RRDBNet or SRVGGNetCompact has')
    inputs, outputs = int(inputs), int(outputs)
    blobs, pairs = rest[:inputs + outputs], rest[inputs + outputs:]
    parameters = {}
    for key, value in (pair.split('=') for pair in pairs):
      if int(key) <= -23300:  # an array: its length, then its values
        parameters[-23300 - int(key)] = tuple(float(number) for number in value.split(',')[1:])
      else:
        parameters[int(key)] = float(value)
    for key in parameters.keys() - READ[kind] - HINTS:
      if parameters[key] != 0:
        raise InputError(f'layer {name} ({kind}) has the parameter {key}={parameters[key]}, which '
                         'no RRDBNet or SRVGGNetCompact has')
    if name in names:
      raise InputError(f'two layers are called {name}')
    names.add(name)
    layers.append(Layer(kind, name, blobs[:inputs], blobs[inputs:], parameters))
  if len(layers) != int(lines[1][0]):
    raise InputError(f'has {len(layers)} layers and announces {lines[1][0]}')
  return layers


def _read_bin(layers: list[Layer], data: bytes) -> dict[str, dict[str, np.ndarray]]:
  """{layer: {'weight', 'bias'}} of those that have numbers, in the order of the layers."""
  at, found = 0, {}

  def take(layer, count, dtype):
    nonlocal at
    size = count * np.dtype(dtype).itemsize
    if count < 0 or at + size > len(data):
      raise InputError(f'ends within layer {layer.name}, which has {count} numbers by its .param')
    numbers = np.frombuffer(data, dtype, count, at)
    at += -(-size // 4) * 4  # padded to four bytes
    return numbers

  for layer in layers:
    if layer.kind == 'PReLU':
      found[layer.name] = {'weight': take(layer, int(layer.parameters.get(0, 0)), '<f4')}
    if layer.kind != 'Convolution':
      continue
    outputs, side, total = (int(layer.parameters.get(key, 0)) for key in (0, 1, 6))
    if not outputs or not side or not total or total % (outputs * side**2):
      raise InputError(f'layer {layer.name} has {outputs} outputs, side {side} and {total} weights')
    flag = int(take(layer, 1, '<u4')[0])
    if flag not in (0, HALF):
      raise InputError(f'layer {layer.name} has weights of type {flag:#010x}; float32 and float16 '
                       'are read, quantised ones are not')
    weight = take(layer, total, '<f2' if flag else '<f4')
    bias = take(layer, outputs if layer.parameters.get(5) else 0, '<f4')
    if not bias.size:
      raise InputError(f'layer {layer.name} has no bias')
    found[layer.name] = {'weight': weight.reshape(outputs, -1, side, side), 'bias': bias}
  if at != len(data):
    raise InputError(f'has {len(data) - at} bytes more than the layers of its .param')
  return found


# The wiring --------------------------------------------------------------------------------
#
# Every blob gets the number of what it is computed from, the same number for the same thing.
# First the network that the shapes suggest is written down so, then the file is followed: a
# layer that makes something that the network does not is the place where they differ.


class _Graph:

  def __init__(self):
    self.known: dict[tuple, int] = {}
    self.convolutions = 0

  def node(self, *expression) -> int:
    return self.known.setdefault(expression, len(self.known))

  def convolution(self, x: int) -> int:
    self.convolutions += 1
    return self.node('convolution', self.convolutions, x)

  def add(self, *terms: tuple[float, int]) -> int:
    return self.node('sum', *sorted((round(float(np.float32(factor)), 6), x)
                                    for factor, x in terms))


def _named(layers: list[Layer], numbers: dict) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """The numbers under BasicSR's names, after comparing the wiring."""
  convolutions = [layer for layer in layers if layer.kind == 'Convolution']
  slopes = [layer for layer in layers if layer.kind == 'PReLU']
  if len(convolutions) < 3:
    raise InputError(f'{len(convolutions)} convolutions: no RRDBNet or SRVGGNetCompact')
  last = layers[-1]
  graph, given = _Graph(), {}
  if slopes:
    words = {f'body.{2 * index}': layer for index, layer in enumerate(convolutions)}
    words |= {f'body.{2 * index + 1}': layer for index, layer in enumerate(slopes)}
    tensors = _under(words, numbers)
    name, fields = basicsr.infer(tensors, {}) or ('', {})
    if name != 'compact' or len(slopes) != len(convolutions) - 1:
      raise InputError(f'{len(convolutions)} convolutions and {len(slopes)} PReLU: no '
                       'SRVGGNetCompact')
    output = _compact(graph, len(convolutions), fields['scale'])
    if last.kind == 'Interp' and last.parameters.get(0) == 3:
      given = {'inner_scale': fields['scale'],
               'scale': round(fields['scale'] * last.parameters.get(1, 1))}
      if not 0 < given['scale'] < fields['scale']:
        raise InputError(f'layer {last.name} does not make the picture smaller')
      output = graph.node('bicubic', given['scale'] / fields['scale'], output)
  else:
    stages = sum(layer.kind == 'Interp' for layer in layers)
    blocks, rest = divmod(len(convolutions) - 4 - stages, 15)
    if rest or blocks < 1:
      raise InputError(f'{len(convolutions)} convolutions and no PReLU: no RRDBNet, which with '
                       f'{stages} Interp has {4 + stages} and 15 in each block, and no '
                       'SRVGGNetCompact with PReLU')
    words = ['conv_first', *(f'body.{block}.rdb{dense}.conv{index}' for block in range(blocks)
                             for dense in (1, 2, 3) for index in (1, 2, 3, 4, 5)),
             'conv_body', *(f'conv_up{stage + 1}' for stage in range(stages)), 'conv_hr',
             'conv_last']
    tensors = _under(dict(zip(words, convolutions, strict=True)), numbers)
    output = _rrdb(graph, blocks, stages)
  if _follow(graph, layers) != output:
    raise InputError(f'layer {last.name} is not what the network ends with')
  return tensors, given


def _under(words: dict[str, Layer], numbers: dict) -> dict[str, np.ndarray]:
  return {f'{word}.{key}': value for word, layer in words.items()
          for key, value in numbers[layer.name].items()}


def _compact(graph: _Graph, convolutions: int, scale: int) -> int:
  x = graph.node('input')
  for index in range(convolutions - 1):
    x = graph.node('prelu', index + 1, graph.convolution(x))
  x = graph.node('shuffle', scale, graph.convolution(x))
  return graph.add((1, x), (1, graph.node('nearest', scale, graph.node('input'))))


def _rrdb(graph: _Graph, blocks: int, stages: int) -> int:
  def activated(x):
    return graph.node('leaky', 0.2, graph.convolution(x))

  def dense(x):
    known = [x]
    for _ in range(4):
      known.append(activated(graph.node('concat', *known) if len(known) > 1 else x))
    return graph.add((0.2, graph.convolution(graph.node('concat', *known))), (1, x))

  first = x = graph.convolution(graph.node('input'))
  for _ in range(blocks):
    x = graph.add((0.2, dense(dense(dense(x)))), (1, x))
  x = graph.add((1, graph.convolution(x)), (1, first))
  for _ in range(stages):
    x = activated(graph.node('nearest', 2, x))
  return graph.convolution(activated(x))


def _follow(graph: _Graph, layers: list[Layer]) -> int:
  """The number of the last layer's output.

  Raises:
    InputError: a layer makes something else than the network written down, and which.
  """
  allowed, blobs, factors = len(graph.known), {}, {}
  graph.convolutions = slopes = 0
  for layer in layers:
    if any(blob not in blobs for blob in layer.inputs):
      raise InputError(f'layer {layer.name} reads a blob that no layer before it makes')
    x, get = [blobs[blob] for blob in layer.inputs], layer.parameters.get
    # What a scalar was multiplied with is waiting for a sum, the only place for factors.
    scaled = [factors.get(blob, 1) for blob in layer.inputs]
    factor, made = 1, None
    if layer.kind == 'BinaryOp' and get(0, 0) == 0 and len(x) == 2:
      made = graph.add(*zip(scaled, x, strict=True))
    elif any(value != 1 for value in scaled):
      pass
    elif layer.kind == 'BinaryOp' and get(0) == 2 and get(1) == 1:
      made, factor = x[0], get(2, 0)
    elif layer.kind == 'Eltwise' and get(0) == 1:
      made = graph.add(*zip(get(1) or (1,) * len(x), x, strict=True))
    elif layer.kind == 'Input':
      made = graph.node('input')
    elif layer.kind in ('Split', 'Noop'):
      made = x[0]
    elif layer.kind == 'Convolution' and _is_plain(layer):
      made = _activated(graph, graph.convolution(x[0]), get(9, 0), get(10, (0,)))
    elif layer.kind == 'ReLU':
      made = _activated(graph, x[0], 2, (get(0, 0),))
    elif layer.kind == 'PReLU':
      slopes += 1
      made = graph.node('prelu', slopes, x[0])
    elif layer.kind == 'Concat' and get(0, 0) == 0:
      made = graph.node('concat', *x)
    elif layer.kind == 'PixelShuffle' and get(1, 0) == 0:
      made = graph.node('shuffle', get(0, 1), x[0])
    elif layer.kind == 'Interp' and get(0) in (1, 3) and get(1) == get(2):
      made = graph.node('nearest' if get(0) == 1 else 'bicubic', get(1), x[0])
    if made is None or made >= allowed:
      raise InputError(f'layer {layer.name} ({layer.kind}) is not what the network has there')
    for blob in layer.outputs:
      blobs[blob], factors[blob] = made, factor
  if factor != 1:
    raise InputError(f'layer {layers[-1].name} ({layers[-1].kind}) is not what the network has '
                     'there')
  return made


def _activated(graph: _Graph, x: int, kind: float, parameters: tuple) -> int | None:
  """x itself (kind 0) or with a leaky ReLU (2); ncnn's other kinds are in no network here."""
  if kind == 0:
    return x
  return graph.node('leaky', round(parameters[0], 6), x) if kind == 2 and parameters else None


def _is_plain(layer: Layer) -> bool:
  """A 3x3 convolution of stride 1 that keeps the size."""
  get = layer.parameters.get
  pads = {get(key, get(4, 0)) for key in (4, 14, 15, 16)}
  return (get(1), get(11, get(1)), pads) == (3, 3, {1}) and {
      get(key, 1) for key in (2, 3, 12, 13)} == {1}
