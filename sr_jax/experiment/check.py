"""Whether a config makes sense: values refused before anything is read or built."""

import math

from sr_jax import losses
from sr_jax.data.pictures import parse_resize
from sr_jax.errors import InputError
from sr_jax.experiment import inputs, optimizer
from sr_jax.inference import correction
from sr_jax.models import DISCRIMINATORS, GENERATORS
from sr_jax.models.layers import INITIALIZERS
from sr_jax.models.vgg import VGGS


def check(config) -> None:
  """Refuses values that no experiment can have.

  Raises:
    InputError: naming the key, what it holds and what it may hold.
  """
  def each_adam(*keys):
    return [(f'optimizer.{name}.{key}', adam[key])
            for name, adam in config.optimizer.items() for key in keys]

  def own(*keys):
    return [(key, config[key]) for key in keys]

  for key, value in (*own('scale', 'steps', 'batch_size', 'hr_patch', 'log_every', 'sample_every',
                          'checkpoint_every', 'max_bad_steps', 'accumulate'),
                     ('eval.every', config.eval.every), ('eval.pictures', config.eval.pictures)):
    if value < 1:
      raise InputError(f'config.{key}={value}: expected at least 1')
  for key, value in (*((f'loss.{name}.weight', term.weight) for name, term in config.loss.items()),
                     *each_adam('learning_rate', 'ramp', 'clip_norm', 'weight_decay', 'factor',
                                'final', 'epsilon'),
                     *own('epochs', 'warmup_epochs', 'progress_pictures', 'saturated_steps',
                          'checkpoint_every_seconds', 'devices'),
                     ('eval.every_epochs', config.eval.every_epochs)):
    if not 0 <= value < math.inf:
      raise InputError(f'config.{key}={value}: expected at least 0')
  if not 0 < config.join_seconds <= 86_400:
    raise InputError(f'config.join_seconds={config.join_seconds}: expected more than 0, at most '
                     '86400')
  for key, value in (*own('ema'), *each_adam('beta1', 'beta2')):
    if not 0 <= value < 1:
      raise InputError(f'config.{key}={value}: expected at least 0 and less than 1')
  if not 0 <= config.seed < 2**31:
    raise InputError(f'config.seed={config.seed}: expected 0 to 2147483647')
  for key, value in each_adam('boundaries'):
    if not _are_numbers(value, 2**31) or 0 in value:
      raise InputError(f'config.{key}={value!r}: expected steps, or shares of the phase below 1')
  for key, value, allowed in (
      ('dtype', config.dtype, ('float32', 'bfloat16')),
      ('device_loop', config.device_loop, ('auto', 'yes', 'no')),
      ('generator.name', config.generator.name, tuple(GENERATORS)),
      ('discriminator.name', config.discriminator.name, ('none', *DISCRIMINATORS)),
      ('loss.pixel.kind', config.loss.pixel.kind, tuple(losses.PIXEL)),
      ('loss.perceptual.distance', config.loss.perceptual.distance, tuple(losses.PIXEL)),
      ('loss.perceptual.network', config.loss.perceptual.network, tuple(VGGS)),
      ('loss.adversarial.kind', config.loss.adversarial.kind, tuple(losses.ADVERSARIAL)),
      ('generator.init', config.generator.init, (None, *INITIALIZERS)),
      ('discriminator.init', config.discriminator.init, (None, *INITIALIZERS)),
      *((key, value, optimizer.SCHEDULES) for key, value in each_adam('schedule')),
      ('eval.lpips', config.eval.lpips, ('alex', 'vgg', 'none')),
      ('eval.correct.kind', config.eval.correct.kind, ('none', *correction.KINDS))):
    if value not in allowed:
      raise InputError(f'config.{key}={value!r}: expected one of '
                       f'{", ".join(filter(None, allowed))}')
  thresholds = config.eval.correct.thresholds
  if not _are_numbers(thresholds, 1) or len(thresholds) not in (1, 3):
    raise InputError(f'config.eval.correct.thresholds={thresholds!r}: expected 1 or 3 numbers '
                     'from 0 to 1')
  parse_resize(config.eval.resize, 'config.eval.resize')
  inputs.check(config)
  if config.hr_patch % config.scale:
    raise InputError(f'config.hr_patch={config.hr_patch}: not a multiple of scale {config.scale}')
  if config.batch_size % config.accumulate:
    raise InputError(f'config.accumulate={config.accumulate}: expected a divisor of batch_size '
                     f'{config.batch_size}')
  adversarial = config.loss.adversarial.weight > 0
  if adversarial != (config.discriminator.name != 'none'):
    raise InputError(f'config.discriminator.name={config.discriminator.name!r} with loss.'
                     f'adversarial.weight={config.loss.adversarial.weight}: one needs the other')
  if not adversarial and not any(term.weight for term in config.loss.values()):
    raise InputError('config.loss: every weight is zero, there is nothing to train on')


def check_phases(config) -> None:
  """Refuses steps that don't go together; what is counted in epochs is in steps by now.

  Raises:
    InputError: naming the key.
  """
  total, warmup = config.steps, config.warmup_steps
  if total >= 2**31:
    raise InputError(f'{describe_steps(config, "")}: expected less than 2147483648')
  adversarial = config.loss.adversarial.weight > 0
  if not 0 <= warmup <= (total if adversarial else 0):
    raise InputError(
        f'{describe_steps(config, "warmup_")}: expected 0 to ' + (
            f'{describe_steps(config, "")}' if adversarial else '0 (warm-up is for adversarial runs)'))
  for name, length in (('warmup', warmup), ('g', total - warmup),
                       ('d', (total - warmup) * adversarial)):
    if 0 < length < config.optimizer[name].ramp:
      raise InputError(f'config.optimizer.{name}.ramp={config.optimizer[name].ramp}: its phase '
                       f'has no more than {length} steps')


def describe_steps(config, prefix: str) -> str:
  """'config.steps=100' or 'config.epochs=2, which are 100 steps', as the config counts.

  Args:
    prefix: '' or 'warmup_'.
  """
  epochs, steps = config[f'{prefix}epochs'], config[f'{prefix}steps']
  return (f'config.{prefix}epochs={epochs}, which are {steps} steps' if epochs
          else f'config.{prefix}steps={steps}')


def _are_numbers(values, limit: float) -> bool:
  """Whether values are of 0 to limit; a list where they come from JSON."""
  return isinstance(values, (tuple, list)) and all(
      type(value) in (int, float) and 0 <= value <= limit for value in values)
