"""Every config and variant describes an experiment that can be built."""

import importlib
import inspect
import pathlib

import jax
import jax.numpy as jnp
import pytest

from configs import common
from sr_jax import build, optim

EXPERIMENTS = sorted(path.stem for path in pathlib.Path(common.__file__).parent.glob('*.py')
                     if path.stem not in ('__init__', 'common'))
CASES = [(name, variant) for name in EXPERIMENTS
         for variant in ('', *importlib.import_module(f'configs.{name}').VARIANTS)]


@pytest.mark.parametrize(('name', 'variant'), CASES)
def test_networks_losses_and_schedules_can_be_built(name, variant):
  config = importlib.import_module(f'configs.{name}').get_config(variant)
  build.check(config)
  generator, discriminator = build.build_generator(config), build.build_discriminator(config)
  side = config.hr_patch // config.scale
  sr, _ = jax.eval_shape(generator.init_with_output, jax.random.key(0),
                         jnp.zeros((1, side, side, 3)))
  assert sr.shape == (1, config.hr_patch, config.hr_patch, 3)
  if discriminator is not None:
    logits, _ = jax.eval_shape(discriminator.init_with_output, jax.random.key(0), sr)
    assert logits.shape == (1,)
  assert build.build_loss(config)
  for adam in config.optimizer.values():
    _, schedule = optim.build_optimizer(adam, config.steps)
    assert schedule(config.steps // 2) > 0


def test_the_papers_srgan():
  config = importlib.import_module('configs.srgan').get_config()
  state = jax.eval_shape(build.build_generator(config).init, jax.random.key(0),
                         jnp.zeros((1, 24, 24, 3)))
  assert sum(leaf.size for leaf in jax.tree.leaves(state['params'])) == 1_549_462
  loss = build.build_loss(config)
  assert (loss.pixel_weight, loss.layers, loss.adversarial_weight) == (0, {'relu5_4': 1}, 1e-3)
  assert loss.scale == pytest.approx(1 / 12.75)
  _, schedule = optim.build_optimizer(config.optimizer.g, 200_000)
  assert [float(schedule(step)) for step in (0, 99_999, 100_001)] == pytest.approx(
      [1e-4, 1e-4, 1e-5])


def test_schedules_by_hand():
  config = common.defaults().optimizer.g
  config.learning_rate, config.schedule, config.ramp = 1.0, 'cosine', 4
  _, schedule = optim.build_optimizer(config, 100)
  assert schedule(0) == pytest.approx(0.25)
  assert schedule(50) == pytest.approx(0.5)
  assert schedule(100) == pytest.approx(0.0, abs=1e-6)
  config.final = 0.1
  assert optim.build_optimizer(config, 100)[1](100) == pytest.approx(0.1)


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_each_opens_with_paper_command_and_result(name):
  text = inspect.getdoc(importlib.import_module(f'configs.{name}'))
  assert f'python -m sr_jax.main --config configs/{name}.py' in text
  for word in ('Paper', 'Published', 'Cost'):
    assert word in text
  assert 'sample' in importlib.import_module(f'configs.{name}').VARIANTS
