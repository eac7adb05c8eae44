"""Figures of merit against definitions, scikit-image, NumPy and published values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from sr_jax import images, metrics
from sr_jax.models.lpips import LPIPS
from sr_jax.pretrained.lpips import load_lpips
from sr_jax.pretrained.vgg import lpips_package

PICTURES = arrays(np.uint8, (14, 13, 3))  # of one shape: hypothesis draws many, XLA compiles one


def skimage_ssim(a, b):
  """Of [H, W, C] in [0, 255], the mean over channels, in float64."""
  return structural_similarity(a.astype(np.float64), b.astype(np.float64), data_range=255,
                               channel_axis=-1, gaussian_weights=True, sigma=1.5,
                               use_sample_covariance=False)


def on_255(figure, a, b, border=0):
  """A figure of [0, 1] pictures taken of a pair of uint8 ones."""
  return float(figure(*(images.to_float(x)[None] for x in (a, b)), border)[0])


def test_psnr_by_hand_and_by_scikit_image(picture):
  a, b = picture(20, 30, 0), picture(20, 30, 1)
  assert on_255(metrics.psnr, a, b) == pytest.approx(peak_signal_noise_ratio(a, b), abs=1e-5)
  assert metrics.psnr(jnp.zeros((1, 4, 4, 1)), jnp.ones((1, 4, 4, 1))) == 0
  assert metrics.image_psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a, b), abs=1e-12)
  assert metrics.image_psnr(a, a) == float('inf')


def test_ssim_is_scikit_images(picture):
  a, b = picture(40, 30, 0), picture(40, 30, 1)
  near = a + np.uint8(3)
  for other in (b, near, 255 - a):
    assert on_255(metrics.ssim, a, other) == pytest.approx(skimage_ssim(a, other), abs=2e-6)
  # A flat picture has no variance for rounding to hide in.
  flat = np.full_like(a, 250)
  assert on_255(metrics.ssim, flat, flat - np.uint8(1)) == pytest.approx(
      skimage_ssim(flat, flat - np.uint8(1)), abs=2e-6)
  assert metrics.ssim_map(jnp.zeros((2, 15, 12, 3)), jnp.zeros((2, 15, 12, 3))).shape == (
      2, 5, 2, 3)


def test_a_batch_is_its_pictures(picture):
  a, b = (np.stack([images.to_float(picture(20, 30, seed)) for seed in seeds])
          for seeds in ((0, 1), (2, 3)))
  for figure in (metrics.psnr, metrics.ssim):
    np.testing.assert_allclose(figure(a, b, 2), [figure(a[i:i + 1], b[i:i + 1], 2)[0]
                                                 for i in range(2)], rtol=1e-6)


def test_border_is_left_out(picture):
  a = picture(20, 30)
  b = a.copy()
  b[:3], b[-3:], b[:, :3], b[:, -3:] = 0, 0, 0, 0
  assert on_255(metrics.psnr, a, b) < 30
  assert on_255(metrics.psnr, a, b, 3) == float('inf')
  assert on_255(metrics.ssim, a, b) < 0.99
  assert on_255(metrics.ssim, a, b, 3) == pytest.approx(1, abs=1e-6)
  for figure, border in ((metrics.psnr, 10), (metrics.ssim, 5)):
    with pytest.raises(ValueError, match=f'border of {border}'):
      on_255(figure, a, b, border)
    with pytest.raises(ValueError, match='different shapes'):
      on_255(figure, a, b[1:])


@settings(max_examples=40, deadline=None)
@given(PICTURES, PICTURES)
def test_properties_of_psnr_and_ssim(a, b):
  psnr, ssim = (on_255(figure, a, b) for figure in (metrics.psnr, metrics.ssim))
  assert psnr == on_255(metrics.psnr, b, a)
  assert ssim == pytest.approx(on_255(metrics.ssim, b, a), abs=1e-5)
  assert psnr >= 0
  assert (psnr == float('inf')) == np.array_equal(a, b)
  assert -1 <= ssim <= 1
  assert on_255(metrics.psnr, a, a) == float('inf')
  assert on_255(metrics.ssim, a, a) == pytest.approx(1, abs=1e-6)


def reference_figures(sr, hr, border):
  """The protocol in NumPy's float64 and scikit-image."""
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
def test_whole_pictures_by_tiles_are_the_definition(picture, size):
  """Sizes about which a tile, its windows or its neighbour begin or end, with a border of 4."""
  sr, hr = picture(*size, 0), picture(*size, 1)
  hr = np.uint8((hr.astype(int) + 3 * sr) // 4)
  assert metrics.image_scores(sr, hr, 4) == pytest.approx(reference_figures(sr, hr, 4),
                                                               abs=1e-5)


def test_flat_bright_pictures_lose_no_digits():
  """Where float32's difference of squares would be lost, and padding could bring it back."""
  for level, size in ((254, (40, 42)), (240, (109, 50)), (3, (150, 27))):
    hr = np.full((*size, 3), level, np.uint8)
    sr = hr + np.random.default_rng(0).integers(-1, 2, hr.shape).astype(np.uint8)
    for one in (sr, hr - np.uint8(1)):
      assert metrics.image_scores(one, hr, 4) == pytest.approx(
          reference_figures(one, hr, 4), abs=5e-6)


def test_figures_of_a_batch_are_those_of_its_pictures(picture):
  sr, hr = (np.stack([picture(24, 32, seed) for seed in seeds]) for seeds in ((0, 1), (2, 3)))
  found = metrics.batch_scores(images.to_float(sr) + 1e-4, images.to_float(hr), 2)  # and rounds
  for index in range(2):
    expected = reference_figures(sr[index], hr[index], 2)
    assert {name: float(found[name][index]) for name in found} == pytest.approx(expected, abs=1e-4)


def test_one_compilation_whatever_the_shapes(picture):
  compiled = []

  def listen(event, _, **__):
    if 'jaxpr_trace' in event:
      compiled.append(event)

  jax.monitoring.register_event_duration_secs_listener(listen)
  metrics.image_scores(picture(40, 30), picture(40, 30, 1), 2)
  jax.jit(lambda x: x + 1)(0)
  assert compiled  # the listener hears
  compiled.clear()
  for size in ((41, 30), (30, 200), (133, 140), (16, 16), (300, 150)):
    metrics.image_scores(picture(*size), picture(*size, 1), 2)
  metrics.image_scores(picture(40, 30)[..., :1], picture(40, 30, 1)[..., :1], 4)
  jax.monitoring.unregister_event_duration_listener(listen)
  assert not compiled


def test_luma_of_colour_and_grey():
  hr = np.zeros((12, 12, 3), np.uint8)
  sr = hr.copy()
  sr[..., 1] = 255  # green alone moves luma by 128.553
  found = metrics.image_scores(sr, hr, 2)
  assert found['psnr_y'] == pytest.approx(20 * np.log10(255 / 128.553), abs=1e-5)
  assert found['psnr_rgb'] == pytest.approx(10 * np.log10(3), abs=1e-5)
  assert set(found) == {'psnr_y', 'psnr_rgb'}  # 8x8 pixels hold no window of SSIM's
  # A grey picture is scored on its channel: 255 levels, not luma's 219.
  assert metrics.image_scores(sr[..., 1:2], hr[..., :1], 2)['psnr_y'] == 0
  assert metrics.batch_scores(sr[None, ..., 1:2] / 255, hr[None, ..., :1] / 255, 0)['psnr_y'] == 0


def test_whole_pictures_refuse_what_makes_no_sense(picture):
  a = picture(20, 30)
  assert metrics.image_scores(a, a, 0) == pytest.approx(
      {'psnr_y': np.inf, 'psnr_rgb': np.inf, 'ssim_y': 1, 'ssim_rgb': 1})
  with pytest.raises(ValueError, match='border of 10'):
    metrics.image_scores(a, a, 10)
  with pytest.raises(ValueError, match='different shapes'):
    metrics.image_scores(a, a[:, 1:], 0)


def test_the_accumulator_is_the_mean_of_all_batches(picture):
  sr, hr = (np.stack([images.to_float(picture(24, 32, seed)) for seed in seeds])
            for seeds in ((0, 1, 2), (3, 4, 5)))
  collection = metrics.accumulator(2)

  @jax.jit
  def add(totals, sr, hr, mask):
    return totals.merge(collection.single_from_model_output(sr=sr, hr=hr, mask=mask))

  totals = add(collection.empty(), sr[:2], hr[:2], jnp.array([True, True]))
  # The last batch is filled up with a copy that does not count, though its PSNR is infinite.
  totals = add(totals, np.stack([sr[2], hr[0]]), np.stack([hr[2], hr[0]]),
               jnp.array([True, False]))
  assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(totals))
  expected = {name: float(values.mean()) for name, values in metrics.batch_scores(sr, hr, 2).items()}
  assert {name: float(value) for name, value in totals.compute().items()} == pytest.approx(
      expected, rel=1e-6)


@pytest.mark.parametrize('scale', [2, 3, 4])
def test_lr_consistency_sees_a_shift_of_colour(picture, scale):
  hr = np.clip(picture(36, 48), 20, 200)
  lr = images.imresize(hr, 1 / scale)
  hr, lr = (images.to_float(x)[None] for x in (hr, lr))
  assert metrics.lr_consistency(hr, lr, scale) == float('inf')
  shifted = hr + np.float32([10 / 255, 0, 0])  # red, by ten levels
  assert float(metrics.lr_consistency(shifted, lr, scale)[0]) == pytest.approx(
      10 * np.log10(3 * (255 / 10)**2), abs=0.02)


# LPIPS ---------------------------------------------------------------------------------


def convolve(x, layer, stride=1):
  """[H, W, C] by a kernel [k, k, C, D] in float64, padded by k // 2 but AlexNet's first by 2."""
  kernel, bias = (np.float64(layer.get(name, 0)) for name in ('kernel', 'bias'))
  around = 2 if len(kernel) == 11 else len(kernel) // 2
  x = np.pad(x, ((around, around), (around, around), (0, 0)))
  windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (0, 1))
  return np.einsum('hwcij,ijcd->hwd', windows[::stride, ::stride], kernel, optimize=True) + bias


def pool(x, side):
  windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), (0, 1))
  return windows[::2, ::2].max((-1, -2))


def lpips_in_numpy(network, a, b):
  """The distance of [H, W, 3] in [0, 1], from the paper's description, in float64."""
  tree = lpips_package({'alex': 'alexnet', 'vgg': 'vgg16'}[network])

  def features(x):
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
def test_lpips_is_numpys(network, picture):
  a, b = (images.to_float(picture(53, 46, seed)) for seed in (0, 1))
  found = LPIPS(network).apply(load_lpips(network), a[None], b[None])
  assert float(found[0]) == pytest.approx(lpips_in_numpy(network, a, b), rel=1e-4)


def test_lpips_of_the_authors_example(assets):
  reference, *others = (images.to_float(images.read_image(
      assets / 'lpips_ref' / f'ex_{name}.png'))[None] for name in ('ref', 'p0', 'p1'))
  for network in ('alex', 'vgg'):
    variables = load_lpips(network)
    for other, published in zip(others, (0.722, 0.138), strict=True):
      found = float(LPIPS(network).apply(variables, other, reference)[0])
      if network == 'alex':
        assert found == pytest.approx(published, abs=5e-4)
      else:
        assert found == pytest.approx(lpips_in_numpy('vgg', other[0], reference[0]), rel=1e-4)
    assert float(LPIPS(network).apply(variables, reference, reference)[0]) == 0
