"""Where pictures come from: a spec in a config to a list of files."""

import importlib.resources
import pathlib

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
