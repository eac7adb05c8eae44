"""DIV2K: found in its layout, and downloaded from a local server that misbehaves."""

import errno
import hashlib
import http.server
import importlib.util
import io
import os
import pathlib
import re
import shutil
import signal
import socketserver
import stat
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import pytest
import requests

from sr_jax import images
from sr_jax.data import div2k
from sr_jax.data.div2k import find_div2k
from sr_jax.errors import InputError

NAMES = ('0001', '0002', '0003')
HR, LR = 'DIV2K_valid_HR', 'DIV2K_valid_LR_bicubic/X2'
HR_ZIP, LR_ZIP = 'DIV2K_valid_HR.zip', 'DIV2K_valid_LR_bicubic_X2.zip'


@pytest.mark.parametrize('part', ['train', 'valid'])
@pytest.mark.parametrize('scale', [2, 3, 4, 8])
def test_the_official_layout(tmp_path: pathlib.Path, part: str, scale: int) -> None:
  hr = tmp_path / f'DIV2K_{part}_HR'
  lr = tmp_path / f'DIV2K_{part}_LR_{"x8" if scale == 8 else f"bicubic/X{scale}"}'
  for folder, ending in ((hr, ''), (lr, f'x{scale}')):
    folder.mkdir(parents=True)
    for name in reversed(NAMES):
      (folder / f'{name}{ending}.png').touch()
    (folder / 'notes.txt').touch()
  assert find_div2k(tmp_path, part, scale) == [
      (name, hr / f'{name}.png', lr / f'{name}x{scale}.png') for name in NAMES]


def test_missing_folders_and_partners_are_named(tmp_path: pathlib.Path) -> None:
  download = re.escape('--config.data.download=True')
  with pytest.raises(InputError, match=rf'in {HR} and {LR}; {download}'):
    find_div2k(tmp_path, 'valid', 2)
  (tmp_path / HR).mkdir()
  (tmp_path / LR).mkdir(parents=True)
  for number in range(12):
    (tmp_path / HR / f'{number:04}.png').touch()
  with pytest.raises(InputError, match=rf'{tmp_path}: .* in {LR}; {download}'):
    find_div2k(tmp_path, 'valid', 2)
  (tmp_path / LR / '0001x2.png').touch()
  (tmp_path / LR / '0021x2.png').touch()
  with pytest.raises(InputError, match=rf'^12 .*/0000\.png.* 2 more; {download}'):
    find_div2k(tmp_path, 'valid', 2)
  for part, scale in (('test', 2), ('train', 5)):
    message = rf"DIV2K '{part}' x{scale}: .*train.*valid.*x2, x3, x4.*x8"
    with pytest.raises(InputError, match=message):
      find_div2k(tmp_path, part, scale)


def test_the_table_in_tensorflow_datasets() -> None:
  if not importlib.util.find_spec('tensorflow_datasets'):
    pytest.skip('tensorflow-datasets is not installed')
  before = set(sys.modules)
  table = div2k._archives()
  assert not {'tensorflow', 'tensorflow_datasets'} & (set(sys.modules) - before)
  for part in ('train', 'valid'):
    for kind in ('HR', 'LR_bicubic_X2', 'LR_bicubic_X3', 'LR_bicubic_X4', 'LR_x8'):
      url, size, sha256, name = table[f'DIV2K_{part}_{kind}.zip']
      assert url.startswith('https://')
      assert url.endswith(f'/{name}')
      assert size > 8e6
      assert re.fullmatch('[0-9a-f]{64}', sha256)


def test_without_the_package(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(div2k.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(InputError, match='pip install --no-deps tensorflow-datasets'):
    find_div2k(tmp_path / 'new', 'valid', 2, download=True)
  assert not list(tmp_path.iterdir())


# Download ----------------------------------------------------------------------------------


class Site(socketserver.ThreadingMixIn, http.server.HTTPServer):
  """Serves `files`; `asked` lists the requests as (name, Range)."""

  daemon_threads = True

  def __init__(self) -> None:
    super().__init__(('127.0.0.1', 0), Answer)
    self.files, self.asked = {}, []
    self.ranges, self.status, self.length = True, 200, None
    self.cut, self.when_cut = None, lambda: None  # ends the connection after so many bytes

  def handle_error(self, request: Any, address: Any) -> None:
    """Ignores a client that closed the connection."""


class Answer(http.server.BaseHTTPRequestHandler):
  def do_GET(self) -> None:
    site, name = self.server, self.path.removeprefix('/')
    site.asked.append((name, self.headers['Range']))
    whole, start = site.files[name], 0
    if site.ranges and self.headers['Range']:
      start = int(re.fullmatch(r'bytes=(\d+)-', self.headers['Range'])[1])
      self.send_response(206)
      self.send_header('Content-Range', f'bytes {start}-{len(whole) - 1}/{len(whole)}')
    else:
      self.send_response(site.status)
    self.send_header('Content-Length', str(site.length or len(whole) - start))
    self.end_headers()
    self.wfile.write(whole[start:][:site.cut])
    if site.cut:
      self.wfile.flush()
      site.when_cut()

  def log_message(self, *arguments: Any) -> None:
    pass


def zipped(members: list[tuple[str | zipfile.ZipInfo, bytes]]) -> bytes:
  """A zip file of (name or ZipInfo, bytes)."""
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w') as archive:
    for name, content in members:
      archive.writestr(name, content)
  return file.getvalue()


@pytest.fixture(scope='module')
def zips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
  """The two zip files of a small DIV2K at x2: noise, so that they have 200 kB and 50 kB."""
  rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp('zips')
  members = {HR: [], LR: []}
  for name in NAMES:
    hr = np.uint8(rng.integers(0, 256, (150, 150, 3)))
    for place, ending, picture in ((HR, '', hr), (LR, 'x2', images.imresize(hr, 1 / 2))):
      images.write_image(folder / 'picture.png', picture)
      members[place].append((f'{place}/{name}{ending}.png', (folder / 'picture.png').read_bytes()))
  members[HR].append(('__MACOSX/._0001.png', b'no picture'))
  return {HR_ZIP: zipped(members[HR]), LR_ZIP: zipped(members[LR])}


@pytest.fixture
def site(zips: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
  """A server of the two files, to which the table of archives points."""
  monkeypatch.setenv('NO_PROXY', '127.0.0.1')
  monkeypatch.setattr(div2k.https, 'session', requests.Session)  # without HTTPS
  with Site() as site:
    thread = threading.Thread(target=site.serve_forever, args=(0.01,))
    thread.start()
    serve(site, zips, monkeypatch)
    yield site
    site.shutdown()
    thread.join()


def serve(site: Site, zips: dict[str, bytes], monkeypatch: pytest.MonkeyPatch,
          **wrong: Any) -> None:
  site.files = dict(zips)
  monkeypatch.setattr(div2k, '_archives', lambda: {
      name: div2k.Archive(f'http://127.0.0.1:{site.server_port}/{name}', len(content),
                          hashlib.sha256(content).hexdigest(), name)._replace(**wrong)
      for name, content in zips.items()})


def everything_below(folder: pathlib.Path) -> list[str]:
  return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*')
                if not path.is_dir() or path.name.startswith('.'))


ALL_FILES = sorted([*(f'{HR}/{name}.png' for name in NAMES),
                    *(f'{LR}/{name}x2.png' for name in NAMES)])


def test_download(tmp_path: pathlib.Path, site: Site, zips: dict[str, bytes],
                  capsys: pytest.CaptureFixture) -> None:
  folder = tmp_path / 'data' / 'DIV2K'
  pairs = find_div2k(folder, 'valid', 2, download=True)
  assert [name for name, *_ in pairs] == list(NAMES)
  assert everything_below(folder) == ALL_FILES
  for _, hr, lr in pairs:
    np.testing.assert_array_equal(images.imresize(images.read_image(hr), 1 / 2),
                                  images.read_image(lr))
  assert HR_ZIP in capsys.readouterr().err
  assert find_div2k(folder, 'valid', 2, download=True) == pairs == find_div2k(folder, 'valid', 2)
  assert site.asked == [(HR_ZIP, None), (LR_ZIP, None)]  # not a second time


def test_only_missing_folders_are_downloaded(tmp_path: pathlib.Path, site: Site) -> None:
  (tmp_path / HR).mkdir()
  for name in NAMES:
    (tmp_path / HR / f'{name}.png').touch()
  assert len(find_div2k(tmp_path, 'valid', 2, download=True)) == 3
  assert site.asked == [(LR_ZIP, None)]


@pytest.mark.parametrize('ranges', [True, False])
def test_an_interrupted_download_is_resumed(tmp_path: pathlib.Path, site: Site,
                                            zips: dict[str, bytes], ranges: bool) -> None:
  site.cut, site.ranges = 120_000, ranges
  with pytest.raises(InputError, match=rf'{HR_ZIP}: .*0 of 0 MB .*resumes'):
    find_div2k(tmp_path, 'valid', 2, download=True)
  assert everything_below(tmp_path) == [f'{HR_ZIP}.part']
  got = (tmp_path / f'{HR_ZIP}.part').read_bytes()
  assert 0 < len(got) <= 120_000
  assert zips[HR_ZIP].startswith(got)
  site.cut = None
  assert len(find_div2k(tmp_path, 'valid', 2, download=True)) == 3
  assert everything_below(tmp_path) == ALL_FILES
  assert site.asked == [(HR_ZIP, None), (HR_ZIP, f'bytes={len(got)}-'), (LR_ZIP, None)]


def test_no_server(tmp_path: pathlib.Path, site: Site) -> None:
  site.server_close()
  with pytest.raises(InputError, match=rf'{HR_ZIP}: .* 0 of 0 MB .ConnectionError'):
    find_div2k(tmp_path, 'valid', 2, download=True)


@pytest.mark.parametrize('change', [{'status': 404}, {'length': 5}])
def test_an_unexpected_answer_is_not_written(tmp_path: pathlib.Path, site: Site,
                                             change: dict[str, int]) -> None:
  vars(site).update(change)
  with pytest.raises(InputError, match=rf'{HR_ZIP}: (404 Not Found|.*Content-Length: 5,.* \d+)'):
    find_div2k(tmp_path, 'valid', 2, download=True)
  assert everything_below(tmp_path) == []


def test_ctrl_c_keeps_what_was_received(tmp_path: pathlib.Path, site: Site) -> None:
  finished = threading.Event()

  def interrupt() -> None:
    time.sleep(0.1)  # for the client to receive what was sent
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    finished.wait(10)

  site.cut, site.when_cut = 120_000, interrupt
  with pytest.raises(KeyboardInterrupt):
    find_div2k(tmp_path, 'valid', 2, download=True)
  finished.set()
  assert everything_below(tmp_path) == [f'{HR_ZIP}.part']
  assert (tmp_path / f'{HR_ZIP}.part').stat().st_size > 0
  site.cut = None
  assert len(find_div2k(tmp_path, 'valid', 2, download=True)) == 3


def test_a_wrong_hash(tmp_path: pathlib.Path, site: Site, zips: dict[str, bytes],
                      monkeypatch: pytest.MonkeyPatch) -> None:
  serve(site, zips, monkeypatch, sha256='0' * 64)
  with pytest.raises(InputError, match=rf'{HR_ZIP}: .*SHA-256.*expected 000'):
    find_div2k(tmp_path, 'valid', 2, download=True)
  assert everything_below(tmp_path) == []


def test_a_damaged_part_file_is_removed(tmp_path: pathlib.Path, site: Site) -> None:
  (tmp_path / f'{HR_ZIP}.part').write_bytes(b'other')
  with pytest.raises(InputError, match=rf'{HR_ZIP}: .*SHA-256'):
    find_div2k(tmp_path, 'valid', 2, download=True)
  assert len(find_div2k(tmp_path, 'valid', 2, download=True)) == 3


def link() -> zipfile.ZipInfo:
  info = zipfile.ZipInfo(f'{HR}/0001.png')
  info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
  return info


@pytest.mark.parametrize(('name', 'complaint'), [
    ('../0001.png', 'unsafe member'), ('/tmp/0001.png', 'unsafe member'),
    ('..\\0001.png', 'unsafe member'), (link(), 'unsafe member'),
    (f'{HR}/notes.txt', r'0001\.png')])
def test_a_hostile_zip(tmp_path: pathlib.Path, site: Site, zips: dict[str, bytes],
                       monkeypatch: pytest.MonkeyPatch, name: str | zipfile.ZipInfo,
                       complaint: str) -> None:
  good = [] if 'notes' in str(name) else [(f'{HR}/0002.png', b'good')]
  serve(site, zips | {HR_ZIP: zipped([*good, (name, b'/etc/passwd')])}, monkeypatch)
  with pytest.raises(InputError, match=rf'{HR_ZIP}\.part: .*{complaint}'):
    find_div2k(tmp_path / 'set', 'valid', 2, download=True)
  assert everything_below(tmp_path) == [f'set/{HR_ZIP}.part']


def test_a_zip_bomb(tmp_path: pathlib.Path, site: Site, zips: dict[str, bytes],
                    monkeypatch: pytest.MonkeyPatch) -> None:
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr(f'{HR}/0001.png', bytes(10**7))
  serve(site, zips | {HR_ZIP: file.getvalue()}, monkeypatch)
  with pytest.raises(InputError, match=rf'{HR_ZIP}\.part: .*10,000,000 bytes.* 4 times'):
    find_div2k(tmp_path, 'valid', 2, download=True)
  assert everything_below(tmp_path) == [f'{HR_ZIP}.part']


def test_no_zip(tmp_path: pathlib.Path, site: Site, zips: dict[str, bytes],
                monkeypatch: pytest.MonkeyPatch) -> None:
  serve(site, zips | {HR_ZIP: b'no zip'}, monkeypatch)
  with pytest.raises(InputError, match=rf'{HR_ZIP}\.part: .*not a zip file'):
    find_div2k(tmp_path, 'valid', 2, download=True)


def test_free_space_is_checked_first(tmp_path: pathlib.Path, site: Site, zips: dict[str, bytes],
                                     monkeypatch: pytest.MonkeyPatch) -> None:
  needed = 2 * len(zips[HR_ZIP]) + len(zips[LR_ZIP])
  for free, have in ((needed - 1, 0), (needed - 1001, 1000)):
    (tmp_path / f'{HR_ZIP}.part').write_bytes(zips[HR_ZIP][:have])
    usage = shutil.disk_usage(tmp_path)._replace(free=free)
    monkeypatch.setattr(div2k.shutil, 'disk_usage', lambda folder, usage=usage: usage)
    with pytest.raises(InputError, match=rf'{tmp_path}: DIV2K .*0\.0 GB .*0\.0 GB .*free'):
      find_div2k(tmp_path, 'valid', 2, download=True)
  assert not site.asked


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no /dev/full')
def test_a_full_disk_while_downloading(tmp_path: pathlib.Path, site: Site) -> None:
  (tmp_path / f'{HR_ZIP}.part').symlink_to('/dev/full')
  with pytest.raises(InputError, match=rf'{tmp_path}: .*No space left'):
    find_div2k(tmp_path, 'valid', 2, download=True)


@pytest.mark.parametrize('error', [OSError(errno.ENOSPC, 'No space left'), KeyboardInterrupt()])
def test_unpacking_is_complete_or_leaves_nothing(tmp_path: pathlib.Path, site: Site,
                                                 monkeypatch: pytest.MonkeyPatch,
                                                 error: BaseException) -> None:
  copied, copy = [], shutil.copyfileobj

  def copy_one(source: BinaryIO, target: BinaryIO) -> None:
    if copied:
      raise error
    copied.append(copy(source, target))

  monkeypatch.setattr(div2k.shutil, 'copyfileobj', copy_one)
  with pytest.raises((InputError, KeyboardInterrupt), match=r'^$|No space left'):
    find_div2k(tmp_path, 'valid', 2, download=True)
  assert copied
  assert everything_below(tmp_path) == [f'{HR_ZIP}.part']  # unpacked at the next start
  monkeypatch.setattr(div2k.shutil, 'copyfileobj', copy)
  assert len(find_div2k(tmp_path, 'valid', 2, download=True)) == 3
  assert site.asked == [(HR_ZIP, None), (LR_ZIP, None)]


def test_a_folder_that_cannot_be_written(tmp_path: pathlib.Path, site: Site) -> None:
  (tmp_path / 'file').touch()
  with pytest.raises(InputError, match=r'file/DIV2K: .*Not a directory'):
    find_div2k(tmp_path / 'file' / 'DIV2K', 'valid', 2, download=True)
