"""What a step costs by XLA's own account: nothing is computed twice, parts of a batch take less."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import common
from sr_jax import losses
from sr_jax.experiment import phases
from sr_jax.models.discriminator import Discriminator
from sr_jax.models.srresnet import SRResNet
from sr_jax.models.vgg import VGG19
from sr_jax.step import train_step
from sr_jax.step.state import init_state
from tests.conftest import filled, same_bits

LR, HR = (4, 8, 8, 3), (4, 32, 32, 3)


def flops(function, *arguments):
  return jax.jit(function).lower(*arguments).compile().cost_analysis()['flops']


def like(shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.mark.parametrize(('kind', 'batch_norm'), [
    ('relativistic', True), *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        ('relativistic', False), ('vanilla', True), ('vanilla', False)))])
def test_each_network_is_gone_through_once(kind, batch_norm):
  """A GAN step against its parts, each of them compiled alone, in floating point operations.

  G(lr), D(real), D(fake) and VGG of both forward, once each; backward G, VGG to its input, D on
  real to its weights, D on fake twice: to its weights by D's loss, to its input by G's.
  """
  generator = SRResNet(32, 4, kernel=3, scale=4, batch_norm=batch_norm)
  discriminator = Discriminator(widths=(32, 64), batch_norm=batch_norm, head='conv', hidden=16)
  vgg, tx = VGG19(('relu1_1',)), optax.adam(1e-4)
  frozen = jax.eval_shape(lambda: {'vgg': filled(vgg, np.zeros(HR, np.float32))})
  loss = losses.GeneratorLoss(perceptual_weight=1, layers={'relu1_1': 1.0}, adversarial=kind,
                             adversarial_weight=1e-3)
  state = jax.eval_shape(lambda: init_state(0, generator, tx, LR, discriminator, tx, HR))
  batch = {'lr': like(LR), 'hr': like(HR)}
  step = functools.partial(train_step.gan_step, generator=generator, discriminator=discriminator,
                           g_tx=tx, d_tx=tx, loss=loss, ema=0.999, vgg=vgg)

  def apply(network, stats, params, picture):
    output, changed = network.apply({'params': params, 'batch_stats': stats}, picture,
                                    train=True, mutable=['batch_stats'])
    return jnp.sum(output**2), changed

  def d(params, picture):
    return apply(discriminator, state_of_d, params, picture)

  def perceptual(sr, hr, variables):
    return losses.perceptual(vgg.apply(variables, sr), vgg.apply(variables, hr), loss.layers, 1.0,
                             'mse')

  g, state_of_d = state.g, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), state.d.batch_stats)
  of_g = functools.partial(apply, generator,
                           jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), g.batch_stats))
  forward = [
      flops(of_g, g.params, batch['lr']), flops(d, state.d.params, batch['hr']),
      flops(vgg.apply, frozen['vgg'], batch['hr'])]
  to_weights = flops(jax.grad(d, has_aux=True), state.d.params, batch['hr'])
  parts = [
      flops(jax.grad(of_g, has_aux=True), g.params, batch['lr']),
      2 * to_weights, flops(jax.grad(d, argnums=1, has_aux=True), state.d.params, batch['hr']),
      -forward[1],  # of the pass on fake, which both backward share
      flops(jax.grad(perceptual), batch['hr'], batch['hr'], frozen['vgg'])]
  assert min(forward) > 0.014 * sum(parts)  # one too many would be seen
  assert flops(step, state, batch, frozen) == pytest.approx(sum(parts), rel=0.01)


# Parts of a batch ----------------------------------------------------------------------


@pytest.fixture
def small(config):
  config.generator.batch_norm = config.discriminator.batch_norm = False
  return config


def stepped(config, number, batch):
  """(state, metrics) of phase `number`'s first step with SGD's linearity: Adam's first moment."""
  experiment = phases.build(config)
  state = experiment.new_state()
  phase = experiment.phases[number]
  state = train_step.begin_phase(state, phase.g_tx)
  return jax.jit(phase.step)(state, batch, {})


@pytest.fixture(scope='module')
def batch():
  rng = np.random.default_rng(0)
  return {'lr': rng.random((4, 8, 8, 3), np.float32), 'hr': rng.random((4, 16, 16, 3), np.float32)}


@pytest.mark.parametrize('number', [0, pytest.param(1, marks=pytest.mark.slow)])
def test_parts_of_a_batch_give_its_gradient(small, batch, number):
  whole, of_whole = stepped(small, number, batch)
  small.accumulate = 4
  parts, of_parts = stepped(small, number, batch)
  close = functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-7)
  jax.tree.map(close, parts.g.opt_state, whole.g.opt_state)
  if number:
    jax.tree.map(close, parts.d.opt_state, whole.d.opt_state)
  assert of_parts.keys() == of_whole.keys()
  for name, value in of_whole.items():
    close(of_parts[name], value, err_msg=name)


@pytest.mark.slow
def test_batchnorm_sees_a_part_at_a_time(config, batch):
  """A part has the crops i, i + parts, ...; running statistics move once for each."""
  config.accumulate = 2
  state, _ = stepped(config, 1, batch)
  config.accumulate = 1
  experiment = phases.build(config)
  begun = experiment.new_state()
  stats = begun.g.batch_stats
  for at in range(2):
    _, changed = experiment.generator.apply(
        {'params': begun.g.params, 'batch_stats': stats}, batch['lr'][at::2], train=True,
        mutable=['batch_stats'])
    stats = changed['batch_stats']
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
               state.g.batch_stats, stats)
  assert same_bits(stats, begun.g.batch_stats)


@pytest.mark.slow
def test_parts_of_a_batch_take_less_memory():
  config = common.defaults()
  config.batch_size, config.hr_patch, config.generator.blocks = 16, 48, 4

  def working(accumulate, backend):
    config.accumulate = accumulate
    experiment = phases.build(config)
    state = jax.eval_shape(experiment.new_state)
    batch = {'lr': like((16, 12, 12, 3)), 'hr': like((16, 48, 48, 3))}
    with pytest.MonkeyPatch.context() as patch:  # in a loop, as on an accelerator
      patch.setattr(jax, 'default_backend', lambda: backend)
      lowered = jax.jit(experiment.phases[0].step, donate_argnums=0).lower(state, batch, {})
    return lowered.compile().memory_analysis().temp_size_in_bytes

  whole = working(1, 'cpu')
  assert working(8, 'gpu') < whole / 3
