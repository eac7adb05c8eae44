"""Executes the file that registers networks and losses of the user's own."""

import os
import runpy

from sr_jax.errors import InputError, brief
from sr_jax.system import files

VARIABLE = 'SR_JAX_EXTENSION'


def execute() -> None:
  """Executes the file that the environment variable SR_JAX_EXTENSION names, if it is set.

  The file adds entries to `sr_jax.models.GENERATORS` or `sr_jax.losses.PIXEL`. It may be the
  config file of a training, which commands that are given the run do not read.

  Raises:
    InputError: the file can't be executed.
  """
  file = os.environ.get(VARIABLE)
  if not file:
    return
  try:
    runpy.run_path(str(files.expand(file)))
  except OSError as error:
    raise InputError(f'{VARIABLE}={file}: {error.strerror or error}') from None
  except Exception as error:  # whatever the user's code raises
    raise InputError(f'{VARIABLE}={file}: {type(error).__name__}: {brief(str(error), 200)}'
                     ) from None


def advice(registry: str) -> str:
  """Returns where an entry of a registry, such as 'sr_jax.losses.PIXEL', can come from."""
  file = os.environ.get(VARIABLE)
  return (f'{file}, which {VARIABLE} names, does not add it to {registry}' if file else
          f'one of your own is added to {registry} by a file that {VARIABLE}=FILE.py names, or '
          'by the config file')
