"""Optimisers by name: each against PyTorch or the formulas of its paper in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr_jax.errors import InputError
from sr_jax.experiment import base_config, optimizer, phases
from sr_jax.experiment.check import check
from sr_jax.step.flat import Entry, flatten, named_arrays
from sr_jax.step.muon import is_matrix
from sr_jax.step.state import averaged_weights, begin_phase
from tests import smallest
from tests.conftest import same_bits

STEPS, RATE, DECAY = 4, 0.02, 0.1
SHAPES = {'body_0/kernel': (3, 3, 5, 6), 'body_1/kernel': (3, 3, 5, 6), 'out/kernel': (7, 5),
          'head/kernel': (3, 3, 3, 6), 'table': (9, 6), 'bias': (6,), 'slope': ()}
MATRICES = ('body_0/kernel', 'body_1/kernel', 'out/kernel')


def section(name, **changes):
  config = base_config.defaults().optimizer.g
  config.update({'name': name, 'learning_rate': RATE, 'weight_decay': DECAY, **changes})
  return config


@pytest.fixture(scope='module')
def arrays():
  """(initial arrays, the gradients of each step), float64 by name."""
  rng = np.random.default_rng(0)
  return tuple({name: rng.normal(size=shape) for name, shape in SHAPES.items()}
               for _ in range(STEPS + 1))


def updated(config, arrays, joined=True):
  """Returns the FlatTree after all steps, and the state of the optimiser."""
  tx, _ = optimizer.build_optimizer(config, 100)
  params, *grads = (flatten(jax.tree.map(jnp.float32, tree), joined=joined) for tree in arrays)

  @jax.jit
  def take(params, state, grads):
    updates, state = tx.update(grads, state, params)
    return jax.tree.map(jnp.add, params, updates), state

  state = tx.init(params)
  for grad in grads:
    params, state = take(params, state, grad)
  return params, state


# The formulas of the papers, in float64 ------------------------------------------------------


def adam(x, grads, betas=(0.9, 0.999)):
  m = v = 0
  for t, g in enumerate(grads, 1):
    m, v = (b * old + (1 - b) * new for b, old, new in zip(betas, (m, v), (g, g * g), strict=True))
    m_hat, v_hat = m / (1 - betas[0]**t), v / (1 - betas[1]**t)
    x = x - RATE * (m_hat / (np.sqrt(v_hat) + 1e-8) + DECAY * x)
  return x


def adan(x, grads, b1=0.02, b2=0.08, b3=0.01):
  """Xie et al. 2022, algorithm 1, with corrections of the bias, and decay as in AdamW."""
  m = v = n = 0
  last = grads[0]
  for t, g in enumerate(grads, 1):
    m = (1 - b1) * m + b1 * g
    v = (1 - b2) * v + b2 * (g - last)
    n = (1 - b3) * n + b3 * (g + (1 - b2) * (g - last))**2
    m_hat, v_hat, n_hat = (mean / (1 - (1 - b)**t) for mean, b in ((m, b1), (v, b2), (n, b3)))
    x = x - RATE * ((m_hat + (1 - b2) * v_hat) / (np.sqrt(n_hat) + 1e-8) + DECAY * x)
    last = g
  return x


def lion(x, grads):
  """Chen et al. 2023, algorithm 2."""
  m = 0
  for g in grads:
    x = x - RATE * (np.sign(0.9 * m + 0.1 * g) + DECAY * x)
    m = 0.99 * m + 0.01 * g
  return x


def orthogonalised(matrix):
  """The quintic Newton-Schulz iteration of Jordan et al. 2024."""
  x = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
  x = x / np.linalg.norm(x)
  for _ in range(5):
    a = x @ x.T
    x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
  return x if matrix.shape[0] <= matrix.shape[1] else x.T


def muon(x, grads):
  shape, momentum = x.shape, 0
  for t, g in enumerate(grads, 1):
    momentum = 0.95 * momentum + 0.05 * g
    nesterov = 0.95 * momentum / (1 - 0.95**(t + 1)) + 0.05 * g / (1 - 0.95**t)
    matrix = orthogonalised(nesterov.reshape(-1, shape[-1]))
    x = x - RATE * (0.2 * max(matrix.shape)**0.5 * matrix.reshape(shape) + DECAY * x)
  return x


def schedule_free(x, grads, rates=(RATE,) * STEPS):
  """Defazio et al. 2024, algorithm 1: returns the weights that are held, and those evaluated."""
  z, y, v, total = x, x, 0, 0
  for t, (g, rate) in enumerate(zip(grads, rates, strict=True), 1):
    v = 0.999 * v + 0.001 * g * g
    z = z - rate * (g / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + DECAY * y)
    total += rate**2
    x = (1 - rate**2 / total) * x + rate**2 / total * z
    y = 0.1 * z + 0.9 * x
  return y, x


def expected(formula, arrays, names=tuple(SHAPES)):
  first, *grads = arrays
  return {name: formula(first[name], [grad[name] for grad in grads]) for name in names}


def assert_close(found, wanted):
  for name, array in wanted.items():
    np.testing.assert_allclose(found.arrays()[name], array, rtol=1e-4, atol=2e-5, err_msg=name)


# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(('name', 'formula'), [
    ('adam', adam), ('adamw', adam), ('adan', adan), ('lion', lion)])
def test_elementwise_optimisers_follow_their_formulas(arrays, name, formula):
  params, _ = updated(section(name), arrays)
  assert_close(params, expected(formula, arrays))
  assert_close(updated(section(name), arrays, joined=False)[0], params.arrays())


@pytest.mark.slow
@pytest.mark.parametrize('name', ['adam', 'adamw'])
def test_adamw_is_that_of_pytorch(arrays, name):
  import torch
  first, *grads = arrays
  weights = {key: torch.nn.Parameter(torch.tensor(array)) for key, array in first.items()}
  tx = torch.optim.AdamW(weights.values(), RATE, weight_decay=DECAY)
  for grad in grads:
    for key, weight in weights.items():
      weight.grad = torch.tensor(grad[key])
    tx.step()
  params, _ = updated(section(name), arrays)
  assert_close(params, {key: weight.detach().numpy() for key, weight in weights.items()})


@pytest.mark.parametrize('joined', [True, False])
def test_muon_orthogonalises_kernels_and_leaves_the_rest_to_adam(arrays, joined):
  params, state = updated(section('muon'), arrays, joined)
  assert_close(params, expected(adam, arrays) | expected(muon, arrays, MATRICES))
  shapes = {name: array.shape for name, array in named_arrays(state).items()}
  assert [shapes[f'1/matrices/mu/{shape}'] for shape in ('45x6', '7x5')] == [(2, 45, 6), (1, 7, 5)]
  assert shapes['1/others/mu/head/kernel'] == (3, 3, 3, 6)  # whatever `joined`


def test_singular_values_of_an_update_are_near_one():
  values = np.linalg.svd(orthogonalised(np.random.default_rng(1).normal(size=(45, 6))))[1]
  assert 0.6 < values.min() < values.max() < 1.3


def test_the_kernels_of_hidden_layers_are_matrices():
  def matrix(name, *shape):
    return is_matrix(Entry(name, shape, '', True))

  assert matrix('body_0/conv/kernel', 3, 3, 64, 64)
  assert matrix('mlp/kernel', 60, 120)
  for name, *shape in (('head/kernel', 3, 3, 3, 64), ('tail/kernel', 3, 3, 64, 3),
                       ('depthwise/kernel', 3, 3, 1, 64), ('attn/bias_table', 225, 6),
                       ('kernel', 64)):
    assert not matrix(name, *shape)


@pytest.mark.parametrize('joined', [True, False])
def test_schedule_free_evaluates_the_average(arrays, joined):
  config = section('schedule_free', ramp=2)
  params, state = updated(config, arrays, joined)
  formula = functools.partial(schedule_free, rates=(RATE / 2, *[RATE] * (STEPS - 1)))
  both = expected(formula, arrays)
  assert_close(params, {name: held for name, (held, _) in both.items()})

  class Net:
    opt_state = state
  Net.params = params
  assert_close(averaged_weights(Net), {name: evaluated for name, (_, evaluated) in both.items()})


@pytest.mark.parametrize('name', sorted(optimizer.DEFAULTS))
def test_the_norm_is_limited_before_everything_else(arrays, name):
  first, *grads = arrays
  norms = [np.sqrt(sum((array**2).sum() for array in grad.values())) for grad in grads]
  scaled = [{key: array / norm for key, array in grad.items()}
            for grad, norm in zip(grads, norms, strict=True)]
  assert_close(updated(section(name, clip_norm=1.0), arrays)[0],
               updated(section(name), (first, *scaled))[0].arrays())


# In a config and in a run --------------------------------------------------------------------


def test_values_that_are_not_set_are_the_published_ones():
  config = base_config.defaults()
  config.optimizer.g.name, config.optimizer.d.name, config.optimizer.d.beta1 = 'adan', 'lion', 0.5
  config.optimizer.warmup.name = 'adamw'
  checked = check(config).optimizer
  assert (checked.g.beta1, checked.g.beta2, checked.g.beta3) == (0.98, 0.92, 0.99)
  assert (checked.d.beta1, checked.d.beta2, checked.d.epsilon) == (0.5, 0.99, None)
  assert (checked.warmup.beta2, checked.warmup.weight_decay) == (0.999, 0.01)
  adam = check(base_config.defaults()).optimizer.g
  assert (adam.beta1, adam.beta2, adam.epsilon, adam.weight_decay) == (0.9, 0.999, 1e-8, 0.0)


@pytest.mark.parametrize(('changes', 'words'), [
    ({'g.beta3': 0.9}, r'config\.optimizer\.g\.beta3=0\.9: .*adam.* beta1, beta2'),
    ({'g.name': 'lion', 'g.epsilon': 1e-6}, r'config\.optimizer\.g\.epsilon=1e-06: .*lion'),
    ({'d.beta3': 0.9}, r'config\.optimizer\.d\.beta3'),
    ({'g.name': 'sgd'}, r'config\.optimizer\.g\.name=.*adam, adamw'),
    ({'g.name': 'schedule_free', 'g.schedule': 'cosine'},
     r"config\.optimizer\.g\.schedule='cosine': .*schedule_free.*constant"),
    ({'g.name': 'schedule_free', 'g.beta1': 0.0}, r'config\.optimizer\.g\.beta1=0\.0'),
    ({'g.name': 'schedule_free'}, r'config\.ema=0\.999: .*--config\.ema=0')])
def test_values_that_an_optimiser_cannot_use_are_refused(changes, words):
  config = base_config.defaults()
  for key, value in changes.items():
    part, _, last = key.partition('.')
    config.optimizer[part][last] = value
  with pytest.raises(InputError, match=words) as refused:
    check(config)
  assert '\n' not in str(refused.value)


def test_schedule_free_is_refused_with_batch_norm():
  config = smallest.get_config()
  config.optimizer.warmup.name = 'schedule_free'
  with pytest.raises(InputError, match=r'config\.optimizer\.warmup\.name.*BatchNorm'):
    phases.build(config)


@pytest.fixture(scope='module')
def averaging():
  """An experiment whose warm-up averages its weights and whose main phase uses muon."""
  config = smallest.get_config()
  config.generator.batch_norm = False
  config.optimizer.warmup.name, config.optimizer.g.name = 'schedule_free', 'muon'
  config.optimizer.d.name = 'lion'
  return phases.build(config)


def test_the_average_takes_the_place_of_ema_and_the_next_phase_starts_from_it(averaging):
  warmup, gan = averaging.phases
  batch = {'lr': jnp.full((4, 8, 8, 3), 0.2), 'hr': jnp.full((4, 16, 16, 3), 0.7)}
  state = begin_phase(averaging.new_state(), warmup.g_tx)
  step = jax.jit(warmup.step)
  for _ in range(3):
    state, _ = step(state, batch, {})
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7),
               averaged_weights(state.g), state.ema.params)
  assert same_bits(state.g.params, state.ema.params) != []
  begun = begin_phase(state, gan.g_tx)
  assert same_bits(begun.g.params, state.ema.params) == []
  assert same_bits(begin_phase(begun, gan.g_tx), begun) == []


@pytest.mark.parametrize('step', [0, 1, 20, 21])
def test_a_checkpoint_has_the_layout_of_its_phase(averaging, step):
  names = ' '.join(named_arrays(jax.eval_shape(lambda: phases.state_at(averaging, step)).g))
  assert ('/z/' in names) == (step <= 20)
  assert ('/matrices/' in names) == (step > 20)
