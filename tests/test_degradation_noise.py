"""Noise on the device: its numbers against NumPy and SciPy in float64, and the stages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.extend import random as jax_random

from sr_jax.data.degradations import random_numbers
from sr_jax.data.degradations.canvas import Canvas, Goal
from sr_jax.data.degradations.noise import (
  Impulse,
  Noise,
  count_levels,
  impulses,
  random_mix,
  round_to_levels,
)

SIDE = 160


def keys(count: int, seed: int = 0) -> jax.Array:
  return jax.random.split(jax.random.key(seed), count)


def run(stage: Noise | Impulse, pixels: np.ndarray, draws: dict, seed: int = 0) -> np.ndarray:
  """Applies a stage to images that fill their canvas."""
  batch = len(pixels)
  sizes = jnp.tile(jnp.array(pixels.shape[1:3]), (batch, 1))
  draws = {name: jnp.broadcast_to(value, (batch, *np.shape(value)))
           for name, value in draws.items()}
  apply = jax.jit(lambda pixels, draws, keys: stage.apply(
      Canvas(pixels, sizes), draws, keys, Goal(sizes, pixels.shape[1:3])).pixels)
  return np.asarray(apply(pixels, draws, keys(batch, seed)), np.float64)


def settings(**changes: object) -> dict:
  return {'apply': np.True_, 'gaussian': np.True_, 'sigma': np.float32(10), 'scale': np.float32(1),
          'grey': np.False_} | changes


def assert_uncorrelated(first: np.ndarray, second: np.ndarray) -> None:
  """Asserts a correlation below 4.5 standard deviations of that of independent numbers."""
  correlation = np.corrcoef(first.ravel(), second.ravel())[0, 1]
  assert abs(correlation) < 4.5 / np.sqrt(first.size), correlation


def test_threefry_is_that_of_jax():
  rng = np.random.default_rng(0)
  key, counter = rng.integers(0, 2**32, (2, 2), np.uint32), np.arange(2**31, 2**31 + 64)
  words = jax_random.threefry_2x32(jnp.asarray(key[0]), jnp.asarray(counter, jnp.uint32))
  ours = random_numbers.threefry(tuple(key[0]), tuple(jnp.asarray(counter, jnp.uint32)
                                                      .reshape(2, 32)))
  np.testing.assert_array_equal(np.concatenate(ours), words)


def test_uniform_numbers_are_uniform_and_independent():
  numbers = np.asarray(random_numbers.uniforms(keys(2), SIDE, 3 * SIDE, 3, jnp.zeros(2, bool)))
  assert numbers.min() > 0
  assert numbers.max() < 1
  assert scipy.stats.kstest(numbers.ravel(), 'uniform').pvalue > 1e-4
  pixels = numbers.reshape(2, SIDE, SIDE, 3)
  assert_uncorrelated(pixels[0], pixels[1])
  assert_uncorrelated(pixels[..., 0], pixels[..., 1])
  assert_uncorrelated(pixels[:, :-1], pixels[:, 1:])
  assert_uncorrelated(pixels[:, :, :-1], pixels[:, :, 1:])


def test_a_number_depends_on_key_and_position_alone():
  grey = jnp.array([False, True])
  whole = np.asarray(random_numbers.uniforms(keys(2), 8, 30, 3, grey))
  np.testing.assert_array_equal(random_numbers.uniforms(keys(2)[1:], 5, 12, 3, grey[1:])[0],
                                whole[1, :5, :12])
  assert (np.ptp(whole[1].reshape(8, 10, 3), axis=2) == 0).all()
  assert (np.ptp(whole[0].reshape(8, 10, 3), axis=2) > 0).all()


def test_normal_numbers_are_quantiles():
  uniform = random_numbers.uniform(jnp.asarray(np.array([0, 2**31, 2**32 - 1], np.uint32)))
  assert np.isfinite(random_numbers.normal(uniform)).all()
  uniform = np.asarray(random_numbers.uniform(np.uint32(np.linspace(0, 2**32 - 1, 1001))))
  np.testing.assert_allclose(random_numbers.normal(uniform),
                             scipy.stats.norm.ppf(uniform.astype(np.float64)), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize('rate', [0., .1, .7, 3., 5.99, 6., 12., 50., 200., 256.])
def test_poisson_numbers_follow_the_distribution(rate: float):
  count = 200_000
  uniform = random_numbers.uniforms(keys(1, int(10 * rate)), 1, count, 1, jnp.zeros(1, bool))[0, 0]
  sample = np.asarray(jax.jit(random_numbers.poisson)(
      jnp.full(count, rate, jnp.float32), uniform, random_numbers.normal(uniform)), np.float64)
  assert (sample == np.floor(sample)).all()
  if not rate:
    assert not sample.any()
    return
  numpy = np.random.default_rng(0).poisson(rate, count)
  assert abs(sample.mean() - rate) < 4.5 * np.sqrt(rate / count)
  assert abs(sample.var() / rate - 1) < 4.5 * np.sqrt((2 + 1 / rate) / count) + 6e-4
  assert abs(scipy.stats.skew(sample) - scipy.stats.skew(numpy)) < 9 * np.sqrt(
      (6 + 20 / rate) / count)
  # Two samples of NumPy are as far apart with probability 0.999.
  bins = np.arange(sample.max() + 2)
  distance = np.abs(np.searchsorted(np.sort(sample), bins, 'right')
                    - np.searchsorted(np.sort(numpy), bins, 'right')).max() / count
  assert distance < 1.95 * np.sqrt(2 / count)
  exact = scipy.stats.poisson.ppf(np.asarray(uniform, np.float64), rate)
  assert np.abs(sample - exact).max() <= 1
  assert (sample != exact).mean() < 2e-3


def test_count_of_levels_is_that_of_numpy():
  rng = np.random.default_rng(0)
  levels = np.stack([rng.integers(0, high, (24, 18)) * step for high, step in
                     ((256, 1), (2, 255), (1, 1), (33, 7), (5, 32))]).astype(np.float32)
  inside = np.zeros(levels.shape, bool)
  inside[:, :20, :12] = True
  np.testing.assert_array_equal(jax.jit(count_levels)(levels, inside),
                                [len(np.unique(image[:20, :12])) for image in levels])


@pytest.mark.parametrize('channels', [3, 1])
@pytest.mark.parametrize('sigma', [1., 8., 30.])
def test_gaussian_noise_has_its_moments(sigma: float, channels: int):
  pixels = np.full((2, SIDE, SIDE, channels), .5, np.float32)
  noise = 255 * (run(Noise(), pixels, settings(sigma=np.float32(sigma))) - .5)
  count = noise.size
  assert abs(noise.mean()) < 4.5 * sigma / np.sqrt(count)
  assert abs(noise.std() / sigma - 1) < 4.5 / np.sqrt(2 * count)
  assert abs(scipy.stats.skew(noise.ravel())) < 4.5 * np.sqrt(6 / count)
  assert scipy.stats.kstest(noise.ravel() / sigma, 'norm').pvalue > 1e-4


def test_grey_noise_is_equal_in_all_channels():
  pixels = np.random.default_rng(0).uniform(.3, .7, (2, SIDE, SIDE, 3)).astype(np.float32)
  for gaussian in (np.True_, np.False_):
    noise = run(Noise(), pixels, settings(gaussian=gaussian, grey=np.True_,
                                          scale=np.float32(.5))) - pixels
    assert np.ptp(noise, axis=3).max() < 2e-7
    assert noise.std() > .01
    assert_uncorrelated(noise[0, ..., 0], noise[1, ..., 0])
    assert_uncorrelated(noise[:, :, 1:, 0], noise[:, :, :-1, 0])


@pytest.mark.parametrize('grey', [False, True])
def test_poisson_noise_has_the_variance_of_counted_photons(grey: bool):
  """20 levels in an image count as 32, so the noise of value x has variance x / 32."""
  ramp = np.repeat(np.arange(40, 120, 4), 8) / 255
  pixels = np.broadcast_to(np.float32(ramp)[None, None, :, None], (4, SIDE, SIDE, 3))
  scale = .4
  noise = run(Noise(), pixels, settings(gaussian=np.False_, grey=np.bool_(grey),
                                        scale=np.float32(scale))) - pixels
  noise = noise[..., :1] if grey else noise
  columns = noise.transpose(2, 0, 1, 3).reshape(20, -1)
  count = columns.shape[1]
  deviation = scale * np.sqrt(ramp[::8] / 32)
  assert (np.abs(columns.mean(1)) < 4.5 * deviation / np.sqrt(count)).all()
  assert (np.abs(columns.std(1) / deviation - 1) < 4.5 / np.sqrt(count)).all()
  steps = columns / scale * 32 + 32 * ramp[::8, None]  # counts
  assert np.abs(steps - np.round(steps)).max() < 1e-3


def test_correlated_noise_has_the_covariance_of_its_mix():
  mixes = np.asarray(jax.vmap(random_mix)(keys(500)), np.float64)
  covariance = mixes @ mixes.transpose(0, 2, 1)
  assert (covariance > -1e-6).all()
  assert abs(np.trace(covariance, axis1=1, axis2=2).mean() - 1.5) < .1
  pixels = np.full((1, SIDE, SIDE, 3), .5, np.float32)
  noise = run(Noise(correlated=1.), pixels,
              settings(correlated=np.True_, mix=np.float32(mixes[0]),
                       sigma=np.float32(20))) - .5
  measured = np.cov(noise.reshape(-1, 3).T) / (20 / 255)**2
  np.testing.assert_allclose(measured, covariance[0], atol=6 / SIDE)


def test_noise_leaves_others_alone_and_clips():
  pixels = np.random.default_rng(0).random((3, 12, 12, 3), np.float32)
  apply = np.array([True, False, True])
  sizes = jnp.full((3, 2), 12)
  draws = {name: jnp.full(3, value) for name, value in settings(sigma=np.float32(200)).items()}
  draws['apply'] = jnp.asarray(apply)
  out = np.asarray(Noise().apply(Canvas(jnp.asarray(pixels), sizes), draws, keys(3),
                                 Goal(sizes, (12, 12))).pixels)
  np.testing.assert_array_equal(out[1], pixels[1])
  assert (out[0] != pixels[0]).mean() > .9
  assert out.min() == 0
  assert out.max() == 1


def test_noise_of_an_image_depends_on_nothing_beside_it():
  """An image alone on a small canvas gets the noise that it gets in a batch on a large one."""
  rng = np.random.default_rng(0)
  stage = Noise(gaussian=0.)
  large = rng.uniform(-1, 2, (2, 40, 48, 3)).astype(np.float32)
  image = rng.random((1, 17, 21, 3), np.float32)
  large[1, :17, :21] = image
  draws = jax.jit(jax.vmap(stage.draw))(keys(2, 5))
  sizes = jnp.array([[40, 48], [17, 21]])
  apply = jax.jit(lambda canvas, draws, keys: stage.apply(
      canvas, draws, keys, Goal(canvas.sizes, canvas.pixels.shape[1:3])))
  both = apply(Canvas(jnp.asarray(large), sizes), draws, keys(2))
  alone = apply(Canvas(jnp.asarray(image), sizes[1:]),
                {name: value[1:] for name, value in draws.items()}, keys(2)[1:])
  np.testing.assert_allclose(both.pixels[1, :17, :21], alone.pixels[0], atol=1e-6)


def test_draws_have_the_shares_of_the_fields():
  stage = Noise(probability=.9, gaussian=.5, grey=.4, correlated=.2, sigma=(2., 25.))
  draws = jax.tree.map(np.asarray, jax.jit(jax.vmap(stage.draw))(keys(5000, 2)))
  for name, share in (('apply', .9), ('gaussian', .5), ('grey', .4), ('correlated', .1)):
    assert abs(draws[name].mean() - share) < .03, name
  assert not (draws['grey'] & draws['correlated']).any()
  free = draws['sigma'][~draws['correlated']]
  assert abs(free.mean() - 13.5) < .5
  assert (draws['sigma'][draws['correlated']] == 25).all()
  assert .05 <= draws['scale'].min() <= draws['scale'].max() <= 3


@pytest.mark.parametrize('channels', [3, 1])
def test_impulses_have_their_shares(channels: int):
  pixels = np.full((1, SIDE, SIDE, channels), .5, np.float32)
  salt, dead = .1, .06
  out = np.asarray(jax.jit(impulses)(pixels, keys(1), jnp.array([salt]), jnp.array([0.])))
  for value in (0, 1):
    share = (out == value).all(-1).mean()
    assert abs(share - salt / 2) < 4.5 * np.sqrt(salt / 2) / SIDE
  assert np.isin(out, (0, .5, 1)).all()
  assert (np.ptp(out, axis=-1) == 0).all()
  out = np.asarray(jax.jit(impulses)(pixels, keys(1), jnp.array([0.]), jnp.array([dead])))
  stuck = out != .5
  assert stuck.sum(-1).max() == 1
  for channel in range(channels):
    for value in (0, 1):
      share = (out[..., channel] == value).mean()
      expected = dead / (2 * channels)
      assert abs(share - expected) < 4.5 * np.sqrt(expected) / SIDE


def test_impulse_stage_leaves_images_that_did_not_draw_it():
  stage = Impulse(salt=(.5, .5))
  pixels = np.random.default_rng(0).random((1, 16, 16, 3), np.float32)
  draws = {'salt': np.float32(.5), 'dead': np.float32(0)}
  np.testing.assert_array_equal(run(stage, pixels, draws | {'apply': np.False_}), pixels)
  assert (run(stage, pixels, draws | {'apply': np.True_}) != pixels).mean() > .3


def test_rounding_to_levels():
  pixels = jnp.array([-.2, 0, .4 / 255, .6 / 255, 1, 1.3])
  np.testing.assert_allclose(round_to_levels(pixels), np.array([0, 0, 0, 1, 255, 255]) / 255,
                             atol=1e-7)


def test_descriptions_name_the_values():
  assert Noise().describe(settings(grey=np.True_)) == 'Gaussian noise of sigma 10.0 levels, grey'
  assert '1.00' in Noise().describe(settings(gaussian=np.False_))
  assert 'correlated' in Noise().describe(settings(correlated=np.True_))
  assert Noise().describe(settings(apply=np.False_)) == 'no noise'
  draws = {'apply': np.True_, 'salt': np.float32(.012), 'dead': np.float32(.0005)}
  assert Impulse().describe(draws) == 'salt and pepper on 1.20%, 0.05% dead pixels'
