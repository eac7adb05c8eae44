"""Pictures: files to arrays and back, colour, and MATLAB-compatible resizing.

Between modules a picture is float [..., H, W, C] in [0, 1]; only this file and the
data bank hold uint8. C is 3 (RGB) or 1 (grey).
"""

import contextlib
import io
import os
import re

import numpy as np
import PIL
from PIL import Image, ImageOps

from sr_jax.errors import InputError
from sr_jax.images import formats
from sr_jax.images.formats import MAX_PIXELS
from sr_jax.system import files

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
      picture = formats.open_picture(file)
      refuse_above(MAX_PIXELS, path, *formats.stored_size(picture), 'the limit of')
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
    formats.load_picture(picture)
    ImageOps.exif_transpose(picture, in_place=True)
    array = np.asarray(formats.to_eight_bit(picture))
  return array[..., None] if array.ndim == 2 else array


def image_size(path) -> tuple[int, int]:
  """(height, width) from the file's header, turned by EXIF as far as the header tells.

  Raises:
    DamagedPicture: the file is missing, no picture or of more than MAX_PIXELS.
  """
  with _opened(path, 'not a picture that can be read') as picture:
    width, height = formats.stored_size(picture)
    # Asking a PNG for its EXIF decodes it, for the tag may come last; commonly it is first.
    early = picture.format != 'PNG' or 'exif' in picture.info
    turned = early and picture.getexif().get(0x0112, 1) >= 5
  return (width, height) if turned else (height, width)


def write_image(path, image: np.ndarray) -> None:
  """Writes uint8 [H, W, 1 or 3] whole or not at all, in the format of the path's suffix."""
  image = image[..., 0] if image.shape[-1] == 1 else image
  with files.atomic_write(path) as temporary:
    Image.fromarray(image).save(temporary)


# Ranges and colour -----------------------------------------------------------------


# Resizing ----------------------------------------------------------------------------


