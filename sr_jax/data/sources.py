"""Where pictures come from: a spec to a list of files, files to pairs."""

import collections
import importlib.resources
import pathlib
import re

from sr_jax.errors import InputError
from sr_jax.images import SUFFIXES

# Pictures inside scikit-image's wheel (public domain or CC0), so that `:sample` runs
# without a network. The cat is never trained on.
SAMPLE_TRAIN = ('astronaut.png', 'camera.png', 'coffee.png', 'hubble_deep_field.jpg', 'ihc.png',
                'motorcycle_left.png', 'rocket.jpg')
SAMPLE_VALID = ('chelsea.png',)


def open_source(spec: str) -> list[pathlib.Path]:
  """The picture files that a spec names, sorted, so that an index means the same tomorrow.

  Args:
    spec: 'sample', the training pictures shipped inside scikit-image; 'sample:valid', the
      held-out one; 'folder:PATH', every picture below PATH, hidden ones left out.

  Raises:
    InputError: an unknown spec, a missing or an empty folder.
  """
  kind, _, rest = spec.partition(':')
  if kind == 'sample' and rest in ('', 'train', 'valid'):
    root = importlib.resources.files('skimage') / 'data'
    return [pathlib.Path(str(root / name)) for name in
            (SAMPLE_VALID if rest == 'valid' else SAMPLE_TRAIN)]
  if kind == 'folder' and rest:
    return _pictures_below(pathlib.Path(rest).expanduser())
  raise InputError(f"data source {spec!r}: expected 'sample', 'sample:valid' or 'folder:PATH'")


def _pictures_below(folder: pathlib.Path) -> list[pathlib.Path]:
  if not folder.is_dir():
    hint = ''
    if 'DIV2K' in folder.parts:
      hint = ("; README.md says how to download DIV2K; the config's variant ':sample' needs no "
              'download, --config.data.valid=sample:valid no validation pictures')
    raise InputError(f'{folder}: no such folder{hint}')
  found = sorted(path for path in folder.rglob('*')
                 if path.suffix.lower() in SUFFIXES and path.is_file()
                 and not any(part.startswith('.') for part in path.relative_to(folder).parts))
  if not found:
    raise InputError(f'{folder}: no picture in it ({", ".join(SUFFIXES)})')
  return found


def named(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Every picture below a folder by its path in it, without the suffix where that is unique.

  Raises:
    InputError: a missing or an empty folder.
  """
  paths = _pictures_below(folder)
  stems = collections.Counter(path.with_suffix('') for path in paths)
  return {(path.with_suffix('') if stems[path.with_suffix('')] == 1 else path)
          .relative_to(folder).as_posix(): path for path in paths}


def plain_name(name: str, scale: int) -> str:
  """A picture's name without what tools append: 'baby_x4', 'babyx4', 'baby_SR', 'baby_SRF_4_HR'
  become 'baby'. An x and another number than `scale` stays.
  """
  ending = re.compile(rf'(?<=[^/])([_-]?x{scale}|[_-](sr|hr|lr|gt|out|srf_{scale}))$', re.I)
  while (shorter := ending.sub('', name)) != name:
    name = shorter
  return name


def pair_by_name(first: dict[str, pathlib.Path], second: dict[str, pathlib.Path], scale: int):
  """Partners of one name or, of what is left, of one plain name.

  Args:
    first, second: files by name, as `named` has them.

  Returns:
    ([(name in first, its file, its partner)], [files without a partner]). A plain name that
    two files of a side share pairs neither.
  """
  partner = {name: name for name in first if name in second}
  rest = []
  for names in (first.keys() - partner.keys(), second.keys() - partner.keys()):
    plain = collections.defaultdict(list)
    for name in names:
      plain[plain_name(name, scale)].append(name)
    rest.append({key: found[0] for key, found in plain.items() if len(found) == 1})
  partner |= {rest[0][key]: rest[1][key] for key in rest[0].keys() & rest[1].keys()}
  alone = [first[name] for name in first if name not in partner]
  alone += [second[name] for name in second if name not in partner.values()]
  return [(name, first[name], second[partner[name]]) for name in first if name in partner], alone


def refuse_unpaired(alone: list[pathlib.Path]) -> None:
  """Raises an InputError that lists them, if there are any."""
  if alone:
    raise InputError(f'{len(alone)} without a partner of the same name: {listed(alone)}')


def listed(things, most: int = 20) -> str:
  """'a, b, c' of anything, cut off after `most`."""
  shown = ', '.join(str(thing) for thing in things[:most])
  return shown + (f' and {len(things) - most} more' if len(things) > most else '')
