"""MATLAB's imresize, on the host and on the device."""

import jax
import jax.numpy as jnp
import numpy as np

from sr_jax.images.color import to_levels


def _cubic(x: np.ndarray) -> np.ndarray:
  """Keys' kernel with a = -0.5 (Keys 1981, "Cubic convolution interpolation")."""
  x = np.abs(x)
  inner = 1.5 * x**3 - 2.5 * x**2 + 1
  outer = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
  return np.where(x <= 1, inner, np.where(x <= 2, outer, 0.0))


def _triangle(x: np.ndarray) -> np.ndarray:
  return np.maximum(1 - np.abs(x), 0.0)


def _box(x: np.ndarray) -> np.ndarray:
  return np.where((x >= -0.5) & (x < 0.5), 1.0, 0.0)  # half-way between two: the later one


KERNELS = {'bicubic': (_cubic, 4), 'bilinear': (_triangle, 2), 'nearest': (_box, 1)}  # and width


def _taps(size: int, scale, method: str,
          count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
  """What each output sample is made of along one axis, as MATLAB's imresize has it.

  Returns:
    (indices, weights), both [ceil(size * scale) or count, taps]; rows of weights sum to 1.
    Shrinking stretches the kernel by 1 / scale (antialiasing; 'nearest' has none).
    Indices beyond the border are the border's (replication).
  """
  kernel, width = KERNELS[method]
  scale = float(scale)
  # Sums are taken in MATLAB's order with its coordinates, which begin at 1: elsewhere a value
  # that lies half-way between two levels would fall to the other one.
  shrink = 1.0 if method == 'nearest' else min(1.0, scale)
  width = width / shrink
  out = np.arange(1, (count or int(np.ceil(size * scale))) + 1)
  centre = out / scale + 0.5 * (1 - 1 / scale)
  first = np.floor(centre - width / 2).astype(np.int64)
  indices = first[:, None] + np.arange(int(np.ceil(width)) + 2)
  weights = shrink * kernel(shrink * (centre[:, None] - indices))
  weights = weights / weights.sum(axis=1, keepdims=True)
  return np.clip(indices - 1, 0, size - 1), weights


def imresize(image: np.ndarray, scale=None, method: str = 'bicubic',
             size: tuple[int, int] | None = None) -> np.ndarray:
  """MATLAB's `imresize(image, scale or size)`, on the host.

  Of uint8 in float64, rows first, rounded to uint8 between the two passes. Every byte of the
  public Set5 and Set14 LR files (x2, x3, x4) comes out so; other scales and methods follow
  the same formula.

  Args:
    image: uint8 [H, W, C]; or float32, which is neither rounded nor clipped.
    scale: an integer, float or Fraction, above 1 to enlarge.
    method: 'bicubic' or 'bilinear', antialiased when it shrinks, or 'nearest', which is not.
    size: in place of a scale, the (height, width) to come to; proportions may change.

  Returns:
    As image, [ceil(H * scale), ceil(W * scale), C], or of that size.
  """
  if image.dtype not in (np.uint8, np.float32):
    raise ValueError(f'a picture of {image.dtype}: expected uint8 or float32')
  real = np.float64 if image.dtype == np.uint8 else np.float32
  # MATLAB begins with the axis that shrinks most, with rows where both shrink alike.
  for axis in sorted((0, 1), key=lambda axis: size[axis] / image.shape[axis] if size else 0):
    side, count = image.shape[axis], size and size[axis]
    indices, weights = _taps(side, count / side if size else scale, method, count)
    total = 0.0
    for tap in range(indices.shape[1]):
      column = weights[:, tap]
      if not column.any():
        continue
      column = column[:, None, None] if axis == 0 else column[None, :, None]
      total = total + column.astype(real) * np.take(image, indices[:, tap], axis=axis)
    image = total if real == np.float32 else np.uint8(np.clip(np.floor(total + 0.5), 0, 255))
  return image


def resize(images: jax.Array, scale, method: str = 'bicubic', eight_bit: bool = False):
  """The same resizing as two matrix products, for the device: jitted, differentiable.

  Args:
    images: float [B, H, W, C] in [0, 1].
    scale, method: as in `imresize`.
    eight_bit: rounds to 256 levels first and after each pass, as `imresize` does, from which
      it then differs only where a sum lies half-way between two levels to float32's rounding:
      nowhere in Set5's and Set14's LR, often at such scales as 3/2. Else the result is as it
      comes (bicubic overshoots [0, 1] at edges).

  Returns:
    float32 [B, ceil(H * scale), ceil(W * scale), C].
  """
  images = images.astype(jnp.float32)
  if eight_bit:
    images = to_levels(images)  # whole numbers: a tie stays a tie in float32
  for axis, product in ((1, 'oh,bhwc->bowc'), (2, 'ow,bhwc->bhoc')):
    indices, weights = _taps(images.shape[axis], scale, method)
    matrix = np.zeros((indices.shape[0], images.shape[axis]))
    np.add.at(matrix, (np.arange(indices.shape[0])[:, None], indices), weights)
    # HIGHEST: a TPU or GPU would otherwise multiply in bfloat16 or TF32.
    images = jnp.einsum(product, jnp.asarray(matrix, jnp.float32), images,
                        precision=jax.lax.Precision.HIGHEST)
    if eight_bit:
      images = jnp.clip(jnp.floor(images + 0.5), 0, 255)
  return images / 255 if eight_bit else images
