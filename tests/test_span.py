"""SPAN: branches and fused kernels, the authors' names, ncnn files, the published figures."""

import pathlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy import ndimage

import sr_jax
from sr_jax import images
from sr_jax.errors import InputError
from sr_jax.inference.compiled_parts import CompiledParts
from sr_jax.metrics.scorer import make_scorer, mean
from sr_jax.models import SPAN, SPAN_52, architecture
from sr_jax.models.span import BranchConv, fuse, split
from sr_jax.pretrained import families, generators
from sr_jax.pretrained.ncnn import read_ncnn
from sr_jax.pretrained.published import PUBLISHED
from tests.conftest import filled, same_bits
from tests.test_ncnn import Net, exchange

SMALL = SPAN(4, 1, 2)
SIX = SPAN(4, 6, 2)  # a network of the authors but for its number of features


@pytest.fixture(scope='module')
def variables() -> dict[str, Any]:
  return filled(SMALL, np.zeros((1, 8, 8, 3), np.float32))


@pytest.fixture(scope='module')
def six() -> dict[str, Any]:
  return filled(SIX, np.zeros((1, 8, 8, 3), np.float32))


@pytest.fixture(scope='module')
def lr() -> np.ndarray:
  return np.random.default_rng(1).random((2, 7, 9, 3), np.float32)


def parameters(model: SPAN) -> int:
  shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
  return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_parameter_counts() -> None:
  """The fused ones are published: 481 and 498 thousand (the paper's table, 52 features)."""
  assert [parameters(make(scale=scale, fused=True)) for make in (SPAN, SPAN_52)
          for scale in (2, 4)] == [410_700, 426_288, 481_324, 498_208]
  # Those of spandrel's modules, without the buffers `eval_conv`.
  assert (parameters(SPAN()), parameters(SPAN_52(scale=2))) == (1_840_488, 2_140_252)


def test_a_convolution_equals_its_branches_at_the_border_too() -> None:
  """SciPy correlates the branches one after the other, of an image padded with zeros."""
  layer, x = BranchConv(3, (3, 3)), np.random.default_rng(0).normal(size=(1, 5, 6, 2))
  branches = filled(layer, np.float32(x))['params']

  def convolve(x: np.ndarray, name: str) -> np.ndarray:
    kernel, bias = (np.float64(branches[name][leaf]) for leaf in ('kernel', 'bias'))
    planes = [sum(ndimage.correlate(x[..., i], kernel[..., i, o], mode='constant')
                  for i in range(x.shape[-1])) + bias[o] for o in range(kernel.shape[-1])]
    return np.stack(planes, -1)

  padded = np.pad(x[0], ((1, 1), (1, 1), (0, 0)))
  long = convolve(convolve(convolve(padded, 'expand'), 'middle')[1:-1, 1:-1], 'reduce')
  np.testing.assert_allclose(layer.apply({'params': branches}, np.float32(x))[0],
                             long + convolve(x[0], 'skip'), rtol=0, atol=1e-5)


def test_fusing_and_splitting_keep_the_result(variables: dict[str, Any], lr: np.ndarray) -> None:
  run, run_fused = jax.jit(SMALL.apply), jax.jit(SMALL.clone(fused=True).apply)
  sr, fused = run(variables, lr), fuse(variables)
  assert sr.shape == (2, 14, 18, 3)
  np.testing.assert_allclose(run_fused(fused, lr), sr, rtol=0, atol=1e-5)
  np.testing.assert_allclose(run(split(fused), lr), sr, rtol=0, atol=1e-5)
  assert same_bits(fuse(split(fused)), fused) == []


@pytest.mark.parametrize(('blocks', 'fused'), [(1, False), (6, True)])
def test_a_span_is_local(blocks: int, fused: bool) -> None:
  """Each block has three convolutions, and there are two more; the tail has one."""
  model = SPAN(4, blocks, fused=fused)
  parts = CompiledParts(model, filled(model, np.zeros((1, 8, 8, 3), np.float32)))
  assert parts.has_trunk
  assert parts.trunk_locality == (3 * blocks + 2, True, '')
  assert parts.tail_locality == (1, True, '')


@pytest.mark.parametrize('field', [{'features': 0}, {'blocks': 0}, {'scale': 0},
                                   {'mean': (0.5,)}, {'image_range': 0.0}])
def test_an_invalid_field_is_refused(field: dict[str, Any]) -> None:
  name, value = next(iter(field.items()))
  with pytest.raises(ValueError, match=rf'^{name}=\(?{np.ravel(value)[0]}.*: expected '):
    jax.eval_shape(SPAN(**field).init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


# PyTorch -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(('fields', 'size', 'fused'), [
    ({'scale': 2}, (9, 6), False),
    ({'scale': 4, 'mean': (0.0, 0.0, 0.0), 'image_range': 1.0, 'channels': 1}, (5, 8), True)],
    ids=['x2', 'x4, fused, grey, not normalised'])
def test_exports_agree_with_pytorch(
    tmp_path: pathlib.Path, spandrel: ModuleType, fields: dict[str, Any], size: tuple[int, int],
    fused: bool) -> None:
  """spandrel reads the file. Its network is computed with its branches, and fused by spandrel."""
  import torch
  model, path = SPAN(4, 6, **fields), tmp_path / 'span.safetensors'
  variables = filled(model, np.zeros((1, 8, 8, 3), np.float32))
  if fused:
    model, variables = model.clone(fused=True), fuse(variables)
  assert families.fitting_family('span', model) == 'span'
  generators.write_generator(path, 'span', 'span', model, variables)
  ours, theirs = sr_jax.load(path), spandrel.ModelLoader().load_from_file(str(path))
  assert theirs.architecture.id == 'SPAN'
  assert (theirs.scale, theirs.input_channels) == (model.scale, model.channels)
  assert same_bits(ours.variables, {'batch_stats': {}} | variables) == []
  lr = np.random.default_rng(1).random((2, *size, model.channels), np.float32)
  target = np.random.default_rng(2).random((2, *(side * model.scale for side in size), 1))

  def loss(params: dict) -> tuple[jax.Array, jax.Array]:
    sr = ours.generator.apply({'params': params}, images.as_rgb(lr))[..., :model.channels]
    return jnp.mean(jnp.abs(sr - target)), sr  # of a grey image, all channels are equal

  if model.scale == 2:
    (_, sr), gradients = jax.value_and_grad(loss, has_aux=True)(variables['params'])
  else:
    (_, sr), gradients = loss(variables['params']), {}
  assert np.std(sr) > 0.03
  for module in (theirs.model.eval(), theirs.model.train()):
    expected = module(torch.tensor(lr).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(sr, expected.detach(), rtol=1e-4, atol=1e-5 * np.abs(sr).max())
  for parameter in theirs.model.parameters():
    parameter.requires_grad_()
  expected = theirs.model(torch.tensor(lr).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
  (expected - torch.tensor(target)).abs().mean().backward()
  layout, named = families.layout_of('span', 'span', model), dict(theirs.model.named_parameters())
  for keys, leaf in jax.tree_util.tree_leaves_with_path({'params': gradients}):
    name, _, axes = layout['/'.join(key.key for key in keys)]
    want = named[name].grad.numpy().transpose(axes)
    np.testing.assert_allclose(leaf, want, rtol=1e-3, atol=1e-3 * np.abs(want).max(), err_msg=name)


# The authors' names ------------------------------------------------------------------------


def written(path: pathlib.Path, model: SPAN, variables: dict[str, Any]) -> dict[str, np.ndarray]:
  generators.write_generator(path / 'a.safetensors', 'span', 'span', model, variables)
  return load_file(path / 'a.safetensors')


def test_a_file_has_branches_and_what_they_fuse_to(tmp_path: pathlib.Path,
                                                   six: dict[str, Any]) -> None:
  tensors = written(tmp_path, SIX, six)
  assert len(tensors) == 20 * 10 + 4
  assert {name.split('.', 2)[2] for name in tensors if name.startswith('block_3.c2_r')} == {
      f'{layer}.{kind}' for layer in ('sk', 'conv.0', 'conv.1', 'conv.2', 'eval_conv')
      for kind in ('weight', 'bias')}
  np.testing.assert_array_equal(tensors['conv_2.eval_conv.weight'].transpose(2, 3, 1, 0),
                                fuse(six)['params']['body_end']['kernel'])
  save_file(tensors, tmp_path / 'theirs.safetensors')  # without our metadata
  found = sr_jax.load(tmp_path / 'theirs.safetensors')
  assert architecture(found.generator) == architecture(SIX)
  assert (found.family, found.assumed) == ('span', ['mean', 'image_range'])
  assert same_bits(found.variables, {'batch_stats': {}} | six) == []


def test_branches_are_read_rather_than_an_outdated_kernel(tmp_path: pathlib.Path,
                                                          six: dict[str, Any]) -> None:
  tensors = written(tmp_path, SIX, six)
  stale = {name: 0 * tensor for name, tensor in tensors.items() if 'eval_conv' in name}
  save_file(tensors | stale, tmp_path / 'b.safetensors')
  found = sr_jax.load(tmp_path / 'b.safetensors', fields={'fused': True})
  assert found.generator.fused
  assert same_bits(found.variables, {'batch_stats': {}} | fuse(six)) == []
  save_file(tensors | {'conv_2.eval_conv.bias': np.zeros(3, np.float32)},
            tmp_path / 'd.safetensors')
  with pytest.raises(InputError, match=r'conv_2\.eval_conv\.bias is \[3\], expected \[4\]'):
    sr_jax.load(tmp_path / 'd.safetensors')
  del tensors['conv_2.conv.1.weight']
  save_file(tensors, tmp_path / 'd.safetensors')
  with pytest.raises(InputError, match=r'conv_2\.conv\.1\.weight is missing, expected \[8, 8, 3'):
    sr_jax.load(tmp_path / 'd.safetensors', fields={'fused': True})


def test_a_file_of_fused_kernels_is_a_fused_network(tmp_path: pathlib.Path,
                                                    six: dict[str, Any]) -> None:
  fused = SIX.clone(fused=True)
  tensors = written(tmp_path, fused, fuse(six))
  again = sr_jax.load(tmp_path / 'a.safetensors')  # its metadata says that it is fused
  assert architecture(again.generator) == architecture(fused)
  assert same_bits(again.variables, {'batch_stats': {}} | fuse(six)) == []
  alone = {name: tensor for name, tensor in tensors.items()
           if '.sk.' not in name and '.conv.' not in name}
  save_file(alone, tmp_path / 'b.safetensors')
  found = sr_jax.load(tmp_path / 'b.safetensors')
  assert architecture(found.generator) == architecture(fused)
  assert same_bits(found.variables, again.variables) == []
  branches = sr_jax.load(tmp_path / 'b.safetensors', fields={'fused': False})
  assert same_bits(branches.variables, {'batch_stats': {}} | split(fuse(six))) == []


@pytest.mark.parametrize(('fields', 'message'), [
    ({'blocks': 5}, 'blocks 5'), ({'mean': (0.485, 0.456, 0.406)}, r'mean \(0\.485'),
    ({'image_range': 1.0}, r'image_range 1\.0'), ({'channels': 1}, 'channels 1')])
def test_a_network_that_the_authors_code_lacks_is_exported_in_our_names(
    fields: dict[str, Any], message: str) -> None:
  model = SPAN(**({'features': 4, 'scale': 2} | fields))
  assert families.fitting_family('span', model) == 'sr_jax'
  with pytest.raises(InputError, match=f"span's span does not exist with .*{message}"):
    families.checked_layout('span', 'span', model)


# ncnn --------------------------------------------------------------------------------------


def write_span(path: pathlib.Path, model: SPAN, tensors: dict[str, np.ndarray],
               change: Callable[[list[str]], list[str]] = lambda lines: lines) -> pathlib.Path:
  """Writes a pair as onnx2ncnn does from the authors' network."""
  net = Net(half=False)

  def conv(x: str, name: str, output: str | None = None) -> str:
    weight, bias = (tensors[f'{name}.{kind}'] for kind in ('weight', 'bias'))
    x = net.convolution(x, weight, bias, output=output)
    if weight.shape[-1] == 1:
      net.lines[-1] = net.lines[-1].replace(' 1=3 4=1', ' 1=1')
    return x

  x = 'data'
  if any(model.mean):
    constant = net.add('MemoryData', [], '0=1 1=1 2=3')
    net.binary += np.float32(model.mean).tobytes()
    x = net.add('BinaryOp', [x, constant], '0=1')
  if model.image_range != 1:
    x = net.add('BinaryOp', [x], f'0=2 1=1 2={model.image_range:e}')
  first = x = conv(x, 'conv_1.eval_conv')
  outputs = []
  for block in range(model.blocks):
    name = f'block_{block + 1}.c{{}}_r.eval_conv'.format
    tapped = net.add('Swish', [conv(x, name(1))])
    y = conv(net.add('Swish', [conv(tapped, name(2))]), name(3))
    gate = net.add('BinaryOp', [net.add('Sigmoid', [y])], '0=1 1=1 2=5.000000e-01')
    x = net.add('BinaryOp', [net.add('BinaryOp', [y, x], '0=0'), gate], '0=2')
    outputs.append(x)
  x = net.add('Concat', [first, conv(x, 'conv_2.eval_conv'), outputs[0], tapped])
  x = conv(conv(x, 'conv_cat'), 'upsampler.0')
  net.add('PixelShuffle', [x], f'0={model.scale}', 'output')
  net.lines = change(net.lines)
  return net.write(path)


@pytest.fixture(scope='module')
def two() -> tuple[SPAN, dict[str, np.ndarray]]:
  """A fused network of two blocks and its tensors."""
  model = SPAN(4, 2, 2, fused=True)
  variables = filled(model, np.zeros((1, 8, 8, 3), np.float32))
  paths = {path: np.asarray(leaf) for path, leaf in (
      ('/'.join(key.key for key in keys), leaf)
      for keys, leaf in jax.tree_util.tree_leaves_with_path(variables))}
  return model, {name: paths[path].transpose(np.argsort(axes)) for path, (name, _, axes)
                 in families.layout_of('span', 'span', model).items()}


@pytest.mark.parametrize('fields', [
    {}, {'mean': (0.485, 0.456, 0.406), 'image_range': 1.0},
    {'mean': (0.0, 0.0, 0.0), 'image_range': 1.0}], ids=str)
def test_an_ncnn_pair_is_a_fused_network(tmp_path: pathlib.Path, fields: dict[str, Any],
                                         two: tuple[SPAN, dict[str, np.ndarray]]) -> None:
  model, tensors = two[0].clone(**fields), two[1]
  path = write_span(tmp_path / 'net', model, tensors)
  read, stated = read_ncnn(path)
  assert stated == {'mean': model.mean, 'image_range': model.image_range}
  assert same_bits(read, tensors) == []
  assert architecture(sr_jax.load(path).generator) == architecture(model)


@pytest.mark.parametrize(('change', 'message'), [
    (exchange('0=1 1=1 2=5.0', '0=1 1=1 2=4.0'), r'BinaryOp_\d+ \(BinaryOp\) differs'),
    (exchange('0=1 1=1 2=5.0', '0=0 1=1 2=5.0'), r'BinaryOp_\d+ \(BinaryOp\) differs'),
    (exchange('0=1 1=1 2=5.0', '0=2 1=1 2=5.0'), r'BinaryOp_\d+ \(BinaryOp\) differs'),
    (exchange('Sigmoid', 'Swish'), r'Swish_\d+ \(Swish\) differs'),
    (exchange('Swish', 'Sigmoid', 1), r'Convolution_\d+ \(Convolution\) differs'),
    (exchange('data blob1 ', 'blob1 data '), r'BinaryOp_2 \(BinaryOp\) differs'),
    (exchange('0=2 1=1 2=2.55', '0=2 1=1 2=-2.55'), r'image_range=-255\.0: expected'),
    (exchange(' 1=1 5=1', ' 1=1 4=1 5=1'), r'Convolution_\d+ \(Convolution\) differs'),
    (exchange('2=3', '2=2'), r'net\.bin: '),
    (exchange('2=3', '2=-3'), r'net\.bin: .*MemoryData_1\b'),
    (exchange('0=1 1=1 2=3', '0=1 1=inf 2=3'), r'net\.bin: .*infinity'),
    (exchange('Swish', 'HardSwish'), r'HardSwish_\d+ has the type HardSwish')])
def test_another_network_is_refused_at_the_layer(
    tmp_path: pathlib.Path, two: tuple[SPAN, dict[str, np.ndarray]],
    change: Callable[[list[str]], list[str]], message: str) -> None:
  with pytest.raises(InputError, match=message) as error:
    sr_jax.load(write_span(tmp_path / 'net', *two, change))
  assert 'net.' in str(error.value)
  assert '\n' not in str(error.value)


def test_the_names_of_the_published_networks() -> None:
  files = {name: PUBLISHED[name].file for name in PUBLISHED if name.startswith('span-')}
  assert files == {f'span-x{scale}{suffix}': f'models/spanx{scale}_ch{features}.param'
                   for scale in (2, 4) for suffix, features in (('', 48), ('-ch52', 52))}


@pytest.mark.slow
def test_the_published_network_agrees_with_pytorch_and_its_figures(assets: pathlib.Path) -> None:
  model = sr_jax.load(assets / 'span' / 'spanx4_ch48.param')
  assert architecture(model.generator) == architecture(SPAN(fused=True))
  with np.load(assets / 'span' / 'spanx4_ch48_expected.npz') as file:
    sr = jax.jit(model.generator.apply)(model.variables, file['lr'][None])[0]
    np.testing.assert_allclose(sr, file['sr'], rtol=0, atol=1e-5)
  score = make_scorer(4, 'none')
  scores = {path.stem: score(model(images.read_image(path)),
                             images.read_image(assets / 'Set5' / 'HR_x4' / path.name))
            for path in sorted((assets / 'Set5' / 'LRbicx4').iterdir())}
  assert len(scores) == 5
  assert mean(scores)['psnr_y'] == pytest.approx(32.204, abs=0.002)
  assert mean(scores)['ssim_y'] == pytest.approx(0.8952, abs=1e-4)
