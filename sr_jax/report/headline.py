"""The first thing on the page: the scores of the best step against bicubic."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from sr_jax import images
from sr_jax.report.charts import TITLES
from sr_jax.report.history import History
from sr_jax.report.html import score_text, table
from sr_jax.runs import metadata

CLEAN = 'clean/'  # prefix of the metrics with clean LR, where 'valid' has degraded LR
METRICS = ('psnr_y', 'ssim_y', 'lpips_alex', 'lpips_vgg', 'niqe')


class Best(NamedTuple):
  """The validation with the best finite value of `config.best_metric`.

  Attributes:
    scores: {metric: mean}, of those in METRICS and the user's own that are finite; with clean LR
      under 'clean/METRIC'.
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
  scores = {name: value for name in _with_clean((*METRICS, *metadata.own_metrics(run.config)))
            if (value := _value_at(run, curve_name(name), step)) is not None}
  return Best(step, metric, scores)


def _with_clean(metrics: Sequence[str]) -> list[str]:
  return [*metrics, *(f'{CLEAN}{metric}' for metric in metrics)]


def curve_name(metric: str) -> str:
  """Returns the name of a metric of `Best.scores` in the log."""
  return metric if metric.startswith(CLEAN) else f'valid/{metric}'


def metric_title(metric: str) -> str:
  """Returns the title of a metric of `Best.scores`, not escaped."""
  name = metric.removeprefix(CLEAN)
  return TITLES.get(name, name) + (', clean LR' if name != metric else '')


def _value_at(run: History, name: str, step: int) -> float | None:
  curve = run.curves.get(name)
  if curve is None:
    return None
  found = curve.finite.values[curve.finite.steps == step]
  return float(found[0]) if found.size else None


def scored_metrics(histories: Sequence[History], bests: Sequence[Best | None]
                   ) -> tuple[list[str], dict[str, str]]:
  """Returns the metrics of the best steps, and {one of the user's own: 'higher' or 'lower'}."""
  own = {name: better for run in histories
         for name, better in metadata.own_metrics(run.config).items()}
  return [name for name in _with_clean((*METRICS, *own))
          if any(best and name in best.scores for best in bests)], own


def headline(run: History) -> str:
  """Returns the table of a run's best step against bicubic; a line if nothing was validated."""
  best = best_validation(run)
  metrics, own = scored_metrics([run], [best])
  if not best or not metrics:
    return '<p>No validation has been logged (config.data.valid).</p>'
  bicubic, start = ({metric: scores.get(curve_name(metric)) for metric in metrics}
                    for scores in (run.baselines.get('bicubic', {}),
                                   run.baselines.get('start', {})))
  columns = []
  baseline = images.baseline_name('bicubic', run.config.get('scale'))
  for label, scores in ((baseline, bicubic), ('start', start)):
    column = [label, *(score_cell(metric, scores[metric]) for metric in metrics)]
    if any(column[1:]):
      columns.append(column)
  columns.append([f'<b>step {best.step:,}</b>, best by {escape(best.metric)}', *(
      f'<b>{score_cell(metric, best.scores.get(metric))}</b>'
      + gain_text(metric, best.scores.get(metric), bicubic[metric]) for metric in metrics)])
  titles = [escape(metric_title(metric)) for metric in metrics]
  head, *rows = zip(['', *titles], *columns, strict=True)
  note = (f'Means of the validation set; in parentheses the difference to {baseline}. '
          + clean_note(metrics) + better_when(metrics, own))
  return f'{table(head, rows, "metrics headline")}<p class="status">{escape(note)}</p>'


def clean_note(metrics: Sequence[str]) -> str:
  """Returns a sentence on LR if the metrics include those with clean LR, or ''."""
  return ('LR is degraded as in training, clean LR is not. '
          if any(metric.startswith(CLEAN) for metric in metrics) else '')


def better_when(metrics: Sequence[str], own: Mapping[str, str]) -> str:
  """Returns a sentence on the metrics that are not better when higher, as PSNR and SSIM are.

  Args:
    metrics, own: of `scored_metrics`.
  """
  return 'LPIPS is better when lower' + ''.join(
      f', {name} when {own[name]}' for name in metrics if name in own) + '.'


def score_cell(metric: str, value: float | None) -> str:
  """Returns a score as HTML, '' for None."""
  return '' if value is None else score_text(metric.removeprefix(CLEAN), value)


def gain_text(metric: str, value: float | None, bicubic: float | None) -> str:
  """Returns the difference to bicubic in parentheses, or '' if a score is missing."""
  if value is None or bicubic is None:
    return ''
  gain = value - bicubic
  return f' ({"+" if gain >= 0 else "-"}{score_text(metric.removeprefix(CLEAN), abs(gain))})'
