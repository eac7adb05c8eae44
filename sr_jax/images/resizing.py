"""MATLAB's imresize, on the host and on the device."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

from sr_jax.images.color import to_levels


def cubic_kernel(x: np.ndarray, a: float = -0.5) -> np.ndarray:
  """Returns Keys' kernel at distances x (Keys 1981, "Cubic convolution interpolation").

  Args:
    a: slope at distance 1; -0.5 in MATLAB, -0.75 in PyTorch and ncnn.
  """
  x = np.abs(x)
  inner = (a + 2) * x**3 - (a + 3) * x**2 + 1
  outer = a * (x**3 - 5 * x**2 + 8 * x - 4)
  return np.where(x <= 1, inner, np.where(x <= 2, outer, 0.0))


def _triangle(x: np.ndarray) -> np.ndarray:
  return np.maximum(1 - np.abs(x), 0.0)


def _box(x: np.ndarray) -> np.ndarray:
  return np.where((x >= -0.5) & (x < 0.5), 1.0, 0.0)  # of two equally near samples, the later one


# (kernel, its width in samples) by the name of the method.
KERNELS = {'bicubic': (cubic_kernel, 4), 'bilinear': (_triangle, 2), 'nearest': (_box, 1)}


def taps(size: int, scale: float | Fraction, method: str,
         count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
  """Computes the input samples and weights of each output sample along one axis.

  Args:
    size: samples of the input.
    scale: output size / input size. Below 1 the kernel is stretched by 1 / scale (antialiasing),
      except for 'nearest'.
    method: a key of KERNELS.
    count: samples of the output, by default ceil(size * scale).

  Returns:
    (indices, weights), both [count, taps]; rows of weights sum to 1. Indices beyond the border
    are those of the border (replication).
  """
  kernel, width = KERNELS[method]
  scale = float(scale)
  # MATLAB's coordinates, which begin at 1, and its order of summation: otherwise values half-way
  # between two levels would be rounded to the other level.
  shrink = 1.0 if method == 'nearest' else min(1.0, scale)
  width = width / shrink
  out = np.arange(1, (count or int(np.ceil(size * scale))) + 1)
  centre = out / scale + 0.5 * (1 - 1 / scale)
  first = np.floor(centre - width / 2).astype(np.int64)
  indices = first[:, None] + np.arange(int(np.ceil(width)) + 2)
  weights = shrink * kernel(shrink * (centre[:, None] - indices))
  weights = weights / weights.sum(axis=1, keepdims=True)
  return np.clip(indices - 1, 0, size - 1), weights


def imresize(image: np.ndarray, scale: float | Fraction | None = None, method: str = 'bicubic',
             size: tuple[int, int] | None = None) -> np.ndarray:
  """Computes MATLAB's `imresize(image, scale or size)` on the host.

  Integers are resized in float64, rows first, and rounded to their type after each of the two
  passes. The results equal the public Set5 and Set14 LR files (x2, x3, x4) in every byte; other
  scales and methods follow the same formula. Beyond the border, the outermost samples are repeated,
  as in the versions of MATLAB that made those files; newer versions mirror the image there, which
  changes a few rows and columns at the border.

  Args:
    image: uint8 or uint16 [H, W, C], or float32, which is neither rounded nor clipped.
    scale: an integer, float or Fraction; above 1 it upscales.
    method: 'bicubic' or 'bilinear', both antialiased for scales below 1, or 'nearest', which is
      not.
    size: (height, width) of the result, instead of a scale; the aspect ratio may change.

  Returns:
    [ceil(H * scale), ceil(W * scale), C] or [*size, C], of the type of `image`.

  Raises:
    ValueError: `image` has another type.
  """
  dtype = image.dtype
  if dtype not in (np.uint8, np.uint16, np.float32):
    raise ValueError(f'image of type {dtype}: expected uint8, uint16 or float32')
  real = np.float32 if dtype == np.float32 else np.float64
  # MATLAB begins with the axis that shrinks more, or with rows if both shrink alike.
  for axis in sorted((0, 1), key=lambda axis: size[axis] / image.shape[axis] if size else 0):
    side, count = image.shape[axis], size and size[axis]
    indices, weights = taps(side, count / side if size else scale, method, count)
    total = 0.0
    for tap in range(indices.shape[1]):
      column = weights[:, tap]
      if not column.any():
        continue
      column = column[:, None, None] if axis == 0 else column[None, :, None]
      total = total + column.astype(real) * np.take(image, indices[:, tap], axis=axis)
    image = total if real == np.float32 else np.clip(
        np.floor(total + 0.5), 0, np.iinfo(dtype).max).astype(dtype)
  return image


def baseline_name(method: str, scale: int) -> str:
  """Returns what tables call images upscaled by a method: at scale 1 they are the 'input'."""
  return 'input' if scale == 1 else method


def resize(images: jax.Array, scale: float | Fraction, method: str = 'bicubic',
           eight_bit: bool = False) -> jax.Array:
  """Resizes on the device by two matrix products; can be jitted and differentiated.

  Args:
    images: float [B, H, W, C] in [0, 1].
    scale, method: as in `imresize`.
    eight_bit: round to 256 levels before the first and after each pass, as `imresize` does. The
      result then differs from `imresize` only where a sum lies half-way between two levels to
      float32's precision: nowhere in the LR of Set5 and Set14, often for scales such as 3/2.
      Otherwise nothing is rounded or clipped (bicubic overshoots [0, 1] at edges).

  Returns:
    float32 [B, ceil(H * scale), ceil(W * scale), C].
  """
  images = images.astype(jnp.float32)
  if eight_bit:
    images = to_levels(images)  # integers, for which a tie stays a tie in float32
  for axis, product in ((1, 'oh,bhwc->bowc'), (2, 'ow,bhwc->bhoc')):
    indices, weights = taps(images.shape[axis], scale, method)
    matrix = np.zeros((indices.shape[0], images.shape[axis]))
    np.add.at(matrix, (np.arange(indices.shape[0])[:, None], indices), weights)
    # HIGHEST: a TPU or GPU would otherwise multiply in bfloat16 or TF32.
    images = jnp.einsum(product, jnp.asarray(matrix, jnp.float32), images,
                        precision=jax.lax.Precision.HIGHEST)
    if eight_bit:
      images = jnp.clip(jnp.floor(images + 0.5), 0, 255)
  return images / 255 if eight_bit else images
