"""Which folders are pairs of HR and LR, which are HR alone, and which are refused."""

import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from sr_jax import images
from sr_jax.data import benchmarks, file_names, layouts, sources
from sr_jax.data.folder_names import role_of
from sr_jax.errors import InputError


def make(root: pathlib.Path, *places: str) -> pathlib.Path:
  """Creates an empty file a.png, which no layout reads, in each of the folders."""
  for place in places:
    (root / place).mkdir(parents=True, exist_ok=True)
    (root / place / 'a.png').touch()
  return root


def make_file(path: pathlib.Path) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.touch()


def found(folder: pathlib.Path, scale: int) -> tuple[str, str | None]:
  """Returns (HR folder, LR folder) relative to the set."""
  layout = layouts.find_layout(folder, scale)
  return (os.path.relpath(layout.hr, folder),
          None if layout.lr is None else os.path.relpath(layout.lr, folder))


PAIRS = [  # (HR folder, LR folder) of a set of x4
    ('HR', 'LR'), ('hr', 'lr'), ('Hr', 'Lr'), ('HR', 'lr'), ('GT', 'LQ'), ('gt', 'lq'),
    ('HQ', 'LQ'), ('high', 'low'), ('High', 'Low'), ('highres', 'lowres'),
    ('high_resolution', 'low_resolution'),
    ('HighRes', 'LowRes'), ('GT', 'LR'), ('HR', 'LQ'), ('hr', 'low'), ('original', 'LRbicx4'),
    ('HR', 'LRbicx4'), ('HR', 'LRbicX4'), ('hr', 'lrbicx4'), ('GTmod12', 'LRbicx4'),
    ('GT_mod12', 'LRbicx4'), ('HR_x4', 'LRbicx4'), ('HR_x4', 'LR_x4'), ('HR', 'LR_x4'),
    ('HR', 'LRx4'), ('HR', 'LR4'), ('HR', 'LR_4'), ('HR', 'LRBI'), ('HRx4', 'LRx4'),
    ('HR', 'x4_LR'), ('HR', 'LR_bicubic'), ('HR', 'LR_unknown'), ('HR', 'LR_mild'),
    ('HR', 'LR_difficult'), ('HR', 'LR_wild'), ('HR', 'LR_bicubic/X4'), ('HR', 'LR_unknown/x4'),
    ('HR', 'LR/X4'), ('HR', 'LR/x4'), ('HR', 'LR/4x'), ('HR', 'LR/bicubic/x4'),
    ('HR', 'LR/LRBI/x4'), ('HR/x4', 'LR/x4'), ('GT', 'LR_bicubic_x4'), ('hr_128', 'lr_16'),
    ('hr256', 'lr64'), ('HRs', 'LRs'),
    ('DIV2K_valid_HR', 'DIV2K_valid_LR_bicubic/X4'), ('DIV2K_valid_HR', 'DIV2K_valid_LR_mild'),
    ('DIV2K_valid_HR', 'DIV2K_valid_LR_unknown/X4'), ('DIV2K_train_HR', 'DIV2K_train_LR_wild'),
    ('DIV2K_train_HR', 'DIV2K_train_LR_difficult/X4'), ('DIV2K_train_HR', 'DIV2K_train_LR_x4'),
    ('div2k_train_hr', 'div2k_train_lr_bicubic/x4'),
    ('DIV2K_train_HR_sub', 'DIV2K_train_LR_bicubic/X4_sub'),
    ('Flickr2K_HR', 'Flickr2K_LR_bicubic/X4'), ('train_HR', 'train_LR'), ('HR_train', 'LR_train'),
    ('trainHR', 'trainLR'), ('HR_images', 'LR_images')]


@pytest.mark.parametrize(('hr', 'lr'), PAIRS)
def test_pairs(tmp_path: pathlib.Path, hr: str, lr: str) -> None:
  make(tmp_path / 'set', hr, lr)
  assert found(tmp_path / 'set', 4) == (hr, lr)
  notes = layouts.find_layout(tmp_path / 'set', 4).notes
  assert len(notes) == 1
  assert hr in notes[0]
  assert lr in notes[0]


@pytest.mark.parametrize(('hr', 'lr'), [pair for pair in PAIRS if '/' not in pair[0]])
def test_an_hr_folder_finds_its_lr_beside_it(tmp_path: pathlib.Path, hr: str, lr: str) -> None:
  make(tmp_path / 'set', hr, lr)
  layout = layouts.find_layout(tmp_path / 'set' / hr, 4)
  assert (layout.hr, layout.lr) == (tmp_path / 'set' / hr, tmp_path / 'set' / lr)
  assert lr in layout.notes[0]


def test_the_current_folder_may_be_the_set(tmp_path: pathlib.Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
  make(tmp_path, 'HR', 'LR')
  monkeypatch.chdir(tmp_path)
  assert layouts.find_layout(pathlib.Path('.'), 4)[:2] == (pathlib.Path('HR'), pathlib.Path('LR'))
  assert layouts.find_layout(pathlib.Path('HR'), 4).lr == pathlib.Path('LR')
  monkeypatch.chdir('HR')
  assert layouts.find_layout(pathlib.Path('.'), 4).lr.samefile(tmp_path / 'LR')


@pytest.mark.parametrize(('places', 'hr', 'lr'), [
    (('GTmod12', 'original', 'LRbicx2', 'LRbicx3', 'LRbicx4'), 'GTmod12', 'LRbicx4'),
    (('HR_x2', 'HR_x3', 'HR_x4', 'LRbicx2', 'LRbicx3', 'LRbicx4'), 'HR_x4', 'LRbicx4'),
    (('HR', 'HR_x4', 'LR_x4'), 'HR_x4', 'LR_x4'),
    (('HR', 'LR_bicubic/X2', 'LR_bicubic/X4', 'LR_x8'), 'HR', 'LR_bicubic/X4'),
    (('HR', 'LRx2', 'LRx4', 'results', 'bicubic'), 'HR', 'LRx4')])
def test_the_scale_and_the_most_specific_hr_folder_decide(
    tmp_path: pathlib.Path, places: Sequence[str], hr: str, lr: str) -> None:
  make(tmp_path / 'set', *places)
  assert found(tmp_path / 'set', 4) == (hr, lr)


def test_what_is_not_used_is_stated(tmp_path: pathlib.Path) -> None:
  make(tmp_path / 'set', 'HR', 'LRx4', 'LRx2', 'results', '')
  notes = layouts.find_layout(tmp_path / 'set', 4).notes
  assert any('results' in note for note in notes)
  assert not any('LRx2' in note for note in notes)  # for another scale
  assert any('directly' in note for note in notes)
  make(tmp_path / 'alone', 'HR', 'SR')
  layout = layouts.find_layout(tmp_path / 'alone', 4)
  assert (layout.hr.name, layout.lr) == ('HR', None)
  assert 'SR' in layout.notes[0]


@pytest.mark.parametrize('places', [
    ('',), ('HR',), ('hr',), ('GT',), ('HR_x4',), ('GTmod12', 'original'), ('HR', 'SR')])
def test_hr_alone_stays_hr(tmp_path: pathlib.Path, places: Sequence[str]) -> None:
  make(tmp_path / 'set', *places)
  assert found(tmp_path / 'set', 4) == (places[0] or '.', None)


@pytest.mark.parametrize('places', [
    ('lowlight', 'HRes'), ('low_light', 'images'), ('low',), ('high', 'portraits'), ('gt500',),
    ('gt3', 'gt4'), ('gt_cars', 'suv'), ('train', 'test'), ('cat', 'dog', 'lr2002'),
    ('DIV2K_train_HR', 'Flickr2K_HR'), ('1', '2', '3', '4'), ('LRO', 'COLOR_LRT', 'LaRge'),
    ('input',), ('small', 'red'), ('images',), ('2017', 'images'), ('slr', 'dslr'), ('x4',),
    ('flowers/low', 'cars/high'), ('highway', 'lower'), ('hr_to_lr',)])
def test_classes_and_other_folders_are_images(tmp_path: pathlib.Path,
                                              places: Sequence[str]) -> None:
  make(tmp_path / 'set', *places)
  assert found(tmp_path / 'set', 4) == ('.', None)
  assert len(sources.open_source(f'folder:{tmp_path / "set"}', 4)) == len(places)


@pytest.mark.parametrize(('places', 'named'), [
    (('HR', 'LR_bicubic/X4', 'LR_unknown/X4'), 'LR_bicubic/X4, LR_unknown/X4'),
    (('HR', 'LR', 'lq'), 'LR, lq'), (('HR', 'LR_mild', 'LR_wild'), 'LR_mild, LR_wild'),
    (('HR', 'GT', 'LR'), 'GT, HR'), (('HR', 'hr', 'LR'), 'HR, hr'),
    (('DIV2K_train_HR', 'DIV2K_train_LR_bicubic/X4', 'DIV2K_valid_HR',
      'DIV2K_valid_LR_bicubic/X4'), 'DIV2K_train_HR, DIV2K_valid_HR'),
    (('DIV2K_train_HR', 'DIV2K_train_LR_bicubic/X4', 'Flickr2K_HR'), 'Flickr2K_HR'),
    (('HR', 'LR_bicubic/X2'), '2, not 4'), (('HR', 'LRbicx2', 'LRbicx3'), '2, 3, not 4'),
    (('HR', 'LR', 'LR/X4'), 'LR'), (('HR', 'LR/X4', 'LR/other'), 'LR/X4, LR'),
    (('HR', 'Set5_LR'), 'Set5_LR'), (('Unknown', 'LR'), 'LR'), (('Unknown', 'lr'), 'lr'),
    (('', 'LR'), 'LR'), (('a', 'lq'), 'lq'), (('photos', 'LRx4'), 'LRx4'),
    (('Unknown', 'Mine_LR_bicubic/X4'), 'Mine_LR_bicubic'), (('lowres',), 'lowres'),
    (('input', 'target'), 'input'), (('input', 'GT'), 'input'), (('images', 'low'), 'low'),
    (('Input', 'Images'), 'Input'), (('train_input', 'train_target'), 'train_input'),
    (('HR', 'x4'), 'x4'), (('HR', 'bicubic'), 'bicubic'), (('high', 'bicubic_x4'), 'bicubic_x4'),
    (('low_light', 'high_light'), 'low_light'), (('sharp', 'blur'), 'blur'),
    (('clean', 'noisy'), 'noisy'), (('low', 'target'), 'low'),
    (('train/HR', 'train/LR'), 'train/LR'), (('a/hr', 'a/lr', 'b/hr', 'b/lr'), 'a/lr'),
    (('x4/HR', 'x4/LR'), 'x4/LR'), (('a/b/input', 'a/b/target'), 'a/b/input'),
    (('cars/lr',), 'cars/lr')])
def test_what_looks_like_pairs_and_is_not_certain_is_refused(
    tmp_path: pathlib.Path, places: Sequence[str], named: str) -> None:
  folder = make(tmp_path / 'set', *places)
  for open_set in (lambda: sources.open_source(f'folder:{folder}', 4),
                   lambda: benchmarks.find_set(str(folder), 4)):
    with pytest.raises(InputError) as caught:
      open_set()
    message = str(caught.value)
    assert message.startswith(f'{folder}: ')
    assert named in message
    assert 'pairs:HR=' in message
  # A source without a rule takes them all.
  assert len(sources.open_source(f'hr:{folder}', 4)) == len(places)


@pytest.mark.parametrize(('places', 'name', 'named'), [
    (('HR', 'LR_bicubic/X4', 'LR_unknown/X4'), 'HR', 'LR_bicubic/X4, LR_unknown/X4'),
    (('HR', 'LR'), 'LR', 'HR'), (('HR', 'LR_bicubic/X4'), 'LR_bicubic/X4', 'HR'),
    (('gt', 'lq'), 'lq', 'gt'), (('high', 'low'), 'low', 'high')])
def test_a_named_folder_is_refused_if_it_is_lr_or_uncertain(
    tmp_path: pathlib.Path, places: Sequence[str], name: str, named: str) -> None:
  make(tmp_path / 'set', *places)
  with pytest.raises(InputError, match=rf'^{tmp_path}/set/{name}: .*{named}.*pairs:HR='):
    layouts.find_layout(tmp_path / 'set' / name, 4)


@pytest.mark.parametrize(('places', 'name'), [
    (('HR', 'LRbicx2'), 'HR'), (('GTmod12', 'original', 'LRbicx4'), 'original'),
    (('HR/x4', 'LR/x4'), 'HR/x4')])
def test_lr_that_does_not_belong_to_a_named_folder_is_stated(
    tmp_path: pathlib.Path, places: Sequence[str], name: str) -> None:
  make(tmp_path / 'set', *places)
  layout = layouts.find_layout(tmp_path / 'set' / name, 4)
  assert (layout.hr, layout.lr) == (tmp_path / 'set' / name, None)
  assert 'LR' in layout.notes[0]


@pytest.mark.parametrize('name', ['LR', 'low', 'LR_bicubic/X4', 'input'])
def test_a_named_folder_without_hr_beside_it_is_images(tmp_path: pathlib.Path, name: str) -> None:
  make(tmp_path, name, 'other')
  assert layouts.find_layout(tmp_path / name, 4) == (tmp_path / name, None, [])


@pytest.mark.parametrize(('names', 'refused'), [
    (('a_HR', 'a_LR', 'b'), 'a_LR'), (('a', 'a_lr'), 'a_lr'), (('a', 'a_LRBI_x4'), 'a_LRBI_x4'),
    (('a_HR_x4', 'a_LR2'), 'a_LR2'), (('a', 'ax4'), 'ax4'), (('a', 'a_x2'), ''),
    (('a', 'b_LR'), ''), (('ma', 'mat4'), ''), (('color', 'collar'), '')])
def test_lr_files_among_hr_files(tmp_path: pathlib.Path, picture: Callable,
                                 names: Sequence[str], refused: str) -> None:
  sizes = {'ax4': (5, 7), 'a_x2': (40, 56)}  # the second is a result of x2, not an LR
  for name in names:
    images.write_image(tmp_path / f'{name}.png', picture(*sizes.get(name, (20, 28))))
  if not refused:
    assert len(sources.open_source(f'folder:{tmp_path}', 4)) == 2
    return
  with pytest.raises(InputError, match=rf'^{tmp_path}: {refused}\.png '):
    sources.open_source(f'folder:{tmp_path}', 4)


@pytest.mark.parametrize('spec', ['folder:{0}', 'pairs:HR={0},LR={0}'])
@pytest.mark.parametrize(('hr', 'lr'), [
    ('a_HR', 'a_LR4'), ('a_HR', 'a_LR'), ('a_hr', 'a_lr'), ('a_GT', 'a_LQ'), ('a_HR_x4', 'a_LR_x4'),
    ('a_HR', 'a_LRBI_x4'), ('deep/a_HR', 'deep/a_LR4')])
def test_hr_and_lr_files_of_one_folder_are_pairs(tmp_path: pathlib.Path, spec: str, hr: str,
                                                 lr: str) -> None:
  for name in (hr, lr):
    make_file(tmp_path / f'{name}.png')
  picture, = sources.open_source(spec.format(tmp_path), 4)
  assert (picture.hr, picture.lr) == (tmp_path / f'{hr}.png', tmp_path / f'{lr}.png')
  (tmp_path / 'other.png').touch()
  with pytest.raises(InputError, match=rf'^{tmp_path}: .*LR'):
    sources.open_source(spec.format(tmp_path), 4)


def test_results_in_a_folder_of_pairs_are_stated(tmp_path: pathlib.Path) -> None:
  for ending in ('HR', 'LR', 'SRCNN', 'bicubic'):
    make_file(tmp_path / 'image_SRF_4' / f'a_SRF_4_{ending}.png')
  notes = []
  picture, = sources.open_source(f'folder:{tmp_path}', 4, notes=notes)
  assert (picture.name, picture.hr.stem, picture.lr.stem) == ('a', 'a_SRF_4_HR', 'a_SRF_4_LR')
  assert 'a_SRF_4_SRCNN, a_SRF_4_bicubic' in notes[0]
  for folder in (tmp_path, tmp_path / 'image_SRF_4'):
    with pytest.raises(InputError, match=r'image_SRF_4: .*scale.* 2'):
      sources.open_source(f'folder:{folder}', 2)


@pytest.mark.parametrize('name', ['HR', 'LRbicx4', 'GTmod12', 'DIV2K_train_LR_x8', 'lr_16', 'x4'])
def test_the_case_of_a_folder_name_does_not_matter(name: str) -> None:
  assert role_of(name) == role_of(name.lower()) == role_of(name.upper())


@pytest.mark.parametrize('kind', ['folder:', ''])
@pytest.mark.parametrize(('hr', 'lr'), [
    ('HR/a.png', 'LRbicx2/a.png'), ('hr/a.png', 'lr/a.png'), ('GT/a.png', 'LQ/a.png'),
    ('DIV2K_valid_HR/0801.png', 'DIV2K_valid_LR_unknown/X2/0801x2.png'),
    ('HR/0801.png', 'LR_unknown/X2/0801x2.png'), ('HR/0801.png', 'LR_wild/0801x2w.png'),
    ('DIV2K_valid_HR/0801.png', 'DIV2K_valid_LR_mild/0801x2m.png')])
def test_lr_is_read_as_given_by_every_source(tmp_path: pathlib.Path, picture: Callable, kind: str,
                                             hr: str, lr: str) -> None:
  images.write_image(tmp_path / hr, picture(20, 28))
  images.write_image(tmp_path / lr, np.full((10, 14, 3), 128, np.uint8))
  notes = []
  opened = benchmarks.find_set(f'{kind}{tmp_path}', 2, notes=notes)
  pair, = benchmarks.read_set(opened, 2)
  assert (pair.lr == 128).all()
  assert pair.name == pathlib.Path(hr).stem
  assert len(notes) == 1


@pytest.mark.parametrize('name', [
    'baby_x4', 'babyx4', 'baby-x4', 'baby_X4', 'baby_SR', 'baby_sr', 'baby_x4_SR', 'baby_out',
    'baby_SRF_4_SR', 'baby_SR_x4', 'babyx4m', 'babyx4d', 'babyx4w', 'babyX4M', 'babyx4w2',
    'baby_LR4', 'baby_lr4', 'baby_LRx4', 'babyLRx4', 'baby_LRBI', 'baby_LRBI_x4', 'baby_LRBIx4',
    'baby_lrbicx4', 'baby_LQ', 'baby_HR_x4', 'baby_HRx4', 'baby_4x', 'baby_LR_x4m'])
def test_plain_names(name: str) -> None:
  assert file_names.plain_names(name, 4)[0] == name
  assert file_names.plain_names(name, 4)[-1] == 'baby'


@pytest.mark.parametrize('name', ['baby', 'babyx2', 'x4', 'a/x4', 'SR', 'babysr', 'baby_5',
                                  'babyx2m', 'baby_LR2', 'color', 'babylr', 'LR4', 'a/LRBI'])
def test_names_without_endings_are_unchanged(name: str) -> None:
  assert file_names.plain_names(name, 4) == [name]


def test_several_lr_of_one_hr_are_refused(tmp_path: pathlib.Path) -> None:
  for name in ('HR/1.png', 'LR_wild/1x4w1.png', 'LR_wild/1x4w2.png', 'HR/2.png', 'LR_wild/2x4.png'):
    make_file(tmp_path / name)
  with pytest.raises(InputError, match=r'^3 .*HR/1\.png.*1x4w1\.png.*1x4w2\.png'):
    sources.open_source(f'folder:{tmp_path}', 4)
