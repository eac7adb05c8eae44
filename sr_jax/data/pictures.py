"""One image of a data set: a reference to its files, the decoded pair, and crops of the pair."""

import collections
import os
import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple, NoReturn

import numpy as np

from sr_jax import images
from sr_jax.data.array_image import ArrayImage
from sr_jax.data.tfds import Record
from sr_jax.errors import InputError

# Number of LR pixels on each side of one that MATLAB's bicubic reduction depends on.
BICUBIC_MARGIN = 2

MAX_CAUSES = 5  # that are named where no image of a set can be used
SMALLER_THAN_CROP = 'is smaller than the'

# A path or a record of a data set, which `images.read_image` reads, or an image in memory.
ImageSource = os.PathLike | str | Record | ArrayImage


class Picture(NamedTuple):
  """An image of a data set that has not been read yet.

  Attributes:
    name: name of the image, unique within the set.
    hr: a path, a `tfds.Record` or an `ArrayImage`.
    lr: the same for LR; None if LR is to be made from HR.
    resize: size to which HR is resized first (and a separate LR accordingly): '256' is the length
      of the shorter side; '256x192' is height and width, which may change the proportions; ''
      does not resize.
  """

  name: str
  hr: ImageSource
  lr: ImageSource | None = None
  resize: str = ''


class TooSmallError(InputError):
  """An image is smaller than the crop; one of many may be skipped."""


class Pair(NamedTuple):
  """A decoded image: LR uint8 [h, w, C] and HR uint8 [h * scale, w * scale, C]."""

  name: str
  lr: np.ndarray
  hr: np.ndarray
  cropped: bool = False  # whether HR lost rows or columns to become a multiple of the scale
  notes: tuple[str, ...] = ()  # what reading the files lost, see `images.dropped`


def read(picture: Picture, scale: int, channels: int | None = None) -> Pair:
  """Reads an image pair; without a separate LR, MATLAB's bicubic reduction makes LR from HR.

  HR is cropped to a multiple of the scale first.

  Args:
    picture: the image.
    scale: HR / LR.
    channels: 3 repeats the channel of grey images; 1 converts colour and grey images to luma,
      rounded; None keeps the channels of the file.

  Raises:
    InputError: a damaged image, a pair whose sizes or channels do not match, or an image that is
      smaller than the scale.
  """
  notes = []
  pair = _pair(picture, _read_hr(picture, notes), scale, notes)
  return pair._replace(lr=with_channels(pair.lr, channels), hr=with_channels(pair.hr, channels),
                       notes=tuple(dict.fromkeys(notes)))


def read_crops(picture: Picture, scale: int, channels: int, patch: int,
               positions: Iterable[Sequence[float]]) -> dict[str, np.ndarray]:
  """Returns crops of one image, which is decoded once.

  Args:
    picture: the image.
    scale: HR / LR.
    channels: 3 or 1, as for `read`.
    patch: side of the HR crops, a multiple of `scale`.
    positions: pairs of numbers in [0, 1): how far down and right each crop lies.

  Returns:
    {'lr': uint8 [n, patch / scale, patch / scale, C], 'hr': uint8 [n, patch, patch, C]}. They
    equal crops of `read(picture)` bit for bit, but only the LR of the crops is computed.

  Raises:
    InputError: as for `read`.
    TooSmallError: the image is smaller than the crop.
  """
  if picture.lr is None:
    hr, lr = images.crop_to_multiple(_read_hr(picture, []), scale), None
  else:
    _, lr, hr, *_ = _pair(picture, _read_hr(picture, []), scale, [])
  side, rows, columns = patch // scale, hr.shape[0] // scale, hr.shape[1] // scale
  if min(rows, columns) < side:
    raise TooSmallError(too_small_message(picture.hr, hr.shape, patch))
  crops = {'lr': [], 'hr': []}
  for down, right in positions:
    y, x = int(down * (rows - side + 1)), int(right * (columns - side + 1))
    hr_crop = hr[y * scale:y * scale + patch, x * scale:x * scale + patch]
    lr_crop = _lr_crop(hr, y, x, side, scale) if lr is None else lr[y:y + side, x:x + side]
    crops['lr'].append(with_channels(lr_crop, channels))
    crops['hr'].append(with_channels(hr_crop, channels))
  return {name: np.stack(arrays) for name, arrays in crops.items()}


def too_small_message(source: ImageSource, shape: Sequence[int], patch: int) -> str:
  """Returns the message about an image that is smaller than the crop."""
  return f'{source}: {shape[0]}x{shape[1]} {SMALLER_THAN_CROP} {patch}x{patch} crop'


def header_notes(picture: Picture) -> list[str]:
  """Returns what reading the files of an image loses, as far as their headers show it."""
  sources = [source for source in (picture.hr, picture.lr)
             if source is not None and not isinstance(source, ArrayImage)]
  try:
    return [note for source in sources for note in images.header_notes(source)]
  except InputError:  # reported where the image is read
    return []


def hr_size(picture: Picture) -> tuple[int, int]:
  """Returns (height, width) of HR after resizing and before cropping, from its header alone."""
  size = source_size(picture.hr)
  return _resized_size(size, picture.resize) if picture.resize else size


def source_size(source: ImageSource) -> tuple[int, int]:
  """Returns (height, width) of a file from its header, or of an image in memory."""
  return source.array.shape[:2] if isinstance(source, ArrayImage) else images.image_size(source)


def parse_resize(text: str, key: str) -> str:
  """Returns the text if it is '', a number or HEIGHTxWIDTH.

  Raises:
    InputError: it is something else; the message names `key`.
  """
  if not re.fullmatch(r'|[1-9]\d{0,4}(x[1-9]\d{0,4})?', text):
    raise InputError(f"{key}={text}: expected the length of the shorter side, such as '256', or "
                     "height and width, such as '256x256'")
  return text


def with_channels(image: np.ndarray, channels: int | None) -> np.ndarray:
  """Converts uint8 [H, W, 1 or 3] to 3 channels or to 1 (luma); None returns it unchanged."""
  if channels is None:
    return image
  image = images.as_rgb(image)
  return image if channels == 3 else images.to_uint8(images.luma(images.to_float(image)))


def sizes_match(lr: Sequence[int], hr: Sequence[int], scale: int) -> bool:
  """Returns whether the size of LR is that of HR divided by the scale.

  The quotient may be rounded down, as HR is cropped here, or up, as by MATLAB's imresize (DIV2K's
  x8).

  Args:
    lr, hr: (height, width, ...).
    scale: HR / LR.
  """
  return all(large // scale <= small <= -(-large // scale)
             for small, large in zip(lr[:2], hr[:2], strict=True))


def refuse_empty(skipped: Sequence[str], key: str = 'config.data.source') -> NoReturn:
  """Raises the InputError of a set without a usable image, with the causes and their numbers.

  Args:
    skipped: a line for each unusable image, 'PATH: REASON'.
    key: the config key that names the set.
  """
  alike = collections.defaultdict(list)
  for line in dict.fromkeys(skipped):
    reason = line.partition(': ')[2]
    alike[re.sub(r'\d+', '0', reason)].append(line)  # lines that differ in a size are alike
  groups = sorted(alike.values(), key=len, reverse=True)
  causes = [lines[0] + (f' (and {len(lines) - 1:,} more like it)' if len(lines) > 1 else '')
            for lines in groups[:MAX_CAUSES]]
  if others := sum(map(len, groups[MAX_CAUSES:])):
    causes.append(f'and {others:,} more for other reasons')
  if any(SMALLER_THAN_CROP in line for line in skipped):
    causes.append('a smaller --config.hr_patch or, with degradations, a smaller '
                  '--config.data.degrade.margin uses smaller images')
  raise InputError(f'{key}: no usable image' + ': ' * bool(causes) + '; '.join(causes))


def _read(source: ImageSource, notes: list[str]) -> np.ndarray:
  """Reads an image; `notes` receives what was lost."""
  if isinstance(source, ArrayImage):
    return source.array
  array, found = images.read_with_notes(source)
  notes += found
  return array


def _read_hr(picture: Picture, notes: list[str]) -> np.ndarray:
  """Reads HR and resizes it as `picture.resize` asks."""
  hr = _read(picture.hr, notes)
  if not picture.resize:
    return hr
  return images.imresize(hr, size=_resized_size(hr.shape[:2], picture.resize))


def _resized_size(size: tuple[int, int], resize: str) -> tuple[int, int]:
  """Returns (height, width) of an image of this size after resizing."""
  sides = [int(side) for side in resize.split('x')]
  if len(sides) == 2:
    return tuple(sides)
  return tuple(max(1, round(side * sides[0] / min(size))) for side in size)


def _pair(picture: Picture, hr_image: np.ndarray, scale: int, notes: list[str]) -> Pair:
  """Makes a pair of HR, which may need cropping, and LR, which is read or made from HR."""
  hr = images.crop_to_multiple(hr_image, scale)
  if not hr.size:
    raise TooSmallError(f'{picture.hr}: {hr_image.shape[0]}x{hr_image.shape[1]} is too small for '
                   f'scale {scale}')
  cropped = hr.shape != hr_image.shape
  if picture.lr is None:
    lr = images.imresize(hr, Fraction(1, scale)) if scale > 1 else hr
    return Pair(picture.name, lr, hr, cropped)
  lr = _read(picture.lr, notes)
  if picture.resize:
    lr = images.imresize(lr, size=(hr.shape[0] // scale, hr.shape[1] // scale))
  lr = _match_channels(lr, hr)
  if lr.shape[2] != hr.shape[2] or not sizes_match(lr.shape, hr_image.shape, scale):
    expected = (lr.shape[0] * scale, lr.shape[1] * scale, lr.shape[2])
    raise InputError(f'{picture.hr}: has shape {hr_image.shape}, expected {scale} times its LR, '
                     f'{expected} ({picture.lr})' + (', one of them is grey'
                                                     if lr.shape[2] != hr.shape[2] else ''))
  return Pair(picture.name, lr[:hr.shape[0] // scale, :hr.shape[1] // scale], hr, cropped)


def _match_channels(lr: np.ndarray, hr: np.ndarray) -> np.ndarray:
  """Converts LR between grey and RGB if the channels of HR differ and no information is lost."""
  if lr.shape[-1] == 3 and hr.shape[-1] == 1 and (lr == lr[..., :1]).all():
    return lr[..., :1]
  if lr.shape[-1] == 1 and hr.shape[-1] == 3 and (hr == hr[..., :1]).all():
    return images.as_rgb(lr)
  return lr


def _lr_crop(hr: np.ndarray, y: int, x: int, side: int, scale: int) -> np.ndarray:
  """Returns [side, side, C] at (y, x) of the LR of `hr`, resizing only the pixels it depends on.

  Where the margin reaches the border of the image, the resize extends the border in the same way
  as for the entire image.
  """
  if scale == 1:
    return hr[y:y + side, x:x + side]
  top, left = max(0, y - BICUBIC_MARGIN), max(0, x - BICUBIC_MARGIN)
  bottom, right = y + side + BICUBIC_MARGIN, x + side + BICUBIC_MARGIN
  part = hr[top * scale:bottom * scale, left * scale:right * scale]
  reduced = images.imresize(part, Fraction(1, scale))
  return reduced[y - top:y - top + side, x - left:x - left + side]
