"""DAT's attention over windows and over channels.

The windows of half of the heads are wide, those of the others tall. Images whose sides are no
multiples of the windows' longer side are padded with queries, keys and values of zero at the bottom
and right. As in the authors' code nothing hides this padding from the windows at the border: there
a padded pixel takes part in the softmax with its position bias alone and adds nothing to the
result.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from sr_jax.models.attention import (
  LINEAR,
  MASKED,
  LayerNorm,
  Pair,
  join_windows,
  regions,
  split_windows,
)
from sr_jax.models.convolution import Dense

POSITION_REDUCTION = 16  # channels of the position bias, in fractions of a branch's

# Logits of windows that are computed at once. On a CPU they stay in the cache: attention took a
# quarter of the time and a tenth of the memory of all windows at once. On a GPU, windows in turn
# only save memory.
LOGITS_BYTES = {'cpu': 8 * 2**20, 'gpu': 256 * 2**20}


class PositionBias(nn.Module):
  """Dynamic position bias of windows (Wang et al. 2021, "CrossFormer", section 3.3).

  A small network computes the bias of the logits from the distance of two pixels in rows and in
  columns.

  Attributes:
    window: rows and columns.
    heads: number of heads.
    features: channels of the network's layers.
  """

  window: Pair
  heads: int
  features: int

  @nn.compact
  def __call__(self) -> jax.Array:
    """Returns the float32 bias [heads, N, N] for queries and keys of N = rows * columns pixels."""
    distances = [np.arange(1 - side, side, dtype=np.float32) for side in self.window]
    x = jnp.asarray(np.stack(np.meshgrid(*distances, indexing='ij'), -1))
    x = Dense(self.features, kernel_init=LINEAR)(x)
    for width in (self.features, self.features, self.heads):
      x = Dense(width, kernel_init=LINEAR)(nn.relu(LayerNorm()(x)))
    rows, columns = (np.arange(side)[:, None] - np.arange(side) + side - 1
                     for side in self.window)
    x = x[rows][:, :, columns]  # [row of the query, of the key, column of the query, of the key]
    pixels = self.window[0] * self.window[1]
    return x.transpose(4, 0, 2, 1, 3).reshape(self.heads, pixels, pixels)


class WindowAttention(nn.Module):
  """Self-attention over windows (section 3.1, equations 1 to 3).

  Attributes:
    heads: number of heads; the first half has windows of `split_size`, the others of its reverse.
    split_size: rows and columns.
    shift: moves the windows by half of their sides.
  """

  heads: int
  split_size: tuple[int, ...]
  shift: bool

  @nn.compact
  def __call__(self, qkv: jax.Array) -> jax.Array:
    """Maps queries, keys and values side by side, [B, h, w, 3 C], to [B, h, w, C]."""
    batch, height, width, channels = qkv.shape[0], *qkv.shape[1:3], qkv.shape[3] // 3
    rows, columns = (-side % max(self.split_size) for side in (height, width))
    qkv = jnp.pad(qkv, ((0, 0), (0, rows), (0, columns), (0, 0)))
    sides = qkv.shape[1:3]
    branches = jnp.split(qkv.reshape(batch, *sides, 3, channels), 2, axis=-1)
    heads, parts, biases, labels = self.heads // 2, [], [], []
    windows = tuple(self.split_size), tuple(self.split_size[::-1])
    for x, window in zip(branches, windows, strict=True):
      x = split_windows(self._shifted(x, window, -1), window)
      x = x.reshape(-1, x.shape[2], 3, heads, channels // self.heads)
      parts.append(x.transpose(2, 0, 3, 1, 4))  # [3, windows, heads, N, C / heads]
      biases.append(PositionBias(window, heads, channels // 2 // POSITION_REDUCTION)())
      if self.shift:
        shifted = regions(sides, window, _half(window))
        labels.append(jnp.tile(split_windows(shifted[None], window)[0], (batch, 1)))
    attended = attend(*jnp.concatenate(parts, 2), jnp.concatenate(biases),
                      jnp.stack(labels, 1) if labels else None)
    results = []
    for x, window in zip(jnp.split(attended, 2, axis=1), windows, strict=True):
      x = x.transpose(0, 2, 1, 3).reshape(batch, -1, x.shape[2], channels // 2)
      x = self._shifted(join_windows(x, window, sides), window, 1)
      results.append(x[:, :height, :width])
    return jnp.concatenate(results, -1)

  def _shifted(self, x: jax.Array, window: Pair, sign: int) -> jax.Array:
    return jnp.roll(x, [sign * side for side in _half(window)], (1, 2)) if self.shift else x


def _half(window: Pair) -> Pair:
  return window[0] // 2, window[1] // 2


def attend(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array,
           labels: jax.Array | None, logits_bytes: int | None = None) -> jax.Array:
  """Computes attention in windows, some of them at a time.

  Args:
    q, k, v: [windows, heads, N, D].
    bias: [heads, N, N], float32, is added to the logits.
    labels: [windows, 2, N], `regions` for the first and the second half of the heads; pixels of
      different regions don't see each other. None: all do.
    logits_bytes: of the windows that are computed at once, `LOGITS_BYTES` by default. Other values
      do not change the result. The gradient of windows in turn computes the logits again.

  Returns:
    [windows, heads, N, D].
  """
  windows, heads, pixels, size = q.shape

  def some(part: tuple[jax.Array, ...]) -> jax.Array:
    q, k, v, *of_halves = part
    logits = jnp.matmul(q, k.swapaxes(-1, -2), preferred_element_type=jnp.float32)
    logits = size**-0.5 * logits + bias
    if of_halves:
      differ = of_halves[0][..., :, None] != of_halves[0][..., None, :]
      logits += jnp.repeat(jnp.where(differ, MASKED, 0.0), heads // 2, axis=1)
    return nn.softmax(logits).astype(v.dtype) @ v

  arguments = (q, k, v) if labels is None else (q, k, v, labels)
  if logits_bytes is None:
    logits_bytes = LOGITS_BYTES['cpu' if jax.default_backend() == 'cpu' else 'gpu']
  count = -(-4 * windows * heads * pixels**2 // logits_bytes)
  if count <= 1:
    return some(arguments)
  together = -(-windows // count)
  count = -(-windows // together)
  missing = count * together - windows
  result = lax.map(jax.checkpoint(some), jax.tree.map(
      lambda x: jnp.pad(x, ((0, missing), *((0, 0),) * (x.ndim - 1))).reshape(
          count, together, *x.shape[1:]), arguments))
  return result.reshape(-1, *q.shape[1:])[:windows]


class ChannelAttention(nn.Module):
  """Self-attention over channels (section 3.1, equations 4 and 5).

  Each head has one matrix of its channels, computed from all pixels of the image.

  Attributes:
    heads: number of heads.
  """

  heads: int

  def sums(self, qkv: jax.Array, inside: jax.Array | None = None) -> dict[str, jax.Array]:
    """Returns the sums over the pixels of an image that the attention depends on.

    Args:
      qkv: queries, keys and values side by side, [B, h, w, 3 C].
      inside: [h, w], the pixels that are counted; None: all.
    """
    q, k, v = self._split(qkv if inside is None else qkv * inside[..., None].astype(qkv.dtype))

    def sum_squares(x: jax.Array) -> jax.Array:
      return jnp.sum(jnp.square(x.astype(jnp.float32)), -1)

    return {'products': jnp.matmul(q, k.swapaxes(-1, -2), preferred_element_type=jnp.float32),
            'q': sum_squares(q), 'k': sum_squares(k), 'v': jnp.sum(v, -1, jnp.float32)}

  @nn.compact
  def __call__(self, qkv: jax.Array, sums: dict[str, jax.Array], count: float | jax.Array
               ) -> tuple[jax.Array, jax.Array]:
    """Returns the result for qkv, [B, h, w, C], and its mean over an image, float32 [B, C].

    Args:
      qkv: queries, keys and values side by side, [B, h, w, 3 C].
      sums: of the image.
      count: number of pixels of the image.
    """
    batch, height, width, channels = qkv.shape
    temperature = self.param('temperature', nn.initializers.ones, (self.heads, 1, 1), jnp.float32)
    # Products of vectors of length one; a vector of zeros, which has no direction, stays zero.
    from_q, from_k = (lax.rsqrt(jnp.maximum(sums[key], 1e-24)) for key in 'qk')
    cosines = sums['products'] * from_q[..., :, None] * from_k[..., None, :]
    weights, v = nn.softmax(cosines * temperature), self._split(qkv)[2]
    x = weights.astype(v.dtype) @ v
    mean = (weights @ (sums['v'] / count)[..., None]).reshape(batch, channels // 3)
    return x.transpose(0, 3, 1, 2).reshape(batch, height, width, channels // 3), mean

  def _split(self, qkv: jax.Array) -> jax.Array:
    """Returns queries, keys and values, each [B, heads, C / heads, pixels]."""
    batch, height, width, channels = qkv.shape
    qkv = qkv.reshape(batch, height * width, 3, self.heads, channels // 3 // self.heads)
    return qkv.transpose(2, 0, 3, 4, 1)
