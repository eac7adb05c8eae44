"""Images side by side."""

from collections.abc import Sequence

import numpy as np

from sr_jax.images.color import as_rgb

MAX_SIDE = 480  # of a stored image, in HR pixels, so that a long run does not fill the disk


def side_by_side(images: Sequence[np.ndarray]) -> np.ndarray:
  """Joins uint8 [H, W, 3] images of one size horizontally, with four white columns between."""
  white = np.full((images[0].shape[0], 4, 3), 255, np.uint8)
  parts = [part for image in images for part in (image, white)]
  return np.concatenate(parts[:-1], axis=1)


def split_side_by_side(montage: np.ndarray, count: int) -> list[np.ndarray]:
  """Returns the `count` images, uint8 [H, W, 3], that `side_by_side` joined into a montage.

  Raises:
    ValueError: `count` images of one width would give a montage of another width.
  """
  width, remainder = divmod(montage.shape[1] + 4, count)
  if remainder or width <= 4:
    raise ValueError(f'a montage of {count} images cannot be {montage.shape[1]} pixels wide')
  return [montage[:, left:left + width - 4] for left in range(0, count * width, width)]


def centre_row(lr: np.ndarray, hr: np.ndarray, *results: np.ndarray) -> list[np.ndarray]:
  """Crops LR, results and HR to the same centre, for `side_by_side`.

  Args:
    lr: uint8 [h, w, C].
    hr: uint8 [h * scale, w * scale, C].
    results: uint8 [h * scale, w * scale, C].

  Returns:
    [lr with its pixels repeated, *results, hr], uint8 [H, W, 3], where H and W are at most
    MAX_SIDE and multiples of the scale.
  """
  scale = hr.shape[0] // lr.shape[0]
  crop = tuple(slice(start * scale, (start + length) * scale) for start, length in (
      ((side - length) // 2, length) for side, length in (
          (side, min(side, MAX_SIDE // scale)) for side in lr.shape[:2])))
  repeated = lr.repeat(scale, 0).repeat(scale, 1)
  return [as_rgb(image[crop]) for image in (repeated, *results, hr)]
