"""Geometry of tiled inference: receptive fields, windows, halos, canvases, self-ensemble.

A pixel of a convolutional network's output depends only on the inputs within its receptive field.
A window of the image therefore gives exact values everywhere except within that reach (the halo)
of those window borders that are not borders of the image; at the image's border, zero padding is
what the whole image has there too. Windows are shifted inward rather than padded, so that all of
them have one shape and are compiled once.

The trunk's reach is long (15 pixels per RRDB, 347 with 23 blocks) and the tail's is a few pixels,
while the tail needs most of the memory: `upscaler` runs the trunk on the whole image and the tail
in windows.
"""

import collections
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn


class Span(NamedTuple):
  """One window along one axis: it begins at `start`, and its pixels [begin, end) are used.

  All three are positions on the axis of the image, not inside the window.
  """

  start: int
  begin: int
  end: int


class Grid(NamedTuple):
  """Where the windows of a layer may lie, along both axes.

  Attributes:
    multiple: windows start at multiples of it. So do they end, or else at the image's border.
    halo: number of inexact pixels at those ends of a window that are not ends of the image.
  """

  multiple: int
  halo: int

  @property
  def shortest(self) -> int:
    """Side of the smallest windows that have an exact part, wherever they start."""
    return (-(-2 * self.halo // self.multiple) + 1) * self.multiple

  def window(self, side: int, full: int) -> int:
    """Returns the length of windows of about `side` pixels on an axis of `full` pixels."""
    return min(full, max(side // self.multiple * self.multiple, self.shortest))


def spans(side: int, window: int, halo: int, begin: int = 0, end: int | None = None,
          multiple: int = 1) -> list[Span]:
  """Returns windows inside [0, side) whose exact parts cover [begin, end), each pixel once.

  Args:
    side: length of the axis.
    window: length of each window; more than 2 * halo, or the whole side.
    halo: number of inexact pixels at those ends of a window that are not ends of the side.
    begin: first pixel to cover.
    end: end of the pixels to cover; None, the end of the side.
    multiple: windows start at multiples of it; the last one may be shorter than the others.

  Raises:
    ValueError: the window is too short to have an exact part.
  """
  if window < side and window < Grid(multiple, halo).shortest:
    raise ValueError(f'a window of {window} pixels with a halo of {halo} has no exact part')
  result, end = [], side if end is None else end
  last = -(-max(0, side - window) // multiple) * multiple
  while begin < end:
    start = max(0, min(begin - halo, last) // multiple * multiple)
    stop = min(end, side if start + window >= side else start + window - halo)
    result.append(Span(start, begin, stop))
    begin = stop
  return result


def even_window(side: int, tile: int, halo: int) -> int:
  """Returns the shortest window that needs no more windows than one of tile + 2 * halo does."""
  inner = side - 2 * halo  # the first and the last window are exact up to the side's ends
  return side if inner <= tile else math.ceil(inner / math.ceil(inner / tile)) + 2 * halo


class Tiling(NamedTuple):
  """Size and halo of the windows that cover an image, in pixels of the features."""

  height: int
  width: int
  halo: int


def choose_tiling(sides: tuple[int, int], pixels: float, halo: int) -> Tiling | None:
  """Returns windows of at most `pixels` pixels, or None if such windows have no exact part.

  Args:
    sides: height and width of the image.
    pixels: maximum of height * width of a window.
    halo: of the windows.
  """
  height = max(1, min(sides[0], max(math.isqrt(int(pixels)), int(pixels / sides[1]))))
  width = max(1, min(sides[1], int(pixels / height)))
  if any(window < side and window <= 2 * halo
         for window, side in zip((height, width), sides, strict=True)):
    return None
  return Tiling(height, width, halo)


def work(sides: tuple[int, int], tiling: Tiling | None) -> float:
  """Returns the pixels of all windows over the pixels of the image; infinite without a tiling."""
  if not tiling:
    return math.inf
  count = math.prod(len(spans(side, window, tiling.halo))
                    for side, window in zip(sides, tiling[:2], strict=True))
  return count * tiling.height * tiling.width / math.prod(sides)


def ceil_pixels(pixels: float) -> int:
  """Returns ceil(pixels), tolerant of float rounding."""
  return math.ceil(pixels - 1e-6)


def inside(size: jax.Array, canvas: tuple[int, int]) -> Callable[..., Any]:
  """Returns an interceptor with which a trunk on a canvas gives the features of the image alone.

  It is for trunks that `locality.examine` calls zero-padded. Zero padding is zero at every layer;
  on a canvas larger than the image, what lies outside the image would differ from zero after the
  first layer. So it is set to zero before each convolution.

  Args:
    size: [2], int32, traced: height and width of the image, which lies at the upper left.
    canvas: height and width of the trunk's input; the input of a layer may be a fraction of it.

  Returns:
    A function for `nn.intercept_methods`.
  """
  def mask(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
    if isinstance(context.module, nn.Conv) and context.method_name == '__call__':
      x, *rest = args
      rows, columns = (
          jnp.arange(x.shape[axis + 1]) * (canvas[axis] // x.shape[axis + 1]) < size[axis]
          for axis in (0, 1))
      args = (jnp.where((rows[:, None] & columns)[:, :, None], x, 0), *rest)
    return call(*args, **kwargs)

  return mask


def canvases(sizes: Iterable[tuple[int, int]], max_count: int) -> list[tuple[int, int]]:
  """Returns canvases (height, width) such that each image fits into one that is little larger.

  Args:
    sizes: (height, width) of the images, each as often as it occurs.
    max_count: maximum number of canvases.

  Returns:
    The canvases, smallest first; one for each distinct size if these are at most `max_count`.
  """
  counts, step = collections.Counter(sizes), 1
  # Merging thousands of sizes pair by pair takes too long, so sides are rounded up first.
  while len(counts) > max(64, max_count):
    step *= 2
    finer, counts = counts, collections.Counter()
    for size, count in finer.items():
      counts[tuple(-side % step + side for side in size)] += count
  groups = dict(counts)
  while len(groups) > max_count:
    (a, a_count), (b, b_count) = min(
        ((a, b) for index, a in enumerate(groups.items()) for b in list(groups.items())[:index]),
        key=lambda pair: _waste(*pair))
    del groups[a], groups[b]
    merged = (max(a[0], b[0]), max(a[1], b[1]))
    groups[merged] = groups.get(merged, 0) + a_count + b_count
  return sorted(groups, key=math.prod)


def _waste(first: tuple[tuple[int, int], int], second: tuple[tuple[int, int], int]) -> int:
  """Returns the additional pixels if two groups (size, count) of images share one canvas."""
  (a, a_count), (b, b_count) = first, second
  merged = max(a[0], b[0]) * max(a[1], b[1])
  return a_count * (merged - a[0] * a[1]) + b_count * (merged - b[0] * b[1])


def canvas_of(size: tuple[int, int], canvases: Sequence[tuple[int, int]]
              ) -> tuple[int, int] | None:
  """Returns the first (smallest) of the canvases into which an image fits, or None."""
  return next((canvas for canvas in canvases
               if canvas[0] >= size[0] and canvas[1] >= size[1]), None)


def ensemble(upscale: Callable[[np.ndarray], np.ndarray], lr: np.ndarray,
             on_progress: Callable[[int], None] = lambda index: None) -> np.ndarray:
  """Returns the mean of `upscale` over the eight rotations and reflections of lr.

  Geometric self-ensemble (Timofte et al. 2016, "Seven ways to improve example-based single
  image super-resolution"; the '+' of EDSR+, Lim et al. 2017, section 3.4).

  Args:
    upscale: maps float32 [h, w, C] to float32 [h * s, w * s, C].
    lr: float32 [h, w, C] in [0, 1].
    on_progress: called with the index, 0 to 7, of each orientation that is done.
  """
  total = 0.0
  for index in range(8):
    turns, mirrored = divmod(index, 2)
    turned = np.rot90(lr, turns)
    sr = upscale(np.ascontiguousarray(turned[:, ::-1] if mirrored else turned))
    total = total + np.rot90(sr[:, ::-1] if mirrored else sr, -turns)
    on_progress(index)
  return np.float32(total / 8)
