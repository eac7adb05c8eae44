"""Tables of scores, for terminals and as Markdown."""

from collections.abc import Mapping, Sequence

from sr_jax.images import baseline_name
from sr_jax.metrics.scorer import Scores, exclusions
from sr_jax.metrics.scorer import means as means_of
from sr_jax.system.text import format_metric

BASELINES = ('bilinear', 'bicubic')  # in every table beside a model, by MATLAB's imresize


def shown(methods: Mapping[str, Mapping[str, Scores]], scale: int
          ) -> dict[str, Mapping[str, Scores]]:
  """Returns the methods by the names of tables: at scale 1 both BASELINES are one, 'input'.

  Args:
    methods: {'bicubic': {image: {'psnr_y': ...}}, 'model': {...}}.
  """
  return {baseline_name(method, scale) if method in BASELINES else method: scores
          for method, scores in methods.items()}


def table(methods: Mapping[str, Mapping[str, Scores]], markdown: bool = False) -> str:
  """Returns a table with a row for each image and method, then rows of the means.

  Lines below it state which means leave out images (`scorer.exclusions`).

  Args:
    methods: {'bicubic': {image: {'psnr_y': ...}}, 'model': {...}}, all with the same images.
    markdown: returns a GitHub table instead of columns that are separated by spaces.
  """
  means = means_of(methods)
  metrics = list(dict.fromkeys(name for scores in means.values() for name in scores))
  labels = ['image', 'method'] if len(methods) > 1 else ['image']
  rows = [[*labels, *metrics]]
  for image in [*next(iter(methods.values())), None]:
    for index, (method, scores) in enumerate(methods.items()):
      values = means[method] if image is None else scores[image]
      cells = (_cell(name, values) for name in metrics)
      title = '' if index else image or 'mean'  # only in the first of its rows
      rows.append([*[title, method][:len(labels)], *cells])
  excluded = exclusions(methods)
  if not markdown:
    return '\n'.join([aligned(rows, len(labels)), *excluded])
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = _padded(rows, len(labels))
  rule = ['-' * width if column < len(labels) else '-' * (width - 1) + ':'
          for column, width in enumerate(widths)]
  rows = ['| ' + ' | '.join(line) + ' |' for line in (lines[0], rule, *lines[1:])]
  return '\n'.join(rows + [''] * bool(excluded) + [f'- {line}' for line in excluded])


def means_table(sets: Mapping[str, Mapping[str, Mapping[str, Scores]]]) -> str:
  """Returns a table with a row for each set and method, the means over the images of the set.

  If there are several sets, the last rows are the means over the images of all of them. Lines below
  the table state which means leave out images (`scorer.exclusions`).

  Args:
    sets: {'Set5': {'bicubic': {image: {'psnr_y': ...}}, 'model': {...}}}.
  """
  groups = dict(sets)
  if len(sets) > 1:
    methods = dict.fromkeys(method for scores in sets.values() for method in scores)
    groups['all'] = {method: {f'{name}/{image}': values for name, scores in sets.items()
                              for image, values in scores.get(method, {}).items()}
                     for method in methods}
  means = {name: means_of(scores) for name, scores in groups.items()}
  metrics = list(dict.fromkeys(metric for methods in means.values() for values in methods.values()
                               for metric in values))
  rows = [['set', 'images', 'method', *metrics]]
  for name, methods in means.items():
    count = len(next(iter(groups[name].values())))
    for index, (method, values) in enumerate(methods.items()):
      rows.append([*(('', '') if index else (name, f'{count:,}')), method, *(
          _cell(metric, values) for metric in metrics)])
  excluded = [f'{name}: {line}' for name, scores in sets.items() for line in exclusions(scores)]
  return '\n'.join([aligned(rows, 3), *excluded])


def aligned(rows: Sequence[Sequence[str]], labels: int) -> str:
  """Returns lines of columns; those after the first `labels` are aligned at the right."""
  return '\n'.join('  '.join(line).rstrip() for line in _padded(rows, labels))


def _padded(rows: Sequence[Sequence[str]], labels: int) -> list[list[str]]:
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return [[cell.ljust(width) if column < labels else cell.rjust(width)
           for column, (cell, width) in enumerate(zip(row, widths, strict=True))] for row in rows]


def _cell(metric: str, values: Scores) -> str:
  return format_metric(metric, values[metric], psnr_digits=3) if metric in values else ''


def legend(protocol: Mapping[str, str], markdown: bool = False) -> str:
  """Returns the protocol with a line for each metric."""
  return '\n'.join(f'- `{name}`: {text}' if markdown else f'{name}: {text}'
                   for name, text in protocol.items())
