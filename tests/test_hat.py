"""HAT: its equations in NumPy, PyTorch's results, weight files, computation in strips."""

import functools
import pathlib
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from safetensors.numpy import load_file, save_file
from scipy import special

import sr_jax
from configs import hat as config
from sr_jax import models
from sr_jax.errors import InputError
from sr_jax.models import HAT, HAT_L, HAT_S, attention, factory
from sr_jax.models.hat import ConvFields, HybridBlock
from sr_jax.models.layers import PYTORCH_UNIFORM
from sr_jax.models.overlap_attention import (
  OverlapBlock,
  overlap_position_index,
  overlapping_windows,
  resample_overlap_table,
)
from sr_jax.models.swin_blocks import BlockFields
from sr_jax.pretrained import families, generators
from tests.conftest import filled, same_bits
from tests.own_networks import check_layer_by_layer
from tests.test_swinir import dense, norm, rotated

SMALL = {'features': 12, 'groups': 1, 'blocks': 2, 'heads': 2, 'window': 4, 'squeeze': 4,
         'scale': 2}


def count(tree: Any) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


@functools.cache
def parts(make: functools.partial, scale: int) -> tuple[int, int, int]:
  """Returns the parameters outside the groups, of a group without blocks and of a block."""
  model = make(groups=1, blocks=1, scale=scale)
  params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))['params']
  group, block = count(params['body_0']), count(params['body_0']['body_0'])
  return count(params) - group, group - block, block


def test_parameter_counts() -> None:
  """Those of the authors' code."""
  for make, base, counts in (
      (HAT_S, HAT_S, (9_473_471, 9_658_111, 9_621_183)),
      (functools.partial(HAT), HAT, (20_624_795, 20_809_435, 20_772_507)),
      (HAT_L, HAT, (40_698_863, 40_883_503, 40_846_575))):
    for scale, expected in zip((2, 3, 4), counts, strict=True):
      outside, group, block = parts(base, scale)
      model = make(scale=scale)
      assert outside + model.groups * (group + model.blocks * block) == expected
  assert models.GENERATORS['hat'] is HAT


@pytest.mark.parametrize(('fields', 'words'), [
    ({'heads': 7}, 'features=180, heads=7.*features=182 or heads=6'),
    ({'position': 'rope_axial'}, r'heads=6.*180 / 6 is 30.*features=192 or heads=5\b'),
    ({'window': 1}, 'window=1.*2'), ({'squeeze': 181}, 'squeeze=181.*1 to features=180'),
    ({'compress': 0}, 'compress=0.*features=180'),
    ({'overlap': -0.5}, r'overlap=-0\.5.*such as 0\b'),
    ({'overlap': 1.5}, r'overlap=1\.5 with window=16.*such as 1\b'),
    ({'window': 7}, r'overlap=0\.5 with window=7.*even, such as 0\.571429\b')], ids=str)
def test_invalid_fields_are_named(fields: dict[str, Any], words: str) -> None:
  with pytest.raises(ValueError, match=words):
    jax.eval_shape(HAT(**fields).init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


@pytest.fixture(scope='module')
def network() -> tuple[HAT, dict]:
  """A small network whose convolutions count as much as its attention, and its variables."""
  model = HAT(**SMALL, conv_scale=0.5)
  return model, jax.tree.map(lambda leaf: 2 * leaf,
                             filled(model, np.zeros((1, 8, 8, 3), np.float32)))


# Overlapping windows ----------------------------------------------------------------------------


def test_windows_overlap_by_their_margin() -> None:
  for window, margin in ((4, 2), (3, 0)):
    x = np.random.default_rng(0).normal(
        size=(2, 3 * window + 2 * margin, 2 * window + 2 * margin, 5)).astype(np.float32)
    side = window + 2 * margin
    expected = [x[:, row:row + side, column:column + side].reshape(2, -1, 5)
                for row in range(0, 3 * window, window) for column in range(0, 2 * window, window)]
    found = jax.jit(overlapping_windows, static_argnums=(1, 2))(x, window, margin)
    np.testing.assert_array_equal(found, np.stack(expected, 1))


def test_each_difference_of_positions_has_its_own_row() -> None:
  for window, margin in ((4, 1), (16, 4), (4, 0)):
    index = overlap_position_index(window, margin)
    rows = (2 * window + 2 * margin - 1)**2
    assert (index.min() < 0, np.ptp(index) + 1) == (True, rows)
    side = window + 2 * margin
    assert index.shape == (window**2, side**2)
    queries, keys = (np.indices((length,) * 2).reshape(2, -1) for length in (window, side))
    differences = keys[:, None] - queries[:, :, None]
    pairs = np.stack([*differences, index % rows]).reshape(3, -1)
    assert np.unique(pairs, axis=1).shape[1] == np.unique(index).size == rows


def test_a_table_of_biases_for_another_window() -> None:
  """Biases that grow evenly with the difference of positions still do, away from the ends."""
  def differences(window: int, margin: int) -> np.ndarray:
    queries, keys = (np.indices((side,) * 2).reshape(2, -1) for side in (window,
                                                                         window + 2 * margin))
    return keys[:, None] - queries[:, :, None] - margin

  before, after = (4, 1), (8, 2)
  index, (down, right) = overlap_position_index(*before), differences(*before)
  table = np.zeros((81, 1), np.float32)
  table[index % 81, 0] = 2 * down - 3 * right
  np.testing.assert_array_equal(resample_overlap_table(table, before, before), table)
  found = resample_overlap_table(table, before, after)[overlap_position_index(*after) % 361, 0]
  down, right = differences(*after)
  inside = (abs(down) < 6) & (abs(right) < 6)
  # The centre has the difference 0; 19 rows of differences take the place of 9.
  np.testing.assert_allclose(found[inside], ((2 * down - 3 * right) * (9 / 19))[inside], atol=1e-4)


def overlap_reference(x: np.ndarray, params: dict, window: int, margin: int, heads: int,
                      position: str) -> np.ndarray:
  """Computes the block window by window, with positions counted from the image's corner."""
  height, width, features = x.shape
  size, around = features // heads, ((margin, margin), (margin, margin), (0, 0))
  qkv = np.pad(dense(norm(x, params['norm1']), params['qkv']), around)
  rows, columns = np.indices(qkv.shape[:2]) - margin
  frequencies = np.zeros((2, heads, size // 2))
  if position == 'rope_axial':
    half = 10.0**(-np.arange(0, size, 4) / size)
    frequencies[0, :, :size // 4] = frequencies[1, :, size // 4:] = half
  elif position == 'rope_mixed':
    frequencies = params['attention']['frequencies']
  y = np.zeros_like(x)
  for top in range(0, height, window):
    for left in range(0, width, window):
      outer = np.s_[top:top + window + 2 * margin, left:left + window + 2 * margin]
      inner = np.s_[top + margin:top + margin + window, left + margin:left + margin + window]
      query = qkv[inner][..., :features].reshape(-1, heads, size)
      key, value = qkv[outer][..., features:].reshape(-1, 2, heads, size).swapaxes(0, 1)
      query = rotated(query, frequencies, rows[inner].ravel(), columns[inner].ravel())
      key = rotated(key, frequencies, rows[outer].ravel(), columns[outer].ravel())
      weights = special.softmax(np.einsum('qhc,khc->hqk', query, key) / np.sqrt(size), -1)
      attended = np.einsum('hqk,khc->qhc', weights, value).reshape(window, window, features)
      y[top:top + window, left:left + window] = attended
  y = x + dense(y, params['attention']['projection'])
  hidden = dense(norm(y, params['norm2']), params['hidden'])
  return y + dense(hidden * (1 + special.erf(hidden / np.sqrt(2))) / 2, params['output'])


@pytest.mark.parametrize('position', [
    'rope_mixed', *(pytest.param(kind, marks=pytest.mark.slow) for kind in ('rope_axial', 'none'))])
def test_a_block_with_overlapping_windows(position: str) -> None:
  """Positions in an image of two by three windows; PyTorch's network has the biases."""
  block = OverlapBlock(BlockFields(8, 2, 4, 1.5, position, jnp.float32), 1)
  x = np.random.default_rng(1).normal(size=(1, 8, 12, 8)).astype(np.float32)
  variables = jax.tree.map(lambda leaf: 3 * leaf, filled(block, x))  # far from uniform attention
  found = jax.jit(block.apply)(variables, x)[0]
  expected = overlap_reference(np.float64(x[0]), variables['params'], 4, 1, 2, position)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_windows_in_strips_give_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
  """Also where strips need keys of those that were computed before, and the gradients of these."""
  fields = BlockFields(8, 2, 4, 2.0, 'bias', jnp.float32)
  hybrid = HybridBlock(fields, True, conv_fields=ConvFields(2, 2, 0.5, PYTORCH_UNIFORM))
  overlap = OverlapBlock(fields, 1)
  x = np.random.default_rng(0).normal(size=(1, 12, 8, 8)).astype(np.float32)
  variables = filled(hybrid, x), filled(overlap, x)

  def result(limit: int) -> tuple:
    monkeypatch.setattr(attention, 'MAX_LOGITS', limit)

    def loss(variables: dict, x: jax.Array) -> jax.Array:
      return (overlap.apply(variables, x)**2).sum()

    of_overlap = jax.jit(jax.value_and_grad(loss, (0, 1)))(variables[1], x)
    return jax.jit(hybrid.apply)(variables[0], x), of_overlap

  whole = result(10**9)
  for part, expected in zip(*map(jax.tree.leaves, (result(1), whole)), strict=True):
    np.testing.assert_allclose(part, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


def test_layers_run_in_windows_with_the_sums_of_the_whole_image(network: tuple) -> None:
  """The image's sides are no multiples of the windows' side."""
  model, variables = network
  lr = np.random.default_rng(1).random((58, 67, 3), np.float32)
  upscale = check_layer_by_layer(model, variables, lr)
  grids = {(type(call.layer.module), call.grid) for call in upscale.planner.layers.calls
           if type(call.layer.module) in (HybridBlock, OverlapBlock)}
  assert grids == {(HybridBlock, (4, 2)), (OverlapBlock, (4, 4))}


# Weight files -----------------------------------------------------------------------------------


def test_fields_are_those_of_the_file(network: tuple, tmp_path: pathlib.Path) -> None:
  """Also of a file without buffers and of one without our metadata."""
  model, variables = network
  path = tmp_path / 'x.safetensors'
  generators.write_generator(path, 'hat', 'hat', model, variables)
  read, tensors = sr_jax.load(path), load_file(path)
  assert (read.family, read.assumed) == ('hat', [])
  assert models.architecture(read.generator) == models.architecture(model)
  assert tensors.pop('relative_position_index_SA').shape == (16, 16)
  assert tensors.pop('relative_position_index_OCA').shape == (16, 36)
  save_file(tensors, tmp_path / 'foreign.safetensors')
  read = sr_jax.load(tmp_path / 'foreign.safetensors')
  assert (read.family, read.assumed, read.generator.conv_scale) == ('hat', ['conv_scale'], 0.01)
  assert models.architecture(read.generator.clone(conv_scale=0.5)) == models.architecture(model)
  assert same_bits(read.variables, {'batch_stats': {}} | variables) == []


def test_wrong_tensors_and_fields_are_named(network: tuple, tmp_path: pathlib.Path) -> None:
  model, variables = network
  tensors = generators.to_tensors('hat', 'hat', model, variables)
  path, first = tmp_path / 'x.safetensors', 'layers.0.residual_group'
  tables = (f'{first}.blocks.0.attn.relative_position_bias_table',
            f'{first}.overlap_attn.relative_position_bias_table')
  for change, fields, words in (
      ({}, {'window': 8}, rf'window=8: {tables[0]} has 7\^2 rows, .* window=4$'),
      ({}, {'squeeze': 7}, 'squeeze=7: .* has 3 of 12 channels, .* squeeze=4$'),
      ({'relative_position_index_SA': (9, 9)}, {}, r'index_SA is \[9, 9\], expected \[16, 16\]'),
      ({'relative_position_index_OCA': (16, 25)}, {}, r'\[16, 25\], expected \[16, 36\]'),
      ({tables[0]: (36, 2)}, {}, r'attn.* has 6\^2 rows'),
      ({tables[1]: (64, 2)}, {}, r'overlap_attn.* has 8\^2 rows, expected .* window=4$'),
      ({tables[1]: (80, 2)}, {}, r'overlap_attn.* is \[80, 2\], expected'),
      ({f'{first}.overlap_attn.qkv.weight': (12, 12)}, {}, r'is \[12, 12\], expected \[36, 12\]')):
    save_file(tensors | {name: np.zeros(shape, np.float32) for name, shape in change.items()}, path)
    with pytest.raises(InputError, match=r'x\.safetensors: .*' + words):
      sr_jax.load(path, fields=fields)


def test_networks_that_no_other_project_has(network: tuple) -> None:
  for fields, words in (
      ({'position': 'rope_axial', 'heads': 3}, 'hat does not have these layers'),
      ({'position': 'rope_mixed', 'heads': 3}, 'attention/frequencies: hat has no name'),
      ({'upsample': 'direct'}, 'upsample direct'),
      ({'residual_conv': '3conv'}, 'residual_conv 3conv')):
    model = HAT(**SMALL | fields)
    with pytest.raises(InputError, match=words):
      families.checked_layout('hat', 'hat', model)
  assert families.fitting_family('hat', model) == 'sr_jax'
  assert families.fitting_family('hat', network[0]) == 'hat'


# PyTorch ----------------------------------------------------------------------------------------


class Results(NamedTuple):
  """What PyTorch computes; `gradients` are of the mean of the first result's squares."""

  lr: list[np.ndarray]
  sr: list[np.ndarray]
  gradients: dict[str, np.ndarray]


def module_of(model: HAT, variables: dict, spandrel: ModuleType) -> Any:
  """Returns spandrel's module with our weights; strictly, so that buffers must be there, too."""
  import torch
  from spandrel.architectures.HAT import __arch as architectures
  with warnings.catch_warnings(action='ignore'):  # of torch.meshgrid
    module = architectures.HAT.HAT(
        embed_dim=model.features, depths=[model.blocks] * model.groups,
        num_heads=[model.heads] * model.groups, window_size=model.window, mlp_ratio=model.mlp_ratio,
        compress_ratio=model.compress, squeeze_factor=model.squeeze, conv_scale=model.conv_scale,
        overlap_ratio=model.overlap, upscale=model.scale)
  state = module.state_dict()
  for name, buffer in families.buffers_of('hat', model).items():
    np.testing.assert_array_equal(buffer, state[name].numpy(), name)
  tensors = generators.to_tensors('hat', 'hat', model, variables)
  module.load_state_dict({name: torch.tensor(tensor) for name, tensor in tensors.items()})
  return module.eval()


def computed(module: Any, lr: np.ndarray) -> Any:
  import torch
  return module(torch.tensor(lr).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


@pytest.fixture(scope='module')
def expected(network: tuple, spandrel: ModuleType) -> Results:
  """PyTorch's results at two sizes that no window divides."""
  module = module_of(*network, spandrel)
  lr = [np.random.default_rng(1).uniform(size=(2, *size, 3)).astype(np.float32)
        for size in ((6, 9), (8, 7))]
  sr = [computed(module, images) for images in lr]
  (sr[0]**2).mean().backward()
  return Results(lr, [images.detach().numpy() for images in sr],
                 {name: array.grad.numpy() for name, array in module.named_parameters()})


def loss(variables: dict, lr: jax.Array, model: nn.Module) -> tuple[jax.Array, jax.Array]:
  sr = model.apply(variables, lr)
  return (sr**2).mean(), sr


def assert_close(found: Any, expected: np.ndarray) -> None:
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.std(expected))


def gradient(model: HAT) -> Callable:
  return jax.jit(jax.grad(functools.partial(loss, model=model), has_aux=True))


@pytest.mark.slow
def test_agreement_with_pytorch(network: tuple, expected: Results) -> None:
  """Results, gradients, and what bfloat16 and blocks that are computed again make of them."""
  model, variables = network
  grads, sr = gradient(model)(variables, expected.lr[0])
  assert_close(sr, expected.sr[0])
  assert_close(jax.jit(model.apply)(variables, expected.lr[1]), expected.sr[1])
  own = generators.to_tensors('hat', 'hat', model, grads)
  for name, array in expected.gradients.items():
    np.testing.assert_allclose(own[name], array, rtol=1e-3, err_msg=name,
                               atol=1e-3 * np.abs(array).max())
  half, sr = gradient(model.clone(dtype=jnp.bfloat16, remat=True))(variables, expected.lr[0])
  assert sr.dtype == jnp.float32
  for found, plain in zip(*map(jax.tree.leaves, (half, grads)), strict=True):
    assert found.dtype == jnp.float32
    assert np.abs(found - plain).max() < 0.1 * np.abs(plain).max() + 1e-4


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:torch.meshgrid')
@pytest.mark.parametrize(('scale', 'channels'), [(4, 3), (1, 1)])
def test_spandrel_reads_an_export(scale: int, channels: int, spandrel: ModuleType,
                                  tmp_path: pathlib.Path) -> None:
  """It takes the factor of the convolutions for granted."""
  model = HAT(**SMALL | {'scale': scale, 'blocks': 1}, channels=channels)
  lr = np.random.default_rng(2).uniform(size=(1, 5, 7, channels)).astype(np.float32)
  variables = jax.tree.map(lambda leaf: 2 * leaf, filled(model, lr))
  generators.write_generator(tmp_path / 'x.safetensors', 'hat', 'hat', model, variables)
  theirs = spandrel.ModelLoader().load_from_file(str(tmp_path / 'x.safetensors')).eval()
  assert (theirs.architecture.id, theirs.scale) == ('HAT', scale)
  grey = channels == 1  # ours have the range of luma
  sr = np.asarray(jax.jit(model.apply)(variables, lr * (219 / 255) + 16 / 255 if grey else lr))
  assert_close((sr - 16 / 255) / (219 / 255) if grey else sr,
               computed(theirs.model, lr).detach().numpy())


def test_variants_are_the_networks_of_the_paper() -> None:
  def network(variant: str, scale: int) -> nn.Module:
    fields = dict(config.get_config(variant).generator.items())
    return factory.build_generator(fields, scale, 'float32').clone(remat=False)

  assert network('', 4) == HAT(scale=4)
  assert network('s,x2', 2) == HAT_S(scale=2)
  assert network('large,x3', 3) == HAT_L(scale=3)
  for variant in ('rope', 's,rope', 'large,rope', 'small,rope', 'sample,rope'):
    model = network(variant, 4)
    assert model.position == 'rope_mixed'
    attention.check_heads(model.features, model.heads, model.position)
