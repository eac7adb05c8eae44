"""README.md and docs: what they name exists, and every command and Python block of theirs runs.

tests/docs_pages.py has the conventions of the pages. Trainings are made small by
tests/docs_small.py. `pytest -rs` lists the blocks that are not run, with their reasons.
"""

import contextlib
import fcntl
import importlib
import os
import re
import signal

import pytest

from sr_jax import __main__ as commands
from sr_jax.experiment.keys import KEYS
from tests import docs_folder, docs_pages, docs_small
from tests.docs_folder import PageError, run_page
from tests.docs_pages import LANGUAGES, ROOT, name, pages, read_blocks

PAGES = pages()
BLOCKS = [block for page in PAGES for block in read_blocks(page)]
COMMANDS = [command for block in BLOCKS if block.language == 'bash'
            for command in docs_pages.commands(block)]
SPANS = [span for page in PAGES for span in docs_pages.code_spans(page)]
ACTIONS = {'weights': ('info', 'import', 'export', 'interpolate'), 'report': ('compare',)}
PROGRAM = re.compile(r'(?:sr-jax|python3? -m sr_jax((?:\.\w+)*))(?=\s|$)')


# ---- what the pages name -----------------------------------------------------------------------


def test_blocks_have_a_language():
  assert [block.where for block in BLOCKS if block.language not in LANGUAGES] == []


def test_readme_is_short_and_links_to_every_page():
  text = (ROOT / 'README.md').read_text('utf-8')
  assert len(text.splitlines()) <= 200
  targets = {target.partition('#')[0] for _, target in docs_pages.links(ROOT / 'README.md')}
  assert {name(page) for page in PAGES[1:]} <= targets


def test_links_and_images_exist():
  broken = []
  for page in PAGES:
    for where, target in docs_pages.links(page):
      if re.match(r'[a-z]+:', target):
        continue
      file, _, anchor = target.partition('#')
      path = page.parent / file if file else page
      if not path.exists() or (anchor and anchor not in docs_pages.anchors(path)):
        broken.append(f'{where}: {target}')
  assert not broken, '\n'.join(broken)


def test_paths_of_the_repository_exist():
  missing = [f'{where}: {path}' for where, span in SPANS
             for path in re.findall(r'(?:sr_jax|configs|launch|tests|docs)/[\w./-]*', span)
             if re.match(r'[a-z]', span) and not (ROOT / path).exists()]
  assert not missing, '\n'.join(missing)


def test_names_of_sr_jax_exist():
  missing = []
  for where, text in SPANS + [(f'{block.where}', block.text) for block in BLOCKS
                              if block.language == 'python']:
    for dotted in re.findall(r'(?<![\w./-])sr_jax((?:\.[A-Za-z_]\w*)+)(?!\w|\.py)', text):
      if not _exists(dotted[1:].split('.')):
        missing.append(f'{where}: sr_jax{dotted}')
  assert not missing, '\n'.join(missing)


def _exists(parts: list[str]) -> bool:
  found = importlib.import_module('sr_jax')
  for number, part in enumerate(parts):
    try:
      found = getattr(found, part)
    except AttributeError:
      if not hasattr(found, '__path__'):
        # An attribute of an instance, or of a class that states it in an annotation alone.
        return isinstance(found, type) and part in getattr(found, '__annotations__', {})
      try:
        found = importlib.import_module('.'.join(['sr_jax', *parts[:number + 1]]))
      except ImportError:
        return False
  return True


def test_config_keys_exist():
  unknown = []
  for where, text in SPANS + COMMANDS:
    for key in re.findall(r'(?<![\w./])(?:--(?:no)?)?config\.([a-z_]\w*(?:\.\w+)*)', text):
      own = re.match(r'(loss|eval)\.extra\.|(generator|discriminator)\.\w+$', key)
      section = any(known.startswith(f'{key}.') for known in KEYS)
      if not (key in KEYS or section or own or key in ('json', 'py', 'update')):
        unknown.append(f'{where}: config.{key}')
  assert not unknown, '\n'.join(unknown)


def test_flags_exist(capsys):
  unknown, known = [], {}
  for where, text in COMMANDS + SPANS:
    match = PROGRAM.match(text)
    if not match:
      continue
    words = [(match[1] or '').removeprefix('.'), *text[match.end():].split()]
    command = tuple(word for word in words[:3] if re.fullmatch('[a-z]+', word))
    if command not in known:
      known[command] = _flags_in_help(command, capsys)
    unknown += [f'{where}: {flag}' for flag in re.findall(r'(?<=\s)--([a-z][\w-]*)', text)
                if flag.removeprefix('no') not in known[command]]
  assert not unknown, '\n'.join(unknown)


def _flags_in_help(command, capsys):
  """Returns the flags that the help of a command names, given as ('weights', 'info')."""
  program, *actions = command or ('help',)
  program = 'train' if program == 'main' else program
  actions = [action for action in actions if action in ACTIONS.get(program, ())]
  capsys.readouterr()
  with contextlib.suppress(SystemExit):
    commands.run([program, *actions, '--help'])
  return {*re.findall(r'--(?:\[no\])?([a-z][\w-]*)', capsys.readouterr().out), 'config', 'help'}


# ---- what the pages run ------------------------------------------------------------------------


@pytest.fixture(scope='session')
def server(tmp_path_factory):
  server = docs_folder.start_server(tmp_path_factory.mktemp('bin'))
  yield server
  os.killpg(server.process.pid, signal.SIGTERM)
  server.process.wait()


@pytest.fixture(scope='session')
def inputs(server, tmp_path_factory):
  """The prepared inputs, made by the first of the processes of pytest-xdist that needs them."""
  shared = tmp_path_factory.getbasetemp()
  if 'PYTEST_XDIST_WORKER' in os.environ:
    shared = shared.parent
  with open(shared / 'pages.lock', 'w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not (shared / 'pages').exists():
      (shared / 'unfinished').mkdir()
      docs_folder.prepare(shared / 'unfinished', server)
      (shared / 'unfinished').rename(shared / 'pages')
  return shared / 'pages'


@pytest.fixture
def folder(inputs, tmp_path):
  docs_folder.copy_inputs(inputs, tmp_path / 'page')
  return tmp_path / 'page'


@pytest.mark.slow
@pytest.mark.parametrize('page', PAGES, ids=name)
def test_commands_and_code_run(page, folder, server):
  run_page(page, folder, server)


@pytest.mark.slow
@pytest.mark.parametrize('block', [block for block in BLOCKS if block.not_run],
                         ids=lambda block: block.where)
def test_blocks_that_are_not_run(block):
  assert block.language in ('bash', 'python')
  pytest.skip(f'{block.where}: {block.not_run}')


# ---- the runner itself -------------------------------------------------------------------------

EXAMPLE = '''
# An example

<!-- file: my.py -->
```python
VALUE = 41
```

Some words, and

```bash
for name in a b; do
  python -c "import my; print(my.VALUE)" > $name.txt   # a comment
done
test "$(cat a.txt b.txt | wc -l)" = 2 && sr-jax resize photo.jpg \\
    small.png --scale 1/2
```

```python
import my
value = my.VALUE
```

<!-- not run: needs
     a GPU -->
```bash
false
```

1. A list:

   ```python
   value += 1
   assert value == 42
   ```
'''


def write_page(tmp_path, text):
  page = tmp_path / 'page.md'
  page.write_text(text)
  return page


def test_blocks_of_a_page_are_read_with_their_comments(tmp_path):
  page = write_page(tmp_path, EXAMPLE)
  blocks = read_blocks(page)
  assert [(block.line, block.language, block.file, block.not_run) for block in blocks] == [
      (6, 'python', 'my.py', ''), (12, 'bash', '', ''), (20, 'python', '', ''),
      (27, 'bash', '', 'needs a GPU'), (33, 'python', '', '')]
  assert blocks[-1].text == 'value += 1\nassert value == 42\n'
  assert docs_pages.commands(blocks[1])[-1] == (
      'page.md:15', 'sr-jax resize photo.jpg small.png --scale 1/2')
  for text in ('```text\nx\n', '<!-- not run: x -->\nwords\n'):
    with pytest.raises(ValueError, match=r'page\.md:'):
      read_blocks(write_page(tmp_path, text))


@pytest.mark.slow
def test_a_page_runs_in_order_in_one_folder(tmp_path, folder, server):
  run_page(write_page(tmp_path, EXAMPLE), folder, server)
  assert (folder / 'small.png').exists()


@pytest.mark.slow
@pytest.mark.parametrize(('text', 'message'), [
    ('```bash\ntrue\n\nls a \\\n  b\n```\n', r'page\.md:[45]: exit status 2: ls a b'),
    ('```bash\nsr-jax upscale photo.jpg --outputs x\n```\n', r'page\.md:2: .*upscale.*'),
    ('```bash\nsr-jax upscale photo.jpg --outputs x\n```\n', r'--outputs: unknown flag'),
    ('```python\nx = 1\n\nassert x == 2\n```\n', r'^page\.md:4: '),
    ('```python\nx = = 1\n```\n', r'^page\.md:2: '),
    ('```bash\nfor x in 1 2; do\n  sr-jax train --config srgan:nope\ndone\n```\n',
     r'page\.md:3: .*train'),
])
def test_a_failing_block_is_named_by_page_and_line(tmp_path, folder, server, text, message):
  with pytest.raises(PageError, match=message):
    run_page(write_page(tmp_path, text), folder, server)


def test_a_smaller_experiment_is_still_the_one_that_was_asked_for(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  arguments = docs_small.shrink('sr_jax', [
      'train', '--config', 'srgan:x2', '--config.batch_size=32', '--config.log_every', '7'])
  assert arguments[:2] == ['train', '--config=srgan:x2']
  assert {'--config.log_every=7', '--config.batch_size=4', '--config.hr_patch=32'} <= set(arguments)
  assert len(set(arguments)) == len(arguments)
  assert docs_small.shrink('sr_jax', ['upscale', 'a.png']) == ['upscale', 'a.png']
