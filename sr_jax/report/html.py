"""Builds the HTML elements of the report."""

import re
from collections.abc import Sequence
from html import escape, unescape

from sr_jax.system.text import format_metric


def section(heading: str, content: str) -> str:
  """Returns a <section> with a heading and an id, or '' if there is no content."""
  if not content:
    return ''
  return (f'<section id="{_section_id(heading)}">\n<h2>{escape(heading)}</h2>\n{content}\n'
          '</section>')


def contents(sections: Sequence[str]) -> str:
  """Returns the table of contents of `section` elements."""
  headings = [unescape(re.search('<h2>(.*?)</h2>', text)[1]) for text in sections]
  return '<nav>' + ' '.join(f'<a href="#{_section_id(heading)}">{escape(heading)}</a>'
                            for heading in headings) + '</nav>'


def _section_id(heading: str) -> str:
  return 'section-' + re.sub(r'\W+', '-', heading).lower()


def table(head: Sequence[str], rows: Sequence[Sequence[str]], css_class: str = '') -> str:
  """Returns a <table>; the first cell of each row is the row's heading.

  Args:
    head: cells of the first line; an empty list makes a table without it.
    rows: cells as HTML, which the caller has escaped. The same holds for `head`.
  """
  def row(cells: Sequence[str], tag: str) -> str:
    first, *rest = cells
    return f'<tr><th>{first}</th>' + ''.join(f'<{tag}>{cell}</{tag}>' for cell in rest) + '</tr>'
  top = f'<thead>{row(head, "th")}</thead>' if head else ''
  return (f'<div class="wide"><table class="{css_class}">{top}<tbody>'
          + ''.join(row(cells, 'td') for cells in rows) + '</tbody></table></div>')


def anchor(group: str, name: str) -> str:
  """Returns the id of the element that shows an image of a group."""
  return re.sub(r'\s', '_', f'{group}/{name}')


def score_text(metric: str, value: float | None) -> str:
  """Returns a score with the digits that are usual for its metric.

  None is how JSON files store a non-finite score; for PSNR that is infinity.
  """
  if value is None:
    return '∞' if metric.startswith('psnr') else ''
  return format_metric(metric, value, psnr_digits=2)
