"""Runs with degradations, a sharpened target and a U-Net continue to the same bits."""

import pathlib

import pytest
from ml_collections import ConfigDict

from tests import smallest
from tests.test_train import check_resumed, run, stop_after


@pytest.fixture
def degraded(config: ConfigDict) -> ConfigDict:
  smallest.degrade(config)
  return config


@pytest.mark.slow
def test_a_stopped_run_continues_to_the_same_bits(degraded: ConfigDict,
                                                  tmp_path: pathlib.Path) -> None:
  degraded.data.mode, degraded.device_loop = 'bank', 'yes'
  degraded.steps, degraded.checkpoint_every, degraded.log_every = 12, 6, 3
  whole = run(degraded, tmp_path / 'whole')
  assert {name.rpartition('/')[2] for name in whole.d.batch_stats.arrays()} == {'u'}
  stop_after(degraded, tmp_path / 'parts', 6)
  check_resumed(tmp_path / 'parts', run(degraded, tmp_path / 'parts'), tmp_path / 'whole', whole)
