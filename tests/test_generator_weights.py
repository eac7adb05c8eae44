"""Generators in weight files: agreement with PyTorch, round trips, refusal of wrong files."""

import pathlib
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy import ndimage

import sr_jax
from configs import srresnet
from sr_jax import images, restore
from sr_jax.errors import InputError
from sr_jax.models import GENERATORS, factory
from sr_jax.pretrained import families, generators
from tests.conftest import GOLDEN, filled, same_bits

EDSR = {'residual_scale': 0.1}
CASES = {  # network in foreign.npz: fields to give, family, name, some expected fields
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


def described(model: restore.Model) -> dict[str, Any]:
  return generators.architecture(model.generator)


@pytest.mark.parametrize('case', CASES)
def test_agreement_with_pytorch_and_round_trip(foreign: Callable, tmp_path: pathlib.Path,
                                               case: str) -> None:
  tensors, lr, sr, path = foreign(case)
  given, family, name, fields = CASES[case]
  model = sr_jax.load(path, fields=given)
  assert (model.family, model.config['generator']['name']) == (family, name)
  assert {key: model.fields[key] for key in fields} == fields
  actual = jax.jit(model.generator.apply)(model.variables, lr)
  np.testing.assert_allclose(actual, sr, rtol=0, atol=1e-5)
  if 'shrunk' in case:
    return  # no PyTorch project has this network; the tests below write it in our own names
  out = tmp_path / 'out.safetensors'
  generators.write_generator(out, family, name, model.generator, model.variables)
  written = load_file(out)
  assert same_bits(written, tensors) == []
  again = sr_jax.load(out)  # the fields that had to be given are in the file's metadata
  assert described(again) == described(model)
  assert same_bits(again.variables, model.variables) == []


def test_a_network_of_one_channel_processes_grey_as_it_is(tmp_path: pathlib.Path) -> None:
  """Other tools give grey in [0, 1] to the first layer, which here is done with SciPy."""
  network = GENERATORS['compact'](features=3, blocks=1, scale=2, channels=1, activation='relu')
  variables = filled(network, np.zeros((1, 8, 8, 1), np.float32))
  generators.write_generator(tmp_path / 'grey.safetensors', 'basicsr', 'compact', network,
                             variables)
  tensors = load_file(tmp_path / 'grey.safetensors')
  lr = np.random.default_rng(0).uniform(size=(9, 11))
  x = lr[None]
  for name in ('body.0', 'body.2', 'body.4'):
    x = np.maximum(x, 0)  # lr is not below zero
    x = np.stack([sum(ndimage.correlate(plane, kernel, mode='constant')
                      for plane, kernel in zip(x, kernels, strict=True)) + bias for kernels, bias in
                  zip(tensors[f'{name}.weight'], tensors[f'{name}.bias'], strict=True)])
  sr = x.reshape(2, 2, 9, 11).transpose(2, 0, 3, 1).reshape(18, 22) + lr.repeat(2, 0).repeat(2, 1)
  save_file(tensors, tmp_path / 'foreign.safetensors')  # without our metadata
  foreign = sr_jax.load(tmp_path / 'foreign.safetensors', fields={'activation': 'relu'})
  for model in (sr_jax.load(tmp_path / 'grey.safetensors'), foreign):
    np.testing.assert_allclose(model(np.float32(lr)), sr, atol=1e-6)
    np.testing.assert_allclose(model(np.float32(lr)[..., None].repeat(3, -1))[..., 1], sr,
                               atol=1e-6)


def test_every_generator_of_every_family_is_tested() -> None:
  """Here, or in tests/test_FAMILY.py for a family that has such a file."""
  here = {family: set(networks) for family, (_, _, networks, *_) in families.FAMILIES.items()
          if not pathlib.Path(__file__).with_name(f'test_{family}.py').exists()}
  assert set().union(*here.values()) == {name for _, _, name, _ in CASES.values()}
  assert set(here) == {family for _, family, _, _ in CASES.values()}
  assert all(set(family.networks) <= set(GENERATORS) for family in families.FAMILIES.values())


@pytest.mark.parametrize('name', GENERATORS)
def test_every_generator_round_trips_in_our_own_names(tmp_path: pathlib.Path, name: str) -> None:
  small = {'srcnn': {'widths': (4, 3)},
           'swinir': {'features': 6, 'blocks': 1},
           'hat': {'features': 12, 'blocks': 1, 'groups': 1, 'squeeze': 4, 'window': 4},
           'dat': {'features': 36, 'blocks': 2, 'groups': 1}}
  small = small.get(name, {'features': 4, 'blocks': 1})
  generator = factory.build_generator({'name': name, **small}, 2, 'float32')
  variables = filled(generator, np.zeros((1, 8, 8, 3), np.float32))
  out = tmp_path / 'out.safetensors'
  generators.write_generator(out, 'sr_jax', name, generator, variables)
  model = sr_jax.load(out)
  assert described(model) == generators.architecture(generator)
  assert same_bits(model.variables, {'batch_stats': {}} | variables) == []


@pytest.mark.parametrize(('family', 'name', 'fields'), [
    # Some fields have the module's default, and no tensor determines them.
    ('basicsr', 'edsr', {'scale': 2}), ('basicsr', 'edsr', {'mean': (0.5, 0.5, 0), 'scale': 3}),
    ('basicsr', 'msrresnet', {}), ('basicsr', 'compact', {'activation': 'relu'}),
    ('esrgan-old', 'rrdb', {'scale': 3}), ('basicsr', 'rrdb', {'channels': 1}),
    ('edsr-pytorch', 'edsr', {'image_range': 1.0, 'mean': (0.485, 0.456, 0.406)}),
    ('edsr-pytorch', 'edsr', {'image_range': 1.0, 'scale': 2})], ids=str)
def test_an_export_states_all_fields_of_its_network(tmp_path: pathlib.Path, family: str, name: str,
                                                    fields: dict[str, Any]) -> None:
  generator = GENERATORS[name](features=4, blocks=1, **fields)
  variables = filled(generator, np.zeros((1, 8, 8, 3), np.float32))
  out = tmp_path / 'out.safetensors'
  generators.write_generator(out, family, name, generator, variables)
  model = sr_jax.load(out)
  assert (model.family, model.name, described(model)) == (family, name,
                                                         generators.architecture(generator))
  assert same_bits(model.variables, {'batch_stats': {}} | variables) == []


def test_an_export_defaults_to_a_family_that_has_the_network() -> None:
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
    assert families.fitting_family(name, generator, first) == family


@pytest.mark.parametrize('variant', ['msr', 'msr,x3', 'small,msr', 'msr,sample,x2'])
def test_the_variant_msr_is_a_network_of_basicsr(tmp_path: pathlib.Path, variant: str) -> None:
  config = srresnet.get_config(variant)
  generator = factory.build_generator(config.generator, config.scale, 'float32')
  size = (generator.features, generator.blocks)
  assert size == {'msr': (64, 16), 'msr,x3': (64, 16), 'small,msr': (48, 8),
                  'msr,sample,x2': (24, 4)}[variant]
  assert families.fitting_family('msrresnet', generator) == 'basicsr'
  if 'sample' in variant:
    variables = filled(generator, np.zeros((1, 8, 8, 3), np.float32))
    out = tmp_path / 'out.safetensors'
    generators.write_generator(out, 'basicsr', 'msrresnet', generator, variables)
    model = sr_jax.load(out)
    assert described(model) == generators.architecture(generator)
    assert same_bits(model.variables, {'batch_stats': {}} | variables) == []


def test_networks_that_a_family_does_not_have_are_refused(tmp_path: pathlib.Path) -> None:
  def write(family: str, name: str, **fields: Any) -> None:
    generator = GENERATORS[name](features=4, blocks=1, **fields)
    variables = jax.eval_shape(generator.init, jax.random.key(0), np.zeros((1, 8, 8, 3)))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), variables)
    generators.write_generator(tmp_path / 'out.safetensors', family, name, generator, variables)

  for family, name, fields, message in (
      ('basicsr', 'msrresnet', {'output': 'tanh'}, "output='tanh'.*'linear'.*sr_jax"),
      ('basicsr', 'msrresnet', {'upsample': 'direct'}, "basicsr's msrresnet.*layers"),
      ('basicsr', 'msrresnet', {'skip': 'features'}, 'body_end.*basicsr'),
      ('basicsr', 'rrdb', {'upsample': 'shuffle'}, "upsample='shuffle'.*'nearest'"),
      ('basicsr', 'compact', {'scale': 2, 'inner_scale': 4}, "scale=2: basicsr's compact has 4"),
      ('basicsr', 'rrdb', {'scale': 8}, "basicsr's rrdb .*scale 8.*channels 3"),
      ('edsr-pytorch', 'edsr', {'channels': 1}, "edsr-pytorch's edsr .*scale 4.*channels 1"),
      ('basicsr', 'srresnet', {}, 'basicsr has no srresnet'),
      ('esrgan', 'edsr', {}, 'esrgan has no edsr'),
      ('caffe', 'edsr', {}, "names 'caffe': expected one of basicsr"),
  ):
    with pytest.raises(InputError, match=message):
      write(family, name, **fields)
  with pytest.raises(InputError, match=r'out\.txt: .*\.safetensors or \.pth'):
    generators.write_generator(tmp_path / 'out.txt', 'basicsr', 'edsr', None, {})
  assert list(tmp_path.iterdir()) == []


def test_wrappers_and_module_prefixes_of_pth_files() -> None:
  averaged = sr_jax.load(GOLDEN / 'wrapped.pth')
  assert 'params_ema' in averaged.origin
  plain = sr_jax.load(GOLDEN / 'wrapped.pth', wrapper='params')
  kernels = (model.variables['params']['layers_0']['kernel'] for model in (averaged, plain))
  np.testing.assert_allclose(next(kernels) - next(kernels), 1, rtol=1e-6)
  assert (plain.scale, plain.fields['features'], plain.fields['blocks']) == (2, 4, 2)
  with pytest.raises(InputError, match=r"wrapped\.pth: .*'net'.*params, params_ema, epoch"):
    sr_jax.load(GOLDEN / 'wrapped.pth', wrapper='net')
  with pytest.raises(InputError, match=r"wrapped\.pth: .*'optimizer'.*params, params_ema"):
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
     r'conv1x1\.weight \[4, 4, 1, 1\] .*rrdb'),
    ('edsr-x2', {'upsample.0.weight': (15, 4, 3, 3)}, r'upsample\.0\.weight.*15 is not 4 times'),
    ('edsr-x2', {'body.7.conv1.weight': (4, 4, 3, 3)}, r'body\.2\.conv1\.\w+ is missing'),
    ('edsr-pytorch-x2', {'add_mean.bias': (3,)}, r'add_mean\.bias is \[0.*expected \[114\.4'),
    ('edsr-pytorch-x2', {'sub_mean.bias': (1,)}, r'sub_mean\.bias is \[1\], expected \[3\]'),
    ('edsr-pytorch-x2', {'add_mean.bias': None}, r'add_mean\.bias is missing, expected \[3\]'),
    ('edsr-pytorch-x2', {'sub_mean.weight': (2, 1, 1, 1)},
     r'sub_mean\.weight is \[2, 1, 1, 1\], expected \[3, 3, 1, 1\]'),
    ('edsr-x2', {'body.999999999.conv1.weight': (4, 4, 3, 3)},
     r'body\.999999999\.conv1\.weight: .*\b17 tensors'),
    ('rrdb-x4', {'conv_up999999999999.weight': (4, 4, 3, 3)},
     r'conv_up999999999999\.weight: .*\b43 tensors'),
    ('compact-x2', {'body.' + '9' * 5000 + '.weight': (4, 4)},
     r'body\.9{75}: .*\b12 tensors'),
    ('esrgan-old-x4', {'model.10.weight': None}, r'model\.10\.weight is missing'),
    ('esrgan-old-x4', {'model.10.weight': None, 'model.10.bias': None},
     r'model\.0, model\.3, model\.6, model\.8: one is missing'),
    ('compact-x2', {'body.2.weight': (4, 4)}, r'body\.2\.weight is \[4, 4\], expected'),
    ('msrresnet-x2', {'body.0.conv1.weight': None, 'body.0.conv1.bias': None},
     r'\b14 tensors such as body\.0\.conv2\.bias \[4\]')])
def test_a_wrong_tensor_is_named(
    foreign: Callable, tmp_path: pathlib.Path, weights_command: Callable, case: str,
    change: dict[str, tuple[int, ...] | None], message: str) -> None:
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


def test_another_mean_and_range_are_read_from_the_shift(foreign: Callable,
                                                        tmp_path: pathlib.Path) -> None:
  tensors = dict(foreign('edsr-pytorch-x2')[0])
  for shift, mean, image_range in (((-0.4488, -0.4371, -0.4040), (0.4488, 0.4371, 0.4040), 1.0),
                                   ((-127.5, -127.5, -51), (0.5, 0.5, 0.2), 255.0),
                                   ((-0.485, -0.456, -0.406), (0.485, 0.456, 0.406), 1.0)):
    tensors['sub_mean.bias'] = np.float32(shift)
    tensors['add_mean.bias'] = -np.float32(shift)
    save_file(tensors, tmp_path / 'a.safetensors')
    given = {'residual_scale': 1.0}
    if mean[0] != 0.4488:  # not DIV2K's mean, and the file contains only the product
      with pytest.raises(InputError, match='--set image_range=VALUE'):
        sr_jax.load(tmp_path / 'a.safetensors', fields=given)
      for wrong in ('x', 0, (1, 2)):
        with pytest.raises(InputError, match=r'a\.safetensors: '):
          sr_jax.load(tmp_path / 'a.safetensors', fields=given | {'image_range': wrong})
        with pytest.raises(InputError, match=r'a\.safetensors: '):
          sr_jax.load(tmp_path / 'a.safetensors',
                      fields=given | {'image_range': 255, 'mean': wrong})
      given['image_range'] = image_range
    model = sr_jax.load(tmp_path / 'a.safetensors', fields=given)
    assert model.generator.mean == pytest.approx(mean)
    assert model.generator.image_range == image_range
    written = generators.to_tensors('edsr-pytorch', 'edsr', model.generator, model.variables)
    assert same_bits(written, tensors) == []


def test_values_that_are_not_finite_floats_are_refused(foreign: Callable,
                                                       tmp_path: pathlib.Path) -> None:
  tensors, path = dict(foreign('compact-x2')[0]), tmp_path / 'a.safetensors'
  kernel = tensors['body.2.weight']
  for wrong, message in ((np.int32(kernel), 'int32.*float'), (kernel > 0, 'bool'),
                         (kernel * np.nan, 'non-finite'),
                         (np.float64(kernel) * 1e300, 'non-finite')):
    save_file(tensors | {'body.2.weight': wrong}, path)
    with pytest.raises(InputError, match=r'body\.2\.weight \[4, 4, 3, 3\] ' + f'.*{message}'):
      sr_jax.load(path)
  for kind in (np.float16, np.float64, ml_dtypes.bfloat16):
    save_file({name: tensor.astype(kind) for name, tensor in tensors.items()}, path)
    expected = sr_jax.load(foreign('compact-x2')[3]).variables
    if kind == np.float16:  # has fewer exponents than the others
      expected = jax.tree.map(lambda leaf: np.float32(np.float16(leaf)), expected)
    assert same_bits(sr_jax.load(path).variables, expected) == []


@pytest.mark.parametrize(('metadata', 'message'), [
    ('{', 'damaged'), ('[' * 100_000, 'damaged'), ('{"blocks": {"a": 1}}', 'damaged'),
    ('{"__class__": 3}', 'damaged'), ('{"a.b": 3}', 'damaged'),
    ('{"blocks": null}', 'damaged'), ('3', 'damaged'),
    ('{"names": "sr_jax", "name": "x"}', "'x'.*srcnn, srresnet"),
    ('{"names": "sr_jax", "name": "edsr"}', 'no scale'),
    ('{"names": "sr_jax", "name": "edsr", "scale": 2, "blocks": 1000000000}',
     r'blocks=1000000000 .*\b11 tensors'),
    ('{"scale": 100000000, "inner_scale": 2}', 'scale=100000000: .*64'),
    ('{"inner_scale": "x"}', r'inner_scale=.x.: .*int \| None'),
    ('{"features": 2.5}', r'features=2\.5: .*int'),
    ('{"depth": 3}', 'depth: compact ')])
def test_hostile_metadata_is_refused(foreign: Callable, tmp_path: pathlib.Path, metadata: str,
                                     message: str) -> None:
  save_file(foreign('compact-x2')[0], tmp_path / 'a.safetensors', {'sr_jax': metadata})
  with pytest.raises(InputError, match=r'a\.safetensors: .*' + message) as error:
    sr_jax.load(tmp_path / 'a.safetensors')
  assert '\n' not in str(error.value)


@pytest.mark.slow
def test_the_published_rrdb_of_23_blocks(assets: pathlib.Path) -> None:
  with np.load(assets / 'rrdb23_x4_realsr_df2k_expected.npz') as file:
    lr, expected = file['lr'], file['sr']
  model = sr_jax.load(assets / 'rrdb23_x4_realsr_df2k.safetensors')
  sr = jax.jit(model.generator.apply)(model.variables, lr[None])[0]
  np.testing.assert_allclose(sr, expected, rtol=0, atol=1e-4)
  tensors = generators.to_tensors('basicsr', 'rrdb', model.generator, model.variables)
  original = load_file(assets / 'rrdb23_x4_realsr_df2k.safetensors')  # kernels in float16
  assert same_bits(tensors, {name: np.float32(tensor) for name, tensor in original.items()}) == []


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'fields', 'families'), [
    *(('compact', {'scale': scale}, ['basicsr']) for scale in (2, 3, 4)),
    ('compact', {'scale': 4, 'channels': 1}, ['basicsr']),
    ('rrdb', {'scale': 4, 'channels': 1}, ['basicsr']),
    # spandrel assumes a growth of 32, the default.
    *(('rrdb', {'scale': scale, 'unshuffle': 4 // scale}, ['basicsr', 'esrgan', 'esrgan-old'])
      for scale in (1, 2, 4)),
    ('rrdb', {'scale': 2}, ['esrgan', 'esrgan-old']), ('rrdb', {'scale': 8}, ['esrgan-old']),
    ('rrdb', {'scale': 1}, ['esrgan-old'])], ids=str)
def test_spandrel_reads_exports(tmp_path: pathlib.Path, spandrel: ModuleType, name: str,
                                fields: dict[str, int], families: list[str]) -> None:
  import torch
  model = GENERATORS[name](features=8, blocks=2, **fields)
  # Multiples of 4, to which spandrel would pad the image.
  lr = np.random.default_rng(1).uniform(size=(1, 8, 4, model.channels)).astype(np.float32)
  variables = filled(model, np.zeros((1, 7, 6, 3), np.float32))
  own = np.asarray(jax.jit(model.apply)(variables, images.as_rgb(lr)))
  # spandrel clips to [0, 1], so the output is moved there.
  low, high = np.percentile(own, (10, 90))
  last = variables['params']['last']
  if name == 'rrdb':
    last['kernel'] = last['kernel'] / (high - low)
    last['bias'] = (last['bias'] - low) / (high - low)
  for family in families:
    out = tmp_path / f'{family}.safetensors'
    generators.write_generator(out, family, name, model, variables)
    theirs = spandrel.ModelLoader().load_from_file(str(out))
    assert theirs.architecture.id == {'rrdb': 'ESRGAN', 'compact': 'Compact'}[name]
    assert (theirs.scale, theirs.input_channels) == (model.scale, model.channels)
    with torch.no_grad():
      sr = theirs(torch.tensor(lr).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    own = sr_jax.load(out)(lr)
    np.testing.assert_allclose(np.clip(own, 0, 1), sr, rtol=0, atol=1e-4)
    assert np.mean((sr > 0) & (sr < 1)) > 0.3
