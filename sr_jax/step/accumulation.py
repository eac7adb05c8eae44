"""Gradients of a batch that is processed in parts: `config.accumulate`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from sr_jax.step.state import Batch, PyTree

Part = int | jax.Array  # number of a part of a batch, from 0


def in_parts(gradients: Callable[[PyTree, Batch, Part], tuple[PyTree, PyTree]], stats: PyTree,
             batch: Batch, parts: int) -> tuple[PyTree, PyTree]:
  """Accumulates gradients over parts of a batch whose activations do not fit in memory at once.

  Losses are means over crops, so the mean of the parts' gradients is the gradient of the batch.
  What depends on the other crops of a batch depends on those of the part instead: BatchNorm's
  statistics and the mean in the relativistic loss. Running statistics move once for each part.

  On the CPU this saves hardly any memory: XLA's convolutions are ten times slower inside a loop
  there, so the loop is unrolled and XLA may schedule the parts as it likes.

  Args:
    gradients: (stats, batch, number of the part) -> (stats, any tree of float arrays).
    stats: BatchNorm's running statistics, passed from part to part.
    batch: {name: [B, ...]}, B a multiple of `parts`. Part i has the crops i, i + parts, ..., so
      that on several devices each part has equally many crops of every device.
    parts: number of parts; 1 calls `gradients` once.

  Returns:
    (stats after the last part, the mean of the trees).
  """
  if parts == 1:
    return gradients(stats, batch, 0)
  batch = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)

  def add(carry: tuple[PyTree, PyTree], numbered: tuple[Batch, jax.Array]
          ) -> tuple[tuple[PyTree, PyTree], None]:
    stats, sums = carry
    stats, more = gradients(stats, *numbered)
    return (stats, jax.tree.map(jnp.add, sums, more)), None

  shapes = jax.eval_shape(gradients, stats, jax.tree.map(lambda x: x[0], batch), 0)[1]
  sums = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
  (stats, sums), _ = lax.scan(add, (stats, sums), (batch, jnp.arange(parts)),
                              unroll=jax.default_backend() == 'cpu')
  return stats, jax.tree.map(lambda leaf: leaf / parts, sums)
