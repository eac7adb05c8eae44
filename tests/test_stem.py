"""A convolutional stem in SwinIR: its features, its weights from another network, inference."""

import pathlib
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

from sr_jax import models
from sr_jax.errors import InputError
from sr_jax.inference import layerwise
from sr_jax.inference.compiled_parts import CompiledParts
from sr_jax.inference.tiles import Grid
from sr_jax.models import EDSR, RRDB, SwinIR
from sr_jax.pretrained import families, generators
from sr_jax.step.flat import flatten
from sr_jax.step.state import Average, NetState, TrainState
from sr_jax.train.initial import load_initial, start_from
from tests import smallest
from tests.conftest import filled, same_bits
from tests.test_train import run, stop_after

FIELDS = {'features': 8, 'groups': 1, 'blocks': 1, 'heads': 2, 'window': 4, 'scale': 2,
          'upsample': 'direct', 'stem_blocks': 1}
STEMS = {'edsr': EDSR(6, 1, scale=3), 'rrdb': RRDB(8, 1, 4, scale=4)}
SIZE = 6, 9
LR = np.random.default_rng(0).uniform(size=(1, *SIZE, 3)).astype(np.float32)


def swinir(stem: str, **fields: object) -> SwinIR:
  return SwinIR(stem=stem, **FIELDS | {'stem_features': STEMS[stem].features} | fields)


@pytest.mark.parametrize('stem', STEMS)
def test_the_first_features_are_those_of_the_other_network(stem: str) -> None:
  """They replace what the first convolution computes, in units of the transformer's white."""
  other, model = STEMS[stem], swinir(stem)
  theirs, variables = filled(other, LR, 1), filled(model, LR)
  params = variables['params']
  trunk = {name: theirs['params'][name] for name in params['stem_trunk']}
  assert set(theirs['params']) - set(trunk) >= {'last', 'stages_0'}
  assert jax.tree.map(np.shape, trunk) == jax.tree.map(np.shape, params['stem_trunk'])
  padded = np.pad(LR, ((0, 0), (0, -SIZE[0] % 4), (0, -SIZE[1] % 4), (0, 0)), 'reflect')
  features = np.asarray(other.apply(theirs, padded, method='trunk'))
  if stem == 'edsr':
    join = params['stem_join']
    features = features / 255 @ join['kernel'][0, 0] + join['bias']
  else:
    assert 'stem_join' not in params

  def replace(call: Callable, args: tuple, kwargs: dict,
              context: nn.module.InterceptorContext) -> jax.Array:
    return features if context.module.path == ('head',) else call(*args, **kwargs)

  plain = SwinIR(**FIELDS | {'stem_blocks': None})
  rest = {name: layer for name, layer in params.items() if not name.startswith('stem')}
  with nn.intercept_methods(replace):
    expected = plain.apply({'params': rest}, LR)
  sr = model.apply({'params': params | {'stem_trunk': trunk}}, LR)
  assert sr.shape == (1, 2 * SIZE[0], 2 * SIZE[1], 3)
  np.testing.assert_allclose(sr, expected, rtol=1e-5, atol=1e-5 * np.std(expected))


def test_invalid_fields_are_named() -> None:
  for fields, words in (
      ({'stem': 'unet'}, "stem='unet'.*'conv', 'edsr'"),
      ({'stem': 'edsr'}, "stem_blocks=None with stem='edsr'.* such as 4"),
      ({'stem_blocks': 2}, "stem_blocks=2 has no effect with stem='conv'.*'rrdb'"),
      ({'stem_features': 8}, "stem_features=8 has no effect with stem='conv'")):
    with pytest.raises(ValueError, match=words):
      jax.eval_shape(SwinIR(**fields).init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


def test_no_other_project_has_names_for_it() -> None:
  model = swinir('rrdb')
  assert families.fitting_family('swinir', model) == 'sr_jax'
  with pytest.raises(InputError, match=r"stem='rrdb'.*'conv'; use --names sr_jax"):
    families.checked_layout('swinir', 'swinir', model)


def test_its_layers_run_in_windows() -> None:
  """Each by itself, as those of the transformer: the halo is that of a residual block."""
  model = swinir('edsr')
  variables = filled(model, LR)
  calls = layerwise.Layers(CompiledParts(model, variables)).calls
  assert {(type(call.layer.module).__name__, call.grid) for call in calls} >= {
      ('ResidualBlock', Grid(1, 2)), ('SwinBlock', Grid(4, 0))}
  lr = np.random.default_rng(1).uniform(size=(1, 13, 8, 3)).astype(np.float32)
  expected = np.asarray(model.apply(variables, lr, method='trunk'))
  np.testing.assert_allclose(layerwise.trunk(model, variables, lr, 8), expected, rtol=0,
                             atol=1e-5 * np.abs(expected).max())


# Its weights ------------------------------------------------------------------------------------


def write(path: pathlib.Path, stem: str, **fields: object) -> dict:
  """Writes a weight file of an EDSR or RRDB; returns its variables."""
  model = STEMS[stem].clone(**fields)
  variables = {'batch_stats': {}} | filled(model, LR)
  generators.write_generator(path, 'sr_jax', stem, model, variables)
  return variables


def stem_config(path: pathlib.Path, stem: str = 'edsr', **fields: object) -> ConfigDict:
  """Returns a config without a discriminator that starts from a file."""
  config = smallest.get_config()
  config.discriminator.name, config.loss.adversarial.weight = 'none', 0.0
  config.warmup_steps, config.steps, config.init_from = 0, 2, str(path)
  given = FIELDS | {'stem_features': STEMS[stem].features} | fields
  config.scale = given.pop('scale')
  config.generator.update({'name': 'swinir', 'kernel': None, 'stem': stem} | given)
  return config


@pytest.mark.parametrize('stem', STEMS)
def test_the_stem_starts_from_another_network(stem: str, tmp_path: pathlib.Path) -> None:
  path, model = tmp_path / 'x.safetensors', swinir(stem)
  theirs = write(path, stem)['params']
  params = flatten(filled(model, LR, 1)['params'])
  state = TrainState(0, 0, NetState(params, flatten({}), ()), None, Average(params, flatten({})))
  started, sources = start_from(state, model, load_initial(stem_config(path, stem)))
  for net in (started.g, started.ema):
    ours = net.params.tree()
    own = ours.pop('stem_trunk')
    assert same_bits(own, {name: theirs[name] for name in own}) == []
    before = params.tree()
    assert same_bits(ours, {name: before[name] for name in ours}) == []
  names = {key: {name.split('/')[1] for name in values}
           for key, values in sources._asdict().items()}
  assert names == {'loaded': {'stem_trunk'}, 'initialised': set(ours),
                   'unused': theirs.keys() - own.keys()}
  assert len(sources.loaded) + len(sources.unused) == len(jax.tree.leaves(theirs))


def test_other_initial_networks_are_refused(tmp_path: pathlib.Path) -> None:
  path = tmp_path / 'x.safetensors'
  write(path, 'edsr')
  for stem, fields, words in (
      ('edsr', {'stem_blocks': 3}, r'blocks=1, .* 3; add --config\.generator\.stem_blocks=1'),
      ('edsr', {'stem_features': None}, r'features=6, .* 8; add .*\.stem_features=6'),
      ('edsr', {'channels': 1}, r'channels=3, .* 1; add --config\.generator\.channels=3'),
      ('rrdb', {}, r"network='EDSR', .*'RRDB'; add --config\.generator\.stem=edsr"),
      ('edsr', {'stem_blocks': None}, r"config\.generator: stem_blocks=None with stem='edsr'")):
    with pytest.raises(InputError, match=words):
      load_initial(stem_config(path, stem, **fields))
  write(path, 'edsr', residual_scale=0.5)
  with pytest.raises(InputError, match=r'x\.safetensors.* residual_scale=0\.5, .* 1\.0; expected'):
    load_initial(stem_config(path))
  model = models.Compact(features=4, blocks=1)
  generators.write_generator(path, 'sr_jax', 'compact', model, filled(model, LR))
  with pytest.raises(InputError, match=r"'Compact', .*'EDSR'; expected an EDSR, .*SwinIR"):
    load_initial(stem_config(path))


@pytest.mark.slow
def test_a_frozen_stem_keeps_its_bits_and_a_resumed_run_its_own(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
  path = tmp_path / 'x.safetensors'
  theirs = write(path, 'edsr')['params']
  config = stem_config(path)
  config.data.source, config.freeze, config.steps = f'folder:{folder}', 'stem_trunk', 40
  whole = run(config, tmp_path / 'whole')
  printed = capsys.readouterr().out
  for words in (r'8 arrays loaded \(stem_trunk\)', r'arrays newly initialised \(.*stem_join',
                r'4 arrays of .*x\.safetensors.* not used \(last, stages_0\)', r'frozen\)'):
    assert re.search(words, printed), words
  trained = whole.g.params.tree()
  trunk = trained.pop('stem_trunk')
  assert same_bits(trunk, {name: theirs[name] for name in trunk}) == []
  stop_after(config, tmp_path / 'parts', 20)
  assert same_bits(run(config, tmp_path / 'parts'), whole) == []
  # The run is a network like any other, of which a further one may start.
  model = load_initial(stem_config(tmp_path / 'whole'))
  assert same_bits(model.variables['params'], whole.ema.params.tree()) == []
