"""What was in a folder when it was finished: the name, size and SHA-256 of each of its files.

`manifest.txt` has a line for each, `SHA-256 SIZE NAME`, and as its last one the SHA-256 of those
before it, so that a flipped byte in the manifest is found like any other.
"""

import errno
import hashlib
import os
import pathlib

from sr_jax.system import files

NAME = 'manifest.txt'


def write(folder) -> None:
  """Writes the manifest of a folder; its files and folders are on the disk before it is.

  Raises:
    OSError, InputError: something in it can not be read or written.
  """
  folder = pathlib.Path(folder)
  lines = []
  for name in _names(folder):
    with open(folder / name, 'rb') as file:
      digest = hashlib.file_digest(file, 'sha256').hexdigest()
      os.fsync(file.fileno())
      lines.append(f'{digest} {file.tell()} {name}\n')
  for inner in folder.rglob('*'):
    if inner.is_dir():
      fsync_folder(inner)
  body = ''.join(lines).encode()
  with files.atomic_write(folder / NAME) as temporary, open(temporary, 'wb') as file:
    file.write(body + _seal(body))
    file.flush()
    os.fsync(file.fileno())
  fsync_folder(folder)


def faults(folder, below: str = '') -> list[str]:
  """What is not as it was when the manifest was written, in words; [] is all well.

  Args:
    below: looks into the files alone whose names begin so, and into the manifest.
  """
  folder = pathlib.Path(folder)
  try:
    found = _names(folder)
    if not folder.is_dir():
      return ['no such folder']
    if not found and not (folder / NAME).exists():
      return ['an empty folder']
    if not (folder / NAME).exists():
      return [f'{NAME} is missing']
    body, seal = _halves((folder / NAME).read_bytes())
    if _seal(body) != seal:
      return [f'{NAME} is damaged']
    wrong, named = [], set()
    for line in body.decode().splitlines():
      digest, size, name = line.split(' ', 2)
      named.add(name)
      if name.startswith(below) and (fault := _fault(folder / name, int(size), digest)):
        wrong.append(f'{name} {fault}')
  except (OSError, ValueError) as error:
    return [f'can not be read ({getattr(error, "strerror", None) or error})']
  return wrong + [f'{name} is one too many' for name in found
                  if name not in named and name.startswith(below)]


def fsync_folder(folder) -> None:
  """Has the disk know what is in a folder; there are disks that do so unasked and refuse."""
  handle = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(handle)
  except OSError as error:
    if error.errno not in (errno.EINVAL, errno.ENOTSUP):
      raise
  finally:
    os.close(handle)


def _names(folder: pathlib.Path) -> list[str]:
  """All that is in it and no folder, but the manifest."""
  names = (path.relative_to(folder).as_posix() for path in folder.rglob('*') if not path.is_dir())
  return sorted(name for name in names if name != NAME)


def _fault(path: pathlib.Path, size: int, digest: str) -> str:
  if not path.is_file():
    return 'is missing'
  have = path.stat().st_size
  if have != size:
    return f'is {"cut off" if have < size else "too long"} ({have:,} bytes of {size:,})'
  try:
    with open(path, 'rb') as file:
      same = hashlib.file_digest(file, 'sha256').hexdigest() == digest
  except OSError as error:
    return f'can not be read ({error.strerror})'
  return '' if same else 'is not what was written'


def _seal(body: bytes) -> bytes:
  return hashlib.sha256(body).hexdigest().encode() + b'\n'


def _halves(data: bytes) -> tuple[bytes, bytes]:
  at = max(0, len(data) - len(_seal(b'')))
  return data[:at], data[at:]
