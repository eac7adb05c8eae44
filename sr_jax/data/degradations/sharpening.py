"""Unsharp masking, which Real-ESRGAN applies to HR before the pixel and perceptual losses."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sr_jax.data.degradations.batching import for_each_image
from sr_jax.data.degradations.blur import convolve
from sr_jax.data.degradations.canvas import Canvas, Draws, Goal
from sr_jax.data.degradations.drawing import between

BLOCK = 100  # rows or columns of a product on the CPU; larger blocks hold more zeros


def unsharp_mask(images: jax.Array, weight: float = 0.5, radius: int = 50,
                 threshold: float = 10.0) -> jax.Array:
  """Sharpens images where they differ from their blurred form.

  As USMSharp of BasicSR (https://github.com/XPixelGroup/BasicSR,
  basicsr/utils/img_process_util.py): with the residual r between an image and its blurred form,
  the sharp image clip(image + weight * r) is mixed with the image by a mask, which is the blurred
  form of |r| > threshold. Borders are mirrored without the outermost samples.

  Args:
    images: float32 [B, H, W, C] in [0, 1]; channels are sharpened on their own.
    weight: of the residual.
    radius: size of the Gaussian in pixels, plus 1 if it is even; its standard deviation is what
      OpenCV derives from that size (8 pixels for 51).
    threshold: in levels of 8 bits.

  Returns:
    float32 [B, H, W, C] in [0, 1].
  """
  side = radius + 1 - radius % 2
  rows, columns = (_mirrored_gaussian(count, side) for count in images.shape[1:3])

  def blur(image: jax.Array) -> jax.Array:
    for axis, letters, matrix in ((0, 'oh,hwc->owc', rows), (1, 'ow,hwc->hoc', columns)):
      image = _banded_product(letters, matrix, image, axis, side // 2)
    return image

  return for_each_image(lambda image: _sharpened(image, blur, weight, threshold), images)


def _sharpened(image: jax.Array, blur: Callable[[jax.Array], jax.Array],
               weight: float | jax.Array, threshold: float) -> jax.Array:
  residual = image - blur(image)
  mask = blur((jnp.abs(residual) * 255 > threshold).astype(jnp.float32))
  return mask * jnp.clip(image + weight * residual, 0, 1) + (1 - mask) * image


def opencv_sigma(side: int) -> float:
  """Returns the standard deviation that OpenCV uses for a Gaussian of `side` samples."""
  return 0.3 * ((side - 1) * 0.5 - 1) + 0.8


def _mirrored_gaussian(count: int, side: int) -> jax.Array:
  """Returns the matrix [count, count] that blurs `count` samples with mirrored borders."""
  if count == 1:
    return jnp.ones((1, 1))
  sigma, reach = opencv_sigma(side), side // 2
  out, old = jnp.arange(count)[:, None], jnp.arange(count)
  period = 2 * (count - 1)  # of the samples and their mirror images

  def gaussian(offset: jax.Array) -> jax.Array:
    values = jnp.exp(-jnp.square(offset.astype(jnp.float32)) / (2 * sigma**2))
    return jnp.where(jnp.abs(offset) <= reach, values, 0)

  total = np.exp(-np.arange(-reach, reach + 1)**2 / (2 * sigma**2)).sum()
  repeats = math.ceil((reach + count) / period)
  shifts = [repeat * period for repeat in range(-repeats, repeats + 1)]
  weights = sum(gaussian(old + shift - out) for shift in shifts)
  mirrored = sum(gaussian(shift - old - out) for shift in shifts)
  is_inner = (old > 0) & (old < count - 1)  # the outermost samples have no mirror image
  return (weights + jnp.where(is_inner, mirrored, 0)) / total


def _banded_product(letters: str, matrix: jax.Array, image: jax.Array, axis: int,
                    reach: int) -> jax.Array:
  """Multiplies an image [H, W, C] along one axis by a matrix that is zero beyond `reach`.

  A CPU leaves out most of the zeros, which takes half the time; a GPU does better with one product.
  """
  def product(matrix: jax.Array, image: jax.Array) -> jax.Array:
    return jnp.einsum(letters, matrix, image, precision=jax.lax.Precision.HIGHEST)

  count = matrix.shape[0]
  if jax.default_backend() != 'cpu' or count <= 2 * max(BLOCK, reach):
    return product(matrix, image)
  blocks = []
  for start in range(0, count, BLOCK):
    end = min(start + BLOCK, count)
    first, last = max(start - reach, 0), min(end + reach, count)
    part = jax.lax.slice_in_dim(image, first, last, axis=axis)
    blocks.append(product(matrix[start:end, first:last], part))
  return jnp.concatenate(blocks, axis)


@dataclasses.dataclass(frozen=True)
class Sharpen:
  """Sharpens images with an unsharp mask of random weight, as cameras and web sites do.

  Attributes:
    probability: of sharpening an image; otherwise it stays exactly as it is.
    weight: range of the weight of the residual.
    radius: size of the Gaussian in pixels; see `unsharp_mask`.
    threshold: in levels of 8 bits; see `unsharp_mask`.
  """

  probability: float = 0.5
  weight: tuple[float, float] = (0.2, 1.0)
  radius: int = 50
  threshold: float = 10.0

  def draw(self, key: jax.Array) -> Draws:
    """Draws whether an image is sharpened, and the weight."""
    uniform = jax.random.uniform(key, (2,))
    return {'sharpened': uniform[0] < self.probability, 'weight': between(uniform[1], *self.weight)}

  def apply(self, canvas: Canvas, draws: Draws, keys: jax.Array, goal: Goal) -> Canvas:
    """Sharpens the images; sizes stay the same."""
    side = self.radius + 1 - self.radius % 2
    line = np.exp(-(np.arange(side) - side // 2)**2 / (2 * opencv_sigma(side)**2))
    kernel = np.float32(np.outer(line, line) / line.sum()**2)
    kernels = jnp.broadcast_to(kernel, (len(canvas.pixels), side, side))
    pixels = _sharpened(canvas.pixels, lambda image: convolve(image, canvas.sizes, kernels),
                        draws['weight'][:, None, None, None], self.threshold)
    chosen = draws['sharpened'][:, None, None, None]
    return canvas._replace(pixels=jnp.where(chosen, pixels, canvas.pixels))

  def describe(self, draws: dict[str, Any]) -> str:
    """Returns for example 'sharpened, weight 0.62', or 'not sharpened'."""
    return f'sharpened, weight {float(draws["weight"]):.2f}' if draws['sharpened'] else (
        'not sharpened')
