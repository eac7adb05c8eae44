"""Trains, evaluates and applies super-resolution networks.

Usage: sr-jax COMMAND ...

  sr-jax train --config srgan:sample
  sr-jax upscale photo.jpg --output out --weights realesrgan-x4plus

Commands:
  train     trains a network, or resumes a run
  evaluate  scores a run on benchmark sets
  profile   measures how long the parts of a training step take
  replay    repeats a logged training step
  summary   prints the networks of an experiment layer by layer
  examples  draws training examples, with their degradations in words
  upscale   upscales images and videos
  score     scores images against their originals
  resize    resizes images as MATLAB's imresize does
  weights   inspects, imports, exports and interpolates weight files
  report    writes HTML reports of runs, and comparison figures
  app       serves a web page that upscales images

sr-jax COMMAND --help describes a command; sr-jax --version prints the version.
"""

import difflib
import functools
import importlib
import os
import sys
from typing import NoReturn

import sr_jax
from sr_jax.errors import brief
from sr_jax.system import cli

# The modes of sr_jax.main.
RUN_COMMANDS = ('train', 'evaluate', 'profile', 'replay', 'summary', 'examples')
MODULES = {'upscale': 'sr_jax.upscale', 'score': 'sr_jax.score', 'resize': 'sr_jax.resize',
           'weights': 'sr_jax.weights', 'report': 'sr_jax.report.__main__',
           'app': 'sr_jax.app.__main__'}


def main() -> NoReturn:
  """Runs the command line `sr-jax COMMAND ...` and exits."""
  # Processes that decode images would otherwise search the current folder first, so that a file in
  # a downloaded folder, such as socket.py, would take the place of a module of Python.
  os.environ['PYTHONSAFEPATH'] = '1'
  cli.leave(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
  """Runs a command line, without the program's name, and returns the exit status.

  A command is imported when it is called, so that --help is answered at once.
  """
  command, *rest = argv or ['--help']
  if command in ('--help', '-h', '--version'):
    if rest:
      return cli.refuse(f'{brief(rest[0], 80)}: {command} does not use it; sr-jax COMMAND --help '
                        'describes a command', 1)
    text = f'sr_jax {sr_jax.__version__}' if command == '--version' else __doc__
    return cli.run(functools.partial(print, text)) or int(not argv)
  if command in RUN_COMMANDS:
    from sr_jax import main as training
    return training.main([f'sr-jax {command}', *rest], command)
  if command in MODULES:
    return cli.run(functools.partial(_call, MODULES[command], rest))
  known = [*RUN_COMMANDS, *MODULES]
  similar = difflib.get_close_matches(command.lower(), known, 1)
  return cli.refuse(f'{brief(command, 80)}: no such command: expected one of {", ".join(known)}'
                    + (f'; did you mean sr-jax {similar[0]}?' if similar else ''), 1)


def _call(module: str, argv: list[str]) -> int | None:
  return importlib.import_module(module).main(argv)


if __name__ == '__main__':
  main()
