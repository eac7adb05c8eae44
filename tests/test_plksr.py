"""PLKSR and RealPLKSR: agreement with PyTorch and NumPy, weights in other projects' names."""

import pathlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from safetensors.numpy import load_file, save_file

import sr_jax
from sr_jax.errors import InputError
from sr_jax.inference.compiled_parts import CompiledParts
from sr_jax.inference.upscaler import Upscaler
from sr_jax.models import PLKSR, PLKSR_TINY, REALPLKSR, REALPLKSR_TINY
from sr_jax.models.group_norm import GroupNorm
from sr_jax.pretrained import families, generators
from tests.conftest import filled, same_bits

SMALL = {'features': 8, 'blocks': 2}
NETWORKS = {
    'plksr': PLKSR(**SMALL, scale=2), 'tiny': PLKSR(
        **SMALL, kernel=13, gate=False, mixer='iccm', share=0.5),
    'realplksr': REALPLKSR(**SMALL), 'layer norm': REALPLKSR(
        **SMALL, scale=2, norm='layer', kernel=5),
    'dysample': REALPLKSR(**SMALL, scale=2, norm='layer', kernel=5, upsample='dysample'),
    'dysample x3': REALPLKSR(**SMALL, scale=3, kernel=5, upsample='dysample'),
    'dysample x1': REALPLKSR(**SMALL, scale=1, kernel=5, upsample='dysample')}


def name_of(case: str) -> str:
  return 'plksr' if case in ('plksr', 'tiny') else 'realplksr'


def parameters(make: Callable[..., nn.Module], **fields: Any) -> int:
  """Counts those of networks of one and two blocks, because shapes of 28 take seconds."""
  one, two = (sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(
      make(**fields | {'blocks': blocks}).init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))))
              for blocks in (1, 2))
  return one + (make(**fields).blocks - 1) * (two - one)


def test_parameter_counts() -> None:
  """From traiNNer-redux's benchmark tables, docs/source/resources/benchmark[24]x.csv."""
  assert parameters(PLKSR) == 7_386_096
  assert parameters(PLKSR, scale=2) == 7_365_324
  assert parameters(PLKSR_TINY) == 2_370_544
  assert parameters(REALPLKSR) == parameters(REALPLKSR, norm='layer') == 7_389_680
  assert parameters(REALPLKSR_TINY) == 2_372_080
  assert parameters(REALPLKSR, upsample='dysample') == 7_402_243
  assert parameters(REALPLKSR, upsample='dysample', scale=2) == 7_369_747


@pytest.mark.parametrize(('dtype', 'mean', 'tolerance'), [
    (np.float32, 0, 2e-6), (np.float32, 5, 1e-5), (jnp.bfloat16, 1, 0.02)])
def test_group_norm_agrees_with_numpy(dtype: Any, mean: float, tolerance: float) -> None:
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(mean, rng.uniform(0.5, 2, 6), (2, 40, 30, 6)), dtype)
  scale, bias = rng.normal(1, 0.3, 6), rng.normal(0, 0.3, 6)
  y = GroupNorm(3, dtype=dtype).apply(
      {'params': {'scale': np.float32(scale), 'bias': np.float32(bias)}}, x)
  groups = np.float64(x).reshape(2, 40, 30, 3, 2)
  centred = groups - groups.mean((1, 2, 4), keepdims=True)
  want = (centred / np.sqrt(np.square(centred).mean((1, 2, 4), keepdims=True) + 1e-5)
          ).reshape(x.shape) * scale + bias
  assert y.dtype == dtype
  np.testing.assert_allclose(np.float64(y), want, rtol=tolerance, atol=tolerance)


def test_invalid_fields_are_named() -> None:
  for fields, words in (
      ({'kernel': 16}, r'kernel=16: .*odd'), ({'share': 0.1}, r'share=0\.1: .*8 features'),
      ({'mixer': 'mlp'}, "mixer='mlp'.*'dccm', 'ccm' or 'iccm'"), ({'norm': 'batch'}, 'norm='),
      ({'activation': 'relu'}, "activation='relu'.*'gelu'"),
      ({'upsample': 'dysample', 'unshuffle': 2}, 'upsample=.*unshuffle=1'),
      ({'norm': 'group', 'norm_groups': 3}, 'norm_groups=3: .*features=8')):
    with pytest.raises(ValueError, match=words):
      jax.eval_shape(PLKSR(**SMALL, **fields).init, jax.random.key(0), jnp.zeros((1, 4, 4, 3)))


@pytest.mark.parametrize('case', ['plksr', 'tiny', 'realplksr', 'layer norm', 'dysample'])
def test_exports_are_read_as_the_same_network(tmp_path: pathlib.Path, case: str) -> None:
  model, name = NETWORKS[case], name_of(case)
  assert families.fitting_family(name, model) == 'plksr'
  variables = filled(model, np.zeros((1, 8, 8, 3), np.float32))
  generators.write_generator(tmp_path / 'a.safetensors', 'plksr', name, model, variables)
  tensors = load_file(tmp_path / 'a.safetensors')
  save_file(tensors, tmp_path / 'b.safetensors')  # without our metadata
  for file in 'ab':
    read = sr_jax.load(tmp_path / f'{file}.safetensors')
    assert (read.family, read.name) == ('plksr', name)
    assert generators.architecture(read.generator) == generators.architecture(model)
    assert same_bits(read.variables, {'batch_stats': {}} | variables) == []


def test_networks_without_such_names_are_refused(tmp_path: pathlib.Path) -> None:
  for name, model in (
      ('plksr', PLKSR(**SMALL, channels=1)), ('plksr', PLKSR(**SMALL, unshuffle=2)),
      ('plksr', PLKSR(**SMALL, activation='mish')), ('plksr', PLKSR(**SMALL, norm='layer')),
      ('realplksr', REALPLKSR(**SMALL, norm='none'))):
    assert families.fitting_family(name, model) == 'sr_jax'
  assert families.fitting_family('realplksr', REALPLKSR(**SMALL, norm_groups=2)) == 'plksr'
  model = REALPLKSR(**SMALL)
  tensors = generators.to_tensors('plksr', 'realplksr', model, filled(
      model, np.zeros((1, 8, 8, 3), np.float32)))
  for change, words in (
      ({'to_img.offset.weight': (32, 48, 1, 1)}, r'to_img\.offset\.weight .*\[128, 48, 1, 1\]'),
      ({'feats.1.lk.convs.0.weight': (2, 2, 5, 5)}, r'feats\.1\.lk\.convs\.0\.weight .*sparse'),
      ({'feats.2.norm.weight': None}, r'feats\.2\.norm\.weight is missing'),
      ({'feats.1.channel_mixer.2.weight': (8, 16, 5, 5)}, r'channel_mixer\.0.*sides of 3 and 5'),
      ({'feats.1.lk.conv.weight': None}, r'feats\.1\.lk\.conv\.weight is missing'),
      ({'feats.4.weight': (50, 8, 3, 3)}, r'feats\.4\.weight .*50 is not 3 times a square')):
    changed = tensors | {key: np.zeros(shape, np.float32)
                         for key, shape in change.items() if shape}
    for key in [key for key, shape in change.items() if not shape]:
      del changed[key]
    save_file(changed, tmp_path / 'a.safetensors')
    with pytest.raises(InputError, match=words):
      sr_jax.load(tmp_path / 'a.safetensors')


def test_a_quarter_of_the_memory_gives_the_result_of_the_whole_image() -> None:
  """In windows, GroupNorm has the statistics of the whole image."""
  model = REALPLKSR(8, 1, scale=2, kernel=5)
  lr = np.random.default_rng(0).random((64, 72, 3), np.float32)
  variables = filled(model, lr[None])
  parts = CompiledParts(model, variables)
  assert 'norms_0' in parts.trunk_locality.reason
  upscale = Upscaler(model, variables, memory=int(parts.trunk(1, lr.shape[:2]).bytes / 4))
  assert upscale.planner.plan(lr[None], upscale.memory).layer_side
  np.testing.assert_allclose(upscale(lr), jax.jit(model.apply)(variables, lr[None])[0],
                             rtol=0, atol=1e-5)


def test_all_other_networks_are_local() -> None:
  for fields, reach in (({'kernel': 9}, 1 + 2 * (2 + 4 + 1)), ({'mixer': 'ccm', 'kernel': 5,
                        'norm': 'layer', 'gate': False}, 1 + 2 * (1 + 2))):
    model = PLKSR(**SMALL, **fields)
    parts = CompiledParts(model, filled(model, np.zeros((1, 24, 24, 3), np.float32)))
    assert parts.trunk_locality == (reach, True, '')
    assert parts.tail_locality.reach == 1


@pytest.mark.slow
def test_dysample_needs_the_whole_image_for_the_tail_alone() -> None:
  model = REALPLKSR(8, 1, scale=2, kernel=5, upsample='dysample')
  lr = np.random.default_rng(0).random((40, 44, 3), np.float32)
  variables = filled(model, lr[None])
  parts = CompiledParts(model, variables)
  assert parts.tail_locality.reach is None
  upscale = Upscaler(model, variables)
  plan = upscale.planner.plan(lr[None], 1 << 40)
  upscale.planner.plan = lambda lr, budget: plan._replace(canvas=None, layer_side=20)
  np.testing.assert_allclose(upscale(lr), jax.jit(model.apply)(variables, lr[None])[0],
                             rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(('case', 'size'), [
    ('plksr', (17, 20)), ('tiny', (12, 9)), ('realplksr', (17, 20)),
    ('layer norm', (12, 9)), ('dysample', (9, 12)), ('dysample x3', (9, 7)),
    ('dysample x1', (9, 7))])
def test_exports_results_and_gradients_agree_with_spandrel(
    spandrel: ModuleType, tmp_path: pathlib.Path, case: str, size: tuple[int, int]) -> None:
  """Images of 17x20 are large enough for the Fourier transform."""
  import torch
  model, name = NETWORKS[case].clone(blocks=1), name_of(case)
  lr = np.random.default_rng(1).random((2, *size, 3), np.float32)
  variables, out = filled(model, lr), tmp_path / 'out.safetensors'
  generators.write_generator(out, 'plksr', name, model, variables)
  theirs = spandrel.ModelLoader().load_from_file(str(out))
  assert (theirs.architecture.id, theirs.scale) == ('PLKSR', model.scale)
  assert type(theirs.model).__name__.lower() == name
  module = theirs.model.train().requires_grad_(True)
  sr = module(torch.tensor(lr).permute(0, 3, 1, 2))
  sr.square().mean().backward()

  def objective(variables: dict) -> tuple[jax.Array, jax.Array]:
    sr = model.apply(variables, lr)
    return jnp.square(sr).mean(), sr

  gradients, own = jax.jit(jax.grad(objective, has_aux=True))(variables)
  want = sr.permute(0, 2, 3, 1).detach().numpy()
  np.testing.assert_allclose(own, want, rtol=1e-4, atol=1e-4 * np.abs(want).mean())
  found = generators.to_tensors('plksr', name, model, gradients)
  assert found.keys() == module.state_dict().keys()
  for key, tensor in module.named_parameters():
    np.testing.assert_allclose(found[key], tensor.grad, rtol=1e-3,
                               atol=1e-4 * np.abs(tensor.grad).max().item())
