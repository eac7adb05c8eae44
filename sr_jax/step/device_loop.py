"""Runs steps on the device: one, or many in one compiled loop."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from sr_jax.step import nonfinite
from sr_jax.step.state import Batch, Metrics, PyTree, Step, TrainState

BatchAt = Callable[[Any, jax.Array, jax.Array], Batch]  # (source, seed, step), pure


def one_step(state: TrainState, source: Any, frozen: Mapping[str, PyTree],
             start: int | jax.Array | None = None, stop: int | jax.Array | None = None, *,
             step: Step, batch_at: BatchAt) -> tuple[TrainState, Metrics]:
  """Makes one batch and takes one step: `train_steps` without a loop; `start` is `state.step`."""
  return step(state, _batch(batch_at, source, state.seed, state.step), frozen)


def train_steps(state: TrainState, source: Any, frozen: Mapping[str, PyTree],
                start: int | jax.Array, stop: int | jax.Array, *, step: Step, batch_at: BatchAt,
                max_bad: int | None = None) -> tuple[TrainState, Metrics]:
  """Takes the steps start .. stop - 1 in one call: a loop on the device with traced bounds.

  Each step is the same compiled code however a run is split into calls, so the bits are the
  same. On the CPU XLA runs convolutions inside a loop several times slower: use `one_step`.

  Args:
    state: at step `start`.
    source: what `batch_at(source, seed, step)` reads: a Bank, or Batches for these steps.
    frozen: arrays that are never trained.
    start, stop: integers, traced; stop > start.
    step: such as `nonfinite.SkipNonfinite`, `PixelStep` or `GanStep`.
    batch_at: pure function of (source, seed, step).
    max_bad: of `SkipNonfinite`; the loop ends where the state no longer changes.

  Returns:
    (state, metrics of the last step). They are NaN if no step was taken.
  """
  def unfinished(carry: tuple) -> jax.Array:
    index, state, _ = carry
    return (index < stop) if max_bad is None else (index < stop) & (state.health.bad < max_bad)

  def body(carry: tuple) -> tuple:
    index, state, _ = carry
    return index + 1, *step(state, _batch(batch_at, source, state.seed, index), frozen)

  start = jnp.int32(start)
  shapes = jax.eval_shape(lambda state: body((start, state, None))[2], state)
  metrics = jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), shapes)
  _, state, metrics = lax.while_loop(unfinished, body, (start, state, metrics))
  if max_bad is not None:
    metrics |= nonfinite.health_metrics(state.health, 'd/real' in metrics)
  return state, metrics


@jax.named_scope('batch')
def _batch(batch_at: BatchAt, source: Any, seed: jax.Array, step: jax.Array) -> Batch:
  return batch_at(source, seed, step)
