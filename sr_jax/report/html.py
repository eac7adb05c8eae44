"""HTML tags of the page."""

import re
from collections.abc import Sequence
from html import escape


def _section(heading: str, content: str) -> str:
  return f'<section>\n<h2>{escape(heading)}</h2>\n{content}\n</section>' if content else ''


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = '') -> str:
  """Of escaped cells; the first of each row is its heading."""
  def row(cells, tag):
    first, *rest = cells
    return f'<tr><th>{first}</th>' + ''.join(f'<{tag}>{cell}</{tag}>' for cell in rest) + '</tr>'
  top = f'<thead>{row(head, "th")}</thead>' if head else ''
  return (f'<div class="wide"><table class="{kind}">{top}<tbody>'
          + ''.join(row(cells, 'td') for cells in rows) + '</tbody></table></div>')


def _anchor(of: str, name: str) -> str:
  return re.sub(r'\s', '_', f'{of}/{name}')


def _cell(figure: str, value) -> str:
  if value is None:
    return '∞' if figure.startswith('psnr') else ''
  return f'{value:.{2 if figure.startswith("psnr") else 4}f}'
