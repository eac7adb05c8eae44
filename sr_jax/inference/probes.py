"""Marks by which single pixels are followed through a network; see `locality`."""

import functools
from typing import NamedTuple

import numpy as np


class Marks(NamedTuple):
  """An array that depends on the image.

  Attributes:
    marks: float32, of the array's shape: above 0 where an element depends on the marked pixel.
    reach: how far the marks had spread before they were last set back to single pixels.
  """

  marks: np.ndarray
  reach: float = 0


class Probes:
  """The pixels that are followed, one in each image of a batch.

  The first two are neighbours in the middle; the others are near the border, where an image that
  is rolled or padded circularly shows what it takes from the opposite border.
  """

  def __init__(self, side: int) -> None:
    middle, last = side // 2, side - 1
    self.side = side
    self.rows = np.array([middle, middle + 1, 0, last, 1, last - 1])
    self.columns = np.array([middle, middle + 1, 0, last, last - 1, middle])
    self.count = len(self.rows)
    self.single = functools.lru_cache(self._single)
    self.too_far = False  # marks were found further away than these images show

  def _single(self, height: int, width: int, channels: int) -> np.ndarray:
    """Returns marks [B, h, w, C] of the probed pixels alone, at this resolution."""
    y, x = (np.arange(length) * self.side // length for length in (height, width))
    marks = ((y == self.rows[:, None])[:, :, None, None]
             & (x == self.columns[:, None])[:, None, :, None])
    return np.broadcast_to(np.float32(marks), (self.count, height, width, channels))

  def settle(self, value: Marks) -> Marks | None:
    """Adds the spread of the marks to the reach, and sets them back to single pixels.

    Returns:
      None if the array is no image, if its marks differ from pixel to pixel or are far away, or if
      the border changes more than what is as close to it as the marks spread.
    """
    marks = value.marks
    if (marks.ndim != 4 or len(marks) != self.count or marks.shape[1] % self.side
        or marks.shape[1] != marks.shape[2] or not marks.size):
      return None
    zoom = marks.shape[1] // self.side
    single = self.single(*marks.shape[1:])
    if marks is single:
      return value
    flat = marks[..., :1] if not marks.strides[3] else marks
    # Neighbours leave the same marks, one pixel apart.
    if not np.allclose(flat[1, zoom:, zoom:], flat[0, :-zoom, :-zoom], rtol=1e-3, atol=1e-6):
      return None
    spread = 0
    for positions, seen in ((self.rows, flat.max((2, 3)) > 0), (self.columns,
                                                               flat.max((1, 3)) > 0)):
      if not seen[:2].any(1).all():
        return None
      for position, line in zip(positions, seen, strict=True):
        index = np.flatnonzero(line)
        if len(index):
          spread = max(spread, position * zoom - index[0], index[-1] + 1 - (position + 1) * zoom)
    if spread >= (self.side // 2 - 1) * zoom:
      self.too_far = True
      return None
    inner = slice(spread, marks.shape[1] - spread)
    for probe in range(2, self.count):
      shift = ((self.rows[probe] - self.rows[0]) * zoom,
               (self.columns[probe] - self.columns[0]) * zoom)
      expected = np.roll(flat[0], shift, (0, 1))  # what is moved across the border is cut off
      if not np.allclose(expected[inner, inner], flat[probe, inner, inner], rtol=1e-3, atol=1e-6):
        return None
    return Marks(single, value.reach + float(spread) / zoom)
