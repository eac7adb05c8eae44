"""Tests that convolutions and their gradients agree with those of lax and of Flax."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from sr_jax.models import SRResNet, convolution
from sr_jax.models import gradients as faster
from sr_jax.models.convolution import Conv, ConvTranspose, Dense, convolve, transpose_convolve
from sr_jax.models.gradients import kernel_gradient


def plain(x: jax.Array, kernel: jax.Array, padding: Any, strides: Any = (1, 1)) -> jax.Array:
  return lax.conv_general_dilated(x, kernel, strides, padding,
                                  dimension_numbers=faster.DIMENSION_NUMBERS)


def arrays(*shapes: tuple[int, ...], dtype: Any = np.float64) -> list[jax.Array]:
  rng = np.random.default_rng(0)
  return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def gradients(function: Callable, x: jax.Array, kernel: jax.Array,
              weights: jax.Array) -> tuple[jax.Array, jax.Array]:
  return jax.jit(jax.grad(lambda *given: jnp.sum(function(*given) * weights), (0, 1)))(x, kernel)


@pytest.mark.parametrize(('side', 'channels', 'outputs', 'padding'), [
    ((1, 1), 3, 5, ((0, 0), (0, 0))), ((2, 3), 4, 1, ((1, 0), (1, 1))),
    ((3, 3), 5, 2, ((1, 1), (1, 1))), ((4, 5), 2, 2, ((0, 0), (3, 4))),
    ((7, 1), 1, 3, ((6, 0), (0, 2))), ((9, 9), 6, 3, ((4, 4), (4, 4)))])
@pytest.mark.parametrize('size', [(17, 36)])
def test_kernel_gradient_agrees_with_lax(side: tuple[int, int], channels: int, outputs: int,
                                         padding: Any, size: tuple[int, int]) -> None:
  with jax.enable_x64(True):
    x, kernel = arrays((2, *size, channels), (*side, channels, outputs))
    weights, = arrays(plain(x, kernel, padding).shape)
    _, want = gradients(functools.partial(plain, padding=padding), x, kernel, weights)
    found = jax.jit(kernel_gradient, static_argnums=2)(x, weights, padding)
    np.testing.assert_allclose(found, want, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize(('size', 'side', 'strides', 'padding'), [
    ((9, 12), (3, 3), (2, 2), ((1, 1), (1, 1))), ((8, 7), (3, 4), (1, 2), ((0, 1), (2, 0))),
    ((7, 9), (1, 2), (3, 3), ((0, 0), (1, 0))), ((10, 12), (4, 9), (2, 3), ((1, 2), (3, 3))),
    ((9, 4), (3, 3), (1, 1), ((3, 3), (2, 2))), ((5, 6), (5, 1), (4, 4), ((2, 2), (-1, 1)))])
def test_convolutions_and_their_transposes_agree_with_lax(
    size: tuple[int, int], side: tuple[int, int], strides: tuple[int, int], padding: Any) -> None:
  """Kernels are larger and smaller than the stride; some phases have no pixel or no tap."""
  with jax.enable_x64(True):
    x, kernel = arrays((2, *size, 3), (*side, 3, 5))
    cotangent, = arrays(plain(x, kernel, padding, strides).shape)

    def transpose(cotangent: jax.Array, kernel: jax.Array) -> jax.Array:
      return jax.linear_transpose(lambda x: plain(x, kernel, padding, strides), x)(cotangent)[0]

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def results(down: Callable, up: Callable) -> list[jax.Array]:
      smaller, down_gradients = jax.vjp(down, x, kernel)
      larger, up_gradients = jax.vjp(up, cotangent, kernel)
      return [smaller, *down_gradients(cotangent), larger, *up_gradients(x)]

    found = results(lambda x, k: faster.convolution(x, k, strides, padding),
                    lambda c, k: faster.transposed_convolution(c, k, size, strides, padding))
    want = results(lambda x, k: plain(x, k, padding, strides), transpose)
    for a, b in zip(found, want, strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize(('dtype', 'tolerance'), [
    (np.float32, 1e-5), pytest.param(jnp.bfloat16, 0.04, marks=pytest.mark.slow)])
def test_gradients_of_a_layer_agree_with_lax(monkeypatch: pytest.MonkeyPatch, dtype: Any,
                                             tolerance: float) -> None:
  monkeypatch.setattr(convolution, 'MIN_PIXELS', 100)
  calls = []
  monkeypatch.setattr(faster, 'kernel_gradient', lambda *given: calls.append(1)
                      or kernel_gradient(*given))
  for stride in (1, 2):  # the kernel gradient of strided convolutions is lax's
    layer = Conv(3, (3, 3), stride, padding=1, dtype=dtype)
    reference = Conv(3, (3, 3), stride, padding=1, dtype=dtype, conv_general_dilated_cls=None)
    x, = arrays((2, 13, 11, 4), dtype=np.float32)
    variables = layer.init(jax.random.key(0), x)
    # A gradient in bfloat16 is close to the one in float32.
    float32_reference = reference.clone(dtype=np.float32)

    def loss(variables: dict, layer: nn.Module, x: jax.Array = x) -> jax.Array:
      return jnp.mean(jnp.square(layer.apply(variables, x).astype(jnp.float32) - 1))

    want = jax.jit(jax.grad(lambda v, layer=float32_reference: loss(v, layer)))(variables)
    for wrap in (lambda f: f, jax.checkpoint):
      got = jax.jit(jax.grad(lambda v, layer=layer, wrap=wrap: wrap(
          lambda v: loss(v, layer))(v)))(variables)
      for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * float(jnp.abs(b).max()))
    np.testing.assert_array_equal(layer.apply(variables, x), reference.apply(variables, x))
    assert len(calls) == 2


@pytest.mark.slow
def test_batches_of_kernels_and_second_derivatives() -> None:
  with jax.enable_x64(True):
    x, kernel = arrays((2, 40, 33, 2), (3, 2, 3, 2, 1))  # three kernels
    padding = ((1, 1), (0, 0))
    found = []
    for function in (lambda x, k, padding: faster.convolution(x, k, (1, 1), padding), plain):
      def loss(kernel: jax.Array, x: jax.Array = x, function: Callable = function) -> jax.Array:
        return jnp.sum(jnp.square(function(x, kernel, padding)) ** 1.5)

      def gradient_norm(kernel: jax.Array, loss: Callable = loss) -> jax.Array:
        return jnp.sum(jnp.square(jax.grad(loss)(kernel)))

      found.append(jax.jit(jax.vmap(lambda k, f=gradient_norm: jax.grad(f)(k)))(kernel))
    np.testing.assert_allclose(*found, rtol=1e-10)


def test_the_faster_form_is_that_of_large_convolutions_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch) -> None:
  x, kernel = jnp.zeros((1, 12, 12, 3)), jnp.zeros((3, 3, 3, 4))
  options = {'lhs_dilation': (1, 1), 'rhs_dilation': (1, 1), 'feature_group_count': 1,
             'dimension_numbers': None, 'precision': None}
  options['dimension_numbers'] = lax.conv_dimension_numbers(x.shape, kernel.shape,
                                                            faster.DIMENSION_NUMBERS)

  def is_faster(x: jax.Array, strides: tuple[int, int] = (1, 1), **changed: Any) -> bool:
    found = {'custom_vjp' in str(jax.make_jaxpr(function)(x)) for function in (
        lambda x: convolve(x, kernel, strides, 'SAME', **options | changed),
        *[lambda x: transpose_convolve(x, kernel, strides)] * (not changed))}
    return found == {True}

  for strides in ((1, 1), (2, 2)):
    assert is_faster(x, strides)
    assert not is_faster(x[:, 1:], strides)
    assert not is_faster(x, strides, rhs_dilation=(2, 2))
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  assert not is_faster(x)
  assert not is_faster(x, (2, 2))


def test_parameter_names_are_those_of_nn_conv() -> None:
  shapes = jax.eval_shape(SRResNet(features=2, blocks=1).init, jax.random.key(0),
                          jnp.zeros((1, 4, 4, 3)))
  assert shapes['params']['body_0']['Conv_1']['kernel'].shape == (3, 3, 2, 2)


@pytest.mark.parametrize('backend', ['cpu', 'gpu'])
@pytest.mark.parametrize(('side', 'strides'), [
    ((4, 4), (2, 2)), ((9, 9), (3, 3)), ((3, 1), (2, 2)), ((2, 3), (1, 2)), ((3, 3), (1, 1))])
def test_transposed_layers_agree_with_flax(monkeypatch: pytest.MonkeyPatch, side: tuple[int, int],
                                           strides: tuple[int, int], backend: str) -> None:
  x, = arrays((2, 3, 5, 4), dtype=np.float32)
  flax, ours = nn.ConvTranspose(3, side, strides), ConvTranspose(3, side, strides)
  variables = flax.init(jax.random.key(0), x)
  monkeypatch.setattr(convolution, 'MIN_PIXELS', 1)
  monkeypatch.setattr(jax, 'default_backend', lambda: backend)
  found = []
  for layer in (flax, ours):
    result, gradients = jax.vjp(layer.apply, variables, x)
    found.append(jax.tree.leaves((result, gradients(jnp.sin(result)))))
  for a, b in zip(*found, strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize('layer', [Conv(3, (3, 3)), Dense(3), ConvTranspose(3, (2, 2), (2, 2))],
                         ids=lambda layer: type(layer).__name__)
def test_layers_are_those_of_flax(layer: nn.Module) -> None:
  """Names, parameters and float32 results are Flax's, and an interceptor sees one call."""
  flax_class = getattr(nn, type(layer).__name__)
  given = {'kernel_size': layer.kernel_size, 'strides': layer.strides} if hasattr(
      layer, 'strides') else {}
  x, = arrays((2, 6, 6, 4), dtype=np.float32)
  want, variables = flax_class(3, **given).init_with_output(jax.random.key(0), x)
  calls = []

  def count(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
    calls.append(context.method_name)
    return call(*args, **kwargs)

  with nn.intercept_methods(count):
    got = layer.apply(variables, x)
  assert isinstance(layer, (flax_class, ConvTranspose))
  assert calls.count('__call__') == 1
  np.testing.assert_array_equal(got, want)
