"""Whether a config makes sense: values refused before anything is read or built."""

import math

from sr_jax import build_data, correction, losses, optim
from sr_jax.errors import InputError
from sr_jax.models import DISCRIMINATORS, GENERATORS
from sr_jax.models.layers import INITIALIZERS
from sr_jax.models.vgg import VGGS


def check(config) -> None:
  """Refuses values that no experiment can have, before anything is built.

  Raises:
    InputError: naming the key, what it holds and what it may hold.
  """
  for key, value in (
      *((key, config[key]) for key in ('scale', 'steps', 'batch_size', 'hr_patch', 'log_every',
                                       'sample_every', 'checkpoint_every')),
      ('eval.every', config.eval.every), ('eval.pictures', config.eval.pictures)):
    if value < 1:
      raise InputError(f'config.{key}={value}: expected at least 1')
  for key, value in (*((f'loss.{name}.weight', term.weight) for name, term in config.loss.items()),
                     *((f'optimizer.{name}.{key}', adam[key])
                       for name, adam in config.optimizer.items()
                       for key in ('learning_rate', 'ramp', 'clip_norm', 'weight_decay')),
                     *((key, config[key]) for key in (
                         'epochs', 'warmup_epochs', 'progress_pictures')),
                     ('eval.every_epochs', config.eval.every_epochs)):
    if value < 0:
      raise InputError(f'config.{key}={value}: expected at least 0')
  for key, value in (('ema', config.ema), *(
      (f'optimizer.{name}.{key}', adam[key]) for name, adam in config.optimizer.items()
      for key in ('beta1', 'beta2'))):
    if not 0 <= value < 1:
      raise InputError(f'config.{key}={value}: expected at least 0 and less than 1')
  if not 0 <= config.seed < 2**31:
    raise InputError(f'config.seed={config.seed}: expected 0 to 2147483647')
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
      *((f'optimizer.{name}.schedule', adam.schedule, optim.SCHEDULES)
        for name, adam in config.optimizer.items()),
      ('eval.lpips', config.eval.lpips, ('alex', 'vgg', 'none')),
      ('eval.correct.kind', config.eval.correct.kind, ('none', *correction.KINDS))):
    if value not in allowed:
      raise InputError(f'config.{key}={value!r}: expected one of '
                       f'{", ".join(filter(None, allowed))}')
  thresholds = tuple(config.eval.correct.thresholds)  # a list where it comes from JSON
  if len(thresholds) not in (1, 3) or not all(
      type(value) in (int, float) and 0 <= value < math.inf for value in thresholds):
    raise InputError(f'config.eval.correct.thresholds={thresholds}: expected 1 or 3 numbers, '
                     'none less than 0')
  build_data.check(config)
  if config.hr_patch % config.scale:
    raise InputError(f'config.hr_patch={config.hr_patch}: not a multiple of scale {config.scale}')
  adversarial = config.loss.adversarial.weight > 0
  if adversarial != (config.discriminator.name != 'none'):
    raise InputError(f'config.discriminator.name={config.discriminator.name!r} with loss.'
                     f'adversarial.weight={config.loss.adversarial.weight}: one needs the other')
  if config.epochs and config.warmup_epochs > config.epochs:
    raise InputError(f'config.warmup_epochs={config.warmup_epochs}: expected at most '
                     f'config.epochs, {config.epochs}')
  if not 0 <= config.warmup_steps <= (config.steps if adversarial else 0):
    raise InputError(f'config.warmup_steps={config.warmup_steps}: expected 0 to '
                     f'{config.steps if adversarial else 0} (warm-up is for adversarial runs)')
  main_steps = config.steps - config.warmup_steps
  for name, length in (('warmup', config.warmup_steps), ('g', main_steps),
                       ('d', main_steps * adversarial)):
    if 0 < length < config.optimizer[name].ramp:
      raise InputError(f'config.optimizer.{name}.ramp={config.optimizer[name].ramp}: its phase '
                       f'has no more than {length} steps')
  if not adversarial and not any(term.weight for term in config.loss.values()):
    raise InputError('config.loss: every weight is zero, there is nothing to train on')
