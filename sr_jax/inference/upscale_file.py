"""Upscales an image file: the network, and the processing of alpha, colours and size around it."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from sr_jax import images
from sr_jax.errors import InputError
from sr_jax.inference import correction, tiles
from sr_jax.inference.upscaler import Upscaler
from sr_jax.media import photo_formats, photos
from sr_jax.system.memory import exhausted, host_memory


class Extras(NamedTuple):
  """Optional processing in addition to the network, applied in this order."""

  ensemble: bool = False
  backproject: int = 0  # number of iterations
  correct: tuple[float, ...] = ()  # thresholds of `correction.correct`
  kind: str = ''  # of `correction.KINDS`
  outscale: float = 0  # size of the result over that of the image; 0, the network's scale


NO_EXTRAS = Extras()


@dataclasses.dataclass(frozen=True)
class FileOptions:
  """How an image file is upscaled and written.

  Attributes:
    format: of the result, a key of `photos.FORMATS`.
    extras: optional processing in addition to the network.
    quality: of JPEG and WebP, 1 to 100.
    max_pixels: a larger image is refused.
  """

  format: str = 'png'
  extras: Extras = NO_EXTRAS
  quality: int = 95
  max_pixels: int = photos.MAX_PIXELS


def result_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
  """Returns (height, width) times `scale`, rounded, at least 1."""
  return tuple(max(1, round(side * scale)) for side in size)


def backproject(sr: np.ndarray, lr: np.ndarray, iterations: int) -> np.ndarray:
  """Applies sr = sr + upscaled(lr - downscaled(sr)) repeatedly, with MATLAB's bicubic resize.

  A network may shift colours and low frequencies, which LR determines. Each iteration reduces the
  difference between the downscaled SR and LR, and keeps the details that LR does not determine
  (Irani and Peleg 1991, "Improving resolution by image registration"; for the results of networks,
  Timofte et al. 2016, section 3.5).

  Args:
    sr: float32 [h * s, w * s, C] in [0, 1].
    lr: float32 [h, w, C] in [0, 1].
    iterations: 0 returns sr.

  Returns:
    An array like sr, not clipped.
  """
  small, large = lr.shape[:2], sr.shape[:2]
  for _ in range(iterations):
    sr = sr + images.imresize(lr - images.imresize(sr, size=small), size=large)
  return sr


def upscale_samples(upscaler: Upscaler, samples: np.ndarray, extras: Extras,
                    on_progress: Callable[[int], None] = lambda rows: None) -> np.ndarray:
  """Returns `samples` upscaled by the network's scale or by `extras.outscale`.

  Args:
    upscaler: the network.
    samples: uint8 or uint16 [h, w, C]; the result has the same dtype.
    extras: optional processing in addition to the network.
    on_progress: called with the number of further rows of `samples` that are done.

  Raises:
    InputError: the result does not fit in memory.
  """
  size = result_size(samples.shape[:2], extras.outscale or upscaler.scale)
  # Additional processing is done in float32 and needs several such arrays.
  needed = math.prod(size) * samples.shape[2] * (16 if any(extras) else samples.itemsize)
  if needed > host_memory():
    raise InputError(f'a result of {size[1]}x{size[0]} pixels needs {needed / 2**30:.1f} GiB, more '
                     'than the available memory (--format tiff is written row by row, unless '
                     'options such as --ensemble or --outscale are used)')
  if not any(extras):
    return upscaler(samples, on_progress)
  max_level = np.iinfo(samples.dtype).max
  lr = images.to_float(samples, max_level)
  if extras.ensemble:
    sr = tiles.ensemble(upscaler, lr, lambda index: on_progress(
        (index + 1) * len(lr) // 8 - index * len(lr) // 8))
  else:
    sr = upscaler(lr, on_progress)
  sr = backproject(sr, lr, extras.backproject)
  if extras.correct:
    bilinear = images.imresize(lr, size=sr.shape[:2], method='bilinear')
    sr = np.asarray(correction.correct(sr, bilinear, extras.correct, extras.kind))
  if sr.shape[:2] != size:
    sr = images.imresize(sr, size=size)
  return images.to_levels(sr, max_level).astype(samples.dtype)


def upscale_photo(upscaler: Upscaler, photo: photos.Photo, extras: Extras,
                  on_progress: Callable[[int], None] = lambda rows: None) -> photos.Photo:
  """Returns the photo upscaled; the network processes alpha like a grey image."""
  samples, alpha = photo.samples, photo.alpha
  if alpha is not None:
    samples = photos.bleed(samples, alpha)
    if (alpha == alpha.flat[0]).all():  # the network would not keep it constant
      size = result_size(alpha.shape[:2], extras.outscale or upscaler.scale)
      alpha = np.full((*size, 1), alpha.flat[0])
    else:
      alpha = upscale_samples(upscaler, alpha, extras)
  return dataclasses.replace(photo, samples=upscale_samples(upscaler, samples, extras, on_progress),
                             alpha=alpha)


def upscale_file(upscaler: Upscaler, source: os.PathLike | str, target: os.PathLike | str,
                 options: FileOptions = FileOptions(),
                 on_progress: Callable[[int], None] = lambda rows: None) -> str:
  """Writes an upscaled copy of an image file. If this fails, `target` is left as it was.

  A TIFF without extras and alpha is written row by row and need not fit in memory.

  Args:
    upscaler: the network.
    source: an image file.
    target: the file to write.
    options: format, quality and additional processing.
    on_progress: called with the number of further rows of the image that are done.

  Returns:
    What was lost in reading and writing, in words, or ''.

  Raises:
    InputError: a file cannot be read or written, or the image is too large.
  """
  photo = photos.read(source, options.max_pixels)
  scale = options.extras.outscale or upscaler.scale
  photo_formats.check_size(target, result_size(photo.samples.shape[:2], scale), options.format)
  if options.format == 'tiff' and not any(options.extras) and photo.alpha is None:
    height, width, channels = photo.samples.shape
    size = height * upscaler.scale, width * upscaler.scale
    photo, losses = photo_formats.storable(photo, 'tiff')
    with photos.tiff_rows(target, (*size, channels), photo.samples.dtype, photo.icc, photo.exif,
                          photo.xmp) as write_rows, _errors_name(source):
      for band in upscaler.bands(photo.samples):
        write_rows(band)
        on_progress(len(band) // upscaler.scale)
    return ', '.join(filter(None, (*losses, *photo.notes)))
  with _errors_name(source):
    photo = upscale_photo(upscaler, photo, options.extras, on_progress)
  loss = photos.write(target, photo, options.format, options.quality)
  return ', '.join(filter(None, (loss, *photo.notes)))


@contextlib.contextmanager
def _errors_name(source: os.PathLike | str) -> Iterator[None]:
  """Makes errors in its block name the file, and turns exhausted memory into an InputError."""
  try:
    yield
  except (MemoryError, jax.errors.JaxRuntimeError) as error:
    if not exhausted(error):
      raise
    raise InputError(f'{source}: the image does not fit in memory') from None
  except InputError as error:
    raise InputError(f'{source}: {error}') from None
