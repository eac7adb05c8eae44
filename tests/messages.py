"""The listing of all sentences that a user may see: tests/golden/messages.txt.

  python -m tests.messages           prints the listing
  python -m tests.messages --write   writes it, after a change of wording

It holds every text of two words or more in sr_jax/ in the order of the source; what is put into a
text at run time stands in braces. Other tests assert the key, the file and the number of a message,
so a change of wording changes the source and this listing alone.
"""

import argparse
import ast
import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent
LISTING = ROOT / 'tests' / 'golden' / 'messages.txt'
SENTENCE = re.compile(r'[A-Za-z]{2,}[,.;:)]* \(?[A-Za-z]{2,}')
CODE = re.compile(r'[{;]\s*\n|\\[sdwb(]|\(\?|^[\w ]+:[\w -]+;')  # CSS and patterns
TAG = re.compile(r'</?[a-z][^>]*>')  # HTML


def texts_of(source: str) -> list[str]:
  """Returns the sentences in the strings of a module, without its docstrings."""
  tree = ast.parse(source)
  inside = set()
  for node in ast.walk(tree):
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and node.body:
      first = node.body[0]
      if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        inside.add(id(first.value))
    if isinstance(node, ast.JoinedStr):
      inside |= {id(part) for part in node.values if isinstance(part, ast.Constant)}
      inside |= {id(part.format_spec) for part in node.values
                 if isinstance(part, ast.FormattedValue) and part.format_spec}
  found = []
  for node in ast.walk(tree):
    if id(node) in inside:
      continue
    if isinstance(node, ast.JoinedStr):
      text = ''.join(part.value if isinstance(part, ast.Constant)
                     else '{' + ast.unparse(part.value) + '}' for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
      text = node.value
    else:
      continue
    text = TAG.sub(' ', text)
    if SENTENCE.search(re.sub(r'\{[^{}]*\}', 'xx', text)) and not CODE.search(text):
      found.append((node.lineno, node.col_offset, ' '.join(text.split())))
  return [text for *_, text in sorted(found)]


def listing() -> str:
  """Returns the listing of all modules."""
  parts = []
  for path in sorted((ROOT / 'sr_jax').rglob('*.py')):
    texts = texts_of(path.read_text(encoding='utf-8'))
    if texts:
      parts.append('\n'.join([f'# {path.relative_to(ROOT).as_posix()}', *texts]))
  return '\n\n'.join(parts) + '\n'


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--write', action='store_true', help=f'write {LISTING.relative_to(ROOT)}')
  if parser.parse_args().write:
    LISTING.write_text(listing(), encoding='utf-8')
  else:
    print(listing(), end='')


if __name__ == '__main__':
  main()
