"""DIV2K in its official layout, with its own bicubic LR files: found on disk, or downloaded.

Agustsson and Timofte, 'NTIRE 2017 Challenge on Single Image Super-Resolution', 2017.
"""

import fnmatch
import importlib.util
import pathlib
import shutil
import stat
import sys
import zipfile
from typing import NamedTuple

import pooch
import requests  # pooch downloads with it as well, but does not resume
import tqdm

from sr_jax.errors import InputError, count_of, listed
from sr_jax.system import files, https

DOWNLOAD_FLAG = '--config.data.download=True'
MAX_EXPANSION = 4  # unpacked bytes over the size of the zip file; PNG files hardly shrink


def find_div2k(folder: pathlib.Path, part: str, scale: int,
               download: bool = False) -> list[tuple[str, pathlib.Path, pathlib.Path]]:
  """Returns the image pairs of DIV2K, or of the subset that is in `folder`, sorted by name.

  Args:
    folder: contains DIV2K_train_HR/0001.png, DIV2K_train_LR_bicubic/X2/0001x2.png and so on (for
      x8 DIV2K_train_LR_x8/0001x8.png).
    part: 'train' (800 images) or 'valid' (100).
    scale: 2, 3, 4 or 8.
    download: whether to download each folder that has no images; an interrupted download is
      resumed.

  Returns:
    [(name, HR file, LR file)], with names such as '0001'.

  Raises:
    InputError: the part or scale does not exist, a folder or the partner of an image is missing,
      or the download failed.
  """
  if part not in ('train', 'valid') or scale not in (2, 3, 4, 8):
    raise InputError(f'DIV2K {part!r} x{scale}: expected train or valid, and x2, x3, x4 or x8')
  hr = f'DIV2K_{part}_HR'
  lr = f'DIV2K_{part}_LR_x8' if scale == 8 else f'DIV2K_{part}_LR_bicubic/X{scale}'
  endings = {hr: '', lr: f'x{scale}'}
  missing = [name for name in endings if not _images(folder / name, endings[name])]
  if missing and not download:
    raise InputError(f'{folder}: no images of DIV2K in {" and ".join(missing)}; {DOWNLOAD_FLAG} '
                     "downloads them, and the config variant ':sample' needs no download")
  if missing:
    _download_folders(folder, {name: endings[name] for name in missing})
  hr_files, lr_files = (_images(folder / name, ending) for name, ending in endings.items())
  unpaired = [str((hr_files | lr_files)[name])
              for name in sorted(hr_files.keys() ^ lr_files.keys())]
  if unpaired:
    raise InputError(f'{count_of(unpaired, "image")} without a partner: {listed(unpaired)}; '
                     f'{DOWNLOAD_FLAG} downloads a folder again after it has been removed')
  return [(name, hr_files[name], lr_files[name]) for name in sorted(hr_files)]


def _images(folder: pathlib.Path, ending: str) -> dict[str, pathlib.Path]:
  """Returns the images of a folder by number, such as '0001'."""
  return {path.name[:4]: path for path in folder.glob(_pattern(ending))}


def _pattern(ending: str) -> str:
  return f'[0-9][0-9][0-9][0-9]{ending}.png'


# Download ----------------------------------------------------------------------------------


class Archive(NamedTuple):
  """A zip file of the data set."""

  url: str
  size: int  # bytes
  sha256: str
  name: str


def _archives() -> dict[str, Archive]:
  """Reads the archives, by name, from a table in TensorFlow Datasets, without importing it."""
  spec = importlib.util.find_spec('tensorflow_datasets')
  if spec is None:
    raise InputError('the package tensorflow-datasets, which lists the addresses and hashes of '
                     'DIV2K, is not installed: pip install --no-deps tensorflow-datasets')
  table = pathlib.Path(spec.submodule_search_locations[0], 'datasets', 'div2k', 'checksums.tsv')
  try:
    rows = [line.split('\t') for line in table.read_text('utf-8').splitlines()]
    return {name: Archive(url, int(size), sha256, name) for url, size, sha256, name in rows}
  except (OSError, ValueError) as error:
    raise InputError(f'{table}: cannot read ({error}); try another version of '
                     'tensorflow-datasets') from None


def _download_folders(folder: pathlib.Path, endings: dict[str, str]) -> None:
  """Downloads and unpacks folders of the set.

  Args:
    folder: where the set lies.
    endings: {folder of the set: what the names of its images end in}.
  """
  table = _archives()
  try:
    archives = {name: table[name.replace('/', '_') + '.zip'] for name in endings}
  except KeyError as error:
    raise InputError(f'tensorflow-datasets lists no file {error} of DIV2K') from None
  try:
    _check_disk_space(folder, list(archives.values()))
    for name, archive in archives.items():
      part_file = _part_file(folder, archive)
      _download(archive, part_file)
      _unpack(part_file, folder / name, endings[name])
      part_file.unlink()
  except OSError as error:
    raise InputError(f'{folder}: cannot write ({error.strerror or error})') from None


def _part_file(folder: pathlib.Path, archive: Archive) -> pathlib.Path:
  return folder / f'{archive.name}.part'


def _size(path: pathlib.Path) -> int:
  return path.stat().st_size if path.exists() else 0


def _check_disk_space(folder: pathlib.Path, archives: list[Archive]) -> None:
  """Checks that the archives fit on the disk.

  One zip file at a time lies beside the unpacked images, which need as much space as all of the
  zip files, because PNG files do not shrink.
  """
  sizes = [archive.size for archive in archives]
  downloaded = sum(_size(_part_file(folder, archive)) for archive in archives)
  needed, free = sum(sizes) + max(sizes) - downloaded, files.free_bytes(folder)
  if free < needed:
    raise InputError(f'{folder}: DIV2K needs {needed / 1e9:.1f} GB more, but only '
                     f'{free / 1e9:.1f} GB are free')


def _download(archive: Archive, part_file: pathlib.Path) -> None:
  """Downloads the zip file, or what is missing of it, to `part_file`.

  Raises:
    InputError: the download failed. What was received is kept to be resumed, unless the hash is
      wrong.
  """
  url, size, sha256, _ = archive
  try:
    if _size(part_file) < size:
      _receive(url, size, part_file)
  except requests.RequestException as error:
    raise InputError(f'{url}: connection lost after {_size(part_file) / 1e6:.0f} of '
                     f'{size / 1e6:.0f} MB ({type(error).__name__}); the next start resumes the '
                     'download') from None
  if (digest := pooch.file_hash(part_file)) != sha256:
    part_file.unlink()
    raise InputError(f'{url}: damaged download, removed (SHA-256 {digest}, expected {sha256})')


def _receive(url: str, size: int, part_file: pathlib.Path) -> None:
  """Appends to `part_file` what it lacks of a file of `size` bytes."""
  received = _size(part_file)
  headers = {'Accept-Encoding': 'identity'}  # a range of a compressed stream would be useless
  if received:
    headers['Range'] = f'bytes={received}-'
  with (https.session() as session,
        session.get(url, headers=headers, stream=True, timeout=60) as response):
    if response.status_code not in (200, 206):
      raise InputError(f'{url}: {response.status_code} {response.reason}')
    resumed = response.status_code == 206  # 200: all of the file; the server has no ranges
    header = 'Content-Range' if resumed else 'Content-Length'
    offered = response.headers.get(header)
    expected = f'bytes {received}-{size - 1}/{size}' if resumed else str(size)
    if offered != expected:  # such as a login page, which must not be written to the file
      raise InputError(f'{url}: the server sends {header}: {offered or "unknown"}, expected '
                       f'{expected}')
    part_file.parent.mkdir(parents=True, exist_ok=True)  # only once the server has answered
    print(f'Downloading {url} to {part_file.parent}, {size / 1e6:.0f} MB', file=sys.stderr)
    with (open(part_file, 'ab' if resumed else 'wb') as file,
          tqdm.tqdm(initial=received if resumed else 0, total=size, unit='B', unit_scale=True,
                    leave=False, disable=None) as bar):
      for chunk in response.iter_content(1 << 16):
        bar.update(file.write(chunk))


def _unpack(archive: pathlib.Path, folder: pathlib.Path, ending: str) -> None:
  """Unpacks the images of a zip file, wherever in it they lie, to `folder`: all or none.

  Raises:
    InputError: the file is no zip file, has none of these images, has a member whose path points
      outside of it, or unpacks to far more than its own size.
    OSError: the folder cannot be written.
  """
  try:
    with zipfile.ZipFile(archive) as file:
      members = _members(archive, file, _pattern(ending))
      if not members:
        raise InputError(f'{archive}: contains no image named like 0001{ending}.png')
      size = sum(member.file_size for member in members.values())  # zipfile unpacks no more
      if size > MAX_EXPANSION * archive.stat().st_size:
        raise InputError(f'{archive}: unpacks to {size:,} bytes, more than {MAX_EXPANSION} times '
                         'its own size')
      with files.atomic_folder(folder) as unfinished:
        for name, member in tqdm.tqdm(members.items(), unit=' images', leave=False, disable=None):
          with file.open(member) as source, open(unfinished / name, 'xb') as target:
            shutil.copyfileobj(source, target)
  except zipfile.BadZipFile as error:
    raise InputError(f'{archive}: {error}') from None


def _members(archive: pathlib.Path, file: zipfile.ZipFile,
             pattern: str) -> dict[str, zipfile.ZipInfo]:
  """Returns the members whose file names match the pattern; refuses unsafe ones.

  Raises:
    InputError: a member is a link or its path is absolute or contains '..'.
  """
  members = {}
  for member in file.infolist():
    path = pathlib.PurePosixPath(member.filename.replace('\\', '/'))
    if path.is_absolute() or '..' in path.parts or stat.S_ISLNK(member.external_attr >> 16):
      raise InputError(f'{archive}: contains the unsafe member {member.filename!r}')
    if fnmatch.fnmatchcase(path.name, pattern):
      members[path.name] = member
  return members
