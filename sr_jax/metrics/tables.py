"""Tables of scores, for terminals and as Markdown."""

from sr_jax.metrics.scorer import mean


def table(methods: dict[str, dict[str, dict]], markdown: bool = False) -> str:
  """A row for each picture and method, then the means.

  Args:
    methods: {'bicubic': {picture: {'psnr_y': ...}}, 'model': {...}}, of the same pictures.
    markdown: pipes, as GitHub reads them, instead of spaces alone.
  """
  means = {method: mean(scores) for method, scores in methods.items()}
  names = list(dict.fromkeys(name for figures in means.values() for name in figures))
  rows = [['picture', *(['method'] if len(methods) > 1 else []), *names]]
  for picture in [*next(iter(methods.values())), None]:
    for place, (method, scores) in enumerate(methods.items()):
      figures = means[method] if picture is None else scores[picture]
      cells = (f'{figures[name]:.{_digits(name)}f}' if name in figures else '' for name in names)
      word = '' if place else picture or 'mean'  # once for all its methods
      rows.append([word, *([method] if len(methods) > 1 else []), *cells])
  words = len(rows[0]) - len(names)
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = [[cell.ljust(width) if column < words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))] for row in rows]
  if not markdown:
    return '\n'.join('  '.join(line).rstrip() for line in lines)
  rule = ['-' * width if column < words else '-' * (width - 1) + ':'
          for column, width in enumerate(widths)]
  return '\n'.join('| ' + ' | '.join(line) + ' |' for line in (lines[0], rule, *lines[1:]))


def _digits(name: str) -> int:
  return 3 if name.startswith('psnr') else 4


def legend(meanings: dict[str, str], markdown: bool = False) -> str:
  """The protocol, a line for each figure."""
  return '\n'.join(f'- `{name}`: {text}' if markdown else f'{name}: {text}'
                   for name, text in meanings.items())
