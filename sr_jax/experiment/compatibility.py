"""Whether a run may be resumed or evaluated with a config."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from sr_jax.errors import InputError
from sr_jax.experiment.check import describe_steps
from sr_jax.models import architecture, factory
from sr_jax.models.factory import differing_keys
from sr_jax.runs.metadata import read_config


def as_json(config: ConfigDict) -> dict[str, Any]:
  """Returns the config as the plain dict that config.json contains."""
  return json.loads(config.to_json_best_effort())


def check_against(workdir: pathlib.Path, config: ConfigDict, keys: Sequence[str]) -> None:
  """Refuses a run whose config.json differs from `config` in one of `keys`.

  Comparing the shapes of arrays would not do: a network's skip, output and activations have none.

  Raises:
    InputError: there is no run, or a key differs.
  """
  trained, wanted = read_config(workdir), as_json(config)
  for key in keys:
    want = _described(wanted, key)
    try:
      have = _described(trained, key)
    except InputError as error:
      raise InputError(f'{workdir}/config.json: {error}') from None
    except (KeyError, AttributeError, TypeError):
      raise InputError(f'{workdir}/config.json: contains no known {key}') from None
    for field in differing_keys(have, want):
      raise InputError(f'{workdir}: the run has {field}={have.get(field)!r}, the config '
                       f'{want.get(field)!r}')


def check_resumable(workdir: pathlib.Path, before: dict[str, Any], step: int,
                    config: ConfigDict) -> None:
  """Refuses to resume a run that `config` does not fit, before anything is built.

  Args:
    before, step: config.json of the run and the step of its latest checkpoint.

  Raises:
    InputError: the networks, scale, seed or frozen arrays differ; the run is past `config.steps`
      or in another phase than it would be with `config`; or it holds imported weights.
  """
  if before.get('imported'):
    raise InputError(f'{workdir}: contains imported weights and cannot be resumed; train in a new '
                     f'--workdir with --config.init_from={workdir}')
  check_against(workdir, config, ('generator', 'discriminator', 'scale', 'seed', 'train_only',
                                  'freeze'))
  if step > config.steps:
    raise InputError(f'{describe_steps(config, "")}: the run in {workdir} is at step {step}')
  if 'warmup_steps' not in before:
    raise InputError(f'{workdir}/config.json: contains no warmup_steps')
  warmups = before['warmup_steps'], config.warmup_steps
  if min(warmups) < step <= max(warmups):  # past its warm-up by one of the two only
    raise InputError(f'{describe_steps(config, "warmup_")}: the run in {workdir} is at step {step} '
                     f'with a warm-up of {warmups[0]}')


def _described(config: dict[str, Any], key: str) -> dict[str, Any]:
  """Returns {name: value} of what a config means under `key`.

  A network's fields include the module's own defaults, so that a default may move from a config to
  its module without making old and new runs differ.
  """
  if key not in ('generator', 'discriminator'):
    return {key: config[key]}
  fields = config[key]
  module = (factory.build_generator(fields, config['scale'], config['dtype'])
            if key == 'generator' else factory.build_discriminator(fields, config['dtype']))
  return {f'{key}.name': fields['name']} | {
      f'{key}.{name}': value for name, value in architecture(module).items()}
