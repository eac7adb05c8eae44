"""Self-attention within windows, for SwinIR and the networks that follow it.

The image is divided into square windows, and each pixel attends to those of its window; every
second block shifts the windows by half a side (Swin Transformer, Liu et al. 2021, section 3.2).
`WindowAttention` has four ways to tell positions apart, `POSITIONS`:

  bias: a trained number for each head and each difference of positions is added to the logits
    (Liu et al., equation 4), (2 * window - 1)^2 numbers per head.
  rope_axial: queries and keys are rotated by angles that grow with the position (rotary position
    embedding), half of the channels with the column and half with the row, at fixed frequencies.
  rope_mixed: the same with trained frequencies for both axes in every pair of channels, for each
    head (Heo et al. 2024, "Rotary Position Embedding for Vision Transformer", equations 7 and 8;
    https://github.com/naver-ai/rope-vit).
  none: no position; a pixel sees its window as a set.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from sr_jax import images
from sr_jax.models.convolution import Dense
from sr_jax.models.edsr import DIV2K_MEAN

Pair = tuple[int, int]  # rows and columns, or height and width

POSITIONS = ('bias', 'rope_axial', 'rope_mixed', 'none')
ROPE_BASE = 10.0  # of the frequencies; Heo et al. have 10 for windows, 100 for whole images
# Added to the logits of pixels that are not neighbours before the shift. Finite in the authors'
# code too, so exp() of it is not exactly zero next to large logits.
MASKED = -100.0
# Kernels of dense layers, and bias tables. The authors' distribution is truncated at 100 standard
# deviations, which has no effect.
LINEAR = nn.initializers.normal(0.02)
LayerNorm = partial(nn.LayerNorm, epsilon=1e-5, use_fast_variance=False)  # PyTorch's epsilon
# Logits of each head of an image that are computed at a time: 512 windows of 8x8 pixels. With a
# fourth of it, XLA:CPU plans for SwinIR-light at 512x512 pixels 245 MiB, with this number 306 MiB,
# without a limit 1726 MiB; it takes as long. A GPU needs the more kernels, the smaller the number.
MAX_LOGITS = 1 << 21


def check_heads(features: int, heads: int, position: str) -> None:
  """Checks that attention heads divide the features and can be rotated.

  Raises:
    ValueError: `features` is not a multiple of `heads`, or of 4 * `heads` if `position` rotates;
      the message names the fields and values that work.
  """
  rotated = position.startswith('rope')
  multiple = 4 if rotated else 1
  if features % (multiple * heads) == 0:
    return
  larger = -features % (multiple * heads) + features
  fitting = [count for count in range(1, features // multiple + 1)
             if features % (multiple * count) == 0]
  nearest = min(fitting, key=lambda count: abs(count - heads), default=None)
  reason = (f'position={position!r} needs a head size (features / heads) that is a multiple of 4, '
            f'and {features} / {heads} is {features / heads:g}' if rotated else
            'expected heads to divide features')
  raise ValueError(f'features={features}, heads={heads}: {reason}; use features={larger}'
                   + (f' or heads={nearest}' if nearest else ''))


def transformer_mean(channels: int) -> np.ndarray:
  """Returns what SwinIR and its followers subtract from the image and add to the result.

  It is float32 [channels]; the authors' networks of one channel have 0.
  """
  return np.array(DIV2K_MEAN if channels == 3 else (0,), np.float32)


def split_windows(x: jax.Array, window: Pair) -> jax.Array:
  """Divides [B, h, w, ...] into windows, [B, n, rows * columns, ...], from the left, then down.

  Args:
    x: an array of NumPy or JAX.
    window: (rows, columns), of which h and w are multiples.
  """
  (rows, columns), (batch, height, width, *rest) = window, x.shape
  x = x.reshape(batch, height // rows, rows, width // columns, columns, *rest)
  return x.swapaxes(2, 3).reshape(batch, -1, rows * columns, *rest)


def join_windows(x: jax.Array, window: Pair, sides: Pair) -> jax.Array:
  """Inverts `split_windows`: [B, n, rows * columns, C] to [B, h, w, C] for sides (h, w)."""
  (rows, columns), (height, width) = window, sides
  x = x.reshape(len(x), height // rows, width // columns, rows, columns, x.shape[-1])
  return x.swapaxes(2, 3).reshape(len(x), height, width, x.shape[-1])


def regions(sides: Pair, window: Pair, shift: Pair) -> jax.Array:
  """Numbers the parts of a cyclically shifted image, int32 [h, w] for sides (h, w).

  After a shift up and to the left, the windows at the bottom and right contain pixels from
  opposite sides of the image. Pixels may only attend to those of the same number.

  Args:
    sides: of the image.
    window: rows and columns of the windows.
    shift: of rows and columns, less than those of a window.
  """
  rows, columns = (
      (jnp.arange(side) >= side - length).astype(jnp.int32) + (jnp.arange(side) >= side - moved)
      for side, length, moved in zip(sides, window, shift, strict=True))
  return 3 * rows[:, None] + columns


def relative_position_index(window: Pair) -> np.ndarray:
  """Numbers the difference of positions of each query and key of a window, int64 [N, N].

  N is rows * columns. The number is the row of the bias table.
  """
  rows, columns = np.indices(window).reshape(2, -1)
  down, right = (axis[:, None] - axis + side - 1
                 for axis, side in zip((rows, columns), window, strict=True))
  return down * (2 * window[1] - 1) + right


def resample_bias_table(table: np.ndarray | jax.Array, rows: int) -> np.ndarray:
  """Returns a bias table for windows of another side, by bicubic interpolation.

  Both tables span all differences of positions in their windows, so that the bias of opposite
  corners stays, as where Swin Transformer is fine-tuned with larger windows (section 3.3 of the
  paper, "Relative position bias"; `load_pretrained` in utils.py of its code).

  Args:
    table: [n * n, heads].
    rows: of the result, a square number.

  Returns:
    float32 [rows, heads].
  """
  before, after = math.isqrt(len(table)), math.isqrt(rows)
  grid = np.asarray(table, np.float32).reshape(before, before, -1)
  return images.imresize(grid, size=(after, after)).reshape(rows, -1)


def rope_frequencies(heads: int, size: int, angles: jax.Array | np.ndarray) -> jax.Array:
  """Returns the frequencies of rotary embedding along columns and rows, [2, heads, size / 2].

  Args:
    heads: number of heads.
    size: channels of a head, a multiple of 4.
    angles: [heads] in radians, by which the two axes are turned; 0 gives the axial embedding, in
      which the first size / 4 pairs of channels see the column and the others the row.
  """
  magnitudes = ROPE_BASE**(-np.arange(0, size, 4, dtype=np.float32) / size)
  turned = jnp.stack([angles, angles + np.float32(np.pi / 2)], 1)[..., None]  # [heads, 2, 1]
  both = jnp.stack([jnp.cos(turned) * magnitudes, jnp.sin(turned) * magnitudes])
  return both.reshape(2, heads, size // 2)


def rotate(x: jax.Array, frequencies: jax.Array, window: int, margin: int = 0) -> jax.Array:
  """Rotates pairs of channels of queries or keys by angles that grow with the position.

  The product of a rotated query and a rotated key depends on the difference of their positions.

  Args:
    x: [..., side * side, heads, size] with side = window + 2 * margin.
    frequencies: of `rope_frequencies`, radians per pixel.
    window: side of the window.
    margin: pixels beyond the window on each side, whose positions are below 0 and above window - 1.
  """
  rows, columns = np.indices((window + 2 * margin,) * 2).reshape(2, -1, 1, 1) - np.float32(margin)
  angles = columns * frequencies[0] + rows * frequencies[1]  # [window * window, heads, size / 2]
  cosine, sine = jnp.cos(angles), jnp.sin(angles)
  first, second = x[..., ::2].astype(jnp.float32), x[..., 1::2].astype(jnp.float32)
  turned = jnp.stack([first * cosine - second * sine, first * sine + second * cosine], -1)
  return turned.reshape(x.shape).astype(x.dtype)


class WindowAttention(nn.Module):
  """Multi-head self-attention within windows, [B, n, w * w, C] to the same shape.

  Attributes:
    heads: number of heads, which divides C.
    window: side w of a window.
    position: one of `POSITIONS`.
    dtype: of the computation; logits and softmax are float32.
  """

  heads: int
  window: int
  position: str
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array, labels: jax.Array | None = None) -> jax.Array:
    """Returns the attention's result.

    Args:
      x: the windows.
      labels: [n, w * w], `regions` of the windows; pixels attend only to those with equal labels.
        None: to all.
    """
    channels = x.shape[-1]
    check_heads(channels, self.heads, self.position)
    qkv = Dense(3 * channels, name='qkv', kernel_init=LINEAR, dtype=self.dtype)(x)
    qkv = qkv.reshape(*x.shape[:3], 3, self.heads, channels // self.heads)
    return self._attend(*jnp.moveaxis(qkv, 3, 0), labels)

  def _attend(self, query: jax.Array, key: jax.Array, value: jax.Array,
              labels: jax.Array | None = None) -> jax.Array:
    """Returns the projected attention [B, n, w * w, C] of [B, n, pixels, heads, C / heads]."""
    heads, size = query.shape[-2:]
    if self.position.startswith('rope'):
      frequencies = self._frequencies(size)
      query = rotate(query, frequencies, self.window)
      key = rotate(key, frequencies, self.window, self._margin)
    logits = jnp.einsum('bnqhc,bnkhc->bnhqk', query, key, preferred_element_type=jnp.float32)
    logits = logits * size**-0.5
    if self.position == 'bias':
      logits = logits + self._bias()
    if labels is not None:
      same = labels[:, None, :, None] == labels[:, None, None, :]
      logits = jnp.where(same, logits, logits + MASKED)
    weights = nn.softmax(logits).astype(self.dtype)
    y = jnp.einsum('bnhqk,bnkhc->bnqhc', weights, value).reshape(*query.shape[:3], heads * size)
    return Dense(heads * size, name='projection', kernel_init=LINEAR, dtype=self.dtype)(y)

  @property
  def _margin(self) -> int:
    """Pixels by which the keys' window exceeds the queries' on each side."""
    return 0

  def _index(self) -> np.ndarray:
    """Returns the row of the bias table for each query and key."""
    return relative_position_index((self.window,) * 2)

  def _bias(self) -> jax.Array:
    """Returns what is added to the logits, [heads, queries, keys]."""
    index = self._index()
    rows = np.ptp(index) + 1
    table = self.param('bias_table', LINEAR, (int(rows), self.heads), jnp.float32)
    return table[index % rows].transpose(2, 0, 1)

  def _frequencies(self, size: int) -> jax.Array:
    if self.position == 'rope_axial':
      return rope_frequencies(self.heads, size, np.zeros(self.heads, np.float32))

    def initial(key: jax.Array) -> jax.Array:
      angles = jax.random.uniform(key, (self.heads,), maxval=2 * np.pi)
      return rope_frequencies(self.heads, size, angles)

    return self.param('frequencies', initial)


def in_strips(module: nn.Module, function: Callable[..., jax.Array], x: jax.Array, window: int,
              beside: jax.Array | None = None, keys: int | None = None) -> jax.Array:
  """Returns function(module, x, labels) for a function that computes each window by itself.

  If the image has more than `MAX_LOGITS` logits, the function is called in a loop over strips of
  whole rows of windows, so that what it makes of one strip (queries, keys, values, logits, the
  hidden layer) takes the place of what it made of the one before. The result is the same except
  for rounding.

  Args:
    module: the module whose layers the function uses.
    function: maps (module, [B, h, w, C], part of `beside`) to [B, h, w, C].
    x: [B, H, W, C]; H and W are multiples of `window`.
    window: side of a window.
    beside: an array of which each strip gets its part of the first axis, whose length is a multiple
      of H / window, such as the `regions` [H, W]; or None.
    keys: pixels that each pixel attends to; by default those of its window.
  """
  batch, height, width, channels = x.shape
  rows = height // window
  fitting = max(1, MAX_LOGITS // (width * window * (keys or window**2)))
  if rows <= fitting:
    return function(module, x, beside)
  strips = next(count for count in range(-(-rows // fitting), rows + 1) if rows % count == 0)
  x = x.reshape(batch, strips, height // strips, width, channels)
  if beside is not None:
    beside = beside.reshape(strips, -1, *beside.shape[1:])

  # Each strip replaces its input. With `ys` of the scan XLA:CPU fills a new array with zeros for
  # each block, all of them at the start.
  def step(module: nn.Module, x: jax.Array, index: jax.Array) -> tuple[jax.Array, None]:
    strip = lax.dynamic_index_in_dim(x, index, 1, keepdims=False)
    strip = function(module, strip, None if beside is None else beside[index])
    return lax.dynamic_update_index_in_dim(x, strip, index, 1), None

  scan = nn.scan(step, variable_broadcast='params', split_rngs={'params': False})
  return scan(module, x, jnp.arange(strips))[0].reshape(batch, height, width, channels)
