"""Data sources: every kind of spec, its errors, and splits."""

import itertools
import pathlib
import re
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from sr_jax import images
from sr_jax.data.pictures import Picture, read
from sr_jax.data.sources import SAMPLE_TRAIN, open_source, split
from sr_jax.errors import InputError


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
