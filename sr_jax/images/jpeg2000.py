"""JPEG 2000 files: the header, and pixels by OpenJPEG (ISO/IEC 15444-1, annexes A and I)."""

import struct
from typing import NamedTuple

import imagecodecs
import numpy as np

from sr_jax.images import boxes
from sr_jax.images.formats import UnsupportedError

SIGNATURES = (b'\0\0\0\x0cjP  \r\n\x87\n', b'\xff\x4f\xff\x51')
_EXIF_UUID, _XMP_UUID = b'JpgTiffExif->JP2', bytes.fromhex('be7acfcb97a942e89c71999491e3afac')
_COLOR_SPACES = {16: 'sRGB', 17: 'grey', 18: 'sYCC'}  # codes that the decoder converts
_OPACITY, _PREMULTIPLIED = 1, 2  # kinds of a channel in 'cdef'


class Header(NamedTuple):
  """What a file says about its image."""

  width: int
  height: int
  bits: tuple[int, ...]  # of each component
  alpha: int | None  # index of the channel, None if the image is opaque
  premultiplied: bool
  channels: int  # of the decoded image: those of the palette if there is one
  icc: bytes
  exif: bytes
  xmp: bytes
  resolution: tuple[float, float] | None  # pixels per metre, along x and along y


def parse(data: bytes) -> Header:
  """Reads the header of a file or of a codestream alone.

  Raises:
    UnsupportedError: a colour space or type of sample that is not decoded.
    ValueError: the header is damaged.
  """
  found: dict[bytes, bytes] = {}
  uuids: dict[bytes, bytes] = {}
  codestream = data
  if not data.startswith(SIGNATURES[1]):
    codestream = b''
    for kind, body in boxes.walk(data):
      if kind == b'uuid':
        uuids.setdefault(body[:16], body[16:])
      elif kind == b'jp2c':
        codestream = codestream or body
      else:
        found.setdefault(kind, body)
  width, height, bits = _size(codestream)
  icc = _profile(found.get(b'colr', b''))
  channels = len(bits)
  if palette := found.get(b'pclr'):
    channels = palette[2]
    bits = tuple((depth & 127) + 1 for depth in palette[3:3 + channels])
  alpha, premultiplied = _alpha(found.get(b'cdef'), channels)
  resolution = found.get(b'resc') or found.get(b'resd')
  return Header(width, height, bits, alpha, premultiplied, channels, icc,
                uuids.get(_EXIF_UUID, b''), uuids.get(_XMP_UUID, b''),
                _per_metre(resolution) if resolution else None)


def decode(data: bytes, header: Header) -> np.ndarray:
  """Decodes a file to [h, w, channels], unsigned and not scaled.

  Raises:
    UnsupportedError: signed samples, or components that are not those of the header.
    Exception: the errors of OpenJPEG.
  """
  array = imagecodecs.jpeg2k_decode(data)
  array = array[..., None] if array.ndim == 2 else array
  if array.dtype.kind != 'u':
    raise UnsupportedError(f'samples of type {array.dtype}')
  if array.shape != (header.height, header.width, header.channels):
    raise UnsupportedError(f'{array.shape} decoded, the header says '
                           f'{(header.height, header.width, header.channels)}')
  return array


def _size(codestream: bytes) -> tuple[int, int, tuple[int, ...]]:
  """Returns (width, height, bits of each component) from the SIZ marker."""
  if not codestream.startswith(SIGNATURES[1]) or len(codestream) < 42:
    raise ValueError('no codestream')
  right, bottom, left, top = struct.unpack('>4I', codestream[8:24])
  count, = struct.unpack('>H', codestream[40:42])
  depths = codestream[42:42 + 3 * count:3]
  if len(depths) < count or not count or right <= left or bottom <= top:
    raise ValueError('invalid size')
  if any(depth & 128 for depth in depths):
    raise UnsupportedError('signed samples')
  return right - left, bottom - top, tuple((depth & 127) + 1 for depth in depths)


def _profile(colr: bytes) -> bytes:
  """Returns the ICC profile of a 'colr' box, or b''."""
  if colr[:1] == b'\1':
    space = int.from_bytes(colr[3:7], 'big')
    if space not in _COLOR_SPACES:
      raise UnsupportedError(f'JPEG 2000 in color space {space}, expected sRGB, grey or sYCC')
  return colr[3:] if colr[:1] in (b'\2', b'\3') else b''


def _alpha(cdef: bytes | None, channels: int) -> tuple[int | None, bool]:
  """Returns (index of the alpha channel or None, whether colours are premultiplied)."""
  if cdef is None:  # as other programs assume for files that do not say
    return (channels - 1 if channels in (2, 4) else None), False
  for at in range(2, len(cdef) - 5, 6):
    index, kind, _ = struct.unpack('>3H', cdef[at:at + 6])
    if kind in (_OPACITY, _PREMULTIPLIED) and index < channels:
      return index, kind == _PREMULTIPLIED
  return None, False


def _per_metre(body: bytes) -> tuple[float, float] | None:
  """Returns pixels per metre along x and y from a box of the resolution."""
  if len(body) < 10:
    return None
  numbers = struct.unpack('>4H2b', body[:10])
  vertical, below_v, horizontal, below_h, power_v, power_h = numbers
  if not all((vertical, below_v, horizontal, below_h)) or max(abs(power_v), abs(power_h)) > 9:
    return None
  return horizontal / below_h * 10.0**power_h, vertical / below_v * 10.0**power_v
