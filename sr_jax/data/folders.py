"""Files: found, paired by name, and where results go."""

import collections
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence

from sr_jax.errors import InputError, listed
from sr_jax.images import SUFFIXES


def _pictures_below(folder: pathlib.Path,
                    suffixes: Sequence[str] = SUFFIXES) -> list[pathlib.Path]:
  if not folder.is_dir():
    raise InputError(f'{folder}: no such folder')
  found, seen, unreadable = [], set(), []
  for place, folders, names in os.walk(folder, onerror=unreadable.append, followlinks=True):
    real = os.path.realpath(place)
    if real in seen:  # a link led back
      folders.clear()
      continue
    seen.add(real)
    folders[:] = sorted(name for name in folders if not name.startswith('.'))
    found += [path for name in names if not name.startswith('.')
              and (path := pathlib.Path(place, name)).suffix.lower() in suffixes
              and path.is_file()]
  if not found and unreadable:
    raise InputError(f'{unreadable[0].filename}: {unreadable[0].strerror.lower()}')
  if not found:
    raise InputError(f'{folder}: no picture in it ({", ".join(suffixes)})')
  return sorted(found)


def images_by_name(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Every picture below a folder by its path in it, without the suffix where that is unique.

  Raises:
    InputError: a missing or an empty folder.
  """
  paths = _pictures_below(folder)
  times = collections.Counter(path.with_suffix('') for path in paths)
  times.update(paths)  # 'a.png.png' beside 'a.png'
  return {(path if times[path.with_suffix('')] > 1 else path.with_suffix(''))
          .relative_to(folder).as_posix(): path for path in paths}


def plain_names(name: str, scale: int) -> list[str]:
  """A name, then without one and all of what tools append, step by step.

  'baby_x4_SR' gives itself, 'baby_x4' and 'baby'; so are 'babyx4', 'baby_out' and
  'baby_SRF_4_HR' understood. An x and another number than `scale` stays.
  """
  ending = re.compile(rf'(?<=[^/])([_-]?x{scale}|[_-](sr|hr|lr|gt|out|srf_{scale}))$', re.I)
  names = [name]
  while (shorter := ending.sub('', names[-1])) != names[-1]:
    names.append(shorter)
  return names


def pair_by_name(first: dict[str, pathlib.Path], second: dict[str, pathlib.Path], scale: int):
  """Partners of one name, as little as possible taken off it (`plain_names`).

  Args:
    first, second: files by name, as `named` has them.

  Returns:
    ([(name in first, its file, its partner)], [files without a partner]). Two files of
    second that want the same partner get none, nor does one that has several to choose from.
  """
  shortened = collections.defaultdict(list)
  for name in first:
    for short in plain_names(name, scale)[1:]:
      shortened[short].append(name)
  wanted = collections.defaultdict(list)
  for name in second:
    choices = ([short] if short in first else shortened.get(short, [])
               for short in plain_names(name, scale))
    found = next(filter(None, choices), [])
    if len(found) == 1:
      wanted[found[0]].append(name)
  pairs = [(name, first[name], second[wanted[name][0]]) for name in first
           if len(wanted[name]) == 1]
  taken = {path for _, *paths in pairs for path in paths}
  return pairs, [path for path in (*first.values(), *second.values()) if path not in taken]


def partners(first: dict[str, pathlib.Path], second: dict[str, pathlib.Path], scale: int,
             advice: str = '', most: int | None = 20):
  """The pairs of `pair_by_name`.

  Raises:
    InputError: listing the files without a partner, at most so many, and the advice.
  """
  pairs, alone = pair_by_name(first, second, scale)
  if alone:
    raise InputError(f'{len(alone)} without a partner of the same name{advice}: '
                     + listed(alone, most))
  return pairs


def output_paths(places: Sequence[pathlib.Path], folder: pathlib.Path,
            suffixes: Sequence[str] = SUFFIXES,
            suffix: Callable[[pathlib.Path], str] = lambda path: '.png',
            roots: Mapping[pathlib.Path, pathlib.Path] | None = None
            ) -> list[tuple[pathlib.Path, pathlib.Path]]:
  """(picture, what is made of it in `folder`) of pictures and of all pictures in folders.

  A folder's structure is kept. Where names differ by the suffix alone, they keep it.

  Args:
    suffixes: of what is taken from folders.
    suffix: of what is made.
    roots: of places: folders that they lie in, and from which on their own path is kept.

  Raises:
    InputError: nothing there; `folder` is a file or lies in a folder that is read; two
      pictures of one name, or one that would be overwritten.
  """
  stems, roots = {}, roots or {}
  for place in places:
    inside = place.relative_to(roots[place]) if place in roots else pathlib.Path()
    if not place.is_dir():
      if not place.is_file():
        raise InputError(f'{place}: no such file or folder' if not place.exists()
                         else f'{place}: no regular file')
      stems[place] = folder / inside.parent / place.stem
      continue
    if folder.resolve().is_relative_to(place.resolve()):
      raise InputError(f'{folder}: lies in {place}, whose pictures are read; name another folder')
    stems |= {path: folder / inside / path.relative_to(place).with_suffix('')
              for path in _pictures_below(place, suffixes)}
  if folder.is_file():
    raise InputError(f'{folder}: is a file; pictures need a folder')
  times = collections.Counter(stems.values())
  found = {path: stem.with_name((path if times[stem] > 1 else stem).name + suffix(path))
           for path, stem in stems.items()}
  times = collections.Counter(found.values())
  clashes = [path for path, target in found.items() if times[target] > 1]
  if clashes:
    raise InputError(f'several pictures of one name: {listed(clashes)}')
  return refuse_originals(found)


def refuse_originals(
    targets: dict[pathlib.Path, pathlib.Path]) -> list[tuple[pathlib.Path, pathlib.Path]]:
  """The items, if none of the originals would be overwritten.

  Raises:
    InputError: one would.
  """
  originals = {path.resolve() for path in targets}
  for target in targets.values():
    if target.resolve() in originals:
      raise InputError(f'{target}: would overwrite an original')
  return list(targets.items())
