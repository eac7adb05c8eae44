"""Chooses how an image is computed in the available memory."""

import functools
import math
from collections.abc import Iterable

import numpy as np

from sr_jax.errors import InputError
from sr_jax.inference import layerwise, tiles
from sr_jax.inference.compiled_parts import CompiledParts
from sr_jax.inference.strategies import Sides, TilingPlan
from sr_jax.system.memory import host_memory

DEFAULT_TILE = 128  # LR pixels; on two cores as fast as no tiles, in a tenth of the memory
MIN_TILE = 16  # no smaller tile is tried, and no smaller image uses a shared canvas
PROBE_SIDE = 256  # of the trunk from which a larger one, which cannot be compiled, is extrapolated
MAX_CANVASES = 4  # shared by images of many sizes
MAX_WORK = 16  # a halo is shortened where an exact one would compute each pixel more often


class Planner:
  """Chooses a `TilingPlan` from the memory that XLA reports for the compiled trunk and tail.

  Args:
    parts: the compiled trunk and tail.
    tile: side of the tail's tiles in LR pixels; None, the whole image.
    sizes: (height, width) of the images to come; more than three distinct ones share canvases.

  Attributes:
    trunk_reach: how far the trunk sees, in pixels of the features; None: it needs the whole image.
    tail_reach: how far the tail sees, in pixels of the features; None: it needs the whole image.
    layers: the layers of the trunk.
    canvas_windows: side of the tail's windows on each of the shared canvases.
  """

  def __init__(self, parts: CompiledParts, tile: int | None = DEFAULT_TILE,
               sizes: Iterable[Sides] = ()) -> None:
    self._parts, self._tile = parts, tile and tile // parts.unshuffle
    self.layers, sizes = layerwise.Layers(parts), list(sizes)
    self.canvas_windows = {}
    if len(set(sizes)) > 3 and self.tail_reach is not None and parts.trunk_locality.zero_padded:
      self.canvas_windows = self._share_canvases(sizes)

  @functools.cached_property
  def trunk_reach(self) -> int | None:
    reach = self._parts.trunk_locality.reach
    return None if reach is None else tiles.ceil_pixels(reach)

  @functools.cached_property
  def tail_reach(self) -> int | None:
    reach = self._parts.tail_locality.reach
    # One pixel more, because upscaling rounds positions; at least two, for a bicubic skip.
    return None if reach is None else max(tiles.ceil_pixels(reach) + 1, 2)

  @property
  def local(self) -> bool:
    """Whether a pixel of the result depends on pixels nearby alone, in the same way everywhere."""
    return self.tail_reach is not None and self.trunk_reach is not None

  @property
  def reason(self) -> str:
    """Why the network is not local, for messages."""
    return self._parts.tail_locality.reason or self._parts.trunk_locality.reason

  def _share_canvases(self, sizes: list[Sides]) -> dict[Sides, int]:
    """Returns canvases and, for each, the side of the tail's windows, of which there are two."""
    halo = self.tail_reach
    sides = [self._parts.feature_size(size) for size in sizes]
    sides = [side for side in sides if min(side) >= MIN_TILE + 2 * halo]
    canvases, shortest = tiles.canvases(sides, MAX_CANVASES), {}
    for side in sides:
      canvas = tiles.canvas_of(side, canvases)
      shortest[canvas] = min(shortest.get(canvas, min(side)), min(side))
    # No window is larger than an image: otherwise the tail would see the canvas outside it.
    large = min(self._tile or DEFAULT_TILE, DEFAULT_TILE) + 2 * halo
    small = min([large, *shortest.values()])
    return {canvas: large if shortest.get(canvas, 0) >= large else small for canvas in canvases}

  def plan(self, lr: np.ndarray, budget: int) -> TilingPlan:
    """Returns how to compute lr [B, h, w, C] in `budget` bytes.

    Raises:
      InputError: windows that fit have no exact part even with a shortened halo.
    """
    batch, sides = len(lr), self._parts.feature_size(lr.shape[1:3])
    canvas = tiles.canvas_of(sides, list(self.canvas_windows)) if batch == 1 else None
    if canvas and min(sides) >= self.canvas_windows[canvas] and self._parts.trunk(
        1, canvas, True).bytes <= budget:
      return TilingPlan(canvas, (self.canvas_windows[canvas],) * 2)
    if self._parts.trunk(batch, sides).bytes <= budget:
      return TilingPlan(sides, self.tail_window(lr, sides, budget))
    pixel_bytes = self._trunk_pixel_bytes(batch, sides)
    pixels = 0.7 * budget / pixel_bytes  # the rest is for the tail and its results
    side = math.isqrt(int(pixels))
    reach = self.trunk_reach + self.tail_reach if self.local else None
    tiling = None if reach is None else tiles.choose_tiling(sides, pixels, reach)
    work, layer_work = tiles.work(sides, tiling), self._layer_work(batch, sides, side)
    # Layer by layer, features are copied to the host and back, which takes time too.
    if work <= min(MAX_WORK, 1.3 * layer_work):
      return TilingPlan(None, self.tail_window(lr, tiling[:2], budget), tiling)
    if layer_work <= MAX_WORK:
      layer_side = self.layers.fitting_side(batch, sides, side, budget)
      if layer_side and self.layers.work(sides, layer_side) <= MAX_WORK:
        return TilingPlan(None, self.tail_window(lr, sides, budget), None, layer_side)
    if reach is None and self.layers.calls:
      raise too_large(lr)
    if reach is None:
      raise self._must_be_whole(lr, self._parts.trunk(batch, sides).bytes, budget)
    tiling = tiles.choose_tiling(sides, pixels, side // 4)
    if not tiling:
      raise too_large(lr)
    exact_bytes = budget
    while tiles.work(sides, tiles.choose_tiling(sides, 0.7 * exact_bytes / pixel_bytes, reach)
                     ) > MAX_WORK:
      exact_bytes *= 1.2
    return TilingPlan(None, self.tail_window(lr, tiling[:2], budget), tiling,
                      exact_bytes=exact_bytes)

  def _trunk_pixel_bytes(self, batch: int, sides: Sides) -> float:
    """Returns the bytes that the trunk needs for each pixel of the features."""
    total = self._parts.trunk(batch, sides).bytes
    if math.isinf(total):
      sides = tuple(min(side, PROBE_SIDE) for side in sides)
      total = self._parts.trunk(batch, sides).bytes
    return total / math.prod(sides)

  def _layer_work(self, batch: int, sides: Sides, side: int) -> float:
    """Returns the work of a trunk layer by layer; infinite if host memory is too small for it."""
    # On the host, in float32: a layer's input and result, the trunk's first features, those at the
    # start of a residual group, and a sum.
    if 20 * batch * math.prod(sides) * self._parts.features.shape[3] > host_memory():
      return math.inf
    return self.layers.work(sides, side)

  def tail_window(self, lr: np.ndarray, sides: Sides, budget: int) -> Sides:
    """Returns the largest window of the tail, at most `tile`, that fits in half of the budget.

    Args:
      lr: the image; its batch size, channels and dtype matter.
      sides: height and width of the features on which the tail runs.
      budget: in bytes.

    Raises:
      InputError: the tail needs the whole image, and that does not fit.
    """
    if self.tail_reach is None:
      needed = self._parts.tail(len(lr), sides, lr.shape[3], lr.dtype.name).bytes
      if needed > budget:
        raise self._must_be_whole(lr, needed, budget)
      return sides
    tile = min(self._tile or max(sides), max(sides))
    while True:
      window = tuple(tiles.even_window(side, tile, self.tail_reach) for side in sides)
      if tile * self._parts.unshuffle <= MIN_TILE or self._parts.tail(
          len(lr), window, lr.shape[3], lr.dtype.name).bytes <= budget / 2:
        return window
      tile = math.ceil(tile / 2)

  def _must_be_whole(self, lr: np.ndarray, needed: float, budget: int) -> InputError:
    """Returns the error for an image that needs more memory at once than there is."""
    amount = '' if math.isinf(needed) else f'; it needs {needed / 2**30:.2g} GiB'
    return InputError(
        f'{self._parts.name}: an image of {lr.shape[-2]}x{lr.shape[-3]} pixels does not fit in '
        f'{budget / 2**30:.2g} GiB of memory{amount}; this network cannot be computed in tiles, '
        f'because its pixels depend on the whole image or on their position ({self.reason})')


def too_large(lr: np.ndarray) -> InputError:
  """Returns the error for lr [..., h, w, C] that does not fit in memory in any way."""
  return InputError(f'an image of {lr.shape[-2]}x{lr.shape[-3]} pixels does not fit in memory, '
                    'even in the smallest tiles')
