"""Reads tensors by name from `.safetensors` and PyTorch `.pth` files.

A `.pth` file is a pickle, and unpickling can execute arbitrary code. This reader first checks
the pickle's opcodes and refuses those that a state dict does not need. It then resolves only the
dozen global names in ALLOWED_GLOBALS, all to functions of this module, so the worst that can
happen with an untrusted file is that it is refused.
"""

import io
import math
import mmap
import os
import pathlib
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Sequence
from typing import Any, BinaryIO, ClassVar, NamedTuple

import ml_dtypes
import numpy as np
import safetensors
from safetensors.numpy import load_file

from sr_jax.errors import InputError, brief

STORAGE_DTYPES = {
    'FloatStorage': np.float32, 'DoubleStorage': np.float64, 'HalfStorage': np.float16,
    'BFloat16Storage': ml_dtypes.bfloat16, 'LongStorage': np.int64, 'IntStorage': np.int32,
    'ShortStorage': np.int16, 'CharStorage': np.int8, 'ByteStorage': np.uint8,
    'BoolStorage': np.bool_}
OPCODES = {  # all that torch.save writes
    'PROTO', 'FRAME', 'STOP', 'MARK', 'GLOBAL', 'STACK_GLOBAL', 'REDUCE', 'BUILD', 'BINPERSID',
    'PUT', 'BINPUT', 'LONG_BINPUT', 'MEMOIZE', 'GET', 'BINGET', 'LONG_BINGET', 'NONE', 'NEWTRUE',
    'NEWFALSE', 'BININT', 'BININT1', 'BININT2', 'LONG1', 'BINFLOAT', 'BINUNICODE',
    'SHORT_BINUNICODE', 'BINSTRING', 'SHORT_BINSTRING', 'BINBYTES', 'SHORT_BINBYTES',
    'EMPTY_DICT', 'EMPTY_LIST', 'EMPTY_TUPLE', 'TUPLE', 'TUPLE1', 'TUPLE2', 'TUPLE3', 'SETITEM',
    'SETITEMS', 'APPEND', 'APPENDS'}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
MAX_PICKLE_BYTES = 64 << 20  # a state dict's pickle contains names and shapes, not the weights
MAX_OPCODES = 1_000_000  # a tensor takes about 40, and each may take a hundred bytes of memory
MAX_AXES = 16
MAX_SHARING = 4  # tensors' elements per element of their storages: weights may be shared
# Keys under which training code stores the state dict, in order of preference: EMA weights first.
WRAPPERS = ('params_ema', 'params', 'state_dict')


def read_tensors(path: os.PathLike | str, prefix: str = '',
                 wrapper: str = '') -> tuple[dict[str, np.ndarray], dict[str, str]]:
  """Reads the tensors whose names start with `prefix`, without executing code from the file.

  Args:
    path: a safetensors file, or a PyTorch file in its zip format or the older one. The contents
      decide, not the file name.
    wrapper: the key under which a PyTorch file stores the state dict. '' takes the first of
      WRAPPERS that is present, or else the tensors at the top level. If all names begin with
      'module.' (from DataParallel), that prefix is removed.

  Returns:
    (tensors by name, metadata). For a safetensors file that is its own text metadata, for a
    `.pth` its strings at the top level, and {'wrapper': the key that was opened} if there was one.

  Raises:
    InputError: the file is missing or damaged, or its pickle asks for more than tensors.
  """
  path = pathlib.Path(path)
  try:
    with open(path, 'rb') as file:
      start = file.read(9)
      file.seek(0)
      if start[8:] != b'{':  # in a safetensors file, JSON follows eight bytes of length
        if start[:4] == b'PK\3\4':
          return _read_zip(file, prefix, wrapper)
        if start[:1] == b'\x80':  # PROTO, the first opcode of a pickle
          # Memory-mapped because reading from a file allocates as many bytes as a (false) length
          # in it says, before the read fails.
          with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return _read_legacy(mapped, prefix, wrapper)
    with safetensors.safe_open(path, 'np') as file:
      metadata = file.metadata() or {}
    if wrapper:
      raise InputError(f'has no key {wrapper!r}; a safetensors file has no keys')
    tensors = _without_module_prefix(load_file(path))
    return {name: tensors[name] for name in tensors if name.startswith(prefix)}, metadata
  except FileNotFoundError:
    raise InputError(f'{path}: no such file') from None
  except InputError as error:
    raise InputError(f'{path}: {brief(error)}') from None
  except MemoryError:
    raise InputError(f'{path}: not enough memory to read it') from None
  except Exception as error:  # parsers fail in many ways on damaged files
    reason = brief(error) or type(error).__name__
    raise InputError(f'{path}: cannot read as a weight file ({reason})') from None


# PyTorch ---------------------------------------------------------------------------------


class _Storage(NamedTuple):
  key: str
  dtype: np.dtype
  length: int  # in elements, as the pickle says


class _Tensor(NamedTuple):
  """A view of a storage; offset and strides are in elements."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  stride: tuple[int, ...]

  def read(self, memory: np.ndarray) -> np.ndarray:
    """Returns a copy of the tensor from its storage's elements, after a bounds check."""
    last = self.offset + sum(s * (n - 1) for n, s in zip(self.shape, self.stride, strict=True))
    if (min((*self.shape, *self.stride, self.offset), default=0) < 0 or last >= len(memory)
        or math.prod(self.shape) > len(memory)):
      raise InputError('a tensor extends outside its storage')
    strides = [step * memory.itemsize for step in self.stride]
    view = np.lib.stride_tricks.as_strided(memory[self.offset:], self.shape, strides)
    return np.array(view)


# The arguments of these functions come from a pickle: any of them may have any type.


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> _Tensor:
  if not isinstance(storage, _Storage):
    raise InputError('a tensor without a storage')
  axes = (*shape, *stride) if isinstance(shape, tuple) and isinstance(stride, tuple) else (None,)
  if len(axes) > 2 * MAX_AXES or not all(type(number) is int for number in (offset, *axes)):
    raise InputError('a tensor with an invalid shape')
  return _Tensor(storage, offset, shape, stride)


def _empty_dict(*arguments: Any) -> dict:
  if arguments:
    raise InputError('an OrderedDict that is created with contents')
  return {}


ALLOWED_GLOBALS = {
    ('collections', 'OrderedDict'): _empty_dict,
    ('torch._utils', '_rebuild_tensor'): _rebuild_tensor,  # before PyTorch 0.4
    ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
    ('torch._utils', '_rebuild_parameter'): lambda data, *_: data,
    **{('torch', name): np.dtype(dtype) for name, dtype in STORAGE_DTYPES.items()},
}


class _Unpickler(pickle._Unpickler):
  """Python's unpickler in its pure Python implementation, restricted to state dicts.

  The C implementation hashes any key, including tuples nested deep enough to overflow the
  stack, and sets arbitrary attributes.
  """

  dispatch: ClassVar = dict(pickle._Unpickler.dispatch)

  def __init__(self, file: BinaryIO | mmap.mmap) -> None:
    super().__init__(file)
    self.storages = {}

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) not in ALLOWED_GLOBALS:
      raise InputError(f'its pickle refers to {module}.{name}, which a state dict does not need')
    return ALLOWED_GLOBALS[module, name]

  def persistent_load(self, pid: Any) -> _Storage:
    kind, dtype, key, _, length = pid[:5]
    if kind != 'storage' or not isinstance(length, int) or not isinstance(dtype, np.dtype):
      raise InputError('an unknown kind of storage')
    return self.storages.setdefault(str(key), _Storage(str(key), dtype, length))

  def _check_keys(self, keys: Sequence[Any]) -> None:
    if not all(isinstance(key, str | int) for key in keys):
      raise InputError('a dict whose keys are neither strings nor integers')

  def load_setitem(self) -> None:
    self._check_keys(self.stack[-2:-1])
    super().load_setitem()

  def load_setitems(self) -> None:
    self._check_keys(self.stack[::2])
    super().load_setitems()

  def load_build(self) -> None:
    self.stack.pop()  # attributes of an OrderedDict (versions of modules), which are not needed

  dispatch[pickle.SETITEM[0]] = load_setitem
  dispatch[pickle.SETITEMS[0]] = load_setitems
  dispatch[pickle.BUILD[0]] = load_build


def _unpickle(file: BinaryIO | mmap.mmap) -> tuple[Any, dict[str, _Storage]]:
  """Loads one pickle from the file's position, after checking all of its opcodes.

  Returns:
    (the object, the storages that it refers to by key).
  """
  start = file.tell()
  for count, (opcode, _, position) in enumerate(pickletools.genops(file)):
    if opcode.name not in OPCODES:
      raise InputError(f'its pickle has the opcode {opcode.name}, which a state dict does not need')
    if position - start > MAX_PICKLE_BYTES:
      raise InputError(f'its pickle is larger than {MAX_PICKLE_BYTES} bytes')
    if count >= MAX_OPCODES:
      raise InputError(f'its pickle has more than {MAX_OPCODES} opcodes')
  file.seek(start)
  unpickler = _Unpickler(file)
  return unpickler.load(), unpickler.storages


def _unwrapped(state: Any, wrapper: str) -> tuple[dict[str, _Tensor], dict[str, str]]:
  """Returns (the tensors of a state dict, the texts beside it and its key as 'wrapper')."""
  if not isinstance(state, dict):
    raise InputError(f'contains a {type(state).__name__}, not a dict of tensors')
  dicts = {name: value for name, value in state.items() if isinstance(value, dict)}
  keys = ', '.join(str(name)[:40] for name in list(state)[:10]) or 'none'
  if wrapper and wrapper not in dicts:
    raise InputError(f'has no key {wrapper!r}; its keys: {keys}')
  wrapper = wrapper or next((name for name in WRAPPERS if name in dicts), '')
  inner = dicts[wrapper] if wrapper else state
  tensors = {name: value for name, value in inner.items()
             if isinstance(name, str) and isinstance(value, _Tensor)}
  if not tensors:
    where = f' under {wrapper!r}' if wrapper else ''
    raise InputError(f'has no tensors{where}; its top-level keys: {keys}; choose one with --key')
  stored = sum({tensor.storage: tensor.storage.length for tensor in tensors.values()}.values())
  if sum(math.prod(tensor.shape) for tensor in tensors.values()) > MAX_SHARING * stored:
    raise InputError('its tensors have far more elements than its storages; such a file would '
                     'exhaust the memory')
  texts = {name: text for name, text in state.items()
           if isinstance(name, str) and isinstance(text, str)}
  return _without_module_prefix(tensors), texts | {'wrapper': wrapper} if wrapper else {}


def _without_module_prefix(tensors: dict[str, Any]) -> dict[str, Any]:
  """Removes the 'module.' that DataParallel puts before every name."""
  if all(name.startswith('module.') for name in tensors):
    return {name.removeprefix('module.'): value for name, value in tensors.items()}
  return tensors


def _read_zip(file: BinaryIO, prefix: str,
              wrapper: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  size = file.seek(0, io.SEEK_END)
  with zipfile.ZipFile(file) as archive:
    pickles = [name for name in archive.namelist() if name.endswith('/data.pkl')]
    if len(pickles) != 1 or archive.getinfo(pickles[0]).file_size > MAX_PICKLE_BYTES:
      raise InputError('a zip file, but not one that PyTorch wrote')
    if any(member.compress_size > size for member in archive.infolist()):
      raise InputError('a zip file whose members are larger than itself')
    root = pickles[0].removesuffix('data.pkl')
    state, _ = _unpickle(io.BytesIO(archive.read(pickles[0])))
    tensors, metadata = _unwrapped(state, wrapper)
    wanted = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    memories = {}
    for name, (storage, *_) in wanted.items():
      if storage.key in memories:
        continue
      member = archive.getinfo(f'{root}data/{storage.key}')
      if member.compress_type != zipfile.ZIP_STORED:  # a zip bomb would be compressed
        raise InputError('its storages are compressed, which PyTorch does not do')
      if member.file_size != storage.length * storage.dtype.itemsize:
        raise InputError(f'the storage of {brief(name, 80)} has the wrong length')
      memories[storage.key] = np.frombuffer(archive.read(member), storage.dtype)
    return _read_all(wanted, memories), metadata


def _read_all(wanted: dict[str, _Tensor],
              memories: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Copies the tensors out of their storages, after checking that every storage is complete."""
  for tensor in wanted.values():
    memory = memories.get(tensor.storage.key)
    if memory is None or len(memory) != tensor.storage.length:
      raise InputError('the data of a storage is missing')
  return {name: tensor.read(memories[tensor.storage.key]) for name, tensor in wanted.items()}


def _read_legacy(file: mmap.mmap, prefix: str,
                 wrapper: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  """Reads the format of PyTorch before 1.6.

  It has pickles of a magic number, a version, information about the machine, the state dict and
  the storages' keys, followed by each storage as its length and its elements.
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
    if length != storage.length or length < 0:
      raise InputError('a storage of the wrong length')
    size = length * storage.dtype.itemsize
    if key in needed:
      memories[key] = np.frombuffer(file.read(size), storage.dtype)
    else:
      file.seek(size, io.SEEK_CUR)
  return _read_all(wanted, memories), metadata
