"""Images that show what a run produced at each quarter of its steps."""

import os
import pathlib

import numpy as np
from PIL import Image, PngImagePlugin

from sr_jax import images
from sr_jax.data.pictures import Pair
from sr_jax.errors import InputError
from sr_jax.images import montage
from sr_jax.images.montage import centre_row
from sr_jax.system import files

QUARTERS = (0, 25, 50, 75, 100)  # percent


def quarters(steps: int) -> dict[int, int]:
  """Returns {percent: the step at which that share of `steps` is done}."""
  return {percent: -(-steps * percent // 100) for percent in QUARTERS}


def keep_progress(folder: os.PathLike | str, pair: Pair, sr: np.ndarray, step: int,
                  steps: int) -> np.ndarray:
  """Writes the image of this quarter and updates the montage of all quarters.

  The files are NAME/low.png, bicubic.png and original.png; NAME/000.png, 025.png ... 100.png, of
  which one belongs to `step`; and NAME.png, the montage low / bicubic / start / 25% / ... /
  original. The montage is assembled from the files, so that a restart does not shorten it. Each
  file records its step, so that images from before `steps` was changed are not used.

  Args:
    folder: the folder to write to.
    pair: the LR image and its original.
    sr: uint8, the generator's output for the entire `pair.lr`.
    step: the current step.
    steps: the number of steps in the run.

  Returns:
    The montage, uint8 [H, W, 3].
  """
  folder = pathlib.Path(folder)
  scale = pair.hr.shape[0] // pair.lr.shape[0]
  low, bicubic, generated, original = centre_row(
      pair.lr, pair.hr, images.imresize(pair.lr, scale), sr)
  for name, image in (('low', low), ('bicubic', bicubic), ('original', original)):
    images.write_image(folder / pair.name / f'{name}.png', image)
  row = [low, bicubic]
  for percent, quarter in quarters(steps).items():
    path = folder / pair.name / f'{percent:03}.png'
    if quarter == step:
      _write_with_step(path, generated, step)
    image = read_progress_image(path, quarter) if quarter <= step else None
    # Another shape: an image of the same name was replaced in the validation set.
    if image is not None and image.shape == original.shape:
      row.append(image)
  strip = montage.side_by_side([*row, original])
  images.write_image(folder / f'{pair.name}.png', strip)
  return strip


def _write_with_step(path: pathlib.Path, image: np.ndarray, step: int) -> None:
  text = PngImagePlugin.PngInfo()
  text.add_text('step', str(step))
  with files.atomic_write(path) as temporary:
    Image.fromarray(image).save(temporary, pnginfo=text)


def read_progress_image(path: os.PathLike | str, step: int) -> np.ndarray | None:
  """Reads an image of `keep_progress`; None if it is missing or was written at another step."""
  try:
    with Image.open(path) as image:
      if image.info.get('step') != str(step):
        return None
    return images.read_image(path)
  except (OSError, InputError):
    return None
