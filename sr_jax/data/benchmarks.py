"""Benchmark sets: pairs of HR and LR images in the folder layouts that are in common use."""

import pathlib
import re
from collections.abc import Iterator, Sequence

from sr_jax.data import folders, pictures, sources
from sr_jax.data.pictures import Pair, Picture
from sr_jax.errors import InputError
from sr_jax.system import files

# (HR folder, LR folder) inside a set. {s} is the scale; the X may also be lower case. The first
# layout whose folders exist is used.
LAYOUTS = (
    ('HR_x{s}', 'LRbicx{s}'),
    ('GTmod12', 'LRbicx{s}'),  # BasicSR's; HR is cropped to a multiple of 12
    ('original', 'LRbicx{s}'),
    ('GT', 'LR/X{s}'),
    ('GT', 'LR'),
    ('HR', 'LR_bicubic/X{s}'),  # EDSR's
    ('HR', 'LR/X{s}'),
    ('HR', 'LR'),
    ('image_SRF_{s}', 'image_SRF_{s}'),  # Huang et al.'s: NAME_SRF_4_HR.png, NAME_SRF_4_LR.png
    ('DIV2K_valid_HR', 'DIV2K_valid_LR_bicubic/X{s}'),
    ('DIV2K_valid_HR', 'DIV2K_valid_LR_x{s}'),  # only x8 has this name
    ('DIV2K_train_HR', 'DIV2K_train_LR_bicubic/X{s}'),
    ('DIV2K_train_HR', 'DIV2K_train_LR_x{s}'),
)
# Names of folders that contain LR images.
LR_FOLDER = re.compile(r'(.*_)?LR(bic\w*|_.*|[xX]?\d+)?')


def find_set(spec: str, scale: int, resize: str = '', download: bool = False) -> list[Picture]:
  """Returns the images of a set.

  Args:
    spec: a data source (`sources.open_source`) or a folder, also as 'folder:PATH': one of
      `LAYOUTS`, an official '..._HR' folder next to its '..._LR_bicubic/X4', or any folder of
      images, which are used as HR.
    scale, resize, download: see `sources.open_source`.

  Raises:
    InputError: a folder that is missing, empty, for other scales or of an unknown layout, or
      files without a partner.
  """
  if spec.partition(':')[0] in ('sample', 'pairs', 'div2k', 'tfds'):
    return sources.open_source(spec, scale, resize, download)
  folder = files.expand(spec.removeprefix('folder:'))
  hr, lr = _folders(folder, scale)
  hr_files = folders.images_by_name(hr)
  if lr is None:
    _refuse_lr_images(hr, hr_files)
    return [Picture(name, path, None, resize) for name, path in hr_files.items()]
  lr_files = folders.images_by_name(lr)
  if lr == hr:
    hr_files, lr_files = ({name: path for name, path in hr_files.items()
                           if path.stem.endswith(ending)} for ending in ('_HR', '_LR'))
  pairs = folders.partners(hr_files, lr_files, scale)
  if not pairs:
    raise InputError(f'{hr}: contains no image named NAME_HR')
  plain = [folders.plain_names(name, scale)[-1] for name, *_ in pairs]
  return [Picture(short if plain.count(short) == 1 else name, *paths, resize)
          for short, (name, *paths) in zip(plain, pairs, strict=True)]


def _folders(folder: pathlib.Path, scale: int) -> tuple[pathlib.Path, pathlib.Path | None]:
  """Returns (HR folder, LR folder) of a set; the latter is None if there is no separate LR."""
  layouts = [(folder / hr.format(s=scale), folder / lr_name.format(s=scale))
             for hr, lr in LAYOUTS for lr_name in (lr, lr.replace('X{s}', 'x{s}'))]
  if folder.name == f'image_SRF_{scale}':
    layouts.append((folder, folder))
  if folder.name.endswith('_HR'):
    prefix = folder.name.removesuffix('_HR') + '_LR'
    layouts += [(folder, folder.parent / f'{prefix}_bicubic' / f'X{scale}'),
                (folder, folder.parent / f'{prefix}_x{scale}')]
  for hr, lr in layouts:
    # An LR folder that has a subfolder for each scale has none for this scale.
    if hr.is_dir() and lr.is_dir() and not any(lr.glob('[xX][0-9]')):
      return hr, lr
  for hr, _ in layouts:
    if hr.is_dir():
      return hr, None
  scales = sorted(path.name.removeprefix('HR_x') for path in folder.glob('HR_x*'))
  if scales:
    raise InputError(f'{folder}: contains images for scale {", ".join(scales)}, not {scale}')
  return folder, None


def _refuse_lr_images(folder: pathlib.Path, images: dict[str, pathlib.Path]) -> None:
  """Refuses LR images among those that would be used as HR.

  Raises:
    InputError: an image lies in a folder that is named like an LR folder, or has a partner
      NAME_HR and is named NAME_LR.
  """
  for name, path in images.items():
    suspicious = [part for part in path.relative_to(folder).parts[:-1] if LR_FOLDER.fullmatch(part)]
    if name.endswith('_LR') and f'{name.removesuffix("_LR")}_HR' in images:
      suspicious = [path.name]
    if suspicious:
      raise InputError(f'{folder}: {suspicious[0]} looks like LR images, and the layout is '
                       'unknown; name a folder of HR images')


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
