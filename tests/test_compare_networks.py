"""The programs of tests/benchmarks that compare networks: runs, table, generated page."""

import json
import pathlib

import pytest

from sr_jax.errors import InputError
from sr_jax.experiment.check import check
from sr_jax.models import GENERATORS
from tests.benchmarks import compare_networks, networks_page
from tests.benchmarks.networks_list import NETWORKS


def test_the_runs_are_those_of_the_comparison(tmp_path: pathlib.Path) -> None:
  assert len(compare_networks.RUNS) == 14
  for name, (network, seed) in compare_networks.RUNS.items():
    config = check(compare_networks.config_of(network, tmp_path, 40, seed))
    assert (config.eval.every, config.optimizer.g.ramp, config.seed) == (4, 0, int('-2' in name))
  assert compare_networks.steps_in(20, 0.25) == 4_800
  assert compare_networks.steps_in(0.01, 0.25) == 10
  assert 285_000 <= compare_networks.count_parameters('edsr') <= 315_000


def test_a_table_has_the_scores_of_the_log(tmp_path: pathlib.Path) -> None:
  folder = tmp_path / 'edsr'
  folder.mkdir()
  with pytest.raises(InputError, match=r'seconds\.json: .*--measure'):
    compare_networks.table(tmp_path, ['edsr'])
  (tmp_path / 'seconds.json').write_text('{"edsr": 0.5}')
  (folder / 'config.json').write_text('{"steps": 100}')
  scores = {0: 28.43, 20: 29.1, 50: 30.25, 100: 31.0}
  (folder / 'metrics.jsonl').write_text(''.join(
      json.dumps({'step': step, 'phase': 'pixel', 'valid/psnr_y': score,
                  'test/psnr_y': score - 2}) + '\n' for step, score in scores.items()))
  row = compare_networks.table(tmp_path, ['edsr']).splitlines()[-1]
  assert row.endswith('| 500 ms | 100 | 0.8 | 29.10 / 30.25 / 31.00 | 27.10 / 28.25 / 29.00 |')


def test_the_page_of_networks_is_that_of_the_code() -> None:
  path = pathlib.Path(__file__).parents[1] / 'docs' / 'networks.md'
  assert path.read_text('utf-8') == networks_page.page(), (
      'python -m tests.benchmarks.networks_page > docs/networks.md')
  figures = json.loads(networks_page.FIGURES.read_text())
  for kind in ('counted', 'gpu'):
    assert figures[kind].keys() <= NETWORKS.keys()
  assert {network.name for network in NETWORKS.values()} >= GENERATORS.keys() - {'msrresnet'}


def test_counted_figures_are_current() -> None:
  """Of one network, in full; SRCNN 9-5-5 has three layers: 9x9, 5x5 and 5x5 pixels."""
  found = networks_page.count(NETWORKS['srcnn'])
  assert found == json.loads(networks_page.FIGURES.read_text())['counted']['srcnn']
