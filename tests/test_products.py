"""FLOPs counted before XLA, beside XLA's own account."""

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
    Discriminator(widths=(8, 16), batch_norm=False, head='dense', hidden=16)])  # with strides
def test_as_many_as_xla_counts(network):
  pictures = jnp.zeros((2, 48, 48, 3))
  variables = filled(network, pictures)

  def loss(variables, pictures):
    return jnp.sum(network.apply(variables, pictures)**2)

  for function in (loss, jax.grad(loss), jax.grad(loss, argnums=1)):
    traced = jax.jit(function).trace(variables, pictures)
    counted = timing.cost(traced.lower().compile())
    found = products(traced.jaxpr)
    # XLA adds what is no product, and leaves out pairs with a zero of the padding.
    assert found['flops'] == pytest.approx(counted['flops'], rel=0.05)
    assert 0.1 * counted['bytes'] < found['bytes'] < counted['bytes']


def test_what_is_inside_counts():
  def looped(x):
    return jax.lax.scan(lambda carry, _: (jax.jit(jnp.matmul)(carry, x), None), x, length=5)[0]

  found = products(jax.jit(looped).trace(jnp.zeros((8, 8), jnp.bfloat16)).jaxpr)
  assert found == {'flops': 5 * 2 * 8**3, 'bytes': 5 * 3 * 64 * 2}


def test_only_what_xla_has_not_counted_is_added():
  class Program:
    def __init__(self, flops):
      self.found = {'flops': flops, 'bytes accessed': 10.0}

    def cost_analysis(self):
      return self.found

  unseen = {'flops': 1000.0, 'bytes': 100.0}
  assert timing.cost(Program(-3.0), unseen) == {'flops': 1000.0, 'bytes': 110.0}  # of a GPU
  assert timing.cost(Program(900.0), unseen) == {'flops': 900.0, 'bytes': 10.0}
