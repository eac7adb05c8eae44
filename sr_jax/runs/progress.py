"""Pictures of a run at each quarter of its steps."""

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
  """{percent: the step at which so much of `steps` is done}."""
  return {percent: -(-steps * percent // 100) for percent in QUARTERS}


def keep_progress(folder, pair: Pair, sr: np.ndarray, step: int, steps: int) -> np.ndarray:
  """Writes NAME/000.png ... NAME/100.png, what `step` is of them, and NAME.png anew.

  That is low / bicubic / start / 25% / ... / original side by side, put together from the files,
  so that a restart does not shorten it; low, bicubic and original are there by themselves, too.
  Each file says which step it is of: one of another plan, because the run goes on for more steps
  than it first had, is not taken for this one's.

  Args:
    sr: uint8, of the whole of `pair.lr`.

  Returns:
    what NAME.png is.
  """
  folder = pathlib.Path(folder)
  scale = pair.hr.shape[0] // pair.lr.shape[0]
  low, bicubic, generated, original = centre_row(pair.lr, pair.hr, images.imresize(pair.lr, scale), sr)
  for name, image in (('low', low), ('bicubic', bicubic), ('original', original)):
    images.write_image(folder / pair.name / f'{name}.png', image)
  row = [low, bicubic]
  for percent, at in quarters(steps).items():
    path = folder / pair.name / f'{percent:03}.png'
    if at == step:
      _write_of_step(path, generated, step)
    kept = read_of_step(path, at) if at <= step else None
    if kept is not None and kept.shape == original.shape:  # else of another picture of the name
      row.append(kept)
  strip = montage.side_by_side([*row, original])
  images.write_image(folder / f'{pair.name}.png', strip)
  return strip


def _write_of_step(path, image: np.ndarray, step: int) -> None:
  note = PngImagePlugin.PngInfo()
  note.add_text('step', str(step))
  with files.atomic_write(path) as temporary:
    Image.fromarray(image).save(temporary, pnginfo=note)


def read_of_step(path, step: int) -> np.ndarray | None:
  """The picture, if it is there and was written at that step."""
  try:
    with Image.open(path) as picture:
      if picture.info.get('step') != str(step):
        return None
    return images.read_image(path)
  except (OSError, InputError):
    return None
