"""Checkpoints: nothing changes on the way through the disk, nothing wrong is read; and a disk
that fails costs a checkpoint at most.
"""

import collections
import contextlib
import errno
import gc
import json
import os
import shutil
import subprocess
import threading
import time

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.common import defaults
from sr_jax import evaluate, images, restore, upscale
from sr_jax.errors import InputError
from sr_jax.models import Compact
from sr_jax.runs import imported, manifest
from sr_jax.runs.checkpoints import Checkpoints, flat
from sr_jax.step.state import NetState, TrainState
from sr_jax.train import start
from tests.conftest import filled, largest_file, same_bits


def make_state(step=3, width=4, dtype=np.float32):
  rng = np.random.default_rng(step)
  params = {'conv': {'kernel': jnp.asarray(rng.normal(size=(3, width)), dtype)}}
  g = NetState(params, {}, optax.adam(1e-3).init(params))
  ema = {'params': params, 'batch_stats': {}}
  return TrainState(jnp.int32(step), jnp.int32(7), g, None, ema)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  path = tmp_path_factory.mktemp('made')
  checkpoints = Checkpoints(path, 'psnr_y')
  for step, psnr in ((1, 9.0), (2, 11.0), (3, 10.0), (4, None)):
    checkpoints.save(make_state(step), psnr and {'psnr_y': psnr})
  checkpoints.close()
  return path


@pytest.fixture
def folder(made, tmp_path):
  """A run with checkpoints of steps 2, which is the best, 3 and 4."""
  return shutil.copytree(made, tmp_path, dirs_exist_ok=True)


def test_round_trip_without_a_discriminator(folder):
  checkpoints = Checkpoints(folder, read_only=True)
  assert same_bits(checkpoints.restore(make_state(0)), make_state(4)) == []
  assert same_bits(checkpoints.restore(make_state(0), 3), make_state(3)) == []
  assert checkpoints.named('latest') == 4
  ema = checkpoints.restore_generator(make_state(0).ema, 4)
  assert same_bits(ema, make_state(4).ema) == []
  raw = checkpoints.restore_generator(make_state(0).ema, 3, raw=True)
  assert same_bits(raw['params'], make_state(3).g.params) == []


def test_last_two_and_best(folder):
  checkpoints = Checkpoints(folder, 'psnr_y', read_only=True)
  assert checkpoints.steps() == [2, 3, 4]
  assert checkpoints.best() == 2
  assert checkpoints.is_best({'psnr_y': 11.5})
  assert not checkpoints.is_best({'psnr_y': 10.5})
  assert not checkpoints.is_best({})


def test_lower_lpips_is_better(tmp_path):
  checkpoints = Checkpoints(tmp_path, 'lpips_alex')
  for step, value in ((1, 0.2), (2, 0.3), (3, 0.4), (4, 0.5)):
    checkpoints.save(make_state(step), {'lpips_alex': value, 'psnr_y': step})
  checkpoints.close()
  checkpoints = Checkpoints(tmp_path, 'lpips_alex', read_only=True)
  assert checkpoints.best() == 1
  assert checkpoints.steps() == [1, 3, 4]


def test_no_number_is_never_best(tmp_path):
  checkpoints = Checkpoints(tmp_path, 'psnr_y')
  for step, value in enumerate((29.0, 31.0, float('nan'), 20.0, 21.0, 22.0)):
    checkpoints.save(make_state(step), {'psnr_y': value})
  assert not checkpoints.is_best({'psnr_y': float('nan')})
  checkpoints.close()
  checkpoints = Checkpoints(tmp_path, 'psnr_y', read_only=True)
  assert checkpoints.best() == 1
  assert checkpoints.steps() == [1, 4, 5]


def test_wrong_shapes_types_and_names_are_named(folder):
  checkpoints = Checkpoints(folder, read_only=True)
  for target, message in (
      (make_state(width=5), r'conv/kernel is float32\[3, 4\] .* float32\[3, 5\]'),
      (make_state(dtype=jnp.bfloat16), r'conv/kernel is float32\[3, 4\] .* bfloat16\[3, 4\]'),
      (make_state()._replace(d=make_state().g), r'd/.* is absent in the checkpoint')):
    with pytest.raises(InputError, match=message):
      checkpoints.restore(target)


def test_missing_steps_are_named(folder, tmp_path):
  with pytest.raises(InputError, match=r'no checkpoint of step 1, but of \[2, 3, 4\]'):
    Checkpoints(folder, read_only=True).restore(make_state(), 1)
  with pytest.raises(InputError, match='no checkpoint'):
    Checkpoints(tmp_path / 'other', read_only=True).restore(make_state())


def test_reading_makes_nothing(tmp_path):
  assert Checkpoints(tmp_path / 'none', read_only=True).latest() is None
  assert not (tmp_path / 'none').exists()


def test_names_are_paths():
  assert 'g/params/conv/kernel' in flat(make_state())
  assert 'g/opt_state/0/mu/conv/kernel' in flat(make_state())


# Damage ------------------------------------------------------------------------------------


def reading(folder, lines=None):
  return Checkpoints(folder, 'psnr_y', read_only=True,
                     warn=print if lines is None else lines.append)


def flip(path, at=0):
  data = bytearray(path.read_bytes())
  data[at] ^= 4
  path.write_bytes(data)


def damage(file):
  """Each way to damage a file, undone after each."""
  whole = file.read_bytes()
  for change in (*(lambda at=at: flip(file, at) for at in {0, len(whole) // 2, len(whole) - 1}),
                 lambda: file.write_bytes(whole[:len(whole) // 2]), file.unlink,
                 lambda: file.write_bytes(b'')):
    change()
    yield
    file.write_bytes(whole)


def test_any_damage_is_found_and_the_one_before_is_used(folder):
  place, count = folder / 'checkpoints' / '4', 0
  for file in sorted(path for path in place.rglob('*') if path.is_file()):
    for _ in damage(file):
      lines = []
      checkpoints = reading(folder, lines)
      assert checkpoints.latest() == checkpoints.latest() == checkpoints.named('latest') == 3
      assert list(checkpoints.damaged) == [4]
      assert lines == [f'{place}: damaged ({checkpoints.damaged[4]}); the one of step 3 is used']
      assert str(file.relative_to(place)) in lines[0]
      count += 1
  assert count > 100
  assert reading(folder).latest() == 4
  (place / 'more').touch()
  assert reading(folder).latest() == 3


def test_the_one_before_is_restored(folder, capsys):
  flip(folder / 'checkpoints' / '4' / 'commit_success.txt')
  assert same_bits(reading(folder).restore(make_state(0)), make_state(3)) == []
  shutil.rmtree(folder / 'checkpoints' / '3')
  (folder / 'checkpoints' / '3').mkdir()
  capsys.readouterr()
  assert same_bits(reading(folder).restore(make_state(0)), make_state(2)) == []
  assert [line.split('checkpoints/')[1] for line in capsys.readouterr().out.splitlines()] == [
      '3: damaged (an empty folder); the one of step 2 is used',
      '4: damaged (commit_success.txt is not what was written); the one of step 2 is used']
  assert reading(folder).steps() == [2]


def test_a_damaged_one_that_is_asked_for_is_refused(folder):
  place = folder / 'checkpoints' / '2'
  for file, fault in (('state/_METADATA', 'is not what was written'),
                      ('metrics/metrics', 'is not what was written'),
                      ('manifest.txt', 'is damaged')):
    whole = (place / file).read_bytes()
    flip(place / file, 3)
    message = rf'checkpoints/2: damaged \({file} {fault}\)$'
    for step in ('best', 2, '2'):
      with pytest.raises(InputError, match=message):
        reading(folder).named(step)
    with pytest.raises(InputError, match=message):
      reading(folder).restore_generator(make_state().ema, 2)
    assert reading(folder).best() == 3  # for training: of those that are left
    assert reading(folder).latest() == 4
    (place / file).write_bytes(whole)
  assert reading(folder).named('best') == 2


def test_none_whole_is_said_and_not_begun_anew(folder):
  (folder / 'config.json').write_text('{}')
  for step in (2, 3):
    flip(folder / 'checkpoints' / str(step) / 'manifest.txt')
  (folder / 'checkpoints' / '4' / 'manifest.txt').unlink()
  for refused in (lambda: reading(folder).latest(), lambda: reading(folder).named('latest'),
                  lambda: reading(folder).restore(make_state()), lambda: Checkpoints(folder),
                  lambda: start.stopped_at(folder)):
    with pytest.raises(InputError) as caught:
      refused()
    message = str(caught.value)
    assert message.startswith(f'{folder}/checkpoints: none of the checkpoints in it is whole')
    assert '--workdir' in message
    assert message.endswith('(2: manifest.txt is damaged, 3: manifest.txt is damaged, '
                            '4: manifest.txt is missing)')
  assert len(list((folder / 'checkpoints').iterdir())) == 3


def test_training_goes_on_over_damaged_ones(folder):
  place, lines = folder / 'checkpoints' / '4', []
  flip(place / 'state' / '_METADATA')
  (folder / 'damaged' / '4').mkdir(parents=True)  # of an earlier time
  (folder / 'damaged' / '4' / 'old').touch()
  step, _ = reading(folder).latest(), (folder / 'config.json').write_text('{}')
  assert start.stopped_at(folder) == (step, {})
  checkpoints = Checkpoints(folder, 'psnr_y', begin=step, warn=lines.append)
  assert lines == [f'{place}: damaged (state/_METADATA is not what was written); moved to '
                   f'{folder}/damaged/4']
  assert (folder / 'damaged' / '4' / 'manifest.txt').exists()
  assert not (folder / 'damaged' / '4' / 'old').exists()
  checkpoints.save(make_state(4))
  checkpoints.close()
  assert same_bits(reading(folder).restore(make_state(0)), make_state(4)) == []


def test_damaged_ones_are_moved_off_another_disk(folder, monkeypatch):
  def rename(old, new):
    raise OSError(errno.EXDEV, 'Invalid cross-device link')

  flip(folder / 'checkpoints' / '4' / 'manifest.txt')
  monkeypatch.setattr(os, 'rename', rename)
  Checkpoints(folder, begin=3, warn=lambda _: None)
  assert (folder / 'damaged' / '4' / 'manifest.txt').exists()
  assert not (folder / 'checkpoints' / '4').exists()


def test_a_damaged_best_one_is_named_and_stays(folder):
  lines = []
  flip(folder / 'checkpoints' / '2' / 'state' / '_METADATA')
  checkpoints = Checkpoints(folder, 'psnr_y', begin=4, warn=lines.append)
  checkpoints.save(make_state(5))
  checkpoints.close()
  assert sorted(path.name for path in (folder / 'checkpoints').iterdir()) == ['2', '3', '4', '5']
  assert len(lines) == 1
  assert lines[0].startswith(f'{folder}/checkpoints/2: damaged (state/_METADATA')


def test_what_a_kill_leaves_is_no_checkpoint(folder):
  place = folder / 'checkpoints'
  shutil.copytree(place / '4', place / '5.saving')  # between Orbax's commit and the manifest
  (place / '5.saving' / 'manifest.txt').unlink()
  shutil.copytree(place / '4', place / '6.saving.orbax-checkpoint-tmp')
  (place / '7.orbax-checkpoint-tmp').mkdir()  # of an older version
  (place / '1.deleted').mkdir()
  (place / '4.mine').mkdir()
  assert reading(folder).steps() == [2, 3, 4]
  checkpoints = Checkpoints(folder)
  assert sorted(path.name for path in place.iterdir()) == ['2', '3', '4', '4.mine']
  checkpoints.save(make_state(5))
  checkpoints.close()
  assert reading(folder).latest() == 5


def test_only_what_is_asked_for_is_hashed_and_once(folder, monkeypatch):
  seen, faults = [], manifest.faults
  monkeypatch.setattr(manifest, 'faults', lambda path, *below: (
      seen.append((int(path.name), *below)), faults(path, *below))[1])

  def looked_into(ask, checkpoints):
    seen.clear()
    for _ in range(2):
      ask(checkpoints)
    return [step for step, *below in seen if not below]

  assert looked_into(lambda found: found.latest(), reading(folder)) == [4]
  assert looked_into(lambda found: found.restore(make_state(0)), reading(folder)) == [4]
  assert looked_into(lambda found: found.named('best'), reading(folder)) == [2]
  assert looked_into(lambda found: found.named(3), reading(folder)) == [3]
  assert looked_into(lambda found: None, Checkpoints(folder, 'psnr_y', begin=4)) == []
  # Training: the one it goes on from, and the best to hold others against; none of its own.
  checkpoints = Checkpoints(folder, 'psnr_y', begin=4)
  assert looked_into(lambda found: found.is_best({'psnr_y': 10.5}), checkpoints) == [2]

  def save(found):
    found.save(make_state(5), {'psnr_y': 12.0})
    found.wait()
    assert found.latest() == found.best() == 5

  assert looked_into(save, checkpoints) == []
  assert checkpoints.steps() == [4, 5]
  checkpoints.close()


def test_a_lost_manifest_is_damage(folder):
  for file in (folder / 'checkpoints').glob('*/manifest.txt'):
    file.unlink()
  flip(largest_file_of(folder / 'checkpoints' / '4'))  # which Orbax would not notice
  with pytest.raises(InputError, match=r'none of .* is whole.*4: manifest.txt is missing'):
    reading(folder).latest()


def largest_file_of(folder):
  return max((path for path in folder.rglob('*') if path.is_file()),
             key=lambda path: path.stat().st_size)


def test_runs_of_an_older_version(tmp_path):
  folder = tmp_path
  names = [name for name in TrainState._fields if name != 'health']
  older = collections.namedtuple('Older', names)
  checkpoints = Checkpoints(folder, 'psnr_y')
  for step, psnr in ((2, 11.0), (3, 10.0), (4, None)):
    checkpoints.save(older(*(getattr(make_state(step), name) for name in names)),
                     psnr and {'psnr_y': psnr})
  checkpoints.close()
  for file in (folder / 'checkpoints').glob('*/manifest.txt'):
    file.unlink()
  assert same_bits(reading(folder).restore(make_state(0)), make_state(4)) == []
  assert reading(folder).named('best') == 2
  (folder / 'checkpoints' / '5').mkdir()
  assert reading(folder).latest() == 4
  (folder / 'checkpoints' / '5').rmdir()
  # What Orbax has to say is one line.
  for file in ('state/manifest.ocdbt', 'state/_METADATA', '_CHECKPOINT_METADATA'):
    path = folder / 'checkpoints' / '4' / file
    whole = path.read_bytes()
    for change in (path.unlink, lambda path=path: path.write_bytes(b'{')):
      change()
      with contextlib.suppress(InputError):  # some files Orbax does without
        reading(folder).restore(make_state(0))
    path.write_bytes(whole)
  # Training on, all get theirs.
  flip(folder / 'checkpoints' / '3' / 'metrics' / 'metrics', 0)
  with pytest.raises(InputError, match='3: damaged'):
    reading(folder).named('best')
  checkpoints = Checkpoints(folder, 'psnr_y', begin=4)
  checkpoints.save(make_state(5))
  checkpoints.close()
  assert reading(folder).steps() == [2, 3, 4, 5]  # what is damaged is not deleted
  assert all((folder / 'checkpoints' / str(step) / 'manifest.txt').exists() for step in (2, 4, 5))


def test_arrays_that_an_older_version_lacks_start_afresh(tmp_path):
  names = [name for name in TrainState._fields if name != 'health']
  older = collections.namedtuple('Older', names)
  newer = collections.namedtuple('Newer', [*names, 'health'])
  health = collections.namedtuple('Health', ['skipped', 'row'])

  def of(kind, step, *more):
    return kind(*(getattr(make_state(step), name) for name in names), *more)

  zeros, counts = (health(jnp.int32(a), jnp.int32(b)) for a, b in ((0, 0), (3, 2)))
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(of(older, 1))
  assert same_bits(checkpoints.restore(of(newer, 0, zeros)), of(newer, 1, zeros)) == []
  checkpoints.save(of(newer, 2, counts))
  assert same_bits(checkpoints.restore(of(newer, 0, zeros)), of(newer, 2, counts)) == []
  checkpoints.close()


@pytest.fixture
def network(tmp_path):
  """A run of a small network with checkpoints of steps 1, the best, and 2, which is damaged."""
  run, model = tmp_path / 'run', Compact(4, 1, scale=2)
  variables = filled(model, np.zeros((1, 8, 8, 3), np.float32))
  checkpoints = Checkpoints(run, 'psnr_y')
  for step in (1, 2):
    params = {name: {key: jnp.asarray(step * array) for key, array in layer.items()}
              for name, layer in variables['params'].items()}
    ema = {'params': params, 'batch_stats': {}}
    checkpoints.save(make_state(step)._replace(g=NetState(params, {}, ()), ema=ema),
                     {'psnr_y': float(3 - step)})
  checkpoints.close()
  (run / 'config.json').write_text(json.dumps({
      'generator': {'name': 'compact', 'features': 4, 'blocks': 1}, 'scale': 2, 'dtype': 'float32',
      'best_metric': 'psnr_y', 'imported': {'names': ''}}))
  flip(run / 'checkpoints' / '2' / 'ema' / '_METADATA')
  return run


def test_upscale_falls_back_and_says_so(network, call, picture, tmp_path):
  images.write_image(tmp_path / 'in.png', picture(8, 9))
  status, out, _ = call(upscale.main, 'in.png', '--output', 'out', '--workdir', str(network))
  assert status == 0
  fault = f'{network}/checkpoints/2: damaged (ema/_METADATA is not what was written)'
  assert out.startswith(f'{fault}; the one of step 1 is used\n')
  assert f'by {network}, step 1\n' in out
  status, _, err = call(upscale.main, 'in.png', '--output', 'out', '--workdir', str(network),
                        '--step', '2')
  assert (status, err) == (1, f'sr_jax: {fault}\n')
  assert restore.load_run(network, 'best').step == 1


@pytest.mark.slow
def test_evaluate_falls_back_and_says_so(network, picture, tmp_path, capsys):
  images.write_image(tmp_path / 'set' / 'a.png', picture(20, 24))
  config = defaults()
  config.eval.sets, config.eval.lpips = str(tmp_path / 'set'), 'none'
  assert evaluate.evaluate_run(config, network)['set']['step'] == 1
  assert 'checkpoints/2: damaged (ema/_METADATA' in capsys.readouterr().out.splitlines()[0]
  flip(network / 'checkpoints' / '1' / 'metrics' / 'metrics')
  for step, message in (('best', '1: damaged'), ('latest', 'none of the checkpoints')):
    with pytest.raises(InputError, match=message):
      evaluate.evaluate_run(config, network, step)


# Saves that fail ---------------------------------------------------------------------------


@contextlib.contextmanager
def no_manifest(_):
  def full(folder):
    raise OSError(errno.ENOSPC, 'No space left on device', str(folder))

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(manifest, 'write', full)
    yield


@contextlib.contextmanager
def in_the_way(folder):
  (folder / 'checkpoints').rename(folder / 'away')
  (folder / 'checkpoints').touch()
  yield
  (folder / 'checkpoints').unlink()
  (folder / 'away').rename(folder / 'checkpoints')


@pytest.mark.parametrize(('broken', 'reason'), [
    (lambda folder: largest_file(100), 'File too large'),
    (lambda folder: largest_file(20_000), 'File too large'),
    (no_manifest, 'No space left on device'),
    (in_the_way, 'File exists')], ids=['small files', 'arrays', 'manifest', 'a file'])
def test_a_save_that_fails_warns_and_costs_nothing_else(folder, broken, reason):
  lines, threads = [], threading.active_count()
  checkpoints = Checkpoints(folder, 'psnr_y', begin=4, warn=lines.append)
  state = make_state(5, width=4000)
  for turn in (1, 2):
    with broken(folder):
      checkpoints.save(state, {'psnr_y': 20.0})
      checkpoints.wait()
    assert lines == turn * [f'{folder}/checkpoints/5: can not be saved ({reason}); training goes '
                            'on, and the next checkpoint is tried']
    assert checkpoints.steps() == [2, 3, 4]
    assert checkpoints.latest() == 4
    assert checkpoints.is_best({'psnr_y': 12.0})  # the one that failed is no best
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
  assert threading.active_count() <= threads  # nobody waits for what will never be


def test_a_folder_that_is_deleted_is_made_again(folder):
  lines = []
  checkpoints = Checkpoints(folder, 'psnr_y', warn=lines.append)
  shutil.rmtree(folder)
  assert checkpoints.latest() is None
  checkpoints.save(make_state(5))
  checkpoints.wait()
  assert checkpoints.latest() == 5
  finish = checkpoints._finish

  def lose_the_folder(*arguments):
    (folder / 'checkpoints').rename(folder / 'away')
    finish(*arguments)

  checkpoints._finish = lose_the_folder
  checkpoints.save(make_state(6, width=100_000))
  checkpoints.wait()
  checkpoints._finish = finish
  assert checkpoints.latest() is None
  assert len(lines) == 1
  assert lines[0].startswith(f'{folder}/checkpoints/6: can not be saved (')
  checkpoints.save(make_state(7))
  checkpoints.close()
  assert reading(folder).latest() == 7


def test_weights_are_not_imported_by_half(tmp_path):
  variables = filled(Compact(4, 1, scale=2), np.zeros((1, 8, 8, 3), np.float32))
  variables = {'params': variables['params'], 'batch_stats': {}}
  with no_manifest(None), pytest.raises(InputError) as caught:
    imported.save_imported(tmp_path / 'run', variables, {}, {})
  assert str(caught.value) == (
      f'{tmp_path}/run/checkpoints/0: can not be saved (No space left on device)')
  assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_full_disk(tmp_path):
  disk = tmp_path / 'disk'
  disk.mkdir()
  if os.geteuid() or subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', disk],
                                    capture_output=True).returncode:
    pytest.skip('may not mount')
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
        '2: can not be saved (No space left on device)',
        '3: can not be saved (No space left on device)',
        '4: can not be saved (Read-only file system)']
  finally:
    subprocess.run(['umount', '-l', disk], check=True)
