"""Image files to arrays and back with everything they contain.

`images.read_image` makes training data: 8 bits without transparency. Here 16 bits stay 16, alpha,
EXIF and the colour profile are kept, and whatever cannot be kept is reported.
"""

import dataclasses
import os
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from sr_jax.errors import InputError, listed
from sr_jax.images import formats
from sr_jax.images.formats import MAX_PIXELS
from sr_jax.media import decoders, pngs, tiffs
from sr_jax.media.tiffs import tiff_rows
from sr_jax.system import files

# EXIF tags that do not hold for a copy: width, height, and the offset of another directory.
_STALE_TAGS = (0xA002, 0xA003, 0xA005)
_CHANNELS_WITH_ALPHA = (2, 4)
_MAX_JPEG_EXIF = 65_533  # bytes in one segment


@dataclasses.dataclass(frozen=True)
class Photo:
  """An upright image with the metadata of its file."""

  samples: np.ndarray  # uint8 or uint16 [h, w, 1 or 3]; black is 0, white is 255 or 65535
  alpha: np.ndarray | None = None  # [h, w, 1] of the same type; None for an opaque image
  icc: bytes = b''  # colour profile, or b''
  exif: bytes = b''  # without the orientation, which has been applied; or b''
  note: str = ''  # what was lost in reading, such as 'only the first of 12 frames is used'


class Format(NamedTuple):
  """A file format and what it can store."""

  suffix: str
  sixteen_bit: bool
  alpha: bool
  metadata: bool  # EXIF and colour profile
  max_side: int  # pixels


FORMATS = {
    'png': Format('.png', True, True, True, 1_000_000),
    'jpeg': Format('.jpg', False, False, True, 65_500),  # libjpeg's limit; the format's is 65,535
    'webp': Format('.webp', False, True, True, 16_383),
    'tiff': Format('.tif', True, True, True, 2**31 - 1),
    'bmp': Format('.bmp', False, False, False, 2**31 - 1)}


# Reading -------------------------------------------------------------------------------


def size(path: os.PathLike | str, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
  """Returns (height, width) of the upright image that `read` returns, from the header.

  Raises:
    InputError: as `read`, as far as the header shows it.
  """
  with decoders.open_image(path, max_pixels) as image:
    swapped = formats.swaps_sides(_orientation(image.exif))
    return (image.width, image.height) if swapped else (image.height, image.width)


def read(path: os.PathLike | str, max_pixels: int = MAX_PIXELS) -> Photo:
  """Decodes PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF; the suffix does not matter.

  Grey stays one channel, palettes become RGB, CMYK and Lab become sRGB (CMYK by the profile in the
  file), floats in [0, 1] become 16 bits. Of several frames or pages the first is read.

  Raises:
    DamagedImageError: the file is missing, not an image, truncated or larger than `max_pixels`.
    InputError: the disk fails, or there is not enough memory.
  """
  try:
    with decoders.open_image(path, max_pixels) as image:
      # Before decoding, in which Pillow rotates a TIFF and deletes its orientation tag.
      exif, losses = _portable_exif(image.exif)
      array, decoding_losses = image.decode()
      array = formats.apply_orientation(array, _orientation(image.exif))
      losses += decoding_losses
      frames = image.count_frames()
      if frames > 1:
        losses.append(f'only the first of {frames} frames is used')
  except MemoryError:
    raise InputError(f'{path}: not enough memory to read it') from None
  alpha = array[..., -1:] if array.shape[-1] in _CHANNELS_WITH_ALPHA else None
  samples = array if alpha is None else array[..., :-1]
  # PNG readers refuse a profile for another colour space than that of the samples.
  icc, space = image.icc, image.icc[16:20]
  if space in {1: (b'RGB ', b'CMYK', b'Lab '), 3: (b'GRAY', b'CMYK', b'Lab ')}[samples.shape[-1]]:
    icc = b''
    losses.append(f'the {space.decode().strip()} colour profile was dropped')
  return Photo(samples, alpha, icc, exif, ', '.join(losses))


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
    return b'', ['damaged EXIF was dropped']


def _orientation(exif: Image.Exif | None) -> object:
  """Returns the EXIF orientation, 1 if there is none or it is damaged."""
  try:
    return formats.exif_orientation(exif)
  except Exception:
    return 1


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
  if format not in FORMATS:
    raise InputError(f'{path}: format {format!r}, expected one of {listed(list(FORMATS))}')
  capability, (height, width) = FORMATS[format], photo.samples.shape[:2]
  if max(height, width) > capability.max_side:
    raise InputError(f'{path}: {width}x{height} is too large for {format}, whose sides are limited '
                     f'to {capability.max_side} pixels')
  pixels, losses = _convert(photo, capability)
  icc, exif = (photo.icc, photo.exif) if capability.metadata else (b'', b'')
  if format == 'jpeg' and len(exif) > _MAX_JPEG_EXIF:
    exif = b''
  try:
    if format == 'tiff':
      with tiff_rows(path, pixels.shape, pixels.dtype, icc, exif) as write_rows:
        write_rows(pixels)
    else:
      with files.atomic_write(path) as temporary:
        if format == 'png':
          temporary.write_bytes(pngs.encode(pixels, icc, exif))
        else:
          image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
          metadata = {'icc_profile': icc, 'exif': exif}
          image.save(temporary, format, **{key: value for key, value in metadata.items() if value},
                     **_encoder_options(format, quality))
  except InputError:
    raise
  except MemoryError:
    raise InputError(f'{path}: not enough memory to write it') from None
  except Exception as error:
    raise InputError(f'{path}: cannot write as {format} ({error})') from None
  losses += ['the colour profile was dropped'] if photo.icc and not icc else []
  losses += ['EXIF was dropped'] if photo.exif and not exif else []
  return ', '.join(losses)


def _convert(photo: Photo, capability: Format) -> tuple[np.ndarray, list[str]]:
  """Converts a photo to the depth and channels that a format can store.

  Returns:
    ([h, w, 1 to 4], alpha last if there is any; descriptions of what was lost).
  """
  samples, alpha, losses = photo.samples, photo.alpha, []
  white = np.iinfo(samples.dtype).max
  if alpha is not None and not capability.alpha:
    if (alpha < white).any():
      losses.append('transparency was composited over white')
      samples = _over_white(samples, alpha)
    alpha = None
  if white > 255 and not capability.sixteen_bit:
    losses.append('16 bits were reduced to 8')
    samples, alpha = _eight_bit(samples), None if alpha is None else _eight_bit(alpha)
  pixels = samples if alpha is None else np.concatenate([samples, alpha], -1)
  return np.ascontiguousarray(pixels), losses


def _over_white(samples: np.ndarray, alpha: np.ndarray) -> np.ndarray:
  white = np.uint32(np.iinfo(samples.dtype).max)  # white * white + white / 2 is below 2^32
  mixed = samples * np.uint32(alpha) + white * (white - alpha)
  return ((mixed + white // 2) // white).astype(samples.dtype)


def _eight_bit(samples: np.ndarray) -> np.ndarray:
  return np.uint8((np.uint32(samples) + 128) // 257)


def _encoder_options(format: str, quality: int) -> dict[str, Any]:
  """Returns the options of Pillow's encoder."""
  return {'jpeg': {'quality': quality, 'subsampling': 0 if quality >= 90 else 2},
          # In lossless mode, quality is the effort. exact keeps the colours below zero alpha.
          'webp': {'lossless': True, 'exact': True} if quality == 100 else
                  {'quality': quality, 'exact': True},
          'bmp': {}}[format]
