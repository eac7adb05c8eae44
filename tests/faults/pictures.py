"""Hostile image files of every format: false headers, decompression bombs, and EXIF directories
that refer to themselves.
"""

import functools
import importlib.util
import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from tests.faults.mutation import mutated, number, pick

SIDES = (0, 1, 3, 1000, 4096, 13_000, 16_383, 46_341, 65_535, 100_000, 2**31 - 1, 2**31, 2**32 - 1)
SIGNATURE = b'\x89PNG\r\n\x1a\n'
# Kinds of `good` that the fuzzer can be limited to.
FAMILIES = {'jp2': ('jp2', 'j2k', 'jp2-alpha', 'jp2-16'),
            'jxl': ('jxl', 'jxl-lossy', 'jxl-alpha', 'jxl-16', 'jxl-frames'),
            'avif': ('avif', 'avif-alpha'), 'heif': ('heif', 'heif-alpha')}
HAS_HEIF = importlib.util.find_spec('pillow_heif') is not None


@functools.cache
def good() -> dict[str, bytes]:
  """Returns a small valid image of each kind."""
  y, x = np.mgrid[:24, :20]
  rgb = np.uint8(np.stack([7 * x, 9 * y, 5 * (x + y)], -1))
  image = Image.fromarray(rgb)
  exif = Image.Exif()
  exif[0x0112], exif[271] = 6, 'maker'
  exif.get_ifd(0x8769)[0x9003] = '2020:01:01 00:00:00'

  def saved(format: str, image: Image.Image = image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()

  def deep(**options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.uint16(rgb) * 257, photometric='rgb', **options)
    return buffer.getvalue()

  return _modern(rgb, exif, saved) | {
      'png': saved('PNG', exif=exif), 'palette': saved('PNG', image.quantize(9)),
      'alpha': saved('PNG', image.convert('RGBA')), 'jpeg': saved('JPEG', exif=exif),
      'progressive': saved('JPEG', progressive=True), 'cmyk': saved('JPEG', image.convert('CMYK')),
      'webp': saved('WEBP', exif=exif), 'lossless': saved('WEBP', lossless=True),
      'tiff': saved('TIFF', exif=exif), 'lzw': saved('TIFF', compression='tiff_lzw'),
      'fax': saved('TIFF', image.convert('1'), compression='group4'),
      'tiff-jpeg': saved('TIFF', compression='jpeg'), 'tiff16': deep(rowsperstrip=8),
      'packed16': deep(compression='zlib', predictor=True), 'tiled16': deep(tile=(16, 16)),
      'big': deep(bigtiff=True), 'float': _float_tiff(rgb), 'bmp': saved('BMP'),
      'bmp8': saved('BMP', image.quantize(9)),
      'gif': saved('GIF', image.quantize(9)),
      'animated': saved('GIF', save_all=True, append_images=[image.rotate(90)] * 3)}


def _modern(rgb: np.ndarray, exif: Image.Exif, saved: Any) -> dict[str, bytes]:
  """Returns valid JPEG 2000, JPEG XL, AVIF and, where pillow-heif is installed, HEIF files."""
  image, deep = Image.fromarray(rgb), np.uint16(rgb) * 257
  rgba = np.concatenate([rgb, rgb[..., :1]], -1)
  found = {
      'jp2': saved('JPEG2000'), 'j2k': imagecodecs.jpeg2k_encode(rgb, level=0, codecformat='j2k'),
      'jp2-alpha': saved('JPEG2000', Image.fromarray(rgba), tile_size=(16, 16)),
      'jp2-16': imagecodecs.jpeg2k_encode(deep, level=0),
      'jxl': imagecodecs.jpegxl_encode(rgb, lossless=True),
      'jxl-lossy': imagecodecs.jpegxl_encode(rgb, level=80, usecontainer=True),
      'jxl-alpha': imagecodecs.jpegxl_encode(rgba, lossless=True),
      'jxl-16': imagecodecs.jpegxl_encode(deep, lossless=True),
      'jxl-frames': imagecodecs.jpegxl_encode(np.stack([rgb, rgb[::-1]]), lossless=True),
      'avif': saved('AVIF', exif=exif), 'avif-alpha': saved('AVIF', Image.fromarray(rgba))}
  if HAS_HEIF:
    import pillow_heif

    pillow_heif.register_heif_opener()
    found |= {'heif': saved('HEIF', image.resize((64, 64)), exif=exif),
              'heif-alpha': saved('HEIF', Image.fromarray(rgba).resize((64, 64)))}
  return found


def _float_tiff(rgb: np.ndarray) -> bytes:
  buffer = io.BytesIO()
  tifffile.imwrite(buffer, np.float32(rgb) / 255, photometric='rgb')
  return buffer.getvalue()


def make(rng: np.random.Generator, kinds: Sequence[str] = ()) -> tuple[str, bytes]:
  """Returns (kind, a hostile file of that kind), of one of `kinds` if there are any."""
  seeds = good()
  kind = pick(rng, kinds or list(seeds))
  data, other = seeds[kind], seeds[pick(rng, list(seeds))]
  special = {b'\x89PN': _png, b'II*': _tiff, b'\xff\xd8\xff': _jpeg, b'RIF': _webp, b'BM': _bmp,
             b'GIF': _gif, b'II+': _tiff, b'\xff\x0a': _codestream, b'\xff\x4f': _codestream,
             b'\0\0\0': _boxes}
  change = next(change for start, change in special.items() if data.startswith(start))
  if rng.random() < 0.65:
    return kind, change(rng, data)
  return kind, mutated(rng, data, other, front=pick(rng, (1, 3)))


def side(rng: np.random.Generator) -> int:
  """Returns a width or height at or beyond the limits of the formats."""
  return pick(rng, SIDES)


# PNG -----------------------------------------------------------------------------------------


def chunk(name: bytes, body: bytes) -> bytes:
  return struct.pack('>I', len(body)) + name + body + struct.pack('>I', zlib.crc32(name + body))


def chunks_of(data: bytes) -> list[tuple[bytes, bytes]]:
  """Returns (name, body) of each chunk of a PNG."""
  chunks, at = [], 8
  while at < len(data):
    length, = struct.unpack('>I', data[at:at + 4])
    chunks.append((data[at + 4:at + 8], data[at + 8:at + 8 + length]))
    at += length + 12
  return chunks


@functools.cache
def bomb(size: int = 1 << 28) -> bytes:
  """Returns deflated zeros, which take a thousandth of `size` bytes."""
  packer, block = zlib.compressobj(9), bytes(1 << 20)
  return b''.join(packer.compress(block) for _ in range(size >> 20)) + packer.flush()


def _png(rng: np.random.Generator, data: bytes) -> bytes:
  chunks = chunks_of(data)
  for _ in range(int(rng.integers(1, 3))):
    kind, at = int(rng.integers(9)), int(rng.integers(1, len(chunks)))
    head = bytearray(chunks[0][1])
    if kind < 2 and len(head) == 13:
      for place in (0, 4)[:int(rng.integers(1, 3))]:
        head[place:place + 4] = struct.pack('>I', side(rng))
      if kind == 1:
        head[8:10] = bytes([pick(rng, (1, 2, 4, 8, 16, 3)), pick(rng, (0, 2, 3, 4, 6, 5))])
        head[12] = pick(rng, (0, 1, 2))
      chunks[0] = b'IHDR', bytes(head)
    elif kind == 2:
      text = pick(rng, (b'zTXt', b'iCCP'))
      chunks.insert(1, (text, b'name\0\0' + bomb()))
    elif kind == 3:
      chunks.insert(1, (b'iTXt', b'name\0\1\0\0\0' + bomb()))
    elif kind == 4:
      chunks.insert(at, (b'eXIf', exif(rng)))
    elif kind == 5:
      chunks = [(name, bomb(1 << 26) if name == b'IDAT' else body) for name, body in chunks]
    elif kind == 6:
      name, body = chunks[at]
      chunks[at] = name, mutated(rng, body)
    elif kind == 7:
      chunks.insert(at, (pick(rng, (b'PLTE', b'tRNS', b'acTL', b'fcTL', b'fdAT', b'gAMA', b'tIME',
                                    b'IEND', b'IHDR', b'abcd')), number(rng, 8, 'big') * 3))
    else:
      chunks.insert(at, pick(rng, chunks))
  return SIGNATURE + b''.join(chunk(*pair) for pair in chunks)


# TIFF, and EXIF, which is a TIFF ---------------------------------------------------------------


def exif(rng: np.random.Generator) -> bytes:
  """Returns tags that refer to themselves, beyond the file, or to huge values."""
  tags = (0x0112, 0x010F, 0x8769, 0x8825, 0x011A, 0x0213, 0x9286, 0x927C, 0xA005, 0x0201)
  count = pick(rng, (1, 3, 10, 65_535))
  entries = b''.join(struct.pack('<HHII', pick(rng, tags), pick(rng, (1, 2, 3, 4, 5, 7, 12, 99)),
                                 pick(rng, (0, 1, 6, 2**16, 2**28, 2**32 - 1)),
                                 pick(rng, (0, 1, 6, 8, 26, 2**31, 2**32 - 1)))
                     for _ in range(min(count, 10)))
  return pick(rng, (b'', b'Exif\0\0')) + b'II*\0' + struct.pack('<IH', 8, count) + entries + (
      struct.pack('<I', pick(rng, (0, 8, 2**32 - 1))))


def _tiff(rng: np.random.Generator, data: bytes) -> bytes:
  """Overwrites types, counts and values of entries of the first directory."""
  data, big = bytearray(data), data[2] == 43
  start, = struct.unpack_from('<Q' if big else '<I', data, 8 if big else 4)
  count, = struct.unpack_from('<Q' if big else '<H', data, start)
  entry, first, at_value, size = (20, 8, 12, 8) if big else (12, 2, 8, 4)
  for _ in range(int(rng.integers(1, 4))):
    at = start + first + entry * int(rng.integers(count))
    tag, = struct.unpack_from('<H', data, at)
    kind = int(rng.integers(5))
    if kind == 0:
      struct.pack_into('<H', data, at + 2, pick(rng, (0, 1, 2, 3, 4, 5, 12, 13, 16, 99)))
    elif kind == 1:
      data[at + 4:at + 4 + size] = number(rng, size, 'little')
    elif kind == 2:
      struct.pack_into('<H', data, at, pick(rng, (256, 257, 258, 259, 262, 273, 277, 278, 279, 284,
                                                  317, 320, 322, 323, 324, 325, 330, 338, 339,
                                                  347, 34665, 34675, 65000)))
    elif tag in (256, 257, 322, 323, 278) and kind == 3:
      struct.pack_into('<HI', data, at + 2, 4, 1)
      struct.pack_into('<I', data, at + at_value, side(rng))
    else:
      data[at + at_value:at + at_value + size] = number(rng, size, 'little')
  if rng.random() < 0.1:  # a directory whose successor is itself
    end = start + first + entry * count
    data[end:end + size] = start.to_bytes(size, 'little')
  return bytes(data)


# JPEG, WebP, BMP, GIF -----------------------------------------------------------------------------


def _jpeg(rng: np.random.Generator, data: bytes) -> bytes:
  data = bytearray(data)
  frame = next(at for at in range(len(data)) if data[at] == 0xFF and data[at + 1] in (0xC0, 0xC2))
  kind = int(rng.integers(6))
  if kind < 2:
    for place in (5, 7)[:int(rng.integers(1, 3))]:
      data[frame + place:frame + place + 2] = struct.pack('>H', side(rng) % 65_536)
    if kind:
      data[frame + 9] = pick(rng, (1, 2, 3, 4, 255))
  elif kind == 2:
    body = b'Exif\0\0' + exif(rng).removeprefix(b'Exif\0\0')
    data[2:2] = b'\xff\xe1' + struct.pack('>H', min(65_535, len(body) + 2)) + body
  elif kind == 3:
    scan = data.index(b'\xff\xda')
    data[scan:scan] = bytes(data[scan:-2]) * pick(rng, (1, 5, 300))
    struct.pack_into('>HH', data, frame + 5, *pick(rng, ((24, 20), (2000, 2000), (13_000, 13_000))))
  elif kind == 4:
    name = pick(rng, (b'ICC_PROFILE\0\1\1', b'MPF\0II*\0', b'Photoshop 3.0\x008BIM', b'Adobe',
                      b'http://ns.adobe.com/xap/1.0/\0'))
    body = name + rng.bytes(40)
    data[2:2] = b'\xff' + bytes([pick(rng, (0xE2, 0xED, 0xEE, 0xE1))]) + struct.pack(
        '>H', len(body) + 2) + body
  else:
    at = int(rng.integers(2, len(data)))
    data[at:at + 2] = bytes([0xFF, int(rng.integers(256))])
  return bytes(data)


def _webp(rng: np.random.Generator, data: bytes) -> bytes:
  body = data[12:]
  if rng.random() < 0.5:  # the extended header: flags, and a canvas with three bytes per side
    flags = bytes([int(rng.integers(64)), 0, 0, 0])
    canvas = b''.join((side(rng) % 2**24).to_bytes(3, 'little') for _ in 'wh')
    extended = b'VP8X' + struct.pack('<I', 10) + flags + canvas
    body = extended + (body[18:] if body[:4] == b'VP8X' else body)
  else:
    at = body.find(pick(rng, (b'VP8L', b'VP8 ', b'VP8X', b'EXIF')))
    if at >= 0:
      place = at + 4 + int(rng.integers(18))
      size = pick(rng, (1, 2, 4))
      body = body[:place] + number(rng, size, 'little') + body[place + size:]
  if rng.random() < 0.3:
    tags = exif(rng)
    body += b'EXIF' + struct.pack('<I', len(tags)) + tags + b'\0' * (len(tags) % 2)
  length = len(body) + 4 if rng.random() < 0.8 else pick(rng, (0, 2**31, 2**32 - 1))
  return b'RIFF' + struct.pack('<I', length) + b'WEBP' + body


def _bmp(rng: np.random.Generator, data: bytes) -> bytes:
  data = bytearray(data)
  for _ in range(int(rng.integers(1, 4))):
    at = pick(rng, (10, 14, 18, 22, 26, 28, 30, 34, 46))
    size = 2 if at in (26, 28) else 4
    value = {18: side, 22: side, 30: lambda rng: int(rng.integers(8)),
             28: lambda rng: pick(rng, (1, 2, 4, 8, 16, 24, 32))}.get(at)
    data[at:at + size] = ((value(rng) % 256**size).to_bytes(size, 'little') if value
                          else number(rng, size, 'little'))
  if rng.random() < 0.1:  # a negative height means that rows are stored from the top
    data[22:26] = struct.pack('<i', -int(rng.integers(1, 2**31)))
  return bytes(data)


def _gif(rng: np.random.Generator, data: bytes) -> bytes:
  data = bytearray(data)
  frame = data.find(b'\x2c')
  for _ in range(int(rng.integers(1, 4))):
    at = pick(rng, (6, 8, 10, frame + 1, frame + 3, frame + 5, frame + 7, frame + 9, frame + 10))
    size = 2 if at in (6, 8, frame + 1, frame + 3, frame + 5, frame + 7) else 1
    data[at:at + size] = (side(rng) % 256**size).to_bytes(size, 'little')
  return bytes(data)


# JPEG 2000, JPEG XL, AVIF, HEIF -------------------------------------------------------------------


def _codestream(rng: np.random.Generator, data: bytes) -> bytes:
  """Changes the header of JPEG XL, or sizes, tiles and components of JPEG 2000."""
  data = bytearray(data)
  start = data.find(b'\xff\x4f\xff\x51')
  if start < 0:  # JPEG XL, whose fields are not whole bytes
    for _ in range(int(rng.integers(1, 5))):
      data[2 + int(rng.integers(min(24, len(data) - 2)))] = int(rng.integers(256))
    return bytes(data)
  for _ in range(int(rng.integers(1, 4))):
    at = start + pick(rng, (8, 12, 16, 20, 24, 28, 32, 36, 40, 42, 43, 44, 45))
    if at < start + 40:
      data[at:at + 4] = (side(rng) % 2**32).to_bytes(4, 'big')
    else:
      data[at] = int(rng.integers(256))
  return bytes(data)


def _boxes(rng: np.random.Generator, data: bytes) -> bytes:
  """Changes lengths, types or numbers of boxes, or the codestream in one of them."""
  if rng.random() < 0.3 and b'\xff\x4f\xff\x51' in data:
    return _codestream(rng, data)
  data = bytearray(data)
  names = (b'ftyp', b'meta', b'iprp', b'ipco', b'ispe', b'pixi', b'colr', b'iloc', b'iinf', b'jp2h',
           b'ihdr', b'jp2c', b'jxlc', b'jxlp', b'av1C', b'hvcC', b'irot', b'mdat', b'ipma', b'pitm')
  places = [at for name in names if (at := data.find(name)) >= 4]
  for _ in range(int(rng.integers(1, 4))):
    at = pick(rng, places)
    kind = int(rng.integers(4))
    if kind == 0:
      data[at - 4:at] = number(rng, 4, 'big')
    elif kind == 1:
      data[at:at + 4] = pick(rng, names)
    else:
      place = at + 4 + int(rng.integers(24))
      data[place:place + 4] = (number(rng, 4, 'big') if kind == 2
                               else (side(rng) % 2**32).to_bytes(4, 'big'))
  return bytes(data)
