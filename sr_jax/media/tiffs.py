"""Writes TIFF files row by row."""

import contextlib
import numbers
import os
import pathlib
import struct
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, TiffImagePlugin

from sr_jax.system import files

# Tags that both EXIF and TIFF have: document name, description, make, model, software, date,
# artist, computer, copyright; Windows' ratings and titles.
DESCRIPTIVE_TAGS = (269, 270, 271, 272, 305, 306, 315, 316, 33432, 18246, 18249,
                    *range(40091, 40096))
RESOLUTION_TAGS = (282, 283, 296)  # along x, along y, unit
DIRECTORY_TAGS = (0x8769, 0x8825)  # directories of tags: EXIF's own (exposure ...) and GPS
_XMP_TAG = 700
_STRIP_BYTES = 2**20  # approximate size of a strip before compression
_METADATA_BYTES = 2**20  # reserved for tags and offsets, in addition to the colour profile


class _StripEncoder:
  """Collects rows in strips and appends the deflated strips to a scratch file."""

  def __init__(self, path: pathlib.Path, shape: tuple[int, int, int], dtype: np.dtype,
               scratch: BinaryIO) -> None:
    self.path, self.shape, self.dtype, self.scratch = path, shape, dtype, scratch
    height, width, channels = shape
    self.rows_per_strip = max(1, min(height, _STRIP_BYTES // (width * channels * dtype.itemsize)))
    self.strip = np.empty((self.rows_per_strip, width, channels), dtype.newbyteorder('<'))
    self.filled = 0  # rows in `strip`
    self.received = 0  # rows in all
    self.sizes: list[int] = []  # bytes of each encoded strip

  def write_rows(self, rows: np.ndarray) -> None:
    """Adds rows [n, width, channels]."""
    height, width, channels = self.shape
    self.received += len(rows)
    if (rows.shape[1:] != (width, channels) or rows.dtype != self.dtype
        or self.received > height):
      raise ValueError(f'{self.path}: {rows.dtype} {rows.shape} of {self.received} rows, expected '
                       f'{self.dtype} [n, {width}, {channels}] and {height} rows')
    while len(rows):
      part = rows[:self.rows_per_strip - self.filled]
      self.strip[self.filled:self.filled + len(part)] = part
      self.filled, rows = self.filled + len(part), rows[len(part):]
      if self.filled == self.rows_per_strip:
        self._encode()

  def finish(self) -> None:
    """Encodes the last strip."""
    if self.received != self.shape[0]:
      raise ValueError(f'{self.path}: received {self.received} of {self.shape[0]} rows')
    if self.filled:
      self._encode()

  def _encode(self) -> None:
    differences = self.strip[:self.filled].copy()
    # TIFF's horizontal predictor, modulo 2^bits.
    differences[:, 1:] -= self.strip[:self.filled, :-1]
    self.sizes.append(self.scratch.write(imagecodecs.deflate_encode(differences, level=6)))
    self.filled = 0


@contextlib.contextmanager
def tiff_rows(path: os.PathLike | str, shape: tuple[int, int, int], dtype: npt.DTypeLike,
              icc: bytes = b'', exif: bytes = b'', xmp: bytes = b''
              ) -> Iterator[Callable[[np.ndarray], None]]:
  """Yields write_rows([n, width, channels]), which takes any number of rows, from top to bottom.

  The losslessly deflated file replaces `path` once all rows have been written and the block has
  succeeded; otherwise `path` is unchanged. At most one strip, about a megabyte, is in memory. The
  encoded strips wait in a temporary file in the same folder until their sizes are known, which
  doubles the disk space that is needed. The file is a BigTIFF only if it would exceed 4 GB.

  Args:
    path: file to write.
    shape: (height, width, channels), with 1 channel for grey, 2 for grey and alpha, 3 for RGB, 4
      for RGB and alpha, which is not premultiplied.
    dtype: uint8 or uint16.
    icc: colour profile.
    exif: the orientation is dropped; a BigTIFF keeps only the descriptive tags and the resolution.
    xmp: a packet of XMP.

  Raises:
    ValueError: rows of another shape or type, or another number of rows than `height`.
    InputError: the file cannot be written.
  """
  metadata = Image.Exif()
  metadata.load(exif)
  tags = _first_directory(metadata, xmp)  # before the work, as it may raise an error
  height, width, channels = shape
  with (files.atomic_write(path) as temporary,
        tempfile.TemporaryFile(dir=temporary.parent) as scratch):
    strips = _StripEncoder(path, shape, np.dtype(dtype), scratch)
    yield strips.write_rows
    strips.finish()
    file_size = (scratch.tell() + 16 * len(strips.sizes) + len(icc) + len(xmp) + 2 * len(exif)
                 + _METADATA_BYTES)
    big = file_size >= 2**32
    scratch.seek(0)
    with tifffile.TiffWriter(temporary, bigtiff=big, byteorder='<') as tiff:
      tiff.write((scratch.read(size) for size in strips.sizes), dtype=strips.dtype,
                 shape=(height, width) if channels == 1 else (height, width, channels),
                 rowsperstrip=strips.rows_per_strip, compression='zlib', predictor=2,
                 photometric='rgb' if channels > 2 else 'minisblack',
                 planarconfig=None if channels == 1 else 'contig',
                 extrasamples=['unassalpha'] if channels in (2, 4) else None,
                 iccprofile=icc or None, metadata=None, software=False, **tags)
    if not big and any(tag in metadata for tag in DIRECTORY_TAGS):
      _append_directories(temporary, metadata)


def _first_directory(exif: Image.Exif, xmp: bytes) -> dict[str, Any]:
  """Returns the arguments of `TiffWriter.write` for the tags of EXIF's first directory and XMP."""
  tags = [(_XMP_TAG, 1, len(xmp), xmp, True)] if xmp else []
  for tag in (tag for tag in DESCRIPTIVE_TAGS if tag in exif):
    value = exif[tag]
    if isinstance(value, bytes):
      tags.append((tag, 1, len(value), value, True))
    elif isinstance(value, str):
      tags.append((tag, 2, None, value.encode(), True))
    elif isinstance(value, int):
      tags.append((tag, 3, 1, min(value, 65535), True))
  resolution = [exif.get(tag) for tag in RESOLUTION_TAGS[:2]]
  if not all(isinstance(value, numbers.Real) and 0 < value < 1e6 for value in resolution):
    return {'extratags': tags}
  unit = exif.get(RESOLUTION_TAGS[2], 2)
  return {'extratags': tags, 'resolution': tuple(map(float, resolution)),
          'resolutionunit': unit if unit in (1, 3) else 2}


def _append_directories(path: pathlib.Path, exif: Image.Exif) -> None:
  """Appends the EXIF and GPS directories, which tifffile cannot write, to a TIFF.

  The first directory has to list them, so it is rewritten at the end of the file as well.
  """
  with open(path, 'r+b') as file:

    def append(data: Callable[[int], bytes]) -> int:
      offset = file.seek(0, os.SEEK_END)
      offset += file.write(bytes(offset % 2))  # directories start at even offsets
      file.write(data(offset))
      return offset

    file.seek(4)
    file.seek(*struct.unpack('<I', file.read(4)))
    entries = [file.read(12) for _ in range(*struct.unpack('<H', file.read(2)))]
    for tag in DIRECTORY_TAGS:
      directory = TiffImagePlugin.ImageFileDirectory_v2(group=tag)
      for key, value in exif.get_ifd(tag).items():
        directory[key] = value
      if len(directory):
        entries.append(struct.pack('<HHII', tag, 4, 1, append(directory.tobytes)))
    entries.sort(key=lambda entry: struct.unpack('<H', entry[:2]))
    offset = append(lambda _: struct.pack('<H', len(entries)) + b''.join(entries) + bytes(4))
    file.seek(4)
    file.write(struct.pack('<I', offset))
