"""Writes a `Graph` as ncnn's `.param` (layers as text) and `.bin` (their weights).

Source: https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure and
operation-param-weight-table. Only layers are written that programs with a reduced ncnn have, see
UPSCAYL, as far as there are such; what happens channel by channel is a 1x1 convolution there.
"""

import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from sr_jax.errors import InputError
from sr_jax.images.resizing import taps
from sr_jax.pretrained.export.graph import Graph, Node
from sr_jax.pretrained.export.movements import plain_conv
from sr_jax.pretrained.ncnn import FLOAT16_FLAG, MAGIC
from sr_jax.pretrained.ncnn_graph import Layer
from sr_jax.system import files

INPUT, OUTPUT = 'data', 'output'
# The layers that Upscayl's ncnn is built with (src/CMakeLists.txt of upscayl-ncnn) and that are
# written; realesrgan-ncnn-vulkan lacks Sigmoid of these.
UPSCAYL = ('Input', 'Split', 'Concat', 'Convolution', 'Crop', 'Eltwise', 'ReLU', 'PReLU',
           'BinaryOp', 'Padding', 'Interp', 'PixelShuffle', 'Sigmoid')
UPSCAYL_SCALES = (2, 3, 4)
BINARY = {'add': 0, 'sub': 1, 'mul': 2, 'div': 3}
PLAIN = {'sigmoid': 'Sigmoid', 'mish': 'Mish', 'softplus': 'Softplus', 'relu': 'ReLU'}
PADDINGS = {'constant': 0, 'edge': 1, 'reflect': 2}


def check_name(path: pathlib.Path, scale: int) -> None:
  """Checks that Upscayl reads a network's scale from the name of its file.

  Source: common/check-model-scale.ts of Upscayl.

  Raises:
    InputError: it reads another scale.
  """
  name = path.stem.lower()
  read = 2 if re.search('x2|2x', name) else 3 if re.search('x3|3x', name) else 4
  if scale in UPSCAYL_SCALES and read != scale:
    raise InputError(f'{path}: Upscayl would read scale {read} from this name, and the network has '
                     f'scale {scale}; use a name with x{scale} and no other scale')


def write_ncnn(path: os.PathLike | str, graph: Graph, half: bool) -> list[str]:
  """Writes a pair of files, each atomically, the `.param` last.

  The input blob is 'data', RGB or grey in [0, 1], the output blob 'output'.

  Args:
    path: of the `.param`.
    half: whether the weights of convolutions are stored in float16. What ncnn computes in is
      chosen where the file is used.

  Returns:
    The kinds of layers that are not in UPSCAYL.

  Raises:
    InputError: ncnn has no layer for a node; the message has its name.
  """
  path = files.expand(path)
  writer = Writer(lowered(graph), half)
  layers = with_splits(writer.layers)
  blobs = {name for layer in layers for name in layer.outputs}
  text = '\n'.join([str(MAGIC), f'{len(layers)} {len(blobs)}', *map(_line, layers)]) + '\n'
  with files.atomic_write(path.with_suffix('.bin')) as temporary:
    temporary.write_bytes(b''.join(writer.binary))
  try:
    files.write_text(path.with_suffix('.param'), text)
  except BaseException:
    path.with_suffix('.bin').unlink(missing_ok=True)
    raise
  return sorted({layer.kind for layer in layers} - set(UPSCAYL))


def lowered(graph: Graph) -> Graph:
  """Returns the graph in kinds of nodes that ncnn has, as far as it has others for them."""
  result, number = Graph(), {}
  for index, node in enumerate(graph.nodes):
    inputs, values, layer = [number[at] for at in node.inputs], node.values, node.layer
    x = inputs[0] if inputs else 0
    if node.kind == 'tanh':  # 2 * sigmoid(2 * x) - 1
      x = result.add('times', x, layer=layer, value=2.0)
      x = result.add('times', result.add('sigmoid', x, layer=layer), layer=layer, value=2.0)
      number[index] = result.add('offset', x, layer=layer, value=-1.0)
    elif node.kind == 'silu':
      gate = result.add('sigmoid', x, layer=layer)
      number[index] = result.add('mul', x, gate, layer=layer)
    elif node.kind in ('offset', 'times') and np.ndim(values['value']):
      value = np.float32(values['value'])
      diagonal = np.eye(len(value), dtype=np.float32)
      number[index] = result.add('conv', x, layer=layer, **(plain_conv(
          diagonal[:, :, None, None], value) if node.kind == 'offset' else plain_conv(
              (diagonal * value)[:, :, None, None], None)))
    elif node.kind == 'unshuffle':
      f, channels = values['factor'], values['channels']
      x = result.add('pad', x, layer=layer, mode='reflect', pads=(0, 0, f - 1, f - 1))
      weight = np.eye(channels * f**2, dtype=np.float32).reshape(-1, channels, f, f)
      number[index] = result.add('conv', x, layer=layer, **plain_conv(weight, None, f))
    elif node.kind == 'resize' and values['method'] == 'bicubic':
      number[index] = _bicubic(result, x, layer, values['scale'], graph.nodes[0].values['channels'])
    elif node.kind == 'crop':
      reference = result.add('resize', 0, layer=layer, method='nearest',
                             scale=(values['scale'],) * 2) if values['scale'] != 1 else 0
      number[index] = result.add('crop', x, reference, layer=layer)
    else:
      number[index] = result.add(node.kind, *inputs, layer=layer, **values)
  return result.pruned(number[len(graph.nodes) - 1])


def _bicubic(graph: Graph, x: int, layer: str, scale: tuple[float, float], channels: int) -> int:
  """Adds MATLAB's bicubic, for which ncnn has another kernel: a convolution and a PixelShuffle."""
  factor, = {int(side) for side in scale}
  indices, weights = taps(9, factor, 'bicubic')
  rows = np.zeros((factor, 5))
  for phase, (index, weight) in enumerate(zip(indices[4 * factor:5 * factor],
                                              weights[4 * factor:5 * factor], strict=True)):
    used = weight != 0
    np.add.at(rows[phase], index[used] - 2, weight[used])
  filters = np.einsum('ik,jl->ijkl', rows, rows).reshape(-1, 5, 5)
  weight = np.einsum('ab,nkl->anbkl', np.eye(channels), filters)
  x = graph.add('pad', x, layer=layer, mode='edge', pads=(2, 2, 2, 2))
  x = graph.add('conv', x, layer=layer, **plain_conv(
      np.float32(weight.reshape(-1, channels, 5, 5)), None))
  return graph.add('shuffle', x, layer=layer, factor=factor)


def with_splits(layers: Sequence[Layer]) -> list[Layer]:
  """Returns the layers with a Split after each blob that several read, which ncnn demands."""
  uses = {}
  for layer in layers:
    for blob in layer.inputs:
      uses[blob] = uses.get(blob, 0) + 1
  result, taken = [], {}
  for layer in layers:
    inputs = []
    for blob in layer.inputs:
      taken[blob] = taken.get(blob, -1) + 1
      inputs.append(f'{blob}_{taken[blob]}' if uses[blob] > 1 else blob)
    result.append(layer._replace(inputs=inputs))
    for blob in layer.outputs:
      if uses.get(blob, 0) > 1:
        parts = [f'{blob}_{part}' for part in range(uses[blob])]
        result.append(Layer('Split', f'split_{blob}', [blob], parts, {}))
  return result


def _line(layer: Layer) -> str:
  def text(value: Any) -> str:
    if isinstance(value, tuple):
      return ','.join([str(len(value)), *map(text, value)])
    if isinstance(value, float):
      return np.format_float_scientific(np.float32(value), trim='0')
    return str(value)

  parameters = [f'{-23300 - key if isinstance(value, tuple) else key}={text(value)}'
                for key, value in layer.parameters.items()]
  return ' '.join([layer.kind, layer.name, str(len(layer.inputs)), str(len(layer.outputs)),
                   *layer.inputs, *layer.outputs, *parameters])


class Writer:
  """Collects the layers and weights of an ncnn network."""

  def __init__(self, graph: Graph, half: bool) -> None:
    self.graph, self.half, self.users = graph, half, graph.users()
    self.layers, self.binary, self.blobs = [], [], {}
    self.merged: set[int] = set()  # nodes that are parameters of other layers
    for index, node in enumerate(graph.nodes):
      if index not in self.merged:
        getattr(self, f'write_{node.kind}', self.write_other)(index, node, **node.values)
    last = self.blobs[len(graph.nodes) - 1]
    if last == INPUT:
      raise InputError('a network that returns its input cannot be exported to ncnn')
    self.layers = [layer._replace(outputs=[OUTPUT if blob == last else blob
                                           for blob in layer.outputs]) for layer in self.layers]

  def layer(self, kind: str, index: int, inputs: Sequence[int], **parameters: Any) -> None:
    """Adds a layer for a node; parameters have names such as _0."""
    name = re.sub(r'[^\w.]', '.', self.graph.nodes[index].layer) or kind
    self.blobs[index] = f'blob{index}' if inputs else INPUT
    self.layers.append(Layer(
        kind, f'{name}.{index}', [self.blobs[at] for at in inputs], [self.blobs[index]],
        {int(key[1:]): value for key, value in parameters.items()}))

  def follower(self, index: int, *kinds: str) -> Node | None:
    """Returns the only reader of a node, to be part of its layer, if it is of one of the kinds."""
    users = self.users[index]
    if len(users) == 1 and self.graph.nodes[users[0]].kind in kinds:
      return self.graph.nodes[users[0]]
    return None

  def write_input(self, index: int, node: Node, **_: Any) -> None:
    self.layer('Input', index, ())

  def write_conv(self, index: int, node: Node, *, weight: np.ndarray, bias: np.ndarray | None,
                 strides: tuple[int, int], dilation: tuple[int, int], groups: int,
                 pads: tuple[int, ...]) -> None:
    sides, (top, left, bottom, right) = weight.shape[2:], pads
    parameters = {'_0': len(weight), '_1': sides[1], '_2': dilation[1], '_3': strides[1],
                  '_4': left, '_5': 1, '_6': weight.size}
    both = {'_11': (sides[0], sides[1]), '_12': dilation, '_13': strides, '_14': (top, left),
            '_15': (right, left), '_16': (bottom, left)}
    parameters |= {key: values[0] for key, values in both.items() if values[0] != values[1]}
    parameters = {key: value for key, value in parameters.items()
                  if (key, value) not in (('_2', 1), ('_3', 1), ('_4', 0))}
    activation = self.follower(index, 'relu', 'leaky')
    if activation:
      slope = activation.values.get('slope')
      parameters |= {'_9': 1} if slope is None else {'_9': 2, '_10': (float(slope),)}
    kind = 'Convolution' if groups == 1 else 'ConvolutionDepthWise'
    self.layer(kind, index, node.inputs, **parameters, **({'_7': groups} if groups > 1 else {}))
    self.weights(node, weight, flag=True)
    self.weights(node, np.zeros(len(weight)) if bias is None else bias)
    if activation:
      user, = self.users[index]
      self.merged.add(user)
      self.blobs[user] = self.blobs[index]

  def weights(self, node: Node, array: np.ndarray, flag: bool = False) -> None:
    """Appends weights to the `.bin`; those with a flag may be in float16."""
    half = flag and self.half
    with np.errstate(over='ignore'):
      array = np.asarray(array, '<f2' if half else '<f4')
    if not np.isfinite(array).all():
      raise InputError(f'layer {node.layer or node.kind} has non-finite weights (NaN/Inf)'
                       + ' in float16' * half)
    if flag:
      self.binary.append((FLOAT16_FLAG if half else 0).to_bytes(4, 'little'))
    data = array.tobytes()
    self.binary.append(data + b'\0' * (-len(data) % 4))

  def write_times(self, index: int, node: Node, *, value: float) -> None:
    if self.follower(index, 'add'):  # one layer computes a + value * b
      user, = self.users[index]
      if len(set(self.graph.nodes[user].inputs)) == 2:
        return
    self.layer('BinaryOp', index, node.inputs, _0=2, _1=1, _2=value)

  def write_offset(self, index: int, node: Node, *, value: float) -> None:
    self.layer('BinaryOp', index, node.inputs, _0=int(value < 0), _1=1, _2=abs(value))

  def write_add(self, index: int, node: Node) -> None:
    factors = [1.0 if at in self.blobs else self.graph.nodes[at].values['value']
               for at in node.inputs]
    if factors == [1.0, 1.0]:
      self.layer('BinaryOp', index, node.inputs, _0=0)
      return
    inputs = [at if at in self.blobs else self.graph.nodes[at].inputs[0] for at in node.inputs]
    self.layer('Eltwise', index, inputs, _0=1, _1=tuple(map(float, factors)))

  def write_leaky(self, index: int, node: Node, *, slope: float) -> None:
    self.layer('ReLU', index, node.inputs, _0=float(slope))

  def write_prelu(self, index: int, node: Node, *, slope: np.ndarray) -> None:
    self.layer('PReLU', index, node.inputs, _0=slope.size)
    self.weights(node, slope)

  def write_gelu(self, index: int, node: Node) -> None:
    self.layer('GELU', index, node.inputs)

  def write_gelu_tanh(self, index: int, node: Node) -> None:
    self.layer('GELU', index, node.inputs, _0=1)

  def write_concat(self, index: int, node: Node) -> None:
    self.layer('Concat', index, node.inputs, _0=0)

  def write_channels(self, index: int, node: Node, *, start: int, stop: int) -> None:
    self.layer('Crop', index, node.inputs, _9=(start,), _10=(stop,), _11=(0,))

  def write_shuffle(self, index: int, node: Node, *, factor: int) -> None:
    self.layer('PixelShuffle', index, node.inputs, _0=factor)

  def write_resize(self, index: int, node: Node, *, method: str,
                   scale: tuple[float, float]) -> None:
    kind = {'nearest': 1, 'bilinear': 2, 'bicubic_0.75': 3}[method]
    self.layer('Interp', index, node.inputs, _0=kind, _1=float(scale[0]), _2=float(scale[1]))

  def write_pad(self, index: int, node: Node, *, mode: str, pads: tuple[int, ...]) -> None:
    top, left, bottom, right = pads
    self.layer('Padding', index, node.inputs, _0=top, _1=bottom, _2=left, _3=right,
               _4=PADDINGS[mode])

  def write_crop(self, index: int, node: Node) -> None:
    self.layer('Crop', index, node.inputs)

  def write_group_norm(self, index: int, node: Node, *, groups: int, epsilon: float,
                       scale: np.ndarray, bias: np.ndarray) -> None:
    self.layer('GroupNorm', index, node.inputs, _0=groups, _1=scale.size, _2=float(epsilon), _3=1)
    self.weights(node, scale)
    self.weights(node, bias)

  def write_other(self, index: int, node: Node, **values: Any) -> None:
    if node.kind in BINARY:
      self.layer('BinaryOp', index, node.inputs, _0=BINARY[node.kind])
    elif node.kind in PLAIN:
      self.layer(PLAIN[node.kind], index, node.inputs)
    else:
      raise InputError(f'layer {node.layer or node.kind} ({node.kind}) cannot be exported to ncnn, '
                       'which has no such layer; ONNX has')
