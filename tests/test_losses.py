"""Tests of losses: values by hand and by PyTorch, identity, extreme logits."""

import math
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from sr_jax import losses
from sr_jax.errors import InputError
from sr_jax.experiment import phases
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
