"""The folder that the commands of a page run in: inputs of the names that the pages use, and runs.

Pages find here `photo.jpg`, `scan.png`, `photos/`, `scans/`, `video.mp4`, `data/Set5/HR`,
`data/Set14/HR`, pairs in `hr/` and `lr/`, the finished runs `runs/srgan` and `runs/srresnet`, and
`model.safetensors` and `model.pth`.
"""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

from sr_jax import images
from sr_jax.models import RRDB, Compact
from sr_jax.pretrained import generators
from tests import docs_server, docs_small
from tests.conftest import filled
from tests.docs_pages import ROOT, Block, name, read_blocks
from tests.test_video import make, moving

SETS = {
    'photos': ('beach.jpg', 'cat.jpg', 'house.jpg', 'tree.jpg', 'market.png', 'river.png'),
    'scans': ('letter.png', 'map.png'),
    'data/Set5/HR': ('baby.png', 'bird.png', 'butterfly.png', 'head.png', 'woman.png'),
    'data/Set14/HR': ('baboon.png', 'comic.png', 'zebra.png'),
    'hr': ('a.png', 'b.png', 'c.png', 'd.png', 'e.png', 'f.png', 'g.png', 'h.png', 'i.png',
           'j.png'),
}
MODEL = Compact(4, 1, scale=4)
RUNS = ('train --config srgan:sample --workdir runs/srgan',
        'train --config srresnet:sample --workdir runs/srresnet')
SECONDS = 300  # that the commands of a block may take
ERROR = 'trap \'echo "{page}:$LINENO: exit status $?: $BASH_COMMAND" >&2\' ERR\n'


class PageError(AssertionError):
  """A block of a page failed; begins with page:line."""


class Server(NamedTuple):
  """What runs the commands: `environment` for bash, and the process of docs_server."""

  environment: dict[str, str]
  process: subprocess.Popen

  @property
  def address(self) -> str:
    return self.environment['DOCS_SERVER']


def start_server(folder: pathlib.Path) -> Server:
  """Starts the process that runs the commands of the pages; `folder` receives its clients."""
  folder.mkdir(exist_ok=True)
  docs_server.write_clients(folder)
  address = os.path.join(tempfile.mkdtemp(prefix='docs'), 'socket')  # sockets need a short path
  paths = [str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
  environment = {
      **os.environ, 'PATH': f'{folder}:{os.environ["PATH"]}', 'DOCS_SERVER': address,
      'PYTHONPATH': ':'.join(paths), 'MPLBACKEND': 'Agg', 'PYTHONDONTWRITEBYTECODE': '1',
      'JAX_PLATFORMS': 'cpu', 'HOME': str(folder), 'COLUMNS': '100'}
  process = subprocess.Popen([sys.executable, '-m', 'tests.docs_server', address], cwd=ROOT,
                             env=environment, start_new_session=True)
  while not os.path.exists(address):
    assert process.poll() is None, 'the server of the pages ended'
    time.sleep(0.02)
  return Server(environment, process)


def prepare(folder: pathlib.Path, server: Server) -> None:
  """Fills a folder with the inputs of the pages."""
  rng = np.random.default_rng(0)
  for place, names in SETS.items():
    (folder / place).mkdir(parents=True)
    for file in names:
      size = (64, 96) if place.startswith('data/') else (36, 48)
      Image.fromarray(_image(rng, *size)).save(folder / place / file, quality=90)
  Image.fromarray(_image(rng, 24, 32)).save(folder / 'photo.jpg', quality=90)
  Image.fromarray(_image(rng, 24, 32)).save(folder / 'scan.png')
  (folder / 'lr').mkdir()
  for path in (folder / 'hr').iterdir():
    images.write_image(folder / 'lr' / path.name, images.imresize(images.read_image(path), 1 / 4))
  make(folder / 'video.mp4', moving(3, 24, 32))
  lr = np.zeros((1, 8, 8, 3), np.float32)
  generators.write_generator(folder / 'model.safetensors', 'basicsr', 'compact', MODEL,
                             filled(MODEL, lr))
  for scale in (2, 3, 4):
    network = RRDB(4, 1, growth=4, scale=scale)
    generators.write_generator(folder / docs_small.STAND_IN.format(scale), 'sr_jax', 'rrdb',
                               network, filled(network, lr))
  _write_pth(folder)
  for run in RUNS:
    run_bash(Block(folder / 'prepared', 1, 'bash', f'sr-jax {run}\n'), folder, server)
  for run in (folder / 'runs').iterdir():
    (run / docs_small.PREPARED).touch()


def _image(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
  """Returns uint8 [height, width, 3]: smooth waves and some noise."""
  y, x = np.mgrid[:height, :width]
  a, b, c = rng.uniform(0.05, 0.4, (3, 3))
  waves = 127 + 90 * np.sin(a * x[..., None] + b * y[..., None] + 6 * c)
  return np.uint8(np.clip(waves + rng.normal(0, 8, waves.shape), 0, 255))


def _write_pth(folder: pathlib.Path) -> None:
  subprocess.run([sys.executable, '-c', 'import torch, safetensors.torch as s; torch.save('
                  "{'params': s.load_file('model.safetensors')}, 'model.pth')"], cwd=folder,
                 check=True)


def run_page(page: pathlib.Path, folder: pathlib.Path, server: Server) -> None:
  """Runs the blocks of a page in order.

  Raises:
    PageError: a block failed.
  """
  if page.name != 'README.md':
    server = server._replace(environment={**server.environment, docs_small.SMALL_PAGE: '1'})
  with tempfile.TemporaryFile('w+') as output, Python(folder, server, output) as python:
    for block in read_blocks(page):
      if block.not_run:
        continue
      if block.file:
        path = folder / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
      elif block.language == 'bash':
        run_bash(block, folder, server)
      elif block.language == 'python':
        python.run(block)


def run_bash(block: Block, folder: pathlib.Path, server: Server) -> str:
  """Runs a block of commands with `bash -euo pipefail` and returns what they print.

  Raises:
    PageError: a command failed.
  """
  script = (ERROR.format(page=name(block.page)) + '\n' * (block.line - 2) + block.text)
  with tempfile.TemporaryFile('w+') as output:
    try:
      status = subprocess.run(['bash', '-Eeuo', 'pipefail', '-c', script], cwd=folder,
                              env=server.environment, stdin=subprocess.DEVNULL, stdout=output,
                              stderr=subprocess.STDOUT, timeout=SECONDS).returncode
    except subprocess.TimeoutExpired:
      status = f'{SECONDS} seconds have passed'
    output.seek(0)
    printed = output.read()
  if status:
    raise PageError(f'{block.where}: a command failed ({status})\n{printed[-3000:]}')
  return printed


class Python:
  """Runs the Python blocks of a page in one process, which the first one starts."""

  def __init__(self, folder: pathlib.Path, server: Server, output: IO[str]) -> None:
    self._folder, self._server, self._output, self._socket = folder, server, output, None

  def __enter__(self) -> 'Python':
    return self

  def __exit__(self, *exception: object) -> None:
    if self._socket:
      self._socket.close()

  def run(self, block: Block) -> None:
    """Runs a block.

    Raises:
      PageError: it raised an exception.
    """
    if not self._socket:
      self._start()
    code = '\n' * (block.line - 1) + block.text
    self._socket.sendall(json.dumps([code, str(block.page)]).encode() + b'\n')
    with self._socket.makefile('r') as replies:
      answer = replies.readline()
    fault = json.loads(answer) if answer else f'{block.line}\nthe process ended'
    if fault:
      line, _, trace = fault.partition('\n')
      self._output.seek(0)
      raise PageError(f'{name(block.page)}:{line}: Python failed\n{self._output.read()[-2000:]}'
                      f'\n{trace[-3000:]}')

  def _start(self) -> None:
    self._socket = socket.socket(socket.AF_UNIX)
    self._socket.connect(self._server.address)
    request = {'argv': [], 'folder': str(self._folder), 'environment': self._server.environment}
    with open(os.devnull) as nothing:
      files = [nothing.fileno(), self._output.fileno(), self._output.fileno()]
      socket.send_fds(self._socket, [json.dumps(request).encode() + b'\n'], files)


def copy_inputs(source: pathlib.Path, folder: pathlib.Path) -> None:
  """Copies prepared inputs into a new folder, with what pages use of the repository."""
  shutil.copytree(source, folder)
  for part in ('configs', 'launch'):
    (folder / part).symlink_to(ROOT / part)
