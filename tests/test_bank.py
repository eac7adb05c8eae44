"""The bank, and the same batches cut on the host from a mapped file."""

import functools
import itertools
import pathlib
from collections.abc import Callable

import jax
import numpy as np
import pytest

from sr_jax import images
from sr_jax.data import bank, mapped, pack_layout, packed
from sr_jax.data.sources import open_source


@pytest.fixture(scope='module')
def packed_set(folder: pathlib.Path, pack_folder: Callable) -> packed.Packed:
  return pack_folder(folder)


CROP_SPEC = bank.CropSpec(16, 16, 2)


@functools.partial(jax.jit, static_argnames='crop_spec')
def crops_at(pictures: bank.Bank, seed: int, step: int,
             crop_spec: bank.CropSpec = CROP_SPEC) -> dict[str, jax.Array]:
  return bank.crops_at(pictures, seed, step, crop_spec)


def occurrences(crop: np.ndarray, whole: np.ndarray) -> np.ndarray:
  """Positions (y, x) at which the crop occurs in the image `whole`."""
  windows = np.lib.stride_tricks.sliding_window_view(whole, crop.shape)[:, :, 0]
  return np.argwhere((windows == crop).all((2, 3, 4)))


def test_crops_occur_in_the_images_and_lr_lies_where_hr_does(packed_set: packed.Packed,
                                                             folder: pathlib.Path) -> None:
  originals = [images.crop_to_multiple(images.read_image(picture.hr), 2)
               for picture in open_source(f'folder:{folder}', 2)]
  small = [images.imresize(hr, 0.5) for hr in originals]
  seen, pictures = set(), bank.to_device(packed_set)
  for step in range(4):
    batch = jax.device_get(crops_at(pictures, 7, step))
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
  assert len(seen) > 50  # positions differ as well


def test_every_position_can_be_drawn(tmp_path: pathlib.Path, picture: Callable,
                                     pack_folder: Callable) -> None:
  image = picture(20, 22)  # 3 x 4 positions for 8-pixel LR crops
  images.write_image(tmp_path / 'a.png', image)
  pictures = bank.to_device(pack_folder(tmp_path))
  places = {tuple(place) for step in range(10)
            for crop in np.asarray(crops_at(pictures, 0, step)['hr'])
            for place in occurrences(crop, image).tolist()}
  assert places == {(y, x) for y in (0, 2, 4) for x in (0, 2, 4, 6)}


def test_batch_is_a_function_of_seed_and_step(packed_set: packed.Packed) -> None:
  pictures = bank.to_device(packed_set)
  same = [crops_at(pictures, 3, 5), crops_at(pictures, 3, 5)]
  other = [crops_at(pictures, 3, 6), crops_at(pictures, 4, 5)]
  np.testing.assert_array_equal(same[0]['hr'], same[1]['hr'])
  for batch in other:
    assert (np.asarray(batch['hr']) != same[0]['hr']).any()


@pytest.mark.optimised
@pytest.mark.parametrize(('channels', 'chunk'), [(3, 20_000), (1, 1 << 30)])
def test_mapped_batches_equal_those_of_the_bank_bit_for_bit(folder: pathlib.Path,
                                                            pack_folder: Callable,
                                                            monkeypatch: pytest.MonkeyPatch,
                                                            channels: int, chunk: int) -> None:
  monkeypatch.setattr(pack_layout, 'MAX_ROW_BYTES', chunk)  # several rows, as gigabytes have
  monkeypatch.setattr(mapped, 'STEPS_PER_DRAW', 4)
  packed_set = pack_folder(folder, channels=channels)
  assert (len(packed_set.pixels) > 1) == (channels == 3)
  crop_spec, pictures = bank.CropSpec(6, 16, 2, channels), bank.to_device(packed_set)
  made = mapped.batches(packed_set, 5, 3, crop_spec)
  for step, batch in enumerate(itertools.islice(made, 10), 3):
    wanted = crops_at(pictures, 5, step, crop_spec)
    assert batch['hr'].shape == (6, 16, 16, channels)
    for name in ('lr', 'hr'):
      np.testing.assert_array_equal(batch[name], wanted[name])
