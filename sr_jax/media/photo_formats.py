"""Photos with their metadata, and what of them each file format can store."""

import dataclasses
import os
from typing import NamedTuple

import numpy as np
from PIL import Image

from sr_jax import images
from sr_jax.errors import InputError, listed
from sr_jax.images import color_tags, dropped
from sr_jax.images.metadata import Resolution
from sr_jax.media import tiffs

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
  max_side: int  # pixels


FORMATS = {
    'png': Format('.png', True, True, True, 1_000_000),
    'jpeg': Format('.jpg', False, False, True, 65_500),  # libjpeg's limit; JPEG's is 65,535
    'webp': Format('.webp', False, True, True, 16_383),
    'tiff': Format('.tif', True, True, True, 2**31 - 1),
    'bmp': Format('.bmp', False, False, False, 2**31 - 1)}


def check_size(path: os.PathLike | str, size: tuple[int, int], format: str) -> None:
  """Raises an InputError if a format is unknown or cannot store an image of (height, width)."""
  if format not in FORMATS:
    raise InputError(f'{path}: format {format!r}, expected one of {listed(list(FORMATS))}')
  if max(size) > FORMATS[format].max_side:
    raise InputError(f'{path}: {size[1]}x{size[0]} is too large for {format}, whose sides are '
                     f'limited to {FORMATS[format].max_side} pixels')


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


def convert(photo: Photo, capability: Format) -> tuple[np.ndarray, list[str]]:
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


def eight_bit_opaque(photo: Photo) -> Photo:
  """Returns the photo as `images.read_image` reads it; `notes` has what that loses in addition."""
  pixels, losses = convert(photo, FORMATS['jpeg'])
  return dataclasses.replace(photo, samples=pixels, alpha=None, bits=8,
                             notes=(*photo.fewer_bits(8), *losses, *photo.notes))
