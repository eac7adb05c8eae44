"""The feed: which mode is chosen, and that every mode resumes exactly."""

import dataclasses
import errno
import os
import pathlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
import pytest

from sr_jax import images
from sr_jax.data import bank, feed, feed_mode, pack_layout, packed
from sr_jax.data.augment import Augmentation
from sr_jax.data.bank import CropSpec
from sr_jax.data.feed import FeedSpec
from sr_jax.data.sources import open_source
from sr_jax.errors import InputError

SPEC = FeedSpec(CropSpec(4, 16, 2), 4, Augmentation(), seed=3, window=1)


@pytest.fixture
def opened(folder: pathlib.Path, tmp_path: pathlib.Path) -> Iterator[Callable]:
  """opened(mode, start, ...) -> a Feed of the five images, closed at the end of the test."""
  feeds = []

  def make(mode: str, start: int = 0, log: Callable[[str], None] = print,
           **options: Any) -> feed.Feed:
    spec = dataclasses.replace(SPEC, mode=mode, cache=tmp_path, **options)
    feeds.append(feed.open_feed(open_source(f'folder:{folder}', 2), spec, start, log))
    return feeds[-1]

  yield make
  for made in feeds:
    made.close()


def batches(opened_feed: feed.Feed, start: int, stops: Iterable[int]) -> list[bytes]:
  """Returns every batch from `start` on, taken in windows that end at `stops`, as bytes."""
  taken, batch_at = [], jax.jit(opened_feed.batch_at)
  for stop in stops:
    source = opened_feed.source_for(start, stop)
    taken += [jax.device_get(batch_at(source, 3, step)) for step in range(start, stop)]
    start = stop
  return [batch['lr'].tobytes() + batch['hr'].tobytes() for batch in taken]


def test_the_digest_of_earlier_versions() -> None:
  """A run that an earlier version has begun can be resumed and replayed."""
  assert feed._digest('set', SPEC, 'bank') == '9f7ea46ca6d4962a'
  assert feed._digest(['a.png'], SPEC, 'stream') == 'b7a873b728dca16a'


@pytest.mark.parametrize('mode', ['bank', 'mapped', 'stream'])
def test_a_feed_may_start_at_any_step_and_with_windows_of_any_length(opened: Callable,
                                                                     mode: str) -> None:
  whole = batches(opened(mode), 0, range(1, 13))
  assert len(set(whole)) == 12
  for start in (1, 6):
    assert batches(opened(mode, start), start, range(start + 1, 13)) == whole[start:]
  made = opened(mode, window=5)
  assert batches(made, 0, (1, 6, 8, 12)) == whole


def test_mapped_and_bank_have_the_same_batches(opened: Callable) -> None:
  assert batches(opened('mapped'), 0, range(1, 9)) == batches(opened('bank'), 0, range(1, 9))
  assert batches(opened('stream'), 0, range(1, 9)) != batches(opened('bank'), 0, range(1, 9))


def test_all_windows_have_one_shape(opened: Callable) -> None:
  made = opened('mapped', window=4)
  assert made.max_steps == 4
  assert {made.source_for(*steps).crops['hr'].shape for steps in ((0, 1), (1, 5), (5, 7))} == {
      (4, 4, 16, 16, 3)}


@pytest.mark.parametrize(('asked', 'budget', 'free', 'chosen'), [
    ('auto', 2.0, 4.0, 'bank'), ('auto', 0.5, 4.0, 'mapped'), ('auto', 2.0, 0.5, 'stream'),
    ('auto', 0.5, 0.5, 'stream'), ('packed', 0.5, 0.5, 'mapped'), ('packed', 2.0, 0.5, 'bank'),
    ('mapped', 2.0, 4.0, 'mapped')])
def test_the_mode_depends_on_the_bytes(opened: Callable, folder: pathlib.Path,
                                       monkeypatch: pytest.MonkeyPatch, asked: str, budget: float,
                                       free: float, chosen: str) -> None:
  layout = pack_layout.lay_out(open_source(f'folder:{folder}', 2), 2, 3)
  monkeypatch.setattr(bank, 'device_budget', lambda: int(budget * layout.bytes))
  monkeypatch.setattr(feed_mode.files, 'free_bytes', lambda path: int(free * layout.bytes))
  lines = []
  assert opened(asked, log=lines.append).mode == chosen
  assert len(lines) == 1 + (chosen == 'stream')
  assert re.match(rf'5 images .*({layout.bytes:,} bytes packed|[\d,]+ bytes in)', lines[0])


def test_bytes_are_logged_before_anything_is_allocated(opened: Callable,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(packed, 'pack', None)

  def log(line: str) -> None:
    raise KeyboardInterrupt(line)

  with pytest.raises(KeyboardInterrupt, match=r'5 images .*[\d,]+ bytes packed'):
    opened('auto', log=log)


def test_a_set_that_was_packed_needs_no_free_disk_space(opened: Callable,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
  opened('mapped')
  monkeypatch.setattr(feed_mode.files, 'free_bytes', lambda path: 0)
  assert opened('auto').mode == 'bank'


def test_a_bank_that_does_not_fit_names_the_bytes_that_it_needs(
    opened: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(bank, 'device_budget', lambda: 1000)
  with pytest.raises(InputError, match=r'config\.data\.mode=bank: .*[\d,]+ bytes .*1,000; mapped'):
    opened('bank')


def test_a_stream_needs_as_many_images_as_crops_in_a_batch(folder: pathlib.Path,
                                                           tmp_path: pathlib.Path) -> None:
  with pytest.raises(InputError, match=r'config\.data\.mode=stream: 5 .* 6'):
    feed.open_feed(open_source(f'folder:{folder}', 2), dataclasses.replace(
        SPEC, mode='stream', crop_spec=CropSpec(6, 16, 2), batch_size=6, cache=tmp_path))


@pytest.mark.parametrize('mode', ['auto', 'packed'])
@pytest.mark.parametrize('free', [0, 10_000])  # less than the files take; less than packed images
def test_a_small_set_and_a_full_disk_name_the_cache(
    folder: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, mode: str,
    free: int) -> None:
  monkeypatch.setattr(feed_mode.files, 'free_bytes', lambda path: free)
  monkeypatch.setattr(bank, 'device_budget', lambda: 10**6 if free else 0)

  def full(*arguments: Any) -> None:
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(os, 'posix_fallocate', full)
  with pytest.raises(InputError, match=rf'{tmp_path}.*config\.data\.cache=') as caught:
    feed.open_feed(open_source(f'folder:{folder}', 2), dataclasses.replace(
        SPEC, mode=mode, crop_spec=CropSpec(6, 16, 2), batch_size=6, cache=tmp_path))
  assert 'stream' not in str(caught.value)


@pytest.mark.parametrize('mode', ['mapped', 'stream'])
def test_closing_ends_the_thread(opened: Callable, mode: str) -> None:
  before = threading.active_count()
  made = opened(mode)
  made.source_for(0, 1)
  assert threading.active_count() == before + 1
  made.close()
  assert threading.active_count() == before


def test_errors_of_the_thread_are_raised_where_batches_are_taken(tmp_path: pathlib.Path,
                                                                 picture: Callable) -> None:
  for index in range(16):
    images.write_image(tmp_path / f'{index:02}.png', picture(20, 20, index))
  found = open_source(f'folder:{tmp_path}', 2)
  for index in (3, 7):
    (tmp_path / f'{index:02}.png').write_text('no picture')
  made = feed.open_feed(found, dataclasses.replace(
      SPEC, mode='stream', seed=0, window=feed_mode.MAX_WINDOW, cache=tmp_path))
  with pytest.raises(InputError, match=r'2 of 16 .*damaged'):
    batches(made, 0, range(1, 100))
  with pytest.raises(InputError, match=r'2 of 16 .*damaged'):
    made.source_for(100, 101)  # raises it again
  made.close()
  assert len(made.skipped) == 2


def test_one_crop_and_its_variants(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
  made = feed.open_feed(open_source(f'folder:{folder}', 2), dataclasses.replace(
      SPEC, crop_spec=CropSpec(1, 16, 2), batch_size=6, mode='mapped', cache=tmp_path))
  batch = jax.jit(made.batch_at)(made.source_for(0, 1), 0, 0)
  made.close()
  assert batch['hr'].shape == (6, 16, 16, 3)
  levels = np.sort(np.asarray(batch['hr']).reshape(6, -1), axis=1)
  np.testing.assert_array_equal(levels, levels[:1].repeat(6, 0))  # the same pixels, rearranged
