"""Writes a `Graph` as an ONNX file."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_jax.errors import InputError
from sr_jax.pretrained.export.graph import Graph, Node
from sr_jax.system import files

if TYPE_CHECKING:
  import onnx

OPSET, IR_VERSION = 17, 8  # of 2022, which all runtimes of docs/export.md have
INPUT, OUTPUT = 'input', 'output'
UNARY = {'relu': 'Relu', 'sigmoid': 'Sigmoid', 'tanh': 'Tanh', 'softplus': 'Softplus'}
BINARY = {'add': 'Add', 'sub': 'Sub', 'mul': 'Mul', 'div': 'Div'}
# ONNX's coordinates, modes and coefficients of a cubic kernel for the methods of `resize`.
RESIZES = {'nearest': {'mode': 'nearest', 'nearest_mode': 'floor',
                       'coordinate_transformation_mode': 'asymmetric'},
           'bilinear': {'mode': 'linear', 'coordinate_transformation_mode': 'half_pixel'},
           'bicubic': {'mode': 'cubic', 'cubic_coeff_a': -0.5,
                       'coordinate_transformation_mode': 'half_pixel'},
           'bicubic_0.75': {'mode': 'cubic', 'cubic_coeff_a': -0.75,
                            'coordinate_transformation_mode': 'half_pixel'}}


def import_onnx() -> Any:
  """Returns the package onnx.

  Raises:
    InputError: it is not installed.
  """
  try:
    import onnx
  except ImportError:
    raise InputError('ONNX files need the package onnx: pip install onnx') from None
  return onnx


def write_onnx(path: os.PathLike | str, graph: Graph, scale: int, half: bool,
               metadata: Mapping[str, str]) -> int:
  """Writes an ONNX file atomically and returns its number of nodes.

  Its input 'input' is float32 [batch, channels, height, width] in [0, 1], its output 'output' has
  `scale` times these sides.

  Args:
    half: whether weights are stored, and layers computed, in float16.
    metadata: texts in the file.
  """
  onnx = import_onnx()
  model = Writer(onnx, half).model(graph, scale, metadata)
  onnx.checker.check_model(model, full_check=True)
  with files.atomic_write(path) as temporary:
    temporary.write_bytes(model.SerializeToString())
  return len(model.graph.node)


class Writer:
  """Collects the nodes and weights of an ONNX graph."""

  def __init__(self, onnx: Any, half: bool) -> None:
    self.onnx, self.half, self.nodes, self.weights = onnx, half, [], {}
    self.layer = ''

  def model(self, graph: Graph, scale: int, metadata: Mapping[str, str]) -> 'onnx.ModelProto':
    helper, types = self.onnx.helper, self.onnx.TensorProto
    names = []
    for index, node in enumerate(graph.nodes):
      self.layer = f'{node.layer.replace("/", ".") or node.kind}.{index}'
      names.append(self.node(node, [names[at] for at in node.inputs]))
    last = self.op('Cast', names[-1], to=types.FLOAT) if self.half else names[-1]
    for node in self.nodes:
      node.output[:] = [OUTPUT if name == last else name for name in node.output]
      node.input[:] = [OUTPUT if name == last else name for name in node.input]
    channels = graph.nodes[0].values['channels']
    body = helper.make_graph(
        self.nodes, 'sr_jax',
        [helper.make_tensor_value_info(INPUT, types.FLOAT, ['batch', channels, 'height', 'width'])],
        [helper.make_tensor_value_info(OUTPUT, types.FLOAT, ['batch', channels] + [
            side if scale == 1 else f'{scale} * {side}' for side in ('height', 'width')])],
        [self.onnx.numpy_helper.from_array(array, name) for name, array in self.weights.items()])
    model = helper.make_model(body, producer_name='sr_jax', ir_version=IR_VERSION,
                              opset_imports=[helper.make_opsetid('', OPSET)])
    helper.set_model_props(model, dict(metadata))
    return model

  def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
    """Adds an ONNX node with one output and returns the output's name."""
    name = f'{self.layer}.{len(self.nodes)}'
    self.nodes.append(self.onnx.helper.make_node(kind, inputs, [name], name, **attributes))
    return name

  def constant(self, value: Any, kind: str = 'float') -> str:
    """Adds a weight, or integers for kind 'int64', and returns its name."""
    array = np.asarray(value, np.int64 if kind == 'int64' else np.float32)
    if self.half and kind == 'float':
      with np.errstate(over='ignore'):
        array = np.float16(array)
    if array.dtype.kind == 'f' and not np.isfinite(array).all():
      raise InputError(f'layer {self.layer} has non-finite weights (NaN/Inf)'
                       + ' in float16' * self.half)
    for name, known in self.weights.items():
      if array.size < 64 and known.dtype == array.dtype and np.array_equal(known, array):
        return name
    name = f'{self.layer}.weight{len(self.weights)}'
    self.weights[name] = array
    return name

  def node(self, node: Node, x: list[str]) -> str:
    """Adds the ONNX nodes of a node and returns the name of the result."""
    values = node.values
    if node.kind in UNARY:
      return self.op(UNARY[node.kind], *x)
    if node.kind in BINARY:
      return self.op(BINARY[node.kind], *x)
    if node.kind in ('offset', 'times'):
      value = values['value']
      value = np.reshape(value, (-1, 1, 1)) if np.ndim(value) else value
      return self.op('Add' if node.kind == 'offset' else 'Mul', *x, self.constant(value))
    return getattr(self, f'write_{node.kind}')(*x, **values)

  def write_input(self, channels: int) -> str:
    return self.op('Cast', INPUT, to=self.onnx.TensorProto.FLOAT16) if self.half else INPUT

  def write_conv(self, x: str, *, weight: np.ndarray, bias: np.ndarray | None,
                 strides: tuple[int, int], dilation: tuple[int, int], groups: int,
                 pads: tuple[int, ...]) -> str:
    weights = [self.constant(array) for array in (weight, bias) if array is not None]
    return self.op('Conv', x, *weights, strides=strides, dilations=dilation, group=groups,
                   pads=pads, kernel_shape=weight.shape[2:])

  def write_leaky(self, x: str, *, slope: float) -> str:
    return self.op('LeakyRelu', x, alpha=slope)

  def write_prelu(self, x: str, *, slope: np.ndarray) -> str:
    return self.op('PRelu', x, self.constant(slope.reshape(-1, 1, 1)))

  def write_erfc(self, x: str) -> str:
    return self.op('Sub', self.constant(1), self.op('Erf', x))

  def write_silu(self, x: str) -> str:
    return self.op('Mul', x, self.op('Sigmoid', x))

  def write_gelu(self, x: str) -> str:
    """x / 2 * (1 + erf(x / sqrt 2)), in the order that ONNX Runtime fuses into one kernel."""
    y = self.op('Erf', self.op('Div', x, self.constant(np.sqrt(2))))
    y = self.op('Mul', x, self.op('Add', y, self.constant(1)))
    return self.op('Mul', y, self.constant(0.5))

  def write_gelu_tanh(self, x: str) -> str:
    cube = self.op('Mul', self.op('Mul', self.op('Mul', x, x), x), self.constant(0.044715))
    y = self.op('Mul', self.op('Add', x, cube), self.constant(np.sqrt(2 / np.pi)))
    y = self.op('Mul', x, self.op('Add', self.op('Tanh', y), self.constant(1)))
    return self.op('Mul', y, self.constant(0.5))

  def write_mish(self, x: str) -> str:
    return self.op('Mul', x, self.op('Tanh', self.op('Softplus', x)))

  def write_concat(self, *x: str) -> str:
    return self.op('Concat', *x, axis=1)

  def write_channels(self, x: str, *, start: int, stop: int) -> str:
    return self.op('Slice', x, *(self.constant([value], 'int64') for value in (start, stop, 1)))

  def write_shuffle(self, x: str, *, factor: int) -> str:
    return self.op('DepthToSpace', x, blocksize=factor, mode='CRD')

  def write_unshuffle(self, x: str, *, factor: int, channels: int) -> str:
    """Pads by one pixel less than a block and gathers whole blocks, by a convolution of zeros."""
    x = self.write_pad(x, mode='reflect', pads=(0, 0, factor - 1, factor - 1))
    weight = np.eye(factor**2).reshape(-1, 1, factor, factor)
    return self.write_conv(x, weight=np.tile(weight, (channels, 1, 1, 1)), bias=None,
                           strides=(factor, factor), dilation=(1, 1), groups=channels,
                           pads=(0, 0, 0, 0))

  def write_resize(self, x: str, *, method: str, scale: tuple[float, float]) -> str:
    scales = self.onnx.numpy_helper.from_array(np.float32([1, 1, *scale]))
    name = f'{self.layer}.scales'
    self.weights[name] = self.onnx.numpy_helper.to_array(scales)
    return self.op('Resize', x, '', name, **RESIZES[method])

  def write_pad(self, x: str, *, mode: str, pads: tuple[int, ...]) -> str:
    top, left, bottom, right = pads
    pads = self.constant([0, 0, top, left, 0, 0, bottom, right], 'int64')
    return self.op('Pad', x, pads, mode=mode)

  def write_crop(self, x: str, *, scale: int) -> str:
    shape = self.op('Shape', INPUT, start=2, end=4)
    ends = self.op('Mul', shape, self.constant([scale], 'int64')) if scale != 1 else shape
    return self.op('Slice', x, self.constant([0, 0], 'int64'), ends, self.constant([2, 3], 'int64'))

  def write_group_norm(self, x: str, *, groups: int, epsilon: float, scale: np.ndarray,
                       bias: np.ndarray) -> str:
    y = self.op('Reshape', x, self.constant([0, groups, -1], 'int64'))
    y = self.op('InstanceNormalization', y, self.constant(np.ones(groups)),
                self.constant(np.zeros(groups)), epsilon=epsilon)
    y = self.op('Mul', self.op('Reshape', y, self.op('Shape', x)),
                self.constant(scale.reshape(-1, 1, 1)))
    return self.op('Add', y, self.constant(bias.reshape(-1, 1, 1)))

  def write_layer_norm(self, x: str, *, epsilon: float, scale: np.ndarray,
                       bias: np.ndarray) -> str:
    y = self.op('LayerNormalization', self.op('Transpose', x, perm=[0, 2, 3, 1]),
                self.constant(scale), self.constant(bias), epsilon=epsilon, axis=-1)
    return self.op('Transpose', y, perm=[0, 3, 1, 2])
