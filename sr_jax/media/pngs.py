"""PNG files by libpng: of 16 bits Pillow keeps 8, and it confuses transparent grey of 2 or 4."""

import io
import os
import struct
import zlib
from collections.abc import Iterator

import imagecodecs
import numpy as np

_PIXELS = (b'IHDR', b'PLTE', b'tRNS', b'IDAT', b'IEND')  # the chunks that they depend on


def decode(file) -> np.ndarray:
  """uint8 or uint16 [h, w, 1 to 4], alpha last, of a binary file; libpng's errors."""
  # Without the rest: libpng grumbles on stderr about profiles and times of day.
  parts = [_signature(file)]
  for name, length in _chunks(file):
    if name in _PIXELS:
      file.seek(-8, os.SEEK_CUR)
      parts.append(file.read(length + 12))
  array = imagecodecs.png_decode(b''.join(parts))
  return array[..., None] if array.ndim == 2 else array


def late_exif(file) -> bytes:
  """The EXIF of a PNG wherever it is, found without decoding; b'' where there is none."""
  place = file.tell()
  _signature(file)
  found = next((file.read(length) for name, length in _chunks(file) if name == b'eXIf'), b'')
  file.seek(place)
  return found


def encode(pixels: np.ndarray, icc: bytes = b'', exif: bytes = b'') -> bytes:
  """The file of uint8 or uint16 [h, w, 1 to 4], alpha last."""
  data = imagecodecs.png_encode(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
  chunks = []
  if icc:
    chunks.append((b'iCCP', b'ICC profile\0\0' + zlib.compress(icc)))
  if exif:
    chunks.append((b'eXIf', exif.removeprefix(b'Exif\0\0')))
  between = [struct.pack('>I', len(body)) + name + body + struct.pack('>I', zlib.crc32(name + body))
             for name, body in chunks]
  return b''.join([data[:33], *between, data[33:]])  # 33: the signature and IHDR


def _signature(file: io.BufferedIOBase) -> bytes:
  file.seek(0)
  return file.read(8)


def _chunks(file) -> Iterator[tuple[bytes, int]]:
  """(name, bytes of its body), the file standing before the body."""
  start = file.tell()
  end = file.seek(0, os.SEEK_END)
  file.seek(start)
  while len(head := file.read(8)) == 8:
    length, name = struct.unpack('>I4s', head)
    after = file.tell() + length + 4  # of its checksum
    yield name, min(length, end - file.tell())
    file.seek(after)
