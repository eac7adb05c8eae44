"""Resizing each image of a batch by its own factor and method, in one program.

Each axis is one product with a matrix of weights [new, old] that is made on the device. So sizes,
factors and methods may differ from image to image and from step to step without compiling again.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from sr_jax.data.degradations.batching import fill_canvas, for_each_size
from sr_jax.data.degradations.canvas import Canvas, Draws, Goal
from sr_jax.data.degradations.drawing import between, choose
from sr_jax.data.degradations.resampling import REALESRGAN_METHODS, Resampling, axis_weights


def resize(canvas: Canvas, new_sizes: jax.Array, shape: tuple[int, int], chosen: jax.Array,
           resampling: Resampling, ratios: jax.Array | None = None) -> Canvas:
  """Resizes each image of a batch to its own size by its own method.

  An image whose size stays the same is returned exactly as it is by every method.

  Args:
    canvas: the images.
    new_sizes: int32 [B, 2], at least 1 and at most `shape`.
    shape: (height, width) of the canvas of the result.
    chosen: int32 [B], indices into `resampling.methods`.
    resampling: the methods and how they treat borders.
    ratios: float32 [B, 2], new size / old size for the coordinates of samples, where rounding made
      it differ from the sizes' (F.interpolate(scale_factor=...)); 'area' goes by sizes alone.

  Returns:
    Pixels [B, *shape, C], which may overshoot the range of the input (bicubic, Lanczos), and
    `new_sizes`. Pixels outside an image have no meaning.
  """
  if ratios is None:
    inverse = canvas.sizes.astype(jnp.float32) / new_sizes.astype(jnp.float32)
  else:
    inverse = 1 / ratios.astype(jnp.float32)
  rows, columns = (
      axis_weights(canvas.sizes[:, axis], new_sizes[:, axis], inverse[:, axis],
                   (canvas.pixels.shape[1 + axis], shape[axis]), chosen, resampling)
      for axis in (0, 1))
  return Canvas(_products(canvas, new_sizes, rows, columns), new_sizes)


def _products(canvas: Canvas, new_sizes: jax.Array, rows: jax.Array,
              columns: jax.Array) -> jax.Array:
  """Multiplies [B, H, W, C] by [B, new, H] and [B, new, W], in float32 everywhere."""
  old, new = canvas.pixels.shape[1:3], (rows.shape[1], columns.shape[1])
  is_reduced = math.prod(old) > math.prod(new)

  def product(part: tuple[int, int], pixels: jax.Array, rows: jax.Array,
              columns: jax.Array) -> jax.Array:
    (height, width), (new_height, new_width) = (part, new) if is_reduced else (old, part)
    pixels = pixels[:height, :width]
    for axes, matrix in (('oh,hwc->owc', rows[:new_height, :height]),
                         ('ow,hwc->hoc', columns[:new_width, :width])):
      pixels = jnp.einsum(axes, matrix, pixels, precision=jax.lax.Precision.HIGHEST)
    return fill_canvas(pixels, new)

  sizes, shape = (canvas.sizes, old) if is_reduced else (new_sizes, new)
  return for_each_size(product, sizes, shape, canvas.pixels, rows, columns)


@dataclasses.dataclass(frozen=True)
class Resize:
  """Resizes each image by a random factor and method.

  As in Real-ESRGAN's degradations (https://github.com/xinntao/Real-ESRGAN,
  realesrgan/models/realesrgan_model.py): the first order resizes by a factor of the image's size
  with F.interpolate(scale_factor=...), the second to a factor of LR's size with
  F.interpolate(size=...).

  Attributes:
    directions: probabilities of enlarging, of reducing and of factor 1.
    factor: the smallest and the largest factor, between which it is uniform: above 1 where an image
      is enlarged, below 1 where it is reduced.
    methods: the methods, each of which is equally likely; see `Resampling`.
    antialias: whether kernels are stretched where an image becomes smaller; see `Resampling`.
    of_lr: whether factors refer to the size of LR rather than to that of the image.
    inverse: whether 1 / factor is uniform rather than the factor, as in BSRGAN, so that small
      factors are drawn more often.
    by_factor: whether samples lie where the factor itself puts them, as with
      F.interpolate(scale_factor=...), although the size is rounded down. Images then move down and
      right by a quarter of a new pixel on average. Otherwise samples go by the sizes.
  """

  directions: tuple[float, float, float] = (0.2, 0.7, 0.1)
  factor: tuple[float, float] = (0.15, 1.5)
  methods: tuple[str, ...] = REALESRGAN_METHODS
  antialias: bool = False
  of_lr: bool = False
  inverse: bool = False
  by_factor: bool = False

  def draw(self, key: jax.Array) -> Draws:
    """Draws `factor` and `method`, an index into `methods`."""
    direction, factor, method = jax.random.uniform(key, (3,))
    larger = [max(bound, 1.0) for bound in self.factor]
    smaller = [min(bound, 1.0) for bound in self.factor]
    factors = jnp.stack([self._between(factor, *larger), self._between(factor, *smaller),
                         jnp.ones(())])
    return {'factor': factors[choose(direction, self.directions)],
            'method': choose(method, (1,) * len(self.methods))}

  def _between(self, uniform: jax.Array, low: float, high: float) -> jax.Array:
    return 1 / between(uniform, 1 / high, 1 / low) if self.inverse else between(uniform, low, high)

  @property
  def largest(self) -> float:
    """The largest factor that can be drawn, at least 1."""
    return max(self.factor[1], 1.0) if self.directions[0] > 0 else 1.0

  def apply(self, canvas: Canvas, draws: Draws, keys: jax.Array, goal: Goal) -> Canvas:
    """Resizes the images; the canvas of the result holds the largest factor."""
    base = goal.sizes if self.of_lr else canvas.sizes
    side = goal.shape if self.of_lr else canvas.pixels.shape[1:3]
    factors = draws['factor'][:, None]
    sizes = jnp.maximum(jnp.floor(base.astype(jnp.float32) * factors), 1).astype(jnp.int32)
    shape = (math.ceil(side[0] * self.largest), math.ceil(side[1] * self.largest))
    ratios = jnp.broadcast_to(factors, sizes.shape) if self.by_factor else None
    return resize(canvas, sizes, shape, draws['method'], Resampling(self.methods, self.antialias),
                  ratios)

  def describe(self, draws: dict[str, Any]) -> str:
    """Returns for example 'resized by 0.43, area'."""
    factor, method = float(draws['factor']), self.methods[int(draws['method'])]
    if self.of_lr:
      return f'resized to {factor:.2f} of the size of LR, {method}'
    return 'not resized' if factor == 1 else f'resized by {factor:.2f}, {method}'


@dataclasses.dataclass(frozen=True)
class ResizeToGoal:
  """Resizes each image to the size of LR by a random method, the last resizing of a chain.

  Attributes:
    methods, antialias: as in `Resize`. Antialiased bicubic is MATLAB's, with repeated borders.
  """

  methods: tuple[str, ...] = REALESRGAN_METHODS
  antialias: bool = False

  def draw(self, key: jax.Array) -> Draws:
    """Draws `method`, an index into `methods`."""
    return {'method': choose(jax.random.uniform(key), (1,) * len(self.methods))}

  def apply(self, canvas: Canvas, draws: Draws, keys: jax.Array, goal: Goal) -> Canvas:
    """Resizes all images to `goal.sizes`, on a canvas of `goal.shape`."""
    return self.apply_except(canvas, draws, goal, None, goal.shape)

  def apply_except(self, canvas: Canvas, draws: Draws, goal: Goal, keep: jax.Array | None,
                   shape: tuple[int, int]) -> Canvas:
    """Resizes some of the images to `goal.sizes`.

    Args:
      canvas, draws, goal: as in `apply`.
      keep: bool [B], the images that stay exactly as they are; None for none.
      shape: the canvas of the result, which holds the resized and the kept images.
    """
    sizes = goal.sizes if keep is None else jnp.where(keep[:, None], canvas.sizes, goal.sizes)
    border = 0
    if self.antialias:
      border = 2 + 2 * max(math.ceil(old / new) for old, new in zip(
          canvas.pixels.shape[1:3], goal.shape, strict=True))
    resampling = Resampling(self.methods, self.antialias, border)
    return resize(canvas, sizes, shape, draws['method'], resampling)

  def describe(self, draws: dict[str, Any]) -> str:
    """Returns for example 'resized to the size of LR, area'."""
    return f'resized to the size of LR, {self.methods[int(draws["method"])]}'
