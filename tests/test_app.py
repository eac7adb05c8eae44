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
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import sr_jax
from sr_jax import images
from sr_jax.app import __main__ as app
from sr_jax.app import interface
from sr_jax.errors import InputError
from sr_jax.inference import tiles
from sr_jax.media import photos

ROOT = pathlib.Path(__file__).parent.parent


class Nearest:
  """An Upscaler by nearest neighbour, which compiles nothing."""

  scale, notes = 3, ()

  def __call__(self, lr: np.ndarray,
               on_progress: Callable[[int], None] | None = None) -> np.ndarray:
    return lr.repeat(3, axis=0).repeat(3, axis=1)


def test_an_image_is_upscaled_and_shown_with_bicubic(tmp_path: pathlib.Path,
                                                     picture: Callable) -> None:
  lr = picture(9, 12)
  images.write_image(tmp_path / 'photo.png', lr)
  result = interface.upscale_image(Nearest(), 'nearest', tmp_path / 'photo.png', tmp_path)
  assert result.file.name == 'photo_x3.png'
  np.testing.assert_array_equal(images.read_image(result.file), Nearest()(lr))
  assert re.fullmatch(r'photo\.png: 12x9 .* 36x27 .*\d+\.\d s .*nearest', result.summary)
  before, after = (images.read_image(path) for path in (result.before, result.after))
  np.testing.assert_array_equal(after, Nearest()(lr))
  difference = np.int32(before) - images.imresize(lr, 3)  # MATLAB's bicubic rounds differently
  assert np.abs(difference).max() <= 2
  again = interface.upscale_image(Nearest(), 'nearest', tmp_path / 'photo.png', tmp_path)
  assert again.file != result.file  # two visitors may upload files of the same name


def test_grey_stays_grey_and_a_large_result_is_shrunk(tmp_path: pathlib.Path, picture: Callable,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(interface, 'MAX_SHOWN_PIXELS', 36 * 27 // 4)
  images.write_image(tmp_path / 'grey.png', picture(9, 12)[..., :1])
  result = interface.upscale_image(Nearest(), 'nearest', tmp_path / 'grey.png', tmp_path)
  assert images.read_image(result.file).shape == (27, 36, 1)
  assert images.image_size(result.before) == images.image_size(result.after) == (13, 18)
  assert re.search('nearest; .*18x13$', result.summary)


def test_the_ensemble_is_used(tmp_path: pathlib.Path, picture: Callable,
                              monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(tiles, 'ensemble', lambda upscale, lr, on_progress: 1 - upscale(lr))
  images.write_image(tmp_path / 'photo.png', picture(9, 12))
  result = interface.upscale_image(Nearest(), 'nearest', tmp_path / 'photo.png', tmp_path,
                                   ensemble=True)
  np.testing.assert_array_equal(images.read_image(result.file), 255 - Nearest()(picture(9, 12)))
  assert re.search('nearest, .*8$', result.summary)


def test_errors_name_the_file_without_its_folder(tmp_path: pathlib.Path, picture: Callable) -> None:
  (tmp_path / 'notes.txt').write_text('no picture')
  images.write_image(tmp_path / 'large.png', picture(30, 40))
  (tmp_path / 'cut.png').write_bytes((tmp_path / 'large.png').read_bytes()[:300])
  for name, message in (('notes.txt', r'notes\.txt: not '),
                        ('large.png', r'large\.png: 40x30 .*1,200.*1,199'),
                        ('cut.png', r'cut\.png: damaged'),
                        ('none.png', r'none\.png: no such file')):
    limit = 1199 if name == 'large.png' else 1200
    with pytest.raises(InputError, match=f'^{message}'):
      interface.upscale_image(Nearest(), 'nearest', tmp_path / name, tmp_path, max_pixels=limit)


def test_a_scan_keeps_16_bits_and_alpha(tmp_path: pathlib.Path) -> None:
  samples = np.arange(9 * 12 * 3, dtype=np.uint16).reshape(9, 12, 3) * 200
  alpha = np.uint16(60000) * np.ones((9, 12, 1), np.uint16)
  photos.write(tmp_path / 'scan.png', photos.Photo(samples, alpha), 'png')
  result = interface.upscale_image(Nearest(), 'nearest', tmp_path / 'scan.png', tmp_path)
  sr = photos.read(result.file)
  np.testing.assert_array_equal(sr.samples, Nearest()(samples))
  assert (sr.alpha == 60000).all()
  assert photos.read(result.before).alpha.dtype == np.uint8  # what is shown has 8 bits


def test_an_image_too_large_for_memory_is_named(tmp_path: pathlib.Path, picture: Callable) -> None:
  class Full(Nearest):
    def __call__(self, lr: np.ndarray,
                 on_progress: Callable[[int], None] | None = None) -> np.ndarray:
      raise InputError('no memory')

  images.write_image(tmp_path / 'photo.png', picture(9, 12))
  with pytest.raises(InputError, match=r'^photo\.png: no memory$'):
    interface.upscale_image(Full(), 'full', tmp_path / 'photo.png', tmp_path)


def test_file_names_are_escaped() -> None:
  assert interface._line('<img src=x>.png', 'error') == (
      '<p class="error" role="status">&lt;img src=x&gt;.png</p>')


def test_networks_of_one_name_are_distinguished(weights: pathlib.Path,
                                                tmp_path: pathlib.Path) -> None:
  other = tmp_path / weights.name
  shutil.copy(weights, other)
  networks = app.load_networks([weights, other])
  assert list(networks) == [weights.name, str(other)]
  assert all(upscaler.scale == 2 for upscaler in networks.values())


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
    (['--weights', 'W', '--max-pixels', '0'], '--max-pixels 0: .*1'),
    (['--weights', 'W', '--port', '70000'], '--port 70000: .*65535'),
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
      assert lines[0] == f'small.safetensors: x2, {weights} (safetensors)\n'
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
  (tmp_path / 'notes.txt').write_text('no picture')
  (tmp_path / 'heavy.png').write_bytes(bytes(2**21))
  page = browser.new_page(viewport={'width': 1280, 'height': 900})
  requested = []
  page.on('request', lambda request: requested.append(request.url))
  page.goto(address)

  def upload(name: str) -> None:
    with page.expect_file_chooser() as chooser:
      page.get_by_label('Click to upload or drop files').click()
    chooser.value.set_files(tmp_path / name)

  def clear() -> None:
    page.get_by_label('Clear').click()
    page.wait_for_function("document.querySelector('#status').innerText.trim() == ''")

  upscale = page.get_by_role('button', name='Upscale')
  upscale.click()
  page.get_by_text('No image yet').wait_for()
  upload('notes.txt')
  page.get_by_text(re.compile(r'notes\.txt: not ')).wait_for()
  upscale.click()  # gives the same error and no result
  page.wait_for_function("document.querySelector('#summary').innerText.trim() == ''")
  assert not page.locator('#download').is_visible()
  clear()
  upload('large.png')
  page.get_by_text(re.compile(r'large\.png: 41x30 .*1,230.*1,200')).wait_for()
  clear()
  upload('photo.png')
  page.get_by_text(re.compile('^40x30, .*80x60$')).wait_for()
  upscale.click()
  page.get_by_text(re.compile(r'photo\.png: 40x30 .* 80x60 .* s .*small')).wait_for()

  with page.expect_download() as download:
    page.locator('#download').click()
  assert download.value.suggested_filename == 'photo_x2.png'
  sr = images.read_image(pathlib.Path(download.value.path()))
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
