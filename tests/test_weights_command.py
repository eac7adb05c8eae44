"""sr-jax weights: info, import, export and interpolate, and wrong arguments."""

import json
import pathlib
import re
import resource
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import sr_jax
from sr_jax import images, upscale
from sr_jax.pretrained import basicsr
from sr_jax.runs.checkpoints import Checkpoints
from tests.conftest import same_bits


def test_fields_that_no_tensor_determines_must_be_given(
    foreign: Callable, tmp_path: pathlib.Path, weights_command: Callable) -> None:
  path = foreign('edsr-x2')[3]
  status, out, _ = weights_command('info', path)
  assert status == 0
  assert re.search(r'network +edsr\n.*residual_scale +unknown.*--set residual_scale=V', out, re.S)
  status, _, err = weights_command('import', path, '--workdir', tmp_path / 'run')
  assert (status, err.count('\n')) == (1, 1)
  assert re.search(r'edsr-x2\.safetensors: .*--set residual_scale=VALUE', err)
  status, out, _ = weights_command('info', path, '--set', 'residual_scale=0.1', '--tensors')
  assert status == 0
  assert re.search(r'network +edsr\n', out)
  assert re.search(r'residual_scale +0\.1\n', out)
  assert re.search(r'image_range +255\.0 \(assumed', out)
  assert re.search(r'conv_first\.weight +\[4, 3, 3, 3\] +mean', out)
  for setting, message in (('residual_scale', '--set residual_scale: .*FIELD=VALUE'),
                           ('=3', '--set =3: .*FIELD=VALUE'),
                           ('depth=3', r'x2\.safetensors: depth: edsr .*blocks'),
                           ('residual_scale=big', "residual_scale='big': .*float"),
                           ('blocks=0', 'blocks=0: .*1'), ('mean=(1,2)', 'mean.*three'),
                           ('features=2.5', r'features=2\.5: .*int'),
                           ('kernel_init=3', 'kernel_init: edsr'), ('scale=5', 'scale=5: '),
                           ('scale=65', 'scale=65: .*64'), ('image_range=0', 'image_range=0: .*0'),
                           ('image_range=inf', 'image_range=.*float'),
                           ('name=srcnn', r'x2\.safetensors: name '),
                           ('dtype=bfloat16', r'x2\.safetensors: dtype '),
                           ('wrapper=x', 'wrapper: edsr'), ('source=x', 'source: edsr'),
                           ('step=3', 'step: edsr'),
                           ('residual_scale=0.2', r'--set residual_scale=0\.'),
                           ('blocks=10**9', r"blocks='10\*\*9': .*int"),
                           ('blocks=1000000000', r'blocks=1000000000 .*\b16 tensors')):
    settings = ['--set', setting]
    if not setting.startswith('residual_scale=b'):
      settings += ['--set', 'residual_scale=0.1']
    status, out, err = weights_command('import', path, '--workdir', tmp_path / 'run', *settings)
    assert (status, out, err.count('\n')) == (1, '', 1)
    assert re.search(message, err), err
  # The two networks of the paper are recognised by their size.
  for features, blocks, scale in ((64, 16, 1.0), (256, 32, 0.1)):
    assert basicsr.edsr_unstated(features, blocks)['residual_scale'].assumed == scale
  # Without slopes the activation is not determined.
  tensors = {name: tensor for name, tensor in foreign('compact-x2')[0].items() if tensor.ndim == 4
             or name.endswith('bias')}
  save_file(tensors, tmp_path / 'relu.safetensors')
  assert '--set activation=VALUE' in weights_command('info', tmp_path / 'relu.safetensors')[1]
  model = sr_jax.load(tmp_path / 'relu.safetensors', fields={'activation': 'leaky_relu'})
  assert model.generator.activation == 'leaky_relu'


def test_info_of_an_unknown_network_prints_what_is_known(
    foreign: Callable, tmp_path: pathlib.Path, weights_command: Callable) -> None:
  """Import refuses the same files."""
  tensors = foreign('compact-x2')[0]
  path = tmp_path / 'file.safetensors'
  count = sum(tensor.size for tensor in tensors.values())
  named = json.dumps({'name': 'unheard', 'names': 'sr_jax', 'scale': 4})
  cases = {  # {case: (tensors, metadata, what is printed)}
      'field': (tensors, {'sr_jax': '{"depth": 3}'}, r'network +compact\n.*features +4\n.*'
                r'problem +depth: compact has no such field'),
      'generator': (tensors, {'sr_jax': named}, "network +unknown\n.*problem .*'unheard'"),
      'damaged': (tensors, {'sr_jax': '{'}, 'network +compact\n.*problem .*sr_jax.*damaged'),
      'names': ({f'{index}.w': np.zeros((2, 3), np.float16) for index in range(12)},
                {'author': 'me\x1b[2J\nnetwork known'}, r'network +unknown\n.*author +me \[2J net.*'
                r'72 in 12 arrays.*float16 \(12\).*0\.w \[2, 3\] float16.* and 2 more'),
      'missing': ({name: tensor for name, tensor in tensors.items() if name != 'body.0.bias'}, {},
                  r'network +compact\n.*problem +body\.0\.bias is missing')}
  for stored, metadata, printed in cases.values():
    save_file(stored, path, metadata)
    status, out, err = weights_command('info', path)
    assert (status, err) == (0, '')
    assert re.search(printed, out, re.S), out
    if len(stored) == len(tensors):
      assert f'{count:,} in {len(tensors)} arrays' in out
    status, out, err = weights_command('import', path, '--workdir', tmp_path / 'run')
    assert (status, out, err.count('\n')) == (1, '', 1)
    assert not (tmp_path / 'run').exists()
  assert re.search(r'\nbody\.6\.weight +\[12, 4, 3, 3\] float32', weights_command(
      'info', path, '--tensors')[1])
  for arguments in ((path, '--set', 'depth=3'), (path, '--key', 'x'), (tmp_path / 'none.pth',)):
    assert weights_command('info', *arguments)[0] == 1
  path.write_bytes(b'nothing')
  assert weights_command('info', path)[0] == 1


@pytest.fixture
def imported(foreign: Callable, tmp_path: pathlib.Path, weights_command: Callable) -> pathlib.Path:
  """A run imported from the network esrgan-old-x2."""
  path = foreign('esrgan-old-x2')[3]
  status, out, err = weights_command('import', path, '--workdir', tmp_path / 'run')
  assert (status, err) == (0, '')
  fields = ('features 4, blocks 1, growth 1, unshuffle 1, upsample nearest, channels 3, '
            'scale 2 (assumed)')
  for text in (f'{tmp_path}/run: ', fields, f'{path} (safetensors)', 'esrgan-old'):
    assert text in out
  assert out.count('\n') == 1
  return tmp_path / 'run'


def test_an_imported_run_can_be_exported(foreign: Callable, imported: pathlib.Path,
                                         tmp_path: pathlib.Path, weights_command: Callable) -> None:
  tensors, _, _, path = foreign('esrgan-old-x2')
  out = tmp_path / 'out.safetensors'
  status, text, _ = weights_command('export', '--workdir', imported, '--output', out)
  assert status == 0
  assert re.search(rf'^{out}: .*rrdb, esrgan-old names.*{imported}, step 0\n$', text)
  assert same_bits(load_file(out), tensors) == []
  status, text, _ = weights_command('info', imported, '--tensors')
  assert re.search(r'names +esrgan-old\n.*model\.0\.weight +\[4, 3, 3, 3\]', text, re.S)
  out = tmp_path / 'raw.safetensors'
  weights_command('export', '--workdir', imported, '--output', out, '--names', 'esrgan', '--raw')
  assert 'conv_first.weight' in load_file(out)
  assert same_bits(sr_jax.load(out).variables, sr_jax.load(path).variables) == []


def test_an_imported_run_can_be_evaluated_and_used_for_upscaling(
    foreign: Callable, tmp_path: pathlib.Path, picture: Callable, weights_command: Callable,
    call: Callable, capsys: pytest.CaptureFixture) -> None:
  imported = tmp_path / 'run'
  assert weights_command('import', foreign('compact-x2')[3], '--workdir', imported)[0] == 0
  hr = picture(20, 24)
  images.write_image(tmp_path / 'set' / 'a.png', hr)
  from configs import srresnet
  from sr_jax.evaluate import evaluate
  config = srresnet.get_config('sample')  # which has another network and scale
  config.eval.sets, config.eval.lpips = str(tmp_path / 'set'), 'none'
  results = evaluate(imported, config=config)
  assert results['set']['scale'] == 2
  unused = capsys.readouterr().out.splitlines()[0]
  assert "config.generator.name 'compact' (not 'msrresnet')" in unused
  assert 'config.scale 2 (not 4)' in unused
  low = images.imresize(hr, 1 / 2)
  images.write_image(tmp_path / 'low' / 'in' / 'a.png', low)
  status, text, _ = call(upscale.main, str(tmp_path / 'low'), '--output', 'large', '--workdir',
                         str(imported))
  assert status == 0
  assert text.endswith(f'Upscaled 1 of 1 x2 to large with {imported}, step 0\n')
  large = images.read_image(tmp_path / 'large' / 'in' / 'a.png')
  np.testing.assert_array_equal(large, images.read_image(imported / 'eval' / 'set-0' / 'a.png'))
  np.testing.assert_array_equal(large, sr_jax.load(imported)(low))


def test_an_interrupted_import_leaves_no_files(
    foreign: Callable, tmp_path: pathlib.Path, weights_command: Callable,
    monkeypatch: pytest.MonkeyPatch) -> None:
  path = foreign('rrdb-x4')[3]
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'notes.txt').write_text('mine')
  status, _, err = weights_command('import', path, '--workdir', tmp_path / 'run')
  assert status == 1
  assert err.startswith(f'sr_jax: {tmp_path}/run: ')
  assert err.count('\n') == 1
  (tmp_path / 'run' / 'notes.txt').unlink()

  save = Checkpoints.save
  for number in (signal.SIGINT, signal.SIGTERM):
    def interrupted(*arguments: Any, number: int = number) -> None:
      signal.raise_signal(number)
      save(*arguments)

    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    with monkeypatch.context() as patch:
      patch.setattr(Checkpoints, 'save', interrupted)
      assert weights_command('import', path, '--workdir', tmp_path / 'run')[0] == 130
    signal.signal(signal.SIGTERM, previous)
  assert [str(file.relative_to(tmp_path)) for file in tmp_path.rglob('*')] == ['run']
  # An empty folder may exist.
  assert weights_command('import', path, '--workdir', tmp_path / 'run')[0] == 0
  assert sorted(file.name for file in (tmp_path / 'run').iterdir()) == ['checkpoints',
                                                                        'config.json']


def test_interpolation(foreign: Callable, tmp_path: pathlib.Path,
                       weights_command: Callable) -> None:
  tensors, _, _, a = foreign('compact-x2')
  imported = tmp_path / 'run'
  assert weights_command('import', a, '--workdir', imported)[0] == 0
  other = {name: tensor[::-1] + 1 for name, tensor in tensors.items()}
  b = tmp_path / 'b.safetensors'
  save_file({name: np.ascontiguousarray(tensor) for name, tensor in other.items()}, b)
  out = tmp_path / 'out.safetensors'
  for alpha in (0, 0.25, 1):
    assert weights_command('interpolate', imported, b, '--alpha', alpha, '--output', out)[0] == 0
    mixed = load_file(out)
    for name, tensor in tensors.items():
      expected = (1 - alpha) * tensor + alpha * other[name]
      np.testing.assert_allclose(mixed[name], expected, rtol=1e-6, atol=1e-7)
      if alpha in (0, 1):
        assert same_bits(mixed[name], [tensor, other[name]][alpha]) == []
  x4 = foreign('compact-x4')[3]
  for arguments, message in (((a, x4, '--alpha', 0.5), 'scale=2, .* 4'),
                             ((a, foreign('rrdb-x2')[3], '--alpha', 0.5),
                              "network='Compact', .* 'RRDB'"),
                             ((a, b, '--alpha', 1.5), r'alpha=1\.5: .*0 to 1'),
                             ((a, b, '--alpha', 'nan'), 'alpha=nan'),
                             ((a, tmp_path / 'none.pth', '--alpha', 0), r'none\.pth: .*realsr'),
                             ((a, tmp_path / 'c.safetensors', '--alpha', 0),
                              r'c\.safetensors: .*overwrite'),
                             ((a, b, '--alpha', 'x'), "--alpha: .*'x'")):
    output = tmp_path / 'c.safetensors'
    status, text, err = weights_command('interpolate', *arguments, '--output', output)
    assert (status, text, err.count('\n')) == (1, '', 1)
    assert re.search(message, err), err
  assert not (tmp_path / 'c.safetensors').exists()


def test_wrong_arguments_are_one_line(foreign: Callable, tmp_path: pathlib.Path,
                                      weights_command: Callable, imported: pathlib.Path) -> None:
  path = foreign('rrdb-x4')[3]
  (tmp_path / 'text.safetensors').write_text('hello')
  cut = tmp_path / 'cut.safetensors'
  cut.write_bytes(path.read_bytes()[:-100])
  other = tmp_path / 'other.safetensors'
  save_file({'conv1.weight': np.zeros((3, 3), np.float32)}, other)
  run = tmp_path / 'new'
  for arguments, message in (
      (('info',), 'required: FILE'), ((), 'required: ACTION'), (('inf', path), "'inf'"),
      (('info', tmp_path / 'none.pth'), r'none\.pth: .*realsr-df2k'),
      (('info', cut), r'cut\.safetensors: .*weight file'),
      (('info', tmp_path / 'text.safetensors'), r'text\.safetensors: .*weight file'),
      (('info', ''), 'name of the network is empty'), (('info', 'x' * 300), 'File name too long'),
      (('info', path, '--key', 'params'), r"rrdb-x4\.safetensors: .*'params'"),
      (('info', imported, '--set', 'blocks=3'), 'run: .*blocks'),
      (('import', path), 'required: --workdir'),
      (('import', path, '--workdir', ''), '--workdir: .*empty'),
      (('import', other, '--workdir', run),
       r'other\.safetensors: .*1 tensors such as conv1\.weight \[3, 3\]'),
      (('export', '--workdir', run, '--output', 'a.safetensors'), r'\bnew: '),
      (('export', '--workdir', tmp_path, '--output', 'a.safetensors'), r'config\.json'),
      (('export', '--workdir', imported, '--output', 'a.txt'), r'a\.txt: .*\.safetensors'),
      (('export', '--workdir', imported, '--output', 'a.safetensors', '--names', 'x'),
       "--names 'x': .*esrgan-old"),
      (('export', '--workdir', imported, '--output', 'a.safetensors', '--step', '7'),
       r'run.*\b7\b.*\b0\b'),
      (('export', '--workdir', imported, '--output', 'a.safetensors', '--step', 'best'),
       'run.*best'),
      (('export', '--workdir', imported, '--output', '/proc/none/a.safetensors'),
       r'/proc/none/a\.safetensors: ')):
    status, text, err = weights_command(*arguments)
    assert (status, text, err.count('\n')) == (1, '', 1), err
    assert re.search(message, err), err
  assert not run.exists()
  assert not list(tmp_path.glob('a.*'))


def test_a_full_disk_leaves_no_file(foreign: Callable, tmp_path: pathlib.Path,
                                    weights_command: Callable) -> None:
  source, out = tmp_path / 'a.safetensors', tmp_path / 'out'
  save_file(foreign('compact-x2')[0], source)
  arguments = ('interpolate', source, source, '--alpha', '0.5', '--output', out / 'b.safetensors')
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  try:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    status, _, err = weights_command(*arguments)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)
  assert (status, err.count('\n')) == (1, 1)
  assert f'{out}/b.safetensors: cannot write (' in err
  assert list(out.iterdir()) == []
