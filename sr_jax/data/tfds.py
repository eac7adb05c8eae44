"""TFDS data sets as encoded images; only preparing a set needs TensorFlow, reading it does not.

tensorflow_datasets takes a second to import, so it is imported inside functions.
"""

import difflib
import functools
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sr_jax.errors import InputError, listed
from sr_jax.images import DamagedImageError
from sr_jax.system import files

# `tfds build` would do the same, but that of TFDS 4.9.10 does not start without Apache Beam and
# prepares nothing without importlib_resources, and the package requires neither.
PREPARE = ("import tensorflow_datasets as tfds; "
           "tfds.builder('{}', file_format='array_record').download_and_prepare()")
# Modules that preparing a set needs, and the packages that provide them.
NEEDS = {'tensorflow': 'tensorflow-cpu', 'importlib_resources': 'importlib_resources'}


class Split(NamedTuple):
  """What the records of a split have in common; kept here so that each record is small."""

  name: str  # 'coco/2017', as the user wrote it
  folder: str  # of dataset_info.json
  split: str  # 'train[:80%]'
  stamp: str  # name, version and bytes of the set, see `Record.stamp`


class Record(NamedTuple):
  """One encoded image of a set. It has no open file, so it can be sent to another process."""

  source: Split
  feature: str
  index: int

  def __str__(self) -> str:
    feature = f' {self.feature}' if self.feature in ('hr', 'lr') else ''
    return f'tfds:{self.source.name}:{self.source.split}[{self.index}]{feature}'

  @property
  def stamp(self) -> str:
    """Identifies an image without reading it: name, version and bytes of the set, and position.

    Wherever TFDS prepares a version of a set, its images are in the same order.
    """
    return f'{self.source.stamp}:{self.source.split}[{self.index}] {self.feature}'

  def read_bytes(self) -> bytes:
    """Returns the stored image file, usually a PNG or JPEG, without decoding it.

    Raises:
      DamagedImageError: the set was deleted or is damaged.
    """
    try:
      examples, wanted, decoders = _open(self.source.folder, self.source.split, self.feature)
      return wanted.deserialize_example_np(examples[self.index], decoders=decoders)[self.feature]
    except Exception as error:  # array_record, protobuf and TFDS raise many kinds of errors
      raise DamagedImageError(f'{self}: cannot read ({_reason(error)})') from None


def find_records(spec: str, download: bool = False) -> list[tuple[str, Record, Record | None]]:
  """Returns the images of a set that TFDS has prepared in $TFDS_DATA_DIR or ~/tensorflow_datasets.

  Args:
    spec: 'NAME[/CONFIG][:SPLIT]', such as 'celeb_a', 'coco/2017:validation' or
      'div2k/bicubic_x4:train[:80%]'; the default split is 'train'.
    download: whether to prepare a missing set, in another process, which may import TensorFlow.

  Returns:
    [(name, HR, LR or None)] in the order of the set. The features 'hr' and 'lr' are pairs;
    otherwise the feature 'image', or the only image feature, is HR without a separate LR.

  Raises:
    InputError: no such set, configuration or split; the set is not prepared, could not be
      prepared, or is not in the array_record format; it has no image feature or several.
  """
  name, _, split = spec.partition(':')
  split = split or 'train'
  if not re.fullmatch(r'\w[\w.+-]*(/\w[\w.+-]*)?', name):
    raise InputError(f'tfds:{spec}: expected tfds:NAME[/CONFIG][:SPLIT], such as '
                     'tfds:div2k/bicubic_x4:train[:80%]')
  tfds = _tfds()
  folder = _prepared(name) or _prepare(name, download)
  try:
    info = tfds.builder_from_directory(folder).info
  except Exception as error:
    raise InputError(f'{folder}: TFDS cannot read it ({_reason(error)})') from None
  formats = [file_format.value for file_format in info.available_file_formats()]
  if 'array_record' not in formats:
    raise InputError(f'{folder}: prepared as {", ".join(formats)}, which only TensorFlow can read; '
                     f'move the folder away and run python -c "{PREPARE.format(name)}"')
  try:
    count = info.splits[split].num_examples
  except ValueError:
    raise InputError(f'tfds:{spec}: no such split; the splits are {listed(list(info.splits))}, '
                     'and slices such as train[:80%]') from None
  if not count:
    raise InputError(f'tfds:{spec}: contains no images')
  source = Split(name, str(folder), split, f'{info.full_name} {int(info.dataset_size)}')
  hr, lr = _features(name, info.features)
  digits = len(str(count - 1))
  return [(f'{index:0{digits}}', Record(source, hr, index), lr and Record(source, lr, index))
          for index in range(count)]


def _features(name: str, features: Mapping[str, Any]) -> tuple[str, str | None]:
  """Returns the names of the features with HR and LR; the latter is None if there is no LR."""
  # The subclass LabeledImage contains classes. A float image is stored as RGBA
  # pixels, the four bytes of each value.
  usable = sorted(key for key, feature in features.items()
                  if type(feature) is _tfds().features.Image and feature.np_dtype.kind == 'u')
  if {'hr', 'lr'} <= set(usable):
    return 'hr', 'lr'
  if 'image' in usable or len(usable) == 1:
    return 'image' if 'image' in usable else usable[0], None
  if usable:
    raise InputError(f"tfds:{name}: several image features, {', '.join(usable)}; expected hr and "
                     'lr, image, or only one')
  raise InputError(f'tfds:{name}: no image among its features, {listed(sorted(features))}')


@functools.lru_cache(maxsize=16)
def _open(folder: str, split: str, feature: str) -> tuple[Sequence[bytes], Any, dict[str, Any]]:
  """Opens a split, once in a process.

  Returns:
    (stored examples by index, a FeaturesDict of the one feature to parse, its decoders).
  """
  tfds = _tfds()
  builder = tfds.builder_from_directory(folder)
  examples = builder.as_data_source(split, file_format='array_record',
                                    deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
  wanted = tfds.features.FeaturesDict({feature: builder.info.features[feature]})
  return examples, wanted, {feature: tfds.decode.SkipDecoding()}


# Preparing -----------------------------------------------------------------------------


def _data_dir() -> pathlib.Path:
  """Returns the folder in which TFDS prepares data sets."""
  return files.expand(os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets')


def _prepared(name: str) -> pathlib.Path | None:
  """Returns the folder of the newest prepared version of a set; None if there is none."""
  versions = [path.parent for path in (_data_dir() / name).glob('*/dataset_info.json')
              if re.fullmatch(r'\d+\.\d+\.\d+', path.parent.name)]
  return max(versions, key=lambda path: [int(part) for part in path.name.split('.')], default=None)


def _prepare(name: str, download: bool) -> pathlib.Path:
  """Prepares a set, if `download` allows it, and returns its folder.

  Raises:
    InputError: the set was not prepared; the message has the reason.
  """
  _check_name(name)
  missing = [package for module, package in NEEDS.items() if not importlib.util.find_spec(module)]
  install = f'pip install {" ".join(missing)}' if missing else ''
  if not download:
    raise InputError(f'tfds:{name}: not prepared in {_data_dir()}; run {install}'
                     f'{" && " if missing else ""}python -c "{PREPARE.format(name)}"')
  if missing:
    raise InputError(f'tfds:{name}: not prepared; preparing it needs TensorFlow: {install}')
  # Runs TensorFlow on the CPU, because it would occupy all memory of a GPU, and without its
  # start-up messages.
  quiet = {'CUDA_VISIBLE_DEVICES': '', 'TF_CPP_MIN_LOG_LEVEL': '2'}
  done = subprocess.run([sys.executable, '-c', 'import sys; sys.tracebacklimit = 0; '
                         + PREPARE.format(name)], env=os.environ | quiet)
  folder = _prepared(name)
  if done.returncode or folder is None:
    raise InputError(f'tfds:{name}: TFDS could not prepare it, see above')
  return folder


def _check_name(name: str) -> None:
  """Checks that TFDS knows a set and its configuration, or that they have been prepared.

  Raises:
    InputError: it does not; the message suggests names.
  """
  tfds, (base, _, config) = _tfds(), name.partition('/')
  # Listing community data sets needs the network and TensorFlow; they must be prepared before.
  known = tfds.list_builders(with_community_datasets=False)
  prepared = {path.name for path in (_data_dir() / base).glob('*')
              if _prepared(f'{base}/{path.name}')}
  if base not in known and not prepared and not _prepared(base):
    close = dict.fromkeys(difflib.get_close_matches(base, known))
    raise InputError(f'tfds:{name}: not prepared in {_data_dir()}, and unknown to TFDS'
                     f'{"; similar names: " if close else ""}{", ".join(close)}')
  try:
    configs = prepared.union(tfds.builder_cls(base).builder_configs if base in known else ())
  except ImportError as error:  # a few builders import further packages
    raise InputError(f'tfds:{name}: {_reason(error)}') from None
  if config not in configs and (config or configs):
    raise InputError(f'tfds:{name}: ' + (
        f'name one of its configurations, tfds:{base}/CONFIG: {listed(sorted(configs))}'
        if configs else f'it has no configurations, only tfds:{base}'))


def _tfds() -> types.ModuleType:
  """Imports tensorflow_datasets."""
  try:
    import tensorflow_datasets
  except ModuleNotFoundError as error:
    raise InputError(f'tfds: {error}: pip install tensorflow-datasets') from None
  return tensorflow_datasets


def _reason(error: Exception) -> str:
  """Returns the type and the first line of an error."""
  return f'{type(error).__name__}: {error}'.splitlines()[0]
