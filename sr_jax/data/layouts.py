"""Which folders are pairs of HR and LR: one rule for training, validation and evaluation.

A folder is one of

- pairs: it has one HR folder and one LR folder for the scale (`folder_names`), such as HR and
  LRbicx4, gt and lq, DIV2K_valid_HR and DIV2K_valid_LR_unknown/X4; or it is that HR folder.
- HR images alone.
- neither for certain: several LR folders, none for the scale, a folder that looks like LR without
  HR, an unknown layout. It is refused, and 'pairs:HR=...,LR=...' or 'hr:...' states what is meant.
"""

import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, NoReturn

from sr_jax import images
from sr_jax.data import file_names
from sr_jax.data.folder_names import COUNTERPARTS, MAX_SCALE, Role, role_of
from sr_jax.errors import InputError, listed

# Huang et al.'s: NAME_SRF_4_HR.png, NAME_SRF_4_LR.png and results of other methods in one folder.
_SRF_FOLDER = re.compile(r'image_srf_(\d+)', re.IGNORECASE)


class Layout(NamedTuple):
  """The folders of a set.

  Attributes:
    hr: the folder of the HR images.
    lr: that of the LR images; the same as `hr` if both lie in one folder, as NAME_HR and NAME_LR;
      None if LR is to be made from HR.
    notes: lines on what was chosen and what is not used.
  """

  hr: pathlib.Path
  lr: pathlib.Path | None
  notes: list[str]


class _Candidate(NamedTuple):
  """A folder of HR or LR images, with what the names of its path say."""

  path: pathlib.Path
  role: Role


def find_layout(folder: pathlib.Path, scale: int) -> Layout:
  """Returns where the HR and LR images of a set lie.

  Args:
    folder: contains the HR and LR folders, or is the HR folder itself, or contains HR images.
    scale: HR / LR.

  Raises:
    InputError: the layout looks like pairs and is unknown, ambiguous or of another scale; the
      message names the folders and what to give instead. The folder does not exist.
  """
  if not folder.is_dir():
    raise InputError(f'{folder}: no such folder')
  srf = [path for path in (folder, *_subfolders(folder)) if _SRF_FOLDER.fullmatch(path.name)]
  for place in srf:
    if int(_SRF_FOLDER.fullmatch(place.name)[1]) == scale:
      return Layout(place, place, [])
  if srf:
    raise InputError(f'{srf[0]}: contains images for another scale than {scale}')
  inside = _layout_inside(folder, scale)
  return inside or _layout_beside(folder, scale) or Layout(folder, None, [])


def refuse_lr_images(folder: pathlib.Path, found: dict[str, pathlib.Path]) -> None:
  """Refuses LR images among those that would be used as HR.

  Args:
    folder: contains the images, which are to be used as HR.
    found: the images, by their path in the folder without the suffix.

  Raises:
    InputError: an image lies below a folder that is named as LR, or next to its HR.
  """
  leaves = {path.parent for path in found.values()}
  places = {place.relative_to(folder) for leaf in leaves for place in (leaf, *leaf.parents)
            if place.is_relative_to(folder)}
  siblings = {}
  for place in sorted(places):
    if place.parts:
      siblings.setdefault(place.parent, []).append(place)
  for place, paths in siblings.items():
    suspicious = _suspicious(paths)
    if suspicious:
      nested = place.parts and len(paths) > 1
      _refuse(folder, f'{suspicious[0]} looks like LR images, and the layout is unknown',
              f'{folder / place} may be the set' if nested else '')
  low = file_names.lr_beside_hr(found)
  if low:
    _refuse(folder, f'{low[0].relative_to(folder)} looks like the LR of '
            f'{low[1].relative_to(folder)}')


# Folders -------------------------------------------------------------------------------


def _layout_inside(folder: pathlib.Path, scale: int) -> Layout | None:
  """Returns the layout of a folder that contains HR or LR folders; None if it contains neither."""
  roles = [_Candidate(path, role) for path in _subfolders(folder) if (role := role_of(path.name))]
  high = [one for one in roles if one.role.kind == 'HR' and one.role.strength != 'hint']
  low = [one for one in roles if one.role.kind == 'LR' and one.role.strength != 'hint']
  if low and high:
    return _pairs(folder, high, low, scale)
  suspicious = _suspicious(_subfolders(folder))
  if suspicious:
    _refuse(folder, f'{_names(folder, suspicious)} looks like LR images, and the layout is unknown')
  return _hr_alone(folder, high, scale)


def _pairs(folder: pathlib.Path, high: list[_Candidate], low: list[_Candidate],
           scale: int) -> Layout:
  """Returns the only pair of an HR and an LR folder for the scale.

  Raises:
    InputError: there is none, or several.
  """
  hr_of, lr_of = ({group: [one for one in found if one.role.group == group]
                   for group in dict.fromkeys(one.role.group for one in found)}
                  for found in (_leaves(high, scale), _leaves(low, scale)))
  alone = [one.path for group in lr_of.keys() - hr_of.keys() for one in lr_of[group]]
  if alone:
    _refuse(folder, f'{_names(folder, sorted(alone))} looks like LR images, and no HR folder '
            f'belongs to it for scale {scale}')
  if not lr_of:
    known = [number for number in range(1, MAX_SCALE + 1)
             if any(one.role.scale == number for one in _leaves(low, number))]
    _refuse(folder, f'contains images for scale {", ".join(map(str, known))}, not {scale}: '
            f'{_names(folder, [one.path for one in low])}', f'hr:{high[0].path} makes LR from HR')
  more = [one.path for group in hr_of.keys() - lr_of.keys() for one in hr_of[group]]
  if more:
    _refuse(folder, f'{_names(folder, sorted(more))} has no LR folder for scale {scale}, unlike '
            + _names(folder, [one.path for group in lr_of for one in hr_of[group]]))
  if len(lr_of) > 1:
    _refuse(folder, 'several pairs of HR and LR folders: '
            + _names(folder, [one.path for group in lr_of for one in hr_of[group]]))
  (group, lr), = lr_of.items()
  if len(lr) > 1:
    _refuse(folder, f'several LR folders for scale {scale}: '
            + _names(folder, [one.path for one in lr]))
  hr = _best_hr(folder, hr_of[group])
  used = {hr.relative_to(folder).parts[0], lr[0].path.relative_to(folder).parts[0]}
  return Layout(hr, lr[0].path, [
      f'{folder}: HR is read from {hr.relative_to(folder)}, LR from '
      f'{lr[0].path.relative_to(folder)}', *_unused(folder, used, scale)])


def _hr_alone(folder: pathlib.Path, high: list[_Candidate], scale: int) -> Layout | None:
  """Returns the layout of a folder with an HR folder and no LR; None if all of it is used.

  A folder called HR, GT, GTmod12 or HR_x4 is the set, whatever lies beside it. Several folders
  such as DIV2K_train_HR and Flickr2K_HR are all used.
  """
  plain = [one for one in high if one.role.strength == 'strong' and not one.role.group]
  if not plain:
    return None
  leaves = _leaves(plain, scale)
  if not leaves:
    scales = sorted({one.role.scale for one in plain if one.role.scale})
    raise InputError(f'{folder}: contains images for scale {", ".join(map(str, scales))}, not '
                     f'{scale}')
  hr = _best_hr(folder, leaves)
  return Layout(hr, None, _unused(folder, {hr.relative_to(folder).parts[0]}, scale))


def _layout_beside(folder: pathlib.Path, scale: int) -> Layout | None:
  """Returns the layout of an HR folder whose LR folder lies next to it; None for another folder.

  Raises:
    InputError: several LR folders lie next to it, or the folder is itself the LR of a pair.
  """
  place = pathlib.Path(os.path.abspath(folder))
  inner = (role := role_of(place.name)) is not None and role.kind == ''  # LR_bicubic/X4
  if inner:
    place, role = place.parent, role_of(place.parent.name)
  if not role or role.kind == '' or role.strength == 'hint':
    return None
  roles = [_Candidate(path, found) for path in _subfolders(place.parent)
           if (found := role_of(path.name)) and found.strength != 'hint']
  high, low = ([one for one in roles if (one.role.kind, one.role.group) == (kind, role.group)]
               for kind in ('HR', 'LR'))
  if role.kind == 'LR' and high:
    _refuse(folder, f'looks like the LR images of {high[0].path}')
  leaves = [leaf for leaf in _leaves([one for one in roles if one.role.kind == 'LR'], scale)
            if leaf.role.group == role.group]
  if role.kind == 'LR' or not (leaves or low):
    return None
  names = listed([one.path.relative_to(place.parent) for one in leaves or low])
  # LR may belong to another HR folder, such as GTmod12.
  if not leaves or inner or _best_hr(place.parent, _leaves(high, scale) or high) != place:
    return Layout(folder, None, [f'{folder}: LR is made from HR; {names} next to it is not used'])
  if len(leaves) > 1:
    _refuse(folder, f'several LR folders for scale {scale} lie next to it: {names}')
  parent = folder.parent if folder.name not in ('', '..') else place.parent
  return Layout(folder, parent / leaves[0].path.relative_to(place.parent), [
      f'{folder}: LR is read from {names} next to it'])


def _leaves(found: Iterable[_Candidate], scale: int) -> list[_Candidate]:
  """Returns the folders that hold the images for a scale: HR, LR/X4, LR_bicubic/X4, LR/LRBI/x4.

  A folder that has a subfolder for each scale or degradation holds no images for other ones.
  """
  leaves = []
  for one in found:
    if one.role.scale not in (None, scale):
      continue
    subfolders = _subfolders(one.path)
    below = [_Candidate(path, one.role._replace(
        group=tuple(sorted(one.role.group + role.group)), scale=role.scale or one.role.scale))
        for path in subfolders
        if (role := role_of(path.name)) and role.kind in ('', one.role.kind)]
    leaves += _leaves(below, scale)
    # Images elsewhere in it make the choice uncertain, so it is one, too.
    if not below or len(below) < len(subfolders) or _has_images(one.path):
      leaves.append(one)
  return leaves


def _best_hr(folder: pathlib.Path, found: list[_Candidate]) -> pathlib.Path:
  """Returns the most specific HR folder: HR_x4 before GTmod12 before HR before original.

  Raises:
    InputError: there are several of the same rank.
  """
  def rank(one: _Candidate) -> int:
    if one.role.strength == 'whole':
      return 3
    return 0 if one.role.scale else 1 if one.role.modulus else 2

  best = [one.path for one in found if rank(one) == min(map(rank, found))]
  if len(best) > 1:
    _refuse(folder, f'several HR folders: {_names(folder, best)}')
  return best[0]


def _suspicious(paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
  """Returns the folders of one place that look like LR.

  'LR' does by itself. 'input' does next to any HR folder, 'low_light' next to 'high_light' and
  'HR', but not next to 'images'. Any name does that becomes another one with HR in place of LR:
  'mylrs' next to 'myhrs'.
  """
  roles = [_Candidate(path, role) for path in paths if (role := role_of(path.name))]
  high = [one.role for one in roles if one.role.kind == 'HR']
  found = [low.path for low in roles if low.role.kind != 'HR' and (
      (low.role.kind, low.role.strength) == ('LR', 'strong')
      or any(role.group == low.role.group or not low.role.group
             or (role.strength == 'strong' and not role.group) for role in high))]
  names = {path.name.lower() for path in paths}
  return found + [path for path in paths if path not in found and any(
      path.name.lower().replace(low, high) in names - {path.name.lower()}
      for low, high in COUNTERPARTS)]


def _unused(folder: pathlib.Path, used: set[str], scale: int) -> list[str]:
  """Returns a line on the other folders and images in a set, leaving out those of other scales."""
  unused = [path.name for path in _subfolders(folder) if path.name not in used
            and not ((role := role_of(path.name)) and role.scale not in (None, scale))]
  lines = [f'{folder}: not used: {listed(unused)}'] if unused else []
  if _has_images(folder):
    lines.append(f'{folder}: the images that lie directly in it are not used')
  return lines


def _subfolders(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the folders in a folder that are not hidden, sorted."""
  return sorted(path for path in _entries(folder) if path.is_dir())


def _has_images(folder: pathlib.Path) -> bool:
  return any(path.suffix.lower() in images.SUFFIXES and path.is_file()
             for path in _entries(folder))


def _entries(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns what is not hidden in a folder; nothing if it cannot be read."""
  try:
    return [path for path in folder.iterdir() if not path.name.startswith('.')]
  except OSError:  # reported by those who read the images
    return []


def _names(folder: pathlib.Path, paths: Iterable[pathlib.Path]) -> str:
  return listed([str(path.relative_to(folder)) for path in paths])


def _refuse(folder: pathlib.Path, reason: str, advice: str = '') -> NoReturn:
  """Raises the InputError of a layout that is not certain.

  Args:
    folder, reason: begin the message.
    advice: what to give instead, first in the advice.
  """
  ways = [advice] if advice else []
  ways += ['use pairs:HR=PATH,LR=PATH for pairs', 'hr:PATH for HR images alone']
  raise InputError(f'{folder}: {reason}; {", ".join(ways)}')
