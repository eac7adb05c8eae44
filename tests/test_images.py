"""Image files of every kind, MATLAB's resize, and colour conversion."""

import io
import math
import re
import struct
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from skimage import color

from sr_jax import images
from sr_jax.data import benchmarks, pack_layout, pictures
from sr_jax.data.pictures import Picture
from sr_jax.errors import InputError
from sr_jax.images import formats
from sr_jax.media import photos
from tests.test_photos import header

MakeImage = Callable[..., np.ndarray]  # the fixture `picture`


@pytest.mark.parametrize('suffix', ['png', 'bmp', 'tiff', 'webp', 'jpg'])
def test_formats(tmp_path: Path, picture: MakeImage, suffix: str) -> None:
  image = picture(20, 30)
  options = {'webp': {'lossless': True}, 'jpg': {'quality': 100, 'subsampling': 0}}.get(suffix, {})
  Image.fromarray(image).save(tmp_path / f'a.{suffix}', **options)
  read = images.read_image(tmp_path / f'a.{suffix}')
  assert read.shape == image.shape
  assert images.image_size(tmp_path / f'a.{suffix}') == (20, 30)
  assert np.abs(read.astype(int) - image).mean() < (1 if suffix == 'jpg' else 1e-9)


def test_grey_palette_and_bilevel_files(tmp_path: Path) -> None:
  grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
  Image.fromarray(grey).save(tmp_path / 'grey.png')
  np.testing.assert_array_equal(images.read_image(tmp_path / 'grey.png'), grey[..., None])
  colours = np.zeros((16, 16, 3), np.uint8)
  colours[:8], colours[8:, 8:] = (255, 0, 0), (0, 10, 200)
  Image.fromarray(colours).quantize(8).save(tmp_path / 'palette.png')
  np.testing.assert_array_equal(images.read_image(tmp_path / 'palette.png'), colours)
  Image.fromarray(grey > 99).save(tmp_path / 'bilevel.png')
  np.testing.assert_array_equal(images.read_image(tmp_path / 'bilevel.png')[..., 0],
                                np.where(grey > 99, 255, 0))


def test_alpha_is_composited_over_white(tmp_path: Path) -> None:
  rgba = np.zeros((2, 3, 4), np.uint8)
  rgba[..., 0] = 200
  rgba[0, 0, 3], rgba[0, 1, 3], rgba[0, 2, 3] = 255, 0, 51
  Image.fromarray(rgba).save(tmp_path / 'alpha.png')
  read = images.read_image(tmp_path / 'alpha.png')
  assert read.shape == (2, 3, 3)
  assert read[0, :2].tolist() == [[200, 0, 0], [255, 255, 255]]
  np.testing.assert_allclose(read[0, 2], [244, 204, 204], atol=1)  # 0.2 * c + 0.8 * 255
  Image.fromarray(np.uint8([[[50, 255], [50, 0]]])).save(tmp_path / 'grey_alpha.png')
  assert images.read_image(tmp_path / 'grey_alpha.png')[..., 0].tolist() == [[50, 255]]


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
  samples = np.uint16([[0, 128, 257 * 77, 32896, 65535]])
  for suffix in ('png', 'tiff'):
    Image.fromarray(samples).save(tmp_path / f'deep.{suffix}')
    read = images.read_image(tmp_path / f'deep.{suffix}')
    assert read[..., 0].tolist() == [[0, 0, 77, 128, 255]], suffix


def test_exif_orientation_is_applied(tmp_path: Path, picture: MakeImage) -> None:
  image = picture(20, 30)
  exif = Image.Exif()
  exif[0x0112] = 6  # rotated by 90 degrees: the left column is shown at the top
  Image.fromarray(image).save(tmp_path / 'turned.png', exif=exif)
  np.testing.assert_array_equal(images.read_image(tmp_path / 'turned.png'), np.rot90(image, -1))
  assert images.image_size(tmp_path / 'turned.png') == (30, 20)
  Image.fromarray(image).save(tmp_path / 'turned.tif', exif=exif)
  assert images.read_image(tmp_path / 'turned.tif').shape == (30, 20, 3)
  assert images.image_size(tmp_path / 'turned.tif') == (30, 20)


@pytest.mark.parametrize('orientation', [0, 1, *range(2, 9), 9])
def test_size_and_pixels_agree_on_any_orientation(tmp_path: Path, picture: MakeImage,
                                                  orientation: int) -> None:
  exif = Image.Exif()
  exif[0x0112] = orientation
  for name in ('a.png', 'a.jpg', 'a.tif'):
    Image.fromarray(picture(20, 30)).save(tmp_path / name, exif=exif)
    with Image.open(tmp_path / name) as image:
      expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(images.read_image(tmp_path / name), expected)
    assert images.image_size(tmp_path / name) == expected.shape[:2]


def test_bad_files_are_named(tmp_path: Path, picture: MakeImage) -> None:
  (tmp_path / 'text.png').write_text('not an image')
  buffer = io.BytesIO()
  Image.fromarray(picture(40, 40)).save(buffer, 'png')
  (tmp_path / 'cut.png').write_bytes(buffer.getvalue()[:-500])
  for name, reason in (('text.png', 'not '), ('cut.png', 'damaged'),
                       ('none.png', 'no such file')):
    with pytest.raises(InputError, match=f'{name}: .*{reason}'):
      images.read_image(tmp_path / name)


def test_the_limit_of_pixels_is_checked_before_decoding(tmp_path: Path) -> None:
  path = tmp_path / 'a.png'
  path.write_bytes(header('png', 50_000, 50_000))
  tracemalloc.start()
  for read in (images.read_image, images.image_size, lambda path: pictures.read_crops(
      Picture('a', path), 2, 3, 8, [(0, 0)]), lambda path: list(benchmarks.read_set(
          [Picture('a', path)], 2))):
    with pytest.raises(images.DamagedImageError,
                       match=r'a\.png: 50000x50000 .*2,500,000,000 .*200,000,000'):
      read(path)
  plan = pack_layout.lay_out([Picture('a', path)], 2, 3)
  assert re.search(r'a\.png: .*200,000,000', plan.skipped[0])
  assert tracemalloc.get_traced_memory()[1] < 2**24
  tracemalloc.stop()


@pytest.mark.filterwarnings('error')
def test_pillow_does_not_warn_below_the_limit(tmp_path: Path) -> None:
  path = tmp_path / 'a.tif'
  Image.new('1', (14_000, 14_000)).save(path, compression='group4')  # Pillow's limit is 179 million
  assert images.image_size(path) == (14_000, 14_000)
  path.write_bytes(header('png', 14_000, 14_000))
  with pytest.raises(images.DamagedImageError, match='damaged'):
    images.read_image(path)


def test_formats_that_run_programs_are_refused(tmp_path: Path) -> None:
  path = tmp_path / 'a.png'
  path.write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(ls) system\n')
  with pytest.raises(images.DamagedImageError, match=r'a\.png: not '):
    images.read_image(path)


def jpeg_of_scans(width: int, height: int, scans: int) -> bytes:
  """Encodes a JPEG whose header gives this size, with the same small scan repeated."""
  buffer = io.BytesIO()
  Image.new('RGB', (16, 16), 'red').save(buffer, 'JPEG', progressive=True)
  data = bytearray(buffer.getvalue())
  frame, scan = data.index(b'\xff\xc2'), data.index(b'\xff\xda')
  data[frame + 5:frame + 9] = struct.pack('>HH', height, width)
  return bytes(data[:scan] + data[scan:-2] * scans + b'\xff\xd9')


def run_lengths(width: int, height: int, body: bytes) -> bytes:
  """Encodes a BMP in run-length encoding."""
  head = struct.pack('<IiiHHIIiiII', 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 0)
  return b'BM' + struct.pack('<IHHI', 0, 0, 0, 1078) + head + bytes(1024) + body


@pytest.mark.parametrize(('data', 'message'), [
    # Without the limits: 8 s, 50 s, 17 s, 51 GB.
    (jpeg_of_scans(14_000, 14_000, 1), 'truncated'),
    (jpeg_of_scans(14_000, 14_000, 300) + bytes(500_000), 'scans of 14000x14000'),
    (run_lengths(13_000, 13_000, b'\1\1\0\0' * 13_000), '13000x13000.* run'),
    (run_lengths(200_000_000, 1, b'\0\2\xff\xff'), '200000000x1.* run'),
], ids=['empty', 'scans', 'lines', 'jump'])
def test_files_that_take_minutes_or_gigabytes_are_refused(tmp_path: Path, data: bytes,
                                                          message: str) -> None:
  path = tmp_path / 'a.png'
  path.write_bytes(data)
  with pytest.raises(images.DamagedImageError, match=message):
    images.read_image(path)
  with pytest.raises(images.DamagedImageError, match=message):
    photos.read(path)


def test_small_progressive_and_compressed_files_are_read(tmp_path: Path) -> None:
  (tmp_path / 'a.jpg').write_bytes(jpeg_of_scans(16, 16, 1))
  assert images.read_image(tmp_path / 'a.jpg').shape == (16, 16, 3)
  (tmp_path / 'a.bmp').write_bytes(run_lengths(4, 4, b'\4\0\0\0' * 4))
  assert images.read_image(tmp_path / 'a.bmp').shape == (4, 4, 3)


def test_data_after_a_jpeg_is_not_counted_as_scans(tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
  # Such as the 20 MB video that a phone appends.
  monkeypatch.setattr(formats, 'MAX_SCANNED_PIXELS', 100 * 16 * 16)
  path = tmp_path / 'a.jpg'
  path.write_bytes(jpeg_of_scans(16, 16, 5) + b'\xff\xda' * 100)
  assert images.read_image(path).shape == (16, 16, 3)
  path.write_bytes(jpeg_of_scans(16, 16, 100))
  with pytest.raises(images.DamagedImageError, match='scans of 16x16'):
    images.read_image(path)


def test_writing_is_atomic(tmp_path: Path, picture: MakeImage) -> None:
  images.write_image(tmp_path / 'new' / 'a.png', picture(9, 9))
  np.testing.assert_array_equal(images.read_image(tmp_path / 'new' / 'a.png'), picture(9, 9))
  with pytest.raises(TypeError):
    images.write_image(tmp_path / 'new' / 'b.png', np.zeros((3, 3, 5), np.uint8))
  assert [path.name for path in (tmp_path / 'new').iterdir()] == ['a.png']


def imresize_by_loops(image: np.ndarray, scale: float, method: str) -> np.ndarray:
  """Computes imresize as MATLAB's documentation defines it: sample by sample, rows first."""
  width = {'bicubic': 4, 'bilinear': 2, 'nearest': 1}[method]

  def kernel(x: float) -> float:
    if method == 'nearest':
      return float(-0.5 <= x < 0.5)
    x = abs(x)
    if method == 'bilinear':
      return max(0.0, 1 - x)
    return (1.5 * x**3 - 2.5 * x**2 + 1 if x <= 1 else
            -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0)

  def along_rows(image: np.ndarray) -> np.ndarray:
    shrink = scale if scale < 1 and method != 'nearest' else 1
    out = np.zeros((math.ceil(len(image) * scale), *image.shape[1:]))
    for row in range(1, len(out) + 1):
      centre = row / scale + 0.5 * (1 - 1 / scale)
      first = math.floor(centre - width / shrink / 2)
      sources = range(first, first + math.ceil(width / shrink) + 2)
      weights = [shrink * kernel(shrink * (centre - source)) for source in sources]
      for weight, source in zip(weights, sources, strict=True):
        out[row - 1] += weight / sum(weights) * image[min(max(source, 1), len(image)) - 1]
    return np.uint8(np.clip(np.floor(out + 0.5), 0, 255))

  return along_rows(along_rows(image).swapaxes(0, 1)).swapaxes(0, 1)


@pytest.mark.parametrize('method', images.KERNELS)
@pytest.mark.parametrize('scale', ['1/2', '1/3', '1/4', '1/6', '2', '3', '4', '6', '2/3', '3/2',
                                   '5/7', '11/10'])
def test_imresize_equals_matlabs_definition(picture: MakeImage, scale: str, method: str) -> None:
  image, scale = picture(20, 24), Fraction(scale)
  ours = images.imresize(image, scale, method)
  by_loops = imresize_by_loops(image, float(scale), method)
  assert ours.shape == by_loops.shape
  # NumPy sums the weights of a row in another order, so a value on a half may round otherwise.
  assert np.abs(ours.astype(int) - by_loops).max() <= 1
  assert (ours != by_loops).mean() < 0.01


def test_sizes_equal_matlabs() -> None:
  # In float64, and so in MATLAB, 100 * 2.2 is slightly more than 220.
  assert images.imresize(np.zeros((100, 10, 1), np.uint8), 2.2).shape == (221, 22, 1)
  for size in range(1, 200):
    for scale in (2, 3, 4, 8):
      assert images.imresize(np.zeros((size * scale, 1, 1), np.uint8), Fraction(1, scale),
                             'nearest').shape == (size, 1, 1)


@pytest.mark.parametrize('method', images.KERNELS)
@pytest.mark.parametrize('scale', ['1/2', '1/3', '1/4', '2', '3', '2/3'])
def test_the_device_version_equals_the_host_version(picture: MakeImage, scale: str,
                                                    method: str) -> None:
  image, scale = picture(36, 48, 3), Fraction(scale)
  batch = images.to_float(np.stack([image, image[::-1]]))
  device = jax.jit(lambda x: images.resize(x, scale, method, eight_bit=True))(batch)
  for resized, source in zip(device, (image, image[::-1]), strict=True):
    expected = images.imresize(source, scale, method)
    assert resized.shape == expected.shape
    assert np.abs(images.to_uint8(resized).astype(int) - expected).max() <= 1
    assert (images.to_uint8(resized) != expected).mean() <= 0.03  # ties, as above


def test_nearest_repeats_samples_and_takes_the_later_of_two() -> None:
  row = np.arange(6, dtype=np.uint8)[None, :, None]
  for scale in (2, 3):
    np.testing.assert_array_equal(images.imresize(row, scale, 'nearest'),
                                  row.repeat(scale, 0).repeat(scale, 1))
  assert images.imresize(row, Fraction(1, 2), 'nearest').ravel().tolist() == [1, 3, 5]
  assert images.imresize(row, Fraction(1, 3), 'nearest').ravel().tolist() == [1, 4]


@settings(max_examples=60, deadline=None)
@given(st.fractions(Fraction(1, 8), 8, max_denominator=12), st.sampled_from(sorted(images.KERNELS)),
       st.integers(1, 20), st.integers(1, 20), st.integers(0, 255))
def test_a_constant_image_stays_constant(scale: Fraction, method: str, height: int, width: int,
                                         level: int) -> None:
  resized = images.imresize(np.full((height, width, 1), level, np.uint8), scale, method)
  assert resized.shape == (*(math.ceil(side * float(scale)) for side in (height, width)), 1)
  assert (resized == level).all()


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1 / 24), st.floats(0, 1 / 24), st.floats(0, 1), st.sampled_from([2, 3]))
def test_down_then_up_restores_a_band_limited_image(down: float, right: float, phase: float,
                                                    scale: int) -> None:
  """Waves of 24 pixels and more, 8 samples when downscaled by 3, are restored to within 3% of their
  amplitude (1% at x2), except at the border, where replication changes them.
  """
  y, x = np.mgrid[:72, :72]
  wave = 0.5 + 0.4 * np.sin(2 * np.pi * (down * y + right * x + phase))
  original = jnp.asarray(wave[None, ..., None], jnp.float32)
  restored = images.resize(images.resize(original, Fraction(1, scale)), scale)
  inner = np.s_[:, 3 * scale:-3 * scale, 3 * scale:-3 * scale]
  assert np.abs(restored - original)[inner].max() < 0.4 * {2: 0.01, 3: 0.03}[scale]


def test_bilinear_equals_jaxs_and_is_differentiable() -> None:
  x = np.random.default_rng(0).random((2, 5, 7, 3), np.float32)
  ours = jax.jit(lambda x: images.resize(x, 4, 'bilinear'))(x)
  np.testing.assert_allclose(ours, jax.image.resize(x, (2, 20, 28, 3), 'bilinear'), atol=1e-6)
  # For a linear map, the gradient of the sum is how often each sample is used, s^2 on average.
  grad = jax.jit(jax.grad(lambda x: images.resize(x, 4, 'bilinear').sum()))(x)
  assert float(grad.mean()) == pytest.approx(16, rel=1e-5)


@pytest.mark.parametrize(('name', 'scale'), [
    ('Set5', 4), *(pytest.param(name, scale, marks=pytest.mark.slow) for name, scale in [
        ('Set5', 2), ('Set5', 3), ('Set14', 2), ('Set14', 3), ('Set14', 4)])])
def test_bicubic_reproduces_the_public_sets_in_every_byte(assets: Path, name: str,
                                                          scale: int) -> None:
  paths = sorted((assets / name / f'HR_x{scale}').iterdir())
  assert len(paths) == {'Set5': 5, 'Set14': 14}[name]
  resize = jax.jit(partial(images.resize, scale=Fraction(1, scale), eight_bit=True))
  different, samples = 0, 0
  for path in paths:
    hr = images.read_image(path)
    lr = images.read_image(assets / name / f'LRbicx{scale}' / path.name)
    np.testing.assert_array_equal(images.imresize(hr, Fraction(1, scale)), lr, err_msg=path.name)
    device = images.to_uint8(resize(images.to_float(hr)[None])[0])
    assert np.abs(device.astype(int) - lr).max() <= 1, path.name
    different, samples = different + (device != lr).sum(), samples + lr.size
  assert different <= 1e-4 * samples


def test_luma_equals_matlabs() -> None:
  colours = np.array([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float64)
  np.testing.assert_allclose(255 * images.luma(colours)[:, 0],
                             [16, 235, 81.481, 144.553, 40.966], atol=1e-3)
  assert isinstance(images.luma(jnp.ones((2, 3))), jax.Array)


def test_colour_conversions_equal_scikit_images_and_pillows(picture: MakeImage) -> None:
  rgb = picture(30, 40).astype(np.float64) / 255
  np.testing.assert_allclose(255 * images.rgb_to_ycbcr(rgb), color.rgb2ycbcr(rgb), atol=1e-9)
  np.testing.assert_allclose(images.rgb_to_ycbcr(rgb)[..., :1], images.luma(rgb), atol=1e-12)
  jfif = np.asarray(Image.fromarray(picture(30, 40)).convert('YCbCr'))  # rounds, and rounds Cb down
  np.testing.assert_allclose(255 * images.rgb_to_ycbcr(rgb, full_range=True), jfif, atol=1.01)


@pytest.mark.parametrize('full_range', [False, True])
def test_colour_conversions_are_inverted(picture: MakeImage, full_range: bool) -> None:
  rgb = np.stack([picture(9, 9), 255 * (picture(9, 9, 1) > 127)]).astype(np.float32) / 255
  ycbcr = jax.jit(images.rgb_to_ycbcr, static_argnums=1)(rgb, full_range)
  assert ycbcr.dtype == jnp.float32
  assert 0 <= ycbcr.min() < ycbcr.max() <= 255.5 / 255  # the zero of JFIF's chroma is 128
  np.testing.assert_allclose(images.ycbcr_to_rgb(ycbcr, full_range), rgb, atol=2e-6)


def test_levels_survive_conversion_to_float_and_back() -> None:
  levels = np.arange(256, dtype=np.uint8)
  np.testing.assert_array_equal(images.to_uint8(images.to_float(levels)), levels)
  np.testing.assert_array_equal(images.to_uint8(np.array([-1.0, 2.0])), [0, 255])
