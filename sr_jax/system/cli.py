"""What the command lines share: one clear line for what is wrong, and the exit status."""

import argparse
import ast
import functools
import os
import pathlib
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from sr_jax.errors import InputError
from sr_jax.system import files


class Parser(argparse.ArgumentParser):
  """argparse, whose complaints are one line and whose --help keeps the examples' lines."""

  def __init__(self, prog: str, doc: str):
    super().__init__(prog, description=doc, allow_abbrev=False,
                     formatter_class=argparse.RawDescriptionHelpFormatter)

  def error(self, message: str):
    raise InputError(message)


def path(text: str) -> pathlib.Path:
  """The type of an argument that names a file or a folder."""
  if not text:
    raise argparse.ArgumentTypeError('the empty name (a variable that is not set?)')
  return files.expand(text)


def parse_fields(settings: Sequence[str]) -> dict[str, Any]:
  """['residual_scale=0.1', 'activation=relu'] to {'residual_scale': 0.1, 'activation': 'relu'}.

  Raises:
    InputError: one without a name or a value.
  """
  fields = {}
  for setting in settings:
    name, _, value = setting.partition('=')
    if not name.isidentifier() or not value or name in fields:
      raise InputError(f'--set {setting}: expected FIELD=VALUE, each once')
    try:
      fields[name] = ast.literal_eval(value)
    except (ValueError, SyntaxError):
      fields[name] = value
  return fields


def add_file_options(parser: argparse.ArgumentParser) -> None:
  """--set and --key: what a weight file does not tell, and where in it the weights lie."""
  parser.add_argument('--set', action='append', default=[], metavar='FIELD=VALUE',
                      help='a field of the network that the file does not tell; sr_jax/models '
                      'has them all')
  parser.add_argument('--key', default='', help='of a .pth: what its weights lie under, such as '
                      'params (params_ema is taken where there is one)')


def run(command: Callable[[], int | None]) -> int:
  """The exit status of `command()`: its own, 1 if the input was wrong, 130 after Ctrl-C."""
  others = sys.unraisablehook
  sys.unraisablehook = functools.partial(_unraisable, others)
  try:
    status = command() or 0
    try:
      sys.stdout.flush()
    except OSError:
      _to_nobody(sys.stdout)
      if not status:  # a status that tells more stays
        raise
    return status
  except InputError as error:
    return refuse(str(error), 1)
  except KeyboardInterrupt:
    return refuse('interrupted', 130)
  except BrokenPipeError:  # whoever read the output has enough of it
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141
  except MemoryError:
    return refuse('not enough memory', 1)
  except OSError as error:
    return refuse(f'{error.filename or "output"}: {error.strerror or error}', 1)
  finally:
    sys.unraisablehook = others


def leave(status: int) -> None:
  """Ends the process; after Ctrl-C at once, for XLA's threads that still compute may crash one
  that tidies up after itself.
  """
  if status == 130:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
  sys.exit(status)


def _unraisable(others: Callable, lost) -> None:
  """Where nothing can be raised (JAX is asked at each garbage collection) Ctrl-C would be lost."""
  if lost.exc_type is KeyboardInterrupt:
    threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
  else:
    others(lost)


def refuse(message: str, status: int) -> int:
  try:
    print('sr_jax:', ' '.join(message.splitlines()), file=sys.stderr, flush=True)
  except OSError:  # a terminal that is gone; the status is still told
    _to_nobody(sys.stderr)
  return status


def _to_nobody(stream) -> None:
  """What is still to be written, at the latest as Python ends, would fail again."""
  os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
