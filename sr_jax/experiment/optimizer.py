"""config.optimizer.* -> an Optax transformation and its schedule."""

import collections

import optax
from ml_collections import ConfigDict

from sr_jax.errors import InputError
from sr_jax.step.adan import scale_by_adan
from sr_jax.step.muon import scale_by_muon

# The published values of each optimiser's keys: Kingma and Ba 2015; Loshchilov and Hutter 2019,
# with PyTorch's weight decay; Xie et al. 2022; Chen et al. 2023; Jordan et al. 2024; Defazio et al.
# 2024. A key that is missing is one that the optimiser does not have.
DEFAULTS = {
    'adam': {'beta1': 0.9, 'beta2': 0.999, 'epsilon': 1e-8, 'weight_decay': 0.0},
    'adamw': {'beta1': 0.9, 'beta2': 0.999, 'epsilon': 1e-8, 'weight_decay': 0.01},
    'adan': {'beta1': 0.98, 'beta2': 0.92, 'beta3': 0.99, 'epsilon': 1e-8, 'weight_decay': 0.0},
    'lion': {'beta1': 0.9, 'beta2': 0.99, 'weight_decay': 0.0},
    'muon': {'beta1': 0.95, 'beta2': 0.999, 'epsilon': 1e-8, 'weight_decay': 0.0},
    'schedule_free': {'beta1': 0.9, 'beta2': 0.999, 'epsilon': 1e-8, 'weight_decay': 0.0}}


def build_schedule(config: ConfigDict, steps: int) -> optax.Schedule:
  """Returns the learning rate as a function of the step, counted from the start of the phase.

  Args:
    config: a section with `learning_rate`; `schedule`: 'constant', 'multistep' (times `factor` at
      each of `boundaries`; a boundary below 1 is a share of the phase) or 'cosine' (down to
      `final` times the rate at the end of the phase); `ramp`: steps of linear rise from zero.
    steps: length of the phase.
  """
  rate = config.learning_rate
  if config.schedule == 'constant':
    schedule = optax.constant_schedule(rate)
  elif config.schedule == 'multistep':
    factors = collections.Counter(round(boundary if boundary >= 1 else boundary * steps)
                                  for boundary in config.boundaries)
    schedule = optax.piecewise_constant_schedule(
        rate, {at: config.factor**times for at, times in factors.items()})
  elif config.schedule == 'cosine':
    schedule = optax.cosine_decay_schedule(rate, max(1, steps), config.final)
  else:
    raise InputError(f'schedule {config.schedule!r}: expected constant, multistep or cosine')
  if not config.ramp:
    return schedule
  rise = optax.linear_schedule(0.0, 1.0, config.ramp)
  return lambda count: rise(count + 1) * schedule(count)


def depends_on_steps(config: ConfigDict) -> bool:
  """Returns whether the learning rate at a step depends on the length of the phase."""
  shares = any(boundary < 1 for boundary in config.boundaries)
  return config.schedule == 'cosine' or (config.schedule == 'multistep' and shares)


def build_optimizer(config: ConfigDict, steps: int
                    ) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """Builds the optimiser of a section, with gradient clipping and weight decay.

  Weight decay is decoupled from the gradient and multiplied by the learning rate, as in AdamW,
  whatever the optimiser.

  Args:
    config: a section of config.optimizer.
    steps: length of the phase.

  Returns:
    (transformation, learning rate against the step of the phase).
  """
  config, schedule = with_defaults(config), build_schedule(config, steps)
  clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
  decay = (optax.add_decayed_weights(config.weight_decay) if config.weight_decay
           else optax.identity())
  scale = _scale(config)
  if config.name != 'schedule_free':
    return optax.chain(clip, scale, decay, optax.scale_by_learning_rate(schedule)), schedule
  # Optax gives the schedule of the averaging weights the number of the step, counted from 1; the
  # weight of a step is the square of the rate that it is taken with (Defazio et al. 2024).
  averaged = optax.contrib.schedule_free(
      optax.chain(scale, decay, optax.scale_by_learning_rate(schedule)),
      lambda count: schedule(count - 1), b1=config.beta1)
  return optax.chain(clip, averaged), schedule


def _scale(config: ConfigDict) -> optax.GradientTransformation:
  """Returns what makes an update of the gradient, before weight decay and learning rate."""
  if config.name == 'adan':
    return scale_by_adan(config.beta1, config.beta2, config.beta3, config.epsilon)
  if config.name == 'lion':
    return optax.scale_by_lion(config.beta1, config.beta2)
  if config.name == 'muon':
    return scale_by_muon(config.beta1, config.beta2, config.epsilon)
  if config.name == 'schedule_free':  # Adam without momentum, in whose place the averaging is
    return optax.scale_by_rms(config.beta2, config.epsilon, eps_in_sqrt=False,
                              bias_correction=True)
  return optax.scale_by_adam(config.beta1, config.beta2, config.epsilon)


def with_defaults(config: ConfigDict) -> ConfigDict:
  """Returns a section of config.optimizer with the published value of each key that is None."""
  config = config.copy_and_resolve_references()
  config.update({key: value for key, value in DEFAULTS[config.name].items()
                 if config[key] is None})
  return config


def check_optimizer(config: ConfigDict, section: str) -> None:
  """Refuses keys that an optimiser does not have, and schedules that it does not go with.

  Args:
    config: a section of config.optimizer.
    section: its name, such as 'g'.

  Raises:
    InputError: names the key.
  """
  name, where = config.name, f'config.optimizer.{section}'
  for key in ('beta1', 'beta2', 'beta3', 'epsilon', 'weight_decay'):
    if config[key] is not None and key not in DEFAULTS[name]:
      raise InputError(f'{where}.{key}={config[key]}: {where}.name={name!r} has no {key}; its keys '
                       f'are {", ".join(DEFAULTS[name])}. Set --{where}.{key}=None')
  if name == 'schedule_free' and config.schedule != 'constant':
    raise InputError(f'{where}.schedule={config.schedule!r}: {where}.name={name!r} averages the '
                     "weights instead of lowering the rate; expected 'constant', with a ramp if "
                     f'wanted: --{where}.schedule=constant')
  if name == 'schedule_free' and config.beta1 == 0:
    raise InputError(f'{where}.beta1=0.0: {where}.name={name!r} needs a number above 0')


def check_average(config: ConfigDict) -> None:
  """Refuses a moving average of weights that the optimiser averages itself.

  Raises:
    InputError: names the key.
  """
  sections = ['g'] + ['warmup'] * bool(config.warmup_steps or config.warmup_epochs)
  if config.ema and all(config.optimizer[section].name == 'schedule_free' for section in sections):
    raise InputError(f"config.ema={config.ema}: config.optimizer.g.name='schedule_free' averages "
                     'the weights itself, and these are evaluated; add --config.ema=0')
