"""A generator as a function of images of any size: sr = upscaler(lr).

The result is what the generator computes from the whole image, whichever strategy is used:

  untiled: the trunk runs on the whole image at low resolution; the tail, which needs most of the
    memory, runs in windows.
  windows: where the trunk does not fit, the entire network runs in windows, with its reach as halo.
  layers: or else the trunk runs layer by layer (`layerwise`), if that computes less.
  short halo: where both would compute each pixel more than `planner.MAX_WORK` times, the halo is
    shortened. The result is then not exact, and `upscaler.notes` gives the size of the error; an
    error of more than a level of 255 is refused.

That windows give the result of the whole image is found out by `locality`. A network of which it
is not known, such as one with attention or with a mean over the image, runs on the whole image, one
at a time, or is refused if that does not fit; a tail or layers that are local still run in windows,
as do layers that state their sums over the image or the grid of their windows (`sr_jax.models`).

Whether a strategy fits is decided by the memory that XLA reports for the compiled programs. If
memory is exhausted nevertheless, the budget is halved and the computation continues at the row
that it had reached. `planner` chooses the strategy and `strategies` executes it.
"""

from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np
from flax import linen as nn

from sr_jax import images
from sr_jax.errors import InputError
from sr_jax.inference import tiles
from sr_jax.inference.compiled_parts import MAX_LEVELS, CompiledParts
from sr_jax.inference.planner import DEFAULT_TILE, MIN_TILE, Planner, too_large
from sr_jax.inference.strategies import PlanRunner, TilingPlan, join_bands
from sr_jax.system.memory import exhausted, free_memory

DTYPES = ('uint8', 'uint16', 'float32')  # of images
MAX_ERROR = 1  # levels of 255; what a shortened halo may change
MIN_BYTES = 1 << 20  # the smallest memory budget that is tried


class Upscaler:
  """sr = upscaler(lr): a generator as a function of images of any size.

  lr is NumPy [h, w, C] or, for several images of one size, [B, h, w, C], with C 1 or 3; uint8,
  uint16, or float32 in [0, 1]. sr has the same dtype and channels and is `scale` times larger.
  Integers are clipped and rounded; floats are not clipped.

  Args:
    generator: the network.
    variables: its variables.
    tile: side of the tail's tiles in LR pixels, reduced where they do not fit in memory; None,
      the whole image.
    memory: bytes that a computation may use; None, most of the device's free memory.
    sizes: (height, width) of all images to come, each as often as it occurs. More than three
      distinct sizes share canvases and windows, so that at most six programs are compiled for
      images of one dtype and channel count: four trunks and two tails. A trunk and a tail are
      compiled for each other size, and for each with a side below about 20 pixels.

  Attributes:
    scale: of the generator.
    notes: what the user should know about the results, each once.
    planner: chooses how an image is computed.
    memory: the bytes that a computation may use, or None. Halved each time it was too much.

  Raises:
    InputError: when called with an image that does not fit in memory even in the smallest tiles,
      or as a whole if the network is not local, or that the network cannot process.
  """

  def __init__(self, generator: nn.Module, variables: dict, *, tile: int | None = DEFAULT_TILE,
               memory: int | None = None, sizes: Iterable[tuple[int, int]] = ()) -> None:
    self.scale, self.memory, self.notes, self._tile = generator.scale, memory, [], tile
    self._parts = CompiledParts(generator, variables)
    least_tile = self._parts.unshuffle
    if (tile is not None and tile < least_tile) or (memory is not None and memory < 1):
      raise ValueError(f'tile={tile}, memory={memory}: expected at least {least_tile} and 1')
    self.planner = Planner(self._parts, tile, sizes)
    self._runner = PlanRunner(self._parts, self.planner.tail_reach, self.planner.canvas_windows)
    self._measured: set[tuple] = set()  # (shape, tiling) whose inexactness is in `notes`

  def __call__(self, lr: np.ndarray,
               on_progress: Callable[[int], None] = lambda rows: None) -> np.ndarray:
    """Returns sr, and calls `on_progress` with the number of further rows of lr that are done."""
    *batch, height, width, channels = lr.shape
    sr = np.empty((*batch, height * self.scale, width * self.scale, channels), lr.dtype)
    row = 0
    for band in self.bands(lr):
      sr[..., row:row + band.shape[-3], :, :] = band
      row += band.shape[-3]
      on_progress(band.shape[-3] // self.scale)
    return sr

  def bands(self, lr: np.ndarray) -> Iterator[np.ndarray]:
    """Yields sr a few rows at a time, from the top, so that it need not fit in memory."""
    batch, row, full = lr if lr.ndim == 4 else lr[None], 0, False
    if len(batch) > 1 and not self.planner.local:  # it may mix the images of a batch
      yield np.stack([self(image) for image in batch])
      return
    self._note_unused_tile(batch)
    budget = self.memory or int(0.8 * free_memory(jax.devices()[0]))
    while row < batch.shape[1]:
      try:
        plan = self.planner.plan(batch, budget)
        if plan.exact_bytes:
          self._note_inexact(batch, plan, budget)
        for end, band in self._runner.bands(batch, plan, row):
          yield band if lr.ndim == 4 else band[0]
          row = end
      except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not exhausted(error):
          raise
        full = True
      if full:  # handled outside `except`, where the error's frames no longer hold arrays
        full, budget = False, budget // 2
        self.memory = budget  # the next image does not try what has failed
        if budget < MIN_BYTES:
          raise too_large(lr)

  def _note_unused_tile(self, lr: np.ndarray) -> None:
    """Adds a note if a size of tiles was given that cannot be used."""
    note = (f'tile={self._tile} is not used: {self._parts.name} is computed on '
            f'the whole image, because its pixels depend on it or on their position '
            f'({self.planner.reason})')
    given = self._tile not in (None, DEFAULT_TILE) and self._tile < max(lr.shape[1:3])
    if given and self.planner.tail_reach is None and note not in self.notes:
      self.notes.append(note)

  def _note_inexact(self, lr: np.ndarray, plan: TilingPlan, budget: int) -> None:
    """Adds a note on the error of a shortened halo, once for each shape and tiling, or refuses it.

    The error is measured at the corner of a window near the middle of the image, next to its halo:
    there it is as far as possible from pixels that it should have seen.
    """
    tiling, sides = plan.tiling, plan.tiling[:2]
    if (lr.shape, tiling) in self._measured:
      return
    unshuffle, reach = self._parts.unshuffle, self.planner.trunk_reach + self.planner.tail_reach
    middle = []
    for length, window in zip(self._parts.feature_size(lr.shape[1:3]), sides, strict=True):
      spans = tiles.spans(length, window, tiling.halo)
      span = spans[len(spans) // 2]
      middle.append(span._replace(end=min(span.end, span.begin + MIN_TILE)))
    part, rows, columns = self._runner.cut(lr, middle, sides)
    inexact = join_bands(self._runner.untiled(part, sides, plan.window, rows, columns))
    wide = [span._replace(start=max(0, span.begin - reach)) for span in middle]
    part, rows, columns = self._runner.cut(
        lr, wide, tuple(span.end + reach - span.start for span in wide))
    window = self.planner.tail_window(part, self._parts.feature_size(part.shape[1:3]), budget)
    exact = join_bands(self._runner.by_layers(part, min(sides), window, rows, columns))
    error = np.abs(np.float64(inexact) - exact).max() * 255 / MAX_LEVELS.get(lr.dtype.name, 1)
    note = (f'the memory limits the overlap of tiles to {tiling.halo * unshuffle} of the '
            f'{reach * unshuffle} pixels that an exact result needs; measured at the middle of the '
            f'image, the error is up to {error:.2g} levels of 255; about '
            f'{plan.exact_bytes / 2**30:.2g} GiB would make the result exact')
    if not error <= MAX_ERROR:
      raise InputError(f'{self._parts.name}: an image of {lr.shape[2]}x{lr.shape[1]} pixels does '
                       f'not fit: {note}')
    self._measured.add((lr.shape, tiling))
    self.notes.append(f'not exact: {note}')


def make_upscaler(generator: nn.Module) -> Callable[[dict, np.ndarray], np.ndarray]:
  """Returns upscale(variables, lr) -> sr, which applies the generator to whole images.

  It maps uint8 [h, w, C] to [h * s, w * s, C] and is compiled once for each size. A grey image
  stays grey.
  """
  @jax.jit
  def forward(variables: dict, lr: jax.Array) -> jax.Array:
    # A GPU would use TF32 for float32 by default; scores must not depend on the device.
    with jax.default_matmul_precision('highest'):
      return generator.apply(variables, lr)

  def upscale(variables: dict, lr: np.ndarray) -> np.ndarray:
    sr = forward(variables, images.to_float(images.as_rgb(lr))[None])[0]
    if lr.shape[-1] == 1:
      sr = np.asarray(sr).mean(-1, keepdims=True)
    return images.to_uint8(sr)

  return upscale
