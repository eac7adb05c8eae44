"""Formats and kinds of samples that are read, refused by name, or read with a loss."""

import importlib.util
import io
import pathlib
import struct
from collections.abc import Callable

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from sr_jax import images
from sr_jax.errors import InputError
from sr_jax.images import boxes, color_tags, dropped, formats, jpegxl
from sr_jax.media import photos

MakeImage = Callable[..., np.ndarray]  # the fixture `picture`


def deep(image: np.ndarray, bits: int = 16) -> np.ndarray:
  """Returns uint16 levels of `bits` bits that do not fit 8 bits."""
  rng = np.random.default_rng(0)
  return (np.uint16(image) << (bits - 8)) | rng.integers(0, 1 << (bits - 8), image.shape, np.uint16)


@pytest.mark.parametrize('suffix', ['.jxl', '.jp2', '.j2k'])
@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_jpeg_xl_and_jpeg_2000_are_read_bit_for_bit(tmp_path: pathlib.Path, picture: MakeImage,
                                                    suffix: str, channels: int) -> None:
  def encode(array: np.ndarray, **options: int) -> bytes:
    flat = array[..., 0] if array.shape[-1] == 1 else array
    if suffix == '.jxl':
      return imagecodecs.jpegxl_encode(flat, lossless=True, **options)
    return imagecodecs.jpeg2k_encode(flat, level=0, codecformat=suffix[1:], **options)

  array = np.concatenate([picture(12, 17, index) for index in (0, 1)], -1)[..., :channels]
  path = tmp_path / f'a{suffix}'
  path.write_bytes(encode(array))
  photo = photos.read(path)
  samples = array if channels in (1, 3) else array[..., :-1]
  np.testing.assert_array_equal(photo.samples, samples)
  assert (photo.alpha is None) == (channels in (1, 3))
  assert images.image_size(path) == photos.size(path) == (12, 17)
  assert photo.note == ''
  if photo.alpha is None:
    np.testing.assert_array_equal(images.read_image(path), array)
  else:
    np.testing.assert_array_equal(photo.alpha, array[..., -1:])
    assert images.read_with_notes(path).notes == images.header_notes(path) == [dropped.ALPHA]

  path.write_bytes(encode(deep(array)))
  np.testing.assert_array_equal(photos.read(path).samples,
                                deep(array)[..., :samples.shape[-1]])
  assert dropped.bits(16, 8) in images.header_notes(path)
  path.write_bytes(encode(deep(array, 10), bitspersample=10))
  ten = photos.read(path).samples
  levels = deep(array, 10)[..., :samples.shape[-1]]
  np.testing.assert_array_equal(ten, np.round(levels / 1023 * 65535))
  assert dropped.bits(10, 8) in images.read_with_notes(path).notes
  path.write_bytes(path.read_bytes()[:-60])
  with pytest.raises(images.DamagedImageError, match=r'a\.j.*: damaged'):
    photos.read(path)


def test_limits_hold_before_decoding(tmp_path: pathlib.Path, picture: MakeImage,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
  (tmp_path / 'a.jxl').write_bytes(imagecodecs.jpegxl_encode(picture(12, 17)))
  (tmp_path / 'a.jp2').write_bytes(imagecodecs.jpeg2k_encode(picture(12, 17), level=0))
  monkeypatch.setattr(imagecodecs, 'jpegxl_decode', None)
  monkeypatch.setattr(imagecodecs, 'jpeg2k_decode', None)
  for path in tmp_path.iterdir():
    with pytest.raises(InputError, match=r'17x12 has 204 pixels, .*--max-pixels 200'):
      photos.read(path, 200)


def test_jpeg_2000_of_other_colours(tmp_path: pathlib.Path, picture: MakeImage) -> None:
  rgb = picture(16, 16)
  ycc = np.asarray(Image.fromarray(rgb).convert('YCbCr'))
  path = tmp_path / 'a.jp2'
  path.write_bytes(imagecodecs.jpeg2k_encode(ycc, level=0, colorspace='SYCC', mct=False))
  with Image.open(path) as image:
    assert np.abs(photos.read(path).samples.astype(int) - np.asarray(image)).max() <= 1
  data = imagecodecs.jpeg2k_encode(rgb, level=0)
  at = data.index(b'colr') + 7
  path.write_bytes(data[:at] + struct.pack('>I', 12) + data[at + 4:])
  with pytest.raises(InputError, match=r'a\.jp2: unsupported: .* 12'):
    images.read_image(path)


def test_the_resolution_of_jpeg_2000_is_read(tmp_path: pathlib.Path, picture: MakeImage) -> None:
  data = imagecodecs.jpeg2k_encode(picture(8, 8), level=0)
  resolution = struct.pack('>I4sI4s4H2b', 26, b'res ', 18, b'resc', 11811, 1, 11811, 1, 0, 0)
  at = data.index(b'jp2h') - 4
  size = struct.unpack('>I', data[at:at + 4])[0]
  (tmp_path / 'a.jp2').write_bytes(data[:at] + struct.pack('>I', size + 26)
                                   + data[at + 4:at + size] + resolution + data[at + size:])
  assert photos.read(tmp_path / 'a.jp2').resolution == pytest.approx((300, 300, 2), abs=0.01)


def write_bits(*fields: tuple[int, int]) -> bytes:
  """Packs (value, number of bits), the lowest bit of each byte first."""
  value, place = 0, 0
  for field, bits in fields:
    value |= field << place
    place += bits
  return value.to_bytes(-(-place // 8) + 8, 'little')


def test_the_header_of_jpeg_xl() -> None:
  """Fields by ISO/IEC 18181-1: 24 rows of ratio 4/3, orientation 6, 10 bits, Display P3 with PQ."""
  size, orientation = [(1, 1), (2, 5), (3, 3)], [(0, 1), (1, 1), (5, 3), (0, 3)]
  depth, channels = [(0, 1), (1, 2), (0, 1)], [(1, 2), (1, 1)]  # one alpha channel
  color = [(0, 1), (0, 1), (0, 2), (1, 2), (2, 2), (9, 4), (0, 1), (2, 2), (14, 4)]
  data = write_bits(*size, *orientation, *depth, *channels, (0, 1), *color)
  header = jpegxl.parse(b'\xff\x0a' + data)
  assert (header.width, header.height, header.turned, header.bits) == (32, 24, True, 10)
  assert header.extra == (jpegxl.ALPHA,)
  assert header.tags == {b'cICP': bytes((12, 16, 0, 1))}


def test_a_transcoded_jpeg_keeps_its_exif_and_is_upright(tmp_path: pathlib.Path,
                                                         picture: MakeImage) -> None:
  exif = Image.Exif()
  exif[271], exif[274] = 'Maker', 6
  buffer = io.BytesIO()
  Image.fromarray(picture(16, 24)).save(buffer, 'JPEG', exif=exif, quality=95)
  (tmp_path / 'a.jxl').write_bytes(imagecodecs.jpegxl_encode_jpeg(buffer.getvalue()))
  photo = photos.read(tmp_path / 'a.jxl')
  assert photo.samples.shape == (24, 16, 3)
  assert photos.size(tmp_path / 'a.jxl') == (24, 16)
  kept = Image.Exif()
  kept.load(photo.exif)
  assert (kept[271], kept.get(274)) == ('Maker', None)


@pytest.mark.parametrize(('dtype', 'name'), [(np.int16, 'int16'), (np.int8, 'int8'),
                                             (np.int32, 'int32'), (np.complex64, 'complex64')])
def test_samples_without_a_range_are_unsupported_by_name(tmp_path: pathlib.Path, dtype: type,
                                                         name: str) -> None:
  tifffile.imwrite(tmp_path / 'a.tif', np.zeros((9, 8), dtype))
  for read in (images.read_image, photos.read):
    with pytest.raises(InputError, match=rf'a\.tif: unsupported: .*{name}'):
      read(tmp_path / 'a.tif')


def test_float_tiff_is_read_alike_everywhere(tmp_path: pathlib.Path, picture: MakeImage) -> None:
  path, rgb = tmp_path / 'a.tif', picture(9, 8)
  for dtype, bits in ((np.float16, 16), (np.float32, 32), (np.float64, 64)):
    tifffile.imwrite(path, rgb.astype(dtype) / dtype(255), photometric='rgb')
    assert np.abs(images.read_image(path).astype(int) - rgb).max() == 0
    assert dropped.bits(bits, 8) in images.read_with_notes(path).notes
    assert photos.read(path).samples.dtype == np.uint16
  assert dropped.bits(64, 16) in photos.read(path).note


def test_channels_other_than_colour_and_alpha_are_reported(tmp_path: pathlib.Path,
                                                           picture: MakeImage) -> None:
  six = np.concatenate([picture(9, 8), picture(9, 8, 1)], -1)
  cases = {(5, (0, 0)): 2, (4, (0,)): 1, (5, (2, 0)): 1}
  for (count, extra), spare in cases.items():
    tifffile.imwrite(tmp_path / 'a.tif', six[..., :count], photometric='rgb', extrasamples=extra,
                     planarconfig='contig')
    photo = photos.read(tmp_path / 'a.tif')
    np.testing.assert_array_equal(photo.samples, six[..., :3])
    assert photo.samples.dtype == np.uint8
    assert dropped.channels(spare, count) in photo.notes
    assert dropped.channels(spare, count) in images.header_notes(tmp_path / 'a.tif')


def thumbnail_first(path: pathlib.Path, **options: object) -> None:
  """Writes a TIFF whose first page is a thumbnail of a larger image in a SubIFD."""
  with tifffile.TiffWriter(path) as tiff:
    tiff.write(np.zeros((12, 16, 3), np.uint8), photometric='rgb', subfiletype=1, subifds=1,
               **options)
    tiff.write(np.zeros((48, 64), np.uint16), photometric='minisblack')


def test_raw_files_are_refused_by_name(tmp_path: pathlib.Path) -> None:
  for name in ('a.dng', 'a.nef', 'a.tif'):
    thumbnail_first(tmp_path / name)
  thumbnail_first(tmp_path / 'dng.tif', extratags=[(50706, 1, 4, b'\1\4\0\0', True)])
  tifffile.imwrite(tmp_path / 'a.pef', np.zeros((9, 8), np.uint16))
  signatures = {'a.cr2': b'II*\0\x10\0\0\0CR\2\0', 'a.raf': b'FUJIFILMCCD-RAW 0201',
                'a.orf': b'IIRO\x08\0\0\0', 'a.rw2': b'IIU\0\x18\0\0\0',
                'a.cr3': struct.pack('>I', 24) + b'ftypcrx \0\0\0\1crx isom'}
  for name, signature in signatures.items():
    (tmp_path / name).write_bytes(signature + bytes(500))
  for path in tmp_path.iterdir():
    for read in (images.read_image, photos.read, photos.size, images.image_size):
      with pytest.raises(InputError, match=rf'{path.name}: unsupported: .*(raw|thumbnail)'):
        read(path)


def test_a_pyramid_of_smaller_copies_is_no_raw_file(tmp_path: pathlib.Path) -> None:
  with tifffile.TiffWriter(tmp_path / 'a.tif') as tiff:
    tiff.write(np.full((48, 64, 3), 7, np.uint8), photometric='rgb', subifds=1)
    tiff.write(np.zeros((24, 32, 3), np.uint8), photometric='rgb', subfiletype=1)
  assert images.read_image(tmp_path / 'a.tif').shape == (48, 64, 3)


def test_heif_without_its_package_says_what_to_install(tmp_path: pathlib.Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(formats.importlib.util, 'find_spec', lambda name: None)
  (tmp_path / 'a.heic').write_bytes(struct.pack('>I', 24) + b'ftypmif1\0\0\0\0mif1heic'
                                    + bytes(99))
  for read in (images.read_image, photos.read, photos.size):
    with pytest.raises(InputError, match=r'a\.heic: unsupported: .*pip install pillow-heif'):
      read(tmp_path / 'a.heic')


def test_heif(tmp_path: pathlib.Path, picture: MakeImage) -> None:
  pillow_heif = pytest.importorskip('pillow_heif')
  exif = Image.Exif()
  exif[271], exif[274] = 'Maker', 6
  source = pillow_heif.from_pillow(Image.fromarray(picture(48, 64)))
  source.save(tmp_path / 'a.heic', quality=-1, chroma=444, exif=exif.tobytes())
  photo = photos.read(tmp_path / 'a.heic')
  upright = np.rot90(picture(48, 64), -1)
  assert photos.size(tmp_path / 'a.heic') == upright.shape[:2]
  assert np.abs(photo.samples.astype(int) - upright).max() <= 6  # YCbCr in 8 bits
  levels = np.uint16(picture(48, 64)) * 257
  pillow_heif.from_bytes('RGB;16', (64, 48), levels.tobytes()).save(tmp_path / 'b.heic')
  assert dropped.bits(10, 8) in images.read_with_notes(tmp_path / 'b.heic').notes
  assert '.heic' in images.SUFFIXES


def test_heif_suffixes_are_listed_only_where_it_can_be_read() -> None:
  installed = importlib.util.find_spec('pillow_heif') is not None
  assert set(images.HEIF_SUFFIXES).issubset(images.SUFFIXES) == installed
  assert {'.jxl', '.jp2', '.j2k', '.avif', '.gif'} <= set(images.SUFFIXES)


def test_boxes_end_at_the_first_that_is_not_intact() -> None:
  inner = struct.pack('>I4s', 12, b'ispe') + b'abcd'
  data = struct.pack('>I4s', 8 + len(inner), b'ipco') + inner + struct.pack('>I4sQ', 1, b'mdat', 17)
  assert list(boxes.walk(data + b'x')) == [(b'ispe', b'abcd'), (b'mdat', b'x')]
  assert list(boxes.walk(struct.pack('>I4s', 4, b'free') + data)) == []
  assert boxes.brands(b'\0\0\0\x14ftypmif1\0\0\0\0heic') == {b'mif1', b'heic'}


def test_colour_tags_that_say_srgb_are_no_loss() -> None:
  srgb_xy = color_tags.chromaticities([.3127, .329, .64, .33, .3, .6, .15, .06])
  assert color_tags.notes(color_tags.gamma(1 / 2.2) | srgb_xy, b'') == []
  assert color_tags.notes(color_tags.gamma(1), b'') == [dropped.color_tag('gAMA', '1')]
  assert color_tags.notes(color_tags.gamma(1), b'profile') == []  # the profile overrules it
  assert color_tags.notes(color_tags.gamma(1) | {b'sRGB': b'\0'}, b'') == []
  assert color_tags.cicp(1, 13) == color_tags.cicp(2, 2) == {}
  found, = color_tags.notes(color_tags.cicp(12, 16), b'profile')
  assert '12/16' in found
