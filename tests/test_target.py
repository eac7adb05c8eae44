"""sr-jax profile --target: files of GPUs, memory, times, batches, and what is written and refused.

Programs are stand-ins, because the CUDA plugin takes 3.9 GB; the last tests use it where it is.
"""

import importlib.util
import json
import os
import pathlib
import re

import jax
import pytest

from sr_jax import images, main
from sr_jax.errors import InputError
from sr_jax.experiment import phases
from sr_jax.pretrained.vgg import load_vgg
from sr_jax.profiling import gpu_compiler, program, target, target_analysis, target_file
from sr_jax.profiling.target import profile_target
from sr_jax.profiling.target_fit import MAX_BATCH, largest_batch
from sr_jax.profiling.target_programs import Programs, Step, tree_bytes, vgg_shapes
from sr_jax.profiling.target_times import times
from tests import smallest
from tests.benchmarks.gpu import read_computed

STEP = (pathlib.Path(__file__).parent / 'golden' / 'hopper-loop.hlo.txt').read_text()
GIB = 2**30
TARGETS = {name: target_file.read(name) for name in target_file.TARGETS}


@pytest.mark.parametrize('name', target_file.TARGETS)
def test_the_figures_of_a_gpu_are_plausible_and_have_sources(name):
  gpu = TARGETS[name]
  text = (target_file.FOLDER / f'{name}.txt').read_text('utf-8')
  lines = [line for line in text.splitlines() if '=' in line.partition('#')[0]]
  assert all('#' in line for line in lines if not line.startswith('name'))
  assert gpu.name.startswith('NVIDIA ')
  assert 15 * GIB <= gpu.memory <= 141 * GIB
  assert 0.2e12 < gpu.bandwidth < 5e12
  # Two FLOPs a cycle of each float32 unit.
  assert gpu.float32 == pytest.approx(
      2e9 * gpu.clock_ghz * gpu.cores * gpu.fpus_per_core, rel=0.03)
  assert gpu.bfloat16 == pytest.approx(2 * gpu.tf32, rel=0.03)
  assert gpu.budget == 0.75 * gpu.memory
  assert (gpu.arithmetic_share, gpu.bandwidth_share, gpu.kernel_seconds) == (
      0.5, 0.7, 5e-6)


def test_every_file_is_a_target_and_faster_ones_have_larger_figures():
  assert {path.stem for path in target_file.FOLDER.iterdir()} == set(target_file.TARGETS)
  h200, h100, a100, l40s, l4, rtx4090, t4 = TARGETS.values()
  assert h200.bandwidth > h100.bandwidth > a100.bandwidth > rtx4090.bandwidth > l40s.bandwidth
  assert l40s.bandwidth > t4.bandwidth > l4.bandwidth
  assert h100.bfloat16 > l40s.bfloat16 > a100.bfloat16 > rtx4090.bfloat16 > l4.bfloat16
  assert h200.memory > a100.memory > h100.memory > l40s.memory > rtx4090.memory > l4.memory
  assert l4.memory > t4.memory


def test_gpus_of_one_capability_are_compiled_for_as_the_largest_of_them():
  compiled = {name: target_file.compiled_as(target).name for name, target in TARGETS.items()}
  assert compiled == {
      'h200': 'NVIDIA H200', 'h100': 'NVIDIA H200', 'a100': 'NVIDIA A100', 't4': 'NVIDIA T4',
      **dict.fromkeys(('l40s', 'l4', 'rtx4090'), 'NVIDIA L40S')}
  text = target_file.compiler_config(TARGETS['l4'])
  assert 'major: 8 minor: 9' in text
  assert 'core_count: 58' in text


def test_a_gpu_without_bfloat16_has_the_rate_of_float32():
  assert TARGETS['t4'].peak('bfloat16') == TARGETS['t4'].peak('float32') == 8.1e12
  assert TARGETS['a100'].peak('float32') == 156e12  # in TF32
  assert TARGETS['a100'].peak('bfloat16') == 312e12


@pytest.mark.parametrize(('old', 'new', 'message'), [
    ('tf32 = ', 'tf33 = ', r'h200\.txt:\d+: .*tf32.*tf33'),
    ('cores = 132', 'cores = many', r"h200\.txt:\d+: cores: 'many'"),
    ('cores = 132', 'cores', r'h200\.txt:\d+: .*cores'),
    ('cores = 132', '# cores = 132', r'h200\.txt: cores: missing'),
    ('clock_ghz = ', 'memory = 3\nclock_ghz = ', r'h200\.txt:\d+: .*memory = 3')])
def test_a_file_with_a_mistake_is_refused(tmp_path, monkeypatch, old, new, message):
  text = (target_file.FOLDER / 'h200.txt').read_text('utf-8')
  assert f'\n{old}' in text
  (tmp_path / 'h200.txt').write_text(text.replace(f'\n{old}', f'\n{new}'))
  monkeypatch.setattr(target_file, 'FOLDER', tmp_path)
  with pytest.raises(InputError, match=message):
    target_file.read('h200')


# Memory and times --------------------------------------------------------------------------


def counted(**changes):
  counts = program.Counts(
      kernels=100, kernels_by_part={'generator': 90, 'other': 10},
      convolutions={'cuDNN bfloat16 NHWC': 37}, copies=3, transposes=2,
      flops={'generator': 4e12}, bytes={'generator': 3e9, 'other': 1e9},
      product_flops={'bfloat16': 3e12, 'float32': 1e12}, unknown_loops=0)
  return counts._replace(**changes)


def test_times_are_those_computed_by_hand():
  a100 = TARGETS['a100']
  arithmetic = 3e12 / 312e12 + 1e12 / 156e12  # 16.0 ms; the bytes take 2.0 ms
  found = times(counted(), a100)
  assert found.lower == pytest.approx(arithmetic)
  assert found.estimate == pytest.approx(2 * arithmetic + 100 * 5e-6)
  found = times(counted(product_flops={}, bytes={'batch': 2.039e12}, kernels=0), a100)
  assert found == pytest.approx((1.0, 1 / 0.7))
  slow = times(counted(), TARGETS['t4'])
  assert slow.lower == pytest.approx(4e12 / 8.1e12)  # all of it in float32


@pytest.mark.parametrize('need', [
    lambda batch: 100 + 10 * batch,  # a line
    lambda batch: 100 + 10 * batch + batch**2 // 50,  # more than the line expects
    lambda batch: 100 + 10 * batch - batch // 3,
    lambda batch: 100 + 64 * -(-batch // 6)])  # in steps
def test_the_largest_batch_fits_and_was_compiled(need):
  previous = 0
  for budget in range(0, 3000, 37):
    compiled = []

    def compile_batch(batch, compiled=compiled):
      compiled.append(batch)
      return need(batch)

    found = largest_batch(compile_batch, budget, 4, unit=2)
    assert found in (0, *compiled)
    assert found % 2 == 0
    assert len(compiled) <= 2 + 6
    assert not found or need(found) <= budget
    best = max((batch for batch in range(2, 400, 2) if need(batch) <= budget), default=0)
    assert best * 0.8 - 4 <= found <= best
    assert found >= previous * 0.8  # more memory, no smaller batch (but for the steps)
    previous = found


def test_the_search_for_a_batch_stops_at_the_cap():
  compiled = []
  assert largest_batch(lambda batch: compiled.append(batch) or 1, 10, 16) == MAX_BATCH
  assert largest_batch(lambda batch: batch, 10**9, 3, unit=3) == MAX_BATCH // 3 * 3
  assert max(compiled) == MAX_BATCH
  assert largest_batch(lambda batch: 100, 10, 16) == 0


def test_images_lie_on_the_device_if_a_bank_of_them_may():
  def taken(size, mode='auto', name='l4'):
    return target_analysis.Data(size, 1, mode).on_device(TARGETS[name])

  assert taken(5 * GIB) == 5 * GIB
  assert taken(11 * GIB) == 0  # 60% of what JAX uses are 10.1 GiB
  assert taken(11 * GIB, name='h200') == 11 * GIB
  assert taken(11 * GIB, 'bank') == 11 * GIB
  assert taken(5 * GIB, 'mapped') == taken(None) == 0


def test_the_size_of_the_images_is_that_of_the_packed_set(config, tmp_path, picture):
  for number in range(3):
    images.write_image(tmp_path / 'set' / f'{number}.png', picture(20, 24, number))
  config.data.source = f'folder:{tmp_path / "set"}'
  found = target_analysis.find_data(config, None)
  assert (found.bytes, found.images) == (3 * 20 * 24 * 3 * 5 // 4, 3)  # HR, and LR at scale 2
  assert target_analysis.find_data(config, 2.0).bytes == 2 * GIB
  config.data.source = 'folder:nowhere'
  assert target_analysis.find_data(config, None)[:2] == (None, None)
  assert target_analysis.find_data(config, 0.5)[:2] == (GIB // 2, None)


# The command, with stand-ins for the compiler -------------------------------------------------


@pytest.fixture
def compiler(monkeypatch):
  """Stands in for the plugin: a step needs 1 GiB and 1 GiB for each crop of a part of a batch."""
  compiled = []

  def compile_step(self, name, config, batch_size):
    batch_size = batch_size or config.batch_size
    compiled.append((self.target.name, name, batch_size, config.accumulate, config.dtype,
                     config.generator.remat))
    size = batch_size // config.accumulate * GIB // (1 + (config.dtype == 'bfloat16'))
    return Step(gpu_compiler.Program(STEP, 0, size, 10**6), GIB // 2, GIB)

  monkeypatch.setattr(gpu_compiler, 'check_plugin', lambda: None)
  monkeypatch.setattr(gpu_compiler, 'device', lambda target: target.name)
  monkeypatch.setattr(Programs, '_compile_step', compile_step)
  monkeypatch.setattr(Programs, 'evaluation',
                      lambda self: gpu_compiler.Program(STEP, GIB, 20 * GIB, 10**6))
  return compiled


def test_a_profile_of_all_gpus(config, tmp_path, capsys, compiler):
  config.batch_size, config.steps, config.warmup_steps = 12, 400_000, 100_000
  (tmp_path / 'run' / 'profile').mkdir(parents=True)
  (tmp_path / 'run' / 'profile' / 'profile.json').write_text('measured')
  results = profile_target(config, tmp_path / 'run', target_file.TARGETS, data_gib=2)
  out = capsys.readouterr().out
  # Each program once for each of the four compute capabilities.
  assert len(compiler) == len(set(compiler))
  assert {target for target, *_ in compiler} == {
      target_file.compiled_as(target).name for target in TARGETS.values()}
  assert {name: result['fits'] for name, result in results.items()} == {
      **dict.fromkeys(('h200', 'h100', 'a100', 'l40s', 'l4', 'rtx4090'), True), 't4': False}
  # In GiB: the memory that JAX uses, less one for the state and two for the images.
  assert {name: result['largest_batch'] for name, result in results.items()} == {
      'h200': 102, 'h100': 56, 'a100': 56, 'l40s': 30, 'l4': 13, 'rtx4090': 14, 't4': 8}
  l4 = results['l4']
  assert l4['with'] == {'accumulate=4': 6 * GIB, 'dtype=bfloat16': 9 * GIB,
                        'generator.remat=True': 15 * GIB}
  assert l4['data'] == {'bytes': 2 * GIB, 'on_device': 2 * GIB, 'mode': 'auto'}
  assert not l4['evaluation']['fits']
  gan = l4['phases']['gan']
  assert gan['kernels'] == program.read(STEP).kernels
  assert (gan['needed_bytes'], gan['steps']) == (15 * GIB, 300_000)
  hours = 400_000 * times(program.read(STEP), TARGETS['l4']).estimate / 3600
  assert l4['hours'] == pytest.approx(hours)
  folder = tmp_path / 'run' / 'profile'
  assert json.loads((folder / 'target-l4.json').read_text()) == l4
  beside = read_computed(tmp_path, 'run')  # as gpu.sh --computed puts them beside measured times
  assert set(beside) == set(TARGETS)
  assert beside['l4']['estimate_ms'] == 1e3 * gan['estimate_seconds']
  assert (folder / 'profile.json').read_text() == 'measured'
  written = {path.name for path in folder.iterdir()} - {'profile.json'}
  assert written == {f'target-{name}.json' for name in TARGETS} | {
      f'{phase}-{name}.hlo.txt' for phase in ('gan', 'warm-up')
      for name in ('h200', 'a100', 'l40s', 't4')}
  assert results['rtx4090']['phases']['gan']['program'] == 'gan-l40s.hlo.txt'
  for pattern in ('NVIDIA T4, 15.0 GiB, of which JAX uses 11.2 GiB; 8 TFLOP/s in float32',
                  'gan step, batch 12 of 16x16, float32', '15,360 MiB: .*state 1,024 MiB.*; fits',
                  '15 cuDNN bfloat16 NHWC', 'evaluate  1280x720 .*does not fit',
                  'largest that fits is 13, in the', 'NVIDIA L4 +15,360 MiB +17,276 MiB +yes +13 '):
    assert re.search(pattern, out), pattern
  assert max(len(line) for line in out.splitlines() if str(tmp_path) not in line) <= 150


def test_what_is_unknown_is_said(config, tmp_path, capsys, compiler):
  config.data.source, config.epochs = 'folder:nowhere', 3
  config.dtype = 'bfloat16'
  result = profile_target(config, tmp_path / 'run', ['t4'])['t4']
  assert result['hours'] is None
  assert result['data']['bytes'] is None
  assert 'dtype=bfloat16' not in result['with']
  out = capsys.readouterr().out
  for pattern in ('images unknown', 'time unknown: .*epochs', 'NVIDIA T4 has no bfloat16'):
    assert re.search(pattern, out), pattern


def test_a_config_that_fits_nowhere_is_refused_with_what_would_fit(config, tmp_path, compiler):
  config.batch_size = 32
  with pytest.raises(InputError) as error:
    profile_target(config, tmp_path / 'run', ['l4', 't4'])
  message = str(error.value)
  assert re.match(r'config\.batch_size=32: NVIDIA L4 has 17,276 MiB .* step needs 33,792 MiB; '
                  r'would fit: config\.batch_size=15, config\.accumulate=8', message)
  assert 'NVIDIA T4 has 11,520 MiB' in message
  assert 'config.dtype=bfloat16' not in message.partition('T4')[0]  # 17 GiB
  assert list(tmp_path.iterdir()) == []
  config.data.mode = 'bank'
  with pytest.raises(InputError, match='no batch size fits'):
    profile_target(config, tmp_path / 'run', ['t4'], data_gib=10.9)
  assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused_first(config, tmp_path, compiler):
  (tmp_path / 'file').write_text('mine')
  with pytest.raises(InputError, match=r'file/profile: cannot write .*\('):
    profile_target(config, tmp_path / 'file', ['l4'])
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'profile').write_text('mine')
  with pytest.raises(InputError, match=r'run/profile: cannot write .*\('):
    profile_target(config, tmp_path / 'run', ['l4'])
  assert compiler == []
  assert (tmp_path / 'run' / 'profile').read_text() == 'mine'


def test_a_dump_that_cannot_be_written_is_named(config, tmp_path, compiler):
  blocked = tmp_path / 'run' / 'profile' / 'gan-l4.hlo.txt'
  blocked.mkdir(parents=True)
  with pytest.raises(InputError, match=r'profile/gan-l4\.hlo\.txt: cannot write \(Is a directory'):
    profile_target(config, tmp_path / 'run', ['l4'])
  assert not (tmp_path / 'run' / 'profile' / 'target-l4.json').exists()


def test_the_command_line_passes_targets_on(monkeypatch, tmp_path):
  calls = []
  monkeypatch.setattr(gpu_compiler, 'use_cpu_alone', lambda: calls.append('cpu'))
  monkeypatch.setattr(target, 'profile_target', lambda *arguments: calls.append(arguments[1:]))
  for flags, expected in ((['--target=all', '--data-gib=2.5'], (target_file.TARGETS, 2.5)),
                          (['--target', 'l4'], (('l4',), None))):
    smallest.forget_flags()
    assert main.main(['sr-jax profile', '--config=srresnet:sample', f'--workdir={tmp_path}',
                      *flags], 'profile') == 0
    assert calls[-2:] == ['cpu', (tmp_path, *expected)]


def test_a_missing_plugin_and_a_missing_library_are_named(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(InputError, match=r'pip install "jax\[cuda13\]"'):
    gpu_compiler.check_plugin()
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: object())
  monkeypatch.setattr(gpu_compiler, 'LIBRARIES', ('libnowhere.so.9',))
  with pytest.raises(InputError, match=r'libnowhere\.so\.9 \(.*pip install "jax\[cuda13\]"'):
    gpu_compiler.check_plugin()


def test_code_is_traced_as_on_a_gpu_and_only_inside_the_block(config):
  assert not phases.build(config).device_loop
  with gpu_compiler.traced_for('a GPU'):
    assert jax.default_backend() == 'gpu'
    assert jax.local_devices() == ['a GPU']
    assert phases.build(config).device_loop
  config.scale = 'many'
  with pytest.raises(InputError), gpu_compiler.traced_for('a GPU'):
    phases.build(config)
  assert jax.default_backend() == 'cpu'
  assert jax.local_devices()[0].platform == 'cpu'


def test_shapes_of_vgg_are_those_of_its_weights():
  shapes = vgg_shapes('vgg16', '', 'torchvision')
  variables = load_vgg('vgg16', '', 'torchvision')
  assert jax.tree.map(lambda leaf: leaf.shape, shapes) == jax.tree.map(
      lambda leaf: leaf.shape, variables)
  assert tree_bytes(shapes) == tree_bytes(variables) == 4 * 14_714_688


# With the plugin ----------------------------------------------------------------------------


@pytest.mark.skipif(
    not (importlib.util.find_spec('jax_plugins') and importlib.util.find_spec(gpu_compiler.PLUGIN)
         and os.environ.get('JAX_PLATFORMS') == 'cpu'),
    reason='needs pip install "jax[cuda13]" and JAX_PLATFORMS=cpu')
def test_a_config_is_compiled_for_a_gpu(config, tmp_path, capsys):
  config.dtype = 'bfloat16'
  result = profile_target(config, tmp_path / 'run', ['l4'])['l4']
  gan = result['phases']['gan']
  assert result['fits']
  assert set(gan['convolutions']) == {'cuDNN bfloat16 NHWC'}
  assert gan['kernels_by_part']['discriminator'] > 10
  assert 0 < gan['lower_bound_seconds'] < gan['estimate_seconds']
  assert gan['estimate_seconds'] > gan['kernels'] * 5e-6
  state = phases.build(config).new_state()
  assert gan['state_bytes'] == tree_bytes(state)
  text = (tmp_path / 'run' / 'profile' / gan['program']).read_text()
  assert program.read(text).kernels == gan['kernels']
  assert 'sm_89' in text or '__cudnn$conv' in text
  assert 'gan step, batch 4 of 16x16, bfloat16' in capsys.readouterr().out
