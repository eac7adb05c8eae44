"""Generators in weight files: whose names they have, what network it is, there and back."""

import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from flax import traverse_util
from safetensors.numpy import save_file

from sr_jax.errors import InputError, brief
from sr_jax.models import GENERATORS, architecture, variable_shapes
from sr_jax.pretrained import basicsr, edsr_pytorch, esrgan, ncnn
from sr_jax.pretrained.shapes import Unstated
from sr_jax.pretrained.tensors import read_tensors
from sr_jax.system import files


class Family(NamedTuple):
  """One project's names: `infer(tensors, told)`, `names(name, generator)`, the networks that it
  has, each with a function that says of a generator whether it is one of those, and the
  tensors of a generator that are not learnt.
  """

  infer: Callable
  names: Callable
  networks: dict[str, Callable]
  constants: Callable = lambda generator: {}


FAMILIES = {
    'basicsr': Family(basicsr.infer, basicsr.names, basicsr.NETWORKS),
    'esrgan': Family(esrgan.infer_later, esrgan.names_later, esrgan.NETWORKS_LATER),
    'esrgan-old': Family(esrgan.infer, esrgan.names, esrgan.NETWORKS),
    'edsr-pytorch': Family(edsr_pytorch.infer, edsr_pytorch.names, edsr_pytorch.NETWORKS,
                           edsr_pytorch.constants)}
OWN = 'sr_jax'  # our names and axes, for what no other project has
METADATA = 'sr_jax'  # the key of a safetensors file's metadata that describes the generator
LEAVES = {'kernel': 'weight', 'bias': 'bias', 'negative_slope': 'weight'}


class WeightFile(NamedTuple):
  """What a file holds: tensors in a family's names, of a network with these fields."""

  family: str
  name: str  # of models.GENERATORS
  fields: dict[str, Any]  # its scale among them
  usual: list[str]  # fields that the file does not tell and that have their usual value
  tensors: dict[str, np.ndarray]
  origin: str  # the format in a few words


def read_generator(path, given: dict[str, Any] | None = None, wrapper: str = '',
                   usual: dict[str, Any] | None = None) -> WeightFile:
  """Reads a weight file and tells its network from names and shapes.

  Args:
    path: `.safetensors`, `.pth`, `.pt`, or one of an ncnn pair `.param`, `.bin`.
    given: fields that override what was found, or that it can't tell.
    wrapper: as in `files.read_tensors`.
    usual: what fields have that neither the file nor `given` tells, and whose usual value the
      family of names does not know.

  Raises:
    InputError: unreadable, of no known network, or a field is wanting, which it names.
  """
  path, given = pathlib.Path(path), given or {}
  for field in given:
    if field in ('name', 'names', 'dtype') or field.startswith('_'):
      raise InputError(f'{path}: {field} can not be set')
  if path.suffix == '.param' or (path.suffix == '.bin' and path.with_suffix('.param').is_file()):
    if wrapper:
      raise InputError(f'{path}: has no {wrapper!r}: an ncnn network is one set of tensors')
    tensors, stated = ncnn.read_ncnn(path)
    origin = 'ncnn'
  else:
    tensors, metadata = read_tensors(path, wrapper=wrapper)
    origin = path.suffix.removeprefix('.')
    if 'wrapper' in metadata:
      origin += f', {metadata["wrapper"]}'
    stated = _stated(path, metadata)
  try:
    family, name, fields = _recognise(tensors, stated, stated | given)
  except (ValueError, TypeError, ArithmeticError) as error:  # of what was told, or InputError
    raise InputError(f'{path}: {brief(error)}') from None
  fields |= {field: value for field, value in stated.items() if field not in ('name', 'names')}
  fields |= given
  untold = [field for field, value in fields.items() if isinstance(value, Unstated)]
  for field in untold:
    fields[field] = fields[field].usual
    if fields[field] is None:
      fields[field] = (usual or {}).get(field)
    if fields[field] is None:
      raise InputError(f'{path}: {name} has a {field} that no tensor tells: name it with '
                       f'--set {field}=VALUE')
  if type(fields.get('blocks')) is int and fields['blocks'] > len(tensors):
    raise InputError(f'{path}: blocks={fields["blocks"]}, of {len(tensors)} tensors in all')
  return WeightFile(family, name, fields, untold, tensors, origin)


def _stated(path: pathlib.Path, metadata: dict[str, str]) -> dict[str, Any]:
  """What our own metadata says of the generator: {} in a file of somebody else."""
  if METADATA not in metadata:
    return {}
  try:
    stated = {field: tuple(value) if isinstance(value, list) else value
              for field, value in dict(json.loads(metadata[METADATA])).items()}
  except (ValueError, TypeError, RecursionError):
    stated = None
  if stated is None or not all(field.isidentifier() and not field.startswith('_') and isinstance(
      value, str | int | float | tuple) for field, value in stated.items()):
    raise InputError(f'{path}: its metadata {METADATA!r} is damaged')
  return stated


def _recognise(tensors: dict, stated: dict, told: dict) -> tuple[str, str, dict]:
  if stated.get('names') == OWN:
    if stated.get('name') not in GENERATORS:
      raise InputError(f'holds a {stated.get("name")!r}; known are {", ".join(GENERATORS)}')
    if 'scale' not in stated:
      raise InputError('states no scale')
    return OWN, stated['name'], {}
  for family, (infer, *_) in FAMILIES.items():
    found = infer(tensors, told)
    if found:
      return family, *found
  some = ', '.join(f'{name} {list(tensor.shape)}' for name, tensor in list(tensors.items())[:3])
  raise InputError(f'no network that is known here: {len(tensors)} tensors'
                   + (f' such as {some}' if some else ''))


def to_variables(found: WeightFile, generator) -> dict:
  """The tensors as `generator`'s variables, float32: {'params': ..., 'batch_stats': ...}.

  Raises:
    InputError: a tensor is missing, has another shape or is one too many; the message has
      its name, its shape and the shape expected.
  """
  layout = _layout(found.family, found.name, generator)
  constants = _constants(found.family, generator)
  expected = {theirs: shape for theirs, shape, _ in layout.values()}
  if any(name in constants for name in found.tensors):  # all of them, or none
    expected |= {name: tensor.shape for name, tensor in constants.items()}
  what = f'{found.name} ({", ".join(f"{key} {value}" for key, value in found.fields.items())})'
  for name, shape in expected.items():
    if name in found.tensors and found.tensors[name].shape != shape:
      raise InputError(f'{name} is {list(found.tensors[name].shape)}, expected {list(shape)} of '
                       f'{what}')
  for name, shape in expected.items():
    if name not in found.tensors:
      raise InputError(f'{name} is missing, expected {list(shape)} of {what}')
  for name, tensor in found.tensors.items():
    if name not in expected:
      raise InputError(f'{name} {list(tensor.shape)} is one too many for {what}')
    if not (np.issubdtype(tensor.dtype, np.floating) or tensor.dtype == ml_dtypes.bfloat16):
      raise InputError(f'{name} {list(tensor.shape)} is of type {tensor.dtype}, expected a float')
    with np.errstate(over='ignore'):
      if not np.isfinite(np.float32(tensor)).all():
        raise InputError(f'{name} {list(tensor.shape)} has numbers that are infinite or none')
    if name in constants and not np.allclose(tensor, constants[name], rtol=1e-5):
      raise InputError(f'{name} is {tensor.ravel().tolist()}, expected '
                       f'{constants[name].ravel().tolist()} of {what}')
  flat = {}
  for path, (theirs, _, ours) in layout.items():
    array = np.float32(found.tensors[theirs])
    flat[path] = np.ascontiguousarray(array.transpose(ours))
  return {'batch_stats': {}} | traverse_util.unflatten_dict(flat, sep='/')


def _layout(family: str, name: str, generator) -> dict[str, tuple]:
  """{our path: (their name, their shape, axes that turn theirs into ours)}."""
  shapes = {path: leaf.shape for path, leaf in
            traverse_util.flatten_dict(variable_shapes(generator), sep='/').items()}
  if family == OWN:
    return {path: (path, shape, tuple(range(len(shape)))) for path, shape in shapes.items()}
  names, layout = FAMILIES[family].names(name, generator), {}
  for path, shape in shapes.items():
    layer, _, leaf = path.removeprefix('params/').rpartition('/')
    if layer not in names or leaf not in LEAVES:
      raise InputError(f"{path} has no counterpart in {family}'s names; --names {OWN} has them all")
    theirs = f'{names[layer]}.{LEAVES[leaf]}'
    if leaf == 'kernel':  # ours [height, width, in, out], theirs [out, in, height, width]
      layout[path] = theirs, (*shape[:1:-1], *shape[:2]), (2, 3, 1, 0)
    else:
      layout[path] = theirs, shape, (0,)
  return layout


def _constants(family: str, generator) -> dict[str, np.ndarray]:
  return {} if family == OWN else FAMILIES[family].constants(generator)


def fitting_family(name: str, generator, first: str = '') -> str:
  """The names that an export has if nobody says otherwise: `first`, where the weights came with
  it, or else those of the first project that has the network, or our own.
  """
  for family in (*filter(None, [first]), *FAMILIES):
    try:
      _refuse_unless_held(family, name, generator)
      return family
    except InputError:
      continue
  return OWN


def to_tensors(family: str, name: str, generator, variables: dict) -> dict[str, np.ndarray]:
  """The inverse of `to_variables`.

  Raises:
    InputError: the family has no such network, or not with these fields; it names the field.
  """
  _refuse_unless_held(family, name, generator)
  layout, flat = _layout(family, name, generator), traverse_util.flatten_dict(variables, sep='/')
  tensors = {}
  for path, (theirs, _, ours) in layout.items():
    tensors[theirs] = np.ascontiguousarray(np.asarray(flat[path]).transpose(np.argsort(ours)))
  return tensors | _constants(family, generator)


def _refuse_unless_held(family: str, name: str, generator) -> None:
  """Refuses a network that the family's project has not, or that its names tell as another."""
  if family == OWN:
    return
  if family not in FAMILIES:
    raise InputError(f'names {family!r}: expected one of {", ".join((*FAMILIES, OWN))}')
  networks = FAMILIES[family].networks
  if name not in networks:
    raise InputError(f"{family} has no {name}: its names are {', '.join(networks)}'s; "
                     f'--names {OWN} has them all')
  if not networks[name](generator):
    raise InputError(f"{family}'s {name} has no scale {generator.scale}, channels "
                     f'{generator.channels} as this one; --names {OWN} has them all')
  tensors = {theirs: np.broadcast_to(np.float32(0), shape)  # their shapes tell, not their numbers
             for theirs, shape, _ in _layout(family, name, generator).values()}
  tensors |= _constants(family, generator)
  try:
    _, fields = FAMILIES[family].infer(tensors, architecture(generator)) or ('', None)
  except InputError:
    fields = None
  if fields is None:
    raise InputError(f"{family}'s {name} has no such layers; --names {OWN} has them all")
  stated = {field: value for field, value in fields.items() if not isinstance(value, Unstated)}
  unstated = {field: getattr(generator, field) for field in fields.keys() - stated.keys()}
  theirs = architecture(GENERATORS[name](**stated, **unstated))
  for field, want in architecture(generator).items():
    if theirs[field] != want:
      raise InputError(f"{field}={want!r}: {family}'s {name} has {theirs[field]!r}; --names {OWN} "
                       'writes any')


def write_generator(path, family: str, name: str, generator, variables: dict) -> None:
  """Writes a `.safetensors` file, whole or not at all, that `read_generator` reads back.

  Every field of the generator is in the file's metadata, which other readers ignore.

  Raises:
    InputError: as `to_tensors`, or it can not be written.
  """
  path = files.expand(path)
  if path.suffix != '.safetensors':
    raise InputError(f'{path}: only .safetensors is written')
  tensors = to_tensors(family, name, generator, variables)
  stated = {field: value for field, value in architecture(generator).items()
            if field != 'network' and value is not None}
  if family == OWN:
    stated |= {'name': name, 'names': OWN}
  with files.atomic_write(path) as temporary:
    save_file(tensors, temporary, {METADATA: json.dumps(stated, sort_keys=True)})
