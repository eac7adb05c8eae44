"""config.optimizer.* -> an Optax transformation and its schedule."""

import collections

import optax
from ml_collections import ConfigDict

from sr_jax.errors import InputError


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
  """Builds Adam with gradient clipping and weight decay where they are configured.

  Every phase of a run has the same chain of transformations, whatever its settings, so that one
  checkpoint layout fits all of them.

  Args:
    config: a section of config.optimizer.
    steps: length of the phase.

  Returns:
    (transformation, learning rate against the step of the phase).
  """
  schedule = build_schedule(config, steps)
  clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
  decay = (optax.add_decayed_weights(config.weight_decay) if config.weight_decay
           else optax.identity())
  adam = optax.scale_by_adam(config.beta1, config.beta2, config.epsilon)
  return optax.chain(clip, adam, decay, optax.scale_by_learning_rate(schedule)), schedule
