"""Every config and variant describes an experiment that can be built and trained."""

import functools
import importlib
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr_jax import images, train
from sr_jax.experiment import base_config, config_file, inputs, optimizer, phases
from sr_jax.experiment.check import check
from sr_jax.models import factory
from sr_jax.models.layers import INITIALIZERS
from sr_jax.runs.metrics_log import read_metrics

EXPERIMENTS = list(config_file.experiments())
CASES = [(name, variant) for name in EXPERIMENTS
         for variant in ('', *importlib.import_module(f'configs.{name}').VARIANTS)]


@functools.cache  # many variants share a network
def result_shape(network, side):
  result, _ = jax.eval_shape(network.init_with_output, jax.random.key(0),
                             jnp.zeros((1, side, side, 3)))
  return result.shape


@pytest.mark.parametrize(('name', 'variant'), CASES)
def test_networks_losses_and_schedules_can_be_built(name, variant):
  config = importlib.import_module(f'configs.{name}').get_config(variant)
  check(config)
  generator = factory.build_generator(dict(config.generator.items()), config.scale, config.dtype)
  discriminator = factory.build_discriminator(dict(config.discriminator.items()), config.dtype)
  # Blocks are alike, at most by turns, and tracing them takes seconds.
  generator = generator.clone(**{field: number for field, number in (('groups', 1), ('blocks', 2))
                                 if hasattr(generator, field)})
  side = config.hr_patch // config.scale
  assert result_shape(generator, side) == (1, config.hr_patch, config.hr_patch, 3)
  if discriminator is not None:
    logits = result_shape(discriminator, config.hr_patch)  # for each crop or for each pixel
    assert logits in ((1,), (1, config.hr_patch, config.hr_patch))
  assert phases.build_loss(config)
  for adam in config.optimizer.values():
    _, schedule = optimizer.build_optimizer(adam, config.steps)
    assert schedule(config.steps // 2) > 0


def test_srgan_matches_the_paper():
  config = importlib.import_module('configs.srgan').get_config()
  generator = factory.build_generator(dict(config.generator.items()), config.scale, config.dtype)
  state = jax.eval_shape(generator.init, jax.random.key(0), jnp.zeros((1, 24, 24, 3)))
  assert sum(leaf.size for leaf in jax.tree.leaves(state['params'])) == 1_549_462
  loss = phases.build_loss(config)
  assert (loss.pixel_weight, loss.layers, loss.adversarial_weight) == (0, {'relu5_4': 1}, 1e-3)
  assert loss.scale == pytest.approx(1 / 12.75)
  _, schedule = optimizer.build_optimizer(config.optimizer.g, 200_000)
  assert [float(schedule(step)) for step in (0, 99_999, 100_001)] == pytest.approx(
      [1e-4, 1e-4, 1e-5])


def test_schedules_have_the_values_of_their_formulas():
  config = base_config.defaults().optimizer.g
  config.learning_rate, config.schedule, config.ramp = 1.0, 'cosine', 4
  _, schedule = optimizer.build_optimizer(config, 100)
  assert schedule(0) == pytest.approx(0.25)
  assert schedule(50) == pytest.approx(0.5)
  assert schedule(100) == pytest.approx(0.0, abs=1e-6)
  config.final = 0.1
  assert optimizer.build_optimizer(config, 100)[1](100) == pytest.approx(0.1)


@pytest.mark.slow
def test_the_perceptual_term_of_the_original_vgg_is_in_the_range_of_torchvisions(assets):
  """RCAN's Set5 against the originals; logs of torchvision's VGG19 show 0.77-1.04."""
  config = importlib.import_module('configs.esrgan').get_config('caffe')
  config.loss.perceptual.weights = str(assets / 'vgg19_features.safetensors')
  vgg, frozen = phases.build_vgg(config)
  loss = phases.build_loss(config)
  sides = []
  for folder in ('sr', 'hr'):
    found = sorted((assets / 'Set5_RCAN_x4' / folder).iterdir())
    pictures = [images.to_float(images.as_rgb(images.read_image(path))) for path in found]
    sides.append(jnp.stack([
        picture[y:y + 128, x:x + 128] for picture in pictures
        for y in range(0, picture.shape[0] - 127, 128)
        for x in range(0, picture.shape[1] - 127, 128)]))
  terms = jax.jit(lambda sr, hr, frozen: loss.reconstruction(sr, hr, vgg, frozen))(*sides, frozen)
  assert len(sides[0]) == 30
  assert 0.77 < float(terms['perceptual']) < 1.04


@pytest.mark.slow
def test_each_layer_of_the_original_vgg_counts_as_much_as_torchvisions(assets):
  """Compares with VGG16, of which torchvision's weights are at hand."""
  terms = []
  for variant, weights in (('caffe', str(assets / 'vgg19_features.safetensors')), ('sample', '')):
    config = importlib.import_module('configs.realesrgan').get_config(variant)
    config.loss.perceptual.weights = weights
    vgg, frozen = phases.build_vgg(config)
    loss = phases.build_loss(config)
    photos = sorted((assets / 'BSDS500' / 'train').iterdir())[:4]
    hr = np.stack([images.read_image(path)[:96, :96] for path in photos])
    blurred = [images.imresize(images.imresize(photo, 1 / 4), 4) for photo in hr]
    features = jax.jit(vgg.apply)(frozen['vgg'], images.to_float(np.concatenate([hr, blurred])))
    terms.append([loss.scale * factor * float(jnp.abs(jnp.subtract(*jnp.split(array, 2))).mean())
                  for (name, factor) in loss.layers.items() for array in [features[name]]])
  for ours, torchvisions in zip(*terms, strict=True):
    assert 0.4 < ours / torchvisions < 1.5


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_the_weights_of_vgg_have_the_dtype_of_the_computation(dtype):
  config = importlib.import_module('configs.srgan').get_config('sample')
  config.dtype = dtype
  assert config.loss.perceptual.weight
  _, frozen = phases.build_vgg(config)
  assert {leaf.dtype for leaf in jax.tree.leaves(frozen)} == {jnp.dtype(dtype)}


def test_a_boundary_below_one_is_a_fraction_of_the_phase():
  config = base_config.defaults().optimizer.g
  config.learning_rate, config.schedule, config.boundaries = 1.0, 'multistep', (0.5, 80)
  _, schedule = optimizer.build_optimizer(config, 100)
  assert [float(schedule(step)) for step in (49, 50, 79, 80)] == [1, 0.5, 0.5, 0.25]
  config.boundaries = (0.29, 0.57)  # times 100, they round to just below 29 and 57
  _, schedule = optimizer.build_optimizer(config, 100)
  assert [float(schedule(step)) for step in (28, 29, 56, 57)] == [1, 0.5, 0.5, 0.25]
  config.boundaries = (0.5, 0.6)  # both at the second of three steps
  assert float(optimizer.build_optimizer(config, 3)[1](2)) == 0.25


def test_weight_decay_is_adamw():
  config = base_config.defaults().optimizer.g
  config.weight_decay, config.learning_rate = 0.1, 0.01
  tx, _ = optimizer.build_optimizer(config, 100)
  params, grads = {'w': jnp.array([2.0, -3.0])}, {'w': jnp.array([0.5, 0.0])}
  updates, _ = tx.update(grads, tx.init(params), params)
  # Adam's first step is the sign of the gradient; weight decay subtracts a tenth of the weight.
  assert updates['w'].tolist() == pytest.approx([-0.01 * (1 + 0.2), -0.01 * -0.3], rel=1e-5)


@pytest.mark.parametrize(('name', 'spread'), [
    ('xavier', 2 / (9 * 16 + 9 * 64)), ('xavier_normal', 2 / (9 * 16 + 9 * 64)),
    ('kaiming', 2 / (9 * 16)), ('kaiming_uniform', 2 / (9 * 16)), ('kaiming_0.1', 0.02 / (9 * 16)),
    ('lecun', 1 / (9 * 16)), ('pytorch', 1 / 3 / (9 * 16))])
def test_initialisers_have_the_variance_of_their_papers(name, spread):
  """Checks a 3x3 convolution from 16 to 64 channels."""
  kernel = INITIALIZERS[name](jax.random.key(0), (3, 3, 16, 64))
  assert float(jnp.var(kernel)) == pytest.approx(spread, rel=0.05)
  config = base_config.defaults()
  config.discriminator.update({'name': 'vgg_style', 'init': name})
  config.generator.update({'name': 'edsr', 'init': name})
  networks = (factory.build_generator(dict(config.generator.items()), config.scale, config.dtype),
              factory.build_discriminator(dict(config.discriminator.items()), config.dtype))
  for network in networks:
    assert network.kernel_init is INITIALIZERS[name]


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_docstrings_name_the_paper_the_command_and_the_result(name):
  text = inspect.getdoc(importlib.import_module(f'configs.{name}'))
  assert f'sr-jax train --config {name}' in text
  assert re.match(r'[^\n]*\n\n(Paper|Report): ', text)
  for word in ('Published', 'Cost'):
    assert word in text
  assert 'sample' in importlib.import_module(f'configs.{name}').VARIANTS


@pytest.mark.parametrize('name', ['usc_srgan', 'celeba_srgan', 'esrgan', 'esrgan_finetune'])
def test_samples_use_vgg16_whichever_vgg19_the_variant_names(name):
  config = importlib.import_module(f'configs.{name}').get_config('caffe,sample')
  perceptual = config.loss.perceptual
  assert (perceptual.network, perceptual.identity, perceptual.scale) == ('vgg16', 'torchvision', 1)


SAMPLES = [(name, 'sample') for name in EXPERIMENTS] + [
    ('esrgan_finetune', 'perceptual,sample'), ('celeba_srgan', 'vgg,sample'),
    ('coco_gan', 'balanced,sample'), ('edsr', 'report,sample,x2')]


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'variant'), SAMPLES)
def test_samples_train_two_steps_of_each_phase(name, variant, tmp_path):
  config = importlib.import_module(f'configs.{name}').get_config(variant)
  config.warmup_steps = 2 * bool(config.warmup_steps)
  config.steps = config.warmup_steps + 2
  for adam in config.optimizer.values():
    adam.ramp = 0
  config.data.valid, config.log_every = '', 1
  # Most of a step is VGG's time, which is proportional to pixels; and blocks are alike.
  config.batch_size, config.hr_patch = min(config.batch_size, 2), 32
  if config.generator.name in ('srresnet', 'msrresnet', 'edsr', 'compact', 'rrdb'):
    config.generator.blocks = 1
  if config.data.degrade.name == 'realesrgan':  # which takes seconds to compile in each phase
    config.data.degrade = base_config.defaults().data.degrade
    config.data.degrade.update({'name': 'custom', 'stages': ('noise2', 'reduce'),
                                'margin': 16, 'sharpen_hr': 0.5})
  state = train.train(config, tmp_path)
  assert int(state.step) == config.steps
  assert jax.tree.all(jax.tree.map(lambda leaf: bool(jnp.isfinite(leaf).all()), state))
  phases = [line['phase'] for line in read_metrics(tmp_path)]
  name = ('gan' if config.discriminator.name != 'none' else
          'perceptual' if config.loss.perceptual.weight else 'pixel')
  assert phases == ['warm-up'] * config.warmup_steps + [name] * 2
  terms = {name for name in read_metrics(tmp_path)[-1] if name.startswith('g/')}
  assert terms == {'g/total', 'g/grad_norm', 'g/ema_distance'} | {
      f'g/{term}' for term, fields in config.loss.items() if term != 'extra' and fields.weight}


def test_esrgan_matches_the_paper_and_epochs_become_steps():
  config = importlib.import_module('configs.esrgan').get_config()
  _, schedule = optimizer.build_optimizer(config.optimizer.g, 400_000)
  assert [float(schedule(step)) for step in (0, 49_999, 50_000, 100_000, 200_000, 300_000)] == (
      pytest.approx([1e-4, 1e-4, 5e-5, 2.5e-5, 1.25e-5, 6.25e-6]))
  config = importlib.import_module('configs.usc_srgan').get_config()
  discriminator = factory.build_discriminator(dict(config.discriminator.items()), config.dtype)
  d = jax.eval_shape(discriminator.init, jax.random.key(0), jnp.zeros((1, 96, 96, 3)))
  assert sum(leaf.size for leaf in jax.tree.leaves(d['params'])) == 5_215_425
  config = inputs.epochs_to_steps(config, 800)
  assert (config.steps, config.warmup_steps, config.eval.every) == (2_000, 500, 250)
  # In a resumed run, an epoch keeps its number of steps.
  again = inputs.epochs_to_steps(config, 900, {'epochs': 40, 'warmup_epochs': 5, 'steps': 2_000,
                                            'warmup_steps': 250})
  assert (again.steps, again.warmup_steps, again.eval.every) == (2_000, 570, 285)
  report = importlib.import_module('configs.edsr').get_config('report,x4')
  assert inputs.epochs_to_steps(report, 800).steps == 80_000  # a batch is cut from one image
