"""The layout of a packed set: where each image will lie, decided before any is decoded."""

import heapq
from collections.abc import Sequence
from typing import NamedTuple

from sr_jax import images
from sr_jax.data import pictures
from sr_jax.data.pictures import Picture
from sr_jax.errors import InputError
from sr_jax.system import threads

MAX_ROW_BYTES = 1 << 30


class PackLayout(NamedTuple):
  """Where each image will lie; computed from the headers of the files alone."""

  found: Sequence[Picture]
  indices: list[int]  # of the images in `found` that will be packed
  sizes: list[tuple[int, int]]  # (height, width) of their LR
  places: list[tuple[int, int, int]]  # chunk, HR offset, LR offset
  shape: tuple[int, int]  # of `Packed.pixels`
  skipped: dict[int, str]  # for the index of each other image, the reason

  @property
  def bytes(self) -> int:
    return self.shape[0] * self.shape[1]


def lay_out(found: Sequence[Picture], scale: int, channels: int,
            with_lr: bool = True) -> PackLayout:
  """Decides where each image will lie, from the headers of the files, read on all cores.

  Args:
    found: the images.
    scale: HR / LR.
    channels: 3 or 1.
    with_lr: whether LR will lie after HR; otherwise the offset of LR is that of HR.

  Raises:
    InputError: the size of a separate LR does not match its HR.
  """
  bytes_of_lr_pixel = channels * (scale**2 + with_lr)
  measured = threads.on_all_cores(lambda picture: _lr_size(picture, scale, bytes_of_lr_pixel),
                                  found, 'reading headers')
  usable = [(index, size) for index, size in enumerate(measured) if isinstance(size, tuple)]
  places, shape = _places([height * width * bytes_of_lr_pixel for _, (height, width) in usable])
  places = [(chunk, offset, offset + with_lr * channels * height * width * scale**2)
            for (chunk, offset), (_, (height, width)) in zip(places, usable, strict=True)]
  return PackLayout(found, [index for index, _ in usable], [size for _, size in usable], places,
                    shape, {index: reason for index, reason in enumerate(measured)
                            if isinstance(reason, str)})


def _lr_size(picture: Picture, scale: int, bytes_of_lr_pixel: int) -> tuple[int, int] | str:
  """Returns (height, width) of LR, or the reason why the image is skipped.

  Args:
    bytes_of_lr_pixel: bytes that the image takes for each of its LR pixels.
  """
  try:
    size = pictures.hr_size(picture)
    lr_size = pictures.source_size(picture.lr) if picture.lr and not picture.resize else None
  except images.DamagedImageError as error:
    return str(error)
  # An EXIF tag at the end of a file may swap height and width, which only reading it shows.
  if lr_size and not any(pictures.sizes_match(turned, size, scale)
                         for turned in (lr_size, lr_size[::-1])):
    raise InputError(f'{picture.hr}: {size[0]}x{size[1]} is not {scale} times its LR, '
                     f'{lr_size[0]}x{lr_size[1]} ({picture.lr})')
  height, width = (side // scale for side in size)
  if not height or not width:
    return f'{picture.hr}: too small for scale {scale}'
  needed = height * width * bytes_of_lr_pixel
  if needed >= MAX_ROW_BYTES:
    return (f'{picture.hr}: {height * scale}x{width * scale} takes {needed:,} bytes, more than '
            f'{MAX_ROW_BYTES:,}')
  return height, width


def _places(sizes: list[int]) -> tuple[list[tuple[int, int]], tuple[int, int]]:
  """Distributes items of these sizes in bytes over rows of nearly equal length.

  Each item, the largest first, goes to the row that is shortest so far.

  Returns:
    ([(row, offset)], (rows, length of the longest row)).
  """
  count = max(1, -(-sum(sizes) // MAX_ROW_BYTES))
  while True:
    rows, places = [(0, row) for row in range(count)], [None] * len(sizes)
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
      offset, row = rows[0]
      places[index] = row, offset
      heapq.heapreplace(rows, (offset + sizes[index], row))
    longest = max(rows)[0]
    if longest <= MAX_ROW_BYTES:
      return places, (count, longest)
    count += 1
