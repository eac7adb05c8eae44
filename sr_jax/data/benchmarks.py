"""Benchmark sets, in the layouts that people have them in: pairs of LR and HR pictures."""

import pathlib
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from sr_jax import files, images
from sr_jax.data import sources
from sr_jax.errors import InputError

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


class Pair(NamedTuple):
  """One picture of a set: uint8 [h, w, C] and [h * scale, w * scale, C]."""

  name: str
  lr: np.ndarray
  hr: np.ndarray
  cropped: bool = False  # HR, at the bottom or right, to a multiple of the scale


class Files(NamedTuple):
  """A picture of a set before it is read."""

  name: str
  hr: pathlib.Path
  lr: pathlib.Path | None  # None: to be made from HR


def find_set(spec: str, scale: int) -> list[Files]:
  """The files of a set.

  Args:
    spec: a data source ('sample:valid', 'folder:PATH') or a folder: one of `LAYOUTS`, an
      official '..._HR' folder beside its '..._LR_bicubic/X4', or any pictures, taken as HR.

  Raises:
    InputError: a folder that is missing, empty, for other scales or of an unknown layout,
      files without a partner.
  """
  if spec.partition(':')[0] == 'sample':
    return [Files(path.stem, path, None) for path in sources.open_source(spec)]
  folder = files.expand(spec.removeprefix('folder:'))
  hr, lr = _folders(folder, scale)
  hr_files = sources.named(hr)
  if lr is None:
    for name, path in hr_files.items():
      low = [part for part in path.relative_to(hr).parts[:-1] if LR_FOLDER.fullmatch(part)]
      if name.endswith('_LR') and f'{name.removesuffix("_LR")}_HR' in hr_files:
        low = [path.name]
      if low:
        raise InputError(f'{hr}: {low[0]} in it looks like LR pictures, and the layout is none '
                         'that is known; name a folder of HR ones')
    return [Files(name, path, None) for name, path in hr_files.items()]
  lr_files = sources.named(lr)
  if lr == hr:
    hr_files, lr_files = ({name: path for name, path in hr_files.items()
                           if path.stem.endswith(ending)} for ending in ('_HR', '_LR'))
  pairs = sources.partners(hr_files, lr_files, scale)
  if not pairs:
    raise InputError(f'{hr}: no picture called NAME_HR in it')
  plain = [sources.plain_names(name, scale)[-1] for name, *_ in pairs]
  return [Files(short if plain.count(short) == 1 else name, *paths)
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


def read_set(spec: str, scale: int, limit: int | None = None,
             skipped: list[str] | None = None) -> Iterator[Pair]:
  """The pictures of a set, read one by one.

  A set without LR pictures of its own has them made by MATLAB's bicubic, HR cropped to a
  multiple of the scale first.

  Args:
    spec: as for `find_set`.
    limit: the first so many files.
    skipped: takes a line for each unusable picture, which is otherwise an error.

  Raises:
    InputError: as `find_set`; a damaged picture, pairs that don't fit, one that is too small.
  """
  for found in find_set(spec, scale)[:limit]:
    try:
      pair = _read(found, scale)
      if min(pair.hr.shape[:2]) <= 2 * scale:
        raise InputError(f'{found.hr}: {pair.hr.shape[0]}x{pair.hr.shape[1]} is too small for '
                         f'scale {scale}')
      yield pair
    except InputError as error:
      if skipped is None:
        raise
      skipped.append(str(error))


def _read(found: Files, scale: int) -> Pair:
  whole = images.read_image(found.hr)
  hr = images.crop_to_multiple(whole, scale)
  cropped = hr.shape != whole.shape
  if found.lr is None:
    return Pair(found.name, images.imresize(hr, Fraction(1, scale)), hr, cropped)
  lr = _like(images.read_image(found.lr), hr)
  wanted = (lr.shape[0] * scale, lr.shape[1] * scale, lr.shape[2])
  if hr.shape != wanted:
    raise InputError(f'{found.hr}: {whole.shape}, expected {scale} times its LR, {wanted}')
  return Pair(found.name, lr, hr, cropped)


def _like(lr: np.ndarray, hr: np.ndarray) -> np.ndarray:
  """A grey LR as RGB or the reverse, where HR is so and nothing is lost."""
  if lr.shape[-1] == 3 and hr.shape[-1] == 1 and (lr == lr[..., :1]).all():
    return lr[..., :1]
  if lr.shape[-1] == 1 and hr.shape[-1] == 3 and (hr == hr[..., :1]).all():
    return images.as_rgb(lr)
  return lr
