"""Tests of building a network by name, above all one of the user's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

from sr_jax.errors import InputError
from sr_jax.experiment import base_config, phases
from sr_jax.experiment.check import check
from sr_jax.inference.upscaler import Upscaler
from sr_jax.models import factory
from sr_jax.profiling.summary import summarize
from sr_jax.system import user_code
from tests import smallest


class NoDtype(nn.Module):
  scale: int = 4

  def __call__(self, lr: jax.Array, train: bool = False) -> jax.Array:
    return lr


class NoScale(nn.Module):
  dtype: jnp.dtype = jnp.float32

  def __call__(self, lr: jax.Array, train: bool = False) -> jax.Array:
    return lr


class NoTrain(nn.Module):
  scale: int = 4
  dtype: jnp.dtype = jnp.float32

  def __call__(self, lr: jax.Array) -> jax.Array:
    return lr


def function(**fields: object) -> nn.Module:
  return NoDtype()


class Outer:
  class Inner(nn.Module):
    scale: int = 4
    dtype: jnp.dtype = jnp.float32


class Unset(nn.Module):
  width: int
  scale: int = 4
  dtype: jnp.dtype = jnp.float32

  def __call__(self, lr: jax.Array, train: bool = False) -> jax.Array:
    return lr


WIDE = functools.partial(Unset, width=7)


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(user_code, '_allowed', {__name__})


def own(name: str) -> str:
  return f'{__name__}:{name}'


@pytest.mark.parametrize(('name', 'words'), [
    ('NoDtype', ('NoDtype', "'dtype'")), ('NoScale', ('NoScale', "'scale'")),
    ('NoTrain', ('NoTrain', 'train')), ('function', ('test_factory:function', 'flax.linen.Module')),
    ('jnp', ('module', 'flax.linen.Module')), ('Missing', ('has no Missing',)),
    ('Unset', ('config.generator.width: ', 'Unset'))])
def test_what_a_class_lacks_is_one_line(name: str, words: tuple[str, ...]) -> None:
  with pytest.raises(InputError) as error:
    factory.build_generator({'name': own(name)}, 2, 'float32')
  assert all(word in str(error.value) for word in words)


def test_a_partial_of_a_class() -> None:
  fields = {'name': own('WIDE')}
  assert factory.build_generator(fields, 2, 'float32').width == 7
  assert factory.build_generator(fields | {'width': 5}, 2, 'float32').width == 5


class Raises(nn.Module):
  scale: int = 2
  dtype: jnp.dtype = jnp.float32

  def __call__(self, lr: jax.Array, train: bool = False) -> jax.Array:
    raise KeyError('two\nlines')


def test_a_field_that_a_class_lacks_is_set_to_none() -> None:
  factory.build_generator({'name': own('Raises'), 'output': None}, 2, 'float32')
  with pytest.raises(InputError, match=r'config\.generator\.output: .*Raises .*None.*; it has '
                                       'no fields'):
    factory.build_generator({'name': own('Raises'), 'output': 'tanh'}, 2, 'float32')


def test_all_fields_that_a_class_lacks_are_named_at_once() -> None:
  fields = {'name': own('WIDE'), 'output': 'tanh', 'features': 8, 'blocks': None, 'init': 'xavier'}
  with pytest.raises(InputError, match=r'^config\.generator\.output, config\.generator\.features, '
                     r'config\.generator\.init: .*WIDE .*kernel_init; leave out output, features, '
                     r'init, .*None.* config\.generator = dict\(name=.*width'):
    factory.build_generator(fields, 2, 'float32')
  config = base_config.defaults()
  config.generator.output = 'tanh'
  config.generator = {'name': own('WIDE'), 'width': 3}
  fields = dict(check(config).generator.items())
  assert factory.build_generator(fields, 2, 'float32').width == 3


@pytest.mark.parametrize('more', [{}, {'output': 'tanh'}])
def test_a_field_with_a_typing_error(more: dict) -> None:
  with pytest.raises(InputError, match=r'config\.generator\.widht.*did you mean width') as error:
    factory.build_generator({'name': own('WIDE'), 'widht': 3, **more}, 2, 'float32')
  assert ('None' in str(error.value)) == bool(more)


class Draws(Raises):
  @nn.compact
  def __call__(self, lr: jax.Array, train: bool = False) -> jax.Array:
    lr = nn.Dropout(0.5, deterministic=not train)(nn.Conv(3, (3, 3))(lr))
    return jnp.repeat(jnp.repeat(lr, 2, 1), 2, 2)


def test_a_network_that_draws_random_numbers() -> None:
  config = smallest.get_config()
  config.generator = {'name': Draws}
  with pytest.raises(InputError, match=r'config\.generator: class Draws: .*random.*test_factory'
                                       r'\.py, line \d+.*dropout') as error:
    phases.build(config).new_state()
  assert 'PRNG' not in str(error.value)


class Leaves(Raises):
  def __call__(self, lr: jax.Array, train: bool = False) -> jax.Array:
    raise SystemExit(0)


@pytest.mark.parametrize(('network', 'message'), [
    (Raises, r'class Raises: KeyError: .*two.*lines'),
    (Leaves, r'class Leaves: SystemExit: .*exit\(0\)')])
def test_an_exception_in_a_class_of_the_users_own(network: type[nn.Module], message: str) -> None:
  config = smallest.get_config()
  config.generator = {'name': network}
  for call in (lambda: phases.build(config).new_state(), lambda: summarize(config)):
    with pytest.raises(InputError, match=rf'config\.generator: {message}'
                                         r'.*test_factory\.py, line \d+'):
      call()


def test_a_network_that_ends_the_program() -> None:
  with pytest.raises(InputError, match=r'Leaves.*8x8.*SystemExit'):
    Upscaler(Leaves(), {})(np.zeros((8, 8, 3), np.float32))


class Checks(Raises):
  sizes: tuple[int, str] = (1, '')

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.sizes[1] == 'x':
      raise KeyError('no\nx')


def test_fields_of_a_class_of_the_users_own() -> None:
  build = functools.partial(factory.build_generator, scale=2, dtype='float32')
  name = own('Checks')
  assert build({'name': name, 'sizes': [3, 'a']}).sizes == (3, 'a')
  for sizes in ((3, 4), (3,), ('a', 3)):
    with pytest.raises(InputError, match=r'config\.generator\.sizes='):
      build({'name': name, 'sizes': sizes})
  with pytest.raises(InputError, match=r'config\.generator: KeyError: .*no'):
    build({'name': name, 'sizes': (3, 'x')})


@pytest.mark.parametrize('name', ['mine', 3, None, ['mine'], 'my:os.system', 'my:', ':x', 'a..b:c'])
def test_an_unknown_network_is_named(name: object) -> None:
  with pytest.raises(InputError, match=r"name=.*srresnet.*'module:name'") as error:
    factory.build_generator({'name': name}, 2, 'float32')
  assert repr(name) in str(error.value)


@pytest.mark.parametrize('value', [Outer.Inner, lambda **_: NoDtype(), WIDE])
def test_a_class_that_other_commands_could_not_find_is_refused(value: object) -> None:
  config = smallest.get_config()
  config.generator = {'name': value}
  with pytest.raises(InputError, match=r"config\.generator\.name=.*top level.*'module:name'"):
    phases.build(config)


class Judge(nn.Module):
  width: int = 4
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    return nn.Conv(self.width, (3, 3), 2)(images).mean((1, 2, 3))


class Scalar(Judge):
  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    return nn.Conv(self.width, (3, 3), 2)(images).mean()


class Rounded(Judge):
  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    return nn.Conv(self.width, (3, 3), 2, dtype=jnp.bfloat16)(images).mean((1, 2, 3))


class Random(Judge):
  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    logits = nn.Conv(self.width, (3, 3), 2)(images).mean((1, 2, 3))
    return nn.Dropout(0.5, deterministic=not train)(logits)


class Empty(Judge):
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    return images.mean((1, 2, 3))


class Counter(Judge):
  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    count = self.variable('counts', 'n', jnp.zeros, ())
    return nn.Conv(self.width, (3, 3), 2)(images).mean((1, 2, 3)) + count.value


class Halved(Judge):
  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    logits = nn.Conv(self.width, (3, 3), 2, param_dtype=jnp.bfloat16)(images).mean((1, 2, 3))
    return logits.astype(jnp.float32)


def with_discriminator(module: object) -> ConfigDict:
  config = smallest.get_config()
  config.discriminator = base_config.defaults().discriminator
  config.discriminator.name = module
  return config


def test_a_discriminator_of_the_users_own() -> None:
  config = with_discriminator(Judge)
  config.discriminator.width = 3
  state = phases.build(config).new_state()
  assert state.d.params.arrays()['Conv_0/kernel'].shape == (3, 3, 3, 3)


@pytest.mark.parametrize(('module', 'words'), [
    (Scalar, r'float32 \[\], expected .*\[2\]'), (Rounded, r'bfloat16 \[2\], .*float32'),
    (Random, 'random numbers'), (Empty, 'no parameters'), (Counter, "'counts'"),
    (Halved, 'params/Conv_0/bias is bfloat16, expected float32')])
def test_a_discriminator_that_cannot_be_trained(module: object, words: str) -> None:
  with pytest.raises(InputError, match=rf'config\.discriminator: class {module.__name__}: .*{words}'
                     ):
    phases.build(with_discriminator(module)).new_state()
