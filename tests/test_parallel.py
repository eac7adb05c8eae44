"""One device, several devices and several processes give the same run up to rounding."""

import base64
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace
from unittest import mock

import jax
import numpy as np
import pytest

from sr_jax import images, restore
from sr_jax.data import mapped, sources, stream
from sr_jax.data.bank import CropSpec
from sr_jax.errors import InputError
from sr_jax.runs.checkpoints import Checkpoints
from sr_jax.runs.metadata import start_records
from sr_jax.runs.metrics_log import read_metrics
from sr_jax.system import multihost, sharding

ROOT = pathlib.Path(__file__).parent.parent
SLURM = {'SLURM_JOB_ID': '7', 'SLURM_STEP_NODELIST': 'node[1-2]', 'SLURM_PROCID': '3',
         'SLURM_LOCALID': '1', 'SLURM_NTASKS': '4'}
THREE = {'JAX_COORDINATOR_ADDRESS': 'a:1', 'JAX_NUM_PROCESSES': '2', 'JAX_PROCESS_ID': '1'}
POD = {'KUBERNETES_SERVICE_HOST': '10.0.0.1', 'JOB_COMPLETION_INDEX': '0'}


@pytest.mark.parametrize(('environment', 'expected'), [
    ({}, (1, 0)),
    (SLURM, (4, 3)),
    (SLURM | {'SLURM_NTASKS': '1'}, (1, 0)),
    ({name: value for name, value in SLURM.items() if 'STEP' not in name}, (1, 0)),  # no srun
    (THREE, (2, 1)),
    (SLURM | {'JAX_NUM_PROCESSES': '1'}, (1, 0)),  # jobs of one process each, side by side
    ({'KUBERNETES_SERVICE_HOST': '10.0.0.1'}, (1, 0))])
def test_number_and_index_of_processes(environment, expected):
  assert multihost.process_env(environment) == expected


def test_jax_counts_the_pods_of_a_job(monkeypatch):
  for package, expected in ((True, (None, 0)), (None, (1, 0))):
    monkeypatch.setattr(multihost.importlib.util, 'find_spec', lambda name, found=package: found)
    assert multihost.process_env(POD) == expected


@pytest.mark.parametrize(('environment', 'name'), [
    ({'JAX_PROCESS_ID': '0'}, 'JAX_COORDINATOR_ADDRESS'),
    ({'JAX_COORDINATOR_ADDRESS': 'a:1'}, 'JAX_NUM_PROCESSES'),
    ({**THREE, 'JAX_PROCESS_ID': ''}, 'JAX_PROCESS_ID'),
    ({**THREE, 'JAX_PROCESS_ID': '2'}, 'JAX_PROCESS_ID=2'),
    ({**THREE, 'JAX_NUM_PROCESSES': 'two'}, 'two'),
    ({**THREE, 'JAX_COORDINATOR_ADDRESS': 'a'}, 'JAX_COORDINATOR_ADDRESS=a: expected HOST:PORT')])
def test_incomplete_environments_are_refused(environment, name):
  with pytest.raises(InputError, match=name):
    multihost.process_env(environment)


def test_joining_waits_for_a_pod_without_an_address(monkeypatch):
  asked = []

  def initialize(**_):
    asked.append(1)
    if len(asked) < 3:
      raise RuntimeError('Retry failed with all attempts exhausted')

  monkeypatch.setattr(multihost, 'process_env', lambda: (None, 1))
  monkeypatch.setattr(multihost.jax.distributed, 'initialize', initialize)
  monkeypatch.setattr(multihost.time, 'sleep', lambda _: None)
  multihost._join(60)
  assert len(asked) == 3
  monkeypatch.setattr(multihost.jax.distributed, 'initialize', mock.Mock(
      side_effect=RuntimeError('another fault')))
  with pytest.raises(InputError, match=r'process 1 .*\(another fault'):
    multihost._join(60)


@pytest.fixture
def eight(monkeypatch):
  devices = [SimpleNamespace(process_index=0, id=index, device_kind='cpu') for index in range(8)]
  monkeypatch.setattr(multihost.jax, 'devices', lambda: devices)


@pytest.mark.parametrize(('size', 'devices', 'accumulate', 'words'), [
    (6, 0, 1, ('config.batch_size=6', '8 devices', 'batch_size=8', 'devices=6')),
    (20, 8, 1, ('batch_size=16', 'batch_size=24', 'devices=5')),
    (8, 8, 2, ('2 parts (config.accumulate)', 'batch_size=16', 'devices=4')),
    (8, 9, 1, ('config.devices=9', 'at most 8'))])
def test_unsuitable_numbers_of_devices(config, eight, size, devices, accumulate, words):
  config.batch_size, config.devices, config.accumulate = size, devices, accumulate
  with pytest.raises(InputError) as caught:
    sharding.make_mesh(config.devices, config.batch_size, config.accumulate)
  assert all(word in str(caught.value) for word in words)


def test_one_device_is_no_mesh(config):
  config.devices, tree = 1, {'a': jax.numpy.ones(3)}
  assert sharding.make_mesh(config.devices, config.batch_size, config.accumulate) is None
  assert sharding.replicate(tree, None) is tree
  assert sharding.local_copy(tree)['a'] is tree['a']


def test_rows_of_processes_are_the_batch(folder, pack_folder):
  """The rows of all processes, concatenated, are the batch that one process makes."""
  packed, cut = pack_folder(folder), CropSpec(4, 16, 2)
  found = sources.open_source(f'folder:{folder}', 2)

  def made(rows):
    yield mapped.batches(packed, 5, 3, cut, rows)
    yield stream.batches(stream.CropSource(found, 5, cut, 2), 3, 0, [], rows)

  for whole, *parts in zip(*map(made, (None, range(0, 2), range(2, 4))), strict=True):
    for _ in range(4):
      expected, *rows = (next(batches) for batches in (whole, *parts))
      assert expected['hr'].shape == (4, 16, 16, 3)
      for name, crops in expected.items():
        np.testing.assert_array_equal(np.concatenate([row[name] for row in rows]), crops)


# In processes of their own -------------------------------------------------------------------


def environment(devices=1, processes=0):
  """Returns the environment of each process, in which JAX finds this number of CPU devices."""
  flags = f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count={devices}'
  mine = os.environ | {
      'PYTHONPATH': str(ROOT), 'XLA_FLAGS': flags,
      'JAX_COMPILATION_CACHE_DIR': jax.config.jax_compilation_cache_dir,
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
      'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '0', 'JAX_PLATFORMS': 'cpu'}
  if not processes:
    return [mine]
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  return [mine | {'JAX_COORDINATOR_ADDRESS': address, 'JAX_NUM_PROCESSES': str(processes),
                  'JAX_PROCESS_ID': str(number)} for number in range(processes)]


def start_all(environments, *arguments):
  return [subprocess.Popen([sys.executable, '-u', '-m', *map(str, arguments)], cwd=ROOT, env=mine,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
          for mine in environments]


def wait_all(processes, seconds=400):
  """Waits for processes and kills those that need more than `seconds`.

  Returns:
    [(exit status, stdout, stderr), ...].
  """
  deadline, results = time.monotonic() + seconds, []
  for process in processes:
    try:
      out, err = process.communicate(timeout=max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
      process.kill()
      out, err = process.communicate()
    results.append((process.returncode, out, err))
  return results


def run_worker(tmp_path, folder, what, *rest, devices=1, processes=0):
  """Runs parallel_worker and returns its result."""
  out = tmp_path / f'{what}-{"-".join(map(str, rest))}-{processes}.json'
  results = wait_all(start_all(environment(devices, processes),
                     'tests.parallel_worker', what, folder, out, *rest))
  assert [status for status, _, _ in results] == [0] * len(results), results
  return json.loads(out.read_text())


def largest_difference(a, b, upto):
  """(largest relative difference of losses and norms in the first `upto` steps, its name)."""
  names = [name for name in a[0] if name.startswith(('g/', 'd/', 'norm')) and name not in (
      'd/real', 'd/fake', 'd/saturated', 'g/ema_distance')]
  return max((abs(mine[name] - theirs[name]) / abs(theirs[name]), name)
             for mine, theirs in zip(a[:upto], b[:upto], strict=True) for name in names)


def test_two_devices_and_their_checkpoint_on_one(tmp_path, folder):
  found, = run_worker(tmp_path, folder, 'checkpoint', 'gan', '2-1', devices=2).values()
  assert found['same']
  assert largest_difference([found['continued']], [found['restored']], 1)[0] < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(('dtype', 'kinds', 'first', 'tenth'), [
    ('float64', 'gan,relativistic,loop', 1e-10, 1e-10), ('float32', 'loop', 1e-6, 1e-3)])
def test_as_on_one_device(tmp_path, folder, dtype, kinds, first, tenth):
  alone = run_worker(tmp_path, folder, 'steps', dtype, kinds, 10, '8,1', devices=8)
  both = run_worker(tmp_path, folder, 'steps', dtype, kinds, 10, 0, devices=1, processes=2)
  for kind in kinds.split(','):
    for several in (alone[f'{kind}/8'], both[f'{kind}/0']):
      if dtype == 'float32':  # in which D's gradients, small differences, are apart by 2% at ten
        several = [{name: value for name, value in step.items() if 'norm' not in name}
                   for step in several]
      assert largest_difference(several, alone[f'{kind}/1'], 1)[0] < first
      assert largest_difference(several, alone[f'{kind}/1'], 10)[0] < tenth


@pytest.mark.slow
def test_batches_are_the_same(tmp_path, picture):
  for seed in range(9):  # a stream takes each for one crop of a batch
    images.write_image(tmp_path / 'set' / f'{seed}.png', picture(24, 30, seed))
  alone = run_worker(tmp_path, tmp_path / 'set', 'batches', '8,1', devices=8)
  both = run_worker(tmp_path, tmp_path / 'set', 'batches', 0, processes=2)
  for mode in ('bank', 'mapped', 'stream'):
    for several in (alone[f'{mode}/8'], both[f'{mode}/0']):
      for (mean, levels), (other, others) in zip(several, alone[f'{mode}/1'], strict=True):
        assert mean == pytest.approx(other, abs=1e-7)
        assert levels == others


@pytest.mark.slow
def test_degradations_and_a_u_net_on_several_devices(tmp_path, folder):
  alone = run_worker(tmp_path, folder, 'degraded', '8,1', devices=8)
  both = run_worker(tmp_path, folder, 'degraded', 0, devices=2, processes=2)
  expected = levels_of(alone['batches/1'])
  for batches in (alone['batches/8'], both['batches/0']):
    assert batches['collectives'] == []  # each device degrades its own crops
    difference = np.abs(levels_of(batches) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 1e-4
  one, vectors = alone['steps/1']
  for found, number, count in ((alone, 8, 8), (both, 0, 2)):
    several, copies = found[f'steps/{number}']
    # The gradient of L1 is a sign, which one level of LR can change.
    several = [{name: value for name, value in step.items() if 'norm' not in name}
               for step in several]
    assert largest_difference(several, one, 3) < (1e-3, '')
    assert largest_difference(several, one, 1) < (1e-5, '')
    for name, vector in vectors.items():  # of the power iterations
      assert len(copies[name]) == count
      assert all(copy == copies[name][0] for copy in copies[name])
      np.testing.assert_allclose(copies[name][0], vector[0], rtol=1e-3, atol=1e-4)


def levels_of(found):
  return np.frombuffer(base64.b64decode(found['levels']), np.uint8).astype(int)


@pytest.mark.slow
def test_checkpoint_of_other_devices(tmp_path, folder):
  found = run_worker(tmp_path, folder, 'checkpoint', 'pixel,loop', '8-1,1-8', devices=8)
  assert len(found) == 4
  for kind in found.values():
    assert kind['same']
    assert largest_difference([kind['continued']], [kind['restored']], 1)[0] < 1e-5


def command_line(folder, workdir, *more):
  return ('sr_jax.main', '--config=tests/parallel_worker.py', f'--workdir={workdir}',
          f'--config.data.source=folder:{folder}', f'--config.data.valid=folder:{folder}',
          '--config.eval.pictures=2', '--config.eval.every=20', *more)


def run(environments, *arguments):
  results = wait_all(start_all(environments, *arguments))
  assert [status for status, _, _ in results] == [0] * len(results), results
  return results[0][1]


def when(ready, processes, seconds=300):
  deadline = time.monotonic() + seconds
  while not ready():
    assert time.monotonic() < deadline
    assert all(process.poll() is None for process in processes), wait_all(processes)
    time.sleep(0.05)


@pytest.mark.slow
def test_a_run_of_two_processes_is_resumed_by_one_and_by_two(tmp_path, folder):
  alone, two = tmp_path / 'alone', tmp_path / 'two'
  run(environment(), *command_line(folder, alone, '--config.steps=120'))

  processes = start_all(environment(processes=2),
                    *command_line(folder, two, '--config.steps=120'))
  when(lambda: start_records(two), processes)
  processes[1].send_signal(signal.SIGTERM)  # to one of them; both stop at the next log
  results = wait_all(processes)
  assert [status for status, _, _ in results] == [143, 143], results
  reached = Checkpoints(two, read_only=True).latest()
  assert reached % 10 == 0
  assert reached < 90

  out = run(environment(), *command_line(folder, two, '--config.steps=90'))
  assert re.search(r'\b1 devices.*\b2:', out)
  out = run(environment(processes=2), *command_line(folder, two, '--config.steps=120'))
  assert 'in 2 processes' in out
  assert [(start['processes'], start['from_step']) for start in start_records(two)] == [
      (2, 0), (1, reached), (2, 90)]

  lines = [{line['step']: line for line in read_metrics(workdir) if 'g/total' in line}
           for workdir in (alone, two)]
  assert lines[0].keys() == lines[1].keys()
  for step, line in lines[0].items():
    assert lines[1][step]['g/pixel'] == pytest.approx(line['g/pixel'],
                                                      rel=1e-3 if step <= 40 else 2e-2)
  norms = [np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(
      restore.load_run(workdir, 120, raw=True).variables['params']))) for workdir in (alone, two)]
  assert norms[0] == pytest.approx(norms[1], rel=1e-2)


@pytest.mark.slow
def test_all_processes_end_if_one_is_killed(tmp_path, folder):
  """The other ends by itself, and the run can be resumed from its checkpoint."""
  line = command_line(folder, tmp_path / 'run', '--config.steps=100000')
  both = start_all(environment(processes=2), *line)
  when(lambda: (tmp_path / 'run/checkpoints/40').exists(), both)
  both[1].kill()
  begin = time.monotonic()
  (status, _, err), _ = wait_all(both)
  assert time.monotonic() - begin < 2 * multihost.HEARTBEAT_TIMEOUT_SECONDS
  assert status not in (0, None)
  assert 'process' in err
  assert Checkpoints(tmp_path / 'run', read_only=True).latest() >= 40


@pytest.mark.slow
def test_bad_input_on_devices(tmp_path, folder):
  (status, _, err), = wait_all(start_all(environment(8), *command_line(
      folder, tmp_path / 'run', '--config.batch_size=6')))
  assert status == 1
  assert err.startswith('sr_jax: ')
  assert err.count('\n') == 1
  assert all(word in err for word in ('config.batch_size=6', '8 devices', 'devices=6'))


@pytest.mark.slow
def test_a_process_that_never_joins(tmp_path, folder):
  for mine in environment(processes=2):
    begin = time.monotonic()
    (status, _, err), = wait_all(start_all([mine], *command_line(
        folder, tmp_path / 'run', '--config.join_seconds=5')))
    assert status == 1
    assert time.monotonic() - begin < 60
    assert err.startswith(f'sr_jax: {mine["JAX_COORDINATOR_ADDRESS"]}: not all of 2 processes')


@pytest.mark.slow
def test_processes_with_different_configs_are_refused(tmp_path, folder):
  first, second = environment(processes=2)
  line = command_line(folder, tmp_path / 'run')
  results = wait_all(start_all([first], *line)
                     + start_all([second], *line, '--config.log_every=20'))
  assert [status for status, _, _ in results] == [1, 1], results
  assert all('config.log_every is 20 in process 1 and 10 in process 0' in err
             for _, _, err in results), results
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_an_error_of_one_process_ends_all_with_its_message(tmp_path, folder):
  first, second = environment(processes=2)
  line = command_line(folder, tmp_path / 'run')
  nowhere = tmp_path / 'file'
  nowhere.touch()
  results = wait_all(start_all([first, second | {'SR_JAX_CACHE': str(nowhere)}], *line))
  assert [status for status, _, _ in results] == [1, 1], results
  assert all(str(nowhere) in err and err.count('sr_jax:') == 1 for _, _, err in results), results


@pytest.mark.slow
def test_evaluation_runs_in_one_process(tmp_path, folder):
  workdir = tmp_path / 'run'
  line = command_line(folder, workdir, '--config.steps=2', '--config.warmup_steps=2')
  run(environment(), *line)
  out = [out for status, out, _ in wait_all(start_all(
      environment(processes=2), *line, '--mode=evaluate', f'--config.eval.sets={folder}'))
         if status == 0]
  assert 'bicubic' in out[0]
  assert out[1] == ''
