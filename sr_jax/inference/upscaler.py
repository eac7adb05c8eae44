"""A generator as a function of pictures of any size, in the memory there is: sr = upscaler(lr).

What is computed is what the generator makes of the whole picture, whichever way is taken:

  whole: the trunk runs at once at low resolution, the tail, where the memory goes, in windows.
  windows: where the trunk does not fit, the whole network in windows, its true reach as halo.
  layers: or the trunk layer by layer (`layerwise`), whichever computes less.
  short: where either would compute everything more than `WORST` times, the halo is cut short,
    and `upscaler.notes` says by how much and what that does to this picture.

What fits is asked of XLA, which knows the bytes of what it compiled; what is exhausted all the
same halves what may be used, and the picture goes on where it was. `ways` does what is chosen here.
"""

import math
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np

from sr_jax import images
from sr_jax.errors import InputError
from sr_jax.inference import layerwise, tiles
from sr_jax.inference.compiled_parts import LEVELS, CompiledParts
from sr_jax.inference.strategies import PlanRunner, TilingPlan, joined
from sr_jax.system.memory import exhausted, free_memory, host_memory

DTYPES = ('uint8', 'uint16', 'float32')  # of pictures
TILE = 128  # LR pixels; on two cores as fast as none, and a tenth of the memory
SMALLEST = 16  # no smaller tile is tried, and no smaller picture shares what is compiled
PROBE = 256  # side of what is compiled to estimate what a trunk takes that can't be compiled
CANVASES = 4  # that pictures of many sizes share
WORST = 16
LEAST_BYTES = 1 << 20  # with less nothing is tried


class Upscaler:
  """sr = upscaler(lr): a generator as a function of pictures of any size.

  lr is NumPy [h, w, C] or, several of one size, [B, h, w, C], C 1 or 3; uint8, uint16 or
  float32 in [0, 1]. sr is of the same kind, `scale` times larger; grey stays grey. Integers
  are clipped and rounded, floats are as the network makes them.

  Args:
    tile: side of the tail's tiles in LR pixels, smaller where they do not fit the memory;
      None, the whole picture.
    memory: bytes that a computation may take; None, most of what the device has free.
    sizes: (height, width) of all pictures to come, each as often as it comes. Where there are
      more than three, they share canvases and windows, so that at most six programs are
      compiled for pictures of one kind: four trunks and two tails. Any other size, and one
      with a side below 20 pixels or so, is compiled for itself: a trunk and a tail.

  Attributes:
    notes: what the user should be told, once each.

  Raises:
    InputError: when called, a picture that is too large for the memory even in the smallest
      windows.
  """

  def __init__(self, generator, variables, *, tile: int | None = TILE,
               memory: int | None = None, sizes: Iterable[tuple[int, int]] = ()):
    self.scale, self.notes = generator.scale, []
    self._programs = CompiledParts(generator, variables)
    self._unfold = self._programs.unfold
    if (tile is not None and tile < self._unfold) or (memory is not None and memory < 1):
      raise ValueError(f'tile={tile}, memory={memory}: expected more')
    self._trunk_reach, self._halo = tiles.reaches(generator, variables)  # _halo: the tail's
    self._tile = tile and tile // self._unfold
    self._budget, self._measured, self._windows = memory, set(), {}
    self._ways = PlanRunner(self._programs, self._halo, self._windows)
    if len(set(sizes := list(sizes))) > 3:
      self._share(sizes)

  def _share(self, sizes) -> None:
    """Chooses canvases and, for each, the tail's window, of which there are two."""
    halo, sides = self._halo, [self._ways.fold(size) for size in sizes]
    least = SMALLEST + 2 * halo
    sides = [side for side in sides if min(side) >= least]
    canvases, smallest = tiles.canvases(sides, CANVASES), {}
    for side in sides:
      canvas = tiles.canvas_of(side, canvases)
      smallest[canvas] = min(smallest.get(canvas, min(side)), min(side))
    # No window is larger than a picture: on a canvas it would see what is beyond.
    wanted = min(self._tile or TILE, TILE) + 2 * halo
    other = min([wanted, *(side for side in smallest.values())])
    self._windows |= {canvas: wanted if smallest.get(canvas, 0) >= wanted else other
                      for canvas in canvases}

  def __call__(self, lr: np.ndarray,
               watch: Callable[[int], None] = lambda rows: None) -> np.ndarray:
    """watch is told, each time, how many more rows of lr are done."""
    *batch, height, width, channels = lr.shape
    sr = np.empty((*batch, height * self.scale, width * self.scale, channels), lr.dtype)
    row = 0
    for band in self.bands(lr):
      sr[..., row:row + band.shape[-3], :, :] = band
      row += band.shape[-3]
      watch(band.shape[-3] // self.scale)
    return sr

  def bands(self, lr: np.ndarray) -> Iterator[np.ndarray]:
    """sr from top to bottom, some rows at a time, so that it need not be in memory as a whole."""
    batch, row, full = lr if lr.ndim == 4 else lr[None], 0, False
    budget = self._budget or int(0.8 * free_memory(jax.devices()[0]))
    while row < batch.shape[1]:
      try:
        plan = self._plan(batch, budget)
        for done, band in self._ways.bands(batch, plan, row):
          yield band if lr.ndim == 4 else band[0]
          row = done
      except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not exhausted(error):
          raise
        full = True
      if full:  # no longer held: what the error's frames still had in memory
        full, budget = False, budget // 2
        self._budget = budget  # what failed once is not tried again
        if budget < LEAST_BYTES:
          raise _too_large(lr)

  # Which way ------------------------------------------------------------------------------

  def _plan(self, lr, budget: int) -> TilingPlan:
    batch, sides = len(lr), self._ways.fold(lr.shape[1:3])
    canvas = tiles.canvas_of(sides, list(self._windows)) if batch == 1 else None
    if canvas and min(sides) >= self._windows[canvas] and self._programs.trunk(
        1, canvas, True).bytes <= budget:
      return TilingPlan(canvas, (self._windows[canvas],) * 2)
    needed = self._programs.trunk(batch, sides).bytes
    if needed <= budget:
      return TilingPlan(sides, self._tail_window(lr, sides, budget))
    each = needed / math.prod(sides)
    if math.isinf(needed):
      probe = tuple(min(side, PROBE) for side in sides)
      each = self._programs.trunk(batch, probe).bytes / math.prod(probe)
    # Less than all, for the tail and its results.
    pixels = 0.7 * budget / each
    side = math.isqrt(int(pixels))
    cut = tiles.choose_tiling(sides, pixels, self._trunk_reach + self._halo)
    work, by_layers = tiles.work(sides, cut), math.inf
    # On the host: a layer's input and result, the trunk's first features, a sum of two.
    if 16 * batch * math.prod(sides) * self._programs.features.shape[3] <= host_memory():
      halo = layerwise.longest_reach(self._programs.generator, self._programs.variables)
      by_layers = tiles.work(sides, tiles.choose_tiling(sides, pixels, halo))
    if work <= min(WORST, 1.3 * by_layers):  # features that go to the host and back take time too
      return TilingPlan(None, self._tail_window(lr, cut[:2], budget), cut)
    if by_layers <= WORST:
      return TilingPlan(None, self._tail_window(lr, sides, budget), None, side)
    cut = tiles.choose_tiling(sides, pixels, side // 4)
    if not cut:
      raise _too_large(lr)
    plan = TilingPlan(None, self._tail_window(lr, cut[:2], budget), cut)
    if (lr.shape, cut) not in self._measured:
      self._measured.add((lr.shape, cut))
      enough = budget
      while tiles.work(sides, tiles.choose_tiling(sides, 0.7 * enough / each,
                                        self._trunk_reach + self._halo)) > WORST:
        enough *= 1.2
      self.notes.append(self._consequence(lr, plan, budget)
                        + f'; about {enough / 2**30:.2g} GiB would leave it exact')
    return plan

  def _tail_window(self, lr, sides, budget) -> tuple[int, int]:
    """The largest that fits."""
    tile = min(self._tile or max(sides), max(sides))
    while True:
      window = tuple(tiles.even_window(side, tile, self._halo) for side in sides)
      if tile * self._unfold <= SMALLEST or self._programs.tail(
          len(lr), window, lr.shape[3], lr.dtype.name).bytes <= budget / 2:
        return window
      tile = math.ceil(tile / 2)

  def _consequence(self, lr, plan: TilingPlan, budget: int) -> str:
    """What a short halo does, at the middle of the picture, in words."""
    unfold, full = self._unfold, self._trunk_reach + self._halo
    sides, cut = self._ways.fold(lr.shape[1:3]), plan.cut
    # At a window's corner, next to its halo, as far as possible from what it should have seen.
    at = [spans[len(spans) // 2] for spans in (
        tiles.spans(side, part, cut.halo) for side, part in zip(sides, cut[:2], strict=True))]
    at = [span._replace(end=min(span.end, span.begin + SMALLEST)) for span in at]
    part, *kept = self._ways.part(lr, at, cut[:2])
    short = joined(self._ways.whole(part, cut[:2], plan.window, *kept))
    wide = [span._replace(start=max(0, span.begin - full)) for span in at]
    part, *kept = self._ways.part(lr, wide, [span.end + full - span.start for span in wide])
    window = self._tail_window(part, self._ways.fold(part.shape[1:3]), budget)
    exact = joined(self._ways.by_layers(part, min(cut[:2]), window, *kept))
    difference = np.abs(np.float64(short) - exact).max() * 255 / LEVELS.get(lr.dtype.name, 1)
    return (f'not exact: the memory allows an overlap of {cut.halo * unfold} of the '
            f'{full * unfold} pixels that the network sees; where that was measured, at the '
            f'middle of the picture, it changes up to {difference:.2g} levels of 255')


def _too_large(lr) -> InputError:
  return InputError(f'{lr.shape[-2]}x{lr.shape[-3]} is too large for the memory, even in tiles')


def make_upscaler(generator) -> Callable[[dict, np.ndarray], np.ndarray]:
  """upscale(variables, lr) -> sr, uint8 [h, w, C] to [h * s, w * s, C]; grey stays grey."""
  @jax.jit
  def forward(variables, lr):
    # Not in TF32, which a GPU would choose for float32: figures are the weights', not its.
    with jax.default_matmul_precision('highest'):
      return generator.apply(variables, lr)

  def upscale(variables, lr):
    sr = forward(variables, images.to_float(images.as_rgb(lr))[None])[0]
    if lr.shape[-1] == 1:
      sr = np.asarray(sr).mean(-1, keepdims=True)
    return images.to_uint8(sr)

  return upscale
