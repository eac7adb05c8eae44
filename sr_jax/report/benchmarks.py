"""Benchmark tables of the page."""

from html import escape
from urllib.parse import quote

from sr_jax.report import history
from sr_jax.report.html import _anchor, _cell, _table


def _benchmarks(histories, names, shown) -> str:
  by_set = {}
  for run, name in zip(histories, names, strict=True):
    for evaluation in run.evaluations:
      by_set.setdefault(evaluation.set, []).append((name, evaluation))
  return '\n'.join(_benchmark(name, mine, len(histories) > 1, shown)
                   for name, mine in by_set.items())


def _benchmark(name: str, scored, several: bool, shown) -> str:
  rows = {}
  for run, evaluation in scored:
    for method in history.METHODS[:2]:
      if method in evaluation.scores:
        rows.setdefault(method, evaluation.scores[method]['mean'])
    label = f'{run}, step {evaluation.step:,}' if several else f'step {evaluation.step:,}'
    rows[label] = evaluation.scores['mean']
    if 'corrected' in evaluation.scores:
      rows[f'{label}, corrected'] = evaluation.scores['corrected']['mean']
  figures = list(dict.fromkeys(figure for means in rows.values() for figure in means))
  table = _table(['', *map(escape, figures)], [
      [escape(label), *(_cell(figure, means.get(figure)) for figure in figures)]
      for label, means in rows.items()], 'figures')
  evaluation = scored[-1][1]
  protocol = ''.join(f'<dt>{escape(key)}</dt><dd>{escape(text)}</dd>'
                     for key, text in evaluation.scores['protocol'].items())
  ends = ''.join(_best_and_worst(run if several else '', one, shown) for run, one in scored)
  scale = evaluation.scores.get('scale', '?')
  return (f'<h3>{escape(f"{name}, x{scale}")}</h3>{table}{ends}'
          f'<details><summary>Protocol</summary><dl>{protocol}</dl></details>')


def _best_and_worst(run: str, evaluation, shown) -> str:
  def linked(name):
    if (evaluation.set, name) not in shown:
      return escape(name)
    return f'<a href="#{quote(_anchor(evaluation.set, name))}">{escape(name)}</a>'

  images = evaluation.scores['images']
  rows = []
  for figure in evaluation.scores['mean']:
    known = {name: figures[figure] for name, figures in images.items()
             if figures.get(figure) is not None}
    if len(known) > 1:
      order = sorted(known, key=known.get, reverse=not figure.startswith('lpips'))
      rows.append([escape(figure), *(f'{linked(name)} {_cell(figure, known[name])}'
                                     for name in (order[0], order[-1]))])
  if not rows:
    return ''
  title = f'Best and worst pictures{f" of {run}" if run else ""}'
  return (f'<details{"" if run else " open"}><summary>{escape(title)}</summary>'
          f'{_table(["", "best", "worst"], rows, "figures")}</details>')
