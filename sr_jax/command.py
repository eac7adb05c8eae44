"""What the command lines share: one clear line for what is wrong, and the exit status."""

import argparse
import sys
from collections.abc import Callable

from sr_jax.errors import InputError


class Parser(argparse.ArgumentParser):
  """argparse, whose complaints are one line and whose --help keeps the examples' lines."""

  def __init__(self, prog: str, doc: str):
    super().__init__(prog, description=doc, allow_abbrev=False,
                     formatter_class=argparse.RawDescriptionHelpFormatter)

  def error(self, message: str):
    raise InputError(message)


def run(command: Callable[[], int | None]) -> int:
  """The exit status of `command()`: its own, 1 if the input was wrong, 130 after Ctrl-C."""
  try:
    return command() or 0
  except InputError as error:
    return refuse(str(error), 1)
  except KeyboardInterrupt:
    return refuse('interrupted', 130)


def refuse(message: str, status: int) -> int:
  print(f'sr_jax: {message}', file=sys.stderr)
  return status
