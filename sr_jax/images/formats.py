"""Pillow, let at a file without its limit of pixels, which is one for the whole process, and with
limits of our own: none of what a small file makes take minutes or gigabytes.
"""

import math
import re

import numpy as np
import PIL
from PIL import Image, JpegImagePlugin

MAX_PIXELS = 200_000_000  # of a file that is read, unless the caller says otherwise
MAX_SCANNED = 20 * MAX_PIXELS  # a JPEG's scans have together; there are about ten
MAX_RLE = 16_000_000  # of a BMP that is compressed; a screen has up to 15 million
_MARKER = re.compile(rb'\xff+([^\x00\x01\xd0-\xd7\xff])')  # of a JPEG, one that has a length
# In this order, by how they begin. Others are not tried: some of Pillow's run programs.
_KINDS = ('PNG', 'JPEG', 'WEBP', 'TIFF', 'BMP', 'GIF', 'AVIF')


def open_picture(file) -> Image.Image:
  """The header of a binary file, without Image.open: its limit of pixels is one for the whole
  process, and its formats are more than `_KINDS`.
  """
  Image.init()
  file.seek(0)
  start = file.read(32)
  kind = next((kind for kind in _KINDS if kind in Image.OPEN and Image.OPEN[kind][1](start)), None)
  if not kind:
    raise PIL.UnidentifiedImageError
  # A phone's JPEG with a preview behind it is one picture, not an MPO of two.
  factory = JpegImagePlugin.JpegImageFile if kind == 'JPEG' else Image.OPEN[kind][0]
  file.seek(0)
  try:
    return factory(file, '')
  except SyntaxError:
    raise PIL.UnidentifiedImageError from None


def stored_size(picture: Image.Image) -> tuple[int, int]:
  """(width, height) before EXIF turns it, as newer versions of Pillow have done to a TIFF's."""
  return ((picture.tag_v2[256], picture.tag_v2[257]) if picture.format == 'TIFF'
          else picture.size)


def load_picture(picture: Image.Image) -> None:
  """picture.load(), whose TIFFs Pillow would refuse above a limit of its own.

  Raises:
    ValueError: it would take minutes or far more memory than its pixels, as no picture does.
  """
  _refuse_bomb(picture, *stored_size(picture))
  if picture.format == 'TIFF':
    picture.im = Image.new(picture.mode, stored_size(picture), None).im
  picture.load()


def to_eight_bit(picture: Image.Image) -> Image.Image:
  """Mode L or RGB: palettes and CMYK as RGB, alpha over white, 16 bits and floats scaled to 8."""
  if picture.mode in ('I', 'I;16', 'I;16B', 'I;16L', 'I;16N'):
    samples = np.asarray(picture).astype(np.float64)
    # Mode I is what Pillow makes of some 16-bit files; 65535 is white in all of them.
    return Image.fromarray(np.uint8(np.clip(np.round(samples / 257), 0, 255)))
  if picture.mode == 'F':
    samples = np.asarray(picture)
    return Image.fromarray(np.uint8(np.clip(np.round(samples * 255), 0, 255)))
  if picture.mode in ('RGBA', 'LA', 'PA', 'La', 'RGBa') or 'transparency' in picture.info:
    grey = picture.mode in ('LA', 'La', 'L', '1')
    rgba = picture.convert('RGBA')
    white = Image.new('RGBA', rgba.size, 'white')
    return Image.alpha_composite(white, rgba).convert('L' if grey else 'RGB')
  if picture.mode in ('L', 'RGB'):
    return picture
  return picture.convert('L' if picture.mode == '1' else 'RGB')


def _refuse_bomb(picture: Image.Image, width: int, height: int) -> None:
  pixels = width * height
  if picture.format == 'JPEG':
    picture.fp.seek(0)
    data = picture.fp.read()
    if pixels > 512 * len(data):  # a block of 8x8 takes a bit at least
      raise ValueError('cut off')
    scans = data.count(b'\xff\xda')  # of a progressive one each goes over all of the picture
    if scans * pixels > MAX_SCANNED:  # or a phone's clip behind the picture has these bytes
      scans = _scans(data)
    if scans * pixels > MAX_SCANNED:
      raise ValueError(f'{scans} scans of {width}x{height}')
  elif picture.format == 'TIFF':  # whose tiles are decoded whole
    tile = [int(picture.tag_v2.get(tag, 1)) for tag in (322, 323)]
    if math.prod(tile) > MAX_PIXELS:
      raise ValueError(f'tiles of {tile[0]}x{tile[1]}')
  elif picture.tile and picture.tile[0][0] == 'bmp_rle' and (
      pixels > MAX_RLE or max(width, height) > 65_535):
    # Pillow's decoder is in Python, pixel by pixel, and a jump of four bytes takes 255 rows.
    raise ValueError(f'{width}x{height} of run lengths')


def _scans(data: bytes) -> int:
  """Of a JPEG, up to its end."""
  scans, at = 0, 2
  while (found := _MARKER.search(data, at)) and found[1] != b'\xd9':
    scans += found[1] == b'\xda'
    at = found.end() + int.from_bytes(data[found.end():found.end() + 2], 'big')
  return scans
