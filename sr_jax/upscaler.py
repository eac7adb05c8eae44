"""A generator as a function of pictures of any size, in the memory there is: sr = upscaler(lr).

What is computed is what the generator makes of the whole picture, whichever way is taken:

  whole: the trunk runs at once at low resolution, the tail, where the memory goes, in windows.
  windows: where the trunk does not fit, the whole network in windows, its true reach as halo.
  layers: or the trunk layer by layer (`layerwise`), whichever computes less.
  short: where either would compute everything more than `WORST` times, the halo is cut short,
    and `upscaler.notes` says by how much and what that does to this picture.

What fits is asked of XLA, which knows the bytes of what it compiled; what is exhausted all the
same halves what may be used, and the picture goes on where it was.
"""

import collections
import functools
import math
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from sr_jax import images, layerwise, tiles
from sr_jax.errors import InputError
from sr_jax.memory import free_memory

TILE = 128  # LR pixels; on two cores as fast as none, and a tenth of the memory
SHARED_TILE = 64  # where pictures of many sizes share what is compiled
SMALLEST = 16  # no smaller one is tried
MOST_TILES = 512  # of a picture; thousands take long to compile
COMPILATIONS = 6  # for pictures of any number of sizes: the trunk on 5 canvases and one tail
WORST = 16
SMALLEST_BUDGET = 1 << 20  # bytes; with less nothing is tried
KEPT = 24  # programs; of those used least lately the memory is given back
LEVELS = {'uint8': 255, 'uint16': 65535}
KINDS = ('uint8', 'uint16', 'float32')  # of pictures


class Upscaler:
  """sr = upscaler(lr): a generator as a function of pictures of any size.

  lr is NumPy [h, w, C] or, several of one size, [B, h, w, C], C 1 or 3; uint8, uint16 or
  float32 in [0, 1]. sr is of the same kind, `scale` times larger; grey stays grey. Integers
  are clipped and rounded, floats are as the network makes them.

  Args:
    tile: side of the tail's tiles in LR pixels, made smaller where they do not fit the memory
      and larger where there would be more than `MOST_TILES`; None, the whole picture.
    memory: bytes that a computation may take; None, most of what the device has free.
    sizes: (height, width) of all pictures to come, each as often as it comes. Where there
      are many, they share canvases, so that at most `COMPILATIONS` programs are compiled
      (those with a side below 22 pixels or so apart). Any other size is compiled when it comes.

  Attributes:
    notes: what the user should be told.

  Raises:
    InputError: when called, a picture that is too large for the memory even in the smallest
      tiles.
  """

  def __init__(self, generator, variables, *, tile: int | None = TILE,
               memory: int | None = None, sizes: Iterable[tuple[int, int]] = ()):
    self.scale, self.notes = generator.scale, []
    self._generator, self._variables = generator, jax.device_put(variables)
    self._trunk_reach, self._halo = tiles.reaches(generator, variables)  # _halo: the tail's
    self._unfold = getattr(generator, 'unshuffle', 1)  # LR pixels to one of the features
    self._tile, self._budget, self._programs = tile, memory, {}
    self._canvases, self._shared = [], None
    counts = collections.Counter(sizes)
    if len(counts) > COMPILATIONS // 2:
      folded = [self._fold(size) for size in counts.elements()]
      self._canvases = tiles.canvases(folded, COMPILATIONS - 1)
      # The tail's window, one for all, is no larger than the smallest picture.
      tile = min(tile or SHARED_TILE, SHARED_TILE) // self._unfold
      self._shared = max(SMALLEST, min(tile, min(map(min, folded)) - 2 * self._halo)
                         ) + 2 * self._halo

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
    batch = lr if lr.ndim == 4 else lr[None]
    row = 0
    while row < batch.shape[1]:
      try:
        for done, band in self._bands(batch, row):
          yield band if lr.ndim == 4 else band[0]
          row = done
      except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and 'RESOURCE_EXHAUSTED' not in str(error):
          raise
        self._budget = self._free() // 2
        if self._budget < SMALLEST_BUDGET:
          raise _too_large(lr) from None

  # Which way ------------------------------------------------------------------------------

  def _bands(self, lr, begin):
    """(rows of LR done, rows of sr), from row `begin` on."""
    rows, columns = (begin, lr.shape[1]), (0, lr.shape[2])
    sides = self._fold(lr.shape[1:3])
    needed = self._trunk(lr)[1]
    if needed <= self._free():
      return self._whole(lr, rows, columns)
    # Less than all, for the rest of the trunk's program, the tail and their results.
    pixels = 0.7 * self._free() / (needed / math.prod(sides))
    windows = tiles.cut(sides, pixels, self._trunk_reach + self._halo)
    work, by_layers = tiles.work(sides, windows), math.inf
    layer = layerwise.longest_reach(self._generator, self._variables, _like(lr.shape[:3] + (3,)))
    # On the host: a layer's input and result, the trunk's first features, a sum of two.
    if 4 * self._features(lr).size * 4 <= free_memory(jax.devices('cpu')[0]):
      by_layers = tiles.work(sides, tiles.cut(sides, pixels, layer))
    if min(work, by_layers) <= WORST:
      if work <= 1.3 * by_layers:  # features that travel to the host and back take time too
        return self._in_windows(lr, windows, begin)
      return self._by_layers(lr, math.isqrt(int(pixels)), rows, columns)
    short = tiles.cut(sides, pixels, math.isqrt(int(pixels)) // 4)
    if not short:
      raise _too_large(lr)
    self.notes.append(self._consequence(lr, short))
    return self._in_windows(lr, short, begin)

  def _free(self) -> int:
    return self._budget or int(0.8 * free_memory(jax.devices()[0]))

  def _consequence(self, lr, cut: tiles.Cut) -> str:
    """What a short halo does, at the middle of the picture, in words."""
    unfold, side = self._unfold, SMALLEST
    sides, full = self._fold(lr.shape[1:3]), self._trunk_reach + self._halo
    # At a window's corner, next to its halo, as far as possible from what it should have seen.
    windows = [tiles.spans(side, part, cut.halo) for side, part in zip(sides, cut[:2], strict=True)]
    at = [spans[len(spans) // 2] for spans in windows]
    results = []
    for spans in ([(span.start, span.start + part, span.begin) for span, part in
                   zip(at, cut[:2], strict=True)],
                  [(max(0, span.begin - full), span.begin + SMALLEST + full, span.begin)
                   for span in at]):
      part = lr[:, spans[0][0] * unfold:spans[0][1] * unfold,
                spans[1][0] * unfold:spans[1][1] * unfold]
      kept = [((begin - start) * unfold, min((begin - start + side) * unfold, length))
              for (start, _, begin), length in zip(spans, part.shape[1:3], strict=True)]
      bands = (self._whole(part, *kept) if not results
               else self._by_layers(part, min(cut[:2]), *kept))
      results.append(np.concatenate([band for _, band in bands], axis=1).astype(np.float64))
    difference = np.abs(results[0] - results[1]).max() * 255 / LEVELS.get(lr.dtype.name, 1)
    return (f'not exact: the memory allows an overlap of {cut.halo * unfold} of the '
            f'{full * unfold} pixels that the network sees; where that was measured, at the '
            f'middle of the picture, it changes up to {difference:.2g} levels of 255')

  # The three ways ---------------------------------------------------------------------------

  def _whole(self, lr, rows, columns):
    """(rows of LR done, sr of rows x columns, both (begin, end)) of an lr whose trunk fits."""
    canvas, window, starts = self._layout(lr)
    x = images.as_rgb(_floats(lr))
    sides = [side * self._unfold for side in self._fold(lr.shape[1:3])]
    if tuple(sides) != lr.shape[1:3]:
      x = _pad(x, sides, 'reflect')  # as the network itself would
    x = _pad(x, [side * self._unfold for side in canvas], 'constant')
    found = self._trunk(lr)[0](self._variables, x, np.int32(lr.shape[1:3]), np.int32(starts))
    by_start = dict(zip(starts, found, strict=True))
    return self._tails(lr, lambda y, x, side: by_start[y, x], window, rows, columns)

  def _in_windows(self, lr, cut: tiles.Cut, begin):
    unfold = self._unfold
    height, width = self._fold(lr.shape[1:3])
    for y in tiles.spans(height, cut.height, cut.halo, begin // unfold):
      strips = []
      for x in tiles.spans(width, cut.width, cut.halo):
        part = lr[:, y.start * unfold:(y.start + cut.height) * unfold,
                  x.start * unfold:(x.start + cut.width) * unfold]
        kept = [((span.begin - span.start) * unfold,
                 min((span.end - span.start) * unfold, length))
                for span, length in zip((y, x), part.shape[1:3], strict=True)]
        strips.append(np.concatenate([band for _, band in self._whole(part, *kept)], axis=1))
      yield min(y.end * unfold, lr.shape[1]), np.concatenate(strips, axis=2)

  def _by_layers(self, lr, side: int, rows, columns):
    features = layerwise.trunk(self._generator, self._variables, images.as_rgb(_floats(lr)), side)
    return self._tails(lr, lambda y, x, window: features[:, y:y + window[0], x:x + window[1]],
                       self._tail_window(lr), rows, columns)

  def _tails(self, lr, features: Callable, window, rows, columns):
    """(rows of LR done, sr of rows x columns); features(y, x, window) are those of a window."""
    unfold, scale = self._unfold, self.scale
    tail = self._tail(lr, window)[0]
    ys, xs = (tiles.spans(side, part, self._halo)
              for side, part in zip(self._fold(lr.shape[1:3]), window, strict=True))

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
        part = images.as_rgb(_floats(lr[:, below][:, :, across]))
        sr = tail(self._variables, features(y.start, x.start, window), part)
        if last:
          put(*last)  # while the next one is computed
        last = left, right, x.start * unfold, sr
      put(*last)
      yield bottom, band

  # What is compiled ---------------------------------------------------------------------------

  def _fold(self, size) -> tuple[int, int]:
    """(height, width) of the features of a picture."""
    return tuple(math.ceil(side / self._unfold) for side in size)

  def _features(self, lr) -> jax.ShapeDtypeStruct:
    key = ('features', lr.shape[:3])
    if key not in self._programs:
      self._programs[key] = jax.eval_shape(
          functools.partial(self._generator.apply, method='trunk'), self._variables,
          _like((*lr.shape[:3], 3)))
    return self._programs[key]

  def _layout(self, lr):
    """(canvas, the tail's window, where the windows begin), in pixels of the features."""
    sides = self._fold(lr.shape[1:3])
    canvas = tiles.canvas_of(sides, self._canvases) if len(lr) == 1 else None
    window = (tuple(min(side, self._shared) for side in sides) if canvas
              else self._tail_window(lr))
    starts = [(y.start, x.start) for y in tiles.spans(sides[0], window[0], self._halo)
              for x in tiles.spans(sides[1], window[1], self._halo)]
    if canvas:  # as many as the largest picture on it has, so that all share a program
      most = math.prod(len(tiles.spans(side, part, self._halo))
                       for side, part in zip(canvas, window, strict=True))
      starts += [(-1 - index, 0) for index in range(most - len(starts))]
    return canvas or sides, window, starts

  def _trunk(self, lr):
    """(program, its bytes): LR on its canvas to the features of the tail's windows."""
    canvas, window, starts = self._layout(lr)
    count, size = len(starts), tuple(side * self._unfold for side in canvas)
    masked = canvas in self._canvases

    def run(variables, x, size_of_picture, starts):
      apply = functools.partial(self._generator.apply, variables, x, method='trunk')
      if masked:
        with nn.intercept_methods(tiles.inside(size_of_picture, size)):
          features = apply()
      else:
        features = apply()
      if window == canvas:
        return (features,)
      return tuple(jax.lax.dynamic_slice(
          features, (0, starts[i, 0], starts[i, 1], 0),
          (len(features), *window, features.shape[3])) for i in range(count))

    return self._program(('trunk', len(lr), canvas, window, count), run, _like((len(lr), *size, 3)),
                         _like((2,), jnp.int32), _like((count, 2), jnp.int32))

  def _tail_window(self, lr) -> tuple[int, int]:
    """The largest that fits."""
    sides = self._fold(lr.shape[1:3])
    tile = max((self._tile or max(lr.shape[1:3])) // self._unfold,
               math.isqrt(math.prod(sides) // MOST_TILES))
    while True:
      window = tuple(tiles.even_window(side, tile, self._halo) for side in sides)
      if tile * self._unfold <= SMALLEST or self._tail(lr, window)[1] <= self._free() / 2:
        return window
      tile = math.ceil(min(tile, max(sides)) / 2)

  def _tail(self, lr, window):
    """(program, its bytes): features of a window and its LR to SR, as it is kept."""
    grey, most = lr.shape[3] == 1, LEVELS.get(lr.dtype.name)

    def run(variables, features, x):
      sr = self._generator.apply(variables, features, x, method='tail')
      sr = sr.mean(-1, keepdims=True) if grey else sr
      return jnp.floor(jnp.clip(sr, 0, 1) * most + 0.5).astype(lr.dtype) if most else sr

    features = self._features(lr)
    return self._program(('tail', len(lr), window, grey, most), run,
                         _like((len(lr), *window, features.shape[3]), features.dtype),
                         _like((len(lr), *(side * self._unfold for side in window), 3)))

  def _program(self, key, run, *inputs):
    if key in self._programs:
      self._programs[key] = self._programs.pop(key)  # the latest last
    else:
      while len(self._programs) >= KEPT:
        self._programs.pop(next(iter(self._programs)))
      # Not in TF32, which a GPU would choose for float32: pictures are the weights', not its.
      with jax.default_matmul_precision('highest'):
        program = jax.jit(run).lower(self._variables, *inputs).compile()
      use = program.memory_analysis()
      self._programs[key] = program, use.temp_size_in_bytes + use.output_size_in_bytes
    return self._programs[key]


def _like(shape, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(tuple(shape), dtype)


def _floats(lr: np.ndarray) -> np.ndarray:
  return np.float32(lr) / np.float32(LEVELS.get(lr.dtype.name, 1))


def _pad(x, sides, mode):
  return np.pad(x, [(0, 0), *((0, to - side) for side, to in zip(x.shape[1:3], sides, strict=True)),
                    (0, 0)], mode)


def _too_large(lr) -> InputError:
  return InputError(f'{lr.shape[-2]}x{lr.shape[-3]} is too large for the memory, even in tiles')
