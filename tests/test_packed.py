"""Packed sets: wasted space, errors, and reuse at the next start."""

import errno
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import imagecodecs
import numpy as np
import pytest

from sr_jax import images
from sr_jax.data import file_hashes, pack_layout, packed, stream
from sr_jax.data.pictures import Picture
from sr_jax.data.sources import open_source
from sr_jax.errors import InputError
from sr_jax.images import dropped


def pack(found: list[Picture], cache: pathlib.Path, scale: int = 2,
         channels: int = 3) -> packed.Packed:
  return packed.pack(pack_layout.lay_out(found, scale, channels), scale, channels,
                     packed.packed_folder(found, scale, channels, cache))


def images_of(packed_set: packed.Packed, scale: int = 2,
              channels: int = 3) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Returns {name: (lr, hr)} of a packed set."""
  found = {}
  rows = zip(packed_set.names, packed_set.table.tolist(), strict=True)
  for name, (chunk, hr, lr, height, width) in rows:
    sizes = (height, width, channels), (height * scale, width * scale, channels)
    found[pathlib.Path(name).name] = tuple(
        packed_set.pixels[chunk, at:at + np.prod(size)].reshape(size)
        for at, size in zip((lr, hr), sizes, strict=True))
  return found


def test_images_are_packed_with_matlabs_lr(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
  packed_set = pack(open_source(f'folder:{folder}', 2), tmp_path)
  assert packed_set.skipped == []
  for path in folder.iterdir():
    hr = images.crop_to_multiple(images.read_image(path), 2)
    lr, whole = images_of(packed_set)[path.name]
    np.testing.assert_array_equal(whole, hr)
    np.testing.assert_array_equal(lr, images.imresize(hr, 1 / 2))


def test_pairs_keep_their_separate_lr(tmp_path: pathlib.Path, picture: Callable) -> None:
  images.write_image(tmp_path / 'hr' / 'a.png', picture(20, 24))
  images.write_image(tmp_path / 'lr' / 'a.png', 255 - picture(10, 12))
  found = open_source(f'pairs:HR={tmp_path / "hr"},LR={tmp_path / "lr"}', 2)
  packed_set = pack(found, tmp_path / 'cache')
  np.testing.assert_array_equal(images_of(packed_set)['a.png'][0], 255 - picture(10, 12))


def test_packing_wastes_little_space(tmp_path: pathlib.Path, picture: Callable,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(pack_layout, 'MAX_ROW_BYTES', 60_000)  # several rows, as gigabytes have
  rng = np.random.default_rng(0)
  need = 0
  for index in range(40):
    height, width = rng.integers(16, 40, 2)
    images.write_image(tmp_path / 'set' / f'{index:02}.png', picture(height, width, index))
    need += 3 * (height // 2) * (width // 2) * 5
  packed_set = pack(open_source(f'folder:{tmp_path / "set"}', 2), tmp_path / 'cache')
  assert packed_set.pixels.shape[0] == 2
  assert packed_set.pixels.shape[1] <= 60_000
  assert packed_set.pixels.nbytes < 1.1 * need
  found = images_of(packed_set)
  for index in range(40):
    np.testing.assert_array_equal(found[f'{index:02}.png'][1], images.crop_to_multiple(
        images.read_image(tmp_path / 'set' / f'{index:02}.png'), 2))


def test_unusable_images_are_named_and_skipped(tmp_path: pathlib.Path, picture: Callable) -> None:
  images.write_image(tmp_path / 'good.png', picture(20, 20))
  images.write_image(tmp_path / 'small.png', picture(12, 40))
  images.write_image(tmp_path / 'cut.png', picture(40, 40))
  (tmp_path / 'cut.png').write_bytes((tmp_path / 'cut.png').read_bytes()[:-300])
  (tmp_path / 'text.png').write_text('no picture')
  packed_set = pack(open_source(f'folder:{tmp_path}', 2), tmp_path / 'cache')
  assert list(images_of(packed_set)) == ['good.png', 'small.png']
  packed_set = packed.drop_too_small(packed_set, 2, 16)
  assert list(images_of(packed_set)) == ['good.png']
  np.testing.assert_array_equal(images_of(packed_set)['good.png'][1], picture(20, 20))
  assert len(packed_set.skipped) == 3
  for name in ('small.png: 12x40', 'cut.png: damaged', 'text.png: not a supported image'):
    assert any(name in line for line in packed_set.skipped), name
  with pytest.raises(InputError) as refused:
    packed.drop_too_small(packed_set, 2, 24)
  causes = str(refused.value).removeprefix('config.data.source: no usable image: ').split('; ')
  assert 'small.png: 12x40' in causes[0]
  assert causes[0].endswith('(and 1 more like it)')  # the most frequent cause is the first
  assert [name for cause in causes[1:3] for name in ('cut.png', 'text.png') if name in cause] == [
      'cut.png', 'text.png']
  assert len(causes) == 4
  assert '--config.hr_patch' in causes[3]


def test_a_set_without_a_usable_image_is_refused(tmp_path: pathlib.Path) -> None:
  (tmp_path / 'text.png').write_text('no picture')
  with pytest.raises(InputError, match=r'no usable image: .*text\.png'):
    pack(open_source(f'folder:{tmp_path}', 2), tmp_path / 'cache')
  assert contents_of(tmp_path / 'cache') == []


@pytest.mark.parametrize(('lr', 'message'), [
    ((10, 11, 3), r'a\.png: 20x20 .* 2 times .*10x11 .*b\.png'),
    ((10, 10, 1), r'a\.png: .*\(20, 20, 3\).* 2 times .*\(20, 20, 1\)')])
def test_a_pair_that_does_not_match_is_refused(tmp_path: pathlib.Path, picture: Callable,
                                               lr: tuple[int, int, int], message: str) -> None:
  images.write_image(tmp_path / 'a.png', picture(20, 20))
  images.write_image(tmp_path / 'b.png', picture(*lr[:2])[..., :lr[2]])
  with pytest.raises(InputError, match=message):
    pack([Picture('a', tmp_path / 'a.png', tmp_path / 'b.png')], tmp_path / 'cache')
  assert not [path for path in tmp_path.glob('cache/*') if path.is_dir()]


def test_grey_images_become_rgb_and_all_become_luma_with_one_channel(tmp_path: pathlib.Path,
                                                                     picture: Callable) -> None:
  images.write_image(tmp_path / 'grey.png', picture(20, 20)[..., :1])
  found = open_source(f'folder:{tmp_path}', 2)
  hr = images_of(pack(found, tmp_path / 'cache'))['grey.png'][1]
  np.testing.assert_array_equal(hr, images.as_rgb(picture(20, 20)[..., :1]))
  packed_set = pack(found, tmp_path / 'cache', channels=1)
  assert images_of(packed_set, channels=1)['grey.png'][0].shape == (10, 10, 1)
  assert packed_set.pixels.nbytes == 20 * 20 * 5 // 4


# The cache -----------------------------------------------------------------------------


@pytest.fixture
def one(tmp_path: pathlib.Path, picture: Callable) -> list[Picture]:
  images.write_image(tmp_path / 'set' / 'a.png', picture(20, 20))
  return open_source(f'folder:{tmp_path / "set"}', 2)


def test_the_next_start_decodes_nothing(one: list[Picture], tmp_path: pathlib.Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
  cache = tmp_path / 'cache'
  packed_set = pack(one, cache)
  monkeypatch.setattr(images, 'read_with_notes', None)
  again = packed.open_packed(packed.packed_folder(one, 2, 3, cache), one)
  np.testing.assert_array_equal(again.pixels, packed_set.pixels)
  np.testing.assert_array_equal(again.table, packed_set.table)
  assert again[2:] == packed_set[2:]


def test_skipped_images_are_named_by_their_current_paths(
    tmp_path: pathlib.Path, picture: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
  for name, size in {'good': 20, 'small': 1, 'cut': 40, 'low': 40}.items():
    images.write_image(tmp_path / 'fa' / 'hr' / f'{name}.png', picture(size, size))
    images.write_image(tmp_path / 'fa' / 'hr-lr' / f'{name}.png', picture(max(1, size // 2),
                                                                      max(1, size // 2)))
  for place in ('hr/cut.png', 'hr-lr/low.png'):
    os.truncate(tmp_path / 'fa' / place, 400)
  (tmp_path / 'fa' / 'hr' / 'small.png').write_text('no picture')

  def opened(place: pathlib.Path) -> packed.Packed:
    found = open_source(f'pairs:HR={place / "hr"},LR={place / "hr-lr"}', 2)
    return packed.drop_too_small(pack(found, tmp_path / 'cache'), 2, 16)

  first = opened(tmp_path / 'fa')
  assert len(first.skipped) == 3
  (tmp_path / 'fa').rename(tmp_path / 'fb')
  monkeypatch.setattr(packed, '_decode_into', None)  # the packed set is used again
  again = opened(tmp_path / 'fb')
  assert again.names == [str(tmp_path / 'fb' / 'hr' / 'good.png')]
  assert again.skipped == [line.replace('/fa/', '/fb/') for line in first.skipped]
  assert [line.split(':')[0] for line in again.skipped] == [
      str(tmp_path / 'fb' / place) for place in ('hr/cut.png', 'hr-lr/low.png', 'hr/small.png')]


def test_what_reading_loses_is_stored_with_the_packed_set(tmp_path: pathlib.Path,
                                                          picture: Callable) -> None:
  (tmp_path / 'set').mkdir()
  alpha = np.full((20, 20, 1), 255, np.uint8)
  opaque = np.concatenate([picture(20, 20), alpha], -1)
  clear = np.concatenate([picture(20, 20), alpha // 2], -1)
  contents = {'a': opaque, 'b': clear, 'c': np.uint16(picture(20, 20)) * 257, 'd': picture(20, 20)}
  for name, array in contents.items():
    (tmp_path / 'set' / f'{name}.png').write_bytes(imagecodecs.png_encode(array))
  found = open_source(f'folder:{tmp_path / "set"}', 2)
  first = pack(found, tmp_path / 'cache')
  again = packed.open_packed(packed.packed_folder(found, 2, 3, tmp_path / 'cache'), found)
  assert first.notes == again.notes == [[], [dropped.ALPHA], [dropped.bits(16, 8)], []]
  lines = stream.sampled_notes(found)
  assert re.match(r'alpha .*: 2 of 4 images .*a\.png, .*b\.png', lines[0])  # headers alone
  assert re.match(r'16 bits .*: 1 of 4 images .*c\.png', lines[1])


def test_the_folder_depends_on_contents_and_settings(one: list[Picture], tmp_path: pathlib.Path,
                                                     picture: Callable) -> None:
  def key(found: list[Picture], scale: int = 2, channels: int = 3) -> pathlib.Path:
    return packed.packed_folder(found, scale, channels, tmp_path)

  first = key(one)
  assert first == key(one)
  assert len({first, key(one, 4), key(one, channels=1), key([one[0]._replace(resize='64')]),
              key([one[0]._replace(lr=one[0].hr)]), key(one * 2)}) == 6
  shutil.copytree(tmp_path / 'set', tmp_path / 'moved', copy_function=shutil.copyfile)
  assert key(open_source(f'folder:{tmp_path / "moved"}', 2)) == first
  # Other contents with the same name, size and modification time.
  status, path = one[0].hr.stat(), one[0].hr
  path.write_bytes(path.read_bytes()[:-1] + b'x')
  os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
  assert path.stat().st_size == status.st_size
  assert key(one) != first


def test_unchanged_files_are_not_read_again(one: list[Picture], tmp_path: pathlib.Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
  first = packed.packed_folder(one, 2, 3, tmp_path)
  monkeypatch.setattr(file_hashes, '_hash', None)
  assert packed.packed_folder(one, 2, 3, tmp_path) == first
  for text in ('', '[]', '{"a": 3}', 'null', '[' * 100_000):
    (tmp_path / file_hashes.CACHE_FILE).write_text(text)
    with pytest.raises(TypeError):  # reads them again
      packed.packed_folder(one, 2, 3, tmp_path)


@pytest.mark.parametrize('damage', [
    lambda folder: os.truncate(folder / 'pixels', 100),
    lambda folder: (folder / 'table.npy').unlink(),
    lambda folder: (folder / 'index.json').write_text('{"shape"'),
    lambda folder: (folder / 'index.json').write_text('{}'),
    lambda folder: os.truncate(folder / 'pixels', 0),
    lambda folder: (folder / 'table.npy').write_bytes(b''),
    lambda folder: (folder / 'table.npy').write_bytes(b'PK\x03\x04'),
    lambda folder: np.save(folder / 'table.npy', np.ones((1, 5))),
    lambda folder: np.save(folder / 'table.npy', np.int32([[0, 0, 2**30, 9, 9]])),  # too large
    lambda folder: np.save(folder / 'table.npy', np.int32([[9, 0, 0, 1, 1]])),
    lambda folder: np.save(folder / 'table.npy', np.int32([[0, -1, 0, 1, 1]])),
    lambda folder: (folder / 'index.json').write_text('null')])
def test_a_set_that_is_not_intact_is_packed_again(one: list[Picture], tmp_path: pathlib.Path,
                                                  damage: Callable) -> None:
  packed_set = pack(one, tmp_path / 'cache')
  pixels, folder = np.array(packed_set.pixels), packed.packed_folder(one, 2, 3, tmp_path / 'cache')
  damage(folder)
  assert packed.open_packed(folder, one) is None
  np.testing.assert_array_equal(pack(one, tmp_path / 'cache').pixels, pixels)


def contents_of(cache: pathlib.Path) -> list[str]:
  return sorted(path.name for path in cache.iterdir() if path.is_dir())


def test_a_full_disk_leaves_nothing(one: list[Picture], tmp_path: pathlib.Path,
                                    monkeypatch: pytest.MonkeyPatch) -> None:
  def full(*arguments: Any) -> None:
    raise OSError(errno.ENOSPC, 'No space left on device')

  for module, function in ((os, 'posix_fallocate'), (np, 'save')):
    with monkeypatch.context() as patch:
      patch.setattr(module, function, full)
      with pytest.raises(InputError, match=r'/cache/\w+: .*No space left.*--config\.data\.cache'):
        pack(one, tmp_path / 'cache')
      assert contents_of(tmp_path / 'cache') == []
  assert pack(one, tmp_path / 'cache')


def test_a_folder_that_cannot_be_created_is_named(one: list[Picture],
                                                  tmp_path: pathlib.Path) -> None:
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match=r'file/\w+: .*--config\.data\.cache'):
    pack(one, tmp_path / 'file')


PACK = '''
import sys
from sr_jax.data import pack_layout, packed, sources
found = sources.open_source(sys.argv[1], 2)
if len(sys.argv) > 2:  # blocks while it packs
  packed._allocate = lambda path, shape: (print('now', flush=True), sys.stdin.read())
folder = packed.packed_folder(found, 2, 3, packed.default_cache())
print(packed.pack(pack_layout.lay_out(found, 2, 3), 2, 3, folder).pixels.sum())
'''


def process(tmp_path: pathlib.Path, *more: str) -> subprocess.Popen:
  return subprocess.Popen([sys.executable, '-c', PACK, f'folder:{tmp_path / "set"}', *more],
                          env=os.environ | {'SR_JAX_CACHE': str(tmp_path)}, text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_leftovers_of_a_killed_process_are_removed_but_not_those_of_a_running_one(
    one: list[Picture], tmp_path: pathlib.Path) -> None:
  cache = tmp_path / 'packed'
  with process(tmp_path, 'slowly') as other:
    assert other.stdout.readline() == 'now\n'
    packed.remove_leftovers(cache)
    assert len(list(cache.glob('.unfinished-*'))) == 1
    folder = packed.packed_folder(one, 2, 3, cache)
    with pytest.raises(BlockingIOError), packed._locked(folder, False):
      pass
    other.send_signal(signal.SIGKILL)
    other.wait()
  assert packed.open_packed(packed.packed_folder(one, 2, 3, cache), one) is None
  packed.remove_leftovers(cache)
  assert contents_of(cache) == []
  assert pack(one, cache)


def test_threads_that_pack_the_same_images_share_one_set(one: list[Picture],
                                                         tmp_path: pathlib.Path) -> None:
  """Locks of files opened twice exclude each other within a process as between processes."""
  with ThreadPoolExecutor(3) as pool:
    sums = list(pool.map(lambda _: pack(one, tmp_path / 'cache').pixels.sum(), range(3)))
  assert sums == [pack(one, tmp_path / 'alone').pixels.sum()] * 3
  assert len(contents_of(tmp_path / 'cache')) == 1


@pytest.mark.slow
def test_processes_that_pack_the_same_images_share_one_set(one: list[Picture],
                                                           tmp_path: pathlib.Path) -> None:
  wanted = pack(one, tmp_path / 'alone').pixels.sum()
  others = [process(tmp_path) for _ in range(3)]
  assert [other.communicate()[0] for other in others] == [f'{wanted}\n'] * 3
  assert len(contents_of(tmp_path / 'packed')) == 1


def test_one_large_image_among_small_ones_wastes_little_space(
    monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(pack_layout, 'MAX_ROW_BYTES', 1000)
  needs = [10] * 300 + [900]
  places, (chunks, width) = pack_layout._places(needs)
  assert chunks * width < 1.1 * sum(needs)
  taken = np.zeros((chunks, width), int)
  for (chunk, at), need in zip(places, needs, strict=True):
    taken[chunk, at:at + need] += 1
  assert taken.max() == 1
  assert taken.sum() == sum(needs)
