"""The stream: the same batches for any number of workers, first step and damaged images."""

import hashlib
import itertools
import multiprocessing
import pathlib
import re
import time
from collections.abc import Callable

import numpy as np
import pytest

from sr_jax import images
from sr_jax.data import pictures, stream
from sr_jax.data.bank import CropSpec
from sr_jax.data.pictures import Picture
from sr_jax.data.sources import open_source
from sr_jax.errors import InputError

CROP_SPEC = CropSpec(4, 16, 2)


@pytest.fixture(scope='module')
def many(tmp_path_factory: pytest.TempPathFactory) -> list[Picture]:
  """Eleven images; each has a different red value, green and blue are a ramp."""
  folder = tmp_path_factory.mktemp('many')
  ramp = np.mgrid[:24, :30].sum(0)[..., None].repeat(2, -1)
  for index in range(11):
    marked = np.concatenate([np.full((24, 30, 1), 20 * index), ramp], -1)
    images.write_image(folder / f'{index:02}.png', np.uint8(marked))
  return open_source(f'folder:{folder}', 2)


def take(found: list[Picture], count: int, start: int = 0, crop_spec: CropSpec = CROP_SPEC,
         crops_per_image: int = 4, workers: int = 0, skipped: list[str] | None = None,
         seed: int = 0) -> list[dict[str, np.ndarray]]:
  """Returns `count` batches."""
  source = stream.CropSource(found, seed, crop_spec, crops_per_image)
  made = stream.batches(source, start, workers, [] if skipped is None else skipped)
  try:
    return list(itertools.islice(made, count))
  finally:
    made.close()


def digests(batches: list[dict[str, np.ndarray]]) -> list[str]:
  return [hashlib.sha256(batch['lr'].tobytes() + batch['hr'].tobytes()).hexdigest()
          for batch in batches]


def sources_of(batch: dict[str, np.ndarray]) -> list[int]:
  """Returns the index of the image that each crop is from."""
  return [int(crop[0, 0, 0]) // 20 for crop in batch['hr']]


@pytest.mark.parametrize('start', [0, 1, 6, 8, 13])
def test_a_stream_may_start_at_any_step(many: list[Picture], start: int) -> None:
  assert digests(take(many, 20))[start:] == digests(take(many, 20 - start, start))


@pytest.mark.parametrize('workers', [pytest.param(1, marks=pytest.mark.slow), 2])
def test_batches_do_not_depend_on_the_number_of_workers(many: list[Picture], workers: int) -> None:
  assert digests(take(many, 12, 3, workers=workers)) == digests(take(many, 12, 3))


def test_the_order_depends_on_the_seed(many: list[Picture]) -> None:
  assert digests(take(many, 4)) != digests(take(many, 4, seed=1))


@pytest.mark.parametrize('crops_per_image', [1, 3, 4])
def test_crops_of_a_batch_are_from_different_images(
    many: list[Picture], monkeypatch: pytest.MonkeyPatch, crops_per_image: int) -> None:
  read, decoded = images.read_with_notes, []
  monkeypatch.setattr(images, 'read_with_notes',
                      lambda path: decoded.append(path.stem) or read(path))
  steps = 3 * crops_per_image  # three groups: the first order has two, the next order the third
  batches = take(many, steps, crops_per_image=crops_per_image)
  for batch in batches:
    assert len(set(sources_of(batch))) == CROP_SPEC.count
  for group in range(3):
    of_group = batches[group * crops_per_image:(group + 1) * crops_per_image]
    assert all(sources_of(batch) == sources_of(of_group[0]) for batch in of_group)
    assert len(set(digests(of_group))) == crops_per_image
  assert len(decoded) == 3 * CROP_SPEC.count
  assert len(set(decoded[:8])) == 8  # no image occurs twice in an order


def test_crops_occur_in_image_and_lr_at_all_positions(many: list[Picture]) -> None:
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


def test_one_image_in_a_batch(many: list[Picture]) -> None:
  batches = take(many, 8, crop_spec=CROP_SPEC._replace(count=1))
  assert [batch['hr'].shape for batch in batches] == [(1, 16, 16, 3)] * 8
  assert sources_of(batches[0]) == sources_of(batches[3]) != sources_of(batches[4])


def test_damaged_images_are_replaced_named_and_counted(tmp_path: pathlib.Path, picture: Callable,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(stream, 'MAX_DAMAGED_SHARE', 0.3)
  for index in range(10):
    images.write_image(tmp_path / f'{index}.png', picture(20, 20, index))
  sound = open_source(f'folder:{tmp_path}', 2)
  (tmp_path / '3.png').write_text('no picture')
  images.write_image(tmp_path / '7.png', picture(12, 20))
  skipped = []
  batches = take(sound, 20, skipped=skipped)
  assert sorted(line.split('/')[-1].split(':')[0] for line in skipped) == ['3.png', '7.png']
  assert re.search(r'7\.png: 12x20 .*16x16', ' '.join(skipped))
  monkeypatch.setattr(stream, 'MAX_DAMAGED_SHARE', 0)  # the small image does not count as damaged
  take(sound, 20)
  assert digests(batches)[7:] == digests(take(sound, 13, 7))
  for batch in batches:
    assert len({crop.tobytes() for crop in batch['hr']}) == 4


@pytest.mark.parametrize('workers', [0, pytest.param(2, marks=pytest.mark.slow)])
def test_more_than_one_percent_damaged_images_are_refused(tmp_path: pathlib.Path, picture: Callable,
                                                          workers: int) -> None:
  for index in range(16):
    images.write_image(tmp_path / f'{index:02}.png', picture(20, 20, index))
  found = open_source(f'folder:{tmp_path}', 2)
  (tmp_path / '03.png').write_text('no picture')
  skipped = []
  take(found, 16, skipped=skipped, workers=workers)
  assert len(skipped) == 1  # one is accepted, whatever its share
  (tmp_path / '05.png').unlink()
  with pytest.raises(InputError, match=r'2 of 16 .*damaged.* 1%.*0[35]\.png'):
    take(found, 16, workers=workers)


def test_an_image_of_the_dropped_group_replaces_a_damaged_one(tmp_path: pathlib.Path,
                                                              picture: Callable) -> None:
  """Five images and a batch of four: each slot except the first has only one image."""
  for index in range(5):
    images.write_image(tmp_path / f'{index}.png', picture(20, 20, index))
  found = open_source(f'folder:{tmp_path}', 2)
  (tmp_path / '2.png').write_text('no picture')
  for seed in range(4):
    for batch in take(found, 12, seed=seed):
      assert batch['hr'].shape == (4, 16, 16, 3)


def test_a_pair_that_does_not_match_is_refused(tmp_path: pathlib.Path, picture: Callable) -> None:
  for index in range(5):
    images.write_image(tmp_path / 'hr' / f'{index}.png', picture(20, 20, index))
    images.write_image(tmp_path / 'lr' / f'{index}.png', picture(10 - (index == 3), 10, index))
  found = open_source(f'pairs:HR={tmp_path / "hr"},LR={tmp_path / "lr"}', 2)
  with pytest.raises(InputError, match=r'3\.png: .*\(20, 20, 3\).* 2 times .*\(18, 20, 3\)'):
    take(found, 8)


def test_a_set_without_a_usable_image_is_refused(tmp_path: pathlib.Path, picture: Callable) -> None:
  for index in range(5):
    images.write_image(tmp_path / f'{index}.png', picture(20, 20, index))
  found = open_source(f'folder:{tmp_path}', 2)
  for index in range(5):
    (tmp_path / f'{index}.png').write_text('no picture')
  with pytest.raises(InputError, match=r'no usable image: .*\.png.* \d more'):
    take(found, 1)


@pytest.mark.slow
def test_workers_with_pending_results_end_at_once(tmp_path: pathlib.Path,
                                                  picture: Callable) -> None:
  """Their results do not fit a pipe, and no process reads them."""
  for index in range(12):
    images.write_image(tmp_path / f'{index:02}.png', picture(120, 120, index))
  made = stream.batches(stream.CropSource(open_source(f'folder:{tmp_path}', 4), 0,
                                          CropSpec(4, 96, 4), 4), 0, 2, [])
  next(made)
  workers = multiprocessing.active_children()
  time.sleep(1)
  start = time.monotonic()
  made.close()
  assert time.monotonic() - start < 20
  assert len(workers) == 2
  assert not any(worker.is_alive() for worker in workers)


@pytest.mark.slow
def test_a_lost_worker_is_reported(many: list[Picture], monkeypatch: pytest.MonkeyPatch) -> None:
  made = stream.batches(stream.CropSource(many, 0, CROP_SPEC, 4), 0, 1, [])
  next(made)
  for process in multiprocessing.active_children():
    process.kill()
  with pytest.raises(InputError, match=r'worker .*--config\.data\.workers'):
    list(itertools.islice(made, 200))
