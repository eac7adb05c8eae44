"""Pictures: files to arrays and back, colour, and MATLAB-compatible resizing.

Between modules a picture is float [..., H, W, C] in [0, 1]; only this file and the
data bank hold uint8. C is 3 (RGB) or 1 (grey).
"""

import contextlib
import io
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import PIL
from PIL import Image, ImageOps

from sr_jax import files, pillow
from sr_jax.errors import InputError
from sr_jax.pillow import MAX_PIXELS

SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp', '.tif', '.tiff')


class DamagedPicture(InputError):  # noqa: N818, the error is its base
  """A file that is missing, cut off, too large or no picture; one among many may be skipped."""


# Files ---------------------------------------------------------------------------


@contextlib.contextmanager
def reading(path, otherwise: str):
  """What fails inside is an InputError that names the file; parsers raise many kinds on damaged
  files, which `otherwise` words.
  """
  try:
    yield
  except (InputError, MemoryError):
    raise
  except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
    raise DamagedPicture(f'{path}: {error.strerror.lower()}') from None
  except PIL.UnidentifiedImageError:
    raise DamagedPicture(f'{path}: not a picture that can be read') from None
  except Image.DecompressionBombError as error:
    raise DamagedPicture(f'{path}: too large ({error})') from None
  except Exception as error:
    if isinstance(error, OSError) and error.errno:  # of the disk, not of the picture
      raise InputError(f'{path}: {error.strerror}') from None
    # Some parsers say no more than the place where they stopped.
    error = error if re.search('[a-z]{3}', str(error)) else 'cut off?'
    raise DamagedPicture(f'{path}: {otherwise.format(error=error)}') from None


def refuse_above(most: int, path, width: int, height: int, limit: str) -> None:
  """Refuses, before it is decoded, a picture of more than `most` pixels.

  Raises:
    DamagedPicture: naming the limit.
  """
  if height * width > most:
    raise DamagedPicture(f'{path}: {width}x{height} is {height * width:,} pixels, more than '
                         f'{limit} {most:,}')


@contextlib.contextmanager
def _opened(path, otherwise: str):
  """`pillow.open_picture` of at most MAX_PIXELS, whose failures are InputErrors."""
  with reading(path, otherwise):
    is_file = isinstance(path, (str, os.PathLike))
    with (open(path, 'rb') if is_file else io.BytesIO(path.read_bytes())) as file:
      picture = pillow.open_picture(file)
      refuse_above(MAX_PIXELS, path, *pillow.stored_size(picture), 'the limit of')
      yield picture


def read_image(path) -> np.ndarray:
  """Decodes a picture file as a viewer would show it.

  Grey files stay grey; palettes become RGB, CMYK becomes RGB; EXIF orientation is
  applied; transparent pixels are laid over white, because what lies under them is
  arbitrary; 16-bit grey is scaled to 8 bits (Pillow alone would clip it to white), 16-bit
  colour keeps its upper bytes, which is what Pillow reads.

  Args:
    path: of a PNG, JPEG, WebP, BMP or TIFF; or what has `read_bytes()` and a name as its
      str(), such as a record of a data set.

  Returns:
    uint8 [H, W, 1] or [H, W, 3].

  Raises:
    DamagedPicture: the file is missing, truncated, no picture or of more than MAX_PIXELS.
    InputError: the disk fails.
  """
  with _opened(path, 'damaged picture ({error})') as picture:
    pillow.load_picture(picture)
    ImageOps.exif_transpose(picture, in_place=True)
    array = np.asarray(pillow.to_eight_bit(picture))
  return array[..., None] if array.ndim == 2 else array


def image_size(path) -> tuple[int, int]:
  """(height, width) from the file's header, turned by EXIF as far as the header tells.

  Raises:
    DamagedPicture: the file is missing, no picture or of more than MAX_PIXELS.
  """
  with _opened(path, 'not a picture that can be read') as picture:
    width, height = pillow.stored_size(picture)
    # Asking a PNG for its EXIF decodes it, for the tag may come last; commonly it is first.
    early = picture.format != 'PNG' or 'exif' in picture.info
    turned = early and picture.getexif().get(0x0112, 1) >= 5
  return (width, height) if turned else (height, width)


def as_rgb(image: np.ndarray) -> np.ndarray:
  """[..., 1 or 3] to [..., 3]: grey is repeated (NumPy or JAX)."""
  return image.repeat(3, axis=-1) if image.shape[-1] == 1 else image


def write_image(path, image: np.ndarray) -> None:
  """Writes uint8 [H, W, 1 or 3] whole or not at all, in the format of the path's suffix."""
  image = image[..., 0] if image.shape[-1] == 1 else image
  with files.replacing(path) as temporary:
    Image.fromarray(image).save(temporary)


# Ranges and colour -----------------------------------------------------------------


def to_float(image, most: int = 255):
  """Integers in [0, most] to float32 in [0, 1]; NumPy in, NumPy out, else a JAX array."""
  numpy = np if isinstance(image, np.ndarray) else jnp
  return numpy.asarray(image, numpy.float32) / numpy.float32(most)


def to_levels(image, most: int = 255):
  """Float in [0, 1], clipped, to the nearest of 0, 1, ... most, still float (NumPy or JAX)."""
  numpy = np if isinstance(image, np.ndarray) else jnp
  return numpy.floor(numpy.clip(image, 0, 1) * most + 0.5)


def to_uint8(image) -> np.ndarray:
  """`to_levels` as uint8 on the host."""
  with np.errstate(invalid='ignore'):  # nan has no colour; whoever trains is told by other means
    return np.uint8(to_levels(np.asarray(image, np.float32)))


# Y, Cb, Cr (rows) of R, G, B, and what is added, in 8-bit levels for RGB in [0, 1].
# MATLAB's rgb2ycbcr (ITU-R BT.601): Y in [16, 235], Cb and Cr in [16, 240].
_STUDIO = (np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112], [112, -93.786, -18.214]]),
           np.array([16, 128, 128]))
LUMA, BLACK = _STUDIO[0][0] / 255, 16 / 255  # Y is BLACK + R, G, B times LUMA
# JFIF, the YCbCr of JPEG files: the same luma weights, each channel over all 256 levels.
_FULL = (255 * np.array([[0.299, 0.587, 0.114],
                         [-0.299 / 1.772, -0.587 / 1.772, 0.5],
                         [0.5, -0.587 / 1.402, -0.114 / 1.402]]), np.array([0, 128, 128]))


def luma(image):
  """Y of MATLAB's rgb2ycbcr: (16 + 65.481 R + 128.553 G + 24.966 B) / 255.

  Args:
    image: [..., 3], float in [0, 1] (NumPy or JAX).

  Returns:
    [..., 1], float in [16 / 255, 235 / 255]; not rounded.
  """
  return sum(image[..., i:i + 1] * float(LUMA[i]) for i in range(3)) + BLACK


def rgb_to_ycbcr(image, full_range: bool = False):
  """RGB [..., 3] in [0, 1] to Y, Cb, Cr [..., 3] in [0, 1] (NumPy or JAX), not rounded.

  Args:
    full_range: False, MATLAB's rgb2ycbcr, whose Y is `luma`; True, JFIF's, as in JPEG files
      (its Cb and Cr reach 255.5 / 255, which files clip).
  """
  matrix, offset = _FULL if full_range else _STUDIO
  return _mix(image, matrix / 255, offset / 255)


def ycbcr_to_rgb(image, full_range: bool = False):
  """The inverse of `rgb_to_ycbcr`; not clipped: not every Y, Cb, Cr is a colour."""
  matrix, offset = _FULL if full_range else _STUDIO
  inverse = np.linalg.inv(matrix / 255)
  return _mix(image, inverse, -inverse @ (offset / 255))


def _mix(image, matrix, offset):
  """matrix @ pixel + offset, without a matrix product, which a GPU would take in TF32."""
  return sum(image[..., i:i + 1] * matrix[:, i].astype(image.dtype)
             for i in range(3)) + offset.astype(image.dtype)


def crop_to_multiple(image, scale: int):
  """Cuts rows and columns at the bottom and right so that `scale` divides [H, W, C]."""
  height, width = image.shape[0] // scale * scale, image.shape[1] // scale * scale
  return image[:height, :width]


# Resizing ----------------------------------------------------------------------------


def _cubic(x: np.ndarray) -> np.ndarray:
  """Keys' kernel with a = -0.5 (Keys 1981, "Cubic convolution interpolation")."""
  x = np.abs(x)
  inner = 1.5 * x**3 - 2.5 * x**2 + 1
  outer = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
  return np.where(x <= 1, inner, np.where(x <= 2, outer, 0.0))


def _triangle(x: np.ndarray) -> np.ndarray:
  return np.maximum(1 - np.abs(x), 0.0)


def _box(x: np.ndarray) -> np.ndarray:
  return np.where((x >= -0.5) & (x < 0.5), 1.0, 0.0)  # half-way between two: the later one


KERNELS = {'bicubic': (_cubic, 4), 'bilinear': (_triangle, 2), 'nearest': (_box, 1)}  # and width


def _taps(size: int, scale, method: str,
          count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
  """What each output sample is made of along one axis, as MATLAB's imresize has it.

  Returns:
    (indices, weights), both [ceil(size * scale) or count, taps]; rows of weights sum to 1.
    Shrinking stretches the kernel by 1 / scale (antialiasing; 'nearest' has none).
    Indices beyond the border are the border's (replication).
  """
  kernel, width = KERNELS[method]
  scale = float(scale)
  # Sums are taken in MATLAB's order with its coordinates, which begin at 1: elsewhere a value
  # that lies half-way between two levels would fall to the other one.
  shrink = 1.0 if method == 'nearest' else min(1.0, scale)
  width = width / shrink
  out = np.arange(1, (count or int(np.ceil(size * scale))) + 1)
  centre = out / scale + 0.5 * (1 - 1 / scale)
  first = np.floor(centre - width / 2).astype(np.int64)
  indices = first[:, None] + np.arange(int(np.ceil(width)) + 2)
  weights = shrink * kernel(shrink * (centre[:, None] - indices))
  weights = weights / weights.sum(axis=1, keepdims=True)
  return np.clip(indices - 1, 0, size - 1), weights


def imresize(image: np.ndarray, scale=None, method: str = 'bicubic',
             size: tuple[int, int] | None = None) -> np.ndarray:
  """MATLAB's `imresize(image, scale or size)`, on the host.

  Of uint8 in float64, rows first, rounded to uint8 between the two passes. Every byte of the
  public Set5 and Set14 LR files (x2, x3, x4) comes out so; other scales and methods follow
  the same formula.

  Args:
    image: uint8 [H, W, C]; or float32, which is neither rounded nor clipped.
    scale: an integer, float or Fraction, above 1 to enlarge.
    method: 'bicubic' or 'bilinear', antialiased when it shrinks, or 'nearest', which is not.
    size: in place of a scale, the (height, width) to come to; proportions may change.

  Returns:
    As image, [ceil(H * scale), ceil(W * scale), C], or of that size.
  """
  if image.dtype not in (np.uint8, np.float32):
    raise ValueError(f'a picture of {image.dtype}: expected uint8 or float32')
  real = np.float64 if image.dtype == np.uint8 else np.float32
  # MATLAB begins with the axis that shrinks most, with rows where both shrink alike.
  for axis in sorted((0, 1), key=lambda axis: size[axis] / image.shape[axis] if size else 0):
    side, count = image.shape[axis], size and size[axis]
    indices, weights = _taps(side, count / side if size else scale, method, count)
    total = 0.0
    for tap in range(indices.shape[1]):
      column = weights[:, tap]
      if not column.any():
        continue
      column = column[:, None, None] if axis == 0 else column[None, :, None]
      total = total + column.astype(real) * np.take(image, indices[:, tap], axis=axis)
    image = total if real == np.float32 else np.uint8(np.clip(np.floor(total + 0.5), 0, 255))
  return image


def resize(images: jax.Array, scale, method: str = 'bicubic', eight_bit: bool = False):
  """The same resizing as two matrix products, for the device: jitted, differentiable.

  Args:
    images: float [B, H, W, C] in [0, 1].
    scale, method: as in `imresize`.
    eight_bit: rounds to 256 levels first and after each pass, as `imresize` does, from which
      it then differs only where a sum lies half-way between two levels to float32's rounding:
      nowhere in Set5's and Set14's LR, often at such scales as 3/2. Else the result is as it
      comes (bicubic overshoots [0, 1] at edges).

  Returns:
    float32 [B, ceil(H * scale), ceil(W * scale), C].
  """
  images = images.astype(jnp.float32)
  if eight_bit:
    images = to_levels(images)  # whole numbers: a tie stays a tie in float32
  for axis, product in ((1, 'oh,bhwc->bowc'), (2, 'ow,bhwc->bhoc')):
    indices, weights = _taps(images.shape[axis], scale, method)
    matrix = np.zeros((indices.shape[0], images.shape[axis]))
    np.add.at(matrix, (np.arange(indices.shape[0])[:, None], indices), weights)
    # HIGHEST: a TPU or GPU would otherwise multiply in bfloat16 or TF32.
    images = jnp.einsum(product, jnp.asarray(matrix, jnp.float32), images,
                        precision=jax.lax.Precision.HIGHEST)
    if eight_bit:
      images = jnp.clip(jnp.floor(images + 0.5), 0, 255)
  return images / 255 if eight_bit else images
