"""What the command lines share: one clear line for what is wrong, and the exit status."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import tqdm

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


def on_all_cores(function: Callable, items: Sequence) -> list:
  """[function(item), ...] by as many threads as there are cores, behind a progress bar.

  For work on pictures: NumPy, zlib, the decoders and XLA all release the interpreter's lock.
  The first error, or Ctrl-C, is raised after what is in hand; the rest is not begun.
  """
  with ThreadPoolExecutor(os.cpu_count()) as pool:
    results = pool.map(function, items)
    try:
      return list(tqdm.tqdm(results, total=len(items), unit=' pictures', leave=False,
                            disable=None))
    except BaseException:
      pool.shutdown(wait=False, cancel_futures=True)
      raise


def refuse(message: str, status: int) -> int:
  print(f'sr_jax: {message}', file=sys.stderr)
  return status
