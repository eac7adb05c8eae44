"""What versus_torch.py times is the same on both sides."""

import jax
import numpy as np
import pytest

from tests.benchmarks import versus_torch


@pytest.mark.slow
@pytest.mark.parametrize('name', versus_torch.STEPS)
def test_both_sides_take_the_same_step(name, unoptimised):
  torch = pytest.importorskip('torch')
  patch = 64 if name == 'esrgan' else 48
  config = versus_torch.task_config(name, batch=3, patch=patch, blocks=1)
  config.generator.features = 8
  if config.discriminator.name != 'none':
    config.discriminator.widths, config.discriminator.hidden = (4, 8), 6
  experiment = versus_torch.build_experiment(config)
  state = experiment.new_state()
  networks = versus_torch.torch_networks(config, experiment, state, torch, 'cpu')
  other = versus_torch.torch_step(config, networks, torch, 'cpu')
  step, rng = jax.jit(experiment.phases[-1].step), np.random.default_rng(0)
  for tolerance in (1e-5, 1e-3):  # of the same weights; of those that both have made of them
    batch = {'lr': rng.random((3, patch // 4, patch // 4, 3), np.float32),
             'hr': rng.random((3, patch, patch, 3), np.float32)}
    state, metrics = step(state, batch, experiment.frozen)
    losses = other(*(versus_torch.to_torch(batch[side], torch, 'cpu') for side in ('lr', 'hr')))
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
