"""Finds and reads the runs of a report: run folders, and folders of runs."""

import os
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from sr_jax.errors import InputError, count_of
from sr_jax.report import history
from sr_jax.report.history import History
from sr_jax.runs.folder import RunFolder
from sr_jax.system import files


class Runs(NamedTuple):
  """The runs of a report.

  Attributes:
    histories: the runs, those of a folder in natural order.
    folder: the folder of runs, if the report is about that alone; otherwise None.
    notes: a line for each subfolder that is no readable run.
  """

  histories: list[History]
  folder: pathlib.Path | None
  notes: list[str]


def read(paths: Sequence[os.PathLike | str]) -> Runs:
  """Reads runs; a folder whose subfolders are runs stands for these.

  Raises:
    InputError: nothing is given, or a folder is no run and contains none.
  """
  folders, inside, notes = [], [], []
  for path in map(files.expand, paths):
    subfolders = runs_inside(path)
    if path.is_dir() and not RunFolder(path).config.exists() and not subfolders:
      raise InputError(f'{path}: not a run folder (no config.json), and contains none')
    if not subfolders or RunFolder(path).config.exists():
      folders.append(path)
    else:
      inside.append(path)
      folders += subfolders
      notes += [f'{part}: not a run, it has no config.json' for part in _visible_folders(path)
                if part not in subfolders]
  if not inside:
    return Runs(history.read_all(folders), None, notes)
  histories = []
  for folder in {path.resolve(): path for path in folders}.values():
    try:
      histories.append(history.read(folder))
    except InputError as error:
      if folder in [files.expand(path) for path in paths]:
        raise
      notes.append(str(error))
  if not histories:
    raise InputError(f'{inside[0]}: none of {count_of(folders, "run")} in it can be read; '
                     f'{notes[-1]}')
  return Runs(histories, inside[0] if len(paths) == 1 else None, notes)


def runs_inside(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the subfolders that have a config.json, in natural order: 1e-4, 3e-4, 1e-3."""
  return [path for path in _visible_folders(folder) if RunFolder(path).config.exists()]


def _visible_folders(folder: pathlib.Path) -> list[pathlib.Path]:
  if not folder.is_dir():
    return []
  return sorted((path for path in folder.iterdir()
                 if path.is_dir() and not path.name.startswith('.')),
                key=lambda path: _natural(path.name))


def _natural(name: str) -> list[str | float]:
  """Returns a key that sorts names by the numbers in them: '1e-4' before '3e-4' and '1e-3'."""
  parts = re.split(r'(\d+(?:\.\d+)?(?:e[+-]?\d+)?)', name.lower())
  return [float(part) if index % 2 else part for index, part in enumerate(parts)]
