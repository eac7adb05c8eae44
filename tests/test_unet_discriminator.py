"""The U-Net discriminator: PyTorch's results and gradients, and vectors that are state."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from sr_jax import images, losses, train
from sr_jax.errors import InputError
from sr_jax.experiment import phases
from sr_jax.experiment.check import check
from sr_jax.models import UNetDiscriminator
from sr_jax.models.layers import double_bilinear
from sr_jax.models.unet_discriminator import SpectralConv, spectral_norm
from sr_jax.step import nonfinite
from sr_jax.step.flat import named_arrays
from tests import smallest
from tests.conftest import filled, same_bits

VECTORS = ['down_0', 'down_1', 'down_2', 'refinement_0', 'refinement_1', 'up_0', 'up_1', 'up_2']


def power_step(kernel: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns (sigma, u, v) after one step of the power iteration, in float64."""
  matrix = np.float64(kernel).reshape(-1, kernel.shape[-1]).T
  v = matrix.T @ np.float64(u)
  v /= np.linalg.norm(v)
  u = matrix @ v
  u /= np.linalg.norm(u)
  return u @ matrix @ v, u, v


def unet_config(**fields: object) -> ConfigDict:
  config = smallest.get_config()
  config.warmup_steps = 0
  config.discriminator.update({'name': 'unet', 'widths': None, 'head': None, 'hidden': None,
                               'features': 2, **fields})
  return config


def batch_of(count: int = 4) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(3)
  return {'lr': rng.random((count, 8, 8, 3), np.float32),
          'hr': rng.random((count, 16, 16, 3), np.float32)}


def test_the_power_iteration_agrees_with_numpy_in_float64() -> None:
  rng = np.random.default_rng(0)
  kernel, u = np.float32(rng.normal(size=(3, 2, 5, 7))), np.float32(rng.normal(size=7))
  (sigma, moved), gradient = jax.value_and_grad(spectral_norm, has_aux=True)(kernel, u)
  expected, expected_u, v = power_step(kernel, u)
  np.testing.assert_allclose(sigma, expected, rtol=1e-6)
  np.testing.assert_allclose(moved, expected_u, rtol=1e-5, atol=1e-6)
  # d sigma / d W = u v^T, because u and v are constants.
  np.testing.assert_allclose(gradient, (v[:, None] * expected_u).reshape(kernel.shape), rtol=1e-5,
                             atol=1e-6)
  for _ in range(500):
    _, u = spectral_norm(kernel, u)
  largest = np.linalg.svd(kernel.reshape(-1, 7), compute_uv=False)[0]
  np.testing.assert_allclose(spectral_norm(kernel, u)[0], largest, rtol=1e-5)


def test_a_convolution_by_the_normalised_kernel() -> None:
  model, x = SpectralConv(6, (4, 4), (2, 2)), np.float32(np.random.default_rng(1).random(
      (2, 8, 8, 3)))
  variables = model.init(jax.random.key(0), x, True)
  kernel, u = variables['params']['kernel'], variables['batch_stats']['u']
  np.testing.assert_allclose(np.linalg.norm(u), 1, rtol=1e-6)
  sigma, moved, _ = power_step(kernel, u)
  result, changed = model.apply(variables, x, True, mutable=['batch_stats'])
  expected = jax.lax.conv_general_dilated(x, kernel / np.float32(sigma), (2, 2), [(1, 1)] * 2,
                                          dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(changed['batch_stats']['u'], moved, rtol=1e-5, atol=1e-6)
  # Without train the result is the same, and nothing is kept.
  result, changed = model.apply(variables, x, False, mutable=['batch_stats'])
  np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(changed['batch_stats']['u'], u)


def test_doubling_is_the_bilinear_resize_of_images() -> None:
  x = jax.random.normal(jax.random.key(0), (2, 5, 7, 3))
  np.testing.assert_allclose(double_bilinear(x), images.resize(x, 2, 'bilinear'), atol=1e-6)


def test_shapes_parameters_and_state() -> None:
  shapes = jax.eval_shape(UNetDiscriminator().init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes['params'])) == 4_376_897
  assert sorted(shapes['batch_stats']) == VECTORS
  for dtype in (jnp.float32, jnp.bfloat16):
    logits, variables = jax.eval_shape(UNetDiscriminator(4, dtype=dtype).init_with_output,
                                       jax.random.key(0), jnp.zeros((2, 16, 24, 1)))
    assert logits.shape == (2, 16, 24)
    assert {leaf.dtype for leaf in jax.tree.leaves((logits, variables))} == {jnp.dtype('float32')}
  with pytest.raises(ValueError, match=r'16x20.*8'):
    jax.eval_shape(UNetDiscriminator(4).init, jax.random.key(0), jnp.zeros((2, 16, 20, 3)))


@pytest.mark.slow
def test_the_vectors_see_the_real_batch_then_the_generated_one() -> None:
  experiment = phases.build(unet_config())
  state, step = experiment.new_state(), experiment.phases[0].step
  before = state.d.batch_stats.tree(), state.d.params.tree()
  after, metrics = jax.jit(step)(state, batch_of(), {})
  assert np.isfinite(list(map(float, metrics.values()))).all()
  assert 0 <= metrics['d/real'] <= 1
  for name in VECTORS:
    u, kernel = before[0][name]['u'], before[1][name]['kernel']
    for _ in range(2):
      _, u, _ = power_step(kernel, u)
    np.testing.assert_allclose(after.d.batch_stats.tree()[name]['u'], u, rtol=1e-4, atol=1e-5)
  # A skipped update keeps them, too.
  skipped, metrics = jax.jit(step)(state, batch_of() | {'hr': np.full((4, 16, 16, 3), np.nan,
                                                                      np.float32)}, {})
  assert metrics['skipped'] == 1
  assert same_bits(skipped.d, state.d) == []


@pytest.mark.slow
def test_joined_arrays_and_parts_of_a_batch_take_the_same_steps() -> None:
  """The vectors depend on the weights alone, but move once more for each part of a batch."""
  found = {}
  for loop, parts in (('no', 1), ('yes', 1), ('no', 2)):
    config = unet_config()
    config.device_loop, config.accumulate = loop, parts
    experiment = phases.build(config)
    state = experiment.new_state()
    assert state.d.params.layout.joined == (loop == 'yes')
    step = jax.jit(experiment.phases[0].step)
    for _ in range(2 // parts):
      state, metrics = step(state, batch_of(), {})
    found[loop, parts] = named_arrays(state.d.batch_stats), metrics
  close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
  jax.tree.map(close, found['no', 1], found['yes', 1])
  assert {path.rpartition('/')[0] for path in found['no', 2][0]} == set(VECTORS)
  weights = named_arrays(experiment.new_state().d)
  for name in VECTORS:  # one step of two parts: four passes with the first weights
    u = weights[f'batch_stats/{name}/u']
    for _ in range(4):
      _, u, _ = power_step(weights[f'params/{name}/kernel'], u)
    close(found['no', 2][0][f'{name}/u'], u)


def test_losses_are_means_over_all_pixels() -> None:
  rng = np.random.default_rng(0)
  real, fake = (jnp.asarray(rng.normal(size=(2, 3, 4)), jnp.float32) for _ in range(2))
  for kind, (of_g, of_d) in losses.ADVERSARIAL.items():
    for function, logits in ((of_g, (fake, real)), (of_d, (real, fake)),
                             (functools.partial(losses.accuracy, kind), (real, fake))):
      np.testing.assert_allclose(function(*logits), function(*map(jnp.ravel, logits)), rtol=1e-6)


def test_crops_that_cannot_be_halved_three_times_are_refused() -> None:
  config = unet_config()
  for patch, scale, words in ((20, 2, 'multiple of 8.*24'), (32, 3, 'scale'),
                              (33, 3, 'multiple of 24.*48')):
    config.hr_patch, config.scale = patch, scale
    with pytest.raises(InputError, match=rf'^config\.hr_patch={patch}: .*{words}'):
      check(config)
  with pytest.raises(InputError, match=r'discriminator\.widths.*unet'):
    phases.build(unet_config(widths=(4, 4)))


@pytest.mark.slow
def test_a_resumed_run_has_the_same_bits(tmp_path: os.PathLike, folder: os.PathLike) -> None:
  config = unet_config()
  config.data.source, config.steps, config.checkpoint_every = f'folder:{folder}', 4, 2
  whole = train.train(config, tmp_path / 'whole')
  config.steps = 2
  train.train(config, tmp_path / 'parts')
  config.steps = 4
  assert same_bits(train.train(config, tmp_path / 'parts'), whole) == []
  assert nonfinite.ema_distance(whole) > 0


@pytest.mark.slow
def test_agrees_with_pytorch_in_training_mode() -> None:
  torch = pytest.importorskip('torch')
  model = UNetDiscriminator(4)
  x = np.float32(np.random.default_rng(0).random((2, 16, 24, 3)))
  variables = filled(model, x)
  reference = torch_unet(torch, 4, variables)

  def judge(variables: dict, x: jax.Array) -> tuple[jax.Array, dict]:
    logits, changed = model.apply(variables, x, True, mutable=['batch_stats'])
    return logits, variables | changed

  tensor = torch.tensor(x).permute(0, 3, 1, 2).requires_grad_()
  weights = np.float32(np.random.default_rng(2).normal(size=(2, 16, 24)))
  for _ in range(2):  # the second pass goes on with the vectors of the first
    def loss(params: dict, x: jax.Array, variables: dict = variables) -> tuple:
      logits, changed = judge(variables | {'params': params}, x)
      return jnp.sum(logits * weights), (logits, changed)

    gradients, (logits, variables) = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(
        variables['params'], x)
    tensor.grad = None
    reference.zero_grad()
    expected = reference(tensor)[:, 0]
    (expected * torch.tensor(weights)).sum().backward()
    scale = float(expected.detach().abs().max())
    np.testing.assert_allclose(logits, expected.detach(), atol=1e-5 * scale)
    np.testing.assert_allclose(gradients[1], tensor.grad.permute(0, 2, 3, 1),
                               atol=1e-5 * float(tensor.grad.abs().max()))
    for name, layer in reference.layers.items():
      if name in VECTORS:
        np.testing.assert_allclose(variables['batch_stats'][name]['u'], layer.weight_u, atol=1e-5)
      weight = layer.weight_orig if name in VECTORS else layer.weight
      np.testing.assert_allclose(gradients[0][name]['kernel'], weight.grad.permute(2, 3, 1, 0),
                                 atol=1e-5 * float(weight.grad.abs().max()))


def torch_unet(torch: object, features: int, variables: dict) -> object:
  """Returns the network of figure 6 in PyTorch, with its layers by our names in `layers`."""
  sizes = {'head': (3, 1, 3, 1), 'down_0': (1, 2, 4, 2), 'down_1': (2, 4, 4, 2),
           'down_2': (4, 8, 4, 2), 'up_0': (8, 4, 3, 1), 'up_1': (4, 2, 3, 1),
           'up_2': (2, 1, 3, 1), 'refinement_0': (1, 1, 3, 1), 'refinement_1': (1, 1, 3, 1),
           'last': (1, 1, 3, 1)}
  layers = torch.nn.ModuleDict()
  for name, (inputs, outputs, side, stride) in sizes.items():
    arrays = variables['params'][name]
    layer = torch.nn.Conv2d(3 if name == 'head' else inputs * features,
                            1 if name == 'last' else outputs * features, side, stride, 1,
                            bias=name in ('head', 'last'))
    layer.weight.data = torch.tensor(arrays['kernel']).permute(3, 2, 0, 1).contiguous()
    if layer.bias is not None:
      layer.bias.data = torch.tensor(arrays['bias'])
    else:
      layer = torch.nn.utils.spectral_norm(layer)
      layer.weight_u.copy_(torch.tensor(variables['batch_stats'][name]['u']))
    layers[name] = layer

  def leaky(name: str, x: object) -> object:
    return torch.nn.functional.leaky_relu(layers[name](x), 0.2)

  def doubled(x: object) -> object:
    return torch.nn.functional.interpolate(x, scale_factor=2, mode='bilinear',
                                           align_corners=False)

  class Network(torch.nn.Module):
    def __init__(self) -> None:
      super().__init__()
      self.layers = layers

    def forward(self, x: object) -> object:
      first = leaky('head', x)
      second = leaky('down_0', first)
      third = leaky('down_1', second)
      x = leaky('up_0', doubled(leaky('down_2', third))) + third
      x = leaky('up_1', doubled(x)) + second
      x = leaky('up_2', doubled(x)) + first
      return layers['last'](leaky('refinement_1', leaky('refinement_0', x)))

  return Network()
