"""Builds a network from its fields with all values checked, and compares two networks."""

import dataclasses
import difflib
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from sr_jax.errors import InputError, brief, listed
from sr_jax.models import DISCRIMINATORS, GENERATORS, architecture
from sr_jax.models.layers import INITIALIZERS
from sr_jax.system import user_code, user_failures

# Fields that are set for every network, and how a class declares them.
COMMON_FIELDS = {'scale': 'scale: int = 4', 'dtype': 'dtype: jnp.dtype = jnp.float32'}

# Limits that catch typing errors: a larger network takes minutes to set up before it fails.
MAX_FIELD_VALUES = {'scale': 64, 'blocks': 128, 'groups': 128, 'stem_blocks': 128}
MAX_INTEGER = 1 << 20  # of every other integer field
MAX_LAYERS = 64  # length of a field that lists one value per layer


def build_generator(fields: Mapping[str, Any], scale: int, dtype: str,
                    where: str = 'config.generator.') -> nn.Module:
  """Builds a generator.

  Args:
    fields: 'name', a key of `models.GENERATORS` or 'module:name' of the user's own; optionally
      'init', a key of `models.layers.INITIALIZERS`; and fields of that module. None means the
      module's default.
    scale: HR / LR.
    dtype: name of the dtype to compute in, such as 'float32' or 'bfloat16'.
    where: prefix of a field's name in error messages.

  Raises:
    InputError: an unknown name, a field that the module doesn't have, or a value of the wrong type
      or range; a class that lacks what every network must have, or that cannot be imported.
  """
  make = find_network(fields['name'], GENERATORS, f'{where}name')
  return _build(make, fields, where, scale=scale, dtype=jnp.dtype(dtype))


def find_network(name: Any, known: Mapping[str, Callable[..., nn.Module]],
                 where: str) -> Callable[..., nn.Module]:
  """Returns the class, or functools.partial of one, that a name stands for.

  Args:
    name: a key of `known`, or 'module:name' of the user's own.
    where: the key that has the name, for messages, such as 'config.generator.name'.

  Raises:
    InputError: the name is unknown, or a module of the user's own is not allowed or cannot be
      imported (`user_code.find`).
  """
  if user_code.is_spec(name):
    return user_code.find(name, where)
  if not isinstance(name, str) or name not in known:
    raise InputError(f'{where}={brief(repr(name), 100)}: no such network; expected one of '
                     f"{', '.join(known)}, or 'module:name' of your own")
  return known[name]


def build_discriminator(fields: Mapping[str, Any], dtype: str,
                        where: str = 'config.discriminator.') -> nn.Module | None:
  """Builds a discriminator, as `build_generator` does; returns None for the name 'none'."""
  if fields['name'] == 'none':
    return None
  make = find_network(fields['name'], DISCRIMINATORS, f'{where}name')
  return _build(make, fields, where, dtype=jnp.dtype(dtype))


def _build(make: Callable[..., nn.Module], fields: Mapping[str, Any], where: str,
           **common: Any) -> nn.Module:
  name, init = fields['name'], fields.get('init')
  module = make.func if isinstance(make, functools.partial) else make
  _check_class(name, module, where, common)
  hints = _hints(module)
  annotations = {field.name: hints.get(field.name) for field in dataclasses.fields(module)
                 if field.name not in ('parent', 'name', 'kernel_init')}
  values = {field: tuple(value) if isinstance(value, list) else value  # JSON has no tuples
            for field, value in fields.items()
            if field not in ('name', 'init') and value is not None} | common
  unknown = [field for field in values if field not in annotations]
  if init and 'kernel_init' not in {field.name for field in dataclasses.fields(module)}:
    unknown.append('init')
  if unknown:
    raise InputError(_unknown_fields(unknown, annotations.keys() - common.keys(), name, where))
  for field, value in values.items():
    _check_type(f'{where}{field}', value, annotations[field])
    if not user_code.is_spec(name) or field in common:
      _check_count(f'{where}{field}', value, annotations[field],
                   MAX_FIELD_VALUES.get(field, MAX_INTEGER))
  if init:
    values['kernel_init'] = INITIALIZERS[init]
  missing = [f'{where}{argument.name}' for argument in inspect.signature(make).parameters.values()
             if argument.default is argument.empty and argument.name not in values
             and argument.kind not in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD)]
  if missing:
    raise InputError(f'{listed(missing)}: missing; class {module.__name__} has no default for it')
  try:
    return make(**values)
  except user_failures.RAISED as error:
    refused = isinstance(error, (ValueError, TypeError))
    if not refused and not user_code.is_spec(name):
      raise
    text = user_failures.shortened(error) if refused else user_failures.described(error)
    raise InputError(f'{where.rstrip(".") or name}: {text}') from None


def _unknown_fields(unknown: Sequence[str], known: Collection[str], name: str, where: str) -> str:
  """Returns the message for fields that a network does not have.

  Args:
    unknown: all such fields.
    known: the fields that it has.
    name, where: of the network and of its fields, as for `build_generator`.
  """
  known, words = sorted(known), 'field' if len(unknown) == 1 else 'fields'
  similar = {field: match for field in unknown
             for match in difflib.get_close_matches(field, known, 1, 0.7)}
  text = f'{", ".join(where + field for field in unknown)}: {name} has no such {words}'
  for field, match in similar.items():
    text += f'; did you mean {match}' + f' for {field}' * (len(unknown) > 1) + '?'
  if 'init' in unknown:
    text += '; init sets the field kernel_init'
  # A config may have these from an experiment with another network; others are typing errors.
  others = [field for field in unknown if field in _fields_of_ours() and field not in similar]
  if others and where in ('config.generator.', 'config.discriminator.'):
    text += f'; leave out {", ".join(others)}, or set to None what the experiment sets'
    if user_code.is_spec(name):
      text += (f'; in Python and config files, {where[:-1]} = dict(name=..., FIELD=...) replaces '
               'all fields')
  return f'{text}; ' + (f'its fields are {", ".join(known)}' if known
                        else 'it has no fields of its own')


def _fields_of_ours() -> set[str]:
  """Returns the keys of all fields of the networks of sr_jax."""
  classes = [make.func if isinstance(make, functools.partial) else make
             for make in (*GENERATORS.values(), *DISCRIMINATORS.values())]
  return {'init'} | {field.name for made in classes for field in dataclasses.fields(made)}


def _check_class(name: str, module: Any, where: str, common: Mapping[str, Any]) -> None:
  """Raises InputError unless a class has what training and inference rely on."""
  if not (isinstance(module, type) and issubclass(module, nn.Module)):
    raise InputError(f'{where}name={name!r}: is {brief(repr(module), 100)}, expected a '
                     'class derived from flax.linen.Module, or functools.partial of one')
  declared = {field.name for field in dataclasses.fields(module)}
  for field in common.keys() - declared:
    raise InputError(f'{where}name={name!r}: class {module.__name__} must declare the field '
                     f'{field!r}, such as `{COMMON_FIELDS[field]}`')
  arguments = inspect.signature(module.__call__).parameters
  if 'train' not in arguments or arguments['train'].default is inspect.Parameter.empty:
    raise InputError(f'{where}name={name!r}: __call__ of class {module.__name__} must have the '
                     'argument `train: bool = False`, which is True in training')


def _hints(module: type[nn.Module]) -> dict[str, Any]:
  """Returns the types of a module's fields; {} if the annotations name what does not exist."""
  try:
    return typing.get_type_hints(module)  # annotations may be strings
  except Exception:  # of the user's own class
    return {}


def _check_type(key: str, value: Any, annotation: Any) -> None:
  """Raises InputError unless a value has the annotated type."""
  if not _has_type(value, annotation):
    raise InputError(f'{key}={value!r}: expected {getattr(annotation, "__name__", annotation)}')


def _check_count(key: str, value: Any, annotation: Any, maximum: int) -> None:
  """Raises InputError unless the integers of a value, which count something, are sensible."""
  entries = value if isinstance(value, tuple) else (value,)
  # Integers count things, except in fields of real numbers such as a mean or a factor.
  counts = [] if float in (annotation, *typing.get_args(annotation)) else [
      entry for entry in entries if type(entry) is int]
  if any(count < 1 for count in counts):
    raise InputError(f'{key}={value}: expected at least 1')
  if any(count > maximum for count in counts):
    raise InputError(f'{key}={value}: expected at most {maximum}')
  if len(entries) > MAX_LAYERS:
    raise InputError(f'{key}: {len(entries)} values, expected at most {MAX_LAYERS}')


def _has_type(value: Any, annotation: Any) -> bool:
  """Returns whether a value has the type that a module's field is annotated with."""
  arguments = typing.get_args(annotation)
  if typing.get_origin(annotation) in (types.UnionType, typing.Union):
    return any(_has_type(value, argument) for argument in arguments)
  if typing.get_origin(annotation) is tuple:
    if arguments[-1:] != (...,):  # a tuple of one length, such as tuple[int, str]
      return (isinstance(value, tuple) and len(value) == len(arguments)
              and all(map(_has_type, value, arguments)))
    return isinstance(value, tuple) and all(_has_type(entry, arguments[0]) for entry in value)
  if annotation is float:
    return type(value) in (int, float) and math.isfinite(value)
  # Of another type, of which a class of the user's own may have fields, any value is accepted.
  return annotation not in (int, bool, str, type(None)) or type(value) is annotation


def differing_keys(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
  """Returns the keys whose values differ, a missing key counting as None."""
  return [key for key in dict.fromkeys((*a, *b)) if a.get(key) != b.get(key)]


def refuse_unless_equal(a: nn.Module | None, a_origin: str, b: nn.Module | None, b_origin: str,
                        ignored: Sequence[str] = (), flag: str = '') -> None:
  """Refuses two networks of different classes or with different fields.

  Args:
    a_origin, b_origin: where each comes from, for the message.
    ignored: fields that may differ.
    flag: prefix that turns a field's name into the flag that changes it in `b`; '' gives no
      such advice.

  Raises:
    InputError: the networks differ; the message names the field and both values.
  """
  a_fields, b_fields = architecture(a), architecture(b)
  for field in differing_keys(a_fields, b_fields):
    if field in ignored:
      continue
    advice = ''
    if flag and a_fields.get(field) is not None and field != 'network':
      advice = f'; add {flag}{field}={a_fields[field]}'
    raise InputError(f'{a_origin} has {field}={a_fields.get(field)!r}, but {b_origin} has '
                     f'{b_fields.get(field)!r}{advice}')
