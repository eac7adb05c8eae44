"""Image files in folders: what is found, and what is skipped and reported."""

import errno
import functools
import os
import pathlib
from collections.abc import Callable

import pytest

from sr_jax import images, resize, score
from sr_jax.data import folders
from sr_jax.errors import InputError, listed
from sr_jax.inference import upscale_jobs


@pytest.fixture
def mixed(tmp_path: pathlib.Path, picture: Callable) -> pathlib.Path:
  """A folder of two images, of files of other types, companions and hidden files."""
  place = tmp_path / 'mixed'
  images.write_image(place / 'a.png', picture(20, 20))
  images.write_image(place / 'deep' / 'B.PNG', picture(20, 20))
  for name in ('old.xcf', 'deep/c.tga', 'noending', 'notes.txt', 'more.TXT', 'scores.json',
               'Thumbs.db', 'desktop.ini', '.DS_Store', '.hidden.tga', '.cache/d.tga'):
    (place / name).parent.mkdir(exist_ok=True)
    (place / name).write_bytes(b'x')
  return place


def test_files_of_other_types_are_counted_and_named(mixed: pathlib.Path) -> None:
  found = folders.find_images(mixed)
  assert [path.name for path in found.files] == ['a.png', 'B.PNG']
  assert [path.name for path in found.unsupported] == [
      'c.tga', 'more.TXT', 'noending', 'notes.txt', 'old.xcf', 'scores.json']
  line, = folders.describe_skipped(mixed, found)
  assert line.startswith(f'{mixed}: skipped 6 files ')
  assert line.endswith('deep/c.tga, noending, old.xcf, 1 .json, 2 .txt')


def test_the_names_are_cut_after_ten(tmp_path: pathlib.Path, picture: Callable) -> None:
  images.write_image(tmp_path / 'a.png', picture(20, 20))
  for index in range(65):
    (tmp_path / f'{index:02}.tga').touch()
  line, = folders.describe_skipped(tmp_path, folders.find_images(tmp_path))
  assert '65 files' in line
  assert line.endswith(' 09.tga and 55 more')


def test_heic_comes_with_advice(tmp_path: pathlib.Path) -> None:
  found = folders.Found([], [tmp_path / 'IMG_1.HEIC'], {})
  assert 'pip install pillow-heif' in folders.describe_skipped(tmp_path, found)[0]
  found.unsupported[:] = [tmp_path / 'IMG_1.tga']
  assert 'pillow-heif' not in folders.describe_skipped(tmp_path, found)[0]


def test_a_folder_without_images_names_what_is_there(tmp_path: pathlib.Path) -> None:
  (tmp_path / 'a.tga').touch()
  with pytest.raises(InputError, match=rf'^{tmp_path}: .*no images.*\.png.* 1 file .*: a\.tga$'):
    folders.find_images(tmp_path)


def test_broken_links_and_unreadable_folders_are_reported(tmp_path: pathlib.Path,
                                                          picture: Callable) -> None:
  images.write_image(tmp_path / 'a.png', picture(20, 20))
  (tmp_path / 'b.png').symlink_to(tmp_path / 'nowhere.png')
  (tmp_path / 'more').symlink_to(tmp_path / 'nowhere')
  (tmp_path / 'n.txt').symlink_to(tmp_path / 'nowhere.txt')
  os.mkfifo(tmp_path / 'p.png')
  locked = tmp_path / 'locked'
  locked.mkdir(mode=0)
  found = folders.find_images(tmp_path)
  assert found.unsupported == [tmp_path / 'n.txt']
  _, line = folders.describe_skipped(tmp_path, found)
  for entry in ('b.png (broken link)', 'more (broken link)', 'p.png (not a regular file)'):
    assert entry in line
  if os.geteuid():  # root reads every folder
    assert f'{locked} (permission denied)' in line


def test_a_file_of_a_folder_that_may_not_be_searched_is_reported(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  """Such files are listed, but even their type cannot be read."""
  for name in ('a.png', 'b.ts'):
    (tmp_path / name).touch()

  stat = pathlib.Path.stat

  def refuse(path: pathlib.Path, **options: bool) -> os.stat_result:
    if path.parent == tmp_path:
      raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return stat(path, **options)

  monkeypatch.setattr(pathlib.Path, 'stat', refuse)
  with pytest.raises(InputError, match=r'a\.png \(permission denied\), .*b\.ts \(permission'):
    folders.find_images(tmp_path, ('.png', '.ts'))


def test_the_many_suffixes_of_videos_are_not_listed(tmp_path: pathlib.Path) -> None:
  with pytest.raises(InputError, match=r': contains no images or videos$'):
    folders.find_images(tmp_path, upscale_jobs.READABLE)


def test_resize_and_score_report_skipped_files(mixed: pathlib.Path, call: Callable) -> None:
  run = functools.partial(call, resize.main)
  status, out, _ = run(str(mixed), 'lr', '--scale', '1/2')
  assert status == 0
  assert '6 files' in out
  assert 'deep/c.tga' in out
  status, out, _ = call(score.main, '--sr', str(mixed), '--hr', str(mixed), '--scale', '2',
                        '--lpips', 'none')
  assert status == 0
  assert out.count('deep/c.tga') == 1


def test_lists_of_names_are_cut_after_ten() -> None:
  assert listed(range(10)) == '0, 1, 2, 3, 4, 5, 6, 7, 8, 9'
  assert listed(range(65)).endswith('8, 9 and 55 more')


def test_typescript_is_no_transport_stream(tmp_path: pathlib.Path) -> None:
  (tmp_path / 'index.ts').write_text('export const price = "5 €";\n' * 100)
  (tmp_path / 'index.mts').write_text('')
  (tmp_path / 'clip.ts').write_bytes(b'G@\0\x10' + bytes(184))
  found = folders.find_images(tmp_path, ('.ts', '.mts'))
  assert found.files == [tmp_path / 'clip.ts']
  assert found.unsupported == [tmp_path / 'index.mts', tmp_path / 'index.ts']
