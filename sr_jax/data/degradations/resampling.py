"""Weights of input samples in resized images, made on the device for each image of a batch.

Without antialiasing, results are those of PyTorch's F.interpolate (align_corners=False); with it,
those of F.interpolate(antialias=True), Pillow and MATLAB.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

METHODS = ('area', 'bilinear', 'bicubic', 'nearest', 'lanczos')
REALESRGAN_METHODS = ('area', 'bilinear', 'bicubic')


@dataclasses.dataclass(frozen=True)
class Resampling:
  """How images are resized: what is known when the program is compiled.

  Attributes:
    methods: the methods from which each image has one; of METHODS. 'area' is the mean of the
      samples that an output sample covers, wholly or in part (adaptive average pooling); 'lanczos'
      has three lobes. Bicubic has a = -0.75, with antialiasing a = -0.5, as in PyTorch.
    antialias: whether bilinear, bicubic and Lanczos kernels are stretched where an image becomes
      smaller. Area and nearest are not changed by it.
    border: with antialiasing, the number of samples beyond each border that repeat the outermost
      one. 0 leaves out what lies beyond the border, and weights still sum to 1, as in PyTorch and
      Pillow; MATLAB's result needs at least 2 / (smallest factor). Without antialiasing, bilinear
      and bicubic repeat the outermost samples, as in PyTorch, and Lanczos leaves them out.
  """

  methods: tuple[str, ...] = REALESRGAN_METHODS
  antialias: bool = False
  border: int = 0


def axis_weights(size: jax.Array, new_size: jax.Array, inverse: jax.Array,
                 canvas: tuple[int, int], chosen: jax.Array, resampling: Resampling) -> jax.Array:
  """Computes the weights of input samples in output samples along one axis.

  Args:
    size, new_size: int32 [B], samples of the input and of the output.
    inverse: float32 [B], distance between two output samples in input samples.
    canvas: samples of the canvas, (input, output).
    chosen, resampling: as in `resize`.

  Returns:
    float32 [B, output, input]; rows sum to 1, columns beyond `size` are zero, rows beyond
    `new_size` equal the last one within it.
  """
  # [B, output], and below [B, output, input].
  out = jnp.minimum(jnp.arange(canvas[1]), new_size[:, None] - 1)
  old = jnp.arange(canvas[0])
  size, new_size, inverse = (value[:, None] for value in (size, new_size, inverse))
  is_chosen = {name: (chosen == number)[:, None]
               for number, name in enumerate(resampling.methods)}
  weights = jnp.zeros((*out.shape, canvas[0]))

  spread = ('bilinear', 'bicubic', 'lanczos') if resampling.antialias else ()
  if any(name in spread for name in is_chosen):
    selected = {name: is_chosen[name][..., None] for name in is_chosen if name in spread}
    spread_weights = _antialiased(out, size, inverse, old, selected, resampling.border)
    weights = jnp.where(sum(selected.values()) > 0, spread_weights, weights)
  if 'area' in is_chosen:
    start = out * size // new_size
    end = -(-(out + 1) * size // new_size)
    share = jnp.where(is_chosen['area'], 1 / (end - start).astype(jnp.float32), 0)
    inside = (old >= start[..., None]) & (old < end[..., None])
    weights += jnp.where(inside, share[..., None], 0)
  few = {name: taps for name, taps in _TAPS.items() if name in is_chosen and name not in spread}
  for number in range(max((count for count, _ in few.values()), default=0)):
    index, weight = jnp.zeros_like(out), jnp.zeros(out.shape)
    for name, (count, taps) in few.items():
      if number < count:
        indices, values = taps(out, size, inverse)
        index = jnp.where(is_chosen[name], indices[number], index)
        weight = jnp.where(is_chosen[name], values[number], weight)
    weights += jnp.where(old == index[..., None], weight[..., None], 0)
  return weights


def _antialiased(out: jax.Array, size: jax.Array, inverse: jax.Array, old: jax.Array,
                 selected: dict[str, jax.Array], border: int) -> jax.Array:
  """Computes weights of kernels that are stretched where the image becomes smaller.

  PyTorch and Pillow: aten/src/ATen/native/cpu/UpSampleKernel.cpp, src/libImaging/Resample.c.
  """
  centre = (inverse * (out.astype(jnp.float32) + 0.5))[..., None]
  stretch = jnp.maximum(inverse, 1)[..., None]
  last = size[..., None] - 1

  def values(index: jax.Array) -> jax.Array:
    x = (index.astype(jnp.float32) + 0.5 - centre) / stretch
    result = jnp.zeros(x.shape)
    for name, is_selected in selected.items():
      result = jnp.where(is_selected, _KERNELS[name](x), result)
    return result

  weights = jnp.where(old <= last, values(old), 0)
  if border:
    beyond = jnp.arange(1, border + 1)
    for edge, outside in ((0, -beyond), (last, last + beyond)):
      repeated = jnp.sum(values(outside), axis=-1, keepdims=True)
      weights += jnp.where(old == edge, repeated, 0)
  return weights / jnp.sum(weights, axis=-1, keepdims=True)


def _cubic(x: jax.Array, a: float) -> jax.Array:
  """Returns Keys' kernel in a form that float32 computes well, with exact zeros at integers.

  `sr_jax.images.resizing.cubic_kernel` is the one for float64.
  """
  x = jnp.abs(x)
  inner = ((a + 2) * x - (a + 3)) * x * x + 1
  outer = a * (x - 1) * jnp.square(x - 2)
  return jnp.where(x <= 1, inner, jnp.where(x < 2, outer, 0))


def _triangle(x: jax.Array) -> jax.Array:
  return jnp.maximum(1 - jnp.abs(x), 0)


def _lanczos(x: jax.Array) -> jax.Array:
  """Returns sinc(x) sinc(x / 3) for |x| < 3, with exact zeros at integers."""
  nearest = jnp.round(x)
  odd = jnp.mod(nearest, 2)
  sine = (1 - 2 * odd) * jnp.sin(np.pi * (x - nearest))
  safe = jnp.where(jnp.abs(x) < 1e-4, 1, x)
  value = 3 * sine * jnp.sin(np.pi / 3 * x) / (np.pi * safe)**2
  return jnp.where(jnp.abs(x) < 1e-4, 1, jnp.where(jnp.abs(x) < 3, value, 0))


_KERNELS = {'bilinear': _triangle, 'bicubic': lambda x: _cubic(x, -0.5), 'lanczos': _lanczos}

# (indices, weights) of a few input samples, each [B, output].
Taps = tuple[list[jax.Array], list[jax.Array]]


def _position(out: jax.Array, inverse: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns where output samples lie between two input samples: (index of the left one, share)."""
  source = inverse * (out.astype(jnp.float32) + 0.5) - 0.5
  index = jnp.floor(source)
  return index.astype(jnp.int32), source - index


def _nearest_taps(out: jax.Array, size: jax.Array, inverse: jax.Array) -> Taps:
  index = jnp.floor(out.astype(jnp.float32) * inverse).astype(jnp.int32)
  return [jnp.minimum(index, size - 1)], [jnp.ones(out.shape)]


def _bilinear_taps(out: jax.Array, size: jax.Array, inverse: jax.Array) -> Taps:
  index, share = _position(out, inverse)
  return [jnp.clip(index + step, 0, size - 1) for step in (0, 1)], [1 - share, share]


def _bicubic_taps(out: jax.Array, size: jax.Array, inverse: jax.Array) -> Taps:
  index, share = _position(out, inverse)
  steps = range(-1, 3)
  return ([jnp.clip(index + step, 0, size - 1) for step in steps],
          [_cubic(share - step, -0.75) for step in steps])


def _lanczos_taps(out: jax.Array, size: jax.Array, inverse: jax.Array) -> Taps:
  index, share = _position(out, inverse)
  indices = [index + step for step in range(-2, 4)]
  weights = [jnp.where((near >= 0) & (near < size), _lanczos(share - step), 0)
             for step, near in zip(range(-2, 4), indices, strict=True)]
  total = sum(weights)
  return indices, [weight / total for weight in weights]


_TAPS = {'nearest': (1, _nearest_taps), 'bilinear': (2, _bilinear_taps),
         'bicubic': (4, _bicubic_taps), 'lanczos': (6, _lanczos_taps)}
