"""Data sources: from a spec such as 'folder:PATH' to images that have not been read yet."""

import collections
import importlib.resources
import importlib.util
import os
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from sr_jax.data import div2k, file_names, layouts, own_source, pairing, tfds
from sr_jax.data.folders import image_files, images_by_name
from sr_jax.data.pictures import ImageSource, Picture
from sr_jax.errors import InputError, listed
from sr_jax.system import files, user_code

# Images inside scikit-image's wheel (public domain or CC0), so that `:sample` runs without a
# network. The cat is never trained on.
SAMPLE_TRAIN = ('astronaut.png', 'camera.png', 'coffee.png', 'hubble_deep_field.jpg', 'ihc.png',
                'motorcycle_left.png', 'rocket.jpg')
SAMPLE_VALID = ('chelsea.png',)
KINDS = tuple(kind for kind in user_code.SOURCE_KINDS if kind != 'split')  # split: see inputs.py
SPECS = """'sample', 'sample:valid', 'folder:PATH', 'hr:PATH', 'pairs:HR=PATH,LR=PATH', \
'div2k:PATH[:valid]', 'tfds:NAME[/CONFIG][:SPLIT]', or 'MODULE:FUNCTION' of your own"""
# (name, HR file, record or array, the same for LR, or None if LR is made from HR)
SourceFile = tuple[str, ImageSource, ImageSource | None]
PARTS = ('train', 'valid', 'test')  # the parts of a source that is split


def open_source(spec: str, scale: int, resize: str = '', download: bool = False,
                notes: list[str] | None = None) -> list[Picture]:
  """Returns the images that a spec names, sorted, so that an index always means the same image.

  Args:
    spec: one of
      'sample', the training images shipped inside scikit-image; 'sample:valid', the validation
        image.
      'folder:PATH', a folder of HR images with its subfolders, from which LR is made; or one that
        contains HR and LR folders, or an HR folder next to its LR folder (`layouts`).
      'hr:PATH', every image below PATH is HR, whatever the folders are called.
      'pairs:HR=PATH,LR=PATH', two folders whose images are paired by name, ignoring the endings
        that tools append. Optionally followed by ',match=content' to pair by image content,
        ',csv=FILE' to pair by a table with the columns HR and LR, and ',resize=64x256' to resize
        to squares, LR to 64 and HR to 256 pixels.
      'div2k:PATH', 'div2k:PATH:valid', DIV2K in its official layout, with its own LR.
      'tfds:NAME[/CONFIG][:SPLIT]', a set that TensorFlow Datasets has prepared (`tfds`).
      'MODULE:FUNCTION', what a function of the user's own returns (`own_source`), in its order.
    scale: HR / LR, for sets with separate LR images.
    resize: size to which HR is resized first, see `Picture`.
    download: whether 'div2k' and 'tfds' download what is missing.
    notes: receives lines on which folders were chosen, and on files and folders that are skipped.

  Raises:
    InputError: an unknown spec, a missing or empty folder, images without a partner, folders that
      look like pairs and are not certain to be, and so on.
  """
  notes = [] if notes is None else notes
  kind, _, rest = spec.partition(':')
  if kind == 'sample' and rest in ('', 'train', 'valid'):
    root = importlib.resources.files('skimage') / 'data'
    paths = [pathlib.Path(str(root / name))
             for name in (SAMPLE_VALID if rest == 'valid' else SAMPLE_TRAIN)]
    found = [(path.stem, path, None) for path in paths]
  elif kind == 'folder' and rest:
    found = _folder(files.expand(rest), scale, notes)
  elif kind == 'hr' and rest:
    found = [(name, path, None) for name, path in
             images_by_name(files.expand(rest), notes).items()]
  elif kind == 'pairs' and rest:
    found, own_resize = _pairs(spec, scale, notes)
    resize = own_resize or resize
  elif kind == 'div2k' and rest:
    folder, part = re.fullmatch(r'(.+?)(?::(train|valid))?', rest, re.DOTALL).groups()
    found = div2k.find_div2k(files.expand(folder), part or 'train', scale, download)
  elif kind == 'tfds' and rest:
    found = tfds.find_records(rest, download)
  elif user_code.is_spec(spec):
    found = _own(spec)
  else:
    raise InputError(f'data source {spec!r}: expected {SPECS}')
  return [Picture(name, hr, lr, resize) for name, hr, lr in found]


def split(found: Sequence[Picture], fractions: Sequence[float],
          seed: int) -> dict[str, list[Picture]]:
  """Splits a set into disjoint parts: {'train': images, 'valid': ..., 'test': ...}.

  Args:
    found: the images.
    fractions: fractions for the three parts, such as (0.8, 0.1, 0.1); the last may be omitted.
    seed: seed of the random assignment.

  Raises:
    InputError: the fractions are invalid, or a part with a positive fraction would be empty.
  """
  numbers = all(isinstance(fraction, (int, float)) for fraction in fractions)
  if (not numbers or not 2 <= len(fractions) <= 3 or min(fractions) < 0
      or not 0 < sum(fractions) <= 1 + 1e-9):
    raise InputError(f'config.data.fraction={fractions}: expected fractions for '
                     f'{", ".join(PARTS)} such as (0.8, 0.1, 0.1), with a sum of at most 1')
  order = np.argsort(np.random.default_rng(seed).random(len(found)), kind='stable')
  ends = [round(end * len(found)) for end in np.cumsum((0, *fractions))]
  parts = {name: [found[index] for index in sorted(order[start:end])]
           for name, start, end in zip(PARTS, ends, ends[1:], strict=False)}
  for (name, part), fraction in zip(parts.items(), fractions, strict=True):
    if fraction and not part:
      raise InputError(f'config.data.fraction={fractions}: {fraction} of {len(found)} images '
                       f'leaves no image for {name}')
  return parts


def _own(spec: str) -> list[SourceFile]:
  """Returns the images of 'MODULE:FUNCTION', or names the kinds if there is no such module."""
  try:
    return own_source.find_images(spec, 'data source')
  except InputError as error:
    module = spec.partition(':')[0].partition('.')[0]
    if module in sys.modules or importlib.util.find_spec(module):
      raise
    raise InputError(f'{error}; the kinds of data sources are {SPECS}') from None


def _folder(folder: pathlib.Path, scale: int, notes: list[str]) -> list[SourceFile]:
  """Returns [(name, HR file, LR file or None)] of 'folder:PATH'."""
  layout = layouts.find_layout(folder, scale)
  notes += layout.notes
  hr = images_by_name(layout.hr, notes)
  together = file_names.hr_and_lr_of_one_folder(hr, scale) if layout.lr is None else None
  if together:
    notes.append(f'{folder}: HR is read from NAME_HR, LR from NAME_LR')
    hr, lr = together
  elif layout.lr is None:
    layouts.refuse_lr_images(layout.hr, hr)
    return [(name, path, None) for name, path in hr.items()]
  elif layout.lr == layout.hr:
    hr, lr = _results_left_out(folder, hr, notes)
  else:
    lr = images_by_name(layout.lr, notes)
  advice = f' (pairs:HR={layout.hr},LR={layout.lr or layout.hr},match=content pairs by content)'
  pairs = file_names.partners(hr, lr, scale, advice)
  plain = [file_names.plain_names(name, scale)[-1] for name, *_ in pairs]
  counts = collections.Counter(plain)
  return [(short if counts[short] == 1 else name, *paths)
          for short, (name, *paths) in zip(plain, pairs, strict=True)]


def _results_left_out(folder: pathlib.Path, found: Mapping[str, pathlib.Path], notes: list[str]
                      ) -> tuple[dict[str, pathlib.Path], dict[str, pathlib.Path]]:
  """Returns (HR, LR) of image_SRF_4, which also contains the results of other methods."""
  hr, lr = ({name: path for name, path in found.items() if path.stem.upper().endswith(ending)}
            for ending in ('_HR', '_LR'))
  if not hr:
    raise InputError(f'{folder}: contains no image named NAME_HR')
  others = [name for name in found if name not in hr and name not in lr]
  if others:
    notes.append(f'{folder}: not used, since neither NAME_HR nor NAME_LR: {listed(others)}')
  return hr, lr


def _pairs(spec: str, scale: int, notes: list[str]) -> tuple[list[SourceFile], str]:
  """Returns ([(name, HR file, LR file)], resize) of 'pairs:HR=PATH,LR=PATH,...'."""
  fields = _pair_fields(spec)
  resize = _square(fields['resize'], scale, spec) if 'resize' in fields else ''
  hr, lr = (files.expand(fields[key]) for key in ('HR', 'LR'))
  if 'csv' in fields:
    pairs = pairing.match_by_csv(files.expand(fields['csv']), hr, lr)
  elif fields.get('match') == 'content':
    pairs, unpaired = pairing.match_by_content(*(image_files(folder, notes=notes)
                                                  for folder in (hr, lr)))
    if unpaired:
      raise InputError(f'{len(unpaired)} images without an unambiguous partner by content: '
                       + listed(unpaired))
  else:
    advice = ' (,match=content pairs by image content, ,csv=FILE by a table)'
    named = file_names.partners(*_named_files(hr, lr, scale, notes), scale, advice)
    pairs = [paths for _, *paths in named]
  counts = collections.Counter(path.with_suffix('') for path, _ in pairs)
  return [(_name(path, hr, counts), path, partner) for path, partner in pairs], resize


def _named_files(hr: pathlib.Path, lr: pathlib.Path, scale: int, notes: list[str]
                 ) -> tuple[dict[str, pathlib.Path], dict[str, pathlib.Path]]:
  """Returns the images of two folders by name; of one folder, those named NAME_HR and NAME_LR.

  Raises:
    InputError: a folder has no images, or both are the same and have others.
  """
  found = images_by_name(hr, notes)
  if not (lr.exists() and lr.samefile(hr)):
    return found, images_by_name(lr, notes)
  together = file_names.hr_and_lr_of_one_folder(found, scale)
  if not together:
    raise InputError(f'{hr}: is given as HR and as LR, so all images in it must be named NAME_HR '
                     f'or NAME_LR (or NAME_LR{scale})')
  return together


def _pair_fields(spec: str) -> dict[str, str]:
  """Parses 'pairs:KEY=VALUE,KEY=VALUE,...'.

  Raises:
    InputError: an unknown, repeated or missing key, or keys that exclude each other.
  """
  fields = {}
  for part in spec.removeprefix('pairs:').split(','):
    key, _, value = part.partition('=')
    if key not in ('HR', 'LR', 'match', 'csv', 'resize') or not value or key in fields:
      raise InputError(f'data source {spec!r}: invalid part {part!r}; expected HR=PATH, LR=PATH, '
                       'match=name, match=content, csv=FILE and resize=64x256, each at most once')
    fields[key] = value
  if not {'HR', 'LR'} <= fields.keys() or fields.get('match', 'name') not in ('name', 'content'):
    raise InputError(f"data source {spec!r}: expected 'pairs:HR=PATH,LR=PATH', optionally "
                     'followed by ,match=content or ,csv=FILE and ,resize=64x256')
  if 'csv' in fields and 'match' in fields:
    raise InputError(f'data source {spec!r}: match and csv cannot be combined')
  return fields


def _name(path: pathlib.Path, folder: pathlib.Path, counts: collections.Counter) -> str:
  """Returns the path of a file in the folder, without its suffix if that is unique.

  Args:
    path: the file, possibly outside of the folder; then its name alone is returned.
    folder: the folder.
    counts: how often each path without its suffix occurs in the set.
  """
  # Resolves '..', because the name becomes the path of an output file.
  absolute, folder = (pathlib.Path(os.path.abspath(place)) for place in (path, folder))
  root = folder if absolute.is_relative_to(folder) else absolute.parent
  name = absolute.relative_to(root)
  return (name if counts[path.with_suffix('')] > 1 else name.with_suffix('')).as_posix()


def _square(text: str, scale: int, spec: str) -> str:
  """Returns the `Picture.resize` of '64x256', the sides of square LR and HR images."""
  sides = re.fullmatch(r'([1-9]\d{0,4})x([1-9]\d{0,4})', text)
  if not sides or int(sides[2]) != int(sides[1]) * scale:
    raise InputError(f'data source {spec!r}: resize={text}: expected the sides of LR and HR, HR '
                     f'being {scale} times LR')
  return f'{sides[2]}x{sides[2]}'
