"""FLOPs and bytes counted in a jaxpr, compared with XLA's cost analysis."""

import jax
import jax.numpy as jnp
import pytest

from sr_jax.models.discriminator import Discriminator
from sr_jax.models.srresnet import SRResNet
from sr_jax.profiling import timing
from sr_jax.profiling.products import products
from tests.conftest import filled


@pytest.mark.parametrize('network', [
    SRResNet(16, 1, kernel=3, scale=2, batch_norm=False),
    Discriminator(widths=(8, 16), batch_norm=False, head='dense', hidden=16)])  # strided
def test_counts_agree_with_xla(network):
  images = jnp.zeros((2, 48, 48, 3))
  variables = filled(network, images)

  def loss(variables, images):
    return jnp.sum(network.apply(variables, images)**2)

  for function in (loss, jax.grad(loss), jax.grad(loss, argnums=1)):
    traced = jax.jit(function).trace(variables, images)
    counted = timing.cost(traced.lower().compile())
    found = products(traced.jaxpr)
    # XLA also counts other operations, but not products with a zero of the padding.
    assert found['flops'] == pytest.approx(counted['flops'], rel=0.05)
    assert 0.1 * counted['bytes'] < found['bytes'] < counted['bytes']


def test_nested_jaxprs_count():
  def looped(x):
    return jax.lax.scan(lambda carry, _: (jax.jit(jnp.matmul)(carry, x), None), x, length=5)[0]

  found = products(jax.jit(looped).trace(jnp.zeros((8, 8), jnp.bfloat16)).jaxpr)
  assert found == {'flops': 5 * 2 * 8**3, 'bytes': 5 * 3 * 64 * 2}


def test_products_are_added_only_if_xla_has_not_counted_them():
  class Program:
    def __init__(self, flops):
      self.flops = flops

    def cost_analysis(self):
      return {'flops': self.flops, 'bytes accessed': 10.0}

  uncounted = {'flops': 1000.0, 'bytes': 100.0}
  assert timing.cost(Program(-3.0), uncounted) == {'flops': 1000.0, 'bytes': 110.0}  # as on a GPU
  assert timing.cost(Program(900.0), uncounted) == {'flops': 900.0, 'bytes': 10.0}
