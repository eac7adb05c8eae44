"""Both sides of versus_torch.py compute the same losses and flush denormal numbers."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.benchmarks import turns, versus_torch

ROOT = pathlib.Path(__file__).parent.parent
# In processes of their own: the processor's mode, and the threads that copy it, remain.
DENORMALS = """
import json, sys
import numpy as np
import torch
from tests.benchmarks import torch_device
if 'late' in sys.argv:
  torch.set_num_threads(2)
  torch.ones(1 << 22) * 2  # starts a second thread
torch_device.open_device(2)
kept = torch_device.kept_denormals(torch)
x = torch.full((2, 16, 64, 64), 1e-20, requires_grad=True)
kernel = torch.full((16, 16, 3, 3), 1e-20, requires_grad=True)
y = torch.nn.functional.conv2d(x, kernel)
y.backward(torch.full_like(y, 1e-20))
kept |= {name: bool(tensor.detach().numpy().view(np.uint32).any())
         for name, tensor in (('y', y), ('x', x.grad), ('kernel', kernel.grad))}
print(json.dumps(kept | {'phrase': torch_device.describe_denormals(torch)}))
"""


def run_python(*arguments):
  result = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True,
                          timeout=300)
  assert result.returncode == 0, result.stderr
  return result.stdout


def test_ratios_are_those_of_each_round():
  durations = {'sr_jax': [1.0, 2.0, 4.0], 'channels_last': [2.0, 2.0, 6.0], 'compile': []}
  measured = turns.Measured('4 of 8x8', 2, {}, durations, {'compile': 'no compiler'})
  quartiles = measured.quartiles()
  assert quartiles['sr_jax'] == {'ms': [750.0, 1000.0, 1500.0], 'ratio': [1.0, 1.0, 1.0]}
  assert quartiles['channels_last']['ratio'] == [1.25, 1.5, 1.75]
  assert 'compile' not in quartiles
  cells = versus_torch.row('edsr', measured).split(' | ')
  assert cells == ['| edsr', '4 of 8x8', '1000.00', '1000.00', '1.50 (1.25 to 1.75)', '', 'failed',
                   '3 |']


def test_a_variant_that_cannot_be_compiled_is_recorded_and_others_are_not_excused():
  def fail():
    raise ValueError('no compiler\nof any kind')
  measured = turns.take_turns({'sr_jax': lambda: 0, 'compile': fail}, 0, lambda: None)
  assert measured.failures == {'compile': 'ValueError: no compiler'}
  assert [len(seconds) for seconds in measured.durations.values()] == [turns.MIN_ROUNDS, 0]
  with pytest.raises(ValueError, match='no compiler'):
    turns.take_turns({'sr_jax': fail}, 0, lambda: None)


@pytest.mark.slow
def test_both_sides_flush_denormals_on_every_thread():
  pytest.importorskip('torch')
  found = json.loads(run_python('-c', DENORMALS))
  assert found == {'sr_jax': 0, 'PyTorch': 0, 'y': False, 'x': False, 'kernel': False,
                   'phrase': 'denormal numbers flushed to zero on every thread'}


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason='needs two cores')
def test_threads_that_started_before_are_found_out():
  pytest.importorskip('torch')
  found = json.loads(run_python('-c', DENORMALS, 'late'))
  assert found['sr_jax'] == 0
  assert 0.2 < found['PyTorch'] < 0.8  # the half of the other thread
  assert 'PyTorch' in found['phrase']


@pytest.mark.slow
@pytest.mark.parametrize('name', versus_torch.STEPS)
def test_both_steps_compute_the_same_losses(name):
  torch = pytest.importorskip('torch')
  patch = 64 if name == 'esrgan' else 48
  config = versus_torch.task_config(name, batch=3, patch=patch, blocks=1)
  config.generator.features = 8
  if config.discriminator.name != 'none':
    config.discriminator.widths, config.discriminator.hidden = (4, 8), 6
  experiment = versus_torch.build_experiment(config)
  state = experiment.new_state()
  device = versus_torch.Device(torch, 'cpu')
  networks = versus_torch.torch_networks(config, experiment, state, device)
  torch_step = versus_torch.torch_step(config, networks, device)
  step, rng = jax.jit(experiment.phases[-1].step), np.random.default_rng(0)
  for tolerance in (1e-5, 1e-3):  # of equal weights, and of the weights after one step
    batch = {'lr': rng.random((3, patch // 4, patch // 4, 3), np.float32),
             'hr': rng.random((3, patch, patch, 3), np.float32)}
    state, metrics = step(state, batch, experiment.frozen)
    losses = torch_step(*(versus_torch.to_torch(batch[side], device) for side in ('lr', 'hr')))
    assert losses.keys() == {key for key in metrics if key.endswith('/total')}
    for key, loss in losses.items():
      np.testing.assert_allclose(float(loss), float(metrics[key]), rtol=tolerance)


@pytest.mark.slow
def test_table():
  pytest.importorskip('torch')
  lines = run_python('-m', 'tests.benchmarks.versus_torch', '--only', 'srresnet', 'edsr-128',
                     '--batch', '1', '--patch', '16', '--blocks', '1', '--seconds', '0', '--eager',
                     '--compile').splitlines()
  assert lines[0].endswith(', denormal numbers flushed to zero on every thread')
  assert lines[-2].startswith('| srresnet | 1 of 16x16, 1 blocks | ')
  assert {line.count('|') for line in lines if line.startswith('|')} == {11}
