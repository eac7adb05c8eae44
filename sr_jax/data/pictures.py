"""One picture of a set: before it is read, read, and a crop of it with its LR."""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from sr_jax import images
from sr_jax.errors import InputError

MARGIN = 2  # LR pixels that MATLAB's bicubic reaches beyond one


class Picture(NamedTuple):
  """A picture before it is read.

  Attributes:
    name: its own within the set.
    hr: a path or a `records.Record`, as `images.read_image` takes them.
    lr: the same; None where it is to be made from HR.
    resize: what HR is resized to first (and an LR of its own accordingly): '256', its shorter
      side; '256x192', height and width, proportions may change; '' leaves it.
  """

  name: str
  hr: Any
  lr: Any = None
  resize: str = ''


class TooSmall(InputError):  # noqa: N818, the error is its base
  """Smaller than the crop; one among many may be left out."""


class Pair(NamedTuple):
  """A picture as read: uint8 [h, w, C] and [h * scale, w * scale, C]."""

  name: str
  lr: np.ndarray
  hr: np.ndarray
  cropped: bool = False  # HR, at the bottom or right, to a multiple of the scale


def read(picture: Picture, scale: int, channels: int | None = None) -> Pair:
  """Reads a picture; an LR of its own must fit, else MATLAB's bicubic makes one.

  HR is cropped to a multiple of the scale first.

  Args:
    channels: 3 repeats grey; 1 makes luma, rounded, of colour and grey alike; None leaves
      both as they are.

  Raises:
    InputError: a damaged picture, a pair whose sizes or colours don't fit, one that is
      smaller than the scale.
  """
  pair = _made(picture, _hr(picture), scale)
  return pair._replace(lr=with_channels(pair.lr, channels), hr=with_channels(pair.hr, channels))


def read_crops(picture: Picture, scale: int, channels: int, patch: int, places) -> dict:
  """Crops of one picture, which is decoded once.

  Args:
    patch: side of the HR crops, a multiple of `scale`.
    places: pairs of numbers in [0, 1), how far down and right each crop lies.

  Returns:
    {'lr': uint8 [n, patch / scale, patch / scale, C], 'hr': uint8 [n, patch, patch, C]}: to
    the bit what crops of `read(picture)` are, without an LR of the whole being made.

  Raises:
    InputError: as `read`.
    TooSmall: the picture is smaller than the crop.
  """
  if picture.lr is None:
    hr, lr = images.crop_to_multiple(_hr(picture), scale), None
  else:
    _, lr, hr, _ = _made(picture, _hr(picture), scale)
  side, rows, columns = patch // scale, hr.shape[0] // scale, hr.shape[1] // scale
  if min(rows, columns) < side:
    raise TooSmall(too_small(picture.hr, hr.shape, patch))
  crops = {'lr': [], 'hr': []}
  for down, right in places:
    y, x = int(down * (rows - side + 1)), int(right * (columns - side + 1))
    large = hr[y * scale:y * scale + patch, x * scale:x * scale + patch]
    small = _shrunk(hr, y, x, side, scale) if lr is None else lr[y:y + side, x:x + side]
    crops['lr'].append(with_channels(small, channels))
    crops['hr'].append(with_channels(large, channels))
  return {name: np.stack(arrays) for name, arrays in crops.items()}


def too_small(file, shape, patch: int) -> str:
  return f'{file}: {shape[0]}x{shape[1]} is smaller than the {patch}x{patch} crop'


def hr_size(picture: Picture) -> tuple[int, int]:
  """(height, width) of HR as `read` will have it, but for the crop; of its header alone."""
  size = images.image_size(picture.hr)
  return _target(size, picture.resize) if picture.resize else size


def parse_resize(text: str, key: str) -> str:
  """The text, if it is '', a number or HEIGHTxWIDTH.

  Raises:
    InputError: naming `key`.
  """
  if not re.fullmatch(r'|[1-9]\d{0,4}(x[1-9]\d{0,4})?', text):
    raise InputError(f"{key}={text}: expected '256', the shorter side, or '256x256', height "
                     'and width')
  return text


def with_channels(image: np.ndarray, channels: int | None) -> np.ndarray:
  """uint8 [H, W, 1 or 3] with 3 channels, with 1 (luma) or, None, as it is."""
  if channels is None:
    return image
  image = images.as_rgb(image)
  return image if channels == 3 else images.to_uint8(images.luma(images.to_float(image)))


def _hr(picture: Picture) -> np.ndarray:
  hr = images.read_image(picture.hr)
  if not picture.resize:
    return hr
  return images.imresize(hr, size=_target(hr.shape[:2], picture.resize))


def _target(size: tuple[int, int], resize: str) -> tuple[int, int]:
  """(height, width) that `resize` makes of `size`."""
  sides = [int(side) for side in resize.split('x')]
  if len(sides) == 2:
    return tuple(sides)
  return tuple(max(1, round(side * sides[0] / min(size))) for side in size)


def _made(picture: Picture, whole: np.ndarray, scale: int) -> Pair:
  hr = images.crop_to_multiple(whole, scale)
  if not hr.size:
    raise TooSmall(f'{picture.hr}: {whole.shape[0]}x{whole.shape[1]} is too small for '
                   f'scale {scale}')
  cropped = hr.shape != whole.shape
  if picture.lr is None:
    return Pair(picture.name, images.imresize(hr, Fraction(1, scale)), hr, cropped)
  lr = images.read_image(picture.lr)
  if picture.resize:
    lr = images.imresize(lr, size=(hr.shape[0] // scale, hr.shape[1] // scale))
  lr = _like(lr, hr)
  if lr.shape[2] != hr.shape[2] or not fits(lr.shape, whole.shape, scale):
    wanted = (lr.shape[0] * scale, lr.shape[1] * scale, lr.shape[2])
    raise InputError(f'{picture.hr}: {whole.shape}, expected {scale} times its LR, {wanted} '
                     f'({picture.lr})' + (', one of them is grey' if lr.shape[2] != hr.shape[2]
                                          else ''))
  return Pair(picture.name, lr[:hr.shape[0] // scale, :hr.shape[1] // scale], hr, cropped)


def fits(lr, hr, scale: int) -> bool:
  """Whether (height, width, ...) of LR are those of HR by the scale, rounded down, as HR is
  cropped here, or up, as MATLAB's imresize has it (DIV2K's x8)."""
  return all(large // scale <= small <= -(-large // scale)
             for small, large in zip(lr[:2], hr[:2], strict=True))


def _like(lr: np.ndarray, hr: np.ndarray) -> np.ndarray:
  """A grey LR as RGB or the reverse, where HR is so and nothing is lost."""
  if lr.shape[-1] == 3 and hr.shape[-1] == 1 and (lr == lr[..., :1]).all():
    return lr[..., :1]
  if lr.shape[-1] == 1 and hr.shape[-1] == 3 and (hr == hr[..., :1]).all():
    return images.as_rgb(lr)
  return lr


def _shrunk(hr: np.ndarray, y: int, x: int, side: int, scale: int) -> np.ndarray:
  """[side, side, C] at (y, x) of the LR of `hr`, made of no more than it depends on.

  Where the margin meets the picture's border, the resize repeats that, as it should.
  """
  top, left = max(0, y - MARGIN), max(0, x - MARGIN)
  part = hr[top * scale:(y + side + MARGIN) * scale, left * scale:(x + side + MARGIN) * scale]
  small = images.imresize(part, Fraction(1, scale))
  return small[y - top:y - top + side, x - left:x - left + side]


def refuse_empty(skipped: Sequence[str]):
  """Raises the InputError of a set without a usable picture."""
  more = f' (and {len(skipped) - 1} more like it)' if len(skipped) > 1 else ''
  raise InputError(f'no usable picture: {skipped[0]}{more}' if skipped else 'no pictures')
