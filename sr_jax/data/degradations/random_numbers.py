"""Random numbers for each pixel of a batch, from a key for each image.

`jax.random` takes five times as long on a CPU, because XLA computes its numbers in several passes
over memory. These are computed in one pass, and a pixel's number depends on its image's key and
its position alone, not on the size of the canvas.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

# Threefry-2x32 with 20 rounds (Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3).
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA

# Rates below are sampled by summation, up to a count that is exceeded with probability 1e-7.
SMALL_RATE, LARGEST_COUNT = 6.0, 22


def threefry(key: tuple[jax.Array, jax.Array], counter: tuple[jax.Array, jax.Array]
             ) -> tuple[jax.Array, jax.Array]:
  """Computes Threefry-2x32: two uint32 of a key and a counter of two uint32, all broadcast."""
  schedule = key[0], key[1], key[0] ^ key[1] ^ np.uint32(PARITY)
  x, y = counter[0] + schedule[0], counter[1] + schedule[1]
  for turn in range(5):
    for rotation in ROTATIONS[turn % 2]:
      x = x + y
      y = x ^ ((y << np.uint32(rotation)) | (y >> np.uint32(32 - rotation)))
    x = x + schedule[(turn + 1) % 3]
    y = y + schedule[(turn + 2) % 3] + np.uint32(turn + 1)
  return x, y


def words(keys: jax.Array, height: int, width: int) -> tuple[jax.Array, jax.Array]:
  """Draws two uint32 [B, height, width] from keys [B]."""
  return _words(keys, height, jnp.arange(width, dtype=jnp.uint32))


def uniforms(keys: jax.Array, height: int, samples: int, channels: int, grey: jax.Array
             ) -> jax.Array:
  """Draws numbers in (0, 1) for rows of samples.

  Args:
    keys: [B].
    height: rows of an image.
    samples: samples of a row, pixels times channels.
    channels: samples of a pixel.
    grey: bool [B], whether all samples of a pixel have the same number.

  Returns:
    float32 [B, height, samples], odd multiples of 2^-24.
  """
  sample = np.arange(samples, dtype=np.uint32)
  columns = jnp.where(grey[:, None, None], sample // channels * channels, sample)
  first, second = _words(keys, height, columns)
  return uniform(first ^ second)


def uniform(bits: jax.Array) -> jax.Array:
  """Converts uint32 to float32 in (0, 1), odd multiples of 2^-24."""
  return ((bits >> np.uint32(9)).astype(jnp.int32).astype(jnp.float32) + 0.5) * 2.**-23


def normal(uniform: jax.Array) -> jax.Array:
  """Returns the quantiles of the standard normal distribution at numbers in (0, 1)."""
  return np.float32(np.sqrt(2)) * jax.lax.erf_inv(2 * uniform - 1)


def poisson(rate: jax.Array, uniform: jax.Array, normals: jax.Array) -> jax.Array:
  """Returns quantiles of Poisson distributions.

  Args:
    rate: float32, at least 0.
    uniform: float32 in (0, 1), of the same shape.
    normals: `normal(uniform)`. Rates from 6 on are computed from these by the first terms of the
      asymptotic expansion of Giles (2016, Algorithm 955, equation 7), whose distribution differs
      by less than 2e-4 from Poisson's; smaller ones by summation.

  Returns:
    float32, counts.
  """
  large = jnp.maximum(rate, SMALL_RATE)
  root, square = jnp.sqrt(large), normals * normals
  expansion = (large + root * normals + (1 / 3 + square / 6)
               - normals * (1 / 36 + square / 72) / root
               + (-8 / 405 + square * (7 / 810 + square / 270)) / large)
  # Counts how many partial sums of the exponential series the uniform number exceeds.
  small = jnp.minimum(rate, SMALL_RATE)
  goal = uniform * jnp.exp(small)
  power = total = jnp.ones_like(small)
  count = jnp.zeros_like(small)
  for k in range(1, LARGEST_COUNT + 1):
    count = jnp.where(goal > total, np.float32(k), count)
    power = power * small
    total = total + power * np.float32(1 / math.factorial(k))
  return jnp.where(rate < SMALL_RATE, count, jnp.floor(expansion))


def _words(keys: jax.Array, height: int, columns: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Draws two uint32 [B, height, width] from keys [B]; `columns` are the counters of a row."""
  key = jax.vmap(lambda key: jax.random.bits(key, (2,)))(keys)[:, :, None, None]
  return threefry((key[:, 0], key[:, 1]), (jnp.arange(height, dtype=jnp.uint32)[:, None], columns))
