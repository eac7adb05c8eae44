"""The first thing on the page: the scores of the best step against bicubic."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from sr_jax.report.charts import TITLES
from sr_jax.report.history import History
from sr_jax.report.html import score_text, table
from sr_jax.runs import metadata

METRICS = ('psnr_y', 'ssim_y', 'lpips_alex', 'lpips_vgg')


class Best(NamedTuple):
  """The validation with the best finite value of `config.best_metric`.

  Attributes:
    scores: {metric: mean}, of those in METRICS and the user's own that are finite.
  """

  step: int
  metric: str
  scores: dict[str, float]


def best_validation(run: History) -> Best | None:
  """Returns the best validation of a run, or None if there is none."""
  metric = run.config.get('best_metric', 'psnr_y')
  curve = run.curves.get(f'valid/{metric}')
  if curve is None or not curve.finite.steps.size:
    return None
  steps, values = curve.finite
  step = int(steps[np.argmin(values) if metadata.lower_is_better(metric, run.config)
                   else np.argmax(values)])
  scores = {name: value for name in (*METRICS, *metadata.own_metrics(run.config))
            if (value := _value_at(run, f'valid/{name}', step)) is not None}
  return Best(step, metric, scores)


def _value_at(run: History, name: str, step: int) -> float | None:
  curve = run.curves.get(name)
  if curve is None:
    return None
  found = curve.finite.values[curve.finite.steps == step]
  return float(found[0]) if found.size else None


def headline(histories: Sequence[History], names: Sequence[str]) -> str:
  """Returns the table of the best steps against bicubic; a line if nothing was validated."""
  bests = [best_validation(run) for run in histories]
  own = {name: better for run in histories
         for name, better in metadata.own_metrics(run.config).items()}
  metrics = [name for name in (*METRICS, *own)
             if any(best and name in best.scores for best in bests)]
  if not metrics:
    return '<p>No validation has been logged (config.data.valid).</p>'
  several, columns = len(histories) > 1, []
  common_set = len({(_set(run), run.config.get('scale')) for run in histories}) == 1
  for run, name, best in zip(histories, names, bests, strict=True):
    bicubic, start = ({metric: scores.get(f'valid/{metric}') for metric in metrics}
                      for scores in (run.baselines.get('bicubic', {}),
                                     run.baselines.get('start', {})))
    prefix = f'{escape(name)}: ' if several else ''
    for label, scores in ((f'{"" if common_set else prefix}bicubic', bicubic),
                          (f'{prefix}start', start)):
      column = [label, *(_cell(metric, scores[metric]) for metric in metrics)]
      if any(column[1:]) and column not in columns:
        columns.append(column)
    if best:
      columns.append([f'<b>{prefix}step {best.step:,}</b>, best by {escape(best.metric)}', *(
          f'<b>{_cell(metric, best.scores.get(metric))}</b>'
          + _gain(metric, best.scores, bicubic) for metric in metrics)])
  titles = [escape(TITLES.get(metric, metric)) for metric in metrics]
  head, *rows = zip(['', *titles], *columns, strict=True)
  note = ('Means of the validation set; in parentheses the difference to bicubic. LPIPS is better '
          'when lower' + ''.join(f', {name} when {own[name]}' for name in metrics if name in own)
          + '.')
  return f'{table(head, rows, "metrics headline")}<p class="status">{escape(note)}</p>'


def _set(run: History) -> str:
  data = run.config.get('data')
  return str(data.get('valid', '')) if isinstance(data, dict) else ''


def _cell(metric: str, value: float | None) -> str:
  return '' if value is None else score_text(metric, value)


def _gain(metric: str, scores: Mapping[str, float], bicubic: Mapping[str, float | None]) -> str:
  if metric not in scores or bicubic[metric] is None:
    return ''
  gain = scores[metric] - bicubic[metric]
  return f' ({"+" if gain >= 0 else "-"}{score_text(metric, abs(gain))})'
