"""TIFF files with more than 8 bits per sample, and files written a few rows at a time."""

import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from sr_jax.errors import InputError
from sr_jax.media import photos, tiffs
from tests.test_photos import KINDS, MAKE, ORIENTATION, SRGB, STORED, all_channels, exif_of, noise


def test_kinds_of_tiff(tmp_path: Path) -> None:
  rgb = noise(20, 30, 3, np.uint16)
  grey, path = rgb[..., 0], tmp_path / 'a.tif'

  def read(array: np.ndarray, photometric: str = 'minisblack', **options: Any) -> photos.Photo:
    tifffile.imwrite(path, array, photometric=photometric, **options)
    return photos.read(path)

  np.testing.assert_array_equal(
      read(np.moveaxis(rgb, -1, 0).copy(), 'rgb', planarconfig='separate').samples, rgb)
  np.testing.assert_array_equal(read(grey, 'miniswhite').samples[..., 0], 65535 - grey)
  np.testing.assert_array_equal(read(rgb, 'rgb', tile=(16, 16)).samples, rgb)
  twelve = read(grey >> 4, bitspersample=12).samples[..., 0]
  np.testing.assert_array_equal(twelve, np.round((grey >> 4) / 4095 * 65535))
  np.testing.assert_array_equal(read(np.float32(grey / 65535)).samples[..., 0], grey)
  beyond = read(np.float32([[-1, 0, 0.5, 1, 7, np.nan]]))
  assert beyond.samples.ravel().tolist() == [0, 0, 32768, 65535, 65535, 0]
  assert '0 to 1' in beyond.note
  half = np.full((20, 30, 1), 32768, np.uint16)
  multiplied = np.uint16(np.round(rgb * (half / 65535)))
  unmixed = read(np.concatenate([multiplied, half], -1), 'rgb', extrasamples=['assocalpha'])
  assert np.abs(unmixed.samples.astype(int) - rgb).max() <= 1
  np.testing.assert_array_equal(unmixed.alpha, half)
  several = read(np.stack([rgb, rgb + 1]), 'rgb')
  np.testing.assert_array_equal(several.samples, rgb)
  assert re.search('first of 2 ', several.note)
  with pytest.raises(InputError, match='int16'):
    read(grey.astype(np.int16))


def test_deep_tiff_with_orientation(tmp_path: Path) -> None:
  upright = noise(12, 20, 3, np.uint16)
  tifffile.imwrite(tmp_path / 'a.tif', np.ascontiguousarray(STORED[6](upright)), photometric='rgb',
                   iccprofile=SRGB, extratags=[(ORIENTATION, 3, 1, 6, True),
                                               (MAKE, 2, None, b'Maker', True)])
  photo = photos.read(tmp_path / 'a.tif')
  np.testing.assert_array_equal(photo.samples, upright)
  assert photos.size(tmp_path / 'a.tif') == (12, 20)
  assert photo.icc == SRGB
  assert photos.write(tmp_path / 'b.tif', photo, 'tiff') == ''
  with tifffile.TiffFile(tmp_path / 'b.tif') as tiff:
    np.testing.assert_array_equal(tiff.asarray(), upright)
    tags = tiff.pages[0].tags
    assert tags.valueof(MAKE) == 'Maker'
    assert tags.valueof(ORIENTATION, 1) == 1
    assert tags.valueof(34675) == SRGB


@pytest.mark.parametrize(('channels', 'dtype'), KINDS)
def test_tiff_row_by_row(tmp_path: Path, channels: int, dtype: type,
                         monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(tiffs, '_STRIP_BYTES', 2000)
  array = noise(83, 41, channels, dtype)
  for name, sizes in {'one': [83], 'odd': [1, 7, 0, 30, 3, 42], 'big': [40, 43]}.items():
    with monkeypatch.context() as patch:
      if name == 'big':
        patch.setattr(tiffs, '_METADATA_BYTES', 2**32)  # as if the strips took 4 GB
      with photos.tiff_rows(tmp_path / name, (83, 41, channels), dtype, SRGB, exif_of()) as write:
        for end, count in zip(np.cumsum(sizes), sizes, strict=True):
          write(array[end - count:end])
        assert not (tmp_path / name).exists()
    with tifffile.TiffFile(tmp_path / name) as tiff:
      assert tiff.is_bigtiff == (name == 'big')
      np.testing.assert_array_equal(tiff.asarray().reshape(array.shape), array)
      assert len(tiff.pages[0].dataoffsets) > 1
      codes = [tag.code for tag in tiff.pages[0].tags]
      assert codes == sorted(codes)  # as TIFF 6.0 demands
      assert tiff.pages[0].tags.valueof(34675) == SRGB
      assert tiff.pages[0].tags.valueof(MAKE) == 'Maker'
    np.testing.assert_array_equal(all_channels(photos.read(tmp_path / name)), array)


def test_missing_rows_leave_no_file(tmp_path: Path) -> None:
  rows = np.zeros((4, 5, 3), np.uint8)

  def fail(*parts: np.ndarray, error: BaseException | None = None) -> None:
    with photos.tiff_rows(tmp_path / 'a.tif', (8, 5, 3), np.uint8) as write:
      for part in parts:
        write(part)
      if error:
        raise error

  for parts in ([rows], [rows] * 3, [rows[:, :4]] * 2, [np.uint16(rows)] * 2):
    with pytest.raises(ValueError, match='rows'):
      fail(*parts)
  with pytest.raises(KeyboardInterrupt):
    fail(rows, rows, error=KeyboardInterrupt())
  assert list(tmp_path.iterdir()) == []


def test_written_rows_are_not_kept_in_memory(tmp_path: Path) -> None:
  rows = np.random.default_rng(0).integers(0, 256, (100, 2000, 3), np.uint8)
  tracemalloc.start()
  with photos.tiff_rows(tmp_path / 'a.tif', (4000, 2000, 3), np.uint8) as write:
    for _ in range(40):
      write(rows)
  assert tracemalloc.get_traced_memory()[1] < 8 * 2**20  # the image has 24 million bytes
  tracemalloc.stop()
  assert photos.size(tmp_path / 'a.tif') == (4000, 2000)
