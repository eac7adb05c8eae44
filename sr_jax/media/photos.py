"""Picture files as people have them, to arrays and back with all that they hold.

`images.read_image` makes training data: 8 bits, no transparency. Here nothing is flattened:
16 bits stay 16, alpha, EXIF and the colour profile are kept, and what can't be is said.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from sr_jax.errors import InputError, listed
from sr_jax.images.formats import MAX_PIXELS
from sr_jax.media import decoders, pngs, tiffs
from sr_jax.media.tiffs import tiff_rows
from sr_jax.system import files

_STALE = (0xA002, 0xA003, 0xA005)  # of an EXIF: the size, and an offset to one more directory
_TRANSPARENT = (2, 4)  # channels, with alpha


@dataclasses.dataclass(frozen=True)
class Photo:
  """A picture, upright, and what its file said about it."""

  samples: np.ndarray  # uint8 or uint16 [h, w, 1 or 3], 0 is black, 255 or 65535 white
  alpha: np.ndarray | None = None  # [h, w, 1] of the same type; None if nothing is transparent
  icc: bytes = b''  # the colour profile, or nothing
  exif: bytes = b''  # without the orientation, which has been applied; or nothing
  note: str = ''  # what was lost in reading, in words: 'the first of 12 frames'


class Format(NamedTuple):
  """A format of files and what it can hold."""

  suffix: str
  deep: bool  # 16 bits
  alpha: bool
  tags: bool  # EXIF and colour profile
  longest: int  # pixels of a side


FORMATS = {
    'png': Format('.png', True, True, True, 1_000_000),
    'jpeg': Format('.jpg', False, False, True, 65_500),  # libjpeg's; the format's is 65,535
    'webp': Format('.webp', False, True, True, 16_383),
    'tiff': Format('.tif', True, True, True, 2**31 - 1),
    'bmp': Format('.bmp', False, False, False, 2**31 - 1)}


# Reading -------------------------------------------------------------------------------


def size(path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
  """(height, width), upright as `read` will give it, from the header.

  Raises:
    InputError: as `read`, as far as the header tells.
  """
  with decoders.opened(path, max_pixels) as opened:
    turned = _orientation(opened.exif) in (5, 6, 7, 8)
    return (opened.width, opened.height) if turned else (opened.height, opened.width)


def read(path, max_pixels: int = MAX_PIXELS) -> Photo:
  """Decodes PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF, whatever the suffix says.

  Grey stays one channel, palettes become RGB, CMYK and Lab become sRGB, by the profile that the
  file has; floats in [0, 1] become 16 bits. Of several frames or pages the first is taken.

  Raises:
    DamagedPicture: the file is missing, no picture, cut off or larger than `max_pixels`.
    InputError: the disk fails, or the memory doesn't suffice.
  """
  try:
    with decoders.opened(path, max_pixels) as opened:
      exif, lost = _descriptive(opened.exif)  # before Pillow turns a TIFF and forgets that
      array, more = opened.decode()
      array = _upright(array, _orientation(opened.exif))
      frames = opened.frames()
      lost += more + ([f'the first of {frames} frames'] if frames > 1 else [])
  except MemoryError:
    raise InputError(f'{path}: not enough memory to read it') from None
  alpha = array[..., -1:] if array.shape[-1] in _TRANSPARENT else None
  samples = array if alpha is None else array[..., :-1]
  icc, space = opened.icc, opened.icc[16:20]  # which PNG's readers refuse if it isn't the samples'
  if space in {1: (b'RGB ', b'CMYK', b'Lab '), 3: (b'GRAY', b'CMYK', b'Lab ')}[samples.shape[-1]]:
    icc = b''
    lost.append(f'a colour profile of {space.decode().strip()} left out')
  return Photo(samples, alpha, icc, exif, ', '.join(lost))


def _descriptive(exif: Image.Exif | None) -> tuple[bytes, list[str]]:
  """What of an EXIF is true of any copy of the picture; what was lost, in words."""
  kept = Image.Exif()
  try:
    for tag in (*tiffs.DESCRIPTIVE, *tiffs.RESOLUTION):
      # In place of words, microscopes and tifffile put there what shape the file's arrays have.
      if tag in exif and not str(exif[tag]).startswith(('{', '<', 'ImageJ=')):
        kept[tag] = exif[tag]
    for group in tiffs.DIRECTORIES:
      values = {tag: value for tag, value in exif.get_ifd(group).items() if tag not in _STALE}
      if values:
        kept[group] = values
    return kept.tobytes() if len(kept) else b'', []
  except Exception:  # it could not be read, or Pillow can't write what it could read
    return b'', ['damaged EXIF left out']


def _orientation(exif: Image.Exif | None) -> int:
  try:
    return exif.get(0x0112, 1)
  except Exception:  # none, or that is damaged
    return 1


def _upright(array: np.ndarray, orientation) -> np.ndarray:
  """Applies an EXIF orientation; what is none of 2 ... 8 says nothing."""
  if orientation in (5, 6, 7, 8):
    array = array.swapaxes(0, 1)
  if orientation in (3, 4, 7, 8):
    array = array[::-1]
  if orientation in (2, 3, 6, 7):
    array = array[:, ::-1]
  return np.ascontiguousarray(array)


def bleed(samples: np.ndarray, alpha: np.ndarray) -> np.ndarray:
  """Gives what is wholly transparent the colour of the nearest pixel that is not.

  A network, or any filter, would else draw a fringe of the arbitrary colours that lie there.

  Args:
    samples: [h, w, C].
    alpha: [h, w, 1].

  Returns:
    Like samples; the same where alpha is nowhere, or everywhere, zero.
  """
  hidden = alpha[..., 0] == 0
  if hidden.all() or not hidden.any():
    return samples
  rows, columns = ndimage.distance_transform_edt(hidden, return_distances=False,
                                                 return_indices=True)
  return samples[rows, columns]


# Writing -------------------------------------------------------------------------------


def write(path, photo: Photo, format: str, quality: int = 95) -> str:
  """Writes a photo whole or not at all, in one of `FORMATS`, whatever the suffix says.

  Args:
    quality: of JPEG and WebP, 1 to 100; a WebP of 100 is without loss.

  Returns:
    What could not be kept, in words, or ''.

  Raises:
    InputError: the format is unknown or can't hold a picture so large; it can't be written.
  """
  if format not in FORMATS:
    raise InputError(f'{path}: format {format!r}, expected one of {listed(list(FORMATS))}')
  holds, (height, width) = FORMATS[format], photo.samples.shape[:2]
  if max(height, width) > holds.longest:
    raise InputError(f'{path}: {width}x{height} is too large for {format}, which holds sides '
                     f'of up to {holds.longest}')
  pixels, lost = _fitting(photo, holds)
  icc, exif = (photo.icc, photo.exif) if holds.tags else (b'', b'')
  if format == 'jpeg' and len(exif) > 65_533:
    exif = b''
  try:
    if format == 'tiff':
      with tiff_rows(path, *pixels.shape, pixels.dtype, icc, exif) as write_rows:
        write_rows(pixels)
    else:
      with files.atomic_write(path) as temporary:
        if format == 'png':
          temporary.write_bytes(pngs.encode(pixels, icc, exif))
        else:
          picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
          tags = {'icc_profile': icc, 'exif': exif}
          picture.save(temporary, format, **{key: tag for key, tag in tags.items() if tag},
                       **_options(format, quality))
  except InputError:
    raise
  except MemoryError:
    raise InputError(f'{path}: not enough memory to write it') from None
  except Exception as error:
    raise InputError(f'{path}: can not be written as {format} ({error})') from None
  lost += ['the colour profile was left out'] if photo.icc and not icc else []
  lost += ['EXIF was left out'] if photo.exif and not exif else []
  return ', '.join(lost)


def _fitting(photo: Photo, holds: Format) -> tuple[np.ndarray, list[str]]:
  """[h, w, 1 to 4] of a depth that the format holds, alpha last or gone; what was lost."""
  samples, alpha, lost = photo.samples, photo.alpha, []
  most = np.iinfo(samples.dtype).max
  if alpha is not None and not holds.alpha:
    if (alpha < most).any():
      lost.append('transparency was laid over white')
      samples = _over_white(samples, alpha)
    alpha = None
  if most > 255 and not holds.deep:
    lost.append('16 bits became 8')
    samples, alpha = _eight_bit(samples), None if alpha is None else _eight_bit(alpha)
  pixels = samples if alpha is None else np.concatenate([samples, alpha], -1)
  return np.ascontiguousarray(pixels), lost


def _over_white(samples: np.ndarray, alpha: np.ndarray) -> np.ndarray:
  most = np.uint32(np.iinfo(samples.dtype).max)  # its square, and half of it, is below 2^32
  mixed = samples * np.uint32(alpha) + most * (most - alpha)
  return ((mixed + most // 2) // most).astype(samples.dtype)


def _eight_bit(samples: np.ndarray) -> np.ndarray:
  return np.uint8((np.uint32(samples) + 128) // 257)


def _options(format: str, quality: int) -> dict:
  """Of Pillow's writers."""
  return {'jpeg': {'quality': quality, 'subsampling': 0 if quality >= 90 else 2},
          # Without loss, quality is the time spent. exact: colours below alpha 0 are kept too.
          'webp': {'lossless': True, 'exact': True} if quality == 100 else
                  {'quality': quality, 'exact': True},
          'bmp': {}}[format]
