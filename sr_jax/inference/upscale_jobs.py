"""Decides which files an upscale command reads, and where it writes their results."""

import glob
import os
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from sr_jax import images
from sr_jax.data import folders
from sr_jax.errors import InputError, count_of
from sr_jax.media import clips, photos, video
from sr_jax.system import files

READABLE = (*images.SUFFIXES, *clips.SUFFIXES)  # files with these suffixes are found in folders
# The format of an image result by its suffix. --format same gives PNG for all other suffixes.
FORMAT_BY_SUFFIX = {'.png': 'png', '.jpg': 'jpeg', '.jpeg': 'jpeg', '.jfif': 'jpeg',
                    '.webp': 'webp', '.tif': 'tiff', '.tiff': 'tiff', '.bmp': 'bmp'}
WRITABLE = (*FORMAT_BY_SUFFIX, *video.OUTPUT_SUFFIXES)
VIDEO = 'video'  # the format of a job that is not an image


class Job(NamedTuple):
  """A file to upscale."""

  source: pathlib.Path
  target: pathlib.Path
  format: str  # of the result: a key of `photos.FORMATS`, or VIDEO


class Plan(NamedTuple):
  """What an upscale command has to do.

  Attributes:
    jobs: the files to upscale.
    errors: a message for each input, and for each entry of a folder, that cannot be used.
    notes: a line for each folder with files of other types, which are skipped.
  """

  jobs: list[Job]
  errors: list[str]
  notes: list[str]


def plan(inputs: Sequence[pathlib.Path], output: pathlib.Path, format: str | None = None) -> Plan:
  """Finds the files to upscale and chooses where their results are written.

  Args:
    inputs: images, videos, folders and glob patterns. The matches of a pattern keep their paths
      below its part without wildcards.
    output: the folder for the results, or for a single input the file to write.
    format: of image results, a key of `photos.FORMATS` or 'same'; None for PNG, or what the suffix
      of `output` says.

  Raises:
    InputError: `output` names a file that does not fit the inputs or the format, two results would
      have the same path, or a result would overwrite an input.
  """
  roots = {}
  for path in inputs:
    for match, root in _matches(path).items():
      roots[match] = root or roots.get(match)
  if _names_a_file(output, list(roots)):
    return _plan_file(list(roots), output, format)

  usable, errors, found, formats, seen = [], [], {}, {}, set()

  def suffix(path: pathlib.Path) -> str:
    formats[path] = VIDEO if is_video(path) else format_of(path, format)
    return '.mp4' if formats[path] == VIDEO else photos.FORMATS[formats[path]].suffix

  roots_of_patterns = {match: root for match, root in roots.items() if root is not None}
  for match in roots:
    try:
      folders.output_paths([match], output, READABLE, suffix, roots_of_patterns)
    except InputError as error:
      errors.append(str(error))
      continue
    # '**' follows symbolic links, even if they form a cycle.
    if (real := os.path.realpath(match)) not in seen:
      seen.add(real)
      usable.append(match)
  pairs = usable and folders.output_paths(usable, output, READABLE, suffix, roots_of_patterns,
                                          found)
  jobs = [Job(source, target, formats[source]) for source, target in pairs]
  too_long = [job for job in jobs if _name_error(job.target)]
  errors += [f'{job.source}: {_name_error(job.target)}' for job in too_long]
  unreadable, notes = folders.describe_inputs(found)
  return Plan([job for job in jobs if job not in too_long], errors + unreadable, notes)


def _names_a_file(output: pathlib.Path, inputs: Sequence[pathlib.Path]) -> bool:
  """Returns whether `output` is meant to be a file.

  Beside the known suffixes, any of three to five letters and digits, such as .xyz, says so where
  the input is a single file. Folders are more often called out.v2, out.x4 or out.2024.
  """
  if output.is_dir():
    return False
  suffix = output.suffix.lower()
  like_a_file = re.fullmatch(r'\.(?!\d+$)[a-z0-9]{3,5}', suffix)
  return suffix in (*READABLE, *WRITABLE) or bool(
      like_a_file and len(inputs) == 1 and inputs[0].is_file())


def _matches(path: pathlib.Path) -> dict[pathlib.Path, pathlib.Path | None]:
  """Returns the matches of a glob pattern with the part before its wildcards, or {path: None}."""
  if path.exists() or not glob.has_magic(str(path)):
    return {path: None}
  matches = [pathlib.Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
  fixed = next(index for index, part in enumerate(path.parts) if glob.has_magic(part))
  return dict.fromkeys(matches or [path], pathlib.Path(*path.parts[:fixed]))


def _name_error(target: pathlib.Path) -> str:
  """Describes a name that no file system accepts; '' if there is nothing wrong."""
  size = len(os.fsencode(target.name))
  return (f'the name of its result has {size} bytes, at most {files.MAX_NAME_BYTES} are possible; '
          'rename the file, or name the result by --output' if size > files.MAX_NAME_BYTES else '')


def _plan_file(inputs: Sequence[pathlib.Path], output: pathlib.Path, format: str | None) -> Plan:
  """Plans the upscaling of a single input to the file `output`."""
  if len(inputs) != 1 or inputs[0].is_dir():
    what = f'{inputs[0]} is a folder' if len(inputs) == 1 else f'IN is {count_of(inputs, "file")}'
    raise InputError(f'--output {output}: names a file, but {what}; give a folder as --output')
  source, suffix = inputs[0], output.suffix.lower()
  if not source.is_file():
    return Plan([], [f'{source}: no such file or folder'], [])
  if suffix not in WRITABLE:
    raise InputError(f'--output {output}: cannot write {suffix}; expected one of '
                     f'{", ".join(WRITABLE)}, or a folder; one with such a name must exist')
  try:
    result = VIDEO if is_video(source) else FORMAT_BY_SUFFIX.get(suffix, '')
  except InputError as error:
    return Plan([], [str(error)], [])
  if (result == VIDEO) != (suffix in video.OUTPUT_SUFFIXES):
    kind, expected = (('a video', video.OUTPUT_SUFFIXES) if result == VIDEO else
                      ('an image', tuple(FORMAT_BY_SUFFIX)))
    raise InputError(f'--output {output}: {source} is {kind}; expected a file with suffix '
                     f'{", ".join(expected)}, or a folder')
  if result != VIDEO and format and format_of(source, format) != result:
    raise InputError(f'--output {output}: the suffix says {result}, --format says '
                     f'{format_of(source, format)}; leave out --format')
  if error := _name_error(output):
    raise InputError(f'--output {output}: {error}')
  folders.refuse_originals({source: output})
  return Plan([Job(source, output, result)], [], [])


def format_of(path: pathlib.Path, format: str | None) -> str:
  """Returns the format of an image's result: `format`, PNG for None, by the suffix for 'same'."""
  return FORMAT_BY_SUFFIX.get(path.suffix.lower(), 'png') if format == 'same' else format or 'png'


def is_video(path: pathlib.Path) -> bool:
  """Returns whether a file is a video, by its suffix, or by its content if that is unknown.

  Raises:
    InputError: the suffix is unknown, and the content neither an image nor a video.
  """
  suffix = path.suffix.lower()
  if suffix in clips.SUFFIXES or suffix in (*images.SUFFIXES, *images.HEIF_SUFFIXES):
    return suffix in clips.SUFFIXES
  try:
    photos.size(path, max_pixels=1 << 62)
    return False
  except InputError as error:
    try:
      with clips.open_video(path):
        return True
    except InputError:
      raise InputError(str(error).replace('image file', 'image or video file')) from None
