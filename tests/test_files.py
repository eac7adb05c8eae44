"""Files that are whole or not there."""

import json
import stat

import pytest

from sr_jax.errors import InputError
from sr_jax.system import files
from tests.conftest import largest_file


def test_a_failure_leaves_the_old_file(tmp_path):
  files.write_json(tmp_path / 'new' / 'a.json', {'x': 1})
  with pytest.raises(TypeError):
    files.write_json(tmp_path / 'new' / 'a.json', {'x': object()})

  def interrupted():
    with files.atomic_write(tmp_path / 'new' / 'a.json') as path:
      path.write_text('half')
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    interrupted()
  assert json.loads((tmp_path / 'new' / 'a.json').read_text()) == {'x': 1}
  assert [path.name for path in (tmp_path / 'new').iterdir()] == ['a.json']


def test_others_may_read_it(tmp_path):
  files.write_text(tmp_path / 'a.md', 'ä')
  assert stat.S_IMODE((tmp_path / 'a.md').stat().st_mode) == 0o644
  assert (tmp_path / 'a.md').read_bytes() == 'ä'.encode()


def test_what_can_not_be_written_is_named(tmp_path):
  (tmp_path / 'folder.json').mkdir()
  (tmp_path / 'file').write_text('')
  for path in ('folder.json', 'file/a.json'):
    with pytest.raises(InputError, match=f'{path}: can not be written'):
      files.write_json(tmp_path / path, {})
  assert sorted(path.name for path in tmp_path.iterdir()) == ['file', 'folder.json']


def test_what_is_added_is_added_whole(tmp_path):
  path = tmp_path / 'log'
  files.append(path, b'a' * 60)
  with largest_file(100), pytest.raises(OSError, match='large') as error:  # room for 40 of them
    files.append(path, b'b' * 60)
  assert error.value.filename == str(path)
  assert path.read_bytes() == b'a' * 60
  files.append(path, b'b' * 60)
  assert path.read_bytes() == b'a' * 60 + b'b' * 60


def test_what_a_kill_left_half_written_is_swept_away(tmp_path):
  (tmp_path / 'sub').mkdir()
  (tmp_path / 'sub' / 'a.png').write_text('')

  def killed():
    with files.atomic_write(tmp_path / 'sub' / 'b.png') as path:
      files.remove_leftovers(tmp_path, 'sub')
      assert not path.exists()
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    killed()
  files.remove_leftovers(tmp_path, 'sub')
  assert [path.name for path in tmp_path.rglob('*')] == ['sub', 'a.png']


def test_a_lock_is_for_one(tmp_path):
  with files.locked(tmp_path / 'lock') as file:
    file.write('me')
    file.flush()
    with pytest.raises(BlockingIOError), files.locked(tmp_path / 'lock', wait=False):
      pass
    assert (tmp_path / 'lock').read_text() == 'me'
  with files.locked(tmp_path / 'lock', wait=False):
    pass
