"""Hostile files are read or refused with one line; tests/faults/fuzz.py does more of it."""

import json
import os
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from sr_jax import restore
from sr_jax.errors import InputError
from sr_jax.images import decoders
from sr_jax.runs import metadata
from tests.faults import fuzz, readers, texts
from tests.faults.mutation import rng_of


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path,
              capfd: pytest.CaptureFixture) -> Iterator[None]:
  """Blocks downloads, captures what libraries print, and works in a temporary folder."""
  monkeypatch.setattr(readers.vgg.pooch, 'retrieve', readers.offline)
  monkeypatch.chdir(tmp_path)
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    decoders.silence_libraries()
    yield


def outcomes(kind: str, count: int, folder: pathlib.Path) -> dict[str, int]:
  """Returns how many of `count` files of a kind were read and how many were refused."""
  kind_readers, counts = readers.of_kind(kind, folder / 'base'), {'read': 0, 'refused': 0}
  for index in range(count):
    path = fuzz.make(kind, folder / str(index), 1, index)
    results = {}
    for name, reader in kind_readers.items():
      results[name], message = fuzz.outcome(reader, path, named=kind not in fuzz.UNNAMED_KINDS)
      assert results[name] != 'finding', f'{kind} {index}, {name}: {message}'
    counts['read' if 'read' in results.values() else 'refused'] += 1
  assert not list(folder.rglob('broken_in'))
  return counts


@pytest.mark.parametrize('kind', ['pictures', 'safetensors', 'pth', 'ncnn', 'jsonl', 'csv',
                                  'packed'])
def test_hostile_files(tmp_path: pathlib.Path, kind: str) -> None:
  counts = outcomes(kind, 30, tmp_path)
  assert counts['read'] >= 3, 'nearly all files are refused, so little of the readers is tested'


def test_hostile_configs(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr('sys.argv', ['main'])
  assert outcomes('configs', 30, tmp_path)['read'] >= 3


@pytest.mark.parametrize(('changes', 'message'), [
    ({'generator': None}, 'generator=None: .*dict'),
    ({'generator': {'name': 'compact', 'blocks': 10**9}},
     'blocks=1000000000: .*128'),
    ({'generator': {'name': 'srcnn', 'widths': [4] * 1000, 'kernels': [3] * 1001}},
     'kernels: 1001 .*64|widths: 1000 .*64'),
    ({'generator': {'name': 'rrdb', 'unshuffle': 10**9}}, 'unshuffle=1000000000'),
    ({'generator': {'a.b': 1}}, 'config.json'), ({'scale': '2'}, "scale='2': "),
    ({'imported': 'x'}, "imported='x'"), ({'imported': {'names': [1]}}, r'imported\.names='),
    ({'data': {'fraction': 5}}, r'data\.fraction=5: .*list'),
    ({'warmup_steps': 'y' * 10**6}, 'warmup_steps=.*: .*int')])
def test_wrong_types_in_a_runs_config_are_refused(tmp_path: pathlib.Path, changes: dict[str, Any],
                                                  message: str) -> None:
  (tmp_path / 'config.json').write_text(json.dumps(texts.config() | changes))
  with pytest.raises(InputError, match=message) as error:
    restore.load_run(tmp_path)
  assert len(str(error.value)) < 1000


@pytest.mark.parametrize('data', [b'null', b'7', b'[1]', b'{"a":' * 100_000, b'\xff\xfe{}', b''])
def test_files_that_are_not_a_config_or_start_records(tmp_path: pathlib.Path, data: bytes) -> None:
  for name in ('config.json', 'run.json'):
    (tmp_path / name).write_bytes(data)
  with pytest.raises(InputError, match=r'config\.json'):
    metadata.read_config(tmp_path)
  assert metadata.start_records(tmp_path) == []


def test_a_message_is_one_line_without_control_characters() -> None:
  assert str(InputError('a\nb\r\x1b[2Jc\u202ed\ud800e')) == 'a b [2Jc d e'
  assert str(InputError('写真　1.png')) == '写真　1.png'


@pytest.mark.slow
@pytest.mark.parametrize('kind', fuzz.KINDS)
def test_many_hostile_files_in_a_process_with_limited_memory(tmp_path: pathlib.Path,
                                                             kind: str) -> None:
  counts = fuzz.fuzz(kind, 100 if kind == 'pth' else 300, 2, tmp_path)  # bombs take longer
  assert not counts.get('findings'), os.listdir(tmp_path / kind)
  assert counts['read'] > 0.1 * counts['files']


def test_a_seed_reproduces_the_files(tmp_path: pathlib.Path) -> None:
  for kind in fuzz.KINDS[:6]:
    for index in range(2):
      first, again = (fuzz.make(kind, tmp_path / place, 3, index) for place in 'ab')
      assert first.read_bytes() == again.read_bytes()
  assert rng_of(0, 'pth', 1).random() != rng_of(0, 'pth', 2).random()
