"""Packed sets: every picture of a set decoded once, in one file of uint8 that later starts reuse.

Pictures lie back to back, HR and then its LR, in a [chunks, width] array (a row is up to
1 GiB; indices within it fit int32), so a set of any mix of sizes wastes almost nothing. The
file is mapped into memory: it may be much larger than that.
"""

import contextlib
import hashlib
import heapq
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from sr_jax import images
from sr_jax.data import pictures
from sr_jax.data.file_hashes import digests
from sr_jax.data.pictures import Picture, refuse_empty
from sr_jax.errors import InputError
from sr_jax.system import files, threads

CHUNK = 1 << 30
UNFINISHED = '.unfinished'
FORMAT = 1  # of the folder; another number makes older ones be packed anew


class Packed(NamedTuple):
  """A packed set, as it lies in its file."""

  pixels: np.ndarray  # uint8 [chunks, width], mapped
  table: np.ndarray  # int32 [pictures, 5]: chunk, HR offset, LR offset, LR height, LR width
  names: list[str]  # of the pictures in the table
  skipped: list[str]  # a line for each picture left out, and why


class PackLayout(NamedTuple):
  """Where each picture will lie, known from headers alone."""

  pictures: list[Picture]
  sizes: list[tuple[int, int]]  # of LR
  places: list[tuple[int, int, int]]  # chunk, HR offset, LR offset
  shape: tuple[int, int]
  skipped: list[str]

  @property
  def bytes(self) -> int:
    return self.shape[0] * self.shape[1]


def default_cache() -> pathlib.Path:
  return files.cache_folder() / 'packed'


def folder_of(found: Sequence[Picture], scale: int, channels: int,
              cache: pathlib.Path) -> pathlib.Path:
  """Where these pictures, made so, are or would be packed: by what the files hold, so that a
  set may move."""
  paths = [file for picture in found for file in (picture.hr, picture.lr)
           if isinstance(file, pathlib.Path)]
  contents = digests(paths, cache)
  digest = hashlib.blake2b(f'{FORMAT} {scale} {channels}'.encode(), digest_size=12)
  for picture in found:
    stamps = [contents.get(file) or getattr(file, 'stamp', None)
              for file in (picture.hr, picture.lr)]
    digest.update(repr((*stamps, picture.resize)).encode())
  return cache / digest.hexdigest()


def stored_bytes(file) -> int:
  """Of a picture file; 0 of what is none."""
  try:
    return file.stat().st_size
  except (AttributeError, OSError):
    return 0


def open_packed(folder: pathlib.Path) -> Packed | None:
  """A set packed earlier; None where there is none that is whole."""
  try:
    index = json.loads((folder / 'index.json').read_text(encoding='utf-8'))
    with (folder / 'table.npy').open('rb') as file:
      table = np.load(file)
    pixels = np.memmap(folder / 'pixels', np.uint8, 'r').reshape(index['shape'])
    lines = index['names'], index['skipped']
    if (table.dtype == np.int32 and table.shape == (len(lines[0]), 5)
        and _inside(table.astype(np.int64), *pixels.shape)
        and all(isinstance(line, str) for lists in lines for line in lists)):
      return Packed(pixels, table, *lines)
  except Exception:  # NumPy and JSON raise many kinds on what a crash has left
    return None


def _inside(table: np.ndarray, chunks: int, width: int) -> bool:
  """Whether every picture lies within the pixels."""
  chunk, hr_at, lr_at, height, columns = table.T
  return bool((table >= 0).all() and (chunk < chunks).all() and (hr_at <= lr_at).all()
              and (lr_at + height * columns <= width).all())


def with_crops(packed: Packed, scale: int, patch: int) -> Packed:
  """Without the pictures that are smaller than the HR crops asked for.

  Raises:
    InputError: none is left.
  """
  large = packed.table[:, 3:].min(axis=1, initial=patch) * scale >= patch
  small = [pictures.too_small(packed.names[index], packed.table[index, 3:] * scale, patch)
           for index in np.flatnonzero(~large)]
  packed = packed._replace(table=packed.table[large], skipped=packed.skipped + small,
                           names=[packed.names[index] for index in np.flatnonzero(large)])
  if not len(packed.table):
    refuse_empty(packed.skipped)
  return packed


# Packing -------------------------------------------------------------------------------


def lay_out(found: Sequence[Picture], scale: int, channels: int) -> PackLayout:
  """Lays out the pictures, whose headers are read on all cores.

  Raises:
    InputError: an LR of its own whose size does not fit its HR.
  """
  def measure(picture):
    """(height, width) of the LR, or why the picture is left out."""
    try:
      size = pictures.hr_size(picture)
      own = images.image_size(picture.lr) if picture.lr and not picture.resize else None
    except images.DamagedPicture as error:
      return str(error)
    # A late EXIF tag may have turned one of them, which is seen when it is read.
    if own and not any(pictures.fits(turned, size, scale) for turned in (own, own[::-1])):
      raise InputError(f'{picture.hr}: {size[0]}x{size[1]} is not {scale} times its LR, '
                       f'{own[0]}x{own[1]} ({picture.lr})')
    height, width = (side // scale for side in size)
    if not height or not width:
      return f'{picture.hr}: too small for scale {scale}'
    if _bytes(height, width, scale, channels) >= CHUNK:
      return (f'{picture.hr}: {height * scale}x{width * scale} takes '
              f'{_bytes(height, width, scale, channels):,} bytes, more than {CHUNK:,}')
    return height, width

  measured = threads.on_all_cores(measure, found, 'reading headers')
  usable = [(picture, size) for picture, size in zip(found, measured, strict=True)
            if isinstance(size, tuple)]
  places, shape = _places([_bytes(*size, scale, channels) for _, size in usable])
  places = [(chunk, at, at + channels * height * width * scale**2)
            for (chunk, at), (_, (height, width)) in zip(places, usable, strict=True)]
  return PackLayout([picture for picture, _ in usable], [size for _, size in usable], places, shape,
              [size for size in measured if isinstance(size, str)])


def _places(needs: list[int]) -> tuple[list[tuple[int, int]], tuple[int, int]]:
  """([(chunk, offset)], shape): the largest first, each into the row that has least, which
  leaves rows of nearly one length."""
  chunks = max(1, -(-sum(needs) // CHUNK))
  while True:
    rows, places = [(0, chunk) for chunk in range(chunks)], [None] * len(needs)
    for index in sorted(range(len(needs)), key=lambda index: -needs[index]):
      at, chunk = rows[0]
      places[index] = chunk, at
      heapq.heapreplace(rows, (at + needs[index], chunk))
    longest = max(rows)[0]
    if longest <= CHUNK:
      return places, (chunks, longest)
    chunks += 1


def _bytes(height: int, width: int, scale: int, channels: int) -> int:
  """Of a picture and its LR, whose sides these are."""
  return channels * height * width * (scale**2 + 1)


def pack(planned: PackLayout, scale: int, channels: int, folder: pathlib.Path) -> Packed:
  """Decodes the pictures on all cores into `folder`, which comes to be whole or not at all.

  Damaged pictures are left out, each with a line.

  Raises:
    InputError: a pair that does not fit, no usable picture, no room on the disk.
  """
  if not planned.pictures:
    refuse_empty(planned.skipped)
  with _beside(folder) as unfinished:
    if unfinished is None:  # another process was faster
      return open_packed(folder)
    pixels = _allocated(unfinished / 'pixels', planned.shape)

    def decode(index):
      """Lays one picture in its place; its row of the table, or why there is none."""
      picture, (chunk, hr_at, lr_at) = planned.pictures[index], planned.places[index]
      try:
        pair = pictures.read(picture, scale, channels)
      except images.DamagedPicture as error:
        return str(error)
      if sorted(pair.lr.shape[:2]) != sorted(planned.sizes[index]):
        return f'{picture.hr}: {pair.hr.shape[0]}x{pair.hr.shape[1]} is not what its header says'
      pixels[chunk, hr_at:hr_at + pair.hr.size] = pair.hr.reshape(-1)
      pixels[chunk, lr_at:lr_at + pair.lr.size] = pair.lr.reshape(-1)
      return (chunk, hr_at, lr_at, *pair.lr.shape[:2])

    rows = threads.on_all_cores(decode, range(len(planned.pictures)), 'decoding')
    skipped = planned.skipped + [row for row in rows if isinstance(row, str)]
    table = np.array([row for row in rows if isinstance(row, tuple)], np.int32)
    if not len(table):
      refuse_empty(skipped)
    pixels.flush()
    np.save(unfinished / 'table.npy', table)
    names = [str(picture.hr) for picture, row in zip(planned.pictures, rows, strict=True)
             if isinstance(row, tuple)]
    (unfinished / 'index.json').write_text(json.dumps(
        {'shape': planned.shape, 'names': names, 'skipped': skipped}), encoding='utf-8')
  held = open_packed(folder)
  if held is None:
    raise InputError(f'{folder}: the packed pictures are gone again')
  return held


def _allocated(path: pathlib.Path, shape: tuple[int, int]) -> np.memmap:
  """A file that is there in full: writing to a mapped one with holes in it would crash the
  process where the disk is full."""
  with path.open('wb') as file:
    file.truncate(shape[0] * shape[1])
    if hasattr(os, 'posix_fallocate'):  # macOS has none
      os.posix_fallocate(file.fileno(), 0, shape[0] * shape[1])
  return np.memmap(path, np.uint8, 'r+', shape=shape)


@contextlib.contextmanager
def _beside(folder: pathlib.Path) -> Iterator[pathlib.Path | None]:
  """An unfinished folder that becomes `folder` if the block succeeds and else is gone; None
  if another process has made `folder` meanwhile.

  Raises:
    InputError: it can not be written.
  """
  unfinished = folder.with_suffix(UNFINISHED)
  try:
    with _locked(folder):
      if open_packed(folder):
        yield None
        return
      try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        yield unfinished
        for path in unfinished.iterdir():
          with path.open('rb') as file:
            os.fsync(file.fileno())
        shutil.rmtree(folder, ignore_errors=True)  # one that is not whole
        unfinished.rename(folder)
      finally:
        shutil.rmtree(unfinished, ignore_errors=True)
  except OSError as error:
    raise InputError(f'{folder}: the packed pictures can not be written '
                     f'({error.strerror or error}); --config.data.cache=FOLDER puts them '
                     'elsewhere') from None


@contextlib.contextmanager
def _locked(folder: pathlib.Path, wait: bool = True) -> Iterator[None]:
  """Alone at work on `folder`; the lock is gone with the process that holds it.

  Raises:
    BlockingIOError: another process is, and `wait` is false.
  """
  folder.parent.mkdir(parents=True, exist_ok=True)
  lock = folder.with_suffix('.lock')
  with contextlib.ExitStack() as stack:
    try:
      stack.enter_context(files.locked(lock, wait=False))
    except BlockingIOError:
      if not wait:
        raise
      print(f'{folder}: another process packs the same pictures; waiting for it', file=sys.stderr)
      stack.enter_context(files.locked(lock))
    yield


def remove_leftovers(cache: pathlib.Path) -> None:
  """Removes what killed processes left unfinished."""
  for unfinished in cache.glob(f'*{UNFINISHED}'):
    with (contextlib.suppress(OSError),  # somebody works on it
          _locked(unfinished.with_suffix(''), wait=False)):
      shutil.rmtree(unfinished, ignore_errors=True)
