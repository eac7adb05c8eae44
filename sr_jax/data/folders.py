"""Image files in folders: finding them, pairing them by name, and choosing output paths."""

import collections
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence

from sr_jax.errors import InputError, listed
from sr_jax.images import SUFFIXES

# (name in the first set, its file, the file of its partner in the second set)
NamedPair = tuple[str, pathlib.Path, pathlib.Path]


def image_files(folder: pathlib.Path, suffixes: Sequence[str] = SUFFIXES) -> list[pathlib.Path]:
  """Returns all image files below a folder, sorted; hidden files and folders are skipped.

  Symbolic links are followed; a folder that is reached a second time is skipped.

  Raises:
    InputError: the folder does not exist, cannot be read, or has no image below it.
  """
  if not folder.is_dir():
    raise InputError(f'{folder}: no such folder')
  found, visited, unreadable = [], set(), []
  for place, subfolders, names in os.walk(folder, onerror=unreadable.append, followlinks=True):
    real = os.path.realpath(place)
    if real in visited:  # a symbolic link leads back to it
      subfolders.clear()
      continue
    visited.add(real)
    subfolders[:] = sorted(name for name in subfolders if not name.startswith('.'))
    found += [path for name in names if not name.startswith('.')
              and (path := pathlib.Path(place, name)).suffix.lower() in suffixes
              and path.is_file()]
  if not found and unreadable:
    raise InputError(f'{unreadable[0].filename}: {unreadable[0].strerror.lower()}')
  if not found:
    raise InputError(f'{folder}: contains no images ({", ".join(suffixes)})')
  return sorted(found)


def images_by_name(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Returns all images below a folder by their path in it, without the suffix if that is unique.

  Raises:
    InputError: the folder does not exist or has no image below it.
  """
  paths = image_files(folder)
  counts = collections.Counter(path.with_suffix('') for path in paths)
  counts.update(paths)  # 'a.png.png' without its suffix clashes with 'a.png'
  return {(path if counts[path.with_suffix('')] > 1 else path.with_suffix(''))
          .relative_to(folder).as_posix(): path for path in paths}


def plain_names(name: str, scale: int) -> list[str]:
  """Returns the name, then the name with one, two, ... of the endings removed that tools append.

  'baby_x4_SR' gives itself, 'baby_x4' and 'baby'. Endings such as those of 'babyx4', 'baby_out'
  and 'baby_SRF_4_HR' are removed as well; an x followed by another number than `scale` is kept.
  """
  ending = re.compile(rf'(?<=[^/])([_-]?x{scale}|[_-](sr|hr|lr|gt|out|srf_{scale}))$', re.I)
  names = [name]
  while (shorter := ending.sub('', names[-1])) != names[-1]:
    names.append(shorter)
  return names


def pair_by_name(first: dict[str, pathlib.Path], second: dict[str, pathlib.Path],
                 scale: int) -> tuple[list[NamedPair], list[pathlib.Path]]:
  """Pairs files of equal names, removing as few endings as possible (`plain_names`).

  Args:
    first, second: files by name, as returned by `images_by_name`.
    scale: HR / LR.

  Returns:
    (pairs, files without a partner). If two files of `second` match the same file, or a file of
    `second` matches several files of `first`, none of them is paired.
  """
  shortened = collections.defaultdict(list)
  for name in first:
    for short in plain_names(name, scale)[1:]:
      shortened[short].append(name)
  candidates = collections.defaultdict(list)  # names in second for each name in first
  for name in second:
    choices = ([short] if short in first else shortened.get(short, [])
               for short in plain_names(name, scale))
    matches = next(filter(None, choices), [])
    if len(matches) == 1:
      candidates[matches[0]].append(name)
  pairs = [(name, first[name], second[candidates[name][0]]) for name in first
           if len(candidates[name]) == 1]
  paired = {path for _, *paths in pairs for path in paths}
  return pairs, [path for path in (*first.values(), *second.values()) if path not in paired]


def partners(first: dict[str, pathlib.Path], second: dict[str, pathlib.Path], scale: int,
             advice: str = '', most: int | None = 20) -> list[NamedPair]:
  """Pairs files by name (`pair_by_name`) and requires that all of them have a partner.

  Args:
    first, second, scale: see `pair_by_name`.
    advice: added to the error message.
    most: how many files the error message lists; None lists all of them.

  Raises:
    InputError: files without a partner, which the message lists.
  """
  pairs, unpaired = pair_by_name(first, second, scale)
  if unpaired:
    raise InputError(f'{len(unpaired)} images without a partner of the same name{advice}: '
                     + listed(unpaired, most))
  return pairs


def output_paths(inputs: Sequence[pathlib.Path], folder: pathlib.Path,
                 suffixes: Sequence[str] = SUFFIXES,
                 suffix: Callable[[pathlib.Path], str] = lambda path: '.png',
                 roots: Mapping[pathlib.Path, pathlib.Path] | None = None
                 ) -> list[tuple[pathlib.Path, pathlib.Path]]:
  """Chooses an output path in `folder` for each input file and each file in an input folder.

  The structure of input folders is kept. Outputs whose names would differ only in the suffix of
  the input keep that suffix in their names.

  Args:
    inputs: files and folders.
    folder: output folder.
    suffixes: suffixes of the files that are read from folders.
    suffix: returns the suffix of the output for an input file.
    roots: for some of the inputs, a folder that contains them; their path relative to it is kept.

  Returns:
    [(input file, output file)].

  Raises:
    InputError: an input does not exist; `folder` is a file or lies in an input folder; two inputs
      have the same output, or an input would be overwritten.
  """
  stems, roots = {}, roots or {}
  for path in inputs:
    inside = path.relative_to(roots[path]) if path in roots else pathlib.Path()
    if not path.is_dir():
      if not path.is_file():
        raise InputError(f'{path}: no such file or folder' if not path.exists()
                         else f'{path}: not a regular file')
      stems[path] = folder / inside.parent / path.stem
      continue
    if folder.resolve().is_relative_to(path.resolve()):
      raise InputError(f'{folder}: is inside the input folder {path}; choose another output folder')
    stems |= {file: folder / inside / file.relative_to(path).with_suffix('')
              for file in image_files(path, suffixes)}
  if folder.is_file():
    raise InputError(f'{folder}: is a file, expected an output folder')
  return refuse_originals(_without_clashes(stems, suffix))


def _without_clashes(stems: dict[pathlib.Path, pathlib.Path],
                     suffix: Callable[[pathlib.Path], str]) -> dict[pathlib.Path, pathlib.Path]:
  """Returns the output of each input, given the output without its suffix.

  Raises:
    InputError: two inputs have the same output.
  """
  counts = collections.Counter(stems.values())
  outputs = {path: stem.with_name((path if counts[stem] > 1 else stem).name + suffix(path))
             for path, stem in stems.items()}
  counts = collections.Counter(outputs.values())
  clashes = [path for path, output in outputs.items() if counts[output] > 1]
  if clashes:
    raise InputError(f'several images with the same output name: {listed(clashes)}')
  return outputs


def refuse_originals(
    outputs: dict[pathlib.Path, pathlib.Path]) -> list[tuple[pathlib.Path, pathlib.Path]]:
  """Returns the (input, output) pairs if no output would overwrite an input.

  Raises:
    InputError: an output is one of the inputs.
  """
  originals = {path.resolve() for path in outputs}
  for output in outputs.values():
    if output.resolve() in originals:
      raise InputError(f'{output}: would overwrite an input image')
  return list(outputs.items())
