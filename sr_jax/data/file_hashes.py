"""Hashes of the contents of files, cached so that only files that have changed are read again."""

import contextlib
import hashlib
import json
import pathlib
from collections.abc import Sequence

from sr_jax.errors import InputError
from sr_jax.system import files, threads

CACHE_FILE = 'files.json'  # {path: [size, modification time, inode change time, hash]}


def digests(paths: Sequence[pathlib.Path], cache: pathlib.Path) -> dict[pathlib.Path, str]:
  """Returns a hash of the contents of each file, or 'unreadable' for a file that cannot be read.

  Args:
    paths: files to hash.
    cache: folder in which the hashes are kept for later starts. A file is read again if its size,
      modification time or inode change time differs; a change of its contents always changes the
      last of these, which no program can set.
  """
  known = _read_cache(cache / CACHE_FILE)
  entries = {path: known.get(str(path.absolute()), []) for path in paths}
  stamps = {path: _stamp(path) for path in paths}
  changed = [path for path, stamp in stamps.items() if stamp is None or entries[path][:3] != stamp]
  for path, digest in zip(changed, threads.on_all_cores(_hash, changed, 'reading'), strict=True):
    entries[path] = [*(stamps[path] or [0, 0, 0]), digest or 'unreadable']
  if changed:
    known |= {str(path.absolute()): entry for path, entry in entries.items()
              if entry[3] != 'unreadable'}
    with contextlib.suppress(InputError):  # the next start then reads the files again
      files.write_text(cache / CACHE_FILE, json.dumps(known))
  return {path: entry[3] for path, entry in entries.items()}


def _read_cache(path: pathlib.Path) -> dict[str, list]:
  """Reads the cache file; it is empty if the file is missing or damaged."""
  try:
    known = json.loads(path.read_text(encoding='utf-8'))
    return {name: entry for name, entry in known.items() if len(entry) == 4}
  except (OSError, ValueError, AttributeError, TypeError, RecursionError):
    return {}


def _stamp(path: pathlib.Path) -> list[int] | None:
  """Returns what changes together with the contents of a file; None if it does not exist."""
  try:
    status = path.stat()
  except OSError:
    return None
  return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _hash(path: pathlib.Path) -> str | None:
  try:
    with path.open('rb') as file:
      return hashlib.file_digest(file, 'blake2b').hexdigest()[:32]
  except OSError:
    return None
