"""Writes PyTorch's `.pth` files without PyTorch.

Source: torch/serialization.py. The file is a zip archive without compression: a pickle of the dict,
in which each tensor refers to a storage by its key, and one file with the numbers of each storage.
"""

import io
import math
import struct
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

STORAGES = {'float32': 'FloatStorage', 'float16': 'HalfStorage', 'int64': 'LongStorage'}
ROOT = 'archive'  # the folder in the archive; PyTorch accepts any name
FIRST_DATE = (1980, 1, 1, 0, 0, 0)  # that a zip file can state; equal networks are equal bytes


def pth_bytes(tensors: Mapping[str, np.ndarray], wrappers: Sequence[str] = (),
              texts: Mapping[str, str] | None = None) -> bytes:
  """Returns the contents of a `.pth`, which `torch.load(weights_only=True)` reads.

  Args:
    tensors: arrays by name, of one of the dtypes of STORAGES.
    wrappers: keys under each of which the file has the tensors; they share their memory. None of
      them: the tensors are at the top level.
    texts: further entries at the top level.
  """
  arrays = [np.asarray(array, order='C') for array in tensors.values()]
  state = _dict({name: _tensor(str(index), array) for index, (name, array) in
                 enumerate(zip(tensors, arrays, strict=True))})
  if wrappers:
    entries = dict.fromkeys(wrappers, state)
    state = _dict(entries | {name: _text(text) for name, text in (texts or {}).items()})
  members = {'data.pkl': b'\x80\x02' + state + b'.', 'byteorder': b'little', 'version': b'3\n'}
  members |= {f'data/{index}': array.astype(array.dtype.newbyteorder('<'), copy=False).tobytes()
              for index, array in enumerate(arrays)}
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w', zipfile.ZIP_STORED) as archive:
    for name, data in members.items():
      archive.writestr(zipfile.ZipInfo(f'{ROOT}/{name}', FIRST_DATE), data)
  return file.getvalue()


# Each function returns opcodes of pickle's protocol 2 that put its argument on the stack.


def _dict(entries: Mapping[str, bytes]) -> bytes:
  return b'}(' + b''.join(_text(key) + value for key, value in entries.items()) + b'u'


def _text(text: str) -> bytes:
  data = text.encode()
  return b'X' + struct.pack('<I', len(data)) + data


def _integer(value: int) -> bytes:
  if value < 1 << 31:
    return b'J' + struct.pack('<i', value)
  return b'\x8a\x08' + struct.pack('<q', value)


def _tuple(*items: bytes) -> bytes:
  return b'(' + b''.join(items) + b't'


def _global(module: str, name: str) -> bytes:
  return f'c{module}\n{name}\n'.encode()


def _tensor(key: str, array: np.ndarray) -> bytes:
  """Calls torch._utils._rebuild_tensor_v2 with storage, offset, shape, strides, and no gradient."""
  storage = _tuple(_text('storage'), _global('torch', STORAGES[array.dtype.name]), _text(key),
                   _text('cpu'), _integer(array.size)) + b'Q'
  strides = [math.prod(array.shape[axis + 1:]) for axis in range(array.ndim)]
  hooks = _global('collections', 'OrderedDict') + b')R'
  return _global('torch._utils', '_rebuild_tensor_v2') + _tuple(
      storage, _integer(0), _tuple(*map(_integer, array.shape)), _tuple(*map(_integer, strides)),
      b'\x89', hooks) + b'R'
