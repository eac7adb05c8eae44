"""Packed sets: waste, faults, and the cache that the next start finds."""

import errno
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from sr_jax import images
from sr_jax.data import file_hashes, packed
from sr_jax.data.pictures import Picture
from sr_jax.data.sources import open_source
from sr_jax.errors import InputError


def pack(found, cache, scale=2, channels=3):
  return packed.pack(packed.lay_out(found, scale, channels), scale, channels,
                     packed.folder_of(found, scale, channels, cache))


def pictures_of(held, scale=2, channels=3):
  """{name: (lr, hr)} of what lies in a packed set."""
  found = {}
  for name, (chunk, hr, lr, height, width) in zip(held.names, held.table.tolist(), strict=True):
    sizes = (height, width, channels), (height * scale, width * scale, channels)
    found[pathlib.Path(name).name] = tuple(
        held.pixels[chunk, at:at + np.prod(size)].reshape(size)
        for at, size in zip((lr, hr), sizes, strict=True))
  return found


def test_pictures_lie_there_with_matlabs_lr(folder, tmp_path):
  held = pack(open_source(f'folder:{folder}', 2), tmp_path)
  assert held.skipped == []
  for path in folder.iterdir():
    hr = images.crop_to_multiple(images.read_image(path), 2)
    lr, whole = pictures_of(held)[path.name]
    np.testing.assert_array_equal(whole, hr)
    np.testing.assert_array_equal(lr, images.imresize(hr, 1 / 2))


def test_pairs_keep_their_own_lr(tmp_path, picture):
  images.write_image(tmp_path / 'hr' / 'a.png', picture(20, 24))
  images.write_image(tmp_path / 'lr' / 'a.png', 255 - picture(10, 12))
  held = pack(open_source(f'pairs:HR={tmp_path / "hr"},LR={tmp_path / "lr"}', 2), tmp_path / 'c')
  np.testing.assert_array_equal(pictures_of(held)['a.png'][0], 255 - picture(10, 12))


def test_packing_wastes_little(tmp_path, picture, monkeypatch):
  monkeypatch.setattr(packed, 'CHUNK', 60_000)  # many rows, as gigabytes would make
  rng = np.random.default_rng(0)
  need = 0
  for index in range(40):
    height, width = rng.integers(16, 40, 2)
    images.write_image(tmp_path / 'set' / f'{index:02}.png', picture(height, width, index))
    need += 3 * (height // 2) * (width // 2) * 5
  held = pack(open_source(f'folder:{tmp_path / "set"}', 2), tmp_path / 'cache')
  assert held.pixels.shape[0] == 2
  assert held.pixels.shape[1] <= 60_000
  assert held.pixels.nbytes < 1.1 * need
  found = pictures_of(held)
  for index in range(40):
    np.testing.assert_array_equal(found[f'{index:02}.png'][1], images.crop_to_multiple(
        images.read_image(tmp_path / 'set' / f'{index:02}.png'), 2))


def test_bad_pictures_are_named_and_skipped(tmp_path, picture):
  images.write_image(tmp_path / 'good.png', picture(20, 20))
  images.write_image(tmp_path / 'small.png', picture(12, 40))
  images.write_image(tmp_path / 'cut.png', picture(40, 40))
  (tmp_path / 'cut.png').write_bytes((tmp_path / 'cut.png').read_bytes()[:-300])
  (tmp_path / 'text.png').write_text('no picture')
  held = pack(open_source(f'folder:{tmp_path}', 2), tmp_path / 'cache')
  assert list(pictures_of(held)) == ['good.png', 'small.png']
  held = packed.with_crops(held, 2, 16)
  assert list(pictures_of(held)) == ['good.png']
  np.testing.assert_array_equal(pictures_of(held)['good.png'][1], picture(20, 20))
  assert len(held.skipped) == 3
  for name in ('small.png: 12x40', 'cut.png: damaged', 'text.png: not a picture'):
    assert any(name in line for line in held.skipped), name
  with pytest.raises(InputError, match=r'no usable picture: .*\(and 3 more like it\)'):
    packed.with_crops(held, 2, 24)


def test_nothing_usable_is_an_error(tmp_path):
  (tmp_path / 'text.png').write_text('no picture')
  with pytest.raises(InputError, match=r'no usable picture: .*text\.png'):
    pack(open_source(f'folder:{tmp_path}', 2), tmp_path / 'cache')
  assert contents_of(tmp_path / 'cache') == []


@pytest.mark.parametrize(('lr', 'message'), [
    ((10, 11, 3), r'a\.png: 20x20 is not 2 times its LR, 10x11 .*b\.png'),
    ((10, 10, 1), r'a\.png: \(20, 20, 3\), expected 2 times its LR, \(20, 20, 1\)')])
def test_a_pair_that_does_not_fit_is_an_error(tmp_path, picture, lr, message):
  images.write_image(tmp_path / 'a.png', picture(20, 20))
  images.write_image(tmp_path / 'b.png', picture(*lr[:2])[..., :lr[2]])
  with pytest.raises(InputError, match=message):
    pack([Picture('a', tmp_path / 'a.png', tmp_path / 'b.png')], tmp_path / 'cache')
  assert not [path for path in tmp_path.glob('cache/*') if path.is_dir()]


def test_grey_pictures_join_as_rgb_and_all_become_luma(tmp_path, picture):
  images.write_image(tmp_path / 'grey.png', picture(20, 20)[..., :1])
  found = open_source(f'folder:{tmp_path}', 2)
  hr = pictures_of(pack(found, tmp_path / 'cache'))['grey.png'][1]
  np.testing.assert_array_equal(hr, images.as_rgb(picture(20, 20)[..., :1]))
  held = pack(found, tmp_path / 'cache', channels=1)
  assert pictures_of(held, channels=1)['grey.png'][0].shape == (10, 10, 1)
  assert held.pixels.nbytes == 20 * 20 * 5 // 4


# The cache -----------------------------------------------------------------------------


@pytest.fixture
def one(tmp_path, picture):
  images.write_image(tmp_path / 'set' / 'a.png', picture(20, 20))
  return open_source(f'folder:{tmp_path / "set"}', 2)


def test_the_next_start_decodes_nothing(one, tmp_path, monkeypatch):
  cache = tmp_path / 'cache'
  held = pack(one, cache)
  monkeypatch.setattr(images, 'read_image', None)
  again = packed.open_packed(packed.folder_of(one, 2, 3, cache))
  np.testing.assert_array_equal(again.pixels, held.pixels)
  np.testing.assert_array_equal(again.table, held.table)
  assert (again.names, again.skipped) == (held.names, held.skipped)


def test_it_is_keyed_by_content_and_settings(one, tmp_path, picture):
  def key(found, scale=2, channels=3):
    return packed.folder_of(found, scale, channels, tmp_path)

  first = key(one)
  assert first == key(one)
  assert len({first, key(one, 4), key(one, channels=1), key([one[0]._replace(resize='64')]),
              key([one[0]._replace(lr=one[0].hr)]), key(one * 2)}) == 6
  shutil.copytree(tmp_path / 'set', tmp_path / 'moved', copy_function=shutil.copyfile)
  assert key(open_source(f'folder:{tmp_path / "moved"}', 2)) == first
  # Another picture of the same name, size and time.
  about, path = one[0].hr.stat(), one[0].hr
  path.write_bytes(path.read_bytes()[:-1] + b'x')
  os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
  assert path.stat().st_size == about.st_size
  assert key(one) != first


def test_unchanged_files_are_not_read_again(one, tmp_path, monkeypatch):
  first = packed.folder_of(one, 2, 3, tmp_path)
  monkeypatch.setattr(file_hashes, '_hash', None)
  assert packed.folder_of(one, 2, 3, tmp_path) == first
  for text in ('', '[]', '{"a": 3}', 'null', '[' * 100_000):
    (tmp_path / file_hashes.KNOWN).write_text(text)
    with pytest.raises(TypeError):  # it would have to
      packed.folder_of(one, 2, 3, tmp_path)


@pytest.mark.parametrize('damage', [
    lambda folder: os.truncate(folder / 'pixels', 100),
    lambda folder: (folder / 'table.npy').unlink(),
    lambda folder: (folder / 'index.json').write_text('{"shape"'),
    lambda folder: (folder / 'index.json').write_text('{}'),
    lambda folder: os.truncate(folder / 'pixels', 0),
    lambda folder: (folder / 'table.npy').write_bytes(b''),
    lambda folder: (folder / 'table.npy').write_bytes(b'PK\x03\x04'),
    lambda folder: np.save(folder / 'table.npy', np.ones((1, 5))),
    lambda folder: np.save(folder / 'table.npy', np.int32([[0, 0, 2**30, 9, 9]])),  # beyond it
    lambda folder: np.save(folder / 'table.npy', np.int32([[9, 0, 0, 1, 1]])),
    lambda folder: np.save(folder / 'table.npy', np.int32([[0, -1, 0, 1, 1]])),
    lambda folder: (folder / 'index.json').write_text('null')])
def test_one_that_is_not_whole_is_packed_anew(one, tmp_path, damage):
  held = pack(one, tmp_path / 'cache')
  pixels, folder = np.array(held.pixels), packed.folder_of(one, 2, 3, tmp_path / 'cache')
  damage(folder)
  assert packed.open_packed(folder) is None
  np.testing.assert_array_equal(pack(one, tmp_path / 'cache').pixels, pixels)


def contents_of(cache):
  return sorted(path.name for path in cache.iterdir() if path.is_dir())


def test_a_full_disk_leaves_nothing(one, tmp_path, monkeypatch):
  def full(*arguments):
    raise OSError(errno.ENOSPC, 'No space left on device')

  for module, function in ((os, 'posix_fallocate'), (np, 'save')):
    with monkeypatch.context() as patch:
      patch.setattr(module, function, full)
      with pytest.raises(InputError, match=r'No space left.*--config\.data\.cache'):
        pack(one, tmp_path / 'cache')
      assert contents_of(tmp_path / 'cache') == []
  assert pack(one, tmp_path / 'cache')


def test_a_folder_that_can_not_be_made_is_named(one, tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match=r'file/\w+: the packed pictures can not be written'):
    pack(one, tmp_path / 'file')


PACK = '''
import sys
from sr_jax.data import packed, sources
found = sources.open_source(sys.argv[1], 2)
if len(sys.argv) > 2:  # stops while it packs
  packed._allocated = lambda path, shape: (print('now', flush=True), sys.stdin.read())
folder = packed.folder_of(found, 2, 3, packed.default_cache())
print(packed.pack(packed.lay_out(found, 2, 3), 2, 3, folder).pixels.sum())
'''


def process(tmp_path, *more):
  return subprocess.Popen([sys.executable, '-c', PACK, f'folder:{tmp_path / "set"}', *more],
                          env=os.environ | {'SR_JAX_CACHE': str(tmp_path)}, text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_what_a_killed_process_left_is_removed_but_not_what_one_works_on(one, tmp_path):
  cache = tmp_path / 'packed'
  with process(tmp_path, 'slowly') as other:
    assert other.stdout.readline() == 'now\n'
    packed.remove_leftovers(cache)
    assert len(list(cache.glob('*.unfinished'))) == 1
    with pytest.raises(BlockingIOError), packed._locked(packed.folder_of(one, 2, 3, cache), False):
      pass
    other.send_signal(signal.SIGKILL)
    other.wait()
  assert packed.open_packed(packed.folder_of(one, 2, 3, cache)) is None
  packed.remove_leftovers(cache)
  assert contents_of(cache) == []
  assert pack(one, cache)


def test_processes_that_pack_the_same_end_with_one_set(one, tmp_path):
  wanted = pack(one, tmp_path / 'alone').pixels.sum()
  others = [process(tmp_path) for _ in range(3)]
  assert [other.communicate()[0] for other in others] == [f'{wanted}\n'] * 3
  assert len(contents_of(tmp_path / 'packed')) == 1


def test_one_giant_among_small_ones_wastes_little(monkeypatch):
  monkeypatch.setattr(packed, 'CHUNK', 1000)
  needs = [10] * 300 + [900]
  places, (chunks, width) = packed._places(needs)
  assert chunks * width < 1.1 * sum(needs)
  taken = np.zeros((chunks, width), int)
  for (chunk, at), need in zip(places, needs, strict=True):
    taken[chunk, at:at + need] += 1
  assert taken.max() == 1
  assert taken.sum() == sum(needs)
