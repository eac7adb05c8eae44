"""Reads ncnn's `.param` (layers as text) and `.bin` (their weights).

The networks are RRDBNet, SRVGGNetCompact and SPAN.

Source: https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure and
operation-param-weight-table. The weights in a `.bin` have no names. Which convolution is which
follows from the connections between layers, see ncnn_networks.py.
"""

import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from sr_jax.errors import InputError, brief
from sr_jax.pretrained.ncnn_graph import Layer
from sr_jax.pretrained.ncnn_networks import NETWORKS, named_tensors

MAGIC = 7767517
FLOAT16_FLAG = 0x01306B47  # precedes weights in float16; zero precedes float32
PARAMETERS = {  # layer types and the parameters that are interpreted; all others must be zero
    'Input': {0, 1, 2}, 'Split': set(), 'ReLU': {0}, 'PReLU': {0}, 'Concat': {0},
    'Convolution': {*range(7), *range(9, 17)}, 'Eltwise': {0, 1}, 'BinaryOp': {0, 1, 2},
    'Interp': {0, 1, 2}, 'PixelShuffle': {0, 1}, 'Noop': set(), 'Swish': set(), 'Sigmoid': set(),
    'MemoryData': {0, 1, 2}, 'Padding': {0, 1, 2, 3, 4}, 'Crop': set()}
HINTS = {30, 31}  # of any layer: shapes of its blobs, features that a device may use


def read_ncnn(path: os.PathLike | str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """Reads a pair of files.

  Args:
    path: either of the two; the other one has the same name.

  Returns:
    (tensors in the names of BasicSR, or of the authors of SPAN; fields that only the connections
    determine).

  Raises:
    InputError: one file is missing or damaged, they do not belong together, or the layers are
      not those of one of the networks; the message names the layer.
  """
  param, binary = (pathlib.Path(path).with_suffix(suffix) for suffix in ('.param', '.bin'))
  for file in (param, binary):
    if not file.is_file():
      raise InputError(f'{file}: no such file; an ncnn network consists of a .param and a .bin')
  current = param
  try:
    layers = _read_param(param.read_text(encoding='utf-8'))
    current = binary
    weights = _read_bin(layers, binary.read_bytes())
    current = param
    return named_tensors(layers, weights)
  except InputError as error:
    raise InputError(f'{current}: {brief(error)}') from None
  except (ValueError, TypeError, LookupError, ArithmeticError) as error:
    raise InputError(f'{current}: cannot read as an ncnn file ({brief(error)})') from None


def _read_param(text: str) -> list[Layer]:
  lines = [line.split() for line in text.splitlines() if line.strip()]
  if lines[0] != [str(MAGIC)]:
    raise InputError(f'does not begin with {MAGIC}, the magic number of ncnn\'s text format')
  layers, names = [], set()
  for kind, name, inputs, outputs, *rest in lines[2:]:
    if kind not in PARAMETERS:
      raise InputError(f'layer {name} has the type {kind}, which no {NETWORKS} has')
    inputs, outputs = int(inputs), int(outputs)
    blobs, pairs = rest[:inputs + outputs], rest[inputs + outputs:]
    parameters = {}
    for key, value in (pair.split('=') for pair in pairs):
      if int(key) <= -23300:  # an array: its length, then its values
        parameters[-23300 - int(key)] = tuple(float(number) for number in value.split(',')[1:])
      else:
        parameters[int(key)] = float(value)
    for key in parameters.keys() - PARAMETERS[kind] - HINTS:
      if parameters[key] != 0:
        raise InputError(f'layer {name} ({kind}) has the parameter {key}={parameters[key]}, which '
                         f'no {NETWORKS} has')
    if name in names:
      raise InputError(f'two layers have the name {name}')
    names.add(name)
    layers.append(Layer(kind, name, blobs[:inputs], blobs[inputs:], parameters))
  if len(layers) != int(lines[1][0]):
    raise InputError(f'has {len(layers)} layers, but its second line says {lines[1][0]}')
  return layers


def _read_bin(layers: Sequence[Layer], data: bytes) -> dict[str, dict[str, np.ndarray]]:
  """Returns {layer: {'weight', 'bias'}}; the weights are in the order of the layers."""
  position, weights = 0, {}

  def read(layer: Layer, count: int, dtype: str) -> np.ndarray:
    nonlocal position
    size = count * np.dtype(dtype).itemsize
    if count < 0 or position + size > len(data):
      raise InputError(f'ends within layer {layer.name}, for which its .param declares {count} '
                       'values')
    values = np.frombuffer(data, dtype, count, position)
    position += -(-size // 4) * 4  # padded to four bytes
    return values

  for layer in layers:
    if layer.kind == 'PReLU':
      weights[layer.name] = {'weight': read(layer, int(layer.parameters.get(0, 0)), '<f4')}
    if layer.kind == 'MemoryData':  # width, height and channels; zero is an axis that it lacks
      sides = [int(layer.parameters.get(key, 0)) for key in (0, 1, 2)]
      weights[layer.name] = {'data': read(layer, math.prod(filter(None, sides)), '<f4')}
    if layer.kind != 'Convolution':
      continue
    outputs, side, total = (int(layer.parameters.get(key, 0)) for key in (0, 1, 6))
    if not outputs or not side or not total or total % (outputs * side**2):
      raise InputError(f'layer {layer.name} cannot have {outputs} output channels, kernel size '
                       f'{side} and {total} weights')
    flag = int(read(layer, 1, '<u4')[0])
    if flag not in (0, FLOAT16_FLAG):
      raise InputError(f'layer {layer.name} has weights of type {flag:#010x}; only float32 and '
                       'float16 are supported, not quantised weights')
    weight = read(layer, total, '<f2' if flag else '<f4')
    bias = read(layer, outputs if layer.parameters.get(5) else 0, '<f4')
    if not bias.size:
      raise InputError(f'layer {layer.name} has no bias')
    weights[layer.name] = {'weight': weight.reshape(outputs, -1, side, side), 'bias': bias}
  if position != len(data):
    raise InputError(f'has {len(data) - position} bytes more than the layers of its .param need')
  return weights
