"""The table of config keys agrees with the modules that read the config."""

import dataclasses
import functools
import subprocess
import sys
import types
import typing

import pytest
from ml_collections import ConfigDict

from sr_jax import losses, models
from sr_jax.data import feed_mode
from sr_jax.data.augment import Augmentation
from sr_jax.errors import InputError
from sr_jax.experiment import base_config, config_file, optimizer, values
from sr_jax.experiment.check import check
from sr_jax.experiment.key import FIXED, FREE, RESUME, Key, convert, expected, parse
from sr_jax.experiment.keys import KEYS
from sr_jax.experiment.optimizer_keys import OPTIMIZERS
from sr_jax.inference import correction
from sr_jax.models import layers, vgg
from sr_jax.pretrained.vgg import IDENTITIES
from tests import own_code


def fields(networks):
  """{field: annotation without None} of all networks, but those that config sets elsewhere."""
  found = {}
  for make in networks.values():
    module = make.func if isinstance(make, functools.partial) else make
    for field in dataclasses.fields(module):
      if field.name not in ('parent', 'name', 'kernel_init', 'dtype', 'scale'):
        kind = field.type
        if isinstance(kind, types.UnionType):
          kind, = (part for part in typing.get_args(kind) if part is not type(None))
        assert found.setdefault(field.name, kind) == kind, field.name
  return found


@pytest.mark.parametrize(('section', 'networks'), [
    ('generator', models.GENERATORS), ('discriminator', models.DISCRIMINATORS)])
def test_every_field_of_a_network_is_a_key_of_its_type(section, networks):
  keys = {name.removeprefix(f'{section}.'): key.type for name, key in KEYS.items()
          if name.startswith(f'{section}.')}
  assert keys.pop('name') is keys.pop('init') is str
  assert keys == fields(networks)


def test_choices_are_those_of_the_modules():
  known = {'generator.name': models.GENERATORS,
           'discriminator.name': ('none', *models.DISCRIMINATORS),
           'generator.init': layers.INITIALIZERS, 'discriminator.init': layers.INITIALIZERS,
           'loss.pixel.kind': losses.PIXEL, 'loss.perceptual.distance': losses.PIXEL,
           'loss.adversarial.kind': losses.ADVERSARIAL, 'loss.perceptual.network': vgg.VGGS,
           'loss.perceptual.identity': IDENTITIES, 'data.mode': feed_mode.MODES,
           'eval.correct.kind': ('none', *correction.KINDS),
           'optimizer.g.name': optimizer.DEFAULTS}
  for name, allowed in known.items():
    assert sorted(KEYS[name].choices) == sorted(allowed), name


def test_the_augmentations_are_those_of_the_module():
  keys = {name.removeprefix('data.augment.'): key.default for name, key in KEYS.items()
          if name.startswith('data.augment.')}
  assert keys == Augmentation()._asdict()


def test_every_default_is_in_range_and_every_key_is_described():
  for name, key in KEYS.items():
    assert convert(key, key.default) == key.default, name
    assert key.meaning.endswith('.'), name
    assert key.change in (FREE, RESUME, FIXED)
  assert values.flat(base_config.defaults().to_dict()).keys() == KEYS.keys()
  assert [name for name in OPTIMIZERS if f'optimizer.{name}.ramp' in KEYS] == ['g', 'd', 'warmup']
  check(base_config.defaults())


@pytest.mark.parametrize(('name', 'value', 'result'), [
    ('steps', 300.0, 300), ('ema', 0, 0.0), ('data.fraction', [1, 0], (1.0, 0.0)),
    ('generator.features', None, None), ('generator.widths', [8, 8.0], (8, 8)),
    ('optimizer.g.boundaries', [], ())])
def test_values_get_the_type_of_their_key(name, value, result):
  converted = convert(KEYS[name], value)
  assert converted == result
  assert repr(converted) == repr(result)  # 0 == 0.0


@pytest.mark.parametrize(('name', 'value', 'words'), [
    ('steps', 1.5, 'integer'), ('steps', True, 'integer'), ('steps', '3', 'integer'),
    ('steps', None, 'integer'), ('steps', 0, 'at least 1'), ('seed', 2**31, '0 to 2147483647'),
    ('ema', 1.0, 'at least 0 and less than 1'), ('join_seconds', 0, 'more than 0 and at most'),
    ('ema', float('nan'), 'number'), ('loss.pixel.weight', 10**400, 'number'),
    ('data.download', 1, 'True or False'), ('data.source', 3, 'string'),
    ('data.fraction', 0.5, 'numbers'), ('data.fraction', (0.5, 'x'), 'numbers'),
    ('eval.correct.thresholds', (0.1, 0.1), '1 or 3'), ('generator.init', 'x', 'xavier, '),
    ('data.augment.mixup', (0.5, 0.0), '0.001 to 10'), ('generator.mean', 'grey', 'numbers')])
def test_values_of_another_type_or_range_are_refused(name, value, words):
  with pytest.raises(ValueError, match=words) as refused:
    convert(KEYS[name], value)
  assert str(refused.value) == expected(KEYS[name])


@pytest.mark.parametrize(('name', 'text', 'result'), [
    ('steps', '1_000', 1000), ('steps', '1e5', 100_000), ('optimizer.g.final', '3e-4', 3e-4),
    ('data.download', 'True', True), ('data.download', '0', False), ('data.source', 'x:3', None),
    ('data.fraction', '0.8,0.2', (0.8, 0.2)), ('data.fraction', '(0.8, 0.2)', (0.8, 0.2)),
    ('optimizer.g.boundaries', '5', (5.0,)), ('generator.features', 'None', None),
    ('data.resize', '256', None)])
def test_a_text_of_the_command_line_is_parsed_by_the_type_of_its_key(name, text, result):
  if result is None and KEYS[name].type is str:
    result = text
  assert repr(parse(KEYS[name], text)) == repr(result)


def test_intervals_in_words():
  for limits, words in (('[1, inf)', 'at least 1'), ('[0, 1]', 'from 0 to 1'),
                        ('(0, 5]', 'more than 0 and at most 5'), ('(0, inf)', 'more than 0')):
    assert expected(Key('x', int, 1, '', limits)) == f'an integer, {words}'


def test_a_config_from_python_is_checked_as_a_file_is(config):
  config.bach_size = 8
  config.optimizer.g.lr = 1.0
  config.data.augment = ConfigDict({'flip': True})
  config.steps = '3'
  with pytest.raises(InputError, match=(
      r'config\.bach_size: .*config\.batch_size.*config\.optimizer\.g\.lr: .*config\.steps='
      r"'3': .*config\.data\.augment\.turn, .*missing")):
    check(config)
  config = base_config.defaults()
  config.loss.pixel.weight, config.eval.correct.thresholds = 1, [0.1]
  with pytest.raises(InputError, match=r'config\.data=3: .*section'):
    check(ConfigDict(config.to_dict() | {'data': 3}))
  checked = check(config)
  assert (repr(checked.loss.pixel.weight), checked.eval.correct.thresholds) == ('1.0', (0.1,))


def test_the_table_needs_no_jax():
  subprocess.run([sys.executable, '-c', 'import sys; from sr_jax import main; '
                  'from sr_jax.experiment import base_config; base_config.defaults(); '
                  'assert "jax" not in sys.modules'], check=True)


@pytest.mark.parametrize(('extra', 'words'), [
    ({'edges': {'fn': 'my:edges'}}, r'config\.loss\.extra\.edges\.weight: missing'),
    ({'edges': {'fn': 'my:edges', 'wieght': 1}}, r'wieght: .*edges\.weight\?'),
    ({'edges': {'fn': 'my:edges', 'weight': -1}}, r'edges\.weight=-1: .*at least 0'),
    ({'edges': {'fn': 'edges', 'weight': 1}}, r"edges\.fn='edges': .*module:name"),
    ({'edges': {'fn': '', 'weight': 1}}, r"edges\.fn='': .*module:name"),
    ({'edges': 'my:edges'}, r'config\.loss\.extra\.edges: .*edges\.fn and .*edges\.weight'),
    ({'pixel': {'fn': 'my:edges', 'weight': 1}}, r'config\.loss\.extra\.pixel: '),
    ({'a b': {'fn': 'my:edges', 'weight': 1}}, r'config\.loss\.extra\.a b: ')])
def test_entries_of_own_loss_terms_are_checked(config, extra, words):
  config.loss.extra = extra
  with pytest.raises(InputError, match=words) as error:
    check(config)
  assert str(error.value).count('config.loss.extra') <= 3
  settings = {f'loss.extra.{name}.{key}': str(value) for name, fields in extra.items()
              for key, value in (fields.items() if isinstance(fields, dict) else [('x', 'y')])}
  with pytest.raises(InputError) as error:
    config_file.override(base_config.defaults().to_dict(), settings, 'FILE')
  if 'pixel' in extra:
    assert str(error.value).count('loss.extra.pixel') == 1


def test_own_entries_of_the_command_line_complete_those_of_a_file():
  config = base_config.defaults().to_dict()
  assert check(ConfigDict(config)).loss.extra.to_dict() == {}
  config['loss']['extra'] = {'edges': {'fn': 'my:edges'}}
  both = config_file.override(config, {'loss.extra.edges.weight': '0.1',
                                       'eval.extra.e.fn': 'my:e', 'eval.extra.e.better': 'lower'},
                              'FILE')
  assert both.loss.extra.edges.to_dict() == {'fn': 'my:edges', 'weight': 0.1}
  assert both.eval.extra.e.to_dict() == {'fn': 'my:e', 'better': 'lower'}
  with pytest.raises(InputError, match=r"eval\.extra\.e\.better='up': .*higher, lower"):
    config_file.override(config, {'loss.extra.edges.weight': '0.1', 'eval.extra.e.fn': 'my:e',
                                  'eval.extra.e.better': 'up'}, 'FILE')


def test_functions_themselves_become_their_names():
  config = base_config.defaults()
  config.loss.pixel.kind = config.data.source = own_code.l1
  config.loss.extra.edges = {'fn': own_code.edges, 'weight': 1}
  config.eval.extra.error = {'fn': own_code.edge_error, 'better': 'lower'}
  checked = check(config)
  assert (checked.loss.pixel.kind, checked.data.source) == ('tests.own_code:l1',) * 2
  assert checked.loss.extra.edges.to_dict() == {'fn': 'tests.own_code:edges', 'weight': 1.0}
  assert checked.eval.extra.error.fn == 'tests.own_code:edge_error'
  config.loss.extra.edges.fn = lambda sr, hr: 0.0
  with pytest.raises(InputError, match=r'config\.loss\.extra\.edges\.fn=.*module'):
    check(config)
