"""Files that are whole or not there."""

import json
import stat

import pytest

from sr_jax import files
from sr_jax.errors import InputError


def test_a_failure_leaves_the_old_file(tmp_path):
  files.write_json(tmp_path / 'new' / 'a.json', {'x': 1})
  with pytest.raises(TypeError):
    files.write_json(tmp_path / 'new' / 'a.json', {'x': object()})

  def interrupted():
    with files.replacing(tmp_path / 'new' / 'a.json') as path:
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
