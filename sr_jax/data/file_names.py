"""What the names of image files say: which HR and LR files belong together."""

import collections
import pathlib
import re
from collections.abc import Mapping

from sr_jax import images
from sr_jax.data import pictures
from sr_jax.errors import InputError, count_of, listed

# (name in the first set, its file, the file of its partner in the second set)
NamedPair = tuple[str, pathlib.Path, pathlib.Path]

# Endings of LR files: 'a_LR', 'a_LRBI_x4', 'a_LR4'; and those that state a scale alone: 'ax4m'.
_LR_ENDING = re.compile(
    r'(?<=[^/])[_-]?(?:lr|lq)(?:bicubic|bic|bi|bd|dn)?(?:[_-]?x?(\d{1,2})[mdw]?)?$', re.I)
_SCALE_ENDING = re.compile(r'(?<=[^/])[_-]?x(\d{1,2})(?:[mdw]\d?)?$', re.I)
_HR_ENDING = re.compile(r'(?<=[^/])[_-](?:hr|gt)(?:[_-]?x?(\d{1,2}))?$', re.I)


def plain_names(name: str, scale: int) -> list[str]:
  """Returns the name, then the name with one, two, ... of the endings removed that tools append.

  'baby_x4_SR' gives itself, 'baby_x4' and 'baby'. Endings such as those of 'babyx4', 'baby_out',
  'baby_SRF_4_HR', 'baby_LRBI_x4', 'baby_LR4' and DIV2K's '0801x4m' (mild, also d and w) are removed
  as well, whatever the case of their letters; another number than `scale` is kept.
  """
  ending = re.compile(
      rf'(?<=[^/])([_-]?x{scale}([mdw]\d?)?|[_-]{scale}x|[_-](sr|hr|lr|lq|gt|out|srf_{scale})'
      rf'|[_-](hr|gt)x?{scale}|[_-]?(lr|lq)(x?{scale}[mdw]?|(bicubic|bic|bi|bd|dn)(x?{scale})?))$',
      re.I)
  names = [name]
  while (shorter := ending.sub('', names[-1])) != names[-1]:
    names.append(shorter)
  return names


def hr_and_lr_of_one_folder(found: Mapping[str, pathlib.Path], scale: int
                            ) -> tuple[dict[str, pathlib.Path], dict[str, pathlib.Path]] | None:
  """Splits the images of a folder that are all called NAME_HR or NAME_LR (or NAME_LR4 and so on).

  Args:
    found: the images by name.
    scale: HR / LR; a name with another scale is of neither kind.

  Returns:
    (the HR images, the LR images); None if there are others, or none of one kind.
  """
  hr, lr = ({name: path for name, path in found.items() if (match := ending.search(name))
             and match[1] in (None, str(scale))} for ending in (_HR_ENDING, _LR_ENDING))
  return (hr, lr) if hr and lr and len(hr) + len(lr) == len(found) else None


def lr_beside_hr(found: Mapping[str, pathlib.Path]) -> tuple[pathlib.Path, pathlib.Path] | None:
  """Returns the first image that looks like the LR of another one, and that one; None without any.

  A name that ends like LR ('a_LR' beside 'a' or 'a_HR') is enough. One that ends in a scale ('ax4'
  beside 'a') may also be a result of that scale, so the sizes in the headers decide.

  Args:
    found: the images of one folder, by name.
  """
  originals = {_HR_ENDING.sub('', name): path for name, path in found.items()}
  for name, path in found.items():
    ending = _LR_ENDING.search(name) or _SCALE_ENDING.search(name)
    partner = originals.get(name[:ending.start()]) if ending else None
    if partner and partner != path and (
        ending.re is _LR_ENDING or _is_reduced(path, partner, int(ending[1]))):
      return path, partner
  return None


def _is_reduced(small: pathlib.Path, large: pathlib.Path, scale: int) -> bool:
  """Returns whether the sizes of two images are those of LR and HR."""
  try:
    return scale > 1 and pictures.sizes_match(images.image_size(small), images.image_size(large),
                                              scale)
  except images.DamagedImageError:
    return False


def pair_by_name(first: dict[str, pathlib.Path], second: dict[str, pathlib.Path],
                 scale: int) -> tuple[list[NamedPair], list[pathlib.Path]]:
  """Pairs files of equal names, removing as few endings as possible (`plain_names`).

  Args:
    first, second: files by name, as returned by `images_by_name`.
    scale: HR / LR.

  Returns:
    (pairs, files without a partner). If two files of `second` match the same file, or a file of
    `second` matches several files of `first`, none of them is paired.
  """
  shortened = collections.defaultdict(list)
  for name in first:
    for short in plain_names(name, scale)[1:]:
      shortened[short].append(name)
  candidates = collections.defaultdict(list)  # names in second for each name in first
  for name in second:
    choices = ([short] if short in first else shortened.get(short, [])
               for short in plain_names(name, scale))
    matches = next(filter(None, choices), [])
    if len(matches) == 1:
      candidates[matches[0]].append(name)
  pairs = [(name, first[name], second[candidates[name][0]]) for name in first
           if len(candidates[name]) == 1]
  paired = {path for _, *paths in pairs for path in paths}
  return pairs, [path for path in (*first.values(), *second.values()) if path not in paired]


def partners(first: dict[str, pathlib.Path], second: dict[str, pathlib.Path], scale: int,
             advice: str = '') -> list[NamedPair]:
  """Pairs files by name (`pair_by_name`) and requires that all of them have a partner.

  Args:
    first, second, scale: see `pair_by_name`.
    advice: added to the error message.

  Raises:
    InputError: files without a partner; the message names the first ten.
  """
  pairs, unpaired = pair_by_name(first, second, scale)
  if unpaired:
    raise InputError(f'{count_of(unpaired, "image")} without a partner of the same name{advice}: '
                     + listed(unpaired) + _other_scale(first, second, scale, len(pairs)))
  return pairs


def _other_scale(first: dict[str, pathlib.Path], second: dict[str, pathlib.Path], scale: int,
                 paired: int) -> str:
  """Returns advice on the scale that pairs more than `paired` files; '' if there is none."""
  stated = {int(number) for name in (*first, *second) for ending in (_LR_ENDING, _SCALE_ENDING)
            if (match := ending.search(name)) for number in match.groups() if number}
  counts = {other: len(pair_by_name(first, second, other)[0]) for other in sorted(stated - {scale})}
  best = max(counts, key=counts.get, default=scale)
  if counts.get(best, 0) <= paired:
    return ''
  return f'; their names say scale {best}, not {scale}'
