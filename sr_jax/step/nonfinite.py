"""Numbers that are none: a step that gives one is left out, counted, and its cause is named.

`guarded` is around every training step (build.py); what is done about the counts, loop.py does.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from sr_jax.step.freezing import Trainable
from sr_jax.step.state import Health, TrainState


def skip_nonfinite(state: TrainState, batch, frozen, *, step: Callable, max_bad: int,
            trainable: Trainable | None = None):
  """`step`, but an update with a number that is none (nan, infinite) is left out as a whole.

  Such a step counts as one, for its batch is used up, but weights, moments, statistics and
  averages of G and of D stay as they were: half an update would put the two out of step, and
  the next one would not mend it. Looked at are the metrics (each term of both losses, the
  gradients' norms, which no number in a gradient escapes), BatchNorm's statistics, which can
  leave the numbers while what they normalise does not, and the new weights: Adam without an
  epsilon divides by zero, a learning rate can be too long. A select on the device does it:
  no dispatch more, nothing to wait for.

  Not `optax.apply_if_finite`: it sees the gradients of its own network alone, neither the
  other's nor the statistics nor the average, and past its limit it lets the update through.

  After `max_bad` such steps in a row the state stands still, its step number too, so that a
  dispatch which was already on its way changes nothing.

  Args:
    step: `steps.pixel_step` or `steps.gan_step`, all but its first three arguments bound.
    trainable: of the same step.

  Returns:
    (state, metrics): those of `step`, also where they are no numbers; `figures` of the state;
    `g/ema_distance`, see `ema_distance`.
  """
  return _judged(state, *step(state, batch, frozen), max_bad, trainable)


@jax.named_scope('guard')
def _judged(state, new, metrics, max_bad, trainable):
  looked_at = metrics, [(net.batch_stats, net.params) for net in (new.g, new.d) if net]
  finite = jnp.all(jnp.isfinite(_in_a_row(jax.tree.leaves(looked_at))))
  stands, health = state.health.bad >= max_bad, state.health
  bad = 1 - finite.astype(jnp.int32)
  counted = Health(health.skipped + bad, (health.bad + bad) * bad,
                   jnp.where(finite, _saturated(health.saturated, metrics), health.saturated))

  def chosen(condition, trees, others):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), trees, others)

  g, d, ema = chosen(finite & ~stands, (new.g, new.d, new.ema), (state.g, state.d, state.ema))
  number, health = chosen(stands, (state.step, health), (new.step, counted))
  state = state._replace(step=number, g=g, d=d, ema=ema, health=health)
  return state, metrics | health_metrics(health, 'd/real' in metrics) | {
      'g/ema_distance': ema_distance(state, trainable)}


def health_metrics(health: Health, adversarial: bool) -> dict[str, jax.Array]:
  """{'skipped', 'bad' and, with a discriminator at work, 'd/saturated'}: float32, of `Health`."""
  named = {'skipped': health.skipped, 'bad': health.bad}
  if adversarial:
    named['d/saturated'] = health.saturated
  return {name: count.astype(jnp.float32) for name, count in named.items()}


def _in_a_row(leaves: Sequence[jax.Array]) -> jax.Array:
  """One vector: XLA compiles a reduction of each array of a deep network for ten times as long."""
  return jnp.concatenate([jnp.ravel(leaf) for leaf in leaves])


def _saturated(before, metrics):
  if 'd/real' not in metrics:
    return before
  # Where a mean is rounded, all of them right may come out a bit below 1.
  right = jnp.minimum(metrics['d/real'], metrics['d/fake']) > 1 - 1e-6
  return jnp.where(right, before + 1, 0)


def ema_distance(state: TrainState, trainable: Trainable | None = None) -> jax.Array:
  """||weights - average|| / ||average||, Euclidean, of all the generator's arrays that train."""
  trees = state.g.params, state.ema['params']
  learns = trainable.params if trainable else jax.tree.map(lambda _: True, trees[0])
  weights, average = (_in_a_row([leaf for leaf, trains in zip(
      *map(jax.tree.leaves, (tree, learns)), strict=True) if trains]) for tree in trees)
  apart, size = jnp.linalg.norm(weights - average), jnp.linalg.norm(average)
  return jnp.where(size > 0, apart / jnp.where(size > 0, size, 1), 0)


def rewound(state: TrainState) -> TrainState:
  """The state before the first of the bad steps that it comes from; itself where the last was good.

  Exact, for they moved nothing but the counts. Its other arrays are those of `state`.
  """
  bad = state.health.bad
  health = state.health._replace(skipped=state.health.skipped - bad, bad=bad - bad)
  return state._replace(step=state.step - bad, health=health)


# In words ----------------------------------------------------------------------------------


def nonfinite_names(metrics: Mapping[str, float | None]) -> list[str]:
  """Names of the metrics that are no numbers; None, which a log has for them, is none."""
  return [name for name, value in metrics.items() if value is None or not math.isfinite(value)]


def root_causes(metrics: Mapping[str, float | None]) -> list[str]:
  """Of a bad step: what of `not_finite` the rest follows from; terms before their gradients."""
  # The average is what it was; far from weights that have grown past all numbers, though.
  lost = [name for name in nonfinite_names(metrics) if name != 'g/ema_distance']
  norms = [name for name in lost if name.endswith('/grad_norm')]
  terms = [name for name in lost if name not in (*norms, 'g/total')]
  # A total can be infinite where no term is.
  return terms or [name for name in lost if name == 'g/total'] or norms or [
      'new weights or BatchNorm statistics']


def nonfinite_message(step: int, bad: int, seed: int, metrics: Mapping[str, float | None],
                 picture='') -> str:
  """One line for a run that stops because nothing but bad steps come.

  Args:
    step: the last of them.
    bad: how many in a row.
    metrics: of the last.
    picture: the file that shows the first one's batch.
  """
  first = step - bad + 1
  which = f'steps {first} to {step} gave' if bad > 1 else f'step {first} gave'
  return (f'{which} no finite numbers ({", ".join(root_causes(metrics))}): batch of seed {seed}, step '
          f'{first}' + (f', shown in {picture}' if picture else '')
          + f'; the state before is checkpoint {first - 1}; --mode replay --step {first} runs it '
          'again')


def saturation_warning(step: int, saturated: int) -> str:
  """A line for a discriminator that has won; `saturated` steps in a row up to `step`."""
  return (f'warning: up to step {step}, for {saturated} steps in a row, D has taken every real and '
          'every generated picture for what it is; so sure a D teaches G nothing: lower '
          'config.optimizer.d.learning_rate, or begin with more config.warmup_steps')
