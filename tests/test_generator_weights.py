"""Networks in other projects' names: PyTorch's results, there and back, and wrong files."""

import importlib.util
import re
import sys
from unittest import mock

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import sr_jax
from sr_jax.errors import InputError
from sr_jax.models import GENERATORS, factory
from sr_jax.pretrained import generators
from tests.conftest import GOLDEN, filled, same_bits

EDSR = {'residual_scale': 0.1}
CASES = {  # the network in foreign.npz: what must be told, what must be found
    **{f'{kind}-x{scale}': (given, family, name, fields | {'scale': scale})
       for scale in (2, 3, 4) for kind, given, family, name, fields in (
           ('edsr', EDSR, 'basicsr', 'edsr', {'features': 4, 'blocks': 2, 'channels': 3}),
           ('edsr-pytorch', EDSR, 'edsr-pytorch', 'edsr', {'image_range': 255.0}),
           ('msrresnet', {}, 'basicsr', 'msrresnet', {'features': 4, 'blocks': 2}),
           ('compact', {}, 'basicsr', 'compact', {'features': 4, 'blocks': 2}))},
    'compact-shrunk-x3': ({'scale': 3, 'inner_scale': 4}, 'basicsr', 'compact', {'scale': 3}),
    **{f'rrdb-x{scale}': ({}, 'basicsr', 'rrdb', {'scale': scale, 'unshuffle': 4 // scale})
       for scale in (1, 2, 4)},
    'esrgan-x4': ({}, 'esrgan', 'rrdb', {'scale': 4, 'features': 4, 'growth': 1, 'blocks': 1}),
    **{f'esrgan-old-x{scale}': ({'scale': 3} if scale == 3 else {}, 'esrgan-old', 'rrdb',
                                {'scale': scale, 'upsample': 'nearest', 'blocks': 1})
       for scale in (1, 2, 3, 4, 8)},
    **{f'esrgan-old-shuffle-x{scale}': ({}, 'esrgan-old', 'rrdb',
                                        {'scale': scale, 'upsample': 'shuffle'})
       for scale in (3, 4)}}


def described(model):
  return generators.architecture(model.generator)


@pytest.mark.parametrize('case', CASES)
def test_pytorchs_result_and_there_and_back(foreign, tmp_path, case):
  tensors, lr, sr, path = foreign(case)
  given, family, name, fields = CASES[case]
  model = sr_jax.load(path, fields=given)
  assert (model.family, model.config['generator']['name']) == (family, name)
  assert {key: model.fields[key] for key in fields} == fields
  found = jax.jit(model.generator.apply)(model.variables, lr)
  np.testing.assert_allclose(found, sr, rtol=0, atol=1e-5)
  if 'shrunk' in case:
    return  # no PyTorch project has that network: see the next test
  out = tmp_path / 'out.safetensors'
  generators.write_generator(out, family, name, model.generator, model.variables)
  written = load_file(out)
  assert same_bits(written, tensors) == []
  again = sr_jax.load(out)  # what had to be told is in the file's metadata now
  assert described(again) == described(model)
  assert same_bits(again.variables, model.variables) == []


def test_every_generator_with_foreign_names_is_tested():
  known = {name for family in generators.FAMILIES.values() for name in family.networks}
  assert known == {name for _, _, name, _ in CASES.values()}
  assert known <= set(GENERATORS)
  assert set(generators.FAMILIES) == {family for _, family, _, _ in CASES.values()}


@pytest.mark.parametrize('name', GENERATORS)
def test_any_generator_goes_out_and_in_under_our_own_names(tmp_path, name):
  small = {'widths': (4, 3)} if name == 'srcnn' else {'features': 4, 'blocks': 1}
  generator = factory.build_generator({'name': name, **small}, 2, 'float32')
  variables = filled(generator, np.zeros((1, 8, 8, 3), np.float32))
  out = tmp_path / 'out.safetensors'
  generators.write_generator(out, 'sr_jax', name, generator, variables)
  model = sr_jax.load(out)
  assert described(model) == generators.architecture(generator)
  assert same_bits(model.variables, {'batch_stats': {}} | variables) == []


@pytest.mark.parametrize(('family', 'name', 'fields'), [
    # Fields left at the module's default, which no tensor tells.
    ('basicsr', 'edsr', {'scale': 2}), ('basicsr', 'edsr', {'mean': (0.5, 0.5, 0), 'scale': 3}),
    ('basicsr', 'msrresnet', {}), ('basicsr', 'compact', {'activation': 'relu'}),
    ('esrgan-old', 'rrdb', {'scale': 3}), ('basicsr', 'rrdb', {'channels': 1}),
    ('edsr-pytorch', 'edsr', {'image_range': 1.0, 'mean': (0.485, 0.456, 0.406)}),
    ('edsr-pytorch', 'edsr', {'image_range': 1.0, 'scale': 2})], ids=str)
def test_an_export_says_all_of_its_network(tmp_path, family, name, fields):
  generator = GENERATORS[name](features=4, blocks=1, **fields)
  variables = filled(generator, np.zeros((1, 8, 8, 3), np.float32))
  out = tmp_path / 'out.safetensors'
  generators.write_generator(out, family, name, generator, variables)
  model = sr_jax.load(out)
  assert (model.family, model.name, described(model)) == (family, name,
                                                         generators.architecture(generator))
  assert same_bits(model.variables, {'batch_stats': {}} | variables) == []


def test_names_of_an_export_are_those_of_a_tool_that_has_the_network():
  for name, fields, first, family in (
      ('rrdb', {}, '', 'basicsr'), ('edsr', {}, '', 'basicsr'), ('srcnn', {}, '', 'sr_jax'),
      ('edsr', {}, 'edsr-pytorch', 'edsr-pytorch'), ('edsr', {'channels': 1}, '', 'sr_jax'),
      ('rrdb', {'scale': 2, 'unshuffle': 2}, '', 'basicsr'), ('rrdb', {'scale': 2}, '', 'esrgan'),
      ('rrdb', {'scale': 8}, 'basicsr', 'esrgan-old'), ('srresnet', {}, '', 'sr_jax'),
      ('rrdb', {'upsample': 'shuffle'}, 'esrgan-old', 'esrgan-old'),
      ('rrdb', {'upsample': 'shuffle'}, '', 'esrgan-old'),
      ('msrresnet', {'scale': 8}, '', 'sr_jax'),
      ('msrresnet', {'upsample': 'direct'}, '', 'sr_jax'),
      ('compact', {'scale': 2, 'inner_scale': 4}, 'basicsr', 'sr_jax')):
    size = {} if name == 'srcnn' else {'features': 4, 'blocks': 1}
    generator = GENERATORS[name](**fields, **size)
    assert generators.fitting_family(name, generator, first) == family


def test_what_other_names_can_not_say_is_refused(foreign, tmp_path):
  def write(family, name, **fields):
    generator = GENERATORS[name](features=4, blocks=1, **fields)
    variables = jax.eval_shape(generator.init, jax.random.key(0), np.zeros((1, 8, 8, 3)))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), variables)
    generators.write_generator(tmp_path / 'out.safetensors', family, name, generator, variables)

  for family, name, fields, message in (
      ('basicsr', 'msrresnet', {'output': 'tanh'}, "output='tanh'.*'linear'.*sr_jax"),
      ('basicsr', 'msrresnet', {'upsample': 'direct'}, 'no such layers'),
      ('basicsr', 'msrresnet', {'skip': 'features'}, 'body_end.*no counterpart'),
      ('basicsr', 'rrdb', {'upsample': 'shuffle'}, "upsample='shuffle'.*'nearest'"),
      ('basicsr', 'compact', {'scale': 2, 'inner_scale': 4}, "scale=2: basicsr's compact has 4"),
      ('basicsr', 'rrdb', {'scale': 8}, "basicsr's rrdb has no scale 8, channels 3 as this one"),
      ('edsr-pytorch', 'edsr', {'channels': 1}, 'has no scale 4, channels 1 as this one'),
      ('basicsr', 'srresnet', {}, 'basicsr has no srresnet'),
      ('esrgan', 'edsr', {}, 'esrgan has no edsr'),
      ('caffe', 'edsr', {}, "names 'caffe': expected one of basicsr"),
  ):
    with pytest.raises(InputError, match=message):
      write(family, name, **fields)
  with pytest.raises(InputError, match=r'only \.safetensors'):
    generators.write_generator(tmp_path / 'out.pth', 'basicsr', 'edsr', None, {})
  assert list(tmp_path.iterdir()) == []


def test_wrappers_and_module_prefixes_of_pth_files(tmp_path):
  averaged = sr_jax.load(GOLDEN / 'wrapped.pth')
  assert 'params_ema' in averaged.origin
  plain = sr_jax.load(GOLDEN / 'wrapped.pth', wrapper='params')
  kernels = (model.variables['params']['layers_0']['kernel'] for model in (averaged, plain))
  np.testing.assert_allclose(next(kernels) - next(kernels), 1, rtol=1e-6)
  assert (plain.scale, plain.fields['features'], plain.fields['blocks']) == (2, 4, 2)
  with pytest.raises(InputError, match="has no 'net', but params, params_ema, epoch"):
    sr_jax.load(GOLDEN / 'wrapped.pth', wrapper='net')
  with pytest.raises(InputError, match="no tensors under 'optimizer'; at its top are params"):
    sr_jax.load(GOLDEN / 'wrapped.pth', wrapper='optimizer')


# Wrong files -------------------------------------------------------------------------------


@pytest.mark.parametrize(('case', 'change', 'message'), [
    ('rrdb-x4', {'conv_body.weight': None}, r'conv_body\.weight is missing, expected '
     r'\[4, 4, 3, 3\] of rrdb \(features 4, blocks 1'),
    ('rrdb-x4', {'conv_first.weight': None}, r'conv_first\.weight is missing'),
    ('rrdb-x4', {'body.0.rdb2.conv3.bias': (2,)}, r'rdb2\.conv3\.bias is \[2\], expected \[1\]'),
    ('rrdb-x4', {'conv_last.weight': (3, 4, 5, 5)},
     r'conv_last\.weight is \[3, 4, 5, 5\], expected \[3, 4, 3, 3\]'),
    ('rrdb-x4', {'conv_last.weight': (3, 4)}, r'conv_last\.weight is \[3, 4\], expected a kernel'),
    ('rrdb-x4', {'conv_first.weight': (4, 5, 3, 3)}, r'conv_first\.weight is \[4, 5, 3, 3\]'),
    ('rrdb-x4', {'conv_up2.bias': None}, r'conv_up2\.bias is missing'),
    ('rrdb-x1', {'conv_up2.weight': None, 'conv_up2.bias': None}, 'upsampling are missing'),
    ('rrdb-x4', {'body.0.rdb1.conv1x1.weight': (4, 4, 1, 1)},
     r'conv1x1\.weight \[4, 4, 1, 1\] is one too many for rrdb'),
    ('edsr-x2', {'upsample.0.weight': (15, 4, 3, 3)}, r'upsample\.0\.weight.*15 is not 4 times'),
    ('edsr-x2', {'body.7.conv1.weight': (4, 4, 3, 3)}, r'body\.2\.conv1\.\w+ is missing'),
    ('edsr-pytorch-x2', {'add_mean.bias': (3,)}, r'add_mean\.bias is \[0.*expected \[114\.4'),
    ('edsr-pytorch-x2', {'sub_mean.bias': (1,)}, r'sub_mean\.bias is \[1\], expected \[3\]'),
    ('edsr-pytorch-x2', {'add_mean.bias': None}, r'add_mean\.bias is missing, expected \[3\]'),
    ('edsr-pytorch-x2', {'sub_mean.weight': (2, 1, 1, 1)},
     r'sub_mean\.weight is \[2, 1, 1, 1\], expected \[3, 3, 1, 1\]'),
    ('edsr-x2', {'body.999999999.conv1.weight': (4, 4, 3, 3)},
     r'body\.999999999\.conv1\.weight has a number beyond the \d+ tensors'),
    ('rrdb-x4', {'conv_up999999999999.weight': (4, 4, 3, 3)}, 'has a number beyond'),
    ('compact-x2', {'body.' + '9' * 5000 + '.weight': (4, 4)}, 'has a number beyond'),
    ('esrgan-old-x4', {'model.10.weight': None}, r'model\.10\.weight is missing'),
    ('esrgan-old-x4', {'model.10.weight': None, 'model.10.bias': None},
     r'model\.0, model\.3, model\.6, model\.8: one is missing or one too many'),
    ('compact-x2', {'body.2.weight': (4, 4)}, r'body\.2\.weight is \[4, 4\], expected'),
    ('msrresnet-x2', {'body.0.conv1.weight': None, 'body.0.conv1.bias': None},
     r'no network that is known here: \d+ tensors such as')])
def test_a_wrong_tensor_is_named(foreign, tmp_path, weights_command, case, change, message):
  tensors = dict(foreign(case)[0])
  for name, shape in change.items():
    tensors.pop(name, None)
    if shape:
      tensors[name] = np.zeros(shape, np.float32)
  path = tmp_path / 'wrong.safetensors'
  save_file(tensors, path)
  given = [f'--set={key}={value}' for key, value in CASES[case][0].items()]
  status, out, err = weights_command('import', path, '--workdir', tmp_path / 'run', *given)
  assert (status, out) == (1, '')
  assert err.count('\n') == 1
  assert re.search(r'wrong\.safetensors: ' + '.*' + message, err), err
  assert [file.name for file in tmp_path.iterdir()] == ['wrong.safetensors']


def test_a_mean_and_a_range_of_ones_own_are_read_from_the_shift(foreign, tmp_path):
  tensors = dict(foreign('edsr-pytorch-x2')[0])
  for shift, mean, image_range in (((-0.4488, -0.4371, -0.4040), (0.4488, 0.4371, 0.4040), 1.0),
                                   ((-127.5, -127.5, -51), (0.5, 0.5, 0.2), 255.0),
                                   ((-0.485, -0.456, -0.406), (0.485, 0.456, 0.406), 1.0)):
    tensors['sub_mean.bias'] = np.float32(shift)
    tensors['add_mean.bias'] = -np.float32(shift)
    save_file(tensors, tmp_path / 'a.safetensors')
    told = {'residual_scale': 1.0}
    if mean[0] != 0.4488:  # the product alone is in the file
      with pytest.raises(InputError, match='has a image_range that no tensor tells'):
        sr_jax.load(tmp_path / 'a.safetensors', fields=told)
      for wrong in ('x', 0, (1, 2)):
        with pytest.raises(InputError, match=r'a\.safetensors: '):
          sr_jax.load(tmp_path / 'a.safetensors', fields=told | {'image_range': wrong})
        with pytest.raises(InputError, match=r'a\.safetensors: '):
          sr_jax.load(tmp_path / 'a.safetensors',
                      fields=told | {'image_range': 255, 'mean': wrong})
      told['image_range'] = image_range
    model = sr_jax.load(tmp_path / 'a.safetensors', fields=told)
    assert model.generator.mean == pytest.approx(mean)
    assert model.generator.image_range == image_range
    written = generators.to_tensors('edsr-pytorch', 'edsr', model.generator, model.variables)
    assert same_bits(written, tensors) == []


def test_numbers_that_are_no_weights_are_refused(foreign, tmp_path):
  tensors, path = dict(foreign('compact-x2')[0]), tmp_path / 'a.safetensors'
  kernel = tensors['body.2.weight']
  for wrong, message in ((np.int32(kernel), r'is of type int32, expected a float'),
                         (kernel > 0, 'is of type bool'), (kernel * np.nan, 'infinite or none'),
                         (np.float64(kernel) * 1e300, 'infinite or none')):
    save_file(tensors | {'body.2.weight': wrong}, path)
    with pytest.raises(InputError, match=r'body\.2\.weight \[4, 4, 3, 3\] ' + f'.*{message}'):
      sr_jax.load(path)
  for kind in (np.float16, np.float64, ml_dtypes.bfloat16):
    save_file({name: tensor.astype(kind) for name, tensor in tensors.items()}, path)
    expected = sr_jax.load(foreign('compact-x2')[3]).variables
    if kind == np.float16:  # has fewer exponents
      expected = jax.tree.map(lambda leaf: np.float32(np.float16(leaf)), expected)
    assert same_bits(sr_jax.load(path).variables, expected) == []


@pytest.mark.parametrize(('metadata', 'message'), [
    ('{', 'damaged'), ('[' * 100_000, 'damaged'), ('{"blocks": {"a": 1}}', 'damaged'),
    ('{"__class__": 3}', 'damaged'), ('{"a.b": 3}', 'damaged'),
    ('{"blocks": null}', 'damaged'), ('3', 'damaged'),
    ('{"names": "sr_jax", "name": "x"}', "holds a 'x'; known are srcnn"),
    ('{"names": "sr_jax", "name": "edsr"}', 'states no scale'),
    ('{"names": "sr_jax", "name": "edsr", "scale": 2, "blocks": 1000000000}', 'tensors in all'),
    ('{"scale": 100000000, "inner_scale": 2}', 'expected at most 64'),
    ('{"inner_scale": "x"}', r'inner_scale=.x.: expected int \| None'),
    ('{"features": 2.5}', r'features=2\.5: expected int'),
    ('{"depth": 3}', 'depth: compact has no such field')])
def test_hostile_metadata_is_refused(foreign, tmp_path, metadata, message):
  save_file(foreign('compact-x2')[0], tmp_path / 'a.safetensors', {'sr_jax': metadata})
  with pytest.raises(InputError, match=r'a\.safetensors: .*' + message) as error:
    sr_jax.load(tmp_path / 'a.safetensors')
  assert '\n' not in str(error.value)


@pytest.mark.slow
def test_the_published_rrdb_of_23_blocks(assets):
  with np.load(assets / 'rrdb23_x4_realsr_df2k_expected.npz') as file:
    lr, expected = file['lr'], file['sr']
  model = sr_jax.load(assets / 'rrdb23_x4_realsr_df2k.safetensors')
  sr = jax.jit(model.generator.apply)(model.variables, lr[None])[0]
  np.testing.assert_allclose(sr, expected, rtol=0, atol=1e-4)
  tensors = generators.to_tensors('basicsr', 'rrdb', model.generator, model.variables)
  original = load_file(assets / 'rrdb23_x4_realsr_df2k.safetensors')  # kernels in float16
  assert same_bits(tensors, {name: np.float32(tensor) for name, tensor in original.items()}) == []


@pytest.fixture(scope='module')
def spandrel():
  """The package; of its torchvision it uses here nothing, and one made for CUDA can't be loaded
  beside a CPU build of PyTorch.
  """
  pytest.importorskip('torch')
  if importlib.util.find_spec('spandrel') is None:
    pytest.skip('spandrel is not installed')
  with pytest.MonkeyPatch.context() as patch:
    try:
      import torchvision  # noqa: F401
    except RuntimeError:
      for name in [name for name in sys.modules if name.split('.')[0] == 'torchvision']:
        patch.delitem(sys.modules, name)
      for name in ('torchvision', 'torchvision.transforms', 'torchvision.transforms.functional'):
        patch.setitem(sys.modules, name, mock.MagicMock())
    import spandrel
    yield spandrel


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'fields', 'families'), [
    *(('compact', {'scale': scale}, ['basicsr']) for scale in (2, 3, 4)),
    ('compact', {'scale': 4, 'channels': 1}, ['basicsr']),
    # spandrel takes a growth of 32 for granted.
    *(('rrdb', {'scale': scale, 'unshuffle': 4 // scale}, ['basicsr', 'esrgan', 'esrgan-old'])
      for scale in (1, 2, 4)),
    ('rrdb', {'scale': 2}, ['esrgan', 'esrgan-old']), ('rrdb', {'scale': 8}, ['esrgan-old']),
    ('rrdb', {'scale': 1}, ['esrgan-old'])], ids=str)
def test_spandrel_reads_what_is_exported(tmp_path, spandrel, name, fields, families):
  import torch
  model = GENERATORS[name](features=8, blocks=2, **fields)
  # Sides of which spandrel, which pads to multiples of 4, makes no larger ones.
  lr = np.random.default_rng(1).uniform(size=(1, 8, 4, model.channels)).astype(np.float32)
  variables = filled(model, np.zeros((1, 7, 6, 3), np.float32))
  own = np.asarray(jax.jit(model.apply)(variables, lr))
  low, high = np.percentile(own, (10, 90))  # spandrel clips to [0, 1]: most of it shall be inside
  last = variables['params']['last']
  if name == 'rrdb':
    last['kernel'] = last['kernel'] / (high - low)
    last['bias'] = (last['bias'] - low) / (high - low)
    own = np.asarray(jax.jit(model.apply)(variables, lr))
  for family in families:
    out = tmp_path / f'{family}.safetensors'
    generators.write_generator(out, family, name, model, variables)
    theirs = spandrel.ModelLoader().load_from_file(str(out))
    assert theirs.architecture.id == {'rrdb': 'ESRGAN', 'compact': 'Compact'}[name]
    assert (theirs.scale, theirs.input_channels) == (model.scale, model.channels)
    with torch.no_grad():
      sr = theirs(torch.tensor(lr).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(np.clip(own, 0, 1), sr, rtol=0, atol=1e-4)
    assert np.mean((sr > 0) & (sr < 1)) > 0.3
