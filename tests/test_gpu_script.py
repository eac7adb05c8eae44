"""gpu.sh: what its JSON file has after each stage, how stages fail, and tiny sizes on the CPU."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from sr_jax.errors import InputError
from tests.benchmarks import gpu, gpu_stages, turns
from tests.test_traces import rows

ROOT = pathlib.Path(__file__).parent.parent
STEP = {'batch': '16 of 96x96', 'variants': {'sr_jax': {'ms': [1.0, 2.0, 3.0], 'ratio': [1, 1, 1]}}}


def results_of(monkeypatch, results):
  """Makes stages return these results, in place of running them; others return {}."""
  def run_stage(name, seconds, folder, cpu_sizes, children):
    folder.mkdir(parents=True, exist_ok=True)
    asked[name] = seconds
    return results.get(name, {})
  asked = {}
  monkeypatch.setattr(gpu, 'run_stage', run_stage)
  return asked


def test_the_file_has_everything_although_stages_fail(tmp_path, monkeypatch):
  asked = results_of(monkeypatch, {
      'environment': {'backend': 'gpu', 'device': 'NVIDIA H200'}, 'srresnet': STEP,
      'srgan': STEP | {'error': 'PyTorch: ImportError: No module named torch'},
      'srresnet-compile': {'error': 'exceeded 110 s'}, 'training': {'psnr_y': 31.2}})
  assert gpu.main(['--output', str(tmp_path / 'run')]) == 1
  report = json.loads((tmp_path / 'run' / 'gpu.json').read_text())
  assert list(report['stage_seconds']) == [stage.name for stage in gpu.STAGES]
  assert report['environment']['device'] == 'NVIDIA H200'
  assert report['steps'] == {'srresnet': STEP, 'srgan': STEP}
  assert report['training'] == {'psnr_y': 31.2}
  assert report['profile'] is None
  assert set(report['errors']) == {'srgan', 'srresnet-compile'}
  assert report['computed_by_profile_target']['srgan'] == {
      'measured_ms': 2.0, 'measured_kernels': None, 'computed': None}
  assert asked['training'] == pytest.approx(570, abs=5)  # what the others did not use
  assert asked['esrgan'] == 120


def test_computed_times_stand_beside_the_measured_ones(tmp_path, monkeypatch, capsys):
  results_of(monkeypatch, {'environment': {'backend': 'gpu'}, 'srgan': STEP, 'srresnet': STEP,
                           'profile': {'trace': {'kernels_per_step': 741.5}}})
  phase = {'lower_bound_seconds': 0.001, 'estimate_seconds': 0.004, 'kernels': 700,
           'needed_bytes': 2**30}
  content = {'phases': {'warm-up': phase | {'kernels': 1}, 'pixel': phase}, 'dtype': 'bfloat16',
             'batch_size': 16, 'hr_patch': 96, 'jax': '0.10.2'}
  file = tmp_path / 'computed' / 'srresnet' / 'profile' / 'target-h200.json'
  file.parent.mkdir(parents=True)
  file.write_text(json.dumps(content))
  arguments = ['--output', str(tmp_path / 'run'), '--computed', str(tmp_path / 'computed')]
  assert gpu.main(arguments) == 0
  found = json.loads((tmp_path / 'run' / 'gpu.json').read_text())['computed_by_profile_target']
  assert found['srresnet']['measured_kernels'] == 741.5
  assert found['srresnet']['computed']['h200'] == {
      'lower_bound_ms': 1.0, 'estimate_ms': 4.0, 'kernels': 700, 'needed_bytes': 2**30,
      'dtype': 'bfloat16', 'batch_size': 16, 'hr_patch': 96, 'jax': '0.10.2'}
  assert found['srgan'] == {'measured_ms': 2.0, 'measured_kernels': None, 'computed': None}
  for text in ('{"phases": {}}', '[]', '{'):  # before any stage runs
    file.write_text(text)
    assert gpu.main(['--output', str(tmp_path / 'new'), *arguments[2:]]) == 2
    assert 'target-h200.json' in capsys.readouterr().err
  file.unlink()
  assert gpu.main(['--output', str(tmp_path / 'new'), *arguments[2:]]) == 2
  assert not (tmp_path / 'new').exists()


def test_the_file_is_written_after_each_stage(tmp_path, monkeypatch):
  results_of(monkeypatch, {'environment': {'backend': 'gpu'}})
  arguments = gpu.parse(['--output', str(tmp_path), '--only', 'profile'])
  run_stage = gpu.run_stage

  def interrupted(name, *rest):
    if name == 'profile':
      raise KeyboardInterrupt
    return run_stage(name, *rest)

  monkeypatch.setattr(gpu, 'run_stage', interrupted)
  with pytest.raises(KeyboardInterrupt):
    gpu.run_stages(arguments)
  assert json.loads((tmp_path / 'gpu.json').read_text())['environment'] == {'backend': 'gpu'}


def test_the_training_gets_its_time_and_late_stages_are_not_started(tmp_path, monkeypatch):
  asked = results_of(monkeypatch, {'environment': {'backend': 'gpu'}})
  arguments = ['--output', str(tmp_path / 'run'), '--seconds', str(gpu.TRAINING_SECONDS + 10)]
  assert gpu.main(arguments) == 1
  assert set(asked) == {'training'}
  report = json.loads((tmp_path / 'run' / 'gpu.json').read_text())
  assert len(report['errors']) == len(gpu.STAGES) - 1


def test_a_machine_without_a_gpu_and_a_folder_in_use_are_refused(tmp_path, monkeypatch, capsys):
  asked = results_of(monkeypatch, {'environment': {'backend': 'cpu'}})
  assert gpu.main(['--output', str(tmp_path / 'run')]) == 2
  assert '--cpu-sizes' in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()
  assert set(asked) == {'environment'}
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'precious').touch()
  with pytest.raises(InputError, match='run'):
    gpu.run_stages(gpu.parse(['--output', str(tmp_path / 'run')]))
  assert [path.name for path in (tmp_path / 'run').iterdir()] == ['precious']


def run_code(code, folder, monkeypatch):
  """Runs Python code as a stage, for at most two seconds."""
  program = folder / 'python'
  program.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{code}'\n")
  program.chmod(0o755)
  monkeypatch.setattr(gpu.sys, 'executable', str(program))
  return gpu.run_stage('profile', 2, folder / 'run', True, [])


@pytest.mark.parametrize(('code', 'error'), [
    ('import os; os.abort()', 'status -6'),
    ('raise ValueError("too many kernels")', 'status 1: ValueError: too many kernels')])
def test_a_stage_that_dies_is_one_line(tmp_path, monkeypatch, code, error):
  assert error in run_code(code, tmp_path, monkeypatch)['error']


def test_a_stage_that_hangs_ends_with_its_processes(tmp_path, monkeypatch):
  code = (f'import subprocess; child = subprocess.Popen(["sleep", "60"]); '
          f'open("{tmp_path}/pid", "w").write(str(child.pid)); child.wait()')
  assert run_code(code, tmp_path, monkeypatch) == {'error': 'exceeded 2 s'}
  assert not_running(int((tmp_path / 'pid').read_text()))


def not_running(process, seconds=10):
  """Returns whether a process ends within some seconds; one that nobody waits for may stay."""
  end = time.monotonic() + seconds
  while time.monotonic() < end:
    try:
      state = pathlib.Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[0]
    except OSError:
      return True
    if state == 'Z':
      return True
    time.sleep(0.05)
  return False


def test_stages_end_with_the_script():
  def terminated():
    with gpu.killed_children() as children:
      children.append(child)
      os.kill(os.getpid(), signal.SIGTERM)
      time.sleep(10)

  child = subprocess.Popen(['sleep', '60'], start_new_session=True)
  with pytest.raises(SystemExit, match='143'):
    terminated()
  assert child.returncode == -signal.SIGKILL


def test_without_pytorch_an_eager_stage_times_sr_jax_alone(tmp_path, monkeypatch):
  def missing(threads):
    raise ModuleNotFoundError("No module named 'torch'")

  def take_turns(runs, seconds, *rest):
    return turns.Measured(rest[1], rest[2], {'sr_jax': 9.0}, {'sr_jax': [0.2, 0.4, 0.3]}, {})

  monkeypatch.setattr(gpu_stages.torch_device, 'open_device', missing)
  monkeypatch.setattr(turns, 'take_turns', take_turns)
  request = gpu_stages.Request(tmp_path, 60, True)
  found = gpu_stages.steps(request, 'srresnet', compiled=False)
  assert found['error'] == "PyTorch: ModuleNotFoundError: No module named 'torch'"
  assert found['batch'] == '2 of 32x32, 1 blocks'
  assert found['variants'] == {'sr_jax': {
      'ms': pytest.approx([250, 300, 350]), 'ratio': [1, 1, 1], 'first_call_seconds': 9.0}}
  with pytest.raises(ModuleNotFoundError):
    gpu_stages.steps(request, 'srresnet', compiled=True)


def test_a_trace_is_summarised_by_kernel():
  events = rows([(0, 10), (10, 10), (20, 10), (30, 10)], [(40, 2), (50, 2)])
  for event in events[-2:]:
    event['name'] = 'conv'
  found = gpu_stages.summarise_trace(events, 2)
  assert found['kernels_per_step'] == 3
  assert found['kernel_ms_per_step'] == pytest.approx(0.022)
  assert found['longest'] == [['k', pytest.approx(0.02), 2], ['conv', pytest.approx(0.002), 1]]
  assert gpu_stages.summarise_trace([], 2)['kernels_per_step'] is None


def write_log(folder, lines):
  config = {'batch_size': 8, 'dtype': 'bfloat16', 'data': {'source': 'a', 'valid': 'b'}}
  (folder / 'config.json').write_text(json.dumps(config))
  (folder / 'metrics.jsonl').write_text(''.join(json.dumps(
      {'epoch': 0, 'phase': 'pixel', **line}) + '\n' for line in lines))


def test_a_training_is_summarised_by_its_log(tmp_path):
  speeds = [{'step': step, 'images_per_second': speed}
            for step, speed in ((1, 1.0), (100, 80.0), (200, 88.0), (300, 800.0))]
  scores = [{'step': 0, 'phase': 'bicubic', 'valid/psnr_y': 28.4},
            {'step': 100, 'valid/psnr_y': 30.0}, {'step': 200, 'valid/psnr_y': 31.5}]
  write_log(tmp_path, speeds + scores)
  found = gpu_stages.summarise_training(tmp_path)
  assert found['steps_per_second'][1] == 11  # a median, without the first step
  assert (found['psnr_y'], found['psnr_y_step'], found['psnr_y_bicubic']) == (31.5, 200, 28.4)
  assert 'error' not in found
  write_log(tmp_path, speeds)
  found = gpu_stages.summarise_training(tmp_path)
  assert found['psnr_y'] is None
  assert '300' in found['error']
  write_log(tmp_path, speeds[:1])
  with pytest.raises(ValueError, match='fewer than two'):
    gpu_stages.summarise_training(tmp_path)


@pytest.mark.slow
def test_tiny_sizes_on_the_cpu(tmp_path):
  command = ['bash', 'tests/benchmarks/gpu.sh', '--output', str(tmp_path / 'run'), '--cpu-sizes',
             '--only', 'srresnet', 'training']
  result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300,
                          env={**os.environ, 'PYTHON': sys.executable})
  report = json.loads((tmp_path / 'run' / 'gpu.json').read_text())
  step = report['steps']['srresnet']
  try:
    import torch  # noqa: F401
  except ImportError:
    assert set(report['errors']) == {'srresnet'}
    assert list(step['variants']) == ['sr_jax']
  else:
    assert report['errors'] == {}, result.stderr
    assert result.returncode == 0
    assert list(step['variants']) == ['sr_jax', 'channels_last', 'eager']
  assert all(found['ms'][1] > 0 for found in step['variants'].values())
  assert report['environment']['backend'] == 'cpu'
  assert report['environment']['packages']['jax'] == report['environment']['jax']
  assert report['training']['steps'] == report['training']['psnr_y_step'] == 8
  assert report['training']['psnr_y'] > 10
  assert report['training']['steps_per_second'][1] > 0
