"""Logs: what lies on disk after a run, a kill and a restart."""

import json

import numpy as np
import pytest

from sr_jax import images
from sr_jax.logs import Logs, read_metrics, strip


def test_lines_points_and_a_plain_terminal(tmp_path, capsys):
  log = Logs(tmp_path, 0, 10, 4, 2)
  log.scalars(5, 'gan', {'g/pixel': 0.5, 'g/grad_norm': 2.0, 'valid': float('nan')})
  log.close()
  line, = read_metrics(tmp_path)
  assert line['step'] == 5
  assert line['phase'] == 'gan'
  assert line['g/pixel'] == 0.5
  assert line['valid'] is None  # not NaN, which is no JSON
  assert line['images_per_second'] > 0
  out = capsys.readouterr().out
  assert 'gan 5/10  pixel 0.5  ' in out
  assert 'grad_norm' not in out


def test_tensorboard_has_the_same_scalars_and_pictures(tmp_path):
  log = Logs(tmp_path, 0, 10, 4, 2)
  log.scalars(5, 'gan', {'g/pixel': 0.5})
  log.picture(5, 'cat', np.zeros((4, 6, 3), np.uint8))
  log.close()
  events = b''.join(path.read_bytes() for path in (tmp_path / 'tensorboard').iterdir())
  assert b'g/pixel' in events
  assert b'cat' in events
  assert images.read_image(tmp_path / 'samples' / 'cat-0000005.png').shape == (4, 6, 3)


def test_a_restart_forgets_what_was_lost(tmp_path):
  log = Logs(tmp_path, 0, 10, 4, 2)
  for step in (2, 4, 6):
    log.scalars(step, 'pixel', {'g/pixel': float(step)})
  log.close()
  with open(tmp_path / 'metrics.jsonl', 'a') as file:
    file.write('{"step": 8, "pha')  # killed while writing
  log = Logs(tmp_path, 4, 10, 4, 2)
  log.scalars(6, 'pixel', {'g/pixel': 0.0})
  log.close()
  lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  assert [line['step'] for line in lines] == [2, 4, 6]
  assert lines[-1]['g/pixel'] == 0


def test_a_run_that_died_before_its_first_checkpoint_begins_anew(tmp_path):
  for _ in range(2):
    log = Logs(tmp_path, 0, 10, 4, 2)
    log.validation(0, 'bicubic', {'valid': {'psnr_y': 1.0}}, {})
    log.close()
  assert len(read_metrics(tmp_path)) == 1


def test_pauses_are_no_training_time(tmp_path, monkeypatch):
  now = 0.0

  def tick(seconds):
    nonlocal now
    now += seconds

  monkeypatch.setattr('sr_jax.logs.time.monotonic', lambda: now)
  log = Logs(tmp_path, 0, 100, 4, 2)
  for step in range(1, 11):
    tick(0.5)
    if step == 7:
      with log.pause():
        tick(60)
  log.scalars(10, 'pixel', {})
  log.close()
  assert read_metrics(tmp_path)[0]['images_per_second'] == pytest.approx(8)


def test_strip():
  black, grey = np.zeros((5, 7, 3), np.uint8), np.full((5, 7, 3), 9, np.uint8)
  row = strip([black, grey, black])
  assert row.shape == (5, 3 * 7 + 2 * 4, 3)
  assert (row[:, 7:11] == 255).all()
  assert (row[:, 11:18] == 9).all()
  with pytest.raises(ValueError, match='dimensions'):
    strip([black, grey[1:]])
