"""Where pictures come from: a spec to pictures that are not read yet, files to pairs."""

import collections
import importlib.resources
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from sr_jax.data import div2k, pairing, tfds
from sr_jax.data.folders import _pictures_below, images_by_name, partners
from sr_jax.data.pictures import Picture
from sr_jax.errors import InputError, listed
from sr_jax.system import files

# Pictures inside scikit-image's wheel (public domain or CC0), so that `:sample` runs
# without a network. The cat is never trained on.
SAMPLE_TRAIN = ('astronaut.png', 'camera.png', 'coffee.png', 'hubble_deep_field.jpg', 'ihc.png',
                'motorcycle_left.png', 'rocket.jpg')
SAMPLE_VALID = ('chelsea.png',)
SPECS = """'sample', 'sample:valid', 'folder:PATH', 'pairs:HR=PATH,LR=PATH', \
'div2k:PATH[:valid]' or 'tfds:NAME[/CONFIG][:SPLIT]'"""
PARTS = ('train', 'valid', 'test')  # of a source that is split


def open_source(spec: str, scale: int, resize: str = '', download: bool = False) -> list[Picture]:
  """The pictures that a spec names, sorted, so that an index means the same tomorrow.

  Args:
    spec: one of
      'sample', the training pictures shipped inside scikit-image; 'sample:valid', the held-out
        one.
      'folder:PATH', every picture below PATH, hidden ones left out.
      'pairs:HR=PATH,LR=PATH', two folders whose pictures are partners, by name, whatever tools
        append to it. Then, as needed, ',match=content', by what they show; ',csv=FILE', by a
        table of two columns, HR and LR; ',resize=64x256', both made square, LR 64 and HR 256.
      'div2k:PATH', 'div2k:PATH:valid', DIV2K in its official layout, with its own LR.
      'tfds:NAME[/CONFIG][:SPLIT]', a set that TensorFlow Datasets has prepared (`records`).
    scale: HR / LR, where the set has LR pictures of its own.
    resize: of `Picture`, what HR is resized to first.
    download: fetches what is not there, of 'div2k' and 'tfds'.

  Raises:
    InputError: an unknown spec, a missing or an empty folder, pictures without a partner, ...
  """
  kind, _, rest = spec.partition(':')
  if kind == 'sample' and rest in ('', 'train', 'valid'):
    root = importlib.resources.files('skimage') / 'data'
    found = [(path.stem, path, None) for path in (pathlib.Path(str(root / name)) for name in
             (SAMPLE_VALID if rest == 'valid' else SAMPLE_TRAIN))]
  elif kind == 'folder' and rest:
    found = [(name, path, None) for name, path in images_by_name(files.expand(rest)).items()]
  elif kind == 'pairs' and rest:
    found, own = _pairs(spec, scale)
    resize = own or resize
  elif kind == 'div2k' and rest:
    folder, part = re.fullmatch(r'(.+?)(?::(train|valid))?', rest, re.DOTALL).groups()
    found = div2k.find_div2k(files.expand(folder), part or 'train', scale, download)
  elif kind == 'tfds' and rest:
    found = tfds.find_records(rest, download)
  else:
    raise InputError(f'data source {spec!r}: expected {SPECS}')
  return [Picture(*names, resize) for names in found]


def split(found: Sequence[Picture], fractions: Sequence[float], seed: int) -> dict:
  """Parts of a set that have nothing in common: {'train': pictures, 'valid': ..., 'test': ...}.

  Args:
    fractions: shares of the three, such as (0.8, 0.1, 0.1); the last may be left out.
    seed: of the order in which they are dealt.

  Raises:
    InputError: shares that are none, or a part that comes to be empty.
  """
  numbers = all(isinstance(fraction, (int, float)) for fraction in fractions)
  if (not numbers or not 2 <= len(fractions) <= 3 or min(fractions) < 0
      or not 0 < sum(fractions) <= 1 + 1e-9):
    raise InputError(f'config.data.fraction={fractions}: expected shares of {", ".join(PARTS)} '
                     'such as (0.8, 0.1, 0.1), at most 1 together')
  order = np.argsort(np.random.default_rng(seed).random(len(found)), kind='stable')
  ends = [round(end * len(found)) for end in np.cumsum((0, *fractions))]
  parts = {name: [found[index] for index in sorted(order[begin:end])]
           for name, begin, end in zip(PARTS, ends, ends[1:], strict=False)}
  for (name, part), fraction in zip(parts.items(), fractions, strict=True):
    if fraction and not part:
      raise InputError(f'config.data.fraction={fractions}: {fraction} of {len(found)} pictures '
                       f'leaves none to {name}')
  return parts


def _pairs(spec: str, scale: int):
  """(pairs, what both are resized to) of 'pairs:HR=PATH,LR=PATH,...'."""
  fields = {}
  for part in spec.removeprefix('pairs:').split(','):
    key, _, value = part.partition('=')
    if key not in ('HR', 'LR', 'match', 'csv', 'resize') or not value or key in fields:
      raise InputError(f"data source {spec!r}: {part!r} is none of HR=PATH, LR=PATH, match=name, "
                       'match=content, csv=FILE and resize=64x256, each once')
    fields[key] = value
  if not {'HR', 'LR'} <= fields.keys() or fields.get('match', 'name') not in ('name', 'content'):
    raise InputError(f"data source {spec!r}: expected 'pairs:HR=PATH,LR=PATH', then if need be "
                     ',match=content or ,csv=FILE or ,resize=64x256')
  if 'csv' in fields and 'match' in fields:
    raise InputError(f'data source {spec!r}: either match or csv says what are partners')
  resize = _square(fields['resize'], scale, spec) if 'resize' in fields else ''
  hr, lr = (files.expand(fields[key]) for key in ('HR', 'LR'))
  if 'csv' in fields:
    pairs = pairing.match_by_csv(files.expand(fields['csv']), hr, lr)
  elif fields.get('match') == 'content':
    pairs, alone = pairing.match_by_content(_pictures_below(hr), _pictures_below(lr))
    if alone:
      raise InputError(f'{len(alone)} without a sure partner by what they show: '
                       + listed(alone, None))
  else:
    advice = ' (,match=content pairs by what pictures show, ,csv=FILE by a table)'
    pairs = [paths for _, *paths in partners(images_by_name(hr), images_by_name(lr), scale, advice, most=None)]
  times = collections.Counter(path.with_suffix('') for path, _ in pairs)
  return [(_name(path, hr, times), path, partner) for path, partner in pairs], resize


def _name(path: pathlib.Path, folder: pathlib.Path, times: collections.Counter) -> str:
  """Where the file is below the folder, without the suffix where that is unique."""
  # Without what '..' may do, which a name that becomes an output file must not have.
  inside, folder = (pathlib.Path(os.path.abspath(place)) for place in (path, folder))
  inside = inside.relative_to(folder) if inside.is_relative_to(folder) else inside.relative_to(
      inside.parent)
  return (inside if times[path.with_suffix('')] > 1 else inside.with_suffix('')).as_posix()


def _square(text: str, scale: int, spec: str) -> str:
  """What HR is resized to, of '64x256': sides of LR and HR."""
  sides = re.fullmatch(r'([1-9]\d{0,4})x([1-9]\d{0,4})', text)
  if not sides or int(sides[2]) != int(sides[1]) * scale:
    raise InputError(f'data source {spec!r}: resize={text}: expected the sides of LR and HR, '
                     f'{scale} times apart')
  return f'{sides[2]}x{sides[2]}'


