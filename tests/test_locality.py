"""Tests of what is found out about networks before they are tiled."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from sr_jax.inference import locality
from sr_jax.inference.compiled_parts import CompiledParts
from sr_jax.models import EDSR, RRDB
from tests.conftest import filled
from tests.own_networks import GLOBAL, LOCAL, Own

SLOW = 'resized', 'unfolded', 'sums', 'loop', 'mirrored', 'maximum', 'depthwise', 'remat'


def _names(networks: dict) -> list:
  return [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in networks]


def _examined(network: nn.Module, method: str = 'trunk') -> locality.Locality:
  lr = jax.ShapeDtypeStruct((1, 48, 48, 3), jnp.float32)
  variables = jax.eval_shape(network.init, jax.random.key(0), lr)
  return locality.examine(functools.partial(network.apply, method=method), variables,
                          (1, 3, jnp.float32))


@pytest.mark.parametrize('name', _names(LOCAL))
def test_a_local_layer_has_its_reach(name: str) -> None:
  """Kernels on both axes, dilation and pooling count; two 3x3 convolutions add 2."""
  layer, reach = LOCAL[name]
  found = _examined(Own(layer))
  assert found.reach == 2 + reach
  # On a canvas only what nn.Conv pads is masked.
  assert found.zero_padded == (name in ('dilated', 'wide', 'even', 'layer norm', 'depthwise',
                                        'remat'))


@pytest.mark.parametrize('name', _names(GLOBAL))
def test_what_mixes_positions_is_not_local(name: str) -> None:
  layer, operation = GLOBAL[name]
  found = _examined(Own(layer))
  assert found.reach is None
  assert found.reason
  assert operation in found.reason


def test_the_weights_have_no_effect() -> None:
  """A gate whose weights are zero is not local, whatever it computes today."""
  network = Own(GLOBAL['channel attention'][0])
  variables = jax.tree.map(np.zeros_like, filled(network, np.zeros((1, 24, 24, 3), np.float32)))
  call = functools.partial(network.apply, method='trunk')
  assert locality.examine(call, variables, (1, 3, jnp.float32)).reach is None


@pytest.mark.parametrize(('network', 'trunk', 'tail'), [
    (EDSR(4, 16), 34, 1.75), (RRDB(4, 2, 2, scale=2, unshuffle=2), 32, 1.25)])
def test_reaches_of_published_networks(network: nn.Module, trunk: float, tail: float) -> None:
  parts = CompiledParts(network, filled(network, np.zeros((1, 24, 24, 3), np.float32)))
  assert parts.has_trunk
  assert parts.trunk_locality == (trunk, True, '')
  assert parts.tail_locality.reach == tail


class _Other(EDSR):
  """Its result is not that of the tail alone."""

  def __call__(self, lr: jax.Array, train: bool = False) -> jax.Array:
    return jnp.clip(super().__call__(lr, train), 0, 1)


def test_a_call_that_is_not_tail_of_trunk_is_one_part() -> None:
  network = _Other(4, 1, scale=2)
  parts = CompiledParts(network, filled(network, np.zeros((1, 24, 24, 3), np.float32)))
  assert not parts.has_trunk
  assert parts.trunk_locality.reach == 0
  assert parts.tail_locality.reach == pytest.approx(4 + 1.5)
