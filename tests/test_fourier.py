"""Tests that convolutions by the Fourier transform agree with lax's, and when they are used."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr_jax.models import fourier
from sr_jax.models.convolution import Conv
from sr_jax.models.gradients import lax_convolution


@pytest.mark.parametrize(('side', 'channels', 'padding'), [
    ((11, 13), (3, 2), ((5, 5), (6, 6))), ((17, 17), (2, 5), ((8, 8), (8, 8))),
    ((12, 11), (1, 2), ((0, 3), (10, 2)))])
def test_results_and_gradients_agree_with_lax(side: tuple[int, int], channels: tuple[int, int],
                                              padding: Any) -> None:
  """The kernel is as large as the image, smaller, or of even side; padding is not symmetric."""
  with jax.enable_x64(True):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 15, 22, channels[0])), rng.normal(size=(*side, *channels))
    cotangent = rng.normal(size=jax.eval_shape(
        lambda: lax_convolution(x, kernel, (1, 1), padding)).shape)

    @jax.jit
    def results(x: jax.Array, kernel: jax.Array) -> list[jax.Array]:
      found, pull = jax.vjp(lambda *given: fourier.convolution(*given, padding), x, kernel)
      want, pull_lax = jax.vjp(
          lambda *given: lax_convolution(*given, (1, 1), padding), x, kernel)
      return [found, *pull(cotangent), want, *pull_lax(cotangent)]

    *found, _, _, _ = *_, to_x, to_kernel = results(x, kernel)
    assert len(found) == 3
    for a, b in zip(found, (_[-1], to_x, to_kernel), strict=True):
      assert a.dtype == b.dtype
      np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_only_training_with_a_large_kernel_and_a_batch_is_transformed(dtype: Any) -> None:
  def operations(batch: int, side: int, strides: int, train: bool) -> str:
    layer = Conv(4, (side, side), strides, dtype=dtype)
    x = jax.ShapeDtypeStruct((batch, 16, 16, 4), dtype)
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)
    apply = layer.apply
    if train:
      apply = jax.grad(lambda variables, x: layer.apply(variables, x).astype(jnp.float32).sum())
    return str(jax.make_jaxpr(apply)(variables, x))

  assert ' fft[' in operations(2, 17, 1, train=True)
  for batch, side, strides, train in ((2, 17, 1, False), (2, 9, 1, True), (2, 17, 2, True)):
    text = operations(batch, side, strides, train)
    assert ' fft[' not in text
    assert 'conv_general_dilated' in text
  kernel = jnp.zeros((17, 17, 64, 64))
  assert [fourier.is_faster(jnp.zeros((batch, 16, 16, 64)), kernel, (1, 1))
          for batch in (8, 16)] == [False, True]
