"""Replay: the logged metrics to the last bit, the batch they belong to, no other file changed."""

import functools
import math
import re
import shutil

import jax
import numpy as np
import pytest

from sr_jax import images, train
from sr_jax.data.feed import open_feed
from sr_jax.errors import InputError
from sr_jax.experiment import inputs, phases
from sr_jax.runs.checkpoints import Checkpoints
from sr_jax.runs.metrics_log import read_metrics
from sr_jax.step import nonfinite
from sr_jax.step.state import variables
from sr_jax.train import replay


@pytest.fixture(scope='module')
def folder_of_run(tmp_path_factory):
  return tmp_path_factory.mktemp('replay') / 'run'


def train_and_keep(step, config, folder):
  """Trains a run that also keeps the checkpoint of a step."""
  init = Checkpoints.__init__

  def init_with_step(self, workdir, metric='', keep=(), **rest):
    init(self, workdir, metric, (*keep, step), **rest)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(Checkpoints, '__init__', init_with_step)
    train.train(config, folder)


@pytest.fixture
def run(config, folder_of_run):
  """(config, folder) of 40 steps, 20 of them the warm-up's; checkpoints at 5, 20, 35 and 40."""
  config.checkpoint_every, config.log_every = 5, 1
  if not folder_of_run.exists():
    train_and_keep(5, config, folder_of_run)
  config.log_every, config.eval.every, config.max_bad_steps = 7, 9, 10  # which do not affect a step
  return config, folder_of_run


def contents(folder):
  return {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*')
          if path.is_file() and 'replay' not in path.parts}


def replayed(config, folder, number):
  """Replays a step, whose metrics must be those of the log, and returns the result."""
  before = contents(folder)
  again = replay.replay_run(config, folder, str(number))
  assert contents(folder) == before
  logged, = (line for line in read_metrics(folder) if line['step'] == number)
  assert (again['step'], again['differing']) == (number, [])
  for key, value in again['metrics'].items():
    assert logged[key] == value, key
  assert again['picture'] == folder / 'replay' / f'{number}.png'
  return again


@pytest.mark.slow
def test_metrics_equal_the_logged_ones(run):
  """In the warm-up, in the first step after it and far from a checkpoint."""
  assert Checkpoints(run[1], read_only=True).steps() == [5, 20, 35, 40]
  for number, name, start in ((7, 'warm-up', 5), (20, 'warm-up', 5), (21, 'gan', 20),
                              (34, 'gan', 20)):
    again = replayed(*run, number)
    assert (again['phase'], again['checkpoint']) == (name, start)


@pytest.mark.slow
def test_a_step_far_from_its_checkpoint(run, tmp_path, capsys):
  """The first adversarial step, from the middle of the warm-up."""
  config, whole = run
  folder = shutil.copytree(whole, tmp_path / 'run')
  shutil.rmtree(folder / 'checkpoints' / '20')
  again = replayed(config, folder, 21)
  assert (again['phase'], again['checkpoint'], len(again['metrics'])) == ('gan', 5, 12)
  out = capsys.readouterr().out
  assert 'differs' not in out
  assert out.count('  equal') == 12
  # LR, generated and original of four crops.
  assert images.read_image(again['picture']).shape == (4 * 16 + 3 * 4, 3 * 16 + 2 * 4, 3)


@pytest.mark.slow
def test_the_image_shows_the_batch(run, tmp_path, capsys):
  """Compares with the feed's batch and the generator of the checkpoint before."""
  config, whole = run
  picture = images.read_image(replayed(config, whole, 21)['picture'])
  out = capsys.readouterr().out
  experiment, feed, state = at_checkpoint(config, whole, 20)
  batch = jax.jit(feed.batch_at)(feed.source_for(20, 21), 0, 20)
  sr, _ = jax.jit(functools.partial(experiment.generator.apply, train=True, mutable=['batch_stats'])
                  )(variables(state.g), batch['lr'])
  np.testing.assert_array_equal(picture[:16, 40:], images.to_uint8(batch['hr'][0]))
  np.testing.assert_array_equal(picture[20:36, :16],
                                images.to_uint8(batch['lr'][1]).repeat(2, 0).repeat(2, 1))
  assert np.abs(np.int32(picture[-16:, 20:36]) - images.to_uint8(sr[3])).max() <= 1
  for index, row in enumerate(line.split() for line in out.splitlines()[-5:-1]):
    figures = [function(pictures[index]) for pictures in (batch['lr'], batch['hr'], sr)
               for function in (np.min, np.mean, np.max)]
    np.testing.assert_allclose([float(cell) for cell in row], [index, *figures], rtol=1e-3,
                               atol=1e-4)
  # The image of a run that stops shows the batch of the first non-finite step.
  standing = state._replace(step=state.step + 3, health=state.health._replace(
      skipped=state.health.skipped + 3, bad=state.health.bad + 3))
  path = replay.keep_batch(tmp_path, experiment, nonfinite.rewind(standing),
                           feed.source_for(20, 21),
                           feed.batch_at)
  assert path == tmp_path / 'replay' / '21.png'
  np.testing.assert_array_equal(images.read_image(path), picture)


def at_checkpoint(config, folder, step):
  """(experiment, feed from that step, state) of a checkpoint."""
  experiment = phases.build(config)
  checkpoints = Checkpoints(folder, read_only=True)
  state = checkpoints.restore(experiment.new_state(), step)
  checkpoints.close()
  feed = open_feed(inputs.training_set(config), inputs.build_feed_spec(config, False), step,
                   lambda text: None)
  return experiment, feed, state


@pytest.mark.slow
@pytest.mark.parametrize(('mode', 'loop', 'numbers'), [
    ('stream', 'no', (4, 11)), ('mapped', 'yes', (4, 8, 9, 12))])
def test_data_modes_and_the_device_loop(config, tmp_path, mode, loop, numbers):
  config.data.mode, config.device_loop, config.data.workers = mode, loop, 0
  config.steps, config.warmup_steps, config.log_every, config.checkpoint_every = 12, 8, 1, 3
  train_and_keep(3, config, tmp_path)
  for step in (8, 9):
    shutil.rmtree(tmp_path / 'checkpoints' / str(step))
  for number in numbers:
    again = replay.replay_run(config, tmp_path, number)
    assert (again['checkpoint'], again['differing']) == (3, [])
    assert again['logged']['step'] == number


@pytest.mark.slow
def test_a_nonfinite_step_is_reported(run, tmp_path, capsys):
  """D's weights are NaN in the checkpoint, so its loss and all that depends on it is NaN."""
  config, folder = run
  shutil.copy(folder / 'config.json', tmp_path / 'config.json')
  _, _, state = at_checkpoint(config, folder, 20)
  spoilt = jax.tree.map(lambda leaf: leaf * np.nan, state.d.params)
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(state._replace(d=state.d._replace(params=spoilt)))
  checkpoints.close()
  again = replay.replay_run(config, tmp_path, 21)
  assert (again['logged'], again['metrics']['bad']) == ({}, 1)
  assert set(again['not_finite']) == {'g/adversarial', 'g/total', 'g/grad_norm', 'd/total',
                                      'd/grad_norm'}
  assert not math.isnan(again['metrics']['g/ema_distance'])
  out = capsys.readouterr().out
  assert '(not logged)' in out
  assert re.search('^non-finite: .*d/total', out, re.M)
  # After max_bad_steps in a row the state stalls, so later steps were never taken.
  with pytest.raises(InputError, match=r'--step 33: .* step 30 after 10 '):
    replay.replay_run(config, tmp_path, 33)


def test_null_in_the_log_is_nonfinite():
  metrics = {'g/pixel': float('nan'), 'g/total': float('inf'), 'd/total': 1.0, 'bad': 1.0}
  logged = {'g/pixel': None, 'g/total': 2.0, 'd/total': 1.0, 'bad': 1.0}
  assert [name for name in metrics if not replay._equal(metrics[name], logged[name])] == ['g/total']
  lines = replay._describe_metrics('gan step 3', metrics, logged, ['g/total'])
  assert [line.split()[1:] for line in lines[1:4]] == [
      ['nan', 'null', 'equal'], ['inf', '2', 'differs'], ['1', '1', 'equal']]
  assert lines[-1] == 'non-finite: g/pixel, g/total; the update was skipped'


def test_the_image_of_a_nonfinite_and_large_batch(tmp_path):
  hr = np.full((20, 8, 8, 1), np.nan, np.float32)
  crops = replay.ReplayedBatch(np.full((20, 4, 4, 1), np.inf, np.float32), hr, hr - 1)
  picture = images.read_image(replay.write_batch(tmp_path, 3, crops))
  assert picture.shape == (16 * 8 + 15 * 4, 3 * 8 + 2 * 4, 3)
  assert set(picture[0, :, 0]) == {0, 255}
  assert 'nan' in replay._describe_batch(crops)[1]


@pytest.mark.slow
def test_steps_that_cannot_be_replayed(run, tmp_path):
  config, folder = run
  before = contents(folder)
  for step, message in (('latest', '--step latest: .* number'), ('-3', 'number'), (0, 'number'),
                        ('1.5', 'number'),
                        (5, '--step 5: the first checkpoint of .* is of step 5, .* is 6$'),
                        (41, '--step 41: the run in .* has 40 steps')):
    with pytest.raises(InputError, match=message) as refused:
      replay.replay_run(config, folder, step)
    assert '\n' not in str(refused.value)
  with pytest.raises(InputError, match=r'config\.json'):
    replay.replay_run(config, tmp_path, 9)
  for key, value, message in (
      ('optimizer.d.learning_rate', 0.5, r'optimizer\.d\.learning_rate=0\.001, the config 0\.5'),
      ('optimizer.g.boundaries', (0.5,), r'optimizer\.g\.boundaries=\[\], the config \[0\.5\]'),
      ('seed', 1, 'the run has seed=0'), ('batch_size', 2, 'has batch_size=4'),
      ('generator.skip', 'bilinear', 'the run has generator.skip'),
      ('data.augment.turn', False, r'config\.data: .*step 21')):
    changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict({key: value})
    with pytest.raises(InputError, match=message):
      replay.replay_run(changed, folder, 21)
  assert contents(folder) == before


@pytest.mark.slow
def test_a_damaged_checkpoint_is_skipped(run, tmp_path, capsys):
  config, folder = run
  shutil.copytree(folder, tmp_path / 'run')
  shutil.rmtree(tmp_path / 'run' / 'checkpoints' / '20' / 'state')
  again = replay.replay_run(config, tmp_path / 'run', 21)
  assert (again['checkpoint'], again['differing']) == (5, [])
  assert re.search(r'checkpoints/20: damaged \(state/', capsys.readouterr().out)
  for step in (5, 35, 40):
    shutil.rmtree(tmp_path / 'run' / 'checkpoints' / str(step) / 'state')
  with pytest.raises(InputError, match=r'checkpoints: none .*state'):
    replay.replay_run(config, tmp_path / 'run', 21)
