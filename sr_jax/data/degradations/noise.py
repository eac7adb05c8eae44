"""Noise: Gaussian, Poisson, and pixels that are black, white or dead.

Gaussian and Poisson noise are those of Real-ESRGAN and BSRGAN, drawn for each image of a batch
from its own key. Each takes one uniform number per sample and both share the same ones.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sr_jax import images
from sr_jax.data.degradations import random_numbers
from sr_jax.data.degradations.batching import in_parts
from sr_jax.data.degradations.canvas import Canvas, Draws, Goal
from sr_jax.data.degradations.drawing import between
from sr_jax.data.degradations.fusing import run_apart

# Weights of R, G, B in the luma that grey Poisson noise is drawn from (torchvision's
# rgb_to_grayscale, which BasicSR calls).
GREY_WEIGHTS = (0.2989, 0.587, 0.114)


def round_to_levels(pixels: jax.Array) -> jax.Array:
  """Clips to [0, 1] and rounds to multiples of 1/255, as 8-bit files hold."""
  return images.to_levels(pixels) / 255


def count_levels(levels: jax.Array, inside: jax.Array) -> jax.Array:
  """Counts the different levels of each image.

  Args:
    levels: [B, H, W], integers in 0 ... 255 of any type.
    inside: bool [B, H, W], which samples count.

  Returns:
    int32 [B], in 0 ... 256.
  """
  levels = levels.astype(jnp.uint32)
  bit = jnp.where(inside, jnp.uint32(1) << (levels % 32), 0)
  # Sets of levels as 256 bits in eight words, whose union one reduction finds; scattering into 256
  # bins takes ten times as long.
  words = jax.lax.reduce(
      tuple(jnp.where(levels // 32 == word, bit, 0) for word in range(8)), (np.uint32(0),) * 8,
      lambda left, right: tuple(a | b for a, b in zip(left, right, strict=True)), (1, 2))
  return jax.lax.population_count(jnp.stack(words)).sum(0).astype(jnp.int32)


def add_noise(pixels: jax.Array, sizes: jax.Array, keys: jax.Array, draws: Draws) -> jax.Array:
  """Adds Gaussian or Poisson noise (add_gaussian_noise_pt and add_poisson_noise_pt of BasicSR).

  Poisson noise of an image x, rounded to 8 bits, is Poisson(v x) / v - x times a scale; v is the
  number of the different levels of x rounded up to a power of two. Grey Poisson noise is that of
  the luma of x, added to all channels.

  Args:
    pixels: float32 [B, H, W, C].
    sizes: int32 [B, 2], the height and width of each image.
    keys: [B].
    draws: [B] each: 'apply', bool, False for images that stay as they are; 'gaussian', bool;
      'sigma', the standard deviation of Gaussian noise in levels of 255; 'scale' of Poisson noise;
      'grey', bool, whether the noise of all channels is the same; optionally 'correlated', bool,
      and 'mix' [B, 3, 3], by which Gaussian noise of a pixel is multiplied (the identity where
      not correlated).

  Returns:
    float32 [B, H, W, C], in [0, 1] where noise was added; pixels outside an image have no meaning.
  """
  return in_parts(_with_noise, pixels, sizes, keys, draws)


def _with_noise(pixels: jax.Array, sizes: jax.Array, keys: jax.Array, draws: Draws) -> jax.Array:
  """Computes `add_noise` for all images at once."""
  batch, height, width, channels = pixels.shape
  # Rows of W C samples: loops over C alone would be short and slow.
  rows = pixels.reshape(batch, height, width * channels)
  rows = run_apart(draws['apply'].any(), functools.partial(
      _noisy, sizes=sizes, keys=keys, draws=draws, channels=channels), rows)
  return rows.reshape(pixels.shape)


def _noisy(rows: jax.Array, sizes: jax.Array, keys: jax.Array, draws: Draws,
           channels: int) -> jax.Array:
  """Computes `add_noise` for pixels given as rows of samples, float32 [B, H, W C]."""
  apply, gaussian, sigma, scale, grey = (
      draws[name][:, None, None] for name in ('apply', 'gaussian', 'sigma', 'scale', 'grey'))
  uniform = random_numbers.uniforms(keys, *rows.shape[1:], channels, draws['grey'])
  normals = random_numbers.normal(uniform)
  levels = images.to_levels(rows)
  if channels == 3:
    luma = jnp.broadcast_to(np.float32(GREY_WEIGHTS), (1, 3, 3))
    levels = jnp.where(grey, images.to_levels(_mix_channels(rows, luma)), levels)
  values = _photons(levels, channels, sizes)
  counts = random_numbers.poisson(levels * (values / 255), uniform, normals)
  if 'mix' in draws and channels == 3:
    normals = run_apart(draws['correlated'].any(),
                        lambda normals: _mix_channels(normals, draws['mix']), normals)
  noise = jnp.where(gaussian, normals * (sigma / 255), (counts / values - levels / 255) * scale)
  return jnp.where(apply, jnp.clip(rows + noise, 0, 1), rows)


def _photons(levels: jax.Array, channels: int, sizes: jax.Array) -> jax.Array:
  """Returns float32 [B, 1, 1], the number of different levels rounded up to a power of two."""
  inside = ((jnp.arange(levels.shape[1])[:, None] < sizes[:, 0, None, None])
            & (jnp.arange(levels.shape[2]) < channels * sizes[:, 1, None, None]))
  count = count_levels(levels, inside)
  exponent = sum((count > 1 << power).astype(jnp.int32) for power in range(8))
  return (1 << exponent).astype(jnp.float32)[:, None, None]


def _mix_channels(rows: jax.Array, matrix: jax.Array) -> jax.Array:
  """Multiplies the three channels of each pixel by a matrix.

  Args:
    rows: float32 [B, H, 3 W].
    matrix: float32 [B or 1, 3, 3].

  Returns:
    float32 [B, H, 3 W].
  """
  # A sum of shifted rows with weights of period three. (A GPU would compute a product in TF32.)
  padded = jnp.pad(rows, ((0, 0), (0, 0), (2, 2)))
  total = 0
  for shift in range(-2, 3):
    weights = jnp.stack([matrix[:, channel, channel + shift] if 0 <= channel + shift < 3
                         else jnp.zeros_like(matrix[:, 0, 0]) for channel in range(3)], 1)
    weights = jnp.tile(weights, rows.shape[2] // 3)[:, None]
    total = total + weights * padded[..., 2 + shift:2 + shift + rows.shape[2]]
  return total


def impulses(pixels: jax.Array, keys: jax.Array, salt: jax.Array, dead: jax.Array) -> jax.Array:
  """Replaces pixels by black, white (salt and pepper) or by a channel stuck at 0 or 1 (dead).

  Args:
    pixels: float32 [B, H, W, C].
    keys: [B], random keys.
    salt: float32 [B], the share of pixels that become black or white, half each.
    dead: float32 [B], the share of pixels of which one channel becomes 0 or 1, half each.

  Returns:
    float32 [B, H, W, C].
  """
  _, height, width, channels = pixels.shape
  first, second = random_numbers.words(keys, height, width)
  first = random_numbers.uniform(first)[..., None]
  salt, dead = salt[:, None, None, None], dead[:, None, None, None]
  pixels = jnp.where(first < salt / 2, 0., jnp.where(first > 1 - salt / 2, 1., pixels))
  # A dead pixel's share of (0, 1) is divided into equal parts for the 2 C channels and values.
  part = random_numbers.uniform(second)[..., None] * (2 * channels) / jnp.maximum(dead, 1e-9)
  channel = np.arange(channels)
  stuck = jnp.where(jnp.floor(part) == 2 * channel, 0., pixels)
  return jnp.where(jnp.floor(part) == 2 * channel + 1, 1., stuck)


@dataclasses.dataclass(frozen=True)
class Noise:
  """Gaussian or Poisson noise; the result is clipped to [0, 1].

  Attributes:
    probability: of an image getting noise.
    gaussian: probability that the noise is Gaussian rather than Poisson.
    sigma: range of the standard deviation of Gaussian noise, in levels of 255.
    poisson: range of the factor of Poisson noise; 1 is that of a camera which counts as many
      photons in white as the image has levels.
    grey: probability of the same noise in all channels.
    correlated: probability that Gaussian noise has a random covariance between channels, with
      the largest sigma (BSRGAN, add_Gaussian_noise of KAIR: .2 with grey = .4). BSRGAN's
      orthogonal matrix comes from a random matrix in [0, 1]; here it is a uniform rotation.
  """

  probability: float = 1.0
  gaussian: float = 0.5
  sigma: tuple[float, float] = (1.0, 30.0)
  poisson: tuple[float, float] = (0.05, 3.0)
  grey: float = 0.4
  correlated: float = 0.0

  def draw(self, key: jax.Array) -> Draws:
    """Draws 'apply', 'gaussian', 'sigma', 'scale', 'grey', and 'correlated' with its 'mix'."""
    values, mix = jax.random.split(key)
    apply, kind, sigma, scale, colour = jax.random.uniform(values, (5,))
    draws = {'apply': apply < self.probability, 'gaussian': kind < self.gaussian,
             'sigma': between(sigma, *self.sigma), 'scale': between(scale, *self.poisson),
             'grey': colour < self.grey}
    if self.correlated:
      correlated = draws['gaussian'] & (colour >= 1 - self.correlated)
      draws |= {'correlated': correlated,
                'sigma': jnp.where(correlated, self.sigma[1], draws['sigma']),
                'mix': jnp.where(correlated, random_mix(mix), jnp.eye(3))}
    return draws

  def apply(self, canvas: Canvas, draws: Draws, keys: jax.Array, goal: Goal) -> Canvas:
    """Adds noise to the images that drew it; the others keep their values."""
    del goal
    return canvas._replace(pixels=add_noise(canvas.pixels, canvas.sizes, keys, draws))

  def describe(self, draws: dict[str, Any]) -> str:
    """Returns for example 'Gaussian noise of sigma 12.3 levels, grey'."""
    if not draws['apply']:
      return 'no noise'
    kind = 'correlated' if draws.get('correlated') else 'grey' if draws['grey'] else 'colour'
    if draws['gaussian']:
      return f'Gaussian noise of sigma {float(draws["sigma"]):.1f} levels, {kind}'
    return f'Poisson noise times {float(draws["scale"]):.2f}, {kind}'


def random_mix(key: jax.Array) -> jax.Array:
  """Draws a matrix M [3, 3] such that M M^T = |U^T D U|: a random covariance of R, G and B.

  U is a rotation and the diagonal of D is uniform in [0, 1]; absolute values are taken of each
  entry, as in add_Gaussian_noise of KAIR, and leave a 3x3 matrix positive semidefinite.
  """
  rotation, diagonal = jax.random.split(key)
  w, x, y, z = _unit(jax.random.normal(rotation, (4,)))  # a quaternion
  basis = jnp.array([[1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                     [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                     [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]])
  scales = jax.random.uniform(diagonal, (3,))
  a = jnp.abs((basis[:, :, None] * scales[:, None, None] * basis[:, None, :]).sum(0))
  # Cholesky's factor written out, because a library call for 3x3 costs many kernels on a GPU.
  l00 = jnp.sqrt(jnp.maximum(a[0, 0], 1e-12))
  l10, l20 = a[1, 0] / l00, a[2, 0] / l00
  l11 = jnp.sqrt(jnp.maximum(a[1, 1] - l10 * l10, 1e-12))
  l21 = (a[2, 1] - l20 * l10) / l11
  l22 = jnp.sqrt(jnp.maximum(a[2, 2] - l20 * l20 - l21 * l21, 0))
  return jnp.array([[l00, 0, 0], [l10, l11, 0], [l20, l21, l22]])


def _unit(vector: jax.Array) -> jax.Array:
  """Divides a vector by its length."""
  return vector / jnp.sqrt((vector * vector).sum())


@dataclasses.dataclass(frozen=True)
class Impulse:
  """Salt-and-pepper noise and dead pixels.

  Attributes:
    probability: of an image getting them.
    salt: range of the share of pixels that become black or white.
    dead: range of the share of pixels of which one channel is stuck at 0 or 1.
  """

  probability: float = 1.0
  salt: tuple[float, float] = (0.0, 0.02)
  dead: tuple[float, float] = (0.0, 0.002)

  def draw(self, key: jax.Array) -> Draws:
    """Draws 'apply' and the shares 'salt' and 'dead' of one image."""
    apply, salt, dead = jax.random.uniform(key, (3,))
    return {'apply': apply < self.probability, 'salt': between(salt, *self.salt),
            'dead': between(dead, *self.dead)}

  def apply(self, canvas: Canvas, draws: Draws, keys: jax.Array, goal: Goal) -> Canvas:
    """Replaces pixels of the images that drew it; all others keep their values."""
    del goal
    changed = impulses(canvas.pixels, keys, draws['salt'], draws['dead'])
    return canvas._replace(
        pixels=jnp.where(draws['apply'][:, None, None, None], changed, canvas.pixels))

  def describe(self, draws: dict[str, Any]) -> str:
    """Returns for example 'salt and pepper on 1.20%, 0.05% dead pixels'."""
    if not draws['apply']:
      return 'no salt and pepper'
    return (f'salt and pepper on {100 * float(draws["salt"]):.2f}%, '
            f'{100 * float(draws["dead"]):.2f}% dead pixels')
