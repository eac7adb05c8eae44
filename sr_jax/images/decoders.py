"""Opens image files: reads their headers, and decodes their pixels on request.

Pillow decodes what it decodes in full. imagecodecs and tifffile decode PNG, JPEG 2000, JPEG XL and
the TIFF files of `tiff_pages`, and pillow-heif, where it is installed, HEIF.
"""

import contextlib
import dataclasses
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np
import tifffile
from PIL import Image, ImageCms

from sr_jax.images import (
  color_tags,
  dropped,
  formats,
  jpeg2000,
  jpegxl,
  metadata,
  pngs,
  samples,
  tiff_pages,
)

MAX_BYTES_PER_PIXEL = 32  # four samples of 64 bits


@dataclasses.dataclass(frozen=True)
class OpenImage:
  """An open image file whose header has been read.

  Attributes:
    height, width: after the orientation has been applied.
    bits: of a sample, as stored.
    has_alpha: whether there is an alpha channel or a transparent colour, which may be opaque.
    notes: what `decode` does not return of the samples, other than a lower bit depth.
    metadata: what is stored beside the samples.
    frame_note: returns the note of a file with several frames, or ''.
    decode: returns ([h, w, 1 to 4] uint8 or uint16, upright, alpha last; further notes).
  """

  height: int
  width: int
  bits: int
  has_alpha: bool
  notes: tuple[str, ...]
  metadata: metadata.Metadata
  frame_note: Callable[[], str]
  decode: Callable[[], tuple[np.ndarray, list[str]]]


def silence_libraries() -> None:
  """Turns off the libraries' logs and warnings about damaged files.

  The command lines print one line per file instead.
  """
  for name in ('tifffile', 'imagecodecs', 'PIL'):
    logging.getLogger(name).setLevel(logging.CRITICAL)
  for module in ('PIL', 'tifffile'):
    warnings.filterwarnings('ignore', module=module)


@contextlib.contextmanager
def open_file(file: BinaryIO) -> Iterator[OpenImage]:
  """Yields the image in an open file, whose name does not matter.

  Raises:
    UnsupportedError: a kind of image that is not read.
    Exception: errors of the parsers, of many kinds.
  """
  signature = file.read(64)
  formats.refuse_unreadable(signature)
  with contextlib.ExitStack() as stack:
    if signature.startswith(jpeg2000.SIGNATURES):
      image = _open_jpeg2000(file)
    elif signature.startswith(jpegxl.SIGNATURES):
      image = _open_jpegxl(file)
    else:
      page = None
      if signature.startswith(tiff_pages.SIGNATURES):
        file.seek(0)
        tiff = stack.enter_context(tifffile.TiffFile(file))
        tiff_pages.refuse_raw(tiff)
        page = tiff_pages.unusual_page(tiff)
      image = _open_unusual_tiff(tiff, page) if page else _open_with_pillow(file)
    if not image.height * image.width:
      raise ValueError('no pixels')
    yield image


def _frames(count: Callable[[], int], unit: str = 'frames') -> Callable[[], str]:
  def note() -> str:
    frames = count()
    return dropped.frames(frames, unit) if frames > 1 else ''
  return note


def _upright(height: int, width: int, exif: Image.Exif | None) -> tuple[int, int]:
  """Returns (height, width) after the EXIF orientation has been applied."""
  swapped = formats.swaps_sides(formats.exif_orientation(exif))
  return (width, height) if swapped else (height, width)


# JPEG 2000, JPEG XL, TIFF --------------------------------------------------------------------


def _open_jpeg2000(file: BinaryIO) -> OpenImage:
  file.seek(0)
  data = file.read()
  header = jpeg2000.parse(data)
  colors = 1 if header.channels < 3 else 3
  channels = [*range(colors), *([] if header.alpha is None else [header.alpha])]
  spare = header.channels - len(channels)
  exif = metadata.parse_exif(header.exif)

  def decode() -> tuple[np.ndarray, list[str]]:
    array = jpeg2000.decode(data, header)
    deep = max(header.bits) > 8
    planes = [samples.to_full_range(array[..., index], header.bits[index])[0]
              for index in channels]
    if deep:
      planes = [np.uint16(plane) * np.uint16(257) if plane.dtype == np.uint8 else plane
                for plane in planes]
    array = np.stack(planes, -1)
    array = samples.unmultiply(array) if header.premultiplied else array
    return formats.apply_orientation(array, formats.exif_orientation(exif)), []

  resolution = header.resolution and (header.resolution[0] * metadata.INCH_METRES,
                                      header.resolution[1] * metadata.INCH_METRES, metadata.INCH)
  return OpenImage(
      *_upright(header.height, header.width, exif), max(header.bits),
      header.alpha is not None, (dropped.channels(spare, header.channels),) if spare > 0 else (),
      metadata.Metadata(exif, header.icc, {}, header.xmp, (), resolution), lambda: '', decode)


def _open_jpegxl(file: BinaryIO) -> OpenImage:
  file.seek(0)
  data = file.read()
  header = jpegxl.parse(data)
  width, height = (header.height, header.width) if header.turned else (header.width, header.height)
  spare = [kind for kind in header.extra if kind != jpegxl.ALPHA]
  notes = [dropped.channels(len(spare), header.colors + len(header.extra))] if spare else []
  notes += [dropped.ICC] if header.has_icc else []
  names = {b'Exif': dropped.EXIF, b'xml ': dropped.XMP}
  lost = tuple(names[kind] for kind in header.lost)
  exif = metadata.parse_exif(header.exif)
  if exif:
    exif.pop(formats.ORIENTATION, None)  # the decoder has applied that of the codestream

  def decode() -> tuple[np.ndarray, list[str]]:
    array, clipped = samples.to_full_range(jpegxl.decode(data, header), header.bits)
    return samples.unmultiply(array) if header.premultiplied else array, clipped

  return OpenImage(height, width, header.bits, jpegxl.ALPHA in header.extra, tuple(notes),
                   metadata.Metadata(exif, b'', header.tags, header.xmp, notes=lost),
                   lambda: dropped.frames(None) if header.animated else '', decode)


def _open_unusual_tiff(tiff: tifffile.TiffFile, page: tifffile.TiffPage) -> OpenImage:
  """Opens a TIFF whose first page is one of `tiff_pages.unusual_page`.

  Raises:
    ValueError: decoding would allocate far more memory than the pixels take.
  """
  if page.tilewidth * page.tilelength > formats.MAX_PIXELS:  # each tile is decoded in one piece
    raise ValueError(f'tiles of {page.tilelength}x{page.tilewidth}')
  if max(page.databytecounts, default=0) > tiff.filehandle.size:  # would be allocated
    raise ValueError('truncated')
  if page.nbytes > MAX_BYTES_PER_PIXEL * max(page.imagelength * page.imagewidth, 2**20):
    raise ValueError(f'{page.nbytes:,} bytes of {" x ".join(map(str, page.shape))} samples')
  exif, valueof = tiff_pages.page_exif(tiff), page.tags.valueof

  def decode() -> tuple[np.ndarray, list[str]]:
    array, notes = tiff_pages.decode(page)
    return formats.apply_orientation(array, formats.exif_orientation(exif)), notes

  return OpenImage(
      *_upright(page.imagelength, page.imagewidth, exif), int(np.max(page.bitspersample)),
      tiff_pages.has_alpha(page),
      tuple(tiff_pages.header_notes(page)),
      metadata.Metadata(exif, bytes(valueof(34675, b'')), {}, bytes(valueof(700, b'')),
                        notes=metadata.tiff_notes(page.tags)),
      _frames(lambda: len(tiff.pages), 'pages'), decode)


# Pillow --------------------------------------------------------------------------------------


def _open_with_pillow(file: BinaryIO) -> OpenImage:
  """Opens any supported file by Pillow; the pixels of a PNG are decoded by libpng."""
  image = formats.open_image(file)
  width, height = formats.stored_size(image)
  chunks = pngs.ancillary(file) if image.format == 'PNG' else []
  late = next((body for name, body in chunks if name == b'eXIf'), b'')
  if late and 'exif' not in image.info:
    image.info['exif'] = late
  try:
    exif = Image.Image.getexif(image)  # the method of a PNG would decode it
  except Exception:  # damaged metadata is no reason to refuse the pixels
    exif = None
  bits, tags = metadata.bits_and_tags(image, file, chunks)
  notes = []
  if image.mode in ('CMYK', 'LAB'):
    notes.append(dropped.converted('Lab' if image.mode == 'LAB' else 'CMYK'))
  notes += metadata.bmp_notes(file) if image.format == 'BMP' else []
  spare = _spare_channels(image)
  if spare:
    notes.append(dropped.channels(spare, image.tag_v2[277]))

  def decode() -> tuple[np.ndarray, list[str]]:
    array = pngs.decode(file) if image.format == 'PNG' else _decode(image)
    # Read after decoding, in which Pillow applies that of a TIFF and deletes it.
    return formats.apply_orientation(array, formats.exif_orientation(exif)), []

  unit = 'pages' if image.format == 'TIFF' else 'frames'
  return OpenImage(
      *_upright(height, width, exif), bits, image.has_transparency_data, tuple(notes),
      metadata.of_pillow(image, exif, tags, chunks),
      _frames(lambda: getattr(image, 'n_frames', 1), unit),
      decode)


def _spare_channels(image: Image.Image) -> int:
  """Returns how many channels of a TIFF are neither colour nor alpha."""
  if image.format != 'TIFF':
    return 0
  extra = image.tag_v2.get(338, ())
  alpha = any(kind in (1, 2) for kind in (extra if isinstance(extra, tuple) else (extra,)))
  colors = {0: 1, 1: 1, 3: 1, 5: 4}.get(image.tag_v2.get(262), 3)
  return max(0, image.tag_v2.get(277, 1) - colors - alpha)


def _decode(image: Image.Image) -> np.ndarray:
  """Decodes by Pillow to uint8 [h, w, 1 to 4].

  Raises:
    UnsupportedError: the samples are of a type that has no defined range.
  """
  formats.load_image(image)
  if image.mode in ('CMYK', 'LAB'):
    image = _to_rgb(image)
  if image.mode in ('I', 'F') or image.mode.startswith('I;16'):
    raise formats.UnsupportedError(f'samples of type {image.mode}')
  transparent = image.has_transparency_data
  if image.mode in ('1', 'L', 'LA', 'La'):
    image = image.convert('LA' if transparent else 'L')
  else:
    image = image.convert('RGBA' if transparent else 'RGB')
  array = np.asarray(image)
  return array[..., None] if array.ndim == 2 else array


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


# Notes -----------------------------------------------------------------------------------------


def color_notes(image: OpenImage) -> list[str]:
  """Returns the colour tags that are lost if only samples are used."""
  icc = image.metadata.icc
  used = icc[16:20] in (b'CMYK', b'Lab ')  # in the conversion to RGB, which has its own note
  return [dropped.ICC] * bool(icc and not used) + color_tags.notes(image.metadata.tags, icc)


def header_notes(image: OpenImage) -> list[str]:
  """Returns what `images.read_image` loses of an image, as far as its header shows it.

  Alpha counts as lost although it may turn out to be opaque.
  """
  notes = [dropped.bits(image.bits, 8)] if image.bits > 8 else []
  notes += [dropped.ALPHA] if image.has_alpha else []
  notes += [*image.notes, *color_notes(image), image.frame_note()]
  return list(dict.fromkeys(filter(None, notes)))
