"""Values drawn from uniform numbers, so that a stage calls the random generator once."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def between(uniform: jax.Array, low: float, high: float) -> jax.Array:
  """Maps a uniform number in [0, 1) to [low, high)."""
  return low + (high - low) * uniform


def choose(uniform: jax.Array, weights: Sequence[float]) -> jax.Array:
  """Returns an index, int32, drawn with probabilities in proportion to `weights`.

  Args:
    uniform: a uniform number in [0, 1).
    weights: not negative; their sum is positive but need not be 1.
  """
  ends = np.cumsum(weights) / np.sum(weights)
  return jnp.sum(uniform >= np.float32(ends[:-1])).astype(jnp.int32)


def around_one(uniform: jax.Array, low: float, high: float) -> jax.Array:
  """Draws from [low, 1) and [1, high) with equal odds, uniformly within each of the two.

  The shapes of the generalised and plateau kernels are drawn so in Real-ESRGAN.
  """
  half = 2 * uniform
  return jnp.where(half < 1, between(half, low, 1), between(half - 1, 1, high))
