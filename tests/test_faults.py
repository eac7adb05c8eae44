"""A few of each of tests/faults: real processes, killed and starved."""

import pytest

from tests.faults import disk, kill


@pytest.mark.slow
def test_killed_runs_end_as_if_nothing_had_been(tmp_path):
  found, ended, faults = kill.campaign(tmp_path, 6, seed=1)
  assert faults == []
  assert sum(row['times'] for row in found.values()) >= 6
  assert ended


@pytest.mark.slow
def test_runs_whose_disk_is_gone_for_a_while_end_as_if_nothing_had_been(tmp_path):
  rows, faults = disk.campaign(tmp_path, 1, seed=1, steps=120)
  assert faults == []
  assert {kind for kind, *_ in rows} >= {'limited', 'moved', 'moved, to the end'}
