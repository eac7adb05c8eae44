"""The three strategies by which an image is upscaled; `planner` chooses one of them.

Each yields rows of the result from top to bottom, as soon as they are computed. Images are NumPy
[B, h, w, C] here, C 1 or 3, of any dtype in `upscaler.DTYPES`.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from sr_jax import images
from sr_jax.inference import layerwise, tiles
from sr_jax.inference.compiled_parts import MAX_LEVELS, CompiledParts

Sides = tuple[int, int]  # height and width
Range = tuple[int, int]  # [begin, end) of rows or columns
Bands = Iterator[tuple[int, np.ndarray]]  # (end of the rows of LR that are done, rows of sr)


class TilingPlan(NamedTuple):
  """How an image is computed; all sides are in pixels of the features.

  The trunk runs on the whole image, padded to `canvas`; or else, with `tiling`, the entire network
  runs in windows; or else, with `layer_side`, the trunk runs layer by layer.
  """

  canvas: Sides | None
  window: Sides  # in which the tail runs
  tiling: tiles.Tiling | None = None
  layer_side: int = 0  # of the windows in which each layer runs
  exact_bytes: float = 0  # memory with which the result would be exact; 0: it is exact


class PlanRunner:
  """Upscales images as a `TilingPlan` says.

  Args:
    parts: the compiled trunk and tail.
    tail_reach: of the tail, in pixels of the features; the halo of its windows. None: its window
      is always the whole image.
    canvases: canvases that images of several sizes share; on them the trunk is given the size of
      the image, so that it can ignore the padding.
  """

  def __init__(self, parts: CompiledParts, tail_reach: int | None, canvases: Collection[Sides]
               ) -> None:
    self._parts, self._canvases = parts, canvases
    self._tail_reach = tail_reach or 0

  def bands(self, lr: np.ndarray, plan: TilingPlan, begin: int) -> Bands:
    """Yields the result from row `begin` of lr on."""
    rows, columns = (begin, lr.shape[1]), (0, lr.shape[2])
    if plan.tiling:
      return self._in_windows(lr, plan.tiling, plan.window, begin)
    if plan.layer_side:
      return self.by_layers(lr, plan.layer_side, plan.window, rows, columns)
    return self.untiled(lr, plan.canvas, plan.window, rows, columns)

  def untiled(self, lr: np.ndarray, canvas: Sides, window: Sides, rows: Range, columns: Range
              ) -> Bands:
    """Yields the result for rows x columns of lr, with one call of the trunk."""
    unshuffle = self._parts.unshuffle
    # The same padding that the network would apply.
    x = _pad(_floats(lr), self._parts.feature_size(lr.shape[1:3]), unshuffle, 'reflect')
    x = _pad(x, canvas, unshuffle, 'constant')
    on_canvas = len(lr) == 1 and canvas in self._canvases
    run = self._parts.trunk(len(lr), canvas, on_canvas).run
    features = run(self._parts.variables, x, np.int32(lr.shape[1:3]))
    if jax.default_backend() == 'cpu' and features.devices() == {jax.devices()[0]}:
      features = np.asarray(features)  # the same memory, which NumPy slices without compiling
    return self._in_tail_windows(lr, features, window, rows, columns)

  def _in_windows(self, lr: np.ndarray, tiling: tiles.Tiling, window: Sides, begin: int) -> Bands:
    height, width = self._parts.feature_size(lr.shape[1:3])
    unshuffle, sides = self._parts.unshuffle, (tiling.height, tiling.width)
    for y in tiles.spans(height, tiling.height, tiling.halo, begin // unshuffle):
      strips = []
      for x in tiles.spans(width, tiling.width, tiling.halo):
        part, rows, columns = self.cut(lr, (y, x), sides)
        strips.append(join_bands(self.untiled(part, sides, window, rows, columns)))
      yield min(y.end * unshuffle, lr.shape[1]), np.concatenate(strips, axis=2)

  def cut(self, lr: np.ndarray, spans: Iterable[tiles.Span], sides: Sides
          ) -> tuple[np.ndarray, Range, Range]:
    """Returns the part of lr in a window, and the rows and columns of that part to be used.

    Args:
      lr: the image.
      spans: the window's position along both axes, in pixels of the features.
      sides: the window's sides, in pixels of the features.
    """
    unshuffle, (y, x) = self._parts.unshuffle, spans
    part = lr[:, y.start * unshuffle:(y.start + sides[0]) * unshuffle,
              x.start * unshuffle:(x.start + sides[1]) * unshuffle]
    rows, columns = (((span.begin - span.start) * unshuffle,
                      min((span.end - span.start) * unshuffle, length))
                     for span, length in zip((y, x), part.shape[1:3], strict=True))
    return part, rows, columns

  def by_layers(self, lr: np.ndarray, layer_side: int, window: Sides, rows: Range, columns: Range
                ) -> Bands:
    """Yields the result for rows x columns of lr, with the trunk computed layer by layer."""
    features = layerwise.trunk(self._parts.generator, self._parts.variables, _floats(lr),
                               layer_side)
    return self._in_tail_windows(lr, features, window, rows, columns)

  def _in_tail_windows(self, lr: np.ndarray, features: np.ndarray | jax.Array, window: Sides,
                       rows: Range, columns: Range) -> Bands:
    """Yields the result for rows x columns of lr, from the features of the whole lr."""
    unshuffle, scale = self._parts.unshuffle, self._parts.generator.scale
    tail = self._parts.tail(len(lr), window, lr.shape[3], lr.dtype.name).run
    ys, xs = (tiles.spans(side, length, self._tail_reach) for side, length in
              zip(self._parts.feature_size(lr.shape[1:3]), window, strict=True))

    def used(span: tiles.Span, wanted: Range) -> Range:
      """Returns the wanted part of what a window gives, in LR pixels."""
      return max(wanted[0], span.begin * unshuffle), min(wanted[1], span.end * unshuffle)

    def to_sr(begin: int, end: int, origin: int) -> slice:
      return slice((begin - origin) * scale, (end - origin) * scale)

    for y in ys:
      top, bottom = used(y, rows)
      if top >= bottom:
        continue
      band = np.empty((len(lr), (bottom - top) * scale, (columns[1] - columns[0]) * scale,
                       lr.shape[3]), lr.dtype)
      pending = None  # a window's result, copied to the host while the next one is computed
      for x in xs:
        left, right = used(x, columns)
        if left >= right:
          continue
        # Outside the image, where the features are padded, its edge is repeated.
        y_indices, x_indices = (
            np.minimum(np.arange(span.start * unshuffle, (span.start + side) * unshuffle),
                       length - 1)
            for span, side, length in zip((y, x), window, lr.shape[1:3], strict=True))
        sr = tail(self._parts.variables, _slice(features, y.start, x.start, window),
                  _floats(lr[:, y_indices][:, :, x_indices]))
        if pending:
          _copy(*pending)
        pending = (band[:, :, to_sr(left, right, columns[0])], sr,
                   to_sr(top, bottom, y.start * unshuffle),
                   to_sr(left, right, x.start * unshuffle))
      _copy(*pending)
      yield bottom, band


def _copy(target: np.ndarray, sr: jax.Array, rows: slice, columns: slice) -> None:
  target[...] = np.asarray(sr)[:, rows, columns]


def _slice(features: np.ndarray | jax.Array, y: int, x: int, window: Sides
           ) -> np.ndarray | jax.Array:
  """Returns a window of [B, h, w, F]; on a device, with one program for all positions."""
  if isinstance(features, np.ndarray):
    return features[:, y:y + window[0], x:x + window[1]]
  return jax.lax.dynamic_slice(features, (0, y, x, 0),
                               (len(features), *window, features.shape[3]))


def join_bands(bands: Bands) -> np.ndarray:
  """Returns all rows of sr [B, H, W, C]."""
  return np.concatenate([band for _, band in bands], axis=1)


def _floats(lr: np.ndarray) -> np.ndarray:
  """Returns float32 [B, h, w, 3] in [0, 1]; a grey image is repeated."""
  return images.as_rgb(images.to_float(lr, MAX_LEVELS.get(lr.dtype.name, 1)))


def _pad(x: np.ndarray, sides: Sides, unshuffle: int, mode: str) -> np.ndarray:
  """Pads [B, h, w, C] at the bottom and right, to features of `sides`."""
  missing = [side * unshuffle - length for side, length in zip(sides, x.shape[1:3], strict=True)]
  return np.pad(x, [(0, 0), (0, missing[0]), (0, missing[1]), (0, 0)], mode)
