"""Describes the config keys for --helpkeys; reference_page.py makes docs/config.md of the same."""

import difflib
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sr_jax.errors import InputError
from sr_jax.experiment.degrade_keys import STAGE_KEYS
from sr_jax.experiment.key import FIXED, FREE, RESUME, Key, expected
from sr_jax.experiment.keys import GROUPS
from sr_jax.experiment.network_keys import DISCRIMINATOR, GENERATOR

COLUMNS = 100
CHANGES = {
    FREE: 'the run is resumed with the new value',
    RESUME: 'the run is resumed with the new value if --resume is given',
    FIXED: 'the new value needs a new run'}


class Entry(NamedTuple):
  """A key, with the sections that have the same key too.

  Attributes:
    also: such as ('optimizer.d', 'optimizer.warmup') for 'optimizer.g.learning_rate'.
  """

  key: Key
  also: tuple[str, ...]


def helpkeys(words: Sequence[str]) -> str:
  """Returns the keys whose description contains all words, as text of at most 100 columns.

  The description is a key's name, meaning and choices; its case does not matter. Without words all
  keys are returned.

  Raises:
    InputError: there is no such key; the message has the most similar names.
  """
  wanted = [word.lower().removeprefix('--').removeprefix('config.') for word in words]
  found = {title: [key for key in keys if all(word in _searched(key) for word in wanted)]
           for title, keys in GROUPS.items()}
  parts = ['\n'.join([title, *map(_as_text, entries(keys))])
           for title, keys in found.items() if keys]
  if not parts:
    raise InputError(_no_match(words, wanted))
  changes = [f'  {change:<6}  {meaning}' for change, meaning in CHANGES.items()]
  return '\n\n'.join([*parts, '\n'.join(['What a change of a key means for a run:', *changes])])


def entries(keys: Iterable[Key]) -> list[Entry]:
  """Returns the keys, with equal keys of several sections as one entry."""
  equal: dict[tuple, list[Key]] = {}
  for key in keys:
    equal.setdefault((key.name.rpartition('.')[2], key._replace(name='')), []).append(key)
  return [Entry(first, tuple(key.name.rpartition('.')[0] for key in rest))
          for first, *rest in equal.values()]


def attributes(key: Key, quote: str = '') -> str:
  """Returns 'an integer, at least 1; default 16; resume'.

  Args:
    quote: what encloses the default and the choices, such as a backtick.
  """
  allowed = expected(key)
  for choice in key.choices if quote else ():
    allowed = re.sub(rf'(?<= ){choice}(?=,|$)', f'{quote}{choice}{quote}', allowed)
  default = f'default {quote}{key.default!r}{quote}'
  if '.NAME.' in key.name:
    default = 'no default'
  elif key.default is None and key in (*GENERATOR, *DISCRIMINATOR):
    default = 'default of the network'
  elif key in STAGE_KEYS:
    default = 'default of the chain'
  return f'{allowed}; {default}; {key.change}'


def _as_text(entry: Entry) -> str:
  also = f' (also {", ".join(entry.also)})' if entry.also else ''
  return '\n'.join(
      textwrap.wrap(f'{entry.key.name}{also}: {attributes(entry.key)}', COLUMNS,
                    initial_indent='  ', subsequent_indent='      ', break_on_hyphens=False)
      + textwrap.wrap(entry.key.meaning, COLUMNS, initial_indent='      ',
                      subsequent_indent='      ', break_on_hyphens=False))


def _searched(key: Key) -> str:
  return ' '.join((key.name, key.meaning, *map(str, key.choices))).lower()


def _no_match(words: Sequence[str], wanted: Sequence[str]) -> str:
  keys = [key for group in GROUPS.values() for key in group]
  alone = [word for word in wanted if any(word in _searched(key) for key in keys)]
  if len(alone) == len(wanted):
    return f'--helpkeys {" ".join(words)}: no key has all of these words; give fewer'
  names = {part: key.name for key in reversed(keys)
           for part in (key.name.rpartition('.')[2], key.name)}
  similar = dict.fromkeys(names[part] for word in wanted if word not in alone
                          for part in difflib.get_close_matches(word, names, 3))
  advice = f'similar names: {", ".join(similar)}' if similar else '--helpkeys alone lists all keys'
  return f'--helpkeys {" ".join(words)}: no key has this in its name or meaning; {advice}'
