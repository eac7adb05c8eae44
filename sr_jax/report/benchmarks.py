"""Builds the benchmark tables of the report."""

from collections.abc import Collection, Sequence
from html import escape
from urllib.parse import quote

from sr_jax.images import baseline_name
from sr_jax.metrics.tables import BASELINES
from sr_jax.report.history import Evaluation, History
from sr_jax.report.html import anchor, score_text, table
from sr_jax.system.text import better_when_lower


def benchmark_tables(histories: Sequence[History], names: Sequence[str],
                     shown: Collection[tuple[str, str]]) -> str:
  """Returns the HTML of the scores on every evaluated set.

  Args:
    names: the runs' names.
    shown: (set, image) of the images on the page, which are linked to.
  """
  by_set: dict[str, list[tuple[str, Evaluation]]] = {}
  for run, name in zip(histories, names, strict=True):
    for evaluation in run.evaluations:
      by_set.setdefault(evaluation.set, []).append((name, evaluation))
  return '\n'.join(_set_table(set_name, evaluations, len(histories) > 1, shown)
                   for set_name, evaluations in by_set.items())


def _set_table(set_name: str, evaluations: Sequence[tuple[str, Evaluation]], several_runs: bool,
               shown: Collection[tuple[str, str]]) -> str:
  rows = {}
  for run, evaluation in evaluations:
    for method in BASELINES:
      if method in evaluation.scores:
        rows.setdefault(baseline_name(method, evaluation.scores.get('scale')),
                        evaluation.scores[method]['mean'])
    label = f'{run}, step {evaluation.step:,}' if several_runs else f'step {evaluation.step:,}'
    rows[label] = evaluation.scores['mean']
    if 'corrected' in evaluation.scores:
      rows[f'{label}, corrected'] = evaluation.scores['corrected']['mean']
  metrics = list(dict.fromkeys(metric for means in rows.values() for metric in means))
  # A long name breaks after an underscore on a narrow screen.
  scores = table(['', *(escape(metric).replace('_', '_<wbr>') for metric in metrics)], [
      [escape(label), *(score_text(metric, means.get(metric)) for metric in metrics)]
      for label, means in rows.items()], 'metrics')
  last = evaluations[-1][1].scores
  protocol = ''.join(f'<dt>{escape(key)}</dt><dd>{escape(text)}</dd>'
                     for key, text in last['protocol'].items())
  extremes = ''.join(_best_and_worst(run if several_runs else '', evaluation, shown)
                     for run, evaluation in evaluations)
  heading = escape(f'{set_name}, x{last.get("scale", "?")}')
  excluded = last.get('excluded')
  notes = ''.join(f'<p class="status">{escape(line)}</p>' for line in excluded
                  if isinstance(line, str)) if isinstance(excluded, list) else ''
  return (f'<h3>{heading}</h3>{scores}{notes}{extremes}'
          f'<details><summary>Protocol</summary><dl>{protocol}</dl></details>')


def _lower_is_better(metric: str, evaluation: Evaluation) -> bool:
  """Returns whether a metric is better when it is lower; the file states it for a user's own."""
  better = evaluation.scores.get('better')
  own = better.get(metric) if isinstance(better, dict) else None
  return own == 'lower' if own else better_when_lower(metric)


def _best_and_worst(run: str, evaluation: Evaluation, shown: Collection[tuple[str, str]]) -> str:
  """Returns a table of the images with the best and the worst score of each metric."""
  def cell(metric: str, name: str, score: float) -> str:
    text = escape(name)
    if (evaluation.set, name) in shown:
      text = f'<a href="#{quote(anchor(evaluation.set, name))}">{text}</a>'
    return f'{text} {score_text(metric, score)}'

  rows = []
  for metric in evaluation.scores['mean']:
    scores = {name: scores[metric] for name, scores in evaluation.scores['images'].items()
              if scores.get(metric) is not None}
    if len(scores) > 1:
      best_first = sorted(scores, key=scores.get, reverse=not _lower_is_better(metric, evaluation))
      rows.append([escape(metric), *(cell(metric, name, scores[name])
                                     for name in (best_first[0], best_first[-1]))])
  if not rows:
    return ''
  title = f'Best and worst images{f" of {run}" if run else ""}'
  return (f'<details{"" if run else " open"}><summary>{escape(title)}</summary>'
          f'{table(["", "best", "worst"], rows, "metrics")}</details>')
