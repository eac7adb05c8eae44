"""Images side by side."""

import numpy as np

from sr_jax.images.color import as_rgb


def side_by_side(pictures: list[np.ndarray]) -> np.ndarray:
  """Pictures uint8 [H, W, 3] of one size side by side, four white columns between."""
  white = np.full((pictures[0].shape[0], 4, 3), 255, np.uint8)
  parts = [part for picture in pictures for part in (picture, white)]
  return np.concatenate(parts[:-1], axis=1)


def split_side_by_side(montage: np.ndarray, count: int) -> list[np.ndarray]:
  """Returns the `count` images, uint8 [H, W, 3], that `side_by_side` joined into a montage.

  Raises:
    ValueError: no `count` images of one width and the columns between them are as wide as that.
  """
  width, remainder = divmod(montage.shape[1] + 4, count)
  if remainder or width <= 4:
    raise ValueError(f'a montage of {count} images cannot be {montage.shape[1]} pixels wide')
  return [montage[:, left:left + width - 4] for left in range(0, count * width, width)]


LARGEST = 480  # side of what is kept of a picture, in HR pixels: a long run fills no disk


def centre_row(lr: np.ndarray, hr: np.ndarray, *results: np.ndarray) -> list[np.ndarray]:
  """[low, *results, original], the middle of each, uint8 [H, W, 3].

  H and W are at most LARGEST and multiples of the scale. Low is LR, its pixels repeated.

  Args:
    results: uint8 [h * scale, w * scale, C], of the whole of `lr`.
  """
  scale = hr.shape[0] // lr.shape[0]
  place = tuple(slice(start * scale, (start + side) * scale) for start, side in (
      ((whole - side) // 2, side) for whole, side in (
          (whole, min(whole, LARGEST // scale)) for whole in lr.shape[:2])))
  low = lr.repeat(scale, 0).repeat(scale, 1)
  return [as_rgb(picture[place]) for picture in (low, *results, hr)]
