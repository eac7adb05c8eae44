"""Pillow without its limit of pixels, which is global to the process, and with explicit limits.

The limits refuse small files that would take minutes or gigabytes to decode.
"""

import importlib.util
import math
import re
from typing import BinaryIO

import numpy as np
import PIL
from PIL import Image, JpegImagePlugin

from sr_jax.images import boxes

MAX_PIXELS = 200_000_000  # default limit of pixels for a file
MAX_SCANNED_PIXELS = 20 * MAX_PIXELS  # sum over a JPEG's scans; real files have about ten scans
MAX_RLE_PIXELS = 16_000_000  # of a compressed BMP; a large screen has 15 million
_JPEG_MARKER = re.compile(rb'\xff+([^\x00\x01\xd0-\xd7\xff])')  # a marker followed by a length
ORIENTATION = 0x0112  # EXIF tag
# Pillow's formats that may be opened, tried in this order by their signatures. The list is closed
# because some of Pillow's formats run external programs.
_FORMATS = ('PNG', 'JPEG', 'WEBP', 'TIFF', 'BMP', 'GIF', 'AVIF')


# Brands of HEIF files, whose pixels are encoded as H.265.
_HEIF_BRANDS = frozenset((b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'hevm', b'hevs'))
# How raw files of cameras begin, other than those that are TIFF files.
_RAW_SIGNATURES = (b'FUJIFILMCCD-RAW', b'IIRO', b'IIRS', b'MMOR', b'IIU\0', b'\0MRM', b'FOVb')
_CANON_RAW = b'CR\2\0'  # in a TIFF, from byte 8 on


class UnsupportedError(ValueError):
  """The file is intact, but of a kind that is not read; the message says which."""


def refuse_unreadable(signature: bytes) -> None:
  """Refuses a file by its first 64 bytes.

  Raises:
    UnsupportedError: a raw file of a camera, or a HEIF file and pillow-heif is not installed.
  """
  if (signature.startswith(_RAW_SIGNATURES) or signature[8:12] == _CANON_RAW
      or b'crx ' in boxes.brands(signature)):
    raise UnsupportedError('a raw file of a camera; convert it to TIFF or JPEG first')
  if is_heif(signature) and not importlib.util.find_spec('pillow_heif'):
    raise UnsupportedError('HEIF needs the package pillow-heif: pip install pillow-heif')


def is_heif(signature: bytes) -> bool:
  """Returns whether a file is HEIF, from its first 64 bytes."""
  return bool(boxes.brands(signature) & _HEIF_BRANDS)


def open_image(file: BinaryIO) -> Image.Image:
  """Reads the header of a binary file.

  Replaces Image.open, whose limit of pixels is global to the process and which tries more formats
  than `_FORMATS`.

  Raises:
    PIL.UnidentifiedImageError: the file is in none of the formats.
    ImportError: it is HEIF, and pillow-heif is not installed (see `refuse_unreadable`).
  """
  Image.init()
  file.seek(0)
  signature = file.read(64)
  if is_heif(signature):
    import pillow_heif  # optional

    file.seek(0)
    return pillow_heif.HeifImageFile(file, '')
  name = next((name for name in _FORMATS if name in Image.OPEN and Image.OPEN[name][1](signature)),
              None)
  if not name:
    raise PIL.UnidentifiedImageError
  # A JPEG of a phone with a preview appended to it is one image, not an MPO file of two.
  factory = JpegImagePlugin.JpegImageFile if name == 'JPEG' else Image.OPEN[name][0]
  file.seek(0)
  try:
    return factory(file, '')
  except SyntaxError:
    raise PIL.UnidentifiedImageError from None


def stored_size(image: Image.Image) -> tuple[int, int]:
  """Returns (width, height) before the EXIF orientation is applied.

  Newer versions of Pillow apply it to the size of a TIFF.
  """
  return (image.tag_v2[256], image.tag_v2[257]) if image.format == 'TIFF' else image.size


def load_image(image: Image.Image) -> None:
  """Decodes an image, as image.load() does, without Pillow's limit of pixels for TIFFs.

  Raises:
    ValueError: decoding would take minutes, or far more memory than the pixels.
  """
  _refuse_bomb(image, *stored_size(image))
  if image.format == 'TIFF':
    image.im = Image.new(image.mode, stored_size(image), None).im
  image.load()


def exif_orientation(exif: Image.Exif | None) -> object:
  """Returns the orientation tag, which may have any value; 1 if there is none or it is damaged."""
  try:
    return exif.get(ORIENTATION, 1) if exif is not None else 1
  except Exception:  # values are parsed when they are asked for
    return 1


def swaps_sides(orientation: object) -> bool:
  """Returns whether an EXIF orientation exchanges width and height."""
  return orientation in (5, 6, 7, 8)


def apply_orientation(array: np.ndarray, orientation: object) -> np.ndarray:
  """Returns [H, W, ...] upright. An EXIF orientation other than 2 ... 8 changes nothing."""
  if swaps_sides(orientation):
    array = array.swapaxes(0, 1)
  if orientation in (3, 4, 7, 8):
    array = array[::-1]
  if orientation in (2, 3, 6, 7):
    array = array[:, ::-1]
  return np.ascontiguousarray(array)


def _refuse_bomb(image: Image.Image, width: int, height: int) -> None:
  """Raises a ValueError for a file that is too expensive to decode for its size."""
  pixels = width * height
  if image.format == 'JPEG':
    image.fp.seek(0)
    data = image.fp.read()
    if pixels > 512 * len(data):  # a block of 8x8 takes at least one bit
      raise ValueError('truncated')
    # Each scan of a progressive JPEG covers the entire image. Counting the marker's bytes is fast,
    # but data appended to the image, such as a phone's video, may hold them too.
    scans = data.count(b'\xff\xda')
    if scans * pixels > MAX_SCANNED_PIXELS:
      scans = _count_scans(data)
    if scans * pixels > MAX_SCANNED_PIXELS:
      raise ValueError(f'{scans} scans of {width}x{height}')
  elif image.format == 'TIFF':
    tile = [int(image.tag_v2.get(tag, 1)) for tag in (322, 323)]
    if math.prod(tile) > MAX_PIXELS:  # each tile is decoded in one piece
      raise ValueError(f'tiles of {tile[0]}x{tile[1]}')
  elif image.tile and image.tile[0][0] == 'bmp_rle' and (
      pixels > MAX_RLE_PIXELS or max(width, height) > 65_535):
    # Pillow decodes run lengths in Python, pixel by pixel, and four bytes can skip 255 rows.
    raise ValueError(f'{width}x{height} pixels in run-length encoding')


def _count_scans(data: bytes) -> int:
  """Counts the scans of a JPEG up to its end marker."""
  scans, position = 0, 2
  while (marker := _JPEG_MARKER.search(data, position)) and marker[1] != b'\xd9':
    scans += marker[1] == b'\xda'
    position = marker.end() + int.from_bytes(data[marker.end():marker.end() + 2], 'big')
  return scans
