"""Reads config.json and run.json, and collects what run.json records about a start."""

import contextlib
import datetime
import json
import os
import pathlib
import platform
import subprocess
import tomllib
from collections.abc import Mapping
from typing import Any

import flax
import jax
import jaxlib
import optax
from flax import traverse_util
from jax.sharding import Mesh

import sr_jax
from sr_jax.errors import InputError, brief
from sr_jax.models.factory import differing_keys
from sr_jax.runs.folder import RunFolder
from sr_jax.system import files
from sr_jax.system.text import better_when_lower

# Types of the keys of config.json that callers of `read_config` use without further checks.
CONFIG_TYPES = {
    'scale': int, 'dtype': str, 'best_metric': str, 'steps': int, 'warmup_steps': int,
    'epochs': int, 'warmup_epochs': int, 'generator': dict, 'imported': dict,
    'imported.names': str, 'data': dict, 'data.source': str, 'data.fraction': list,
    'data.split_seed': int, 'data.resize': str}


def read_config(workdir: os.PathLike | str) -> dict:
  """Reads config.json of a run and checks the types of the keys in CONFIG_TYPES.

  Raises:
    InputError: there is no readable config.json, or a key has another type.
  """
  try:
    text = RunFolder(files.expand(workdir)).config.read_text('utf-8')
    config = dict(json.loads(text))
    _refuse_reserved_keys(config)
  except (OSError, ValueError, TypeError, RecursionError):
    raise InputError(f'{workdir}: not a run folder (no readable config.json)') from None
  for keys, expected_type in CONFIG_TYPES.items():
    *parents, key = keys.split('.')
    section = config.get(parents[0], {}) if parents else config
    if key in section and type(section[key]) is not expected_type:
      raise InputError(f'{workdir}/config.json: {keys}={brief(repr(section[key]), 80)}: expected '
                       f'{expected_type.__name__}')
  return config


def _refuse_reserved_keys(config: dict) -> None:
  """Refuses keys that a ConfigDict cannot have: those with dots, and names such as __init__.

  Raises:
    ValueError: `config` or a section of it has such a key.
  """
  for key, value in config.items():
    if '.' in key or (key.startswith('__') and key.endswith('__')):
      raise ValueError(key)
    if isinstance(value, dict):
      _refuse_reserved_keys(value)


def own_metrics(config: Mapping[str, Any]) -> dict[str, str]:
  """Returns {metric: 'higher' or 'lower'} of a run's own metrics, which is better.

  Args:
    config: config.json of the run; what is malformed in it is skipped.
  """
  section = config.get('eval')
  extra = section.get('extra') if isinstance(section, Mapping) else None
  return {name: fields['better'] for name, fields in
          (extra.items() if isinstance(extra, Mapping) else ())
          if isinstance(fields, Mapping) and fields.get('fn')
          and fields.get('better') in ('higher', 'lower')}


def lower_is_better(metric: str, config: Mapping[str, Any]) -> bool:
  """Returns whether a validation metric is better when it is lower; `config` is config.json."""
  own = own_metrics(config).get(metric)
  return own == 'lower' if own else better_when_lower(metric)


def start_records(workdir: os.PathLike | str) -> list[dict]:
  """Reads run.json: one record per start, oldest first; [] if it is missing or not readable.

  The record of a start that was killed has no end.
  """
  try:
    records = json.loads(RunFolder(pathlib.Path(workdir)).run_json.read_text('utf-8'))
  except (OSError, ValueError, RecursionError):
    return []
  if not isinstance(records, list):
    return []
  return [record for record in records if isinstance(record, dict)]


def environment(device_loop: bool, mesh: Mesh | None = None) -> dict[str, Any]:
  """Returns the fields of a start's record that do not follow from the config."""
  device = jax.devices()[0]
  return {'device': device.device_kind, 'devices': mesh.size if mesh else 1,
          'processes': jax.process_count(), 'backend': jax.default_backend(),
          'device_loop': device_loop, 'python': platform.python_version(),
          **{module.__name__: module.__version__ for module in (jax, jaxlib, flax, optax)},
          'commit': commit(), 'xla_flags': os.environ.get('XLA_FLAGS', '')}


def commit() -> str:
  """Returns the git commit of this checkout, with '-dirty' if it was modified.

  Without one, for example in an installed wheel, returns 'version 0.1.0'; the commit of another
  repository in which the package may lie would be wrong.
  """
  root = pathlib.Path(__file__).parents[2]
  if _is_checkout(root):
    # GIT_DIR and the like, as a git hook sets them, name another repository.
    variables = {name: value for name, value in os.environ.items() if not name.startswith('GIT_')}
    with contextlib.suppress(OSError, subprocess.SubprocessError):
      described = subprocess.run(
          ['git', '-C', root, 'describe', '--always', '--dirty', '--abbrev=12', '--match='],
          env=variables, capture_output=True, text=True, timeout=10, check=True)
      return described.stdout.strip()
  return f'version {sr_jax.__version__}'


def _is_checkout(root: pathlib.Path) -> bool:
  """Returns whether a folder is the root of a git repository of sr_jax."""
  try:
    project = tomllib.loads((root / 'pyproject.toml').read_text('utf-8')).get('project', {})
  except (OSError, ValueError):
    return False
  return (root / '.git').exists() and project.get('name') == 'sr-jax'


def end_fields(started: datetime.datetime) -> dict[str, str]:
  """Returns the fields that a start's record gets at its end."""
  ended = datetime.datetime.now(datetime.UTC)
  return {'ended': ended.isoformat(timespec='seconds'),
          'total': str(datetime.timedelta(seconds=int((ended - started).total_seconds())))}


def differences(old: dict, new: dict) -> dict[str, list]:
  """Compares two config.json.

  Returns:
    {'optimizer.g.learning_rate': [old value, new value], ...} of the keys that differ; None for a
    key that one of them does not have.
  """
  both = [flat(config) for config in (old, new)]
  return {key: [config.get(key) for config in both] for key in differing_keys(*both)}


def flat(config: dict) -> dict[str, Any]:
  """Flattens a nested config: {'optimizer.g.learning_rate': ...}."""
  return traverse_util.flatten_dict(config, sep='.')
