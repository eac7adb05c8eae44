"""Layers that need sums over the whole image, in windows."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from sr_jax.errors import InputError
from sr_jax.inference import layerwise
from sr_jax.inference.compiled_parts import CompiledParts
from sr_jax.inference.trunk_layers import Layer
from sr_jax.inference.upscaler import Upscaler
from sr_jax.models.group_norm import GroupNorm
from tests.conftest import filled
from tests.own_networks import Gate, Own, check_layer_by_layer, image


class SummedGate(nn.Module):
  """RCAN's channel attention, followed by a convolution, so that windows need a halo."""

  def __call__(self, x: jax.Array) -> jax.Array:
    return self.apply_statistics(x, self.statistics(x), x.shape[1] * x.shape[2])

  def statistics(self, x: jax.Array) -> jax.Array:
    return x.sum((1, 2))

  @nn.compact
  def apply_statistics(self, x: jax.Array, sums: jax.Array, count: float) -> jax.Array:
    gate = nn.sigmoid(20 * nn.Dense(8)(sums / count))
    return nn.Conv(8, (5, 5))(x * gate[:, None, None])


class ChannelAttention(nn.Module):
  """Attention over channels: one matrix for each image, summed over its pixels."""

  def __call__(self, x: jax.Array) -> jax.Array:
    return self.apply_statistics(x, self.statistics(x), x.shape[1] * x.shape[2])

  def statistics(self, x: jax.Array) -> dict[str, jax.Array]:
    return {'products': jnp.einsum('bhwc,bhwd->bcd', x, x), 'squares': jnp.square(x).sum((1, 2))}

  def apply_statistics(self, x: jax.Array, sums: dict[str, jax.Array], count: float) -> jax.Array:
    norms = jnp.sqrt(sums['squares'] / count)
    attention = nn.softmax(sums['products'] / count / norms[:, :, None] / norms[:, None])
    return jnp.einsum('bhwc,bdc->bhwd', x, attention)


class Argued(SummedGate):
  """A layer that the trunk calls with another argument."""

  def __call__(self, x: jax.Array, strength: float) -> jax.Array:
    return super().__call__(x)


LAYERS = {'group norm': (GroupNorm(2), 0), 'gate': (SummedGate(), 2),
          'channel attention': (ChannelAttention(), 0)}


@pytest.mark.parametrize('name', [
    'group norm', pytest.param('gate', marks=pytest.mark.slow), 'channel attention'])
def test_sums_over_the_image_are_exact_in_windows(name: str) -> None:
  """A quarter of the memory gives the result of the whole image, also of two images at once."""
  layer, reach = LAYERS[name]
  network, lr = Own(layer), np.stack([image(75, 91), image(75, 91)[::-1] / 2])
  variables = filled(network, lr[:1, :24, :24])
  assert CompiledParts(network, variables).trunk_locality.reach is None
  upscale = check_layer_by_layer(network, variables, lr)
  assert max(call.grid.halo for call in upscale.planner.layers.calls) == max(reach, 1)


@pytest.mark.parametrize('stated', [(8,), (0, 1), (8, -1), 8, (8.0, 1)], ids=str)
def test_a_layer_that_states_no_grid_is_named(stated: Any) -> None:
  class Stating(nn.Module):
    window_grid = stated

  with pytest.raises(InputError, match=r'Stating.window_grid is .*; expected two integers'):
    _ = Layer(Stating(), (), ()).stated_grid


def test_an_image_on_a_canvas_would_change_the_sums() -> None:
  """So images of many sizes share no canvas, as they do if the network is local."""
  lr = image(40, 50)
  sizes = [(40, 50), (41, 52), (43, 51), (60, 60), (70, 50)]
  for layer, shared in ((GroupNorm(2), False), (nn.Conv(8, (3, 3)), True)):
    network = Own(layer)
    variables = filled(network, lr[None])
    upscale = Upscaler(network, variables, sizes=sizes)
    assert bool(upscale.planner.canvas_windows) == shared
    np.testing.assert_allclose(upscale(lr), jax.jit(network.apply)(variables, lr[None])[0],
                               rtol=0, atol=1e-5)


@pytest.mark.parametrize('mix', [Gate(), lambda x: Argued(name='argued')(x, 0.5)],
                         ids=['no statistics', 'another argument'])
def test_other_layers_that_mix_all_pixels_need_the_whole_image(mix: Callable[..., Any]) -> None:
  network, lr = Own(mix), image(75, 91)
  if not isinstance(mix, nn.Module):
    class WithArgument(Own):
      def setup(self) -> None:
        super().setup()
        self.argued = Argued()

      def trunk(self, lr: jax.Array, train: bool = False) -> jax.Array:
        return self.body(self.argued(self.head(lr), 0.5))

    network = WithArgument(mix)
  variables = filled(network, lr[None, :24, :24])
  parts = CompiledParts(network, variables)
  assert layerwise.Layers(parts).calls is None
  memory = int(parts.trunk(1, lr.shape[:2]).bytes / 4)
  with pytest.raises(InputError, match=r'91x75 pixels does not fit .*reduce_sum'):
    Upscaler(network, variables, memory=memory)(lr)
