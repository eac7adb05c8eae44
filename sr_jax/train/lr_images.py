"""LR images of the user's own that have no HR, which are upscaled at each validation."""

from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from sr_jax import images
from sr_jax.data.folders import images_by_name
from sr_jax.data.pictures import refuse_empty
from sr_jax.errors import InputError, count_of
from sr_jax.images import dropped
from sr_jax.images.montage import MAX_SIDE
from sr_jax.runs import lr_strips
from sr_jax.system import files

KEY = 'config.eval.lr_images'
MIN_SIDE = 3  # as of the images that are scored


class LRImage(NamedTuple):
  """An LR image without HR.

  Attributes:
    name: its path in the folder, unique within it.
    lr: uint8 [h, w, C], the part that is upscaled.
  """

  name: str
  lr: np.ndarray


def open_lr_images(config: ConfigDict, notes: list[str], skipped: list[str]) -> list[LRImage]:
  """Reads the images of `eval.lr_images`, the first `eval.pictures`; [] if the key is ''.

  Args:
    config: the experiment.
    notes: receives lines on what is left out.
    skipped: receives a line for each unusable image.

  Raises:
    InputError: there is no such folder, or no usable image in it; the message has the key.
  """
  if not config.eval.lr_images:
    return []
  folder, lines = files.expand(config.eval.lr_images.removeprefix('folder:')), []
  try:
    found = images_by_name(folder, lines)
  except InputError as error:
    raise InputError(f'{KEY}: {error}') from None
  notes += [f'{KEY}: {line}' for line in lines]
  opened, unusable, lost = [], [], {}
  for name, path in list(found.items())[:config.eval.pictures]:
    try:
      image, lost[name] = images.read_with_notes(path)
      if min(image.shape[:2]) < MIN_SIDE:
        raise InputError(f'{path}: {image.shape[0]}x{image.shape[1]} is too small')
      opened.append((LRImage(name, lr_strips.part_to_upscale(image, config.scale)), image.shape))
    except InputError as error:
      unusable.append(str(error))
  if not opened:
    refuse_empty(unusable, KEY)
  skipped += [f'{KEY}: {line}' for line in unusable]
  notes += dropped.summary(lost, f'images of {KEY}')
  if len(found) > config.eval.pictures:
    notes.append(f'{KEY}: the first {config.eval.pictures} of {len(found):,} images are upscaled '
                 'at each validation (config.eval.pictures)')
  side = MAX_SIDE // config.scale
  large = [image for image, shape in opened if max(shape[:2]) > side]
  if large:
    notes.append(f'{KEY}: of {count_of(large, "image")} larger than {side}x{side} pixels the '
                 'middle is upscaled')
  return [image for image, _ in opened]
