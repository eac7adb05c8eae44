"""Checkpoints: arrays survive the round trip through the disk, damage is detected, and a disk that
fails costs at most one checkpoint.
"""

import contextlib
import errno
import functools
import gc
import json
import os
import pathlib
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sr_jax import evaluate, images, restore, upscale
from sr_jax.errors import InputError
from sr_jax.experiment.base_config import defaults
from sr_jax.models import Compact
from sr_jax.runs import imported, manifest
from sr_jax.runs.checkpoints import Checkpoints
from sr_jax.step.flat import flatten, named_arrays
from sr_jax.step.state import Average, NetState, TrainState
from sr_jax.train import previous
from tests.conftest import filled, largest_file, same_bits


def make_state(step: int = 3, width: int = 4, dtype: Any = np.float32) -> TrainState:
  rng = np.random.default_rng(step)
  params = flatten({'conv': {'kernel': jnp.asarray(rng.normal(size=(3, width)), dtype)}})
  g = NetState(params, flatten({}), optax.adam(1e-3).init(params))
  return TrainState(jnp.int32(step), jnp.int32(7), g, None, Average(params, flatten({})))


@pytest.fixture(scope='module')
def saved_run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  path = tmp_path_factory.mktemp('made')
  checkpoints = Checkpoints(path, 'psnr_y')
  for step, psnr in ((1, 9.0), (2, 11.0), (3, 10.0), (4, None)):
    checkpoints.save(make_state(step), psnr and {'psnr_y': psnr})
  checkpoints.close()
  return path


@pytest.fixture
def folder(saved_run: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
  """A run with checkpoints of steps 2 (the best), 3 and 4."""
  return shutil.copytree(saved_run, tmp_path, dirs_exist_ok=True)


def test_round_trip_without_a_discriminator(folder: pathlib.Path) -> None:
  checkpoints = Checkpoints(folder, read_only=True)
  assert same_bits(checkpoints.restore(make_state(0)), make_state(4)) == []
  assert same_bits(checkpoints.restore(make_state(0), 3), make_state(3)) == []
  assert checkpoints.resolve_step('latest') == 4
  ema = checkpoints.restore_generator(make_state(0).ema, 4)
  assert same_bits(ema, make_state(4).ema) == []
  raw = checkpoints.restore_generator(make_state(0).ema, 3, raw=True)
  assert same_bits(raw.params, make_state(3).g.params) == []


def test_the_last_two_and_the_best_are_kept(folder: pathlib.Path) -> None:
  checkpoints = Checkpoints(folder, 'psnr_y', read_only=True)
  assert checkpoints.steps() == [2, 3, 4]
  assert checkpoints.best() == 2
  assert checkpoints.is_best({'psnr_y': 11.5})
  assert not checkpoints.is_best({'psnr_y': 10.5})
  assert not checkpoints.is_best({})


def test_lower_lpips_is_better(tmp_path: pathlib.Path) -> None:
  checkpoints = Checkpoints(tmp_path, 'lpips_alex')
  for step, value in ((1, 0.2), (2, 0.3), (3, 0.4), (4, 0.5)):
    checkpoints.save(make_state(step), {'lpips_alex': value, 'psnr_y': step})
  checkpoints.close()
  checkpoints = Checkpoints(tmp_path, 'lpips_alex', read_only=True)
  assert checkpoints.best() == 1
  assert checkpoints.steps() == [1, 3, 4]


def test_nan_is_never_the_best(tmp_path: pathlib.Path) -> None:
  checkpoints = Checkpoints(tmp_path, 'psnr_y')
  for step, value in enumerate((29.0, 31.0, float('nan'), 20.0, 21.0, 22.0)):
    checkpoints.save(make_state(step), {'psnr_y': value})
  assert not checkpoints.is_best({'psnr_y': float('nan')})
  checkpoints.close()
  checkpoints = Checkpoints(tmp_path, 'psnr_y', read_only=True)
  assert checkpoints.best() == 1
  assert checkpoints.steps() == [1, 4, 5]


def test_arrays_of_other_shapes_types_and_names_are_named(folder: pathlib.Path) -> None:
  checkpoints = Checkpoints(folder, read_only=True)
  for target, message in (
      (make_state(width=5), r'checkpoints/4: .*conv/kernel .*float32\[3, 4\].*float32\[3, 5\]'),
      (make_state(dtype=jnp.bfloat16), r'conv/kernel .*float32\[3, 4\].*bfloat16\[3, 4\]'),
      (make_state()._replace(d=make_state().g), r'checkpoints/4: d/.* absent')):
    with pytest.raises(InputError, match=message):
      checkpoints.restore(target)


def test_missing_steps_are_named(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
  with pytest.raises(InputError, match=r'checkpoints: .* 1\b.*\[2, 3, 4\]'):
    Checkpoints(folder, read_only=True).restore(make_state(), 1)
  with pytest.raises(InputError, match=r'other/checkpoints: .*no checkpoint'):
    Checkpoints(tmp_path / 'other', read_only=True).restore(make_state())


def test_reading_creates_no_folder(tmp_path: pathlib.Path) -> None:
  assert Checkpoints(tmp_path / 'none', read_only=True).latest() is None
  assert not (tmp_path / 'none').exists()


def test_names_of_arrays_are_their_paths() -> None:
  assert 'g/params/conv/kernel' in named_arrays(make_state())
  assert 'g/opt_state/0/mu/conv/kernel' in named_arrays(make_state())


# Damage -------------------------------------------------------------------------------------------


def reading(folder: pathlib.Path, lines: list[str] | None = None) -> Checkpoints:
  return Checkpoints(folder, 'psnr_y', read_only=True,
                     warn=print if lines is None else lines.append)


def flip(path: pathlib.Path, position: int = 0) -> None:
  """Flips a bit of a file."""
  data = bytearray(path.read_bytes())
  data[position] ^= 4
  path.write_bytes(data)


def damage(file: pathlib.Path) -> Iterator[None]:
  """Damages a file in each of several ways, and undoes it after each."""
  data = file.read_bytes()
  positions = {0, len(data) // 2, len(data) - 1}
  for change in (*(functools.partial(flip, file, position) for position in positions),
                 lambda: file.write_bytes(data[:len(data) // 2]), file.unlink,
                 lambda: file.write_bytes(b'')):
    change()
    yield
    file.write_bytes(data)


def test_any_damage_is_detected_and_the_previous_checkpoint_is_used(folder: pathlib.Path) -> None:
  place, count = folder / 'checkpoints' / '4', 0
  for file in sorted(path for path in place.rglob('*') if path.is_file()):
    for _ in damage(file):
      lines = []
      checkpoints = reading(folder, lines)
      assert (checkpoints.latest() == checkpoints.latest() == checkpoints.resolve_step('latest')
              == 3)
      assert list(checkpoints.damaged) == [4]
      line, = lines
      assert line.startswith(f'{place}: damaged ({checkpoints.damaged[4]}); ')
      assert line.endswith('step 3')
      assert str(file.relative_to(place)) in line
      count += 1
  assert count > 100
  assert reading(folder).latest() == 4
  (place / 'more').touch()
  assert reading(folder).latest() == 3


def test_the_previous_checkpoint_is_restored(
    folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
  flip(folder / 'checkpoints' / '4' / 'commit_success.txt')
  assert same_bits(reading(folder).restore(make_state(0)), make_state(3)) == []
  shutil.rmtree(folder / 'checkpoints' / '3')
  (folder / 'checkpoints' / '3').mkdir()
  capsys.readouterr()
  assert same_bits(reading(folder).restore(make_state(0)), make_state(2)) == []
  lines = [line.split('checkpoints/')[1] for line in capsys.readouterr().out.splitlines()]
  assert len(lines) == 2
  for line, prefix in zip(lines, ('3: damaged (an empty folder); ',
                                  '4: damaged (commit_success.txt '), strict=True):
    assert line.startswith(prefix)
    assert line.endswith('step 2')
  assert reading(folder).steps() == [2]


def test_a_damaged_checkpoint_that_is_requested_is_refused(folder: pathlib.Path) -> None:
  place = folder / 'checkpoints' / '2'
  for file, fault in (('state/_METADATA', 'differs'), ('metrics/metrics', 'differs'),
                      ('manifest.txt', 'is damaged')):
    data = (place / file).read_bytes()
    flip(place / file, 3)
    message = rf'checkpoints/2: damaged \({file} {fault}[^;]*\)$'
    for step in ('best', 2, '2'):
      with pytest.raises(InputError, match=message):
        reading(folder).resolve_step(step)
    with pytest.raises(InputError, match=message):
      reading(folder).restore_generator(make_state().ema, 2)
    assert reading(folder).best() == 3  # for training: the best of the intact ones
    assert reading(folder).latest() == 4
    (place / file).write_bytes(data)
  assert reading(folder).resolve_step('best') == 2


def test_training_does_not_start_over_if_no_checkpoint_is_intact(folder: pathlib.Path) -> None:
  (folder / 'config.json').write_text('{}')
  for step in (2, 3):
    flip(folder / 'checkpoints' / str(step) / 'manifest.txt')
  (folder / 'checkpoints' / '4' / 'manifest.txt').unlink()
  for refused in (lambda: reading(folder).latest(), lambda: reading(folder).resolve_step('latest'),
                  lambda: reading(folder).restore(make_state()), lambda: Checkpoints(folder),
                  lambda: previous.stopped_at(folder)):
    with pytest.raises(InputError) as caught:
      refused()
    message = str(caught.value)
    assert message.startswith(f'{folder}/checkpoints: none ')
    assert '--workdir' in message
    assert message.endswith('(2: manifest.txt is damaged, 3: manifest.txt is damaged, '
                            '4: manifest.txt is missing)')
  assert len(list((folder / 'checkpoints').iterdir())) == 3


def test_training_moves_damaged_checkpoints_out_of_its_way(folder: pathlib.Path) -> None:
  place, lines = folder / 'checkpoints' / '4', []
  flip(place / 'state' / '_METADATA')
  (folder / 'damaged' / '4').mkdir(parents=True)  # was moved at an earlier start
  (folder / 'damaged' / '4' / 'old').touch()
  step, _ = reading(folder).latest(), (folder / 'config.json').write_text('{}')
  assert previous.stopped_at(folder) == (step, {})
  checkpoints = Checkpoints(folder, 'psnr_y', begin=step, warn=lines.append)
  line, = lines
  assert line.startswith(f'{place}: damaged (state/_METADATA ')
  assert line.endswith(f'{folder}/damaged/4')
  assert (folder / 'damaged' / '4' / 'manifest.txt').exists()
  assert not (folder / 'damaged' / '4' / 'old').exists()
  checkpoints.save(make_state(4))
  checkpoints.close()
  assert same_bits(reading(folder).restore(make_state(0)), make_state(4)) == []


def test_damaged_checkpoints_are_moved_off_another_disk(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  def rename(old: Any, new: Any) -> None:
    raise OSError(errno.EXDEV, 'Invalid cross-device link')

  flip(folder / 'checkpoints' / '4' / 'manifest.txt')
  monkeypatch.setattr(os, 'rename', rename)
  Checkpoints(folder, begin=3, warn=lambda _: None)
  assert (folder / 'damaged' / '4' / 'manifest.txt').exists()
  assert not (folder / 'checkpoints' / '4').exists()


def test_a_damaged_best_checkpoint_is_named_and_stays(folder: pathlib.Path) -> None:
  lines = []
  flip(folder / 'checkpoints' / '2' / 'state' / '_METADATA')
  checkpoints = Checkpoints(folder, 'psnr_y', begin=4, warn=lines.append)
  checkpoints.save(make_state(5))
  checkpoints.close()
  assert sorted(path.name for path in (folder / 'checkpoints').iterdir()) == ['2', '3', '4', '5']
  assert len(lines) == 1
  assert lines[0].startswith(f'{folder}/checkpoints/2: damaged (state/_METADATA')


def test_what_a_kill_leaves_is_not_a_checkpoint(folder: pathlib.Path) -> None:
  place = folder / 'checkpoints'
  shutil.copytree(place / '4', place / '5.saving')  # killed before the manifest was written
  (place / '5.saving' / 'manifest.txt').unlink()
  shutil.copytree(place / '4', place / '6.saving.orbax-checkpoint-tmp')
  (place / '7.orbax-checkpoint-tmp').mkdir()
  (place / '1.deleted').mkdir()
  (place / '4.mine').mkdir()
  assert reading(folder).steps() == [2, 3, 4]
  checkpoints = Checkpoints(folder)
  assert sorted(path.name for path in place.iterdir()) == ['2', '3', '4', '4.mine']
  checkpoints.save(make_state(5))
  checkpoints.close()
  assert reading(folder).latest() == 5


def test_only_what_is_requested_is_hashed_and_only_once(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  calls, faults = [], manifest.faults
  monkeypatch.setattr(manifest, 'faults', lambda path, *prefix: (
      calls.append((int(path.name), *prefix)), faults(path, *prefix))[1])

  def hashed(use: Callable[[Checkpoints], Any], checkpoints: Checkpoints) -> list[int]:
    calls.clear()
    for _ in range(2):
      use(checkpoints)
    return [step for step, *prefix in calls if not prefix]

  assert hashed(lambda checkpoints: checkpoints.latest(), reading(folder)) == [4]
  assert hashed(lambda checkpoints: checkpoints.restore(make_state(0)), reading(folder)) == [4]
  assert hashed(lambda checkpoints: checkpoints.resolve_step('best'), reading(folder)) == [2]
  assert hashed(lambda checkpoints: checkpoints.resolve_step(3), reading(folder)) == [3]
  assert hashed(lambda checkpoints: None, Checkpoints(folder, 'psnr_y', begin=4)) == []
  # Training hashes the checkpoint that it resumes from and the best so far, but none that it saves.
  checkpoints = Checkpoints(folder, 'psnr_y', begin=4)
  assert hashed(lambda checkpoints: checkpoints.is_best({'psnr_y': 10.5}), checkpoints) == [2]

  def save(checkpoints: Checkpoints) -> None:
    checkpoints.save(make_state(5), {'psnr_y': 12.0})
    checkpoints.wait()
    assert checkpoints.latest() == checkpoints.best() == 5

  assert hashed(save, checkpoints) == []
  assert checkpoints.steps() == [4, 5]
  checkpoints.close()


def test_a_missing_manifest_is_damage(folder: pathlib.Path) -> None:
  (folder / 'checkpoints' / '4' / 'manifest.txt').unlink()
  assert reading(folder).latest() == 3
  for file in (folder / 'checkpoints').glob('*/manifest.txt'):
    file.unlink()
  with pytest.raises(InputError, match=r'checkpoints: none .*4: manifest.txt is missing'):
    reading(folder).latest()


def test_what_orbax_cannot_read_is_an_input_error_of_one_line(folder: pathlib.Path) -> None:
  """Orbax's own errors, for checkpoints whose manifest matches the damaged files."""
  place, errors = folder / 'checkpoints' / '4', []
  for file in ('state/manifest.ocdbt', 'state/_METADATA', '_CHECKPOINT_METADATA'):
    path = place / file
    data = path.read_bytes()
    for change in (path.unlink, functools.partial(path.write_bytes, b'{')):
      change()
      manifest.write(place)
      try:
        reading(folder).restore(make_state(0))
      except InputError as error:  # Orbax does not need every file
        errors.append(str(error))
    path.write_bytes(data)
  assert errors
  assert all(error.startswith(f'{place}: ') and '\n' not in error for error in errors)


def test_damaged_metrics_may_be_those_of_the_best(folder: pathlib.Path) -> None:
  flip(folder / 'checkpoints' / '3' / 'metrics' / 'metrics')
  with pytest.raises(InputError, match=r'checkpoints/3: damaged \(metrics/metrics '):
    reading(folder).resolve_step('best')
  checkpoints = Checkpoints(folder, 'psnr_y', begin=4, warn=lambda _: None)
  checkpoints.save(make_state(5))
  checkpoints.close()
  # A damaged checkpoint is not deleted.
  assert sorted(path.name for path in (folder / 'checkpoints').iterdir()) == ['2', '3', '4', '5']
  assert reading(folder).steps() == [2, 4, 5]


@pytest.fixture
def network(tmp_path: pathlib.Path) -> pathlib.Path:
  """A run of a small network with checkpoints of steps 1 (the best) and 2, which is damaged."""
  run, model = tmp_path / 'run', Compact(4, 1, scale=2)
  variables = filled(model, np.zeros((1, 8, 8, 3), np.float32))
  checkpoints = Checkpoints(run, 'psnr_y')
  for step in (1, 2):
    arrays = [flatten({name: {key: jnp.asarray(step * array) for key, array in layer.items()}
                       for name, layer in variables['params'].items()}), flatten({})]
    checkpoints.save(make_state(step)._replace(g=NetState(*arrays, ()), ema=Average(*arrays)),
                     {'psnr_y': float(3 - step)})
  checkpoints.close()
  (run / 'config.json').write_text(json.dumps({
      'generator': {'name': 'compact', 'features': 4, 'blocks': 1}, 'scale': 2, 'dtype': 'float32',
      'best_metric': 'psnr_y', 'imported': {'names': ''}}))
  flip(run / 'checkpoints' / '2' / 'ema' / '_METADATA')
  return run


def test_upscale_falls_back_and_reports_it(
    network: pathlib.Path, call: Callable, picture: Callable, tmp_path: pathlib.Path) -> None:
  images.write_image(tmp_path / 'in.png', picture(8, 9))
  status, out, _ = call(upscale.main, 'in.png', '--output', 'out', '--workdir', str(network))
  assert status == 0
  fault = f'{network}/checkpoints/2: damaged (ema/_METADATA '
  assert out.startswith(fault)
  assert out.splitlines()[0].endswith('step 1')
  assert f'{network}, step 1\n' in out
  status, _, err = call(upscale.main, 'in.png', '--output', 'out', '--workdir', str(network),
                        '--step', '2')
  assert status == 1
  assert err.startswith(f'sr_jax: {fault}')
  assert err.count('\n') == 1
  assert restore.load_run(network, 'best').step == 1


@pytest.mark.slow
def test_evaluate_falls_back_and_reports_it(
    network: pathlib.Path, picture: Callable, tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str]) -> None:
  images.write_image(tmp_path / 'set' / 'a.png', picture(20, 24))
  config = defaults()
  config.eval.sets, config.eval.lpips = str(tmp_path / 'set'), 'none'
  assert evaluate.evaluate(network, config=config)['set']['step'] == 1
  assert 'checkpoints/2: damaged (ema/_METADATA' in capsys.readouterr().out
  flip(network / 'checkpoints' / '1' / 'metrics' / 'metrics')
  for step, message in (('best', 'checkpoints/1: damaged'), ('latest', 'checkpoints: none ')):
    with pytest.raises(InputError, match=message):
      evaluate.evaluate(network, step=step, config=config)


# Saves that fail ----------------------------------------------------------------------------------


@contextlib.contextmanager
def no_manifest(_: pathlib.Path | None) -> Iterator[None]:
  """The disk is full when a manifest is written."""
  def full(folder: pathlib.Path) -> None:
    raise OSError(errno.ENOSPC, 'No space left on device', str(folder))

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(manifest, 'write', full)
    yield


@contextlib.contextmanager
def file_in_place_of_folder(folder: pathlib.Path) -> Iterator[None]:
  """A file has the name of the folder checkpoints."""
  (folder / 'checkpoints').rename(folder / 'away')
  (folder / 'checkpoints').touch()
  yield
  (folder / 'checkpoints').unlink()
  (folder / 'away').rename(folder / 'checkpoints')


@pytest.mark.parametrize(('broken', 'reason'), [
    (lambda folder: largest_file(100), 'File too large'),
    (lambda folder: largest_file(20_000), 'File too large'),
    (no_manifest, 'No space left on device'),
    (file_in_place_of_folder, 'File exists')], ids=['small files', 'arrays', 'manifest', 'a file'])
def test_a_save_that_fails_warns_and_has_no_other_effect(
    folder: pathlib.Path, broken: Callable, reason: str) -> None:
  lines, threads = [], threading.active_count()
  checkpoints = Checkpoints(folder, 'psnr_y', begin=4, warn=lines.append)
  state = make_state(5, width=4000)
  for turn in (1, 2):
    with broken(folder):
      checkpoints.save(state, {'psnr_y': 20.0})
      checkpoints.wait()
    assert len(lines) == turn
    assert checkpoints.failure == reason
    assert lines[-1].startswith(f'{folder}/checkpoints/5: cannot save ({reason}); ')
    assert checkpoints.steps() == [2, 3, 4]
    assert checkpoints.latest() == 4
    assert checkpoints.is_best({'psnr_y': 12.0})  # the failed save does not count
  checkpoints.save(state._replace(step=jnp.int32(6)), {'psnr_y': 1.0})
  checkpoints.wait()
  assert checkpoints.steps() == [2, 4, 6]
  checkpoints.close()
  assert len(lines) == 2
  assert sorted(path.name for path in (folder / 'checkpoints').iterdir()) == ['2', '4', '6']
  assert same_bits(reading(folder).restore(state).g, state.g) == []
  deadline = time.monotonic() + 10
  while threading.active_count() > threads and time.monotonic() < deadline:
    gc.collect()
    time.sleep(0.01)
  assert threading.active_count() <= threads  # no thread waits for a save that failed


def test_messages_have_the_path_as_it_was_given(folder: pathlib.Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.chdir(folder.parent)
  lines = []
  checkpoints = Checkpoints(folder.name, 'psnr_y', warn=lines.append)
  assert checkpoints.folder == pathlib.Path(folder.name, 'checkpoints')
  checkpoints.save(make_state(5))
  checkpoints.wait()
  with no_manifest(None):
    checkpoints.save(make_state(6))
    checkpoints.wait()
  assert lines[0].startswith(f'{folder.name}/checkpoints/6: cannot save (')
  assert int(checkpoints.restore(make_state(0)).step) == 5
  checkpoints.close()


def test_a_deleted_folder_is_created_again(folder: pathlib.Path) -> None:
  lines = []
  checkpoints = Checkpoints(folder, 'psnr_y', warn=lines.append)
  shutil.rmtree(folder)
  assert checkpoints.latest() is None
  checkpoints.save(make_state(5))
  checkpoints.wait()
  assert checkpoints.latest() == 5
  finish = checkpoints._finish

  def lose_the_folder(*arguments: Any) -> None:
    (folder / 'checkpoints').rename(folder / 'away')
    finish(*arguments)

  checkpoints._finish = lose_the_folder
  checkpoints.save(make_state(6, width=100_000))
  checkpoints.wait()
  checkpoints._finish = finish
  assert checkpoints.latest() is None
  assert len(lines) == 1
  assert lines[0].startswith(f'{folder}/checkpoints/6: cannot save (')
  checkpoints.save(make_state(7))
  checkpoints.close()
  assert reading(folder).latest() == 7


def test_a_failed_import_leaves_no_files(tmp_path: pathlib.Path) -> None:
  variables = filled(Compact(4, 1, scale=2), np.zeros((1, 8, 8, 3), np.float32))
  variables = {'params': variables['params'], 'batch_stats': {}}
  with no_manifest(None), pytest.raises(InputError) as caught:
    imported.save_imported(tmp_path / 'run', variables, {}, {})
  assert str(caught.value) == (
      f'{tmp_path}/run/checkpoints/0: cannot save (No space left on device)')
  assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_full_disk(tmp_path: pathlib.Path) -> None:
  disk = tmp_path / 'disk'
  disk.mkdir()
  if os.geteuid() or subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', disk],
                                    capture_output=True).returncode:
    pytest.skip('mounting a tmpfs is not permitted')
  lines = []
  try:
    checkpoints = Checkpoints(disk, warn=lines.append)
    checkpoints.save(make_state(1))
    checkpoints.wait()
    for step in (2, 3):
      checkpoints.save(make_state(step, width=300_000))
      checkpoints.wait()
      assert checkpoints.latest() == 1
    subprocess.run(['mount', '-o', 'remount,ro', disk], check=True)
    checkpoints.save(make_state(4))
    subprocess.run(['mount', '-o', 'remount,rw', disk], check=True)
    checkpoints.save(make_state(5))
    checkpoints.close()
    assert reading(disk).steps() == [1, 5]
    assert sorted(path.name for path in (disk / 'checkpoints').iterdir()) == ['1', '5']
    assert [line.split('checkpoints/')[1].split(';')[0] for line in lines] == [
        '2: cannot save (No space left on device)',
        '3: cannot save (No space left on device)',
        '4: cannot save (Read-only file system)']
  finally:
    subprocess.run(['umount', '-l', disk], check=True)
