"""One way of writing what is done to each image, which is fast on a CPU and on a GPU."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# Parts of a canvas that an image may fit into; of a small canvas none is worth compiling.
SHARES = (1 / 2, 2 / 3, 1)
SMALL = 256


def for_each_image(function: Callable[..., jax.Array], *arrays: Any) -> jax.Array:
  """Applies a function of one image to each image of a batch.

  A GPU computes all images at once, because each of its kernels costs some microseconds however
  small it is. A CPU computes one image after the other, all cores at one image: its products and
  Fourier transforms of a batch take up to twice as long. The results are equal up to rounding.

  On several devices it belongs inside jax.shard_map. XLA on its own splits neither a loop over
  images nor a Fourier transform, so that each device would compute the whole batch.

  Args:
    function: maps what belongs to one image to a result of a fixed shape.
    arrays: [B, ...] each, or trees of such arrays.

  Returns:
    The results, [B, ...].
  """
  if jax.default_backend() == 'cpu':
    return jax.lax.map(lambda values: function(*values), arrays)
  return jax.vmap(function)(*arrays)


def for_each_size(function: Callable[..., jax.Array], sizes: jax.Array, shape: tuple[int, int],
                  *arrays: Any) -> jax.Array:
  """Applies a function to each image, on a CPU to a part of the canvas that holds the image.

  Most images are much smaller than the canvas once they were resized, so this halves the work.

  Args:
    function: maps the (height, width) of a part of the canvas, and what belongs to one image, to a
      result of a fixed shape.
    sizes: int32 [B, 2], the sizes of the images.
    shape: (height, width) of the canvas.
    arrays: [B, ...] each, or trees of such arrays.

  Returns:
    The results, [B, ...].
  """
  shares = SHARES if jax.default_backend() == 'cpu' and max(shape) > SMALL else (1,)
  parts = [tuple(round(side * share) for side in shape) for share in shares]

  def apply(size: jax.Array, *values: Any) -> jax.Array:
    too_small = sum(jnp.any(size > jnp.array(part)).astype(jnp.int32) for part in parts[:-1])
    return jax.lax.switch(too_small, [functools.partial(function, part) for part in parts], *values)

  return for_each_image(apply, sizes, *arrays)


def in_parts(function: Callable[..., jax.Array], pixels: jax.Array, sizes: jax.Array,
             *trees: Any) -> jax.Array:
  """Applies a function of a batch, on a CPU image by image as `for_each_size` does.

  Args:
    function: (pixels [B, h, w, C], sizes [B, 2], *trees) -> pixels [B, h, w, C]; what it does to
      an image depends neither on the other images nor on pixels outside of the image.
    pixels: float32 [B, H, W, C].
    sizes: int32 [B, 2], the sizes of the images.
    trees: trees of arrays [B, ...].

  Returns:
    float32 [B, H, W, C]; pixels outside an image have no meaning.
  """
  shape = pixels.shape[1:3]
  if jax.default_backend() != 'cpu' or max(shape) <= SMALL:
    return function(pixels, sizes, *trees)

  def apply(part: tuple[int, int], image: jax.Array, *rest: Any) -> jax.Array:
    arguments = jax.tree.map(lambda array: array[None], (image[:part[0], :part[1]], *rest))
    return fill_canvas(function(*arguments)[0], shape)

  return for_each_size(apply, sizes, shape, pixels, sizes, *trees)


def fill_canvas(image: jax.Array, shape: tuple[int, int]) -> jax.Array:
  """Returns an image [h, w, C] in the upper left corner of zeros [*shape, C]."""
  height, width = image.shape[:2]
  return jnp.pad(image, ((0, shape[0] - height), (0, shape[1] - width), (0, 0)))
