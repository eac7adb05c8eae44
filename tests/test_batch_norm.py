"""BatchNorm after a convolution computes what Flax's and PyTorch's do, without the bias's noise."""

import functools
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from sr_jax.models import SRResNet
from sr_jax.models.batch_norm import BatchNorm, convolve_and_normalize
from sr_jax.models.convolution import Conv
from sr_jax.step import freezing
from tests.conftest import filled


class Ours(nn.Module):
  """A convolution and the BatchNorm that takes its bias."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    conv = Conv(6, (3, 3), 2, padding=1, dtype=self.dtype)
    return convolve_and_normalize(conv, BatchNorm(dtype=self.dtype), x, train)


class Flax(nn.Module):
  """The same with Flax's BatchNorm; the parameters have the same names."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    y = Conv(6, (3, 3), 2, padding=1, dtype=self.dtype)(x)
    return nn.BatchNorm(momentum=0.9, dtype=self.dtype)(y, use_running_average=not train)


def test_a_convolution_without_a_bias_needs_none() -> None:
  class Plain(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
      return convolve_and_normalize(Conv(4, (3, 3), use_bias=False), BatchNorm(), x, train)

  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 5, 3)), jnp.float32)
  variables = Plain().init(jax.random.key(0), x, True)
  assert 'bias' not in variables['params']['Conv_0']
  result, changed = Plain().apply(variables, x, True, mutable=['batch_stats'])
  np.testing.assert_allclose(result.mean((0, 1, 2)), 0, atol=1e-6)
  assert Plain().apply({**variables, **changed}, x, False).shape == result.shape


def arrays(dtype: Any = np.float32) -> tuple[dict, jax.Array]:
  """Returns random variables, biases among them, and x [B, H, W, C] whose mean is not zero."""
  x = np.random.default_rng(1).normal(0.5, 1, (3, 6, 5, 4))
  variables = filled(Ours(), np.float32(x))
  return jax.tree.map(lambda array: jnp.asarray(array, dtype), (variables, x))


def outcome(model: nn.Module, variables: dict, x: jax.Array,
            train: bool) -> tuple[jax.Array, dict, dict, jax.Array]:
  """Returns the result, the new statistics, and the gradients of a loss for parameters and x."""
  @jax.jit
  def run(params: dict, x: jax.Array) -> Any:
    def loss(params: dict, x: jax.Array) -> Any:
      result, changed = model.apply({**variables, 'params': params}, x, train,
                                    mutable=['batch_stats'])
      # A linear loss with random weights, so that no gradient is zero by symmetry.
      weights = jnp.asarray(np.random.default_rng(2).normal(size=result.shape))
      return jnp.sum(result * weights), (result, changed['batch_stats'])
    return jax.grad(loss, (0, 1), has_aux=True)(params, x)

  gradients, (result, stats) = run(variables['params'], x)
  return result, stats, *gradients


@pytest.mark.parametrize('backend', ['cpu', 'gpu'])  # sums two arrays, or pairs of numbers
def test_agrees_with_flax_in_float64(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
  monkeypatch.setattr(jax, 'default_backend', lambda: backend)
  with jax.enable_x64(True):
    variables, x = arrays(np.float64)
    found = outcome(Ours(np.float64), variables, x, train=True)
    want = outcome(Flax(np.float64), variables, x, train=True)
    # In Flax's, the gradient of the convolution's bias is not zero but 1e-16 times the terms.
    assert not found[2]['Conv_0']['bias'].any()
    assert 0 < np.abs(want[2]['Conv_0']['bias']).max() < 1e-13
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12), found,
                 want)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_running_statistics_are_used_as_by_flax(dtype: Any) -> None:
  """The result has the same bits, and the convolution's bias its gradient."""
  variables, x = arrays()
  for model in (Ours(dtype), Flax(dtype)):
    assert jax.tree.map(jnp.shape, model.init(jax.random.key(0), x)) == jax.tree.map(
        jnp.shape, variables)
  np.testing.assert_array_equal(*(model(dtype).apply(variables, x) for model in (Ours, Flax)))
  found, want = (outcome(model(dtype), variables, x, train=False) for model in (Ours, Flax))
  assert np.abs(want[2]['Conv_0']['bias']).min() > 0.01
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), found[1:],
               want[1:])


def test_bfloat16_is_as_close_to_float32_as_flax() -> None:
  variables, x = arrays()
  exact, found, flax = (outcome(model, variables, x, train=True) for model in (
      Ours(), Ours(jnp.bfloat16), Flax(jnp.bfloat16)))
  assert found[0].dtype == jnp.bfloat16
  assert {array.dtype for array in jax.tree.leaves(found[1:])} == {jnp.dtype('float32')}

  def error(array: jax.Array, exact: jax.Array) -> float:
    return np.linalg.norm(np.float32(array) - exact) / np.linalg.norm(exact)

  del exact[2]['Conv_0']['bias'], found[2]['Conv_0']['bias'], flax[2]['Conv_0']['bias']
  for ours, theirs in zip(*(jax.tree.leaves(jax.tree.map(error, of, exact))
                            for of in (found, flax)), strict=True):
    assert ours < max(1.5 * theirs, 2**-8)


def test_a_frozen_norm_gives_the_bias_its_gradient() -> None:
  """Only a norm that uses the statistics of the batch makes the bias before it irrelevant."""
  model = SRResNet(4, 1, 2, kernel=3)
  lr = np.float32(np.random.default_rng(0).random((2, 5, 6, 3)))
  variables = filled(model, lr)
  trainable = freezing.select(variables, '', 'body_0/BatchNorm_0')

  def loss(params: dict) -> jax.Array:
    with freezing.freeze_norms(trainable):
      return model.apply({**variables, 'params': params}, lr, train=True,
                         mutable=['batch_stats'])[0].sum()

  gradients = jax.jit(jax.grad(loss))(variables['params'])['body_0']
  assert gradients['Conv_0']['bias'].all()
  assert not gradients['Conv_1']['bias'].any()


class Own(nn.Module):
  """A user's network with Flax's BatchNorm."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    return nn.BatchNorm()(x, use_running_average=False)


def test_norms_of_a_users_network_are_frozen_too() -> None:
  x = np.float32(np.random.default_rng(0).random((2, 3)))
  variables = filled(Own(), x)
  with freezing.freeze_norms(freezing.Trainable({}, jax.tree.map(lambda _: False,
                                                                 variables['batch_stats']))):
    frozen = Own().apply(variables, x)
  norm = {kind: tree['BatchNorm_0'] for kind, tree in variables.items()}
  np.testing.assert_array_equal(frozen, nn.BatchNorm(True).apply(norm, x))


@pytest.mark.slow
def test_agrees_with_pytorch() -> None:
  torch = pytest.importorskip('torch')
  with jax.enable_x64(True):
    variables, x = arrays(np.float64)
    result, stats, gradients, x_gradient = outcome(Ours(np.float64), variables, x, train=True)
  tensors = {name: torch.tensor(np.array(array), requires_grad=True) for name, array in (
      ('kernel', variables['params']['Conv_0']['kernel']),
      ('bias', variables['params']['Conv_0']['bias']),
      ('scale', variables['params']['BatchNorm_0']['scale']),
      ('offset', variables['params']['BatchNorm_0']['bias']), ('x', x))}
  mean, var = (torch.tensor(np.array(variables['batch_stats']['BatchNorm_0'][name]))
               for name in ('mean', 'var'))
  y = torch.nn.functional.conv2d(tensors['x'].permute(0, 3, 1, 2), tensors['kernel'].permute(
      3, 2, 0, 1), tensors['bias'], stride=2, padding=1)
  y = torch.nn.functional.batch_norm(y, mean, var, tensors['scale'], tensors['offset'], True, 0.1)
  y = y.permute(0, 2, 3, 1)
  weights = np.random.default_rng(2).normal(size=tuple(y.shape))
  (y * torch.tensor(weights)).sum().backward()
  close = functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12)
  close(result, y.detach())
  close(stats['BatchNorm_0']['mean'], mean)
  close(x_gradient, tensors['x'].grad)
  close(gradients['Conv_0']['kernel'], tensors['kernel'].grad)
  close(gradients['BatchNorm_0']['scale'], tensors['scale'].grad)
  close(gradients['BatchNorm_0']['bias'], tensors['offset'].grad)
  assert not gradients['Conv_0']['bias'].any()


DEVICES = '''
import jax, numpy as np
from tests import test_batch_norm
from sr_jax.system import sharding
variables, _ = test_batch_norm.arrays()
x = np.float32(np.random.default_rng(1).normal(0.5, 1, (8, 6, 5, 4)))
mesh = jax.make_mesh((8,), ('batch',), (jax.sharding.AxisType.Auto,))
split = jax.device_put(x, jax.NamedSharding(mesh, jax.P('batch')))
for backend in ('cpu', 'gpu'):
  jax.default_backend = lambda: backend
  for train in (False, True):
    one, many = (test_batch_norm.outcome(test_batch_norm.Ours(), variables, of, train)
                 for of in (x, split))
    assert len(many[0].sharding.device_set) == 8
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, many)
'''


@pytest.mark.slow
def test_several_devices_use_the_statistics_of_the_whole_batch() -> None:
  subprocess.run([sys.executable, '-c', DEVICES], check=True, env=os.environ | {
      'XLA_FLAGS': '--xla_force_host_platform_device_count=8', 'JAX_PLATFORMS': 'cpu'})
