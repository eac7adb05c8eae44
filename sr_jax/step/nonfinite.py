"""Skips updates that contain NaN or Inf, counts them, and reports which term caused them.

`SkipNonfinite` wraps every training step (experiment/phases.py); what the loop does about the
counts is in train/step_log.py.
"""

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from sr_jax.step.flat import vector
from sr_jax.step.state import Batch, Health, Metrics, PyTree, Step, TrainState


@dataclasses.dataclass(frozen=True, eq=False)
class SkipNonfinite:
  """A training step that skips an update with a non-finite number in it as a whole.

  A skipped step is counted, because its batch is used up, but the weights, optimiser states,
  statistics and averages of G and D stay as they were: half an update would put the two out of
  step, and later steps would not repair that. Three things are checked: the metrics (every term of
  both losses and the norms of both gradients, which are non-finite if any gradient is), BatchNorm's
  statistics, which can overflow although what they normalise does not, and the new weights (Adam
  without an epsilon divides by zero; a learning rate can be too large). It is a
  select on the device, so it costs no further call or synchronisation.

  `optax.apply_if_finite` would not do: it sees the gradients of its own network only, neither the
  other network's nor the statistics nor the average, and past its limit it applies the update.

  After `max_bad` such steps in a row the state no longer changes, its step number included, so
  that a call that was already dispatched has no effect.

  Attributes:
    step: the wrapped step.
    max_bad: number of skipped steps in a row after which the state stops changing.
  """

  step: Step
  max_bad: int

  def __call__(self, state: TrainState, batch: Batch,
               frozen: Mapping[str, PyTree]) -> tuple[TrainState, Metrics]:
    """Returns (state, metrics): the step's metrics even where they are non-finite,
    `health_metrics` and `g/ema_distance`, see `ema_distance`.
    """
    return self.select(state, *self.step(state, batch, frozen))

  @jax.named_scope('guard')
  def select(self, old: TrainState, new: TrainState,
             metrics: Metrics) -> tuple[TrainState, Metrics]:
    """Returns `new`, or `old` with its counters advanced where `new` is non-finite."""
    arrays = [metrics, *((net.params, net.batch_stats) for net in (new.g, new.d) if net)]
    finite = jnp.all(jnp.isfinite(vector(arrays)))
    stalled, health = old.health.bad >= self.max_bad, old.health
    bad = 1 - finite.astype(jnp.int32)
    counted = Health(health.skipped + bad, (health.bad + bad) * bad,
                     jnp.where(finite, _saturated(health.saturated, metrics), health.saturated))

    def choose(condition: jax.Array, trees: PyTree, others: PyTree) -> PyTree:
      return jax.tree.map(lambda a, b: jnp.where(condition, a, b), trees, others)

    g, d, ema = choose(finite & ~stalled, (new.g, new.d, new.ema), (old.g, old.d, old.ema))
    number, health = choose(stalled, (old.step, health), (new.step, counted))
    state = old._replace(step=number, g=g, d=d, ema=ema, health=health)
    return state, metrics | health_metrics(health, 'd/real' in metrics) | {
        'g/ema_distance': ema_distance(state)}


def health_metrics(health: Health, adversarial: bool) -> Metrics:
  """Returns the counters as float32: 'skipped', 'bad' and, in an adversarial phase,
  'd/saturated'.
  """
  named = {'skipped': health.skipped, 'bad': health.bad}
  if adversarial:
    named['d/saturated'] = health.saturated
  return {name: count.astype(jnp.float32) for name, count in named.items()}


def ema_distance(state: TrainState) -> jax.Array:
  """Returns ||weights - average|| / ||average||, Euclidean, over G's trainable arrays."""
  weights, average = (vector(net.params.trained()) for net in (state.g, state.ema))
  distance, size = jnp.linalg.norm(weights - average), jnp.linalg.norm(average)
  return jnp.where(size > 0, distance / jnp.where(size > 0, size, 1), 0)


def rewind(state: TrainState) -> TrainState:
  """Returns the state before the skipped steps at its end; itself if the last step was finite.

  This is exact, because skipped steps change only the counters. All other arrays are those of
  `state`.
  """
  bad = state.health.bad
  health = state.health._replace(skipped=state.health.skipped - bad, bad=bad - bad)
  return state._replace(step=state.step - bad, health=health)


def _saturated(count: jax.Array, metrics: Metrics) -> jax.Array:
  if 'd/real' not in metrics:
    return count
  # A rounded mean of correct answers only may be slightly below 1.
  perfect = jnp.minimum(metrics['d/real'], metrics['d/fake']) > 1 - 1e-6
  return jnp.where(perfect, count + 1, 0)


# Messages ----------------------------------------------------------------------------------


def nonfinite_names(metrics: Mapping[str, float | None]) -> list[str]:
  """Returns the names of the non-finite metrics; None counts, the log has null for it."""
  return [name for name, value in metrics.items() if value is None or not math.isfinite(value)]


def root_causes(metrics: Mapping[str, float | None]) -> list[str]:
  """Returns the root causes of a non-finite step.

  These are loss terms, else the total, else gradient norms, else the new weights.
  """
  # The average did not change, but its distance to weights that have overflowed is not finite.
  names = [name for name in nonfinite_names(metrics) if name != 'g/ema_distance']
  norms = [name for name in names if name.endswith('/grad_norm')]
  terms = [name for name in names if name not in (*norms, 'g/total')]
  # A total can be infinite where no term is.
  return terms or [name for name in names if name == 'g/total'] or norms or [
      'new weights or BatchNorm statistics']


def nonfinite_message(step: int, bad: int, seed: int, metrics: Mapping[str, float | None],
                      image: str = '') -> str:
  """Returns one line for a run that stops because every step is non-finite.

  Args:
    step: the last of these steps.
    bad: how many there were in a row.
    seed: of the run.
    metrics: of the last step.
    image: the file that shows the batch of the first one.
  """
  first = step - bad + 1
  which = f'steps {first} to {step} were' if bad > 1 else f'step {first} was'
  causes = ', '.join(root_causes(metrics))
  return (f'{which} non-finite ({causes}); batch: seed {seed}, step {first}'
          + (f', shown in {image}' if image else '')
          + f'; the state before step {first} is checkpoint {first - 1}; sr-jax replay '
          f'--step {first} repeats the step')


def untrained_message(skipped: int) -> str:
  """Returns one line for a run that took all its steps, each of which was skipped."""
  return (f'all {skipped} updates were non-finite (NaN/Inf) and skipped, so that the weights are '
          'those of the start; train.log names the terms that cause it. Change the losses or the '
          'learning rates, and train in a new --workdir')


def saturation_warning(step: int, saturated: int) -> str:
  """Returns a warning about a discriminator that has been right `saturated` steps in a row."""
  return (f'warning: D has classified every real and every generated image correctly for '
          f'{saturated} steps in a row up to step {step}. A saturated D gives G no useful '
          'gradient: lower config.optimizer.d.learning_rate or raise config.warmup_steps')
