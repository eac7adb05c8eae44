"""Finds classes and functions of the user's own, which configs name as 'module:name'.

Importing a module executes it. A run folder or a weight file may come from anywhere, so a module is
only imported if the command line, a config file or the calling program has named it; `allow` adds
such a module.
"""

import importlib
import os
import re
import sys
from collections.abc import Iterable
from typing import Any

from sr_jax.errors import InputError, brief

# Process-wide, because `find` is called far below the commands that know what the user named.
_allowed: set[str] = set()


def is_spec(name: Any) -> bool:
  """Returns whether a value has the form 'module:name', such as 'my.losses:edges'."""
  return isinstance(name, str) and bool(re.fullmatch(r'[^\W\d][\w.]*:[^\W\d]\w*', name))


def allow(modules: Iterable[str]) -> None:
  """Allows modules to be imported when a config, a run or a weight file names them."""
  _allowed.update(modules)


def refuse_unless_allowed(spec: str, where: str) -> None:
  """Refuses code of a module that nobody has named, without importing it.

  Args:
    spec: 'module:name'.
    where: what contains the spec, for the message, such as "runs/a/config.json: generator.name".

  Raises:
    InputError: the module is not among those of `allow`.
  """
  module = spec.partition(':')[0]
  if module not in _allowed:
    raise InputError(f'{where}={spec!r}: is code outside sr_jax, which a run or a weight file '
                     f'cannot import by itself; if you trust it, add --import {module} (in Python: '
                     f'sr_jax.allow_import({module!r}))')


def find(spec: str, where: str) -> Any:
  """Returns the class or function that 'module:name' names; imports its module.

  Modules in the current folder are found, as with `python -m`.

  Args:
    spec, where: as for `refuse_unless_allowed`.

  Raises:
    InputError: the module is not allowed, cannot be imported or has no such name.
  """
  refuse_unless_allowed(spec, where)
  module_name, _, name = spec.partition(':')
  if os.getcwd() not in sys.path and '' not in sys.path:
    sys.path.insert(0, os.getcwd())
  try:
    module = importlib.import_module(module_name)
  except Exception as error:  # whatever the user's module raises
    raise InputError(f'{where}={spec!r}: cannot import {module_name} ({type(error).__name__}: '
                     f'{brief(error, 200)})') from None
  if not hasattr(module, name):
    raise InputError(f'{where}={spec!r}: {module_name} has no {name}')
  return getattr(module, name)


def spec_of(value: Any, where: str) -> str:
  """Returns the 'module:name' of a class or function that the calling program gave, and allows it.

  Raises:
    InputError: it is not at the top level of a module, so nothing could find it later.
  """
  module_name, name = getattr(value, '__module__', None), getattr(value, '__qualname__', '')
  spec = f'{module_name}:{name}'
  if not is_spec(spec) or getattr(sys.modules.get(module_name), name, None) is not value:
    raise InputError(f'{where}={brief(repr(value), 100)}: expected a class or function at the top '
                     "level of a module, or its name as 'module:name'")
  allow([module_name])
  return spec
