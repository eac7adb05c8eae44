"""Tests of the page that upscales images, as functions and in a browser."""

import importlib.util
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import sr_jax
from sr_jax import images
from sr_jax.app import __main__ as app
from sr_jax.app import batch, computation, interface, upscaling
from sr_jax.errors import InputError
from sr_jax.inference import tiles
from sr_jax.inference.upscale_file import Extras, FileOptions
from sr_jax.media import photos

ROOT = pathlib.Path(__file__).parent.parent


class Nearest:
  """An Upscaler by nearest neighbour, which compiles nothing."""

  scale = 3

  def __init__(self) -> None:
    self.notes = []

  def __call__(self, lr: np.ndarray, on_progress: Callable[[int], None] = lambda rows: None
               ) -> np.ndarray:
    on_progress(len(lr))
    return lr.repeat(3, axis=0).repeat(3, axis=1)

  def bands(self, lr: np.ndarray) -> Iterator[np.ndarray]:
    yield lr.repeat(3, axis=0).repeat(3, axis=1)


def upscale(path: pathlib.Path, upscaler: object = None, **options: Any) -> upscaling.Result:
  """Upscales a file by Nearest (or `upscaler`) into its folder; `options` are of FileOptions."""
  network = upscaling.Network('nearest', upscaler or Nearest())
  return upscaling.upscale_image(network, path, path.parent, FileOptions(**options))


def test_an_image_is_upscaled_and_shown_with_bicubic(tmp_path: pathlib.Path,
                                                     picture: Callable) -> None:
  lr = picture(9, 12)
  images.write_image(tmp_path / 'photo.png', lr)
  result = upscale(tmp_path / 'photo.png')
  assert result.file.name == 'photo_x3.png'
  np.testing.assert_array_equal(images.read_image(result.file), Nearest()(lr))
  assert re.fullmatch(r'photo\.png: 12x9 .* 36x27 .*\d+\.\d s .*nearest', result.summary)
  before, after = (images.read_image(path) for path in result.shown)
  np.testing.assert_array_equal(after, Nearest()(lr))
  difference = np.int32(before) - images.imresize(lr, 3)  # MATLAB's bicubic rounds differently
  assert np.abs(difference).max() <= 2
  assert upscale(tmp_path / 'photo.png').file.name == 'photo_x3-2.png'  # of another folder, say


def test_grey_stays_grey_and_a_large_result_is_shrunk(tmp_path: pathlib.Path, picture: Callable,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(upscaling, 'MAX_SHOWN_PIXELS', 36 * 27 // 4)
  images.write_image(tmp_path / 'grey.png', picture(9, 12)[..., :1])
  result = upscale(tmp_path / 'grey.png')
  assert images.read_image(result.file).shape == (27, 36, 1)
  assert [images.image_size(path) for path in result.shown] == [(13, 18)] * 2
  assert re.search('nearest; .*18x13$', result.summary)


def test_a_result_that_cannot_be_shown_is_offered(tmp_path: pathlib.Path, picture: Callable,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
  def fail(*args: object) -> None:
    raise MemoryError

  monkeypatch.setattr(upscaling, '_write_shown', fail)
  images.write_image(tmp_path / 'photo.png', picture(9, 12))
  result = upscale(tmp_path / 'photo.png')
  assert result.shown == ()
  assert images.image_size(result.file) == (27, 36)


def test_the_ensemble_is_used(tmp_path: pathlib.Path, picture: Callable,
                              monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(tiles, 'ensemble', lambda upscale, lr, on_progress: 1 - upscale(lr))
  images.write_image(tmp_path / 'photo.png', picture(9, 12))
  result = upscale(tmp_path / 'photo.png', extras=Extras(ensemble=True))
  np.testing.assert_array_equal(images.read_image(result.file), 255 - Nearest()(picture(9, 12)))
  assert re.search('nearest, .*8$', result.summary)


@pytest.mark.parametrize('format', photos.FORMATS)
def test_format_outscale_and_losses(tmp_path: pathlib.Path, picture: Callable, format: str) -> None:
  lr = picture(9, 12)
  alpha = np.full((9, 12, 1), 9, np.uint8)
  photos.write(tmp_path / 'photo.png', photos.Photo(lr, alpha), 'png')
  result = upscale(tmp_path / 'photo.png', format=format, extras=Extras(outscale=1.5), quality=90)
  assert result.file.name == f'photo_x1.5{photos.FORMATS[format].suffix}'
  assert photos.size(result.file) == (14, 18)
  assert [images.image_size(path) for path in result.shown] == [(14, 18)] * 2
  assert ('white' in result.summary) == (format in ('jpeg', 'bmp'))  # alpha is reported as lost


def test_errors_name_the_file_without_its_folder(tmp_path: pathlib.Path, picture: Callable) -> None:
  (tmp_path / 'notes.txt').write_text('no picture')
  images.write_image(tmp_path / 'large.png', picture(30, 40))
  (tmp_path / 'cut.png').write_bytes((tmp_path / 'large.png').read_bytes()[:300])
  for name, message in (('notes.txt', r'notes\.txt: not '),
                        ('large.png', r'large\.png: 40x30 .*1,200.*--max-pixels 1,199'),
                        ('cut.png', r'cut\.png: damaged'),
                        ('none.png', r'none\.png: .*deleted')):
    limit = 1199 if name == 'large.png' else 1200
    with pytest.raises(InputError, match=f'^{message}'):
      upscale(tmp_path / name, max_pixels=limit)


def test_a_scan_keeps_16_bits_and_alpha(tmp_path: pathlib.Path) -> None:
  samples = np.arange(9 * 12 * 3, dtype=np.uint16).reshape(9, 12, 3) * 200
  alpha = np.uint16(60000) * np.ones((9, 12, 1), np.uint16)
  photos.write(tmp_path / 'scan.png', photos.Photo(samples, alpha), 'png')
  result = upscale(tmp_path / 'scan.png')
  sr = photos.read(result.file)
  np.testing.assert_array_equal(sr.samples, Nearest()(samples))
  assert (sr.alpha == 60000).all()
  assert photos.read(result.shown[0]).alpha.dtype == np.uint8  # what is shown has 8 bits


def test_an_image_too_large_for_memory_is_named(tmp_path: pathlib.Path, picture: Callable) -> None:
  class Full(Nearest):
    def __call__(self, lr: np.ndarray, on_progress: Callable[[int], None] | None = None
                 ) -> np.ndarray:
      raise InputError('no memory')

  images.write_image(tmp_path / 'photo.png', picture(9, 12))
  with pytest.raises(InputError, match=r'^photo\.png: no memory$'):
    upscale(tmp_path / 'photo.png', Full())


def test_a_zip_archive_has_every_result(tmp_path: pathlib.Path) -> None:
  for name in ('a.png', 'b.png'):
    (tmp_path / name).write_text(name)
  target = upscaling.zip_files([tmp_path / 'a.png', tmp_path / 'b.png'], tmp_path / 'all.zip')
  with zipfile.ZipFile(target) as archive:
    assert archive.namelist() == ['a.png', 'b.png']
    assert archive.read('b.png') == b'b.png'
  with pytest.raises(InputError, match=r'^all\.zip: '):
    upscaling.zip_files([tmp_path / 'none.png'], target)
  assert not target.exists()


def test_files_are_upscaled_one_after_the_other(tmp_path: pathlib.Path, picture: Callable,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
  class Waiting(Nearest):
    """Waits before its result until `go` is set."""

    go = threading.Event()

    def __call__(self, lr: np.ndarray, on_progress: Callable[[int], None] = lambda rows: None
                 ) -> np.ndarray:
      on_progress(len(lr) // 2)
      assert self.go.wait(60)
      return super().__call__(lr, lambda rows: on_progress(rows // 2))

  monkeypatch.setattr(batch, 'INTERVAL_SECONDS', 0.01)
  for name in ('a.png', 'b.png'):
    images.write_image(tmp_path / name, picture(8, 12))
  (tmp_path / 'notes.txt').write_text('no picture')
  os.utime(tmp_path / 'b.png', (0, 0))
  paths = [tmp_path / name for name in ('a.png', 'notes.txt', 'b.png')]
  network = upscaling.Network('nearest', Waiting())
  steps = batch.upscale_all(paths, network, FileOptions(), tmp_path)
  lines = [next(steps)[0] for _ in range(30)]
  assert all(line.startswith('a.png (1 of 3): ') for line in lines)
  assert '50%' in lines[-1]
  assert paths[2].stat().st_mtime > 0  # not deleted as an old file while it waits
  other = batch.upscale_all(paths[:1], network, FileOptions(), tmp_path)
  assert next(other) == ('a.png: waiting for another image', [])
  other.close()  # as when the visitor stops it
  Waiting.go.set()
  *_, (line, outcomes) = steps
  assert line == ''
  assert [type(outcome) for outcome in outcomes] == [upscaling.Result, InputError, upscaling.Result]
  assert outcomes[0].file.parent == outcomes[2].file.parent != tmp_path


@pytest.mark.parametrize('updates', [True, False])
def test_a_stopped_computation_ends(updates: bool) -> None:
  begun = threading.Event()

  def work(update: Callable[[float], None]) -> None:
    for _ in range(6000):
      begun.set()
      time.sleep(0.01)
      if updates:
        update(0.5)

  state = computation.Computation(1)
  future = computation.start(work, state)
  assert begun.wait(60)
  state.stop()
  with pytest.raises(computation.StoppedError):
    future.result(30)
  assert computation.start(lambda update: 7, computation.Computation(1)).result(30) == 7


def test_the_time_left_is_estimated() -> None:
  now = 0.0
  state = computation.Computation(100, lambda: now)
  state.run(lambda update: None)
  now = 30.0
  assert state.seconds_left() == 70
  now = 120.0  # longer than was expected
  assert state.seconds_left() == 0
  state.update(0.2)  # the first rows come after most of the work
  now = 122.0
  state.update(0.4)
  assert state.seconds_left() == pytest.approx(6)
  assert batch.describe_progress(state) == '40%, 02:02 elapsed, about 6 s left'
  assert list(map(computation.approximate, (0.2, 40, 600, 9000))) == [
      '1 s', '40 s', '10 min', '2.5 h']


def test_the_speed_of_a_large_image_counts(tmp_path: pathlib.Path) -> None:
  network = upscaling.Network('nearest', Nearest())
  network.measure()
  assert 0 < network.seconds_per_pixel < 1e-4
  network.seconds_per_pixel = 1.0
  images.write_image(tmp_path / 'photo.png', np.zeros((500, 510, 3), np.uint8))
  upscaling.upscale_image(network, tmp_path / 'photo.png', tmp_path, FileOptions())
  assert 0 < network.seconds_per_pixel < 1e-3
  assert network.expected_seconds((10, 20), True) == pytest.approx(
      network.seconds_per_pixel * 1600)


@pytest.mark.parametrize(('text', 'outscale'), [('', 0), (' ', 0), ('4', 0), ('2.5', 2.5),
                                                ('8', 8), ('0.1', 0.1)])
def test_outscale(text: str, outscale: float) -> None:
  assert upscaling.parse_outscale(text, 4) == outscale


@pytest.mark.parametrize('text', ['x', '0', '-2', '9', 'nan', 'inf', '2,5'])
def test_a_wrong_outscale_is_refused(text: str) -> None:
  with pytest.raises(InputError, match=f'^Outscale {text}: .*0.1.*8'):
    upscaling.parse_outscale(text, 4)


def test_each_upload_is_described(tmp_path: pathlib.Path, picture: Callable) -> None:
  images.write_image(tmp_path / 'photo.png', picture(9, 12))
  (tmp_path / 'notes.txt').write_text('no picture')
  network = upscaling.Network('nearest', Nearest(), seconds_per_pixel=1.0)
  good, bad = batch.describe([tmp_path / 'photo.png', tmp_path / 'notes.txt'], network,
                                 Extras(ensemble=True, outscale=2), 1000)
  assert re.fullmatch(r'photo\.png: 12x9, .*24x18, about 14 min', good)
  assert isinstance(bad, InputError)
  assert str(bad).startswith('notes.txt: ')


def test_file_names_are_escaped() -> None:
  assert interface.paragraph(InputError('<img src=x>.png')) == (
      '<p class="error" role="status">&lt;img src=x&gt;.png</p>')


def test_networks_of_one_name_are_distinguished(weights: pathlib.Path,
                                                tmp_path: pathlib.Path) -> None:
  other = tmp_path / weights.name
  shutil.copy(weights, other)
  networks = app.load_networks([weights, other])
  assert list(networks) == [weights.name, str(other)]
  assert all(network.upscaler.scale == 2 for network in networks.values())
  assert all(network.seconds_per_pixel < 1e-3 for network in networks.values())


def test_old_files_are_deleted(tmp_path: pathlib.Path) -> None:
  for name in ('old.png', 'folder/old.png', 'folder/new.png'):
    (tmp_path / 'folder').mkdir(exist_ok=True)
    (tmp_path / name).write_text('')
  (tmp_path / 'empty').mkdir()
  for name in ('old.png', 'folder/old.png', 'folder', 'empty'):
    os.utime(tmp_path / name, (0, 0))
  app.delete_old(tmp_path, 3600)
  assert sorted(path.name for path in tmp_path.rglob('*')) == ['folder', 'new.png']


def test_without_gradio_the_error_gives_the_command(monkeypatch: pytest.MonkeyPatch,
                                                    call: Callable) -> None:
  monkeypatch.setattr(os, 'environ', {**os.environ})
  monkeypatch.setitem(sys.modules, 'gradio', None)
  status, out, err = call(app.main, '--weights', 'x')
  assert (status, out) == (1, '')
  assert re.fullmatch('sr_jax: .*Gradio.*: pip install "gradio>=6,<7"\n', err)


@pytest.mark.parametrize(('arguments', 'message'), [
    ([], '--workdir --weights'),
    (['--weights', 'W', '--workdir', '.'], '--workdir: .*--weights'),
    (['--weights', 'none.pth'], 'none.pth: .*realsr-df2k'),
    (['--weights', ''], 'name.* empty|empty name'),
    (['--workdir', 'none'], '--workdir none: '),
    (['--workdir', '.'], 'config.json'),
    (['--weights', 'W', 'W', 'W'], r'small\.safetensors: .*twice'),
    (['--weights', 'W', '--max-pixels', '0'], '--max-pixels: .*0.*from 1 to '),
    (['--weights', 'W', '--max-pixels', '12M'], '--max-pixels: .*12M.*from 1 to '),
    (['--weights', 'W', '--port', '70000'], '--port: .*70000.*65,535'),
    (['--weights', 'W', '--port', 'TAKEN'], 'in use'),
    (['--weights', 'W', '--host', '203.0.113.1'], r'203\.0\.113\.1, port 0: Cannot assign'),
    (['--weights', 'W', '--port', 'x'], '--port: .*x')])
def test_wrong_arguments_are_one_line(weights: pathlib.Path, call: Callable,
                                      monkeypatch: pytest.MonkeyPatch, arguments: list[str],
                                      message: str) -> None:
  monkeypatch.setattr(app, 'import_gradio', lambda: None)
  with socket.create_server(('127.0.0.1', 0)) as taken:
    known = {'W': str(weights), 'TAKEN': str(taken.getsockname()[1])}
    arguments = [known.get(argument, argument) for argument in arguments]
    if 'W' not in arguments and '--port' not in arguments:
      arguments += ['--port', '0']
    status, _, err = call(app.main, *arguments)
  assert status == 1
  assert err.startswith('sr_jax: ')
  assert err.count('\n') == 1
  assert re.search(message, err), err


# In a browser ---------------------------------------------------------------------------


@pytest.fixture
def served(weights: pathlib.Path, tmp_path: pathlib.Path) -> Iterator[tuple[str, subprocess.Popen]]:
  """Serves the page on a free port, for images of at most 1,200 pixels; (address, process)."""
  if importlib.util.find_spec('gradio') is None:  # importing it takes seconds
    pytest.skip('no Gradio on this machine')
  environment = {**os.environ, 'TMPDIR': str(tmp_path), 'PYTHONPATH': str(ROOT),
                 'HTTP_PROXY': 'http://127.0.0.1:9'}  # no request may use this proxy
  with subprocess.Popen([sys.executable, '-m', 'sr_jax.app', '--weights', weights, '--port', '0',
                         '--max-pixels', '1200'], cwd=tmp_path, env=environment, text=True,
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
    try:
      lines = [process.stdout.readline() for _ in range(2)]
      assert all(lines), process.stderr.read()
      assert re.fullmatch(rf'small\.safetensors: x2, about \d+ \w+ .*{weights} .*\n', lines[0])
      yield lines[1].split()[0], process
    finally:
      process.kill()


@pytest.mark.slow
def test_in_a_browser(weights: pathlib.Path, browser: Any, served: tuple[str, subprocess.Popen],
                      tmp_path: pathlib.Path, picture: Callable) -> None:
  address, process = served
  lr = picture(30, 40)
  images.write_image(tmp_path / 'photo.png', lr)
  images.write_image(tmp_path / 'large.png', picture(30, 41))
  photos.write(tmp_path / 'clear.png', photos.Photo(lr[:8, :12], lr[:8, :12, :1]), 'png')
  (tmp_path / 'notes.txt').write_text('no picture')
  (tmp_path / 'heavy.png').write_bytes(bytes(2**21))
  page = browser.new_page(viewport={'width': 1280, 'height': 900})
  requested = []
  page.on('request', lambda request: requested.append(request.url))
  page.goto(address)

  def upload(*names: str) -> None:
    with page.expect_file_chooser() as chooser:
      page.get_by_label('Click to upload or drop files').click()
    chooser.value.set_files([tmp_path / name for name in names])

  def clear() -> None:
    page.get_by_label('Clear', exact=True).click()
    page.wait_for_function("document.querySelector('#status').innerText.trim() == ''")

  def download() -> pathlib.Path:
    with page.expect_download() as event:
      page.locator('#download').click()
    target = tmp_path / 'downloads' / event.value.suggested_filename
    event.value.save_as(target)
    return target

  upscale, status = page.get_by_role('button', name='Upscale'), page.locator('#status')
  upscale.click()
  page.get_by_text('No image yet').wait_for()
  upload('notes.txt', 'large.png', 'photo.png')
  for pattern in (r'notes\.txt: not ', r'large\.png: 41x30 .*1,230.*--max-pixels 1,200',
                  r'photo\.png: 40x30, .*80x60$'):
    status.get_by_text(re.compile(pattern)).wait_for()
  clear()
  upload('photo.png')
  status.get_by_text(re.compile('40x30, .*80x60$')).wait_for()
  upscale.click()
  page.get_by_text(re.compile(r'photo\.png: 40x30 to 80x60 .* s .*small')).wait_for()
  sr = images.read_image(download())
  assert (tmp_path / 'downloads' / 'photo_x2.png').exists()
  assert sr.shape == (60, 80, 3)
  difference = np.int32(sr) - sr_jax.load(weights)(lr)
  assert np.abs(difference).max() <= 1  # the last bits depend on the compiled shape

  shown = page.locator('#compare img')
  assert shown.count() == 2
  page.wait_for_function("[...document.querySelectorAll('#compare img')].every("
                         'image => image.naturalWidth == 80 && image.naturalHeight == 60)')
  before = shown.nth(1).evaluate('image => image.style.clipPath')
  handle, area = (page.locator(f'#compare {part}').bounding_box()
                  for part in ('.icon-wrap', '.slider-wrap'))
  page.mouse.move(handle['x'] + handle['width'] / 2, handle['y'] + handle['height'] / 2)
  page.mouse.down()
  page.mouse.move(area['x'] + 0.7 * area['width'], handle['y'], steps=4)
  page.mouse.up()
  assert shown.nth(1).evaluate('image => image.style.clipPath') != before

  clear()
  upload('photo.png', 'notes.txt', 'clear.png')
  page.locator('#format input').click()
  page.get_by_role('option', name='jpeg').click()
  page.get_by_label('Outscale').fill('3')
  status.get_by_text(re.compile('photo.*40x30, .*120x90$')).wait_for()
  upscale.click()
  summary = page.locator('#summary')
  summary.get_by_text(re.compile(r'clear\.png: 12x8 to 36x24 .*white')).wait_for()  # alpha is lost
  assert re.search(r'notes\.txt: not ', summary.inner_text())
  page.get_by_text('upscaled.zip').wait_for()
  with zipfile.ZipFile(download()) as archive:
    assert archive.namelist() == ['photo_x3.jpg', 'clear_x3.jpg']
    archive.extractall(tmp_path)
  assert photos.size(tmp_path / 'photo_x3.jpg') == (90, 120)
  page.locator('#choice input').click()
  page.get_by_role('option', name='photo_x3.jpg').click()
  page.wait_for_function("document.querySelector('#compare img').naturalWidth == 120")

  clear()
  upload('heavy.png')  # has more bytes than an image of 1,200 pixels can have
  page.get_by_text('exceed the maximum allowed size').wait_for()
  assert all(url.startswith((address, 'data:', 'blob:')) for url in requested), requested

  folder = next(tmp_path.glob('sr_jax-*'))
  for path in (folder, '/etc/passwd', ROOT / 'README.md', tmp_path / 'notes.txt'):
    with pytest.raises(urllib.error.HTTPError, match=r'403|404'):
      urllib.request.urlopen(f'{address}gradio_api/file={path}')
  process.send_signal(signal.SIGINT)
  _, err = process.communicate(timeout=60)
  assert (process.returncode, err) == (130, 'sr_jax: interrupted\n')
  assert not folder.exists()
