"""The cost of a step: nothing is computed twice; an accumulated batch needs less memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sr_jax import losses
from sr_jax.experiment import base_config, phases
from sr_jax.models.discriminator import Discriminator
from sr_jax.models.srresnet import SRResNet
from sr_jax.models.vgg import VGG19
from sr_jax.profiling.products import products
from sr_jax.step.state import begin_phase, init_state, variables
from sr_jax.step.train_step import GanStep
from tests.conftest import filled, same_bits

LR, HR = (4, 8, 8, 3), (4, 32, 32, 3)


def compiled_flops(function, *arguments):
  """FLOPs by XLA's cost analysis of the compiled program."""
  return jax.jit(function).lower(*arguments).compile().cost_analysis()['flops']


def traced_flops(function, *arguments):
  """FLOPs of convolutions and matrix products in the jaxpr, which needs no compilation."""
  return products(jax.jit(function).trace(*arguments).jaxpr)['flops']


def like(shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.mark.parametrize(('flops', 'rtol'), [
    (traced_flops, 1e-6), pytest.param(compiled_flops, 0.01,
                                      marks=[pytest.mark.slow, pytest.mark.optimised])])
@pytest.mark.parametrize('kind', ['relativistic', 'vanilla'])
@pytest.mark.parametrize('batch_norm', [True, False])
def test_each_network_is_evaluated_once(kind, batch_norm, flops, rtol):
  """Compares the FLOPs of a GAN step with the sum of its parts, each of them counted alone.

  Forward: G(lr), D(real), D(fake) and VGG of both, once each. Backward: G, VGG to its input, D on
  real to its weights, D on fake twice: to its weights for D's loss, to its input for G's loss.
  """
  generator = SRResNet(32, 4, kernel=3, scale=4, batch_norm=batch_norm)
  discriminator = Discriminator(widths=(32, 64), batch_norm=batch_norm, head='conv', hidden=16)
  vgg, tx = VGG19(('relu1_1',)), optax.adam(1e-4)
  frozen = jax.eval_shape(lambda: {'vgg': filled(vgg, np.zeros(HR, np.float32))})
  loss = losses.GeneratorLoss(perceptual_weight=1, layers={'relu1_1': 1.0}, adversarial=kind,
                             adversarial_weight=1e-3)
  state = jax.eval_shape(lambda: init_state(0, generator, tx, LR, discriminator, tx, HR))
  batch = {'lr': like(LR), 'hr': like(HR)}
  step = GanStep(generator, discriminator, tx, tx, loss, ema=0.999, vgg=vgg)

  def apply(network, stats, params, image):
    output, changed = network.apply({'params': params, 'batch_stats': stats}, image,
                                    train=True, mutable=['batch_stats'])
    return jnp.sum(output**2), changed

  def d(params, image):
    return apply(discriminator, stats_of_d, params, image)

  def perceptual(sr, hr, variables):
    return losses.perceptual(vgg.apply(variables, sr), vgg.apply(variables, hr), loss.layers, 1.0,
                             'mse')

  nets = [jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), variables(net))
          for net in (state.g, state.d)]
  (g, g_stats), (d_params, stats_of_d) = ((net['params'], net['batch_stats']) for net in nets)
  of_g = functools.partial(apply, generator, g_stats)
  forward = [
      flops(of_g, g, batch['lr']), flops(d, d_params, batch['hr']),
      flops(vgg.apply, frozen['vgg'], batch['hr'])]
  to_weights = flops(jax.grad(d, has_aux=True), d_params, batch['hr'])
  parts = [
      flops(jax.grad(of_g, has_aux=True), g, batch['lr']),
      2 * to_weights, flops(jax.grad(d, argnums=1, has_aux=True), d_params, batch['hr']),
      -forward[1],  # the forward pass on fake, which both gradients share
      flops(jax.grad(perceptual), batch['hr'], batch['hr'], frozen['vgg'])]
  assert min(forward) > 1.3 * rtol * sum(parts)  # a second forward pass would be noticed
  assert flops(step, state, batch, frozen) == pytest.approx(sum(parts), rel=rtol)


# Accumulation -------------------------------------------------------------------------


@pytest.fixture
def small(config):
  config.generator.batch_norm = config.discriminator.batch_norm = False
  return config


def stepped(config, number, batch):
  """(state, metrics) after the first step of a phase.

  Its optimiser state holds Adam's first moment, which is linear in the gradient.
  """
  experiment = phases.build(config)
  state = experiment.new_state()
  phase = experiment.phases[number]
  state = begin_phase(state, phase.g_tx)
  return jax.jit(phase.step)(state, batch, {})


@pytest.fixture(scope='module')
def batch():
  rng = np.random.default_rng(0)
  return {'lr': rng.random((4, 8, 8, 3), np.float32), 'hr': rng.random((4, 16, 16, 3), np.float32)}


@pytest.mark.parametrize('number', [0, pytest.param(1, marks=pytest.mark.slow)])
def test_accumulation_gives_the_gradient_of_the_batch(small, batch, number):
  full, full_metrics = stepped(small, number, batch)
  small.accumulate = 4
  parts, part_metrics = stepped(small, number, batch)
  close = functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-7)
  jax.tree.map(close, parts.g.opt_state, full.g.opt_state)
  if number:
    jax.tree.map(close, parts.d.opt_state, full.d.opt_state)
  assert part_metrics.keys() == full_metrics.keys()
  for name, value in full_metrics.items():
    close(part_metrics[name], value, err_msg=name)


@pytest.mark.slow
def test_batchnorm_sees_one_part_at_a_time(config, batch):
  """A part has the crops i, i + parts, ...; running statistics are updated once for each part."""
  config.accumulate = 2
  state, _ = stepped(config, 1, batch)
  config.accumulate = 1
  experiment = phases.build(config)
  initial = experiment.new_state()
  given = variables(initial.g)
  stats = given['batch_stats']
  for at in range(2):
    _, changed = experiment.generator.apply(
        given | {'batch_stats': stats}, batch['lr'][at::2], train=True, mutable=['batch_stats'])
    stats = changed['batch_stats']
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
               variables(state.g)['batch_stats'], stats)
  assert same_bits(stats, initial.g.batch_stats)


@pytest.mark.slow
@pytest.mark.optimised
def test_accumulation_needs_less_memory():
  config = base_config.defaults()
  config.batch_size, config.hr_patch, config.generator.blocks = 16, 48, 4

  def working_bytes(accumulate, backend):
    config.accumulate = accumulate
    experiment = phases.build(config)
    state = jax.eval_shape(experiment.new_state)
    batch = {'lr': like((16, 12, 12, 3)), 'hr': like((16, 48, 48, 3))}
    with pytest.MonkeyPatch.context() as patch:  # compiled as a loop, as on an accelerator
      patch.setattr(jax, 'default_backend', lambda: backend)
      lowered = jax.jit(experiment.phases[0].step, donate_argnums=0).lower(state, batch, {})
    return lowered.compile().memory_analysis().temp_size_in_bytes

  assert working_bytes(8, 'gpu') < working_bytes(1, 'cpu') / 3
