"""Exports to ncnn and ONNX: what the runtimes compute, what our reader makes of the files."""

import functools
import pathlib
import re
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import sr_jax
from sr_jax import images
from sr_jax.errors import InputError
from sr_jax.models import GENERATORS
from sr_jax.models.convolution import Conv
from sr_jax.models.layers import repeat_pixels
from sr_jax.pretrained import generators
from sr_jax.pretrained.export import graph_files, runtimes, tracing
from tests.conftest import filled, same_bits

SMALL = {'features': 4, 'blocks': 1}
RRDB = {**SMALL, 'growth': 2}
NETWORKS = {  # network, fields
    'compact-x1': ('compact', {**SMALL, 'scale': 1}),
    'compact-x2': ('compact', {**SMALL, 'scale': 2}),
    'compact-x2-unshuffled': ('compact', {**SMALL, 'scale': 2, 'unshuffle': 2}),
    'compact-x3-resized': ('compact', {**SMALL, 'scale': 3, 'inner_scale': 4}),
    'compact-x4-grey': ('compact', {**SMALL, 'channels': 1}),
    'srcnn-x3': ('srcnn', {'widths': (4, 3), 'scale': 3}),
    'srresnet-x4': ('srresnet', SMALL),
    'msrresnet-x3': ('msrresnet', {**SMALL, 'scale': 3}),
    'msrresnet-x2-unshuffled': ('msrresnet', {**SMALL, 'scale': 2, 'unshuffle': 2}),
    'edsr-x4': ('edsr', {**SMALL, 'residual_scale': 0.1}),
    'edsr-x2-grey': ('edsr', {**SMALL, 'scale': 2, 'channels': 1}),
    **{f'rrdb-x{scale}': ('rrdb', {**RRDB, 'scale': scale}) for scale in (3, 8)},
    'rrdb-x2-unshuffled': ('rrdb', {**RRDB, 'scale': 2, 'unshuffle': 2}),
    'rrdb-x1-unshuffled': ('rrdb', {**RRDB, 'scale': 1, 'unshuffle': 4}),
    'rrdb-x3-shuffled': ('rrdb', {**RRDB, 'scale': 3, 'upsample': 'shuffle'}),
    'span-x4': ('span', {'features': 4, 'blocks': 2}),
    'span-x2-fused': ('span', {'features': 4, 'blocks': 2, 'fused': True, 'scale': 2}),
    'plksr-x4': ('plksr', {**SMALL, 'kernel': 5}),
    'realplksr-x4': ('realplksr', {**SMALL, 'kernel': 5}),
    'realplksr-x4-layer-norm': ('realplksr', {**SMALL, 'kernel': 5, 'norm': 'layer'})}
READ_BACK = ('compact-x2', 'rrdb-x2-unshuffled', 'span-x2-fused', *(
    pytest.param(name, marks=pytest.mark.slow) for name in (
        'compact-x1', 'compact-x3-resized', 'compact-x4-grey', 'rrdb-x3', 'rrdb-x8')))
SIZES = (9, 14), (17, 8)  # not those of the trace


def network(name: str) -> tuple[nn.Module, dict[str, Any]]:
  """Returns a random network of NETWORKS and its variables."""
  kind, fields = NETWORKS[name]
  generator = GENERATORS[kind](**fields)
  lr = np.zeros((1, 8, 8, tracing.channels_of(generator)), np.float32)
  return generator, {'batch_stats': {}} | filled(generator, lr)


def inputs(generator: nn.Module) -> list[np.ndarray]:
  """Returns images of the sizes SIZES, float32 [h, w, C]."""
  rng, channels = np.random.default_rng(0), tracing.channels_of(generator)
  return [np.float32(rng.uniform(size=(*size, channels))) for size in SIZES]


def precisions(name: str) -> tuple[bool, ...]:
  """Returns whether float16 is tested: for one RRDBNet of many, whose traces take long."""
  return (False,) if 'rrdb' in name and name != 'rrdb-x3' else (False, True)


def write(path: pathlib.Path, kind: str, generator: nn.Module, variables: dict[str, Any],
          half: bool = False) -> None:
  graph_files.write(path, kind, generator, variables, half, {})


@functools.cache
def expected(name: str, which: int) -> np.ndarray:
  """Computes a network; grey from 0 to 1 is what other tools give to networks of one channel."""
  generator, variables = network(name)
  lr = inputs(generator)[which]
  if tracing.channels_of(generator) == 3 or hasattr(generator, 'luma_only'):
    return np.asarray(jax.jit(generator.apply)(variables, lr[None])[0])
  luma = lr * np.float32(219 / 255) + np.float32(images.BLACK)
  sr = np.asarray(jax.jit(generator.apply)(variables, luma[None])[0])
  return (sr - np.float32(images.BLACK)) * np.float32(255 / 219)


@pytest.mark.parametrize('name', READ_BACK)
def test_our_reader_reads_the_same_bits_from_ncnn_files(name: str, tmp_path: pathlib.Path) -> None:
  generator, variables = network(name)
  write(tmp_path / f'{name}.param', 'ncnn', generator, variables)
  model = sr_jax.load(tmp_path / f'{name}.param')
  read, fields = model.generator, NETWORKS[name][1]
  assert {field: getattr(read, field) for field in fields} == fields
  assert getattr(read, 'mean', None) == getattr(generator, 'mean', None)
  assert same_bits(model.variables, variables) == []
  if name == 'rrdb-x3':  # a file of half the size, whose weights are rounded
    write(tmp_path / 'half-x3.param', 'ncnn', generator, variables, half=True)
    sizes = [(tmp_path / f'{stem}.bin').stat().st_size for stem in (name, 'half-x3')]
    assert 0.5 < sizes[1] / sizes[0] < 0.6
    read = sr_jax.load(tmp_path / 'half-x3.param').variables['params']['head']['kernel']
    np.testing.assert_array_equal(read, np.float16(variables['params']['head']['kernel']))


class Own(nn.Module):
  """A network of one's own; `kind` chooses an operation in it."""

  kind: str = 'plain'
  scale: int = 2
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, lr: jax.Array, train: bool = False) -> jax.Array:
    x = Conv(8, (3, 3), strides=(2, 2) if self.kind == 'strided' else 1, name='first')(lr)
    x = nn.elu(x) if self.kind == 'elu' else nn.gelu(x)
    if self.kind == 'position':
      x = x * jnp.arange(x.shape[1], dtype=jnp.float32)[:, None, None]
    if self.kind == 'mean':
      x = x - x.mean((1, 2), keepdims=True)
    x = Conv(3, (1, 1), name='second')(x)
    return repeat_pixels(x + 0.5, self.scale)


@pytest.mark.parametrize(('kind', 'message'), [
    ('elu', 'a choice'), ('strided', 'layer first .*size'), ('position', 'position'),
    ('mean', r'the network has the operation reduce_sum')])
def test_what_cannot_be_exported_is_refused_in_a_line(kind: str, message: str,
                                                      tmp_path: pathlib.Path) -> None:
  own = Own(kind)
  variables = filled(own, np.zeros((1, 8, 8, 3), np.float32))
  with pytest.raises(InputError, match=message) as error:
    write(tmp_path / 'own-x2.param', 'ncnn', own, variables)
  assert str(error.value).startswith(f'{tmp_path}/own-x2.param: ')
  assert '\n' not in str(error.value)
  assert list(tmp_path.iterdir()) == []


def test_names_that_upscayl_misreads_and_other_bad_input(tmp_path: pathlib.Path) -> None:
  generator, variables = network('compact-x2')
  for name in ('net', 'net-x4', 'net_3x'):
    with pytest.raises(InputError, match=rf'{name}\.param: Upscayl would read scale .*x2'):
      write(tmp_path / f'{name}.param', 'ncnn', generator, variables)
  with pytest.raises(InputError, match=r'-x2\.param: .*--metadata'):
    graph_files.write(tmp_path / 'net-x2.param', 'ncnn', generator, variables, False, {'a': 'b'})
  generator, variables = network('realplksr-x4-layer-norm')
  with pytest.raises(InputError, match=r'body_0/norm \(layer_norm\)'):
    write(tmp_path / 'net.param', 'ncnn', generator, variables)
  generator, variables = network('compact-x2')
  variables['params']['layers_0']['kernel'][0, 0, 0, 0] = 1e5
  with pytest.raises(InputError, match=r'layers_0.*non-finite.*float16'):
    write(tmp_path / 'net-x2.param', 'ncnn', generator, variables, half=True)
  variables['params']['layers_0']['kernel'][0, 0, 0, 0] = np.nan
  with pytest.raises(InputError, match=r'params/layers_0/kernel .*NaN'):
    write(tmp_path / 'net-x2.param', 'ncnn', generator, variables)
  assert list(tmp_path.iterdir()) == []


def test_metadata_of_the_file_itself_is_not_replaced(tmp_path: pathlib.Path) -> None:
  pytest.importorskip('onnx')
  with pytest.raises(InputError, match=r'net\.onnx: --metadata scale: '):
    graph_files.write(tmp_path / 'net.onnx', 'onnx', *network('compact-x2'), False, {'scale': '2'})
  assert list(tmp_path.iterdir()) == []


@pytest.fixture
def export(tmp_path: pathlib.Path, weights_command: Callable) -> Callable:
  """export('--output', ...) -> (status, stdout, stderr) of the export of a run, compact-x2."""
  generator, variables = network('compact-x2')
  file, run = tmp_path / 'small.safetensors', tmp_path / 'run'
  generators.write_generator(file, 'basicsr', 'compact', generator, variables)
  assert weights_command('import', file, '--workdir', run)[0] == 0
  return functools.partial(weights_command, 'export', '--workdir', run)


@pytest.mark.slow
def test_the_command_compares_a_file_with_our_results(
    tmp_path: pathlib.Path, picture: Callable, export: Callable) -> None:
  images.write_image(tmp_path / 'photos' / 'a.png', picture(12, 14))
  for file, package in (('a.pth', 'numpy'), ('a-x2.param', 'ncnn'), ('a.onnx', 'onnxruntime')):
    pytest.importorskip(package)
    status, out, err = export('--output', file, '--check', 'photos')
    assert (status, err) == (0, '')
    name, size, difference, *_ = out.splitlines()[-1].split()
    assert (name, size) == ('a.png', '14x12')
    assert float(difference) <= (0 if file == 'a.pth' else 1e-5)


def test_the_command_chooses_formats_and_refuses_in_a_line(tmp_path: pathlib.Path,
                                                           export: Callable) -> None:
  assert export('--output', 'a.pth')[0] == 0
  assert export('--output', 'a-x2', '--format', 'ncnn')[0] == 0
  assert sr_jax.load(tmp_path / 'a-x2.param').scale == 2
  for arguments, message in (
      (('--output', 'a.pth'), r'a\.pth: exists'), (('--output', 'a-x2.bin'), r'param: exists'),
      (('--output', 'b'), r'b: .*--format'), (('--output', 'b.onnx', '--format', 'pth'), 'b.onnx'),
      (('--output', 'b', '--format', 'gguf'), "--format 'gguf'.*onnx"),
      (('--output', 'b-x2.param', '--names', 'basicsr'), '--names'),
      (('--output', 'b.pth', '--metadata', 'x'), '--metadata x'),
      (('--output', 'b.pth', '--metadata', 'params=x'), '--metadata params: '),
      (('--output', 'b.safetensors', '--metadata', 'sr_jax=x'), '--metadata sr_jax: '),
      (('--output', 'b.pth', '--check', 'none'), 'none')):
    status, out, err = export(*arguments)
    assert (status, out, err.count('\n')) == (1, '', 1), err
    assert re.search(message, err), err
  assert not list(tmp_path.glob('b*'))


def test_a_missing_runtime_is_named_before_anything_is_written(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, weights_command: Callable) -> None:
  for package in ('onnx', 'onnxruntime', 'ncnn'):
    monkeypatch.setitem(sys.modules, package, None)
  for call in (runtimes.import_onnxruntime, runtimes.import_ncnn, functools.partial(
      graph_files.write, tmp_path / 'a.onnx', 'onnx', *network('compact-x2'), False, {})):
    with pytest.raises(InputError, match=r'pip install (onnx|ncnn)'):
      call()


@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name in NETWORKS if 'layer-norm' not in name])
def test_ncnn_computes_what_we_compute(name: str, tmp_path: pathlib.Path) -> None:
  pytest.importorskip('ncnn')
  generator, variables = network(name)
  path = tmp_path / f'{name}.param'
  for half in precisions(name):
    write(path, 'ncnn', generator, variables, half)
    runs = [runtimes.open_ncnn(path, packing) for packing in (True, False)]
    for which, lr in enumerate(inputs(generator)[:1 if half else 2]):
      sr = expected(name, which)
      tolerance = np.abs(sr).max() * (1 / 255 if half else 1e-4)
      for run in runs:
        np.testing.assert_allclose(run(lr), sr, rtol=0, atol=tolerance)


@pytest.mark.slow
def test_a_network_of_ones_own_is_exported(tmp_path: pathlib.Path) -> None:
  pytest.importorskip('onnx')
  pytest.importorskip('onnxruntime')
  own = Own()
  variables = filled(own, np.zeros((1, 8, 8, 3), np.float32))
  write(tmp_path / 'own.onnx', 'onnx', own, variables)
  lr = inputs(own)[0]
  np.testing.assert_allclose(runtimes.open_onnx(tmp_path / 'own.onnx')(lr),
                             own.apply(variables, lr[None])[0], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('name', NETWORKS)
def test_onnxruntime_computes_what_we_compute(name: str, tmp_path: pathlib.Path) -> None:
  onnx = pytest.importorskip('onnx')
  onnxruntime = pytest.importorskip('onnxruntime')
  generator, variables = network(name)
  for half in precisions(name):
    path = tmp_path / f'{half}.onnx'
    graph_files.write(path, 'onnx', generator, variables, half, {'licence': 'CC0'})
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties['licence'] == 'CC0'
    assert properties['scale'] == str(generator.scale)
    run = runtimes.open_onnx(path)
    for which, lr in enumerate(inputs(generator)[:1 if half else 2]):
      sr = expected(name, which)
      tolerance = np.abs(sr).max() * (1 / 255 if half else 1e-4)
      np.testing.assert_allclose(run(lr), sr, rtol=0, atol=tolerance)
  batch = np.stack([np.zeros_like(lr), lr]).transpose(0, 3, 1, 2)
  session = onnxruntime.InferenceSession(str(tmp_path / 'False.onnx'))
  np.testing.assert_allclose(session.run(None, {'input': batch})[0][1].transpose(1, 2, 0), sr,
                             rtol=0, atol=1e-4 * np.abs(sr).max())
