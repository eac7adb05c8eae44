"""Reads and writes the weight files of generators; converts tensors to variables and back."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from flax import linen as nn
from flax import traverse_util
from safetensors.numpy import save

from sr_jax.errors import InputError, brief
from sr_jax.models import architecture
from sr_jax.pretrained import families, ncnn
from sr_jax.pretrained.families import NATIVE, TensorLayout
from sr_jax.pretrained.pytorch_file import pth_bytes
from sr_jax.pretrained.shapes import Unstated
from sr_jax.pretrained.tensors import read_tensors
from sr_jax.system import files

METADATA_KEY = 'sr_jax'  # the entry of a file's metadata that describes the generator
# Families whose tools expect the tensors of a `.pth` at its top level, and nothing else there.
UNWRAPPED = ('esrgan', 'esrgan-old', 'edsr-pytorch')


class WeightFile(NamedTuple):
  """The contents of a weight file: tensors in the names of a family, and their network."""

  family: str
  name: str  # of models.GENERATORS, or 'module:name' of the user's own
  fields: dict[str, Any]  # the generator's fields, including its scale
  assumed: list[str]  # fields that the file does not determine and that have an assumed value
  tensors: dict[str, np.ndarray]
  origin: str  # the file format, for messages


def read_generator(path: os.PathLike | str, given: dict[str, Any] | None = None, wrapper: str = '',
                   assumed: dict[str, Any] | None = None) -> WeightFile:
  """Reads a weight file and infers its network from names and shapes.

  Args:
    path: `.safetensors`, `.pth`, `.pt`, or either file of an ncnn pair (`.param`, `.bin`).
    given: fields that override what the file says, or that it does not determine.
    wrapper: as in `tensors.read_tensors`.
    assumed: values for fields that neither the file nor `given` determines and for which the
      family has no assumed value.

  Raises:
    InputError: the file is unreadable or holds no known network, or a field is not determined;
      the message names it.
  """
  path, given = pathlib.Path(path), given or {}
  for field in given:
    if field in ('name', 'names', 'dtype') or field.startswith('_'):
      raise InputError(f'{path}: {field} cannot be set')
  tensors, stated, origin = _read_tensors_and_fields(path, wrapper)
  try:
    family, name, fields = families.recognise(tensors, stated, stated | given)
  except (ValueError, TypeError, ArithmeticError) as error:  # InputError, or a bad value in given
    raise InputError(f'{path}: {brief(error)}') from None
  fields |= {field: value for field, value in stated.items() if field not in ('name', 'names')}
  fields |= given
  unstated = [field for field, value in fields.items() if isinstance(value, Unstated)]
  for field in unstated:
    fields[field] = fields[field].assumed
    if fields[field] is None:
      fields[field] = (assumed or {}).get(field)
    if fields[field] is None:
      raise InputError(f'{path}: no tensor determines the field {field} of {name}; set it with '
                       f'--set {field}=VALUE')
  for field in ('blocks', 'groups'):  # each has at least one tensor
    if type(fields.get(field)) is int and fields[field] > len(tensors):
      raise InputError(f'{path}: {field}={fields[field]} is more than its {len(tensors)} tensors')
  return WeightFile(family, name, fields, unstated, tensors, origin)


def _read_tensors_and_fields(path: pathlib.Path, wrapper: str) -> tuple[
    dict[str, np.ndarray], dict[str, Any], str]:
  """Returns (tensors, fields of the generator that the file states, file format)."""
  if path.suffix == '.param' or (path.suffix == '.bin' and path.with_suffix('.param').is_file()):
    if wrapper:
      raise InputError(f'{path}: has no key {wrapper!r}; an ncnn network has no keys')
    tensors, stated = ncnn.read_ncnn(path)
    return tensors, stated, 'ncnn'
  tensors, metadata = read_tensors(path, wrapper=wrapper)
  origin = path.suffix.removeprefix('.')
  if 'wrapper' in metadata:
    origin += f', {metadata["wrapper"]}'
  return tensors, stated_fields(path, metadata), origin


def stated_fields(path: pathlib.Path, metadata: dict[str, str]) -> dict[str, Any]:
  """Returns the fields in our own metadata entry; {} for a file that we did not write."""
  if METADATA_KEY not in metadata:
    return {}
  try:
    stated = {field: tuple(value) if isinstance(value, list) else value
              for field, value in dict(json.loads(metadata[METADATA_KEY])).items()}
  except (ValueError, TypeError, RecursionError):
    stated = None
  if stated is None or not all(field.isidentifier() and not field.startswith('_') and isinstance(
      value, str | int | float | tuple) for field, value in stated.items()):
    raise InputError(f'{path}: its metadata entry {METADATA_KEY!r} is damaged')
  return stated


def to_variables(file: WeightFile, generator: nn.Module) -> dict[str, Any]:
  """Converts the tensors to float32 variables of `generator`, {'params': ..., 'batch_stats': ...}.

  Raises:
    InputError: a tensor is missing, unexpected or of another shape or type, or has non-finite
      values. The message has its name, its shape and the shape expected.
  """
  forms = families.forms_of(file.family, generator)
  layouts = [families.layout_of(file.family, file.name, form) for form in forms]
  buffers = families.buffers_of(file.family, generator)
  for name in file.tensors.keys() & buffers.keys():
    found, expected = (list(tensors[name].shape) for tensors in (file.tensors, buffers))
    if len(found) != len(expected) or found[1:] != expected[1:]:
      raise InputError(f'{name} is {found}, expected {expected} or another number of rows')
  file = file._replace(tensors={name: tensor for name, tensor in file.tensors.items()
                                if name not in buffers})
  form, layout = _stored_form(file.tensors, forms, layouts)
  shapes = {name: shape for other in layouts for name, shape, _ in other.values()}
  _check_tensors(file, layout, {name: shapes[name] for name in file.tensors if name in shapes},
                 families.constants_of(file.family, generator))
  flat = {}
  for path, (name, _, axes) in layout.items():
    flat[path] = np.ascontiguousarray(np.float32(file.tensors[name]).transpose(axes))
  variables = {'batch_stats': {}} | traverse_util.unflatten_dict(flat, sep='/')
  return families.converted(file.family, variables, form, generator)


def _stored_form(tensors: dict[str, np.ndarray], forms: Sequence[nn.Module],
                 layouts: Sequence[dict[str, TensorLayout]]
                 ) -> tuple[nn.Module, dict[str, TensorLayout]]:
  """Returns the first form of which a file has a tensor that no other form has, and its layout."""
  names = [{name for name, _, _ in layout.values()} for layout in layouts]
  for index, form in enumerate(forms[:-1]):
    others = set().union(*names[:index], *names[index + 1:])
    if names[index] & tensors.keys() - others:
      return form, layouts[index]
  return forms[-1], layouts[-1]


def _check_tensors(file: WeightFile, layout: dict[str, TensorLayout],
                   optional: dict[str, tuple[int, ...]],
                   constants: dict[str, np.ndarray]) -> None:
  """Raises InputError for a tensor that is wrong, missing, or in neither layout nor `optional`."""
  expected = optional | {name: shape for name, shape, _ in layout.values()}
  if any(name in constants for name in file.tensors):  # a file has all constants or none
    expected |= {name: tensor.shape for name, tensor in constants.items()}
  network = f'{file.name} ({", ".join(f"{key} {value}" for key, value in file.fields.items())})'
  for name, shape in expected.items():
    if name in file.tensors and file.tensors[name].shape != shape:
      raise InputError(f'{name} is {list(file.tensors[name].shape)}, expected {list(shape)} of '
                       f'{network}')
  for name, shape in expected.items():
    if name not in file.tensors:
      raise InputError(f'{name} is missing, expected {list(shape)} of {network}')
  for name, tensor in file.tensors.items():
    if name not in expected:
      raise InputError(f'{name} {list(tensor.shape)} is not a tensor of {network}')
    if not (np.issubdtype(tensor.dtype, np.floating) or tensor.dtype == ml_dtypes.bfloat16):
      raise InputError(f'{name} {list(tensor.shape)} is of type {tensor.dtype}, expected a float')
    with np.errstate(over='ignore'):
      if not np.isfinite(np.float32(tensor)).all():
        raise InputError(f'{name} {list(tensor.shape)} has non-finite values (NaN/Inf)')
    if name in constants and not np.allclose(tensor, constants[name], rtol=1e-5):
      raise InputError(f'{name} is {tensor.ravel().tolist()}, expected '
                       f'{constants[name].ravel().tolist()} of {network}')


def to_tensors(family: str, name: str, generator: nn.Module,
               variables: dict[str, Any]) -> dict[str, np.ndarray]:
  """Converts variables to tensors in the names of a family, the inverse of `to_variables`.

  Raises:
    InputError: the family has no such network, or not with these fields; the message names the
      field.
  """
  families.checked_layout(family, name, generator)
  tensors = families.constants_of(family, generator) | families.buffers_of(family, generator)
  for form in families.forms_of(family, generator):
    flat = traverse_util.flatten_dict(families.converted(family, variables, generator, form),
                                      sep='/')
    for path, (tensor, _, axes) in families.layout_of(family, name, form).items():
      tensors[tensor] = np.ascontiguousarray(np.asarray(flat[path]).transpose(np.argsort(axes)))
  return tensors


def _fields_to_state(path: pathlib.Path, generator: nn.Module) -> dict[str, Any]:
  """Returns the fields of a generator that a file's metadata can state.

  Raises:
    InputError: a field of a network of the user's own has a value that JSON cannot express and that
      is not the default of its class.
  """
  fields = {field: value for field, value in architecture(generator).items()
            if field != 'network' and value is not None}
  defaults = {field.name: field.default for field in dataclasses.fields(generator)}
  stated = {field: value for field, value in fields.items() if all(
      isinstance(entry, str | int | float)
      for entry in (value if isinstance(value, tuple) else [value]))}
  for field in fields.keys() - stated.keys():
    if fields[field] is not defaults[field]:
      raise InputError(f'{path}: cannot state the field {field}={brief(repr(fields[field]), 80)} '
                       f'of class {type(generator).__name__}; expected numbers, strings or tuples '
                       'of them')
  return stated


def check_texts(path: pathlib.Path, texts: Collection[str], own: Collection[str]) -> None:
  """Refuses metadata whose names a file needs for entries of its own.

  Raises:
    InputError: names the first such entry.
  """
  for name in texts:
    if name in own:
      raise InputError(f'{path}: --metadata {name}: the file has an entry of this name itself; '
                       'choose another name')


def write_generator(path: os.PathLike | str, family: str, name: str, generator: nn.Module,
                    variables: dict[str, Any], half: bool = False,
                    texts: dict[str, str] | None = None) -> None:
  """Writes a `.safetensors` or `.pth` file atomically; `read_generator` reads it back.

  Every field of the generator is in the metadata of a `.safetensors`, and in the entry 'sr_jax' of
  a `.pth`, which other readers ignore. A `.pth` has the tensors under both `params` and
  `params_ema`, of which each tool reads one, or at the top level and without fields for the
  families of UNWRAPPED.

  Args:
    half: whether the weights are written in float16.
    texts: further entries of the metadata.

  Raises:
    InputError: as `to_tensors` and `check_texts`, a weight is not finite, or the file cannot be
      written.
  """
  path = files.expand(path)
  if path.suffix not in ('.safetensors', '.pth'):
    raise InputError(f'{path}: expected a file name that ends in .safetensors or .pth')
  tensors = to_tensors(family, name, generator, variables)
  if half:
    with np.errstate(over='ignore'):
      tensors = {key: np.float16(tensor) if tensor.dtype == np.float32 else tensor
                 for key, tensor in tensors.items()}
  for key, tensor in tensors.items():
    if not np.isfinite(tensor).all():
      raise InputError(f'{path}: not written, because the weights {key} {list(tensor.shape)} have '
                       f'non-finite values (NaN/Inf){" in float16" * half}')
  stated = _fields_to_state(path, generator)
  if family == NATIVE:
    stated |= {'name': name, 'names': NATIVE}
  wrappers = ('params', 'params_ema') if path.suffix == '.pth' and family not in UNWRAPPED else ()
  check_texts(path, texts or {}, (METADATA_KEY, *wrappers))
  metadata = {**(texts or {}), METADATA_KEY: json.dumps(stated, sort_keys=True)}
  if path.suffix == '.pth':
    if texts and not wrappers:
      raise InputError(f'{path}: a .pth of the names {family} has no place for --metadata')
    data = pth_bytes(tensors, wrappers, metadata)
  else:
    data = save(tensors, metadata)
  with files.atomic_write(path) as temporary:
    # Not safetensors' `save_file`, whose error on a full disk is not an OSError.
    temporary.write_bytes(data)
