"""Weights & Biases follows the TensorBoard files of a run; tested without a network."""

import pathlib
import sys
import time
import types
from collections.abc import Callable
from typing import NoReturn

import ml_collections
import pytest

from sr_jax.errors import InputError
from sr_jax.runs import wandb_sync
from tests.test_train import run


@pytest.mark.slow
def test_wandb_records_what_tensorboard_has(
    config: ml_collections.ConfigDict, tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch) -> None:
  pytest.importorskip('wandb')
  monkeypatch.setenv('WANDB_MODE', 'offline')
  config.wandb, config.steps, config.warmup_steps = 'project', 20, 10
  start = wandb_sync.start

  def start_late(*arguments: object) -> Callable[[], None]:
    time.sleep(1.1)  # event files have the second of their creation in their names
    return start(*arguments)

  monkeypatch.setattr(wandb_sync, 'start', start_late)
  folder = tmp_path / 'run'
  run(config, folder)
  config.steps = 40
  run(config, folder)  # continues the same wandb run
  recorded = sorted(folder.glob('wandb/offline-run-*/run-*.wandb'))
  assert len(recorded) == 2
  assert len({path.stem for path in recorded}) == 1
  names = b'g/pixel', b'd/real', b'learning_rate/g'
  end = time.monotonic() + 30  # a process of wandb's own writes these files
  while time.monotonic() < end and not all(
      name in path.read_bytes() for path in recorded for name in names):
    time.sleep(0.2)
  for path in recorded:
    for name in names:
      assert name in path.read_bytes(), (path, name)


@pytest.mark.parametrize('existing', ['nothing', 'no checkpoint',
                                      pytest.param('a run', marks=pytest.mark.slow)])
def test_without_wandb_it_is_refused_before_anything_is_written(
    config: ml_collections.ConfigDict, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch,
    existing: str) -> None:
  if existing == 'no checkpoint':
    (tmp_path / 'run').mkdir()
    for name in ('config.json', 'run.json', 'metrics.jsonl'):
      (tmp_path / 'run' / name).write_text('{}')
  elif existing == 'a run':
    config.steps, config.warmup_steps = 20, 20
    run(config, tmp_path / 'run')
    config.steps = 40  # otherwise the run is finished

  def modification_times() -> dict[pathlib.Path, int]:
    return {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*') if path.name != '.lock'}

  before = modification_times()
  monkeypatch.setitem(sys.modules, 'wandb', None)
  config.wandb = 'project'
  with pytest.raises(InputError, match=r'config\.wandb: .*pip install "wandb'):
    run(config, tmp_path / 'run')
  assert modification_times() == before


def test_without_a_login_a_new_run_leaves_nothing(
    config: ml_collections.ConfigDict, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
  def refuse() -> NoReturn:
    raise RuntimeError('No API key configured')

  monkeypatch.delenv('WANDB_MODE', raising=False)
  monkeypatch.setitem(sys.modules, 'wandb', types.SimpleNamespace(login=refuse))
  config.wandb = 'project'
  with pytest.raises(InputError, match=r'config\.wandb: RuntimeError: No API key'):
    run(config, tmp_path / 'run')
  assert list(tmp_path.iterdir()) == []
