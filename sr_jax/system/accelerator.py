"""Names the devices that JAX uses, and finds out whether a GPU is there that it does not use."""

import importlib.util
import os
import pathlib
import shutil
import subprocess
from collections.abc import Mapping

import jax

PLUGINS = ('jax_cuda13_plugin', 'jax_cuda12_plugin')
# Values of CUDA_VISIBLE_DEVICES and NVIDIA_VISIBLE_DEVICES with which no GPU is expected.
NONE_VISIBLE = ('', '-1', 'none', 'void', 'NoDevFiles')


def describe_devices(count: int) -> str:
  """Returns a line such as 'Device: 1 x NVIDIA H200, jax 0.10.2', with a warning if one is missing.

  Args:
    count: the number of devices that share the work.
  """
  kind = jax.devices()[0].device_kind
  missing = missing_gpu(os.environ) if jax.default_backend() == 'cpu' else ''
  return f'Device: {count} x {kind}, jax {jax.__version__}' + (missing and f'; warning: {missing}')


def missing_gpu(environment: Mapping[str, str], root: pathlib.Path = pathlib.Path('/')) -> str:
  """Returns why an NVIDIA GPU is expected although JAX uses the CPU, and what to do; '' if none is.

  A user who sets JAX_PLATFORMS=cpu or an empty CUDA_VISIBLE_DEVICES wants the CPU.

  Args:
    environment: the environment variables.
    root: the folder that holds dev/.
  """
  if 'cpu' in environment.get('JAX_PLATFORMS', '').split(',')[:1] or (
      environment.get('CUDA_VISIBLE_DEVICES') in NONE_VISIBLE):
    return ''
  sign = _sign_of_gpu(environment, root)
  plugin = next(filter(importlib.util.find_spec, PLUGINS), None)
  if sign and plugin:
    return (f'{sign}, but JAX uses the CPU although {plugin} is installed; check the driver '
            '(nvidia-smi), or set JAX_PLATFORMS=cuda to see the reason')
  if sign:
    return (f'{sign}, but JAX uses the CPU; install the plugin for the GPU with pip install '
            '"jax[cuda13]", or set JAX_PLATFORMS=cpu')
  if plugin:
    return (f'{plugin} is installed, but JAX finds no GPU and uses the CPU; check the driver '
            '(nvidia-smi), or set JAX_PLATFORMS=cpu')
  return ''


def _sign_of_gpu(environment: Mapping[str, str], root: pathlib.Path) -> str:
  """Returns what indicates that there is a GPU, or ''."""
  found = sorted((root / 'dev').glob('nvidia[0-9]*'))
  if found:
    return f'this machine has an NVIDIA GPU ({found[0]})'
  visible = environment.get('NVIDIA_VISIBLE_DEVICES', '')
  if visible not in NONE_VISIBLE:
    return f'NVIDIA_VISIBLE_DEVICES={visible} gives this container a GPU'
  program = shutil.which('nvidia-smi', path=environment.get('PATH'))
  if program:
    try:
      output = subprocess.run([program, '-L'], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
      return ''
    return f'nvidia-smi lists {output.splitlines()[0]}' if output.startswith('GPU') else ''
  return ''
