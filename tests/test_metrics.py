"""Metrics against their definitions, scikit-image, NumPy and published values."""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from sr_jax import images, metrics
from sr_jax.metrics.scorer import make_scorer
from sr_jax.models.lpips import LPIPS
from sr_jax.pretrained.lpips import load_lpips
from sr_jax.pretrained.vgg import lpips_package

PICTURES = arrays(np.uint8, (14, 13, 3))  # all of one shape, so that XLA compiles only once


def skimage_ssim(a: np.ndarray, b: np.ndarray) -> float:
  """Returns the mean SSIM over channels of [H, W, C] in [0, 255], in float64."""
  return structural_similarity(a.astype(np.float64), b.astype(np.float64), data_range=255,
                               channel_axis=-1, gaussian_weights=True, sigma=1.5,
                               use_sample_covariance=False)


def on_uint8(metric: Callable, a: np.ndarray, b: np.ndarray, border: int = 0) -> float:
  """Applies a metric of batches in [0, 1] to a pair of uint8 images."""
  return float(metric(*(images.to_float(x)[None] for x in (a, b)), border)[0])


def test_psnr_agrees_with_scikit_image(picture: Callable) -> None:
  a, b = picture(20, 30, 0), picture(20, 30, 1)
  assert on_uint8(metrics.psnr, a, b) == pytest.approx(peak_signal_noise_ratio(a, b), abs=1e-5)
  assert metrics.psnr(jnp.zeros((1, 4, 4, 1)), jnp.ones((1, 4, 4, 1))) == 0
  assert metrics.image_psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a, b), abs=1e-12)
  assert metrics.image_psnr(a, a) == float('inf')


@pytest.mark.optimised  # at 2e-6
def test_ssim_agrees_with_scikit_image(picture: Callable) -> None:
  a, b = picture(40, 30, 0), picture(40, 30, 1)
  near = a + np.uint8(3)
  for other in (b, near, 255 - a):
    assert on_uint8(metrics.ssim, a, other) == pytest.approx(skimage_ssim(a, other), abs=2e-6)
  # A flat image has no variance, so rounding errors would show.
  flat = np.full_like(a, 250)
  assert on_uint8(metrics.ssim, flat, flat - np.uint8(1)) == pytest.approx(
      skimage_ssim(flat, flat - np.uint8(1)), abs=2e-6)
  assert metrics.ssim_map(jnp.zeros((2, 15, 12, 3)), jnp.zeros((2, 15, 12, 3))).shape == (
      2, 5, 2, 3)


def test_a_batch_is_scored_image_by_image(picture: Callable) -> None:
  a, b = (np.stack([images.to_float(picture(20, 30, seed)) for seed in seeds])
          for seeds in ((0, 1), (2, 3)))
  for metric in (metrics.psnr, metrics.ssim):
    np.testing.assert_allclose(metric(a, b, 2), [metric(a[i:i + 1], b[i:i + 1], 2)[0]
                                                 for i in range(2)], rtol=1e-6)


def test_border_is_ignored(picture: Callable) -> None:
  a = picture(20, 30)
  b = a.copy()
  b[:3], b[-3:], b[:, :3], b[:, -3:] = 0, 0, 0, 0
  assert on_uint8(metrics.psnr, a, b) < 30
  assert on_uint8(metrics.psnr, a, b, 3) == float('inf')
  assert on_uint8(metrics.ssim, a, b) < 0.99
  assert on_uint8(metrics.ssim, a, b, 3) == pytest.approx(1, abs=1e-6)
  for metric, border in ((metrics.psnr, 10), (metrics.ssim, 5)):
    with pytest.raises(ValueError, match=rf'border.*\b{border}\b.*20x30'):
      on_uint8(metric, a, b, border)
    with pytest.raises(ValueError, match=r'20, 30, 3.*19, 30, 3'):
      on_uint8(metric, a, b[1:])


@settings(max_examples=40, deadline=None)
@given(PICTURES, PICTURES)
def test_properties_of_psnr_and_ssim(a: np.ndarray, b: np.ndarray) -> None:
  psnr, ssim = (on_uint8(metric, a, b) for metric in (metrics.psnr, metrics.ssim))
  assert psnr == on_uint8(metrics.psnr, b, a)
  assert ssim == pytest.approx(on_uint8(metrics.ssim, b, a), abs=1e-5)
  assert psnr >= 0
  assert (psnr == float('inf')) == np.array_equal(a, b)
  assert -1 <= ssim <= 1
  assert on_uint8(metrics.psnr, a, a) == float('inf')
  assert on_uint8(metrics.ssim, a, a) == pytest.approx(1, abs=1e-6)


def reference_scores(sr: np.ndarray, hr: np.ndarray, border: int) -> dict[str, float]:
  """Computes the protocol with NumPy in float64 and scikit-image."""
  inner = np.s_[border:sr.shape[0] - border, border:sr.shape[1] - border]
  sr, hr = (np.float64(images.as_rgb(x)[inner]) for x in (sr, hr))
  weights = np.array([65.481, 128.553, 24.966]) / 255
  sr_y, hr_y = ((x @ weights + 16)[..., None] for x in (sr, hr))
  return {'psnr_y': 10 * np.log10(255**2 / np.mean((sr_y - hr_y)**2)),
          'ssim_y': skimage_ssim(sr_y, hr_y),
          'psnr_rgb': 10 * np.log10(255**2 / np.mean((sr - hr)**2)),
          'ssim_rgb': skimage_ssim(sr, hr)}


@pytest.mark.parametrize('size', [
    (19, 19), (20, 300), (135, 136), (136, 137), (137, 254), (255, 253), (371, 60)])
def test_scores_by_tiles_follow_the_definition(picture: Callable, size: tuple[int, int]) -> None:
  """With a border of 4, tiles, their windows or their neighbours begin or end near these sizes."""
  sr, hr = picture(*size, 0), picture(*size, 1)
  hr = np.uint8((hr.astype(int) + 3 * sr) // 4)
  assert metrics.image_scores(sr, hr, 4) == pytest.approx(reference_scores(sr, hr, 4), abs=1e-5)


def test_flat_bright_images_keep_their_precision() -> None:
  """Float32 could lose the difference of squares in flat images, and padding could hide it."""
  for level, size in ((254, (40, 42)), (240, (109, 50)), (3, (150, 27))):
    hr = np.full((*size, 3), level, np.uint8)
    sr = hr + np.random.default_rng(0).integers(-1, 2, hr.shape).astype(np.uint8)
    for one in (sr, hr - np.uint8(1)):
      assert metrics.image_scores(one, hr, 4) == pytest.approx(
          reference_scores(one, hr, 4), abs=5e-6)


def test_all_shapes_share_one_compilation(picture: Callable) -> None:
  compiled = []

  def listen(event: str, _: float, **__: Any) -> None:
    if 'jaxpr_trace' in event:
      compiled.append(event)

  jax.monitoring.register_event_duration_secs_listener(listen)
  metrics.image_scores(picture(40, 30), picture(40, 30, 1), 2)
  jax.jit(lambda x: x + 1)(0)
  assert compiled  # the listener works
  compiled.clear()
  for size in ((41, 30), (30, 200), (133, 140), (16, 16), (300, 150)):
    metrics.image_scores(picture(*size), picture(*size, 1), 2)
  metrics.image_scores(picture(40, 30)[..., :1], picture(40, 30, 1)[..., :1], 4)
  jax.monitoring.unregister_event_duration_listener(listen)
  assert not compiled


def test_luma_of_colour_and_grey() -> None:
  hr = np.zeros((12, 12, 3), np.uint8)
  sr = hr.copy()
  sr[..., 1] = 255  # green alone moves luma by 128.553
  found = metrics.image_scores(sr, hr, 2)
  assert found['psnr_y'] == pytest.approx(20 * np.log10(255 / 128.553), abs=1e-5)
  assert found['psnr_rgb'] == pytest.approx(10 * np.log10(3), abs=1e-5)
  assert set(found) == {'psnr_y', 'psnr_rgb'}  # 8x8 pixels are smaller than SSIM's window
  # A grey image is scored on its channel: 255 levels, not luma's 219.
  assert metrics.image_scores(sr[..., 1:2], hr[..., :1], 2)['psnr_y'] == 0


def test_impossible_borders_and_shapes_are_refused(picture: Callable) -> None:
  a = picture(20, 30)
  assert metrics.image_scores(a, a, 0) == pytest.approx(
      {'psnr_y': np.inf, 'psnr_rgb': np.inf, 'ssim_y': 1, 'ssim_rgb': 1})
  with pytest.raises(ValueError, match=r'border.*\b10\b.*20x30'):
    metrics.image_scores(a, a, 10)
  with pytest.raises(ValueError, match=r'20, 30, 3.*20, 29, 3'):
    metrics.image_scores(a, a[:, 1:], 0)


@pytest.mark.parametrize('scale', [2, 3, 4])
def test_lr_consistency_reports_a_colour_shift(picture: Callable, scale: int) -> None:
  score = make_scorer(scale, 'none')
  hr = np.clip(picture(36, 48), 20, 200)
  lr = images.imresize(hr, 1 / scale)
  assert score(hr, hr, lr)['psnr_lr'] == float('inf')
  shifted = hr + np.uint8([10, 0, 0])  # red, by ten levels
  assert score(shifted, hr, lr)['psnr_lr'] == pytest.approx(10 * np.log10(3 * (255 / 10)**2),
                                                            abs=0.02)


# LPIPS ---------------------------------------------------------------------------------


def convolve(x: np.ndarray, layer: dict, stride: int = 1) -> np.ndarray:
  """Convolves [H, W, C] in float64, padded by k // 2, except AlexNet's first kernel by 2."""
  kernel, bias = (np.float64(layer.get(name, 0)) for name in ('kernel', 'bias'))
  around = 2 if len(kernel) == 11 else len(kernel) // 2
  x = np.pad(x, ((around, around), (around, around), (0, 0)))
  windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (0, 1))
  return np.einsum('hwcij,ijcd->hwd', windows[::stride, ::stride], kernel, optimize=True) + bias


def pool(x: np.ndarray, side: int) -> np.ndarray:
  windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), (0, 1))
  return windows[::2, ::2].max((-1, -2))


def lpips_in_numpy(network: str, a: np.ndarray, b: np.ndarray) -> float:
  """Computes LPIPS of [H, W, 3] in [0, 1] from the paper's description, in float64."""
  tree = lpips_package({'alex': 'alexnet', 'vgg': 'vgg16'}[network])

  def features(x: np.ndarray) -> Iterator[np.ndarray]:
    x = (2 * np.float64(x) - 1 - [-0.030, -0.088, -0.188]) / [0.458, 0.448, 0.450]
    if network == 'alex':
      for index in range(5):
        x = pool(x, 3) if index in (1, 2) else x
        x = np.maximum(convolve(x, tree['AlexNet_0'][f'Conv_{index}'], 1 if index else 4), 0)
        yield x
    else:
      layers = iter(range(13))
      for block, depth in enumerate((2, 2, 3, 3, 3)):
        x = pool(x, 2) if block else x
        for _ in range(depth):
          x = np.maximum(convolve(x, tree['VGG16_0'][f'Conv_{next(layers)}']), 0)
        yield x

  total = 0
  for index, (x, y) in enumerate(zip(features(a), features(b), strict=True)):
    x, y = (z / (np.sqrt((z**2).sum(-1, keepdims=True)) + 1e-10) for z in (x, y))
    head = np.float64(tree[f'NetLinLayer_{index}']['Conv_0']['kernel'])[0, 0, :, 0]
    total += ((x - y)**2 @ head).mean()
  return total


@pytest.mark.parametrize('network', ['alex', 'vgg'])
def test_lpips_agrees_with_numpy(network: str, picture: Callable) -> None:
  a, b = (images.to_float(picture(33, 38, seed)) for seed in (0, 1))
  found = jax.jit(LPIPS(network).apply)(load_lpips(network), a[None], b[None])
  assert float(found[0]) == pytest.approx(lpips_in_numpy(network, a, b), rel=1e-4)


@pytest.mark.parametrize('network', ['alex', pytest.param('vgg', marks=pytest.mark.slow)])
def test_lpips_of_the_authors_example(assets: pathlib.Path, network: str) -> None:
  reference, *others = (images.to_float(images.read_image(
      assets / 'lpips_ref' / f'ex_{name}.png'))[None] for name in ('ref', 'p0', 'p1'))
  variables = load_lpips(network)
  distance = LPIPS(network).apply  # not jitted: fusion would leave 3e-16 for equal images
  for other, published in zip(others, (0.722, 0.138), strict=True):
    found = float(distance(variables, other, reference)[0])
    if network == 'alex':
      assert found == pytest.approx(published, abs=5e-4)
    else:
      assert found == pytest.approx(lpips_in_numpy('vgg', other[0], reference[0]), rel=1e-4)
  assert float(distance(variables, reference, reference)[0]) == 0
