"""One key of a config: its type, default, range and meaning, and how a value of it is checked."""

import ast
import math
import numbers
import typing
from typing import Any, NamedTuple

from sr_jax.system import user_code

# What a change of a key means for a run that is resumed.
FREE = 'free'  # the run's weights and its best checkpoint do not depend on it
RESUME = 'resume'  # the run continues differently, which --resume must confirm
FIXED = 'fixed'  # the run cannot continue; the value needs a new run

TYPE_NAMES = {int: 'an integer', float: 'a number', bool: 'True or False', str: 'a string'}


class Key(NamedTuple):
  """A key of a config.

  Attributes:
    name: such as 'optimizer.g.learning_rate'.
    type: int, float, bool, str, or a tuple of int, float or str, such as `tuple[int, ...]`.
    default: None stands for what the network itself, or else `meaning`, says.
    meaning: in full sentences, with the unit.
    limits: the range of the value, or of each entry of a tuple, in the notation of intervals:
      '[0, 1)' includes 0 and excludes 1. A tuple of strings has one interval for each entry.
    lengths: numbers of entries that a tuple may have; () allows any.
    choices: the values that are allowed; () allows any.
    own: whether 'module:name' of a class or function of the user's own is allowed besides
      `choices`. The class or function itself is converted to that.
    only_own: whether nothing but 'module:name' and `choices` is allowed.
    change: FREE, RESUME or FIXED.
    ordered: whether the entries of a tuple may not decrease: a range.
  """

  name: str
  type: Any
  default: Any
  meaning: str
  limits: str | tuple[str, ...] = ''
  lengths: tuple[int, ...] = ()
  choices: tuple = ()
  own: bool = False
  change: str = RESUME
  only_own: bool = False
  ordered: bool = False


def convert(key: Key, value: Any) -> Any:
  """Returns `value` with the type of the key: an integer as a float, a list as a tuple.

  Raises:
    ValueError: the value has another type or is out of range; the text says what is expected.
  """
  if value is None and key.default is None:
    return None
  if key.own and callable(value):
    return user_code.spec_of(value)
  if typing.get_origin(key.type) is not tuple:
    return _convert_one(key, value, key.type, key.limits)
  if not isinstance(value, (tuple, list)):
    raise ValueError(expected(key))
  if key.lengths and len(value) not in key.lengths:
    raise ValueError(expected(key))
  limits = key.limits if isinstance(key.limits, tuple) else (key.limits,) * len(value)
  entry_type = typing.get_args(key.type)[0]
  entries = tuple(_convert_one(key, entry, entry_type, limit)
                  for entry, limit in zip(value, limits, strict=True))
  if key.ordered and list(entries) != sorted(entries):
    raise ValueError(expected(key))
  return entries


def parse(key: Key, text: str) -> Any:
  """Returns the value that `text` of the command line stands for.

  Raises:
    ValueError: as for `convert`.
  """
  if key.default is None and text in ('None', 'none'):
    return None
  if key.type is str:
    return convert(key, text)
  if key.type is bool:
    value = {'true': True, 't': True, '1': True, 'false': False, 'f': False, '0': False}.get(
        text.lower(), text)
    return convert(key, value)
  if key.type is float and text.lower().lstrip('+-') in ('nan', 'inf', 'infinity'):
    raise ValueError(expected(key))
  if key.type == tuple[str, ...] and not text.strip().startswith(('(', '[')):
    return convert(key, tuple(part.strip() for part in text.split(',')))
  try:
    value = ast.literal_eval(text.strip())
  except (ValueError, SyntaxError, MemoryError, RecursionError):
    raise ValueError(expected(key)) from None
  if typing.get_origin(key.type) is tuple and isinstance(value, (int, float)):
    value = (value,)
  return convert(key, value)


def expected(key: Key) -> str:
  """Returns what a value of the key must be, such as 'an integer, at least 1'."""
  if key.only_own:
    return "'module:name' of a function of your own" + " or ''" * ('' in key.choices)
  if key.choices:
    own = ", or 'module:name' of your own" if key.own else ''
    many = 'a tuple of any' if typing.get_origin(key.type) is tuple else 'one'
    return f'{many} of {", ".join(map(str, key.choices))}{own}'
  if typing.get_origin(key.type) is not tuple:
    return ', '.join(filter(None, (TYPE_NAMES[key.type], _in_words(key.limits))))
  kind = 'integers' if key.type == tuple[int, ...] else 'numbers'
  count = ' or '.join(map(str, key.lengths)) or 'a tuple of'
  if isinstance(key.limits, tuple):
    return f'{count} {kind}, ' + ' and '.join(_in_words(limit) for limit in key.limits)
  order = 'the first not above the second' if key.ordered else ''
  return ', '.join(filter(None, (f'{count} {kind}', _in_words(key.limits), order)))


def _convert_one(key: Key, value: Any, value_type: type, limits: str) -> Any:
  if value_type in (bool, str):
    valid = isinstance(value, value_type)
  else:
    valid = isinstance(value, numbers.Real) and not isinstance(value, bool) and _is_finite(value)
    if valid and value_type is int:
      valid = float(value).is_integer()
    if valid:
      value = value_type(value)
      valid = _is_within(value, limits)
  if not valid or ((key.choices or key.only_own) and value not in key.choices
                   and not (key.own and user_code.is_spec(value))):
    raise ValueError(expected(key))
  return value


def _is_finite(value: numbers.Real) -> bool:
  try:
    return math.isfinite(value)
  except OverflowError:  # an integer that no float can hold
    return False


def _bounds(limits: str) -> tuple[float, float]:
  low, high = limits[1:-1].split(',')
  return float(low), float(high)


def _is_within(value: float, limits: str) -> bool:
  if not limits:
    return True
  low, high = _bounds(limits)
  return (low < value or (low == value and limits[0] == '[')) and (
      value < high or (value == high and limits[-1] == ']'))


def _in_words(limits: str) -> str:
  """Returns 'at least 0 and less than 1' for '[0, 1)'."""
  if not limits:
    return ''
  low, high = (limit.strip() for limit in limits[1:-1].split(','))
  if limits[0] == '[' and limits[-1] == ']':
    return f'from {low} to {high}'
  parts = []
  if low != '-inf':
    parts.append(f'at least {low}' if limits[0] == '[' else f'more than {low}')
  if high != 'inf':
    parts.append(f'at most {high}' if limits[-1] == ']' else f'less than {high}')
  return ' and '.join(parts)
