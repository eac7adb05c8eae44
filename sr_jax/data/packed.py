"""Packed sets: all images of a set decoded once, in one file of uint8 that later starts reuse.

Images lie one after another, HR followed by its LR if that is used, in an array [chunks, width]
whose rows are up to 1 GiB long, so that an int32 can index them. Images of any mix of sizes
therefore waste almost no space. The file is mapped into memory and may be much larger than it.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from sr_jax import images
from sr_jax.data import pictures
from sr_jax.data.file_hashes import digests
from sr_jax.data.pack_layout import PackLayout
from sr_jax.data.pictures import ImageSource, Picture, refuse_empty
from sr_jax.errors import InputError
from sr_jax.system import files, threads

FORMAT = 2  # of the files in the folder; sets of another format are packed again


class Packed(NamedTuple):
  """A packed set, mapped from its file."""

  pixels: np.ndarray  # uint8 [chunks, width], mapped
  # int32 [images, 5]: chunk, HR offset, LR offset, LR height, LR width. Without LR its offset is
  # that of HR.
  table: np.ndarray
  names: list[str]  # names of the images in the table
  skipped: list[str]  # a line for each image that was skipped, with the reason
  notes: list[list[str]]  # what reading each image of the table lost, see `images.dropped`


def default_cache() -> pathlib.Path:
  """Returns the folder in which packed sets are stored by default."""
  return files.cache_folder() / 'packed'


def packed_folder(found: Sequence[Picture], scale: int, channels: int, cache: pathlib.Path,
                  with_lr: bool = True) -> pathlib.Path:
  """Returns the folder in which these images are, or would be, packed with these settings.

  Its name depends on the contents of the files and not on their paths, so a set may be moved.
  """
  paths = [file for picture in found for file in (picture.hr, picture.lr)
           if isinstance(file, pathlib.Path)]
  contents = digests(paths, cache)
  text = f'{FORMAT} {scale} {channels}' + ' HR alone' * (not with_lr)
  digest = hashlib.blake2b(text.encode(), digest_size=12)
  for picture in found:
    stamps = [contents.get(file) or getattr(file, 'stamp', None)
              for file in (picture.hr, picture.lr)]
    digest.update(repr((*stamps, picture.resize)).encode())
  return cache / digest.hexdigest()


def stored_bytes(source: ImageSource) -> int:
  """Returns the size of an image file; 0 if it does not exist or is a record of a data set."""
  try:
    return source.stat().st_size
  except (AttributeError, OSError):
    return 0


def open_packed(folder: pathlib.Path, found: Sequence[Picture]) -> Packed | None:
  """Opens a packed set; returns None if there is none or it is not intact.

  Args:
    folder: of `packed_folder(found, ...)`.
    found: the images. They are named by the paths they have now, which may be others than those
      they were packed from.
  """
  try:
    index = json.loads((folder / 'index.json').read_text(encoding='utf-8'))
    with (folder / 'table.npy').open('rb') as file:
      table = np.load(file)
    pixels = np.memmap(folder / 'pixels', np.uint8, 'r').reshape(index['shape'])
    names = [str(found[image].hr) for image in index['images']]
    skipped = [_with_paths(reason, found[image]) for image, reason in index['skipped']]
    if (table.dtype == np.int32 and table.shape == (len(names), 5)
        and len(index['notes']) == len(names) and _inside(table.astype(np.int64), *pixels.shape)):
      return Packed(pixels, table, names, skipped, index['notes'])
  except Exception:  # NumPy and JSON raise many kinds of errors on damaged files
    return None


def _inside(table: np.ndarray, chunks: int, width: int) -> bool:
  """Returns whether every image of the table lies within pixels of this shape."""
  chunk, hr_offset, lr_offset, height, columns = table.T
  return bool((table >= 0).all() and (chunk < chunks).all() and (hr_offset <= lr_offset).all()
              and (lr_offset + height * columns <= width).all())


# Stand for the paths of an image in the reason why it is skipped. No message has such characters.
_HR_PATH, _LR_PATH = '\0HR\0', '\0LR\0'


def _without_paths(reason: str, picture: Picture) -> str:
  """Returns the reason why an image is skipped with placeholders for its paths."""
  paths = {str(InputError(source)): placeholder for source, placeholder in (
      (picture.hr, _HR_PATH), (picture.lr, _LR_PATH)) if source}
  for path in sorted(paths, key=len, reverse=True):  # one may be the beginning of the other
    reason = reason.replace(path, paths[path])
  return reason


def _with_paths(reason: str, picture: Picture) -> str:
  """Puts the paths of an image into a reason of `_without_paths`."""
  return str(InputError(reason.replace(_HR_PATH, str(picture.hr))
                        .replace(_LR_PATH, str(picture.lr))))


def drop_too_small(packed: Packed, scale: int, patch: int) -> Packed:
  """Removes the images that are smaller than an HR crop of side `patch`.

  Raises:
    InputError: no image is left.
  """
  large = packed.table[:, 3:].min(axis=1, initial=patch) * scale >= patch
  too_small = [pictures.too_small_message(packed.names[index], packed.table[index, 3:] * scale,
                                          patch) for index in np.flatnonzero(~large)]
  packed = packed._replace(table=packed.table[large], skipped=packed.skipped + too_small,
                           names=[packed.names[index] for index in np.flatnonzero(large)],
                           notes=[packed.notes[index] for index in np.flatnonzero(large)])
  if not len(packed.table):
    refuse_empty(packed.skipped)
  return packed


# Packing -------------------------------------------------------------------------------


def pack(layout: PackLayout, scale: int, channels: int, folder: pathlib.Path) -> Packed:
  """Decodes the images on all cores into `folder`, which is written completely or not at all.

  Damaged images are skipped. If another process is packing the same set, waits for it and uses
  its result.

  Raises:
    InputError: a pair that does not match, no usable image, or the disk is full.
  """
  if not layout.indices:
    refuse_empty(list(layout.skipped.values()))
  try:
    with _locked(folder):
      if not open_packed(folder, layout.found):  # another process may have packed it meanwhile
        files.remove_unfinished(folder)  # whose lock this process has
        with files.atomic_folder(folder, replace=True) as unfinished:
          _decode_into(unfinished, layout, scale, channels)
  except OSError as error:
    raise InputError(f'{folder}: cannot write the packed images ({error.strerror or error}); '
                     '--config.data.cache=FOLDER stores them elsewhere') from None
  packed = open_packed(folder, layout.found)
  if packed is None:
    raise InputError(f'{folder}: the packed images were deleted by another process')
  return packed


def _decode_into(folder: pathlib.Path, layout: PackLayout, scale: int, channels: int) -> None:
  """Writes the files of a packed set."""
  pixels = _allocate(folder / 'pixels', layout.shape)

  notes: dict[int, tuple[str, ...]] = {}

  def decode(number: int) -> tuple[int, ...] | str:
    """Writes one image to its place; returns its row of the table, or why it is skipped."""
    picture = layout.found[layout.indices[number]]
    chunk, hr_offset, lr_offset = layout.places[number]
    try:
      pair = pictures.read(picture, scale, channels)
    except images.DamagedImageError as error:
      return str(error)
    if sorted(pair.lr.shape[:2]) != sorted(layout.sizes[number]):
      return (f'{picture.hr}: {pair.hr.shape[0]}x{pair.hr.shape[1]} is not the size in its '
              'header')
    notes[layout.indices[number]] = pair.notes
    pixels[chunk, hr_offset:hr_offset + pair.hr.size] = pair.hr.reshape(-1)
    if lr_offset > hr_offset:
      pixels[chunk, lr_offset:lr_offset + pair.lr.size] = pair.lr.reshape(-1)
    return (chunk, hr_offset, lr_offset, *pair.lr.shape[:2])

  rows = threads.on_all_cores(decode, range(len(layout.indices)), 'decoding')
  decoded = dict(zip(layout.indices, rows, strict=True))
  skipped = layout.skipped | {index: row for index, row in decoded.items() if isinstance(row, str)}
  table = {index: row for index, row in decoded.items() if isinstance(row, tuple)}
  if not table:
    refuse_empty(list(skipped.values()))
  pixels.flush()
  np.save(folder / 'table.npy', np.array(list(table.values()), np.int32))
  reasons = [(index, _without_paths(reason, layout.found[index]))
             for index, reason in sorted(skipped.items())]
  (folder / 'index.json').write_text(json.dumps(
      {'shape': layout.shape, 'images': list(table), 'skipped': reasons,
       'notes': [notes[index] for index in table]}), encoding='utf-8')
  for path in folder.iterdir():
    with path.open('rb') as file:
      os.fsync(file.fileno())


def _allocate(path: pathlib.Path, shape: tuple[int, int]) -> np.memmap:
  """Maps a new file whose blocks are all allocated.

  Writing to a mapped file with holes in it would crash the process when the disk is full.
  """
  with path.open('wb') as file:
    file.truncate(shape[0] * shape[1])
    if hasattr(os, 'posix_fallocate'):  # macOS has none
      os.posix_fallocate(file.fileno(), 0, shape[0] * shape[1])
  return np.memmap(path, np.uint8, 'r+', shape=shape)


@contextlib.contextmanager
def _locked(folder: pathlib.Path, wait: bool = True) -> Iterator[None]:
  """Locks `folder` against other processes; the lock ends with the process that has it.

  Raises:
    BlockingIOError: another process has the lock, and `wait` is false.
    OSError: the lock file cannot be created.
  """
  folder.parent.mkdir(parents=True, exist_ok=True)
  lock = folder.with_suffix('.lock')
  with contextlib.ExitStack() as stack:
    try:
      stack.enter_context(files.locked(lock, wait=False))
    except BlockingIOError:
      if not wait:
        raise
      print(f'{folder}: another process is packing the same images; waiting for it',
            file=sys.stderr)
      stack.enter_context(files.locked(lock))
    yield


def remove_leftovers(cache: pathlib.Path) -> None:
  """Removes what killed processes left unfinished in the cache."""
  for unfinished in cache.glob(f'{files.UNFINISHED}*-*'):
    folder = cache / unfinished.name.removeprefix(files.UNFINISHED).rpartition('-')[0]
    with (contextlib.suppress(OSError),  # another process is working on it
          _locked(folder, wait=False)):
      files.remove_unfinished(folder)
