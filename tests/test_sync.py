"""Weights & Biases follows a run, without a network."""

import sys

import pytest

from sr_jax.errors import InputError
from tests.test_train import run


@pytest.mark.slow
def test_what_tensorboard_has_is_followed(config, tmp_path, monkeypatch):
  pytest.importorskip('wandb')
  monkeypatch.setenv('WANDB_MODE', 'offline')
  config.wandb, config.steps, config.warmup_steps = 'project', 20, 10
  folder = tmp_path / 'run'
  run(config, folder)
  config.steps = 40
  run(config, folder)  # goes on as the same run there
  followed = sorted(folder.glob('wandb/offline-run-*/run-*.wandb'))
  assert len(followed) == 2
  assert len({path.stem for path in followed}) == 1
  for path in followed:
    for name in (b'g/pixel', b'd/real', b'learning_rate/g'):
      assert name in path.read_bytes(), (path, name)


@pytest.mark.parametrize('steps', [0, 20])
def test_without_wandb_it_is_refused_in_a_line(config, tmp_path, monkeypatch, steps):
  if steps:
    config.steps, config.warmup_steps = 20, 20
    run(config, tmp_path / 'run')
  before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
  monkeypatch.setitem(sys.modules, 'wandb', None)
  config.wandb = 'project'
  with pytest.raises(InputError, match='wandb: wandb is not installed'):
    run(config, tmp_path / 'run')
  assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')
          if path.name != '.lock'} == {path: time for path, time in before.items()
                                       if path.name != '.lock'}
