"""Fixtures: a cache of our own, small pictures, one small experiment for all tests."""

import contextlib
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile

# Two workers share two cores: each computes on one, or they would wait for one another.
if int(os.environ.get('PYTEST_XDIST_WORKER_COUNT', 1)) > 1:
  os.environ['XLA_FLAGS'] = ' '.join(
      [os.environ.get('XLA_FLAGS', ''), '--xla_cpu_multi_thread_eigen=false']).strip()

import jax
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file

from sr_jax import images
from sr_jax import weights as weights_command_line
from sr_jax.data import packed, sources
from sr_jax.models import Compact
from sr_jax.pretrained import generators
from sr_jax.system import cli
from tests import smallest

GOLDEN = pathlib.Path(__file__).parent / 'golden'


@pytest.fixture(scope='session', autouse=True)
def _cache(tmp_path_factory):
  """Keeps tests out of the user's cache, and compiles a program that several tests run once.

  All workers of pytest-xdist share the compile cache. With SR_JAX_TEST_CACHE it stays in that
  folder for the next run of the suite.
  """
  folder = tmp_path_factory.mktemp('cache')
  shared = tmp_path_factory.getbasetemp()
  if 'PYTEST_XDIST_WORKER' in os.environ:
    shared = shared.parent
  shared = pathlib.Path(os.environ.get('SR_JAX_TEST_CACHE') or shared / 'xla').absolute()
  shared.mkdir(parents=True, exist_ok=True)
  (folder / 'xla').symlink_to(shared)  # where processes that tests start look for it
  jax.config.update('jax_compilation_cache_dir', str(folder / 'xla'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', 0)
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('SR_JAX_CACHE', str(folder))
    patch.delenv('SR_JAX_VGG19', raising=False)
    yield


@pytest.fixture
def unoptimised():
  """XLA compiles in half the time what is slower then: for large networks and few steps."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


@pytest.fixture(scope='session')
def assets():
  """Pictures and weights beside the repository; tests that need them skip without."""
  folder = os.environ.get('SR_JAX_ASSETS')
  if not folder:
    pytest.skip('SR_JAX_ASSETS is not set')
  return pathlib.Path(folder)


@pytest.fixture(scope='session')
def golden():
  """golden('srresnet') -> (variables, other arrays by name), made by PyTorch."""
  with np.load(GOLDEN / 'pytorch.npz') as file:
    arrays = dict(file)

  def read(prefix):
    mine = {name.removeprefix(f'{prefix}/'): array for name, array in arrays.items()
            if name.startswith(f'{prefix}/')}
    variables = {name: array for name, array in mine.items()
                 if name.startswith(('params/', 'batch_stats/'))}
    rest = {name: array for name, array in mine.items() if name not in variables}
    return traverse_util.unflatten_dict(variables, sep='/'), rest

  return read


@pytest.fixture(scope='session')
def picture():
  """picture(height, width, seed) -> uint8 [H, W, 3]: smooth structure and some noise."""
  def make(height, width, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    a, b, c = rng.uniform(0.05, 0.4, (3, 3))
    waves = 127 + 90 * np.sin(a * x[..., None] + b * y[..., None] + 6 * c)
    return np.uint8(np.clip(waves + rng.normal(0, 8, waves.shape), 0, 255))
  return make


@pytest.fixture(scope='session')
def folder(tmp_path_factory, picture):
  """Five pictures of mixed sizes, portrait and landscape."""
  path = tmp_path_factory.mktemp('pictures')
  for seed, size in enumerate(((40, 52), (61, 34), (33, 33), (48, 90), (70, 45))):
    images.write_image(path / f'{seed}.png', picture(*size, seed))
  return path


@pytest.fixture(scope='session')
def tfds_sets(tmp_path_factory):
  """A TFDS_DATA_DIR with div2k/bicubic_x4, coco/2017 and celeb_a, each of a few pictures."""
  path = tmp_path_factory.mktemp('tfds')
  with zipfile.ZipFile(GOLDEN / 'tfds.zip') as file:
    file.extractall(path)
  return path


@pytest.fixture(scope='session')
def pack_folder(tmp_path_factory):
  """pack_folder(folder, scale, channels) -> packed.Packed of the pictures below a folder."""
  def pack(folder, scale=2, channels=3):
    found = sources.open_source(f'folder:{folder}', scale)
    return packed.pack(packed.lay_out(found, scale, channels), scale, channels,
                       tmp_path_factory.mktemp('packed') / 'set')
  return pack


@pytest.fixture(scope='session')
def weights(tmp_path_factory):
  """A Compact of scale 2 in a file."""
  model = Compact(4, 1, scale=2)
  path = tmp_path_factory.mktemp('weights') / 'small.safetensors'
  variables = filled(model, np.zeros((1, 8, 8, 3), np.float32))
  generators.write_generator(path, 'basicsr', 'compact', model, variables)
  return path


@pytest.fixture
def config(folder):
  """The smallest adversarial experiment: x2, 16-pixel crops, no VGG."""
  config = smallest.get_config()
  config.data.source, config.eval.sets = f'folder:{folder}', str(folder)
  return config


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
  """call(main, 'ARGUMENT', ...) -> (exit status, stdout, stderr) of a command line, in tmp_path."""
  monkeypatch.chdir(tmp_path)

  def run(main, *arguments):
    status = cli.run(lambda: main(list(arguments)))
    captured = capsys.readouterr()
    return status, captured.out, captured.err

  return run


@pytest.fixture(scope='session')
def foreign(tmp_path_factory):
  """foreign('edsr-x2') -> (tensors by name, lr, sr), made by PyTorch; and a file of them."""
  folder = tmp_path_factory.mktemp('foreign')

  def read(name):
    tensors, lr, sr = foreign_network(name)
    path = folder / f'{name}.safetensors'
    if not path.exists():
      save_file(tensors, path)
    return tensors, lr, sr, path

  return read


@pytest.fixture
def weights_command(call):
  """weights_command('info', FILE) -> (status, stdout, stderr) of python -m sr_jax.weights."""
  return lambda *arguments: call(weights_command_line.main, *map(str, arguments))


@pytest.fixture
def browser():
  """Chromium of the system."""
  api = pytest.importorskip('playwright.sync_api')
  path = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))),
              None)
  if path is None:
    pytest.skip('no Chromium on this machine')
  with api.sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=path, args=[
        '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
        '--disable-background-networking', '--disable-component-update', '--disable-sync'])
    yield browser
    browser.close()


def foreign_network(name) -> tuple[dict, np.ndarray, np.ndarray]:
  """(tensors by name, lr, sr) of a network in foreign.npz, made by PyTorch."""
  with np.load(GOLDEN / 'foreign.npz') as file:
    shapes, numbers = json.loads(str(file[f'{name}/shapes'])), file[f'{name}/numbers']
    lr, sr = file[f'{name}/lr'], file[f'{name}/sr']
  ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes.values()])
  parts = np.split(numbers, ends[:-1])
  return {key: part.reshape(shape)
          for (key, shape), part in zip(shapes.items(), parts, strict=True)}, lr, sr


def filled(model, lr, seed=0) -> dict:
  """Variables of a model with random numbers in them; its own initialisers compile for seconds."""
  shapes = jax.eval_shape(model.init, jax.random.key(0), lr)
  rng = np.random.default_rng(seed)
  return jax.tree_util.tree_map_with_path(
      lambda path, leaf: np.float32(rng.uniform(0.5, 1.5, leaf.shape) if 'var' in str(path[-1])
                                    else rng.normal(0, 0.1, leaf.shape)), shapes)


def interrupt(arguments: list[str], folder, ready, environment) -> tuple[int, str]:
  """(exit status, stderr) of `python ARGUMENTS` in folder, sent Ctrl-C once `ready()` is true."""
  with subprocess.Popen([sys.executable, *arguments], cwd=folder, env=environment, text=True,
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
    deadline = time.monotonic() + 240
    while not ready():
      assert process.poll() is None, process.stderr.read()
      assert time.monotonic() < deadline
      time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
  return process.returncode, err


@contextlib.contextmanager
def largest_file(size):
  """Inside, no file can grow past `size` bytes: a full disk, for whoever writes."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def same_bits(a, b) -> list[str]:
  """Names of the leaves that differ in a single bit, or in name, shape or type."""
  a, b = (dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (a, b))
  if a.keys() != b.keys():
    return [jax.tree_util.keystr(path) for path in a.keys() ^ b.keys()]
  return [jax.tree_util.keystr(path) for path in a
          if np.asarray(a[path]).tobytes() != np.asarray(b[path]).tobytes()]
