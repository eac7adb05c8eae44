"""Opens image files: reads their headers, and decodes their pixels on request.

Pillow decodes what it decodes in full; `tiffs` and `pngs` decode files with more than 8 bits.
"""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
import tifffile
from PIL import Image, ImageCms

from sr_jax import images
from sr_jax.images import formats
from sr_jax.media import pngs, tiffs

MAX_BYTES_PER_PIXEL = 32  # four samples of 64 bits


def silence_libraries() -> None:
  """Turns off the libraries' logs and warnings about damaged files.

  The command lines print one line per file instead.
  """
  for name in ('tifffile', 'imagecodecs', 'PIL'):
    logging.getLogger(name).setLevel(logging.CRITICAL)
  for module in ('PIL', 'tifffile'):
    warnings.filterwarnings('ignore', module=module)


class OpenImage(NamedTuple):
  """An open image file whose header has been read."""

  height: int  # as stored, before the EXIF orientation
  width: int
  exif: Image.Exif | None  # including the orientation; None if it is damaged
  icc: bytes  # colour profile, or b''
  count_frames: Callable[[], int]
  decode: Callable[[], tuple[np.ndarray, list[str]]]  # ([h, w, 1 to 4], descriptions of losses)


@contextlib.contextmanager
def open_image(path: os.PathLike | str, max_pixels: int) -> Iterator[OpenImage]:
  """Yields the open file; failures inside become `InputError`s that name it.

  Raises:
    DamagedImageError: the file is missing, not an image, damaged, or has more than `max_pixels`.
    InputError: the disk fails.
  """
  with contextlib.ExitStack() as stack:
    stack.enter_context(images.convert_read_errors(path, 'damaged image ({error})'))
    file = stack.enter_context(open(path, 'rb'))
    image = None
    if file.read(4) in tiffs.SIGNATURES:
      file.seek(0)
      tiff = stack.enter_context(tifffile.TiffFile(file))
      if page := tiffs.deep_page(tiff):
        image = _open_deep_tiff(tiff, page, max_pixels)
    image = image or _open_with_pillow(file)
    if not image.height * image.width:
      raise ValueError('no pixels')
    images.check_pixel_count(path, image.width, image.height, max_pixels, '--max-pixels')
    yield image


def _open_deep_tiff(tiff: tifffile.TiffFile, page: tifffile.TiffPage, max_pixels: int
                    ) -> OpenImage:
  """Opens a TIFF of more than 8 bits per sample.

  Raises:
    ValueError: decoding would allocate far more memory than `max_pixels` take.
  """
  if page.tilewidth * page.tilelength > max_pixels:  # each tile is decoded in one piece
    raise ValueError(f'tiles of {page.tilelength}x{page.tilewidth}')
  if max(page.databytecounts, default=0) > tiff.filehandle.size:  # would be allocated
    raise ValueError('truncated')
  if page.nbytes > MAX_BYTES_PER_PIXEL * max_pixels:
    raise ValueError(f'{page.nbytes:,} bytes of {" x ".join(map(str, page.shape))} samples')
  icc = page.tags.valueof(34675, b'')
  return OpenImage(page.imagelength, page.imagewidth, tiffs.page_exif(tiff), bytes(icc),
                   lambda: len(tiff.pages), lambda: tiffs.decode(page))


def _open_with_pillow(file: BinaryIO) -> OpenImage:
  """Opens any supported file by Pillow; the pixels of a PNG are decoded by libpng."""
  image = formats.open_image(file)
  width, height = formats.stored_size(image)
  if image.format == 'PNG' and 'exif' not in image.info:
    image.info['exif'] = pngs.late_exif(file)
  try:
    exif = Image.Image.getexif(image)  # the method of a PNG would decode it
  except Exception:  # damaged metadata is no reason to refuse the pixels
    exif = None
  return OpenImage(height, width, exif, image.info.get('icc_profile') or b'',
                   lambda: getattr(image, 'n_frames', 1),
                   lambda: (pngs.decode(file), []) if image.format == 'PNG' else _decode(image))


def _decode(image: Image.Image) -> tuple[np.ndarray, list[str]]:
  """Decodes by Pillow.

  Returns:
    (uint8 [h, w, 1 to 4], descriptions of what was lost).

  Raises:
    ValueError: the samples are of a type that has no defined range.
  """
  formats.load_image(image)
  losses = []
  if image.mode in ('CMYK', 'LAB'):
    losses.append(f'{"Lab" if image.mode == "LAB" else "CMYK"} was converted to RGB')
    if max(getattr(image, 'tag_v2', {}).get(258, [8])) > 8:
      losses.append('16 bits were reduced to 8')
    image = _to_rgb(image)
  if image.mode in ('I', 'F') or image.mode.startswith('I;16'):
    raise ValueError(f'samples of type {image.mode}')
  transparent = image.has_transparency_data
  if image.mode in ('1', 'L', 'LA', 'La'):
    image = image.convert('LA' if transparent else 'L')
  else:
    image = image.convert('RGBA' if transparent else 'RGB')
  array = np.asarray(image)
  return array[..., None] if array.ndim == 2 else array, losses


def _to_rgb(image: Image.Image) -> Image.Image:
  """Converts Lab by its definition, and CMYK by its profile if that is valid."""
  try:
    if image.mode == 'LAB':
      profile = ImageCms.createProfile('LAB')
    else:
      profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info['icc_profile']))
    return ImageCms.profileToProfile(image, profile, ImageCms.createProfile('sRGB'),
                                     outputMode='RGB')
  except (KeyError, OSError, ImageCms.PyCMSError):
    if image.mode == 'LAB':
      raise
    return image.convert('RGB')
