"""config.optimizer.* -> an Optax transformation and its schedule."""

import optax

from sr_jax.errors import InputError


def build_schedule(config, steps: int) -> optax.Schedule:
  """Learning rate against steps of the phase, counted from its start.

  Args:
    config: `learning_rate`; `schedule`, one of 'constant', 'multistep' (times `factor` at
      each of `boundaries`) and 'cosine' (to `final` times the rate at the phase's end);
      `ramp`, steps of linear rise from zero.
    steps: length of the phase.
  """
  rate = config.learning_rate
  if config.schedule == 'constant':
    schedule = optax.constant_schedule(rate)
  elif config.schedule == 'multistep':
    schedule = optax.piecewise_constant_schedule(
        rate, {int(boundary): config.factor for boundary in config.boundaries})
  elif config.schedule == 'cosine':
    schedule = optax.cosine_decay_schedule(rate, max(1, steps), config.final)
  else:
    raise InputError(f"schedule {config.schedule!r}: expected 'constant', 'multistep' or 'cosine'")
  if not config.ramp:
    return schedule
  rise = optax.linear_schedule(0.0, 1.0, config.ramp)
  return lambda count: rise(count + 1) * schedule(count)


def build_optimizer(config, steps: int) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """Adam with config's betas and epsilon, its gradients clipped where `clip_norm` is set.

  Every phase of a run has the same chain of transformations, whatever its figures, so that
  one checkpoint layout fits all of them.
  """
  schedule = build_schedule(config, steps)
  clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
  adam = optax.adam(schedule, b1=config.beta1, b2=config.beta2, eps=config.epsilon)
  return optax.chain(clip, adam), schedule
