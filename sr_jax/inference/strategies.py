"""The three ways in which a picture is enlarged; `upscaler` chooses among them.

Each yields rows of the result from top to bottom, as soon as they are done. Pictures are
[B, h, w, C] here, of any of the upscaler's kinds.
"""

import math
from collections.abc import Collection
from typing import NamedTuple

import jax
import numpy as np

from sr_jax import images
from sr_jax.inference import layerwise, tiles
from sr_jax.inference.compiled_parts import LEVELS, CompiledParts


class TilingPlan(NamedTuple):
  """How a picture is done; all sides are in pixels of the features."""

  canvas: tuple[int, int] | None  # that the trunk runs on; None: not as a whole
  window: tuple[int, int]  # of the tail
  cut: tiles.Tiling | None = None  # of the network's windows
  layer: int = 0  # side of the windows in which the trunk's layers run


class PlanRunner:
  """What a `Plan` says, done: with a generator's programs, as far as its tail sees.

  Args:
    halo: of the tail, in pixels of the features.
    canvases: sides that several sizes share; their trunk is told what of it is picture.
  """

  def __init__(self, programs: CompiledParts, halo: int, canvases: Collection[tuple[int, int]]):
    self._programs, self._halo, self._canvases = programs, halo, canvases

  def fold(self, size) -> tuple[int, int]:
    """(height, width) of the features of a picture."""
    return tuple(math.ceil(side / self._programs.unfold) for side in size)

  def bands(self, lr, plan: TilingPlan, begin: int):
    """(rows of LR done, rows of sr), from row `begin` on."""
    rows, columns = (begin, lr.shape[1]), (0, lr.shape[2])
    if plan.cut:
      return self._in_windows(lr, plan.cut, plan.window, begin)
    if plan.layer:
      return self.by_layers(lr, plan.layer, plan.window, rows, columns)
    return self.whole(lr, plan.canvas, plan.window, rows, columns)

  def whole(self, lr, canvas, window, rows, columns):
    """(rows of LR done, sr of rows x columns, both (begin, end)) of an lr whose trunk fits."""
    x, sides = _floats(lr), self.fold(lr.shape[1:3])
    x = _pad(x, sides, self._programs.unfold, 'reflect')  # as the network itself would
    x = _pad(x, canvas, self._programs.unfold, 'constant')
    on_canvas = len(lr) == 1 and canvas in self._canvases
    run = self._programs.trunk(len(lr), canvas, on_canvas).run
    features = run(self._programs.variables, x, np.int32(lr.shape[1:3]))
    if features.devices() == {_host()}:
      features = np.asarray(features)  # the same memory, of which NumPy cuts without compiling
    return self._tails(lr, features, window, rows, columns)

  def _in_windows(self, lr, cut: tiles.Tiling, window, begin):
    height, width = self.fold(lr.shape[1:3])
    for y in tiles.spans(height, cut.height, cut.halo, begin // self._programs.unfold):
      strips = []
      for x in tiles.spans(width, cut.width, cut.halo):
        part, *kept = self.part(lr, (y, x), cut[:2])
        strips.append(joined(self.whole(part, cut[:2], window, *kept)))
      yield min(y.end * self._programs.unfold, lr.shape[1]), np.concatenate(strips, axis=2)

  def part(self, lr, at, sides):
    """(lr in a window, rows and columns, (begin, end), that are taken of it).

    Args:
      at, sides: the window's spans and sides, in pixels of the features.
    """
    (top, left), unfold = (span.start * self._programs.unfold for span in at), self._programs.unfold
    part = lr[:, top:top + sides[0] * unfold, left:left + sides[1] * unfold]
    return part, *(((span.begin - span.start) * unfold,
                    min((span.end - span.start) * unfold, length))
                   for span, length in zip(at, part.shape[1:3], strict=True))

  def by_layers(self, lr, side: int, window, rows, columns):
    features = layerwise.trunk(self._programs.generator, self._programs.variables,
                               _floats(lr), side)
    return self._tails(lr, features, window, rows, columns)

  def _tails(self, lr, features, window, rows, columns):
    """(rows of LR done, sr of rows x columns)."""
    unfold, scale = self._programs.unfold, self._programs.generator.scale
    tail = self._programs.tail(len(lr), window, lr.shape[3], lr.dtype.name).run
    ys, xs = (tiles.spans(side, part, self._halo)
              for side, part in zip(self.fold(lr.shape[1:3]), window, strict=True))

    def taken(span, wanted):  # in LR pixels
      return max(wanted[0], span.begin * unfold), min(wanted[1], span.end * unfold)

    def put(left, right, start, sr):
      band[:, :, (left - columns[0]) * scale:(right - columns[0]) * scale] = np.asarray(sr)[
          :, (top - y.start * unfold) * scale:(bottom - y.start * unfold) * scale,
          (left - start) * scale:(right - start) * scale]

    for y in ys:
      top, bottom = taken(y, rows)
      if top >= bottom:
        continue
      band = np.empty((len(lr), (bottom - top) * scale, (columns[1] - columns[0]) * scale,
                       lr.shape[3]), lr.dtype)
      last = None
      for x in xs:
        left, right = taken(x, columns)
        if left >= right:
          continue
        # Beyond the picture, where it does not fold evenly, its border goes on.
        below, across = (
            np.minimum(np.arange(span.start * unfold, (span.start + part) * unfold), length - 1)
            for span, part, length in zip((y, x), window, lr.shape[1:3], strict=True))
        part = _floats(lr[:, below][:, :, across])
        sr = tail(self._programs.variables, _cut(features, y.start, x.start, window), part)
        if last:
          put(*last)  # while the next one is computed
        last = left, right, x.start * unfold, sr
      put(*last)
      yield bottom, band


def _cut(features, y: int, x: int, window):
  """A window of [B, h, w, F]: of NumPy's at once, of a device's compiled for their shape."""
  if isinstance(features, np.ndarray):
    return features[:, y:y + window[0], x:x + window[1]]
  return jax.lax.dynamic_slice(features, (0, y, x, 0),
                               (len(features), *window, features.shape[3]))


def joined(bands) -> np.ndarray:
  return np.concatenate([band for _, band in bands], axis=1)


def _host() -> jax.Device | None:
  return jax.devices()[0] if jax.default_backend() == 'cpu' else None


def _floats(lr: np.ndarray) -> np.ndarray:
  """float32 [B, h, w, 3] in [0, 1] of any kind; grey is repeated."""
  return images.as_rgb(images.to_float(lr, LEVELS.get(lr.dtype.name, 1)))


def _pad(x: np.ndarray, sides, unfold: int, mode: str) -> np.ndarray:
  """[B, h, w, C], at the bottom and right, to `sides` of the features."""
  to = [side * unfold for side in sides]
  return np.pad(x, [(0, 0), *((0, b - a) for a, b in zip(x.shape[1:3], to, strict=True)), (0, 0)],
                mode)
