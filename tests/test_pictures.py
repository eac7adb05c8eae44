"""One image: reading a pair, and crops of it."""

import pathlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from sr_jax import images
from sr_jax.data import pictures
from sr_jax.data.pictures import Picture
from sr_jax.errors import InputError


def places_of(shape: tuple[int, ...],
              side: int) -> list[tuple[tuple[float, float], tuple[int, int]]]:
  """((down, right), (y, x)) of every position of a crop in LR of that shape."""
  rows, columns = shape[0] - side + 1, shape[1] - side + 1
  return [(((y + 0.5) / rows, (x + 0.5) / columns), (y, x))
          for y in range(rows) for x in range(columns)]


@pytest.mark.parametrize('scale', [1, 2, 3, 4, 8])
@pytest.mark.parametrize('channels', [1, 3])
def test_lr_of_every_crop_equals_the_crop_of_lr(tmp_path: pathlib.Path, scale: int,
                                                channels: int) -> None:
  noise = np.random.default_rng(scale).integers(0, 256, (11 * scale + 1, 13 * scale, 3), np.uint8)
  images.write_image(tmp_path / 'a.png', noise)  # also tests all borders and corners
  picture = Picture('a', tmp_path / 'a.png')
  whole = pictures.read(picture, scale, channels)
  numbers, places = zip(*places_of(whole.lr.shape, 5), strict=True)
  crops = pictures.read_crops(picture, scale, channels, 5 * scale, numbers)
  assert len(crops['lr']) == len(places) >= 7 * 9
  for (y, x), lr, hr in zip(places, crops['lr'], crops['hr'], strict=True):
    np.testing.assert_array_equal(lr, whole.lr[y:y + 5, x:x + 5])
    top, left = scale * y, scale * x
    np.testing.assert_array_equal(hr, whole.hr[top:top + 5 * scale, left:left + 5 * scale])


def test_a_separate_lr_is_cropped_where_hr_is(tmp_path: pathlib.Path, picture: Callable) -> None:
  images.write_image(tmp_path / 'hr.png', picture(25, 30))
  images.write_image(tmp_path / 'lr.png', 255 - picture(12, 15))
  pair = Picture('a', tmp_path / 'hr.png', tmp_path / 'lr.png')
  whole = pictures.read(pair, 2)
  np.testing.assert_array_equal(whole.lr, 255 - picture(12, 15))
  assert (whole.hr.shape, whole.cropped) == ((24, 30, 3), True)
  crops = pictures.read_crops(pair, 2, 3, 8, [(0.0, 0.0), (0.999, 0.999)])
  np.testing.assert_array_equal(crops['lr'][0], whole.lr[:4, :4])
  np.testing.assert_array_equal(crops['lr'][1], whole.lr[-4:, -4:])
  np.testing.assert_array_equal(crops['hr'][1], whole.hr[-8:, -8:])


def test_an_lr_size_rounded_up_as_by_matlab_is_cropped_like_hr(tmp_path: pathlib.Path,
                                                               picture: Callable) -> None:
  images.write_image(tmp_path / 'hr.png', picture(29, 33))
  images.write_image(tmp_path / 'lr.png', images.imresize(picture(29, 33), 1 / 4))  # 8x9
  pair = pictures.read(Picture('a', tmp_path / 'hr.png', tmp_path / 'lr.png'), 4)
  assert (pair.hr.shape, pair.lr.shape) == ((28, 32, 3), (7, 8, 3))
  np.testing.assert_array_equal(pair.lr, images.imresize(picture(29, 33), 1 / 4)[:7, :8])
  crops = pictures.read_crops(Picture('a', tmp_path / 'hr.png', tmp_path / 'lr.png'), 4, 3, 16,
                              [(0.999, 0.999)])
  np.testing.assert_array_equal(crops['lr'][0], pair.lr[-4:, -4:])


@pytest.mark.parametrize(('resize', 'size'), [
    ('256', (314, 256)), ('64', (78, 64)), ('256x256', (256, 256)), ('', (218, 178))])
def test_hr_is_resized_first(tmp_path: pathlib.Path, picture: Callable, resize: str,
                             size: tuple[int, int]) -> None:
  images.write_image(tmp_path / 'face.png', picture(218, 178))
  face = Picture('face', tmp_path / 'face.png', resize=resize)
  assert pictures.hr_size(face) == size
  pair = pictures.read(face, 2)
  assert pair.hr.shape == (size[0] // 2 * 2, size[1] // 2 * 2, 3)
  if resize:
    wanted = images.imresize(picture(218, 178), size=size)[:pair.hr.shape[0]]
    np.testing.assert_array_equal(pair.hr, wanted)


def test_both_of_a_pair_are_resized(tmp_path: pathlib.Path, picture: Callable) -> None:
  images.write_image(tmp_path / 'hr.png', picture(50, 61))
  images.write_image(tmp_path / 'lr.png', picture(17, 23))
  pair = pictures.read(Picture('a', tmp_path / 'hr.png', tmp_path / 'lr.png', '32x32'), 4)
  assert (pair.hr.shape, pair.lr.shape) == ((32, 32, 3), (8, 8, 3))
  np.testing.assert_array_equal(pair.lr, images.imresize(picture(17, 23), size=(8, 8)))


def test_resizing_to_a_size_equals_resizing_by_its_scale(picture: Callable) -> None:
  image = picture(24, 36)
  np.testing.assert_array_equal(images.imresize(image, size=(6, 9)), images.imresize(image, 1 / 4))
  np.testing.assert_array_equal(images.imresize(image, size=(48, 72)), images.imresize(image, 2))
  # The axis that shrinks more comes first, as in MATLAB.
  narrow = images.imresize(images.imresize(image, size=(24, 9)), size=(20, 9))
  np.testing.assert_array_equal(images.imresize(image, size=(20, 9)), narrow)


def test_one_channel_is_luma_of_colour_and_grey(tmp_path: pathlib.Path, picture: Callable) -> None:
  images.write_image(tmp_path / 'colour.png', picture(8, 8))
  images.write_image(tmp_path / 'grey.png', np.array([[[0], [255]]] * 2, np.uint8))
  colour = pictures.read(Picture('c', tmp_path / 'colour.png'), 2, 1)
  luma = 255 * images.luma(picture(8, 8) / 255)
  assert colour.hr.shape == (8, 8, 1)
  assert np.abs(colour.hr - luma).max() <= 0.5 + 1e-3
  grey = pictures.read(Picture('g', tmp_path / 'grey.png'), 2, 1)
  assert grey.hr[0].ravel().tolist() == [16, 235]


@pytest.mark.parametrize(('hr', 'lr', 'message'), [
    ((20, 20, 3), (9, 10, 3), r'hr\.png: .*\(20, 20, 3\).* 2 times .*\(18, 20, 3\).*lr\.png'),
    ((20, 20, 3), (10, 10, 1), r'hr\.png: .*\(20, 20, 3\).* 2 times .*\(20, 20, 1\).*grey'),
    ((20, 20, 1), (10, 10, 3), r'hr\.png: .*\(20, 20, 1\).*grey'),
    ((1, 20, 3), None, r'hr\.png: 1x20 .*scale 2')])
def test_pairs_that_do_not_match_are_named(tmp_path: pathlib.Path, picture: Callable,
                                           hr: tuple[int, int, int],
                                           lr: tuple[int, int, int] | None, message: str) -> None:
  images.write_image(tmp_path / 'hr.png', picture(*hr[:2])[..., :hr[2]])
  if lr:
    images.write_image(tmp_path / 'lr.png', picture(*lr[:2])[..., :lr[2]])
  with pytest.raises(InputError, match=message):
    pictures.read(Picture('a', tmp_path / 'hr.png', lr and tmp_path / 'lr.png'), 2)


def test_an_image_smaller_than_the_crop_is_named(tmp_path: pathlib.Path, picture: Callable) -> None:
  images.write_image(tmp_path / 'a.png', picture(20, 40))
  with pytest.raises(InputError, match=r'a\.png: 20x40 .*24x24'):
    pictures.read_crops(Picture('a', tmp_path / 'a.png'), 2, 3, 24, [(0, 0)])


def test_records_are_read_as_files_are(tmp_path: pathlib.Path, picture: Callable) -> None:
  Image.fromarray(picture(9, 7)).save(tmp_path / 'a.png')

  class Record:
    def __str__(self) -> str:
      return 'set[3]'

    def read_bytes(self) -> bytes:
      return (tmp_path / 'a.png').read_bytes()

  assert images.image_size(Record()) == (9, 7)
  np.testing.assert_array_equal(images.read_image(Record()), picture(9, 7))
  (tmp_path / 'a.png').write_bytes(b'nothing')
  with pytest.raises(images.DamagedImageError, match=r'set\[3\]: not a supported image'):
    images.read_image(Record())


@pytest.mark.parametrize('text', ['0', '64x', 'x64', '-3', 'large', '6.5', '64x64x3'])
def test_invalid_sizes_are_refused(text: str) -> None:
  with pytest.raises(InputError, match=f"key={text}: expected .*'256'"):
    pictures.parse_resize(text, 'key')
