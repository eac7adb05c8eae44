"""Pictures: every kind of file, MATLAB's resizing, luma."""

import io
import math
import struct
import tracemalloc
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import color

from sr_jax import images
from sr_jax.data import benchmarks, packed, pictures
from sr_jax.data.pictures import Picture
from sr_jax.errors import InputError
from sr_jax.images import formats
from sr_jax.media import photos
from tests.test_photos import header


@pytest.mark.parametrize('suffix', ['png', 'bmp', 'tiff', 'webp', 'jpg'])
def test_formats(tmp_path, picture, suffix):
  image = picture(20, 30)
  options = {'webp': {'lossless': True}, 'jpg': {'quality': 100, 'subsampling': 0}}.get(suffix, {})
  Image.fromarray(image).save(tmp_path / f'a.{suffix}', **options)
  read = images.read_image(tmp_path / f'a.{suffix}')
  assert read.shape == image.shape
  assert images.image_size(tmp_path / f'a.{suffix}') == (20, 30)
  assert np.abs(read.astype(int) - image).mean() < (1 if suffix == 'jpg' else 1e-9)


def test_grey_palette_bilevel(tmp_path):
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


def test_alpha_lies_over_white(tmp_path):
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


def test_sixteen_bits_become_eight(tmp_path):
  samples = np.uint16([[0, 128, 257 * 77, 32896, 65535]])
  for suffix in ('png', 'tiff'):
    Image.fromarray(samples).save(tmp_path / f'deep.{suffix}')
    read = images.read_image(tmp_path / f'deep.{suffix}')
    assert read[..., 0].tolist() == [[0, 0, 77, 128, 255]], suffix


def test_exif_orientation_is_applied(tmp_path, picture):
  image = picture(20, 30)
  exif = Image.Exif()
  exif[0x0112] = 6  # turned a quarter: shown with its left column at the top
  Image.fromarray(image).save(tmp_path / 'turned.png', exif=exif)
  np.testing.assert_array_equal(images.read_image(tmp_path / 'turned.png'), np.rot90(image, -1))
  assert images.image_size(tmp_path / 'turned.png') == (30, 20)
  Image.fromarray(image).save(tmp_path / 'turned.tif', exif=exif)
  assert images.read_image(tmp_path / 'turned.tif').shape == (30, 20, 3)
  assert images.image_size(tmp_path / 'turned.tif') == (30, 20)


def test_bad_files_are_named(tmp_path, picture):
  (tmp_path / 'text.png').write_text('not a picture')
  buffer = io.BytesIO()
  Image.fromarray(picture(40, 40)).save(buffer, 'png')
  (tmp_path / 'cut.png').write_bytes(buffer.getvalue()[:-500])
  for name, reason in (('text.png', 'not a picture'), ('cut.png', 'damaged'),
                       ('none.png', 'no such file')):
    with pytest.raises(InputError, match=f'{name}.*{reason}'):
      images.read_image(tmp_path / name)


def test_the_limit_of_pixels_is_looked_at_before_decoding(tmp_path):
  path = tmp_path / 'a.png'
  path.write_bytes(header('png', 50_000, 50_000))
  tracemalloc.start()
  for read in (images.read_image, images.image_size, lambda path: pictures.read_crops(
      Picture('a', path), 2, 3, 8, [(0, 0)]), lambda path: list(benchmarks.read_set(
          [Picture('a', path)], 2))):
    with pytest.raises(images.DamagedPicture, match=r'a\.png: 50000x50000 is 2,500,000,000 pixels, '
                                                    'more than the limit of 200,000,000'):
      read(path)
  plan = packed.lay_out([Picture('a', path)], 2, 3)
  assert 'more than the limit of' in plan.skipped[0]
  assert tracemalloc.get_traced_memory()[1] < 2**24
  tracemalloc.stop()


@pytest.mark.filterwarnings('error')
def test_below_it_pillow_does_not_object(tmp_path):
  path = tmp_path / 'a.tif'
  Image.new('1', (14_000, 14_000)).save(path, compression='group4')  # Pillow's limit is 179 million
  assert images.image_size(path) == (14_000, 14_000)
  path.write_bytes(header('png', 14_000, 14_000))
  with pytest.raises(images.DamagedPicture, match='damaged'):
    images.read_image(path)


def test_formats_that_run_programs_are_not_tried(tmp_path):
  path = tmp_path / 'a.png'
  path.write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(ls) system\n')
  with pytest.raises(images.DamagedPicture, match='not a picture that can be read'):
    images.read_image(path)


def jpeg_of_scans(width, height, scans):
  buffer = io.BytesIO()
  Image.new('RGB', (16, 16), 'red').save(buffer, 'JPEG', progressive=True)
  data = bytearray(buffer.getvalue())
  frame, scan = data.index(b'\xff\xc2'), data.index(b'\xff\xda')
  data[frame + 5:frame + 9] = struct.pack('>HH', height, width)
  return bytes(data[:scan] + data[scan:-2] * scans + b'\xff\xd9')


def run_lengths(width, height, body):
  head = struct.pack('<IiiHHIIiiII', 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 0)
  return b'BM' + struct.pack('<IHHI', 0, 0, 0, 1078) + head + bytes(1024) + body


@pytest.mark.parametrize(('data', 'message'), [
    (jpeg_of_scans(14_000, 14_000, 1), 'cut off'),  # nearly empty: 8 s before
    (jpeg_of_scans(14_000, 14_000, 300) + bytes(500_000), 'scans of 14000x14000'),  # 50 s
    (run_lengths(13_000, 13_000, b'\1\1\0\0' * 13_000), '13000x13000 of run lengths'),  # 17 s
    (run_lengths(200_000_000, 1, b'\0\2\xff\xff'), '200000000x1 of run lengths'),  # 51 GB
], ids=['empty', 'scans', 'lines', 'jump'])
def test_what_takes_minutes_or_gigabytes_is_refused(tmp_path, data, message):
  path = tmp_path / 'a.png'
  path.write_bytes(data)
  with pytest.raises(images.DamagedPicture, match=message):
    images.read_image(path)
  with pytest.raises(images.DamagedPicture, match=message):
    photos.read(path)


def test_small_progressive_and_compressed_ones_are_read(tmp_path):
  (tmp_path / 'a.jpg').write_bytes(jpeg_of_scans(16, 16, 1))
  assert images.read_image(tmp_path / 'a.jpg').shape == (16, 16, 3)
  (tmp_path / 'a.bmp').write_bytes(run_lengths(4, 4, b'\4\0\0\0' * 4))
  assert images.read_image(tmp_path / 'a.bmp').shape == (4, 4, 3)


def test_what_lies_behind_a_jpeg_are_no_scans(tmp_path, monkeypatch):
  monkeypatch.setattr(formats, 'MAX_SCANNED', 100 * 16 * 16)  # a phone's: 20 million bytes of clip
  path = tmp_path / 'a.jpg'
  path.write_bytes(jpeg_of_scans(16, 16, 5) + b'\xff\xda' * 100)
  assert images.read_image(path).shape == (16, 16, 3)
  path.write_bytes(jpeg_of_scans(16, 16, 100))
  with pytest.raises(images.DamagedPicture, match='scans of 16x16'):
    images.read_image(path)


def test_write_is_whole_or_nothing(tmp_path, picture):
  images.write_image(tmp_path / 'new' / 'a.png', picture(9, 9))
  np.testing.assert_array_equal(images.read_image(tmp_path / 'new' / 'a.png'), picture(9, 9))
  with pytest.raises(TypeError):
    images.write_image(tmp_path / 'new' / 'b.png', np.zeros((3, 3, 5), np.uint8))
  assert [path.name for path in (tmp_path / 'new').iterdir()] == ['a.png']


def imresize_by_loops(image, scale, method):
  """imresize as MATLAB's documentation has it, sample by sample: rows, then columns."""
  width = {'bicubic': 4, 'bilinear': 2, 'nearest': 1}[method]

  def kernel(x):
    if method == 'nearest':
      return float(-0.5 <= x < 0.5)
    x = abs(x)
    if method == 'bilinear':
      return max(0.0, 1 - x)
    return (1.5 * x**3 - 2.5 * x**2 + 1 if x <= 1 else
            -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0)

  def along_rows(image):
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
def test_resizing_is_matlabs_sample_by_sample(picture, scale, method):
  image, scale = picture(20, 24), Fraction(scale)
  ours = images.imresize(image, scale, method)
  by_loops = imresize_by_loops(image, float(scale), method)
  assert ours.shape == by_loops.shape
  # NumPy adds a row's weights up in another order; a value on a half may then fall otherwise.
  assert np.abs(ours.astype(int) - by_loops).max() <= 1
  assert (ours != by_loops).mean() < 0.01


def test_size_is_matlabs():
  # In MATLAB as in float64, 100 * 2.2 is a little more than 220.
  assert images.imresize(np.zeros((100, 10, 1), np.uint8), 2.2).shape == (221, 22, 1)
  for size in range(1, 200):
    for scale in (2, 3, 4, 8):
      assert images.imresize(np.zeros((size * scale, 1, 1), np.uint8), Fraction(1, scale),
                             'nearest').shape == (size, 1, 1)


@pytest.mark.parametrize('method', images.KERNELS)
@pytest.mark.parametrize('scale', ['1/2', '1/3', '1/4', '2', '3', '2/3'])
def test_device_form_is_the_host_form(picture, scale, method):
  image, scale = picture(36, 48, 3), Fraction(scale)
  batch = images.to_float(np.stack([image, image[::-1]]))
  device = jax.jit(lambda x: images.resize(x, scale, method, eight_bit=True))(batch)
  for found, source in zip(device, (image, image[::-1]), strict=True):
    expected = images.imresize(source, scale, method)
    assert found.shape == expected.shape
    assert np.abs(images.to_uint8(found).astype(int) - expected).max() <= 1
    assert (images.to_uint8(found) != expected).mean() <= 0.03  # ties again


def test_nearest_enlarges_by_repeating_and_takes_the_later_of_two():
  row = np.arange(6, dtype=np.uint8)[None, :, None]
  for scale in (2, 3):
    np.testing.assert_array_equal(images.imresize(row, scale, 'nearest'),
                                  row.repeat(scale, 0).repeat(scale, 1))
  assert images.imresize(row, Fraction(1, 2), 'nearest').ravel().tolist() == [1, 3, 5]
  assert images.imresize(row, Fraction(1, 3), 'nearest').ravel().tolist() == [1, 4]


@settings(max_examples=60, deadline=None)
@given(st.fractions(Fraction(1, 8), 8, max_denominator=12), st.sampled_from(sorted(images.KERNELS)),
       st.integers(1, 20), st.integers(1, 20), st.integers(0, 255))
def test_a_constant_stays_the_constant(scale, method, height, width, level):
  resized = images.imresize(np.full((height, width, 1), level, np.uint8), scale, method)
  assert resized.shape == (*(math.ceil(side * float(scale)) for side in (height, width)), 1)
  assert (resized == level).all()


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1 / 24), st.floats(0, 1 / 24), st.floats(0, 1), st.sampled_from([2, 3]))
def test_down_then_up_returns_a_band_limited_picture(down, right, phase, scale):
  """Waves of 24 pixels and more, eight samples shrunk three times, come back to 3% of their
  amplitude (1% at x2), away from the border, which replication bends.
  """
  y, x = np.mgrid[:72, :72]
  wave = 0.5 + 0.4 * np.sin(2 * np.pi * (down * y + right * x + phase))
  there = jnp.asarray(wave[None, ..., None], jnp.float32)
  back = images.resize(images.resize(there, Fraction(1, scale)), scale)
  inner = np.s_[:, 3 * scale:-3 * scale, 3 * scale:-3 * scale]
  assert np.abs(back - there)[inner].max() < 0.4 * {2: 0.01, 3: 0.03}[scale]


def test_bilinear_is_jaxs_and_differentiable():
  x = jax.random.uniform(jax.random.key(0), (2, 5, 7, 3))
  ours = images.resize(x, 4, 'bilinear')
  np.testing.assert_allclose(ours, jax.image.resize(x, (2, 20, 28, 3), 'bilinear'), atol=1e-6)
  # Linear: the gradient of the sum is how often each sample is used, s^2 on average.
  grad = jax.grad(lambda x: images.resize(x, 4, 'bilinear').sum())(x)
  assert float(grad.mean()) == pytest.approx(16, rel=1e-5)


@pytest.mark.parametrize('name', ['Set5', pytest.param('Set14', marks=pytest.mark.slow)])
@pytest.mark.parametrize('scale', [2, 3, 4])
def test_bicubic_reproduces_the_public_sets_in_every_byte(assets, name, scale):
  paths = sorted((assets / name / f'HR_x{scale}').iterdir())
  assert len(paths) == {'Set5': 5, 'Set14': 14}[name]
  other, samples = 0, 0
  for path in paths:
    hr = images.read_image(path)
    lr = images.read_image(assets / name / f'LRbicx{scale}' / path.name)
    np.testing.assert_array_equal(images.imresize(hr, Fraction(1, scale)), lr, err_msg=path.name)
    device = images.to_uint8(images.resize(images.to_float(hr)[None], Fraction(1, scale),
                                           eight_bit=True)[0])
    assert np.abs(device.astype(int) - lr).max() <= 1, path.name
    other, samples = other + (device != lr).sum(), samples + lr.size
  assert other <= 1e-4 * samples


def test_luma_is_matlabs():
  colours = np.array([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float64)
  np.testing.assert_allclose(255 * images.luma(colours)[:, 0],
                             [16, 235, 81.481, 144.553, 40.966], atol=1e-3)
  assert isinstance(images.luma(jnp.ones((2, 3))), jax.Array)


def test_colour_conversions_are_scikit_images_and_pillows(picture):
  rgb = picture(30, 40).astype(np.float64) / 255
  np.testing.assert_allclose(255 * images.rgb_to_ycbcr(rgb), color.rgb2ycbcr(rgb), atol=1e-9)
  np.testing.assert_allclose(images.rgb_to_ycbcr(rgb)[..., :1], images.luma(rgb), atol=1e-12)
  jfif = np.asarray(Image.fromarray(picture(30, 40)).convert('YCbCr'))  # rounded, Cb down
  np.testing.assert_allclose(255 * images.rgb_to_ycbcr(rgb, full_range=True), jfif, atol=1.01)


@pytest.mark.parametrize('full_range', [False, True])
def test_colour_comes_back(picture, full_range):
  rgb = np.stack([picture(9, 9), 255 * (picture(9, 9, 1) > 127)]).astype(np.float32) / 255
  there = jax.jit(images.rgb_to_ycbcr, static_argnums=1)(rgb, full_range)
  assert there.dtype == jnp.float32
  assert 0 <= there.min() < there.max() <= 255.5 / 255  # JFIF's chroma has its zero at 128
  np.testing.assert_allclose(images.ycbcr_to_rgb(there, full_range), rgb, atol=2e-6)


def test_levels_survive_the_way_to_float_and_back():
  levels = np.arange(256, dtype=np.uint8)
  np.testing.assert_array_equal(images.to_uint8(images.to_float(levels)), levels)
  np.testing.assert_array_equal(images.to_uint8(np.array([-1.0, 2.0])), [0, 255])
