"""Training steps: which arrays move, which do not, and that every route gives one result."""

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
from sr_jax.step import train_step
from tests.conftest import same_bits


@pytest.fixture(scope='module')
def source(folder, pack_folder):
  return bank.to_device(pack_folder(folder))


batch_at = functools.partial(feed.batch_of_bank, cut=bank.CropSpec(4, 16, 2), size=4,
                             kinds=Augmentation())


@pytest.fixture
def experiment(config):
  return phases.build(config)


def phase(experiment, name):
  return next(phase for phase in experiment.phases if phase.name == name)


def one_step(experiment, name, state, source):
  step = functools.partial(train_step.one_step, step=phase(experiment, name).step,
                           batch_at=batch_at)
  return jax.jit(step)(state, source, experiment.frozen)


def test_warm_up_moves_the_generator_alone(experiment, source):
  before = experiment.new_state()
  after, metrics = one_step(experiment, 'warm-up', before, source)
  assert same_bits(before.d, after.d) == []
  assert len(same_bits(before.g.params, after.g.params)) == len(jax.tree.leaves(before.g.params))
  assert after.step == 1
  assert set(metrics) == {'g/pixel', 'g/total', 'g/grad_norm', 'g/ema_distance', 'skipped', 'bad'}


def test_gan_step_is_two_separate_updates(experiment, source, config):
  """Against the plain way: two losses, two gradients, each network applied once more."""
  state = experiment.new_state()
  generator, discriminator = experiment.generator, experiment.discriminator
  batch = jax.jit(batch_at)(source, state.seed, state.step)
  mutable = ['batch_stats']

  def generate(params):
    return generator.apply({'params': params, 'batch_stats': state.g.batch_stats}, batch['lr'],
                           train=True, mutable=mutable)

  def judge(params, images, stats):
    logits, changed = discriminator.apply({'params': params, 'batch_stats': stats}, images,
                                          train=True, mutable=mutable)
    return logits, changed['batch_stats']

  def g_loss(params):
    sr, _ = generate(params)
    logits, _ = judge(state.d.params, sr, state.d.batch_stats)
    return losses.l1(sr, batch['hr']) + 1e-3 * losses.vanilla_generator(logits)

  def d_loss(params, fake):
    real, stats = judge(params, batch['hr'], state.d.batch_stats)
    logits, stats = judge(params, jax.lax.stop_gradient(fake), stats)
    return losses.vanilla_discriminator(real, logits), stats

  fake, g_changed = jax.jit(generate)(state.g.params)
  g_value, g_grads = jax.jit(jax.value_and_grad(g_loss))(state.g.params)
  (d_value, d_stats), d_grads = jax.jit(jax.value_and_grad(d_loss, has_aux=True))(
      state.d.params, fake)

  # Plain gradient descent shows the gradients, which Adam's first step would hide.
  sgd = optax.sgd(1.0)
  state = state._replace(g=state.g._replace(opt_state=sgd.init(state.g.params)),
                         d=state.d._replace(opt_state=sgd.init(state.d.params)))
  step = functools.partial(train_step.gan_step, generator=generator, discriminator=discriminator,
                           g_tx=sgd, d_tx=sgd, ema=0.9, loss=phases.build_loss(config))
  after, metrics = jax.jit(step)(state, batch, {})
  for net, grads in (('g', g_grads), ('d', d_grads)):
    old, new = getattr(state, net).params, getattr(after, net).params
    jax.tree.map(lambda a, b, g: np.testing.assert_allclose(a - b, g, rtol=1e-3, atol=1e-5),
                 old, new, grads)
  np.testing.assert_allclose(metrics['g/total'], g_value, rtol=1e-5)
  np.testing.assert_allclose(metrics['d/total'], d_value, rtol=1e-5)
  np.testing.assert_allclose(metrics['g/pixel'] + metrics['g/adversarial'], metrics['g/total'],
                             rtol=1e-6)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
  jax.tree.map(close, after.d.batch_stats, d_stats)  # real, then fake, nothing else
  jax.tree.map(close, after.g.batch_stats, g_changed['batch_stats'])


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['vanilla', 'relativistic'])  # one logit, and both at once
def test_gradients_reach_only_the_network_they_should(config, source, kind, unoptimised):
  """With a learning rate of zero for one network, the other's update must not change."""
  config.loss.adversarial.kind = kind
  results = {}
  for frozen in ('none', 'g', 'd'):
    changed = config.copy_and_resolve_references()
    if frozen != 'none':
      changed.optimizer[frozen].learning_rate = 0.0
    experiment = phases.build(changed)
    before = experiment.new_state()
    results[frozen] = one_step(experiment, 'gan', before, source)[0]
    for net in ('g', 'd'):
      moved = len(same_bits(getattr(before, net).params, getattr(results[frozen], net).params))
      assert bool(moved) == (frozen != net)
  assert same_bits(results['none'].g.params, results['d'].g.params) == []
  assert same_bits(results['none'].d.params, results['g'].d.params) == []


def test_no_term_reaches_a_network_without_weight(config, source):
  config.loss.pixel.weight, config.loss.total_variation.weight = 0.0, 0.5
  _, metrics = one_step(phases.build(config), 'gan', phases.build(config).new_state(), source)
  assert 'g/pixel' not in metrics
  assert metrics['g/total'] == metrics['g/total_variation'] + metrics['g/adversarial']


@pytest.mark.slow
def test_adversarial_term_alone_is_enough(config, source):
  config.loss.pixel.weight = 0.0
  experiment = phases.build(config)
  before = experiment.new_state()
  after, metrics = one_step(experiment, 'gan', before, source)
  assert metrics['g/total'] == metrics['g/adversarial'] > 0
  assert same_bits(before.g.params, after.g.params)


def test_ema_follows_weights_and_statistics(experiment, source):
  state = experiment.new_state()
  # A later step, where the configured decay of 0.999 counts and not its rising start.
  state = state._replace(step=jnp.int32(100_000))
  after, _ = one_step(experiment, 'gan', state, source)
  for old, new, ema in zip(*map(jax.tree.leaves, (
      state.ema, {'params': after.g.params, 'batch_stats': after.g.batch_stats}, after.ema)),
                           strict=True):
    np.testing.assert_allclose(ema, 0.999 * old + 0.001 * new, rtol=1e-5, atol=1e-7)
  young = state._replace(step=jnp.int32(0))
  after, _ = one_step(experiment, 'gan', young, source)
  expected = jax.tree.map(lambda old, new: 0.1 * old + 0.9 * new, state.ema['params'],
                          after.g.params)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
               after.ema['params'], expected)


def test_adversarial_phase_starts_with_fresh_moments_once(experiment, source):
  warm, _ = one_step(experiment, 'warm-up', experiment.new_state(), source)
  tx = phase(experiment, 'gan').g_tx
  begun = train_step.begin_phase(warm, tx)
  assert same_bits(begun.g.params, warm.g.params) == []
  assert all((leaf == 0).all() for leaf in jax.tree.leaves(begun.g.opt_state))
  assert same_bits(train_step.begin_phase(begun, tx), begun) == []
  new = experiment.new_state()
  assert same_bits(train_step.begin_phase(new, phase(experiment, 'warm-up').g_tx), new) == []


@pytest.mark.parametrize('name', ['warm-up', 'gan'])
def test_device_loop_is_indifferent_to_how_it_is_cut(experiment, source, name):
  run = jax.jit(functools.partial(train_step.train_steps, step=phase(experiment, name).step,
                                  batch_at=batch_at), donate_argnames='state')

  def cut(*lengths):
    state, at = experiment.new_state(), 0
    for length in lengths:
      state, metrics = run(state, source, experiment.frozen, at, at + length)
      at += length
    return state, metrics

  whole = cut(40)
  assert whole[0].step == 40
  assert np.isfinite(list(map(float, whole[1].values()))).all()
  for lengths in ((20, 20), (7, 13, 20), (1,) * 40):
    assert same_bits(cut(*lengths), whole) == [], lengths


@pytest.mark.slow
def test_loop_and_plain_steps_agree(experiment, source):
  """Not in bits, the code is compiled differently, but in figures."""
  run = jax.jit(functools.partial(train_step.train_steps, step=phase(experiment, 'gan').step,
                                  batch_at=batch_at))
  looped, _ = run(experiment.new_state(), source, {}, 0, 3)
  plain = experiment.new_state()
  for _ in range(3):
    plain, _ = one_step(experiment, 'gan', plain, source)
  a, b = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state.g.params)])
          for state in (looped, plain))
  # Adam moves a weight whose gradient is all rounding error by its full step either way.
  assert np.mean(np.abs(a - b) > 1e-4) < 0.02


@pytest.mark.parametrize('loop', [False, True])
def test_a_restored_state_makes_the_same_program(experiment, source, loop):
  """So that the compile cache has it: what comes of a checkpoint was put on its device."""
  run = phases.jit_step(experiment._replace(device_loop=loop), phase(experiment, 'gan'), batch_at)
  new = jax.tree.map(jnp.asarray, experiment.new_state())
  restored = jax.device_put(new, jax.local_devices()[0])
  texts = [run.lower(state, source, {}, 0, 1).as_text() for state in (new, restored)]
  assert texts[0] == texts[1]


def test_donated_state_is_gone(experiment, source):
  run = phases.jit_step(experiment, phase(experiment, 'gan'), batch_at)
  state = experiment.new_state()
  run(state, source, experiment.frozen, 0, 1)
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.g))


def test_bfloat16_computes_in_bfloat16_and_keeps_float32(config, source):
  config.dtype = 'bfloat16'
  experiment = phases.build(config)
  state, metrics = one_step(experiment, 'gan', experiment.new_state(), source)
  kinds = {leaf.dtype for leaf in jax.tree.leaves((state.g, state.d, state.ema, metrics))}
  assert kinds == {jnp.dtype('float32'), jnp.dtype('int32')}
  batch = batch_at(source, 0, 0)
  text = jax.jit(phase(experiment, 'gan').step).lower(state, batch, {}).as_text()
  convolutions = [line for line in text.splitlines() if 'stablehlo.convolution' in line]
  assert convolutions
  assert all('bf16' in line for line in convolutions)
