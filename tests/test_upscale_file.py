"""Tests of the processing of images around the network: alpha, colours, size, files."""

import itertools
import pathlib
from collections.abc import Callable

import numpy as np
import pytest

from sr_jax import images, restore
from sr_jax.errors import InputError
from sr_jax.inference import tiles, upscale_file
from sr_jax.inference.upscale_file import Extras, FileOptions
from sr_jax.inference.upscaler import Upscaler
from sr_jax.media import photos
from sr_jax.models import Compact
from tests.conftest import filled


@pytest.fixture(scope='module')
def upscaler() -> Upscaler:
  model = Compact(4, 1, scale=2)
  return Upscaler(model, filled(model, np.zeros((1, 8, 8, 3), np.float32)))


@pytest.fixture(scope='module')
def lr(picture: Callable) -> np.ndarray:
  return picture(18, 23)


def test_back_projection_removes_a_colour_shift(picture: Callable) -> None:
  """Each iteration brings the result's colours closer to LR's."""
  lr = images.to_float(picture(24, 31))
  shifted = images.imresize(lr, 4) + np.float32([0.1, 0, -0.05])

  def distance(sr: np.ndarray) -> float:
    return np.abs(images.imresize(sr, size=lr.shape[:2]) - lr).max()

  results = [upscale_file.backproject(shifted, lr, times) for times in (0, 1, 2, 5)]
  np.testing.assert_array_equal(results[0], shifted)
  distances = [distance(sr) for sr in results]
  assert distances[0] > 0.1
  assert distances[1] < 0.4 * distances[0]
  assert all(after < 0.7 * before for before, after in itertools.pairwise(distances))
  assert np.abs((results[3] - images.imresize(lr, 4)).mean((0, 1))).max() < 1e-3


def test_outscale_resamples_the_result(upscaler: Upscaler, lr: np.ndarray) -> None:
  full = upscaler(images.to_float(lr))
  for scale, size in ((3, (54, 69)), (1, (18, 23)), (0.5, (9, 12))):
    sr = upscale_file.upscale_samples(upscaler, lr, Extras(outscale=scale))
    assert (sr.shape, sr.dtype) == ((*size, 3), np.uint8)
    np.testing.assert_array_equal(sr, images.to_uint8(images.imresize(full, size=size)))


def test_an_ensemble_is_equivariant_to_rotation(upscaler: Upscaler, lr: np.ndarray) -> None:
  extras = Extras(ensemble=True)
  sr = upscale_file.upscale_samples(upscaler, lr, extras)
  rotated = np.ascontiguousarray(np.rot90(lr)[:, ::-1])
  turned = upscale_file.upscale_samples(upscaler, rotated, extras)
  np.testing.assert_allclose(np.rot90(turned[:, ::-1], -1), sr, atol=1)
  assert (sr != upscaler(lr)).any()


def test_correction_replaces_deviating_samples(upscaler: Upscaler, lr: np.ndarray) -> None:
  """With a threshold of 0 all samples are replaced; with 1 none."""
  bilinear = images.to_uint8(images.imresize(images.to_float(lr), 2, 'bilinear'))
  for threshold, want in ((0, bilinear), (1, upscaler(lr))):
    sr = upscale_file.upscale_samples(upscaler, lr, Extras(correct=(threshold,), kind='replace'))
    np.testing.assert_array_equal(sr, want)


def test_all_extras_together_keep_dtype_and_channels(upscaler: Upscaler, lr: np.ndarray) -> None:
  extras = Extras(True, 2, (0.3, 0.2, 0.3), 'smooth', 3)
  for samples in (lr, np.uint16(lr) * 257, lr[..., :1]):
    sr = upscale_file.upscale_samples(upscaler, samples, extras)
    assert (sr.shape, sr.dtype) == ((54, 69, samples.shape[2]), samples.dtype)
  deep = upscale_file.upscale_samples(upscaler, np.uint16(lr) * 257, extras)
  assert np.abs(deep / 257 - upscale_file.upscale_samples(upscaler, lr, extras)).max() < 0.51


def test_transparent_colours_do_not_bleed_in(upscaler: Upscaler) -> None:
  """A red disc on transparent green: no visible pixel becomes green."""
  y, x = np.mgrid[:24, :24] - 11.5
  alpha = np.uint8(255 * (y**2 + x**2 < 64))[..., None]
  samples = np.where(alpha > 0, np.uint8([200, 0, 0]), np.uint8([0, 255, 0]))
  solid = np.zeros_like(samples) + np.uint8([200, 0, 0])
  photo = upscale_file.upscale_photo(upscaler, photos.Photo(samples, alpha), Extras())
  assert photo.alpha.shape == (48, 48, 1)
  # The same result as without the other colour.
  np.testing.assert_array_equal(photo.samples, upscaler(solid))
  np.testing.assert_array_equal(photo.alpha, upscaler(alpha))


@pytest.mark.parametrize('level', [0, 128, 255])
def test_constant_alpha_is_kept(upscaler: Upscaler, lr: np.ndarray, level: int) -> None:
  photo = photos.Photo(lr, np.full((18, 23, 1), level, np.uint8))
  for extras, size in ((Extras(), (36, 46, 1)), (Extras(outscale=3), (54, 69, 1))):
    sr = upscale_file.upscale_photo(upscaler, photo, extras)
    assert (sr.alpha.shape, sr.samples.shape[:2]) == (size, size[:2])
    assert (sr.alpha == level).all()


def test_a_result_larger_than_memory_is_refused_at_once(upscaler: Upscaler, lr: np.ndarray,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(upscale_file, 'host_memory', lambda: 3000)
  with pytest.raises(InputError, match=r'46x36 .*0\.0 GiB.*--format tiff'):
    upscale_file.upscale_samples(upscaler, lr, Extras())


def test_a_result_that_the_format_cannot_store_is_refused_before_the_network_runs(
    upscaler: Upscaler, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  photos.write(tmp_path / 'a.png', photos.Photo(np.zeros((2, 9000, 3), np.uint8)), 'png')
  monkeypatch.setattr(upscale_file, 'upscale_photo', None)
  with pytest.raises(InputError, match=r'b\.webp: 18000x4 .*16383'):
    upscale_file.upscale_file(upscaler, tmp_path / 'a.png', tmp_path / 'b.webp',
                              FileOptions('webp'))
  assert [path.name for path in tmp_path.iterdir()] == ['a.png']


def test_a_tiff_need_not_fit_in_memory(upscaler: Upscaler, lr: np.ndarray, tmp_path: pathlib.Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
  images.write_image(tmp_path / 'a.png', lr)
  monkeypatch.setattr(upscale_file, 'host_memory', lambda: 3000)
  rows = []
  assert upscale_file.upscale_file(upscaler, tmp_path / 'a.png', tmp_path / 'a.tif',
                                   FileOptions('tiff'), on_progress=rows.append) == ''
  np.testing.assert_array_equal(images.read_image(tmp_path / 'a.tif'), upscaler(lr))
  assert sum(rows) == 18
  with pytest.raises(InputError, match=r'a\.png: .*46x36 .*GiB'):
    upscale_file.upscale_file(upscaler, tmp_path / 'a.png', tmp_path / 'b.png')
  assert not (tmp_path / 'b.png').exists()


@pytest.mark.slow
def test_back_projection_and_ensemble_on_photographs(assets: pathlib.Path) -> None:
  """With a published network on Set5, an ensemble is closer to HR, and back-projection brings the
  colours of the result to those of LR.
  """
  upscale = restore.load(assets / 'rrdb23_x4_realsr_df2k.safetensors').upscaler()
  lr = images.to_float(images.read_image(assets / 'Set5' / 'LRbicx4' / 'img_003.png'))
  hr = images.to_float(images.read_image(assets / 'Set5' / 'HR_x4' / 'img_003.png'))
  sr = upscale(lr)

  def error(x: np.ndarray) -> float:
    return np.square(np.clip(x, 0, 1) - hr).mean()

  assert error(tiles.ensemble(upscale, lr)) < error(sr)
  back = upscale_file.backproject(sr, lr, 5)
  assert error(back) < error(sr)
  small = images.imresize(back, size=lr.shape[:2])
  assert np.abs((small - lr).mean((0, 1))).max() < 0.1 / 255
