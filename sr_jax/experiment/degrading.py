"""config.data.degrade -> the chain that makes LR of HR crops."""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from sr_jax.data.degradations import chains
from sr_jax.data.degradations.chains import Degradation
from sr_jax.data.degradations.noise import Noise
from sr_jax.data.degradations.resizing import Resize
from sr_jax.errors import InputError
from sr_jax.experiment.degrade_keys import FIELDS


def build_degradation(config: ConfigDict) -> Degradation | None:
  """Builds the chain of `config.data.degrade`; None without degradations.

  Raises:
    InputError: values that do not fit together; the message names the key.
  """
  section = config.data.degrade
  if section.name == 'none':
    return None
  if section.name == 'custom':
    chain = chains.make_chain(section.stages)
  else:
    chain = chains.PRESETS[section.name]
  stages = tuple((name, _with_fields(stage, section[name].to_dict()))
                 for name, stage in chain.stages)
  margin = -(-chain.margin // config.scale) * config.scale
  changed: dict[str, Any] = {'stages': stages, 'margin': margin}
  for field, key in (('margin', 'margin'), ('sharpen', 'sharpen_hr')):
    if section[key] is not None:
      changed[field] = section[key]
  return dataclasses.replace(chain, **changed)


def evaluated_degradation(config: ConfigDict) -> Degradation | None:
  """Builds the chain that makes LR of `config.eval.sets`; None if LR is not degraded.

  Raises:
    InputError: `config.eval.degraded` without a chain in `config.data.degrade`.
  """
  if not config.eval.degraded:
    return None
  degradation = build_degradation(config)
  if degradation is None:
    raise InputError("config.eval.degraded=True: config.data.degrade.name is 'none'; add "
                     '--config.data.degrade.name=realesrgan or another chain')
  return degradation


def check_degrade(config: ConfigDict) -> None:
  """Refuses values of `config.data.degrade` that make no sense, and keys that nothing uses.

  Raises:
    InputError: names the key.
  """
  section = config.data.degrade
  if section.name == 'custom' and not section.stages:
    raise InputError("config.data.degrade.stages: is empty; name='custom' needs stages, such as "
                     "('blur', 'reduce', 'noise', 'jpeg')")
  if section.name != 'custom' and section.stages:
    raise InputError(f'config.data.degrade.stages={section.stages}: is used with config.data.'
                     f"degrade.name='custom', which is {section.name!r}")
  used = ()
  if section.name == 'custom':
    used = section.stages
  elif section.name != 'none':
    used = [name for name, _ in chains.PRESETS[section.name].stages]
  for stage in FIELDS:
    given = [field for field, value in section[stage].items() if value is not None]
    if given and stage not in used:
      raise InputError(f'config.data.degrade.{stage}.{given[0]}={section[stage][given[0]]}: '
                       f'config.data.degrade.name={section.name!r} has no stage {stage}'
                       + (f'; it has {", ".join(used)}' if used else ''))
  if section.name == 'none':
    for key in ('margin', 'sharpen_hr'):
      if section[key] is not None:
        raise InputError(f"config.data.degrade.{key}={section[key]}: config.data.degrade.name is "
                         "'none'")
    return
  if section.margin is not None and section.margin % config.scale:
    raise InputError(f'config.data.degrade.margin={section.margin}: expected a multiple of scale '
                     f'{config.scale}')
  if config.data.augment.cutblur[0]:
    raise InputError(f'config.data.augment.cutblur={config.data.augment.cutblur}: is for LR of '
                     f'separate files, not for config.data.degrade.name={section.name!r}; use '
                     'probability 0')
  for stage in used:
    _check_stage(f'config.data.degrade.{stage}', section[stage])
  chain = build_degradation(config)
  for name, stage in chain.stages:
    if isinstance(stage, Noise) and stage.grey + stage.correlated > 1:
      raise InputError(f'config.data.degrade.{name}.grey={stage.grey}: with correlated='
                       f'{stage.correlated} the two probabilities sum to more than 1')
  for name, stage in chain.stages[slice(*chain.shuffled)]:
    limit = config.scale if getattr(stage, 'of_lr', False) else 1
    if isinstance(stage, Resize) and stage.largest > limit:
      raise InputError(f'config.data.degrade.{name}.factor={stage.factor}: expected at most {limit}'
                       f', since {section.name!r} applies {name} in random order and has no room '
                       'for larger images; directions with 0 for enlarging do without it')
  if fault := chains.size_fault(chain, config.scale):
    raise InputError(f'config.data.degrade.stages={section.stages}: {fault}')


def _check_stage(name: str, fields: ConfigDict) -> None:
  for field, value in fields.items():
    key = next(key for key in FIELDS[name.rpartition('.')[2]] if key.name == field)
    if value is None:
      continue
    if field in ('kinds', 'directions') and not sum(value):
      raise InputError(f'{name}.{field}={value}: every frequency is zero')
    if field == 'methods' and not value:
      raise InputError(f'{name}.{field}: is empty; expected at least one of '
                       f'{", ".join(key.choices)}')
    if field == 'size' and not all(side % 2 for side in value):
      raise InputError(f'{name}.{field}={value}: expected odd numbers')


def _with_fields(stage: Any, fields: dict[str, Any]) -> Any:
  given = {field: value for field, value in fields.items() if value is not None}
  return dataclasses.replace(stage, **given)
