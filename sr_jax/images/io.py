"""Reads and writes image files as 8-bit arrays, for training and evaluation.

`sr_jax.media.photos` reads and writes files with alpha, 16 bits, EXIF and colour profiles.
"""

import contextlib
import io
import os
import re
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import PIL
from PIL import Image

from sr_jax.errors import InputError
from sr_jax.images import formats
from sr_jax.images.formats import MAX_PIXELS
from sr_jax.system import files

SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp', '.tif', '.tiff')


class EncodedImage(Protocol):
  """An encoded image that is not a file of its own, such as a record of a data set.

  Its str() names it in messages.
  """

  def read_bytes(self) -> bytes: ...


ImageSource = os.PathLike | str | EncodedImage


class DamagedImageError(InputError):
  """An image that is missing, truncated, too large or not an image; callers may skip it."""


@contextlib.contextmanager
def convert_read_errors(path: ImageSource, message: str) -> Iterator[None]:
  """Converts all exceptions inside to InputErrors that name the file.

  Args:
    path: the image that is being read.
    message: for the exceptions of the parsers, which raise many kinds for damaged files; may
      contain {error}.
  """
  try:
    yield
  except (InputError, MemoryError):
    raise
  except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
    raise DamagedImageError(f'{path}: {error.strerror.lower()}') from None
  except PIL.UnidentifiedImageError:
    raise DamagedImageError(f'{path}: not a supported image file') from None
  except Image.DecompressionBombError as error:
    raise DamagedImageError(f'{path}: too large ({error})') from None
  except Exception as error:
    if isinstance(error, OSError) and error.errno:  # a failure of the disk
      raise InputError(f'{path}: {error.strerror}') from None
    # Some parsers only report the position at which they stopped.
    error = error if re.search('[a-z]{3}', str(error)) else 'truncated?'
    raise DamagedImageError(f'{path}: {message.format(error=error)}') from None


def check_pixel_count(path: ImageSource, width: int, height: int, max_pixels: int, limit: str
                      ) -> None:
  """Refuses an image of more than `max_pixels`, before it is decoded.

  Args:
    path: named in the message.
    width, height: from the file's header.
    max_pixels: the largest number of pixels that is allowed.
    limit: what the message calls `max_pixels`, such as '--max-pixels'.

  Raises:
    DamagedImageError: the image is larger.
  """
  if height * width > max_pixels:
    raise DamagedImageError(f'{path}: {width}x{height} has {height * width:,} pixels, more than '
                            f'{limit} {max_pixels:,}')


@contextlib.contextmanager
def _open(path: ImageSource, message: str) -> Iterator[Image.Image]:
  """Opens an image of at most MAX_PIXELS; failures become InputErrors with `message`."""
  with convert_read_errors(path, message):
    is_file = isinstance(path, (str, os.PathLike))
    with (open(path, 'rb') if is_file else io.BytesIO(path.read_bytes())) as file:
      image = formats.open_image(file)
      check_pixel_count(path, *formats.stored_size(image), MAX_PIXELS, 'the limit of')
      yield image


def read_image(path: ImageSource) -> np.ndarray:
  """Decodes an image file as a viewer would show it.

  Grey files stay grey; palettes and CMYK become RGB; the EXIF orientation is applied; transparent
  pixels are composited over white, because the colours below them are arbitrary; 16-bit grey is
  scaled to 8 bits (Pillow alone would clip it to white); 16-bit colour keeps its upper bytes,
  which is what Pillow reads.

  Args:
    path: a PNG, JPEG, WebP, BMP or TIFF file, or an object with `read_bytes()` whose str() names
      it, such as a record of a data set.

  Returns:
    uint8 [H, W, 1] or [H, W, 3].

  Raises:
    DamagedImageError: the file is missing, truncated, not an image, or has more than MAX_PIXELS.
    InputError: the disk fails.
  """
  with _open(path, 'damaged image ({error})') as image:
    formats.load_image(image)
    # Read after decoding: a PNG may hold it at its end, and Pillow applies that of a TIFF itself.
    orientation = formats.exif_orientation(image.getexif())
    array = formats.apply_orientation(np.asarray(formats.to_eight_bit(image)), orientation)
  return array[..., None] if array.ndim == 2 else array


def image_size(path: ImageSource) -> tuple[int, int]:
  """Returns (height, width) from the file's header, after the EXIF orientation if it is there.

  Raises:
    DamagedImageError: the file is missing, not an image, or has more than MAX_PIXELS.
  """
  with _open(path, 'not a supported image file') as image:
    width, height = formats.stored_size(image)
    # Pillow decodes a PNG to find an EXIF chunk after the pixels; most files have it before them.
    in_header = image.format != 'PNG' or 'exif' in image.info
    swapped = in_header and formats.swaps_sides(formats.exif_orientation(image.getexif()))
  return (width, height) if swapped else (height, width)


def write_image(path: os.PathLike | str, image: np.ndarray) -> None:
  """Writes uint8 [H, W, 1 or 3] atomically, in the format of the path's suffix."""
  image = image[..., 0] if image.shape[-1] == 1 else image
  with files.atomic_write(path) as temporary:
    Image.fromarray(image).save(temporary)
