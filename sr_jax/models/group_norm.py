"""GroupNorm (Wu and He 2018) of images, which can be computed in windows of an image."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

Sums = tuple[jax.Array, jax.Array]  # of the pixels and of their squares, each [B, C]


class GroupNorm(nn.Module):
  """Normalises each image over its pixels and the channels of a group, [B, h, w, C] to the same.

  y = (x - mean) / sqrt(variance + epsilon) * scale + bias, with the variance of the population.
  `sr_jax.models` explains the methods `statistics` and `apply_statistics`.

  Attributes:
    groups: number of groups of C / groups consecutive channels.
    epsilon: is added to the variance; PyTorch's default.
    dtype: dtype of the result. Parameters and sums are float32.

  Raises:
    ValueError: the channels cannot be divided into groups, on the first call.
  """

  groups: int = 4
  epsilon: float = 1e-5
  dtype: jnp.dtype = jnp.float32

  def __call__(self, x: jax.Array) -> jax.Array:
    return self.apply_statistics(x, self.statistics(x), x.shape[1] * x.shape[2])

  def statistics(self, x: jax.Array) -> Sums:
    """Returns the sums over the pixels of x [B, h, w, C] and of its squares."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return jnp.sum(wide, (1, 2)), jnp.sum(jnp.square(wide), (1, 2))

  @nn.compact
  def apply_statistics(self, x: jax.Array, sums: Sums, count: float | jax.Array) -> jax.Array:
    """Normalises x [B, h, w, C] by the sums over an image of `count` pixels."""
    channels = x.shape[-1]
    if channels % self.groups:
      raise ValueError(f'groups={self.groups}: expected a divisor of {channels} channels')
    scale = self.param('scale', nn.initializers.ones, (channels,), jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (channels,), jnp.float32)
    mean, square = (total.reshape(len(total), self.groups, -1) / count for total in sums)
    group_mean = mean.mean(2, keepdims=True)
    # Each channel's own variance and that of the channels' means: differences of smaller numbers
    # than the squares over the group.
    variance = (jnp.maximum(0.0, square - jnp.square(mean)) + jnp.square(mean - group_mean)
                ).mean(2, keepdims=True)
    inverse = lax.rsqrt(variance + self.epsilon)
    mean, factor = (jnp.broadcast_to(value, mean.shape).reshape(len(mean), 1, 1, channels)
                    for value in (group_mean, inverse))
    return ((x - mean) * (factor * scale) + bias).astype(self.dtype)
