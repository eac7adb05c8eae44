"""PNG files by libpng.

Pillow keeps 8 of 16 bits and misreads the transparent grey level of images with 2 or 4 bits.
"""

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import imagecodecs
import numpy as np

_PIXEL_CHUNKS = (b'IHDR', b'PLTE', b'tRNS', b'IDAT', b'IEND')  # the chunks that pixels depend on
TEXT_CHUNKS = (b'tEXt', b'zTXt', b'iTXt')
METADATA_CHUNKS = (b'eXIf', b'pHYs', b'cICP', b'mDCV', b'cLLI', b'gAMA', b'cHRM', b'sRGB',
                   *TEXT_CHUNKS)


def decode(file: BinaryIO) -> np.ndarray:
  """Decodes a binary file to uint8 or uint16 [h, w, 1 to 4], alpha last.

  Raises:
    Exception: libpng's errors, of several types.
  """
  # The other chunks are removed: libpng prints warnings about profiles and dates to stderr.
  parts = [_signature(file)]
  for name, length in _chunks(file):
    if name in _PIXEL_CHUNKS:
      file.seek(-8, os.SEEK_CUR)
      parts.append(file.read(length + 12))
  array = imagecodecs.png_decode(b''.join(parts))
  return array[..., None] if array.ndim == 2 else array


def ancillary(file: BinaryIO) -> list[tuple[bytes, bytes]]:
  """Returns (name, body) of the chunks of metadata of a PNG wherever they are, without decoding."""
  position = file.tell()
  _signature(file)
  found = [(name, file.read(length)) for name, length in _chunks(file) if name in METADATA_CHUNKS]
  file.seek(position)
  return found


def encode(pixels: np.ndarray, icc: bytes = b'', exif: bytes = b'',
           chunks: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
  """Encodes uint8 or uint16 [h, w, 1 to 4], alpha last, as a PNG file.

  Args:
    pixels: the image.
    icc: colour profile.
    exif: with or without the 'Exif' in front of it.
    chunks: (name, body) of further chunks of metadata.
  """
  data = imagecodecs.png_encode(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
  metadata = list(chunks)
  if icc:
    metadata.append((b'iCCP', b'ICC profile\0\0' + zlib.compress(icc)))
  if exif:
    metadata.append((b'eXIf', exif.removeprefix(b'Exif\0\0')))
  chunks = [struct.pack('>I', len(body)) + name + body + struct.pack('>I', zlib.crc32(name + body))
            for name, body in metadata]
  return b''.join([data[:33], *chunks, data[33:]])  # 33 bytes: the signature and IHDR


def _signature(file: BinaryIO) -> bytes:
  file.seek(0)
  return file.read(8)


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
  """Yields (name, bytes of the body) of each chunk, with the file positioned at the body."""
  start = file.tell()
  end = file.seek(0, os.SEEK_END)
  file.seek(start)
  while len(head := file.read(8)) == 8:
    length, name = struct.unpack('>I4s', head)
    next_chunk = file.tell() + length + 4  # 4 bytes of checksum
    yield name, min(length, end - file.tell())
    file.seek(next_chunk)
