"""What files hold, told by a hash that is taken again only where a file has changed."""

import contextlib
import hashlib
import json
import pathlib
from collections.abc import Sequence

from sr_jax.errors import InputError
from sr_jax.system import files, threads

KNOWN = 'files.json'  # {path: [size, time of change, time of the inode's change, hash]}


def digests(paths: Sequence[pathlib.Path], cache: pathlib.Path) -> dict[pathlib.Path, str]:
  """A hash of each file's bytes; 'unreadable' where it can not be read.

  Args:
    cache: folder that keeps them, so that a later start reads no file again. A change of
      contents always changes the inode's time, which nobody can set.
  """
  known = _known(cache / KNOWN)
  entries = {path: known.get(str(path.absolute()), []) for path in paths}
  stamps = {path: _stamp(path) for path in paths}
  changed = [path for path, stamp in stamps.items() if stamp is None or entries[path][:3] != stamp]
  for path, digest in zip(changed, threads.on_all_cores(_hash, changed, 'reading'), strict=True):
    entries[path] = [*(stamps[path] or [0, 0, 0]), digest or 'unreadable']
  if changed:
    known |= {str(path.absolute()): entry for path, entry in entries.items()
              if entry[3] != 'unreadable'}
    with contextlib.suppress(InputError):  # it is read again next time, then
      files.write_text(cache / KNOWN, json.dumps(known))
  return {path: entry[3] for path, entry in entries.items()}


def _known(path: pathlib.Path) -> dict[str, list]:
  try:
    known = json.loads(path.read_text(encoding='utf-8'))
    return {name: entry for name, entry in known.items() if len(entry) == 4}
  except (OSError, ValueError, AttributeError, TypeError, RecursionError):
    return {}


def _stamp(path: pathlib.Path) -> list[int] | None:
  try:
    about = path.stat()
  except OSError:
    return None
  return [about.st_size, about.st_mtime_ns, about.st_ctime_ns]


def _hash(path: pathlib.Path) -> str | None:
  try:
    with path.open('rb') as file:
      return hashlib.file_digest(file, 'blake2b').hexdigest()[:32]
  except OSError:
    return None
