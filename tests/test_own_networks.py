"""Users' own networks are upscaled as `generator.apply` does it, or refused by name."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from sr_jax.errors import InputError
from sr_jax.experiment import phases
from sr_jax.inference import tiles
from sr_jax.inference.compiled_parts import CompiledParts
from sr_jax.inference.upscaler import Upscaler
from sr_jax.models.layers import pixel_shuffle
from tests import smallest
from tests.conftest import filled
from tests.own_networks import GLOBAL, LOCAL, Own, image

LEVEL = 1 / 255
NETWORKS = {f'{name} in {part}': Own(layer, part == 'tail')
            for name, (layer, _) in (LOCAL | GLOBAL).items() for part in ('trunk', 'tail')}
CORE = ('channel attention in trunk', 'dilated in tail', 'rolled in trunk', 'pooling in trunk')
SLOW = (*(f'{name} in {part}' for name in ('wide', 'instance norm', 'shifted windows')
          for part in ('trunk', 'tail')), 'hourglass in trunk', 'reflected in trunk')
NAMES = [*CORE, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


def _network(name: str) -> tuple[nn.Module, dict, Callable[[np.ndarray], np.ndarray]]:
  network = NETWORKS[name]
  variables = filled(network, np.zeros((1, 48, 48, 3), np.float32))
  run = jax.jit(network.apply)
  return network, variables, lambda lr: np.asarray(run(variables, lr[None])[0])


@pytest.mark.parametrize('name', NAMES)
def test_tiles_canvases_and_batches_give_the_whole_image(name: str) -> None:
  network, variables, whole = _network(name)
  lr = image(60, 52)
  upscale = Upscaler(network, variables, tile=32)
  np.testing.assert_allclose(upscale(lr), whole(lr), rtol=0, atol=LEVEL)
  frames = np.stack([lr, 0.3 * lr[::-1]])
  np.testing.assert_allclose(upscale(frames)[1], whole(frames[1]), rtol=0, atol=LEVEL)
  sizes = [(60, 52), (44, 56), (45, 61), (61, 40), (53, 57)]
  upscale = Upscaler(network, variables, sizes=sizes)
  for size in sizes[:2]:
    np.testing.assert_allclose(upscale(image(*size)), whole(image(*size)), rtol=0, atol=LEVEL)


@pytest.mark.parametrize('name', NAMES)
def test_little_memory_gives_the_whole_image_or_a_refusal(name: str) -> None:
  network, variables, whole = _network(name)
  lr = image(90, 100)
  memory = CompiledParts(network, variables).trunk(1, (90, 100)).bytes
  for divisor in (1.5, 6):
    upscale, refusal = Upscaler(network, variables, tile=16, memory=int(memory / divisor)), ''
    try:
      np.testing.assert_allclose(upscale(lr), whole(lr), rtol=0, atol=LEVEL)
    except InputError as error:
      refusal = str(error)
    assert not refusal or ('Own' in refusal and '100x90' in refusal)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['channel attention in trunk', 'rolled in tail'])
def test_an_ensemble_of_the_whole_image(name: str) -> None:
  network, variables, whole = _network(name)
  lr = image(40, 56)
  sr = tiles.ensemble(Upscaler(network, variables, tile=16), lr)
  np.testing.assert_allclose(sr, tiles.ensemble(whole, lr), rtol=0, atol=LEVEL)


def test_tiles_that_cannot_be_used_are_noted() -> None:
  network, variables, _ = _network('rolled in tail')
  upscale = Upscaler(network, variables, tile=16)
  upscale(image(40, 40))
  note, = upscale.notes
  assert 'tile=16' in note
  assert 'Own' in note


class Plain(nn.Module):
  """A network without a trunk and a tail."""

  shift: int = 0
  scale: int = 2
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, lr: jax.Array, train: bool = False) -> jax.Array:
    x = jnp.roll(nn.relu(nn.Conv(8, (3, 3))(lr)), self.shift, 1)
    return pixel_shuffle(nn.Conv(3 * self.scale**2, (3, 3))(x), self.scale)


@pytest.mark.parametrize('shift', [0, pytest.param(3, marks=pytest.mark.slow)])
def test_a_network_without_a_trunk(shift: int) -> None:
  network = Plain(shift)
  variables = filled(network, np.zeros((1, 24, 24, 3), np.float32))
  lr = image(50, 70)
  upscale = Upscaler(network, variables, tile=16)
  np.testing.assert_allclose(upscale(lr), network.apply(variables, lr[None])[0], rtol=0, atol=LEVEL)
  assert (upscale.planner.tail_reach is None) == bool(shift)


class Wrong(nn.Module):
  """A network whose result has another size, and that refuses odd sides."""

  scale: int = 4
  dtype: jnp.dtype = jnp.float32

  def __call__(self, lr: jax.Array, train: bool = False) -> jax.Array:
    batch, height, width, channels = lr.shape
    return lr.reshape(batch, height // 2, 2, width, channels).reshape(lr.shape)


@pytest.mark.parametrize(('size', 'words'), [((8, 6), ('Wrong', '[1, 32, 24, 3]')),
                                             ((7, 6), ('Wrong', '6x7'))])
def test_a_result_of_the_wrong_size_is_refused(size: tuple[int, int], words: tuple[str, ...]
                                               ) -> None:
  with pytest.raises(InputError) as error:
    Upscaler(Wrong(), {})(image(*size))
  assert all(word in str(error.value) for word in words)
  assert '\n' not in str(error.value)


class Given(nn.Module):
  """A network whose result for LR of 8x8 has a shape that is a field."""

  shape: tuple[int, ...] = ()
  scale: int = 4
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, lr: jax.Array, train: bool = False) -> jax.Array | tuple[jax.Array]:
    shape = self.shape
    if lr.shape[1:3] != (8, 8):
      shape = (1, *(side * self.scale for side in lr.shape[1:3]), 3)
    sr = jnp.zeros((len(lr) * shape[0], *shape[1:]) if shape else ())
    sr += nn.Conv(1, (3, 3))(lr).mean()
    return sr if shape else (sr,)


@pytest.mark.parametrize('shape', [(1, 8, 8, 3), (1, 16, 16, 4), (16, 16, 3), (1, 15, 16, 3), ()])
def test_a_result_of_the_wrong_size_is_refused_before_training(shape: tuple[int, ...]) -> None:
  config = smallest.get_config()
  config.generator = {'name': Given, 'shape': (1, 16, 16, 3)}
  assert phases.build(config).new_state().g.params  # such a network need not have `channels`
  config.generator.shape = shape
  with pytest.raises(InputError) as error:
    phases.build(config).new_state()
  found = str([2 * shape[0], *shape[1:]]) if shape else 'tuple'
  words = 'config.generator', 'Given', '[2, 8, 8, 3]', '[2, 16, 16, 3]', found
  assert all(word in str(error.value) for word in words)


class OneSize(nn.Module):
  """A network whose parameters, or whose result, fit one size only."""

  fixed: str = 'parameters'
  scale: int = 2
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, lr: jax.Array, train: bool = False) -> jax.Array:
    if self.fixed == 'parameters':
      return pixel_shuffle(nn.Dense(12 * 64)(lr.reshape(-1, lr[0].size)).reshape(-1, 8, 8, 12), 2)
    sr = pixel_shuffle(nn.Conv(12, (3, 3))(lr), 2)
    return sr.swapaxes(1, 2) if self.fixed == 'square' else sr[:, :16, :16]


@pytest.mark.parametrize(('fixed', 'words'), [
    ('parameters', ('Dense_0', 'test_own_networks.py, line ')), ('square', ('[2, 96, 192, 3]',)),
    ('result', ('[2, 16, 16, 3]', '[2, 192, 96, 3]'))])
def test_a_network_for_one_size_is_refused_before_training(fixed: str, words: tuple[str, ...]
                                                           ) -> None:
  config = smallest.get_config()
  config.generator = {'name': OneSize, 'fixed': fixed}
  with pytest.raises(InputError) as error:
    phases.build(config).new_state()
  words = 'config.generator: class OneSize: ', 'LR of 8x8', '[2, 96, 48, 3]', *words
  assert all(word in str(error.value) for word in words)
