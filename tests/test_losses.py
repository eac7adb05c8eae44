"""Tests of losses: values by hand and by PyTorch, identity, extreme logits."""

import functools
import math
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy import signal

from sr_jax import images, losses
from sr_jax.errors import InputError
from sr_jax.experiment import phases
from sr_jax.experiment.base_config import defaults
from sr_jax.experiment.check import check
from sr_jax.experiment.named_keys import RESERVED
from sr_jax.metrics import own
from sr_jax.step.state import begin_phase
from sr_jax.system import user_code
from tests import own_code
from tests.conftest import same_bits

ADVERSARIAL = ['vanilla_generator', 'vanilla_discriminator', 'least_squares_generator',
               'least_squares_discriminator', 'relativistic_generator',
               'relativistic_discriminator']


def test_pixel_losses_by_hand() -> None:
  a, b = jnp.array([0.0, 0.5, 1.0]), jnp.array([0.0, 0.25, 0.0])
  assert losses.l1(a, b) == pytest.approx(1.25 / 3)
  assert losses.mse(a, b) == pytest.approx((0.0625 + 1) / 3)
  expected = sum(math.sqrt(d * d + 1e-6) for d in (0, 0.25, 1)) / 3
  assert losses.charbonnier(a, b) == pytest.approx(expected)


def test_total_variation_by_hand() -> None:
  x = jnp.array([[0.0, 1.0], [0.5, 1.0]])[None, :, :, None]
  assert losses.total_variation(x) == pytest.approx((0.5 + 0) / 2 + (1 + 0.5) / 2)
  assert losses.total_variation(jnp.ones((1, 4, 4, 3))) == 0


def test_perceptual_by_hand() -> None:
  sr = {'a': jnp.full((1, 2, 2, 1), 3.0), 'b': jnp.full((1, 1, 1, 2), 1.0)}
  hr = {'a': jnp.full((1, 2, 2, 1), 1.0), 'b': jnp.full((1, 1, 1, 2), 2.0)}
  weights = {'a': 0.5, 'b': 2.0}
  assert losses.perceptual(sr, hr, weights, 0.1) == pytest.approx(0.5 * 0.04 + 2 * 0.01)
  assert losses.perceptual(sr, hr, weights, 0.1, 'l1') == pytest.approx(0.5 * 0.2 + 2 * 0.1)
  # The paper's 1/12.75 scales the squared loss by 0.006.
  assert losses.perceptual(sr, hr, {'a': 1.0}, 1 / 12.75) == pytest.approx(4 * 0.00615, rel=1e-3)


def test_zero_at_identity() -> None:
  x = jax.random.uniform(jax.random.key(0), (2, 4, 4, 3))
  for name in ('l1', 'mse'):
    assert losses.PIXEL[name](x, x) == 0
  assert losses.charbonnier(x, x) == pytest.approx(1e-3)
  assert losses.perceptual({'a': x}, {'a': x}, {'a': 1.0}) == 0


def test_undecided_discriminator_by_hand() -> None:
  zero = jnp.zeros(4)
  expected = {'vanilla_generator': math.log(2), 'vanilla_discriminator': 2 * math.log(2),
              'least_squares_generator': 0.5, 'least_squares_discriminator': 0.5,
              'relativistic_generator': math.log(2), 'relativistic_discriminator': math.log(2)}
  for name, value in expected.items():
    assert getattr(losses, name)(zero, zero) == pytest.approx(value), name


@pytest.mark.parametrize('name', ADVERSARIAL)
def test_adversarial_losses_agree_with_pytorch(golden: Callable, name: str) -> None:
  _, expected = golden('losses')
  order = ('fake', 'real') if name.endswith('_generator') else ('real', 'fake')
  value = getattr(losses, name)(*(expected[key] for key in order))
  np.testing.assert_allclose(value, expected[name], rtol=1e-5)


def test_pixel_losses_agree_with_pytorch(golden: Callable) -> None:
  _, expected = golden('losses')
  for name in ('l1', 'mse'):
    np.testing.assert_allclose(losses.PIXEL[name](expected['a'], expected['b']), expected[name],
                               rtol=1e-6)


@pytest.mark.parametrize('name', ADVERSARIAL)
@pytest.mark.parametrize('a', [-100.0, 0.0, 100.0])
@pytest.mark.parametrize('b', [-100.0, 0.0, 100.0])
def test_finite_at_extreme_logits(name: str, a: float, b: float) -> None:
  value, grads = jax.value_and_grad(getattr(losses, name), argnums=0)(
      jnp.full(3, a), jnp.full(3, b))
  assert jnp.isfinite(value)
  assert jnp.isfinite(grads).all()


def test_the_vanilla_loss_does_not_saturate() -> None:
  # The saturating form, log(1 - sigmoid(x)), has no gradient where D is certain of a fake.
  grad = jax.grad(losses.vanilla_generator)(jnp.array([-100.0]))
  assert grad == pytest.approx(-1.0)


def test_accuracy_by_hand() -> None:
  real, fake = jnp.array([2.0, 0.2, 0.7, -1.0]), jnp.array([-1.0, 0.4, 0.8, -0.2])
  for kind, expected in (('vanilla', (0.75, 0.5)), ('least_squares', (0.5, 0.75)),
                         ('relativistic', (0.75, 0.75))):
    assert tuple(map(float, losses.accuracy(kind, real, fake))) == expected, kind
  # A common offset of the logits changes nothing.
  assert losses.accuracy('relativistic', real + 9, fake + 9) == pytest.approx(
      (0.75, 0.75))


def test_relativistic_losses_depend_only_on_differences() -> None:
  real, fake = jnp.array([1.0, 3.0]), jnp.array([-1.0, 0.5])
  for name in ('relativistic_generator', 'relativistic_discriminator'):
    loss = getattr(losses, name)
    assert loss(real + 7, fake + 7) == pytest.approx(float(loss(real, fake)), rel=1e-5)


def test_gradients_have_the_right_sign() -> None:
  fake, real = jnp.array([0.2, 0.9]), jnp.array([0.3, 0.8])
  for generator, discriminator in losses.ADVERSARIAL.values():
    assert (jax.grad(generator)(fake, real) < 0).all()  # G increases the logits of its images
    to_real, to_fake = jax.grad(discriminator, argnums=(0, 1))(real, fake)
    assert to_real.sum() < 0 < to_fake.sum()


# Structure, colour, spectra ----------------------------------------------------------------


def pair(*shape: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns two images that resemble each other."""
  rng = np.random.default_rng(0)
  y, x = np.mgrid[:shape[1], :shape[2]]
  hr = 0.5 + 0.3 * np.sin(x / 5 + y / 9)[..., None] + 0.1 * rng.normal(size=shape)
  return np.float32(hr + 0.1 * rng.normal(size=shape)), np.float32(hr)


def ms_ssim_in_float64(a: np.ndarray, b: np.ndarray, scales: int) -> float:
  """MS-SSIM of [H, W], windows by scipy, as in the paper."""
  window = np.exp(-0.5 * (np.arange(-5, 6) / 1.5)**2)
  window = np.outer(window, window) / window.sum()**2
  a, b, result = np.float64(a), np.float64(b), 1.0
  exponents = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333][:scales])
  for scale, exponent in enumerate(exponents / exponents.sum()):
    if scale:
      a, b = (sum(x[i:x.shape[0] // 2 * 2:2, j:x.shape[1] // 2 * 2:2]
                  for i in (0, 1) for j in (0, 1)) / 4 for x in (a, b))
    mean = functools.partial(signal.convolve2d, in2=window, mode='valid')
    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    cs = (2 * (mean(a * b) - mean_a * mean_b) + 9e-4) / (var_a + var_b + 9e-4)
    luminance = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
    result *= (cs * luminance if scale == scales - 1 else cs).mean()**exponent
  return result


@pytest.mark.parametrize(('scales', 'shape'), [(1, (2, 11, 13, 3)), (3, (1, 47, 44, 1)),
                                               (5, (1, 176, 181, 1))])
def test_ms_ssim_agrees_with_numpy_in_float64(scales: int, shape: tuple[int, ...]) -> None:
  sr, hr = pair(*shape)
  expected = np.mean([ms_ssim_in_float64(sr[i, ..., c], hr[i, ..., c], scales)
                      for i in range(shape[0]) for c in range(shape[3])])
  assert float(losses.ms_ssim(sr, hr, scales)) == pytest.approx(1 - expected, abs=2e-6)
  assert 0.01 < expected < 0.99
  with pytest.raises(InputError, match=f'{11 * 2**(scales - 1)} pixels'):
    losses.ms_ssim(sr[:, :11 * 2**(scales - 1) - 1], hr[:, :11 * 2**(scales - 1) - 1], scales)


@pytest.mark.slow
def test_ms_ssim_agrees_with_tensorflow() -> None:
  tf = pytest.importorskip('tensorflow')
  sr, hr = pair(2, 192, 176, 3)
  expected = tf.image.ssim_multiscale(hr, sr, 1.0)
  assert float(losses.ms_ssim(sr, hr)) == pytest.approx(1 - float(np.mean(expected)), abs=2e-5)


def test_colour_by_hand() -> None:
  rng = np.random.default_rng(0)
  hr = np.float32(rng.random((2, 37, 35, 3)))
  sr = np.float32(rng.random((2, 37, 35, 3)))
  total = []
  for y in (0, 16):
    for x in (0, 16):
      a, b = (np.float64(image[:, y:y + 16, x:x + 16]).mean((1, 2)) for image in (sr, hr))
      total.append(np.abs(images.rgb_to_ycbcr(a) - images.rgb_to_ycbcr(b)).sum(-1))
  assert float(losses.colour(sr, hr)) == pytest.approx(np.mean(total), rel=1e-5)
  # Noise and texture finer than a block are free; a shift of a region is not.
  checks = np.float32(0.2) * (np.indices((37, 35)).sum(0) % 2 * 2 - 1)[..., None]
  assert losses.colour(hr + checks, hr) < 1e-6
  assert float(losses.colour(hr + 0.1, hr)) == pytest.approx(0.1 * 219 / 255, rel=1e-4)
  assert float(losses.colour(hr[..., :1] + 0.1, hr[..., :1])) == pytest.approx(0.1, rel=1e-4)
  for channel, cost in enumerate((0.844, 1.163, 0.608)):
    shifted = hr.copy()
    shifted[..., channel] += 0.1
    assert float(losses.colour(shifted, hr)) == pytest.approx(0.1 * cost, rel=2e-3)
  with pytest.raises(InputError, match='16x16'):
    losses.colour(sr[:, :15], hr[:, :15])


@pytest.mark.parametrize('alpha', [1.0, 0.5, 2.0])
def test_focal_frequency_agrees_with_numpy_in_float64(alpha: float) -> None:
  sr, hr = pair(2, 9, 12, 3)
  total = 0.0
  for image in range(2):
    for channel in range(3):
      a, b = (np.fft.fft2(np.float64(x[image, ..., channel])) / np.sqrt(9 * 12) for x in (sr, hr))
      weight = np.abs(a - b)**alpha
      total += (weight / weight.max() * np.abs(a - b)**2).mean() / 6
  assert float(losses.focal_frequency(sr, hr, alpha)) == pytest.approx(total, rel=1e-5)
  assert float(losses.focal_frequency(sr, hr, 0.0)) == pytest.approx(float(losses.mse(sr, hr)),
                                                                     rel=1e-5)


def test_the_weights_of_frequencies_are_constants_of_the_gradient() -> None:
  sr, hr = pair(1, 8, 8, 1)
  gradient = jax.grad(losses.focal_frequency)(sr, hr)
  spectrum = np.fft.fft2(np.float64(sr - hr)[0, ..., 0])
  weight = np.abs(spectrum) / np.abs(spectrum).max()
  expected = 2 * np.fft.ifft2(weight * spectrum).real / 64
  np.testing.assert_allclose(gradient[0, ..., 0], expected, rtol=1e-4, atol=1e-7)


COMPARISONS = {
    'ms_ssim': functools.partial(losses.ms_ssim, scales=2), 'colour': losses.colour,
    'focal_frequency': losses.focal_frequency}


@pytest.mark.parametrize('name', COMPARISONS)
@pytest.mark.parametrize('channels', [1, 3])
def test_gradients_are_finite_and_point_to_hr(name: str, channels: int) -> None:
  loss, (sr, hr) = jax.jit(jax.value_and_grad(COMPARISONS[name])), pair(2, 24, 22, channels)
  value, gradient = loss(hr, hr)
  assert abs(float(value)) < 1e-6
  assert np.isfinite(gradient).all()
  if name != 'colour':  # JAX's derivative of |x| at 0 is 1
    assert np.abs(gradient).max() < 1e-6
  value, gradient = loss(sr, hr)
  assert value > 0
  assert np.vdot(gradient, hr - sr) < 0
  # Opposite structures have a negative similarity, constant ones a variance of zero.
  for other in (1 - hr, np.zeros_like(hr), np.full_like(hr, 0.5)):
    value, gradient = loss(other, hr)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
  with pytest.raises(InputError, match='float'):
    COMPARISONS[name](np.uint8(255 * hr), np.uint8(255 * hr))


def test_terms_that_compare_images_are_keys(config: ConfigDict) -> None:
  config.hr_patch = 32
  config.loss.ms_ssim.update(weight=0.5, scales=2)
  config.loss.colour.update(weight=0.25, block=8)
  config.loss.focal_frequency.update(weight=2.0, alpha=0.5)
  loss = phases.build(config).phases[1].step.step.loss
  sr, hr = pair(2, 32, 32, 3)
  terms = loss.reconstruction(sr, hr, None, {})
  expected = {'pixel': losses.l1(sr, hr), 'ms_ssim': 0.5 * losses.ms_ssim(sr, hr, 2),
              'colour': 0.25 * losses.colour(sr, hr, 8),
              'focal_frequency': 2 * losses.focal_frequency(sr, hr, 0.5)}
  assert terms.keys() == expected.keys()
  for name, value in expected.items():
    assert float(terms[name]) == pytest.approx(float(value), rel=1e-6)
  assert set(terms) <= set(RESERVED['loss.extra'])


@pytest.mark.parametrize(('section', 'values', 'words'), [
    ('ms_ssim', {}, r'ms_ssim\.scales=5: .*176, not 96; .*4 scales'),
    ('ms_ssim', {'scales': 6}, r'ms_ssim\.scales=6'),
    ('colour', {'block': 97}, r'colour\.block=97: .*96')])
def test_crops_that_are_too_small_for_a_term_are_refused(
    section: str, values: dict[str, int], words: str) -> None:
  config = defaults()
  config.loss[section].update(weight=1.0, **values)
  with pytest.raises(InputError, match=rf'^config\.loss\.{words}'):
    check(config)


# The user's own ----------------------------------------------------------------------------


@pytest.fixture
def own_config(config: ConfigDict) -> ConfigDict:
  """The config of a generator that is trained alone, on L1."""
  config.discriminator.name, config.loss.adversarial.weight = 'none', 0.0
  config.warmup_steps = 0
  user_code.allow(['tests.own_code'])
  return config


def test_an_own_l1_trains_as_the_built_in_one_bit_for_bit(own_config: ConfigDict) -> None:
  rng = np.random.default_rng(0)
  batch = {'lr': rng.random((4, 8, 8, 3), np.float32), 'hr': rng.random((4, 16, 16, 3), np.float32)}
  states = []
  for kind, weight, extra in (
      ('l1', 0.5, {}), ('tests.own_code:l1', 0.5, {}),
      ('l1', 0.0, {'mine': {'fn': 'tests.own_code:l1', 'weight': 0.5}})):
    own_config.loss.pixel.kind, own_config.loss.pixel.weight = kind, weight
    own_config.loss.extra = extra
    experiment = phases.build(own_config)
    step = jax.jit(experiment.phases[0].step)
    state = experiment.new_state()
    for _ in range(2):
      state, metrics = step(state, batch, {})
    states.append(state)
    assert f'g/{"mine" if extra else "pixel"}' in metrics
    assert ('g/pixel' in metrics) == bool(weight)
  assert same_bits(states[0], states[1]) == []
  assert same_bits(states[0], states[2]) == []


def test_own_terms_are_added_and_named(config: ConfigDict) -> None:
  user_code.allow(['tests.own_code'])
  config.loss.extra = {'edges': {'fn': 'tests.own_code:edges', 'weight': 0.25},
                       'unused': {'fn': 'not.imported:edges', 'weight': 0}}
  warmup, gan = phases.build(config).phases
  sr, hr = (jax.random.uniform(jax.random.key(seed), (2, 8, 8, 3)) for seed in range(2))
  terms = gan.step.step.loss.reconstruction(sr, hr, None, {})
  assert list(terms) == ['pixel', 'edges']
  assert terms['edges'] == pytest.approx(0.25 * own_code.edges(sr, hr))
  assert list(warmup.step.step.loss.reconstruction(sr, hr, None, {})) == ['pixel']


@pytest.mark.parametrize(('name', 'words'), [
    ('per_image', 'float32 [4]'), ('count', 'int32 []'), ('pair', 'a tuple'),
    ('of_numpy', 'TracerArrayConversionError'), ('of_one', 'TypeError'),
    ('broken', 'ZeroDivisionError'), ('no_gradient', 'gradient'), ('NUMBER', 'is 3'),
    ('nix', 'no nix'), ('leaves', 'sys.exit(0)'),
    ('to_number', 'ConcretizationTypeError')])
@pytest.mark.parametrize('key', ['loss.pixel.kind', 'loss.extra.mine.fn'])
def test_an_own_loss_that_cannot_be_used_is_refused(own_config: ConfigDict, name: str, words: str,
                                                    key: str) -> None:
  spec = f'tests.own_code:{name}'
  if key == 'loss.pixel.kind':
    own_config.loss.pixel.kind = spec
  else:
    own_config.loss.extra = {'mine': {'fn': spec, 'weight': 1.0}}
  with pytest.raises(InputError) as error:
    phases.build(own_config)
  message = str(error.value)
  assert message.startswith(f'config.{key}={spec!r}: ')
  assert words in message
  assert len(message) < 800
  assert not re.search(r'\w\.\.\.', message)  # no word is cut
  if name in ('broken', 'of_numpy', 'leaves'):
    assert 'own_code.py, line ' in message


def test_names_of_own_terms_and_metrics_that_logs_use_are_reserved(config: ConfigDict) -> None:
  state = phases.build(config).new_state()
  batch = {'lr': jnp.zeros((4, 8, 8, 3)), 'hr': jnp.zeros((4, 16, 16, 3))}
  phase = phases.build(config).phases[1]
  _, logged = jax.eval_shape(phase.step, begin_phase(state, phase.g_tx), batch, {})
  terms = jax.eval_shape(phase.terms, state, batch, {})
  assert {name[2:] for name in logged if name.startswith('g/')} | set(terms) <= set(
      RESERVED['loss.extra'])
  assert RESERVED['eval.extra'] == own.RESERVED
