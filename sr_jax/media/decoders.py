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
import PIL
import tifffile
from PIL import Image, ImageCms, JpegImagePlugin

from sr_jax import images
from sr_jax.media import pngs, tiffs

# In this order, by how they begin. Others are not tried: some of Pillow's run programs.
_KINDS = ('PNG', 'JPEG', 'WEBP', 'TIFF', 'BMP', 'GIF', 'AVIF')


def quiet() -> None:
  """For command lines: what the libraries have to say of damaged files, we say in a line."""
  for name in ('tifffile', 'imagecodecs'):
    logging.getLogger(name).setLevel(logging.CRITICAL)
  for module in ('PIL', 'tifffile'):
    warnings.filterwarnings('ignore', module=module)


class Opened(NamedTuple):
  """A file whose header has been read."""

  height: int  # as stored
  width: int
  exif: Image.Exif | None  # with the orientation; None if it is damaged
  icc: bytes
  frames: Callable[[], int]
  decode: Callable[[], tuple[np.ndarray, list[str]]]  # [h, w, 1 to 4], what was lost


@contextlib.contextmanager
def opened(path, max_pixels: int) -> Iterator[Opened]:
  """Yields a file's `Opened`, while whatever fails is an `InputError` that names the file.

  Raises:
    DamagedPicture: it is missing, no picture, damaged or of more than `max_pixels`.
    InputError: the disk fails.
  """
  with contextlib.ExitStack() as stack:
    stack.enter_context(images.reading(path, 'damaged picture ({error})'))
    file = stack.enter_context(open(path, 'rb'))
    start, found = file.read(32), None
    file.seek(0)
    if start[:4] in tiffs.SIGNATURES:
      tiff = stack.enter_context(tifffile.TiffFile(file))
      if page := tiffs.deep_page(tiff):
        if page.tilewidth * page.tilelength > max_pixels:  # each is decoded whole
          raise ValueError(f'tiles of {page.tilelength}x{page.tilewidth}')
        icc = page.tags.valueof(34675, b'')
        found = Opened(page.imagelength, page.imagewidth, tiffs.page_exif(tiff), bytes(icc),
                       lambda: len(tiff.pages), lambda: tiffs.decode(page))
    found = found or _by_pillow(file, start)
    height, width = found.height, found.width
    if not height * width:
      raise ValueError('no pixels')
    if height * width > max_pixels:
      raise images.DamagedPicture(f'{path}: {width}x{height} is {height * width:,} pixels, more '
                                  f'than --max-pixels {max_pixels:,}')
    yield found


def _by_pillow(file, start: bytes) -> Opened:
  """Without Image.open, whose limit of pixels is one for the whole process, and lower."""
  Image.init()
  kind = next((kind for kind in _KINDS if kind in Image.OPEN and Image.OPEN[kind][1](start)), None)
  if not kind:
    raise PIL.UnidentifiedImageError
  # A phone's JPEG with a preview behind it is one picture, not an MPO of two.
  factory = JpegImagePlugin.JpegImageFile if kind == 'JPEG' else Image.OPEN[kind][0]
  try:
    file.seek(0)
    picture = factory(file, '')
  except SyntaxError:
    raise PIL.UnidentifiedImageError from None
  width, height = picture.size
  if kind == 'TIFF':  # newer versions of Pillow turn its size already
    width, height = picture.tag_v2[256], picture.tag_v2[257]
  if kind == 'PNG' and 'exif' not in picture.info:
    picture.info['exif'] = pngs.late_exif(file)
  try:
    exif = Image.Image.getexif(picture)  # a PNG's own would decode it
  except Exception:  # no picture should be refused for what is said about it
    exif = None
  return Opened(height, width, exif, picture.info.get('icc_profile') or b'',
                 lambda: getattr(picture, 'n_frames', 1),
                 lambda: (pngs.decode(file), []) if kind == 'PNG' else
                 _decode(picture, (width, height)))


def _decode(picture: Image.Image, stored: tuple[int, int]) -> tuple[np.ndarray, list[str]]:
  if picture.format == 'TIFF':  # which else looks at Pillow's limit when it makes this
    picture.im = Image.new(picture.mode, stored, None).im
  picture.load()
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
