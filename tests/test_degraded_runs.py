"""Runs with degradations, a sharpened target and a U-Net continue to the same bits."""

import hashlib
import pathlib

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from sr_jax.data.feed import open_feed
from sr_jax.experiment import inputs
from sr_jax.experiment.check import check
from tests import smallest
from tests.test_train import check_resumed, run, stop_after

FEEDS = [('bank', 0), ('mapped', 0), ('stream', 0), ('stream', 2)]


@pytest.fixture
def degraded(config: ConfigDict) -> ConfigDict:
  smallest.degrade(config)
  return config


@pytest.mark.slow
@pytest.mark.parametrize(('mode', 'workers', 'loop'), [('bank', 0, 'yes'), ('stream', 2, 'no')])
def test_a_killed_run_continues_to_the_same_bits(degraded: ConfigDict, tmp_path: pathlib.Path,
                                                 mode: str, workers: int, loop: str) -> None:
  degraded.data.mode, degraded.data.workers, degraded.device_loop = mode, workers, loop
  whole = run(degraded, tmp_path / 'whole')
  assert {name.rpartition('/')[2] for name in whole.d.batch_stats.arrays()} == {'u'}
  stop_after(degraded, tmp_path / 'parts', 20)
  check_resumed(tmp_path / 'parts', run(degraded, tmp_path / 'parts'), tmp_path / 'whole', whole)


def hashes(config: ConfigDict, start: int, stop: int) -> list[str]:
  """Returns a hash of each batch of the steps start .. stop - 1."""
  spec = inputs.build_feed_spec(check(config), device_loop=False)
  feed = open_feed(inputs.training_set(config), spec, start, lambda line: None)
  batch_at, found = jax.jit(feed.batch_at), []
  for step in range(start, stop):
    batch = batch_at(feed.source_for(step, step + 1), config.seed, step)
    assert batch.keys() == {'lr', 'hr', 'target'}
    found.append(hashlib.sha256(b''.join(
        np.asarray(batch[name]).tobytes() for name in sorted(batch))).hexdigest())
  feed.close()
  return found


@pytest.mark.slow
def test_batches_are_the_same_in_every_mode_with_any_workers_and_after_a_restart(
    degraded: ConfigDict) -> None:
  found = {}
  for mode, workers in FEEDS:
    degraded.data.mode, degraded.data.workers = mode, workers
    found[mode, workers] = hashes(degraded, 0, 24)
    assert len(set(found[mode, workers])) == 24
    assert hashes(degraded, 17, 24) == found[mode, workers][17:]
  assert found['bank', 0] == found['mapped', 0]
  assert found['stream', 0] == found['stream', 2]
