"""Reads the experiment that --config names, and applies --config.KEY=VALUE."""

import ast
import difflib
import importlib.machinery
import importlib.util
import inspect
import json
import pathlib
import re
import sys
import traceback
from collections.abc import Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from sr_jax.errors import InputError, brief
from sr_jax.experiment.key import parse
from sr_jax.experiment.keys import find_key
from sr_jax.experiment.named_keys import incomplete, siblings
from sr_jax.experiment.values import (
  IMPORTED,
  NETWORKS,
  SECTIONS,
  checked,
  defaults,
  invalid_value,
  is_own,
  nested,
  own_networks,
  unknown_key,
)
from sr_jax.runs.folder import RunFolder
from sr_jax.system import files, user_code, user_failures


def load(spec: str, mode: str = 'train', overridden: Collection[str] = ()) -> dict[str, Any]:
  """Returns the values of a config file as a nested dict, as they are; `override` checks them.

  The modules that a Python file names are allowed, since it is executed anyway.

  Args:
    spec: the name of an experiment of sr_jax, such as 'srgan' or 'srgan:sample'; FILE.py or
      FILE.py:VARIANT,VARIANT, which defines `get_config`; or the config.json of a run.
    mode, overridden: of `load_json`.

  Raises:
    InputError: there is no such experiment or file, it cannot be loaded, a variant is unknown, or
      as for `load_json`.
  """
  name, _, variant = spec.partition(':')
  if re.fullmatch(r'[\w-]*', name):
    return _run_file(_experiment(name, variant), spec, variant)
  path = files.expand(name)
  if path.is_dir():
    raise InputError(f'{name}: is a folder; expected a Python file, the config.json of a run, or '
                     'the name of an experiment, such as srgan')
  if not path.is_file():
    raise InputError(f'{name}: no such config file{_similar(path, variant)}')
  if path.suffix.lower() not in ('.py', '.json'):  # a log of a run, for example, is no program
    raise InputError(f'{name}: expected a Python file (.py), the config.json of a run, or the name '
                     'of an experiment, such as srgan')
  if path.suffix.lower() == '.py':
    user_code.search_current_folder()  # for what the user's file imports
    return _run_file(path, spec, variant)
  if variant:
    raise InputError(f'{spec}: a config.json has no variants')
  return load_json(path, mode, overridden)


def experiments() -> dict[str, pathlib.Path]:
  """Returns {'srgan': path of srgan.py, ...}, the experiments that sr_jax comes with, sorted.

  An installed wheel has them in sr_jax/configs, a checkout of the repository in configs.
  """
  package = pathlib.Path(__file__).parents[1]
  installed = package / 'configs'
  folder = installed if installed.is_dir() else package.parent / 'configs'
  return {path.stem: path for path in sorted(folder.glob('*.py'))}


def load_json(path: pathlib.Path, mode: str = 'train',
              overridden: Collection[str] = ()) -> dict[str, Any]:
  """Returns the values of a run's config.json; a key that it does not have has its default.

  Args:
    mode: of IMPORTED; what the values will be used for.
    overridden: full names of the keys whose values will be replaced.

  Raises:
    InputError: it cannot be read, or names code of a module that the user has not named.
  """
  try:
    values = json.loads(path.read_text('utf-8'))
  except (OSError, ValueError, RecursionError):
    values = None
  if not isinstance(values, dict) or 'generator' not in values:
    raise InputError(f'{path}: cannot read; expected the config.json of a run')
  for key, specs in user_code.named(values, IMPORTED[mode]).items():
    advice = f"or leave it out with --config.{key}=''" if key.startswith('eval.extra.') else ''
    for spec in () if key in overridden else specs:
      user_code.refuse_unless_allowed(spec, f'{path}: {key}', advice)
  # Imported weights have a config.json of a few keys, and one that says where they come from.
  return _filled({key: value for key, value in values.items() if key != 'imported'}, defaults())


def load_run(workdir: pathlib.Path, mode: str, settings: Mapping[str, str]) -> ConfigDict:
  """Returns the settings of a run with the values of the command line, all of them checked.

  Args:
    mode: of `load_json`.
    settings: of `override`.

  Raises:
    InputError: as for `load_json` and `override`.
  """
  path = RunFolder(workdir).config
  return override(load_json(path, mode, settings), settings, str(path))


def override(config: Mapping[str, Any], settings: Mapping[str, str], origin: str) -> ConfigDict:
  """Returns the config with the values of the command line, all of them checked.

  Where the command line names a network of the user's own, the fields that the config has for
  another network do not apply.

  Args:
    config: of `load`.
    settings: {'optimizer.g.learning_rate': '1e-3', ...}.
    origin: the file that `config` comes from, for messages.

  Raises:
    InputError: names every unknown or invalid key in one line.
  """
  values, faults = checked(config)
  own = own_networks(config)
  for section in NETWORKS:
    if is_own(settings.get(f'{section}.name')):
      own = (*own, section)
      values = {name: value for name, value in values.items()
                if name.partition('.')[0] != section or name == f'{section}.name'}
      faults = {name: fault for name, fault in faults.items()
                if name.partition('.')[0] != section}
  faults = {name: fault for name, fault in faults.items() if name not in settings}
  wrong = [f'{origin}: {"; ".join(faults.values())}'] if faults else []
  for name, text in settings.items():
    section, _, last = name.rpartition('.')
    if name in SECTIONS:
      wrong.append(f'--config.{name}: is a section of keys; set them as --config.{name}.KEY=VALUE')
    elif section in own and last not in ('name', 'init'):
      values[name] = _literal(text)
    elif key := find_key(name):
      try:
        values[name] = parse(key, text)
      except ValueError as error:
        shown = repr(text) if key.type is str else text
        wrong.append(invalid_value(key, shown, str(error)))
    else:
      wrong.append(unknown_key(name, values))
  wrong += [fault for name, fault in incomplete(values)
            if name not in settings and name not in faults]
  if wrong:
    raise InputError('; '.join(dict.fromkeys(wrong)))  # keys of one entry have one fault
  return ConfigDict(nested(values), type_safe=False)


def _experiment(name: str, variant: str) -> pathlib.Path:
  """Returns the file of the experiment called `name`.

  Raises:
    InputError: there is none; the message has the most similar name.
  """
  known = experiments()
  if name in known:
    return known[name]
  similar = difflib.get_close_matches(name.lower(), known, 1)
  advice = f'; did you mean {similar[0]}{":" * bool(variant)}{variant}?' if similar else ''
  if name and files.expand(name).exists():
    advice = f'; a file of that name is --config ./{name}'
  raise InputError(f'{name or "--config"}: no such experiment: expected one of {", ".join(known)}, '
                   f'a Python file or the config.json of a run{advice}')


def _similar(path: pathlib.Path, variant: str) -> str:
  """Returns advice that names the most similar config file beside `path`, or experiment, or ''."""
  suffix = f'{":" * bool(variant)}{variant}'
  beside = [found.name for found in path.parent.glob('*.py')] if path.parent.is_dir() else []
  similar = difflib.get_close_matches(f'{path.stem}.py', beside, 1, 0.8)
  if similar:
    return f'; did you mean {path.parent / similar[0]}{suffix}?'
  similar = difflib.get_close_matches(path.stem, experiments(), 1, 0.8)
  return f'; did you mean --config {similar[0]}{suffix}?' if similar else ''


def _run_file(path: pathlib.Path, spec: str, variant: str) -> dict[str, Any]:
  """Executes a Python file and calls its `get_config`."""
  module_spec = importlib.util.spec_from_file_location(
      user_code.CONFIG_FILE, path,
      loader=importlib.machinery.SourceFileLoader(user_code.CONFIG_FILE, str(path)))
  module = importlib.util.module_from_spec(module_spec)
  # Classes that the file defines look for their module there.
  sys.modules[user_code.CONFIG_FILE] = module
  try:
    module_spec.loader.exec_module(module)
    if not hasattr(module, 'get_config'):
      raise InputError('defines no get_config()')
    if variant and not inspect.signature(module.get_config).parameters:
      raise InputError('has no variants')
    config = module.get_config(variant) if variant else module.get_config()
    if not isinstance(config, ConfigDict):
      raise InputError(f'get_config() returned {brief(repr(config), 80)}, expected a ConfigDict')
    values = config.to_dict()
    user_code.allow_named(values)
    return values
  except InputError as error:
    raise InputError(f'{spec}: {error}') from None
  except user_failures.RAISED as error:  # whatever the file raises
    frames = [frame for frame in traceback.extract_tb(error.__traceback__)
              if frame.filename == str(path)]
    lines = [frame.lineno for frame in frames]
    lines += [error.lineno] if isinstance(error, SyntaxError) else []
    at = f', line {lines[-1]}' if lines and not isinstance(error, ValueError) else ''
    if missing := _missing_key(error, frames[-1].line if frames else ''):
      raise InputError(f'{spec}: cannot load{at}: {missing}') from None
    kind = '' if isinstance(error, ValueError) else f'cannot load{at} ({type(error).__name__}): '
    raise InputError(f'{spec}: {kind}{brief(error)}') from None


def _missing_key(error: BaseException, statement: str) -> str:
  """Returns the message for a key that a ConfigDict lacks, or '' if `error` is another exception.

  Args:
    statement: the line of the config file that raised it.
  """
  frames = traceback.extract_tb(error.__traceback__)
  if not isinstance(error, (AttributeError, KeyError)) or not error.args or (
      frames[-1].filename != inspect.getfile(ConfigDict)):
    return ''
  cause = error.args[0]  # an AttributeError contains the KeyError
  text = str(cause.args[0] if isinstance(cause, KeyError) else cause)
  found = re.match(r"""'(.+)'(?:\nDid you mean "(.+)" instead of .*)?$""", text)
  if not found:
    return ''
  name, similar = found.groups()
  advice = [f'did you mean {similar}?'] if similar else []
  if section := re.search(r'\b(loss|eval)\.extra\b', statement):
    entry = f'{section[0]}.{name}'
    keys = ', '.join(f'{key.rpartition(".")[2]}=...' for key in siblings(f'{entry}.'))
    advice.append(f'a new entry is set as a whole: config.{entry} = dict({keys})')
  return f'the config has no key {name}; ' + (
      ' '.join(advice) or 'sr-jax train --helpkeys lists all keys')


def _filled(values: Mapping[str, Any], rest: Mapping[str, Any]) -> dict[str, Any]:
  """Returns `values` with the keys that only `rest` has, in all sections."""
  both = {name: _filled(values[name], value) for name, value in rest.items()
          if isinstance(value, Mapping) and isinstance(values.get(name), Mapping)}
  return {**rest, **values, **both}


def _literal(text: str) -> Any:
  """Returns the value of a field that the table does not know: a Python literal, or the text."""
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError, MemoryError, RecursionError):
    return text
