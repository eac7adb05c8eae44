"""Benchmark sets in the common folder layouts, and files paired by name."""

import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from sr_jax import images
from sr_jax.data import benchmarks, file_names, folders
from sr_jax.data.pictures import Pair
from sr_jax.errors import InputError


def read_set(spec: str, scale: int, skipped: list[str] | None = None) -> Iterator[Pair]:
  return benchmarks.read_set(benchmarks.find_set(spec, scale), scale, skipped)


@pytest.mark.parametrize(('hr', 'lr', 'inside'), [
    ('HR/baby.png', 'LR/baby.png', ''),
    ('HR/baby.png', 'LR/babyx4.png', ''),
    ('GTmod12/baby.png', 'LRbicx4/baby.png', ''),
    ('HR_x4/baby.png', 'LRbicx4/baby.png', ''),
    ('HR/baby.png', 'LR_bicubic/X4/babyx4.png', ''),
    ('HR/baby.png', 'LR/X4/baby_x4.png', ''),
    ('image_SRF_4/baby_SRF_4_HR.png', 'image_SRF_4/baby_SRF_4_LR.png', ''),
    ('DIV2K_valid_HR/baby.png', 'DIV2K_valid_LR_bicubic/X4/babyx4.png', ''),
    ('DIV2K_valid_HR/baby.png', 'DIV2K_valid_LR_bicubic/X4/babyx4.png', 'DIV2K_valid_HR'),
    ('DIV2K_valid_HR/baby.png', 'DIV2K_valid_LR_x4/babyx4.png', ''),
    ('DIV2K_train_HR/baby.png', 'DIV2K_train_LR_bicubic/X4/babyx4.png', ''),
    ('DIV2K_train_HR/baby.png', 'DIV2K_train_LR_x4/babyx4.png', ''),
    ('DIV2K_train_HR/baby.png', 'DIV2K_train_LR_x4/babyx4.png', 'DIV2K_train_HR'),
    ('original/baby.png', 'LRbicx4/baby.png', ''),
    ('GT/baby_GT.png', 'LR/baby.png', ''),
    ('GT/baby.png', 'LR/X4/baby.png', ''),
    ('HR/baby.png', 'LR/x4/baby.png', ''),
    ('image_SRF_4/baby_SRF_4_HR.png', 'image_SRF_4/baby_SRF_4_LR.png', 'image_SRF_4')])
def test_layouts(tmp_path: pathlib.Path, picture: Callable, hr: str, lr: str, inside: str) -> None:
  whole = picture(24, 36)
  separate = 255 - images.imresize(whole, 1 / 4)  # differs from every LR made from HR
  images.write_image(tmp_path / hr, whole)
  images.write_image(tmp_path / lr, separate)
  pair, = read_set(str(tmp_path / inside), 4)
  assert pair.name == 'baby'
  assert not pair.cropped
  np.testing.assert_array_equal(pair.hr, whole)
  np.testing.assert_array_equal(pair.lr, separate)


@pytest.mark.parametrize('folder', ['', 'HR', 'GTmod12', 'HR_x4'])
def test_hr_without_lr_is_cropped_and_reduced(tmp_path: pathlib.Path, picture: Callable,
                                              folder: str) -> None:
  whole = picture(30, 43)
  images.write_image(tmp_path / folder / 'a.png', whole)
  if folder:  # a folder next to HR is not part of the set
    images.write_image(tmp_path / 'original' / 'a.png', whole)
  pair, = read_set(str(tmp_path), 4)
  assert (pair.name, pair.cropped) == ('a', True)
  np.testing.assert_array_equal(pair.hr, whole[:28, :40])
  np.testing.assert_array_equal(pair.lr, images.imresize(whole[:28, :40], 1 / 4))


def test_hr_with_separate_lr_may_be_cropped_too(tmp_path: pathlib.Path, picture: Callable) -> None:
  images.write_image(tmp_path / 'HR' / 'a.png', picture(30, 43))
  images.write_image(tmp_path / 'LR' / 'a.png', picture(7, 10))
  pair, = read_set(str(tmp_path), 4)
  assert pair.hr.shape == (28, 40, 3)
  assert pair.cropped


def test_pairs_that_do_not_fit_are_named(tmp_path: pathlib.Path, picture: Callable) -> None:
  images.write_image(tmp_path / 'HR' / 'a.png', picture(28, 40))
  images.write_image(tmp_path / 'LR' / 'a.png', picture(6, 10))
  with pytest.raises(InputError, match=r'a\.png: .*\(28, 40, 3\).* 4 times .*\(24, 40, 3\)'):
    list(read_set(str(tmp_path), 4))
  images.write_image(tmp_path / 'HR' / 'b.png', picture(28, 40))
  images.write_image(tmp_path / 'LR' / 'c.png', picture(7, 10))
  with pytest.raises(InputError, match=r'2 .*without a partner.*HR/b\.png.*LR/c\.png'):
    list(read_set(str(tmp_path), 4))
  images.write_image(tmp_path / 'small' / 'a.png', picture(8, 40))
  with pytest.raises(InputError, match=r'a\.png: 8x40 .*scale 4'):
    list(read_set(str(tmp_path / 'small'), 4))


def test_a_set_without_this_scale_is_refused(tmp_path: pathlib.Path, picture: Callable) -> None:
  for name in ('HR_x2', 'HR_x3', 'LRbicx2', 'LRbicx3'):
    images.write_image(tmp_path / name / 'a.png', picture(36, 36))
  with pytest.raises(InputError, match=r'scale 2, 3, .*4'):
    list(read_set(str(tmp_path), 4))


def test_grey_images_saved_as_colour(tmp_path: pathlib.Path, picture: Callable) -> None:
  hr = picture(28, 40)[..., :1]
  lr = images.imresize(hr, 1 / 4)
  for name, (one, other) in {'a': (hr, images.as_rgb(lr)), 'b': (images.as_rgb(hr), lr)}.items():
    images.write_image(tmp_path / 'HR' / f'{name}.png', one)
    images.write_image(tmp_path / 'LR' / f'{name}.png', other)
  a, b = read_set(str(tmp_path), 4)
  assert (a.hr.shape[-1], a.lr.shape[-1], b.hr.shape[-1], b.lr.shape[-1]) == (1, 1, 3, 3)
  np.testing.assert_array_equal(a.lr, lr)
  images.write_image(tmp_path / 'HR' / 'b.png', picture(28, 40))  # not converted to grey
  with pytest.raises(InputError, match=r'b\.png: .*\(28, 40, 3\).*\(28, 40, 1\)'):
    list(read_set(str(tmp_path), 4))


def test_names_are_unique(tmp_path: pathlib.Path, picture: Callable) -> None:
  for name in ('a/1.png', 'b/1.png', 'c.png', 'c.bmp'):
    images.write_image(tmp_path / name, picture(20, 20))
  assert [pair.name for pair in read_set(str(tmp_path), 2)] == ['a/1', 'b/1', 'c.bmp', 'c.png']
  for name in ('a.png', 'a_HR.png'):  # both have the plain name 'a'
    images.write_image(tmp_path / 'set' / 'HR' / name, picture(20, 20))
    images.write_image(tmp_path / 'set' / 'LR' / name, picture(10, 10))
  assert [pair.name for pair in read_set(str(tmp_path / 'set'), 2)] == ['a', 'a_HR']


def test_unusable_images_are_skipped_and_listed(tmp_path: pathlib.Path, picture: Callable) -> None:
  for name in 'abc':
    images.write_image(tmp_path / f'{name}.png', picture(20, 20))
  (tmp_path / 'b.png').write_text('no picture')
  skipped = []
  assert [pair.name for pair in read_set(str(tmp_path), 2, skipped=skipped)] == ['a', 'c']
  assert len(skipped) == 1
  assert 'b.png' in skipped[0]


def test_pairs_by_name() -> None:
  def files(*names: str) -> dict[str, pathlib.Path]:
    return {name: pathlib.Path(name) for name in names}
  def pair(first: Sequence[str], second: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    pairs, alone = file_names.pair_by_name(files(*first), files(*second), 4)
    return {name: str(partner) for name, _, partner in pairs}, sorted(map(str, alone))
  assert pair(['a', 'b', 'd/c'], ['b_x4', 'a', 'd/cx4']) == (
      {'a': 'a', 'b': 'b_x4', 'd/c': 'd/cx4'}, [])
  assert pair(['max4', 'ma'], ['max4', 'ma_SR']) == ({'max4': 'max4', 'ma': 'ma_SR'}, [])
  assert pair(['a', 'b'], ['a_x4', 'a_SR', 'b_x2']) == ({}, ['a', 'a_SR', 'a_x4', 'b', 'b_x2'])
  # Which of the two belongs to 'a' is unknown.
  assert pair(['a'], ['a', 'a_x4']) == ({}, ['a', 'a', 'a_x4'])
  assert pair(['ma', 'max4'], ['max4', 'max4x4']) == ({}, ['ma', 'max4', 'max4', 'max4x4'])
  # As few endings as possible are removed.
  assert pair(['a', 'a_HR'], ['a_x4', 'a_HR_x4']) == ({'a': 'a_x4', 'a_HR': 'a_HR_x4'}, [])
  assert pair(['a_HR', 'b_GT'], ['a_SR', 'b']) == ({'a_HR': 'a_SR', 'b_GT': 'b'}, [])
  assert pair(['a_HR', 'a_GT'], ['a']) == ({}, ['a', 'a_GT', 'a_HR'])


def test_linked_folders_are_visited_once(tmp_path: pathlib.Path, picture: Callable) -> None:
  images.write_image(tmp_path / 'far' / 'a.png', picture(20, 20))
  (tmp_path / 'set').mkdir()
  (tmp_path / 'set' / 'near').symlink_to(tmp_path / 'far')
  (tmp_path / 'far' / 'back').symlink_to(tmp_path / 'set')
  assert list(folders.images_by_name(tmp_path / 'set')) == ['near/a']


def test_no_image_is_lost_to_a_clash_of_names(tmp_path: pathlib.Path, picture: Callable) -> None:
  for name in ('a.png', 'a.png.png', 'b.png.png'):
    images.write_image(tmp_path / name, picture(20, 20))
  assert list(folders.images_by_name(tmp_path)) == ['a', 'a.png.png', 'b.png']
