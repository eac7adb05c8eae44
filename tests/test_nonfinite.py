"""Non-finite steps: what they stop, what they leave unchanged, what is counted and printed."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from sr_jax import losses
from sr_jax.experiment import phases
from sr_jax.runs.checkpoints import Checkpoints
from sr_jax.step import device_loop, nonfinite
from sr_jax.step.flat import flatten, named_arrays
from sr_jax.step.state import Average, Health, NetState, TrainState, begin_phase
from sr_jax.step.train_step import PixelStep
from tests.conftest import same_bits

MAX_BAD = 3  # non-finite steps in a row
FINITE = {'g/pixel': 1.0, 'g/total': 1.0, 'g/grad_norm': 1.0, 'd/total': 1.0, 'd/grad_norm': 1.0,
          'd/real': 0.5, 'd/fake': 1.0, 'g': 0.0, 'd': 0.0}
NEW = {'skipped', 'bad', 'g/ema_distance', 'd/saturated'}


def fake_step(state, batch, frozen):
  """A step that changes every array; the batch contains its metrics and what statistics add."""
  del frozen
  metrics = {name: jnp.float32(value) for name, value in batch.items() if '/' in name}
  state = jax.tree.map(lambda leaf: leaf + jnp.ones_like(leaf), state._replace(health=None))
  g, d = (net._replace(batch_stats=jax.tree.map(lambda leaf, key=key: leaf + batch[key],
                                                net.batch_stats))
          for key, net in (('g', state.g), ('d', state.d)))
  return state._replace(seed=state.seed - 1, g=g, d=d), metrics


guarded = nonfinite.SkipNonfinite(fake_step, MAX_BAD)
step = jax.jit(guarded)


def batch_at(source, seed, index):
  return source | {'g/pixel': jnp.where(index >= 14, jnp.nan, jnp.float32(1))}


loop = jax.jit(functools.partial(
    device_loop.train_steps, step=guarded, batch_at=batch_at, max_bad=MAX_BAD))


@pytest.fixture
def state():
  def net(value):
    array = jnp.full((2, 3), value, jnp.float32)
    return NetState(flatten({'kernel': array}), flatten({'mean': array[0]}),
                    {'mu': array, 'count': jnp.int32(7)})
  ema = Average(net(0.5).params, net(0.5).batch_stats)
  return TrainState(jnp.int32(10), jnp.int32(3), net(1.0), net(2.0), ema)


def after(state, *batches):
  """(state, metrics of the last step); None is a finite step, a dict changes FINITE."""
  for batch in batches:
    state, metrics = step(state, FINITE | (batch or {}), {})
  return state, {name: float(value) for name, value in metrics.items()}


def counts(state):
  return int(state.step), *map(int, state.health[:2])


def nets(state):
  return state.g, state.d, state.ema


NONFINITE = {'g/pixel': float('nan')}


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('name', [name for name in FINITE if name not in ('d/real', 'd/fake')])
def test_a_nonfinite_value_anywhere_changes_nothing(state, name, value):
  """A term, a total, a gradient, statistics of G or D: networks and optimisers stay as they are."""
  moved, metrics = after(state, {name: value})
  assert same_bits(nets(moved), nets(state)) == []
  assert (counts(moved), int(moved.seed)) == ((11, 1, 1), 3)
  assert nonfinite.nonfinite_names(metrics) == ([name] if '/' in name else [])  # not replaced
  assert {metrics['skipped'], metrics['bad']} == {1}


@pytest.mark.parametrize('net', ['g', 'd'])
def test_nonfinite_weights_are_not_applied(state, net):
  def leaves(state, batch, frozen):
    new, metrics = fake_step(state, batch, frozen)
    old = getattr(new, net)  # finite gradients may do this, for example in Adam without epsilon
    spoilt = old._replace(params=jax.tree.map(lambda leaf: leaf / 0, old.params))
    return new._replace(**{net: spoilt}), metrics

  moved, _ = nonfinite.SkipNonfinite(leaves, MAX_BAD)(state, FINITE, {})
  assert same_bits(nets(moved), nets(state)) == []
  assert counts(moved) == (11, 1, 1)


def test_a_finite_step_is_the_step_itself(state):
  moved, metrics = after(state, None)
  bare, measured = fake_step(state, FINITE, {})
  assert same_bits(moved._replace(health=None), bare._replace(health=None)) == []
  assert metrics.keys() - measured.keys() == NEW
  assert {name: metrics[name] for name in measured} == {
      name: value for name, value in FINITE.items() if '/' in name}


def test_nonfinite_steps_are_counted_and_a_finite_one_resets_the_row(state):
  assert counts(after(state, NONFINITE, NONFINITE)[0]) == (12, 2, 2)
  assert counts(after(state, NONFINITE, NONFINITE, None)[0]) == (13, 2, 0)
  assert counts(after(state, NONFINITE, NONFINITE, None, NONFINITE)[0]) == (14, 3, 1)


def test_after_max_bad_in_a_row_the_state_no_longer_changes(state):
  stopped, metrics = after(state, None, *[NONFINITE] * MAX_BAD)
  assert counts(stopped) == (14, 3, 3)
  assert metrics['bad'] == MAX_BAD
  for batches in ((None,), (NONFINITE, NONFINITE), (None, NONFINITE, None)):
    later, metrics = after(stopped, *batches)
    assert same_bits(later, stopped) == []
    assert (metrics['bad'], metrics['skipped']) == (MAX_BAD, MAX_BAD)


def test_rewind_returns_the_state_before(state):
  good, _ = after(state, NONFINITE, None, {'d/real': 1.0}, {'d/real': 1.0})
  assert good.health == (1, 0, 2)
  for bad in range(MAX_BAD + 2):
    later, _ = after(good, *[NONFINITE] * bad) if bad else (good, None)
    assert same_bits(nonfinite.rewind(later), good) == [], bad
  # From there, training continues as if they had not happened.
  assert same_bits(after(nonfinite.rewind(later), None), after(good, None)) == []


def test_a_phase_resets_the_row(state):
  tx = optax.sgd(0.1)
  state = state._replace(health=Health(*map(jnp.int32, (5, 2, 9))))
  assert begin_phase(state, tx).health == (5, 0, 0)


def test_saturation_is_counted_in_finite_steps(state):
  sure = {'d/real': 1.0, 'd/fake': 1.0}
  assert after(state, sure, sure)[1]['d/saturated'] == 2
  assert after(state, sure, NONFINITE | sure, sure)[1]['d/saturated'] == 2
  for unsure in ({'d/real': 0.99}, {'d/real': 1.0, 'd/fake': 0.0}):
    assert after(state, sure, unsure)[1]['d/saturated'] == 0


def test_ema_distance_is_that_of_trainable_arrays(state):
  def distance(weights, averages, trained=None):
    made = state._replace(g=state.g._replace(params=flatten(weights, trained)),
                          ema=state.ema._replace(params=flatten(averages, trained)))
    return float(nonfinite.ema_distance(made))

  a, b = jnp.array([3.0, 0.0]), jnp.array([3.0, 4.0])
  assert distance({'a': a, 'b': b}, {'a': b, 'b': b}) == pytest.approx(4 / 50**0.5)
  assert distance({'a': a, 'b': b}, {'a': b, 'b': b}, {'a': True, 'b': False}) == pytest.approx(0.8)
  assert distance({'a': 0 * a}, {'a': 0 * a}) == 0
  assert distance({'a': a}, {'a': 0 * a}) == 0  # the average is zero


def test_counts_are_saved_in_checkpoints(state, tmp_path):
  assert {'health/skipped', 'health/bad', 'health/saturated'} <= named_arrays(state).keys()
  checkpoints = Checkpoints(tmp_path)
  known = state._replace(health=Health(*map(jnp.int32, (5, 2, 9))))
  for number, saved in ((1, state), (2, known)):  # the default as well
    checkpoints.save(saved._replace(step=jnp.int32(number)))
    checkpoints.wait()
    assert same_bits(checkpoints.restore(state, number).health, saved.health) == []
  checkpoints.close()


@pytest.mark.parametrize('lengths', [(12,), (5, 7), (4, 1, 7), (1,) * 12])
def test_a_device_loop_ends_where_the_state_stalls(state, lengths):
  """Steps 15 to 17 are non-finite; however the loop is split, the metrics are those of step 17."""
  begin = state
  for length in lengths:
    state, metrics = loop(state, FINITE, {}, begin.step, begin.step + length)
    begin = begin._replace(step=begin.step + length)
    if length > 1:
      assert float(metrics['bad']) == max(0, min(int(begin.step) - 14, MAX_BAD))
  assert counts(state) == (17, 3, 3)
  expected, _ = after(nonfinite.rewind(state)._replace(health=Health()), *[NONFINITE] * MAX_BAD)
  assert same_bits(state, expected) == []
  still, metrics = loop(state, FINITE, {}, 22, 24)  # a call that was dispatched before
  assert same_bits(still, state) == []
  assert (metrics['bad'], metrics['skipped']) == (MAX_BAD, MAX_BAD)


# Real steps --------------------------------------------------------------------------------


class Rooted(nn.Module):
  """sr = lr * sqrt(weight); the weight starts at zero, where the derivative is infinite."""

  @nn.compact
  def __call__(self, lr, train=False):
    return lr * jnp.sqrt(self.param('weight', nn.initializers.zeros, ()))


def test_an_infinite_gradient_of_a_finite_loss():
  picture = jnp.ones((1, 4, 4, 3))
  params = Rooted().init(jax.random.key(0), picture)['params']
  tx = optax.adam(0.1)
  params = flatten(params)
  state = TrainState(jnp.int32(0), jnp.int32(0), NetState(params, flatten({}), tx.init(params)),
                     None, Average(params, flatten({})))
  step = PixelStep(Rooted(), tx, losses.GeneratorLoss(), ema=0.9)
  run = jax.jit(nonfinite.SkipNonfinite(step, MAX_BAD))
  moved, metrics = run(state, {'lr': picture, 'hr': picture}, {})
  assert nonfinite.nonfinite_names(metrics) == ['g/grad_norm']
  assert same_bits(nets(moved), nets(state)) == []
  assert counts(moved) == (1, 1, 1)


@pytest.fixture
def gan(config):
  """(phase, state, finite batch) of the smallest adversarial step."""
  config.discriminator.widths = (4,)
  experiment = phases.build(config)
  rng = np.random.default_rng(0)
  batch = {name: rng.random((4, side, side, 3), np.float32) for name, side in (('lr', 8),
                                                                               ('hr', 16))}
  return experiment.phases[-1], experiment.new_state(), batch


@pytest.mark.slow
def test_a_nonfinite_crop_changes_nothing(gan):
  phase, state, batch = gan
  run = jax.jit(phase.step)
  state, metrics = run(state, batch, {})
  assert counts(state) == (1, 0, 0)
  for name in ('lr', 'hr'):
    spoilt = batch | {name: batch[name].copy()}
    spoilt[name][2, 3, 3, 1] = np.nan
    stayed, metrics = run(state, spoilt, {})
    assert same_bits(nets(stayed), nets(state)) == []
    assert counts(stayed) == (2, 1, 1)
    assert np.isnan(metrics['g/pixel'])
    assert np.isfinite([metrics[name] for name in NEW]).all()
    assert same_bits(nonfinite.rewind(stayed), state) == []


@pytest.mark.slow
def test_a_finite_step_is_the_same_without_skipping(gan):
  """Up to rounding: before a select, XLA on the CPU fuses a * x + b * y, as in moments and running
  means, in another way and rounds the other product first.
  """
  phase, state, batch = gan
  bare, guarded = jax.jit(phase.step.step), jax.jit(phase.step)
  for number in range(4):
    more = {name: picture**(1 + number / 4) for name, picture in batch.items()}
    (plain, measured), (state, metrics) = bare(state, more, {}), guarded(state, more, {})
    for name in measured:
      np.testing.assert_allclose(metrics[name], measured[name], rtol=1e-5, atol=1e-7)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, nets(state), nets(plain))
    assert state.step == plain.step


@pytest.mark.slow
def test_skipping_costs_hardly_any_flops(config):
  """G's forward pass is still computed once."""
  config.generator.update({'features': 16, 'blocks': 4})
  experiment = phases.build(config)
  phase, state = experiment.phases[-1], jax.eval_shape(experiment.new_state)
  batch = {name: jax.ShapeDtypeStruct((4, side, side, 3), np.float32)
           for name, side in (('lr', 8), ('hr', 16))}
  with_it, without = (jax.jit(step).lower(state, batch, {}).cost_analysis()['flops']
                      for step in (phase.step, phase.step.step))
  assert without < with_it < 1.01 * without


# Messages ----------------------------------------------------------------------------------


@pytest.mark.parametrize(('bad', 'named'), [
    (('g/perceptual', 'g/total', 'g/grad_norm'), ['g/perceptual']),
    (('g/pixel', 'g/adversarial', 'd/total', 'g/total', 'g/grad_norm', 'd/grad_norm'),
     ['g/pixel', 'g/adversarial', 'd/total']),
    (('g/total', 'g/grad_norm'), ['g/total']),
    (('d/grad_norm',), ['d/grad_norm']), ((), ['new weights or BatchNorm statistics'])])
def test_root_causes_are_named(bad, named):
  metrics = {'g/perceptual': 1.0, 'g/adversarial': 1.0} | {
      name: 1.0 for name in FINITE if '/' in name}
  metrics |= dict.fromkeys(bad, float('nan'))
  assert sorted(nonfinite.root_causes(metrics)) == sorted(named)
  in_a_log = metrics | dict.fromkeys(bad)  # a log has null for them
  assert nonfinite.root_causes(in_a_log) == nonfinite.root_causes(metrics)
  assert sorted(nonfinite.nonfinite_names(metrics)) == sorted(bad)


def test_messages():
  message = nonfinite.nonfinite_message(40, 10, 0, {'g/perceptual': float('nan'), 'g/pixel': 1.0})
  assert re.fullmatch(r'steps 31 to 40 .*\(g/perceptual\).* seed 0, step 31; .*checkpoint 30; '
                      r'sr-jax replay --step 31 .*', message)
  message = nonfinite.nonfinite_message(7, 1, 5, {}, 'replay/7.png')
  assert re.match(r'step 7 .*\(new weights or BatchNorm statistics\).* seed 5, step 7, .*'
                  r'replay/7\.png; .*checkpoint 6; ', message)
  text = nonfinite.saturation_warning(5000, 1000)
  assert '\n' not in text
  for part in ('5000', '1000', 'D ', 'config.'):
    assert part in text
