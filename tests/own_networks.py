"""Networks such as users add, each with one operation that mixes positions, for several tests."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from sr_jax.inference.compiled_parts import CompiledParts
from sr_jax.inference.upscaler import Upscaler
from sr_jax.models.layers import pixel_shuffle, pixel_unshuffle, repeat_pixels


class Own(nn.Module):
  """A trunk and a tail with a layer of the user's between two convolutions.

  Attributes:
    mix: the layer or function in question, [B, h, w, 8] to the same shape.
    in_tail: whether it is in the tail.
  """

  mix: Callable[[jax.Array], jax.Array]
  in_tail: bool = False
  scale: int = 2
  dtype: jnp.dtype = jnp.float32

  def setup(self) -> None:
    self.head, self.body, self.last = nn.Conv(8, (3, 3)), nn.Conv(8, (3, 3)), nn.Conv(12, (3, 3))

  def trunk(self, lr: jax.Array, train: bool = False) -> jax.Array:
    x = nn.relu(self.head(lr))
    return self.body(x if self.in_tail else self.mix(x)) + x

  def tail(self, features: jax.Array, lr: jax.Array) -> jax.Array:
    x = nn.relu(features)
    x = self.last(self.mix(x) if self.in_tail else x)
    return pixel_shuffle(x, self.scale) + repeat_pixels(lr, self.scale)

  def __call__(self, lr: jax.Array, train: bool = False) -> jax.Array:
    return self.tail(self.trunk(lr, train), lr)


class Gate(nn.Module):
  """RCAN's channel attention, with a strong gate."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    return x * nn.sigmoid(20 * nn.Dense(8)(x.mean((1, 2), keepdims=True)))


class Attention(nn.Module):
  """Self-attention in windows of 8, optionally shifted by 4; sides are padded to multiples."""

  shift: int = 0

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    batch, height, width, channels = x.shape
    y = jnp.pad(x, ((0, 0), (0, -height % 8), (0, -width % 8), (0, 0)), 'reflect')
    y = jnp.roll(y, (-self.shift, -self.shift), (1, 2))
    rows, columns = y.shape[1] // 8, y.shape[2] // 8
    y = y.reshape(batch, rows, 8, columns, 8, channels).swapaxes(2, 3).reshape(-1, 64, channels)
    query, key, value = jnp.split(nn.Dense(3 * channels)(y), 3, -1)
    y = nn.softmax(query @ key.swapaxes(1, 2)) @ value
    y = y.reshape(batch, rows, columns, 8, 8, channels).swapaxes(2, 3)
    y = y.reshape(batch, 8 * rows, 8 * columns, channels)
    return jnp.roll(y, (self.shift, self.shift), (1, 2))[:, :height, :width]


class Hourglass(nn.Module):
  """A strided convolution and a transposed one, as in a U-Net."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y = nn.ConvTranspose(8, (4, 4), (2, 2))(nn.relu(nn.Conv(8, (3, 3), 2)(x)))
    return x + y[:, :x.shape[1], :x.shape[2]]


class Unfolded(nn.Module):
  """A convolution of pixels that are folded into channels."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    height, width = x.shape[1:3]
    y = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), 'edge')
    y = pixel_shuffle(nn.Conv(32, (3, 3))(pixel_unshuffle(y, 2)), 2)
    return y[:, :height, :width]


class Positions(nn.Module):
  """Adds what depends on the row."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    return x + jnp.sin(jnp.arange(x.shape[1], dtype=jnp.float32))[:, None, None]


def _fourier(x: jax.Array) -> jax.Array:
  return jnp.fft.irfft2(jnp.fft.rfft2(x, axes=(1, 2)), s=x.shape[1:3], axes=(1, 2))


def _resized(x: jax.Array) -> jax.Array:
  batch, height, width, channels = x.shape
  y = jax.image.resize(x, (batch, height // 2, width // 2, channels), 'bilinear')
  return x + jax.image.resize(y, x.shape, 'bilinear')


def _cropped(x: jax.Array) -> jax.Array:
  return jnp.pad(x[:, 2:-2, 2:-2], ((0, 0), (2, 2), (2, 2), (0, 0)))


# What is local, with the layer's reach.
LOCAL = {
    'dilated': (nn.Conv(8, (3, 3), kernel_dilation=4), 4),
    'wide': (nn.Conv(8, (1, 31)), 15),
    'even': (nn.Conv(8, (4, 4)), 2),
    'pooling': (lambda x: nn.avg_pool(x, (9, 9), padding='SAME'), 4),
    'maximum': (lambda x: nn.max_pool(x, (5, 5), padding='SAME'), 2),
    'transposed': (nn.ConvTranspose(8, (5, 5)), 2),
    'reflected': (nn.Conv(8, (3, 3), padding='REFLECT'), 1),
    'layer norm': (nn.LayerNorm(), 0), 'depthwise': (nn.Conv(8, (7, 7), feature_group_count=8), 3),
    'remat': (nn.remat(nn.Conv)(8, (5, 5)), 2)}
# What is not, with the operation that shows it or ''.
GLOBAL = {
    'channel attention': (Gate(), 'reduce_sum'), 'instance norm': (nn.InstanceNorm(), 'reduce_sum'),
    'rolled': (lambda x: jnp.roll(x, (4, 4), (1, 2)), ''),
    'circular': (nn.Conv(8, (3, 3), padding='CIRCULAR'), ''),
    'windows': (Attention(), ''), 'shifted windows': (Attention(4), ''),
    'fft': (_fourier, 'fft'), 'sums': (lambda x: 0.02 * jnp.cumsum(x, 1), 'cumsum'),
    'hourglass': (Hourglass(), ''), 'unfolded': (Unfolded(), ''), 'resized': (_resized, ''),
    'positions': (Positions(), 'add'), 'cropped': (_cropped, ''),
    'mirrored': (lambda x: x + x[:, ::-1], 'rev'),
    'height': (lambda x: x * (x.shape[1] / 50), ''),
    'batch': (lambda x: x - x.mean(0), 'reduce_sum'),
    'loop': (lambda x: jax.lax.map(jnp.tanh, x), 'scan')}


def image(height: int, width: int) -> np.ndarray:
  """Returns float32 [h, w, 3] whose parts differ in brightness and in texture."""
  y, x = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[:, None]
  noise = np.random.default_rng(height).random((height, width, 3))
  return np.float32(np.clip(0.5 * x * y + 0.5 * noise * (x > 0.5), 0, 1))


def check_layer_by_layer(network: nn.Module, variables: dict, lr: np.ndarray) -> Upscaler:
  """Checks that a quarter of the trunk's memory gives the result of the whole image.

  Args:
    lr: float32 [h, w, 3], or [B, h, w, 3].

  Returns:
    The upscaler with a quarter of the memory, which computes layer by layer.
  """
  parts = CompiledParts(network, variables)
  memory = int(parts.trunk(1, parts.feature_size(lr.shape[-3:-1])).bytes / 4)
  upscale = Upscaler(network, variables, memory=memory, tile=16)
  plan = upscale.planner.plan(lr if lr.ndim == 4 else lr[None], memory)
  assert 0 < plan.layer_side < max(lr.shape[-3:-1])
  whole = jax.jit(network.apply)(variables, lr if lr.ndim == 4 else lr[None])
  np.testing.assert_allclose(upscale(lr), whole if lr.ndim == 4 else whole[0], rtol=0,
                             atol=1e-6 * max(10, np.abs(whole).max()))
  assert upscale.notes == []
  return upscale
