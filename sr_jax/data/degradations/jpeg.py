"""JPEG compression, the same bits as libjpeg-turbo writes and reads with its default settings.

All arithmetic is in int32, as in libjpeg-turbo 3 (files named below, https://libjpeg-turbo.org):
rounded YCbCr, 2x2 means and triangle upsampling of chroma, and the accurate integer DCT, whose
rounding decides which coefficients survive quantisation. Entropy coding loses nothing and is left
out.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sr_jax import images
from sr_jax.data.degradations.batching import in_parts
from sr_jax.data.degradations.canvas import Canvas, Draws, Goal
from sr_jax.data.degradations.drawing import between
from sr_jax.data.degradations.fusing import run_apart

# Quantisation tables of ITU-T T.81, Annex K.1, at quality 50 (jcparam.c); rows are vertical
# frequencies.
LUMA_TABLE = np.array([
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56], [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99]], np.int32)
CHROMA_TABLE = np.full((8, 8), 99, np.int32)
CHROMA_TABLE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

# One-dimensional DCT times 8192 sqrt(8) (jfdctint.c): each row is a frequency. Entries are sums of
# libjpeg's rounded constants, so some differ by one from what rounding the cosines would give.
DCT = np.array([
    [8192, 8192, 8192, 8192, 8192, 8192, 8192, 8192],
    [11363, 9633, 6437, 2260, -2260, -6437, -9633, -11363],
    [10703, 4433, -4433, -10703, -10703, -4433, 4433, 10703],
    [9633, -2259, -11362, -6436, 6436, 11362, 2259, -9633],
    [8192, -8192, -8192, 8192, 8192, -8192, -8192, 8192],
    [6437, -11362, 2261, 9633, -9633, -2261, 11362, -6437],
    [4433, -10704, 10704, -4433, -4433, 10704, -10704, 4433],
    [2260, -6436, 9633, -11363, 11363, -9633, 6436, -2260]], np.int32)

# Y, Cb, Cr (rows) of R, G, B times 2^16, and the offsets to add before the shift (jccolor.c).
YCC = np.array([[19595, 38470, 7471], [-11059, -21709, 32768], [32768, -27439, -5329]], np.int32)
YCC_OFFSET = np.array([1 << 15, (128 << 16) + (1 << 15) - 1, (128 << 16) + (1 << 15) - 1], np.int32)


def quantisation_tables(quality: jax.Array) -> jax.Array:
  """Returns the quantisation tables of luma and chroma (jpeg_quality_scaling of jcparam.c).

  Args:
    quality: int32 [B] in 1 ... 100.

  Returns:
    int32 [B, 2, 8, 8] in 1 ... 255.
  """
  quality = jnp.clip(quality, 1, 100)
  percent = jnp.where(quality < 50, 5000 // quality, 200 - 2 * quality)[:, None, None, None]
  return jnp.clip((np.stack([LUMA_TABLE, CHROMA_TABLE]) * percent + 50) // 100, 1, 255)


def jpeg(pixels: jax.Array, sizes: jax.Array, quality: jax.Array, halved: jax.Array) -> jax.Array:
  """Computes what remains of each image when it is saved as a JPEG file and read again.

  The bits are those of libjpeg-turbo with its default (accurate) DCT, standard tables and
  triangle upsampling, as Pillow and OpenCV use it.

  Args:
    pixels: float32 [B, H, W, C] in [0, 1], rounded to 8 bits first; grey files for one channel.
    sizes: int32 [B, 2], the height and width of each image; the pixels outside do not matter.
    quality: int32 [B] in 1 ... 100.
    halved: bool [B], whether chroma has half the resolution in both directions (4:2:0) rather
      than the full one (4:4:4).

  Returns:
    float32 [B, H, W, C], multiples of 1/255; pixels outside of `sizes` have no meaning.
  """
  return in_parts(_coded, pixels, sizes, quality, halved)


def _coded(pixels: jax.Array, sizes: jax.Array, quality: jax.Array, halved: jax.Array) -> jax.Array:
  """Computes `jpeg` for all images at once."""
  height, width, channels = pixels.shape[1:]
  apart = functools.partial(run_apart, (quality > 0).any())  # always true, unknown to the compiler
  planes = images.to_levels(jnp.moveaxis(pixels, -1, 1)).astype(jnp.int32)
  planes = jnp.pad(planes, ((0, 0), (0, 0), (0, -height % 16), (0, -width % 16)))
  tables = quantisation_tables(quality)
  if channels == 1:
    planes = apart(lambda planes: _replicate_edges(planes, sizes), planes)
    planes = _code_blocks(planes, tables[:, :1])
  else:
    planes = apart(lambda planes: _rgb_to_ycc(_replicate_edges(planes, sizes)), planes)
    halved = halved[:, None, None, None]
    chroma = apart(lambda chroma: jnp.where(halved, _halve(chroma, sizes), chroma), planes[:, 1:])
    planes = jnp.concatenate([planes[:, :1], chroma], 1)
    planes = _code_blocks(planes, tables[:, np.array([0, 1, 1])])
    chroma = apart(lambda chroma: jnp.where(halved, _double(chroma, sizes), chroma), planes[:, 1:])
    planes = _ycc_to_rgb(planes[:, 0], chroma[:, 0], chroma[:, 1])
  return images.to_float(jnp.moveaxis(planes, 1, -1)[:, :height, :width])


def _replicate_rows(planes: jax.Array, heights: jax.Array) -> jax.Array:
  """Fills rows from `heights` [B] on with the row above them."""
  heights = heights[:, None, None, None]
  last = jnp.take_along_axis(planes, heights - 1, axis=2)
  return jnp.where(jnp.arange(planes.shape[2])[:, None] < heights, planes, last)


def _replicate_columns(planes: jax.Array, widths: jax.Array) -> jax.Array:
  """Fills columns from `widths` [B] on with the column before them."""
  widths = widths[:, None, None, None]
  last = jnp.take_along_axis(planes, widths - 1, axis=3)
  return jnp.where(jnp.arange(planes.shape[3]) < widths, planes, last)


def _replicate_edges(planes: jax.Array, sizes: jax.Array) -> jax.Array:
  """Fills what lies outside of each image of [B, C, H, W] with its last row and column."""
  return _replicate_rows(_replicate_columns(planes, sizes[:, 1]), sizes[:, 0])


def _rgb_to_ycc(planes: jax.Array) -> jax.Array:
  """Converts levels of R, G, B [B, 3, H, W] to Y, Cb, Cr (jccolor.c)."""
  weighted = sum(planes[:, i:i + 1] * YCC[:, i, None, None] for i in range(3))
  return (weighted + YCC_OFFSET[:, None, None]) >> 16


def _ycc_to_rgb(y: jax.Array, cb: jax.Array, cr: jax.Array) -> jax.Array:
  """Converts levels of Y, Cb, Cr [B, H, W] to R, G, B [B, 3, H, W] (jdcolor.c)."""
  half, cb, cr = 1 << 15, cb - 128, cr - 128
  red = (91881 * cr + half) >> 16
  green = (-22554 * cb - 46802 * cr + half) >> 16
  blue = (116130 * cb + half) >> 16
  return jnp.clip(jnp.stack([y + red, y + green, y + blue], 1), 0, 255)


def _halve(chroma: jax.Array, sizes: jax.Array) -> jax.Array:
  """Averages 2x2 samples of [B, 2, H, W] into the upper left quarter (h2v2_downsample).

  Rounding alternates along a row. Rows below an image repeat its last row of means (jcprepct.c),
  while columns right of it are means of repeated samples.
  """
  batch, channels, height, width = chroma.shape
  bias = 1 + np.arange(width // 2, dtype=np.int32) % 2
  total = chroma.reshape(batch, channels, height // 2, 2, width // 2, 2).sum((3, 5))
  means = _replicate_rows((total + bias) >> 2, (sizes[:, 0] + 1) // 2)
  return jnp.pad(means, ((0, 0), (0, 0), (0, -(-height // 2)), (0, -(-width // 2))))


def _double(chroma: jax.Array, sizes: jax.Array) -> jax.Array:
  """Enlarges the upper left quarter of [B, 2, H, W] by triangle filters (h2v2_fancy_upsample)."""
  sizes = (sizes + 1) // 2
  near = _replicate_edges(chroma[:, :, :chroma.shape[2] // 2, :chroma.shape[3] // 2], sizes)
  # Images of at most four columns are enlarged by repetition (jinit_upsampler of jdsample.c).
  weight = jnp.where(sizes[:, 1] > 2, 1, 0)[:, None, None, None]
  doubled = []
  for row in (jnp.concatenate([near[:, :, :1], near[:, :, :-1]], 2),  # the row above
              jnp.concatenate([near[:, :, 1:], near[:, :, -1:]], 2)):  # the row below
    row = 4 * near + (row - near) * weight
    left = jnp.concatenate([row[..., :1], row[..., :-1]], 3)
    right = jnp.concatenate([row[..., 1:], row[..., -1:]], 3)
    doubled.append(jnp.stack([(4 * row + (left - row) * weight + 8) >> 4,
                              (4 * row + (right - row) * weight + 7) >> 4], 4))
  return jnp.stack(doubled, 3).reshape(chroma.shape)


def _code_blocks(planes: jax.Array, tables: jax.Array) -> jax.Array:
  """Transforms, quantises and restores all blocks of 8x8 samples.

  Args:
    planes: int32 [B, P, H, W], levels; 8 divides H and W.
    tables: int32 [B, P, 8, 8], quantisation tables.

  Returns:
    int32 [B, P, H, W], levels.
  """
  batch, count, height, width = planes.shape
  blocks = planes.reshape(batch, count, height // 8, 8, width // 8, 8) - 128
  vertical, horizontal = 3, 5
  coefficients = _transform(_transform(blocks, DCT, horizontal, 11), DCT, vertical, 15)  # times 8
  blocks = _quantise(coefficients, tables[:, :, None, :, None, :])
  blocks = _transform(_transform(blocks, DCT.T, vertical, 11), DCT.T, horizontal, 18)
  # The SIMD code limits in this way; the C code wraps values beyond 512, which no image reaches.
  return jnp.clip(blocks + 128, 0, 255).reshape(planes.shape)


def _transform(blocks: jax.Array, matrix: np.ndarray, axis: int, shift: int) -> jax.Array:
  """Multiplies an axis of 8 by a matrix, divides by 2^shift and rounds halves up."""
  # A sum rather than a matrix product, which devices do not have for int32 or only slowly.
  matrix = matrix.reshape(8, 8, *[1] * (blocks.ndim - 1 - axis))
  total = (jnp.expand_dims(blocks, axis) * matrix).sum(axis + 1)
  return (total + (1 << (shift - 1))) >> shift


def _quantise(coefficients: jax.Array, steps: jax.Array) -> jax.Array:
  """Rounds coefficients / 8 to multiples of steps, halves away from zero (jcdctmgr.c)."""
  # Exact in float32: a dividend below 2^16 plus a half is at least 0.5 / divisor away from the
  # next integer, many times the rounding error. Integer division is slow on all devices.
  dividend = (jnp.abs(coefficients) + 4 * steps).astype(jnp.float32) + 0.5
  multiples = jnp.floor(dividend / (8 * steps).astype(jnp.float32)).astype(jnp.int32) * steps
  return jnp.where(coefficients < 0, -multiples, multiples)


@dataclasses.dataclass(frozen=True)
class Jpeg:
  """JPEG compression.

  Attributes:
    probability: of an image being compressed.
    quality: (lowest, highest) quality, in 1 ... 100; integers are drawn uniformly.
    subsampling: probability of 4:2:0 (chroma at half the resolution); otherwise 4:4:4.
  """

  probability: float = 1.0
  quality: tuple[int, int] = (30, 95)
  subsampling: float = 1.0

  def draw(self, key: jax.Array) -> Draws:
    """Draws 'apply', 'quality' and 'halved' of one image."""
    apply, quality, halved = jax.random.uniform(key, (3,))
    low, high = (round(bound) for bound in self.quality)
    quality = jnp.floor(between(quality, low, high + 1)).astype(jnp.int32)
    return {'apply': apply < self.probability, 'quality': jnp.minimum(quality, high),
            'halved': halved < self.subsampling}

  def apply(self, canvas: Canvas, draws: Draws, keys: jax.Array, goal: Goal) -> Canvas:
    """Compresses the images that drew it; the others keep their values, unrounded."""
    del keys, goal
    coded = jpeg(canvas.pixels, canvas.sizes, draws['quality'], draws['halved'])
    return canvas._replace(
        pixels=jnp.where(draws['apply'][:, None, None, None], coded, canvas.pixels))

  def describe(self, draws: dict[str, Any]) -> str:
    """Returns for example 'JPEG of quality 43, 4:2:0'."""
    if not draws['apply']:
      return 'no JPEG'
    return f'JPEG of quality {int(draws["quality"])}, {"4:2:0" if draws["halved"] else "4:4:4"}'
