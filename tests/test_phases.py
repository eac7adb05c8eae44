"""Progressive training: parts of the main phase with crops and batches of other sizes."""

import json

import pytest

from sr_jax.errors import InputError
from sr_jax.experiment import base_config, crops, inputs, optimizer, phases
from sr_jax.runs.metrics_log import read_metrics
from sr_jax.train import replay
from sr_jax.train.overfitting import describe_terms
from tests import smallest
from tests.conftest import same_bits
from tests.test_train import run, stop_after

PARTS = {'steps': (2, 2), 'hr_patch': (8, 12), 'batch_size': (4, 2)}


def divided(folder=''):
  """Returns a config of six steps: two of 4 crops of 8x8, two of 2 of 12x12, two of 4 of 16x16."""
  config = smallest.get_config()
  config.data.source = f'folder:{folder}'
  config.discriminator.name, config.loss.adversarial.weight = 'none', 0.0
  config.generator.batch_norm = False
  config.warmup_steps, config.steps, config.log_every, config.checkpoint_every = 0, 6, 1, 100
  config.optimizer.g.update(schedule='cosine', ramp=2, name='adan')
  config.phases.update(PARTS)
  return config


@pytest.fixture(scope='module')
def whole(tmp_path_factory, folder):
  """(config, workdir, state) of an uninterrupted run."""
  workdir, config = tmp_path_factory.mktemp('whole') / 'run', divided(folder)
  return config, workdir, run(config, workdir)


def test_each_phase_has_its_crops_and_the_schedule_continues(whole):
  config, workdir, _ = whole
  lines = [line for line in read_metrics(workdir) if 'g/total' in line]
  assert [line['phase'] for line in lines] == ['pixel-1'] * 2 + ['pixel-2'] * 2 + ['pixel-3'] * 2
  _, schedule = optimizer.build_optimizer(config.optimizer.g, 6)
  assert [line['learning_rate/g'] for line in lines] == pytest.approx(
      [float(schedule(step)) for step in range(6)])
  # Five images: batches of 4 crops are half an epoch, batches of 2 a third.
  assert [line['epoch'] for line in lines] == pytest.approx(
      [1 / 2, 1, 4 / 3, 5 / 3, 13 / 6, 16 / 6], abs=1e-3)
  log = (workdir / 'train.log').read_text()
  assert ('pixel-1 to step 2 (4 crops of 8x8), pixel-2 to step 4 (2 crops of 12x12), pixel-3 to '
          'step 6 (4 crops of 16x16)') in ' '.join(log.split())
  report = (workdir / 'report.html').read_text()
  assert 'end of phase 2' in report


@pytest.mark.parametrize('stop', [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_run_killed_at_or_within_a_border_continues_to_the_same_bits(whole, tmp_path, stop):
  config, _, state = whole
  config = config.copy_and_resolve_references()
  config.checkpoint_every = 1
  stop_after(config, tmp_path, stop)
  assert same_bits(run(config, tmp_path), state) == []
  starts = json.loads((tmp_path / 'run.json').read_text())
  assert [start['from_step'] for start in starts] == [0, stop]
  assert starts[0]['data_digest'] == starts[1]['data_digest']


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['mapped', 'stream'])
def test_every_mode_resumes_exactly(whole, tmp_path, mode):
  config, _, state = whole
  config = config.copy_and_resolve_references()
  config.data.mode, config.data.workers, config.checkpoint_every = mode, 0, 1
  stop_after(config, tmp_path / 'parts', 3)
  resumed = run(config, tmp_path / 'parts')
  if mode == 'stream':
    state = run(config, tmp_path / 'stream')
  assert same_bits(resumed, state) == []


def test_a_step_of_a_later_phase_is_replayed(whole, tmp_path):
  config, workdir, _ = whole
  replayed = replay.replay_run(config, workdir, 5)  # from the checkpoint at the border
  assert (replayed['phase'], replayed['checkpoint'], replayed['differing']) == ('pixel-3', 4, [])


def test_the_parts_of_the_main_phase():
  config = divided()
  config.loss.adversarial.weight, config.warmup_steps, config.steps = 1.0, 3, 7
  assert [tuple(part) for part in crops.of_main_phase(config)] == [
      (1, 3, 5, 8, 4), (2, 5, 7, 12, 2)]  # nothing is left for hr_patch and batch_size
  assert [crops.at_step(config, step).size for step in (2, 3, 6, 9)] == [
      (16, 4), (8, 4), (12, 2), (12, 2)]
  config.phases.batch_size = ()
  assert [part.batch_size for part in crops.of_main_phase(config)] == [4, 4]
  assert crops.of_main_phase(base_config.defaults())[0].suffix == ''
  assert inputs.epoch_at(base_config.defaults(), 32)(3) == 1.5


@pytest.mark.parametrize(('changes', 'words'), [
    ({'phases.hr_patch': (8,)}, r'config\.phases\.hr_patch=\(8,\): .*2'),
    ({'phases.hr_patch': (), 'phases.batch_size': ()}, r'config\.phases\.steps=\(2, 2\): needs'),
    ({'phases.steps': (2, 5)}, r'config\.phases\.steps=\(2, 5\): .*7.*at most 6'),
    ({'phases.hr_patch': (8, 13)}, r'config\.phases: phase 2, .*13x13: .*multiple of scale 2'),
    ({'phases.batch_size': (3, 2), 'accumulate': 2}, r'config\.phases: phase 1, .*accumulate=2'),
    ({'epochs': 3}, r'config\.epochs=3'),
    ({'loss.ms_ssim.weight': 1.0, 'loss.ms_ssim.scales': 1},
     r'config\.phases: phase 1, .*loss\.ms_ssim\.scales=1: .*11'),
    ({'loss.colour.weight': 1.0, 'loss.colour.block': 10},
     r'config\.phases: phase 1, .*loss\.colour\.block=10'),
    ({'loss.perceptual.weight': 1.0, 'loss.perceptual.network': 'vgg16',
      'loss.perceptual.layers': 'relu5_1', 'loss.perceptual.identity': 'torchvision'},
     r'config\.phases: phase 1, .*relu5_1'),
    ({'discriminator.name': 'vgg_style', 'discriminator.head': 'dense',
      'loss.adversarial.weight': 1.0}, r"config\.phases: phase 1, .*discriminator.*head='conv'")])
def test_parts_that_cannot_be_trained_are_refused_at_the_start(changes, words):
  config = divided()
  for key, value in changes.items():
    *sections, last = key.split('.')
    section = config
    for name in sections:
      section = section[name]
    section[last] = value
  with pytest.raises(InputError, match=words) as refused:
    phases.build(config)
  assert '\n' not in str(refused.value)


def test_crops_of_a_later_phase_that_no_image_can_give_are_refused(folder, tmp_path):
  config = divided(folder)
  config.phases.hr_patch = (8, 80)
  with pytest.raises(InputError, match=r'config\.phases: phase 2, .*80x80: .*80'):
    run(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_the_terms_of_all_parts_are_one_curve():
  lines = [{'step': step, 'phase': f'pixel-{part}', 'terms/pixel/train': 1 / step,
            'terms/pixel/valid': 2 / step} for step, part in ((1, 1), (2, 1), (4, 2))]
  assert describe_terms(lines) == [
      'pixel: train 1 to 0.25, validation 2 to 0.5, lowest 0.5 at step 4']
