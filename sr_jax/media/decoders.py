"""Opens picture files: their headers at once, their pixels only when asked for.

What Pillow does well it does; `tiffs` and `pngs` do what it does with 8 of 16 bits.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import tifffile
from PIL import Image, ImageCms

from sr_jax import images
from sr_jax.images import formats
from sr_jax.media import pngs, tiffs

MOST_BYTES = 32  # of a pixel: four numbers of 64 bits


def quiet() -> None:
  """For command lines: what the libraries have to say of damaged files, we say in a line."""
  for name in ('tifffile', 'imagecodecs', 'PIL'):
    logging.getLogger(name).setLevel(logging.CRITICAL)
  for module in ('PIL', 'tifffile'):
    warnings.filterwarnings('ignore', module=module)


class OpenImage(NamedTuple):
  """A file whose header has been read."""

  height: int  # as stored
  width: int
  exif: Image.Exif | None  # with the orientation; None if it is damaged
  icc: bytes
  frames: Callable[[], int]
  decode: Callable[[], tuple[np.ndarray, list[str]]]  # [h, w, 1 to 4], what was lost


@contextlib.contextmanager
def opened(path, max_pixels: int) -> Iterator[OpenImage]:
  """Yields a file's `Opened`, while whatever fails is an `InputError` that names the file.

  Raises:
    DamagedPicture: it is missing, no picture, damaged or of more than `max_pixels`.
    InputError: the disk fails.
  """
  with contextlib.ExitStack() as stack:
    stack.enter_context(images.reading(path, 'damaged picture ({error})'))
    file = stack.enter_context(open(path, 'rb'))
    found = None
    if file.read(4) in tiffs.SIGNATURES:
      file.seek(0)
      tiff = stack.enter_context(tifffile.TiffFile(file))
      if page := tiffs.deep_page(tiff):
        if page.tilewidth * page.tilelength > max_pixels:  # each is decoded whole
          raise ValueError(f'tiles of {page.tilelength}x{page.tilewidth}')
        if max(page.databytecounts, default=0) > tiff.filehandle.size:  # would be allocated
          raise ValueError('cut off')
        if page.nbytes > MOST_BYTES * max_pixels:
          raise ValueError(f'{page.nbytes:,} bytes of {" x ".join(map(str, page.shape))} samples')
        icc = page.tags.valueof(34675, b'')
        found = OpenImage(page.imagelength, page.imagewidth, tiffs.page_exif(tiff), bytes(icc),
                       lambda: len(tiff.pages), lambda: tiffs.decode(page))
    found = found or _by_pillow(file)
    height, width = found.height, found.width
    if not height * width:
      raise ValueError('no pixels')
    images.refuse_above(max_pixels, path, width, height, '--max-pixels')
    yield found


def _by_pillow(file) -> OpenImage:
  picture = formats.open_picture(file)
  width, height = formats.stored_size(picture)
  if picture.format == 'PNG' and 'exif' not in picture.info:
    picture.info['exif'] = pngs.late_exif(file)
  try:
    exif = Image.Image.getexif(picture)  # a PNG's own would decode it
  except Exception:  # no picture should be refused for what is said about it
    exif = None
  return OpenImage(height, width, exif, picture.info.get('icc_profile') or b'',
                 lambda: getattr(picture, 'n_frames', 1),
                 lambda: (pngs.decode(file), []) if picture.format == 'PNG' else _decode(picture))


def _decode(picture: Image.Image) -> tuple[np.ndarray, list[str]]:
  formats.load_picture(picture)
  lost = []
  if picture.mode in ('CMYK', 'LAB'):
    lost.append(f'{"Lab" if picture.mode == "LAB" else "CMYK"} became RGB')
    if max(getattr(picture, 'tag_v2', {}).get(258, [8])) > 8:
      lost.append('16 bits became 8')
    picture = _to_rgb(picture)
  if picture.mode in ('I', 'F') or picture.mode.startswith('I;16'):
    raise ValueError(f'samples of type {picture.mode}')
  clear = picture.has_transparency_data
  if picture.mode in ('1', 'L', 'LA', 'La'):
    picture = picture.convert('LA' if clear else 'L')
  else:
    picture = picture.convert('RGBA' if clear else 'RGB')
  array = np.asarray(picture)
  return array[..., None] if array.ndim == 2 else array, lost


def _to_rgb(picture: Image.Image) -> Image.Image:
  """CMYK by its profile, where it has a good one; Lab by definition."""
  try:
    if picture.mode == 'LAB':
      profile = ImageCms.createProfile('LAB')
    else:
      profile = ImageCms.ImageCmsProfile(io.BytesIO(picture.info['icc_profile']))
    return ImageCms.profileToProfile(picture, profile, ImageCms.createProfile('sRGB'),
                                     outputMode='RGB')
  except (KeyError, OSError, ImageCms.PyCMSError):
    if picture.mode == 'LAB':
      raise
    return picture.convert('RGB')
