"""Training steps: which arrays change, which do not, and that all ways to run a step agree."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sr_jax import losses
from sr_jax.data import bank, feed
from sr_jax.data.augment import Augmentation
from sr_jax.experiment import phases
from sr_jax.step import device_loop
from sr_jax.step.flat import named_arrays
from sr_jax.step.state import Average, begin_phase, variables
from sr_jax.step.train_step import GanStep
from tests import smallest
from tests.conftest import same_bits

batch_at = feed.bank_batches(feed.FeedSpec(bank.CropSpec(4, 16, 2), 4, Augmentation(), 0))


@pytest.fixture(scope='module')
def source(folder, pack_folder):
  return bank.to_device(pack_folder(folder))


@pytest.fixture(scope='module')
def experiment():
  """The smallest experiment; every test of this module that changes no config shares it."""
  return phases.build(smallest.get_config())


@pytest.fixture(scope='module')
def start(experiment):
  """The state before the first step."""
  return experiment.new_state()


@pytest.fixture(scope='module')
def one_step(experiment, source):
  """one_step('gan', state) -> (state, metrics); each phase is traced and compiled once."""
  steps = {phase.name: jitted(phase) for phase in experiment.phases}
  return lambda name, state: steps[name](state, source, experiment.frozen)


def jitted(phase):
  return jax.jit(functools.partial(device_loop.one_step, step=phase.step, batch_at=batch_at))


def phase(experiment, name):
  return next(phase for phase in experiment.phases if phase.name == name)


def gan_step(config, source):
  """(the state before, the state after, metrics) of one adversarial step of a config."""
  experiment = phases.build(config)
  before = experiment.new_state()
  return before, *jitted(phase(experiment, 'gan'))(before, source, experiment.frozen)


def test_warm_up_changes_the_generator_alone(start, one_step):
  after, metrics = one_step('warm-up', start)
  assert same_bits(start.d, after.d) == []
  # Biases before BatchNorm have no gradient.
  assert named_arrays(start.g.params).keys() - same_bits(start.g.params, after.g.params) == {
      'body_0/Conv_0/bias', 'body_0/Conv_1/bias', 'body_end/bias'}
  assert after.step == 1
  assert set(metrics) == {'g/pixel', 'g/total', 'g/grad_norm', 'g/ema_distance', 'skipped', 'bad'}


def test_gan_step_is_two_separate_updates(experiment, start, source, config):
  """Compares with the naive way: two losses, two gradients, each network applied once more."""
  state = start
  generator, discriminator = experiment.generator, experiment.discriminator
  batch = jax.jit(batch_at)(source, state.seed, state.step)
  mutable, g, d = ['batch_stats'], variables(state.g), variables(state.d)

  def generate(params):
    return generator.apply(g | {'params': params}, batch['lr'], train=True, mutable=mutable)

  def judge(params, images, stats):
    logits, changed = discriminator.apply({'params': params, 'batch_stats': stats}, images,
                                          train=True, mutable=mutable)
    return logits, changed['batch_stats']

  def g_loss(params):
    sr, _ = generate(params)
    logits, _ = judge(d['params'], sr, d['batch_stats'])
    return losses.l1(sr, batch['hr']) + 1e-3 * losses.vanilla_generator(logits)

  def d_loss(params, fake):
    real, stats = judge(params, batch['hr'], d['batch_stats'])
    logits, stats = judge(params, jax.lax.stop_gradient(fake), stats)
    return losses.vanilla_discriminator(real, logits), stats

  fake, g_changed = jax.jit(generate)(g['params'])
  g_value, g_grads = jax.jit(jax.value_and_grad(g_loss))(g['params'])
  (d_value, d_stats), d_grads = jax.jit(jax.value_and_grad(d_loss, has_aux=True))(
      d['params'], fake)

  # Plain gradient descent shows the gradients, which Adam's first step would hide.
  sgd = optax.sgd(1.0)
  state = state._replace(g=state.g._replace(opt_state=sgd.init(state.g.params)),
                         d=state.d._replace(opt_state=sgd.init(state.d.params)))
  step = GanStep(generator, discriminator, sgd, sgd, phases.build_loss(config), ema=0.9)
  after, metrics = jax.jit(step)(state, batch, {})
  for net, grads in (('g', g_grads), ('d', d_grads)):
    old, new = (variables(getattr(at, net))['params'] for at in (state, after))
    jax.tree.map(lambda a, b, g: np.testing.assert_allclose(a - b, g, rtol=1e-3, atol=1e-5),
                 old, new, grads)
  np.testing.assert_allclose(metrics['g/total'], g_value, rtol=1e-5)
  np.testing.assert_allclose(metrics['d/total'], d_value, rtol=1e-5)
  np.testing.assert_allclose(metrics['g/pixel'] + metrics['g/adversarial'], metrics['g/total'],
                             rtol=1e-6)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
  # Of the real batch, then of the generated one.
  jax.tree.map(close, variables(after.d)['batch_stats'], d_stats)
  jax.tree.map(close, variables(after.g)['batch_stats'], g_changed['batch_stats'])


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['vanilla', 'relativistic'])  # D on one batch, D on both at once
def test_gradients_reach_only_their_own_network(config, source, kind):
  """With a learning rate of zero for one network, the other's update must not change."""
  config.loss.adversarial.kind = kind
  results = {}
  for fixed in ('none', 'g', 'd'):
    changed = config.copy_and_resolve_references()
    if fixed != 'none':
      changed.optimizer[fixed].learning_rate = 0.0
    before, results[fixed], _ = gan_step(changed, source)
    for net in ('g', 'd'):
      moved = len(same_bits(getattr(before, net).params, getattr(results[fixed], net).params))
      assert bool(moved) == (fixed != net)
  assert same_bits(results['none'].g.params, results['d'].g.params) == []
  assert same_bits(results['none'].d.params, results['g'].d.params) == []


def test_a_target_is_compared_with_and_hr_is_for_the_discriminator(experiment, start, source):
  batch = jax.jit(batch_at)(source, start.seed, start.step)
  target = jnp.clip(1.5 * batch['hr'] - 0.25, 0, 1)
  step, terms = (jax.jit(getattr(phase(experiment, name), kind)) for name, kind in (
      ('gan', 'step'), ('gan', 'terms')))
  sharp, plain, other = (step(start, given, {}) for given in (
      batch | {'target': target}, batch, batch | {'hr': target}))
  sr, _ = jax.jit(functools.partial(experiment.generator.apply, train=True, mutable=[
      'batch_stats']))(variables(start.g), batch['lr'])
  assert sharp[1]['g/pixel'] == pytest.approx(float(losses.l1(sr, target)), rel=1e-5)
  # G is moved as by the target in place of HR, but for D's opinion; D as without a target.
  assert float(sharp[1]['g/pixel']) == pytest.approx(float(other[1]['g/pixel']), rel=1e-6)
  assert same_bits(sharp[0].d.params, plain[0].d.params) == []
  assert same_bits(sharp[0].d.params, other[0].d.params) != []
  assert same_bits(sharp[0].g.params, plain[0].g.params) != []
  measured, without = (terms(start, batch | {'target': given}, {})
                       for given in (target, batch['hr']))
  assert measured['d_total'] == without['d_total']
  assert measured['pixel'] != without['pixel']
  warmup = jax.jit(phase(experiment, 'warm-up').step)
  moved, expected = (warmup(start, given, {})[0] for given in (
      batch | {'target': target}, batch | {'hr': target}))
  np.testing.assert_array_equal(*(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(
      state.g.params)]) for state in (moved, expected)))


def test_a_term_of_weight_zero_is_not_in_the_total(config, source):
  config.loss.pixel.weight, config.loss.total_variation.weight = 0.0, 0.5
  _, _, metrics = gan_step(config, source)
  assert 'g/pixel' not in metrics
  assert metrics['g/total'] == metrics['g/total_variation'] + metrics['g/adversarial']


@pytest.mark.slow
def test_adversarial_term_alone_is_enough(config, source):
  config.loss.pixel.weight = 0.0
  before, after, metrics = gan_step(config, source)
  assert metrics['g/total'] == metrics['g/adversarial'] > 0
  assert same_bits(before.g.params, after.g.params)


def test_ema_follows_weights_and_statistics(start, one_step):
  # At a late step, the decay is the configured 0.999 and not its ramp at the start.
  state = start._replace(step=jnp.int32(100_000))
  after, _ = one_step('gan', state)
  for old, new, ema in zip(*map(jax.tree.leaves, (
      state.ema, Average(after.g.params, after.g.batch_stats), after.ema)),
                           strict=True):
    np.testing.assert_allclose(ema, 0.999 * old + 0.001 * new, rtol=1e-5, atol=1e-7)
  after, _ = one_step('gan', state._replace(step=jnp.int32(0)))
  expected = jax.tree.map(lambda old, new: 0.1 * old + 0.9 * new, state.ema.params,
                          after.g.params)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
               after.ema.params, expected)


def test_adversarial_phase_starts_with_new_optimiser_state_once(experiment, start, one_step):
  warm, _ = one_step('warm-up', start)
  tx = phase(experiment, 'gan').g_tx
  begun = begin_phase(warm, tx)
  assert same_bits(begun.g.params, warm.g.params) == []
  assert all((leaf == 0).all() for leaf in jax.tree.leaves(begun.g.opt_state))
  assert same_bits(begin_phase(begun, tx), begun) == []
  assert same_bits(begin_phase(start, phase(experiment, 'warm-up').g_tx), start) == []


@pytest.mark.parametrize('name', ['gan', pytest.param('warm-up', marks=pytest.mark.slow)])
def test_device_loop_does_not_depend_on_how_it_is_split(experiment, start, source, name):
  run = jax.jit(functools.partial(device_loop.train_steps, step=phase(experiment, name).step,
                                  batch_at=batch_at), donate_argnames='state')

  def split(*lengths):
    state, at = jax.tree.map(jnp.copy, start), 0
    for length in lengths:
      state, metrics = run(state, source, experiment.frozen, at, at + length)
      at += length
    return state, metrics

  whole = split(12)
  assert whole[0].step == 12
  assert np.isfinite(list(map(float, whole[1].values()))).all()
  for lengths in ((6, 6), (2, 3, 7), (1,) * 12):
    assert same_bits(split(*lengths), whole) == [], lengths


@pytest.mark.slow
def test_loop_and_single_steps_agree(experiment, start, source, one_step):
  """They agree in their values, not in every bit: the code is compiled differently."""
  run = jax.jit(functools.partial(device_loop.train_steps, step=phase(experiment, 'gan').step,
                                  batch_at=batch_at))
  looped, _ = run(start, source, {}, 0, 3)
  single = start
  for _ in range(3):
    single, _ = one_step('gan', single)
  a, b = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state.g.params)])
          for state in (looped, single))
  # Adam moves a weight by its full step, in either direction, if its gradient is a rounding error.
  assert np.mean(np.abs(a - b) > 1e-4) < 0.02


@pytest.mark.parametrize('loop', [False, True])
def test_a_restored_state_gives_the_same_program(experiment, start, source, loop):
  """The arrays of a checkpoint are committed to a device; the compile cache must still hit."""
  run = phases.jit_step(experiment._replace(device_loop=loop), phase(experiment, 'gan'), batch_at)
  new = jax.tree.map(jnp.asarray, start)
  restored = jax.device_put(new, jax.local_devices()[0])
  texts = [run.lower(state, source, {}, 0, 1).as_text() for state in (new, restored)]
  assert texts[0] == texts[1]


def test_the_donated_state_is_deleted(experiment, start, source):
  run = phases.jit_step(experiment, phase(experiment, 'gan'), batch_at)
  state = jax.tree.map(jnp.copy, start)
  run(state, source, experiment.frozen, 0, 1)
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.g, state.d)))


def test_bfloat16_computes_in_bfloat16_and_keeps_float32(config, source):
  config.dtype = 'bfloat16'
  experiment = phases.build(config)
  state = jax.eval_shape(experiment.new_state)
  arguments = state, source, experiment.frozen
  step = jitted(phase(experiment, 'gan'))
  after, metrics = jax.eval_shape(step, *arguments)
  dtypes = {leaf.dtype for leaf in jax.tree.leaves((after.g, after.d, after.ema, metrics))}
  assert dtypes == {jnp.dtype('float32'), jnp.dtype('int32')}
  convolutions = [line for line in step.lower(*arguments).as_text().splitlines()
                  if 'stablehlo.convolution' in line]
  assert convolutions
  assert all('bf16' in line for line in convolutions)
