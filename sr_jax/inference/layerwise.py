"""Runs a trunk layer by layer, with the features in host memory, where it does not fit at once.

Each layer of a trunk (a residual block, an RRDB) sees a few pixels, where the whole trunk sees
hundreds. So each layer passes over the features of the whole image in windows with a short halo;
between the layers, the network's own code runs on NumPy arrays.

`sr_jax.models` has what layers may state for this. The windows of a layer with attention in windows
lie on the grid of these (`window_grid`). A layer with the methods `statistics` and
`apply_statistics`, such as a normalisation over the image, takes two passes: the first adds up the
statistics of disjoint windows, in float64; given these, the layer is local. A residual group of
blocks is divided into these (`layered`).
"""

import contextlib
import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from sr_jax.inference import tiles, trunk_layers
from sr_jax.inference.compiled_parts import CompiledParts
from sr_jax.inference.trunk_layers import Layer

Sides = tuple[int, int]  # height and width


class LayerCall(NamedTuple):
  """A layer that a trunk calls, with the shapes of what is given to it.

  Attributes:
    grid: where its windows may lie, in its own pixels.
    features: [1, n, n, C]; only C and the dtype matter.
  """

  layer: Layer
  grid: tiles.Grid
  variables: dict
  features: jax.ShapeDtypeStruct

  def bytes(self, batch: int, sides: Sides) -> float:
    """Returns what the layer needs on the device for a window of these sides."""
    x = jax.ShapeDtypeStruct((batch, *sides, self.features.shape[3]), self.features.dtype)
    if not self.layer.needs_statistics:
      return trunk_layers.compiled(trunk_layers.apply, self.layer, self.variables, x).bytes
    inside = () if self.layer.stated_grid is None else (jax.ShapeDtypeStruct(sides, bool),)
    sums = jax.eval_shape(functools.partial(trunk_layers.statistics, self.layer), self.variables, x,
                          *inside)
    return max(
        trunk_layers.compiled(trunk_layers.statistics, self.layer, self.variables, x, *inside
                              ).bytes,
        trunk_layers.compiled(trunk_layers.apply_statistics, self.layer, self.variables, x,
                              sums, np.float32(0)).bytes)


class Layers:
  """The layers of a generator's trunk: whether, and in which windows, it can run layer by layer.

  Args:
    parts: the generator's.

  Raises:
    InputError: a layer states a grid that cannot be one.
  """

  def __init__(self, parts: CompiledParts) -> None:
    self._parts = parts

  @functools.cached_property
  def calls(self) -> list[LayerCall] | None:
    """Calls of distinct layers.

    None: there is no trunk, or a layer is not local, or is not called with one image, so that it
    can't run in windows.
    """
    generator, calls, in_windows = _forward_only(self._parts.generator), {}, [True]
    if not self._parts.has_trunk:
      return None

    def measure(layer: Layer, variables: dict, x: jax.Array) -> jax.Array:
      y = trunk_layers.apply(layer, variables, x)
      same_size = np.ndim(y) == 4 and y.shape[:3] == np.shape(x)[:3]
      grid = trunk_layers.grid_of(layer, variables, x) if same_size else None
      if grid is None:
        in_windows[0] = False
      else:
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables)
        features = jax.ShapeDtypeStruct(x.shape, x.dtype)
        calls[layer, features] = LayerCall(layer, grid, shapes, features)
      return y

    def trunk(variables: dict, lr: jax.Array) -> jax.Array:
      with trunk_layers.on_each_layer(generator, measure):
        return generator.apply(variables, lr, method='trunk')

    jax.eval_shape(trunk, self._parts.variables, jax.ShapeDtypeStruct((1, 96, 96, 3), np.float32))
    return list(calls.values()) if in_windows[0] else None

  def work(self, sides: Sides, side: int) -> float:
    """Returns the pixels that the most demanding layer computes, over those of the image.

    Args:
      sides: of the image's features.
      side: of the windows; infinite if they are too small for a layer.
    """
    if self.calls is None:
      return math.inf
    return max([1.0, *(_work(sides, side, call.grid) for call in self.calls)])

  def fitting_side(self, batch: int, sides: Sides, side: int, budget: float) -> int:
    """Returns a side of windows, at most `side`, in which no layer needs more than `budget` bytes.

    It is 0 if a layer needs larger windows.
    """
    while math.isfinite(self.work(sides, side)):
      needed = max((call.bytes(batch, tuple(call.grid.window(side, full) for full in sides))
                    for call in self.calls), default=0)
      if needed <= budget:
        return side
      side = int(side * min(0.9, math.sqrt(budget / needed)))
    return 0


def trunk(generator: nn.Module, variables: dict, lr: np.ndarray, side: int) -> np.ndarray:
  """Returns generator.trunk(lr), computed layer by layer, as features [B, h, w, F] on the host.

  Args:
    generator: the network.
    variables: its variables.
    lr: float32 [B, h, w, C].
    side: of the square windows, halo included; a layer that sees further has larger ones.
  """
  try:  # JAX operations between the layers must not move the features to the device
    host = jax.default_device(jax.devices('cpu')[0])
  except RuntimeError:  # this JAX has no CPU backend
    host = contextlib.nullcontext()
  generator, in_windows = _forward_only(generator), functools.partial(run_in_windows, side=side)
  with trunk_layers.on_each_layer(generator, in_windows), host:
    return np.asarray(generator.apply(variables, lr, method='trunk'))


def _forward_only(generator: nn.Module) -> nn.Module:
  """Returns the network without `remat`, which would trace the layers that run on NumPy arrays."""
  return generator.clone(remat=False) if getattr(generator, 'remat', False) else generator


def _work(sides: Sides, side: int, grid: tiles.Grid) -> float:
  windows = [grid.window(side, full) for full in sides]
  if max(windows) > side:
    return math.inf
  return math.prod(len(_spans(full, window, grid)) * window / full
                   for full, window in zip(sides, windows, strict=True))


def _spans(full: int, window: int, grid: tiles.Grid) -> list[tiles.Span]:
  return tiles.spans(full, window, grid.halo, multiple=grid.multiple)


def run_in_windows(layer: Layer, variables: dict, x: np.ndarray, side: int) -> np.ndarray:
  """Returns a layer's result for x [B, h, w, C] on the host, computed in windows of `side`."""
  x = np.asarray(x)  # of an operation of JAX before it; each slice of its array would be compiled
  grid, given, function = trunk_layers.grid_of(layer, variables, x), (), trunk_layers.apply
  sides = tuple(grid.window(side, full) for full in x.shape[1:3])
  if layer.needs_statistics:
    given = _sum_windows(layer, variables, x, grid, sides), np.float32(x.shape[1] * x.shape[2])
    function = trunk_layers.apply_statistics
  result = None
  for row, column in _positions(x, grid, sides):
    part = _on_device(x[:, row.start:row.start + sides[0], column.start:column.start + sides[1]])
    y = np.asarray(trunk_layers.run(function, layer, variables, part, *given))
    if result is None:
      result = np.empty((*x.shape[:3], y.shape[3]), y.dtype)
    result[:, row.begin:row.end, column.begin:column.end] = y[
        :, row.begin - row.start:row.end - row.start,
        column.begin - column.start:column.end - column.start]
  return result


def _sum_windows(layer: Layer, variables: dict, x: np.ndarray, grid: tiles.Grid, sides: Sides
                 ) -> Any:
  """Returns the layer's statistics of the whole x [B, h, w, C], each pixel counted once."""
  total, with_halo = None, layer.stated_grid is not None
  for row, column in _positions(x, grid if with_halo else tiles.Grid(1, 0), sides):
    part = x[:, row.begin:row.end, column.begin:column.end]
    if with_halo:
      part = x[:, row.start:row.start + sides[0], column.start:column.start + sides[1]]
      inside = [(np.arange(length) + span.start >= span.begin)
                & (np.arange(length) + span.start < span.end)
                for span, length in zip((row, column), part.shape[1:3], strict=True)]
    given = (inside[0][:, None] & inside[1],) if with_halo else ()
    sums = trunk_layers.run(trunk_layers.statistics, layer, variables, _on_device(part), *given)
    sums = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), sums)
    total = sums if total is None else jax.tree.map(np.add, total, sums)
  return jax.tree.map(np.float32, total)


def _positions(x: np.ndarray, grid: tiles.Grid, sides: Sides
               ) -> Iterator[tuple[tiles.Span, tiles.Span]]:
  """Yields rows and columns of the windows."""
  return itertools.product(*(_spans(full, window, grid)
                             for full, window in zip(x.shape[1:3], sides, strict=True)))


def _on_device(x: np.ndarray) -> jax.Array:
  return jax.device_put(x, jax.devices()[0])
