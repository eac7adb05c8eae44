"""Refuses config values that make no sense, before anything is read or built."""

import math

from ml_collections import ConfigDict

from sr_jax import losses
from sr_jax.data.pictures import parse_resize
from sr_jax.errors import InputError, brief
from sr_jax.experiment import crops, degrading, optimizer, values
from sr_jax.models import unet_discriminator
from sr_jax.system import user_code


def check(config: ConfigDict) -> ConfigDict:
  """Checks every key of a config, and values that must fit together.

  Returns:
    A copy in which every value has the type of its key: integers become floats, lists tuples, and
    classes and functions their names, 'module:name'. Keys of an optimiser that are None have their
    published values.

  Raises:
    InputError: names the keys, their values and what is allowed.
  """
  if not isinstance(config, ConfigDict):
    raise InputError(f'config is {brief(repr(config), 80)}: expected a ConfigDict, such as '
                     "sr_jax.get_config('srgan:sample') returns")
  converted, faults = values.checked(config.to_dict())
  if faults:
    raise InputError('; '.join(faults.values()))
  config = ConfigDict(values.nested(converted), type_safe=False)
  for key in ('data.resize', 'eval.resize'):
    parse_resize(converted[key], f'config.{key}')
  # A network of the user's own need not have the field.
  if config.data.channels == 1 and config.generator.get('channels', 1) != 1 and (
      config.generator.name != 'srcnn'):
    raise InputError('config.data.channels=1: the generator has three channels; add '
                     '--config.generator.channels=1')
  _check_crops(config)
  crops.check_lists(config)
  for part in crops.of_main_phase(config):
    with crops.named(part):
      _check_crops(crops.with_crops(config, part))
  _check_loss(config)
  degrading.check_degrade(config)
  for section, fields in config.optimizer.items():
    optimizer.check_optimizer(fields, section)
    config.optimizer[section] = optimizer.with_defaults(fields)
  optimizer.check_average(config)
  return config


def _check_crops(config: ConfigDict) -> None:
  if config.hr_patch % config.scale:
    raise InputError(f'config.hr_patch={config.hr_patch}: expected a multiple of scale '
                     f'{config.scale}')
  unet_sides = math.lcm(unet_discriminator.MULTIPLE, config.scale)
  if config.discriminator.name == 'unet' and config.hr_patch % unet_sides:
    larger = -(-config.hr_patch // unet_sides) * unet_sides
    raise InputError(f'config.hr_patch={config.hr_patch}: expected a multiple of '
                     f'{unet_sides} for the discriminator unet at scale {config.scale}, such as '
                     f'{larger}')
  if config.batch_size % config.accumulate:
    raise InputError(f'config.accumulate={config.accumulate}: expected a divisor of batch_size '
                     f'{config.batch_size}')
  _check_sizes_of_terms(config)


def check_given(config: ConfigDict, mode: str) -> ConfigDict:
  """Checks a config as `check` does, and allows the modules of the user's own that it names.

  The calling program has passed the config. What a run's config.json names was refused when it was
  read (`config_file.load_json`), unless the user has allowed it.

  Args:
    mode: of `values.IMPORTED`, which limits what is allowed to what the mode uses.

  Raises:
    InputError: as for `check`, or a network's module cannot be imported.
  """
  config = check(config)
  sections = values.IMPORTED[mode]
  user_code.allow_named(config.to_dict(), sections)
  for section in values.NETWORKS:
    if section in sections and values.is_own(config[section].name):
      # Imported now, because images are read before the networks are built.
      user_code.find(config[section].name, f'config.{section}.name')
  return config


def _check_loss(config: ConfigDict) -> None:
  adversarial = config.loss.adversarial.weight > 0
  if adversarial and config.discriminator.name == 'none':
    raise InputError(f'config.loss.adversarial.weight={config.loss.adversarial.weight}: an '
                     'adversarial loss needs a discriminator; set config.discriminator.name='
                     'vgg_style or unet')
  if not adversarial and config.discriminator.name != 'none':
    raise InputError(f'config.discriminator.name={config.discriminator.name!r}: a discriminator '
                     'needs config.loss.adversarial.weight above 0')
  if not adversarial and not any(
      weight for key, weight in values.flat(config.loss.to_dict()).items()
      if key.rpartition('.')[2] == 'weight'):
    raise InputError('config.loss: every weight is zero, there is nothing to train on')


def _check_sizes_of_terms(config: ConfigDict) -> None:
  scales, block, patch = config.loss.ms_ssim.scales, config.loss.colour.block, config.hr_patch
  if config.loss.ms_ssim.weight and patch < (least := losses.smallest_side(scales)):
    fitting = [fewer for fewer in range(1, scales) if losses.smallest_side(fewer) <= patch]
    advice = f'; or use {fitting[-1]} scales' if fitting else ''
    raise InputError(f'config.loss.ms_ssim.scales={scales}: needs a config.hr_patch of at least '
                     f'{least}, not {patch}{advice}')
  if config.loss.colour.weight and patch < block:
    raise InputError(f'config.loss.colour.block={block}: expected at most hr_patch, which is '
                     f'{patch}')


def check_phases(config: ConfigDict) -> None:
  """Refuses numbers of steps that don't go together; epochs have been converted to steps.

  Raises:
    InputError: names the key.
  """
  total, warmup = config.steps, config.warmup_steps
  if total >= 2**31:
    raise InputError(f'{describe_steps(config, "")}: expected less than 2147483648')
  adversarial = config.loss.adversarial.weight > 0
  if warmup and not adversarial:
    raise InputError(f'{describe_steps(config, "warmup_")}: expected 0; a warm-up needs a '
                     'discriminator, and this config has none')
  if not 0 <= warmup <= total:
    raise InputError(f'{describe_steps(config, "warmup_")}: expected 0 to '
                     f'{describe_steps(config, "")}')
  if warmup + (divided := sum(config.phases.steps)) > total:
    raise InputError(f'config.phases.steps={config.phases.steps}: the sum is {divided}, expected '
                     f'at most {total - warmup}, the steps of the main phase')
  for name, length in (('warmup', warmup), ('g', total - warmup),
                       ('d', (total - warmup) * adversarial)):
    if 0 < length < config.optimizer[name].ramp:
      raise InputError(f'config.optimizer.{name}.ramp={config.optimizer[name].ramp}: expected at '
                       f'most {length}, the steps of its phase; add '
                       f'--config.optimizer.{name}.ramp={length} or fewer')


def describe_steps(config: ConfigDict, prefix: str) -> str:
  """Returns 'config.steps=100' or 'config.epochs=2, which are 100 steps', as the config counts.

  Args:
    prefix: '' or 'warmup_'.
  """
  epochs, steps = config[f'{prefix}epochs'], config[f'{prefix}steps']
  return (f'config.{prefix}epochs={epochs} ({steps} steps)' if epochs
          else f'config.{prefix}steps={steps}')
