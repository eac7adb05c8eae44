"""TFDS data sets as encoded pictures. To prepare one takes TensorFlow, to read it does not.

tensorflow_datasets takes a second to import, which therefore happens inside functions.
"""

import difflib
import functools
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
from typing import NamedTuple

from sr_jax.errors import InputError
from sr_jax.images import DamagedPicture
from sr_jax.system import files

# `tfds build` would do the same, but TFDS 4.9.10's does not start without Apache Beam, nor
# prepare anything without importlib_resources, and asks for neither.
PREPARE = ("import tensorflow_datasets as tfds; "
           "tfds.builder('{}', file_format='array_record').download_and_prepare()")
NEEDS = {'tensorflow': 'tensorflow-cpu', 'importlib_resources': 'importlib_resources'}


class Split(NamedTuple):
  """What the records of a set share, so that each is small."""

  name: str  # 'coco/2017', as the user wrote it
  folder: str  # its dataset_info.json's
  split: str  # 'train[:80%]'
  stamp: str  # the set's, see below


class Record(NamedTuple):
  """One encoded picture of a set. It holds no open file, so it can be sent to a process."""

  source: Split
  feature: str
  index: int

  def __str__(self):
    feature = f' {self.feature}' if self.feature in ('hr', 'lr') else ''
    return f'tfds:{self.source.name}:{self.source.split}[{self.index}]{feature}'

  @property
  def stamp(self) -> str:
    """Tells pictures apart without reading them: the set's name, version and bytes, and where.

    Wherever TFDS prepares a version of a set, its pictures come in the same order.
    """
    return f'{self.source.stamp}:{self.source.split}[{self.index}] {self.feature}'

  def read_bytes(self) -> bytes:
    """The picture file that was stored, as a rule a PNG or JPEG. Nothing is decoded.

    Raises:
      DamagedPicture: the set is gone or damaged.
    """
    try:
      examples, wanted, decoders = _opened(self.source.folder, self.source.split, self.feature)
      return wanted.deserialize_example_np(examples[self.index], decoders=decoders)[self.feature]
    except Exception as error:  # array_record, protobuf and TFDS raise many kinds
      raise DamagedPicture(f'{self}: can not be read ({_reason(error)})') from None


def find_records(spec: str, download: bool = False) -> list[tuple[str, Record, Record | None]]:
  """The pictures of a set that TFDS has prepared in $TFDS_DATA_DIR or ~/tensorflow_datasets.

  Args:
    spec: 'NAME[/CONFIG][:SPLIT]', such as 'celeb_a', 'coco/2017:validation' or
      'div2k/bicubic_x4:train[:80%]'; the split is 'train' where none is named.
    download: a set that is not prepared is, by a process that may import TensorFlow.

  Returns:
    [(name, HR, LR or None)] in the set's order. Features 'hr' and 'lr' are pairs; of others
    'image' or the only picture is HR, without LR.

  Raises:
    InputError: no such set, configuration or split; it is not prepared, could not be, or is in
      another format than array_record; no picture in it, or several to choose from.
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
    raise InputError(f'{folder}: TFDS can not read it ({_reason(error)})') from None
  formats = [found.value for found in info.available_file_formats()]
  if 'array_record' not in formats:
    raise InputError(f'{folder}: prepared as {", ".join(formats)}, which takes TensorFlow to read; '
                     f'move it away and run python -c "{PREPARE.format(name)}"')
  try:
    count = info.splits[split].num_examples
  except ValueError:
    raise InputError(f'tfds:{spec}: no such split; there are {", ".join(info.splits)}, and slices '
                     'such as train[:80%]') from None
  if not count:
    raise InputError(f'tfds:{spec}: no picture in it')
  source = Split(name, str(folder), split, f'{info.full_name} {int(info.dataset_size)}')
  hr, lr = _features(name, info.features)
  digits = len(str(count - 1))
  return [(f'{index:0{digits}}', Record(source, hr, index), lr and Record(source, lr, index))
          for index in range(count)]


def _features(name: str, features) -> tuple[str, str | None]:
  """The features that hold HR and, if the set has it, LR."""
  # LabeledImage, a subclass, holds classes; a float is stored as an RGBA pixel of its bytes.
  pictures = sorted(key for key, feature in features.items()
                    if type(feature) is _tfds().features.Image and feature.np_dtype.kind == 'u')
  if {'hr', 'lr'} <= set(pictures):
    return 'hr', 'lr'
  if 'image' in pictures or len(pictures) == 1:
    return 'image' if 'image' in pictures else pictures[0], None
  if pictures:
    raise InputError(f"tfds:{name}: several pictures, {', '.join(pictures)}; expected hr and lr, "
                     'image, or only one')
  raise InputError(f'tfds:{name}: no picture among its features, {", ".join(sorted(features))}')


@functools.lru_cache(maxsize=16)
def _opened(folder: str, split: str, feature: str):
  """(stored examples by index, the one feature to be parsed, how); opened once in a process."""
  tfds = _tfds()
  builder = tfds.builder_from_directory(folder)
  examples = builder.as_data_source(split, file_format='array_record',
                                    deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
  wanted = tfds.features.FeaturesDict({feature: builder.info.features[feature]})
  return examples, wanted, {feature: tfds.decode.SkipDecoding()}


# Preparing -----------------------------------------------------------------------------


def _data_dir() -> pathlib.Path:
  return files.expand(os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets')


def _prepared(name: str) -> pathlib.Path | None:
  """The folder of the newest version that there is."""
  versions = [path.parent for path in (_data_dir() / name).glob('*/dataset_info.json')
              if re.fullmatch(r'\d+\.\d+\.\d+', path.parent.name)]
  return max(versions, key=lambda path: [int(part) for part in path.name.split('.')], default=None)


def _prepare(name: str, download: bool) -> pathlib.Path:
  """The folder of a set that was not prepared.

  Raises:
    InputError: it still is not, and why.
  """
  tfds, (base, _, config) = _tfds(), name.partition('/')
  # The community's sets are listed on the network, with TensorFlow; they need preparing first.
  known = tfds.list_builders(with_community_datasets=False)
  here = {path.name for path in (_data_dir() / base).glob('*') if _prepared(f'{base}/{path.name}')}
  if base not in known and not here and not _prepared(base):
    close = dict.fromkeys(difflib.get_close_matches(base, known))
    raise InputError(f'tfds:{name}: not prepared in {_data_dir()}, nor a name that TFDS knows'
                     f'{"; close ones are " if close else ""}{", ".join(close)}')
  try:
    configs = here.union(tfds.builder_cls(base).builder_configs if base in known else ())
  except ImportError as error:  # a few builders import more
    raise InputError(f'tfds:{name}: {_reason(error)}') from None
  if config not in configs and (config or configs):
    raise InputError(f'tfds:{name}: ' + (
        f'name one of its configurations, tfds:{base}/CONFIG: {", ".join(sorted(configs))}'
        if configs else f'it has no configurations, only tfds:{base}'))
  missing = [package for module, package in NEEDS.items() if not importlib.util.find_spec(module)]
  install = f'pip install {" ".join(missing)}' if missing else ''
  if not download:
    raise InputError(f'tfds:{name}: not prepared in {_data_dir()}; run {install}'
                     f'{" && " if missing else ""}python -c "{PREPARE.format(name)}"')
  if missing:
    raise InputError(f'tfds:{name}: not prepared, which takes TensorFlow: {install}')
  # On the CPU, for TensorFlow takes a GPU's memory whole, and without its greetings.
  quiet = {'CUDA_VISIBLE_DEVICES': '', 'TF_CPP_MIN_LOG_LEVEL': '2'}
  done = subprocess.run([sys.executable, '-c', 'import sys; sys.tracebacklimit = 0; '
                         + PREPARE.format(name)], env=os.environ | quiet)
  folder = _prepared(name)
  if done.returncode or folder is None:
    raise InputError(f'tfds:{name}: TFDS could not prepare it, see above')
  return folder


def _tfds():
  try:
    import tensorflow_datasets
  except ModuleNotFoundError as error:
    raise InputError(f'tfds: {error}: pip install tensorflow-datasets') from None
  return tensorflow_datasets


def _reason(error: Exception) -> str:
  return f'{type(error).__name__}: {error}'.splitlines()[0]
