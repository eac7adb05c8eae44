"""A step timed in parts: the parts compute what the step computes, and none is missing."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr_jax import losses
from sr_jax.data import bank, feed
from sr_jax.data.augment import Augmentation
from sr_jax.experiment import phases
from sr_jax.profiling import parts, timing
from sr_jax.step import device_loop, nonfinite
from sr_jax.step.state import begin_phase
from sr_jax.step.train_step import PixelStep

bank_batch_at = feed.bank_batches(feed.FeedSpec(bank.CropSpec(4, 16, 2), 4, Augmentation(), 0))


def batch_at(*arguments):
  """A batch with a target other than HR, as sharpened HR is."""
  batch = bank_batch_at(*arguments)
  return batch | {'target': 1.25 * batch['hr'] - 0.125}


class Features(nn.Module):
  """A stand-in for VGG."""

  @nn.compact
  def __call__(self, pictures):
    return {'a': nn.relu(nn.Conv(4, (3, 3))(pictures))}


@pytest.fixture(scope='module')
def source(folder, pack_folder):
  return bank.to_device(pack_folder(folder))


def perceptual(phase):
  """(phase.step with a perceptual loss, its frozen arrays)."""
  step = phase.step.step
  loss = losses.GeneratorLoss(
      pixel='l1', perceptual_weight=0.5, layers={'a': 1.0}, total_variation_weight=0.1,
      adversarial=step.loss.adversarial, adversarial_weight=step.loss.adversarial_weight)
  step = dataclasses.replace(step, loss=loss, vgg=Features())
  frozen = {'vgg': Features().init(jax.random.key(1), jnp.zeros((1, 8, 8, 3)))}
  return dataclasses.replace(phase.step, step=step), frozen


@pytest.mark.parametrize(('number', 'kind'), [
    (0, 'vanilla'), pytest.param(1, 'relativistic', marks=pytest.mark.slow),
    pytest.param(1, 'vanilla', marks=pytest.mark.slow)])
def test_parts_compute_the_step(config, source, number, kind):
  config.loss.adversarial.kind = kind
  experiment = phases.build(config)
  step, frozen = perceptual(experiment.phases[number])
  state = experiment.new_state()
  if number == 0:
    state = begin_phase(state, experiment.phases[0].g_tx)
  whole = jax.jit(functools.partial(device_loop.one_step, step=step, batch_at=batch_at)).lower(
      state, source, frozen).compile()
  expected, metrics = whole(state, source, frozen)
  timed = timing.Timed({})
  made, measured = parts.take_step(timed, step, batch_at, jax.tree.map(jnp.copy, state), source,
                                   frozen)
  assert measured.keys() == metrics.keys()
  for name, value in metrics.items():  # among them gradient norms and the non-finite counters
    # The distance of weights after a single step is inexact, see below.
    rtol = 1e-2 if name == 'g/ema_distance' else 2e-5
    np.testing.assert_allclose(measured[name], value, rtol=rtol, atol=1e-7, err_msg=name)
  assert made.step == expected.step == 1
  # Adam's first step is the sign of the gradient; near zero it may be either.
  moved = np.concatenate([np.ravel(a - b) for a, b in zip(
      jax.tree.leaves((expected.g.params, expected.d)), jax.tree.leaves((made.g.params, made.d)),
      strict=True)])
  assert np.mean(np.abs(moved) > 1e-5) < 0.01
  flops = sum(timing.cost(program)['flops'] for program in timed.programs.values())
  assert flops == pytest.approx(timing.cost(whole)['flops'], rel=0.1)  # a small network
  assert next(iter(timed.programs)) == 'batch'
  assert list(timed.programs)[-1] == 'update'


def test_parts_of_an_accumulated_batch_are_counted_as_often_as_they_run():
  def timed(name, function, *arguments):
    raise AssertionError
  timed.programs = {name: jax.jit(lambda x: x @ x).lower(jnp.ones((8, 8))).compile()
                    for name in ('batch', 'generator forward', 'update')}
  timed.products, timed.median = {}, lambda name: 0.5
  inner = PixelStep(None, None, losses.GeneratorLoss(), 0.9, accumulate=4)
  step = nonfinite.SkipNonfinite(inner, 1)
  figures = parts.part_costs(step, timed)
  assert [figures[name]['seconds'] for name in figures] == [0.5, 2.0, 0.5]
  assert figures['generator forward']['flops'] == 4 * figures['batch']['flops'] > 0


def test_scopes_name_every_part_of_a_step(config, source):
  experiment = phases.build(config)
  phase = experiment.phases[1]
  state = jax.eval_shape(experiment.new_state)
  step = functools.partial(device_loop.one_step, step=phase.step, batch_at=batch_at)
  text = jax.jit(step).lower(state, source, experiment.frozen).as_text(debug_info=True)
  for name in ('batch', 'optimiser', 'ema', 'guard', 'jvp(generator)', 'jvp(discriminator)',
               'jvp(losses)', 'transpose(jvp(generator))', 'transpose(jvp(discriminator))'):
    assert f'/{name}/' in text, name
