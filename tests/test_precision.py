"""Tests of computing in bfloat16: results and parameters stay float32, and training works."""

import functools
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from configs import srresnet
from sr_jax import train
from sr_jax.models import (
  DAT,
  EDSR,
  MSRRESNET,
  PLKSR,
  REALPLKSR,
  RRDB,
  SPAN,
  SRCNN,
  SRRESNET,
  Compact,
  Discriminator,
  SRResNet,
)
from sr_jax.models.convolution import Conv, ConvTranspose, Dense
from sr_jax.models.layers import Activation
from sr_jax.models.vgg import VGG19
from sr_jax.runs.metrics_log import read_metrics


@pytest.mark.parametrize('model', [
    SRCNN(dtype=jnp.bfloat16), SRResNet(8, 1, dtype=jnp.bfloat16), EDSR(8, 1, dtype=jnp.bfloat16),
    RRDB(8, 1, dtype=jnp.bfloat16), Compact(8, 1, dtype=jnp.bfloat16),
    REALPLKSR(8, 1, dtype=jnp.bfloat16), SPAN(8, 1, dtype=jnp.bfloat16),
    Discriminator(widths=(4, 8), dtype=jnp.bfloat16), VGG19(('relu2_2',), dtype=jnp.bfloat16)],
    ids=lambda model: type(model).__name__)
def test_results_are_float32(model: nn.Module) -> None:
  """Losses average a million numbers, for which bfloat16's two or three digits don't suffice."""
  batch = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), batch)
  result = jax.eval_shape(model.apply, variables, batch)
  assert {leaf.dtype for leaf in jax.tree.leaves(result)} == {jnp.dtype('float32')}
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


SMALL = {'features': 8, 'blocks': 1, 'scale': 2}
NETWORKS = {  # every network, activation and kind of upsampling
    'srresnet': functools.partial(SRRESNET, **SMALL),
    'srresnet-nearest': functools.partial(SRRESNET, upsample='nearest', **SMALL),
    'srresnet-direct': functools.partial(SRRESNET, upsample='direct', **SMALL),
    'srresnet-transposed': functools.partial(SRRESNET, upsample='transposed',
                                             activation='leaky_relu_0.2', **SMALL),
    'msrresnet': functools.partial(MSRRESNET, upsample='direct', **SMALL),
    'edsr': functools.partial(EDSR, **SMALL),
    'rrdb': functools.partial(RRDB, growth=4, **SMALL),
    'rrdb-shuffle': functools.partial(RRDB, growth=4, unshuffle=2, upsample='shuffle', **SMALL),
    'compact': functools.partial(Compact, channels=1, **SMALL),
    'plksr': functools.partial(PLKSR, norm='layer', **SMALL),
    'realplksr': functools.partial(REALPLKSR, **SMALL),
    'span': functools.partial(SPAN, **SMALL),
    'dat': functools.partial(DAT, features=32, groups=1, blocks=3, heads=2, split_size=(2, 4),
                             drop_path=0.0, scale=2),
    'srcnn': functools.partial(SRCNN, (8, 8), (5, 1, 3), scale=2),
    'discriminator': functools.partial(Discriminator, (8, 8), hidden=16),
    'discriminator-conv': functools.partial(Discriminator, (8, 8), False, 'conv', hidden=16)}
CORE = ('edsr', 'discriminator')


@pytest.mark.parametrize('make', [
    pytest.param(make, id=name, marks=() if name in CORE else pytest.mark.slow)
    for name, make in NETWORKS.items()])
def test_every_gradient_agrees_with_float32(make: Callable[..., nn.Module]) -> None:
  """A gradient that is summed in bfloat16 would be several times too short.

  The loss is the squared distance to what the network computes with other parameters, larger
  biases, scales and slopes among them, so that sums over pixels do not nearly cancel. With a
  constant target, slopes that all channels share were wrong by 5 to 46% where their sum was below
  4% of the sum of its absolute terms; float64 sums of the bfloat16 terms were as wrong.
  Left out are gradients that are zero but for rounding, such as a bias's before BatchNorm.
  """
  lr = jax.random.uniform(jax.random.key(100), (4, 16, 16, 3))
  variables = jax.jit(make().init)(jax.random.key(0), lr)

  def apply(params: dict, model: nn.Module) -> jax.Array:
    result, _ = model.apply({**variables, 'params': params}, lr, train=True,
                            mutable=['batch_stats'])
    return result

  target = jax.jit(functools.partial(apply, model=make()))(jax.tree.map(
      lambda leaf: leaf + 0.5 if leaf.ndim == 1 else 0.8 * leaf, variables['params']))

  def loss(params: dict, model: nn.Module) -> jax.Array:
    return jnp.mean(jnp.square(apply(params, model) - target))

  want, got = (jax.jit(jax.grad(functools.partial(loss, model=make(dtype=dtype))))(
      variables['params']) for dtype in (jnp.float32, jnp.bfloat16))
  want = {jax.tree_util.keystr(path): np.float64(leaf).ravel()
          for path, leaf in jax.tree_util.tree_leaves_with_path(want)}
  largest = max(np.linalg.norm(gradient) for gradient in want.values())
  for (name, a), leaf in zip(want.items(), jax.tree.leaves(got), strict=True):
    b = np.float64(leaf).ravel()
    if np.linalg.norm(a) >= 1e-4 * largest:
      assert np.dot(a, b) > 0.98 * np.linalg.norm(a) * np.linalg.norm(b), name
      assert np.linalg.norm(b) == pytest.approx(np.linalg.norm(a), rel=0.05), name


@pytest.mark.parametrize('layer', [
    Conv(3, (3, 3), dtype=jnp.bfloat16), Dense(3, dtype=jnp.bfloat16),
    ConvTranspose(3, (2, 2), (2, 2), dtype=jnp.bfloat16), Activation('prelu')],
    ids=lambda layer: type(layer).__name__)
def test_sums_over_all_pixels_are_exact(layer: nn.Module) -> None:
  """The gradient of the sum of a layer's output with respect to its bias counts pixels."""
  x = -jnp.ones((2, 96, 96, 3), jnp.bfloat16)
  variables = layer.init(jax.random.key(0), x)
  gradients = jax.grad(lambda variables: jnp.sum(
      layer.apply(variables, x), dtype=jnp.float32))(variables)['params']
  result = layer.apply(variables, x)
  assert result.dtype == jnp.bfloat16
  if 'negative_slope' in gradients:
    assert gradients['negative_slope'].tolist() == [-x.size]
  else:
    assert gradients['bias'].tolist() == 3 * [result.size // 3]


@pytest.mark.slow
def test_a_short_run_reaches_the_same_psnr(tmp_path: pathlib.Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
  """Compares 100 steps with the same seed in both dtypes."""
  monkeypatch.chdir(tmp_path)
  found = {}
  for dtype in ('float32', 'bfloat16'):
    config = srresnet.get_config('sample')
    config.dtype, config.steps, config.batch_size, config.hr_patch = dtype, 100, 8, 48
    config.eval.lpips, config.sample_every, config.eval.every = 'none', 1000, 100
    train.train(config, tmp_path / dtype)
    found[dtype] = next(line['valid/psnr_y'] for line in read_metrics(tmp_path / dtype)
                        if line['step'] == 100 and 'valid/psnr_y' in line)
  assert min(found.values()) > 30.5
  assert found['bfloat16'] == pytest.approx(found['float32'], abs=0.05)
