"""Tensors by name from `.safetensors` and PyTorch `.pth` files.

A `.pth` is a pickle, and a pickle is a program. This reader looks at its opcodes first,
resolves a dozen names that a state dict needs and refuses all others, so that a file from
the internet can at worst be rejected.
"""

import io
import math
import pathlib
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors
from safetensors.numpy import load_file

from sr_jax.errors import InputError

STORAGES = {'FloatStorage': np.float32, 'DoubleStorage': np.float64, 'HalfStorage': np.float16,
            'BFloat16Storage': ml_dtypes.bfloat16, 'LongStorage': np.int64,
            'IntStorage': np.int32, 'ShortStorage': np.int16, 'CharStorage': np.int8,
            'ByteStorage': np.uint8, 'BoolStorage': np.bool_}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LARGEST_PICKLE = 64 << 20  # a state dict's pickle holds names and shapes, not numbers
# Trainers keep the state dict under one of these, the averaged weights first.
WRAPPERS = ('params_ema', 'params', 'state_dict')


def read_tensors(path, prefix: str = '',
                 wrapper: str = '') -> tuple[dict[str, np.ndarray], dict[str, str]]:
  """Reads the tensors whose names start with `prefix`, without running the file.

  Args:
    path: `.safetensors`, or `.pth`/`.pt` in PyTorch's zip format or the one before it.
    wrapper: the key of a `.pth` whose dict is meant; '' takes tensors at the top or else the
      first of WRAPPERS that is there. A 'module.' before every name is taken off.

  Returns:
    (tensors by name, metadata): a safetensors file's own text metadata; of a `.pth`, the
    'wrapper' that was opened, if any.

  Raises:
    InputError: missing, damaged, or a pickle that asks for more than tensors.
  """
  path = pathlib.Path(path)
  try:
    if path.suffix == '.safetensors':
      with safetensors.safe_open(path, 'np') as file:
        metadata = file.metadata() or {}
      if wrapper:
        raise InputError(f'has no {wrapper!r}: a safetensors file holds one set of tensors')
      found = _without_module(load_file(path))
      return {name: found[name] for name in found if name.startswith(prefix)}, metadata
    with open(path, 'rb') as file:
      read = _read_zip if zipfile.is_zipfile(path) else _read_legacy
      return read(file, prefix, wrapper)
  except FileNotFoundError:
    raise InputError(f'{path}: no such file') from None
  except InputError as error:
    raise InputError(f'{path}: {error}') from None
  except Exception as error:  # parsers fail in many ways on damaged files
    raise InputError(f'{path}: not a readable weight file ({error})') from None


# PyTorch ---------------------------------------------------------------------------------


class _Storage(NamedTuple):
  key: str
  dtype: Any
  length: int


class _Tensor(NamedTuple):
  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  stride: tuple[int, ...]

  def read(self, memory: np.ndarray) -> np.ndarray:
    """A copy of the tensor out of its storage's numbers, after checking that it fits."""
    last = self.offset + sum(s * (n - 1) for n, s in zip(self.shape, self.stride, strict=True))
    if (min((*self.shape, *self.stride, self.offset), default=0) < 0 or last >= len(memory)
        or math.prod(self.shape) > len(memory)):
      raise InputError('a tensor reaches outside its storage')
    strides = [step * memory.itemsize for step in self.stride]
    view = np.lib.stride_tricks.as_strided(memory[self.offset:], self.shape, strides)
    return np.array(view)


def _rebuild_tensor(storage, offset, shape, stride, *_):
  if not isinstance(storage, _Storage):
    raise InputError('a tensor without a storage')
  return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, stride)))


ALLOWED = {
    ('collections', 'OrderedDict'): OrderedDict,
    ('torch._utils', '_rebuild_tensor'): _rebuild_tensor,  # before PyTorch 0.4
    ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
    ('torch._utils', '_rebuild_parameter'): lambda data, *_: data,
    **{('torch', name): dtype for name, dtype in STORAGES.items()},
}


class _Unpickler(pickle.Unpickler):

  def __init__(self, file):
    super().__init__(file)
    self.storages = {}

  def find_class(self, module, name):
    if (module, name) not in ALLOWED:
      raise InputError(f'its pickle asks for {module}.{name}, which no state dict needs')
    return ALLOWED[module, name]

  def persistent_load(self, pid):
    kind, dtype, key, _, length = pid[:5]
    if kind != 'storage' or not isinstance(length, int):
      raise InputError('an unknown kind of storage')
    return self.storages.setdefault(str(key), _Storage(str(key), np.dtype(dtype), length))


def _unpickle(file) -> tuple[Any, dict[str, _Storage]]:
  """(what one pickle from the file's position holds, the storages that it speaks of).

  Its opcodes are read through before it is run.
  """
  start = file.tell()
  for opcode, argument, position in pickletools.genops(file):
    # The C unpickler sizes its memo by the largest index, which a few bytes can state.
    if 'PUT' in opcode.name and int(argument) > position - start:
      raise InputError('its pickle is made to exhaust the memory')
    if position - start > LARGEST_PICKLE:
      raise InputError(f'its pickle is larger than {LARGEST_PICKLE} bytes')
  file.seek(start)
  unpickler = _Unpickler(file)
  return unpickler.load(), unpickler.storages


def _unwrapped(state: Any, wrapper: str) -> tuple[dict[str, _Tensor], dict[str, str]]:
  """(the tensors of a state dict, which key of a larger dict it lay under, if any)."""
  if not isinstance(state, dict):
    raise InputError(f'holds a {type(state).__name__}, not a dict of tensors')
  dicts = {name: value for name, value in state.items() if isinstance(value, dict)}
  if wrapper and wrapper not in dicts:
    raise InputError(f'has no {wrapper!r}, but {", ".join(map(str, state)) or "nothing"}'[:200])
  if not wrapper and not any(isinstance(value, _Tensor) for value in state.values()):
    wrapper = next((name for name in WRAPPERS if name in dicts), '')
  found = dicts[wrapper] if wrapper else state
  tensors = {name: value for name, value in found.items()
             if isinstance(name, str) and isinstance(value, _Tensor)}
  return _without_module(tensors), {'wrapper': wrapper} if wrapper else {}


def _without_module(tensors: dict) -> dict:
  """Names as they were before DataParallel put 'module.' in front of each."""
  if all(name.startswith('module.') for name in tensors):
    return {name.removeprefix('module.'): value for name, value in tensors.items()}
  return tensors


def _read_zip(file, prefix: str, wrapper: str):
  with zipfile.ZipFile(file) as archive:
    pickles = [name for name in archive.namelist() if name.endswith('/data.pkl')]
    if len(pickles) != 1 or archive.getinfo(pickles[0]).file_size > LARGEST_PICKLE:
      raise InputError('a zip file, but not one that PyTorch wrote')
    root = pickles[0].removesuffix('data.pkl')
    state, _ = _unpickle(io.BytesIO(archive.read(pickles[0])))
    tensors, metadata = _unwrapped(state, wrapper)
    found, memories = {}, {}
    for name, tensor in tensors.items():
      if not name.startswith(prefix):
        continue
      storage = tensor.storage
      if storage.key not in memories:
        member = archive.getinfo(f'{root}data/{storage.key}')
        if member.compress_type != zipfile.ZIP_STORED:  # PyTorch never packs; a bomb would
          raise InputError('its numbers are compressed, which PyTorch does not do')
        if member.file_size != storage.length * storage.dtype.itemsize:
          raise InputError(f'the numbers of {name} have the wrong length')
        memories[storage.key] = np.frombuffer(archive.read(member), storage.dtype)
      found[name] = tensor.read(memories[storage.key])
    return found, metadata


def _read_legacy(file, prefix: str, wrapper: str):
  """PyTorch before 1.6: pickles of a magic number, a version, facts about the machine,
  the state and its storages' keys, then each storage as its length and its numbers.
  """
  if _unpickle(file)[0] != LEGACY_MAGIC:
    raise InputError('not a PyTorch file')
  _unpickle(file), _unpickle(file)
  state, storages = _unpickle(file)
  keys = [str(key) for key in _unpickle(file)[0]]
  tensors, metadata = _unwrapped(state, wrapper)
  wanted = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
  needed = {tensor.storage.key for tensor in wanted.values()}
  memories = {}
  for key in keys:
    if key not in storages:
      raise InputError('a storage that no tensor uses')
    length, = struct.unpack('<q', file.read(8))
    storage = storages[key]
    if length != storage.length:
      raise InputError('a storage of the wrong length')
    size = length * storage.dtype.itemsize
    if key in needed:
      memories[key] = np.frombuffer(file.read(size), storage.dtype)
    else:
      file.seek(size, io.SEEK_CUR)
  return {name: tensor.read(memories[tensor.storage.key])
          for name, tensor in wanted.items()}, metadata

