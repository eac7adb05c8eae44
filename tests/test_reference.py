"""The reference of config keys: docs/config.md and --helpkeys."""

import json
import re
import subprocess
import sys

import pytest

from sr_jax import main
from sr_jax.errors import InputError
from sr_jax.experiment import reference, reference_page
from sr_jax.experiment.keys import GROUPS, KEYS
from tests.docs_pages import ROOT


def test_the_page_is_current():
  page = (ROOT / 'docs' / 'config.md').read_text('utf-8')
  assert page == reference_page.page(), (
      'run: python -m sr_jax.experiment.reference_page > docs/config.md')


def test_the_page_has_every_key_once_and_fits():
  page = reference_page.page()
  shown = re.findall(r'^- \*\*`(\S+)`\*\*(?: \(also (.*?)\):)?', page.replace('\n  ', ' '),
                     re.MULTILINE)
  names = [name for name, _ in shown] + [
      f'{section}.{name.rpartition(".")[2]}' for name, also in shown
      for section in re.findall('`(.*?)`', also)]
  every = [key.name for keys in GROUPS.values() for key in keys]
  assert sorted(names) == sorted(every)
  assert set(KEYS) <= set(names)
  assert max(len(line) for line in page.splitlines() if not line.startswith('|')) <= 110
  assert set(reference_page.INTRODUCTIONS) <= set(GROUPS)
  for default in ('`div2k:data/DIV2K`', "`'div2k:data/DIV2K'`"):
    assert (default in page) == default.startswith("`'")


def test_the_table_has_the_defaults_of_the_networks():
  rows = {cells[0]: cells for line in reference_page.page().splitlines() if line.startswith('|')
          if (cells := line.strip('| ').split(' | '))}
  networks = rows['`generator.`']
  assert rows['`blocks`'][networks.index('`rrdb`')] == '`23`'
  assert rows['`skip`'][networks.index('`msrresnet`')] == '`bilinear`'
  assert {f'generator.{name.strip("`")}' for name in rows if name.strip('`-') and '.' not in name
          } | {'generator.name', 'generator.init'} == {
              name for name in KEYS if name.startswith('generator.')}


def names_of(text):
  return re.findall(r'^  ([\w.]+)(?: \(also|:)', text, re.MULTILINE)


def test_helpkeys_lists_all_keys():
  text = reference.helpkeys([])
  entries = [entry for keys in GROUPS.values() for entry in reference.entries(keys)]
  also = {f'{section}.{entry.key.name.rpartition(".")[2]}' for entry in entries
          for section in entry.also}
  assert {'optimizer.d.beta1', 'data.degrade.blur2.sigma'} <= also
  assert set(KEYS) - also <= set(names_of(text))
  assert max(map(len, text.splitlines())) <= 100
  for title in GROUPS:
    assert f'\n{title}\n' in f'\n{text}'


@pytest.mark.parametrize(('words', 'expected'), [
    (['--config.batch_size'],
     {'batch_size', 'data.variants', 'phases.steps', 'phases.batch_size'}),
    (['Learning', 'FINAL'], {'optimizer.g.final'}),
    (['cosine', 'optimizer.d'], {'optimizer.d.schedule', 'optimizer.d.final'}),  # a choice
    (['extra', 'name.fn'], {'loss.extra.NAME.fn', 'eval.extra.NAME.fn'})])
def test_helpkeys_finds_keys_by_words(words, expected):
  found = set(names_of(reference.helpkeys(words)))
  assert found <= expected
  assert found & expected


@pytest.mark.parametrize(('words', 'named'), [
    (['wieght'], 'loss.pixel.weight'), (['batchsize'], 'batch_size'), (['zzzz'], 'lists all'),
    (['seed', 'wandb'], 'seed wandb')])
def test_helpkeys_without_a_match_names_similar_keys(words, named):
  with pytest.raises(InputError) as caught:
    reference.helpkeys(words)
  assert named in str(caught.value)


@pytest.mark.parametrize(('arguments', 'status', 'named'), [
    (['--helpkeys', 'ema'], 0, '0.999'), (['--helpkeys=learning', 'rate'], 0, 'g.learning_rate'),
    (['--helpkeys', 'wieght'], 1, 'weight'), (['--config', 'srgan', '--helpkeys'], 1, '--config'),
    (['--helpkeys', 'ema', '--steps=3'], 1, '--steps=3'), (['--helpkey'], 1, '--helpkeys')])
def test_the_command_line(capsys, arguments, status, named):
  assert main.main(['sr-jax train', *arguments], 'train') == status
  output = capsys.readouterr()
  assert named in (output.err if status else output.out)
  assert status == 0 or output.err.count('\n') == 1


def test_helpkeys_answers_without_jax():
  code = ("import json, sys, time; start = time.process_time(); from sr_jax import __main__; "
          "status = __main__.run(['train', '--helpkeys', 'learning']); "
          "print(json.dumps([status, 'jax' in sys.modules, time.process_time() - start]))")
  status, imported, seconds = min(
      (json.loads(subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True,
                                 check=True).stdout.splitlines()[-1]) for _ in range(2)),
      key=lambda result: result[2])
  assert (status, imported) == (0, False)
  assert seconds < 1  # 0.1 s idle
