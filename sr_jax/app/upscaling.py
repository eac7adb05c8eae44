"""Upscales an uploaded image to a file for download and a pair of images for the slider."""

import dataclasses
import math
import os
import pathlib
import time
import zipfile
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from sr_jax.errors import InputError, brief
from sr_jax.inference.upscale_file import FileOptions, result_size, upscale_file
from sr_jax.inference.upscaler import Upscaler
from sr_jax.media import photos

MAX_SHOWN_PIXELS = 16_000_000  # of a result under the slider: phones hold two such images
MIN_OUTSCALE, MAX_OUTSCALE = 0.1, 8
MIN_MEASURED_PIXELS = 250_000  # of a smaller image, compilation may take most of the time
PROBE_SIDE = 64  # of the image that measures a network's speed; an RRDBNet of 23 blocks takes 2 s


@dataclasses.dataclass
class Network:
  """A network of the page.

  Attributes:
    name: as the page shows it.
    upscaler: the network.
    seconds_per_pixel: of an image, without the self-ensemble; from a small image, and then from
      the last large one.
  """

  name: str
  upscaler: Upscaler
  seconds_per_pixel: float = 1e-4

  def measure(self) -> None:
    """Measures the speed with a small image, after one that compiles the network."""
    probe = np.zeros((PROBE_SIDE, PROBE_SIDE, 3), np.uint8)
    self.upscaler(probe)
    start = time.monotonic()
    self.upscaler(probe)
    self.seconds_per_pixel = (time.monotonic() - start) / PROBE_SIDE ** 2

  def expected_seconds(self, size: tuple[int, int], ensemble: bool) -> float:
    """Returns about how long an image of (height, width) takes."""
    return self.seconds_per_pixel * size[0] * size[1] * (8 if ensemble else 1)


@dataclasses.dataclass(frozen=True)
class Result:
  """An upscaled image.

  Attributes:
    file: the image in full size, for download.
    shown: (before, after), two files of one size for the slider; empty if they cannot be made.
    summary: what was done and what was lost, in one line.
  """

  file: pathlib.Path
  shown: tuple[pathlib.Path, ...]
  summary: str


def image_size(path: pathlib.Path, max_pixels: int) -> tuple[int, int]:
  """Returns (height, width) of an uploaded image, from its header.

  Raises:
    InputError: the file is no readable image or has more than `max_pixels` pixels. The message
      gives its name without the folder, which means nothing to a visitor.
  """
  if not path.exists():
    raise InputError(f'{path.name}: the uploaded file was deleted; upload it again')
  try:
    return photos.size(path, max_pixels)
  except InputError as error:
    raise _without_folders(error, path) from None


def thumbnail(path: pathlib.Path, max_pixels: int) -> Image.Image:
  """Returns an image of at most 512x512 pixels; raises `InputError` as `image_size`."""
  try:
    image = _to_pillow(photos.read(path, max_pixels))
  except InputError as error:
    raise _without_folders(error, path) from None
  image.thumbnail((512, 512))
  return image


def upscale_image(network: Network, path: pathlib.Path, folder: pathlib.Path, options: FileOptions,
                  on_fraction: Callable[[float], None] = lambda fraction: None) -> Result:
  """Upscales an image file with the network and, for comparison, with bicubic interpolation.

  Args:
    network: the network.
    path: the image file.
    folder: the result's files are written to it.
    options: as for `upscale_file`.
    on_fraction: called with the part of the image that is done, from 0 to 1.

  Raises:
    InputError: the image cannot be read, has too many pixels or does not fit in memory, or the
      result cannot be written.
  """
  size, upscaler = image_size(path, options.max_pixels), network.upscaler
  extras, done = options.extras, 0
  scale = extras.outscale or upscaler.scale
  file = _new_path(folder, f'{path.stem}_x{scale:g}', photos.FORMATS[options.format].suffix)

  def on_rows(rows: int) -> None:
    nonlocal done
    done += rows
    on_fraction(min(1.0, done / size[0]))

  start, notes_before = time.monotonic(), len(upscaler.notes)
  try:
    loss = upscale_file(upscaler, path, file, options, on_rows)
  except InputError as error:
    raise _without_folders(error, path, file) from None
  seconds = time.monotonic() - start
  if size[0] * size[1] >= MIN_MEASURED_PIXELS:
    network.seconds_per_pixel *= seconds / network.expected_seconds(size, extras.ensemble)
  height, width = result_size(size, scale)
  notes = [loss, *upscaler.notes[notes_before:]]
  try:
    shown, shown_size = _write_shown(path, file, (height, width), options.max_pixels)
    if shown_size != (height, width):
      notes.append(f'shown at {shown_size[1]}x{shown_size[0]}')
  except (InputError, MemoryError, OSError):  # the result itself is complete
    shown = ()
    notes.append('too large to be shown here')
  summary = (f'{path.name}: {size[1]}x{size[0]} to {width}x{height} in {seconds:.1f} s with '
             f'{network.name}' + (', self-ensemble of 8' if extras.ensemble else '')
             + ''.join(f'; {note}' for note in notes if note))
  return Result(file, shown, summary)


def parse_outscale(text: str, scale: int) -> float:
  """Returns the outscale of `Extras` for what was typed: 0 for nothing or the network's scale.

  Raises:
    InputError: it is no number, or out of range.
  """
  if not text.strip():
    return 0
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not MIN_OUTSCALE <= value <= MAX_OUTSCALE:
    raise InputError(f'Outscale {brief(text, 20)}: expected a number from {MIN_OUTSCALE} to '
                     f'{MAX_OUTSCALE}')
  return 0 if value == scale else value


def zip_files(paths: Sequence[pathlib.Path], target: pathlib.Path) -> pathlib.Path:
  """Writes a zip archive of the files, uncompressed because images are, and returns its path.

  Raises:
    InputError: it cannot be written; no part of it remains.
  """
  try:
    with zipfile.ZipFile(target, 'w') as archive:
      for path in paths:
        archive.write(path, path.name)
  except OSError as error:
    target.unlink(missing_ok=True)
    raise InputError(f'{target.name}: cannot write ({error.strerror or error})') from None
  return target


def _new_path(folder: pathlib.Path, stem: str, suffix: str) -> pathlib.Path:
  """Returns FOLDER/STEM.SUFFIX, or STEM-2.SUFFIX and so on if that exists."""
  path, number = folder / f'{stem}{suffix}', 1
  while path.exists():
    number += 1
    path = folder / f'{stem}-{number}{suffix}'
  return path


def _write_shown(source: pathlib.Path, result: pathlib.Path, size: tuple[int, int],
                 max_pixels: int) -> tuple[tuple[pathlib.Path, pathlib.Path], tuple[int, int]]:
  """Writes the source, resized by bicubic, and the result as PNG files for the slider.

  Args:
    source: the input.
    result: its upscaled copy.
    size: (height, width) of the result.
    max_pixels: that an input may have.

  Returns:
    ((before, after), (height, width) of both).
  """
  height, width = size
  shrink = max(1, (height * width / MAX_SHOWN_PIXELS) ** 0.5)
  height, width = max(1, int(height / shrink)), max(1, int(width / shrink))
  folder, written = result.parent / 'shown', []
  folder.mkdir(exist_ok=True)
  for name, path, limit in (('before', source, max_pixels), ('after', result, 1 << 40)):
    target = folder / f'{result.name}-{name}.png'
    image = _to_pillow(photos.read(path, limit))
    image.resize((width, height), Image.Resampling.BICUBIC).save(target, compress_level=1)
    written.append(target)
  return tuple(written), (height, width)


def _to_pillow(photo: photos.Photo) -> Image.Image:
  """Returns the photo in 8 bits, as a screen shows it."""
  samples = [photo.samples] if photo.alpha is None else [photo.samples, photo.alpha]
  image = np.concatenate(samples, axis=-1)
  image = np.uint8(image >> 8) if image.dtype == np.uint16 else image
  return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def _without_folders(error: InputError, *paths: os.PathLike) -> InputError:
  """Returns the error with the names of the files instead of their paths."""
  message = str(error)
  for path in paths:
    printed_path = str(InputError(path))  # as in the message, without control characters
    message = message.replace(printed_path, pathlib.Path(path).name)
  return InputError(message)
