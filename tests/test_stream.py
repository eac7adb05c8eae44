"""The stream: the same batches whatever the workers, kills and damage."""

import hashlib
import itertools
import multiprocessing
import time

import numpy as np
import pytest

from sr_jax import images
from sr_jax.data import pictures, stream
from sr_jax.data.bank import CropSpec
from sr_jax.data.sources import open_source
from sr_jax.errors import InputError

CUT = CropSpec(4, 16, 2)


@pytest.fixture(scope='module')
def many(tmp_path_factory):
  """Eleven pictures, each of one colour of its own but for a ramp."""
  folder = tmp_path_factory.mktemp('many')
  ramp = np.mgrid[:24, :30].sum(0)[..., None].repeat(2, -1)
  for index in range(11):
    marked = np.concatenate([np.full((24, 30, 1), 20 * index), ramp], -1)
    images.write_image(folder / f'{index:02}.png', np.uint8(marked))
  return open_source(f'folder:{folder}', 2)


def take(found, count, begin=0, cut=CUT, share=4, workers=0, skipped=None, seed=0):
  made = stream.batches(found, seed, begin, cut, share, workers,
                        [] if skipped is None else skipped)
  try:
    return list(itertools.islice(made, count))
  finally:
    made.close()


def digests(batches):
  return [hashlib.sha256(batch['lr'].tobytes() + batch['hr'].tobytes()).hexdigest()
          for batch in batches]


def sources_of(batch):
  return [int(crop[0, 0, 0]) // 20 for crop in batch['hr']]


@pytest.mark.parametrize('begin', [0, 1, 6, 8, 13])
def test_any_step_may_be_the_first(many, begin):
  assert digests(take(many, 20))[begin:] == digests(take(many, 20 - begin, begin))


@pytest.mark.parametrize('workers', [pytest.param(1, marks=pytest.mark.slow), 2])
def test_workers_change_nothing(many, workers):
  assert digests(take(many, 12, 3, workers=workers)) == digests(take(many, 12, 3))


def test_a_seed_is_another_order(many):
  assert digests(take(many, 4)) != digests(take(many, 4, seed=1))


@pytest.mark.parametrize('share', [1, 3, 4])
def test_no_two_of_a_batch_are_of_one_picture_and_each_is_decoded_once(many, monkeypatch, share):
  read, decoded = images.read_image, []
  monkeypatch.setattr(images, 'read_image', lambda path: decoded.append(path.stem) or read(path))
  steps = 3 * share  # three groups: an order of eleven has two, the third is of the next
  batches = take(many, steps, share=share)
  for batch in batches:
    assert len(set(sources_of(batch))) == CUT.count
  for group in range(3):
    of_group = batches[group * share:(group + 1) * share]
    assert all(sources_of(batch) == sources_of(of_group[0]) for batch in of_group)
    assert len(set(digests(of_group))) == share
  assert len(decoded) == 3 * CUT.count
  assert len(set(decoded[:8])) == 8  # none twice in an order


def test_crops_are_of_the_picture_with_its_lr_at_all_places(many):
  whole = [pictures.read(picture, 2) for picture in many]
  places = set()
  for batch in take(many, 60):
    for lr, hr in zip(batch['lr'], batch['hr'], strict=True):
      pair = whole[int(hr[0, 0, 0]) // 20]
      found = [(y, x) for y in range(5) for x in range(8)
               if (pair.hr[2 * y:2 * y + 16, 2 * x:2 * x + 16] == hr).all()]
      assert found
      assert any((pair.lr[y:y + 8, x:x + 8] == lr).all() for y, x in found)
      places |= {int(hr[0, 0, 1])}
  assert places == set(range(0, 8 + 14 + 1, 2))


def test_one_picture_a_batch(many):
  batches = take(many, 8, cut=CUT._replace(count=1))
  assert [batch['hr'].shape for batch in batches] == [(1, 16, 16, 3)] * 8
  assert sources_of(batches[0]) == sources_of(batches[3]) != sources_of(batches[4])


def test_damaged_pictures_are_replaced_named_and_counted(tmp_path, picture, monkeypatch):
  monkeypatch.setattr(stream, 'TOLERATED', 0.3)
  for index in range(10):
    images.write_image(tmp_path / f'{index}.png', picture(20, 20, index))
  sound = open_source(f'folder:{tmp_path}', 2)
  (tmp_path / '3.png').write_text('no picture')
  images.write_image(tmp_path / '7.png', picture(12, 20))
  skipped = []
  batches = take(sound, 20, skipped=skipped)
  assert sorted(line.split('/')[-1].split(':')[0] for line in skipped) == ['3.png', '7.png']
  assert '12x20 is smaller than the 16x16 crop' in ' '.join(skipped)
  monkeypatch.setattr(stream, 'TOLERATED', 0)  # the small one is no damage
  take(sound, 20)
  assert digests(batches)[7:] == digests(take(sound, 13, 7))
  for batch in batches:
    assert len({crop.tobytes() for crop in batch['hr']}) == 4


@pytest.mark.parametrize('workers', [0, pytest.param(2, marks=pytest.mark.slow)])
def test_more_than_one_in_a_hundred_stops(tmp_path, picture, workers):
  for index in range(16):
    images.write_image(tmp_path / f'{index:02}.png', picture(20, 20, index))
  found = open_source(f'folder:{tmp_path}', 2)
  (tmp_path / '03.png').write_text('no picture')
  skipped = []
  take(found, 16, skipped=skipped, workers=workers)
  assert len(skipped) == 1  # one is no harm, whatever its share
  (tmp_path / '05.png').unlink()
  with pytest.raises(InputError, match=r'2 of 16 pictures are damaged, more than 1%; the last:'):
    take(found, 16, workers=workers)


def test_one_left_over_takes_its_place(tmp_path, picture):
  """Five pictures, a batch of four: each slot has one picture but for the first."""
  for index in range(5):
    images.write_image(tmp_path / f'{index}.png', picture(20, 20, index))
  found = open_source(f'folder:{tmp_path}', 2)
  (tmp_path / '2.png').write_text('no picture')
  for seed in range(4):
    for batch in take(found, 12, seed=seed):
      assert batch['hr'].shape == (4, 16, 16, 3)


def test_a_pair_that_does_not_fit_stops(tmp_path, picture):
  for index in range(5):
    images.write_image(tmp_path / 'hr' / f'{index}.png', picture(20, 20, index))
    images.write_image(tmp_path / 'lr' / f'{index}.png', picture(10 - (index == 3), 10, index))
  found = open_source(f'pairs:HR={tmp_path / "hr"},LR={tmp_path / "lr"}', 2)
  with pytest.raises(InputError, match=r'3\.png: \(20, 20, 3\), expected 2 times its LR'):
    take(found, 8)


def test_nothing_left_to_take_its_place(tmp_path, picture):
  for index in range(5):
    images.write_image(tmp_path / f'{index}.png', picture(20, 20, index))
  found = open_source(f'folder:{tmp_path}', 2)
  for index in range(5):
    (tmp_path / f'{index}.png').write_text('no picture')
  with pytest.raises(InputError, match=r'no usable picture: .*not a picture'):
    take(found, 1)


def test_workers_with_much_in_hand_end_at_once(tmp_path, picture):
  """More than a pipe holds, and nobody who reads it."""
  for index in range(12):
    images.write_image(tmp_path / f'{index:02}.png', picture(120, 120, index))
  made = stream.batches(open_source(f'folder:{tmp_path}', 4), 0, 0, CropSpec(4, 96, 4), 4, 2, [])
  next(made)
  workers = multiprocessing.active_children()
  time.sleep(1)
  begin = time.monotonic()
  made.close()
  assert time.monotonic() - begin < 20
  assert len(workers) == 2
  assert not any(worker.is_alive() for worker in workers)


@pytest.mark.slow
def test_a_lost_worker_is_told(many, monkeypatch):
  made = stream.batches(many, 0, 0, CUT, 4, 1, [])
  next(made)
  for process in multiprocessing.active_children():
    process.kill()
  with pytest.raises(InputError, match='a worker that decodes pictures was lost'):
    list(itertools.islice(made, 200))
