"""How pictures are held: which way is chosen, and that every way resumes exactly."""

import re
import threading

import jax
import numpy as np
import pytest

from sr_jax import images
from sr_jax.data import bank, feed, packed
from sr_jax.data.augment import Augmentation
from sr_jax.data.bank import CropSpec
from sr_jax.data.sources import open_source
from sr_jax.errors import InputError

CUT = CropSpec(4, 16, 2)


@pytest.fixture
def opened(folder, tmp_path):
  """opened(mode, begin=..., ...) -> a Feed of the five pictures, closed at the end."""
  feeds = []

  def make(mode, begin=0, **options):
    options = {'seed': 3, 'window': 1, 'cache': tmp_path, 'say': print} | options
    feeds.append(feed.open_feed(open_source(f'folder:{folder}', 2), CUT, 4, Augmentation(),
                                mode=mode, begin=begin, **options))
    return feeds[-1]

  yield make
  for made in feeds:
    made.close()


def batches(made, begin, stops):
  """Every batch from `begin` on, taken in windows that end at `stops`, as bytes."""
  taken, batch_at = [], jax.jit(made.batch_at)
  for stop in stops:
    source = made.source_for(begin, stop)
    taken += [jax.device_get(batch_at(source, 3, step)) for step in range(begin, stop)]
    begin = stop
  return [batch['lr'].tobytes() + batch['hr'].tobytes() for batch in taken]


@pytest.mark.parametrize('mode', ['bank', 'mapped', 'stream'])
def test_any_step_may_be_the_first_and_windows_of_any_length(opened, mode):
  whole = batches(opened(mode), 0, range(1, 13))
  assert len(set(whole)) == 12
  for begin in (1, 6):
    assert batches(opened(mode, begin), begin, range(begin + 1, 13)) == whole[begin:]
  made = opened(mode, window=5)
  assert batches(made, 0, (1, 6, 8, 12)) == whole


def test_mapped_and_bank_are_one(opened):
  assert batches(opened('mapped'), 0, range(1, 9)) == batches(opened('bank'), 0, range(1, 9))
  assert batches(opened('stream'), 0, range(1, 9)) != batches(opened('bank'), 0, range(1, 9))


def test_windows_are_of_one_shape(opened):
  made = opened('mapped', window=4)
  assert made.max_steps == 4
  assert {made.source_for(*steps).crops['hr'].shape for steps in ((0, 1), (1, 5), (5, 7))} == {
      (4, 4, 16, 16, 3)}


@pytest.mark.parametrize(('asked', 'room', 'free', 'chosen'), [
    ('auto', 2.0, 4.0, 'bank'), ('auto', 0.5, 4.0, 'mapped'), ('auto', 2.0, 0.5, 'stream'),
    ('auto', 0.5, 0.5, 'stream'), ('packed', 0.5, 0.5, 'mapped'), ('packed', 2.0, 0.5, 'bank'),
    ('mapped', 2.0, 4.0, 'mapped')])
def test_the_mode_is_chosen_by_bytes(opened, folder, monkeypatch, asked, room, free, chosen):
  planned = packed.lay_out(open_source(f'folder:{folder}', 2), 2, 3)
  monkeypatch.setattr(bank, 'device_budget', lambda: int(room * planned.bytes))
  monkeypatch.setattr(feed.files, 'free_bytes', lambda path: int(free * planned.bytes))
  said = []
  assert opened(asked, say=said.append).mode == chosen
  assert len(said) == 1 + (chosen == 'stream')
  assert re.match(rf'5 pictures are ({planned.bytes:,} bytes packed|[\d,]+ bytes in)', said[0])


def test_bytes_are_said_before_anything_is_allocated(opened, monkeypatch):
  monkeypatch.setattr(packed, 'pack', None)

  def say(line):
    raise KeyboardInterrupt(line)

  with pytest.raises(KeyboardInterrupt, match=r'5 pictures are [\d,]+ bytes packed'):
    opened('auto', say=say)


def test_what_was_packed_needs_no_free_disk(opened, monkeypatch):
  opened('mapped')
  monkeypatch.setattr(feed.files, 'free_bytes', lambda path: 0)
  assert opened('auto').mode == 'bank'


def test_a_bank_that_does_not_fit_says_what_it_needs(opened, monkeypatch):
  monkeypatch.setattr(bank, 'device_budget', lambda: 1000)
  with pytest.raises(InputError, match=r"bank: the pictures need [\d,]+ bytes .*1,000; mapped"):
    opened('bank')


def test_a_stream_needs_a_batch_of_pictures(folder, tmp_path):
  with pytest.raises(InputError, match='5 pictures are fewer than a batch of 6'):
    feed.open_feed(open_source(f'folder:{folder}', 2), CUT._replace(count=6), 6, Augmentation(),
                   mode='stream', seed=0, begin=0, cache=tmp_path)


@pytest.mark.parametrize('mode', ['mapped', 'stream'])
def test_closing_ends_the_thread(opened, mode):
  before = threading.active_count()
  made = opened(mode)
  made.source_for(0, 1)
  assert threading.active_count() == before + 1
  made.close()
  assert threading.active_count() == before


def test_faults_of_the_thread_are_raised_where_batches_are_taken(tmp_path, picture):
  for index in range(16):
    images.write_image(tmp_path / f'{index:02}.png', picture(20, 20, index))
  found = open_source(f'folder:{tmp_path}', 2)
  for index in (3, 7):
    (tmp_path / f'{index:02}.png').write_text('no picture')
  made = feed.open_feed(found, CUT, 4, Augmentation(), mode='stream', seed=0, begin=0)
  with pytest.raises(InputError, match='2 of 16 pictures are damaged'):
    batches(made, 0, range(1, 100))
  with pytest.raises(InputError, match='2 of 16 pictures are damaged'):
    made.source_for(100, 101)  # and again
  made.close()
  assert len(made.skipped) == 2


def test_one_crop_and_its_variants(folder, tmp_path):
  made = feed.open_feed(open_source(f'folder:{folder}', 2), CUT._replace(count=1), 6,
                        Augmentation(), mode='mapped', seed=0, begin=0, cache=tmp_path)
  batch = made.batch_at(made.source_for(0, 1), 0, 0)
  made.close()
  assert batch['hr'].shape == (6, 16, 16, 3)
  levels = np.sort(np.asarray(batch['hr']).reshape(6, -1), axis=1)
  np.testing.assert_array_equal(levels, levels[:1].repeat(6, 0))  # the same pixels, turned
