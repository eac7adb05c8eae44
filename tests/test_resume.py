"""Starting a run again: what continues, what needs --resume, what is refused, what is written."""

import json
import shutil

import pytest

from sr_jax import train
from sr_jax.data import sources
from sr_jax.errors import InputError
from sr_jax.experiment import compatibility
from sr_jax.experiment.keys import KEYS
from sr_jax.runs.checkpoints import Checkpoints
from sr_jax.train import replay
from tests import smallest
from tests.conftest import same_bits


def small_config(folder):
  config = smallest.get_config()
  config.data.source = f'folder:{folder}'
  config.discriminator.name, config.loss.adversarial.weight = 'none', 0.0
  config.warmup_steps, config.steps, config.checkpoint_every = 0, 4, 2
  config.generator.batch_norm = False
  return config


@pytest.fixture(scope='module')
def finished(tmp_path_factory, folder):
  """(workdir, state) of a run of four steps; tests copy it."""
  workdir = tmp_path_factory.mktemp('finished') / 'run'
  return workdir, train.train(small_config(folder), workdir)


@pytest.fixture
def workdir(finished, tmp_path):
  """A copy of the finished run."""
  return shutil.copytree(finished[0], tmp_path / 'run')


@pytest.fixture
def unfinished(workdir):
  """A copy of it that was killed after its checkpoint of step 2."""
  shutil.rmtree(workdir / 'checkpoints' / '4')
  return workdir


@pytest.fixture
def settings(folder):
  """settings(key=value) -> the config of the run with changes; __ stands for a dot."""
  def change(**changes):
    config = small_config(folder)
    for key, value in changes.items():
      *sections, last = key.split('__')
      section = config
      for name in sections:
        section = section[name]
      section[last] = value
    return config
  return change


def records(workdir):
  """What a start that did nothing must leave as it was."""
  return {path.name: path.read_bytes() for path in workdir.iterdir()
          if path.is_file() and path.name != '.lock'}


def test_a_finished_run_started_again_says_so_and_writes_nothing(workdir, finished, settings,
                                                                capsys, monkeypatch):
  before = records(workdir)
  monkeypatch.setattr(sources, 'open_source', None)  # its images may be gone
  state = train.train(settings(), workdir)
  assert same_bits(state, finished[1]) == []
  out = capsys.readouterr().out
  assert 'finished at step 4' in out
  assert str(workdir / 'report.html') in out
  assert records(workdir) == before


def test_a_refused_start_creates_no_lock(workdir, settings):
  (workdir / '.lock').unlink()  # as in a copy, or in a run of imported weights
  before = sorted(workdir.rglob('*')), workdir.stat().st_mtime_ns
  with pytest.raises(InputError, match='scale'):
    train.train(settings(scale=4, steps=8), workdir)
  with pytest.raises(InputError, match='batch_size'):
    train.train(settings(batch_size=1, steps=8), workdir)
  assert (sorted(workdir.rglob('*')), workdir.stat().st_mtime_ns) == before


@pytest.mark.parametrize('key', ['optimizer__g__learning_rate', 'log_every', 'eval__sets'])
def test_a_finished_run_with_a_changed_config_is_refused(workdir, settings, key):
  before = records(workdir)
  value = 'data/Set14' if key == 'eval__sets' else 5
  for resume in (False, True):
    with pytest.raises(InputError, match=(
        rf'finished at step 4 .*config\.{key.replace("__", ".")} .* -> .*{value}.*new --workdir.*'
        r'config\.steps above 4')):
      train.train(settings(**{key: value}), workdir, resume)
  assert records(workdir) == before


def test_more_steps_continue_a_finished_run_and_fewer_are_refused(workdir, settings, capsys):
  train.train(settings(steps=6), workdir)
  out = capsys.readouterr().out
  assert 'had finished at step 4 and is continued to step 6' in out
  assert [start['from_step'] for start in json.loads((workdir / 'run.json').read_text())] == [0, 4]
  before = records(workdir)
  with pytest.raises(InputError, match=r'config\.steps=5: .*at step 6'):
    train.train(settings(steps=5), workdir)
  assert records(workdir) == before


@pytest.mark.parametrize(('key', 'value'), [
    ('optimizer__g__learning_rate', 2e-3), ('batch_size', 2), ('loss__pixel__kind', 'mse'),
    ('data__augment__turn', False), ('seed', 7), ('dtype', 'bfloat16'), ('ema', 0.5)])
def test_an_unfinished_run_needs_resume_for_settings_that_matter(unfinished, settings, key, value):
  before = records(unfinished)
  name = key.replace('__', '.')
  with pytest.raises(InputError, match=(
      rf'config\.{name} .* -> {value!r}; --resume .*step 2.*new --workdir')):
    train.train(settings(**{key: value}), unfinished)
  assert records(unfinished) == before


@pytest.mark.parametrize(('changes', 'key'), [
    ({'optimizer__g__schedule': 'cosine', 'steps': 6}, 'steps 4 -> 6'),
    ({'optimizer__g__schedule': 'cosine', 'epochs': 3, 'steps': 6}, 'epochs 0 -> 3'),
    ({'optimizer__g__schedule': 'multistep', 'optimizer__g__boundaries': (0.5,), 'steps': 3},
     'steps 4 -> 3'),
    ({'optimizer__g__schedule': 'multistep', 'optimizer__g__boundaries': (2,), 'steps': 6}, ''),
    ({'optimizer__g__boundaries': (0.5,), 'steps': 6}, ''),
    ({'optimizer__d__schedule': 'cosine', 'steps': 6}, ''),  # there is no discriminator
    ({'optimizer__g__schedule': 'cosine', 'epochs': 2}, '')])  # as many steps as before
def test_another_number_of_steps_needs_resume_where_a_rate_depends_on_it(
    tmp_path, settings, changes, key):
  schedule = {name: value for name, value in changes.items() if name.startswith('optimizer')}
  before = compatibility.as_json(settings(**schedule))
  now = settings(**changes)
  arguments = (tmp_path, 2, compatibility.changes(before, now), False,
               compatibility.rescheduled(before, now))
  if key:
    with pytest.raises(InputError, match=rf'config\.{key};.*--resume'):
      compatibility.refuse_changed(*arguments)
  else:
    compatibility.refuse_changed(*arguments)


def test_the_steps_of_an_unfinished_cosine_run_are_not_changed_freely(unfinished, settings):
  file = unfinished / 'config.json'
  run = json.loads(file.read_text())
  run['optimizer']['g']['schedule'] = 'cosine'
  file.write_text(json.dumps(run))
  before = records(unfinished)
  with pytest.raises(InputError, match=r'config\.steps 4 -> 5;.*--resume'):
    train.train(settings(optimizer__g__schedule='cosine', steps=5), unfinished)
  assert records(unfinished) == before


def test_resume_without_a_run_is_refused(tmp_path, settings):
  for folder in (tmp_path / 'new', tmp_path):
    with pytest.raises(InputError, match=rf'--resume: {folder} .*no run'):
      train.train(settings(), folder, resume=True)
  assert list(tmp_path.iterdir()) == []


def test_resume_continues_with_the_new_settings(unfinished, settings, finished, capsys):
  state = train.train(settings(seed=7, batch_size=2, log_every=1), unfinished, resume=True)
  assert (int(state.step), int(state.seed)) == (4, 7)
  assert same_bits(state.g.params, finished[1].g.params) != []
  assert 'config.seed changed since the last start: 0 -> 7' in capsys.readouterr().out
  assert json.loads((unfinished / 'config.json').read_text())['seed'] == 7


@pytest.mark.slow
def test_a_step_after_another_seed_is_replayed(unfinished, settings):
  train.train(settings(seed=7, batch_size=2, log_every=1), unfinished, resume=True)
  again = replay.replay_run(settings(seed=7, batch_size=2, log_every=1), unfinished, 3)
  assert again['checkpoint'] == 2
  assert again['differing'] == []


def test_settings_that_do_not_matter_change_freely(unfinished, settings, finished):
  changed = settings(log_every=1, checkpoint_every=3, eval__sets='x', devices=1, data__workers=1,
                     data__mode='bank', max_bad_steps=3, progress_pictures=1)
  assert same_bits(train.train(changed, unfinished), finished[1]) == []


@pytest.mark.parametrize(('key', 'value'), [
    ('init_from', 'a-run'), ('generator__init', 'xavier'), ('generator__features', 6),
    ('freeze', 'head')])
def test_settings_of_the_first_step_are_refused_even_with_resume(unfinished, settings, key, value):
  before = records(unfinished)
  with pytest.raises(InputError, match=rf'{key.replace("__", ".")}=.*{value}.*new --workdir'):
    train.train(settings(**{key: value}), unfinished, resume=True)
  assert records(unfinished) == before


def test_a_stream_is_not_replaced_without_resume(tmp_path, settings):
  config = settings(data__mode='stream')
  before = compatibility.as_json(config)
  for mode, streamed, refused in (('bank', True, True), ('stream', False, True),
                                  ('auto', True, False), ('mapped', False, False),
                                  ('stream', True, False)):
    changed = compatibility.changes(before | {'data': before['data'] | {'mode': 'x'}},
                                    settings(data__mode=mode))
    assert changed == {'data.mode': ['x', mode]}
    if refused:
      with pytest.raises(InputError, match=r'config\.data\.mode'):
        compatibility.refuse_changed(tmp_path, 3, changed, streamed)
    else:
      compatibility.refuse_changed(tmp_path, 3, changed, streamed)


def test_epochs_are_compared_instead_of_the_steps_that_follow(tmp_path, settings):
  before = compatibility.as_json(settings(epochs=2, steps=10))
  assert compatibility.changes(before, settings(epochs=2)) == {}
  assert compatibility.changes(before, settings(epochs=3)) == {'epochs': [2, 3]}
  # A key that the run does not have had its default.
  before.pop('seed')
  assert compatibility.changes(before, settings(epochs=2, seed=1)) == {'seed': [0, 1]}
  assert {key.change for key in KEYS.values()} == {'free', 'resume', 'fixed'}


@pytest.mark.slow
def test_a_run_of_epochs_that_is_finished(tmp_path, folder, capsys):
  config = small_config(folder)
  config.epochs = 2  # five images, four crops in a batch
  train.train(config, tmp_path)
  assert Checkpoints(tmp_path, read_only=True).latest() == 4
  before = records(tmp_path)
  train.train(config, tmp_path)
  assert 'finished at step 4' in capsys.readouterr().out
  config.epochs = 1
  with pytest.raises(InputError, match=r'config\.epochs=1 \(2 steps\): .*step 4'):
    train.train(config, tmp_path)
  assert records(tmp_path) == before
