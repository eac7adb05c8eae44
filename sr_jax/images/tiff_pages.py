"""Reads TIFF files that Pillow cannot, and recognises raw files of cameras.

Pillow reads integers of up to 8 bits without channels other than colour and alpha.
"""

import pathlib

import numpy as np
import tifffile
from PIL import Image

from sr_jax.images import dropped, samples
from sr_jax.images.formats import UnsupportedError

SIGNATURES = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
# Raw files that are TIFF files; some have nothing else that tells them from other TIFF files.
RAW_SUFFIXES = ('.3fr', '.arw', '.cr2', '.dcr', '.dng', '.erf', '.fff', '.iiq', '.k25', '.kdc',
                '.mef', '.mos', '.nef', '.nrw', '.pef', '.rwl', '.sr2', '.srf', '.srw')
_REDUCED = 1  # bit of tag 254: the page is a smaller version of another one
_DNG_VERSION = 50706
_RAW_PHOTOMETRICS = (32803, 34892)  # colour filter array, linear raw
_COLORS = {0: 1, 1: 1, 2: 3}  # photometric: number of colours
_ALPHA_KINDS = (1, 2)  # of extra samples: premultiplied alpha, alpha


def refuse_raw(tiff: tifffile.TiffFile) -> None:
  """Refuses a raw file of a camera, whose first page is often a thumbnail or a preview.

  Raises:
    UnsupportedError: the file is a DNG, or its first page is a smaller version of another image or
      holds samples of a sensor.
  """
  page = tiff.pages.first
  try:
    others = [*(page.pages or ()), *tiff.pages[1:2]]
  except Exception:  # damaged pages that are not read
    others = []
  others = [other for other in others if isinstance(other, tifffile.TiffPage)]
  named = pathlib.PurePath(str(getattr(tiff.filehandle, 'name', ''))).suffix.lower()
  if (_DNG_VERSION in page.tags or named in RAW_SUFFIXES
      or any(other.photometric in _RAW_PHOTOMETRICS for other in (page, *others))):
    raise UnsupportedError('a raw file of a camera; convert it to TIFF or JPEG first')
  largest = max((other.imagewidth * other.imagelength for other in others), default=0)
  if page.subfiletype & _REDUCED and largest > page.imagewidth * page.imagelength:
    raise UnsupportedError(f'its first page, {page.imagewidth}x{page.imagelength}, is a thumbnail '
                           'of another page; convert the file to an ordinary TIFF first')


def unusual_page(tiff: tifffile.TiffFile) -> tifffile.TiffPage | None:
  """Returns the first page if it is grey or RGB in a form that Pillow would not read completely."""
  page = tiff.pages.first
  if page.photometric not in _COLORS:
    return None
  unusual = (np.max(page.bitspersample) > 8 or int(page.sampleformat or 1) != 1
             or page.samplesperpixel - _COLORS[page.photometric] != sum(
                 int(kind) in _ALPHA_KINDS for kind in page.extrasamples))
  return page if unusual else None


def has_alpha(page: tifffile.TiffPage) -> bool:
  """Returns whether a page of `unusual_page` has an alpha channel."""
  return any(int(kind) in _ALPHA_KINDS for kind in page.extrasamples)


def header_notes(page: tifffile.TiffPage) -> list[str]:
  """Returns which channels of a page of `unusual_page` are not used."""
  spare = page.samplesperpixel - _COLORS[page.photometric] - has_alpha(page)
  return [dropped.channels(spare, page.samplesperpixel)] if spare > 0 else []


def page_exif(tiff: tifffile.TiffFile) -> Image.Exif:
  """Returns the tags of the first page as Pillow would return them."""
  exif = Image.Exif()
  try:
    exif.bigtiff, exif.endian = tiff.is_bigtiff, tiff.byteorder
    exif.load_from_fp(tiff.filehandle, tiff.pages.first.offset)
  except Exception:  # Pillow fails for a big-endian BigTIFF
    exif = Image.Exif()
    exif[274] = tiff.pages.first.tags.valueof(274, 1)  # orientation
  return exif


def decode(page: tifffile.TiffPage) -> tuple[np.ndarray, list[str]]:
  """Decodes a page of `unusual_page`, without applying its orientation.

  More than 8 bits are scaled to 16, white to 65535; floats are assumed to be in [0, 1].

  Returns:
    (uint8 or uint16 [h, w, 1 to 4], alpha last and not premultiplied; notes on clipped values).

  Raises:
    UnsupportedError: the samples are of a type or shape that is not an image's.
    Exception: the errors of tifffile and its decoders.
  """
  array = page.asarray()
  array = np.moveaxis(array, page.axes.index('S'), -1) if 'S' in page.axes else array[..., None]
  if array.ndim != 3:
    raise UnsupportedError(f'a volume of shape {array.shape}')
  colors = _COLORS[page.photometric]
  kinds = [int(kind) for kind in page.extrasamples]
  alpha_index = next((i for i, kind in enumerate(kinds) if kind in _ALPHA_KINDS), None)
  channels = [*range(colors), *([] if alpha_index is None else [colors + alpha_index])]
  if channels != list(range(array.shape[-1])):
    array = array[..., channels]
  array, notes = samples.to_full_range(array, int(np.max(page.bitspersample)))
  if page.photometric == 0:  # white is zero
    array = array.copy()
    array[..., 0] = np.iinfo(array.dtype).max - array[..., 0]
  if alpha_index is not None and kinds[alpha_index] == 1:
    array = samples.unmultiply(array)
  return np.ascontiguousarray(array), notes
