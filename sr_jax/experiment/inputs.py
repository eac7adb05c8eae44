"""config.data -> the pictures of a run, and the feed that its steps take batches from."""

import re

from sr_jax.data import augment, benchmarks, feed, sources
from sr_jax.data.augment import Augmentation
from sr_jax.data.bank import CropSpec
from sr_jax.data.pictures import Picture, parse_resize
from sr_jax.errors import InputError
from sr_jax.system import files, threads

# What says which pictures a run is trained on and which are left to validation and test.
SPLIT_KEYS = ('source', 'fraction', 'split_seed', 'resize')


def check(config) -> None:
  """Refuses values that no run can have, before anything is read.

  Raises:
    InputError: naming the key, what it holds and what it may hold.
  """
  data = config.data
  if data.mode not in feed.MODES:
    raise InputError(f'config.data.mode={data.mode!r}: expected one of {", ".join(feed.MODES)}')
  if data.channels not in (None, 1, 3):
    raise InputError(f'config.data.channels={data.channels}: expected 1 or 3')
  if data.channels == 1 and config.generator.channels != 1 and config.generator.name != 'srcnn':
    raise InputError('config.data.channels=1: the generator sees three; add '
                     '--config.generator.channels=1')
  if not 1 <= data.crops_per_picture <= 64:
    raise InputError(f'config.data.crops_per_picture={data.crops_per_picture}: expected 1 to 64')
  if data.workers < -1:
    raise InputError(f'config.data.workers={data.workers}: expected -1, 0 or more')
  if not 0 <= data.split_seed < 2**31:
    raise InputError(f'config.data.split_seed={data.split_seed}: expected 0 to 2147483647')
  parse_resize(data.resize, 'config.data.resize')
  augment.check(build_augmentation(config))


def training_set(config) -> list[Picture]:
  """The pictures of `data.source`, or the training part of them."""
  return _part(config, 'train') if config.data.fraction else _source(config)


def in_steps(config, pictures: int, before: dict | None = None):
  """config with what it counts in epochs counted in steps.

  Args:
    pictures: of the training set; in an epoch as many crops are trained on.
    before: the config.json of a run that goes on. The steps that as many epochs had then they
      keep, whatever pictures have come or gone, so that no phase begins elsewhere.
  """
  config, epoch = config.copy_and_resolve_references(), steps_of_epoch(config, pictures)
  for epochs, steps in (('epochs', 'steps'), ('warmup_epochs', 'warmup_steps')):
    if config[epochs]:
      same = before and before.get(epochs) == config[epochs]
      config[steps] = before[steps] if same else config[epochs] * epoch
  if config.eval.every_epochs:
    config.eval.every = config.eval.every_epochs * epoch
  return config


def steps_of_epoch(config, pictures: int) -> int:
  """Batches that hold as many crops as there are pictures, the last one filled up."""
  return -(-pictures // build_cut(config).count)


def open_set(config, spec: str, scale: int, resize: str = '') -> list[Picture]:
  """The pictures that `data.valid`, `data.test` or an entry of `eval.sets` names.

  Args:
    spec: as for `benchmarks.find_set`; or 'split:valid' or 'split:test', that part of
      `data.source`.
    scale: HR / LR, which need not be the config's.
    resize: what HR is resized to; a part of `data.source` is as that is.
  """
  kind, _, part = spec.partition(':')
  if kind != 'split':
    return benchmarks.find_set(spec, scale, resize, config.data.download)
  if part not in sources.PARTS or len(config.data.fraction) <= sources.PARTS.index(part):
    raise InputError(f"{spec!r}: expected 'split:valid' or 'split:test', and their shares in "
                     f'config.data.fraction, which is {config.data.fraction}')
  return _part(config, part)


def scored_set(config, key: str) -> list[Picture]:
  """The pictures of `data.valid` or `data.test`, resized as those of `data.source` are.

  Raises:
    InputError: as `open_set`, naming the key.
  """
  try:
    return open_set(config, config.data[key], config.scale, config.data.resize)
  except InputError as error:
    raise InputError(f'config.data.{key}: {error}') from None


def with_split_of(config, trained: dict):
  """config with the pictures of the run whose config is `trained`, for 'split:test'."""
  config = config.copy_and_resolve_references()
  with config.ignore_type():
    for key in SPLIT_KEYS:
      config.data[key] = trained['data'].get(key, config.data[key])
  check(config)
  return config


def split_sets(text: str) -> list[str]:
  """'data/Set5,pairs:HR=a,LR=b' to its entries: a KEY=VALUE belongs to what is before it."""
  return [part.strip() for part in re.split(r',(?!\s*\w+=)', text) if part.strip()]


def _source(config) -> list[Picture]:
  return sources.open_source(config.data.source, config.scale, config.data.resize,
                             config.data.download)


def _part(config, name: str) -> list[Picture]:
  part = sources.split(_source(config), config.data.fraction, config.data.split_seed)[name]
  if not part:
    raise InputError(f'config.data.fraction={config.data.fraction}: leaves nothing to {name}')
  return part


def build_channels(config) -> int:
  """Of the batches: 1 is luma."""
  return config.data.channels or config.generator.channels or 3


def build_cut(config) -> CropSpec:
  return CropSpec(1 if config.data.variants else config.batch_size, config.hr_patch, config.scale,
             build_channels(config))


def build_augmentation(config) -> Augmentation:
  return Augmentation(**{name: tuple(value) if isinstance(value, list) else value  # from JSON
                         for name, value in config.data.augment.items()})


def build_feed(config, found: list[Picture], begin: int, device_loop: bool, before: str,
               say, mesh=None) -> feed.Feed:
  """The feed for the steps from `begin` on.

  Args:
    before: the mode that the run had when it last ran, '' if it is new. With mode 'auto' a
      stream stays one and no other becomes one, so that batches stay what they are.
    say: is told, in bytes, what will be used.
    mesh: of `parallel.make_mesh`.
  """
  data, mode = config.data, config.data.mode
  if mode == 'auto' and before:
    mode = 'stream' if before == 'stream' else 'packed'
  return feed.open_feed(
      found, build_cut(config), config.batch_size, build_augmentation(config), mode=mode,
      seed=config.seed, begin=begin, window=feed.WINDOW if device_loop else 1,
      share=data.crops_per_picture, workers=data.workers if data.workers >= 0 else threads.cores(),
      cache=files.expand(data.cache) if data.cache else None, say=say, mesh=mesh)
