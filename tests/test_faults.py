"""Runs a few cases of tests/faults: real processes that are killed or whose disk fails."""

import pathlib

import pytest

from tests.faults import disk, kill


@pytest.mark.slow
def test_killed_runs_end_as_uninterrupted_ones(tmp_path: pathlib.Path) -> None:
  rows, ended, faults = kill.campaign(tmp_path, 6, seed=1)
  assert faults == []
  assert sum(row['times'] for row in rows.values()) >= 6
  assert ended


@pytest.mark.slow
def test_runs_whose_disk_fails_for_a_while_end_as_uninterrupted_ones(
    tmp_path: pathlib.Path) -> None:
  rows, faults = disk.campaign(tmp_path, 1, seed=1, steps=120)
  assert faults == []
  assert {kind for kind, *_ in rows} >= {'limited', 'moved', 'moved, to the end'}
