"""--mode profile: what it measures, what it writes, and what it leaves alone."""

import json
import os
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr_jax import images
from sr_jax.errors import InputError
from sr_jax.profiling import ceilings, timing
from sr_jax.profiling import run as profile
from sr_jax.train import train
from tests.conftest import interrupt


@pytest.fixture
def quick(monkeypatch):
  """Fewer rounds, small ceilings."""
  monkeypatch.setattr(profile, 'ROUNDS', 3)
  monkeypatch.setattr(profile, 'ROW_SECONDS', 0.2)
  monkeypatch.setattr(ceilings, 'SIDE', {'cpu': 512})
  monkeypatch.setattr(ceilings, 'COPIED', {'cpu': 2**24})
  monkeypatch.setattr(ceilings, 'CHAIN', (2, 12))


def contents(folder):
  return {path.relative_to(folder): path.read_bytes()
          for path in folder.rglob('*') if path.is_file()}


@pytest.mark.slow
def test_profile_of_a_run_that_was_trained(config, tmp_path, capsys, quick):
  config.steps, config.warmup_steps, config.checkpoint_every = 2, 1, 1
  config.eval.sets = config.data.valid = ''
  train(config, tmp_path / 'run')
  before = contents(tmp_path / 'run')
  capsys.readouterr()
  for _ in range(2):  # the second takes the place of the first
    result = profile.profile_run(config, tmp_path / 'run')
  out = capsys.readouterr().out
  after = contents(tmp_path / 'run')
  assert {path: after.get(path) for path in before} == before  # checkpoints, config, logs
  new = {path.parts[0] for path in after.keys() - before.keys()}
  assert new == {'profile'}
  assert set(result['phases']) == {'warm-up', 'gan'}
  assert json.loads((tmp_path / 'run' / 'profile' / 'profile.json').read_text()) == result
  for name, figures in result['phases'].items():
    assert (tmp_path / 'run' / 'profile' / figures['trace']).exists()
    assert f'{name} step, batch 4 of 16x16, float32' in out
    assert figures['verdict'] in out
    assert figures['bottleneck'] == 'dispatch'  # so small a network on a CPU
    assert figures['idle_share'] is None
    flops = sum(part['flops'] for part in figures['parts'].values())
    assert flops == pytest.approx(figures['step']['flops'], rel=0.1)
    assert all(part['seconds'] > 0 for part in figures['parts'].values())
  assert set(result['phases']['gan']['parts']) - set(result['phases']['warm-up']['parts']) == {
      'discriminator forward', 'discriminator backward'}
  assert len(list((tmp_path / 'run' / 'profile' / 'gan').glob('plugins/profile/*'))) == 1
  assert out.count('\n') // 2 < 50  # two screens
  assert max(len(line) for line in out.splitlines() if str(tmp_path) not in line) < 150


@pytest.mark.slow
def test_a_starved_step_waits_for_data(config, tmp_path, quick, picture):
  for number in range(4):
    images.write_image(tmp_path / 'large' / f'{number}.png', picture(1200, 1600, number))
  config.steps, config.warmup_steps, config.discriminator.name = 4, 0, 'none'
  config.loss.adversarial.weight = 0.0
  config.data.source = f'folder:{tmp_path / "large"}'
  config.data.mode, config.data.workers = 'stream', 0
  figures = profile.profile_run(config, tmp_path / 'run')['phases']['pixel']
  assert figures['bottleneck'] == 'data'
  assert figures['in_a_row']['fed'] > 2 * figures['in_a_row']['held']
  # Decoding is all there is to do, so it takes as long alone.
  assert figures['in_a_row']['made'] == pytest.approx(figures['in_a_row']['fed'], rel=0.6)
  assert 'data.workers (0 on' in figures['verdict'] or 'data.mode' in figures['verdict']


@pytest.mark.slow
def test_a_larger_network_is_bound_by_arithmetic(config, tmp_path, quick):
  config.steps, config.warmup_steps, config.discriminator.name = 4, 0, 'none'
  config.loss.adversarial.weight = 0.0
  config.hr_patch, config.data.source = 64, 'folder:nowhere'
  config.generator.update({'features': 32, 'blocks': 4})
  result = profile.profile_run(config, tmp_path / 'run')
  assert result['data'] == 'bank, random pictures'
  assert result['phases']['pixel']['bottleneck'] == 'arithmetic'


@pytest.mark.slow
def test_device_loop_is_profiled_as_it_is_dispatched(config, tmp_path, quick, capsys):
  config.device_loop, config.steps, config.warmup_steps = 'yes', 4, 0
  figures = profile.profile_run(config, tmp_path / 'run')['phases']['gan']
  assert figures['steps_of_dispatch'] == 10
  assert figures['in_a_row']['single'] > 0
  assert '10 steps in a dispatch (' in capsys.readouterr().out
  config.device_loop = 'no'
  plain = profile.profile_run(config, tmp_path / 'run')['phases']['gan']
  assert figures['step']['flops'] == plain['step']['flops']  # of a single step, not of a loop


@pytest.mark.slow
def test_a_bank_counts_as_what_is_read_of_it(config):
  """However many pictures there are, a batch takes the same few bytes."""
  source = profile.random_feed(config)
  held = source.take(0, 1)
  large = held._replace(pixels=jnp.zeros((1, 50_000_000), jnp.uint8))
  state = types.SimpleNamespace(seed=jnp.int32(0), step=jnp.int32(0))
  bytes_read = []
  for pictures in (held, large):
    timed = timing.Timed({'batch': jax.jit(source.batch_at).lower(
        pictures, state.seed, state.step).compile()})
    counted = timing.cost(timed.programs['batch'])['bytes']
    bytes_read.append(counted - profile._untouched(timed, source.batch_at, pictures, state))
  assert max(bytes_read) < 3e5


def test_idle_time_is_waited_for_data_or_for_dispatch():
  ceiling = {'flops': 100.0, 'bytes': 10.0, 'launch': 0.001}
  figures = {'in_a_row': {'held': 1.0, 'nothing': 0.1}, 'idle_share': None, 'operations': 200,
             'step': {'flops': 50.0, 'bytes': 4.0}}
  assert profile._spent(figures, ceiling) == pytest.approx((1.0, 0.0, 0.3, 0.5, 0.4))
  # A device that tells is believed, and of its idle time the data's part is not dispatch.
  figures['idle_share'] = 0.05
  assert profile._spent(figures, ceiling) == pytest.approx((1.0, 0.0, 0.05, 0.5, 0.4))
  figures['in_a_row']['fed'], figures['idle_share'] = 4.0, 0.8
  assert profile._spent(figures, ceiling) == pytest.approx((4.0, 3.0, 0.2, 0.5, 0.4))


def test_folder_that_can_not_be_written(config, tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match=r'file.*can not be written'):
    profile.profile_run(config, tmp_path / 'file')
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'profile').write_text('mine')
  with pytest.raises(InputError, match=r'profile: is there already, and no folder'):
    profile.profile_run(config, tmp_path / 'run')
  assert (tmp_path / 'run' / 'profile').read_text() == 'mine'


@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError(28, 'No space left on device')])
def test_what_is_cut_short_leaves_nothing(tmp_path, error):
  folder = tmp_path / 'run' / 'profile'

  def fail():
    with profile._replacing(folder) as made:
      (made / 'gan').mkdir()
      raise error

  with pytest.raises((KeyboardInterrupt, OSError)):
    fail()
  assert not folder.parent.exists()
  with profile._replacing(folder) as made:
    (made / 'whole').write_text('')
  with pytest.raises((KeyboardInterrupt, OSError)):
    fail()
  assert os.listdir(tmp_path / 'run') == ['profile']
  assert os.listdir(folder) == ['whole']  # as it was
  with profile._replacing(folder) as made:
    (made / 'newer').write_text('')
  assert os.listdir(folder) == ['newer']


def test_ceilings_are_of_this_machine(quick):
  found = ceilings.measured('float32')
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
