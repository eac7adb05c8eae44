"""Benchmark sets: opened as data sources are, and read one image after the other."""

import re
from collections.abc import Iterator, Sequence

from sr_jax.data import pictures, sources
from sr_jax.data.folder_names import role_of
from sr_jax.data.pictures import Pair, Picture
from sr_jax.errors import InputError
from sr_jax.system import files, user_code


def find_set(spec: str, scale: int, resize: str = '', download: bool = False,
             notes: list[str] | None = None) -> list[Picture]:
  """Returns the images of a set.

  Args:
    spec: a data source (`sources.open_source`), or a folder without 'folder:' before it. What has
      the form 'MODULE:FUNCTION' is a folder if there is one of that name.
    scale, resize, download, notes: see `sources.open_source`.

  Raises:
    InputError: as for `sources.open_source`.
  """
  if not is_own_set(spec) and spec.partition(':')[0] not in sources.KINDS:
    spec = f'folder:{spec}'
  return sources.open_source(spec, scale, resize, download, notes)


def is_own_set(spec: str) -> bool:
  """Returns whether a spec names a function of the user's own, and no folder."""
  return user_code.is_spec(spec) and not files.expand(spec).exists()


def set_name(spec: str) -> str:
  """Returns the name of a set: its folder's, or that of the parent of an HR folder."""
  kind = spec.partition(':')[0]
  if kind in ('sample', 'split', 'tfds') or is_own_set(spec):
    return re.sub(r'[^\w.-]+', '-', spec)
  if kind == 'div2k':
    return 'DIV2K-valid' if spec.endswith(':valid') else 'DIV2K-train'
  if kind == 'pairs':
    spec = re.search('HR=([^,]*)', spec + ',HR=')[1]
  path = files.expand(spec.removeprefix('folder:').removeprefix('hr:')).resolve()
  role = role_of(path.name)
  is_hr_folder = re.fullmatch(r'image_SRF_\d+', path.name, re.IGNORECASE) or (
      role and role.kind == 'HR' and role.strength != 'hint' and not role.group)
  return path.parent.name if is_hr_folder else path.name


def read_set(found: Sequence[Picture], scale: int,
             skipped: list[str] | None = None) -> Iterator[Pair]:
  """Reads the images of a set one by one.

  For an image without a separate LR, HR is cropped to a multiple of the scale, and MATLAB's
  bicubic reduction makes LR from it.

  Args:
    found: the images.
    scale: HR / LR.
    skipped: receives a line for each unusable image; None raises an error for the first one.

  Raises:
    InputError: a damaged image, a pair that does not match, or an image that is too small.
  """
  for picture in found:
    try:
      pair = pictures.read(picture, scale)
      if min(pair.hr.shape[:2]) <= 2 * scale:
        raise InputError(f'{picture.hr}: {pair.hr.shape[0]}x{pair.hr.shape[1]} is too small for '
                         f'scale {scale}')
      yield pair
    except InputError as error:
      if skipped is None:
        raise
      skipped.append(str(error))
