"""Manifests: the name, size and SHA-256 of every file in a finished folder.

`manifest.txt` has one line per file, `SHA-256 SIZE NAME`. Its last line is the SHA-256 of the lines
before it, so that a flipped byte in the manifest itself is detected, too.
"""

import errno
import hashlib
import os
import pathlib

from sr_jax.system import files

NAME = 'manifest.txt'


def write(folder: os.PathLike | str) -> None:
  """Writes the manifest of a folder, after its files and subfolders have been synced to disk.

  Raises:
    OSError, InputError: the folder cannot be read or written.
  """
  folder = pathlib.Path(folder)
  lines = []
  for name in _file_names(folder):
    with open(folder / name, 'rb') as file:
      digest = hashlib.file_digest(file, 'sha256').hexdigest()
      os.fsync(file.fileno())
      lines.append(f'{digest} {file.tell()} {name}\n')
  for subfolder in folder.rglob('*'):
    if subfolder.is_dir():
      fsync_folder(subfolder)
  body = ''.join(lines).encode()
  with files.atomic_write(folder / NAME) as temporary, open(temporary, 'wb') as file:
    file.write(body + _body_digest(body))
    file.flush()
    os.fsync(file.fileno())
  fsync_folder(folder)


def faults(folder: os.PathLike | str, prefix: str = '') -> list[str]:
  """Returns descriptions of how a folder differs from its manifest; [] if it does not.

  Args:
    prefix: compares only the files whose names begin with it, and the manifest itself.
  """
  folder = pathlib.Path(folder)
  try:
    names = _file_names(folder)
    if not folder.is_dir():
      return ['no such folder']
    if not names and not (folder / NAME).exists():
      return ['an empty folder']
    if not (folder / NAME).exists():
      return [f'{NAME} is missing']
    body, digest_line = _split((folder / NAME).read_bytes())
    if _body_digest(body) != digest_line:
      return [f'{NAME} is damaged']
    differences, listed = [], set()
    for line in body.decode().splitlines():
      digest, size, name = line.split(' ', 2)
      listed.add(name)
      if name.startswith(prefix) and (fault := _fault(folder / name, int(size), digest)):
        differences.append(f'{name} {fault}')
  except (OSError, ValueError) as error:
    return [f'cannot read ({getattr(error, "strerror", None) or error})']
  return differences + [f'{name} is not listed in {NAME}' for name in names
                        if name not in listed and name.startswith(prefix)]


def fsync_folder(folder: os.PathLike | str) -> None:
  """Syncs a folder's list of files to disk.

  File systems that do not support this (EINVAL, ENOTSUP) are ignored.
  """
  handle = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(handle)
  except OSError as error:
    if error.errno not in (errno.EINVAL, errno.ENOTSUP):
      raise
  finally:
    os.close(handle)


def _file_names(folder: pathlib.Path) -> list[str]:
  """Returns the paths of everything in a folder except subfolders and the manifest."""
  names = (path.relative_to(folder).as_posix() for path in folder.rglob('*') if not path.is_dir())
  return sorted(name for name in names if name != NAME)


def _fault(path: pathlib.Path, size: int, digest: str) -> str:
  """Returns how a file differs from its entry; '' if it does not."""
  if not path.is_file():
    return 'is missing'
  actual_size = path.stat().st_size
  if actual_size != size:
    problem = 'truncated' if actual_size < size else 'too long'
    return f'is {problem} ({actual_size:,} bytes of {size:,})'
  try:
    with open(path, 'rb') as file:
      same = hashlib.file_digest(file, 'sha256').hexdigest() == digest
  except OSError as error:
    return f'cannot be read ({error.strerror})'
  return '' if same else 'differs from what was written'


def _body_digest(body: bytes) -> bytes:
  """Returns the last line of a manifest with these lines."""
  return hashlib.sha256(body).hexdigest().encode() + b'\n'


def _split(data: bytes) -> tuple[bytes, bytes]:
  """Splits a manifest before its last line."""
  position = max(0, len(data) - len(_body_digest(b'')))
  return data[:position], data[position:]
