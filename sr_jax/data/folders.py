"""Image files in folders: finding them, reporting what is skipped, and choosing output paths."""

import collections
import os
import pathlib
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from sr_jax.errors import InputError, count_of, listed
from sr_jax.images import HEIF_SUFFIXES, SUFFIXES

# Files beside images that are never images: they are counted by their suffix, not named.
COMPANIONS = ('.txt', '.csv', '.tsv', '.json', '.jsonl', '.yaml', '.yml', '.xml', '.md', '.html',
              '.htm', '.pdf', '.log', '.md5', '.sha1', '.sha256', '.xmp', '.aae', '.srt', '.vtt')
SYSTEM_FILES = ('thumbs.db', 'ehthumbs.db', 'desktop.ini')  # Windows writes them into any folder
TYPESCRIPT_SUFFIXES = ('.ts', '.mts')  # MPEG transport streams have the same ones


class Found(NamedTuple):
  """The files below a folder.

  Attributes:
    files: the files with one of the suffixes that were asked for, sorted.
    unsupported: the files with another suffix, sorted; hidden and system files are left out.
    unreadable: the reason for each folder that cannot be read, each broken link and each entry
      that is no regular file.
  """

  files: list[pathlib.Path]
  unsupported: list[pathlib.Path]
  unreadable: dict[str, str]


def find_images(folder: pathlib.Path, suffixes: Sequence[str] = SUFFIXES) -> Found:
  """Returns the image files below a folder, and what lies there and is not used.

  Hidden files and folders are skipped. Symbolic links are followed; a folder that is reached a
  second time is skipped.

  Args:
    folder: is searched with its subfolders.
    suffixes: of the files that can be read, in lower case; the case of a file's suffix does not
      matter.

  Raises:
    InputError: the folder does not exist, cannot be read, or has no such file below it; the
      message names what was found instead.
  """
  if not folder.is_dir():
    raise InputError(f'{folder}: no such folder')
  found, visited, errors = Found([], [], {}), set(), []
  for place, subfolders, names in os.walk(folder, onerror=errors.append, followlinks=True):
    real = os.path.realpath(place)
    if real in visited:  # a symbolic link leads back to it
      subfolders.clear()
      continue
    visited.add(real)
    subfolders[:] = sorted(name for name in subfolders if not name.startswith('.'))
    for name in sorted(names):
      path = pathlib.Path(place, name)
      if name.startswith('.') or name.lower() in SYSTEM_FILES:
        continue
      reason = _unreadable(path)
      if reason == 'broken link' and not path.suffix:  # it may have led to a folder of images
        found.unreadable[str(path)] = reason
      elif path.suffix.lower() not in suffixes or _is_typescript(path):
        found.unsupported.append(path)
      elif reason:
        found.unreadable[str(path)] = reason
      else:
        found.files.append(path)
  found.unreadable.update((str(error.filename), error.strerror.lower()) for error in errors)
  found.files.sort()
  found.unsupported.sort()
  if not found.files:
    more = describe_skipped(folder, found)
    # The suffixes of videos are too many for a line.
    what = f'images ({", ".join(suffixes)})' if set(suffixes) <= set(SUFFIXES) else (
        'images or videos')
    raise InputError('; '.join([f'{folder}: contains no {what}', *more]))
  return found


def _unreadable(path: pathlib.Path) -> str:
  """Returns why an entry of a folder cannot be read as a file; '' if it is a regular file."""
  try:
    return '' if stat.S_ISREG(path.stat().st_mode) else 'not a regular file'
  except OSError as error:
    permitted = not isinstance(error, PermissionError)
    return 'broken link' if permitted and path.is_symlink() else error.strerror.lower()


def _is_typescript(path: pathlib.Path) -> bool:
  """Returns whether a file with the suffix of a transport stream is text."""
  if path.suffix.lower() not in TYPESCRIPT_SUFFIXES or _unreadable(path):
    return False
  try:
    with open(path, 'rb') as file:
      start = file.read(1000)
    # The packets of a transport stream contain zeros. The read may end within a character.
    return b'\0' not in start and '\ufffd' not in start.decode('utf-8', 'replace')[:-3]
  except OSError:
    return False


def describe_skipped(folder: pathlib.Path, found: Found) -> list[str]:
  """Returns the lines of `describe_unsupported`, and one on what cannot be read."""
  lines = describe_unsupported(folder, found)
  if found.unreadable:
    entries = [f'{path} ({reason})' for path, reason in found.unreadable.items()]
    lines.append(f'{folder}: skipped, cannot read: {listed(entries)}')
  return lines


def describe_unsupported(folder: pathlib.Path, found: Found) -> list[str]:
  """Returns a line on the files of an unsupported type; no line if there are none.

  Ten files are named, by their paths below the folder. Text files and the like (`COMPANIONS`) are
  counted by suffix.
  """
  named = [path for path in found.unsupported if path.suffix.lower() not in COMPANIONS]
  counts = collections.Counter(path.suffix.lower() for path in found.unsupported
                               if path.suffix.lower() in COMPANIONS)
  parts = [listed([path.relative_to(folder) for path in named])] if named else []
  parts += [f'{count} {suffix}' for suffix, count in sorted(counts.items())]
  lines = []
  if parts:
    heic = any(path.suffix.lower() in HEIF_SUFFIXES for path in named)
    advice = ' (to read HEIC: pip install pillow-heif)' if heic else ''
    lines.append(f'{folder}: skipped {count_of(found.unsupported, "file")} of unsupported type: '
                 f'{", ".join(parts)}{advice}')
  return lines


def describe_inputs(found: Mapping[pathlib.Path, Found]) -> tuple[list[str], list[str]]:
  """Returns what is not processed of input folders.

  Args:
    found: what each input folder contains (`find_images`); folders may overlap.

  Returns:
    (an error for each entry that cannot be read, lines of `describe_unsupported`).
  """
  errors = dict.fromkeys(f'{path}: {reason}' for content in found.values()
                         for path, reason in content.unreadable.items())
  return list(errors), [line for folder, content in found.items()
                        for line in describe_unsupported(folder, content)]


def image_files(folder: pathlib.Path, suffixes: Sequence[str] = SUFFIXES,
                notes: list[str] | None = None) -> list[pathlib.Path]:
  """Returns all image files below a folder, sorted.

  Args:
    folder, suffixes: see `find_images`.
    notes: receives the lines of `describe_skipped`.

  Raises:
    InputError: as `find_images`.
  """
  found = find_images(folder, suffixes)
  if notes is not None:
    notes += describe_skipped(folder, found)
  return found.files


def images_by_name(folder: pathlib.Path,
                   notes: list[str] | None = None) -> dict[str, pathlib.Path]:
  """Returns all images below a folder by their path in it, without the suffix if that is unique.

  Args:
    folder: is searched with its subfolders.
    notes: receives the lines of `describe_skipped`.

  Raises:
    InputError: the folder does not exist or has no image below it.
  """
  paths = image_files(folder, notes=notes)
  counts = collections.Counter(path.with_suffix('') for path in paths)
  counts.update(paths)  # 'a.png.png' without its suffix clashes with 'a.png'
  return {(path if counts[path.with_suffix('')] > 1 else path.with_suffix(''))
          .relative_to(folder).as_posix(): path for path in paths}


def output_paths(inputs: Sequence[pathlib.Path], folder: pathlib.Path,
                 suffixes: Sequence[str] = SUFFIXES,
                 suffix: Callable[[pathlib.Path], str] = lambda path: '.png',
                 roots: Mapping[pathlib.Path, pathlib.Path] | None = None,
                 found: dict[pathlib.Path, Found] | None = None
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
    found: receives what each input folder contains.

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
    content = find_images(path, suffixes)
    if found is not None:
      found[path] = content
    stems |= {file: folder / inside / file.relative_to(path).with_suffix('')
              for file in content.files}
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
