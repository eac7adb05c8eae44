"""Which images are scored against which: files, paired by name, or arrays, paired by order."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sr_jax import images
from sr_jax.data import file_names, folders
from sr_jax.errors import InputError, listed
from sr_jax.images import dropped
from sr_jax.system import files

MAX_OVERSHOOT = 0.25  # how far beyond [0, 1] the result of a network may be; it is clipped


@dataclasses.dataclass(frozen=True)
class ScoredImage:
  """An image to score.

  Attributes:
    label: what messages call it: its path, or 'sr 2' for the third array that was given as SR.
    content: a file, or uint8 or uint16 [H, W, 1 or 3].
    notes: what an array has lost, as `images.Samples.notes` of a file.
  """

  label: str
  content: pathlib.Path | np.ndarray
  notes: tuple[str, ...] = ()

  def read(self) -> tuple[np.ndarray, Sequence[str]]:
    """Returns (samples as they are stored, what they have lost)."""
    if isinstance(self.content, np.ndarray):
      return self.content, self.notes
    return images.read_samples(self.content)

  def size(self) -> tuple[int, int]:
    """Returns (height, width), of a file as its header gives them."""
    if isinstance(self.content, np.ndarray):
      return self.content.shape[:2]
    return images.image_size(self.content)


class Triple(NamedTuple):
  """What is read to score one image."""

  name: str
  hr: ScoredImage
  sr: ScoredImage
  lr: ScoredImage | None = None


def pair(sr: Any, hr: Any, lr: Any, scale: int, notes: list[str]) -> list[Triple]:
  """Pairs files by name, or arrays by their order.

  Args:
    sr, hr, lr: all of them paths of files or folders, or all of them arrays as for `to_images`;
      lr may be None.
    scale: HR / LR.
    notes: receives a line on files in the folders that are skipped.

  Raises:
    InputError: a path does not exist, an image has no partner or cannot be scored, or paths and
      arrays are mixed.
  """
  sides = {'hr': hr, 'sr': sr} | ({} if lr is None else {'lr': lr})
  if all(isinstance(side, (str, os.PathLike)) for side in sides.values()):
    return _pair_files([files.expand(side) for side in sides.values()], scale, notes)
  for name, side in sides.items():
    if isinstance(side, (str, os.PathLike)):
      raise InputError(f'{name}={side}: is a path; expected an array, since the other images are '
                       'arrays')
  arrays = {name: to_images(side, name) for name, side in sides.items()}
  counts = {name: len(found) for name, found in arrays.items()}
  if len(set(counts.values())) > 1:
    raise InputError(', '.join(f'{name}: {count} images' for name, count in counts.items())
                     + ': expected as many of each')
  if not any(counts.values()):
    raise InputError('sr and hr contain no image')
  return [Triple(str(index), *of) for index, of in enumerate(zip(*arrays.values(), strict=True))]


def without_partners(sr: Any, notes: list[str]) -> dict[str, ScoredImage]:
  """Returns {name: image} of a path of a file or folder, or of arrays as for `to_images`.

  Args:
    notes: receives a line on files in the folder that are skipped.

  Raises:
    InputError: the path does not exist or has no image, or an array has another type or range.
  """
  if not isinstance(sr, (str, os.PathLike)):
    found = {str(index): image for index, image in enumerate(to_images(sr, 'sr'))}
    if not found:
      raise InputError('sr contains no image')
    return found
  path = files.expand(sr)
  if not path.exists():
    raise InputError(f'{path}: no such file or folder')
  named = {path.stem: path} if path.is_file() else folders.images_by_name(path, notes)
  return {name: ScoredImage(str(file), file) for name, file in named.items()}


def to_images(arrays: Any, name: str) -> list[ScoredImage]:
  """Returns images as 8 or 16 bits; float is compared with 16 bits.

  Args:
    arrays: one image [H, W] or [H, W, 1 or 3], a batch [B, H, W, 1 or 3], or a list of images of
      any sizes. NumPy or JAX, uint8, uint16 or float in [0, 1]. What a network returns may exceed
      this range a little, up to MAX_OVERSHOOT, and is clipped, as it is when it is written.
    name: what messages call them, such as 'sr'.

  Raises:
    InputError: another type, shape or range, or values that are not finite.
  """
  if isinstance(arrays, (list, tuple)):
    return [image for index, array in enumerate(arrays)
            for image in _of_array(array, f'{name} {index}', most=1)]
  return _of_array(arrays, name)


def _of_array(array: Any, name: str, most: int | None = None) -> list[ScoredImage]:
  """Returns the images of one array; `most` is the number of images it may contain."""
  if not isinstance(array, np.ndarray | jax.Array) or isinstance(array, jax.core.Tracer):
    raise InputError(f'{name}: expected a path, a NumPy or a JAX array, got {type(array).__name__}')
  what = f'{name} is {array.dtype} {list(array.shape)}'
  is_float = jnp.issubdtype(array.dtype, jnp.floating)  # NumPy's does not know bfloat16
  if not is_float and array.dtype.name not in ('uint8', 'uint16'):
    raise InputError(f'{what}: expected uint8, uint16 or float in [0, 1]')
  array = np.asarray(array)[..., None] if array.ndim == 2 else np.asarray(array)
  batch = array if array.ndim == 4 else array[None]
  if batch.ndim != 4 or not batch.size or batch.shape[-1] not in (1, 3) or (
      most and len(batch) > most):
    raise InputError(f'{what}: expected [H, W], [H, W, 1 or 3]'
                     + ('' if most else ' or [B, H, W, 1 or 3]')
                     + '; drop the fourth channel (alpha)' * (array.shape[-1] == 4))
  labels = [name] if array.ndim < 4 or most else [f'{name} {index}' for index in range(len(batch))]
  if not is_float:
    batch = batch.astype(batch.dtype.newbyteorder('='), copy=False)
    return [ScoredImage(label, image) for label, image in zip(labels, batch, strict=True)]
  return [_of_floats(label, np.float32(image)) for label, image in zip(labels, batch, strict=True)]


def _of_floats(label: str, image: np.ndarray) -> ScoredImage:
  low, high = image.min(), image.max()
  if not -MAX_OVERSHOOT <= low <= high <= 1 + MAX_OVERSHOOT:  # False for NaN, too
    found = f'values from {low:g} to {high:g}' if np.isfinite([low, high]).all() else (
        'values that are not finite')
    raise InputError(f'{label} has {found}: expected float in [0, 1]')
  notes = (dropped.CLIPPED,) * bool(low < 0 or high > 1)
  return ScoredImage(label, np.uint16(images.to_levels(image, 65535)), notes)


def _pair_files(sides: Sequence[pathlib.Path], scale: int, notes: list[str]) -> list[Triple]:
  """Pairs HR, SR and possibly LR, each a file or a folder; see `pair`."""
  def of(name: str, paths: Sequence[pathlib.Path]) -> Triple:
    return Triple(name, *(ScoredImage(str(path), path) for path in paths))

  for path in sides:
    if not path.exists():
      raise InputError(f'{path}: no such file or folder')
  if not any(path.is_dir() for path in sides):
    return [of(sides[0].stem, sides)]  # single files don't need a common name
  originals, *others = ({path.stem: path} if path.is_file()
                        else folders.images_by_name(path, notes) for path in sides)
  paired = {name: [path] for name, path in originals.items()}
  for other in others:
    for name, _, partner in file_names.partners(originals, other, scale):
      paired[name].append(partner)
  return [of(name, paths) for name, paths in paired.items()]


def check_sizes(triples: Sequence[Triple], scale: int, border: int) -> None:
  """Refuses images whose sizes don't fit, before any is scored.

  Raises:
    InputError: names all of them.
  """
  # Reads headers first, which is fast. A mismatch there isn't final, since an EXIF orientation may
  # follow the pixels, and is verified with the decoded images.
  suspects = [triple for triple in triples
              if _size_fault(triple, scale, border, ScoredImage.size)]
  faults = [_size_fault(triple, scale, border, lambda image: image.read()[0].shape[:2])
            for triple in suspects]
  faults = list(filter(None, faults))
  if faults:
    raise InputError(f'{len(faults)} of wrong size: {listed(faults)}')


def _size_fault(triple: Triple, scale: int, border: int,
                size: Callable[[ScoredImage], tuple[int, int]]) -> str | None:
  """Returns what is wrong with the sizes of an image, or None."""
  hr, sr = size(triple.hr), size(triple.sr)
  label = triple.sr.label
  if sr not in (hr, tuple(side // scale * scale for side in hr)):
    return f'{label} is {sr[0]}x{sr[1]}, but {triple.hr.label} is {hr[0]}x{hr[1]}'
  if min(sr) <= 2 * border:
    return f'{label}: a border of {border} leaves no pixels of {sr[0]}x{sr[1]}'
  if triple.lr and (lr := size(triple.lr)) != tuple(side // scale for side in sr):
    return (f'{triple.lr.label} (LR) is {lr[0]}x{lr[1]}, but {label} is {sr[0]}x{sr[1]}, of which '
            f'scale={scale} makes {sr[0] // scale}x{sr[1] // scale}')
  return None
