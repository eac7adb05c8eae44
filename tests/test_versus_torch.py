"""The steps that versus_torch.py times compute the same losses in JAX and in PyTorch."""

import jax
import numpy as np
import pytest

from tests.benchmarks import versus_torch


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
def test_table(capsys):
  pytest.importorskip('torch')
  arguments = versus_torch.parser().parse_args(
      ['--only', 'srresnet', 'edsr-128', '--batch', '1', '--patch', '16', '--blocks', '1',
       '--seconds', '0', '--eager', '--compile'])
  versus_torch.main(arguments)
  lines = capsys.readouterr().out.splitlines()
  assert lines[-2].startswith('| srresnet | 1 of 16x16, 1 blocks | ')
  assert {line.count('|') for line in lines if line.startswith('|')} == {11}
