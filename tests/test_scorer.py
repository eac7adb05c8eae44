"""Means of scores: what is left out of them, and how that is reported."""

import json
import math
import pathlib
from collections.abc import Callable

import numpy as np
import pytest

from sr_jax import evaluate, images
from sr_jax.data.benchmarks import find_set
from sr_jax.metrics import scorer, tables
from sr_jax.models import MSRRESNET
from sr_jax.runs.checkpoint_index import CheckpointIndex
from tests.conftest import filled

INF, NAN = math.inf, math.nan


def of(**values: float) -> dict[str, dict[str, float]]:
  """of(a=20.0, b=inf) -> {'a': {'psnr_y': 20.0}, 'b': {'psnr_y': inf}}."""
  return {image: {'psnr_y': value} for image, value in values.items()}


@pytest.mark.parametrize(('scores', 'mean', 'line'), [
    (of(a=20.0, b=30.0), 25.0, None),
    (of(a=20.0, b=INF), 20.0, 'psnr_y: mean over 1 of 2 images, 1 infinite (identical)'),
    (of(a=20.0, b=NAN, c=INF), 20.0,
     'psnr_y: mean over 1 of 3 images, 1 infinite (identical), 1 NaN'),
    (of(a=20.0) | {'b': {}}, 20.0, 'psnr_y: mean over 1 of 2 images, 1 too small'),
    (of(a=INF, b=INF), INF, 'psnr_y: no finite mean, 2 infinite (identical)'),
    (of(a=NAN), NAN, 'psnr_y: no finite mean, 1 NaN')])
def test_values_that_are_not_finite_are_left_out_and_counted(
    scores: dict, mean: float, line: str | None) -> None:
  assert scorer.mean(scores) == pytest.approx({'psnr_y': mean}, nan_ok=True)
  assert scorer.exclusions({'': scores}) == ([line] if line else [])


def test_means_of_several_methods_are_of_the_same_images() -> None:
  bicubic = {'flat': {'psnr_y': INF, 'ssim_y': 1.0}, 'photo': {'psnr_y': 30.0, 'ssim_y': 0.8}}
  model = {'flat': {'psnr_y': 60.0, 'ssim_y': 0.9}, 'photo': {'psnr_y': 31.0, 'ssim_y': 0.9}}
  methods = {'bicubic': bicubic, 'model': model}
  assert scorer.means(methods) == {'bicubic': {'psnr_y': 30.0, 'ssim_y': 0.9},
                                   'model': {'psnr_y': 31.0, 'ssim_y': 0.9}}
  assert scorer.mean(model, bicubic) == {'psnr_y': 31.0, 'ssim_y': 0.9}
  assert scorer.mean(model) == {'psnr_y': 45.5, 'ssim_y': 0.9}
  line = 'psnr_y: mean over 1 of 2 images, 1 infinite (identical)'
  assert scorer.exclusions(methods) == [line]
  # Without an image that remains, a method keeps the mean that it has.
  flat = {name: {'flat': scores['flat']} for name, scores in methods.items()}
  assert scorer.means(flat)['model']['psnr_y'] == 60.0
  assert scorer.means(flat)['bicubic']['psnr_y'] == INF
  for markdown in (False, True):
    text = tables.table(methods, markdown)
    assert line in text.splitlines()[-1]
    assert '31.000' in text.splitlines()[-3 if markdown else -2]


def test_metrics_with_equal_reasons_share_a_line() -> None:
  scores = {'a': {'psnr_y': INF, 'psnr_rgb': INF}, 'b': {'psnr_y': 9.0, 'psnr_rgb': 8.0}}
  assert scorer.exclusions({'': scores}) == [
      'psnr_y, psnr_rgb: mean over 1 of 2 images, 1 infinite (identical)']


def test_json_has_no_tokens_that_json_does_not_have() -> None:
  for scores in (of(a=20.0, b=INF), of(a=INF), of(a=NAN)):
    summary = scorer.with_nulls(scorer.summary(scores))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
  assert scorer.summary(of(a=INF))['mean'] == {'psnr_y': INF}
  assert scorer.with_nulls(scorer.summary(of(a=20.0, b=INF))) == {
      'images': {'a': {'psnr_y': 20.0}, 'b': {'psnr_y': None}}, 'mean': {'psnr_y': 20.0},
      'excluded': ['psnr_y: mean over 1 of 2 images, 1 infinite (identical)']}


@pytest.mark.parametrize(('metric', 'value', 'expected'), [
    ('psnr_y', 30.0, 30.0), ('psnr_y', INF, -INF), ('psnr_y', NAN, -INF), ('psnr_y', None, -INF),
    ('lpips_alex', 0.5, -0.5), ('lpips_alex', -INF, -INF), ('lpips_alex', NAN, -INF),
    ('niqe', 4.5, -4.5)])
def test_the_best_checkpoint_has_a_finite_score(
    tmp_path: pathlib.Path, metric: str, value: float | None, expected: float) -> None:
  index = CheckpointIndex(tmp_path, metric, print)
  assert index.score({metric: value}) == expected


def test_evaluation_compares_means_of_the_same_images(
    tmp_path: pathlib.Path, picture: Callable, capsys: pytest.CaptureFixture[str]) -> None:
  model = MSRRESNET(features=4, blocks=1, scale=2)
  network = model, filled(model, np.zeros((1, 8, 8, 3)))
  images.write_image(tmp_path / 'set' / 'flat.png', np.zeros((24, 20, 3), np.uint8))
  images.write_image(tmp_path / 'set' / 'photo.png', picture(24, 20))
  found = find_set(str(tmp_path / 'set'), 2)
  result = evaluate.SetEvaluator(*network, 7, tmp_path / 'out', 'none').run_all({'set': found})
  table = json.loads((tmp_path / 'out' / 'set-7.json').read_text(), parse_constant=pytest.fail)
  assert table == json.loads(json.dumps(scorer.with_nulls(result['set'])))
  for method in (table, table['bicubic']):
    assert method['mean']['psnr_y'] == pytest.approx(method['images']['photo']['psnr_y'])
    assert method['mean']['ssim_y'] == pytest.approx(
        np.mean([scores['ssim_y'] for scores in method['images'].values()]))
  assert 'mean over 1 of 2 images, 1 infinite (identical)' in capsys.readouterr().out
