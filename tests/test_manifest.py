"""Manifests: every change of a byte in a folder is detected."""

import os
import pathlib

import pytest

from sr_jax.runs import manifest


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
  """A folder with a manifest."""
  for name, content in (('a', b'some bytes'), ('deep/er/b', b'others\n'), ('empty', b'')):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(content)
  manifest.write(tmp_path)
  return tmp_path


def test_an_unchanged_folder_has_no_faults(folder: pathlib.Path) -> None:
  assert manifest.faults(folder) == []
  manifest.write(folder)  # a manifest does not list itself
  assert manifest.faults(folder) == []
  assert (folder / manifest.NAME).stat().st_mode & 0o777 == 0o644


def test_every_byte_counts(folder: pathlib.Path) -> None:
  for file in (path for path in folder.rglob('*') if path.is_file()):
    data = file.read_bytes()
    name = str(file.relative_to(folder))
    for position in range(len(data)):
      # 0x20 turns an a into an A, which parsing a hexadecimal number would not notice.
      flipped = bytes([data[position] ^ 0x20])
      file.write_bytes(data[:position] + flipped + data[position + 1:])
      fault, = manifest.faults(folder)
      assert fault.startswith(
          f'{name} is damaged' if name == manifest.NAME else f'{name} differs')
    for size in range(0, len(data), 5):
      file.write_bytes(data[:size])
      assert len(manifest.faults(folder)) == 1
    file.write_bytes(data + b'x')
    assert len(manifest.faults(folder)) == 1
    file.write_bytes(data)
  assert manifest.faults(folder) == []


def test_faults_name_the_file_and_the_problem(folder: pathlib.Path) -> None:
  (folder / 'a').write_bytes(b'some')
  (folder / 'empty').unlink()
  (folder / 'empty').mkdir()
  (folder / 'deep' / 'more').touch()
  (folder / 'deep' / 'link').symlink_to('nowhere')
  truncated = 'a is truncated (4 bytes of 10)'
  unlisted = ['deep/link is not listed in manifest.txt', 'deep/more is not listed in manifest.txt']
  assert manifest.faults(folder) == [truncated, 'empty is missing', *unlisted]
  assert manifest.faults(folder, 'deep/') == unlisted
  assert manifest.faults(folder, 'a') == [truncated]


def test_folders_without_a_manifest(
    folder: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> None:
  (folder / manifest.NAME).unlink()
  assert manifest.faults(folder) == ['manifest.txt is missing']
  assert manifest.faults(folder / 'deep' / 'er' / 'none') == ['no such folder']
  assert manifest.faults(tmp_path_factory.mktemp('empty')) == ['an empty folder']


def test_a_manifest_of_another_format_is_a_fault(folder: pathlib.Path) -> None:
  for body in (b'', b'nonsense\n', b'x y z\n', b'\xff\xfe\n'):
    (folder / manifest.NAME).write_bytes(body + manifest._body_digest(body))
    assert manifest.faults(folder), body


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read every file')
def test_an_unreadable_file_is_a_fault(folder: pathlib.Path) -> None:
  (folder / 'a').chmod(0)
  assert manifest.faults(folder) == ['a cannot be read (Permission denied)']
