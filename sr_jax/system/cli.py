"""Shared parts of the command lines: argument parser, one-line errors and exit status."""

import argparse
import ast
import contextlib
import difflib
import functools
import math
import os
import pathlib
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, TextIO

from sr_jax.errors import InputError
from sr_jax.system import files, user_code


class Parser(argparse.ArgumentParser):
  """An `ArgumentParser` that raises `InputError` and keeps the line breaks of its description."""

  def __init__(self, prog: str, doc: str) -> None:
    super().__init__(prog, description=doc, allow_abbrev=False,
                     formatter_class=argparse.RawDescriptionHelpFormatter)

  def error(self, message: str) -> NoReturn:
    raise InputError(message)

  def parse_known_args(self, args: Sequence[str] | None = None,
                       namespace: argparse.Namespace | None = None
                       ) -> tuple[argparse.Namespace, list[str]]:
    """Parses as `ArgumentParser` does, but names an unknown flag before anything else.

    Otherwise a mistyped `--workdir` would be reported as a missing one. A flag whose last value
    would silently replace the others may be given only once.

    Raises:
      InputError: an unknown or repeated flag, or what `error` reports.
    """
    args = list(sys.argv[1:] if args is None else args)
    given = set()
    for argument in args:
      if argument == '--' or (self._subparsers and not argument.startswith('-')):
        break  # what follows are no flags, or those of another parser
      name = argument.partition('=')[0]
      if _is_flag(argument) and name not in self._option_string_actions:
        raise InputError(f'{argument}: unknown flag; '
                         + suggestion(name, self._option_string_actions))
      action = self._option_string_actions.get(name) if _is_flag(argument) else None
      if isinstance(action, argparse._StoreAction):
        if action in given:
          raise InputError(f'{name}: is given twice; give it once'
                           + ', followed by all its values' * (action.nargs == '+'))
        given.add(action)
    return super().parse_known_args(args, namespace)


def path(text: str) -> pathlib.Path:
  """Converts an argument that names a file or a folder; for `type=` of `add_argument`."""
  if not text:
    raise argparse.ArgumentTypeError('the name is empty (is a shell variable not set?)')
  return files.expand(text)


def suggestion(flag: str, known: Iterable[str]) -> str:
  """Returns a question for the known flag that is most similar to an unknown one, or advice.

  Args:
    flag, known: with or without leading hyphens.
  """
  names = [name.lstrip('-') for name in known if not name.startswith('-') or name[1] == '-']
  near = difflib.get_close_matches(flag.lstrip('-').lower(), names, 1)
  return f'did you mean --{near[0]}?' if near else 'see --help'


def _is_flag(argument: str) -> bool:
  """Returns whether argparse takes an argument for a flag: negative numbers are values."""
  if not argument.startswith('-') or argument == '-' or ' ' in argument.partition('=')[0]:
    return False
  try:
    float(argument)
  except ValueError:
    return True
  return False


def number(kind: Callable[[str], float], minimum: float, maximum: float
           ) -> Callable[[str], float]:
  """Returns the argparse type of a number in [minimum, maximum]; kind is int or float."""
  def parse(text: str) -> float:
    try:
      value = kind(text)
    except ValueError:
      value = math.nan
    if not minimum <= value <= maximum:
      noun = 'an integer' if kind is int else 'a number'
      raise argparse.ArgumentTypeError(f'{text!r}: expected {noun} from {minimum:,} to {maximum:,}')
    return value
  return parse


def parse_fields(settings: Sequence[str]) -> dict[str, Any]:
  """Parses the settings of --set, ['residual_scale=0.1', 'activation=relu'].

  Returns:
    {'residual_scale': 0.1, 'activation': 'relu'}: Python literals, otherwise strings.

  Raises:
    InputError: a setting has no name or no value, or a name occurs twice.
  """
  fields = _split('--set', settings, 'FIELD=VALUE, and each field', str.isidentifier)
  for name, value in fields.items():
    with contextlib.suppress(ValueError, SyntaxError):  # otherwise it stays a string
      fields[name] = ast.literal_eval(value)
  return fields


def parse_texts(entries: Sequence[str]) -> dict[str, str]:
  """Parses the entries of --metadata, ['licence=CC0', ...], to {'licence': 'CC0', ...}.

  Raises:
    InputError: an entry has no name or no text, or a name occurs twice.
  """
  return _split('--metadata', entries, 'KEY=TEXT, and each key', str.strip)


def _split(flag: str, entries: Sequence[str], form: str, is_name: Callable[[str], Any]
           ) -> dict[str, str]:
  found = {}
  for entry in entries:
    name, _, text = entry.partition('=')
    if not is_name(name) or not text or name in found:
      raise InputError(f'{flag} {entry}: expected {form} only once')
    found[name] = text
  return found


def add_file_options(parser: argparse.ArgumentParser) -> None:
  """Adds --set and --key, which describe what a weight file does not state, and --import."""
  parser.add_argument('--set', action='append', default=[], metavar='FIELD=VALUE',
                      help='a field of the network that the file does not state; sr_jax/models '
                      'lists all fields')
  parser.add_argument('--key', default='', help='for a .pth: the key of its weights, such as '
                      'params (by default params_ema, if the file has it)')
  add_import_option(parser)


def add_import_option(parser: argparse.ArgumentParser) -> None:
  """Adds --import, which allows runs and weight files to name code of a module."""
  parser.add_argument('--import', action='append', type=_imported, metavar='MODULE',
                      help='import a module of your own, such as my, so that a run or a weight '
                      "file may name a network in it ('my:Net'); may be given several times")


def allow_import(module: str) -> None:
  """Imports a module that the command line names, and allows runs and weight files to name it.

  Raises:
    InputError: it is not the name of a module, or cannot be imported.
  """
  user_code.allow_import(module)
  user_code.import_module(module, repr(module))


def _imported(module: str) -> str:
  try:
    allow_import(module)
  except InputError as error:
    raise argparse.ArgumentTypeError(str(error)) from None
  return module


def run(command: Callable[[], int | None]) -> int:
  """Calls `command` and turns exceptions that users cause into one line on stderr.

  Returns:
    The exit status: that of `command`, 1 if the input was wrong, 130 after Ctrl-C, 141 if the
    reader of the output closed the pipe.
  """
  previous_hook = sys.unraisablehook
  sys.unraisablehook = functools.partial(_reraise_interrupt, previous_hook)
  try:
    status = command() or 0
    try:
      sys.stdout.flush()
    except OSError:
      _discard_output(sys.stdout)
      if not status:  # a status other than 0 says more than the failed flush
        raise
    return status
  except InputError as error:
    return refuse(str(error), 1)
  except KeyboardInterrupt:
    return refuse('interrupted', 130)
  except BrokenPipeError:  # for example `| head`
    _discard_output(sys.stdout)
    return 141
  except MemoryError:
    return refuse('not enough memory', 1)
  except OSError as error:
    return refuse(f'{error.filename or "output"}: {error.strerror or error}', 1)
  finally:
    sys.unraisablehook = previous_hook


def leave(status: int) -> NoReturn:
  """Ends the process with an exit status.

  After Ctrl-C it ends without Python's cleanup, during which XLA threads that are still
  computing may crash.
  """
  if status == 130:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
  sys.exit(status)


def refuse(message: str, status: int) -> int:
  """Prints a message as one line on stderr and returns `status`."""
  try:
    print('sr_jax:', ' '.join(message.splitlines()), file=sys.stderr, flush=True)
  except OSError:  # the terminal was closed; the exit status still reports the failure
    _discard_output(sys.stderr)
  return status


def _reraise_interrupt(previous_hook: Callable[[Any], object], unraisable: Any) -> None:
  """Sends SIGINT again if Ctrl-C arrived where Python cannot raise.

  JAX registers a garbage collection callback, so this happens in practice.
  """
  if unraisable.exc_type is KeyboardInterrupt:
    # Sent while this hook still runs, it would be lost again; a busy machine may pause the hook.
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
  else:
    previous_hook(unraisable)


def _discard_output(stream: TextIO) -> None:
  """Redirects a broken stream to /dev/null, because flushing it at exit would fail again."""
  os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
