"""Tables of scores, for terminals and as Markdown."""

from collections.abc import Mapping

from sr_jax.metrics.scorer import Scores, exclusions
from sr_jax.metrics.scorer import means as means_of

BASELINES = ('bilinear', 'bicubic')  # in every table beside a model, by MATLAB's imresize


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
      cells = (f'{values[name]:.{_decimals(name)}f}' if name in values else '' for name in metrics)
      title = '' if index else image or 'mean'  # only in the first of its rows
      rows.append([*[title, method][:len(labels)], *cells])
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = [[cell.ljust(width) if column < len(labels) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))] for row in rows]
  excluded = exclusions(methods)
  if not markdown:
    return '\n'.join(['  '.join(line).rstrip() for line in lines] + excluded)
  rule = ['-' * width if column < len(labels) else '-' * (width - 1) + ':'
          for column, width in enumerate(widths)]
  rows = ['| ' + ' | '.join(line) + ' |' for line in (lines[0], rule, *lines[1:])]
  return '\n'.join(rows + [''] * bool(excluded) + [f'- {line}' for line in excluded])


def _decimals(metric: str) -> int:
  return 3 if metric.startswith('psnr') else 4


def legend(protocol: Mapping[str, str], markdown: bool = False) -> str:
  """Returns the protocol with a line for each metric."""
  return '\n'.join(f'- `{name}`: {text}' if markdown else f'{name}: {text}'
                   for name, text in protocol.items())
