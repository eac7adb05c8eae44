"""sr-jax summary: flax's table and the lines below it, compared with the networks."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import edsr, esrgan, srgan, srresnet
from sr_jax import models
from sr_jax.errors import InputError
from sr_jax.models import factory
from sr_jax.profiling import summary
from tests.conftest import filled
from tests.own_networks import GLOBAL, Own


def test_parameters_shapes_and_flops(config):
  config.scale, config.hr_patch = 2, 16
  config.generator.update({'name': 'edsr', 'features': 8, 'blocks': 1, 'kernel': None})
  config.discriminator.head = 'dense'
  text = summary.summarize(config)
  generator = factory.build_generator(dict(config.generator.items()), config.scale, config.dtype)
  count = sum(array.size for array in jax.tree.leaves(models.variable_shapes(generator)))
  line = re.search(r'Generator edsr: 1x8x8x3 to 1x16x16x3; ([\d,]+) parameters; '
                   r'([\d.]+) GFLOP', text)
  assert int(line[1].replace(',', '')) == count
  assert 'Discriminator vgg_style: 1x16x16x3 to 1;' in text
  assert 'body_0/Conv_0' in text
  assert 'kernel: float32[3,3,8,8]' in text
  # Twice the multiplications of all convolutions, except for borders and additions.
  text = summary.summarize(config, '40x60')
  flops = float(re.search(r'to 1x80x120x3; [\d,]+ parameters; ([\d.]+) GFLOP', text)[1]) * 1e9
  pixels = 40 * 60
  expected = 2 * 9 * pixels * (3 * 8 + 3 * 8 * 8 + 8 * 32 + 4 * 8 * 3)
  assert flops == pytest.approx(expected, rel=0.12)


@pytest.mark.parametrize('module', [
    models.Compact(4, 2, scale=2), *(pytest.param(module, marks=pytest.mark.slow) for module in (
        models.SRResNet(4, 2, scale=4, kernel=5, output='linear'), models.EDSR(4, 2, scale=2),
        models.RRDB(4, 1, scale=2, growth=2), models.SRCNN(scale=3),
        models.PLKSR(4, 1, kernel=7)))])
def test_the_receptive_field_is_where_the_gradient_is_nonzero(module):
  field, _ = summary.receptive_field(module)
  side = 2 * field + 1
  lr = np.random.default_rng(0).uniform(0, 1, (1, side, side, 3)).astype(np.float32)
  variables = jax.tree.map(jnp.abs, filled(module, lr))  # no cancellation, no inactive ReLU
  middle = side * module.scale // 2

  def pixel(lr):
    return module.apply(variables, lr)[0, middle, middle].sum()

  reached = np.abs(jax.grad(pixel)(lr))[0].sum(-1) > 0
  sides = [int(np.ptp(np.nonzero(reached.any(axis))[0])) + 1 for axis in (0, 1)]
  assert max(sides) <= field
  assert min(sides) >= field - 2  # interpolation, and the position between LR pixels


@pytest.mark.parametrize('name', ['channel attention', pytest.param(
    'shifted windows', marks=pytest.mark.slow)])
def test_what_is_not_local_sees_the_whole_image(name):
  side, reason = summary.receptive_field(Own(GLOBAL[name][0]))
  assert side is None
  text = summary._describe('Generator own', Own(GLOBAL[name][0]),
                           jax.ShapeDtypeStruct((1, 24, 24, 3), jnp.float32), (side, reason))
  assert 'Receptive field: the whole image' in text
  assert reason in text


@pytest.mark.parametrize(('size', 'pattern'), [
    ('40', "--size '40'"), ('0x4', "--size '0x4'"), ('4x4x3', "--size '4x4x3'"),
    ('axb', "--size 'axb': .*HEIGHTxWIDTH"), ('99999x4', "--size '99999x4': .*16,384")])
def test_an_invalid_size_is_refused(config, size, pattern):
  with pytest.raises(InputError, match=pattern):
    summary.summarize(config, size)


@pytest.mark.slow
def test_published_counts():
  for module, variant, parameters in ((srresnet, '', '1,549,462'), (edsr, '', '1,517,571'),
                                      (esrgan, '', '16,697,987')):
    assert f'; {parameters} parameters' in summary.summarize(module.get_config(variant)), module
  assert 'Receptive field' in summary.summarize(srgan.get_config('sample'), '720x1280')
