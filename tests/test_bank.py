"""The bank: packing, crops, determinism, faults."""

import functools

import jax
import numpy as np
import pytest

from sr_jax import images
from sr_jax.data import bank
from sr_jax.data.sources import SAMPLE_TRAIN, open_source
from sr_jax.errors import InputError


@pytest.fixture(scope='module')
def packed(folder):
  pictures, skipped = bank.pack(open_source(f'folder:{folder}'), scale=2, patch=16)
  assert skipped == []
  return pictures


@functools.partial(jax.jit, static_argnames=('augment', 'batch_size'))
def batch_at(pictures, seed, step, augment=True, batch_size=16):
  return bank.batch_at(pictures, seed, step, batch_size=batch_size, patch=16, scale=2,
                       augment=augment)


def occurrences(crop, whole):
  """Places (y, x) where uint8 crop lies in whole."""
  windows = np.lib.stride_tricks.sliding_window_view(whole, crop.shape)[:, :, 0]
  return np.argwhere((windows == crop).all((2, 3, 4)))


def test_crops_are_the_pictures_own_and_lr_lies_where_hr_does(packed, folder):
  originals = [images.crop_to_multiple(images.read_image(path), 2)
               for path in open_source(f'folder:{folder}')]
  small = [images.imresize(hr, 0.5) for hr in originals]
  seen = set()
  for step in range(4):
    batch = {name: images.to_uint8(value)
             for name, value in batch_at(packed, 7, step, augment=False).items()}
    assert batch['hr'].shape == (16, 16, 16, 3)
    assert batch['lr'].shape == (16, 8, 8, 3)
    for hr, lr in zip(batch['hr'], batch['lr'], strict=True):
      found = [(index, *place) for index, whole in enumerate(originals)
               for place in occurrences(hr, whole)]
      assert len(found) == 1
      index, y, x = found[0]
      seen.add((index, y, x))
      assert (y // 2, x // 2) in map(tuple, occurrences(lr, small[index]))
      assert y % 2 == x % 2 == 0
  assert {index for index, _, _ in seen} == set(range(5))
  assert len(seen) > 50  # places differ too


def test_every_place_can_be_drawn(tmp_path, picture):
  image = picture(20, 22)  # 3 x 4 places for 8-pixel LR crops
  images.write_image(tmp_path / 'a.png', image)
  pictures, _ = bank.pack(open_source(f'folder:{tmp_path}'), 2, 16)
  places = {tuple(place) for step in range(10)
            for crop in images.to_uint8(batch_at(pictures, 0, step, augment=False)['hr'])
            for place in occurrences(crop, image).tolist()}
  assert places == {(y, x) for y in (0, 2, 4) for x in (0, 2, 4, 6)}


def test_batch_is_a_function_of_seed_and_step(packed):
  again = [batch_at(packed, 3, 5), batch_at(packed, 3, 5)]
  other = [batch_at(packed, 3, 6), batch_at(packed, 4, 5)]
  np.testing.assert_array_equal(again[0]['hr'], again[1]['hr'])
  for batch in other:
    assert (np.asarray(batch['hr']) != again[0]['hr']).any()


def test_augmentation_is_the_eight_symmetries_alike_for_both(packed):
  kinds = set()
  for step in range(4):
    plain, turned = (batch_at(packed, 1, step, augment=flag) for flag in (False, True))
    for index in range(16):
      for kind in range(8):
        def move(x, kind=kind):
          x = x.swapaxes(0, 1) if kind & 1 else x
          x = x[:, ::-1] if kind & 2 else x
          return x[::-1] if kind & 4 else x
        if all((move(np.asarray(plain[name][index])) == turned[name][index]).all()
               for name in ('lr', 'hr')):
          kinds.add(kind)
          break
      else:
        pytest.fail('no symmetry of the square maps the plain crop to the augmented one')
  assert kinds == set(range(8))


def test_packing_wastes_little(tmp_path, picture, monkeypatch):
  monkeypatch.setattr(bank, 'CHUNK', 60_000)  # many rows, as gigabytes would make
  rng = np.random.default_rng(0)
  need = 0
  for index in range(40):
    height, width = rng.integers(16, 40, 2)
    images.write_image(tmp_path / f'{index:02}.png', picture(height, width, index))
    need += 3 * (height // 2) * (width // 2) * 5
  pictures, _ = bank.pack(open_source(f'folder:{tmp_path}'), 2, 16)
  assert pictures.pixels.shape[0] > 2
  assert pictures.pixels.shape[1] <= 60_000
  assert pictures.pixels.nbytes < 1.1 * need
  batch = batch_at(pictures, 0, 0, augment=False)
  assert np.asarray(batch['hr']).std() > 0


def test_bad_pictures_are_named_and_skipped(tmp_path, picture):
  images.write_image(tmp_path / 'good.png', picture(20, 20))
  images.write_image(tmp_path / 'small.png', picture(12, 40))
  images.write_image(tmp_path / 'cut.png', picture(40, 40))
  (tmp_path / 'cut.png').write_bytes((tmp_path / 'cut.png').read_bytes()[:-300])
  (tmp_path / 'text.png').write_text('no picture')
  pictures, skipped = bank.pack(open_source(f'folder:{tmp_path}'), 2, 16)
  assert len(pictures.table) == 1
  assert len(skipped) == 3
  for name in ('small.png: 12x40', 'cut.png: damaged', 'text.png: not a picture'):
    assert any(name in line for line in skipped), name
  good = images.to_uint8(batch_at(pictures, 0, 0, augment=False)['hr'])
  assert all(len(occurrences(crop, picture(20, 20))) for crop in good)


def test_nothing_usable_is_an_error(tmp_path, picture):
  images.write_image(tmp_path / 'small.png', picture(12, 40))
  with pytest.raises(InputError, match=r'small\.png: 12x40'):
    bank.pack(open_source(f'folder:{tmp_path}'), 2, 16)


def test_a_set_that_does_not_fit_says_what_it_needs(folder):
  paths = open_source(f'folder:{folder}')
  needed = bank.pack(paths, 2, 16)[0].pixels.nbytes
  assert bank.pack(paths, 2, 16, limit=needed)
  with pytest.raises(InputError, match=f'{needed:,} bytes'):
    bank.pack(paths, 2, 16, limit=needed - 1)


def test_grey_pictures_join_as_rgb(tmp_path, picture):
  images.write_image(tmp_path / 'grey.png', picture(20, 20)[..., :1])
  pictures, _ = bank.pack(open_source(f'folder:{tmp_path}'), 2, 16)
  hr = np.asarray(batch_at(pictures, 0, 0)['hr'])
  np.testing.assert_array_equal(hr[..., 0], hr[..., 2])


def test_sources(tmp_path, folder):
  sample, valid = open_source('sample'), open_source('sample:valid')
  assert [path.name for path in sample] == list(SAMPLE_TRAIN)
  assert not set(sample) & set(valid)
  for path in sample + valid:
    assert min(images.image_size(path)) >= 96, path
  assert [path.stem for path in open_source(f'folder:{folder}')] == list('01234')
  (tmp_path / 'empty').mkdir()
  for spec, message in (('folder:/nowhere', '/nowhere: no such folder'), ('coco', "'coco'"),
                        (f'folder:{tmp_path}/empty', 'no picture'), ('folder:', "'folder:'"),
                        ('folder:data/DIV2K/DIV2K_train_HR', ':sample')):
    with pytest.raises(InputError, match=message):
      open_source(spec)
