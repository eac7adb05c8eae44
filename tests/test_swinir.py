"""SwinIR: its equations in NumPy, PyTorch's results, weight files, stochastic depth, inference."""

import functools
import pathlib
from collections.abc import Callable
from fractions import Fraction
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy import special

import sr_jax
from configs import swinir
from sr_jax import evaluate, images, models, restore
from sr_jax.errors import InputError
from sr_jax.experiment import config_file
from sr_jax.inference.compiled_parts import CompiledParts
from sr_jax.inference.upscaler import Upscaler
from sr_jax.models import EDSR, GENERATORS, SwinIR, attention
from sr_jax.models.layers import residual_scales
from sr_jax.models.swin_blocks import BlockFields, SwinBlock
from sr_jax.pretrained import families, generators
from sr_jax.runs.imported import save_imported
from sr_jax.step import train_step
from tests import smallest
from tests.conftest import filled, same_bits
from tests.own_networks import check_layer_by_layer
from tests.test_train import run, stop_after

SMALL = {'features': 8, 'groups': 1, 'blocks': 2, 'heads': 2, 'window': 4}
DIRECT = SMALL | {'scale': 2, 'upsample': 'direct'}


@functools.cache
def count(make: functools.partial, groups: int, blocks: int, scale: int) -> int:
  model = make(groups=groups, blocks=blocks, scale=scale)
  shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
  return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def parameters(make: functools.partial, scale: int = 4) -> int:
  """Extrapolates from networks of few blocks; those of full size take seconds to trace."""
  model = make(scale=scale)
  one_one, one_two, two_one = (count(make, *size, 1 if make is models.SWINIR_X1 else 2)
                               for size in ((1, 1), (1, 2), (2, 1)))
  return (count(make, 1, 1, scale) + (model.groups - 1) * (two_one - one_one)
          + model.groups * (model.blocks - 1) * (one_two - one_one))


def test_parameter_counts() -> None:
  """Those of the authors' code. The paper's table of `light` counts one 3x3 convolution less."""
  for scale, classical, light in ((2, 11_752_487, 910_152), (3, 11_937_127, 918_267),
                                  (4, 11_900_199, 929_628)):
    assert parameters(models.SWINIR_M, scale) == classical
    assert parameters(models.SWINIR_LIGHT, scale) == light
  assert 897_000 < 929_628 - (9 * 60 + 1) * 60 < 897_500  # published as 897K
  assert parameters(models.SWINIR_REAL_M) == 11_715_559
  assert parameters(models.SWINIR_REAL_L) == 28_013_059
  assert parameters(models.SWINIR_X1, 1) == 11_504_163
  assert isinstance(GENERATORS['swinir'](), SwinIR)


# The equations --------------------------------------------------------------------------------


def norm(x: np.ndarray, layer: dict) -> np.ndarray:
  centred = x - x.mean(-1, keepdims=True)
  return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * layer[
      'scale'] + layer['bias']


def dense(x: np.ndarray, layer: dict) -> np.ndarray:
  return x @ layer['kernel'] + layer['bias']


def rotated(x: np.ndarray, frequencies: np.ndarray, rows: np.ndarray, columns: np.ndarray
            ) -> np.ndarray:
  """Multiplies pairs of channels of [n, heads, size], as complex numbers, by unit numbers."""
  pairs = (x[..., ::2] + 1j * x[..., 1::2]) * np.exp(
      1j * (columns[:, None, None] * frequencies[0] + rows[:, None, None] * frequencies[1]))
  return np.stack([pairs.real, pairs.imag], -1).reshape(x.shape)


def reference(x: np.ndarray, params: dict, window: int, heads: int, shift: int, position: str
              ) -> np.ndarray:
  """Computes a block with attention of the entire image, which is zero between windows.

  With a shift, the windows begin at `shift`, and those at the border are cut off there.
  """
  height, width, features = x.shape
  rows, columns = np.indices((height, width)).reshape(2, -1)
  windows = (rows - shift) // window * width + (columns - shift) // window
  tokens = x.reshape(-1, features)
  qkv = dense(norm(tokens, params['norm1']), params['attention']['qkv'])
  query, key, value = qkv.reshape(-1, 3, heads, features // heads).swapaxes(0, 1)
  size = features // heads
  if position == 'rope_axial':
    half = 10.0**(-np.arange(0, size, 4) / size)
    frequencies = np.zeros((2, heads, size // 2))
    frequencies[0, :, :size // 4] = frequencies[1, :, size // 4:] = half
  elif position == 'rope_mixed':
    frequencies = params['attention']['frequencies']
  if position.startswith('rope'):  # of positions in the image: only differences count
    query, key = (rotated(part, frequencies, rows, columns) for part in (query, key))
  logits = np.einsum('qhc,khc->hqk', query, key) / np.sqrt(size)
  if position == 'bias':
    down, right = (np.clip(axis[:, None] - axis, 1 - window, window - 1) + window - 1
                   for axis in (rows, columns))
    logits += params['attention']['bias_table'][down * (2 * window - 1) + right].transpose(2, 0, 1)
  logits[:, windows[:, None] != windows] = -np.inf
  attended = np.einsum('hqk,khc->qhc', special.softmax(logits, -1), value).reshape(-1, features)
  y = tokens + dense(attended, params['attention']['projection'])
  hidden = dense(norm(y, params['norm2']), params['hidden'])
  hidden = hidden * (1 + special.erf(hidden / np.sqrt(2))) / 2
  return (y + dense(hidden, params['output'])).reshape(x.shape)


@pytest.mark.parametrize(('position', 'shifted'), [
    *((position, True) for position in attention.POSITIONS), ('bias', False)])
def test_a_block_is_attention_within_windows(position: str, shifted: bool) -> None:
  block = SwinBlock(BlockFields(8, 2, 4, 1.5, position, jnp.float32), shifted)
  x = np.random.default_rng(1).normal(size=(1, 8, 12, 8)).astype(np.float32)
  variables = jax.tree.map(lambda leaf: 3 * leaf, filled(block, x))  # far from uniform attention
  found = jax.jit(block.apply)(variables, x)[0]
  expected = reference(np.float64(x[0]), variables['params'], 4, 2, 2 * shifted, position)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_frequencies_that_are_trained_start_as_turned_axial_ones() -> None:
  turned = attention.rope_frequencies(2, 8, np.float32([0, 0.5]))
  axial = np.zeros((2, 4))
  axial[0, :2] = axial[1, 2:] = 1, 10**-0.5
  np.testing.assert_allclose(turned[:, 0], axial, atol=1e-6)
  lengths = np.hypot(*turned)
  np.testing.assert_allclose(lengths, lengths[:1].repeat(2, 0), rtol=1e-6)
  np.testing.assert_allclose(np.arctan2(turned[1, 1], turned[0, 1]),
                             [0.5, 0.5, 0.5 + np.pi / 2, 0.5 + np.pi / 2], rtol=1e-6)


def test_invalid_field_values_are_named() -> None:
  for fields, words in (
      ({'heads': 7}, 'features=180, heads=7.*features=182 or heads=6'),
      ({'position': 'rope_mixed'}, r'heads=6.*180 / 6 is 30.*features=192 or heads=5\b'),
      ({'position': 'rope'}, "position='rope'.*rope_axial"), ({'window': 1}, 'window=1.*2'),
      ({'upsample': 'none'}, "upsample='none' with scale=4"), ({'drop_path': 1.0}, 'drop_path=1.0'),
      ({'upsample': 'nearest', 'scale': 3}, "upsample='nearest' with scale=3.*2, 4 or 8"),
      ({'residual_conv': '2conv'}, "residual_conv='2conv'.*3conv"), ({'scale': 5}, 'scale=5'),
      ({'image_range': 0.0}, 'image_range=0.0')):
    with pytest.raises(ValueError, match=words):
      jax.eval_shape(SwinIR(**fields).init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


@pytest.mark.parametrize('position', ['bias', pytest.param('rope_mixed', marks=pytest.mark.slow)])
def test_windows_in_strips_give_the_same_result(position: str,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
  block = SwinBlock(BlockFields(8, 2, 4, 2.0, position, jnp.float32), True)
  x = np.random.default_rng(0).normal(size=(2, 24, 8, 8)).astype(np.float32)
  variables = filled(block, x)

  def result(limit: int) -> tuple:
    monkeypatch.setattr(attention, 'MAX_LOGITS', limit)

    def loss(variables: dict) -> tuple[jax.Array, jax.Array]:
      y = block.apply(variables, x)
      return (y**2).sum(), y

    assert ('scan' in str(jax.make_jaxpr(loss)(variables))) == (limit < 3072)
    return jax.jit(jax.grad(loss, has_aux=True))(variables)

  whole = result(3072)  # 12 windows of 256 logits
  # Strips of two rows of windows, and of one.
  for limit in (1500,) if position == 'bias' else (1500, 1):
    for part, expected in zip(*map(jax.tree.leaves, (result(limit), whole)), strict=True):
      np.testing.assert_allclose(part, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


# Inference ------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def network() -> tuple[SwinIR, dict]:
  """A small network of scale 2 and its variables."""
  model = SwinIR(**DIRECT)
  return model, filled(model, np.zeros((1, 8, 8, 3), np.float32))


def test_images_are_padded_by_reflection(network: tuple) -> None:
  """Also those that are smaller than the padding; the upscaler pads them in the same way."""
  size = 2, 3
  model, variables = network
  lr = np.random.default_rng(2).uniform(size=(1, *size, 3)).astype(np.float32)
  padded = np.pad(lr, ((0, 0), (0, -size[0] % 4), (0, -size[1] % 4), (0, 0)), 'reflect')
  apply = jax.jit(model.apply)
  sr = apply(variables, lr)
  assert sr.shape == (1, 2 * size[0], 2 * size[1], 3)
  np.testing.assert_allclose(sr, apply(variables, padded)[:, :sr.shape[1], :sr.shape[2]], atol=1e-6)
  np.testing.assert_allclose(Upscaler(model, variables)(lr), sr, atol=1e-5)


def test_the_trunk_needs_the_whole_image_and_the_tail_runs_in_tiles(network: tuple) -> None:
  model, variables = network
  parts = CompiledParts(model, variables)
  assert parts.has_trunk
  assert parts.trunk_locality.reach is None
  assert parts.tail_locality.reach == 1
  assert parts.feature_size((5, 8)) == (8, 8)
  seven = CompiledParts(SwinIR(**DIRECT | {'window': 7}), filled(
      SwinIR(**DIRECT | {'window': 7}), np.zeros((1, 8, 8, 3), np.float32)))
  assert (seven.has_trunk, seven.feature_size((14, 15))) == (True, (14, 21))


def test_layers_run_in_windows_on_the_grid_of_attention(network: tuple) -> None:
  """Also shifted ones; the image's sides are no multiples of the windows' side."""
  model, variables = network
  lr = np.random.default_rng(1).random((58, 67, 3), np.float32)
  variables = jax.tree.map(lambda leaf: 4 * leaf, variables)
  upscale = check_layer_by_layer(model.clone(remat=True), variables, lr)
  grids = {call.grid for call in upscale.planner.layers.calls
           if isinstance(call.layer.module, SwinBlock)}
  assert grids == {(4, 0), (4, 2)}
  grey = np.uint16(lr[..., :1] * 65535)
  whole = Upscaler(model, variables)(grey)
  np.testing.assert_allclose(np.float64(upscale(grey)), whole, atol=1)


def test_grey_16_bit_images_in_tiles_and_too_large_ones(network: tuple) -> None:
  model, variables = network
  rng = np.random.default_rng(3)
  deep = rng.integers(0, 65536, (21, 10, 1), dtype=np.uint16)
  upscaler = Upscaler(model, variables, tile=8)
  whole = jax.jit(model.apply)(variables, np.float32(deep.repeat(3, -1) / 65535)[None])[0].mean(-1)
  np.testing.assert_allclose(upscaler(deep)[..., 0], np.clip(whole, 0, 1) * 65535, atol=1)
  with pytest.raises(InputError, match=r'an image of 10x21 pixels does not fit in memory, even'):
    Upscaler(model, variables, memory=10_000)(deep)


# Other windows than in training -----------------------------------------------------------------


def test_the_trained_window_changes_nothing_and_another_one_interpolates(network: tuple) -> None:
  (swinir, variables), none = network, {'batch_stats': {}}
  model = restore.Model(swinir, none | variables, {'generator': {'name': 'swinir'}}, '', 'a file')
  assert model.with_window(4) is model
  larger = model.with_window(8)
  assert (larger.generator.window, larger.fields['window']) == (8, 8)
  before, after = (network.variables['params']['body_0']['body_1']['attention']
                   for network in (model, larger))
  assert after['bias_table'].shape == (15 * 15, 2)
  assert same_bits(before['qkv'], after['qkv']) == []
  with pytest.raises(InputError, match=r'a file: .*window=1: expected at least 2'):
    model.with_window(1)
  rotated = SwinIR(**DIRECT | {'position': 'rope_mixed'})
  variables = none | filled(rotated, np.zeros((1, 8, 8, 3), np.float32))
  turned = restore.Model(rotated, variables, model.config, '', '').with_window(8)
  assert same_bits(variables, turned.variables) == []
  with pytest.raises(InputError, match=r'window=8: edsr of a file has no such field; .*swinir'):
    restore.Model(EDSR(), {}, {'generator': {'name': 'edsr'}}, '', 'a file').with_window(8)


@pytest.mark.parametrize('window', [8, 16])
def test_an_interpolated_ramp_stays_a_ramp(window: int) -> None:
  """It spans all distances of both windows; at its ends the outermost biases are repeated."""
  side, rows = 15, 2 * window - 1
  down, right = np.indices((side, side)) - (side - 1) / 2
  table = np.float32(np.stack([2 * down - 3 * right, np.ones((side, side))], -1)).reshape(-1, 2)
  resampled = attention.resample_bias_table(table, rows**2).reshape(rows, rows, 2)
  down, right = (np.indices((rows, rows)) - (rows - 1) / 2) * side / rows
  inner = slice(rows // 5, -(rows // 5))
  np.testing.assert_allclose(resampled[inner, inner, 0], (2 * down - 3 * right)[inner, inner],
                             atol=1e-4)
  np.testing.assert_allclose(resampled[..., 1], 1, rtol=1e-6)
  if window == 8:
    np.testing.assert_array_equal(resampled.reshape(-1, 2), table)


@pytest.mark.slow
def test_a_run_is_evaluated_with_other_windows(network: tuple, tmp_path: pathlib.Path,
                                               capsys: pytest.CaptureFixture) -> None:
  rng = np.random.default_rng(0)
  images.write_image(tmp_path / 'set' / 'a.png', rng.integers(256, size=(32, 32, 3),
                                                             dtype=np.uint8))
  fields = {'scale': 2, 'dtype': 'float32', 'generator': {
      'name': 'swinir', 'upsample': 'direct', **SMALL}}
  save_imported(tmp_path / 'run', {'batch_stats': {}} | network[1], fields, {'names': ''})
  model = sr_jax.load(tmp_path / 'run')
  results = {}
  for window in (4, 8):
    config = config_file.load_run(tmp_path / 'run', 'evaluate', {
        'generator.window': str(window), 'eval.lpips': 'none', 'eval.sets': f'{tmp_path}/set'})
    results |= evaluate.evaluate(tmp_path / 'run', config=config)
    assert ('windows of attention of 8 instead of 4' in capsys.readouterr().out) == (window == 8)
    name = 'set' if window == 4 else 'set-window8'
    sr = images.read_image(tmp_path / 'run' / 'eval' / f'{name}-0' / 'a.png')
    lr = images.imresize(images.read_image(tmp_path / 'set' / 'a.png'), Fraction(1, 2))
    np.testing.assert_allclose(np.int32(sr), model.with_window(window)(lr), atol=1)
  assert list(results) == ['set', 'set-window8']


# Stochastic depth -------------------------------------------------------------------------------


def test_residuals_are_left_out_with_a_probability_that_rises() -> None:
  model = SwinIR(**DIRECT | {'groups': 2, 'drop_path': 0.6})

  def scales(key: jax.Array) -> jax.Array:
    return model.apply({}, 2000, True, method=residual_scales, rngs={'drop_path': key})

  drawn = np.asarray(jax.jit(scales)(jax.random.key(1)))  # [groups, blocks, 2, images]
  assert drawn.shape == (2, 2, 2, 2000)
  assert (drawn[0, 0] == 1).all()
  for block, rate in enumerate((0, 0.2, 0.4, 0.6)):
    values = drawn.reshape(4, -1)[block]
    assert set(np.unique(values.round(4))) <= {0, np.float32(1 / (1 - rate)).round(4)}
    assert values.mean() == pytest.approx(1, abs=0.06)
    assert (values == 0).mean() == pytest.approx(rate, abs=0.03)
  assert (drawn[1, 1, 0] != drawn[1, 1, 1]).any()
  for unchanged in (SwinIR(**DIRECT | {'drop_path': 0.0}), SwinIR(**DIRECT)):
    assert unchanged.apply({}, 2, unchanged.drop_path == 0, method=residual_scales) is None


def test_a_block_whose_residuals_are_left_out_returns_its_input() -> None:
  block = SwinBlock(BlockFields(8, 2, 4, 2.0, 'bias', jnp.float32), True)
  x = np.random.default_rng(0).normal(size=(3, 4, 8, 8)).astype(np.float32)
  variables = filled(block, x)
  apply = jax.jit(block.apply)
  y = apply(variables, x, np.float32([[0, 1, 2], [0, 1, 0]]))
  np.testing.assert_array_equal(y[0], x[0])
  np.testing.assert_allclose(y[1], apply(variables, x)[1], atol=1e-6)
  assert np.abs(y[2] - y[1]).max() > 1e-3


def test_random_keys_depend_on_seed_step_and_part_and_only_on_these(network: tuple) -> None:
  def key(seed: int, step: int, part: int = 0) -> tuple:
    state = train_step.TrainState(np.int32(step), np.int32(seed), None, None, None)
    return tuple(jax.random.key_data(train_step.step_rngs(network[0], state, part)['drop_path']
                                     ).tolist())

  keys = [key(0, 0), key(1, 0), key(0, 1), key(0, 0, 1)]
  assert len(set(keys)) == 4
  assert key(0, 0) == keys[0]
  state = train_step.TrainState(np.int32(0), np.int32(0), None, None, None)
  for other in (models.Compact(), SwinIR(drop_path=0.0)):
    assert train_step.step_rngs(other, state) == {}


@pytest.mark.slow
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(
    folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
  """40 steps, and 20 steps, a restart and 20 steps, on a network that skips half of its blocks."""
  config = smallest.get_config()
  config.discriminator.name, config.loss.adversarial.weight = 'none', 0.0
  config.warmup_steps, config.data.source = 0, f'folder:{folder}'
  config.generator.update({'name': 'swinir', 'drop_path': 0.5, 'kernel': None} | SMALL)
  whole = run(config, tmp_path / 'whole')
  stop_after(config, tmp_path / 'parts', 20)
  assert same_bits(run(config, tmp_path / 'parts'), whole) == []


# Weight files -----------------------------------------------------------------------------------


CASES = {
    'shuffle': {'scale': 2, 'groups': 2},
    'direct': {'scale': 4, 'upsample': 'direct'},
    'nearest': {'scale': 4, 'upsample': 'nearest', 'residual_conv': '3conv'},
    'grey': {'scale': 3, 'channels': 1, 'mlp_ratio': 1.5},
    'none': {'scale': 1, 'upsample': 'none', 'window': 7, 'image_range': 255.0}}


@pytest.mark.parametrize('case', [*CASES, 'folded'])
def test_fields_are_those_of_the_file(case: str, tmp_path: pathlib.Path) -> None:
  fields = CASES.get(case, {'scale': 2, 'unshuffle': 2, 'upsample': 'nearest'})
  model = SwinIR(**SMALL | fields)
  variables = filled(model, np.zeros((1, 8, 8, 3), np.float32))
  path = tmp_path / 'x.safetensors'
  generators.write_generator(path, 'swinir', 'swinir', model, variables)
  tensors = load_file(path)
  first = 'layers.0.residual_group.blocks.1'
  side = model.window**2
  assert tensors[f'{first}.attn.relative_position_index'].shape == (side, side)
  assert tensors[f'{first}.attn_mask'].shape == (64, side, side)
  assert tensors[f'{first}.mlp.fc1.weight'].shape == (int(8 * model.mlp_ratio), 8)
  buffers = {name: tensor for name, tensor in tensors.items()
             if name.endswith(('index', 'mask'))}
  # The masks of a file depend on the size of the crops that it was trained on.
  for kept in ({}, {name: tensor[:9] if name.endswith('mask') else tensor
                    for name, tensor in buffers.items()}):
    save_file({name: tensor for name, tensor in tensors.items() if name not in buffers} | kept,
              tmp_path / 'foreign.safetensors')  # without our metadata
    read = sr_jax.load(tmp_path / 'foreign.safetensors')
    assert (read.family, read.name) == ('swinir', 'swinir')
    assert generators.architecture(read.generator) == generators.architecture(model)
    assert same_bits(read.variables, {'batch_stats': {}} | variables) == []


def test_wrong_tensors_are_named(network: tuple, tmp_path: pathlib.Path) -> None:
  model, variables = network
  tensors = generators.to_tensors('swinir', 'swinir', model, variables)
  first = 'layers.0.residual_group.blocks.0'
  for name, shape, words in (
      (f'{first}.attn.relative_position_index', (49, 49), r'\[49, 49\], expected \[16, 16\]'),
      ('layers.0.residual_group.blocks.1.attn_mask', (4, 9, 9), r'\[4, 9, 9\]'),
      (f'{first}.attn.relative_position_bias_table', (48, 2), r'\[48, 2\]'),
      (f'{first}.attn.proj.weight', (8, 9), r'attn\.proj\.weight is \[8, 9\], expected \[8, 8\]'),
      ('layers.1.residual_group.blocks.0.norm1.weight', (8,), '2, 1 blocks'),
      ('absolute_pos_embed', (1, 16, 8), r'absolute_pos_embed \[1, 16, 8\] is not a tensor')):
    save_file(tensors | {name: np.zeros(shape, np.float32)}, tmp_path / 'x.safetensors')
    with pytest.raises(InputError, match=r'x\.safetensors: ' + '.*' + words):
      sr_jax.load(tmp_path / 'x.safetensors')


def test_networks_that_no_other_project_has(network: tuple) -> None:
  for fields, words in (({'position': 'rope_axial'}, 'swinir does not have these layers'),
                        ({'position': 'rope_mixed'}, 'attention/frequencies: swinir has no name'),
                        ({'image_range': 255.0}, r'image_range=255\.0')):
    model = SwinIR(**DIRECT | fields)
    assert families.fitting_family('swinir', model) == 'sr_jax'
    with pytest.raises(InputError, match=words):
      families.checked_layout('swinir', 'swinir', model)
  assert families.fitting_family('swinir', network[0]) == 'swinir'


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:torch.meshgrid')
@pytest.mark.parametrize('case', CASES)
def test_spandrel_computes_the_same(case: str, spandrel: ModuleType, tmp_path: pathlib.Path
                                    ) -> None:
  """Results at sizes that no window divides, and the gradients of one loss."""
  import torch
  model = SwinIR(**SMALL | CASES[case])
  variables = filled(model, np.zeros((1, 8, 8, 3), np.float32))
  path = tmp_path / 'x.safetensors'
  generators.write_generator(path, 'swinir', 'swinir', model, variables)
  theirs = spandrel.ModelLoader().load_from_file(str(path)).eval()
  assert theirs.architecture.id == 'SwinIR'
  assert (theirs.scale, theirs.input_channels) == (model.scale, model.channels)

  def loss(variables: dict, lr: np.ndarray) -> tuple[jax.Array, jax.Array]:
    sr = model.apply(variables, lr)
    sr = sr if model.channels == 3 else (sr - 16 / 255) / (219 / 255)
    return (sr**2).mean(), sr

  with_gradients = (6, 9), jax.jit(jax.value_and_grad(loss, has_aux=True))
  alone = (8, 7), lambda *arguments: (jax.jit(loss)(*arguments), None)
  kinds = {'shuffle': (with_gradients, alone), 'direct': (with_gradients, alone),
           'nearest': (with_gradients,)}
  for size, function in kinds.get(case, (alone,)):  # compiling is most of the time
    lr = np.random.default_rng(1).uniform(size=(2, *size, model.channels)).astype(np.float32)
    own = lr if model.channels == 3 else lr * (219 / 255) + 16 / 255
    (_, sr), grads = function(variables, np.float32(own))
    tensor = theirs.model(torch.tensor(lr).permute(0, 3, 1, 2))
    np.testing.assert_allclose(sr, tensor.detach().permute(0, 2, 3, 1), rtol=1e-4,
                               atol=1e-4 * np.std(sr))
    if grads:
      (tensor**2).mean().backward()
      own = generators.to_tensors('swinir', 'swinir', model, grads)
      for name, array in theirs.model.named_parameters():
        np.testing.assert_allclose(own[name], array.grad, rtol=1e-3, err_msg=name,
                                   atol=1e-3 * np.abs(array.grad).max())


# Training ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_bfloat16_and_recomputed_blocks() -> None:
  lr = np.random.default_rng(1).uniform(size=(1, 8, 4, 3)).astype(np.float32)
  model = SwinIR(**DIRECT)
  variables, key = filled(model, lr), jax.random.key(0)

  def gradients(model: SwinIR) -> Callable:
    def loss(variables: dict) -> jax.Array:
      return (model.apply(variables, lr, train=True, rngs={'drop_path': key})**2).mean()
    return jax.jit(jax.grad(loss))

  plain, recomputed, half = (gradients(SwinIR(**DIRECT | fields))(variables) for fields in (
      {}, {'remat': True}, {'dtype': jnp.bfloat16}))
  assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype('float32')}
  for a, b, c in zip(*map(jax.tree.leaves, (plain, recomputed, half)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert np.abs(a - c).max() < 0.1 * np.abs(a).max() + 1e-4
  assert 'remat' in str(jax.make_jaxpr(gradients(SwinIR(**DIRECT, remat=True)))(variables))


@functools.cache
def generator_of(variant: str) -> dict[str, Any]:
  return dict(swinir.get_config(variant).generator.items())


def test_variants_are_the_networks_of_the_paper() -> None:
  from sr_jax.models import factory
  for variant, scale, network in (('', 4, models.SWINIR_M), ('x2', 2, models.SWINIR_M),
                                  ('light,x3', 3, models.SWINIR_LIGHT),
                                  ('real', 4, models.SWINIR_REAL_M)):
    assert factory.build_generator(generator_of(variant), scale, 'float32') == network(scale=scale)
  for variant in ('rope', 'light,rope', 'rope,small'):
    fields = generator_of(variant)
    assert fields['position'] == 'rope_mixed'
    attention.check_heads(fields['features'], fields.get('heads') or SwinIR.heads, 'rope_mixed')
