"""TIFF files beyond Pillow: more than 8 bits a sample, and written a few rows at a time."""

import contextlib
import numbers
import os
import struct
import tempfile

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, TiffImagePlugin

from sr_jax.system import files

SIGNATURES = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
# Tags that an EXIF has and a TIFF has by itself: document, what it shows, make, model, software,
# date, artist, computer, copyright; Windows' ratings and titles.
DESCRIPTIVE = (269, 270, 271, 272, 305, 306, 315, 316, 33432, 18246, 18249, *range(40091, 40096))
RESOLUTION = (282, 283, 296)  # along x, along y, unit
DIRECTORIES = (0x8769, 0x8825)  # of tags: how it was taken (EXIF's own), where (GPS)
_STRIP = 2**20  # bytes, about, before compression
_ROOM = 2**20  # for the tags and whatever else is no pixel, beside the colour profile


def deep_page(tiff: tifffile.TiffFile) -> tifffile.TiffPage | None:
  """The first page, if it is grey or RGB with more bits than Pillow would keep."""
  page = tiff.pages.first
  return page if np.max(page.bitspersample) > 8 and page.photometric in (0, 1, 2) else None


def page_exif(tiff: tifffile.TiffFile) -> Image.Exif:
  """The tags of the first page, as of a picture that Pillow has opened."""
  exif = Image.Exif()
  try:
    exif.bigtiff, exif.endian = tiff.is_bigtiff, tiff.byteorder
    exif.load_from_fp(tiff.filehandle, tiff.pages.first.offset)
  except Exception:  # of a BigTIFF with the high byte first
    exif = Image.Exif()
    exif[274] = tiff.pages.first.tags.valueof(274, 1)  # how it is turned
  return exif


def decode(page: tifffile.TiffPage) -> tuple[np.ndarray, list[str]]:
  """The samples of a deep page, as they are stored.

  Integers are stretched to 16 bits, white to 65535; floats are taken to be in [0, 1].

  Returns:
    (uint16 [h, w, 1 to 4], alpha last and not multiplied in; what was lost, in words).

  Raises:
    ValueError: samples of a kind that is no picture's. tifffile's and the decoders' errors.
  """
  array, lost = page.asarray(), []
  array = np.moveaxis(array, page.axes.index('S'), -1) if 'S' in page.axes else array[..., None]
  if array.ndim != 3:
    raise ValueError(f'a volume of shape {array.shape}')
  colours = 3 if page.photometric == 2 else 1
  kinds = [int(kind) for kind in page.extrasamples]
  clear = next((i for i, kind in enumerate(kinds) if kind in (1, 2)), None)
  kept = [*range(colours), *([] if clear is None else [colours + clear])]
  if len(kept) < array.shape[-1]:
    lost.append('channels that are neither colour nor transparency left out')
  if kept != list(range(array.shape[-1])):
    array = array[..., kept]
  if array.dtype.kind == 'f':
    if not (np.min(array) >= 0 and np.max(array) <= 1):  # nor where one is not a number
      lost.append('what lies outside 0 to 1 cut off')
    array = np.nan_to_num(np.clip(np.float32(array), 0, 1), nan=0)
    array = np.uint16(array * np.float32(65535) + np.float32(0.5))
  elif array.dtype.kind == 'u':
    bits = int(np.max(page.bitspersample))
    if bits < 16:
      array = np.uint16((np.uint32(array) * 65535 + (2**bits - 1) // 2) // (2**bits - 1))
    elif bits > 16:
      lost.append(f'{bits} bits became 16')
      array = np.uint16(array >> (bits - 16))
    array = array.astype(np.uint16, copy=False)  # in this machine's byte order
  else:
    raise ValueError(f'samples of type {array.dtype}')
  if page.photometric == 0:  # white is zero
    array = array.copy()
    array[..., 0] = 65535 - array[..., 0]
  if clear is not None and kinds[clear] == 1:  # multiplied in
    alpha = np.float64(array[..., colours:])
    whole = np.float64(array[..., :colours]) * 65535 / np.maximum(alpha, 1)
    array = np.concatenate([np.uint16(np.minimum(np.floor(whole + 0.5), 65535)),
                            array[..., colours:]], -1)
  return np.ascontiguousarray(array), lost


@contextlib.contextmanager
def tiff_rows(path, height: int, width: int, channels: int, dtype, icc: bytes = b'',
              exif: bytes = b''):
  """Yields write_rows(array [n, width, channels]), for any number of rows at a time, from the top.

  The file, deflated without loss, is at `path` once all rows have come and the block has
  succeeded; else what was there stays. No more than a strip, about a megabyte, is kept in
  memory. The strips wait beside `path` till their sizes are known, so that twice the disk of
  the finished file is needed. It is a BigTIFF only where it would pass 4 GB.

  Args:
    channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha, which is not multiplied in.
    dtype: uint8 or uint16.
    exif: the orientation is left out; of a BigTIFF all but make, date and the like.

  Raises:
    ValueError: rows of another shape or type, more or fewer than there should be.
    InputError: the file can't be written.
  """
  dtype, row, about = np.dtype(dtype), (width, channels), Image.Exif()
  about.load(exif)
  tags = _tags(about)  # now, for it would be a pity later
  most = max(1, min(height, _STRIP // (width * channels * dtype.itemsize)))
  strip, filled, sizes, came = np.empty((most, *row), dtype.newbyteorder('<')), 0, [], 0
  with files.atomic_write(path) as temporary, tempfile.TemporaryFile(dir=temporary.parent) as scratch:

    def flush():
      nonlocal filled
      steps = strip[:filled].copy()
      steps[:, 1:] -= strip[:filled, :-1]  # TIFF's horizontal predictor, modulo 2^bits
      sizes.append(scratch.write(imagecodecs.deflate_encode(steps, level=6)))
      filled = 0

    def write_rows(rows):
      nonlocal filled, came
      came += len(rows)
      if rows.shape[1:] != row or rows.dtype != dtype or came > height:
        raise ValueError(f'{path}: {rows.dtype} {rows.shape} of {came} rows, expected {dtype} '
                         f'[n, {width}, {channels}] and {height} rows')
      while len(rows):
        part = rows[:most - filled]
        strip[filled:filled + len(part)] = part
        filled, rows = filled + len(part), rows[len(part):]
        if filled == most:
          flush()

    yield write_rows
    if came != height:
      raise ValueError(f'{path}: {came} of {height} rows came')
    if filled:
      flush()
    big = scratch.tell() + 16 * len(sizes) + len(icc) + 2 * len(exif) + _ROOM >= 2**32
    scratch.seek(0)
    with tifffile.TiffWriter(temporary, bigtiff=big, byteorder='<') as tiff:
      tiff.write((scratch.read(size) for size in sizes), dtype=dtype,
                 shape=(height, width) if channels == 1 else (height, *row), rowsperstrip=most,
                 compression='zlib', predictor=2,
                 photometric='rgb' if channels > 2 else 'minisblack',
                 planarconfig=None if channels == 1 else 'contig',
                 extrasamples=['unassalpha'] if channels in (2, 4) else None,
                 iccprofile=icc or None, metadata=None, software=False, **tags)
    if not big and any(tag in about for tag in DIRECTORIES):
      _append_directories(temporary, about)


def _tags(exif: Image.Exif) -> dict:
  """What of it lies in the first directory, in `TiffWriter.write`'s words."""
  tags = []
  for tag in (tag for tag in DESCRIPTIVE if tag in exif):
    value = exif[tag]
    if isinstance(value, bytes):
      tags.append((tag, 1, len(value), value, True))
    elif isinstance(value, str):
      tags.append((tag, 2, None, value.encode(), True))
    elif isinstance(value, int):
      tags.append((tag, 3, 1, min(value, 65535), True))
  along = [exif.get(tag) for tag in RESOLUTION[:2]]
  if not all(isinstance(dots, numbers.Real) and 0 < dots < 1e6 for dots in along):
    return {'extratags': tags}
  unit = exif.get(RESOLUTION[2], 2)
  return {'extratags': tags, 'resolution': tuple(map(float, along)),
          'resolutionunit': unit if unit in (1, 3) else 2}


def _append_directories(path, exif: Image.Exif) -> None:
  """tifffile writes none but a picture's own: they go to the end, and it, which names them, too."""
  with open(path, 'r+b') as file:

    def append(data) -> int:
      end = file.seek(0, os.SEEK_END)
      end += file.write(bytes(end % 2))  # directories begin at even places
      file.write(data(end))
      return end

    file.seek(4)
    file.seek(*struct.unpack('<I', file.read(4)))
    entries = [file.read(12) for _ in range(*struct.unpack('<H', file.read(2)))]
    for tag in DIRECTORIES:
      directory = TiffImagePlugin.ImageFileDirectory_v2(group=tag)
      for key, value in exif.get_ifd(tag).items():
        directory[key] = value
      if len(directory):
        entries.append(struct.pack('<HHII', tag, 4, 1, append(directory.tobytes)))
    entries.sort(key=lambda entry: struct.unpack('<H', entry[:2]))
    end = append(lambda _: struct.pack('<H', len(entries)) + b''.join(entries) + bytes(4))
    file.seek(4)
    file.write(struct.pack('<I', end))
