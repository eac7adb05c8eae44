"""May this run go on with that config?"""

import json
from collections.abc import Sequence

from ml_collections import ConfigDict

from sr_jax.errors import InputError
from sr_jax.experiment.check import describe_steps
from sr_jax.models import architecture, factory
from sr_jax.models.factory import differing_keys
from sr_jax.runs.metadata import read_config


def check_against(workdir, config, keys: Sequence[str]) -> None:
  """Refuses a run in whose config.json one of `keys` is not as in `config`.

  Shapes alone do not tell a network: its skip, its output and its activations have none.

  Raises:
    InputError: no run there, or a key differs.
  """
  trained = read_config(workdir)
  for key in keys:
    want = _described(config, key)
    try:
      have = _described(ConfigDict(trained), key)
    except InputError as error:
      raise InputError(f'{workdir}/config.json: {error}') from None
    except (KeyError, AttributeError, TypeError):
      raise InputError(f'{workdir}/config.json: states no {key} that is known here') from None
    for field in differing_keys(have, want):
      raise InputError(f'{workdir}: the run has {field}={have.get(field)!r}, the config '
                       f'{want.get(field)!r}')


def check_resumable(workdir, before: dict, step: int, config) -> None:
  """Refuses to go on with a run that config is not for; all that can be told, at once.

  Args:
    before, step: of `stopped_at`.

  Raises:
    InputError: it is of other networks, another scale or seed, past `config.steps`, or in
      another phase than the config has it in; or it is imported weights and no training.
  """
  if before.get('imported'):
    raise InputError(f'{workdir}: imported weights, no training to go on with; train in a new '
                     f'--workdir, with --config.init_from={workdir}')
  check_against(workdir, config, ('generator', 'discriminator', 'scale', 'seed', 'train_only',
                                  'freeze'))
  if step > config.steps:
    raise InputError(f'{describe_steps(config, "")}: the run in {workdir} is at step {step}')
  warmups = before.get('warmup_steps', config.warmup_steps), config.warmup_steps
  if min(warmups) < step <= max(warmups):  # in one it is past its warm-up, in the other not
    raise InputError(f'{describe_steps(config, "warmup_")}: the run in {workdir} is at step {step} '
                     f'with a warm-up of {warmups[0]}')


def _described(config, key: str) -> dict:
  """What a config says under `key`, a network's fields with the module's own where it says
  nothing: a default that moves from a config to its module changes no run.
  """
  if key not in ('generator', 'discriminator'):
    if key in ('train_only', 'freeze'):  # of which a run may be older
      return {key: config.get(key, '')}
    return {key: config[key]}
  named = {f'{key}.name': config[key].name}
  fields = dict(config[key].items())
  module = (factory.build_generator(fields, config.scale, config.dtype) if key == 'generator'
            else factory.build_discriminator(fields, config.dtype))
  return named | {f'{key}.{name}': value for name, value in architecture(module).items()}


def as_json(config: ConfigDict) -> dict:
  """Returns the config as the plain dict that config.json contains."""
  return json.loads(config.to_json_best_effort())
