"""Where pictures come from: a spec to a list of files, files to pairs."""

import collections
import importlib.resources
import os
import pathlib
import re

from sr_jax import files
from sr_jax.errors import InputError
from sr_jax.images import SUFFIXES

# Pictures inside scikit-image's wheel (public domain or CC0), so that `:sample` runs
# without a network. The cat is never trained on.
SAMPLE_TRAIN = ('astronaut.png', 'camera.png', 'coffee.png', 'hubble_deep_field.jpg', 'ihc.png',
                'motorcycle_left.png', 'rocket.jpg')
SAMPLE_VALID = ('chelsea.png',)


def open_source(spec: str) -> list[pathlib.Path]:
  """The picture files that a spec names, sorted, so that an index means the same tomorrow.

  Args:
    spec: 'sample', the training pictures shipped inside scikit-image; 'sample:valid', the
      held-out one; 'folder:PATH', every picture below PATH, hidden ones left out.

  Raises:
    InputError: an unknown spec, a missing or an empty folder.
  """
  kind, _, rest = spec.partition(':')
  if kind == 'sample' and rest in ('', 'train', 'valid'):
    root = importlib.resources.files('skimage') / 'data'
    return [pathlib.Path(str(root / name)) for name in
            (SAMPLE_VALID if rest == 'valid' else SAMPLE_TRAIN)]
  if kind == 'folder' and rest:
    return _pictures_below(files.expand(rest))
  raise InputError(f"data source {spec!r}: expected 'sample', 'sample:valid' or 'folder:PATH'")


def _pictures_below(folder: pathlib.Path) -> list[pathlib.Path]:
  if not folder.is_dir():
    hint = ''
    if 'DIV2K' in folder.parts:
      hint = ("; README.md says how to download DIV2K; the config's variant ':sample' needs no "
              'download, --config.data.valid=sample:valid no validation pictures')
    raise InputError(f'{folder}: no such folder{hint}')
  found, seen, unreadable = [], set(), []
  for place, folders, names in os.walk(folder, onerror=unreadable.append, followlinks=True):
    real = os.path.realpath(place)
    if real in seen:  # a link led back
      folders.clear()
      continue
    seen.add(real)
    folders[:] = sorted(name for name in folders if not name.startswith('.'))
    found += [path for name in names if not name.startswith('.')
              and (path := pathlib.Path(place, name)).suffix.lower() in SUFFIXES
              and path.is_file()]
  if not found and unreadable:
    raise InputError(f'{unreadable[0].filename}: {unreadable[0].strerror.lower()}')
  if not found:
    raise InputError(f'{folder}: no picture in it ({", ".join(SUFFIXES)})')
  return sorted(found)


def named(folder: pathlib.Path) -> dict[str, pathlib.Path]:
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


def partners(first: dict[str, pathlib.Path], second: dict[str, pathlib.Path], scale: int):
  """The pairs of `pair_by_name`.

  Raises:
    InputError: listing the files without a partner.
  """
  pairs, alone = pair_by_name(first, second, scale)
  if alone:
    raise InputError(f'{len(alone)} without a partner of the same name: {listed(alone)}')
  return pairs


def png_targets(places: list[pathlib.Path],
                folder: pathlib.Path) -> list[tuple[pathlib.Path, pathlib.Path]]:
  """(picture, its PNG in `folder`) of pictures and of all pictures in folders.

  A folder's structure is kept.

  Raises:
    InputError: nothing there; `folder` is a file or lies in a folder that is read; two
      pictures of one name, or one that would be overwritten.
  """
  targets = {}
  for place in places:
    if not place.is_dir():
      if not place.exists():
        raise InputError(f'{place}: no such file or folder')
      targets[place] = folder / f'{place.stem}.png'
      continue
    if folder.resolve().is_relative_to(place.resolve()):
      raise InputError(f'{folder}: lies in {place}, whose pictures are read; name another folder')
    targets |= {path: folder / path.relative_to(place).with_suffix('.png')
                for path in _pictures_below(place)}
  if folder.is_file():
    raise InputError(f'{folder}: is a file; pictures need a folder')
  times = collections.Counter(targets.values())
  clashes = [path for path, png in targets.items() if times[png] > 1]
  if clashes:
    raise InputError(f'several pictures of one name but for the suffix: {listed(clashes)}')
  return refuse_originals(targets)


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


def listed(things, most: int = 20) -> str:
  """'a, b, c' of anything, cut off after `most`."""
  shown = ', '.join(str(thing) for thing in things[:most])
  return shown + (f' and {len(things) - most} more' if len(things) > most else '')
