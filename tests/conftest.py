"""Fixtures that all tests share: a compile cache, small images, one small experiment."""

import contextlib
import gc
import importlib.util
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
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any
from unittest import mock

# Tests compile many programs and run each for milliseconds, so compile time is what they cost.
# Without most optimisations XLA compiles the networks of the tests in half the time, with its older
# CPU emitters in a third of that, and with one thread per program faster than with several.
# Processes that tests start inherit all of this. SR_JAX_TEST_OPTIMISED=1 compiles everything the
# way a user's run does; tests marked `optimised` are compiled with all optimisations either way.
OPTIMISED = os.environ.get('SR_JAX_TEST_OPTIMISED', '0') != '0'
_FLAGS = []
if not OPTIMISED:
  os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'
  _FLAGS += ['--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters',
             '--xla_cpu_parallel_codegen_split_count=1']
if int(os.environ.get('PYTEST_XDIST_WORKER_COUNT', 1)) > 1:
  _FLAGS.append('--xla_cpu_multi_thread_eigen=false')  # the workers share the cores
os.environ['XLA_FLAGS'] = ' '.join([*_FLAGS, os.environ.get('XLA_FLAGS', '')]).strip()
gc.set_threshold(100_000, 20, 100)  # collecting often takes a fifth of the time of imports

import jax
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util
from safetensors.numpy import save_file

from sr_jax import images
from sr_jax import weights as weights_command_line
from sr_jax.data import pack_layout, packed, sources
from sr_jax.models import Compact
from sr_jax.pretrained import generators
from sr_jax.profiling import ceilings
from sr_jax.profiling import run as profile
from sr_jax.step.flat import named_arrays
from sr_jax.system import cli
from tests import kept_programs, smallest

GOLDEN = pathlib.Path(__file__).parent / 'golden'


def pytest_collection_finish() -> None:
  """Lets the garbage collector skip what was imported: a twentieth of the time of all tests."""
  gc.collect()
  gc.freeze()
  gc.set_threshold(20_000, 20, 100)


@pytest.fixture(scope='session', autouse=True)
def _cache(tmp_path_factory):
  """Keeps tests out of the user's cache and compiles each program once for the entire suite.

  All workers of pytest-xdist share the compile cache. SR_JAX_TEST_CACHE names a folder that keeps
  it for the next run of the suite.
  """
  folder = tmp_path_factory.mktemp('cache')
  shared = tmp_path_factory.getbasetemp()
  if 'PYTEST_XDIST_WORKER' in os.environ:
    shared = shared.parent
  shared = pathlib.Path(os.environ.get('SR_JAX_TEST_CACHE') or shared / 'xla').absolute()
  shared.mkdir(parents=True, exist_ok=True)
  (folder / 'xla').symlink_to(shared)  # the place where processes that tests start look for it
  jax.config.update('jax_compilation_cache_dir', str(folder / 'xla'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', 0)
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('SR_JAX_CACHE', str(folder))
    patch.delenv('SR_JAX_VGG19', raising=False)
    kept_programs.keep(patch, str(folder / 'xla'))
    yield


@pytest.fixture(autouse=True)
def _optimisation(request, monkeypatch):
  """Compiles with all optimisations in tests marked `optimised`, and with few in all others."""
  if OPTIMISED or not request.node.get_closest_marker('optimised'):
    yield
    return
  monkeypatch.setenv('JAX_DISABLE_MOST_OPTIMIZATIONS', '0')
  for disabled in (False, True):
    jax.config.update('jax_disable_most_optimizations', disabled)
    jax.clear_caches()  # in which functions are compiled the other way
    if not disabled:
      yield


@pytest.fixture(scope='session')
def assets():
  """The folder of images and weights outside the repository; without it, the test is skipped."""
  folder = os.environ.get('SR_JAX_ASSETS')
  if not folder:
    pytest.skip('SR_JAX_ASSETS is not set')
  return pathlib.Path(folder)


@pytest.fixture(scope='session')
def golden():
  """golden('srresnet') -> (variables, other arrays by name), computed by PyTorch."""
  with np.load(GOLDEN / 'pytorch.npz') as file:
    arrays = dict(file)

  def read(prefix):
    selected = {name.removeprefix(f'{prefix}/'): array for name, array in arrays.items()
                if name.startswith(f'{prefix}/')}
    variables = {name: array for name, array in selected.items()
                 if name.startswith(('params/', 'batch_stats/'))}
    rest = {name: array for name, array in selected.items() if name not in variables}
    return traverse_util.unflatten_dict(variables, sep='/'), rest

  return read


@pytest.fixture(scope='session')
def picture():
  """picture(height, width, seed) -> uint8 [H, W, 3]: smooth waves and some noise."""
  def make(height, width, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    a, b, c = rng.uniform(0.05, 0.4, (3, 3))
    waves = 127 + 90 * np.sin(a * x[..., None] + b * y[..., None] + 6 * c)
    return np.uint8(np.clip(waves + rng.normal(0, 8, waves.shape), 0, 255))
  return make


@pytest.fixture(scope='session')
def folder(tmp_path_factory, picture):
  """A folder of five images of different sizes, portrait and landscape."""
  path = tmp_path_factory.mktemp('pictures')
  for seed, size in enumerate(((40, 52), (61, 34), (33, 33), (48, 90), (70, 45))):
    images.write_image(path / f'{seed}.png', picture(*size, seed))
  return path


@pytest.fixture(scope='session')
def tfds_sets(tmp_path_factory):
  """A TFDS_DATA_DIR with div2k/bicubic_x4, coco/2017 and celeb_a, a few images each."""
  path = tmp_path_factory.mktemp('tfds')
  with zipfile.ZipFile(GOLDEN / 'tfds.zip') as file:
    file.extractall(path)
  return path


@pytest.fixture(scope='session')
def pack_folder(tmp_path_factory):
  """pack_folder(folder, scale, channels) -> packed.Packed of the images below a folder."""
  def pack(folder, scale=2, channels=3):
    found = sources.open_source(f'folder:{folder}', scale)
    return packed.pack(pack_layout.lay_out(found, scale, channels), scale, channels,
                       tmp_path_factory.mktemp('packed') / 'set')
  return pack


@pytest.fixture(scope='session')
def weights(tmp_path_factory):
  """A weight file of a Compact network of scale 2."""
  model = Compact(4, 1, scale=2)
  path = tmp_path_factory.mktemp('weights') / 'small.safetensors'
  variables = filled(model, np.zeros((1, 8, 8, 3), np.float32))
  generators.write_generator(path, 'basicsr', 'compact', model, variables)
  return path


@pytest.fixture
def config(folder):
  """The config of the smallest adversarial experiment: x2, 16-pixel crops, no VGG."""
  config = smallest.get_config()
  config.data.source, config.eval.sets = f'folder:{folder}', str(folder)
  return config


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
  """call(main, 'ARGUMENT', ...) -> (exit status, stdout, stderr); runs in tmp_path."""
  monkeypatch.chdir(tmp_path)

  def run(main, *arguments):
    status = cli.run(lambda: main(list(arguments)))
    captured = capsys.readouterr()
    return status, captured.out, captured.err

  return run


@pytest.fixture(scope='session')
def foreign(tmp_path_factory):
  """foreign('edsr-x2') -> (tensors by name, lr, sr, file of the tensors), computed by PyTorch."""
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
  """The system's Chromium; without it, the test is skipped."""
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


@pytest.fixture
def quick_profile(monkeypatch: pytest.MonkeyPatch) -> None:
  """Lets profiles measure fewer rounds, and the ceilings with small arrays."""
  monkeypatch.setattr(profile, 'PART_ROUNDS', 3)
  monkeypatch.setattr(profile, 'ROW_SECONDS', 0.2)
  monkeypatch.setattr(ceilings, 'MATRIX_SIDE', {'cpu': 512})
  monkeypatch.setattr(ceilings, 'COPY_BYTES', {'cpu': 2**24})
  monkeypatch.setattr(ceilings, 'CHAIN_LENGTHS', (2, 12))


@pytest.fixture(scope='session')
def spandrel() -> Iterator[ModuleType]:
  """The package spandrel.

  It imports torchvision, but does not need it here. A torchvision built for CUDA cannot be
  imported beside a CPU build of PyTorch and is replaced by a mock.
  """
  pytest.importorskip('torch')
  if importlib.util.find_spec('spandrel') is None:
    pytest.skip('spandrel is not installed')
  with pytest.MonkeyPatch.context() as patch:
    try:
      import torchvision  # noqa: F401
    except RuntimeError:
      for name in [name for name in sys.modules if name.split('.')[0] == 'torchvision']:
        patch.delitem(sys.modules, name)
      for name in ('torchvision', 'torchvision.transforms', 'torchvision.transforms.functional'):
        patch.setitem(sys.modules, name, mock.MagicMock())
    import spandrel
    yield spandrel


def foreign_network(name: str) -> tuple[dict, np.ndarray, np.ndarray]:
  """Returns (tensors by name, lr, sr) of a network in foreign.npz, computed by PyTorch."""
  with np.load(GOLDEN / 'foreign.npz') as file:
    shapes, numbers = json.loads(str(file[f'{name}/shapes'])), file[f'{name}/numbers']
    lr, sr = file[f'{name}/lr'], file[f'{name}/sr']
  ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes.values()])
  parts = np.split(numbers, ends[:-1])
  return {key: part.reshape(shape)
          for (key, shape), part in zip(shapes.items(), parts, strict=True)}, lr, sr


def filled(model: nn.Module, lr: np.ndarray, seed: int = 0) -> dict:
  """Returns random variables for a model. Its own initialisers would compile for seconds."""
  shapes = jax.eval_shape(model.init, jax.random.key(0), lr)
  rng = np.random.default_rng(seed)
  return jax.tree_util.tree_map_with_path(
      lambda path, leaf: np.float32(rng.uniform(0.5, 1.5, leaf.shape) if 'var' in str(path[-1])
                                    else rng.normal(0, 0.1, leaf.shape)), shapes)


def interrupt(arguments: list[str], folder: pathlib.Path, ready: Callable[[], bool],
              environment: dict[str, str]) -> tuple[int, str]:
  """Runs `python ARGUMENTS` in a folder and sends it Ctrl-C as soon as `ready()` is true.

  Returns:
    (exit status, stderr).
  """
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
def largest_file(size: int) -> Iterator[None]:
  """Limits files to `size` bytes inside the context, as a full disk does."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def same_bits(a: Any, b: Any) -> list[str]:
  """Returns the names of the leaves that differ in any bit, or in name, shape or type.

  `same_bits(a, b) == []` asserts that two trees are identical.
  """
  a, b = map(named_arrays, (a, b))
  if a.keys() != b.keys():
    return sorted(a.keys() ^ b.keys())
  return [name for name in a if np.asarray(a[name]).tobytes() != np.asarray(b[name]).tobytes()]
