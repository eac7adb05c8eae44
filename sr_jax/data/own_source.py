"""Images that a function of the user's own returns: paths or arrays."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sr_jax.data.array_image import ArrayImage
from sr_jax.errors import InputError, brief
from sr_jax.system import files, user_code, user_failures

EXPECTED = ('a function without arguments that returns a list of paths of HR images, (HR path, '
            'LR path), uint8 arrays [H, W, 1 or 3], or (HR array, LR array)')

OwnSource = pathlib.Path | ArrayImage


def find_images(spec: str, where: str) -> list[tuple[str, OwnSource, OwnSource | None]]:
  """Calls the function that 'module:name' names and returns its images, in its order.

  Args:
    spec: 'module:name' of a function without arguments.
    where: what contains the spec, for messages, such as 'config.data.source'.

  Returns:
    [(name, HR, LR or None)]. An array's name is its number; a file's is its path below the folder
    that has all files, without the suffix.

  Raises:
    InputError: the function cannot be found or raises an exception, or an entry of what it returns
      is none of the allowed kinds; the message gives the entry's number, counted from 0.
  """
  function, title = user_code.find_function(spec, where, EXPECTED), f'{where}={spec!r}'
  with user_failures.one_line(title, EXPECTED):
    returned = function()
    if not _is_sequence(returned):
      raise InputError(f'{title}: returned {_described(returned)}; expected {EXPECTED}')
    entries = list(returned)
  if not entries:
    raise InputError(f'{title}: returned no image; expected {EXPECTED}')
  sides = [_sides(entry, f'{spec}[{number}]', f'{title}: entry {number}')
           for number, entry in enumerate(entries)]
  for number, (_, lr) in enumerate(sides):
    if (lr is None) != (sides[0][1] is None):
      raise InputError(f'{title}: entry {number} has {"no " * (lr is None)}LR, unlike entry 0; '
                       'expected LR for all images or for none')
  return [(name, *pair) for name, pair in zip(_names([hr for hr, _ in sides]), sides, strict=True)]


def _is_sequence(value: Any) -> bool:
  if isinstance(value, np.ndarray):
    return value.ndim == 4  # images of one size
  return (hasattr(value, '__len__') and hasattr(value, '__getitem__')
          and not isinstance(value, (str, bytes, Mapping)))


def _sides(entry: Any, name: str, where: str) -> tuple[OwnSource, OwnSource | None]:
  """Returns (HR, LR or None) of one entry.

  Args:
    name: of an image that is held in memory, such as 'my:photos[3]'.
    where: prefix of messages.
  """
  if not isinstance(entry, (tuple, list)):
    return _source(entry, name, where), None
  if len(entry) != 2:
    raise InputError(f'{where} has {len(entry)} parts, expected (HR, LR)')
  hr, lr = (_source(part, f'{name} {side}', f'{where}, {side}')
            for part, side in zip(entry, ('HR', 'LR'), strict=True))
  return hr, lr


def _source(value: Any, name: str, where: str) -> OwnSource:
  """Returns the file or the array of one side of an entry."""
  if isinstance(value, (str, os.PathLike)):
    path = files.expand(value)
    if not path.is_file():
      raise InputError(f'{where}: {path}: '
                       + ('is a folder, expected an image' if path.is_dir() else 'no such file'))
    return path
  with user_failures.one_line(where):  # such as an array of PyTorch on a GPU
    array = np.asarray(value) if hasattr(value, '__array__') else None
  if (array is None or array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, 3)
      or not array.size):
    raise InputError(f'{where} is {_described(value)}; expected a path or a uint8 array '
                     '[H, W, 1 or 3]')
  return ArrayImage(name, array)


def _names(sources: Sequence[OwnSource]) -> list[str]:
  """Returns a name for each image, unique even if an image is listed twice."""
  digits = len(str(len(sources) - 1))
  parents = [os.path.abspath(source.parent) for source in sources
             if isinstance(source, pathlib.Path)]
  root = os.path.commonpath(parents) if parents else ''
  names: dict[str, None] = {}
  for number, source in enumerate(sources):
    name = f'{number:0{digits}}'
    if isinstance(source, pathlib.Path):
      path = pathlib.Path(os.path.abspath(source)).relative_to(root)
      name = path.with_suffix('').as_posix()
      name = path.as_posix() if name in names else name
    while name in names:
      name += f'-{number}'
    names[name] = None
  return list(names)


def _described(value: Any) -> str:
  """Returns 'float32 [4, 4, 3]' of an array, else the type and the beginning of the value."""
  if hasattr(value, 'dtype') and hasattr(value, 'shape'):
    return f'{value.dtype} {list(value.shape)}'
  return f'a {type(value).__name__}, {brief(repr(value), 60)}'
