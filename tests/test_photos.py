"""Image files with metadata, written or read independently of the code under test."""

import io
import os
import re
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps

from sr_jax import images
from sr_jax.errors import InputError
from sr_jax.media import photos

MakeImage = Callable[..., np.ndarray]  # the fixture `picture`
MAKE, TIME, ORIENTATION, EXPOSURE, TAKEN = 271, 306, 274, 0x829A, 0x9003
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()


def noise(height: int, width: int, channels: int, dtype: type = np.uint8,
          seed: int = 0) -> np.ndarray:
  """Returns [h, w, c] of uniformly random bits."""
  rng = np.random.default_rng(seed)
  return rng.integers(0, np.iinfo(dtype).max + 1, (height, width, channels), dtype)


def exif_of(orientation: int = 1) -> bytes:
  """Encodes EXIF with descriptive tags, exposure and GPS."""
  exif = Image.Exif()
  exif[MAKE], exif[TIME], exif[ORIENTATION] = 'Maker', '2020:01:02 03:04:05', orientation
  exif[0x8769] = {EXPOSURE: 0.25, TAKEN: '2019:01:02 03:04:05', 0xA002: 9999}
  exif[0x8825] = {1: 'N', 2: (48.0, 8.0, 14.5)}
  return exif.tobytes()


def chunk(name: bytes, body: bytes) -> bytes:
  return struct.pack('>I', len(body)) + name + body + struct.pack('>I', zlib.crc32(name + body))


def png(height: int, width: int, depth: int, kind: int, rows: bytes, extra: bytes = b'',
        interlaced: int = 0, late: bytes = b'') -> bytes:
  """Encodes a PNG by hand; each row in `rows` starts with the byte of its filter."""
  header = struct.pack('>IIBBBBB', width, height, depth, kind, 0, 0, interlaced)
  return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + extra
          + chunk(b'IDAT', zlib.compress(rows)) + late + chunk(b'IEND', b''))


def png_of(array: np.ndarray, **chunks: bytes | int) -> bytes:
  """Encodes uint8 or uint16 [h, w, 1 to 4] as a PNG."""
  kind = {1: 0, 2: 4, 3: 2, 4: 6}[array.shape[-1]]
  wide = array.astype(array.dtype.newbyteorder('>'))
  return png(*array.shape[:2], array.itemsize * 8, kind,
             b''.join(b'\0' + row.tobytes() for row in wide), **chunks)


def png_samples(data: bytes) -> np.ndarray:
  """Decodes a PNG of 8 or 16 bits to [h, w, c] as its specification defines it."""
  width, height, depth, kind = struct.unpack('>IIBB', data[16:26])
  channels, place, packed = {0: 1, 4: 2, 2: 3, 6: 4}[kind], 8, b''
  while place < len(data):
    length, name = struct.unpack('>I4s', data[place:place + 8])
    packed += data[place + 8:place + 8 + length] if name == b'IDAT' else b''
    place += 12 + length
  step = channels * depth // 8
  rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, -1).astype(int)
  out = np.zeros((height + 1, step + width * step), int)  # with a row above and a pixel to the left
  for y, (kind, row) in enumerate(zip(rows[:, 0], rows[:, 1:], strict=True), 1):
    for x, value in enumerate(row, step):
      a, b, c = out[y, x - step], out[y - 1, x], out[y - 1, x - step]
      paeth = min((a, b, c), key=lambda near, a=a, b=b, c=c: abs(a + b - c - near))
      out[y, x] = (value + (0, a, b, (a + b) // 2, paeth)[kind]) % 256
  raw = np.uint8(out[1:, step:]).tobytes()
  return np.frombuffer(raw, f'>u{depth // 8}').reshape(height, width, channels)


def all_channels(photo: photos.Photo) -> np.ndarray:
  """Returns [h, w, 1 to 4]."""
  return photo.samples if photo.alpha is None else np.concatenate([photo.samples, photo.alpha], -1)


def split(array: np.ndarray, **metadata: bytes) -> photos.Photo:
  """Returns the photo of [h, w, 1 to 4]."""
  if array.shape[-1] in (2, 4):
    return photos.Photo(array[..., :-1], array[..., -1:], **metadata)
  return photos.Photo(array, **metadata)


def by_pillow(array: np.ndarray) -> Image.Image:
  return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def opened(path: Path) -> tuple[np.ndarray, dict, dict, dict, bytes | None]:
  """Returns (array, EXIF, its EXIF directory, its GPS directory, profile) by Pillow."""
  with Image.open(path) as image:
    exif = image.getexif()
    capture, gps = exif.get_ifd(0x8769), exif.get_ifd(0x8825)
    return np.asarray(image), dict(exif), capture, gps, image.info.get('icc_profile')


KINDS = [(1, np.uint8), (2, np.uint8), (3, np.uint8), (4, np.uint8),
         (1, np.uint16), (2, np.uint16), (3, np.uint16), (4, np.uint16)]


@pytest.mark.parametrize(('channels', 'dtype'), KINDS)
def test_reads_every_bit(tmp_path: Path, channels: int, dtype: type) -> None:
  array = noise(7, 11, channels, dtype)
  (tmp_path / 'a.png').write_bytes(png_of(array))
  photometric = 'minisblack' if channels < 3 else 'rgb'
  extra = ['unassalpha'] if channels in (2, 4) else None
  flat = array[..., 0] if channels == 1 else array
  planar = None if channels == 1 else 'contig'
  for name, options in {'a.tif': {}, 'big.tif': {'bigtiff': True}, 'high.tif': {'byteorder': '>'},
                        'lzw.tif': {'compression': 'lzw', 'predictor': 2}}.items():
    tifffile.imwrite(tmp_path / name, flat, photometric=photometric, extrasamples=extra,
                     planarconfig=planar, software=False, **options)
  if dtype == np.uint8:
    by_pillow(array).save(tmp_path / 'pillow.png')
    by_pillow(array).save(tmp_path / 'pillow.tif')
    if channels != 2:
      by_pillow(array).save(tmp_path / 'a.webp', lossless=True, exact=True)
    if channels in (1, 3):
      by_pillow(array).save(tmp_path / 'a.bmp')
  for path in tmp_path.iterdir():
    photo = photos.read(path)
    expected = array.repeat(3, -1) if path.suffix == '.webp' and channels == 1 else array
    np.testing.assert_array_equal(all_channels(photo), expected, err_msg=path.name)
    assert all_channels(photo).dtype == dtype
    assert photos.size(path) == (7, 11)
    assert (photo.icc, photo.note) == (b'', '')
    assert b'shape' not in photo.exif  # tifffile describes the array's shape there


@pytest.mark.parametrize(('channels', 'dtype'), KINDS)
def test_writes_every_bit(tmp_path: Path, channels: int, dtype: type) -> None:
  array = noise(7, 11, channels, dtype)
  photo = split(array)
  assert photos.write(tmp_path / 'a.png', photo, 'png') == ''
  np.testing.assert_array_equal(png_samples((tmp_path / 'a.png').read_bytes()), array)
  assert photos.write(tmp_path / 'a.tif', photo, 'tiff') == ''
  with tifffile.TiffFile(tmp_path / 'a.tif') as tiff:
    assert [int(kind) for kind in tiff.pages[0].extrasamples] == [2] * (channels in (2, 4))
    np.testing.assert_array_equal(tiff.asarray().reshape(array.shape), array)
  if dtype == np.uint8:
    np.testing.assert_array_equal(opened(tmp_path / 'a.tif')[0].reshape(array.shape), array)
    if channels > 2:
      assert photos.write(tmp_path / 'a.webp', photo, 'webp', 100) == ''
      decoded = imagecodecs.webp_decode((tmp_path / 'a.webp').read_bytes())
      np.testing.assert_array_equal(decoded, array)
    if channels in (1, 3):
      assert photos.write(tmp_path / 'a.bmp', photo, 'bmp') == ''
      np.testing.assert_array_equal(opened(tmp_path / 'a.bmp')[0].reshape(array.shape), array)


def test_palettes_and_low_bit_depths(tmp_path: Path) -> None:
  index = noise(6, 8, 1)[..., 0] % 4
  colours = np.uint8([[250, 0, 3], [9, 8, 7], [0, 99, 0], [1, 2, 255]])
  rows = b''.join(b'\0' + np.uint8(row @ [[64, 0], [16, 0], [4, 0], [1, 0], [0, 64], [0, 16],
                                          [0, 4], [0, 1]]).tobytes() for row in index)
  palette = chunk(b'PLTE', colours.tobytes())
  clear = chunk(b'tRNS', bytes([255, 0, 80]))
  cases = {'p.png': png(6, 8, 2, 3, rows, palette), 'g.png': png(6, 8, 2, 0, rows),
           'pt.png': png(6, 8, 2, 3, rows, palette + clear),
           'gt.png': png(6, 8, 2, 0, rows, chunk(b'tRNS', b'\0\2'))}
  for name, data in cases.items():
    (tmp_path / name).write_bytes(data)
  p, pt, g, gt = (photos.read(tmp_path / f'{name}.png') for name in ('p', 'pt', 'g', 'gt'))
  np.testing.assert_array_equal(p.samples, colours[index])
  np.testing.assert_array_equal(pt.samples, colours[index])
  np.testing.assert_array_equal(pt.alpha[..., 0], np.uint8([255, 0, 80, 255])[index])
  np.testing.assert_array_equal(g.samples[..., 0], index * 85)
  np.testing.assert_array_equal(gt.samples[..., 0], index * 85)
  np.testing.assert_array_equal(gt.alpha[..., 0], np.where(index == 2, 0, 255))
  assert p.alpha is None
  assert g.alpha is None
  image = Image.fromarray(index)
  image.putpalette(colours.tobytes())
  image.save(tmp_path / 'a.gif', transparency=1)
  gif = photos.read(tmp_path / 'a.gif')
  np.testing.assert_array_equal(gif.alpha[..., 0], np.where(index == 1, 0, 255))
  np.testing.assert_array_equal(gif.samples[index != 1], colours[index][index != 1])
  for suffix in ('png', 'tif', 'bmp'):
    Image.fromarray(index > 1).save(tmp_path / f'bits.{suffix}')
    bits = photos.read(tmp_path / f'bits.{suffix}')
    np.testing.assert_array_equal(bits.samples[..., 0], np.where(index > 1, 255, 0))


def test_transparent_colour_and_interlacing_with_16_bits(tmp_path: Path) -> None:
  array = noise(8, 8, 3, np.uint16)
  passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
            (1, 0, 2, 1))
  rows = b''.join(b'\0' + row.astype('>u2').tobytes() for y, x, down, right in passes
                  for row in array[y::down, x::right])
  clear = chunk(b'tRNS', array[2, 5].astype('>u2').tobytes())
  (tmp_path / 'a.png').write_bytes(png(8, 8, 16, 2, rows, clear, interlaced=1))
  photo = photos.read(tmp_path / 'a.png')
  np.testing.assert_array_equal(photo.samples, array)
  assert np.argwhere(photo.alpha[..., 0] == 0).tolist() == [[2, 5]]
  assert set(photo.alpha.ravel().tolist()) == {0, 65535}


def cmyk_profile() -> bytes:
  """Encodes a profile in which full cyan is red: Lab of the 16 corners, interpolated (ICC.1
  lut8Type).
  """
  corners = np.zeros((2, 2, 2, 2, 3), np.uint8)
  corners[..., 0], corners[..., 1:] = 255, 128  # L 100, a 0, b 0: white
  corners[1, ..., :] = 138, 128 + 81, 128 + 70  # sRGB's red in D50
  corners[..., 1, :] = 0, 128, 128  # key is black
  straight = bytes(range(256))
  identity = struct.pack('>9i', *np.eye(3, dtype=int).ravel() << 16)
  lut = (b'mft1\0\0\0\0\4\3\2\0' + identity + straight * 4 + corners.tobytes() + straight * 3)
  tags = struct.pack('>I4sII', 1, b'A2B0', 144, len(lut))
  header = struct.pack('>II4s4s4s4s12x4s28x3i48x', 144 + len(lut), 0, b'\2\x40\0\0', b'prtr',
                       b'CMYK', b'Lab ', b'acsp', 0xF6D6, 0x10000, 0xD32D)
  return header + tags + lut


def test_cmyk(tmp_path: Path) -> None:
  inks = np.zeros((16, 32, 4), np.uint8)
  inks[:, 16:, 0] = 255
  for name, options in (('plain', {}), ('profile', {'icc_profile': cmyk_profile()}),
                        ('broken', {'icc_profile': b'nonsense' * 40})):
    Image.fromarray(inks, 'CMYK').save(tmp_path / f'{name}.jpg', quality=100, **options)
  plain, profile = (photos.read(tmp_path / f'{name}.jpg') for name in ('plain', 'profile'))
  np.testing.assert_allclose(plain.samples[:, ::31].mean(0), [[255] * 3, [0, 255, 255]], atol=2)
  np.testing.assert_allclose(profile.samples[:, ::31].mean(0), [[255] * 3, [255, 0, 0]], atol=12)
  assert plain.icc == profile.icc == b''  # it was a profile of CMYK
  assert 'CMYK' in plain.note
  np.testing.assert_array_equal(photos.read(tmp_path / 'broken.jpg').samples, plain.samples)


# From the upright image to the stored one, by orientation (TIFF 6.0, tag 274).
STORED = {1: lambda u: u, 2: lambda u: u[:, ::-1], 3: lambda u: u[::-1, ::-1], 4: lambda u: u[::-1],
          5: lambda u: u.swapaxes(0, 1), 6: lambda u: np.rot90(u), 7: lambda u: np.rot90(
              u.swapaxes(0, 1), 2), 8: lambda u: np.rot90(u, -1)}


@pytest.mark.parametrize('orientation', STORED)
def test_orientation_is_applied_and_other_metadata_kept(tmp_path: Path, orientation: int) -> None:
  upright = noise(12, 20, 3)
  stored = np.ascontiguousarray(STORED[orientation](upright))
  exif = exif_of(orientation)
  for name, options in {'a.png': {}, 'a.tif': {}, 'a.webp': {'lossless': True},
                        'a.jpg': {'quality': 98}}.items():
    Image.fromarray(stored).save(tmp_path / name, exif=exif, icc_profile=SRGB, **options)
  (tmp_path / 'late.png').write_bytes(png_of(
      stored, extra=chunk(b'iCCP', b'x\0\0' + zlib.compress(SRGB)), late=chunk(b'eXIf', exif[6:])))
  deep = split(np.uint16(stored) * 257, icc=SRGB, exif=exif)
  photos.write(tmp_path / 'deep.png', deep, 'png')  # stores the EXIF with its orientation
  for path in list(tmp_path.iterdir()):
    photo = photos.read(path)
    assert photos.size(path) == (12, 20), path.name
    expected = np.uint16(upright) * 257 if 'deep' in path.name else upright
    if path.suffix == '.jpg':
      with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(photo.samples, expected, err_msg=path.name)
    for format in photos.FORMATS if orientation == 6 else ['png', 'tiff']:
      loss = photos.write(tmp_path / 'copy', photo, format)
      _, tags, capture, gps, icc = opened(tmp_path / 'copy')
      if format == 'bmp':
        assert 'EXIF' in loss
        assert 'profile' in loss
        continue
      assert (tags[MAKE], tags[TIME]) == ('Maker', '2020:01:02 03:04:05'), (path.name, format)
      assert tags.get(ORIENTATION, 1) == 1
      assert (capture[EXPOSURE], capture[TAKEN]) == (0.25, '2019:01:02 03:04:05')
      assert 0xA002 not in capture  # the width of another file
      assert (gps[1], gps[2]) == ('N', (48, 8, 14.5))
      assert icc == SRGB


def test_damaged_exif_does_not_prevent_reading(tmp_path: Path) -> None:
  array = noise(5, 6, 3)
  for exif in (b'Exif\0\0II*\0\xff\xff\xff\xff', b'nonsense', exif_of()[:60]):
    (tmp_path / 'a.png').write_bytes(png_of(array, late=chunk(b'eXIf', exif)))
    photo = photos.read(tmp_path / 'a.png')
    np.testing.assert_array_equal(photo.samples, array)
    assert re.fullmatch('damaged EXIF .*', photo.note)


def test_a_profile_for_another_colour_space_is_dropped(tmp_path: Path) -> None:
  by_pillow(noise(5, 6, 1)).save(tmp_path / 'a.jpg', icc_profile=SRGB)
  photo = photos.read(tmp_path / 'a.jpg')
  assert photo.icc == b''
  assert re.fullmatch('.*ICC profile .*', photo.note)


@pytest.mark.parametrize('suffix', ['gif', 'webp', 'png', 'tif'])
def test_the_first_frame_of_an_animation_is_read(tmp_path: Path, suffix: str) -> None:
  frames = [Image.new('RGB', (9, 7), colour) for colour in ('red', 'blue', 'lime')]
  options = {'lossless': True} if suffix == 'webp' else {}
  frames[0].save(tmp_path / f'a.{suffix}', save_all=True, append_images=frames[1:], **options)
  photo = photos.read(tmp_path / f'a.{suffix}')
  assert np.unique(photo.samples.reshape(-1, 3), axis=0).tolist() == [[255, 0, 0]]
  assert re.fullmatch('.*first of 3 .*', photo.note)


def test_a_phones_preview_is_not_a_second_frame(tmp_path: Path) -> None:
  main, preview = Image.new('RGB', (9, 7), 'red'), Image.new('RGB', (3, 2), 'blue')
  main.save(tmp_path / 'a.jpg', 'MPO', save_all=True, append_images=[preview])
  photo = photos.read(tmp_path / 'a.jpg')
  assert photo.samples.shape == (7, 9, 3)
  assert photo.note == ''


@pytest.mark.parametrize('format', photos.FORMATS)
def test_extreme_shapes(tmp_path: Path, format: str) -> None:
  for height, width in ((1, 1), (3, 2000), (2000, 3)):
    photo = split(noise(height, width, 3) // 64 * 64)
    assert photos.write(tmp_path / 'a', photo, format, 100) == ''
    back = photos.read(tmp_path / 'a')
    assert back.samples.shape == (height, width, 3)
    assert format == 'jpeg' or (back.samples == photo.samples).all()


def header(kind: str, height: int, width: int) -> bytes:
  """Encodes a file whose header gives this size and which has almost no pixels."""
  if kind == 'png':
    return png(height, width, 8, 2, b'')
  if kind == 'gif':
    return b'GIF89a' + struct.pack('<HHBBB', width, height, 0, 0, 0) + b',' + struct.pack(
        '<HHHHB', 0, 0, width, height, 0) + b'\2\1\0\0;'
  if kind == 'bmp':
    return b'BM' + struct.pack('<IIIIiiHHIIiiII', 100, 0, 54, 40, width, height, 1, 24, 0, 0,
                               0, 0, 0, 0) + bytes(46)
  buffer = io.BytesIO()
  tifffile.imwrite(buffer, np.zeros((4, 4), kind), photometric='minisblack')
  for tag, value in ((256, width), (257, height)):
    buffer.seek(0)
    with tifffile.TiffFile(buffer) as tiff:
      tiff.pages[0].tags[tag].overwrite(value)
  return buffer.getvalue()


@pytest.mark.parametrize('kind', ['png', 'bmp', 'gif', 'uint8', 'uint16'])
def test_the_limit_of_pixels(tmp_path: Path, kind: str) -> None:
  path, pillow_limit = tmp_path / 'a.png', Image.MAX_IMAGE_PIXELS
  path.write_bytes(header(kind, 50_000, 50_000))
  tracemalloc.start()
  for function in (photos.read, photos.size):
    with pytest.raises(images.DamagedImageError) as caught:
      function(path)
    assert re.fullmatch(f'{path}: 50000x50000 .*2,500,000,000 .*--max-pixels 200,000,000',
                        str(caught.value))
  assert tracemalloc.get_traced_memory()[1] < 2**24  # nothing was decoded
  tracemalloc.stop()
  assert photos.size(path, 2_500_000_000) == (50_000, 50_000)
  with pytest.raises(InputError, match='--max-pixels 2,499,999,999'):
    photos.size(path, 2_499_999_999)
  path.write_bytes(header(kind, 13_000, 15_000))  # Pillow refuses 179 million
  assert photos.size(path) == (13_000, 15_000)
  assert pillow_limit == Image.MAX_IMAGE_PIXELS


def test_pillow_does_not_warn_while_decoding(tmp_path: Path) -> None:
  Image.new('1', (13_000, 7_000)).save(tmp_path / 'a.tif', compression='group4')
  assert photos.read(tmp_path / 'a.tif').samples.shape == (7_000, 13_000, 1)


def examples(picture: MakeImage) -> dict[str, bytes]:
  """Returns files of every kind by name."""
  image, buffer = Image.fromarray(picture(30, 40)), io.BytesIO()

  def saved(format: str, image: Image.Image = image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()

  tifffile.imwrite(buffer, np.uint16(picture(30, 40)) * 257, photometric='rgb', rowsperstrip=8)
  deep = buffer.getvalue()
  with io.BytesIO() as buffer:
    tifffile.imwrite(buffer, np.uint16(picture(30, 40)) * 257, photometric='rgb', rowsperstrip=8,
                     compression='zlib')
    packed = buffer.getvalue()
  return {'png': saved('PNG', exif=exif_of(6)), 'palette': saved('PNG', image.quantize(9)),
          'png16': png_of(np.uint16(picture(30, 40)) * 257), 'jpeg': saved('JPEG', exif=exif_of()),
          'webp': saved('WEBP'), 'tiff': saved('TIFF'),
          'lzw': saved('TIFF', compression='tiff_lzw'),
          'tiff16': deep, 'packed16': packed, 'bmp': saved('BMP'), 'gif': saved('GIF')}


@pytest.mark.filterwarnings('ignore:.*:UserWarning')  # Pillow warns about truncated files
@pytest.mark.parametrize('seed', range(2))
def test_damaged_files(tmp_path: Path, picture: MakeImage, seed: int,
                       caplog: pytest.LogCaptureFixture) -> None:
  """Truncated or changed files give one line that names the file, and never a partial image."""
  rng, path = np.random.default_rng(seed), tmp_path / 'a.png'
  refused = 0
  for kind, data in examples(picture).items():
    path.write_bytes(data)
    expected = all_channels(photos.read(path))
    for length in (*rng.integers(0, len(data), 6), len(data) - 60, 8, 30, 100):
      for changed in (False, True):
        damaged = bytearray(data[:length])
        if changed:
          damaged = bytearray(data)
          for place in rng.integers(0, len(data), 3):
            damaged[int(place * rng.random() ** 2)] = rng.integers(256)
        path.write_bytes(damaged)
        photo, reason = None, f'{path}: '
        try:
          photo = photos.read(path, 10**6)
        except InputError as error:
          reason = str(error)
        assert reason.startswith(f'{path}: ')
        assert '\n' not in reason
        refused += photo is None
        if photo and not changed:
          np.testing.assert_array_equal(all_channels(photo), expected, err_msg=f'{kind} {length}')
  assert refused > 11 * 10


def test_files_that_are_not_images_are_named(tmp_path: Path) -> None:
  (tmp_path / 'text.png').write_text('not an image')
  (tmp_path / 'empty.png').write_bytes(b'')
  (tmp_path / 'folder.png').mkdir()
  (tmp_path / 'script.png').write_text('%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n')
  not_images = dict.fromkeys(['text', 'empty', 'script'], 'not .*image')
  for name, reason in {**not_images, 'folder': 'is a directory', 'none': 'no such file'}.items():
    for function in (photos.read, photos.size):
      with pytest.raises(images.DamagedImageError, match=f'{name}.png: {reason}'):
        function(tmp_path / f'{name}.png')
  (tmp_path / 'text.png').chmod(0)
  if os.geteuid():
    with pytest.raises(images.DamagedImageError, match='permission denied'):
      photos.read(tmp_path / 'text.png')


def test_what_a_format_cannot_store_is_reported(tmp_path: Path) -> None:
  deep = np.uint16([[[0, 128, 129], [257, 65535, 65406]]])
  alpha = np.uint16([[[65535], [0]]])
  photo = photos.Photo(deep, alpha, SRGB, exif_of())
  assert re.fullmatch('alpha .*, 16 bits .*8, EXIF .*, ICC profile .*',
                      photos.write(tmp_path / 'a.bmp', photo, 'bmp'))
  assert opened(tmp_path / 'a.bmp')[0].tolist() == [[[0, 0, 1], [255, 255, 255]]]
  assert re.fullmatch('16 bits [^,]*8', photos.write(tmp_path / 'a.webp', photo, 'webp', 100))
  assert opened(tmp_path / 'a.webp')[0].tolist() == [[[0, 0, 1, 255], [1, 255, 254, 0]]]
  opaque = photos.Photo(noise(8, 8, 3), np.full((8, 8, 1), 255, np.uint8))
  assert photos.write(tmp_path / 'a.jpg', opaque, 'jpeg') == ''
  half = photos.Photo(np.full((8, 8, 1), 104, np.uint8), np.full((8, 8, 1), 51, np.uint8))
  assert re.fullmatch('alpha [^,]*', photos.write(tmp_path / 'a.jpg', half, 'jpeg'))
  assert set(imagecodecs.jpeg8_decode((tmp_path / 'a.jpg').read_bytes()).ravel()) == {225}  # 224.8
  long = Image.Exif()
  long[270] = 'x' * 70_000
  photo = photos.Photo(noise(4, 4, 3), exif=long.tobytes())
  assert re.fullmatch('EXIF [^,]*', photos.write(tmp_path / 'a.jpg', photo, 'jpeg'))


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
  (tmp_path / 'a').write_text('before')
  for format, side in (('webp', 16_384), ('jpeg', 65_536), ('png', 1_000_001), ('gif', 1)):
    with pytest.raises(InputError, match=f'{tmp_path / "a"}: .*{format}'):
      photos.write(tmp_path / 'a', photos.Photo(np.zeros((1, side, 1), np.uint8)), format)
  with pytest.raises(InputError, match='16383'):
    photos.write(tmp_path / 'a', photos.Photo(np.zeros((16_384, 1, 1), np.uint8)), 'webp')
  with pytest.raises(InputError, match=r'b\.png: .*\('):
    photos.write(tmp_path / 'a' / 'b.png', photos.Photo(np.zeros((1, 1, 1), np.uint8)), 'png')
  assert [path.read_text() for path in tmp_path.iterdir()] == ['before']
  for format, side in (('webp', 16_383), ('jpeg', 65_500)):
    photos.write(tmp_path / 'a', photos.Photo(np.zeros((1, side, 1), np.uint8)), format)
    assert photos.size(tmp_path / 'a') == (1, side)


def test_bleed_fills_transparent_pixels_with_the_nearest_colour() -> None:
  samples, alpha = noise(14, 17, 3), noise(14, 17, 1) * (noise(14, 17, 1, seed=1) > 170)
  filled = photos.bleed(samples, alpha)
  seen = np.argwhere(alpha[..., 0] > 0)
  np.testing.assert_array_equal(filled[alpha[..., 0] > 0], samples[alpha[..., 0] > 0])
  for position in np.argwhere(alpha[..., 0] == 0):
    distances = ((seen - position) ** 2).sum(-1)
    nearest = samples[tuple(seen[distances == distances.min()].T)]
    assert filled[tuple(position)].tolist() in nearest.tolist()
  for value in (0, 1):
    np.testing.assert_array_equal(photos.bleed(samples, np.full_like(alpha, value)), samples)


def chunks_of(path: Path) -> dict[bytes, bytes]:
  """Returns the bodies of a PNG's chunks by name."""
  data, place, found = path.read_bytes(), 8, {}
  while place < len(data):
    length, name = struct.unpack('>I4s', data[place:place + 8])
    found[name] = data[place + 8:place + 8 + length]
    place += 12 + length
  return found


TEXT = {b'tEXt': b'Author\0somebody', b'iTXt': b'Title\0\0\0\0\0of this'}
XMP = (b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" '
       b'dc:title="t"/></x:xmpmeta>')


def test_colour_tags_resolution_and_text_of_a_png_are_kept_or_reported(tmp_path: Path) -> None:
  chunks = {b'gAMA': struct.pack('>I', 100_000), b'pHYs': struct.pack('>IIB', 11811, 11811, 1),
            **TEXT}
  extra = b''.join(chunk(*item) for item in chunks.items())
  (tmp_path / 'a.png').write_bytes(png_of(noise(8, 9, 3), extra=extra))
  photo = photos.read(tmp_path / 'a.png')
  assert photo.note == ''
  assert photos.write(tmp_path / 'b.png', photo, 'png') == ''
  written = chunks_of(tmp_path / 'b.png')
  assert {name: written[name] for name in chunks} == chunks
  for format in ('jpeg', 'webp', 'tiff', 'bmp'):
    lost = photos.write(tmp_path / f'b.{format}', photo, format)
    assert 'gAMA 1 dropped' in lost
    assert 'PNG text dropped' in lost
    assert 'resolution' not in lost
  for name in ('b.jpeg', 'b.tiff', 'b.bmp'):
    with Image.open(tmp_path / name) as image:
      assert image.info['dpi'] == pytest.approx((300, 300), abs=0.1)
  assert opened(tmp_path / 'b.webp')[1][282] == pytest.approx(300, abs=0.1)


@pytest.mark.parametrize(('unit', 'density', 'expected'), [
    (1, (300, 300), (300, 300, 2)), (2, (118, 118), (118, 118, 3)), (0, (1, 1), None),
    (1, (72, 36), (72, 36, 2))])
def test_the_resolution_of_a_jpeg_is_kept(tmp_path: Path, unit: int, density: tuple[int, int],
                                          expected: tuple | None) -> None:
  by_pillow(noise(8, 9, 3)).save(tmp_path / 'a.jpg')
  data = (tmp_path / 'a.jpg').read_bytes()
  (tmp_path / 'a.jpg').write_bytes(data[:13] + struct.pack('>BHH', unit, *density) + data[18:])
  photo = photos.read(tmp_path / 'a.jpg')
  assert photo.resolution == expected
  for format in photos.FORMATS:
    assert photos.write(tmp_path / f'b.{format}', photo, format) == ''
    again = photos.read(tmp_path / f'b.{format}')
    if expected is None:
      assert b'pHYs' not in (tmp_path / 'b.png').read_bytes()
    elif format in ('png', 'jpeg', 'bmp'):
      inches = [side * (2.54 if expected[2] == 3 else 1) for side in expected[:2]]
      assert again.resolution[:2] == pytest.approx(inches, abs=0.6)


def test_xmp_is_kept_and_upright(tmp_path: Path) -> None:
  image = by_pillow(noise(8, 9, 3))
  image.save(tmp_path / 'a.jpg', xmp=XMP)
  image.save(tmp_path / 'a.webp', xmp=XMP)
  image.save(tmp_path / 'a.avif', xmp=XMP)
  tifffile.imwrite(tmp_path / 'a.tif', noise(8, 9, 3), photometric='rgb',
                   extratags=[(700, 1, len(XMP), XMP, True)])
  tifffile.imwrite(tmp_path / 'deep.tif', noise(8, 9, 3, np.uint16), photometric='rgb',
                   extratags=[(700, 1, len(XMP), XMP, True)])
  (tmp_path / 'a.png').write_bytes(png_of(
      noise(8, 9, 3), extra=chunk(b'iTXt', b'XML:com.adobe.xmp\0\0\0\0\0' + XMP)))
  for path in list(tmp_path.iterdir()):
    photo = photos.read(path)
    assert photo.xmp == XMP.replace(b'"6"', b'"1"'), path.name
    for format in ('png', 'jpeg', 'webp', 'tiff'):
      lost = photos.write(tmp_path / 'out', photo, format)
      assert 'XMP' not in lost
      assert photos.read(tmp_path / 'out').xmp == photo.xmp, (path.name, format)
    assert 'XMP dropped' in photos.write(tmp_path / 'out', photo, 'bmp')


@pytest.mark.parametrize('unit', [2, 3])
def test_the_resolution_of_a_tiff_reaches_every_format(tmp_path: Path, unit: int) -> None:
  for name, dtype in (('a.tif', np.uint8), ('deep.tif', np.uint16)):
    tifffile.imwrite(tmp_path / name, noise(8, 9, 3, dtype), photometric='rgb',
                     resolution=(200, 100), resolutionunit=unit)
    photo = photos.read(tmp_path / name)
    for format in ('png', 'jpeg', 'bmp', 'tiff'):
      photos.write(tmp_path / 'out', photo, format)
      with Image.open(tmp_path / 'out') as image:
        inches = 2.54 if unit == 3 else 1
        assert image.info['dpi'] == pytest.approx((200 * inches, 100 * inches), abs=0.6), format


def test_the_profile_of_a_bmp_is_reported(tmp_path: Path) -> None:
  image = by_pillow(noise(8, 9, 3))
  image.save(tmp_path / 'a.bmp')
  data = (tmp_path / 'a.bmp').read_bytes()
  header = struct.pack('<I', 124) + data[18:54] + bytes(16) + b'DEBM' + bytes(64)
  (tmp_path / 'a.bmp').write_bytes(
      data[:10] + struct.pack('<I', 14 + 124) + header + data[54:])
  assert 'ICC profile dropped' in images.read_with_notes(tmp_path / 'a.bmp').notes
  np.testing.assert_array_equal(images.read_image(tmp_path / 'a.bmp'), noise(8, 9, 3))


def test_what_is_never_kept_is_reported(tmp_path: Path) -> None:
  by_pillow(noise(8, 9, 3)).save(tmp_path / 'a.jpg', comment=b'a comment')
  assert photos.read(tmp_path / 'a.jpg').notes == ('comment dropped',)
  tifffile.imwrite(tmp_path / 'a.tif', noise(8, 9, 3, np.uint16), photometric='rgb',
                   extratags=[(318, 5, 2, (3127, 10000, 329, 1000), True)])
  assert photos.read(tmp_path / 'a.tif').notes == ('WhitePoint dropped',)


def with_colr(data: bytes, primaries: int, transfer: int) -> bytes:
  """Changes the nclx box of an AVIF."""
  at = data.index(b'nclx') + 4
  return data[:at] + struct.pack('>HH', primaries, transfer) + data[at + 4:]


def test_colour_tags_of_avif_become_a_chunk_of_png(tmp_path: Path) -> None:
  by_pillow(noise(8, 10, 3)).save(tmp_path / 'a.avif')
  (tmp_path / 'b.avif').write_bytes(with_colr((tmp_path / 'a.avif').read_bytes(), 12, 13))
  plain, tagged = photos.read(tmp_path / 'a.avif'), photos.read(tmp_path / 'b.avif')
  assert (plain.note, tagged.note) == ('', '')
  photos.write(tmp_path / 'a.png', plain, 'png')
  photos.write(tmp_path / 'b.png', tagged, 'png')
  assert b'cICP' not in chunks_of(tmp_path / 'a.png')
  assert chunks_of(tmp_path / 'b.png')[b'cICP'] == bytes((12, 13, 0, 1))
  assert '12/13' in photos.write(tmp_path / 'b.jpg', tagged, 'jpeg')
  assert '12/13' in images.read_with_notes(tmp_path / 'b.avif').notes[0]
  ten = imagecodecs.avif_encode(noise(8, 10, 3, np.uint16) >> 6, bitspersample=10)
  (tmp_path / 'ten.avif').write_bytes(ten)
  assert '10 bits reduced to 8' in photos.read(tmp_path / 'ten.avif').note
