"""python -m sr_jax.weights: info, import, export, interpolate, and what each refuses."""

import re
import signal

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import sr_jax
from sr_jax import images, upscale
from sr_jax.pretrained import generators
from sr_jax.runs.checkpoints import Checkpoints
from tests.conftest import same_bits


def test_what_no_tensor_tells_is_asked_for(foreign, tmp_path, weights_command):
  path = foreign('edsr-x2')[3]
  status, _, err = weights_command('info', path)
  assert (status, err.count('\n')) == (1, 1)
  assert 'residual_scale that no tensor tells: name it with --set residual_scale=VALUE' in err
  status, out, _ = weights_command('info', path, '--set', 'residual_scale=0.1', '--tensors')
  assert status == 0
  assert re.search(r'network +edsr\n', out)
  assert re.search(r'residual_scale +0\.1\n', out)
  assert re.search(r'image_range +255\.0 \(usual; the file does not say\)', out)
  assert re.search(r'conv_first\.weight +\[4, 3, 3, 3\] +mean', out)
  for setting, message in (('residual_scale', 'expected FIELD=VALUE'), ('=3', 'FIELD=VALUE'),
                           ('depth=3', r'x2\.safetensors: depth: edsr .*blocks'),
                           ('residual_scale=big', 'expected float'), ('blocks=0', 'at least 1'),
                           ('mean=(1,2)', 'three numbers'), ('features=2.5', 'expected int'),
                           ('kernel_init=3', 'no such field'), ('scale=5', 'scale=5: expected'),
                           ('scale=65', 'at most 64'), ('image_range=0', 'more than 0'),
                           ('image_range=inf', 'expected float'), ('name=srcnn', 'can not be set'),
                           ('dtype=bfloat16', 'can not be set'), ('wrapper=x', 'no such field'),
                           ('source=x', 'no such field'), ('step=3', 'no such field'),
                           ('residual_scale=0.2', 'each once'), ('blocks=10**9', 'expected int'),
                           ('blocks=1000000000', 'tensors in all')):
    settings = ['--set', setting]
    if not setting.startswith('residual_scale=b'):
      settings += ['--set', 'residual_scale=0.1']
    status, out, err = weights_command('import', path, '--workdir', tmp_path / 'run', *settings)
    assert (status, out, err.count('\n')) == (1, '', 1)
    assert re.search(message, err), err
  # The paper's two networks are known by their size.
  for features, blocks, scale in ((64, 16, 1.0), (256, 32, 0.1)):
    assert generators.basicsr.edsr_unstated(features, blocks)['residual_scale'].assumed == scale
  # Without slopes, the activation.
  tensors = {name: tensor for name, tensor in foreign('compact-x2')[0].items() if tensor.ndim == 4
             or name.endswith('bias')}
  save_file(tensors, tmp_path / 'relu.safetensors')
  assert '--set activation=VALUE' in weights_command('info', tmp_path / 'relu.safetensors')[2]
  model = sr_jax.load(tmp_path / 'relu.safetensors', fields={'activation': 'leaky_relu'})
  assert model.generator.activation == 'leaky_relu'


@pytest.fixture
def imported(foreign, tmp_path, weights_command):
  """A run made of esrgan-old-x2, x2."""
  path = foreign('esrgan-old-x2')[3]
  status, out, err = weights_command('import', path, '--workdir', tmp_path / 'run')
  assert (status, err) == (0, '')
  assert out == (f'{tmp_path}/run: rrdb (features 4, blocks 1, growth 1, unshuffle 1, upsample '
                 f'nearest, channels 3, scale 2 (usual)) from {path} '
                 '(safetensors), esrgan-old names\n')
  return tmp_path / 'run'


def test_an_imported_run_is_exported_evaluated_and_upscales(foreign, imported, tmp_path, picture,
                                                            weights_command, call):
  tensors, _, _, path = foreign('esrgan-old-x2')
  out = tmp_path / 'out.safetensors'
  status, text, _ = weights_command('export', '--workdir', imported, '--output', out)
  assert (status, text) == (0, f'{out}: rrdb, esrgan-old names, {imported}, step 0\n')
  assert same_bits(load_file(out), tensors) == []
  status, text, _ = weights_command('info', imported, '--tensors')
  assert re.search(r'names +esrgan-old\n.*model\.0\.weight +\[4, 3, 3, 3\]', text, re.S)
  weights_command('export', '--workdir', imported, '--output', out, '--names', 'esrgan', '--raw')
  assert 'conv_first.weight' in load_file(out)
  assert same_bits(sr_jax.load(out).variables, sr_jax.load(path).variables) == []

  hr = picture(20, 24)
  images.write_image(tmp_path / 'set' / 'a.png', hr)
  from configs import srresnet
  from sr_jax.evaluate import evaluate_run
  config = srresnet.get_config('sample')  # of another network and scale
  config.eval.sets, config.eval.lpips = str(tmp_path / 'set'), 'none'
  results = evaluate_run(config, imported)
  assert results['set']['scale'] == 2
  low = images.imresize(hr, 1 / 2)
  images.write_image(tmp_path / 'low' / 'in' / 'a.png', low)
  status, text, _ = call(upscale.main, str(tmp_path / 'low'), '--output', 'large', '--workdir',
                         str(imported))
  assert status == 0
  assert text.endswith(f'\n1 of 1 upscaled x2 to large by {imported}, step 0\n')
  large = images.read_image(tmp_path / 'large' / 'in' / 'a.png')
  np.testing.assert_array_equal(large, images.read_image(imported / 'eval' / 'set-0' / 'a.png'))
  np.testing.assert_array_equal(large, sr_jax.load(imported)(low))


def test_half_an_import_never_stays(foreign, tmp_path, weights_command, monkeypatch):
  path = foreign('rrdb-x4')[3]
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'notes.txt').write_text('mine')
  status, _, err = weights_command('import', path, '--workdir', tmp_path / 'run')
  assert status == 1
  assert err == f'sr_jax: {tmp_path}/run: is there already; name a new folder\n'
  (tmp_path / 'run' / 'notes.txt').unlink()

  save = Checkpoints.save
  for number in (signal.SIGINT, signal.SIGTERM):
    def interrupted(*arguments, number=number):
      signal.raise_signal(number)
      save(*arguments)

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    with monkeypatch.context() as patch:
      patch.setattr(Checkpoints, 'save', interrupted)
      assert weights_command('import', path, '--workdir', tmp_path / 'run')[0] == 130
    signal.signal(signal.SIGTERM, before)
  assert [str(file.relative_to(tmp_path)) for file in tmp_path.rglob('*')] == ['run']
  # An empty folder is fine.
  assert weights_command('import', path, '--workdir', tmp_path / 'run')[0] == 0
  assert sorted(file.name for file in (tmp_path / 'run').iterdir()) == ['checkpoints',
                                                                        'config.json']


def test_interpolation(foreign, tmp_path, weights_command, imported):
  tensors, _, _, a = foreign('esrgan-old-x2')
  other = {name: tensor[::-1] + 1 for name, tensor in tensors.items()}
  b = tmp_path / 'b.safetensors'
  save_file({name: np.ascontiguousarray(tensor) for name, tensor in other.items()}, b)
  out = tmp_path / 'out.safetensors'
  for alpha in (0, 0.25, 1):
    assert weights_command('interpolate', imported, b, '--alpha', alpha, '--output', out)[0] == 0
    found = load_file(out)
    for name, tensor in tensors.items():
      expected = (1 - alpha) * tensor + alpha * other[name]
      np.testing.assert_allclose(found[name], expected, rtol=1e-6, atol=1e-7)
      if alpha in (0, 1):
        assert same_bits(found[name], [tensor, other[name]][alpha]) == []
  x4 = foreign('esrgan-old-x4')[3]
  for arguments, message in (((a, x4, '--alpha', 0.5), 'has scale=2, .* 4'),
                             ((a, foreign('compact-x2')[3], '--alpha', 0.5),
                              "has network='RRDB', .* 'Compact'"),
                             ((a, b, '--alpha', 1.5), r'alpha=1\.5: expected 0 to 1'),
                             ((a, b, '--alpha', 'nan'), 'alpha=nan'),
                             ((a, tmp_path / 'none.pth', '--alpha', 0), r'none\.pth: no run'),
                             ((a, tmp_path / 'c.safetensors', '--alpha', 0), 'overwrite'),
                             ((a, b, '--alpha', 'x'), 'invalid float')):
    output = tmp_path / 'c.safetensors'
    status, text, err = weights_command('interpolate', *arguments, '--output', output)
    assert (status, text, err.count('\n')) == (1, '', 1)
    assert re.search(message, err), err
  assert not (tmp_path / 'c.safetensors').exists()


def test_wrong_arguments_are_one_line(foreign, tmp_path, weights_command, imported):
  path = foreign('rrdb-x4')[3]
  (tmp_path / 'text.safetensors').write_text('hello')
  cut = tmp_path / 'cut.safetensors'
  cut.write_bytes(path.read_bytes()[:-100])
  other = tmp_path / 'other.safetensors'
  save_file({'conv1.weight': np.zeros((3, 3), np.float32)}, other)
  run = tmp_path / 'new'
  for arguments, message in (
      (('info',), 'required: FILE'), ((), 'required: ACTION'), (('inf', path), "'inf'"),
      (('info', tmp_path / 'none.pth'), r'none\.pth: no run, no weight file and no published'),
      (('info', cut), r'cut\.safetensors: not a readable weight file'),
      (('info', tmp_path / 'text.safetensors'), r'text\.safetensors: not a readable'),
      (('info', other), r'other\.safetensors: no network that is known here: 1 tensors such as '
       r'conv1\.weight \[3, 3\]'),
      (('info', ''), 'the empty name of a network'), (('info', 'x' * 300), 'File name too long'),
      (('info', path, '--key', 'params'), "has no 'params'"),
      (('info', imported, '--set', 'blocks=3'), 'is a run, whose network is known'),
      (('import', path), 'required: --workdir'), (('import', path, '--workdir', ''), 'empty name'),
      (('import', other, '--workdir', run), 'no network'),
      (('export', '--workdir', run, '--output', 'a.safetensors'), 'new: no run there'),
      (('export', '--workdir', tmp_path, '--output', 'a.safetensors'), r'no readable config\.json'),
      (('export', '--workdir', imported, '--output', 'a.pth'), r'a\.pth: only \.safetensors'),
      (('export', '--workdir', imported, '--output', 'a.safetensors', '--names', 'x'), "names 'x'"),
      (('export', '--workdir', imported, '--output', 'a.safetensors', '--step', '7'),
       'no checkpoint of step 7, but of'),
      (('export', '--workdir', imported, '--output', 'a.safetensors', '--step', 'best'), 'best by'),
      (('export', '--workdir', imported, '--output', '/proc/none/a.safetensors'), 'be written')):
    status, text, err = weights_command(*arguments)
    assert (status, text, err.count('\n')) == (1, '', 1), err
    assert re.search(message, err), err
  assert not run.exists()
  assert not list(tmp_path.glob('a.*'))
