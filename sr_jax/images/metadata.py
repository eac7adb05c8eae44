"""What an image file stores beside the samples: EXIF, colour, XMP, text, resolution."""

import dataclasses
import math
from typing import Any, BinaryIO

from PIL import Image

from sr_jax.images import boxes, color_tags, dropped, pngs

XMP_KEYWORD = b'XML:com.adobe.xmp'  # of the text chunk of a PNG
INCH, CENTIMETRE = 2, 3  # units of a resolution, as in TIFF; 1 is none
INCH_METRES = 0.0254
Resolution = tuple[float, float, int]  # pixels per unit along x and along y, unit
_TIFF_COLOR_TAGS = {301: 'TransferFunction', 318: 'WhitePoint', 319: 'PrimaryChromaticities'}
_IPTC = 0x0404  # resource of Photoshop in a JPEG


@dataclasses.dataclass(frozen=True)
class Metadata:
  """What an image file stores beside the samples.

  Attributes:
    exif: including the orientation; None if it is damaged.
    icc: colour profile.
    tags: colour tags other than a profile.
    xmp: a packet of XMP.
    text: (name, body) of the text chunks of a PNG, without XMP.
    resolution: where the format has a place for it outside of EXIF.
    notes: what is there and never read.
  """

  exif: Image.Exif | None = None
  icc: bytes = b''
  tags: color_tags.Tags = dataclasses.field(default_factory=dict)
  xmp: bytes = b''
  text: tuple[tuple[bytes, bytes], ...] = ()
  resolution: Resolution | None = None
  notes: tuple[str, ...] = ()


def parse_exif(data: bytes) -> Image.Exif | None:
  """Parses EXIF; returns None if it is damaged."""
  exif = Image.Exif()
  try:
    exif.load(data)
  except Exception:  # damaged metadata is no reason to refuse the pixels
    return None
  return exif


def tiff_notes(tags: Any) -> tuple[str, ...]:
  """Returns notes on the colour tags of a TIFF, of Pillow or tifffile."""
  return tuple(dropped.color_tag(name) for tag, name in _TIFF_COLOR_TAGS.items() if tag in tags)


def of_pillow(image: Image.Image, exif: Image.Exif | None, tags: color_tags.Tags,
              chunks: list[tuple[bytes, bytes]]) -> Metadata:
  """Collects what a file that Pillow opens stores beside the samples.

  Args:
    image: the file.
    exif: its EXIF.
    tags: its colour tags (`bits_and_tags`).
    chunks: of a PNG, (name, body) of its metadata; otherwise empty.
  """
  info, notes = image.info, []
  xmp = image.tag_v2.get(700, b'') if image.format == 'TIFF' else info.get('xmp')
  xmp = xmp if isinstance(xmp, bytes) else b''
  text = [(name, body) for name, body in chunks if name in pngs.TEXT_CHUNKS]
  if image.format == 'TIFF':
    notes += tiff_notes(image.tag_v2)
  if image.format == 'JPEG' and _IPTC in (info.get('photoshop') or {}):
    notes.append(dropped.IPTC)
  if b'HasExtendedXMP' in xmp:  # whose larger part is in further segments
    notes.append(dropped.XMP)
  if image.format != 'PNG' and info.get('comment'):
    notes.append(dropped.COMMENT)
  return Metadata(exif, info.get('icc_profile') or b'', tags, xmp,
                  tuple(part for part in text if not part[1].startswith(XMP_KEYWORD + b'\0')),
                  _resolution(image, chunks), tuple(notes))


def resolution_of_exif(exif: Image.Exif | None) -> Resolution | None:
  """Returns the resolution in EXIF or in the tags of a TIFF, if it says anything."""
  try:
    x, y, unit = float(exif[282]), float(exif[283]), int(exif.get(296, INCH))
  except Exception:  # missing or damaged
    return None
  return (x, y, unit) if _is_resolution(x, y, unit) else None


def _is_resolution(x: float, y: float, unit: int) -> bool:
  """Returns whether a resolution is valid and says more than that pixels are square."""
  return 0 < x < math.inf and 0 < y < math.inf and (
      unit in (INCH, CENTIMETRE) or (unit == 1 and x != y))


def bmp_notes(file: BinaryIO) -> list[str]:
  """Returns a note on the colour profile or calibration in a BMP of version 4 or 5."""
  header = _read_at(file, 14, 60)
  if int.from_bytes(header[:4], 'little') < 108:
    return []
  kinds = {b'DEBM': dropped.ICC, b'KNIL': dropped.ICC, bytes(4): dropped.color_tag('calibration')}
  return [kinds[header[56:60]]] if header[56:60] in kinds else []


def _resolution(image: Image.Image, chunks: list[tuple[bytes, bytes]]) -> Resolution | None:
  """Returns the resolution of a PNG, JPEG or BMP; those of other formats are EXIF or TIFF tags."""
  if image.format == 'PNG':
    body = next((body for name, body in chunks if name == b'pHYs' and len(body) == 9), b'')
    x, y = int.from_bytes(body[:4], 'big'), int.from_bytes(body[4:8], 'big')
    if body[8:] == b'\1':
      x, y = x * INCH_METRES, y * INCH_METRES
    unit = INCH if body[8:] == b'\1' else 1
  elif image.format == 'JPEG' and 'jfif_density' in image.info:
    x, y = image.info['jfif_density']
    unit = image.info.get('jfif_unit', 0) + 1
  elif image.format == 'BMP':
    x, y = image.info.get('dpi', (0, 0))
    unit = INCH
  else:
    return None
  return (x, y, unit) if _is_resolution(x, y, unit) else None


def bits_and_tags(image: Image.Image, file: BinaryIO, chunks: list[tuple[bytes, bytes]]
                  ) -> tuple[int, color_tags.Tags]:
  """Returns (bits of a sample as stored, colour tags) of a file that Pillow opens."""
  if image.format == 'PNG':
    tags = {name: body for name, body in chunks if name in color_tags.CHUNKS}
    return _read_at(file, 24, 1)[0], tags
  if image.format == 'TIFF':
    return max(image.tag_v2.get(258, [8])), {}
  if image.format == 'AVIF':
    return _avif_bits_and_tags(_read_at(file, 0))
  if image.format == 'HEIF':
    nclx = image.info.get('nclx_profile') or {}
    tags = color_tags.cicp(int(nclx['color_primaries']), int(nclx['transfer_characteristics'])
                           ) if nclx else {}
    return int(image.info.get('bit_depth') or 8), tags
  return 8, {}


def _avif_bits_and_tags(data: bytes) -> tuple[int, color_tags.Tags]:
  """Returns (bits of a sample as stored, colour tags) from the boxes of an AVIF file."""
  found = list(boxes.walk(data))
  depths = [body[5] for kind, body in found if kind == b'pixi' and len(body) > 5]
  codes = next((body[4:8] for kind, body in found
                if kind == b'colr' and body[:4] == b'nclx' and len(body) >= 8), b'\0\2\0\2')
  flags = next((body[2] for kind, body in found if kind == b'av1C' and len(body) > 2), 0)
  coded = 8 if not flags & 64 else 12 if flags & 32 else 10
  return max([coded, *depths]), color_tags.cicp(codes[1], codes[3])


def _read_at(file: BinaryIO, start: int, count: int = -1) -> bytes:
  """Reads bytes from `start` on, all by default, and leaves the position as it was."""
  position = file.tell()
  file.seek(start)
  data = file.read(count)
  file.seek(position)
  return data
