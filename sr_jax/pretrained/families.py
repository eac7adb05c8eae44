"""The families of weight files: the names, shapes and axes that each project gives its tensors."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from flax import linen as nn
from flax import traverse_util

from sr_jax.errors import InputError
from sr_jax.models import GENERATORS, architecture, variable_shapes
from sr_jax.models.factory import find_network
from sr_jax.pretrained import basicsr, dat, edsr_pytorch, esrgan, hat, plksr, span, swinir
from sr_jax.pretrained.shapes import Tensors, Unstated


class Family(NamedTuple):
  """The tensor names of one project.

  Attributes:
    infer: `infer(tensors, given)` returns (name of a generator, its fields), or None if the
      tensors have other names.
    names: `names(name, generator)` returns {our layer: the project's layer}.
    networks: the generators that the project has, each with a function that says whether the
      project has this configuration of it.
    constants: `constants(generator)` returns tensors that are in a file but not trainable.
    forms: `forms(generator)` returns generators that compute the same from other variables. A file
      is written with the tensors of all forms; of a file that has several, the first is read.
    convert: `convert(variables, form, other)` converts the variables of one form to another.
    buffers: `buffers(generator)` returns tensors that follow from the network's sizes and, along
      their first axis, perhaps from those of the crops it was trained on. They are written, but
      not needed in a file that is read, and neither their values nor that axis are compared.
  """

  infer: Callable[[Tensors, dict[str, Any]], tuple[str, dict[str, Any]] | None]
  names: Callable[[str, nn.Module], dict[str, str]]
  networks: dict[str, Callable[[nn.Module], bool]]
  constants: Callable[[nn.Module], dict[str, np.ndarray]] = lambda generator: {}
  forms: Callable[[nn.Module], tuple[nn.Module, ...]] = lambda generator: (generator,)
  convert: Callable[[dict, nn.Module, nn.Module], dict] = lambda variables, form, other: variables
  buffers: Callable[[nn.Module], dict[str, np.ndarray]] = lambda generator: {}


FAMILIES = {
    'basicsr': Family(basicsr.infer, basicsr.names, basicsr.NETWORKS),
    'esrgan': Family(esrgan.infer_later, esrgan.names_later, esrgan.NETWORKS_LATER),
    'esrgan-old': Family(esrgan.infer, esrgan.names, esrgan.NETWORKS),
    'edsr-pytorch': Family(edsr_pytorch.infer, edsr_pytorch.names, edsr_pytorch.NETWORKS,
                           edsr_pytorch.constants),
    'plksr': Family(plksr.infer, plksr.names, plksr.NETWORKS, plksr.constants),
    'span': Family(span.infer, span.names, span.NETWORKS, span.constants, span.forms,
                   span.convert),
    'dat': Family(dat.infer, dat.names, dat.NETWORKS, buffers=dat.buffers),
    'hat': Family(hat.infer, hat.names, hat.NETWORKS, buffers=hat.buffers),
    'swinir': Family(swinir.infer, swinir.names, swinir.NETWORKS, buffers=swinir.buffers)}
NATIVE = 'sr_jax'  # the family of our own names and axes, for networks that no other project has
LEAF_NAMES = {'kernel': 'weight', 'bias': 'bias', 'negative_slope': 'weight', 'scale': 'weight',
              'mean': 'running_mean', 'var': 'running_var', 'temperature': 'temperature',
              'bias_table': 'relative_position_bias_table'}


class TensorLayout(NamedTuple):
  """The tensor in a file that corresponds to one of our arrays."""

  name: str
  shape: tuple[int, ...]
  axes: tuple[int, ...]  # the transposition that turns the tensor into our array


def recognise(tensors: Tensors, stated: dict[str, Any],
              given: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
  """Returns (family, name of the generator, its fields as far as inferred).

  Raises ValueError, TypeError or ArithmeticError for an unknown network or a bad value in `given`,
  which includes `stated`.
  """
  if stated.get('names') == NATIVE:
    find_network(stated.get('name'), GENERATORS, 'its metadata states name')
    if 'scale' not in stated:
      raise InputError('its metadata states no scale')
    return NATIVE, stated['name'], {}
  for family, (infer, *_) in FAMILIES.items():
    inferred = infer(tensors, given)
    if inferred:
      return family, *inferred
  examples = ', '.join(f'{name} {list(tensor.shape)}' for name, tensor in
                       list(tensors.items())[:3])
  raise InputError(f'not a known network: it has {len(tensors)} tensors'
                   + (f' such as {examples}' if examples else ''))


def layout_of(family: str, name: str, generator: nn.Module) -> dict[str, TensorLayout]:
  """Returns the tensor for each of our arrays, by the array's path."""
  shapes = {path: leaf.shape for path, leaf in
            traverse_util.flatten_dict(variable_shapes(generator), sep='/').items()}
  if family == NATIVE:
    return {path: TensorLayout(path, shape, tuple(range(len(shape))))
            for path, shape in shapes.items()}
  names, layout = FAMILIES[family].names(name, generator), {}
  for path, shape in shapes.items():
    layer, _, leaf = path.partition('/')[2].rpartition('/')
    if layer not in names or leaf not in LEAF_NAMES:
      raise InputError(f'{path}: {family} has no name for it; use --names {NATIVE}')
    tensor = f'{names[layer]}.{LEAF_NAMES[leaf]}'
    axes = tuple(range(len(shape)))
    if leaf == 'kernel':  # ours are [height, width, in, out], PyTorch's [out, in, height, width];
      *sides, inputs, outputs = shape  # those of dense layers have no height and width
      shape, axes = (outputs, inputs, *sides), (*axes[2:], 1, 0)
    layout[path] = TensorLayout(tensor, shape, axes)
  return layout


def constants_of(family: str, generator: nn.Module) -> dict[str, np.ndarray]:
  """Returns `Family.constants` of a generator."""
  return {} if family == NATIVE else FAMILIES[family].constants(generator)


def forms_of(family: str, generator: nn.Module) -> tuple[nn.Module, ...]:
  """Returns `Family.forms` of a generator."""
  return (generator,) if family == NATIVE else FAMILIES[family].forms(generator)


def converted(family: str, variables: dict[str, Any], form: nn.Module,
              other: nn.Module) -> dict[str, Any]:
  """Returns `Family.convert` of variables."""
  return variables if family == NATIVE else FAMILIES[family].convert(variables, form, other)


def buffers_of(family: str, generator: nn.Module) -> dict[str, np.ndarray]:
  """Returns `Family.buffers` of a generator."""
  return {} if family == NATIVE else FAMILIES[family].buffers(generator)


def fitting_family(name: str, generator: nn.Module, first: str = '') -> str:
  """Returns the default family for an export.

  That is `first`, the family that the weights were imported with, if it can express the
  network, else the first family that can, else our own.
  """
  for family in (*filter(None, [first]), *FAMILIES):
    try:
      checked_layout(family, name, generator)
      return family
    except InputError:
      continue
  return NATIVE


def checked_layout(family: str, name: str, generator: nn.Module) -> dict[str, TensorLayout]:
  """Returns `layout_of` if the family has this network and would read it back as the same one.

  Raises:
    InputError: the family has no such network, or not with these fields; the message names the
      field.
  """
  if family == NATIVE:
    return layout_of(family, name, generator)
  if family not in FAMILIES:
    raise InputError(f'--names {family!r}: expected one of {", ".join((*FAMILIES, NATIVE))}')
  networks = FAMILIES[family].networks
  if name not in networks:
    raise InputError(f'{family} has no {name}, only {", ".join(networks)}; use --names {NATIVE}')
  if not networks[name](generator):
    fields = architecture(generator)
    values = ', '.join(f'{field} {fields[field]}' for field in fields if field != 'network')
    raise InputError(f"{family}'s {name} does not exist with {values}; use --names {NATIVE}")
  layout = layout_of(family, name, generator)
  tensors = {tensor: np.broadcast_to(np.float32(0), shape)  # inferred from shapes, not values
             for tensor, shape, _ in layout.values()}
  tensors |= constants_of(family, generator) | buffers_of(family, generator)
  try:
    _, fields = FAMILIES[family].infer(tensors, architecture(generator)) or ('', None)
  except InputError:
    fields = None
  if fields is None:
    raise InputError(f"{family}'s {name} does not have these layers; use --names {NATIVE}")
  stated = {field: value for field, value in fields.items() if not isinstance(value, Unstated)}
  unstated = {field: getattr(generator, field) for field in fields.keys() - stated.keys()}
  inferred = architecture(GENERATORS[name](**stated, **unstated))
  for field, value in architecture(generator).items():
    if inferred[field] != value:
      raise InputError(f"{field}={value!r}: {family}'s {name} has {inferred[field]!r}; use "
                       f'--names {NATIVE}')
  return layout
