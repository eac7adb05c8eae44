"""Describes what a weight file contains, whether or not its network is known."""

import collections
import pathlib

import numpy as np

from sr_jax.errors import InputError, brief, listed, printable
from sr_jax.pretrained import families, generators
from sr_jax.pretrained.shapes import Unstated
from sr_jax.pretrained.tensors import read_tensors
from sr_jax.system import user_code

MAX_TEXT = 200  # characters of a metadata entry


def describe(path: pathlib.Path, wrapper: str, problem: str,
             all_tensors: bool = False) -> list[tuple[str, str]]:
  """Returns (key, value) for all that is known about a file whose network cannot be built.

  Args:
    path: a `.safetensors` or `.pth` file.
    wrapper: as in `tensors.read_tensors`.
    problem: why the network cannot be built.
    all_tensors: gives each tensor a row of its own instead of listing ten of them.

  Raises:
    InputError: no tensors can be read from the file.
  """
  tensors, metadata = read_tensors(path, wrapper=wrapper)
  dtypes = collections.Counter(str(tensor.dtype) for tensor in tensors.values())
  sizes = [(name, f'{list(tensor.shape)} {tensor.dtype}') for name, tensor in tensors.items()]
  rows = [('file', path), *_network(path, tensors, metadata), ('problem', problem),
          *((f'metadata {key}', brief(value, MAX_TEXT)) for key, value in metadata.items()),
          ('parameters', f'{sum(tensor.size for tensor in tensors.values()):,} in {len(tensors)} '
                         'arrays'),
          ('types', ', '.join(f'{dtype} ({count})' for dtype, count in dtypes.items())),
          *(sizes if all_tensors else [('tensors', listed([*map(' '.join, sizes)]))])]
  return [(printable(brief(key, MAX_TEXT)), printable(value)) for key, value in rows]


def _network(path: pathlib.Path, tensors: dict[str, np.ndarray],
             metadata: dict[str, str]) -> list[tuple[str, str]]:
  """Returns the network's name and fields as far as metadata, names and shapes determine them."""
  try:
    stated = generators.stated_fields(path, metadata)
  except InputError:  # the metadata is damaged, and printed as it is
    stated = {}
  if stated.get('names') == families.NATIVE and user_code.is_spec(stated.get('name')):
    # Described without importing the module.
    return [('names', families.NATIVE), ('network', f'{stated["name"]}, code outside sr_jax'),
            *((field, value) for field, value in stated.items() if field not in ('name', 'names'))]
  try:
    family, name, inferred = families.recognise(tensors, stated, stated)
  except (ValueError, TypeError, ArithmeticError):
    return [('network', 'unknown')]
  rows = [('names', family), ('network', name)]
  for field, value in (inferred | stated).items():
    if isinstance(value, Unstated):
      value = f'unknown; give it with --set {field}=VALUE' if value.assumed is None else (
          f'{value.assumed} (assumed, not in the file)')
    if field not in ('name', 'names'):
      rows.append((field, value))
  return rows
