"""What a run's folder says of its networks, and folders made of imported weights."""

import datetime
import json
import os
import pathlib
import platform
import subprocess

import flax
import jax
import jaxlib
import optax
from ml_collections import ConfigDict

from sr_jax.errors import InputError, brief
from sr_jax.models.factory import differing_keys
from sr_jax.system import files

KINDS = {  # of what is read out of a config.json
    'scale': int, 'dtype': str, 'best_metric': str, 'steps': int, 'warmup_steps': int,
    'epochs': int, 'warmup_epochs': int, 'generator': dict, 'imported': dict,
    'imported.names': str, 'data': dict, 'data.source': str, 'data.fraction': list,
    'data.split_seed': int, 'data.resize': str}


def read_config(workdir) -> dict:
  """The config.json of a run; what is looked at of it without more ado is of its kind.

  Raises:
    InputError: no run there, or a key of another kind.
  """
  try:
    found = dict(json.loads((files.expand(workdir) / 'config.json').read_text('utf-8')))
    ConfigDict(found)  # which takes no dots in a key, say
  except (OSError, ValueError, TypeError, AttributeError, RecursionError):
    raise InputError(f'{workdir}: no run there (no readable config.json)') from None
  for keys, kind in KINDS.items():
    *front, key = keys.split('.')
    inside = found.get(front[0], {}) if front else found
    if key in inside and type(inside[key]) is not kind:
      raise InputError(f'{workdir}/config.json: {keys}={brief(repr(inside[key]), 80)}: expected '
                       f'{kind.__name__}')
  return found


def start_records(workdir) -> list[dict]:
  """The run.json of a run: its starts, oldest first; one without an end was killed."""
  try:
    found = json.loads((pathlib.Path(workdir) / 'run.json').read_text('utf-8'))
  except (OSError, ValueError, RecursionError):
    return []
  return [start for start in found if isinstance(start, dict)] if isinstance(found, list) else []


def environment(device_loop: bool, mesh=None) -> dict:
  """What of a start goes into run.json that the config does not say."""
  device = jax.devices()[0]
  return {'device': device.device_kind, 'devices': mesh.size if mesh else 1,
          'processes': jax.process_count(), 'backend': jax.default_backend(),
          'device_loop': device_loop, 'python': platform.python_version(),
          **{module.__name__: module.__version__ for module in (jax, jaxlib, flax, optax)},
          'commit': commit(), 'xla_flags': os.environ.get('XLA_FLAGS', '')}


def commit() -> str:
  """Of this code, with '-dirty' where it was changed since; '' where git knows none."""
  try:
    described = subprocess.run(
        ['git', '-C', pathlib.Path(__file__).parent, 'describe', '--always', '--dirty',
         '--abbrev=12', '--match='], capture_output=True, text=True, timeout=10)
  except (OSError, subprocess.SubprocessError):
    return ''
  return described.stdout.strip()


def end_fields(started: datetime.datetime) -> dict:
  """What goes there at the end."""
  ended = datetime.datetime.now(datetime.UTC)
  return {'ended': ended.isoformat(timespec='seconds'),
          'total': str(datetime.timedelta(seconds=int((ended - started).total_seconds())))}


def differences(before: dict, now: dict) -> dict[str, list]:
  """{'optimizer.g.learning_rate': [before, now], ...} of what two config.json differ in.

  What one of them does not have is None there.
  """
  both = [flat(config) for config in (before, now)]
  return {key: [config.get(key) for config in both] for key in differing_keys(*both)}


def flat(config: dict, prefix: str = '') -> dict:
  """{'optimizer.g.learning_rate': ...} of nested ones."""
  found = {}
  for key, value in config.items():
    found |= flat(value, f'{prefix}{key}.') if isinstance(value, dict) else {prefix + key: value}
  return found


