"""Data sources: every kind of spec, its errors, and splits."""

import contextlib
import itertools
import pathlib
import re
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from sr_jax import images
from sr_jax.data import benchmarks, feed, pack_layout, packed
from sr_jax.data.augment import Augmentation
from sr_jax.data.bank import CropSpec
from sr_jax.data.pictures import Picture, read
from sr_jax.data.sources import SAMPLE_TRAIN, open_source, split
from sr_jax.errors import InputError
from sr_jax.system import user_code
from tests import own_code


def write(folder: pathlib.Path, picture: Callable, names: Sequence[str],
          size: tuple[int, int] = (20, 24)) -> None:
  for index, name in enumerate(names):
    images.write_image(folder / name, picture(*size, index))


def test_sample_and_folder(folder: pathlib.Path) -> None:
  sample, valid = open_source('sample', 4), open_source('sample:valid', 4)
  assert [picture.hr.name for picture in sample] == list(SAMPLE_TRAIN)
  assert not {picture.hr for picture in sample} & {picture.hr for picture in valid}
  for picture in sample + valid:
    assert min(images.image_size(picture.hr)) >= 96, picture
  found = open_source(f'folder:{folder}', 4, resize='64')
  assert [picture.name for picture in found] == list('01234')
  assert {(picture.lr, picture.resize) for picture in found} == {(None, '64')}


def test_pairs_by_name_whatever_the_order_and_endings(tmp_path: pathlib.Path,
                                                      picture: Callable) -> None:
  write(tmp_path / 'hr', picture, ('b.png', 'a.png', 'below/c.png'))
  write(tmp_path / 'lr', picture, ('ax4.png', 'b_x4.png', 'below/cx4.png'), (5, 6))
  found = open_source(f'pairs:HR={tmp_path / "hr"},LR={tmp_path / "lr"}', 4)
  assert [(picture.name, picture.hr.name, picture.lr.name) for picture in found] == [
      ('a', 'a.png', 'ax4.png'), ('b', 'b.png', 'b_x4.png'), ('below/c', 'c.png', 'cx4.png')]


def test_pairs_by_content_and_by_table(tmp_path: pathlib.Path) -> None:
  rng = np.random.default_rng(0)
  order = [3, 1, 4, 0, 2]
  for index in range(5):  # coarse enough to be visible in thumbnails
    coarse = rng.integers(0, 256, (4, 5, 3), np.uint8)
    images.write_image(tmp_path / 'hr' / f'{index}.png', images.imresize(coarse, 8))
    images.write_image(tmp_path / 'lr' / f'{order[index]}.png', images.imresize(coarse, 2))
  spec = f'pairs:HR={tmp_path / "hr"},LR={tmp_path / "lr"}'
  wanted = [(str(index), str(order[index])) for index in range(5)]
  (tmp_path / 'table.csv').write_text('\n'.join(f'{hr}.png,{lr}.png' for hr, lr in wanted))
  for more in ('match=content', f'csv={tmp_path / "table.csv"}'):
    found = open_source(f'{spec},{more}', 4)
    assert sorted((picture.hr.stem, picture.lr.stem) for picture in found) == wanted
  (tmp_path / 'lr' / '3.png').unlink()
  with pytest.raises(InputError, match=r'^1 .*partner.*: .*hr/0\.png$'):
    open_source(f'{spec},match=content', 4)


def test_names_are_unique_and_stay_in_the_folder(tmp_path: pathlib.Path, picture: Callable) -> None:
  """Evaluation writes files with these names."""
  write(tmp_path / 'hr', picture, ('a.png', 'a.bmp', 'b.png'))
  write(tmp_path / 'lr', picture, ('a.png', 'a.bmp', 'b.png'), (5, 6))
  (tmp_path / 'table.csv').write_text('a.png,a.png\na.bmp,a.bmp\n../hr/b.png,b.png\n')
  for more in ('', f',csv={tmp_path / "table.csv"}'):
    found = open_source(f'pairs:HR={tmp_path / "hr"},LR={tmp_path / "lr"}{more}', 4)
    assert sorted(picture.name for picture in found) == ['a.bmp', 'a.png', 'b']


def test_pairs_of_any_size_are_resized(tmp_path: pathlib.Path, picture: Callable) -> None:
  write(tmp_path / 'hr', picture, ['a.png'], (50, 61))
  write(tmp_path / 'lr', picture, ['a.png'], (17, 23))
  spec = f'pairs:HR={tmp_path / "hr"},LR={tmp_path / "lr"}'
  only, = open_source(f'{spec},resize=8x32', 4)
  pair = read(only, 4)
  assert (pair.lr.shape, pair.hr.shape) == ((8, 8, 3), (32, 32, 3))
  with pytest.raises(InputError, match=r'a\.png: .*\(50, 61, 3\).* 4 times'):
    read(*open_source(spec, 4), 4)


def test_files_without_a_partner_are_listed(tmp_path: pathlib.Path, picture: Callable) -> None:
  write(tmp_path / 'hr', picture, ('a.png', 'b.png'))
  write(tmp_path / 'lr', picture, ('a.png', 'c.png'))
  with pytest.raises(InputError, match=r'^2 .*without a partner.*match=content.*b\.png, .*c\.png$'):
    open_source(f'pairs:HR={tmp_path / "hr"},LR={tmp_path / "lr"}', 4)


@pytest.mark.parametrize(('spec', 'message'), [
    ('folder:/nowhere', '/nowhere: no such folder'), ('coco', "'coco': .*'sample', "),
    ('folder:', "'folder:'"), ('', "data source ''"), ('sample:test', "'sample:test'"),
    ('pairs:', "'pairs:'"), ('pairs:HR=a', r"'pairs:HR=a': .*pairs:HR=PATH,LR=PATH"),
    ('pairs:HR=a,LR=b,HR=c', "'pairs:HR=a,LR=b,HR=c': .*'HR=c'.*HR=PATH"),
    ('pairs:a,b', "'pairs:a,b': .*'a'.*HR=PATH"),
    ('pairs:HR=a,LR=', "'pairs:HR=a,LR=': .*'LR='.*HR=PATH"),
    ('pairs:HR=a,LR=b,match=size', "'pairs:HR=a,LR=b,match=size': .*,match=content or"),
    ('pairs:HR=a,LR=b,match=name,csv=c', 'match=name,csv=c.: match and csv'),
    ('pairs:HR=/nowhere,LR=b', '/nowhere: no such folder'),
    ('pairs:HR=a,LR=b,csv=/nowhere', '/nowhere: no such file'),
    ('div2k:', "'div2k:'"), ('div2k:/nowhere', r'/nowhere: .*DIV2K.*download=True'),
    ('tfds:', "'tfds:'")])
def test_invalid_specs_are_refused(spec: str, message: str) -> None:
  with pytest.raises(InputError, match=message):
    open_source(spec, 4)


@pytest.mark.parametrize('resize', ['64', '64x128', '64xlarge', '0x0'])
def test_resize_of_a_pair_must_match_the_scale(tmp_path: pathlib.Path, picture: Callable,
                                               resize: str) -> None:
  write(tmp_path / 'a', picture, ['a.png'])
  with pytest.raises(InputError, match=f'resize={resize}: expected .*4 times'):
    open_source(f'pairs:HR={tmp_path / "a"},LR={tmp_path / "a"},resize={resize}', 4)


def test_an_empty_folder_is_refused(tmp_path: pathlib.Path) -> None:
  with pytest.raises(InputError, match=rf'{tmp_path}: .*no image'):
    open_source(f'folder:{tmp_path}', 4)


def test_div2k_has_separate_lr(tmp_path: pathlib.Path, picture: Callable) -> None:
  write(tmp_path / 'DIV2K_valid_HR', picture, ['0801.png'])
  write(tmp_path / 'DIV2K_valid_LR_bicubic' / 'X4', picture, ['0801x4.png'], (5, 6))
  only, = open_source(f'div2k:{tmp_path}:valid', 4)
  assert (only.name, only.lr.name) == ('0801', '0801x4.png')


# Splits --------------------------------------------------------------------------------


def test_parts_are_disjoint_and_complete(folder: pathlib.Path) -> None:
  found = [Picture(f'{index:02}', None) for index in range(80)]
  parts = split(found, (0.8, 0.1, 0.1), 0)
  assert {name: len(part) for name, part in parts.items()} == {
      'train': 64, 'valid': 8, 'test': 8}
  assert sorted(itertools.chain(*parts.values())) == found
  assert parts == split(found, (0.8, 0.1, 0.1), 0)
  assert parts != split(found, (0.8, 0.1, 0.1), 1)
  assert split(found, (0.5, 0.25), 0).keys() == {'train', 'valid'}


@pytest.mark.parametrize('fractions', [(0.8,), (0.8, 0.3), (0.5, -0.1), (0, 0), (0.9, 0.05, 0.05),
                                       (0.1, 0.2, 0.3, 0.4)])
def test_invalid_fractions_are_refused(fractions: tuple[float, ...]) -> None:
  with pytest.raises(InputError, match=rf'config\.data\.fraction={re.escape(str(fractions))}: '):
    split([Picture(str(index), None) for index in range(5)], fractions, 0)


# The user's own ----------------------------------------------------------------------------


def own(name: str, scale: int = 2) -> list[Picture]:
  user_code.allow(['tests.own_code'])
  return open_source(f'tests.own_code:{name}', scale)


def test_arrays_of_an_own_source() -> None:
  found = own('arrays')
  assert [picture.name for picture in found] == list('01234')
  for picture, array in zip(found, own_code.arrays(), strict=True):
    np.testing.assert_array_equal(read(picture, 2).hr, array[:len(array) // 2 * 2])
  for picture, (hr, lr) in zip(own('array_pairs'), own_code.array_pairs(), strict=True):
    pair = read(picture, 2)
    np.testing.assert_array_equal(pair.hr, hr)
    np.testing.assert_array_equal(pair.lr, lr)
  assert {read(picture, 2).lr.shape for picture in own('stacked')} == {(20, 24, 1)}


def test_paths_of_an_own_source(tmp_path: pathlib.Path, picture: Callable,
                                monkeypatch: pytest.MonkeyPatch) -> None:
  write(tmp_path, picture, ('a/0.png', 'b/0.png', 'b/0.jpg'))
  paths = [str(tmp_path / name) for name in ('b/0.png', 'a/0.png', 'b/0.jpg', 'b/0.png')]
  monkeypatch.setattr(own_code, 'missing', lambda: paths)
  found = own('missing')
  assert [picture.name for picture in found] == ['b/0', 'a/0', 'b/0.jpg', 'b/0.png']
  assert [str(picture.hr) for picture in found] == paths


@pytest.mark.parametrize(('name', 'words'), [
    ('endless', 'a map'), ('empty', 'no image'), ('floats', 'entry 5 is float32 [40, 48, 3]'),
    ('flat_grey', 'entry 0 is uint8 [40, 48]'), ('elsewhere', 'entry 1: RuntimeError: '),
    ('missing', 'entry 0: missing.png: '),
    ('mixed', 'entry 1 has LR'), ('three_sides', 'entry 0 has 3'), ('of_folder', 'folder'),
    ('unreadable', 'FileNotFoundError: '), ('NUMBER', 'is 3'), ('nix', 'no nix'),
    ('leaves', 'SystemExit: sys.exit(0) was called (')])
def test_what_an_own_source_may_not_return(name: str, words: str) -> None:
  with pytest.raises(InputError) as error:
    own(name)
  assert f"'tests.own_code:{name}': " in str(error.value)
  assert words in str(error.value)
  assert '\n' not in str(error.value)


def test_own_pairs_whose_sizes_do_not_fit_are_named() -> None:
  with pytest.raises(InputError, match=r'array_pairs\[0\] HR.*array_pairs\[0\] LR'):
    pack_layout.lay_out(own('array_pairs'), 4, 3)


def test_a_mistyped_kind_names_the_kinds(tmp_path: pathlib.Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
  user_code.allow(['foldr'])
  for find in (open_source, benchmarks.find_set):
    with pytest.raises(InputError, match=r"'foldr:x'.*foldr.*'folder:PATH'.*MODULE:FUNCTION"):
      find('foldr:x', 2)
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'foldr:x').mkdir()
  with pytest.raises(InputError, match=r'^foldr:x: '):  # a folder that exists is one
    benchmarks.find_set('foldr:x', 2)


def test_the_cache_of_an_own_source_depends_on_its_content(
    tmp_path: pathlib.Path, picture: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
  def identities() -> tuple:
    found = own('arrays')
    spec = feed.FeedSpec(CropSpec(4, 16, 2, 3), 4, Augmentation(), 0, 'stream')
    with contextlib.closing(feed.open_feed(found, spec, log=lambda _: None)) as stream:
      return packed.packed_folder(found, 2, 3, tmp_path), stream.digest

  def check() -> None:
    monkeypatch.setattr(own_code, 'SEED', 0)
    before = identities()
    assert identities() == before
    monkeypatch.setattr(own_code, 'SEED', 1)
    for now, then in zip(identities(), before, strict=True):
      assert now != then

  check()
  write(tmp_path, picture, [f'{name}.png' for name in range(5)], (40, 40))
  arrays = own_code.arrays
  monkeypatch.setattr(own_code, 'arrays', lambda: [
      (tmp_path / f'{index}.png', hr[:20, :20]) for index, hr in enumerate(arrays())])
  check()  # files of HR with arrays of LR


@pytest.mark.parametrize('workers', [0, pytest.param(1, marks=pytest.mark.slow)])
def test_arrays_are_packed_and_streamed(tmp_path: pathlib.Path, workers: int) -> None:
  crops = {}
  for mode in ('bank', 'mapped', 'stream'):
    spec = feed.FeedSpec(CropSpec(4, 16, 2, 3), 4, Augmentation(), 0, mode, 1, 4, workers, tmp_path)
    with contextlib.closing(feed.open_feed(own('arrays'), spec, log=lambda _: None)) as opened:
      assert opened.skipped == []
      crops[mode] = opened.batch_at(opened.source_for(0, 1), 0, 0)
  assert crops['stream']['hr'].shape == (4, 16, 16, 3)
  np.testing.assert_array_equal(crops['bank']['hr'], crops['mapped']['hr'])
