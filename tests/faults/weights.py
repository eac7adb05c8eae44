"""Hostile weight files: safetensors, PyTorch's formats, pairs of ncnn files."""

import functools
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from sr_jax.pretrained.tensors import LEGACY_MAGIC
from tests.faults.mutation import DEEP, VALUES, as_json, changed, mutated, number, pick
from tests.faults.pictures import bomb

SHAPES = ([], [0], [-1], [2**31], [2**62, 2], [0, 2**62], [2**32, 2**32], [1] * 100, [4, 3, 3, 3],
          [3.5], ['4'], [1e300], None, 'x')


@functools.cache
def networks() -> dict[str, dict[str, np.ndarray]]:
  """Returns small networks with the tensor names of BasicSR."""
  rng = np.random.default_rng(0)

  def conv(name: str, outputs: int, inputs: int) -> dict[str, np.ndarray]:
    return {f'{name}.weight': np.float32(rng.normal(0, 0.1, (outputs, inputs, 3, 3))),
            f'{name}.bias': np.float32(rng.normal(0, 0.1, outputs))}

  slope = np.full(4, 0.25, np.float32)
  compact = {**conv('body.0', 4, 3), 'body.1.weight': slope, **conv('body.2', 4, 4),
             'body.3.weight': slope, **conv('body.4', 12, 4)}
  edsr = {**conv('conv_first', 4, 3), **conv('body.0.conv1', 4, 4), **conv('body.0.conv2', 4, 4),
          **conv('conv_after_body', 4, 4), **conv('upsample.0', 16, 4), **conv('conv_last', 3, 4)}
  rrdb = conv('conv_first', 4, 3) | conv('conv_body', 4, 4)
  for dense in (1, 2, 3):
    for index in range(1, 6):
      rrdb |= conv(f'body.0.rdb{dense}.conv{index}', 4 if index == 5 else 2, 4 + 2 * (index - 1))
  for name in ('conv_up1', 'conv_up2', 'conv_hr'):
    rrdb |= conv(name, 4, 4)
  return {'compact': compact, 'edsr': edsr, 'rrdb': rrdb | conv('conv_last', 3, 4)}


# safetensors -------------------------------------------------------------------------------


def safetensors(tensors: dict[str, np.ndarray],
                metadata: Any = None) -> tuple[dict[str, Any], bytes]:
  """Returns (header, data) of a safetensors file."""
  header, buffer = {} if metadata is None else {'__metadata__': metadata}, b''
  for name, tensor in tensors.items():
    data = tensor.tobytes()
    header[name] = {'dtype': 'F32', 'shape': list(tensor.shape),
                    'data_offsets': [len(buffer), len(buffer) + len(data)]}
    buffer += data
  return header, buffer


def make_safetensors(rng: np.random.Generator) -> bytes:
  name = pick(rng, list(networks()))
  stated = {'features': 4, 'blocks': 1, 'scale': 2, 'channels': 3, 'activation': 'prelu'}
  if rng.random() < 0.3:
    stated |= {'name': name, 'names': 'sr_jax'}
  if rng.random() < 0.5:
    stated = changed(rng, stated)
  metadata = {'sr_jax': as_json(rng, stated).decode('utf-8', 'replace')}
  if rng.random() < 0.1:
    metadata = pick(rng, VALUES)
  header, buffer = safetensors(networks()[name], metadata if rng.random() < 0.4 else None)
  text = json.dumps(header).encode()
  kind = int(rng.integers(10))
  some = pick(rng, [key for key in header if key != '__metadata__'])
  if kind == 0:
    header[some]['data_offsets'] = [pick(rng, (0, -1, 5, 2**31, 2**63, 2**64, 1.5, 'x', None))
                                    for _ in range(pick(rng, (2, 2, 2, 1, 3)))]
    text = json.dumps(header).encode()
  elif kind == 1:
    header[some]['shape'] = pick(rng, SHAPES)
    text = json.dumps(header).encode()
  elif kind == 2:  # a consistent file, but not a network's shapes or values
    tensors = dict(networks()[name])
    tensors[some] = np.zeros(pick(rng, ([], [0], [4], [1] * 5, [4, 3, 3, 3], [0, 3, 3, 3],
                                        [1, 1, 3, 3], [64, 4, 1, 1], [4, 3, 3, 5])), np.float32)
    if rng.random() < 0.5:
      tensors[some] = np.full_like(networks()[name][some], pick(rng, (np.nan, np.inf, 3e38)))
    header, buffer = safetensors(tensors)
    text = json.dumps(header).encode()
  elif kind == 3:
    new = some.replace('0', pick(rng, ('9', '999999999', '1' * 20, '-1', 'x')), 1)
    header = {new if key == some else key: value for key, value in header.items()}
    text = json.dumps(header).encode()
  elif kind == 4:
    header[some]['dtype'] = pick(rng, ('F16', 'BF16', 'I64', 'BOOL', 'F8_E4M3', 'F4', 'C64', 'x',
                                       '', None, 3))
    text = json.dumps(header).encode()
  elif kind == 5:
    text = as_json(rng, changed(rng, header))
  elif kind == 6:
    text = text[:-1] + b',' + text[1:]  # duplicate keys
  elif kind == 7:
    text = pick(rng, (b'{"a":' * DEEP, b'{"a":' + b'[' * DEEP, b'{}', b'{"__metadata__":{}}',
                      b'{' + b' ' * 5_000_000))
  elif kind == 8:
    return mutated(rng, struct.pack('<Q', len(text)) + text + buffer, front=pick(rng, (1, 4)))
  length = len(text) if rng.random() < 0.9 else pick(rng, (0, 1, 2**31, 2**62, 2**64 - 1))
  return struct.pack('<Q', length) + text + buffer


# PyTorch -----------------------------------------------------------------------------------


def text(value: str) -> bytes:
  """Returns the opcode that pushes a string."""
  value = value.encode()
  return b'X' + struct.pack('<I', len(value)) + value


def integer(value: int) -> bytes:
  """Returns the opcode that pushes an integer of 32 bits."""
  return b'J' + struct.pack('<i', value)


def tensor_of(key: str, shape: Sequence[int], length: int, offset: int = 0,
              stride: Sequence[int] | None = None, kind: str = 'FloatStorage') -> bytes:
  """Returns opcodes that push a tensor in the storage `key`, which has `length` elements."""
  stride = stride or [int(np.prod(shape[place + 1:])) for place in range(len(shape))]
  return (b'ctorch._utils\n_rebuild_tensor_v2\n((' + text('storage') + b'ctorch\n'
          + kind.encode() + b'\n' + text(key) + text('cpu') + integer(length) + b'tQ'
          + integer(offset)
          + b'(' + b''.join(map(integer, shape)) + b't(' + b''.join(map(integer, stride))
          + b't\x89ccollections\nOrderedDict\n)RtR')


def state_dict(tensors: dict[str, np.ndarray], wrapper: str = '') -> bytes:
  """Returns the pickle of a state dict whose tensors have the storages '0', '1', ..."""
  items = b''.join(text(name) + tensor_of(str(key), tensor.shape, tensor.size)
                   for key, (name, tensor) in enumerate(tensors.items()))
  inside = b'ccollections\nOrderedDict\n)R(' + items + b'u'
  if wrapper:
    inside = b'}(' + text(wrapper) + inside + b'u'
  return b'\x80\x02' + inside + b'.'


# Never in a state dict: calls, integers of a gigabyte, dicts that contain themselves, tuples
# nested deeply.
EVIL = (b'cos\nsystem\n' + text('touch broken_in') + b'\x85R', b'cbuiltins\nexec\n)R',
        text('posix') + text('system') + b'\x93' + text('touch broken_in') + b'\x85R',
        b'cbuiltins\ngetattr\n(ccollections\nOrderedDict\n' + text('update') + b'tR',
        b'\x8b\xff\xff\xff\x7f' + b'1' * 50, b'\x8a\xff' + b'\xff' * 255, b'r\xff\xff\xff\x7f',
        b'j\xff\xff\xff\xff', b'X\xff\xff\xff\xff', b'B\xff\xff\xff\xff', b'T\xff\xff\xff\x7f',
        b'\x8d' + b'\xff' * 7 + b'\x7f', b'\x95' + b'\xff' * 8, b'i__main__\nx\n', b'(', b't', b'e',
        b'}q\0h\0h\0s', b']q\0h\0a', b')' + b'\x85' * 50_000, b'(' * 50_000, b'0' * 10, b'R', b'Q',
        b'b', b'2', b'.', b'u', b')Q', b'}(K\1K\2', b'ctorch\nload\n', b'csys\nexit\n)R')
REPEATED = (b'(', b')0', b'}', b')' + b'\x85', b'N', b'K\1', b']', b'q\0')  # opcodes to repeat


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w') as archive:
    for name, data in members.items():
      archive.writestr(name, data, compression)
  return buffer.getvalue()


def members_of(tensors: dict[str, np.ndarray], pickle: bytes) -> dict[str, bytes]:
  """Returns the members of a .pth in PyTorch's zip format."""
  return {'archive/data.pkl': pickle, 'archive/version': b'3\n', **{
      f'archive/data/{key}': tensor.tobytes() for key, tensor in enumerate(tensors.values())}}


def legacy(tensors: dict[str, np.ndarray], pickle: bytes) -> bytes:
  """Returns a .pth in the format before PyTorch 1.6."""
  def long(value: int) -> bytes:
    return b'\x8a' + bytes([10]) + value.to_bytes(10, 'little')

  keys = b'\x80\x02](' + b''.join(text(str(key)) for key in range(len(tensors))) + b'e.'
  return (b'\x80\x02' + long(LEGACY_MAGIC) + b'.' + b'\x80\x02M\xe9\x03.' + b'\x80\x02}.' + pickle
          + keys + b''.join(struct.pack('<q', tensor.size) + tensor.tobytes()
                            for tensor in tensors.values()))


def make_pth(rng: np.random.Generator) -> bytes:
  tensors = networks()[pick(rng, list(networks()))]
  pickle, kind = state_dict(tensors, pick(rng, ('', 'params', 'state_dict'))), int(rng.integers(11))
  if kind > 8:  # values that are not weights, or another wrapper
    tensors = {name: np.full_like(tensor, pick(rng, (0, np.nan, 3e38)))
               for name, tensor in tensors.items()}
    pickle = state_dict(tensors, pick(rng, ('', 'params_ema', 'x', 'module')))
  elif kind < 5:
    pickle = _hostile_pickle(rng, pickle, kind)
  members = members_of(tensors, pickle)
  if rng.random() < 0.35:
    data = legacy(tensors, pickle[:5_000_000])
    return mutated(rng, data, front=pick(rng, (1, 3))) if 5 < kind < 9 else data
  if kind == 4:
    return zipped(members, zipfile.ZIP_DEFLATED)
  return _hostile_zip(rng, members, kind) if 4 < kind < 9 else zipped(members)


def _hostile_pickle(rng: np.random.Generator, pickle: bytes, kind: int) -> bytes:
  if kind == 0:
    at = pick(rng, (2, len(pickle) - 1, int(rng.integers(2, len(pickle)))))
    return pickle[:at] + pick(rng, EVIL) + pickle[at:]
  if kind in (1, 2):
    return mutated(rng, pickle)
  if kind == 3:  # shapes, strides, offsets and lengths
    shape = [pick(rng, (0, 1, 4, -1, 2**31 - 1)) for _ in range(pick(rng, (0, 1, 2, 4, 65)))]
    stride = [pick(rng, (0, 1, -1, 2**31 - 1)) for _ in shape]
    new = tensor_of('0', shape, pick(rng, (4, 0, -1, 108, 2**31 - 1)), pick(rng, (0, 1, -1, 2**30)),
                    stride, pick(rng, ('FloatStorage', 'DoubleStorage', 'BoolStorage', 'Storage')))
    return pickle[:-2] + text('a') + new + pickle[-2:]
  return b'\x80\x02' + pick(rng, REPEATED) * pick(rng, (1000, 50_000, 300_000, 30_000_000)) + b'.'


def _hostile_zip(rng: np.random.Generator, members: dict[str, bytes], kind: int) -> bytes:
  if kind == 5:
    old = pick(rng, list(members))
    new = pick(rng, ('../../broken_in', '/tmp/broken_in', 'archive/../../x/data.pkl', 'data.pkl',
                     'b/data.pkl', 'archive/data/0', 'archive/data/x', 'C:\\x', '/'))
    return zipped({new if name == old else name: member for name, member in members.items()})
  data = zipped(members)
  if kind == 6:  # a wrong value in the last or the first entry of the directory
    at = data.rfind(b'PK\1\2') if rng.random() < 0.5 else data.find(b'PK\1\2')
    at += pick(rng, (8, 10, 16, 20, 24, 28, 30, 32, 42))
    return data[:at] + number(rng, 4, 'little') + data[at + 4:]
  if kind == 7:
    packed = zipped(members | {pick(rng, list(members)): b'?' * 1000}, zipfile.ZIP_DEFLATED)
    data = _zip_bomb(rng)
    return data if rng.random() < 0.7 else packed
  return mutated(rng, data, front=pick(rng, (1, 0.3)))


def _zip_bomb(rng: np.random.Generator) -> bytes:
  """Returns a zip file with one member that inflates to 256 MiB, or claims another size."""
  compressed = bomb()[2:-4]  # without zlib's header and checksum, which a zip does not have
  name = pick(rng, (b'archive/data.pkl', b'archive/data/0'))
  head = struct.pack('<HHHHHIIIHH', 20, 0, 8, 0, 0, zlib.crc32(b''), len(compressed),
                     pick(rng, (1 << 28, 100, 4 * 108)), len(name), 0)
  directory = b'PK\1\2' + struct.pack('<H', 20) + head + bytes(14) + name
  end = struct.pack('<HHHHIIH', 0, 0, 1, 1, 46 + len(name), 30 + len(name) + len(compressed), 0)
  return b'PK\3\4' + head + name + compressed + directory + b'PK\5\6' + end


# ncnn --------------------------------------------------------------------------------------


@functools.cache
def ncnn() -> tuple[str, bytes]:
  """Returns the .param and .bin of a Compact of scale 2."""
  tensors, x, binary = networks()['compact'], 'data', b''
  lines = ['Input in 0 1 data']

  def add(kind: str, inputs: list[str], parameters: str) -> str:
    output = f'blob{len(lines)}'
    lines.append(f'{kind} {kind}_{len(lines)} {len(inputs)} 1 {" ".join(inputs)} {output} '
                 + parameters)
    return output

  for index in (0, 2, 4):
    weight, bias = tensors[f'body.{index}.weight'], tensors[f'body.{index}.bias']
    x = add('Convolution', [x], f'0={len(bias)} 1=3 4=1 5=1 6={weight.size}')
    binary += bytes(4) + weight.tobytes() + bias.tobytes()
    if index < 4:
      x = add('PReLU', [x], '0=4')
      binary += tensors[f'body.{index + 1}.weight'].tobytes()
  x = add('PixelShuffle', [x], '0=2')
  y = add('Interp', ['data'], '0=1 1=2.0 2=2.0')
  add('BinaryOp', [x, y], '0=0')
  return '\n'.join(['7767517', f'{len(lines)} {len(lines) + 1}', *lines]) + '\n', binary


def make_ncnn(rng: np.random.Generator) -> dict[str, bytes]:
  param, binary = ncnn()
  words = ('0', '-1', '1', '99999999999', '1e308', 'nan', 'inf', '-inf', '0=99999999', '6=-4',
           '1=1e300', '-23300=3,1,2', '-23310=', '=', '0=', 'x=1', '0=1=2', '0=0x10', 'é',
           '1' * 5000, 'a' * 100_000, 'Convolution', 'Input', 'PReLU', 'Concat', 'Noop', 'data',
           'blob1', '0=1e400', '5=0', '9=2', '7767517', '\x1b[2J')
  lines = [line.split() for line in param.splitlines()]
  for _ in range(int(rng.integers(0, 3))):
    line = pick(rng, lines[pick(rng, (0, 1, 2)):])
    kind, at = int(rng.integers(5)), int(rng.integers(len(line) + 1))
    if kind == 0:
      line.insert(at, pick(rng, words))
    elif kind == 1 and at < len(line) > 1:
      del line[at]
    elif kind == 2:
      lines.insert(int(rng.integers(1, len(lines))), list(line))
    elif kind == 3 and len(lines) > 3:
      lines.remove(line)
    elif at < len(line):
      key, sign, _ = line[at].partition('=')
      new = pick(rng, words)
      line[at] = key + sign + new if sign and '=' not in new else new
    lines = lines or [['x']]
  data = '\n'.join(map(' '.join, lines)).encode()
  if rng.random() < 0.15:
    data = mutated(rng, data)
  if rng.random() < 0.4:
    kind = int(rng.integers(4))
    if kind == 0:
      binary = binary[:int(rng.integers(len(binary)))]
    elif kind == 1:
      binary = number(rng, 4, 'little') + binary[4:]
    elif kind == 2:
      binary = mutated(rng, binary)
    else:
      binary += rng.bytes(int(rng.integers(1, 9)))
  return {'net.param': data, 'net.bin': binary}
