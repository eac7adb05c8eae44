"""TIFF files that Pillow cannot handle: more than 8 bits per sample, or written row by row."""

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

SIGNATURES = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
# Tags that both EXIF and TIFF have: document name, description, make, model, software, date,
# artist, computer, copyright; Windows' ratings and titles.
DESCRIPTIVE_TAGS = (269, 270, 271, 272, 305, 306, 315, 316, 33432, 18246, 18249,
                    *range(40091, 40096))
RESOLUTION_TAGS = (282, 283, 296)  # along x, along y, unit
DIRECTORY_TAGS = (0x8769, 0x8825)  # directories of tags: EXIF's own (exposure ...) and GPS
_STRIP_BYTES = 2**20  # approximate size of a strip before compression
_METADATA_BYTES = 2**20  # reserved for tags and offsets, in addition to the colour profile


def deep_page(tiff: tifffile.TiffFile) -> tifffile.TiffPage | None:
  """Returns the first page if it is grey or RGB with more bits than Pillow would keep."""
  page = tiff.pages.first
  return page if np.max(page.bitspersample) > 8 and page.photometric in (0, 1, 2) else None


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
  """Decodes a page of `deep_page`, without applying its orientation.

  Integers are scaled to 16 bits, white to 65535; floats are assumed to be in [0, 1].

  Returns:
    (uint16 [h, w, 1 to 4], alpha last and not premultiplied; descriptions of what was lost).

  Raises:
    ValueError: the samples are of a type or shape that is not an image's.
    Exception: the errors of tifffile and its decoders.
  """
  array = page.asarray()
  array = np.moveaxis(array, page.axes.index('S'), -1) if 'S' in page.axes else array[..., None]
  if array.ndim != 3:
    raise ValueError(f'a volume of shape {array.shape}')
  losses = []
  colours = 3 if page.photometric == 2 else 1
  extra_kinds = [int(kind) for kind in page.extrasamples]  # 1: premultiplied alpha, 2: alpha
  alpha_index = next((i for i, kind in enumerate(extra_kinds) if kind in (1, 2)), None)
  channels = [*range(colours), *([] if alpha_index is None else [colours + alpha_index])]
  if len(channels) < array.shape[-1]:
    losses.append('channels other than colour and alpha were dropped')
  if channels != list(range(array.shape[-1])):
    array = array[..., channels]
  array, conversion_losses = _to_uint16(array, int(np.max(page.bitspersample)))
  losses += conversion_losses
  if page.photometric == 0:  # white is zero
    array = array.copy()
    array[..., 0] = 65535 - array[..., 0]
  if alpha_index is not None and extra_kinds[alpha_index] == 1:
    alpha = np.float64(array[..., colours:])
    unmultiplied = np.float64(array[..., :colours]) * 65535 / np.maximum(alpha, 1)
    array = np.concatenate([np.uint16(np.minimum(np.floor(unmultiplied + 0.5), 65535)),
                            array[..., colours:]], -1)
  return np.ascontiguousarray(array), losses


def _to_uint16(array: np.ndarray, bits: int) -> tuple[np.ndarray, list[str]]:
  """Scales samples of `bits` to 16 bits; also returns descriptions of what was lost."""
  losses = []
  if array.dtype.kind == 'f':
    if not (np.min(array) >= 0 and np.max(array) <= 1):  # also true if there is a NaN
      losses.append('values outside 0 to 1 were clipped')
    array = np.nan_to_num(np.clip(np.float32(array), 0, 1), nan=0)
    return np.uint16(array * np.float32(65535) + np.float32(0.5)), losses
  if array.dtype.kind != 'u':
    raise ValueError(f'samples of type {array.dtype}')
  if bits < 16:
    array = np.uint16((np.uint32(array) * 65535 + (2**bits - 1) // 2) // (2**bits - 1))
  elif bits > 16:
    losses.append(f'{bits} bits were reduced to 16')
    array = np.uint16(array >> (bits - 16))
  return array.astype(np.uint16, copy=False), losses  # in the machine's byte order


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
              icc: bytes = b'', exif: bytes = b'') -> Iterator[Callable[[np.ndarray], None]]:
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

  Raises:
    ValueError: rows of another shape or type, or another number of rows than `height`.
    InputError: the file cannot be written.
  """
  metadata = Image.Exif()
  metadata.load(exif)
  tags = _first_directory(metadata)  # first, so that an error is raised before the work is done
  height, width, channels = shape
  with (files.atomic_write(path) as temporary,
        tempfile.TemporaryFile(dir=temporary.parent) as scratch):
    strips = _StripEncoder(path, shape, np.dtype(dtype), scratch)
    yield strips.write_rows
    strips.finish()
    file_size = scratch.tell() + 16 * len(strips.sizes) + len(icc) + 2 * len(exif) + _METADATA_BYTES
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


def _first_directory(exif: Image.Exif) -> dict[str, Any]:
  """Returns the arguments of `TiffWriter.write` for the tags of an EXIF's first directory."""
  tags = []
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
