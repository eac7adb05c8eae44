"""The folders of images that sr-jax evaluate writes for each set, which replace earlier ones."""

import contextlib
import pathlib
from collections.abc import Iterator

from sr_jax.errors import InputError
from sr_jax.system import files


def image_folders(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Returns the folders of the images that are written: results of two methods, and strips."""
  return {'model': folder} | {kind: folder.with_name(f'{folder.name}-{kind}')
                              for kind in ('corrected', 'strips')}


@contextlib.contextmanager
def replaced_folders(folder: pathlib.Path) -> Iterator[dict[str, pathlib.Path]]:
  """Yields new folders that replace `image_folders` if the block succeeds.

  A folder that the block leaves empty is removed, and so is the one that it would replace.

  Raises:
    InputError: they cannot be written.
  """
  kept = image_folders(folder)
  for path in kept.values():
    files.remove_unfinished(path)  # of a killed process
  try:
    with contextlib.ExitStack() as stack:
      places = {kind: stack.enter_context(files.atomic_folder(path, replace=True))
                for kind, path in kept.items()}
      yield places
    for path in kept.values():
      if not any(path.iterdir()):
        path.rmdir()
  except OSError as error:
    raise InputError(f'{error.filename or folder}: cannot write ({error.strerror})') from None
