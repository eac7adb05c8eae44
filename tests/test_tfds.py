"""TFDS sets: as TFDS's builders store them, read without TensorFlow; errors are one line."""

import hashlib
import importlib.util
import io
import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from sr_jax.data import tfds
from sr_jax.data.tfds import find_records
from sr_jax.errors import InputError
from tests.golden import make_tfds

ROOT = pathlib.Path(__file__).parent.parent

# Set and split, where its images are in make_tfds, and the channels of each image.
SPLITS = [('div2k/bicubic_x4', 'train_hr_url', [3, 3, 3]),
          ('div2k/bicubic_x4:validation', 'valid_hr_url', [3]),
          ('coco/2017', 'train_images', [1, 3, 3]),
          ('coco/2017:test', 'test_images', [3]),
          ('celeb_a:all', 'img_align_celeba', [3] * 5)]

# Hides TensorFlow, as in an environment without it.
WITHOUT_TENSORFLOW = """
import sys
from importlib.machinery import PathFinder
class Finder:
  find_spec = staticmethod(lambda name, *more: None if name.partition('.')[0] == 'tensorflow'
                           else PathFinder.find_spec(name, *more))
sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
"""


@pytest.fixture(autouse=True)
def data(tfds_sets: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setenv('TFDS_DATA_DIR', str(tfds_sets))


@pytest.fixture
def copied(tfds_sets: pathlib.Path, tmp_path: pathlib.Path,
           monkeypatch: pytest.MonkeyPatch) -> Callable:
  """copied('coco', 'dataset_info.json', 'array', 'tf') -> a copy of the set with an edited file."""
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))

  def copy(name: str, file: str | None = None, *replacement: str) -> pathlib.Path:
    shutil.copytree(tfds_sets / name, tmp_path / name)
    if file:
      file = next((tmp_path / name).rglob(file))
      file.write_text(file.read_text().replace(*replacement))
    return next((tmp_path / name).rglob('features.json')).parent

  return copy


def decoded(record: tfds.Record) -> np.ndarray:
  return np.asarray(Image.open(io.BytesIO(record.read_bytes())))


def check(spec: str, place: str, channels: list[int]) -> None:
  """Checks that the records are the images below `place`, each once, in the order of TFDS."""
  made = {path: array.squeeze() for path, array in make_tfds.pictures().items()
          if path.startswith(place)}
  found = find_records(spec)
  assert [name for name, *_ in found] == [str(index) for index in range(len(channels))]
  for _, hr, lr in found:
    array = decoded(hr)
    jpeg = hr.read_bytes()[:2] == b'\xff\xd8'
    same = [path for path in made if made[path].shape == array.shape
            and np.abs(np.int16(made[path]) - array).mean() <= (4 if jpeg else 0)]
    assert len(same) == 1
    del made[same[0]]
    assert (lr is not None) == (hr.feature == 'hr')
    if lr:
      np.testing.assert_array_equal(decoded(lr), array[::4, ::4])
  assert not made
  shapes = [decoded(hr).shape for _, hr, _ in found]
  assert sorted(1 if len(shape) == 2 else 3 for shape in shapes) == channels
  if spec.startswith('celeb_a'):
    assert set(shapes) == {(218, 178, 3)}


@pytest.mark.parametrize(('spec', 'place', 'channels'), SPLITS)
def test_records_are_the_stored_images(spec: str, place: str, channels: list[int]) -> None:
  check(spec, place, channels)


def test_slices_are_parts_of_a_split() -> None:
  def contents(split: str) -> list[bytes]:
    return [hr.read_bytes() for _, hr, _ in find_records(f'celeb_a:{split}')]
  assert contents('train[:34%]') + contents('train[34%:]') == contents('train') != []
  assert contents('train[1:]+validation') == contents('train')[1:] + contents('validation')


def test_the_text_of_a_record_identifies_its_image() -> None:
  (_, hr, lr), *_ = find_records('div2k/bicubic_x4:train[1:]')
  assert str(hr) == 'tfds:div2k/bicubic_x4:train[1:][0] hr'
  assert str(lr) == 'tfds:div2k/bicubic_x4:train[1:][0] lr'
  assert str(find_records('celeb_a')[2][1]) == 'tfds:celeb_a:train[2]'


def test_the_stamp_depends_on_set_version_and_position(copied: Callable) -> None:
  folder = copied('celeb_a')
  stamps = [hr.stamp for _, hr, _ in find_records('celeb_a:all')]
  assert len(set(stamps)) == len(stamps)
  assert [hr.stamp for _, hr, _ in find_records('celeb_a:all')] == stamps
  info = folder / 'dataset_info.json'
  info.write_text(info.read_text().replace('"numBytes": "', '"numBytes": "1'))
  assert not set(stamps) & {hr.stamp for _, hr, _ in find_records('celeb_a:all')}


def test_pickled_records_are_small() -> None:
  (_, record, _), *_ = find_records('celeb_a')
  many = [record._replace(index=index) for index in range(10_000)]
  assert len(pickle.dumps(many)) < 20 * len(many)


@pytest.mark.parametrize('prelude', [
    '', pytest.param(WITHOUT_TENSORFLOW, marks=pytest.mark.slow)], ids=['', 'hidden'])
def test_reading_imports_no_tensorflow_and_prints_nothing(tfds_sets: pathlib.Path,
                                                          tmp_path: pathlib.Path,
                                                          prelude: str) -> None:
  """In a new process, such as that of a data loader: pickled records, read by several threads."""
  found = [record for spec, *_ in SPLITS for _, *pair in find_records(spec) for record in pair
           if record]
  (tmp_path / 'records').write_bytes(pickle.dumps(found))
  code = prelude + """
import hashlib, pathlib, pickle, sys
from concurrent.futures import ThreadPoolExecutor
from sr_jax.data import tfds
found = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
with ThreadPoolExecutor(8) as pool:
  contents = list(pool.map(tfds.Record.read_bytes, found))
assert tfds.find_records('coco/2017')
for spec in ('coco', 'nosuchset', 'div2k/bicubic_x2'):
  try:
    tfds.find_records(spec)
  except tfds.InputError:
    continue
  raise AssertionError(spec)
assert 'tensorflow' not in sys.modules
print(hashlib.sha256(b''.join(contents)).hexdigest())
"""
  run = subprocess.run([sys.executable, '-W', 'error', '-c', code, tmp_path / 'records'], cwd=ROOT,
                       capture_output=True, text=True)
  contents = b''.join(record.read_bytes() for record in found)
  assert (run.stdout, run.stderr) == (f'{hashlib.sha256(contents).hexdigest()}\n', '')


def train_without_tensorflow(folder: pathlib.Path) -> list[dict]:
  """Trains on pairs of DIV2K and on faces of CelebA in a new process; returns their run.json."""
  code = WITHOUT_TENSORFLOW + """
from sr_jax.experiment.base_config import defaults
from sr_jax.train import train
for name, spec, resize, mode in (('div2k', 'tfds:div2k/bicubic_x4', '', 'auto'),
                                 ('celeb_a', 'tfds:celeb_a', '64x64', 'stream')):
  config = defaults()
  config.steps, config.batch_size, config.hr_patch = 2, 3, 32
  config.generator.update({'features': 4, 'blocks': 1, 'kernel': 3})
  config.data.source, config.data.valid = spec, f'{spec}:validation'
  config.data.resize, config.data.mode, config.data.workers = resize, mode, 0
  config.eval.lpips = 'none'
  train(config, f'{sys.argv[1]}/{name}')
assert 'tensorflow' not in sys.modules
"""
  done = subprocess.run([sys.executable, '-c', code, folder], cwd=ROOT, capture_output=True,
                        text=True)
  assert done.returncode == 0, done.stderr
  return [json.loads((folder / name / 'run.json').read_text())[0] for name in ('div2k', 'celeb_a')]


@pytest.mark.slow
def test_training_on_pairs_and_resized_faces_needs_no_tensorflow(tmp_path: pathlib.Path) -> None:
  records = train_without_tensorflow(tmp_path)
  assert [record['data_mode'] for record in records] == ['bank', 'stream']
  for name in ('div2k', 'celeb_a'):
    *_, last = map(json.loads, (tmp_path / name / 'metrics.jsonl').read_text().splitlines())
    assert last['step'] == 2
    assert last['valid/psnr_y'] > 5


@pytest.mark.parametrize(('spec', 'message'), [
    ('', r'tfds:: expected tfds:NAME\[/CONFIG\]\[:SPLIT\], such as tfds:'),
    ('../coco', r'expected tfds:NAME'),
    ('coco/2017/1.1.0', r'expected tfds:NAME'),
    ('celeb_a:trian', r'tfds:celeb_a:trian: no such split; .*train, validation, test, '),
    ('celeb_a:train[:8', r'no such split'),
    ('celeb_a:train[900:]', r'no such split'),
    ('celeb_a:train[:0]', r'tfds:celeb_a:train\[:0\]: .*no image'),
    ('celeba', r'tfds:celeba: not prepared in /.* celeb_a'),
    ('qqqqqqqq/x', r'tfds:qqqqqqqq/x: not prepared in /[^;]*$'),
    ('coco', r'tfds:coco: name one of its configurations, tfds:coco/CONFIG: 2014, 2017, 2017_pa'),
    ('div2k/x4', r'tfds:div2k/x4: name one of .*: bicubic_x2, '),
    ('celeb_a/large', r'tfds:celeb_a/large: it has no configurations, only tfds:celeb_a$'),
    ('coco/2014:test', r"tfds:coco/2014: not prepared in /.*; run .*python -c \"import tensorflow_d"
                       r"atasets as tfds; tfds.builder\('coco/2014', file_format='array_record'\)"),
])
def test_wrong_specs_are_refused_in_one_line(spec: str, message: str) -> None:
  with pytest.raises(InputError, match=message) as error:
    find_records(spec)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(('file', 'old', 'new', 'message'), [
    ('dataset_info.json', '"array_record"', '"tfrecord"', r'/.*/coco/2017/1.1.0: prepared as tfre'),
    ('dataset_info.json', '"name"', '"nom"', r'/.*/coco/2017/1.1.0: TFDS cannot read it \('),
    ('features.json', 'image_feature.Image', 'image_feature.NoSuch', r'TFDS cannot read it \('),
])
def test_a_set_that_cannot_be_read_is_refused(copied: Callable, file: str, old: str, new: str,
                                              message: str) -> None:
  copied('coco', file, old, new)
  with pytest.raises(InputError, match=message) as error:
    find_records('coco/2017')
  assert '\n' not in str(error.value)


def test_which_feature_is_the_image(copied: Callable) -> None:
  folder = copied('div2k', 'features.json', '"hr"', '"only"')
  with pytest.raises(InputError, match=r'tfds:div2k/bicubic_x4: several .*lr, only; expec'):
    find_records('div2k/bicubic_x4')
  features = folder / 'features.json'
  text = features.read_text()
  features.write_text(text.replace('"lr"', '"image"'))
  assert {(hr.feature, lr) for _, hr, lr in find_records('div2k/bicubic_x4')} == {('image', None)}
  features.write_text(text.replace('"uint8"', '"float32"').replace('"3"', '"1"'))
  with pytest.raises(InputError, match=r'tfds:div2k/bicubic_x4: no image .*lr'):
    find_records('div2k/bicubic_x4')


def test_a_folder_without_a_builder_is_read(copied: Callable, tmp_path: pathlib.Path) -> None:
  folder = copied('celeb_a', 'dataset_info.json', '"name": "celeb_a"', '"name": "mine"')
  for file in folder.iterdir():
    file.rename(folder / file.name.replace('celeb_a-', 'mine-'))
  folder.parent.rename(tmp_path / 'mine')
  assert len(find_records('mine')) == 3
  (tmp_path / 'mine/2.1.0').rename(tmp_path / 'mine/9.0.0')
  shutil.copytree(tmp_path / 'mine/9.0.0', tmp_path / 'mine/10.0.0')
  assert find_records('mine')[0][1].source.folder == str(tmp_path / 'mine/10.0.0')
  (tmp_path / 'mine').rename(tmp_path / 'large')
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'large').rename(tmp_path / 'mine/large')
  assert len(find_records('mine/large')) == 3
  with pytest.raises(InputError, match=r'tfds:mine: name one of its configurations, .*: large$'):
    find_records('mine')


@pytest.mark.parametrize('damage', [lambda shard: shard.unlink(),
                                    lambda shard: shard.write_bytes(b'x' * 2000),
                                    lambda shard: shard.write_bytes(shard.read_bytes()[:70_000])])
def test_a_damaged_set_is_named(copied: Callable, damage: Callable) -> None:
  folder = copied('celeb_a')
  damage(next(folder.glob('*-train.*')))
  record = find_records('celeb_a')[1][1]
  with pytest.raises(InputError, match=r'^tfds:celeb_a:train\[1\]: cannot read \(.+') as error:
    record.read_bytes()
  assert '\n' not in str(error.value)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(InputError, match=r'bicubic_x2: .*: pip install tensorflow-cpu importlib_r'):
    find_records('div2k/bicubic_x2', download=True)
  with pytest.raises(InputError, match='run pip install tensorflow-cpu importlib_resources && pyt'):
    find_records('div2k/bicubic_x2')
  monkeypatch.setitem(sys.modules, 'tensorflow_datasets', None)
  with pytest.raises(InputError, match=r'^tfds: .*: pip install tensorflow-datasets$'):
    find_records('celeb_a')


def test_preparing_runs_in_a_process_of_its_copied(tfds_sets: pathlib.Path, tmp_path: pathlib.Path,
                                                   monkeypatch: pytest.MonkeyPatch,
                                                   capfd: pytest.CaptureFixture) -> None:
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  monkeypatch.setattr(tfds, 'NEEDS', {})
  for code, reason in (('1 / 0', 'ZeroDivisionError: division by zero\n'), ('pass', '')):
    monkeypatch.setattr(tfds, 'PREPARE', code)
    with pytest.raises(InputError, match=r'tfds:celeb_a: .*could not prepare'):
      find_records('celeb_a', download=True)
    assert capfd.readouterr().err == reason
  monkeypatch.setattr(tfds, 'PREPARE',
                      f"import shutil; shutil.copytree('{tfds_sets}/{{0}}', '{tmp_path}/{{0}}')")
  assert len(find_records('celeb_a', download=True)) == 3
  assert find_records('celeb_a', download=True)  # is not prepared again


@pytest.mark.slow
def test_tensorflow_prepares_what_is_read(tfds_sets: pathlib.Path, tmp_path: pathlib.Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
  """Runs TFDS's builders with the command that the error message gives, then the same checks."""
  pytest.importorskip('importlib_resources')
  if not importlib.util.find_spec('tensorflow'):
    pytest.skip('TensorFlow is not installed')
  # Python imports sitecustomize when it starts, from PYTHONPATH first.
  (tmp_path / 'sitecustomize.py').write_text(
      'import pathlib\nfrom tests.golden.make_tfds import replace_downloads\n'
      f'replace_downloads(pathlib.Path({str(tmp_path / "downloads")!r}))\n')
  monkeypatch.setenv('PYTHONPATH', os.pathsep.join((str(tmp_path), str(ROOT))))
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'data'))
  before = 'tensorflow' in sys.modules
  for name in make_tfds.NAMES:
    find_records(name, download=True)
  for split in SPLITS:
    check(*split)
  assert ('tensorflow' in sys.modules) == before
  assert len(train_without_tensorflow(tmp_path)) == 2
  for features in tfds_sets.rglob('features.json'):  # the golden files have the same features
    made = tmp_path / 'data' / features.relative_to(tfds_sets)
    assert made.read_text() == features.read_text()
