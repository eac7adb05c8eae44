"""Reads the pages of the documentation: README.md and docs/*.md.

Pages keep these conventions, so that tests/test_docs.py can run them:

  ```bash      only commands; the commands of a page run in order in one folder
  ```python    code that runs in order in one namespace per page
  ```text      output, listings of files and everything else that is not run, as json or html
  <!-- file: my.py -->        the next block is the content of this file
  <!-- not run: REASON -->    the next block needs what a test cannot have
"""

import pathlib
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parent.parent
LANGUAGES = ('bash', 'python', 'text', 'json', 'html', 'csv', 'yaml', 'toml', 'bibtex')
FENCE = re.compile(r'( *)(```+|~~~+)(.*)')
COMMENT = re.compile(r'<!--\s*(file|not run)\s*:\s*(.*?)\s*-->', re.DOTALL)
CODE_SPAN = re.compile(r'(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)', re.DOTALL)
LINK = re.compile(r'\]\(\s*<?([^)\s>]+)>?(?:\s+"[^"]*")?\s*\)|(?:src|href)="([^"]+)"'
                  r'|^\[[^\]]+\]:\s*(\S+)', re.MULTILINE)


class Block(NamedTuple):
  """A fenced block of a page.

  Attributes:
    line: the number of its first line of content, from 1.
    file: the file that the block is the content of, or ''.
    not_run: the reason why a test does not run it, or ''.
  """

  page: pathlib.Path
  line: int
  language: str
  text: str
  file: str = ''
  not_run: str = ''

  @property
  def where(self) -> str:
    """Returns 'docs/training.md:12'."""
    return f'{name(self.page)}:{self.line}'


def pages() -> list[pathlib.Path]:
  """Returns README.md and the pages of docs."""
  return [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]


def name(page: pathlib.Path) -> str:
  """Returns a page's path below the repository, or its file name if it lies elsewhere."""
  return page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name


def read_blocks(page: pathlib.Path) -> list[Block]:
  """Returns the fenced blocks of a page.

  Raises:
    ValueError: a block has no end, or a comment has no block after it.
  """
  blocks, notes, lines = [], {}, enumerate(page.read_text('utf-8').splitlines(), 1)
  for number, line in lines:
    fence = FENCE.fullmatch(line)
    if fence:
      text = '\n'.join(_until_fence(lines, fence[1], fence[2], f'{name(page)}:{number}'))
      blocks.append(Block(page, number + 1, fence[3].strip(), text + '\n',
                          notes.get('file', ''), notes.get('not run', '')))
      notes = {}
    elif line.lstrip().startswith('<!--'):
      while '-->' not in line:
        line += ' ' + next(lines)[1].strip()
      notes |= {kind: ' '.join(text.split()) for kind, text in COMMENT.findall(line)}
    elif line.strip() and notes:
      raise ValueError(f'{name(page)}:{number}: expected a block after the comment {notes}')
  return blocks


def _until_fence(lines: Iterator[tuple[int, str]], indent: str, fence: str, where: str
                 ) -> Iterator[str]:
  for _, line in lines:
    if re.fullmatch(rf'\s*{fence[0]}{{{len(fence)},}}\s*', line):
      return
    yield line.removeprefix(indent)
  raise ValueError(f'{where}: the block has no end')


def prose(page: pathlib.Path) -> str:
  """Returns the text of a page without its fenced blocks; line numbers stay the same."""
  lines, inside = [], ''
  for line in page.read_text('utf-8').splitlines():
    fence = FENCE.fullmatch(line)
    if fence and not inside:
      inside, line = fence[2], ''
    elif inside:
      inside = '' if re.fullmatch(rf'\s*{inside[0]}{{{len(inside)},}}\s*', line) else inside
      line = ''
    lines.append(line)
  return '\n'.join(lines)


def code_spans(page: pathlib.Path) -> list[tuple[str, str]]:
  """Returns ('docs/training.md:12', text) for everything in `backticks`."""
  text = prose(page)
  return [(f'{name(page)}:{text.count(chr(10), 0, match.start()) + 1}',
           ' '.join(match[2].split())) for match in CODE_SPAN.finditer(text)]


def links(page: pathlib.Path) -> list[tuple[str, str]]:
  """Returns ('docs/training.md:12', target) for every link and image."""
  text = CODE_SPAN.sub(lambda match: re.sub(r'[^\n]', ' ', match[0]), prose(page))
  return [(f'{name(page)}:{text.count(chr(10), 0, match.start()) + 1}',
           next(filter(None, match.groups()))) for match in LINK.finditer(text)]


def anchors(page: pathlib.Path) -> set[str]:
  """Returns the anchors that GitHub gives to the headings of a page."""
  found, seen = set(), Counter()
  for heading in re.findall(r'^#{1,6} +(.+?)(?: +#+)?$', prose(page), re.MULTILINE):
    text = re.sub(r'!?\[([^\]]*)\]\([^)]*\)', r'\1', heading).strip().lower()
    slug = re.sub(r'[^\w\- ]', '', text).replace(' ', '-')
    found.add(f'{slug}-{seen[slug]}' if seen[slug] else slug)
    seen[slug] += 1
  return found | set(re.findall(r'<a (?:name|id)="([^"]+)"', prose(page)))


def commands(block: Block) -> list[tuple[str, str]]:
  """Returns ('docs/training.md:12', command) for each command line of a bash block.

  Continued lines are joined; comments, and what a shell keyword such as `do` comes before, are
  left out. This is for checks of what a command says; bash itself runs the block.
  """
  found, part, start = [], '', 0
  for number, line in enumerate(block.text.splitlines(), block.line):
    line = re.sub(r'(^|\s)#.*', '', line).strip()
    start = start if part else number
    part = f'{part} {line.removesuffix(chr(92))}'.strip()
    if part and not line.endswith('\\'):
      for command in re.split(r'\s*(?:;|&&|\|\||\|)\s*', part):
        command = re.sub(r'^(?:do|then|else)\s+', '', command)
        found += [(f'{name(block.page)}:{start}', command)] if command else []
      part = ''
  return found
