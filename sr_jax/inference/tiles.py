"""How a large picture is cut so that no cut can be seen: windows, halos, canvases, ensembles.

A convolutional network makes each pixel of what lies within its reach, and nothing else. A window
of the picture therefore gives right values everywhere but within that reach of its artificial
borders; at the picture's own border zero padding is what the whole picture has there too. Windows
are shifted inward rather than padded, so that all of them have one shape and are compiled once.

The trunk's reach is long (15 pixels in each RRDB, 347 with 23 blocks), the tail's a few pixels, and
the tail is where the memory goes: `upscaler` runs the trunk whole and the tail in windows.
"""

import collections
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

_PROBE = 48  # side of the pictures that networks are traced with; no computation happens


class Span(NamedTuple):
  """Along one side: the window begins at `start`, and [begin, end) of the side is taken of it."""

  start: int
  begin: int
  end: int


def spans(side: int, window: int, halo: int, begin: int = 0, end: int | None = None) -> list[Span]:
  """Windows inside [0, side) whose right parts cover [begin, end), each pixel once.

  Args:
    window: of each; more than 2 * halo, or the whole side.
    halo: what is wrong at those ends of a window that are no ends of the side.
  """
  if window < side and window <= 2 * halo:
    raise ValueError(f'windows of {window} with a halo of {halo} have nothing that is right')
  found, end = [], side if end is None else end
  while begin < end:
    start = max(0, min(begin - halo, side - window))
    stop = min(end, side if start + window >= side else start + window - halo)
    found.append(Span(start, begin, stop))
    begin = stop
  return found


def even_window(side: int, tile: int, halo: int) -> int:
  """The smallest window with which no more are needed than with one of tile + 2 * halo."""
  inner = side - 2 * halo  # the first and the last window are right up to the side's ends
  return side if inner <= tile else math.ceil(inner / math.ceil(inner / tile)) + 2 * halo


class Tiling(NamedTuple):
  """How windows lie; sides and halo in pixels of the features."""

  height: int
  width: int
  halo: int


def choose_tiling(sides, pixels: float, halo: int) -> Tiling | None:
  """Windows of at most so many pixels; None where nothing in them would be right."""
  height = max(1, min(sides[0], max(math.isqrt(int(pixels)), int(pixels / sides[1]))))
  width = max(1, min(sides[1], int(pixels / height)))
  if any(part < side and part <= 2 * halo
         for part, side in zip((height, width), sides, strict=True)):
    return None
  return Tiling(height, width, halo)


def work(sides, windows: Tiling | None) -> float:
  """How many times the picture is computed."""
  if not windows:
    return math.inf
  count = math.prod(len(spans(side, part, windows.halo))
                    for side, part in zip(sides, windows[:2], strict=True))
  return count * windows.height * windows.width / math.prod(sides)


def reach(call: Callable, variables, *inputs) -> float:
  """How far, in pixels of the first input, the convolutions in a call see, one after another.

  Nothing is computed: the call is traced, and each convolution adds half its kernel at its
  resolution. Branches are added up too, so a network that has them sees less.

  Args:
    call: of (variables, *inputs), flax modules' apply or some method of it.
    inputs: jax.ShapeDtypeStruct or arrays, [B, H, W, C].
  """
  total = 0.0

  def note(call, args, kwargs, context):
    nonlocal total
    layer = context.module
    if isinstance(layer, (nn.Conv, nn.ConvTranspose)) and context.method_name == '__call__':
      finer = args[0].shape[1] / inputs[0].shape[1]
      # A transposed convolution's kernel lies on the finer side of its stride.
      side = layer.kernel_size[0] - (1 if isinstance(layer, nn.Conv) else 0)
      total += side / 2 / finer
    return call(*args, **kwargs)

  with nn.intercept_methods(note):
    # A function of its own, for JAX does not trace one again that it has traced before.
    jax.eval_shape(lambda *given: call(*given), variables, *inputs)
  return total


def reaches(generator, variables) -> tuple[int, int]:
  """(trunk's, tail's), in pixels of the features, rounded up."""
  lr = jax.ShapeDtypeStruct((1, _PROBE, _PROBE, 3), jnp.float32)
  apply = functools.partial(generator.apply, method='trunk')
  features = jax.eval_shape(apply, variables, lr)
  trunk = reach(apply, variables, lr) * features.shape[1] / _PROBE  # RRDB.unshuffle: coarser
  tail = reach(functools.partial(generator.apply, method='tail'), variables, features, lr)
  # Interpolation that comes before or after the tail's convolutions is the generator's to tell.
  tail += getattr(generator, 'tail_interpolates', 0)
  # One more, for enlarging rounds positions; two at least, for bicubic beside the network.
  return ceil_pixels(trunk), max(ceil_pixels(tail) + 1, 2)


def ceil_pixels(pixels: float) -> int:
  """The pixels that some part of a pixel makes, whatever float arithmetic made of it."""
  return math.ceil(pixels - 1e-6)


def inside(size: jax.Array, canvas: tuple[int, int]) -> Callable:
  """For nn.intercept_methods: a trunk on a canvas computes what it computes on the picture alone.

  Zero padding is zero at each layer; on a larger canvas what lies beyond the picture would
  begin to differ from zero after the first. So it is set to zero before each convolution.

  Args:
    size: [2], int32, traced: height and width of the picture, which lies in the upper left.
    canvas: of the input, of which a layer's may be a fraction.
  """
  def mask(call, args, kwargs, context):
    if isinstance(context.module, nn.Conv) and context.method_name == '__call__':
      x, *rest = args
      rows, columns = (
          jnp.arange(x.shape[axis + 1]) * (canvas[axis] // x.shape[axis + 1]) < size[axis]
          for axis in (0, 1))
      args = (jnp.where((rows[:, None] & columns)[:, :, None], x, 0), *rest)
    return call(*args, **kwargs)

  return mask


def canvases(sizes: Iterable[tuple[int, int]], most: int, multiple: int = 1) -> list:
  """At most so many (height, width) that each of `sizes` fits into one, little larger.

  Args:
    sizes: of pictures, each as often as it occurs.
    multiple: of which each side is one.

  Returns:
    The smallest first. As many as there are distinct sizes, where these are not more than `most`.
  """
  counts = collections.Counter()
  step = multiple
  for size, count in collections.Counter(sizes).items():
    counts[tuple(-side % step + side for side in size)] += count
  while len(counts) > max(64, most):  # thousands of sizes: merging them two by two takes too long
    step *= 2
    rounded, counts = counts, collections.Counter()
    for size, count in rounded.items():
      counts[tuple(-side % step + side for side in size)] += count
  groups = dict(counts)
  while len(groups) > most:
    (a, m), (b, n) = min(
        ((a, b) for index, a in enumerate(groups.items()) for b in list(groups.items())[:index]),
        key=lambda pair: _waste(*pair))
    del groups[a], groups[b]
    joined = (max(a[0], b[0]), max(a[1], b[1]))
    groups[joined] = groups.get(joined, 0) + m + n
  return sorted(groups, key=math.prod)


def _waste(first, second) -> int:
  """Pixels that are computed for nothing once two groups have one canvas."""
  (a, m), (b, n) = first, second
  joined = max(a[0], b[0]) * max(a[1], b[1])
  return m * (joined - a[0] * a[1]) + n * (joined - b[0] * b[1])


def canvas_of(size: tuple[int, int], found: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
  """The smallest of the canvases that holds a picture, or None."""
  return next((each for each in found if each[0] >= size[0] and each[1] >= size[1]), None)


def ensemble(upscale: Callable[[np.ndarray], np.ndarray], lr: np.ndarray,
             watch: Callable[[int], None] = lambda index: None) -> np.ndarray:
  """The mean of `upscale` over the eight turns and reflections of lr, each turned back.

  Geometric self-ensemble (Timofte et al. 2016, "Seven ways to improve example-based single
  image super-resolution"; the '+' of EDSR+, Lim et al. 2017, section 3.4).

  Args:
    upscale: float32 [h, w, C] to float32 [h * s, w * s, C].
    lr: float32 [h, w, C] in [0, 1].
    watch: is told the index of each that is done.
  """
  total = 0.0
  for index in range(8):
    turns, mirrored = divmod(index, 2)
    turned = np.rot90(lr, turns)
    sr = upscale(np.ascontiguousarray(turned[:, ::-1] if mirrored else turned))
    total = total + np.rot90(sr[:, ::-1] if mirrored else sr, -turns)
    watch(index)
  return np.float32(total / 8)
