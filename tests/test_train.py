"""Complete runs at the smallest size: resuming, what is written, what is refused."""

import contextlib
import io
import json
import os
import pathlib
import re
import shutil
import signal
import types
from typing import NamedTuple

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import load_file, save_file

from sr_jax import images, losses, restore, train
from sr_jax.data.benchmarks import read_set
from sr_jax.errors import InputError
from sr_jax.experiment import compatibility, inputs, phases
from sr_jax.media import photos
from sr_jax.metrics import scorer
from sr_jax.models import EDSR, SRCNN
from sr_jax.pretrained import generators
from sr_jax.runs import imported, lock, logs
from sr_jax.runs.checkpoints import Checkpoints
from sr_jax.runs.metrics_log import read_metrics
from sr_jax.step.flat import flatten, named_arrays
from sr_jax.step.state import Average, NetState, TrainState
from sr_jax.step.train_step import PixelStep
from sr_jax.system import files
from sr_jax.train import replay, schedule, stopping, validation, validation_data
from sr_jax.train.initial import load_initial, start_from
from tests import smallest
from tests.conftest import filled, same_bits


def run(config, workdir, resume=False, **changes):
  config = config.copy_and_resolve_references()
  for key, value in changes.items():
    config[key] = value
  return train.train(config, workdir, resume)


class Uninterrupted(NamedTuple):
  """A run of 40 steps, 20 of them the warm-up's, that is validated every ten steps.

  Several tests share it: they may read the folder and copy the config, but not change either.
  """

  config: ConfigDict
  workdir: pathlib.Path
  state: TrainState
  out: str


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory, folder, picture):
  path = tmp_path_factory.mktemp('uninterrupted')
  config = smallest.get_config()
  config.data.source = f'folder:{folder}'
  images.write_image(path / 'valid' / 'sub' / 'a.png', picture(20, 24))
  config.data.valid = f'folder:{path / "valid"}'
  config.eval.every = config.sample_every = 10
  with contextlib.redirect_stdout(io.StringIO()) as out:
    state = run(config, path / 'run')
  return Uninterrupted(config, path / 'run', state, out.getvalue())


def test_a_run_killed_at_the_end_of_the_warm_up_continues_to_the_same_bits(uninterrupted, tmp_path):
  stop_after(uninterrupted.config, tmp_path, 20)
  check_resumed(tmp_path, run(uninterrupted.config, tmp_path), uninterrupted.workdir,
                uninterrupted.state)
  montage = images.read_image(tmp_path / 'progress' / 'sub' / 'a.png')
  assert montage.shape == (20, 8 * 24 + 7 * 4, 3)


@pytest.mark.slow
@pytest.mark.parametrize(('warmup', 'loop'), [
    (40, 'no'),  # all pixel
    (0, 'no'),  # all adversarial
    (30, 'no'),  # the boundary is after the restart
    (10, 'yes')])  # before it, through the device loop, with frozen arrays
def test_a_run_killed_within_a_phase_continues_to_the_same_bits(config, tmp_path, picture, warmup,
                                                                loop):
  config.warmup_steps, config.device_loop = warmup, loop
  if loop == 'yes':
    config.freeze, config.optimizer.g.weight_decay = 'head,body_0', 0.01
    images.write_image(tmp_path / 'valid' / 'sub' / 'a.png', picture(20, 24))
    config.data.valid = f'folder:{tmp_path / "valid"}'
  whole = run(config, tmp_path / 'whole')
  stop_after(config, tmp_path / 'parts', 20)
  check_resumed(tmp_path / 'parts', run(config, tmp_path / 'parts'), tmp_path / 'whole', whole)
  if config.freeze:
    start = phases.build(config).new_state()
    moved = {name.split('/')[0] for name in same_bits(whole.g.params, start.g.params)}
    assert moved == {name.split('/')[0] for name in named_arrays(start.g.params)} - {
        'head', 'body_0'}
    unmoved = start.d.params.arrays().keys() - set(same_bits(whole.d.params, start.d.params))
    assert unmoved == {f'Conv_{number}/bias' for number in (1, 2, 3)}  # before BatchNorm


def check_resumed(workdir, state, whole_workdir, whole_state):
  """Asserts that a resumed run ended as an uninterrupted one did."""
  assert int(state.step) == int(whole_state.step) > 0
  assert same_bits(whole_state, state) == []
  # The last checkpoint holds that state, with optimiser state and averages.
  target = jax.tree.map(np.zeros_like, whole_state)
  assert same_bits(Checkpoints(workdir, read_only=True).restore(target), whole_state) == []
  # The log contains each step once.
  assert [line['step'] for line in read_metrics(workdir)] == [
      line['step'] for line in read_metrics(whole_workdir)]
  resumed, whole = ({path.relative_to(folder): path.read_bytes() for path in folder.rglob('*.png')}
                    for folder in (workdir / 'progress', whole_workdir / 'progress'))
  assert resumed == whole
  if resumed:  # low, bicubic, original, five quarters and the montage, all of them different
    assert len(set(resumed.values())) == len(resumed) == 9


def stop_after(config, workdir, step):
  """Runs until the checkpoint of `step` is saved and stops there, as a kill would."""
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


def test_logs_and_validation_do_not_change_the_result(config, uninterrupted, tmp_path):
  config.log_every, config.sample_every, config.checkpoint_every = 3, 11, 13
  assert same_bits(run(config, tmp_path), uninterrupted.state) == []


def test_files_and_output_of_a_run(uninterrupted):
  config, workdir, state, out = uninterrupted
  assert 'last/kernel' not in out
  stamped = re.fullmatch(r'(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S.*\n|\d{4}[-:\d ]{15} {5}.*\n)+', out)
  assert stamped, out
  assert (workdir / 'train.log').read_text() == out
  assert f'Device: 1 x {jax.devices()[0].device_kind}, jax {jax.__version__}' in out.splitlines()[0]
  counts = [sum(array.size for array in net.params.arrays().values())
            for net in (state.g, state.d)]
  assert f'G {counts[0]:,} parameters, D {counts[1]:,}\n' in out
  assert re.search(r' gan  step 30/40 \(epoch [\d.]+\)  lr 1.00e-03  loss G .*  ETA \d\d:\d\d\n',
                   out)
  assert re.search(rf'Finished: step 40 of 40 .* Best: step \d+ .*{workdir}/report\.html\n$', out)
  for text in ('warm-up step 1, weighted terms: g/pixel',
               'gan step 21, weighted terms: g/adversarial',
               '5 images', 'warm-up to step 20, gan to step 40', 'validation on folder:'):
    assert text in out, text
  assert {path.name for path in workdir.iterdir()} == {
      'config.json', 'run.json', 'metrics.jsonl', 'train.log', 'tensorboard', 'samples', 'progress',
      'checkpoints', 'report.html', '.lock'}
  lines = read_metrics(workdir)
  steps = [line['step'] for line in lines if 'g/total' in line]
  assert steps == [1, 10, 20, 30, 40]
  assert lines[0]['phase'] == 'bicubic'
  last = [line for line in lines if 'g/total' in line][-1]
  assert {'g/pixel', 'g/adversarial', 'd/total', 'd/real', 'd/fake', 'learning_rate/g',
          'learning_rate/d', 'images_per_second'} <= set(last)
  validations = [line for line in lines if 'valid/psnr_y' in line]
  assert [line['step'] for line in validations] == [0, 10, 20, 30, 40]
  _, warm, warm_again, gan, gan_again = ({name for name in line if name.startswith('terms/')}
                                         for line in validations)
  assert (warm, gan) == (warm_again, gan_again)
  assert warm == {'terms/pixel/train', 'terms/pixel/valid'}
  experiment = phases.build(config)
  crops = validation_data.open_validation(config, inputs.training_set(config)).crops
  terms = validation.loss_terms(jax.jit(experiment.phases[-1].terms), state, crops, {})
  assert terms.keys() == gan > warm
  assert {name: lines[-1][name] for name in gan} == terms  # computed from the last state
  samples = sorted((workdir / 'samples').rglob('*.png'))
  assert [path.relative_to(workdir / 'samples').as_posix() for path in samples] == [
      f'sub/a-00000{step}.png' for step in (10, 20, 30, 40)]
  # Low, bicubic, generated and original, 20x24, separated by four white columns.
  assert images.read_image(samples[0]).shape == (20, 4 * 24 + 3 * 4, 3)
  record, = json.loads((workdir / 'run.json').read_text())
  assert record['from_step'] == 0
  assert record['device_loop'] is False
  assert record['skipped_pictures'] == []
  assert record['parameters'] == {
      key: sum(array.size for array in net.params.arrays().values())
      for key, net in (('generator', state.g), ('discriminator', state.d))}
  assert record['ended'] >= record['started']


@pytest.mark.slow
def test_checkpoints_kept_are_the_last_two_the_boundary_and_the_best(config, tmp_path,
                                                                     monkeypatch):
  config.data.valid, config.eval.every = config.data.source, 4
  config.checkpoint_every, config.warmup_steps = 4, 8
  # The best is step 16 and step 16 alone.
  monkeypatch.setattr(scorer, 'mean', scores := iter_scores([5, 1, 1, 2, 9, 3, 4, 4, 4, 4, 4]))
  run(config, tmp_path)
  checkpoints = Checkpoints(tmp_path, 'psnr_y', read_only=True)
  assert checkpoints.steps() == [8, 16, 36, 40]
  assert checkpoints.best() == 16
  assert checkpoints.latest() == 40
  assert scores.left == 0


def iter_scores(values):
  def mean(scores, compared=None):
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
    patch.setattr(scorer, 'mean', iter_scores([0, 9, 1, 1]))
    run(config, tmp_path, steps=12)
  config.data.valid = ''
  run(config, tmp_path, resume=True, steps=24)
  checkpoints = Checkpoints(tmp_path, 'psnr_y', read_only=True)
  assert checkpoints.best() == 4
  assert checkpoints.steps() == [4, 20, 24]


def test_bad_validation_images_are_skipped_and_flat_ones_are_scored(config, tmp_path, capsys):
  flat = np.full((24, 24, 3), 90, np.uint8)
  images.write_image(tmp_path / 'valid' / 'flat.png', flat)
  (tmp_path / 'valid' / 'text.png').write_text('no picture')
  config.data.valid = f'folder:{tmp_path / "valid"}'
  photos.write(tmp_path / 'deep' / 'deep.png', photos.Photo(np.uint16(flat) * 257), 'png')
  config.data.source = f'folder:{tmp_path / "deep"}'
  run(config, tmp_path / 'run', steps=2, warmup_steps=2)
  out = capsys.readouterr().out
  assert 'text.png: not a supported image' in out
  assert re.search(r'16 bits reduced to 8: 1 of 1 images \(.*deep\.png\)', out)
  assert '1 skipped' in out
  # Bicubic is exact on an image of one colour: its PSNR is infinite, and the cell stays empty.
  assert '       0  bicubic                   ' in out
  (tmp_path / 'valid' / 'flat.png').unlink()
  with pytest.raises(InputError, match=r'config\.data\.valid: no usable image.*text\.png'):
    run(config, tmp_path / 'other')


@pytest.mark.slow
def test_init_from_loads_the_averaged_generator(config, tmp_path):
  first = run(config, tmp_path / 'first', steps=10, warmup_steps=10)
  config.init_from, config.warmup_steps, config.steps = str(tmp_path / 'first'), 0, 1
  for adam in config.optimizer.values():
    adam.learning_rate = 0.0
  config.data.valid = config.data.source
  second = run(config, tmp_path / 'second')
  assert same_bits(second.g.params, first.ema.params) == []
  for raw, params in ((False, first.ema.params), (True, first.g.params)):
    assert same_bits(restore.load(tmp_path / 'first', raw=raw).variables['params'], params) == []
  assert same_bits(first.g.params, first.ema.params) != []
  # The scores of the initial weights are logged, to compare later ones with.
  lines = [line for line in read_metrics(tmp_path / 'second') if 'valid/psnr_y' in line]
  assert [(line['step'], line['phase']) for line in lines] == [
      (0, 'bicubic'), (0, 'start'), (1, 'gan')]
  model = restore.load(tmp_path / 'first')
  pairs = list(read_set(inputs.scored_set(config, 'valid'), 2))
  expected = scorer.mean(scorer.score_set(pairs, model, scorer.make_scorer(2, 'none')))
  assert lines[1]['valid/psnr_y'] == pytest.approx(expected['psnr_y'])
  config.generator.output = 'linear'
  with pytest.raises(InputError, match=r"first, step 10 .*output='tanh'.*'linear'"):
    run(config, tmp_path / 'third')
  config.init_from = str(tmp_path / 'nothing')
  with pytest.raises(InputError, match='nothing'):
    run(config, tmp_path / 'third')


@pytest.fixture
def edsr_x2(tmp_path):
  """(file of an EDSR x2 with the names of EDSR-PyTorch, its variables)."""
  model = EDSR(4, 1, scale=2)
  variables = filled(model, np.zeros((1, 8, 8, 3), np.float32))
  path = tmp_path / 'x2.safetensors'
  generators.write_generator(path, 'edsr-pytorch', 'edsr', model, variables)
  return path, variables


def pixels_alone(config):
  """Makes a config that of an EDSR without a discriminator."""
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
  imported.save_imported(tmp_path / 'x2', model.variables, model.config, {'names': model.family})
  config = pixels_alone(config)
  with pytest.raises(InputError, match=r'x2: .*imported weights.*init_from=.*x2'):
    run(config, tmp_path / 'x2')
  # A file that does not state its residual scale is assumed to have the config's.
  bare = tmp_path / 'bare.safetensors'
  save_file(load_file(path), bare)
  config.init_from = str(bare)
  assert load_initial(config).generator.residual_scale == 1.0
  config.scale, config.init_from = 4, str(tmp_path / 'x2')
  state = run(config, tmp_path / 'x4')
  record, = json.loads((tmp_path / 'x4' / 'run.json').read_text())
  for params in (state.g.params.tree(), state.ema.params.tree()):
    for layer in ('head', 'body_0', 'body_end'):
      assert same_bits(params[layer], given['params'][layer]) == []
    for layer in ('stages_0', 'last'):  # the same shape, but another resolution
      assert len(same_bits(params[layer], given['params'][layer])) >= 1
  assert sorted({name.split('/')[1] for name in record['taken']}) == ['body_0', 'body_end', 'head']
  assert len(record['taken']) == 8
  assert record['fresh'] == [f'params/{layer}/{kind}' for layer in (
      'last', 'stages_0/Conv_0', 'stages_1/Conv_0') for kind in ('bias', 'kernel')]
  assert re.search(fr'{tmp_path}/x2, step 0: 8 .*\(body_0, body_end, head\)\n'
                   r'.*6 arrays newly .*\(last, stages_0 to stages_1\)\n'
                   r'.*4 arrays of .*x2, step 0 not used \(last, stages_0\)',
                   capsys.readouterr().out)
  assert sorted(record['unused']) == [name for name in record['fresh'] if 'stages_1' not in name]
  for name, fields, scale, message in (
      ('edsr', {'blocks': 3}, 4, r'blocks=1.* 3; .*--config\.generator\.blocks=1'),
      ('edsr', {'residual_scale': 0.1}, 4, r'residual_scale=1\.0.* 0\.1'),
      ('rrdb', {'blocks': 1}, 2, "network='EDSR'.*'RRDB'")):
    changed = config.copy_and_resolve_references()
    changed.generator.update({'name': name, **fields})
    changed.scale = scale
    with pytest.raises(InputError, match=message):
      run(changed, tmp_path / 'other')
  assert not (tmp_path / 'other').exists()


def test_a_network_without_a_trunk_starts_only_at_its_own_scale(tmp_path):
  model = SRCNN((4,), (5, 3), scale=2)
  variables = filled(model, np.zeros((1, 8, 8, 3), np.float32))
  given = restore.Model(model, variables, {}, '', 'a run')
  for scale, taken in ((2, 4), (3, 0)):
    generator = SRCNN((4,), (5, 3), scale=scale)
    params = flatten(filled(generator, np.zeros((1, 8, 8, 3), np.float32), 1)['params'])
    state = TrainState(0, 0, NetState(params, flatten({}), ()), None,
                       Average(params, flatten({})))
    if taken:
      assert len(start_from(state, generator, given)[1].loaded) == taken
    else:
      with pytest.raises(InputError, match=r'a run: .*scale 2, .*3, .*SRCNN'):
        start_from(state, generator, given)


@pytest.mark.parametrize('number', [
    signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_saves_and_the_same_command_continues(config, uninterrupted, tmp_path, number):
  config.checkpoint_every = 1000
  scalars = logs.Logs.scalars

  def interrupted(log, step, *rest):
    scalars(log, step, *rest)
    if step == 10:
      signal.raise_signal(number)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(logs.Logs, 'scalars', interrupted)
    with pytest.raises(stopping.Stopped) as stopped:
      run(config, tmp_path)
  assert stopped.value.signal == number
  assert 10 <= Checkpoints(tmp_path, read_only=True).latest() < 20
  log = (tmp_path / 'train.log').read_text()
  assert re.search(r'Stopped at step 1\d of 40 .*resume.* Report: .*report\.html\n$', log)
  assert same_bits(run(config, tmp_path), uninterrupted.state) == []


def test_one_run_at_a_time(config, tmp_path):
  files.write_json(tmp_path / 'run' / 'config.json', {})
  with lock.run_lock(tmp_path / 'run'), pytest.raises(
      InputError, match=rf'run: process {os.getpid()} on '):
    run(config, tmp_path / 'run')
  # Another run starts in the folder while this one reads its images.
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(train.run.metadata, 'start_records', lambda _: files.write_json(
        tmp_path / 'new' / 'config.json', {}) or [])
    with pytest.raises(InputError, match='new: another run'):
      run(config, tmp_path / 'new')


@pytest.mark.slow
def test_a_damaged_run_json_is_reported_and_kept(config, tmp_path, capsys):
  run(config, tmp_path, steps=2, warmup_steps=2)
  (tmp_path / 'run.json').write_text('{')
  run(config, tmp_path, steps=4, warmup_steps=2)
  assert re.search(r'run\.json: .*run\.json\.damaged', capsys.readouterr().out)
  assert (tmp_path / 'run.json.damaged').read_text() == '{'
  assert len(json.loads((tmp_path / 'run.json').read_text())) == 1


@pytest.mark.parametrize(('trains', 'words'), [
    (True, r'process \d+ on'), (False, 'deleted or renamed')])
def test_a_run_whose_folder_was_replaced_stops(config, tmp_path, monkeypatch, trains, words):
  progress, place = logs.Logs.progress, tmp_path / 'run'
  with contextlib.ExitStack() as stack:
    def rename(log, step, *rest):
      if step == 2:
        place.rename(tmp_path / 'away')
        files.write_json(place / 'config.json', {})
        if trains:
          stack.enter_context(lock.run_lock(place))
      progress(log, step, *rest)

    monkeypatch.setattr(logs.Logs, 'progress', rename)
    with pytest.raises(InputError, match=f'run: .*{words}'):
      run(config, place, steps=4, warmup_steps=4, checkpoint_every=4)
  # The first run neither wrote nor deleted anything there.
  assert sorted(os.listdir(place)) == ['.lock', 'config.json']
  assert json.loads((place / 'config.json').read_text()) == {}


def test_a_changed_config_is_printed_and_recorded(config, tmp_path, capsys):
  run(config, tmp_path, steps=2, warmup_steps=2)
  assert ' -> ' not in capsys.readouterr().out
  config.optimizer.d.learning_rate, config.generator.kernel = 2e-3, None  # not its default
  with pytest.raises(InputError, match=r'the run has generator\.kernel=3.*new --workdir'):
    run(config, tmp_path, resume=True, steps=2, warmup_steps=2)
  config.generator.kernel, config.log_every = 3, 5
  run(config, tmp_path, resume=True, steps=4, warmup_steps=4)
  out = capsys.readouterr().out
  for key, before, now in (('log_every', 10, 5), ('optimizer.d.learning_rate', 0.001, 0.002),
                           ('steps', 2, 4), ('warmup_steps', 2, 4)):
    assert re.search(fr' config\.{key} [^\n]*\b{before} -> {now}\n', out), key
  first, second = json.loads((tmp_path / 'run.json').read_text())
  assert 'changed' not in first
  assert second['changed'] == {'log_every': [10, 5], 'optimizer.d.learning_rate': [0.001, 0.002],
                               'steps': [2, 4], 'warmup_steps': [2, 4]}


@pytest.mark.slow
def test_a_changed_config_is_recorded_even_if_its_start_is_killed(config, tmp_path, monkeypatch):
  run(config, tmp_path, steps=2, warmup_steps=2)
  write, written = files.write_json, []

  def killed(path, value):
    if written:  # config.json or run.json
      raise KeyboardInterrupt
    write(path, value)
    written.append(path.name)

  config.optimizer.g.learning_rate = 7e-4
  monkeypatch.setattr(files, 'write_json', killed)
  with pytest.raises(KeyboardInterrupt):
    run(config, tmp_path, resume=True, steps=4, warmup_steps=2)
  monkeypatch.setattr(files, 'write_json', write)
  run(config, tmp_path, resume=True, steps=4, warmup_steps=2)
  changes = [start.get('changed', {}) for start in json.loads((tmp_path / 'run.json').read_text())]
  assert any('optimizer.g.learning_rate' in changed for changed in changes)


def test_checkpoints_by_the_clock(config, tmp_path, monkeypatch):
  # A step takes two seconds and at most nine may be lost, so every fourth step is saved: after a
  # fifth it would be ten seconds. Other reasons to save restart the count.
  now, saved, plain = 0, [], phases.jit_step

  def dispatcher(*arguments):
    dispatch = plain(*arguments)
    def run(*arguments):
      nonlocal now
      now += 2
      return dispatch(*arguments)
    run.lower = dispatch.lower
    return run

  monkeypatch.setattr(phases, 'jit_step', dispatcher)
  monkeypatch.setattr(schedule, 'time', types.SimpleNamespace(monotonic=lambda: now))
  monkeypatch.setattr(Checkpoints, 'save', lambda self, state, metrics=None: saved.append(
      int(state.step)))
  monkeypatch.setattr(Checkpoints, 'latest', lambda self: saved[-1] if saved else None)
  config.checkpoint_every, config.checkpoint_every_seconds = 6, 9.0
  run(config, tmp_path, steps=20, warmup_steps=20)
  assert saved == [4, 6, 10, 12, 16, 18, 20]


@pytest.mark.parametrize('loop', ['no', pytest.param('yes', marks=pytest.mark.slow)])
@pytest.mark.parametrize('mode', ['bank', pytest.param('mapped', marks=pytest.mark.slow)])
def test_a_nonfinite_run_stops_at_the_state_before(config, tmp_path, capsys, loop, mode):
  config.device_loop, config.data.mode, config.max_bad_steps = loop, mode, 4
  config.optimizer.warmup.learning_rate = 1e30  # everything overflows after the first step
  config.checkpoint_every, config.log_every = 3, 1
  with pytest.raises(InputError) as stopped:
    run(config, tmp_path, steps=20, warmup_steps=20)
  picture = tmp_path / 'replay' / '2.png'
  assert re.fullmatch(fr'{tmp_path}: steps 2 to 5 .*\(g/pixel\).* seed 0, step 2, .*{picture}; .*'
                      r'checkpoint 1; sr-jax replay --step 2 .*', str(stopped.value))
  assert images.read_image(picture).shape == (4 * 16 + 3 * 4, 3 * 16 + 2 * 4, 3)
  log = (tmp_path / 'train.log').read_text()
  assert log.splitlines()[-1].endswith(f' error: {stopped.value}')
  lines = read_metrics(tmp_path)
  assert [line['skipped'] for line in lines] == [0, 1, 2, 3, 4]
  assert [line['g/pixel'] is None for line in lines] == [False, True, True, True, True]
  assert re.search(r'step 3: 1 more .*\(g/pixel\); 2 in all', capsys.readouterr().out)
  # The state is that of a single step.
  kept = Checkpoints(tmp_path, read_only=True)
  assert kept.steps() == [1]
  one = run(config, tmp_path / 'one', steps=1, warmup_steps=1)
  assert same_bits(kept.restore(one), one) == []
  record, = json.loads((tmp_path / 'run.json').read_text())
  assert record['ended']
  config.steps = config.warmup_steps = 20
  assert 'g/pixel' in replay.replay_run(config, tmp_path, 2)['not_finite']


def test_a_run_that_skips_every_update_fails(config, tmp_path):
  config.loss.pixel.weight = 1e38  # the norms of the gradients overflow
  for _ in range(2):  # it is not called finished later
    with pytest.raises(InputError, match=r'all 2 updates .*train\.log.*learning rate'):
      run(config, tmp_path, steps=2, warmup_steps=0)
  assert 'step 2 of 2 in' in (log := (tmp_path / 'train.log').read_text())
  assert '. All 2 updates were ' in log
  assert '(g/grad_norm); 2 in all' in log


@pytest.mark.slow
def test_a_saturated_discriminator_is_reported(config, tmp_path, capsys):
  config.saturated_steps, config.warmup_steps = 2, 0
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(losses, 'accuracy', lambda *_: (1.0, 1.0))
    run(config, tmp_path, steps=4, warmup_steps=0)
  out = capsys.readouterr().out
  assert len(re.findall('warning: D .* 2 steps in a row up to step 2', out)) == 1


def test_an_image_that_cannot_be_written_does_not_end_a_run(config, tmp_path, capsys):
  config.data.valid, config.sample_every, config.eval.pictures = config.data.source, 2, 1
  for name in ('samples', 'progress'):
    (tmp_path / name).write_text('in the way')
  run(config, tmp_path, steps=4, warmup_steps=4)
  out = capsys.readouterr().out
  for name in ('samples', 'progress'):
    assert re.search(rf'{name}/.*cannot write .*; training continues', out), name


@pytest.mark.slow
def test_a_deleted_run_is_written_again_with_a_checkpoint(config, tmp_path, monkeypatch, capsys):
  progress = logs.Logs.progress

  def deletes(log, step, *rest):
    if step == 2:
      shutil.rmtree(tmp_path / 'run')
    progress(log, step, *rest)

  monkeypatch.setattr(logs.Logs, 'progress', deletes)
  run(config, tmp_path / 'run', steps=4, warmup_steps=4, checkpoint_every=4)
  assert re.search('run: .*files .*deleted', capsys.readouterr().out)
  monkeypatch.undo()
  assert int(run(config, tmp_path / 'run', resume=True, steps=5, warmup_steps=5).step) == 5
  assert 'resuming from step 4' in capsys.readouterr().out


@pytest.mark.slow
def test_the_end_of_a_warm_up_with_a_nonfinite_last_step_is_kept(config, tmp_path, monkeypatch):
  step = PixelStep.__call__

  def third_is_bad(self, state, *rest):
    new, metrics = step(self, state, *rest)
    return new, metrics | {'g/pixel': jax.numpy.where(state.step == 2, np.nan, metrics['g/pixel'])}

  monkeypatch.setattr(PixelStep, '__call__', third_is_bad)
  whole = run(config, tmp_path / 'whole', steps=5, warmup_steps=3)
  kept = Checkpoints(tmp_path / 'whole', read_only=True)
  assert kept.steps() == [3, 5]
  (tmp_path / 'again' / 'checkpoints').mkdir(parents=True)
  (tmp_path / 'whole' / 'checkpoints' / '3').rename(tmp_path / 'again' / 'checkpoints' / '3')
  shutil.copy(tmp_path / 'whole' / 'config.json', tmp_path / 'again')
  assert same_bits(run(config, tmp_path / 'again', steps=5, warmup_steps=3), whole) == []


def test_another_architecture_is_refused(config, uninterrupted, tmp_path):
  # A run that was killed after its checkpoint of step 20.
  shutil.copytree(uninterrupted.workdir, tmp_path, ignore=shutil.ignore_patterns('40'),
                  dirs_exist_ok=True)

  def contents():
    return {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}

  before = contents()
  config.data.valid = uninterrupted.config.data.valid
  for key, value in (('generator.skip', 'bilinear'), ('discriminator.hidden', 9)):
    # The first one changes no array's shape.
    changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict({key: value})
    with pytest.raises(InputError, match=f'the run has {key.split(".")[0]}'):
      run(changed, tmp_path, resume=True, warmup_steps=20)
  with pytest.raises(InputError, match=r'config\.steps=19.*step 20'):
    run(config, tmp_path, steps=19, warmup_steps=19)
  with pytest.raises(InputError, match=r'config\.warmup_steps=10: the run in .* is at step 20 with '
                     'a warm-up of 20'):  # D would start in the middle
    run(config, tmp_path, warmup_steps=10)
  config.generator.features = 6
  with pytest.raises(InputError, match=r'the run has generator\.features=4, the config 6'):
    run(config, tmp_path)
  assert contents() == before
  config.freeze = 'head'
  with pytest.raises(InputError, match="the run has freeze='', the config 'head'"):
    compatibility.check_against(tmp_path, config, ('train_only', 'freeze'))


def test_a_field_of_none_is_the_default_of_the_module(tmp_path):
  from configs import srresnet
  config = srresnet.get_config('small')
  config.generator.update({'blocks': 16, 'features': 64})
  files.write_json(tmp_path / 'config.json', json.loads(config.to_json_best_effort()))
  config = srresnet.get_config('small')
  with config.ignore_type():
    config.generator.features = config.generator.blocks = None
  compatibility.check_against(tmp_path, config, ('generator', 'discriminator', 'scale'))
  config.generator.kernel = 5
  with pytest.raises(InputError, match=r'the run has generator\.kernel=3, the config 5'):
    compatibility.check_against(tmp_path, config, ('generator',))


@pytest.mark.parametrize(('text', 'message'), [
    ('[]', 'config.json.*generator'), ('3', 'no readable config.json'),
    ('{', 'no readable config.json'),
    ('{}', 'config.json.*generator'),
    ('{"scale": 2, "dtype": "float32", "generator": {"name": "unet"}}', 'config.json.*generator'),
    ('{"scale": 2, "dtype": "float32", "generator": {"name": "srresnet", "depth": 3}}',
     'config.json: generator.depth: srresnet has no such field')])
def test_an_invalid_config_json_is_named(config, tmp_path, text, message):
  (tmp_path / 'config.json').write_text(text)
  with pytest.raises(InputError, match=f'{tmp_path}.*{message}'):
    compatibility.check_against(tmp_path, config, ('generator', 'scale'))
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
                  {'best_metric': 'niqe'},
                  {'ema': 1.5}, {'loss.pixel.weight': -1.0}, {'optimizer.d.learning_rate': -1.0},
                  {'hr_patch': 17}, {'warmup_steps': 41}, {'dtype': 'float8'},
                  {'progress_pictures': -1}):
    changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict(changes)
    with pytest.raises(InputError):
      train.train(changed, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_a_file_that_cannot_be_written_is_named(config, tmp_path):
  (tmp_path / 'metrics.jsonl').mkdir()
  with pytest.raises(InputError, match=r'metrics\.jsonl: .*\('):
    run(config, tmp_path)
  assert sorted(path.name for path in tmp_path.iterdir()) == ['.lock', 'metrics.jsonl']


def test_a_workdir_that_is_a_file_is_refused(config, tmp_path):
  (tmp_path / 'file').write_text('')
  for workdir in (tmp_path / 'file', tmp_path / 'file' / 'below'):
    with pytest.raises(InputError, match=r'file.*\('):
      run(config, workdir)
