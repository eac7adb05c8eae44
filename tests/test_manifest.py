"""The manifest of a folder: whatever becomes of a byte of it is found."""

import os

import pytest

from sr_jax.runs import manifest


@pytest.fixture
def made(tmp_path):
  for name, content in (('a', b'some bytes'), ('deep/er/b', b'others\n'), ('empty', b'')):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(content)
  manifest.write(tmp_path)
  return tmp_path


def test_what_was_written_has_no_fault(made):
  assert manifest.faults(made) == []
  manifest.write(made)  # once more says the same, and of itself nothing
  assert manifest.faults(made) == []
  assert (made / manifest.NAME).stat().st_mode & 0o777 == 0o644


def test_every_byte_counts(made):
  for file in (path for path in made.rglob('*') if path.is_file()):
    whole = file.read_bytes()
    name = str(file.relative_to(made))
    for at in range(len(whole)):
      # 0x20 makes an a an A, which hexadecimal would not tell apart.
      file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1:])
      assert manifest.faults(made) == [
          f'{name} is damaged' if name == manifest.NAME else f'{name} is not what was written']
    for size in range(0, len(whole), 5):
      file.write_bytes(whole[:size])
      assert len(manifest.faults(made)) == 1
    file.write_bytes(whole + b'x')
    assert len(manifest.faults(made)) == 1
    file.write_bytes(whole)
  assert manifest.faults(made) == []


def test_faults_in_words(made):
  (made / 'a').write_bytes(b'some')
  (made / 'empty').unlink()
  (made / 'empty').mkdir()
  (made / 'deep' / 'more').touch()
  (made / 'deep' / 'link').symlink_to('nowhere')
  assert manifest.faults(made) == [
      'a is cut off (4 bytes of 10)', 'empty is missing', 'deep/link is one too many',
      'deep/more is one too many']
  assert manifest.faults(made, 'deep/') == ['deep/link is one too many',
                                            'deep/more is one too many']
  assert manifest.faults(made, 'a') == ['a is cut off (4 bytes of 10)']


def test_folders_without_any(made, tmp_path_factory):
  (made / manifest.NAME).unlink()
  assert manifest.faults(made) == ['manifest.txt is missing']
  assert manifest.faults(made / 'deep' / 'er' / 'none') == ['no such folder']
  assert manifest.faults(tmp_path_factory.mktemp('empty')) == ['an empty folder']


def test_a_manifest_of_another_kind_is_a_fault(made):
  for body in (b'', b'nonsense\n', b'x y z\n', b'\xff\xfe\n'):
    (made / manifest.NAME).write_bytes(body + manifest._seal(body))
    assert manifest.faults(made), body


@pytest.mark.skipif(os.geteuid() == 0, reason='root reads everything')
def test_what_can_not_be_read_is_a_fault(made):
  (made / 'a').chmod(0)
  assert manifest.faults(made) == ['a can not be read (Permission denied)']
