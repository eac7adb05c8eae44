"""Reads and writes image files as arrays of samples, for training and evaluation.

`sr_jax.media.photos` reads and writes files with alpha, 16 bits, EXIF and colour profiles.
"""

import contextlib
import importlib.util
import io
import os
import re
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import PIL
from PIL import Image

from sr_jax.errors import InputError
from sr_jax.images import decoders, dropped, formats
from sr_jax.images.decoders import OpenImage
from sr_jax.images.formats import MAX_PIXELS
from sr_jax.images.samples import eight_bit, is_opaque, over_white
from sr_jax.system import files

HEIF_SUFFIXES = ('.heic', '.heif', '.hif')  # readable where pillow-heif is installed
SUFFIXES = ('.png', '.jpg', '.jpeg', '.jfif', '.webp', '.bmp', '.tif', '.tiff', '.gif', '.avif',
            '.jxl', '.jp2', '.j2k', '.j2c', '.jpc', '.jpx', '.jpf',
            *(HEIF_SUFFIXES if importlib.util.find_spec('pillow_heif') else ()))


class EncodedImage(Protocol):
  """An encoded image that is not a file of its own, such as a record of a data set.

  Its str() names it in messages.
  """

  def read_bytes(self) -> bytes: ...


ImageSource = os.PathLike | str | EncodedImage


class Samples(NamedTuple):
  """The decoded samples of an image."""

  array: np.ndarray  # uint8 [H, W, 1 or 3]; of `read_samples` uint8 or uint16
  notes: list[str]  # what was lost in reading, see `dropped`


class DamagedImageError(InputError):
  """An image that is missing, truncated, too large, unsupported or not an image.

  Callers may skip it.
  """


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
  except formats.UnsupportedError as error:
    raise DamagedImageError(f'{path}: unsupported: {error}') from None
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
def open_image(path: ImageSource, max_pixels: int = MAX_PIXELS, limit: str = 'the limit of'
               ) -> Iterator[OpenImage]:
  """Yields the open file; failures inside become InputErrors that name it.

  Args:
    path: a file, or an object with `read_bytes()`.
    max_pixels: the largest number of pixels that is allowed.
    limit: what a message calls `max_pixels`.

  Raises:
    DamagedImageError: the file is missing, not an image, damaged, unsupported, or has more than
      `max_pixels`.
    InputError: the disk fails.
  """
  with convert_read_errors(path, 'damaged image ({error})'):
    is_file = isinstance(path, (str, os.PathLike))
    with (open(path, 'rb') if is_file else io.BytesIO(path.read_bytes()) as file,
          decoders.open_file(file) as image):
      check_pixel_count(path, image.width, image.height, max_pixels, limit)
      yield image


def read_samples(path: ImageSource) -> Samples:
  """Decodes the colours of an image as they are stored, without alpha.

  Returns:
    Samples whose array is uint8, or uint16 for files of more than 8 bits, [H, W, 1 or 3].

  Raises:
    DamagedImageError, InputError: as `read_image`.
  """
  array, bits, notes = _decode(path)
  depth = 8 * array.itemsize
  notes = [dropped.bits(bits, depth)] * (bits > depth) + notes
  if array.shape[-1] in (2, 4):
    notes = [dropped.ALPHA_IGNORED] * (not is_opaque(array[..., -1:])) + notes
    array = array[..., :-1]
  return Samples(np.ascontiguousarray(array), notes)


def read_with_notes(path: ImageSource) -> Samples:
  """Decodes an image as `read_image` does; also returns what was lost."""
  array, bits, notes = _decode(path)
  notes = [dropped.bits(bits, 8)] * (bits > 8) + notes
  if array.shape[-1] in (2, 4):
    notes = [dropped.ALPHA] * (not is_opaque(array[..., -1:])) + notes
    array = over_white(array[..., :-1], array[..., -1:])
  if array.dtype != np.uint8:
    array = eight_bit(array)
  return Samples(np.ascontiguousarray(array), notes)


def read_image(path: ImageSource) -> np.ndarray:
  """Decodes an image file as a viewer would show it.

  Grey files stay grey; palettes, CMYK and Lab become RGB; the EXIF orientation is applied;
  transparent pixels are composited over white, because the colours below them are arbitrary; more
  than 8 bits are rounded to 8. Of several frames the first is read.

  Args:
    path: a file with one of `SUFFIXES`, or an object with `read_bytes()` whose str() names it, such
      as a record of a data set.

  Returns:
    uint8 [H, W, 1] or [H, W, 3].

  Raises:
    DamagedImageError: the file is missing, truncated, unsupported, not an image, or has more than
      MAX_PIXELS.
    InputError: the disk fails.
  """
  return read_with_notes(path).array


def header_notes(path: ImageSource) -> list[str]:
  """Returns what `read_image` loses of a file, as far as its header shows it.

  Alpha counts as lost although it may turn out to be opaque.

  Raises:
    DamagedImageError: the file is missing, not an image, or has more than MAX_PIXELS.
  """
  with open_image(path) as image:
    return decoders.header_notes(image)


def image_size(path: ImageSource) -> tuple[int, int]:
  """Returns (height, width) of the upright image from the file's header.

  Raises:
    DamagedImageError: the file is missing, not an image, or has more than MAX_PIXELS.
  """
  with open_image(path) as image:
    return image.height, image.width


def _decode(path: ImageSource) -> tuple[np.ndarray, int, list[str]]:
  """Returns (uint8 or uint16 [H, W, 1 to 4], alpha last; bits as stored; notes)."""
  with open_image(path) as image:
    array, notes = image.decode()
    notes = [note for note in (*image.notes, *notes, *decoders.color_notes(image),
                               image.frame_note()) if note]
    return array, image.bits, notes


def write_image(path: os.PathLike | str, image: np.ndarray) -> None:
  """Writes uint8 [H, W, 1 or 3] atomically, in the format of the path's suffix."""
  image = image[..., 0] if image.shape[-1] == 1 else image
  with files.atomic_write(path) as temporary:
    Image.fromarray(image).save(temporary)
