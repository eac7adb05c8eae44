"""Compares a config with the table of keys: which keys are unknown, missing or invalid."""

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from sr_jax.errors import brief, listed
from sr_jax.experiment.key import Key, convert
from sr_jax.experiment.keys import KEYS, find_key
from sr_jax.experiment.named_keys import RESERVED, entry_fault, incomplete, siblings
from sr_jax.system import user_code

NETWORKS = ('generator', 'discriminator')
# The sections whose code of the user's own a mode imports, or `phases.build`. It remains a name in
# the others.
IMPORTED = {
    'train': user_code.SECTIONS, 'build': (*NETWORKS, 'loss'),
    'profile': (*NETWORKS, 'loss', 'data'), 'replay': (*NETWORKS, 'loss', 'data'),
    'evaluate': ('generator', 'eval'), 'summary': NETWORKS, 'examples': ('data',)}
SECTIONS = {'.'.join(parts[:length]) for parts in (name.split('.') for name in KEYS)
            for length in range(1, len(parts))} | set(RESERVED)


def defaults() -> dict[str, Any]:
  """Returns the default of every key as a nested dict."""
  return nested({name: key.default for name, key in KEYS.items()})


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
  """Returns {'a': {'b': 1}} for {'a.b': 1}, with the sections of the user's names even if empty."""
  tree: dict[str, Any] = {}
  for name, value in flat.items():
    *sections, last = name.split('.')
    section = tree
    for part in sections:
      section = section.setdefault(part, {})
    section[last] = value
  for name in RESERVED:
    section, _, last = name.partition('.')
    tree.setdefault(section, {}).setdefault(last, {})
  return tree


def flat(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Returns {'a.b': 1} for {'a': {'b': 1}}."""
  result = {}
  for name, value in config.items():
    result |= (flat(value, f'{prefix}{name}.') if isinstance(value, Mapping)
               else {f'{prefix}{name}': value})
  return result


def checked(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
  """Converts the values of a config to the types of their keys.

  Code of the user's own is not imported, only its names are checked.

  Args:
    config: nested, such as `ConfigDict.to_dict` returns.

  Returns:
    ({full name: value}, {full name: message}), the keys that are right and those that are not.
  """
  values: dict[str, Any] = {}
  own = own_networks(config)
  faults = dict(_walk(config, '', own, values))
  entries = {name.rpartition('.')[0] for name in faults}  # one fault of an entry is enough
  faults |= {name: fault for name, fault in incomplete(values)
             if name.rpartition('.')[0] not in entries}
  missing = [name for name in KEYS if name not in values and not any(
      name == fault or name.startswith(f'{fault}.') for fault in faults)
      and name.partition('.')[0] not in own]
  if missing:
    faults[missing[0]] = (f'config.{listed(missing, 3)}: missing; a config starts from sr_jax.'
                          'experiment.base_config.defaults(), and update() changes a section')
  return values, faults


def own_networks(config: Mapping[str, Any]) -> tuple[str, ...]:
  """Returns the sections whose network is the user's own.

  Such a network has fields of its own, which it checks itself.
  """
  sections = {section: config.get(section) for section in NETWORKS}
  return tuple(section for section, fields in sections.items() if isinstance(fields, Mapping)
               and is_own(fields.get('name')))


def is_own(name: Any) -> bool:
  """Returns whether the name of a network is that of a class of the user's own, or the class."""
  return user_code.is_spec(name) or callable(name)


def unknown_key(name: str, known: Collection[str] = ()) -> str:
  """Returns the message for a key that does not exist, with the most similar one that does.

  Args:
    name: full name.
    known: keys that exist besides those of the table: fields of a network of the user's own.
  """
  section, _, last = name.rpartition('.')
  entry = name if section in RESERVED else section
  if entry.rpartition('.')[0] in RESERVED and (
      fault := entry_fault(entry, None if entry == name else {})):
    return fault
  below = f'{section}.' if section else ''
  beside = dict.fromkeys(key.removeprefix(below).partition('.')[0]
                         for key in (*KEYS, *RESERVED, *siblings(name), *known)
                         if key.startswith(below))
  similar = [below + part for part in difflib.get_close_matches(last, beside, 1, 0.7)]
  if not similar:  # a key of another section
    parts = {key.rpartition('.')[2]: key for key in reversed(KEYS)}
    similar = [parts[part] for part in difflib.get_close_matches(last, parts, 1, 0.8)]
  if similar:
    return f'config.{name}: unknown key (did you mean config.{similar[0]}?)'
  if section in SECTIONS or siblings(name):
    return f'config.{name}: unknown key; the keys of config.{section} are {", ".join(beside)}'
  return f'config.{name}: unknown key; sr-jax train --helpkeys lists all keys'


def invalid_value(key: Key, shown: str, expected: str) -> str:
  """Returns the message for a value that a key cannot have."""
  return f'config.{key.name}={brief(shown, 80)}: expected {expected}'


def _walk(section: Mapping[str, Any], prefix: str, own: tuple[str, ...],
          values: dict[str, Any]) -> Iterator[tuple[str, str]]:
  """Yields (name, message) of what is wrong below a section; what is right goes to `values`."""
  for last, value in section.items():
    name = f'{prefix}{last}'
    if name in SECTIONS and isinstance(value, Mapping):
      yield from _walk(value, f'{name}.', own, values)
    elif name in SECTIONS:
      yield name, (f'config.{name}={brief(repr(value), 80)}: is a section of keys; set them as '
                   f'config.{name}.KEY')
    elif prefix.rstrip('.') in own and last not in ('name', 'init'):
      values[name] = value
    elif prefix.rstrip('.') in RESERVED:
      if fault := entry_fault(name, value):
        yield name, fault
      else:
        yield from _walk(value, f'{name}.', own, values)
    elif key := find_key(name):
      try:
        values[name] = convert(key, value)
      except ValueError as error:
        yield name, invalid_value(key, repr(value), str(error))
    else:
      yield name, unknown_key(name)
