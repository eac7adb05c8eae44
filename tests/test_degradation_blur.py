"""Blur kernels, and the convolution of images of different sizes with kernels of their own."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from sr_jax.data.degradations.blur import KINDS, SINC, Blur, Sinc, convolve
from sr_jax.data.degradations.canvas import Canvas
from sr_jax.data.degradations.kernels import bessel_j1, bump_kernels, sinc_kernels

SIZES = ((40, 52), (31, 47), (12, 9), (4, 44), (1, 7), (44, 53))
CANVAS = (44, 53)
TOLERANCE = 2e-6

run = jax.jit(convolve)


def batch(channels, width=21, seed=0):
  """Returns images, the canvas that holds them with garbage around them, and random kernels."""
  rng = np.random.default_rng(seed)
  images = [np.float32(rng.random((*size, channels))) for size in SIZES]
  pixels = np.full((len(images), *CANVAS, channels), 7, np.float32)
  for number, image in enumerate(images):
    pixels[number, :image.shape[0], :image.shape[1]] = image
  kernels = rng.uniform(-0.2, 1, (len(images), width, width))
  kernels /= kernels.sum((1, 2), keepdims=True)
  return images, Canvas(jnp.asarray(pixels), jnp.asarray(SIZES, jnp.int32)), np.float32(kernels)


def correlate(image, kernel):
  """Filters [H, W, C] in float64, with NumPy's reflected border."""
  reach = len(kernel) // 2
  padded = np.pad(np.float64(image), ((reach, reach), (reach, reach), (0, 0)), mode='reflect')
  windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape, (0, 1))
  return np.einsum('hwcij,ij->hwc', windows, np.float64(kernel))


def expected_kernel(kind, size, sigma, rotation, exponent, cutoff, width):
  """Returns a kernel pixel by pixel in float64, by the inverse of its covariance matrix."""
  turn = np.array([[math.cos(rotation), -math.sin(rotation)],
                   [math.sin(rotation), math.cos(rotation)]])
  inverse = np.linalg.inv(turn @ np.diag(np.float64(sigma)**2) @ turn.T)
  kernel = np.zeros((width, width))
  reach = size // 2
  for y in range(-reach, reach + 1):
    for x in range(-reach, reach + 1):
      if kind == SINC:
        r = math.hypot(x, y)
        value = cutoff * special.j1(cutoff * r) / (2 * math.pi * r) if r else (
            cutoff**2 / (4 * math.pi))
      else:
        q = np.array([x, y]) @ inverse @ np.array([x, y])
        value = 1 / (1 + q**exponent) if kind >= 4 else math.exp(-0.5 * q**exponent)
      kernel[width // 2 + y, width // 2 + x] = value
  return kernel / kernel.sum()


def draw_many(stage, count, seed=1):
  draws = jax.jit(jax.vmap(stage.draw))(jax.random.split(jax.random.key(seed), count))
  return {name: np.asarray(value) for name, value in draws.items()}


def test_bessel_function():
  x = np.linspace(-60, 60, 10001).astype(np.float32)
  np.testing.assert_allclose(jax.jit(bessel_j1)(x), special.j1(np.float64(x)), rtol=0, atol=2e-6)
  np.testing.assert_allclose(bessel_j1(2 * x, 120.0), special.j1(2 * np.float64(x)), rtol=0,
                             atol=4e-6)


def test_the_widest_sinc_kernels_that_a_config_allows():
  kernels = sinc_kernels(np.array([51, 51]), np.float32([math.pi, math.pi / 3]), 51)
  for kernel, cutoff in zip(kernels, (math.pi, math.pi / 3), strict=True):
    expected = expected_kernel(SINC, 51, (1, 1), 0, 1, cutoff, 51)
    np.testing.assert_allclose(kernel, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize('width', [21, 13])
def test_drawn_kernels_equal_their_formulas(width):
  stage = Blur(kinds=(1, 1, 1, 1, 1, 1), sinc=0.2, size=(7, width))
  draws = draw_many(stage, 150)
  assert set(draws['kind']) == set(range(7))
  assert set(draws['size']) == set(range(7, width + 1, 2))
  kernels = np.asarray(jax.jit(stage.kernels)(draws))
  assert kernels.shape == (150, width, width)
  for number, kernel in enumerate(kernels):
    kind, size, sigma, rotation, exponent, cutoff = (
        draws[name][number]
        for name in ('kind', 'size', 'sigma', 'rotation', 'exponent', 'cutoff'))
    expected = expected_kernel(kind, size, sigma, rotation, exponent, cutoff, width)
    np.testing.assert_allclose(kernel, expected, rtol=0, atol=1e-6, err_msg=f'{number} {kind}')
    outside = np.ones((width, width), bool)
    outside[(inside := slice((width - size) // 2, (width + size) // 2)), inside] = False
    assert not kernel[outside].any()
    assert abs(kernel.sum() - 1) < 1e-5


def test_many_kernels_of_extreme_parameters():
  rng = np.random.default_rng(0)
  count = 60
  size = rng.choice([7, 21], count).astype(np.int32)
  sigma = np.float32(rng.choice([0.2, 3], (count, 2)))
  rotation, exponent = rng.uniform(-4, 4, (2, count)).astype(np.float32)
  exponent = np.where(exponent > 0, np.float32(4), np.float32(0.5))
  plateau = rng.random(count) < 0.5
  cutoff = np.float32(rng.choice([math.pi / 5, math.pi], count))
  bumps = bump_kernels(size, sigma, rotation, exponent, plateau, 21)
  sincs = sinc_kernels(size, cutoff, 21)
  for i in range(count):
    kind = 4 if plateau[i] else 0
    # Where q^4 is large, a relative error of q in float32 is multiplied by 4, then by the exponent.
    np.testing.assert_allclose(bumps[i], expected_kernel(
        kind, size[i], sigma[i], rotation[i], exponent[i], 0, 21), rtol=0, atol=2e-6)
    np.testing.assert_allclose(sincs[i], expected_kernel(
        SINC, size[i], (1, 1), 0, 1, cutoff[i], 21), rtol=0, atol=1e-6)


@pytest.mark.parametrize(('channels', 'width'), [(3, 21), (1, 21), (3, 13)])
def test_each_image_is_filtered_by_its_kernel(channels, width):
  images, canvas, kernels = batch(channels, width)
  result = run(canvas.pixels, canvas.sizes, kernels)
  assert np.isfinite(result).all()
  for number, image in enumerate(images):
    height, width = image.shape[:2]
    np.testing.assert_allclose(result[number, :height, :width], correlate(image, kernels[number]),
                               rtol=0, atol=TOLERANCE, err_msg=str(number))


def test_parts_of_a_large_canvas(monkeypatch):
  shape = (262, 12)
  # Images that fit into half, two thirds and all of the canvas, in both directions.
  sizes = ((90, 3), (131, 6), (140, 2), (30, 7), (175, 8), (60, 12), (262, 12))
  rng = np.random.default_rng(0)
  pixels = np.float32(rng.random((len(sizes), *shape, 1)))
  kernels = np.float32(rng.random((len(sizes), 7, 7)))
  kernels /= kernels.sum((1, 2), keepdims=True)
  results = []
  for backend in ('cpu', 'gpu'):  # the form of a GPU, run here
    monkeypatch.setattr(jax, 'default_backend', lambda backend=backend: backend)
    results.append(jax.jit(lambda: convolve(jnp.asarray(pixels), jnp.asarray(sizes), kernels))())
  for number, (height, width) in enumerate(sizes):
    expected = correlate(pixels[number, :height, :width], kernels[number])
    for result in results:
      np.testing.assert_allclose(result[number, :height, :width], expected, rtol=0, atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize('channels', [1, 3])
def test_filtering_equals_conv2d(channels):
  torch = pytest.importorskip('torch')
  functional = torch.nn.functional
  images, canvas, kernels = batch(channels, seed=1)
  result = run(canvas.pixels, canvas.sizes, kernels)
  for number, image in enumerate(images):
    if min(image.shape[:2]) < 11:  # which PyTorch doesn't reflect
      continue
    padded = functional.pad(torch.from_numpy(image.transpose(2, 0, 1)[:, None]), (10,) * 4,
                            mode='reflect')
    expected = functional.conv2d(padded, torch.from_numpy(kernels[number])[None, None])
    np.testing.assert_allclose(result[number, :image.shape[0], :image.shape[1]],
                               expected[:, 0].permute(1, 2, 0).numpy(), rtol=0, atol=TOLERANCE)


def test_the_stage_blurs_the_images_it_has_drawn():
  images, canvas, _ = batch(3)
  stage = Blur(probability=0.5)
  draws = draw_many(stage, len(SIZES))
  draws['blurred'] = np.arange(len(SIZES)) % 2 == 0
  result = jax.jit(lambda: stage.apply(canvas, draws, None, None))()
  kernels = stage.kernels(draws)
  np.testing.assert_array_equal(result.sizes, canvas.sizes)
  for number, image in enumerate(images):
    found = result.pixels[number, :image.shape[0], :image.shape[1]]
    if draws['blurred'][number]:
      np.testing.assert_allclose(found, correlate(image, kernels[number]), rtol=0, atol=TOLERANCE)
    else:
      np.testing.assert_array_equal(found, image)


def test_kernels_are_drawn_with_their_probabilities():
  stage = Blur(probability=0.8)
  draws = draw_many(stage, 40000)
  kind, exponent = draws['kind'], draws['exponent']
  shares = np.bincount(kind, minlength=7) / len(kind)
  np.testing.assert_allclose(shares, [*(0.9 * np.array(stage.kinds)), 0.1], atol=0.01)
  assert abs(draws['blurred'].mean() - 0.8) < 0.01
  np.testing.assert_allclose(np.bincount(draws['size'], minlength=22)[7::2] / len(kind), 1 / 8,
                             atol=0.01)
  sigma = draws['sigma']
  assert sigma.min() >= 0.2
  assert sigma.max() < 3
  turned = np.isin(kind, (1, 3, 5))
  np.testing.assert_array_equal(sigma[~turned, 0], sigma[~turned, 1])
  assert abs(np.corrcoef(sigma[turned].T)[0, 1]) < 0.05
  np.testing.assert_allclose(np.quantile(draws['rotation'][turned], (0, 0.25, 0.5, 0.75, 1)),
                             np.pi * np.array([-1, -0.5, 0, 0.5, 1]), atol=0.15)
  assert (exponent[kind < 2] == 1).all()
  general, plateau = exponent[(kind == 2) | (kind == 3)], exponent[(kind == 4) | (kind == 5)]
  for found, low, high in ((general, 0.5, 4), (plateau, 1, 2)):
    assert found.min() >= low
    assert found.max() < high
    assert abs(np.mean(found > 1) - 0.5) < 0.03
    assert abs(np.mean(found[found > 1]) - (1 + high) / 2) < 0.05
  assert (plateau == 1).mean() > 0.4  # whose range below 1 is empty
  small = draws['size'] < 13
  for cutoff, low in ((draws['cutoff'][small], np.pi / 3), (draws['cutoff'][~small], np.pi / 5)):
    np.testing.assert_allclose((cutoff.min(), np.median(cutoff), cutoff.max()),
                               (low, (low + np.pi) / 2, np.pi), atol=0.05)


def test_the_sinc_filter():
  images, canvas, _ = batch(3)
  stage = Sinc()
  draws = draw_many(stage, 20000)
  assert abs(draws['blurred'].mean() - 0.8) < 0.02
  assert set(draws['size']) == set(range(7, 22, 2))
  np.testing.assert_allclose(np.quantile(draws['cutoff'], (0, 0.5, 1)),
                             np.pi * np.array([1 / 3, 2 / 3, 1]), atol=0.05)
  few = {name: value[:len(SIZES)] for name, value in draws.items()}
  few['blurred'] = np.array([True, False] * 3)
  result = jax.jit(lambda: stage.apply(canvas, few, None, None))()
  for number, image in enumerate(images):
    found = result.pixels[number, :image.shape[0], :image.shape[1]]
    kernel = expected_kernel(SINC, few['size'][number], (1, 1), 0, 1, few['cutoff'][number], 21)
    expected = correlate(image, kernel) if few['blurred'][number] else image
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6)


def test_a_probability_of_zero_or_one_is_certain():
  draws = draw_many(Blur(probability=0, sinc=1, kinds=(0, 0, 1, 0, 0, 0)), 1000)
  assert not draws['blurred'].any()
  assert (draws['kind'] == SINC).all()
  draws = draw_many(Blur(sinc=0, kinds=(0, 0, 1, 0, 0, 0)), 1000)
  assert draws['blurred'].all()
  assert (draws['kind'] == 2).all()


def test_draws_in_words():
  draws = {'blurred': True, 'kind': 1, 'size': 13, 'sigma': (1.2, 0.4), 'rotation': math.pi / 2,
           'exponent': 0.75, 'cutoff': math.pi / 2}
  words = Blur().describe(draws)
  for part in ('anisotropic Gaussian', '13x13', '1.2 and 0.4', '90 degrees'):
    assert part in words
  assert 'exponent' not in words
  assert '0.75' in Blur().describe(draws | {'kind': 2})
  assert '0.50 pi' in Blur().describe(draws | {'kind': SINC})
  assert '0.50 pi' in Sinc().describe(draws)
  assert Blur().describe(draws | {'blurred': False}) == 'not blurred'
  assert len({Blur().describe(draws | {'kind': kind}) for kind in range(len(KINDS))}) == 7


def test_defaults_are_those_of_the_first_order():
  assert dataclasses.asdict(Blur()) == {
      'probability': 1.0, 'kinds': (0.45, 0.25, 0.12, 0.03, 0.12, 0.03), 'sinc': 0.1,
      'size': (7, 21), 'sigma': (0.2, 3.0), 'beta': (0.5, 4.0), 'plateau': (1.0, 2.0)}
