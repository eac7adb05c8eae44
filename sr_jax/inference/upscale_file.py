"""A picture through a network with all that goes with it: alpha, ensemble, colours, size."""

import contextlib
import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from sr_jax import images
from sr_jax.errors import InputError
from sr_jax.inference import correction, tiles
from sr_jax.inference.upscaler import Upscaler
from sr_jax.media import photos
from sr_jax.system.memory import exhausted, host_memory


class Extras(NamedTuple):
  """What is done beside the network, in this order."""

  ensemble: bool = False
  backproject: int = 0  # times
  correct: tuple[float, ...] = ()  # thresholds of `correction.correct`
  kind: str = ''
  outscale: float = 0  # the result's, if it is not the network's


NOTHING = Extras()


def result_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
  return tuple(max(1, round(side * scale)) for side in size)


def backproject(sr: np.ndarray, lr: np.ndarray, times: int) -> np.ndarray:
  """sr + enlarged(lr - shrunk(sr)), so many times; both by MATLAB's bicubic.

  A network may shift colours and low frequencies, which LR knows better. What SR, made small
  again, lacks of LR becomes less each time; details that LR can't tell stay (Irani and Peleg
  1991, "Improving resolution by image registration"; of networks' results, Timofte et al. 2016,
  section 3.5).

  Args:
    sr: float32 [h * s, w * s, C] in [0, 1].
    lr: float32 [h, w, C] in [0, 1].

  Returns:
    As sr, not clipped.
  """
  small, large = lr.shape[:2], sr.shape[:2]
  for _ in range(times):
    sr = sr + images.imresize(lr - images.imresize(sr, size=small), size=large)
  return sr


def upscale_samples(upscaler: Upscaler, samples: np.ndarray, extras: Extras,
                    watch: Callable[[int], None] = lambda rows: None) -> np.ndarray:
  """uint8 or uint16 [h, w, C] to the same kind, `scale` or `outscale` times larger.

  Args:
    watch: is told how many more rows of `samples` are done.

  Raises:
    InputError: the result does not fit the memory.
  """
  size = result_size(samples.shape[:2], extras.outscale or upscaler.scale)
  # Floats, and what is made of them meanwhile, where anything is done beside the network.
  needed = math.prod(size) * samples.shape[2] * (16 if any(extras) else samples.itemsize)
  if needed > host_memory():
    raise InputError(f'a result of {size[1]}x{size[0]} takes {needed / 2**30:.1f} GiB, more than '
                     'there is (--format tiff is written as it comes, if nothing is asked for '
                     'beside the network)')
  if not any(extras):
    return upscaler(samples, watch)
  most = np.iinfo(samples.dtype).max
  lr = images.to_float(samples, most)
  if extras.ensemble:
    sr = tiles.ensemble(upscaler, lr, lambda eighth: watch(
        (eighth + 1) * len(lr) // 8 - eighth * len(lr) // 8))
  else:
    sr = upscaler(lr, watch)
  sr = backproject(sr, lr, extras.backproject)
  if extras.correct:
    enlarged = images.imresize(lr, size=sr.shape[:2], method='bilinear')
    sr = np.asarray(correction.correct(sr, enlarged, extras.correct, extras.kind))
  if sr.shape[:2] != size:
    sr = images.imresize(sr, size=size)
  return images.to_levels(sr, most).astype(samples.dtype)


def upscale_photo(upscaler: Upscaler, photo: photos.Photo, extras: Extras,
                  watch: Callable[[int], None] = lambda rows: None) -> photos.Photo:
  """A photo, larger. Alpha goes through the network as a grey picture does."""
  samples, alpha = photo.samples, photo.alpha
  if alpha is not None:
    samples = photos.bleed(samples, alpha)
    if (alpha == alpha.flat[0]).all():  # a network would not leave it alone
      size = result_size(alpha.shape[:2], extras.outscale or upscaler.scale)
      alpha = np.full((*size, 1), alpha.flat[0])
    else:
      alpha = upscale_samples(upscaler, alpha, extras)
  return dataclasses.replace(photo, samples=upscale_samples(upscaler, samples, extras, watch),
                             alpha=alpha)


def upscale_file(upscaler: Upscaler, source, target, format: str, extras: Extras = NOTHING,
                 quality: int = 95, max_pixels: int = photos.MAX_PIXELS,
                 watch: Callable[[int], None] = lambda rows: None) -> str:
  """Writes one picture's upscaled copy, whole or not at all.

  A TIFF to which nothing is done beside the network is written as it is made, and need not fit
  the memory.

  Returns:
    What was lost in reading and writing, in words, or ''.

  Raises:
    InputError: it can't be read or written, or is too large.
  """
  photo = photos.read(source, max_pixels)
  if format == 'tiff' and not any(extras) and photo.alpha is None:
    height, width, channels = photo.samples.shape
    size = height * upscaler.scale, width * upscaler.scale
    with photos.tiff_rows(target, *size, channels, photo.samples.dtype, photo.icc,
                          photo.exif) as write_rows, _naming(source):
      for band in upscaler.bands(photo.samples):
        write_rows(band)
        watch(len(band) // upscaler.scale)
    return photo.note
  with _naming(source):
    photo = upscale_photo(upscaler, photo, extras, watch)
  lost = photos.write(target, photo, format, quality)
  return ', '.join(filter(None, (photo.note, lost)))


@contextlib.contextmanager
def _naming(source):
  """What is too large is said of `source`."""
  try:
    yield
  except (MemoryError, jax.errors.JaxRuntimeError) as error:
    if not exhausted(error):
      raise
    raise InputError(f'{source}: too large for the memory') from None
  except InputError as error:
    raise InputError(f'{source}: {error}') from None
