"""`.pth` files written without PyTorch: what PyTorch, spandrel and our reader make of them."""

import pathlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import sr_jax
from sr_jax.errors import InputError
from sr_jax.models import GENERATORS, architecture
from sr_jax.pretrained import generators
from sr_jax.pretrained.pytorch_file import pth_bytes
from sr_jax.pretrained.tensors import read_tensors
from tests.conftest import filled, same_bits

# Family, network and fields; those of spandrel have features, blocks and heads that it accepts.
NETWORKS = {
    'rrdb': ('basicsr', 'rrdb', {'features': 4, 'blocks': 1}),
    'rrdb, unshuffled': ('basicsr', 'rrdb', {'features': 4, 'blocks': 1, 'scale': 2,
                                             'unshuffle': 2}),
    'compact': ('basicsr', 'compact', {'features': 4, 'blocks': 1}),
    'span': ('span', 'span', {'features': 8}),
    'realplksr': ('plksr', 'realplksr', {'features': 8, 'blocks': 1}),
    'swinir': ('swinir', 'swinir', {'features': 12, 'blocks': 1, 'groups': 1,
                                    'upsample': 'direct'}),
    'dat': ('dat', 'dat', {'features': 36, 'blocks': 2, 'groups': 1, 'scale': 2})}


def written(path: pathlib.Path, family: str, name: str, fields: dict[str, Any],
            **options: bool) -> tuple[Any, dict, dict[str, np.ndarray]]:
  """Writes a random network to `path`; returns (generator, variables, tensors)."""
  generator = GENERATORS[name](**fields)
  variables = {'batch_stats': {}} | filled(generator, np.zeros((1, 8, 8, 3), np.float32))
  generators.write_generator(path, family, name, generator, variables, **options)
  return generator, variables, generators.to_tensors(family, name, generator, variables)


def test_our_reader_reads_the_same_bits_and_fields(tmp_path: pathlib.Path) -> None:
  for family, name, fields in (
      ('basicsr', 'edsr', {'features': 4, 'blocks': 1, 'residual_scale': 0.3}),
      ('edsr-pytorch', 'edsr', {'features': 4, 'blocks': 1}),
      ('esrgan-old', 'rrdb', {'features': 4, 'blocks': 1, 'scale': 8}),
      ('sr_jax', 'srresnet', {'features': 4, 'blocks': 1})):
    path = tmp_path / f'{family}.pth'
    generator, variables, tensors = written(path, family, name, fields)
    assert same_bits(read_tensors(path)[0], tensors) == []
    given = {'residual_scale': 1.0} if family == 'edsr-pytorch' else {}  # it has no such entry
    model = sr_jax.load(path, fields=given)
    assert (model.family, architecture(model.generator)) == (family, architecture(generator))
    assert same_bits(model.variables, variables) == []
    if family in generators.UNWRAPPED:
      continue
    for key in ('params', 'params_ema'):
      assert same_bits(read_tensors(path, wrapper=key)[0], tensors) == []


def test_a_file_has_each_array_once_and_equal_networks_have_equal_files() -> None:
  tensors = {'a': np.ones((64, 64), np.float32)}
  data = pth_bytes(tensors, ('params', 'params_ema'), {'text': 'x'})
  assert len(data) < 4 * 64 * 64 + 2000
  assert data == pth_bytes(tensors, ('params', 'params_ema'), {'text': 'x'})


def test_half_precision_halves_the_file_and_rounds_each_weight(tmp_path: pathlib.Path) -> None:
  for suffix in ('.pth', '.safetensors'):
    path = tmp_path / f'half{suffix}'
    _, _, tensors = written(path, *NETWORKS['compact'], half=True)
    read = read_tensors(path)[0]
    assert same_bits(read, {name: np.float16(tensor) for name, tensor in tensors.items()}) == []
    assert sr_jax.load(path).scale == 4


@pytest.mark.parametrize(('value', 'half', 'message'), [
    (np.nan, False, r'out\.pth: .*body\.0\.weight .*non-finite values \(NaN/Inf\)$'),
    (1e5, True, r'out\.pth: .*body\.0\.weight .*float16')])
def test_weights_that_are_not_finite_are_not_written(tmp_path: pathlib.Path, value: float,
                                                     half: bool, message: str) -> None:
  generator = GENERATORS['compact'](features=4, blocks=1)
  variables = filled(generator, np.zeros((1, 8, 8, 3), np.float32))
  variables['params']['layers_0']['kernel'][0, 0, 0, 0] = value
  with pytest.raises(InputError, match=message):
    generators.write_generator(tmp_path / 'out.pth', 'basicsr', 'compact', generator, variables,
                               half)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_pytorch_reads_the_same_bits(tmp_path: pathlib.Path) -> None:
  torch = pytest.importorskip('torch')
  arrays = {'weight': np.float32(np.random.default_rng(0).normal(size=(4, 3, 3, 3))),
            'scalar': np.array(2.5, np.float32), 'half': np.arange(5, dtype=np.float16),
            'index': np.arange(6).reshape(2, 3), 'empty': np.zeros((0, 3), np.float32)}
  for wrappers in ((), ('params', 'params_ema')):
    (tmp_path / 'x.pth').write_bytes(pth_bytes(arrays, wrappers, {'text': 'a'}))
    for mapped in (False, True):
      state = torch.load(tmp_path / 'x.pth', weights_only=True, mmap=mapped)
      assert list(state) == [*wrappers, 'text'] if wrappers else list(arrays)
      for part in [state[key] for key in wrappers] or [state]:
        assert same_bits({key: tensor.numpy() for key, tensor in part.items()}, arrays) == []


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:torch.meshgrid')
@pytest.mark.parametrize('name', NETWORKS)
def test_spandrel_computes_what_we_compute(name: str, tmp_path: pathlib.Path,
                                           spandrel: ModuleType, picture: Callable) -> None:
  torch = pytest.importorskip('torch')
  family, network, fields = NETWORKS[name]
  if network == 'rrdb':
    fields = fields | {'growth': 32}  # of which spandrel takes no other
  generator, variables, _ = written(tmp_path / 'x.pth', family, network, fields)
  model = spandrel.ModelLoader('cpu').load_from_file(tmp_path / 'x.pth').eval()
  lr = np.float32(picture(16, 16)[None]) / 255
  with torch.no_grad():
    theirs = model.model(torch.from_numpy(lr.transpose(0, 3, 1, 2))).numpy()
  ours = np.asarray(generator.apply(variables, lr))
  np.testing.assert_allclose(theirs.transpose(0, 2, 3, 1), ours, rtol=0,
                             atol=2e-5 * np.abs(ours).max())
