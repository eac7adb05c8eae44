"""Tensors by name from `.safetensors` and PyTorch `.pth` files.

A `.pth` is a pickle, and a pickle is a program. This reader looks at its opcodes first and
refuses those that a state dict does not need, resolves a dozen names to functions of its own
and no others, so that a file from the internet can at worst be rejected.
"""

import io
import math
import mmap
import pathlib
import pickle
import pickletools
import struct
import zipfile
from typing import Any, ClassVar, NamedTuple

import ml_dtypes
import numpy as np
import safetensors
from safetensors.numpy import load_file

from sr_jax.errors import InputError, brief

STORAGES = {'FloatStorage': np.float32, 'DoubleStorage': np.float64, 'HalfStorage': np.float16,
            'BFloat16Storage': ml_dtypes.bfloat16, 'LongStorage': np.int64,
            'IntStorage': np.int32, 'ShortStorage': np.int16, 'CharStorage': np.int8,
            'ByteStorage': np.uint8, 'BoolStorage': np.bool_}
OPCODES = {  # all that torch.save writes
    'PROTO', 'FRAME', 'STOP', 'MARK', 'GLOBAL', 'STACK_GLOBAL', 'REDUCE', 'BUILD', 'BINPERSID',
    'PUT', 'BINPUT', 'LONG_BINPUT', 'MEMOIZE', 'GET', 'BINGET', 'LONG_BINGET', 'NONE', 'NEWTRUE',
    'NEWFALSE', 'BININT', 'BININT1', 'BININT2', 'LONG1', 'BINFLOAT', 'BINUNICODE',
    'SHORT_BINUNICODE', 'BINSTRING', 'SHORT_BINSTRING', 'BINBYTES', 'SHORT_BINBYTES',
    'EMPTY_DICT', 'EMPTY_LIST', 'EMPTY_TUPLE', 'TUPLE', 'TUPLE1', 'TUPLE2', 'TUPLE3', 'SETITEM',
    'SETITEMS', 'APPEND', 'APPENDS'}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LARGEST_PICKLE = 64 << 20  # a state dict's pickle holds names and shapes, not numbers
MOST_OPCODES = 1_000_000  # a tensor takes about 40, and each may take a hundred bytes of memory
MOST_AXES = 16
MOST_VIEWS = 4  # numbers in all tensors for each number in a file: weights may be shared
# Trainers keep the state dict under one of these, the averaged weights first.
WRAPPERS = ('params_ema', 'params', 'state_dict')


def read_tensors(path, prefix: str = '',
                 wrapper: str = '') -> tuple[dict[str, np.ndarray], dict[str, str]]:
  """Reads the tensors whose names start with `prefix`, without running the file.

  Args:
    path: a safetensors file, or PyTorch's in its zip format or the one before it; told by its
      contents, not by its name.
    wrapper: the key of PyTorch's dict whose dict is meant; '' takes the first of WRAPPERS that
      is there or else the tensors at the top. A 'module.' before every name is taken off.

  Returns:
    (tensors by name, metadata): a safetensors file's own text metadata; of a `.pth`, the
    'wrapper' that was opened, if any.

  Raises:
    InputError: missing, damaged, or a pickle that asks for more than tensors.
  """
  path = pathlib.Path(path)
  try:
    with open(path, 'rb') as file:
      begins = file.read(9)
      file.seek(0)
      if begins[8:] != b'{':  # where a safetensors file has its JSON, after eight bytes of length
        if begins[:4] == b'PK\3\4':
          return _read_zip(file, prefix, wrapper)
        if begins[:1] == b'\x80':  # PROTO, the first opcode of a pickle
          # Mapped: of a file, a number that lies would have so much memory asked for.
          with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return _read_legacy(mapped, prefix, wrapper)
    with safetensors.safe_open(path, 'np') as file:
      metadata = file.metadata() or {}
    if wrapper:
      raise InputError(f'has no {wrapper!r}: a safetensors file holds one set of tensors')
    found = _without_module(load_file(path))
    return {name: found[name] for name in found if name.startswith(prefix)}, metadata
  except FileNotFoundError:
    raise InputError(f'{path}: no such file') from None
  except InputError as error:
    raise InputError(f'{path}: {brief(error)}') from None
  except MemoryError:
    raise InputError(f'{path}: not enough memory to read it') from None
  except Exception as error:  # parsers fail in many ways on damaged files
    words = brief(error) or type(error).__name__
    raise InputError(f'{path}: not a readable weight file ({words})') from None


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
  axes = (*shape, *stride) if isinstance(shape, tuple) and isinstance(stride, tuple) else (None,)
  if len(axes) > 2 * MOST_AXES or not all(type(number) is int for number in (offset, *axes)):
    raise InputError('a tensor of no shape')
  return _Tensor(storage, offset, shape, stride)


def _empty_dict(*arguments):
  if arguments:
    raise InputError('an OrderedDict that is not empty at first')
  return {}


ALLOWED = {
    ('collections', 'OrderedDict'): _empty_dict,
    ('torch._utils', '_rebuild_tensor'): _rebuild_tensor,  # before PyTorch 0.4
    ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
    ('torch._utils', '_rebuild_parameter'): lambda data, *_: data,
    **{('torch', name): np.dtype(dtype) for name, dtype in STORAGES.items()},
}


class _Unpickler(pickle._Unpickler):
  """Python's own implementation in Python: the one in C hashes any key, a tuple of tuples of
  tuples until the stack overflows, and sets attributes of whatever a file likes.
  """

  dispatch: ClassVar = dict(pickle._Unpickler.dispatch)

  def __init__(self, file):
    super().__init__(file)
    self.storages = {}

  def find_class(self, module, name):
    if (module, name) not in ALLOWED:
      raise InputError(f'its pickle asks for {module}.{name}, which no state dict needs')
    return ALLOWED[module, name]

  def persistent_load(self, pid):
    kind, dtype, key, _, length = pid[:5]
    if kind != 'storage' or not isinstance(length, int) or not isinstance(dtype, np.dtype):
      raise InputError('an unknown kind of storage')
    return self.storages.setdefault(str(key), _Storage(str(key), dtype, length))

  def _check_keys(self, keys):
    if not all(isinstance(key, str | int) for key in keys):
      raise InputError('a dict whose keys are neither text nor numbers')

  def load_setitem(self):
    self._check_keys(self.stack[-2:-1])
    super().load_setitem()

  def load_setitems(self):
    self._check_keys(self.stack[::2])
    super().load_setitems()

  def load_build(self):
    self.stack.pop()  # an OrderedDict's attributes: versions of modules, of no use here

  dispatch[pickle.SETITEM[0]] = load_setitem
  dispatch[pickle.SETITEMS[0]] = load_setitems
  dispatch[pickle.BUILD[0]] = load_build


def _unpickle(file) -> tuple[Any, dict[str, _Storage]]:
  """(what one pickle from the file's position holds, the storages that it speaks of).

  Its opcodes are read through before it is run.
  """
  start = file.tell()
  for count, (opcode, _, position) in enumerate(pickletools.genops(file)):
    if opcode.name not in OPCODES:
      raise InputError(f'its pickle has the opcode {opcode.name}, which no state dict needs')
    if position - start > LARGEST_PICKLE:
      raise InputError(f'its pickle is larger than {LARGEST_PICKLE} bytes')
    if count >= MOST_OPCODES:
      raise InputError(f'its pickle has more than {MOST_OPCODES} opcodes')
  file.seek(start)
  unpickler = _Unpickler(file)
  return unpickler.load(), unpickler.storages


def _unwrapped(state: Any, wrapper: str) -> tuple[dict[str, _Tensor], dict[str, str]]:
  """(the tensors of a state dict, which key of a larger dict it lay under, if any)."""
  if not isinstance(state, dict):
    raise InputError(f'holds a {type(state).__name__}, not a dict of tensors')
  dicts = {name: value for name, value in state.items() if isinstance(value, dict)}
  keys = ', '.join(str(name)[:40] for name in list(state)[:10]) or 'nothing'
  if wrapper and wrapper not in dicts:
    raise InputError(f'has no {wrapper!r}, but {keys}')
  wrapper = wrapper or next((name for name in WRAPPERS if name in dicts), '')
  found = dicts[wrapper] if wrapper else state
  tensors = {name: value for name, value in found.items()
             if isinstance(name, str) and isinstance(value, _Tensor)}
  if not tensors:
    where = f' under {wrapper!r}' if wrapper else ''
    raise InputError(f'has no tensors{where}; at its top are {keys}; --key names what they lie '
                     'under')
  whole = sum({tensor.storage: tensor.storage.length for tensor in tensors.values()}.values())
  if sum(math.prod(tensor.shape) for tensor in tensors.values()) > MOST_VIEWS * whole:
    raise InputError('its tensors are views of too few numbers, made to exhaust the memory')
  return _without_module(tensors), {'wrapper': wrapper} if wrapper else {}


def _without_module(tensors: dict) -> dict:
  """Names as they were before DataParallel put 'module.' in front of each."""
  if all(name.startswith('module.') for name in tensors):
    return {name.removeprefix('module.'): value for name, value in tensors.items()}
  return tensors


def _read_zip(file, prefix: str, wrapper: str):
  size = file.seek(0, io.SEEK_END)
  with zipfile.ZipFile(file) as archive:
    pickles = [name for name in archive.namelist() if name.endswith('/data.pkl')]
    if len(pickles) != 1 or archive.getinfo(pickles[0]).file_size > LARGEST_PICKLE:
      raise InputError('a zip file, but not one that PyTorch wrote')
    if any(member.compress_size > size for member in archive.infolist()):
      raise InputError('a zip file whose members are larger than it is')
    root = pickles[0].removesuffix('data.pkl')
    state, _ = _unpickle(io.BytesIO(archive.read(pickles[0])))
    tensors, metadata = _unwrapped(state, wrapper)
    wanted = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    memories = {}
    for name, (storage, *_) in wanted.items():
      if storage.key in memories:
        continue
      member = archive.getinfo(f'{root}data/{storage.key}')
      if member.compress_type != zipfile.ZIP_STORED:  # PyTorch never packs; a bomb would
        raise InputError('its numbers are compressed, which PyTorch does not do')
      if member.file_size != storage.length * storage.dtype.itemsize:
        raise InputError(f'the numbers of {brief(name, 80)} have the wrong length')
      memories[storage.key] = np.frombuffer(archive.read(member), storage.dtype)
    return _read_all(wanted, memories), metadata


def _read_all(wanted: dict[str, _Tensor], memories: dict[str, np.ndarray]) -> dict:
  """The tensors out of their storages, after all of those have proved as long as they claim."""
  for tensor in wanted.values():
    memory = memories.get(tensor.storage.key)
    if memory is None or len(memory) != tensor.storage.length:
      raise InputError('the numbers of a storage are missing')
  return {name: tensor.read(memories[tensor.storage.key]) for name, tensor in wanted.items()}


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
    if length != storage.length or length < 0:
      raise InputError('a storage of the wrong length')
    size = length * storage.dtype.itemsize
    if key in needed:
      memories[key] = np.frombuffer(file.read(size), storage.dtype)
    else:
      file.seek(size, io.SEEK_CUR)
  return _read_all(wanted, memories), metadata
