"""Files are written completely or not at all."""

import json
import pathlib
import stat
import subprocess
import sys

import pytest

from sr_jax.errors import InputError
from sr_jax.system import files
from tests.conftest import largest_file


def test_a_failure_keeps_the_old_file(tmp_path: pathlib.Path) -> None:
  files.write_json(tmp_path / 'new' / 'a.json', {'x': 1})
  with pytest.raises(TypeError):
    files.write_json(tmp_path / 'new' / 'a.json', {'x': object()})

  def interrupted() -> None:
    with files.atomic_write(tmp_path / 'new' / 'a.json') as path:
      path.write_text('half')
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    interrupted()
  assert json.loads((tmp_path / 'new' / 'a.json').read_text()) == {'x': 1}
  assert [path.name for path in (tmp_path / 'new').iterdir()] == ['a.json']


def test_a_written_file_is_utf8_and_readable_by_everybody(tmp_path: pathlib.Path) -> None:
  files.write_text(tmp_path / 'a.md', 'ä')
  assert stat.S_IMODE((tmp_path / 'a.md').stat().st_mode) == 0o644
  assert (tmp_path / 'a.md').read_bytes() == 'ä'.encode()


def test_a_path_that_cannot_be_written_is_named(tmp_path: pathlib.Path) -> None:
  (tmp_path / 'folder.json').mkdir()
  (tmp_path / 'file').write_text('')
  for path, reason in (('folder.json', 'Is a directory'), ('file/a.json', 'File exists')):
    with pytest.raises(InputError, match=rf'{path}: .*\({reason}\)$'):
      files.write_json(tmp_path / path, {})
  assert sorted(path.name for path in tmp_path.iterdir()) == ['file', 'folder.json']


def test_append_writes_everything_or_nothing(tmp_path: pathlib.Path) -> None:
  path = tmp_path / 'log'
  files.append(path, b'a' * 60)
  with largest_file(100), pytest.raises(OSError, match='large') as error:  # 40 of the 60 bytes fit
    files.append(path, b'b' * 60)
  assert error.value.filename == str(path)
  assert path.read_bytes() == b'a' * 60
  files.append(path, b'b' * 60)
  assert path.read_bytes() == b'a' * 60 + b'b' * 60


def test_only_temporary_files_of_dead_processes_are_removed(tmp_path: pathlib.Path) -> None:
  """A file that is being written is locked; a killed process leaves one that is not."""
  (tmp_path / 'sub').mkdir()
  (tmp_path / 'sub' / 'a.png').write_text('')
  with files.atomic_write(tmp_path / 'sub' / 'b.png') as path:
    (tmp_path / f'{files.UNFINISHED}x.png').write_text('half')
    (tmp_path / 'sub' / f'{files.UNFINISHED}y.png').write_text('half')
    files.remove_leftovers(tmp_path, 'sub')
    assert sorted(left.name for left in tmp_path.rglob('*')) == sorted([path.name, 'a.png', 'sub'])
  assert sorted(left.name for left in tmp_path.rglob('*')) == ['a.png', 'b.png', 'sub']


@pytest.mark.slow
def test_a_killed_process_leaves_no_lock(tmp_path: pathlib.Path) -> None:
  script = ('import os, sys; from sr_jax.system import files\n'
            'with files.atomic_write(sys.argv[1]): os.kill(os.getpid(), 9)')
  subprocess.run([sys.executable, '-c', script, str(tmp_path / 'a.png')], check=False)
  assert len(list(tmp_path.iterdir())) == 1
  files.remove_leftovers(tmp_path)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', ['a' * 251 + '.png', 'a.' + 'b' * 253, 'ä' * 125 + '.webp'])
def test_names_may_have_255_bytes(tmp_path: pathlib.Path, name: str) -> None:
  files.write_text(tmp_path / name, 'x')
  hidden = files.hidden_beside(tmp_path / name, '.parts')
  hidden.mkdir()
  assert hidden.name.startswith('.')
  assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, hidden.name])
  assert files.hidden_beside(tmp_path / 'a.mp4', '.parts').name == '.a.mp4.parts'


def test_a_lock_has_one_holder(tmp_path: pathlib.Path) -> None:
  with files.locked(tmp_path / 'lock') as file:
    file.write('me')
    file.flush()
    with pytest.raises(BlockingIOError), files.locked(tmp_path / 'lock', wait=False):
      pass
    assert (tmp_path / 'lock').read_text() == 'me'
  with files.locked(tmp_path / 'lock', wait=False):
    pass
