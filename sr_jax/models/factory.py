"""A network from its fields, checked; two networks compared."""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Sequence

import jax.numpy as jnp

from sr_jax.errors import InputError
from sr_jax.models import DISCRIMINATORS, GENERATORS, architecture
from sr_jax.models.layers import INITIALIZERS

LARGEST = {'scale': 64, 'blocks': 128}  # more is a slip of the pen, and takes minutes to set up
MOST = 1 << 20  # of other whole numbers
MOST_LAYERS = 64  # of a network whose layers are listed


def build_generator(config, where: str = 'config.generator.'):
  """The generator that `config.generator`, `config.scale` and `config.dtype` describe.

  Args:
    where: what messages put before the name of a field.
  """
  return _module(GENERATORS, config.generator, where, scale=config.scale,
                 dtype=jnp.dtype(config.dtype))


def build_discriminator(config):
  """The discriminator, or None."""
  if config.discriminator.name == 'none':
    return None
  return _module(DISCRIMINATORS, config.discriminator, 'config.discriminator.',
                 dtype=jnp.dtype(config.dtype))


def _module(modules, fields, where, **more):
  make = modules[fields.name]
  module = make.func if isinstance(make, functools.partial) else make
  kinds = {field.name: field.type for field in dataclasses.fields(module)
           if field.name not in ('parent', 'name', 'kernel_init')}
  wanted = {name: tuple(value) if isinstance(value, list) else value  # JSON has no tuples
            for name, value in fields.items()
            if name not in ('name', 'init') and value is not None} | more
  for name in wanted.keys() - kinds.keys():
    raise InputError(f'{where}{name}: {fields.name} has no such field; it has '
                     f'{", ".join(sorted(kinds.keys() - more.keys()))}')
  for name, value in wanted.items():
    if not _is_of_kind(value, kinds[name]):
      kind = getattr(kinds[name], '__name__', kinds[name])
      raise InputError(f'{where}{name}={value!r}: expected {kind}')
    sizes = value if isinstance(value, tuple) else (value,)
    is_measure = float in (kinds[name], *typing.get_args(kinds[name]))  # a mean, a factor
    if not is_measure and any(type(size) is int and size < 1 for size in sizes):
      raise InputError(f'{where}{name}={value}: expected at least 1')
    most = LARGEST.get(name, MOST)
    if not is_measure and any(type(size) is int and size > most for size in sizes):
      raise InputError(f'{where}{name}={value}: expected at most {most}')
    if len(sizes) > MOST_LAYERS:
      raise InputError(f'{where}{name}: {len(sizes)} values, expected at most {MOST_LAYERS}')
  if fields.get('init'):
    wanted['kernel_init'] = INITIALIZERS[fields.init]
  try:
    return make(**wanted)
  except ValueError as error:
    raise InputError(f'{where.rstrip(".") or fields.name}: {error}') from None


def _is_of_kind(value, kind) -> bool:
  """Whether value has the type that a module's field is annotated with."""
  parts = typing.get_args(kind)
  if typing.get_origin(kind) in (types.UnionType, typing.Union):
    return any(_is_of_kind(value, part) for part in parts)
  if typing.get_origin(kind) is tuple:
    return isinstance(value, tuple) and all(_is_of_kind(part, parts[0]) for part in value)
  if kind is float:
    return type(value) in (int, float) and math.isfinite(value)
  return kind not in (int, bool, str, type(None)) or type(value) is kind


def differing_keys(have: dict, want: dict) -> list[str]:
  return [field for field in dict.fromkeys((*have, *want)) if have.get(field) != want.get(field)]


def refuse_unless_equal(have, where, want, where_else, besides: Sequence[str] = (),
                        flag: str = '') -> None:
  """Refuses two networks that differ in kind or in a field that is not in `besides`.

  Args:
    flag: what, before a field's name, changes it in the second.

  Raises:
    InputError: naming the field and both values.
  """
  fields, others = architecture(have), architecture(want)
  for field in differing_keys(fields, others):
    if field not in besides:
      advice = f'; {flag}{field}={fields[field]} makes them alike' if (
          flag and fields.get(field) is not None and field != 'network') else ''
      raise InputError(f'{where} has {field}={fields.get(field)!r}, {where_else} '
                       f'{others.get(field)!r}{advice}')
