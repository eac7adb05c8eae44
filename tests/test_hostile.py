"""Hostile files: whatever they hold, a value or one line (tests/faults/fuzz.py, in small)."""

import json
import os
import warnings

import pytest

from sr_jax import restore
from sr_jax.errors import InputError
from sr_jax.media import decoders
from sr_jax.runs import metadata
from tests.faults import fuzz, readers, texts
from tests.faults.mutation import rng_of


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path, capfd):
  """Nothing is fetched; what libraries print goes nowhere; no file of this folder is made."""
  monkeypatch.setattr(readers.vgg.pooch, 'retrieve', readers.offline)
  monkeypatch.chdir(tmp_path)
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    decoders.quiet()
    yield


def outcomes(kind, count, folder):
  """What becomes of so many files of a kind: {'read', 'refused'}, each a number."""
  found, times = readers.of_kind(kind, folder / 'base'), {'read': 0, 'refused': 0}
  for index in range(count):
    path = fuzz.make(kind, folder / str(index), 1, index)
    results = {}
    for name, reader in found.items():
      results[name], words = fuzz.outcome(reader, path, named=kind not in ('configs', 'packed'))
      assert results[name] != 'finding', f'{kind} {index}, {name}: {words}'
    times['read' if 'read' in results.values() else 'refused'] += 1
  assert not list(folder.rglob('broken_in'))
  return times


@pytest.mark.parametrize('kind', ['pictures', 'safetensors', 'pth', 'ncnn', 'jsonl', 'csv',
                                  'packed'])
def test_hostile_files(tmp_path, kind):
  times = outcomes(kind, 40, tmp_path)
  assert times['read'] >= 4, 'the files are refused at the door, which tests little'


def test_hostile_configs(tmp_path, monkeypatch):
  monkeypatch.setattr('sys.argv', ['main'])
  assert outcomes('configs', 40, tmp_path)['read'] >= 4


@pytest.mark.parametrize(('changes', 'message'), [
    ({'generator': None}, 'generator=None: expected dict'),
    ({'generator': {'name': 'compact', 'blocks': 10**9}},
     'blocks=1000000000: expected at most 128'),
    ({'generator': {'name': 'srcnn', 'widths': [4] * 1000, 'kernels': [3] * 1001}},
     'expected at most 64'),
    ({'generator': {'name': 'rrdb', 'unshuffle': 10**9}}, 'unshuffle=1000000000'),
    ({'generator': {'a.b': 1}}, 'no readable config.json'), ({'scale': '2'}, "scale='2': expected"),
    ({'imported': 'x'}, "imported='x'"), ({'imported': {'names': [1]}}, r'imported\.names='),
    ({'data': {'fraction': 5}}, r'data\.fraction=5: expected list'),
    ({'warmup_steps': 'y' * 10**6}, 'warmup_steps=.*: expected int')])
def test_a_runs_config_of_other_kinds(tmp_path, changes, message):
  (tmp_path / 'config.json').write_text(json.dumps(texts.config() | changes))
  with pytest.raises(InputError, match=message) as error:
    restore.load_run(tmp_path)
  assert len(str(error.value)) < 1000


@pytest.mark.parametrize('data', [b'null', b'7', b'[1]', b'{"a":' * 100_000, b'\xff\xfe{}', b''])
def test_what_is_no_config_and_what_no_start(tmp_path, data):
  for name in ('config.json', 'run.json'):
    (tmp_path / name).write_bytes(data)
  with pytest.raises(InputError, match='no run there'):
    metadata.read_config(tmp_path)
  assert metadata.start_records(tmp_path) == []


def test_a_message_is_one_line_and_commands_no_terminal():
  assert str(InputError('a\nb\r\x1b[2Jc\u202ed\ud800e')) == 'a b [2Jc d e'
  assert str(InputError('写真　1.png')) == '写真　1.png'


@pytest.mark.slow
@pytest.mark.parametrize('kind', fuzz.KINDS)
def test_many_hostile_files_in_a_process_with_a_limit(tmp_path, kind):
  figures = fuzz.fuzz(kind, 100 if kind == 'pth' else 300, 2, tmp_path)  # bombs take longer
  assert not figures.get('findings'), os.listdir(tmp_path / kind)
  assert figures['read'] > 0.1 * figures['files']


def test_a_seed_makes_the_same_files_again(tmp_path):
  for kind in fuzz.KINDS[:6]:
    for index in range(2):
      first, again = (fuzz.make(kind, tmp_path / place, 3, index) for place in 'ab')
      assert first.read_bytes() == again.read_bytes()
  assert rng_of(0, 'pth', 1).random() != rng_of(0, 'pth', 2).random()
