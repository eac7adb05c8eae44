"""Tests of building a network by name, above all one of the user's own."""

import pathlib

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from sr_jax.errors import InputError
from sr_jax.experiment import phases
from sr_jax.models import GENERATORS, factory
from sr_jax.profiling.summary import summarize
from sr_jax.system import extension
from tests import smallest

OWN = '''
import jax.numpy as jnp
from flax import linen as nn
from sr_jax.models import GENERATORS

class Mine(nn.Module):
  width: int = 4
  scale: int = 2
  dtype: jnp.dtype = jnp.float32
  def __call__(self, lr, train=False):
    return lr

GENERATORS['mine'] = Mine
'''


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


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
  for name, value in (('nodtype', NoDtype), ('noscale', NoScale), ('notrain', NoTrain),
                      ('function', lambda **_: NoDtype())):
    monkeypatch.setitem(GENERATORS, name, value)


@pytest.mark.parametrize(('name', 'words'), [
    ('nodtype', ('NoDtype', "'dtype'")), ('noscale', ('NoScale', "'scale'")),
    ('notrain', ('NoTrain', 'train')), ('function', ("'function'", 'Module'))])
def test_what_a_class_lacks_is_one_line(name: str, words: tuple[str, ...]) -> None:
  with pytest.raises(InputError) as error:
    factory.build_generator({'name': name}, 2, 'float32')
  assert all(word in str(error.value) for word in words)


class Raises(nn.Module):
  scale: int = 2
  dtype: jnp.dtype = jnp.float32

  def __call__(self, lr: jax.Array, train: bool = False) -> jax.Array:
    raise KeyError('two\nlines')


def test_a_field_that_a_class_lacks_is_set_to_none(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setitem(GENERATORS, 'mine', Raises)
  with pytest.raises(InputError, match=r'config\.generator\.output: mine .*None; it has no fields'):
    factory.build_generator({'name': 'mine', 'output': 'tanh'}, 2, 'float32')


def test_an_exception_in_a_class_of_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setitem(GENERATORS, 'mine', Raises)
  config = smallest.get_config()
  config.generator = {'name': 'mine'}
  for call in (lambda: phases.build(config).new_state(), lambda: summarize(config)):
    with pytest.raises(InputError, match=r'config\.generator: class Raises: KeyError: .*two.*lines'
                                         r'.*test_factory\.py, line \d+'):
      call()


def test_an_unknown_network_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
                                     ) -> None:
  monkeypatch.delenv(extension.VARIABLE, raising=False)
  with pytest.raises(InputError, match=rf"'mine'.*srresnet.*{extension.VARIABLE}"):
    factory.build_generator({'name': 'mine'}, 2, 'float32')
  file = tmp_path / 'other.py'
  for text, words in (('', 'GENERATORS'), ('1 / 0', 'ZeroDivisionError'), ('x =', 'SyntaxError')):
    file.write_text(text)
    monkeypatch.setenv(extension.VARIABLE, str(file))
    with pytest.raises(InputError, match=rf'other\.py.*{words}|{words}.*other\.py'):
      factory.build_generator({'name': 'mine'}, 2, 'float32')
  monkeypatch.setenv(extension.VARIABLE, str(tmp_path / 'missing.py'))
  with pytest.raises(InputError, match=r'missing\.py'):
    factory.build_generator({'name': 'mine'}, 2, 'float32')


def test_a_file_adds_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
  file = tmp_path / 'mine.py'
  file.write_text(OWN)
  monkeypatch.setenv(extension.VARIABLE, str(file))
  monkeypatch.setitem(GENERATORS, 'mine', None)  # so that the entry is removed afterwards
  del GENERATORS['mine']
  assert factory.build_generator({'name': 'mine', 'width': 6}, 3, 'float32').width == 6
