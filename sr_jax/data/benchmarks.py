"""Benchmark sets, in the layouts that people have them in: pairs of LR and HR pictures."""

import pathlib
import re
from collections.abc import Iterator, Sequence

from sr_jax.data import folders, pictures, sources
from sr_jax.data.pictures import Pair, Picture
from sr_jax.errors import InputError
from sr_jax.system import files

# (HR folder, LR folder) inside a set; {s} is the scale, and X may be small. The first that
# is there counts.
LAYOUTS = (
    ('HR_x{s}', 'LRbicx{s}'),
    ('GTmod12', 'LRbicx{s}'),  # BasicSR's, HR cropped to a multiple of 12
    ('original', 'LRbicx{s}'),
    ('GT', 'LR/X{s}'),
    ('GT', 'LR'),
    ('HR', 'LR_bicubic/X{s}'),  # EDSR's
    ('HR', 'LR/X{s}'),
    ('HR', 'LR'),
    ('image_SRF_{s}', 'image_SRF_{s}'),  # Huang et al.'s, NAME_SRF_4_HR.png and ..._LR.png
    ('DIV2K_valid_HR', 'DIV2K_valid_LR_bicubic/X{s}'),
    ('DIV2K_valid_HR', 'DIV2K_valid_LR_x{s}'),  # only x8 is called so
    ('DIV2K_train_HR', 'DIV2K_train_LR_bicubic/X{s}'),
    ('DIV2K_train_HR', 'DIV2K_train_LR_x{s}'),
)
LR_FOLDER = re.compile(r'(.*_)?LR(bic\w*|_.*|[xX]?\d+)?')


def find_set(spec: str, scale: int, resize: str = '', download: bool = False) -> list[Picture]:
  """The pictures of a set.

  Args:
    spec: a data source (`sources.open_source`) or a folder, also as 'folder:PATH': one of
      `LAYOUTS`, an official '..._HR' folder beside its '..._LR_bicubic/X4', or any pictures,
      taken as HR.
    resize, download: as there.

  Raises:
    InputError: a folder that is missing, empty, for other scales or of an unknown layout,
      files without a partner.
  """
  if spec.partition(':')[0] in ('sample', 'pairs', 'div2k', 'tfds'):
    return sources.open_source(spec, scale, resize, download)
  folder = files.expand(spec.removeprefix('folder:'))
  hr, lr = _folders(folder, scale)
  hr_files = folders.images_by_name(hr)
  if lr is None:
    for name, path in hr_files.items():
      low = [part for part in path.relative_to(hr).parts[:-1] if LR_FOLDER.fullmatch(part)]
      if name.endswith('_LR') and f'{name.removesuffix("_LR")}_HR' in hr_files:
        low = [path.name]
      if low:
        raise InputError(f'{hr}: {low[0]} in it looks like LR pictures, and the layout is none '
                         'that is known; name a folder of HR ones')
    return [Picture(name, path, None, resize) for name, path in hr_files.items()]
  lr_files = folders.images_by_name(lr)
  if lr == hr:
    hr_files, lr_files = ({name: path for name, path in hr_files.items()
                           if path.stem.endswith(ending)} for ending in ('_HR', '_LR'))
  pairs = folders.partners(hr_files, lr_files, scale)
  if not pairs:
    raise InputError(f'{hr}: no picture called NAME_HR in it')
  plain = [folders.plain_names(name, scale)[-1] for name, *_ in pairs]
  return [Picture(short if plain.count(short) == 1 else name, *paths, resize)
          for short, (name, *paths) in zip(plain, pairs, strict=True)]


def _folders(folder: pathlib.Path, scale: int) -> tuple[pathlib.Path, pathlib.Path | None]:
  """Where a set's HR pictures lie and, if it has its own, the LR ones."""
  layouts = [(folder / hr.format(s=scale), folder / written.format(s=scale))
             for hr, lr in LAYOUTS for written in (lr, lr.replace('X{s}', 'x{s}'))]
  if folder.name == f'image_SRF_{scale}':
    layouts.append((folder, folder))
  if folder.name.endswith('_HR'):
    beside = folder.name.removesuffix('_HR') + '_LR'
    layouts += [(folder, folder.parent / f'{beside}_bicubic' / f'X{scale}'),
                (folder, folder.parent / f'{beside}_x{scale}')]
  for hr, lr in layouts:
    # LR may hold a folder for each scale, of which this one is not there.
    if hr.is_dir() and lr.is_dir() and not any(lr.glob('[xX][0-9]')):
      return hr, lr
  for hr, _ in layouts:
    if hr.is_dir():
      return hr, None
  scales = sorted(path.name.removeprefix('HR_x') for path in folder.glob('HR_x*'))
  if scales:
    raise InputError(f'{folder}: has pictures for scale {", ".join(scales)}, not {scale}')
  return folder, None


def read_set(found: Sequence[Picture], scale: int,
             skipped: list[str] | None = None) -> Iterator[Pair]:
  """The pictures of a set, read one by one.

  A picture without an LR of its own has one made by MATLAB's bicubic, HR cropped to a
  multiple of the scale first.

  Args:
    skipped: takes a line for each unusable picture, which is otherwise an error.

  Raises:
    InputError: a damaged picture, pairs that don't fit, one that is too small.
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
