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
from sr_jax.data import packed
from sr_jax.data.pictures import Picture
from sr_jax.data.sources import open_source
from sr_jax.errors import InputError


def pack(found, cache, scale=2, channels=3):
  return packed.pack(packed.plan(found, scale, channels), scale, channels,
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
  assert held.pixels.shape[0] > 2
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
  assert not (tmp_path / 'cache').exists()


@pytest.mark.parametrize(('lr', 'message'), [
    ((10, 11, 3), r'a\.png: 20x20 is not 2 times its LR, 10x11 .*b\.png'),
    ((10, 10, 1), r'a\.png: \(20, 20, 3\), expected 2 times its LR, \(20, 20, 1\)')])
def test_a_pair_that_does_not_fit_is_an_error(tmp_path, picture, lr, message):
  images.write_image(tmp_path / 'a.png', picture(20, 20))
  images.write_image(tmp_path / 'b.png', picture(*lr[:2])[..., :lr[2]])
  with pytest.raises(InputError, match=message):
    pack([Picture('a', tmp_path / 'a.png', tmp_path / 'b.png')], tmp_path / 'cache')
  assert not list(tmp_path.glob('cache/*'))


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
  shutil.copytree(tmp_path / 'set', tmp_path / 'moved')  # keeps times
  assert key(open_source(f'folder:{tmp_path / "moved"}', 2)) == first
  images.write_image(tmp_path / 'set' / 'a.png', 255 - picture(20, 20))
  assert key(one) != first


@pytest.mark.parametrize('damage', [
    lambda folder: os.truncate(folder / 'pixels', 100),
    lambda folder: (folder / 'table.npy').unlink(),
    lambda folder: (folder / 'index.json').write_text('{"shape"'),
    lambda folder: (folder / 'index.json').write_text('{}'),
    lambda folder: os.truncate(folder / 'pixels', 0)])
def test_one_that_is_not_whole_is_packed_anew(one, tmp_path, damage):
  held = pack(one, tmp_path / 'cache')
  pixels, folder = np.array(held.pixels), packed.folder_of(one, 2, 3, tmp_path / 'cache')
  damage(folder)
  assert packed.open_packed(folder) is None
  np.testing.assert_array_equal(pack(one, tmp_path / 'cache').pixels, pixels)


def test_a_full_disk_leaves_nothing(one, tmp_path, monkeypatch):
  def full(*arguments):
    raise OSError(errno.ENOSPC, 'No space left on device')

  for module, function in ((os, 'posix_fallocate'), (np, 'save')):
    with monkeypatch.context() as patch:
      patch.setattr(module, function, full)
      with pytest.raises(InputError, match=r'No space left.*--config\.data\.cache'):
        pack(one, tmp_path / 'cache')
      assert list((tmp_path / 'cache').iterdir()) == []
  assert pack(one, tmp_path / 'cache')


def test_a_folder_that_can_not_be_made_is_named(one, tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match=r'file/\w+: the packed pictures can not be written'):
    pack(one, tmp_path / 'file')


def test_what_a_killed_process_left_is_removed(one, tmp_path):
  """A process that is killed while it packs, and one that still does."""
  script = '''if True:
    import os, sys, time
    from sr_jax.data import packed, sources
    found = sources.open_source(sys.argv[1], 2)
    packed._allocated = lambda path, shape: (print('now', flush=True), time.sleep(600))
    folder = packed.folder_of(found, 2, 3, packed.default_cache())
    packed.pack(packed.plan(found, 2, 3), 2, 3, folder)
  '''
  with subprocess.Popen([sys.executable, '-c', script, f'folder:{tmp_path / "set"}'],
                        env=os.environ | {'SR_JAX_CACHE': str(tmp_path)}, text=True,
                        stdout=subprocess.PIPE) as process:
    assert process.stdout.readline() == 'now\n'
    cache = tmp_path / 'packed'
    assert len(list(cache.glob('*.unfinished'))) == 1
    assert pack(one, cache)  # the other one is not disturbed
    assert len(list(cache.glob('*.unfinished'))) == 1
    process.send_signal(signal.SIGKILL)
    process.wait()
  shutil.rmtree(packed.folder_of(one, 2, 3, cache))
  assert packed.open_packed(packed.folder_of(one, 2, 3, cache)) is None
  assert pack(one, cache)
  assert list(cache.glob('*.unfinished')) == []


def test_two_processes_at_once_end_with_one_set(one, tmp_path, monkeypatch):
  """The second finds, when it is through, that the first was faster."""
  allocated, first = packed._allocated, []

  def slower(path, shape):
    if not first:
      first.append(True)
      first.append(pack(one, tmp_path / 'cache'))
    return allocated(path, shape)

  monkeypatch.setattr(packed, '_allocated', slower)
  second = pack(one, tmp_path / 'cache')
  np.testing.assert_array_equal(second.pixels, first[1].pixels)
  assert len(list((tmp_path / 'cache').iterdir())) == 1
