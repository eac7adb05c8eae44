"""Image files to arrays and back with everything they contain.

`images.read_image` makes training data: 8 bits without transparency. Here 16 bits stay 16, alpha,
EXIF and the colour profile are kept, and whatever cannot be kept is reported.
"""

import dataclasses
import os
import re
import struct
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from sr_jax import images
from sr_jax.errors import InputError, listed
from sr_jax.images import color_tags, dropped, pngs
from sr_jax.images.formats import MAX_PIXELS
from sr_jax.images.metadata import (
  CENTIMETRE,
  INCH,
  INCH_METRES,
  XMP_KEYWORD,
  Resolution,
  resolution_of_exif,
)
from sr_jax.media import tiffs
from sr_jax.media.tiffs import tiff_rows
from sr_jax.system import files

# EXIF tags that do not hold for a copy: width, height, and the offset of another directory.
_STALE_TAGS = (0xA002, 0xA003, 0xA005)
_CHANNELS_WITH_ALPHA = (2, 4)
_MAX_JPEG_SEGMENT = 65_533  # bytes
_MAX_JPEG_XMP = _MAX_JPEG_SEGMENT - 29  # after the name of the segment


@dataclasses.dataclass(frozen=True)
class Photo:
  """An upright image with the metadata of its file."""

  samples: np.ndarray  # uint8 or uint16 [h, w, 1 or 3]; black is 0, white is 255 or 65535
  alpha: np.ndarray | None = None  # [h, w, 1] of the same type; None for an opaque image
  icc: bytes = b''  # colour profile, or b''
  exif: bytes = b''  # without the orientation, which has been applied; or b''
  notes: tuple[str, ...] = ()  # what was lost in reading other than bits, see `dropped`
  bits: int = 8  # per sample in the file, if more than `samples` have
  tags: color_tags.Tags = dataclasses.field(default_factory=dict)  # other colour tags
  xmp: bytes = b''
  text: tuple[tuple[bytes, bytes], ...] = ()  # (name, body) of the text chunks of a PNG
  resolution: Resolution | None = None

  @property
  def note(self) -> str:
    """What was lost in reading."""
    return ', '.join([*self.fewer_bits(8 * self.samples.itemsize), *self.notes])

  def fewer_bits(self, count: int) -> list[str]:
    """Returns the note on samples that are written with `count` bits, if that is a loss."""
    stored = max(self.bits, 8 * self.samples.itemsize)
    return [dropped.bits(stored, count)] if stored > count else []


class Format(NamedTuple):
  """A file format and what it can store."""

  suffix: str
  sixteen_bit: bool
  alpha: bool
  metadata: bool  # EXIF, XMP and colour profile
  resolution: bool
  max_side: int  # pixels


FORMATS = {
    'png': Format('.png', True, True, True, True, 1_000_000),
    'jpeg': Format('.jpg', False, False, True, True, 65_500),  # libjpeg's limit; JPEG's is 65,535
    'webp': Format('.webp', False, True, True, False, 16_383),
    'tiff': Format('.tif', True, True, True, True, 2**31 - 1),
    'bmp': Format('.bmp', False, False, False, True, 2**31 - 1)}


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


def eight_bit_opaque(photo: Photo) -> Photo:
  """Returns the photo as `images.read_image` reads it; `notes` has what that loses in addition."""
  pixels, losses = _convert(photo, FORMATS['jpeg'])
  return dataclasses.replace(photo, samples=pixels, alpha=None, bits=8,
                             notes=(*photo.fewer_bits(8), *losses, *photo.notes))


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


def check_size(path: os.PathLike | str, size: tuple[int, int], format: str) -> None:
  """Raises an InputError if a format is unknown or cannot store an image of (height, width)."""
  if format not in FORMATS:
    raise InputError(f'{path}: format {format!r}, expected one of {listed(list(FORMATS))}')
  if max(size) > FORMATS[format].max_side:
    raise InputError(f'{path}: {size[1]}x{size[0]} is too large for {format}, whose sides are '
                     f'limited to {FORMATS[format].max_side} pixels')


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
  check_size(path, photo.samples.shape[:2], format)
  pixels, losses = _convert(photo, FORMATS[format])
  photo, further_losses = storable(photo, format)
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


def storable(photo: Photo, format: str) -> tuple[Photo, list[str]]:
  """Removes the metadata that a format cannot store.

  The resolution of TIFF and WebP is stored in the EXIF tags.

  Returns:
    (the photo with the metadata that is written; notes of what was removed, and on the bits).
  """
  capability, changes = FORMATS[format], {}
  losses = photo.fewer_bits(8 * photo.samples.itemsize if capability.sixteen_bit else 8)
  if photo.resolution and format in ('tiff', 'webp'):
    changes['exif'] = _with_resolution(photo.exif, photo.resolution)
  too_long = format == 'jpeg' and len(photo.exif) > _MAX_JPEG_SEGMENT
  if photo.exif and (too_long or not capability.metadata):
    losses.append(dropped.EXIF)
    changes['exif'] = b''
  if photo.icc and not capability.metadata:
    losses.append(dropped.ICC)
    changes['icc'] = b''
  too_long = format == 'jpeg' and len(photo.xmp) > _MAX_JPEG_XMP
  if photo.xmp and (too_long or not capability.metadata):
    losses.append(dropped.XMP)
    changes['xmp'] = b''
  if format == 'bmp' and photo.resolution and photo.resolution[2] == 1:
    losses.append(dropped.RESOLUTION)
    changes['resolution'] = None
  if format != 'png':
    losses += color_tags.notes(photo.tags, photo.icc)
    losses += [dropped.TEXT] if photo.text else []
    changes |= {'tags': {}, 'text': ()}
  return dataclasses.replace(photo, **changes), losses


def _with_resolution(exif: bytes, resolution: Resolution) -> bytes:
  """Returns EXIF with the tags of a resolution."""
  changed = Image.Exif()
  changed.load(exif)
  for tag, value in zip(tiffs.RESOLUTION_TAGS, resolution, strict=True):
    changed[tag] = value
  return changed.tobytes()


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


def _convert(photo: Photo, capability: Format) -> tuple[np.ndarray, list[str]]:
  """Converts a photo to the depth and channels that a format can store.

  Returns:
    ([h, w, 1 to 4], alpha last if there is any; descriptions of what was lost).
  """
  samples, alpha, losses = photo.samples, photo.alpha, []
  white = np.iinfo(samples.dtype).max
  if alpha is not None and not capability.alpha:
    if (alpha < white).any():
      losses.append(dropped.ALPHA)
      samples = images.over_white(samples, alpha)
    alpha = None
  if white > 255 and not capability.sixteen_bit:
    samples, alpha = (None if array is None else images.eight_bit(array)
                      for array in (samples, alpha))
  pixels = samples if alpha is None else np.concatenate([samples, alpha], -1)
  return np.ascontiguousarray(pixels), losses


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
