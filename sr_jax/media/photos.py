"""Image files to arrays and back with everything they contain.

`images.read_image` makes training data: 8 bits without transparency. Here 16 bits stay 16, alpha
and metadata are kept, and whatever cannot be kept is reported.
"""

import os
import re
import struct
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from sr_jax import images
from sr_jax.errors import InputError
from sr_jax.images import color_tags, dropped, pngs
from sr_jax.images.formats import MAX_PIXELS
from sr_jax.images.metadata import (
  CENTIMETRE,
  INCH,
  INCH_METRES,
  XMP_KEYWORD,
  resolution_of_exif,
)
from sr_jax.media import photo_formats, tiffs
from sr_jax.media.photo_formats import FORMATS, Photo
from sr_jax.media.tiffs import tiff_rows
from sr_jax.system import files

# EXIF tags that do not hold for a copy: width, height, and the offset of another directory.
_STALE_TAGS = (0xA002, 0xA003, 0xA005)
_CHANNELS_WITH_ALPHA = (2, 4)


# Reading -------------------------------------------------------------------------------


def size(path: os.PathLike | str, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
  """Returns (height, width) of the upright image that `read` returns, from the header.

  Raises:
    InputError: as `read`, as far as the header shows it.
  """
  with images.open_image(path, max_pixels, '--max-pixels') as image:
    return image.height, image.width


def read(path: os.PathLike | str, max_pixels: int = MAX_PIXELS) -> Photo:
  """Decodes any image file with one of `images.SUFFIXES`; the suffix does not matter.

  Grey stays one channel, palettes become RGB, CMYK and Lab become sRGB (CMYK by the profile in the
  file), floats in [0, 1] become 16 bits. Of several frames or pages the first is read.

  Raises:
    DamagedImageError: the file is missing, not an image, truncated, unsupported or larger than
      `max_pixels`.
    InputError: the disk fails, or there is not enough memory.
  """
  try:
    with images.open_image(path, max_pixels, '--max-pixels') as image:
      # Before decoding, in which Pillow rotates a TIFF and deletes its orientation tag.
      exif, losses = _portable_exif(image.metadata.exif)
      array, notes = image.decode()
      losses += [*image.notes, *notes, *image.metadata.notes]
      losses += filter(None, [image.frame_note()])
  except MemoryError:
    raise InputError(f'{path}: not enough memory to read it') from None
  alpha = array[..., -1:] if array.shape[-1] in _CHANNELS_WITH_ALPHA else None
  samples = array if alpha is None else array[..., :-1]
  metadata = image.metadata
  icc, space = metadata.icc, metadata.icc[16:20]
  # PNG readers refuse a profile for another colour space than that of the samples.
  if icc and space != (b'GRAY' if samples.shape[-1] == 1 else b'RGB '):
    icc = b''
    if space not in (b'CMYK', b'Lab '):  # of which the samples have been converted
      losses.append(dropped.ICC)
  return Photo(samples, alpha, icc, exif, tuple(losses), image.bits, metadata.tags,
               _upright_xmp(metadata.xmp), metadata.text,
               metadata.resolution or resolution_of_exif(metadata.exif))


def _upright_xmp(xmp: bytes) -> bytes:
  """Returns XMP for samples that the orientation was applied to."""
  return re.sub(rb'(tiff:Orientation(?:="|=\'|>))[2-8]', rb'\g<1>1', xmp)


def _portable_exif(exif: Image.Exif | None) -> tuple[bytes, list[str]]:
  """Returns the tags that hold for any copy of the image, and descriptions of what was lost."""
  copied = Image.Exif()
  try:
    for tag in (*tiffs.DESCRIPTIVE_TAGS, *tiffs.RESOLUTION_TAGS):
      # Microscopes and tifffile store the shape of the file's arrays in the text tags.
      if tag in exif and not str(exif[tag]).startswith(('{', '<', 'ImageJ=')):
        copied[tag] = exif[tag]
    for directory in tiffs.DIRECTORY_TAGS:
      values = {tag: value for tag, value in exif.get_ifd(directory).items()
                if tag not in _STALE_TAGS}
      if values:
        copied[directory] = values
    return copied.tobytes() if len(copied) else b'', []
  except Exception:  # it could not be read, or Pillow cannot write the values that it has read
    return b'', [dropped.DAMAGED_EXIF]


def bleed(samples: np.ndarray, alpha: np.ndarray) -> np.ndarray:
  """Gives fully transparent pixels the colour of the nearest other pixel.

  Their colours are arbitrary, and a network, or any filter, would mix them into the edges.

  Args:
    samples: [h, w, C].
    alpha: [h, w, 1].

  Returns:
    An array like `samples`; `samples` itself if alpha is zero nowhere or everywhere.
  """
  hidden = alpha[..., 0] == 0
  if hidden.all() or not hidden.any():
    return samples
  rows, columns = ndimage.distance_transform_edt(hidden, return_distances=False,
                                                 return_indices=True)
  return samples[rows, columns]


# Writing -------------------------------------------------------------------------------


def write(path: os.PathLike | str, photo: Photo, format: str, quality: int = 95) -> str:
  """Writes a photo atomically in one of `FORMATS`; the suffix does not matter.

  Args:
    path: file to write.
    photo: image and metadata.
    format: a key of `FORMATS`.
    quality: of JPEG and WebP, 1 to 100; WebP with 100 is lossless.

  Returns:
    What could not be kept, or ''.

  Raises:
    InputError: the format is unknown or cannot store an image of this size, or the file cannot be
      written.
  """
  photo_formats.check_size(path, photo.samples.shape[:2], format)
  pixels, losses = photo_formats.convert(photo, FORMATS[format])
  photo, further_losses = photo_formats.storable(photo, format)
  try:
    if format == 'tiff':
      with tiff_rows(path, pixels.shape, pixels.dtype, photo.icc, photo.exif, photo.xmp
                     ) as write_rows:
        write_rows(pixels)
    else:
      with files.atomic_write(path) as temporary:
        if format == 'png':
          temporary.write_bytes(pngs.encode(pixels, photo.icc, photo.exif, _png_chunks(photo)))
        else:
          image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
          image.save(temporary, format, **_encoder_options(photo, format, quality))
  except InputError:
    raise
  except MemoryError:
    raise InputError(f'{path}: not enough memory to write it') from None
  except Exception as error:
    raise InputError(f'{path}: cannot write as {format} ({error})') from None
  return ', '.join(losses + further_losses)


def _png_chunks(photo: Photo) -> list[tuple[bytes, bytes]]:
  """Returns the chunks of a PNG for everything but the profile and EXIF."""
  chunks = [(name, photo.tags[name]) for name in color_tags.CHUNKS if name in photo.tags]
  if photo.resolution:
    x, y, unit = photo.resolution
    per_metre = {1: 1, INCH: INCH_METRES, CENTIMETRE: 0.01}[unit]
    sides = [min(max(round(side / per_metre), 1), 2**31 - 1) for side in (x, y)]
    chunks.append((b'pHYs', struct.pack('>IIB', *sides, unit != 1)))
  if photo.xmp:
    chunks.append((b'iTXt', XMP_KEYWORD + bytes(5) + photo.xmp))
  return chunks + list(photo.text)


def _encoder_options(photo: Photo, format: str, quality: int) -> dict[str, Any]:
  """Returns the options of Pillow's encoder: its quality, and the metadata."""
  options = {'jpeg': {'quality': quality, 'subsampling': 0 if quality >= 90 else 2},
             # In lossless mode, quality is the effort. exact keeps the colours below zero alpha.
             'webp': {'lossless': True, 'exact': True} if quality == 100 else
                     {'quality': quality, 'exact': True},
             'bmp': {}}[format]
  stored = {'icc_profile': photo.icc, 'exif': photo.exif, 'xmp': photo.xmp}
  if photo.resolution and format in ('jpeg', 'bmp') and photo.resolution[2] != 1:
    to_inches = INCH_METRES / 0.01 if photo.resolution[2] == CENTIMETRE else 1
    stored['dpi'] = tuple(side * to_inches for side in photo.resolution[:2])
  return options | {key: value for key, value in stored.items() if value}
