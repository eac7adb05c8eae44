"""sr-jax profile: what it measures, what it writes, and that it writes nothing else."""

import json
import os
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr_jax import images
from sr_jax.errors import InputError
from sr_jax.profiling import ceilings, table, timing
from sr_jax.profiling import run as profile
from sr_jax.train import train
from tests.conftest import interrupt


def contents(folder):
  return {path.relative_to(folder): path.read_bytes()
          for path in folder.rglob('*') if path.is_file()}


@pytest.mark.slow
def test_profile_of_a_trained_run(config, tmp_path, capsys, quick_profile):
  config.steps, config.warmup_steps, config.checkpoint_every = 2, 1, 1
  config.eval.sets = config.data.valid = ''
  train(config, tmp_path / 'run')
  before = contents(tmp_path / 'run')
  capsys.readouterr()
  for _ in range(2):  # the second replaces the first
    result = profile.profile_run(config, tmp_path / 'run')
  out = capsys.readouterr().out
  after = contents(tmp_path / 'run')
  assert {path: after.get(path) for path in before} == before  # checkpoints, config, logs
  new = {path.parts[0] for path in after.keys() - before.keys()}
  assert new == {'profile'}
  assert set(result['phases']) == {'warm-up', 'gan'}
  assert json.loads((tmp_path / 'run' / 'profile' / 'profile.json').read_text()) == result
  for name, measured in result['phases'].items():
    assert (tmp_path / 'run' / 'profile' / measured['trace']).exists()
    assert f'{name} step, batch 4 of 16x16, float32' in out
    assert measured['verdict'] in out
    assert measured['bottleneck'] == 'dispatch'  # the network is small and the device a CPU
    assert measured['idle_share'] is None
    flops = sum(part['flops'] for part in measured['parts'].values())
    assert flops == pytest.approx(measured['step']['flops'], rel=0.1)
    assert all(part['seconds'] > 0 for part in measured['parts'].values())
  assert set(result['phases']['gan']['parts']) - set(result['phases']['warm-up']['parts']) == {
      'discriminator forward', 'discriminator backward'}
  assert len(list((tmp_path / 'run' / 'profile' / 'gan').glob('plugins/profile/*'))) == 1
  assert out.count('\n') // 2 < 50
  assert max(len(line) for line in out.splitlines() if str(tmp_path) not in line) < 150


@pytest.mark.slow
@pytest.mark.optimised
def test_a_slow_feed_is_the_bottleneck(config, tmp_path, quick_profile, picture):
  for number in range(4):
    images.write_image(tmp_path / 'large' / f'{number}.png', picture(1200, 1600, number))
  config.steps, config.warmup_steps, config.discriminator.name = 4, 0, 'none'
  config.loss.adversarial.weight = 0.0
  config.data.source = f'folder:{tmp_path / "large"}'
  config.data.mode, config.data.workers = 'stream', 0
  measured = profile.profile_run(config, tmp_path / 'run')['phases']['pixel']
  rows = measured['in_a_row']
  assert measured['bottleneck'] == 'data'
  assert rows['fed'] > 2 * rows['held']
  # The host only decodes, so decoding alone takes equally long.
  assert rows['made'] == pytest.approx(rows['fed'], rel=0.6)
  assert 'data.workers (now 0 on' in measured['verdict'] or 'data.mode' in measured['verdict']


@pytest.mark.slow
@pytest.mark.optimised
def test_a_larger_network_is_limited_by_arithmetic(config, tmp_path, quick_profile):
  config.steps, config.warmup_steps, config.discriminator.name = 4, 0, 'none'
  config.loss.adversarial.weight = 0.0
  config.hr_patch, config.data.source = 64, 'folder:nowhere'
  config.generator.update({'features': 32, 'blocks': 4})
  result = profile.profile_run(config, tmp_path / 'run')
  assert result['data'] == 'bank, random images'
  assert result['phases']['pixel']['bottleneck'] == 'arithmetic'


@pytest.mark.slow
def test_the_device_loop_is_profiled(config, tmp_path, quick_profile, capsys):
  config.device_loop, config.steps, config.warmup_steps = 'yes', 4, 0
  looped = profile.profile_run(config, tmp_path / 'run')['phases']['gan']
  assert looped['steps_of_dispatch'] == 10
  assert looped['in_a_row']['single'] > 0
  assert '10 steps per call (' in capsys.readouterr().out
  config.device_loop = 'no'
  plain = profile.profile_run(config, tmp_path / 'run')['phases']['gan']
  # Those of a single step, not of a loop.
  assert looped['step']['flops'] == pytest.approx(plain['step']['flops'], rel=1e-2)


@pytest.mark.slow
def test_bytes_of_a_batch_do_not_depend_on_the_size_of_the_bank(config):
  source = profile.random_feed(config)
  small = source.source_for(0, 1)
  large = small._replace(pixels=jnp.zeros((1, 50_000_000), jnp.uint8))
  state = types.SimpleNamespace(seed=jnp.int32(0), step=jnp.int32(0))
  bytes_read = []
  for images_bank in (small, large):
    timed = timing.Timed({'batch': jax.jit(source.batch_at).lower(
        images_bank, state.seed, state.step).compile()})
    counted = timing.cost(timed.programs['batch'])['bytes']
    bytes_read.append(counted - profile._unread_bytes(timed, source.batch_at, images_bank, state))
  assert max(bytes_read) < 3e5


def test_random_images_are_a_feed(config):
  source = profile.random_feed(config)
  batch = jax.eval_shape(source.batch_at, source.source_for(0, 1), jnp.int32(0), jnp.int32(0))
  assert (batch['lr'].shape, batch['hr'].shape) == ((4, 8, 8, 3), (4, 16, 16, 3))


def test_idle_time_is_attributed_to_data_or_dispatch():
  ceiling = {'flops': 100.0, 'bytes': 10.0, 'launch': 0.001}
  measured = {'in_a_row': {'held': 1.0, 'nothing': 0.1}, 'idle_share': None, 'operations': 200,
              'step': {'flops': 50.0, 'bytes': 4.0}}
  assert profile._spent(measured, ceiling) == pytest.approx((1.0, 0.0, 0.3, 0.5, 0.4))
  # An idle share from a trace replaces the estimate; waiting for data is not dispatch.
  measured['idle_share'] = 0.05
  assert profile._spent(measured, ceiling) == pytest.approx((1.0, 0.0, 0.05, 0.5, 0.4))
  measured['in_a_row']['fed'], measured['idle_share'] = 4.0, 0.8
  assert profile._spent(measured, ceiling) == pytest.approx((4.0, 3.0, 0.2, 0.5, 0.4))


@pytest.mark.parametrize('idle', [None, 0.25])
def test_the_table_has_every_measurement(idle):
  part = {'seconds': 0.01, 'flops': 2e9, 'bytes': 3e8}
  measured = {
      'step': part, 'parts': {'batch': part, 'generator forward': part}, 'steps_of_dispatch': 10,
      'in_a_row': {'held': 0.01, 'nothing': 0.001, 'single': 0.012, 'fed': 0.015, 'made': 0.005},
      'operations': 77, 'idle_share': idle, 'memory_bytes': 12 * 2**20, 'peak_bytes': 34 * 2**20,
      'from_cache': True, 'compile_seconds': 1.5, 'spent': {'step': 0.015}, 'verdict': 'data'}
  result = {'batch_size': 3, 'hr_patch': 48, 'dtype': 'float32',
            'ceilings': {'flops': 1e12, 'flops_bfloat16': 3e12, 'bytes': 1e11, 'launch': 1e-6}}
  text = table.table('gan', measured, result)
  for pattern in ('gan step, batch 3 of 48x48, float32', 'batch: .*10.00 .*50.0%',
                  'peak .*1000 GFLOP/s .*3 TFLOP/s in bfloat16; 100 GB/s',
                  'training .*15 ms .*200.0 images/s; 10 steps per call .*12 ms',
                  'dispatch .*1 ms .*77 operations.* 1.0 us',
                  'idle .*CPU' if idle is None else 'idle .*25.0%',
                  'data .*5 ms .*15 ms.*10 ms.*5 ms', 'memory .*12 MiB .*34 MiB .*1.5 s',
                  'verdict +data'):
    assert re.search(pattern, text), pattern


def test_a_folder_that_cannot_be_written_is_refused(config, tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match='file/profile: cannot write'):
    profile.profile_run(config, tmp_path / 'file')
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'profile').write_text('mine')
  with pytest.raises(InputError, match=r'run/profile: .*not a folder'):
    profile.profile_run(config, tmp_path / 'run')
  assert (tmp_path / 'run' / 'profile').read_text() == 'mine'


@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError(28, 'No space left on device')])
def test_an_interrupted_profile_leaves_no_files(tmp_path, error):
  folder = tmp_path / 'run' / 'profile'

  def fail():
    with profile._replaced_folder(folder) as made:
      (made / 'gan').mkdir()
      raise error

  with pytest.raises((KeyboardInterrupt, OSError)):
    fail()
  assert not folder.parent.exists()
  with profile._replaced_folder(folder) as made:
    (made / 'complete').write_text('')
  with pytest.raises((KeyboardInterrupt, OSError)):
    fail()
  assert os.listdir(tmp_path / 'run') == ['profile']
  assert os.listdir(folder) == ['complete']  # unchanged
  with profile._replaced_folder(folder) as made:
    (made / 'newer').write_text('')
  assert os.listdir(folder) == ['newer']


def test_ceilings_are_plausible(quick_profile):
  found = ceilings.measure('float32')
  assert set(found) == {'flops', 'bytes', 'launch'}
  assert 1e8 < found['flops'] < 1e14
  assert 1e7 < found['bytes'] < 1e13
  assert 0 <= found['launch'] < 1e-3
  assert np.isfinite(list(found.values())).all()


@pytest.mark.slow
def test_ctrl_c(tmp_path):
  folder = tmp_path / 'run'
  status, err = interrupt(
      ['-m', 'sr_jax.main', '--config', 'configs/srresnet.py:sample', '--mode', 'profile',
       '--workdir', str(folder)], os.getcwd(),
      lambda: list(folder.glob('.unfinished-profile-*/new/pixel')), dict(os.environ))
  assert (status, err.strip().splitlines()[-1]) == (130, 'sr_jax: interrupted')
  assert not folder.exists()
