"""Refuses config values that make no sense, before anything is read or built."""

import math
from typing import Any

from ml_collections import ConfigDict

from sr_jax import losses
from sr_jax.data.pictures import parse_resize
from sr_jax.errors import InputError
from sr_jax.experiment import inputs, optimizer
from sr_jax.inference import correction
from sr_jax.models import DISCRIMINATORS, GENERATORS
from sr_jax.models.layers import INITIALIZERS
from sr_jax.models.vgg import VGGS

AT_LEAST_ONE = ('scale', 'steps', 'batch_size', 'hr_patch', 'log_every', 'sample_every',
                'checkpoint_every', 'max_bad_steps', 'accumulate', 'eval.every', 'eval.pictures')
AT_LEAST_ZERO = ('epochs', 'warmup_epochs', 'progress_pictures', 'saturated_steps',
                 'checkpoint_every_seconds', 'devices', 'eval.every_epochs')
ADAM_AT_LEAST_ZERO = ('learning_rate', 'ramp', 'clip_norm', 'weight_decay', 'factor', 'final',
                      'epsilon')
CHOICES = {
    'dtype': ('float32', 'bfloat16'),
    'device_loop': ('auto', 'yes', 'no'),
    'generator.name': tuple(GENERATORS),
    'discriminator.name': ('none', *DISCRIMINATORS),
    'loss.pixel.kind': tuple(losses.PIXEL),
    'loss.perceptual.distance': tuple(losses.PIXEL),
    'loss.perceptual.network': tuple(VGGS),
    'loss.adversarial.kind': tuple(losses.ADVERSARIAL),
    'generator.init': (None, *INITIALIZERS),
    'discriminator.init': (None, *INITIALIZERS),
    'eval.lpips': ('alex', 'vgg', 'none'),
    'eval.correct.kind': ('none', *correction.KINDS)}


def check(config: ConfigDict) -> None:
  """Refuses values that no experiment can have.

  Raises:
    InputError: names the key, its value and the values that it may have.
  """
  _check_ranges(config)
  _check_choices(config)
  thresholds = config.eval.correct.thresholds
  if not _are_numbers(thresholds, 1) or len(thresholds) not in (1, 3):
    raise InputError(f'config.eval.correct.thresholds={thresholds!r}: expected 1 or 3 numbers '
                     'from 0 to 1')
  parse_resize(config.eval.resize, 'config.eval.resize')
  inputs.check(config)
  if config.hr_patch % config.scale:
    raise InputError(f'config.hr_patch={config.hr_patch}: expected a multiple of scale '
                     f'{config.scale}')
  if config.batch_size % config.accumulate:
    raise InputError(f'config.accumulate={config.accumulate}: expected a divisor of batch_size '
                     f'{config.batch_size}')
  adversarial = config.loss.adversarial.weight > 0
  if adversarial and config.discriminator.name == 'none':
    raise InputError(f'config.loss.adversarial.weight={config.loss.adversarial.weight}: an '
                     'adversarial loss needs a discriminator; set config.discriminator.name='
                     'vgg_style')
  if not adversarial and config.discriminator.name != 'none':
    raise InputError(f'config.discriminator.name={config.discriminator.name!r}: a discriminator '
                     'needs config.loss.adversarial.weight above 0')
  if not adversarial and not any(term.weight for term in config.loss.values()):
    raise InputError('config.loss: every weight is zero, there is nothing to train on')


def _check_ranges(config: ConfigDict) -> None:
  def adam_values(*keys: str) -> dict[str, Any]:
    return {f'optimizer.{name}.{key}': adam[key]
            for name, adam in config.optimizer.items() for key in keys}

  for key in AT_LEAST_ONE:
    if _value(config, key) < 1:
      raise InputError(f'config.{key}={_value(config, key)}: expected at least 1')
  weights = {f'loss.{name}.weight': term.weight for name, term in config.loss.items()}
  values = weights | adam_values(*ADAM_AT_LEAST_ZERO) | {
      key: _value(config, key) for key in AT_LEAST_ZERO}
  for key, value in values.items():
    if not 0 <= value < math.inf:
      raise InputError(f'config.{key}={value}: expected at least 0')
  if not 0 < config.join_seconds <= 86_400:
    raise InputError(f'config.join_seconds={config.join_seconds}: expected more than 0, at most '
                     '86400')
  for key, value in ({'ema': config.ema} | adam_values('beta1', 'beta2')).items():
    if not 0 <= value < 1:
      raise InputError(f'config.{key}={value}: expected at least 0 and less than 1')
  if not 0 <= config.seed < 2**31:
    raise InputError(f'config.seed={config.seed}: expected 0 to 2147483647')
  for key, value in adam_values('boundaries').items():
    if not _are_numbers(value, 2**31) or 0 in value:
      raise InputError(f'config.{key}={value!r}: expected steps, or fractions of the phase below 1')


def _check_choices(config: ConfigDict) -> None:
  choices = CHOICES | {f'optimizer.{name}.schedule': optimizer.SCHEDULES
                       for name in config.optimizer}
  for key, allowed in choices.items():
    if _value(config, key) not in allowed:
      raise InputError(f'config.{key}={_value(config, key)!r}: expected one of '
                       f'{", ".join(filter(None, allowed))}')


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
  for name, length in (('warmup', warmup), ('g', total - warmup),
                       ('d', (total - warmup) * adversarial)):
    if 0 < length < config.optimizer[name].ramp:
      raise InputError(f'config.optimizer.{name}.ramp={config.optimizer[name].ramp}: expected at '
                       f'most {length}, the steps of its phase')


def describe_steps(config: ConfigDict, prefix: str) -> str:
  """Returns 'config.steps=100' or 'config.epochs=2, which are 100 steps', as the config counts.

  Args:
    prefix: '' or 'warmup_'.
  """
  epochs, steps = config[f'{prefix}epochs'], config[f'{prefix}steps']
  return (f'config.{prefix}epochs={epochs} ({steps} steps)' if epochs
          else f'config.{prefix}steps={steps}')


def _value(config: ConfigDict, key: str) -> Any:
  for part in key.split('.'):
    config = config[part]
  return config


def _are_numbers(values: Any, limit: float) -> bool:
  """Returns whether values is a sequence of numbers from 0 to limit; JSON gives a list."""
  return isinstance(values, (tuple, list)) and all(
      type(value) in (int, float) and 0 <= value <= limit for value in values)
