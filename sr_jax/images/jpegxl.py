"""JPEG XL files: the header, and pixels by libjxl (ISO/IEC 18181-1, annex D; 18181-2)."""

from typing import NamedTuple

import imagecodecs
import numpy as np

from sr_jax.images import boxes, color_tags
from sr_jax.images.formats import UnsupportedError

SIGNATURES = (b'\xff\x0a', b'\0\0\0\x0cJXL \r\n\x87\n')
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
ALPHA, _BLACK = 0, 4  # types of extra channels
_MAX_METADATA = 2**22  # bytes
_GREY = 1  # code of a colour space
# Each field below is one of four ways to read a number: (bits, offset).
_SIDE = ((9, 1), (13, 1), (18, 1), (30, 1))
_PREVIEW_SIDE_DIV8 = ((0, 16), (0, 32), (5, 1), (9, 33))
_PREVIEW_SIDE = ((6, 1), (8, 65), (10, 321), (12, 1345))
_ENUM = ((0, 0), (0, 1), (4, 2), (6, 18))
_XY = ((19, 0), (19, 524_288), (20, 1_048_576), (21, 2_097_152))
# Codes of white points with primaries, as primaries of ITU-T H.273.
_PRIMARIES = {(1, 1): 1, (1, 9): 9, (1, 11): 12, (11, 11): 11}
_WHITE = {1: (0.3127, 0.329), 10: (1 / 3, 1 / 3), 11: (0.314, 0.351)}
_RED_GREEN_BLUE = {1: (0.64, 0.33, 0.3, 0.6, 0.15, 0.06),
                   9: (0.708, 0.292, 0.17, 0.797, 0.131, 0.046),
                   11: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06)}


class Header(NamedTuple):
  """What a file says about its image."""

  width: int
  height: int
  turned: bool  # the decoder exchanges width and height
  bits: int
  colors: int  # 1 or 3
  extra: tuple[int, ...]  # types of the other channels
  premultiplied: bool
  animated: bool
  has_icc: bool
  tags: dict[bytes, bytes]  # see `color_tags`
  exif: bytes
  xmp: bytes
  lost: tuple[bytes, ...]  # types of boxes of metadata that cannot be decoded


class _Bits:
  """Reads bits, the lowest of a byte first."""

  def __init__(self, data: bytes) -> None:
    self._value, self._left = int.from_bytes(data, 'little'), 8 * len(data)

  def take(self, count: int) -> int:
    if count > self._left:
      raise ValueError('truncated')
    value = self._value & ((1 << count) - 1)
    self._value >>= count
    self._left -= count
    return value

  def pick(self, choices: tuple[tuple[int, int], ...]) -> int:
    """Reads two bits that select how the number is stored, and the number."""
    bits, offset = choices[self.take(2)]
    return self.take(bits) + offset


def parse(data: bytes) -> Header:
  """Reads the header of a file or of a codestream alone.

  Raises:
    UnsupportedError: CMYK.
    ValueError: the header is damaged.
  """
  codestream, exif, xmp, lost = data, b'', b'', []
  if not data.startswith(SIGNATURES[0]):
    parts = {b'jxlp': b''}
    for kind, body in boxes.walk(data):
      if kind == b'jxlp':  # a part of the codestream after its number
        parts[kind] += body[4:]
      elif kind == b'brob' and body[:4] in (b'Exif', b'xml '):  # compressed
        try:
          parts.setdefault(body[:4], imagecodecs.brotli_decode(body[4:], out=_MAX_METADATA))
        except Exception:  # damaged, or larger than any metadata
          lost.append(body[:4])
      else:
        parts.setdefault(kind, body)
    codestream = parts.get(b'jxlc') or parts[b'jxlp']
    exif = parts.get(b'Exif', b'')
    exif = exif[4 + int.from_bytes(exif[:4], 'big'):]
    xmp = parts.get(b'xml ', b'')
  if not codestream.startswith(SIGNATURES[0]):
    raise ValueError('no codestream')
  header = _codestream(_Bits(codestream[2:4096]))  # far longer than the header without a profile
  return header._replace(exif=exif, xmp=xmp, lost=tuple(lost))


def decode(data: bytes, header: Header) -> np.ndarray:
  """Decodes the first frame to [h, w, channels], upright; integers are not scaled.

  Raises:
    UnsupportedError: channels that are not those of the header.
    Exception: the errors of libjxl.
  """
  array = imagecodecs.jpegxl_decode(data, index=0)
  array = array[..., None] if array.ndim == 2 else array
  height, width = (header.width, header.height) if header.turned else (header.height, header.width)
  channels = header.colors + (ALPHA in header.extra)
  if array.shape != (height, width, channels):
    raise UnsupportedError(f'{array.shape} decoded, the header says {(height, width, channels)}')
  return array


def _codestream(bits: _Bits) -> Header:
  width, height = _size(bits)
  if bits.take(1):  # all fields have their defaults
    return Header(width, height, False, 8, 3, (), False, False, False, {}, b'', b'', ())
  orientation, animated = 1, False
  if bits.take(1):
    orientation = bits.take(3) + 1
    if bits.take(1):  # the size at which the image should be shown
      _size(bits)
    if bits.take(1):
      _preview_size(bits)
    animated = bool(bits.take(1))
    if animated:
      for field in (((0, 100), (0, 1000), (10, 1), (30, 1)), ((0, 1), (0, 1001), (8, 1), (10, 1)),
                    ((0, 0), (3, 0), (16, 0), (32, 0))):
        bits.pick(field)
      bits.take(1)
  depth = _depth(bits)
  bits.take(1)
  extra, premultiplied = [], False
  for _ in range(bits.pick(((0, 0), (0, 1), (4, 2), (12, 1)))):
    kind, multiplied = _extra_channel(bits)
    extra.append(kind)
    premultiplied = premultiplied or multiplied
  if _BLACK in extra:
    raise UnsupportedError('JPEG XL in CMYK')
  bits.take(1)  # whether samples are stored as XYB
  has_icc, colors, tags = _color(bits)
  return Header(width, height, orientation > 4, depth, colors, tuple(extra), premultiplied,
                animated, has_icc, tags, b'', b'', ())


def _size(bits: _Bits) -> tuple[int, int]:
  """Returns (width, height)."""
  small = bits.take(1)
  height = 8 * (bits.take(5) + 1) if small else bits.pick(_SIDE)
  if ratio := bits.take(3):
    numerator, denominator = _RATIOS[ratio - 1]
    return height * numerator // denominator, height
  return (8 * (bits.take(5) + 1) if small else bits.pick(_SIDE)), height


def _preview_size(bits: _Bits) -> None:
  field = _PREVIEW_SIDE_DIV8 if bits.take(1) else _PREVIEW_SIDE
  bits.pick(field)
  if not bits.take(3):
    bits.pick(field)


def _depth(bits: _Bits) -> int:
  """Returns the number of bits of a sample."""
  if bits.take(1):  # floating point
    depth = bits.pick(((0, 32), (0, 16), (0, 24), (6, 1)))
    bits.take(4)
    return depth
  return bits.pick(((0, 8), (0, 10), (0, 12), (6, 1)))


def _extra_channel(bits: _Bits) -> tuple[int, bool]:
  """Returns (type, whether it is an alpha that colours were multiplied by)."""
  if bits.take(1):
    return ALPHA, False
  kind = bits.pick(_ENUM)
  _depth(bits)
  bits.pick(((0, 0), (0, 3), (0, 4), (3, 1)))
  for _ in range(bits.pick(((0, 0), (4, 0), (5, 16), (10, 48)))):
    bits.take(8)  # its name
  if kind == ALPHA:
    return kind, bool(bits.take(1))
  if kind == 2:  # a spot colour
    bits.take(64)
  elif kind == 5:  # of a colour filter array
    bits.pick(((0, 1), (2, 0), (4, 3), (8, 19)))
  return kind, False


def _color(bits: _Bits) -> tuple[bool, int, dict[bytes, bytes]]:
  """Returns (whether there is an ICC profile, number of colours, colour tags)."""
  if bits.take(1):
    return False, 3, {}
  has_icc, space = bool(bits.take(1)), bits.pick(_ENUM)
  colors = 1 if space == _GREY else 3
  if has_icc or space == 2:
    return has_icc, colors, {}
  white = bits.pick(_ENUM)
  white_xy = _xy(bits, 1) if white == 2 else _WHITE.get(white)
  primaries, primaries_xy = 1, _RED_GREEN_BLUE[1]
  if space != _GREY:
    primaries = bits.pick(_ENUM)
    primaries_xy = _xy(bits, 3) if primaries == 2 else _RED_GREEN_BLUE.get(primaries)
  exponent = bits.take(24) if bits.take(1) else 0
  transfer = 0 if exponent else bits.pick(_ENUM)
  code = _PRIMARIES.get((white, primaries))
  if code and not exponent:
    return False, colors, color_tags.cicp(code, transfer)
  tags = color_tags.gamma(exponent / 1e7) if exponent else color_tags.cicp(2, transfer)
  if code != 1 and white_xy and primaries_xy:
    tags |= color_tags.chromaticities([*white_xy, *primaries_xy])
  return False, colors, tags


def _xy(bits: _Bits, count: int) -> tuple[float, ...]:
  """Reads `count` pairs of chromaticities."""
  values = (bits.pick(_XY) for _ in range(2 * count))
  return tuple((value // 2 ^ -(value & 1)) / 1e6 for value in values)  # signs are in the last bit
