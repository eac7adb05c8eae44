"""Finds classes and functions of the user's own, which configs name as 'module:name'.

Importing a module executes it. A run folder or a weight file may come from anywhere, so a module is
only imported if the command line, a config file or the calling program has named it; `allow` adds
such a module. What a run's config.json or a weight file names is never passed to `allow`.
"""

import fnmatch
import importlib
import os
import pathlib
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from sr_jax.errors import InputError, brief

# The config keys that may name code of the user's own. `eval.sets` may have several names.
KEYS = ('generator.name', 'discriminator.name', 'loss.pixel.kind', 'loss.extra.*.fn',
        'data.source', 'data.valid', 'data.test', 'eval.sets', 'eval.extra.*.fn')
SECTIONS = tuple(dict.fromkeys(key.partition('.')[0] for key in KEYS))
# Data sources such as 'hr:photos' look like 'module:name', so no module can have these names.
SOURCE_KINDS = ('sample', 'folder', 'hr', 'pairs', 'div2k', 'tfds', 'split')
CONFIG_FILE = 'sr_jax_config_file'  # the name of the module that a config file becomes

# Process-wide, because `find` is called far below the commands that know what the user named.
_allowed: set[str] = set()


def is_spec(name: Any) -> bool:
  """Returns whether a value has the form 'module:name', such as 'my.losses:edges'."""
  word = r'[^\W\d]\w*'
  return (isinstance(name, str) and bool(re.fullmatch(rf'{word}(\.{word})*:{word}', name))
          and name.partition(':')[0] not in SOURCE_KINDS)


def named(config: Mapping[str, Any], sections: Collection[str] = SECTIONS) -> dict[str, list[str]]:
  """Returns {'generator.name': ['my:Net'], ...}: the keys of a config that name own code.

  Args:
    config: nested, or by full names; what is malformed in it is skipped.
    sections: those of SECTIONS to look at.
  """
  found: dict[str, list[str]] = {}
  for key, value in _flat(config, ''):
    if key.partition('.')[0] in sections and isinstance(value, str) and any(
        fnmatch.fnmatchcase(key, pattern) for pattern in KEYS):
      parts = value.split(',') if key == 'eval.sets' else [value]
      if specs := [part.strip() for part in parts if is_spec(part.strip())]:
        # A JSON file may have a key twice: {'generator.name': ..., 'generator': {'name': ...}}.
        found.setdefault(key, []).extend(specs)
  return found


def allow(modules: Iterable[str]) -> None:
  """Allows modules to be imported when a config, a run or a weight file names them."""
  _allowed.update(modules)


def allow_import(module: str) -> None:
  """Allows a module that the user names.

  Raises:
    InputError: it is not the name of a module.
  """
  if (not isinstance(module, str) or module.endswith('.py')
      or not all(part.isidentifier() for part in module.split('.'))):
    raise InputError(f'{module!r}: expected the name of a module, such as my for my.py')
  allow([module])


def allow_named(config: Mapping[str, Any], sections: Collection[str] = SECTIONS) -> None:
  """Allows the modules that a config names.

  Args:
    config: as for `named`, from a config file, the command line or the calling program. One that
      was read from a run must have passed `refuse_unless_allowed` for the same sections.
    sections: those of SECTIONS to look at.
  """
  allow(_module(spec) for specs in named(config, sections).values() for spec in specs)


def refuse_unless_allowed(spec: str, where: str, advice: str = '') -> None:
  """Refuses code of a module that nobody has named, without importing it.

  Args:
    spec: 'module:name'.
    where: what contains the spec, for the message, such as "runs/a/config.json: generator.name".
    advice: what else the user can do.

  Raises:
    InputError: the module is not among those of `allow`.
  """
  module = _module(spec)
  if module not in _allowed:
    raise InputError(f'{where}={spec!r}: is code outside sr_jax, which a run or a weight file '
                     f'cannot import by itself; if you trust it, add --import {module} (in Python: '
                     f'sr_jax.allow_import({module!r}))' + f'; {advice}' * bool(advice))


def find(spec: str, where: str) -> Any:
  """Returns the class or function that 'module:name' names; imports its module.

  Modules in the current folder are found too.

  Args:
    spec, where: as for `refuse_unless_allowed`.

  Raises:
    InputError: `spec` has another form, or the module is not allowed, cannot be imported or has no
      such name.
  """
  if not is_spec(spec):
    raise InputError(f"{where}={brief(repr(spec), 100)}: expected 'module:name', such as 'my:net' "
                     'for net in my.py')
  module_name, _, name = spec.partition(':')
  if module_name.endswith('.py'):
    raise InputError(f'{where}={spec!r}: expected the name of a module, not of its file: '
                     f'{module_name.removesuffix(".py")}:{name}')
  refuse_unless_allowed(spec, where)
  module = import_module(module_name, f'{where}={spec!r}')
  if not hasattr(module, name):
    file = getattr(module, '__file__', None)
    raise InputError(f'{where}={spec!r}: {module_name} has no {name}' + f' ({file})' * bool(file)
                     + _hidden(module_name))
  return getattr(module, name)


def find_function(spec: str, where: str, expected: str) -> Callable[..., Any]:
  """Returns the function that 'module:name' names, as `find` does.

  Args:
    expected: what it should be, for the message about something that cannot be called.

  Raises:
    InputError: as for `find`, or it is not a function.
  """
  function = find(spec, where)
  if not callable(function):
    raise InputError(f'{where}={spec!r}: is {brief(repr(function), 100)}; expected {expected}')
  return function


def import_module(name: str, where: str) -> Any:
  """Imports a module of the user's own, which may lie in the current folder.

  Raises:
    InputError: it does not exist, or it raises an exception; the message begins with `where`.
  """
  search_current_folder()
  try:
    return importlib.import_module(name)
  except (Exception, SystemExit) as error:  # whatever the user's module raises
    lines = _lines(error, name)
    raise InputError(f'{where}: cannot import {name} ({type(error).__name__}: '
                     f'{brief(error, 200)}{lines}){_hidden(name)}') from None


def search_current_folder() -> None:
  """Makes modules in the current folder importable."""
  try:
    folder = os.getcwd()
  except OSError:  # it was removed
    return
  if folder not in sys.path and '' not in sys.path:
    sys.path.append(folder)  # last, so that no file there takes the place of an installed module
  importlib.invalidate_caches()  # the file may have been written a moment ago


def spec_of(value: Any) -> str:
  """Returns the 'module:name' of a class or function that the calling program gave, and allows it.

  Raises:
    ValueError: it is not at the top level of a module that other commands can import; the text says
      what is expected.
  """
  module, name = getattr(value, '__module__', None), getattr(value, '__qualname__', '')
  spec = f'{module}:{name}'
  if module in ('__main__', CONFIG_FILE):
    raise ValueError(f"a class or function in a module of its own, such as my.py: {name!r} is "
                     f'defined in the {"program" if module == "__main__" else "config file"} '
                     'itself, which commands that use the run cannot import')
  if not is_spec(spec) or getattr(sys.modules.get(module), name, None) is not value:
    raise ValueError('a class or function at the top level of a module, or its name as '
                     "'module:name'")
  allow([module])
  return spec


def _module(spec: str) -> str:
  return spec.partition(':')[0]


def _hidden(module: str) -> str:
  """Returns advice if a module elsewhere takes the place of one in the current folder, or ''."""
  top = module.partition('.')[0]
  used = sys.modules.get(top)
  try:
    here = next((path for path in (pathlib.Path.cwd() / f'{top}.py', pathlib.Path.cwd() / top)
                 if path.exists()), None)
  except OSError:  # the current folder was removed
    return ''
  file = getattr(used, '__file__', None)  # a module of the interpreter, such as time, has none
  places = [*getattr(used, '__path__', ()), *([file] if file else [])]
  if not (used and here) or any(pathlib.Path(place).resolve() == here.resolve()
                                for place in places):
    return ''
  return (f'; the module {top} of Python or of an installed package is used instead of '
          f'{here}: rename the latter')


def _flat(config: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
  for name, value in config.items():
    if isinstance(value, Mapping):
      yield from _flat(value, f'{prefix}{name}.')
    else:
      yield f'{prefix}{name}', value


def _lines(error: BaseException, module: str) -> str:
  """Returns ', line 3' of the module that raises an exception, or ''."""
  trace, line = error.__traceback__, 0
  while trace:
    if trace.tb_frame.f_globals.get('__name__') == module:
      line = trace.tb_lineno
    trace = trace.tb_next
  return f', line {line}' if line else ''
