"""DIV2K in its official layout, with its own bicubic LR files: found, or fetched and checked.

Agustsson and Timofte, 'NTIRE 2017 Challenge on Single Image Super-Resolution', 2017.
"""

import fnmatch
import importlib.util
import pathlib
import shutil
import stat
import sys
import tempfile
import zipfile
from typing import NamedTuple

import pooch
import requests  # pooch fetches by it too, but does not resume
import tqdm

from sr_jax.errors import InputError, listed
from sr_jax.system import files, https

FLAG = '--config.data.download=True'
LARGER = 4  # times a zip's own size; PNGs hardly shrink


def find_div2k(folder: pathlib.Path, part: str, scale: int,
               download: bool = False) -> list[tuple[str, pathlib.Path, pathlib.Path]]:
  """The pairs of DIV2K, or of what is there of it, sorted.

  Args:
    folder: holds DIV2K_train_HR/0001.png, DIV2K_train_LR_bicubic/X2/0001x2.png and so on (for
      x8 DIV2K_train_LR_x8/0001x8.png).
    part: 'train' (800 pictures) or 'valid' (100).
    scale: 2, 3, 4 or 8.
    download: fetches what has no picture in it, whole folders; one that was stopped goes on.

  Returns:
    [(name, HR file, LR file)], the name such as '0001'.

  Raises:
    InputError: another part or scale, a folder or partners missing, a failed download.
  """
  if part not in ('train', 'valid') or scale not in (2, 3, 4, 8):
    raise InputError(f'DIV2K {part!r} x{scale}: it has train and valid, x2, x3, x4 and x8')
  hr = f'DIV2K_{part}_HR'
  lr = f'DIV2K_{part}_LR_x8' if scale == 8 else f'DIV2K_{part}_LR_bicubic/X{scale}'
  endings = {hr: '', lr: f'x{scale}'}
  missing = [place for place in endings if not _pictures(folder / place, endings[place])]
  if missing and not download:
    raise InputError(f'{folder}: no pictures of DIV2K in {" and ".join(missing)}; {FLAG} '
                     "fetches them, and the config's variant ':sample' needs no download")
  if missing:
    _fetch(folder, {place: endings[place] for place in missing})
  first, second = (_pictures(folder / place, ending) for place, ending in endings.items())
  alone = [str((first | second)[name]) for name in sorted(first.keys() ^ second.keys())]
  if alone:
    raise InputError(f'{len(alone)} without a partner: {listed(alone, 5)}; {FLAG} fetches a '
                     'folder anew once it is removed')
  return [(name, first[name], second[name]) for name in sorted(first)]


def _pictures(folder: pathlib.Path, ending: str) -> dict[str, pathlib.Path]:
  return {path.name[:4]: path for path in folder.glob(_pattern(ending))}


def _pattern(ending: str) -> str:
  return f'[0-9][0-9][0-9][0-9]{ending}.png'


# Download ----------------------------------------------------------------------------------


class Archive(NamedTuple):
  """A zip file of the set."""

  url: str
  size: int  # bytes
  sha256: str
  name: str


def _archives() -> dict[str, Archive]:
  """By name, from the table inside TensorFlow Datasets, which is not imported for it."""
  spec = importlib.util.find_spec('tensorflow_datasets')
  if spec is None:
    raise InputError('where DIV2K lies and its hashes are told by the package tensorflow-datasets, '
                     'which is not installed: pip install --no-deps tensorflow-datasets')
  table = pathlib.Path(spec.submodule_search_locations[0], 'datasets', 'div2k', 'checksums.tsv')
  try:
    rows = [line.split('\t') for line in table.read_text('utf-8').splitlines()]
    return {name: Archive(url, int(size), sha256, name) for url, size, sha256, name in rows}
  except (OSError, ValueError) as error:
    raise InputError(f'{table}: can not be read ({error}); another version of '
                     'tensorflow-datasets may have it') from None


def _fetch(folder: pathlib.Path, missing: dict[str, str]) -> None:
  """Downloads and unpacks {folder of the set: what its names end in}."""
  table = _archives()
  try:
    archives = {place: table[place.replace('/', '_') + '.zip'] for place in missing}
  except KeyError as error:
    raise InputError(f'tensorflow-datasets knows no file {error} of DIV2K') from None
  try:
    _check_space(folder, list(archives.values()))
    for place, archive in archives.items():
      part = _part(folder, archive)
      _download(archive, part)
      _unpack(part, folder, place, missing[place])
      part.unlink()
  except OSError as error:
    raise InputError(f'{folder}: can not be written ({error.strerror or error})') from None


def _part(folder: pathlib.Path, archive: Archive) -> pathlib.Path:
  return folder / f'{archive.name}.part'


def _size(part: pathlib.Path) -> int:
  return part.stat().st_size if part.exists() else 0


def _check_space(folder: pathlib.Path, archives: list[Archive]) -> None:
  """One zip at a time lies beside what was unpacked, which is as large: PNGs don't shrink."""
  sizes = [archive.size for archive in archives]
  here = sum(_size(_part(folder, archive)) for archive in archives)
  needed, free = sum(sizes) + max(sizes) - here, files.free_bytes(folder)
  if free < needed:
    raise InputError(f'{folder}: DIV2K needs {needed / 1e9:.1f} GB more there, '
                     f'{free / 1e9:.1f} GB are free')


def _download(archive: Archive, part: pathlib.Path) -> None:
  """The zip, or the rest of it, to `part`.

  Raises:
    InputError: what has come stays for the next time, unless the hash is wrong.
  """
  url, size, sha256, _ = archive
  try:
    if _size(part) < size:
      _receive(url, size, part)
  except requests.RequestException as error:
    raise InputError(f'{url}: broke off at {_size(part) / 1e6:.0f} of {size / 1e6:.0f} MB '
                     f'({type(error).__name__}); the next start goes on there') from None
  if (digest := pooch.file_hash(part)) != sha256:
    part.unlink()
    raise InputError(f'{url}: damaged download, removed (SHA-256 {digest}, expected {sha256})')


def _receive(url: str, size: int, part: pathlib.Path) -> None:
  """Goes on after what `part` has of a file of `size` bytes."""
  have = _size(part)
  headers = {'Accept-Encoding': 'identity'}  # a range of what was compressed is no use
  if have:
    headers['Range'] = f'bytes={have}-'
  with (https.session() as session,
        session.get(url, headers=headers, stream=True, timeout=60) as response):
    if response.status_code not in (200, 206):
      raise InputError(f'{url}: {response.status_code} {response.reason}')
    resumed = response.status_code == 206  # 200: the whole file, from a server without ranges
    told = response.headers.get('Content-Range' if resumed else 'Content-Length')
    wanted = f'bytes {have}-{size - 1}/{size}' if resumed else str(size)
    if told != wanted:  # a login page, say, which should not become the file's beginning
      raise InputError(f'{url}: the server offers {told or "an unknown number"}, expected {wanted} '
                       'bytes')
    part.parent.mkdir(parents=True, exist_ok=True)  # not for a server that does not answer
    print(f'{url} to {part.parent}, {size / 1e6:.0f} MB', file=sys.stderr)
    with (open(part, 'ab' if resumed else 'wb') as file,
          tqdm.tqdm(initial=have if resumed else 0, total=size, unit='B', unit_scale=True,
                    leave=False, disable=None) as bar):
      for chunk in response.iter_content(1 << 16):
        bar.update(file.write(chunk))


def _unpack(archive: pathlib.Path, folder: pathlib.Path, place: str, ending: str) -> None:
  """The zip's pictures into folder/place, all or none, wherever in the zip they lie.

  Raises:
    InputError: no zip file, none of these pictures in it, a member that points out of it, or
      that is far larger than it.
  """
  try:
    with (zipfile.ZipFile(archive) as file,
          tempfile.TemporaryDirectory(prefix='.', dir=folder) as temporary):
      whole = pathlib.Path(temporary, 'whole')
      whole.mkdir()
      members = {}
      for member in file.infolist():
        path = pathlib.PurePosixPath(member.filename.replace('\\', '/'))
        if path.is_absolute() or '..' in path.parts or stat.S_ISLNK(member.external_attr >> 16):
          raise InputError(f'{archive}: has the unsafe member {member.filename!r}')
        if fnmatch.fnmatchcase(path.name, _pattern(ending)):
          members[path.name] = member
      if not members:
        raise InputError(f'{archive}: no picture called 0001{ending}.png in it')
      size = sum(member.file_size for member in members.values())  # zipfile unpacks no more
      if size > LARGER * archive.stat().st_size:
        raise InputError(f'{archive}: unpacks to {size:,} bytes, more than {LARGER} times its own')
      for name, member in tqdm.tqdm(members.items(), unit=' pictures', leave=False, disable=None):
        with file.open(member) as source, open(whole / name, 'xb') as target:
          shutil.copyfileobj(source, target)
      (folder / place).parent.mkdir(exist_ok=True)
      whole.rename(folder / place)
  except zipfile.BadZipFile as error:
    raise InputError(f'{archive}: {error}') from None
