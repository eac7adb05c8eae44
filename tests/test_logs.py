"""Logs: what is on disk after a run, after a kill and after a restart."""

import datetime
import json
import pathlib
import re
import shutil
import types

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from sr_jax import images
from sr_jax.images.montage import side_by_side
from sr_jax.runs.folder import RunFolder
from sr_jax.runs.logs import MAX_PENDING_BYTES, Logs
from sr_jax.runs.metrics_log import read_metrics
from sr_jax.runs.transcript import Transcript
from sr_jax.train import overfitting
from sr_jax.train.announce import final_line, validation_tables
from tests.conftest import largest_file

TIME = r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d'


def epochs_of(steps):
  return lambda step: step / steps


def test_the_last_line_says_that_no_step_is_the_best(tmp_path: pathlib.Path) -> None:
  run = types.SimpleNamespace(
      config=types.SimpleNamespace(steps=4, best_metric='error'),
      checkpoints=types.SimpleNamespace(best=lambda: None),
      folder=types.SimpleNamespace(workdir=tmp_path, paths=RunFolder(tmp_path)))
  assert 'error' not in final_line(run, 4, {'total': '0:01:00'})  # nothing was validated
  (tmp_path / 'metrics.jsonl').write_text(
      '{"step": 0, "phase": "bicubic", "valid/psnr_y": 20.0}\n'
      '{"step": 4, "phase": "pixel", "valid/psnr_y": 20.0, "valid/error": null}\n')
  assert 'No best step: error' in final_line(run, 4, {'total': '0:01:00'})


def test_scalars_are_logged_and_printed(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
  log = Logs(tmp_path, 0, 10, 4, epochs_of(2))
  log.scalars(5, 'gan', {'g/pixel': 0.5, 'g/grad_norm': 2.0, 'valid': float('nan')})
  log.close()
  line, = read_metrics(tmp_path)
  assert line['step'] == 5
  assert line['phase'] == 'gan'
  assert line['g/pixel'] == 0.5
  assert line['valid'] is None  # NaN is not valid JSON
  assert line['images_per_second'] > 0
  out = capsys.readouterr().out
  assert re.match(fr'{TIME} gan  step 5/10 \(epoch 2\.50\)  .*\(pixel 0\.5\)  .* images/s\n', out)
  assert 'grad_norm' not in out
  assert (tmp_path / 'train.log').read_text() == out


def test_a_term_that_diverges_is_kept(tmp_path: pathlib.Path) -> None:
  log = Logs(tmp_path, 0, 10, 4, epochs_of(2))
  log.validation(5, 'gan', {}, {'terms/perceptual/valid': 1e30})  # float32 represents it
  log.close()
  Logs(tmp_path, 5, 10, 4, epochs_of(2)).close()
  assert read_metrics(tmp_path)[0]['terms/perceptual/valid'] == 1e30


def read_events(folder: pathlib.Path) -> list[tuple[int, list[str] | int]]:
  """Returns (step, tags or session status) of each event."""
  events = []
  for path in sorted((folder / 'tensorboard').iterdir()):
    data = path.read_bytes()
    while data:
      length = int.from_bytes(data[:8], 'little')
      event = event_pb2.Event.FromString(data[12:12 + length])
      events.append((event.step, [value.tag for value in event.summary.value]
                     or event.session_log.status))
      data = data[16 + length:]
  return events


def test_tensorboard_has_the_same_scalars_and_images(tmp_path: pathlib.Path) -> None:
  log = Logs(tmp_path, 4, 10, 4, epochs_of(2))
  log.scalars(5, 'gan', {'g/pixel': 0.5})
  log.picture(5, 'cat', np.zeros((4, 6, 3), np.uint8))
  log.close()
  assert read_events(tmp_path) == [
      (5, 0), (5, event_pb2.SessionLog.START), (5, ['epoch', 'g/pixel', 'images_per_second']),
      (5, ['cat'])]
  assert images.read_image(tmp_path / 'samples' / 'cat-0000005.png').shape == (4, 6, 3)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf'), 1e39])
def test_tensorboard_has_no_values_that_are_not_finite(tmp_path: pathlib.Path, value: float
                                                       ) -> None:
  log = Logs(tmp_path, 0, 10, 4, epochs_of(2))
  log.validation(5, 'gan', {'valid': {'psnr_y': value, 'ssim_y': 0.5}}, {'terms/a/valid': value})
  log.close()
  assert (5, ['epoch', 'valid/ssim_y']) in read_events(tmp_path)  # 1e39 is infinite in float32


def test_a_full_disk_is_reported_and_nothing_is_lost(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
  log = Logs(tmp_path, 0, 10, 4, epochs_of(2))
  log.scalars(1, 'gan', {'g/pixel': 0.1})
  (tmp_path / 'samples').write_text('in the way')
  with largest_file((tmp_path / 'train.log').stat().st_size + 1):
    for step in (2, 3, 4):
      log.scalars(step, 'gan', {'g/pixel': 0.1 * step})
    log.picture(4, 'cat', np.zeros((4, 6, 3), np.uint8))
  assert len(read_metrics(tmp_path)) < 4  # complete lines only
  (tmp_path / 'samples').unlink()
  log.scalars(5, 'gan', {'g/pixel': 0.5})
  log.picture(5, 'cat', np.zeros((4, 6, 3), np.uint8))
  log.close()
  assert [line['step'] for line in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
  events = [(step, tags) for step, tags in read_events(tmp_path) if isinstance(tags, list)]
  assert [step for step, tags in events if 'g/pixel' in tags] == [1, 2, 3, 4, 5]
  assert (4, ['cat']) in events
  lines = capsys.readouterr().out.splitlines()
  assert (tmp_path / 'train.log').read_text().splitlines() == lines  # and none of it is lost
  for path in ('metrics.jsonl', 'samples', 'tensorboard/events', 'train.log'):
    reports = [line for line in lines if f'/{path}' in line]
    assert len(reports) == 2  # the first failure and the first success after it
    assert 'cannot write (' in reports[0]
    assert 'again' in reports[1]
  assert sum('cannot write (' in line for line in lines) == 4


def test_a_disk_that_stays_full_does_not_fill_the_memory(tmp_path: pathlib.Path) -> None:
  log = Logs(tmp_path, 0, 10, 4, epochs_of(2))
  with largest_file(1):
    for _ in range(4):
      log._append(log._jsonl, [b'.' * (MAX_PENDING_BYTES // 3)])
  assert sum(map(len, log._pending[log._jsonl])) <= MAX_PENDING_BYTES
  log.close()
  assert (tmp_path / 'metrics.jsonl').stat().st_size == 3 * (MAX_PENDING_BYTES // 3)


def test_the_longest_log_without_a_checkpoint_is_kept(tmp_path: pathlib.Path) -> None:
  path = tmp_path / 'metrics.jsonl'
  longest = ''.join(json.dumps({'step': step, 'phase': 'gan'}) + '\n' for step in range(1, 9))
  for text in ('', longest[:60], longest, longest[:60]):
    path.write_text(text)
    Logs(tmp_path, 0, 10, 4, epochs_of(5)).close()
    assert path.read_text() == ''
  assert (tmp_path / 'metrics.jsonl.lost').read_text() == longest
  path.write_text(longest)
  Logs(tmp_path, 3, 10, 4, epochs_of(5)).close()  # resumes from a checkpoint
  assert [line['step'] for line in read_metrics(tmp_path)] == [1, 2, 3]


def test_a_restart_removes_lines_after_its_checkpoint(tmp_path: pathlib.Path) -> None:
  log = Logs(tmp_path, 0, 10, 4, epochs_of(2))
  for step in (2, 4, 6):
    log.scalars(step, 'pixel', {'g/pixel': float(step)})
  log.close()
  with open(tmp_path / 'metrics.jsonl', 'a') as file:
    file.write('{"step": 8, "pha')  # killed while writing
  log = Logs(tmp_path, 4, 10, 4, epochs_of(2))
  log.scalars(6, 'pixel', {'g/pixel': 0.0})
  log.close()
  lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  assert [line['step'] for line in lines] == [2, 4, 6]
  assert lines[-1]['g/pixel'] == 0


@pytest.mark.parametrize('line', [
    b'', b'null', b'7', b'[1]', b'"step"', b'{}', b'{"step": 1}', b'{"phase": "pixel"}',
    b'\xff\xfe', b'[' * 100_000, b'{"step": 1' + b'0' * 5000 + b', "phase": "pixel"}',
    b'{"step": "1", "phase": "pixel"}', b'{"step": NaN, "phase": "pixel"}',
    b'{"step": 1.5, "phase": "pixel"}', b'{"step": -1, "phase": "pixel"}',
    b'{"step": true, "phase": "pixel"}', b'{"step": 1, "phase": ["pixel"]}',
    b'{"step": 1, "phase": "\\ud800"}', b'{"step": 1, "phase": "\\u001b[2J"}',
    b'{"step": 1, "phase": "pixel", "valid/psnr_y": "20"}',
    b'{"step": 1, "phase": "pixel", "terms/pixel/train": [1]}',
    b'{"step": 1, "phase": "pixel", "test/psnr_y": 1' + b'0' * 400 + b'}'])
def test_invalid_lines_are_skipped(
    tmp_path: pathlib.Path, line: bytes) -> None:
  good = [{'step': step, 'phase': 'pixel', 'valid/psnr_y': 20.0, 'terms/pixel/train': 0.1,
           'terms/pixel/valid': 0.2} for step in (1, 2)]
  first, last = (json.dumps(each).encode() for each in good)
  (tmp_path / 'metrics.jsonl').write_bytes(b'\n'.join([first, line, last, b'']))
  assert read_metrics(tmp_path) == good
  assert overfitting.describe_terms(read_metrics(tmp_path))
  assert sum('20.0000' in row for row in validation_tables(tmp_path)) == 2
  Logs(tmp_path, 1, 10, 4, epochs_of(2)).close()
  assert read_metrics(tmp_path) == good[:1]


def test_a_run_without_a_checkpoint_starts_over(tmp_path: pathlib.Path) -> None:
  for _ in range(2):
    log = Logs(tmp_path, 0, 10, 4, epochs_of(2))
    log.validation(0, 'bicubic', {'valid': {'psnr_y': 1.0}}, {})
    log.close()
  assert len(read_metrics(tmp_path)) == 1


def test_pauses_do_not_count_as_training_time(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  now = 0.0

  def tick(seconds: float) -> None:
    nonlocal now
    now += seconds

  monkeypatch.setattr('time.monotonic', lambda: now)
  log = Logs(tmp_path, 0, 100, 4, epochs_of(2))
  for step in range(1, 11):
    tick(0.5)
    if step == 7:
      with log.pause():
        tick(60)
  log.scalars(10, 'pixel', {})
  log.close()
  assert read_metrics(tmp_path)[0]['images_per_second'] == pytest.approx(8)


def test_the_time_left_includes_validation_and_excludes_compilation(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
  now = 0.0
  monkeypatch.setattr('time.monotonic', lambda: now)
  log = Logs(tmp_path, 0, 200_000, 4, epochs_of(2))

  def steps(first: int, last: int, phase: str) -> None:
    nonlocal now
    for step in range(first, last + 1):
      now += 0.5
      log.progress(step, phase, {})

  with log.pause(recurs=False):
    now += 1000  # the first compilation
  steps(1, 1, 'pixel')
  log.scalars(1, 'pixel', {})
  steps(2, 5, 'pixel')
  with log.pause():
    now += 2  # a validation: five seconds for ten steps become seven
  steps(6, 11, 'pixel')
  log.scalars(11, 'pixel', {})
  with log.pause(recurs=False):
    now += 1000  # the next phase
  steps(12, 22, 'gan')
  log.scalars(22, 'gan', {})
  log.close()
  first, second, third = capsys.readouterr().out.splitlines()
  assert 'ETA' not in first
  assert second.endswith('ETA 1 d 14:53:12')  # 199,989 steps of 0.7 s
  assert third.endswith('ETA 1 d 03:46:29')  # 199,978 steps of 0.5 s
  assert [line['images_per_second'] for line in read_metrics(tmp_path)] == pytest.approx([8, 8, 8])


def test_a_line_of_training_states_rates_losses_and_accuracies(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
  log = Logs(tmp_path, 0, 300, 4, epochs_of(25))
  metrics = {'g/adversarial': 0.00339, 'g/pixel': 0.0469, 'g/total': 0.138, 'd/total': 1.35,
             'd/real': 0.88, 'd/fake': 0.5, 'learning_rate/g': 2e-4}
  log.scalars(50, 'gan', metrics | {'learning_rate/d': 2e-4})
  log.scalars(75, 'gan', metrics | {'learning_rate/d': 1e-4})
  log.close()
  same, different = capsys.readouterr().out.splitlines()
  assert '  step 50/300 (epoch 2.00)  lr 2.00e-04  loss G 0.138 (' in same
  assert '(adversarial 0.00339 pixel 0.0469)  D 1.35 (accuracy 88% real, 50% fake)' in same
  assert '  lr G 2.00e-04 D 1.00e-04  ' in different


def test_validation_is_printed_beside_the_scores_before_training(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
  log = Logs(tmp_path, 0, 300, 4, epochs_of(25))
  names = {'valid': 'folder:Set5', 'test': 'folder:Set14'}
  log.validation(0, 'bicubic', {'valid': {'psnr_y': 28.0}, 'test': {'psnr_y': 25.0}}, {}, names)
  log.validation(0, 'start', {'valid': {'psnr_y': 30.0}, 'test': {'psnr_y': 27.0}}, {}, names)
  log.close()
  log = Logs(tmp_path, 100, 300, 4, epochs_of(25))  # resumed
  log.validation(200, 'gan', {'valid': {'psnr_y': 31.0, 'ssim_y': 0.9}, 'test': {'psnr_y': 27.5}},
                 {}, names, is_best=True)
  log.close()
  lines = [line[20:] for line in capsys.readouterr().out.splitlines()]
  assert lines[0] == 'validation on folder:Set5  bicubic  psnr_y 28.0000'
  assert lines[4:] == [
      'validation on folder:Set5  step 200/300  psnr_y 31.0000 (bicubic 28.0000, start 30.0000)  '
      'ssim_y 0.9000  best so far',
      'test on folder:Set14  step 200/300  psnr_y 27.5000 (bicubic 25.0000, start 27.0000)']


def test_the_log_file_has_the_lines_of_all_starts(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
  for step in (0, 5):
    transcript = Transcript(lambda: 'Device: 1 x cpu')
    transcript.say('opened')  # before there is a folder
    (tmp_path / 'run').mkdir(exist_ok=True)
    log = Logs(tmp_path / 'run', step, 10, 4, epochs_of(2), transcript)
    log.say('two\nlines')
    log.note('error: for the file alone')
    log.close()
  printed = capsys.readouterr().out.splitlines()
  written = (tmp_path / 'run' / 'train.log').read_text().splitlines()
  assert [line[20:] for line in printed] == 2 * ['Device: 1 x cpu', 'opened', 'two', 'lines']
  assert [line for line in written if 'error' not in line] == printed
  assert [line[20:] for line in written][4::5] == 2 * ['error: for the file alone']
  for line in written:
    assert datetime.datetime.fromisoformat(line[:19])


def test_a_refused_start_prints_no_first_line(capsys: pytest.CaptureFixture[str]) -> None:
  Transcript(lambda: 'Device: 1 x cpu')
  assert capsys.readouterr().out == ''


def test_the_log_of_another_run_in_a_folder_of_the_same_name_is_left_alone(
    tmp_path: pathlib.Path) -> None:
  (tmp_path / 'run').mkdir()
  log = Logs(tmp_path / 'run', 0, 10, 4, epochs_of(2))
  (tmp_path / 'run').rename(tmp_path / 'away')
  (tmp_path / 'run').mkdir()
  log.say('a line')
  assert not (tmp_path / 'run' / 'train.log').exists()
  log.adopt_folder()  # it turns out to be this run's own, made again
  log.say('another')
  assert [line[20:] for line in (tmp_path / 'run' / 'train.log').read_text().splitlines()] == [
      'a line', 'another']
  shutil.rmtree(tmp_path / 'run')
  log.say('no folder')
  log.close()
  assert not (tmp_path / 'run').exists()


def test_side_by_side() -> None:
  black, grey = np.zeros((5, 7, 3), np.uint8), np.full((5, 7, 3), 9, np.uint8)
  row = side_by_side([black, grey, black])
  assert row.shape == (5, 3 * 7 + 2 * 4, 3)
  assert (row[:, 7:11] == 255).all()
  assert (row[:, 11:18] == 9).all()
  with pytest.raises(ValueError, match='dimensions'):
    side_by_side([black, grey[1:]])
