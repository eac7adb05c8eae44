"""The first thing on a page of several runs: where they differ, and how good each of them is."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from sr_jax import images
from sr_jax.report.headline import (
  CLEAN,
  Best,
  best_validation,
  better_when,
  clean_note,
  curve_name,
  gain_text,
  metric_title,
  score_cell,
  scored_metrics,
)
from sr_jax.report.history import History
from sr_jax.report.html import table
from sr_jax.runs import metadata
from sr_jax.system.text import format_seconds

MAX_SHOWN = 12  # runs whose curves and images are shown; more cannot be told apart
MAX_KEYS = 5  # columns of keys; the section of the runs has all of them


def shown_runs(histories: Sequence[History]) -> list[History]:
  """Returns the runs whose curves and images are shown: the best ones, in the given order.

  They are ranked by the `best_metric` of the first run.
  """
  if len(histories) <= MAX_SHOWN:
    return list(histories)
  metric = best_metric(histories)
  lower = metadata.lower_is_better(metric, histories[0].config)

  def rank(run: History) -> tuple[bool, float]:
    curve = run.curves.get(f'valid/{metric}')
    values = curve.finite.values if curve is not None else ()
    if not len(values):
      return True, 0.0
    return False, float(values.min() if lower else -values.max())

  best = sorted(histories, key=rank)[:MAX_SHOWN]
  return [run for run in histories if any(run is one for one in best)]


def best_metric(histories: Sequence[History]) -> str:
  """Returns the metric that the runs are ranked by."""
  return str(histories[0].config.get('best_metric', 'psnr_y'))


def differing_keys(histories: Sequence[History]) -> list[dict[str, Any]]:
  """Returns {key: value} of each run, of the keys of config.json in which the runs differ."""
  configs = [metadata.flat(run.config) for run in histories]
  keys = dict.fromkeys(key for config in configs for key in config)
  differing = [key for key in keys
               if any(config.get(key) != configs[0].get(key) for config in configs)]
  return [{key: config.get(key) for key in differing} for config in configs]


def overview(histories: Sequence[History], names: Sequence[str],
             numbers: Mapping[str, int]) -> str:
  """Returns a table with a row for each run: differing keys, best scores, steps and time.

  Args:
    names: the runs' names.
    numbers: {name: number in page.js} of the runs whose curves are shown.
  """
  bests = [best_validation(run) for run in histories]
  metrics, own = scored_metrics(histories, bests)
  differing = differing_keys(histories)
  keys = list(differing[0])
  head = ['', *(escape(key).replace('.', '.<wbr>') for key in keys[:MAX_KEYS]), 'best step',
          *(escape(metric_title(metric)) for metric in metrics), 'steps', 'time']
  rows = _baselines(histories, metrics, len(keys[:MAX_KEYS]))
  first = {metric: _winner(metric, histories, bests) for metric in metrics}
  for run, name, best, values in zip(histories, names, bests, differing, strict=True):
    swatch = f'<i class="swatch" data-run="{numbers[name]}"></i>' if name in numbers else ''
    scores = best.scores if best else {}
    bicubic = run.baselines.get('bicubic', {})
    cells = []
    for metric in metrics:
      cell = score_cell(metric, scores.get(metric))
      cells.append((f'<b>{cell}</b>' if scores.get(metric) == first[metric] else cell)
                   + gain_text(metric, scores.get(metric), bicubic.get(curve_name(metric))))
    rows.append([f'{swatch}{escape(name)}', *(_value(values[key]) for key in keys[:MAX_KEYS]),
                 f'{best.step:,}' if best else '', *cells, _steps(run),
                 format_seconds(run.seconds, always_hours=True) if run.seconds else ''])
  return (table(head, rows, 'metrics overview')
          + ''.join(f'<p class="status">{escape(note)}</p>'
                    for note in _notes(histories, metrics, own, keys, len(numbers))))


def _notes(histories: Sequence[History], metrics: Sequence[str], own: Mapping[str, str],
           keys: Sequence[str], shown: int) -> list[str]:
  notes = []
  if metrics:
    metric = best_metric(histories)
    notes.append('Means of the validation set at the best step; in parentheses the difference to '
                 f'{_baseline(histories)}. The best value of each metric is bold. '
                 + clean_note(metrics) + better_when(metrics, own))
    if shown < len(histories):
      notes.append(f'Curves and images show the {shown} runs that are best by {metric}, those '
                   'with a colour.')
  else:
    notes.append('No validation has been logged (config.data.valid).')
  if len(keys) > MAX_KEYS:
    notes.append(f'The configs differ in {len(keys)} keys; the last section has them all.')
  if not keys:
    notes.append('The configs are equal.')
  return notes


def _baselines(histories: Sequence[History], metrics: Sequence[str], keys: int) -> list[list[str]]:
  """Returns rows of bicubic and of the start of training, where they are the same for all runs."""
  rows = []
  for kind in ('bicubic', 'start'):
    found = [{metric: run.baselines.get(kind, {}).get(curve_name(metric)) for metric in metrics}
             for run in histories]
    found = [scores for scores in found if any(value is not None for value in scores.values())]
    if found and all(scores == found[0] for scores in found):
      rows.append([_baseline(histories) if kind == 'bicubic' else kind, *[''] * (keys + 1),
                   *(score_cell(metric, value) for metric, value in found[0].items()), '', ''])
  return rows


def _baseline(histories: Sequence[History]) -> str:
  scales = {run.config.get('scale') for run in histories}
  return images.baseline_name('bicubic', 1 if scales == {1} else 0)


def _winner(metric: str, histories: Sequence[History], bests: Sequence[Best | None]
            ) -> float | None:
  """Returns the best value of a metric; None if there are not two different ones."""
  values = {best.scores[metric] for best in bests if best and metric in best.scores}
  lower = metadata.lower_is_better(metric.removeprefix(CLEAN), histories[0].config)
  return (min if lower else max)(values) if len(values) > 1 else None


def _value(value: Any) -> str:
  return escape(value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
                if value is not None else '')


def _steps(run: History) -> str:
  return f'{run.step:,}' if run.step >= run.steps else f'{run.step:,} of {run.steps:,}'
