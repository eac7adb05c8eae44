"""Whole runs at the smallest size: resuming, what is written, what is refused."""

import json
import signal
import threading
import time

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sr_jax import (
  build,
  build_data,
  evaluate,
  files,
  images,
  restore,
  runs,
  score,
  train,
  watch,
)
from sr_jax.checkpoints import Checkpoints
from sr_jax.data.benchmarks import read_set
from sr_jax.errors import InputError
from sr_jax.logs import read_metrics
from sr_jax.models import EDSR, SRCNN
from sr_jax.state import NetState, TrainState
from sr_jax.weights import generators
from tests.conftest import filled, same_bits


def run(config, workdir, **changes):
  config = config.copy_and_resolve_references()
  for key, value in changes.items():
    config[key] = value
  return train.train(config, workdir)


@pytest.mark.parametrize(('warmup', 'loop'), [
    pytest.param(40, 'no', marks=pytest.mark.slow),  # all pixel
    pytest.param(0, 'no', marks=pytest.mark.slow),  # all adversarial
    (20, 'no'),  # the restart is at the boundary
    pytest.param(30, 'no', marks=pytest.mark.slow),  # the boundary is after the restart
    # Before it, through the device loop, with frozen arrays.
    pytest.param(10, 'yes', marks=pytest.mark.slow)])
def test_forty_steps_are_twenty_a_restart_and_twenty(config, tmp_path, picture, warmup, loop):
  config.warmup_steps, config.device_loop = warmup, loop
  if loop == 'yes':
    config.freeze, config.optimizer.g.weight_decay = 'head,body_0', 0.01
  if loop == 'yes' or warmup == 20:  # and is watched meanwhile
    images.write_image(tmp_path / 'valid' / 'sub' / 'a.png', picture(20, 24))
    config.data.valid = f'folder:{tmp_path / "valid"}'
  whole = run(config, tmp_path / 'whole')
  # A run that is killed at 20: its config says 40, its last checkpoint is 20.
  stop_after(config, tmp_path / 'parts', 20)
  parts = run(config, tmp_path / 'parts')
  assert int(parts.step) == 40
  assert same_bits(whole, parts) == []
  if config.freeze:
    start = build.build(config).new_state()
    for name in ('head', 'body_0'):
      assert same_bits(whole.g.params[name], start.g.params[name]) == []
    assert len(same_bits(whole.d.params, start.d.params)) == len(jax.tree.leaves(start.d.params))
  # What was restored from disk last is the state too, moments and averages included.
  target = jax.tree.map(np.zeros_like, whole)
  assert same_bits(Checkpoints(tmp_path / 'parts', read_only=True).restore(target), whole) == []
  # The log holds each step once.
  assert [line['step'] for line in read_metrics(tmp_path / 'parts')] == [
      line['step'] for line in read_metrics(tmp_path / 'whole')]
  if config.data.valid:
    seen, again = ({path.relative_to(folder): path.read_bytes() for path in folder.rglob('*.png')}
                   for folder in (tmp_path / name / 'progress' for name in ('whole', 'parts')))
    assert seen == again
    assert len(set(seen.values())) == len(seen) == 5  # it has learnt from each to the next
    assert images.read_image(tmp_path / 'parts' / 'progress' / 'sub' / 'a.png').shape == (
        20, 6 * 24 + 5 * 4, 3)


def stop_after(config, workdir, step):
  """Runs and takes the plug out after the checkpoint of `step`."""
  save = Checkpoints.save

  class Unplugged(Exception):  # noqa: N818
    pass

  def save_and_stop(self, state, metrics=None):
    save(self, state, metrics)
    if int(state.step) == step:
      self.wait()
      raise Unplugged

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(Checkpoints, 'save', save_and_stop)
    with pytest.raises(Unplugged):
      run(config, workdir)


def test_logs_and_validation_do_not_change_the_result(config, tmp_path):
  plain = run(config, tmp_path / 'plain')
  config.data.valid, config.eval.every = config.data.source, 7
  config.log_every, config.sample_every, config.checkpoint_every = 3, 11, 13
  assert same_bits(run(config, tmp_path / 'busy'), plain) == []


def test_what_a_run_leaves(config, tmp_path, capsys):
  config.data.valid = config.data.source
  config.eval.every = config.sample_every = 20
  state = run(config, tmp_path)
  out = capsys.readouterr().out
  for text in ('Generator', 'Discriminator', 'last/kernel',
               'warm-up step 1, weighted terms: g/pixel',
               'gan step 21, weighted terms: g/adversarial',
               '5 pictures', 'warm-up to step 20, gan to step 40', 'Started', 'in all'):
    assert text in out, text
  assert {path.name for path in tmp_path.iterdir()} == {
      'config.json', 'run.json', 'metrics.jsonl', 'tensorboard', 'samples', 'progress',
      'checkpoints'}
  lines = read_metrics(tmp_path)
  steps = [line['step'] for line in lines if 'g/total' in line]
  assert steps == [1, 10, 20, 30, 40]
  assert lines[0]['phase'] == 'bicubic'
  last = [line for line in lines if 'g/total' in line][-1]
  assert {'g/pixel', 'g/adversarial', 'd/total', 'd/real', 'd/fake', 'learning_rate/g',
          'learning_rate/d', 'images_per_second'} <= set(last)
  warm, gan = ({name for name in line if name.startswith('terms/')} for line in lines
               if 'valid/psnr_y' in line and line['step'])
  assert warm == {'terms/pixel/train', 'terms/pixel/valid'}
  experiment = build.build(config)
  figures = watch.terms_of(jax.jit(experiment.phases[-1].terms), state,
                           watch.open_watched(config, build_data.training_set(config)).crops, {})
  assert figures.keys() == gan > warm
  assert {name: lines[-1][name] for name in gan} == figures  # of this very state
  strips = sorted((tmp_path / 'samples').iterdir())
  assert [path.name for path in strips] == ['0-0000020.png', '0-0000040.png']
  # low, bicubic, generated, original of the first picture, 40x52, with white between
  assert images.read_image(strips[0]).shape == (40, 4 * 52 + 3 * 4, 3)
  record, = json.loads((tmp_path / 'run.json').read_text())
  assert record['from_step'] == 0
  assert record['device_loop'] is False
  assert record['skipped_pictures'] == []
  assert record['ended'] >= record['started']


def test_checkpoints_kept_are_the_last_two_the_boundary_and_the_best(config, tmp_path,
                                                                     monkeypatch):
  config.data.valid, config.eval.every = config.data.source, 4
  config.checkpoint_every, config.warmup_steps = 4, 8
  # The best is step 16 and step 16 alone.
  monkeypatch.setattr(train.score, 'mean', scores := iter_scores([5, 1, 1, 2, 9, 3, 4, 4, 4, 4, 4]))
  run(config, tmp_path)
  checkpoints = Checkpoints(tmp_path, 'psnr_y', read_only=True)
  assert checkpoints.steps() == [8, 16, 36, 40]
  assert checkpoints.best() == 16
  assert checkpoints.latest() == 40
  assert scores.left == 0


def iter_scores(values):
  def mean(scores):
    mean.left -= 1
    return {'psnr_y': float(values[len(values) - 1 - mean.left])}
  mean.left = len(values)
  return mean


@pytest.mark.slow
def test_a_resume_without_validation_keeps_the_best(config, tmp_path):
  config.data.valid, config.eval.every, config.checkpoint_every = config.data.source, 4, 4
  config.warmup_steps, config.loss.adversarial.weight = 0, 0.0
  config.discriminator.name = 'none'
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(train.score, 'mean', iter_scores([0, 9, 1, 1]))
    run(config, tmp_path, steps=12)
  config.data.valid = ''
  run(config, tmp_path, steps=24)
  checkpoints = Checkpoints(tmp_path, 'psnr_y', read_only=True)
  assert checkpoints.best() == 4
  assert checkpoints.steps() == [4, 20, 24]


def test_bad_validation_pictures_are_skipped_and_flat_ones_are_scored(config, tmp_path, capsys):
  images.write_image(tmp_path / 'valid' / 'flat.png', np.full((24, 24, 3), 90, np.uint8))
  (tmp_path / 'valid' / 'text.png').write_text('no picture')
  config.data.valid, config.eval.every = f'folder:{tmp_path / "valid"}', 10
  run(config, tmp_path / 'run')
  out = capsys.readouterr().out
  assert 'text.png: not a picture' in out
  assert '1 skipped' in out
  # Bicubic is exact on a picture of one colour: an infinite figure, shown as none.
  assert '       0  bicubic                   ' in out
  (tmp_path / 'valid' / 'flat.png').unlink()
  with pytest.raises(InputError, match=r'config\.data\.valid: no usable picture.*text\.png'):
    run(config, tmp_path / 'other')


@pytest.mark.slow
def test_init_from_takes_the_averaged_generator(config, tmp_path):
  first = run(config, tmp_path / 'first', steps=10, warmup_steps=10)
  config.init_from, config.warmup_steps, config.steps = str(tmp_path / 'first'), 0, 1
  for adam in config.optimizer.values():
    adam.learning_rate = 0.0
  config.data.valid = config.data.source
  second = run(config, tmp_path / 'second')
  assert same_bits(second.g.params, first.ema['params']) == []
  for raw, params in ((False, first.ema['params']), (True, first.g.params)):
    assert same_bits(restore.load(tmp_path / 'first', raw=raw).variables['params'], params) == []
  assert same_bits(first.g.params, first.ema['params']) != []
  # What is to be bettered is in the log: a later step's figures are read beside the start's.
  lines = [line for line in read_metrics(tmp_path / 'second') if 'valid/psnr_y' in line]
  assert [(line['step'], line['phase']) for line in lines] == [
      (0, 'bicubic'), (0, 'start'), (1, 'gan')]
  model = restore.load(tmp_path / 'first')
  pairs = list(read_set(build_data.scored_set(config, 'valid'), 2))
  expected = score.mean(evaluate.score_set(pairs, model, score.make_scorer(2, 'none')))
  assert lines[1]['valid/psnr_y'] == pytest.approx(expected['psnr_y'])
  config.generator.output = 'linear'
  with pytest.raises(InputError, match="first, step 10 has output='tanh', the config 'linear'"):
    run(config, tmp_path / 'third')
  config.init_from = str(tmp_path / 'nothing')
  with pytest.raises(InputError, match='nothing'):
    run(config, tmp_path / 'third')


@pytest.fixture
def edsr_x2(tmp_path):
  """(file of an EDSR x2 in EDSR-PyTorch's names, its variables)."""
  model = EDSR(4, 1, scale=2)
  variables = filled(model, np.zeros((1, 8, 8, 3), np.float32))
  path = tmp_path / 'x2.safetensors'
  generators.write_generator(path, 'edsr-pytorch', 'edsr', model, variables)
  return path, variables


def pixels_alone(config):
  """The experiment without its discriminator, of an EDSR."""
  with config.ignore_type():
    config.generator.update({'name': 'edsr', 'features': 4, 'blocks': 1, 'kernel': None})
  config.discriminator.name, config.loss.adversarial.weight = 'none', 0.0
  config.warmup_steps, config.steps = 0, 1
  config.optimizer.g.learning_rate = 0.0
  return config


@pytest.mark.slow
def test_another_scale_starts_from_the_trunk(config, tmp_path, edsr_x2, capsys):
  path, given = edsr_x2
  model = restore.load(path)
  runs.save_run(tmp_path / 'x2', model.variables, model.config, {'names': model.names})
  config = pixels_alone(config)
  with pytest.raises(InputError, match=r'x2: imported weights, no training.*init_from=.*x2'):
    run(config, tmp_path / 'x2')
  # A file that does not tell its residual scale is taken to have the config's.
  bare = tmp_path / 'bare.safetensors'
  save_file(load_file(path), bare)
  config.init_from = str(bare)
  assert train._initial(config).generator.residual_scale == 1.0
  config.scale, config.init_from = 4, str(tmp_path / 'x2')
  state = run(config, tmp_path / 'x4')
  record, = json.loads((tmp_path / 'x4' / 'run.json').read_text())
  for params in (state.g.params, state.ema['params']):
    for layer in ('head', 'body_0', 'body_end'):
      assert same_bits(params[layer], given['params'][layer]) == []
    for layer in ('stages_0', 'last'):  # of the same shape, and yet of another resolution
      assert len(same_bits(params[layer], given['params'][layer])) >= 1
  assert sorted({name.split('/')[1] for name in record['taken']}) == ['body_0', 'body_end', 'head']
  assert len(record['taken']) == 8
  assert record['fresh'] == [f'params/{layer}/{kind}' for layer in (
      'last', 'stages_0/Conv_0', 'stages_1/Conv_0') for kind in ('bias', 'kernel')]
  assert (f'starts from {tmp_path}/x2, step 0: 8 arrays taken (body_0, body_end, head), 6 fresh '
          '(last, stages_0 to stages_1)') in capsys.readouterr().out
  for name, fields, scale, message in (
      ('edsr', {'blocks': 3}, 4, r'blocks=1, the config 3; --config\.generator\.blocks=1 makes'),
      ('edsr', {'residual_scale': 0.1}, 4, r'has residual_scale=1\.0, the config 0\.1'),
      ('rrdb', {'blocks': 1}, 2, "has network='EDSR', the config 'RRDB'")):
    changed = config.copy_and_resolve_references()
    changed.generator.update({'name': name, **fields})
    changed.scale = scale
    with pytest.raises(InputError, match=message):
      run(changed, tmp_path / 'other')
  assert not (tmp_path / 'other').exists()


def test_a_network_without_a_trunk_is_of_its_scale_alone(tmp_path):
  model = SRCNN((4,), (5, 3), scale=2)
  variables = filled(model, np.zeros((1, 8, 8, 3), np.float32))
  given = restore.Model(model, variables, {}, '', 'a run')
  for scale, taken in ((2, 4), (3, 0)):
    generator = SRCNN((4,), (5, 3), scale=scale)
    ema = {'params': filled(generator, np.zeros((1, 8, 8, 3), np.float32), 1)['params'],
           'batch_stats': {}}
    state = TrainState(0, 0, NetState(ema['params'], {}, ()), None, ema)
    if taken:
      assert len(restore.start_from(state, generator, given)[1]) == taken
    else:
      with pytest.raises(InputError, match='a run: of scale 2; at scale 3 nothing of a SRCNN'):
        restore.start_from(state, generator, given)


@pytest.mark.parametrize('number', [
    signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_saves_and_the_same_command_goes_on(config, tmp_path, number):
  whole = run(config, tmp_path / 'whole')
  config.checkpoint_every = 1000

  def interrupt():
    while len(read_metrics(tmp_path / 'parts')) < 2:
      time.sleep(0.01)
    signal.raise_signal(number)

  save = Checkpoints.save
  saved = []
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(Checkpoints, 'save', lambda self, state, metrics=None: (
        saved.append(int(state.step)), save(self, state, metrics)))
    patch.setattr(train, '_next_event', slow(train._next_event))
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(train.Stopped) as stopped:
      run(config, tmp_path / 'parts')
    thread.join()
  assert stopped.value.signal == number
  assert saved[-1] < 40
  assert same_bits(run(config, tmp_path / 'parts'), whole) == []


def slow(function):
  def slowed(*args):
    time.sleep(0.05)
    return function(*args)
  return slowed


def test_another_architecture_is_refused(config, tmp_path):
  run(config, tmp_path, steps=20, warmup_steps=20)

  def contents():
    return {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}

  before = contents()
  for key, value in (('generator.skip', 'bilinear'), ('seed', 7), ('discriminator.hidden', 9)):
    # No array has another shape for the first two.
    changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict({key: value})
    with pytest.raises(InputError, match=f'the run has {key.split(".")[0]}'):
      run(changed, tmp_path, warmup_steps=20)
  with pytest.raises(InputError, match=r'config\.steps=19.*step 20'):
    run(config, tmp_path, steps=19, warmup_steps=19)
  with pytest.raises(InputError, match=r'config\.warmup_steps=10: the run in .* is at step 20 with '
                     'a warm-up of 20'):  # D would begin in the middle
    run(config, tmp_path, warmup_steps=10)
  config.generator.features = 6
  with pytest.raises(InputError, match=r'the run has generator\.features=4, the config 6'):
    run(config, tmp_path)
  assert contents() == before
  # A run from before there were these keys had nothing frozen.
  trained = runs.run_config(tmp_path)
  files.write_json(tmp_path / 'config.json', {key: value for key, value in trained.items()
                                              if key not in ('train_only', 'freeze')})
  runs.check_against(tmp_path, config, ('train_only', 'freeze'))
  config.freeze = 'head'
  with pytest.raises(InputError, match="the run has freeze='', the config 'head'"):
    runs.check_against(tmp_path, config, ('train_only', 'freeze'))


def test_a_field_left_to_the_module_is_its_default(tmp_path):
  from configs import srresnet
  config = srresnet.get_config('small')
  config.generator.update({'blocks': 16, 'features': 64})
  files.write_json(tmp_path / 'config.json', json.loads(config.to_json_best_effort()))
  config = srresnet.get_config('small')
  with config.ignore_type():
    config.generator.features = config.generator.blocks = None
  runs.check_against(tmp_path, config, ('generator', 'discriminator', 'scale'))
  config.generator.kernel = 5
  with pytest.raises(InputError, match=r'the run has generator\.kernel=3, the config 5'):
    runs.check_against(tmp_path, config, ('generator',))


@pytest.mark.parametrize(('text', 'message'), [
    ('[]', 'states no generator'), ('3', 'no run there'), ('{', 'no run there'),
    ('{}', 'config.json: states no generator'),
    ('{"scale": 2, "dtype": "float32", "generator": {"name": "unet"}}', 'states no generator'),
    ('{"scale": 2, "dtype": "float32", "generator": {"name": "srresnet", "depth": 3}}',
     'config.json: config.generator.depth: srresnet has no such field')])
def test_a_strange_config_json_is_named(config, tmp_path, text, message):
  (tmp_path / 'config.json').write_text(text)
  with pytest.raises(InputError, match=f'{tmp_path}.*{message}'):
    runs.check_against(tmp_path, config, ('generator', 'scale'))
  with pytest.raises(InputError, match=message):
    run(config, tmp_path / 'new', init_from=str(tmp_path))
  assert not (tmp_path / 'new').exists()


def test_a_refused_start_leaves_no_folder(config, tmp_path):
  for changes in ({'data.source': 'folder:/nowhere'}, {'loss.perceptual.weight': 1.0,
                  'loss.perceptual.weights': '/nowhere.pth'}, {'hr_patch': 1000}, {'scale': 0},
                  {'loss.perceptual.weight': 1.0, 'loss.perceptual.network': 'vgg16',
                   'loss.perceptual.identity': 'torchvision',
                   'loss.perceptual.layers': 'relu5_3', 'hr_patch': 8},
                  {'eval.every': 0}, {'seed': 2**31}, {'discriminator.widths': (0,)},
                  {'best_metric': 'lpips_none'}, {'best_metric': 'lpips_alex'},
                  {'ema': 1.5}, {'loss.pixel.weight': -1.0}, {'optimizer.d.learning_rate': -1.0},
                  {'hr_patch': 17}, {'warmup_steps': 41}, {'dtype': 'float8'},
                  {'progress_pictures': -1}):
    changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict(changes)
    with pytest.raises(InputError):
      train.train(changed, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_what_can_not_be_written_is_named(config, tmp_path):
  (tmp_path / 'metrics.jsonl').mkdir()
  with pytest.raises(InputError, match=r'metrics\.jsonl: can not be written'):
    run(config, tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['metrics.jsonl']


def test_a_workdir_that_is_a_file_is_refused(config, tmp_path):
  (tmp_path / 'file').write_text('')
  for workdir in (tmp_path / 'file', tmp_path / 'file' / 'below'):
    with pytest.raises(InputError, match='can not be written'):
      run(config, workdir)
