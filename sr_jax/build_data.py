"""config.data -> the pictures of a run, and the feed that its steps take batches from."""

import os
import re

from sr_jax import files
from sr_jax.data import benchmarks, feed, sources
from sr_jax.data.augment import Augmentation
from sr_jax.data.bank import Cut
from sr_jax.data.pictures import Picture, parse_resize
from sr_jax.errors import InputError

BATCHES = ('pictures', 'variants')


def check(config) -> None:
  """Refuses values that no run can have, before anything is read.

  Raises:
    InputError: naming the key, what it holds and what it may hold.
  """
  data = config.data
  for key, allowed in (('mode', feed.MODES), ('batch', BATCHES), ('channels', (1, 3))):
    if data[key] not in allowed:
      raise InputError(f'config.data.{key}={data[key]!r}: expected one of '
                       f'{", ".join(map(str, allowed))}')
  if data.channels == 1 and config.generator.channels != 1 and config.generator.name != 'srcnn':
    raise InputError('config.data.channels=1 is for config.generator.channels=1')
  if not 1 <= data.share <= 64:
    raise InputError(f'config.data.share={data.share}: expected 1 to 64')
  if data.workers < -1:
    raise InputError(f'config.data.workers={data.workers}: expected -1, 0 or more')
  parse_resize(data.resize, 'config.data.resize')
  for name, value in build_augmentation(config)._asdict().items():
    if isinstance(value, bool):
      continue
    pair, most = name != 'shuffle', 10 if name in ('brightness', 'mixup') else 1
    probability, amount = value if pair and len(value) == 2 else (-1 if pair else value, 1)
    if not 0 <= probability <= 1 or not 0 <= amount <= most or (name == 'mixup' and not amount):
      raise InputError(f'config.data.augment.{name}={value}: expected a probability'
                       + (f' and an amount up to {most}' if pair else ''))


def training_set(config) -> list[Picture]:
  """The pictures of `data.source`, or the training part of them."""
  return _part(config, 'train') if config.data.fraction else _source(config)


def open_set(config, spec: str, scale: int) -> list[Picture]:
  """The pictures that `data.valid` or an entry of `eval.sets` names.

  Args:
    spec: as for `benchmarks.find_set`; or 'split:valid' or 'split:test', that part of
      `data.source`.
    scale: HR / LR, which need not be the config's.
  """
  kind, _, part = spec.partition(':')
  if kind != 'split':
    return benchmarks.find_set(spec, scale, config.data.download)
  if part not in sources.PARTS or len(config.data.fraction) <= sources.PARTS.index(part):
    raise InputError(f"{spec!r}: expected 'split:valid' or 'split:test', and their shares in "
                     f'config.data.fraction, which is {config.data.fraction}')
  return _part(config, part)


def validation_set(config) -> list[Picture]:
  """The pictures of `data.valid`, resized as those of `data.source` are."""
  return [picture if picture.resize else picture._replace(resize=config.data.resize)
          for picture in open_set(config, config.data.valid, config.scale)]


def split_sets(text: str) -> list[str]:
  """'data/Set5,pairs:HR=a,LR=b' to its entries: a KEY=VALUE belongs to what is before it."""
  return [part.strip() for part in re.split(r',(?!\s*\w+=)', text) if part.strip()]


def _source(config) -> list[Picture]:
  return sources.open_source(config.data.source, config.scale, config.data.resize,
                             config.data.download)


def _part(config, name: str) -> list[Picture]:
  return sources.split(_source(config), config.data.fraction, config.data.split_seed)[name]


def build_cut(config) -> Cut:
  return Cut(1 if config.data.batch == 'variants' else config.batch_size, config.hr_patch,
             config.scale, config.data.channels)


def build_augmentation(config) -> Augmentation:
  return Augmentation(**{name: tuple(value) if isinstance(value, list) else value  # from JSON
                         for name, value in config.data.augment.items()})


def build_feed(config, found: list[Picture], begin: int, device_loop: bool,
               recorded: dict) -> feed.Feed:
  """The feed for the steps from `begin` on.

  Args:
    recorded: what run.json says of the run's last start, {} of a new one. With mode 'auto' it
      stays a stream or none, so that its batches stay what they are.
  """
  data, mode, before = config.data, config.data.mode, recorded.get('data')
  if mode == 'auto' and before:
    mode = 'stream' if before == 'stream' else 'packed'
  workers = data.workers if data.workers >= 0 else os.cpu_count() or 1
  opened = feed.open_feed(
      found, build_cut(config), config.batch_size, build_augmentation(config), mode=mode,
      seed=config.seed, begin=begin, window=feed.WINDOW if device_loop else 1, share=data.share,
      workers=workers, cache=files.expand(data.cache) if data.cache else None)
  if before and (opened.digest != recorded['pictures']
                 or (before == 'stream') != (opened.mode == 'stream')):
    print('the pictures, or how they are held, are not what the run had before: its batches will '
          'not be those of an uninterrupted run')
  return opened
