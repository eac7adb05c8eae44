"""Blur: each image is convolved with its own kernel."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from sr_jax.data.degradations.batching import fill_canvas, for_each_size
from sr_jax.data.degradations.canvas import Canvas, Draws, Goal
from sr_jax.data.degradations.drawing import around_one, between, choose
from sr_jax.data.degradations.kernels import bump_kernels, sinc_kernels

KINDS = ('isotropic Gaussian', 'anisotropic Gaussian', 'generalised isotropic Gaussian',
         'generalised anisotropic Gaussian', 'isotropic plateau', 'anisotropic plateau', 'sinc')
SINC = KINDS.index('sinc')


def convolve(pixels: jax.Array, sizes: jax.Array, kernels: jax.Array) -> jax.Array:
  """Convolves each image with its own kernel by Fourier transforms.

  Beyond the border of an image lies its mirror image without the outermost samples themselves
  ('reflect' in PyTorch and NumPy), mirrored again where an image is smaller than the kernel.

  Args:
    pixels: float32 [B, H, W, C].
    sizes: int32 [B, 2], (height, width) of each image.
    kernels: float32 [B, K, K], K odd; not turned around, as in F.conv2d.

  Returns:
    float32 [B, H, W, C]; pixels outside an image have no meaning.
  """
  side = kernels.shape[1]

  def blur(part: tuple[int, int], image: jax.Array, size: jax.Array,
           kernel: jax.Array) -> jax.Array:
    height, width = part
    lengths = _fast_length(height + side - 1), _fast_length(width + side - 1)
    rows, columns = (_mirrored(jnp.arange(length) - side // 2, count)
                     for length, count in zip(lengths, size, strict=True))
    padded = image[rows[:, None], columns].transpose(2, 0, 1)
    spectrum = jnp.fft.rfft2(padded) * jnp.fft.rfft2(kernel[::-1, ::-1], lengths)
    blurred = jnp.fft.irfft2(spectrum, lengths)
    blurred = blurred[:, side - 1:side - 1 + height, side - 1:side - 1 + width].transpose(1, 2, 0)
    return fill_canvas(blurred, image.shape[:2])

  return for_each_size(blur, sizes, pixels.shape[1:3], pixels, sizes, kernels)


def _mirrored(index: jax.Array, count: jax.Array) -> jax.Array:
  """Maps any index to one of `count` samples by mirroring at the first and the last of them."""
  period = jnp.maximum(2 * (count - 1), 1)
  index = index % period
  return jnp.minimum(index, period - index)


def _fast_length(least: int) -> int:
  """Returns the smallest length from `least` on without prime factors above 7."""
  def rest(length: int) -> int:
    for factor in (2, 3, 5, 7):
      while length % factor == 0:
        length //= factor
    return length

  return next(length for length in range(least, 2 * least + 1) if rest(length) == 1)


@dataclasses.dataclass(frozen=True)
class Blur:
  """Blurs each image with a random kernel.

  As in Real-ESRGAN (https://github.com/xinntao/Real-ESRGAN,
  realesrgan/data/realesrgan_dataset.py); the defaults are those of its first order.

  Attributes:
    probability: of blurring an image; otherwise it stays exactly as it is.
    kinds: probabilities of isotropic and anisotropic Gaussian, generalised isotropic and
      anisotropic Gaussian, isotropic and anisotropic plateau kernels.
    sinc: probability of a sinc kernel instead of those. Its cut-off is uniform in [pi / 3, pi) for
      sizes below 13 and in [pi / 5, pi) from 13 on.
    size: smallest and largest size of a kernel in pixels, both odd; all odd sizes between them are
      equally likely.
    sigma: range of the standard deviations in pixels.
    beta: range of the exponents of generalised Gaussians, below and above 1 with equal odds.
    plateau: range of the exponents of plateau kernels, likewise.
  """

  probability: float = 1.0
  kinds: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
  sinc: float = 0.1
  size: tuple[int, int] = (7, 21)
  sigma: tuple[float, float] = (0.2, 3.0)
  beta: tuple[float, float] = (0.5, 4.0)
  plateau: tuple[float, float] = (1.0, 2.0)

  def draw(self, key: jax.Array) -> Draws:
    """Draws whether an image is blurred, and the kind and the parameters of its kernel."""
    uniform = jax.random.uniform(key, (9,))
    kind = jnp.where(uniform[0] < self.sinc, SINC, choose(uniform[1], self.kinds))
    size = _odd_size(uniform[2], self.size)
    turned = (kind == 1) | (kind == 3) | (kind == 5)
    sigma = between(uniform[3], *self.sigma)
    exponent = jnp.where(kind >= 4, around_one(uniform[6], *self.plateau),
                         around_one(uniform[6], *self.beta))
    return {
        'blurred': uniform[8] < self.probability, 'kind': kind, 'size': size,
        'sigma': jnp.stack([sigma, jnp.where(turned, between(uniform[4], *self.sigma), sigma)]),
        'rotation': jnp.where(turned, between(uniform[5], -math.pi, math.pi), 0.0),
        'exponent': jnp.where(kind < 2, 1.0, exponent),
        'cutoff': between(uniform[7], jnp.where(size < 13, math.pi / 3, math.pi / 5), math.pi)}

  def kernels(self, draws: Draws) -> jax.Array:
    """Returns the drawn kernels, float32 [B, size[1], size[1]]."""
    width = self.size[1]
    kernels = bump_kernels(draws['size'], draws['sigma'], draws['rotation'], draws['exponent'],
                           draws['kind'] >= 4, width)
    if self.sinc > 0:
      sinc = sinc_kernels(draws['size'], draws['cutoff'], width)
      kernels = jnp.where((draws['kind'] == SINC)[:, None, None], sinc, kernels)
    return kernels

  def apply(self, canvas: Canvas, draws: Draws, keys: jax.Array, goal: Goal) -> Canvas:
    """Blurs the images; sizes stay the same."""
    return _blurred(canvas, draws['blurred'], self.kernels(draws))

  def describe(self, draws: dict[str, Any]) -> str:
    """Returns for example 'blur: isotropic Gaussian, 13x13, sigma 1.2', or 'not blurred'."""
    if not draws['blurred']:
      return 'not blurred'
    kind = int(draws['kind'])
    if kind == SINC:
      return _sinc_in_words(draws)
    first, second = (float(sigma) for sigma in draws['sigma'])
    words = [f'blur: {KINDS[kind]}', _size_in_words(draws), f'sigma {first:.1f}']
    if kind % 2:
      words[-1] += f' and {second:.1f}'
      words.append(f'turned by {math.degrees(float(draws["rotation"])):.0f} degrees')
    if kind >= 2:
      words.append(f'exponent {float(draws["exponent"]):.2f}')
    return ', '.join(words)


@dataclasses.dataclass(frozen=True)
class Sinc:
  """Filters each image with a random sinc kernel, which adds ringing at edges.

  The filter at the end of Real-ESRGAN's degradations
  (https://github.com/xinntao/Real-ESRGAN, realesrgan/data/realesrgan_dataset.py).

  Attributes:
    probability: of filtering an image; otherwise it stays exactly as it is.
    size: as in `Blur`.
    cutoff: range of the cut-off frequency as a share of pi radians per pixel.
  """

  probability: float = 0.8
  size: tuple[int, int] = (7, 21)
  cutoff: tuple[float, float] = (1 / 3, 1.0)

  def draw(self, key: jax.Array) -> Draws:
    """Draws whether an image is filtered, the size of its kernel and the cut-off in radians."""
    uniform = jax.random.uniform(key, (3,))
    return {'blurred': uniform[0] < self.probability, 'size': _odd_size(uniform[1], self.size),
            'cutoff': math.pi * between(uniform[2], *self.cutoff)}

  def apply(self, canvas: Canvas, draws: Draws, keys: jax.Array, goal: Goal) -> Canvas:
    """Filters the images; sizes stay the same."""
    kernels = sinc_kernels(draws['size'], draws['cutoff'], self.size[1])
    return _blurred(canvas, draws['blurred'], kernels)

  def describe(self, draws: dict[str, Any]) -> str:
    """Returns for example 'blur: sinc, 13x13, cut-off 0.45 pi', or 'not blurred'."""
    return _sinc_in_words(draws) if draws['blurred'] else 'no sinc filter'


def _blurred(canvas: Canvas, blurred: jax.Array, kernels: jax.Array) -> Canvas:
  """Convolves the images that `blurred`, bool [B], names; the others keep their bits."""
  pixels = convolve(canvas.pixels, canvas.sizes, kernels)
  return canvas._replace(pixels=jnp.where(blurred[:, None, None, None], pixels, canvas.pixels))


def _odd_size(uniform: jax.Array, sizes: tuple[int, int]) -> jax.Array:
  """Draws an odd size, int32, from sizes[0] to sizes[1]."""
  return sizes[0] + 2 * choose(uniform, (1,) * ((sizes[1] - sizes[0]) // 2 + 1))


def _size_in_words(draws: dict[str, Any]) -> str:
  return f'{int(draws["size"])}x{int(draws["size"])}'


def _sinc_in_words(draws: dict[str, Any]) -> str:
  cutoff = float(draws['cutoff']) / math.pi
  return f'blur: sinc, {_size_in_words(draws)}, cut-off {cutoff:.2f} pi'
