"""Distances between the pixels of two images, and the total variation of one."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sr_jax.errors import InputError

# distance(sr, hr) -> scalar, of images [B, H, W, C] in [0, 1]
Distance = Callable[[jax.Array, jax.Array], jax.Array]


def l1(sr: jax.Array, hr: jax.Array) -> jax.Array:
  """Returns mean |sr - hr|.

  Args:
    sr, hr: float arrays of one shape, such as images [B, H, W, C] in [0, 1].
  """
  refuse_unlike(sr, hr)
  return jnp.mean(jnp.abs(sr - hr))


def mse(sr: jax.Array, hr: jax.Array) -> jax.Array:
  """Returns mean (sr - hr)^2.

  Args:
    sr, hr: as for `l1`.
  """
  refuse_unlike(sr, hr)
  return jnp.mean(jnp.square(sr - hr))


def charbonnier(sr: jax.Array, hr: jax.Array, epsilon: float = 1e-3) -> jax.Array:
  """Returns mean sqrt((sr - hr)^2 + epsilon^2), a smooth L1 (Lai et al. 2017, equation 3).

  For equal images it is epsilon, not zero.

  Args:
    sr, hr: as for `l1`.
    epsilon: difference below which it is nearly quadratic.
  """
  refuse_unlike(sr, hr)
  return jnp.mean(jnp.sqrt(jnp.square(sr - hr) + epsilon**2))


def refuse_unlike(*arrays: jax.Array) -> None:
  """Raises InputError unless all arrays are of float types and have one shape."""
  if len({jnp.shape(array) for array in arrays}) > 1 or not all(
      jnp.issubdtype(jnp.result_type(array), jnp.floating) for array in arrays):
    found = ' and '.join(f'{jnp.result_type(array)} {list(jnp.shape(array))}' for array in arrays)
    raise InputError(f'{found}: expected float, such as images in [0, 1] (sr_jax.images.to_float '
                     'converts uint8)' + ', of one shape' * (len(arrays) > 1))


def block_means(x: jax.Array, block: int) -> jax.Array:
  """Returns the means of all whole blocks of an image: [B, H // block, W // block, C]."""
  batch, height, width, channels = x.shape
  rows, columns = height // block, width // block
  x = x[:, :rows * block, :columns * block]
  return jnp.mean(x.reshape(batch, rows, block, columns, block, channels), (2, 4))


PIXEL = {'l1': l1, 'mse': mse, 'charbonnier': charbonnier}


def total_variation(sr: jax.Array) -> jax.Array:
  """Returns the anisotropic total variation.

  It is mean |sr[y + 1, x] - sr[y, x]| + mean |sr[y, x + 1] - sr[y, x]|.

  Args:
    sr: float [B, H, W, C], H and W at least 2.
  """
  refuse_unlike(sr)
  return (jnp.mean(jnp.abs(sr[:, 1:] - sr[:, :-1]))
          + jnp.mean(jnp.abs(sr[:, :, 1:] - sr[:, :, :-1])))
