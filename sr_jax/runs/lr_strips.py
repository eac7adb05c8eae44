"""Strips of LR images that have no HR, one for each step at which they were upscaled.

A strip is lr_images/NAME-STEP.png: LR with its pixels repeated, bicubic and the result, of the
middle of the image.
"""

import os
import pathlib
import re

import numpy as np

from sr_jax import images
from sr_jax.errors import InputError
from sr_jax.images import montage
from sr_jax.images.montage import MAX_SIDE, centre_row

LABELS = ('low', 'bicubic', 'result')  # of the images of a strip
# LR pixels around the part that is shown; they are upscaled too, since the network looks at them.
MARGIN = 64


def part_to_upscale(lr: np.ndarray, scale: int) -> np.ndarray:
  """Returns the middle of an LR image that a strip needs: what it shows, with `MARGIN` around.

  All large images have the same part, for which a network is compiled once.

  Args:
    lr: uint8 [h, w, C].
    scale: of the network.
  """
  side = MAX_SIDE // scale + 2 * MARGIN
  return lr[tuple(slice(max(0, length - side) // 2, max(0, length - side) // 2 + side)
                  for length in lr.shape[:2])]


def keep_strip(folder: os.PathLike | str, name: str, lr: np.ndarray, sr: np.ndarray,
               step: int) -> np.ndarray:
  """Writes the strip of a step.

  Args:
    folder: the folder of the strips.
    name: of the image.
    lr: uint8 [h, w, C].
    sr: uint8 [h * scale, w * scale, C], the generator's output for `lr`.
    step: the current step.

  Returns:
    The strip, uint8 [H, W, 3].
  """
  scale = sr.shape[0] // lr.shape[0]
  strip = montage.side_by_side(centre_row(lr, sr, images.imresize(lr, scale)))
  images.write_image(pathlib.Path(folder) / f'{name}-{step:07d}.png', strip)
  return strip


def find_strips(folder: os.PathLike | str) -> dict[str, dict[int, pathlib.Path]]:
  """Returns {name of the image: {step: path}} of the strips in a folder, in order of the steps."""
  folder, found = pathlib.Path(folder), {}
  for path in sorted(folder.rglob('*.png')):
    match = re.fullmatch(r'(.+)-(\d{7,})', path.relative_to(folder).with_suffix('').as_posix())
    if match and not path.name.startswith('.'):
      found.setdefault(match[1], {})[int(match[2])] = path
  return {name: dict(sorted(paths.items())) for name, paths in found.items()}


def read_strip(path: os.PathLike | str) -> dict[str, np.ndarray]:
  """Returns {label: uint8 [H, W, 3]} of a strip, or {} if the file is damaged."""
  try:
    strip = images.as_rgb(images.read_image(path))
    return dict(zip(LABELS, montage.split_side_by_side(strip, len(LABELS)), strict=True))
  except (InputError, ValueError):
    return {}


def forget_after(folder: os.PathLike | str, step: int) -> None:
  """Deletes the strips of steps after `step`; a run that starts over has none at all.

  Raises:
    OSError: a file cannot be deleted.
  """
  for paths in find_strips(folder).values():
    for at, path in paths.items():
      if at > step or step == 0:
        path.unlink(missing_ok=True)
