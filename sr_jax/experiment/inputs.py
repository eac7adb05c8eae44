"""config.data -> the images of a run, and the feed that its steps take batches from."""

import os
import re
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import ConfigDict

from sr_jax.data import benchmarks, sources
from sr_jax.data.augment import Augmentation
from sr_jax.data.bank import CropSpec
from sr_jax.data.degradations.chains import Degrader
from sr_jax.data.feed_mode import MAX_WINDOW, FeedSpec
from sr_jax.data.pictures import Picture
from sr_jax.errors import InputError, count_of
from sr_jax.experiment import crops, degrading
from sr_jax.experiment.check import check
from sr_jax.system import files, threads

# The keys that determine which images are for training and which for validation and test.
SPLIT_KEYS = ('source', 'fraction', 'split_seed', 'resize')


# Images --------------------------------------------------------------------------------


def training_set(config: ConfigDict, notes: list[str] | None = None) -> list[Picture]:
  """Returns the images of `data.source`, or the training part of them if it is split.

  Args:
    config: the experiment.
    notes: receives lines on what is used and what is skipped, see `sources.open_source`.

  Raises:
    InputError: as for `sources.open_source`; or the images have LR files, and `data.degrade` is to
      make LR; or neither is there at scale 1, where LR would be HR.
  """
  found = _part(config, 'train', notes) if config.data.fraction else _source(config, notes)
  with_lr = [picture for picture in found if picture.lr is not None]
  if with_lr and config.data.degrade.name != 'none':
    raise InputError(f'config.data.degrade.name={config.data.degrade.name!r}: makes LR of HR, but '
                     f'{count_of(with_lr, "image")} of config.data.source={config.data.source} '
                     f'have LR of their own, such as {with_lr[0].lr}; folder:PATH or hr:PATH of '
                     'the HR images uses these alone')
  if config.scale == 1 and config.data.degrade.name == 'none' and len(with_lr) < len(found):
    raise InputError('config.scale=1: LR would be HR itself, and nothing would be learned; add '
                     '--config.data.degrade.name=jpeg or other degradations, or use '
                     '--config.data.source=pairs:HR=PATH,LR=PATH')
  return found


def open_set(config: ConfigDict, spec: str, scale: int, resize: str = '',
             notes: list[str] | None = None) -> list[Picture]:
  """Returns the images that `data.valid`, `data.test` or an entry of `eval.sets` names.

  Args:
    config: the experiment.
    spec: as for `benchmarks.find_set`; or 'split:valid' or 'split:test', that part of
      `data.source`.
    scale: HR / LR, which may differ from `config.scale`.
    resize: size to which HR is resized first; a part of `data.source` is resized as the training
      part is.
    notes: receives lines on what is used and what is skipped, see `sources.open_source`.
  """
  kind, _, part = spec.partition(':')
  if kind != 'split':
    return benchmarks.find_set(spec, scale, resize, config.data.download, notes)
  if part not in sources.PARTS or len(config.data.fraction) <= sources.PARTS.index(part):
    raise InputError(f"{spec!r}: expected 'split:valid' or 'split:test', with its fraction in "
                     f'config.data.fraction, which is {config.data.fraction}')
  return _part(config, part, notes)


def scored_set(config: ConfigDict, key: str, notes: list[str] | None = None) -> list[Picture]:
  """Returns the images of `data.valid` or `data.test`, resized as those of `data.source` are.

  Args:
    config: the experiment.
    key: 'valid' or 'test'.
    notes: receives lines on what is used and what is skipped, see `sources.open_source`.

  Raises:
    InputError: as for `open_set`; the message has the key.
  """
  try:
    return open_set(config, config.data[key], config.scale, config.data.resize, notes)
  except InputError as error:
    raise InputError(f'config.data.{key}: {error}') from None


def with_split_from(config: ConfigDict, trained: dict[str, Any]) -> ConfigDict:
  """Returns the config with the data split of a trained run, so that 'split:test' is the same.

  Args:
    config: the experiment.
    trained: config.json of the run.
  """
  config = config.copy_and_resolve_references()
  for key in SPLIT_KEYS:
    config.data[key] = trained['data'].get(key, config.data[key])
  return check(config)


def parse_sets(text: str) -> list[str]:
  """Splits 'data/Set5,pairs:HR=a,LR=b' into its entries.

  A comma before KEY=VALUE does not begin a new entry.
  """
  return [part.strip() for part in re.split(r',(?!\s*\w+=)', text) if part.strip()]


def join_sets(sets: str | os.PathLike | Sequence[str | os.PathLike]) -> str:
  """Returns the text that `parse_sets` splits, of one spec or several.

  Raises:
    InputError: a spec of a sequence is empty or has a comma that would make it two.
  """
  if isinstance(sets, (str, os.PathLike)):
    return os.fspath(sets)
  specs = [os.fspath(spec) for spec in sets]
  for spec in specs:
    if parse_sets(spec) != [spec]:
      raise InputError(f'sets: {spec!r}: expected one folder or spec, without a comma')
  return ','.join(specs)


def _source(config: ConfigDict, notes: list[str] | None) -> list[Picture]:
  return sources.open_source(config.data.source, config.scale, config.data.resize,
                             config.data.download, notes)


def _part(config: ConfigDict, name: str, notes: list[str] | None) -> list[Picture]:
  """Returns the training, validation or test part of `data.source`."""
  part = sources.split(_source(config, notes), config.data.fraction, config.data.split_seed)[name]
  if not part:
    raise InputError(f'config.data.fraction={config.data.fraction}: leaves no image for {name}')
  return part


# Epochs --------------------------------------------------------------------------------


def epochs_to_steps(config: ConfigDict, image_count: int,
                    previous: dict[str, Any] | None = None) -> ConfigDict:
  """Returns the config with everything that is given in epochs converted to steps.

  Args:
    config: the experiment.
    image_count: number of images in the training set; an epoch has as many crops.
    previous: config.json of a run that is resumed. A key in epochs that has not changed keeps the
      number of steps that it had there, even if images were added or removed, so that every phase
      begins at the same step.
  """
  config, epoch = config.copy_and_resolve_references(), steps_per_epoch(config, image_count)
  for epochs, steps in (('epochs', 'steps'), ('warmup_epochs', 'warmup_steps')):
    if config[epochs]:
      unchanged = previous and previous.get(epochs) == config[epochs]
      config[steps] = previous[steps] if unchanged else config[epochs] * epoch
  if config.eval.every_epochs:
    config.eval.every = config.eval.every_epochs * epoch
  return config


def with_known_steps(config: ConfigDict, previous: dict[str, Any]) -> ConfigDict | None:
  """Returns the config with the steps that its epochs had when the run was last started.

  Args:
    previous: config.json of the run.

  Returns:
    None if a number of epochs has changed, so that the number of images has to be known first.
  """
  config = config.copy_and_resolve_references()
  for epochs, steps in (('epochs', 'steps'), ('warmup_epochs', 'warmup_steps')):
    if config[epochs]:
      if previous.get(epochs) != config[epochs] or steps not in previous:
        return None
      config[steps] = previous[steps]
  return config


def steps_per_epoch(config: ConfigDict, image_count: int) -> int:
  """Returns the number of batches with at least as many crops as there are images."""
  return -(-image_count // build_crop_spec(config).count)


def epoch_at(config: ConfigDict, image_count: int) -> Callable[[int], float]:
  """Returns a function that returns how many epochs a number of steps is."""
  if not config.phases.steps:
    epoch = steps_per_epoch(config, image_count)
    return lambda step: step / epoch
  parts = [(part, steps_per_epoch(crops.with_crops(config, part), image_count))
           for part in (crops.of_warmup(config), *crops.of_main_phase(config))]
  return lambda step: sum((min(step, part.stop) - part.start) / epoch for part, epoch in parts
                          if step > part.start)


# Batches -------------------------------------------------------------------------------


def batch_channels(config: ConfigDict) -> int:
  """Returns the number of channels of the batches; 1 is luma."""
  return config.data.channels or config.generator.get('channels') or 3


def build_crop_spec(config: ConfigDict) -> CropSpec:
  """Returns the crops that are cut for a batch."""
  count = 1 if config.data.variants else config.batch_size
  degradation = degrading.build_degradation(config)
  if degradation is None:
    return CropSpec(count, config.hr_patch, config.scale, batch_channels(config))
  return CropSpec(count, config.hr_patch + 2 * degradation.margin, 1, batch_channels(config),
                  with_lr=False)


def build_augmentation(config: ConfigDict) -> Augmentation:
  """Returns the augmentation of `config.data.augment`."""
  return Augmentation(**config.data.augment.to_dict())


def workers(config: ConfigDict) -> int:
  """Returns the number of processes that decode images of a stream."""
  return config.data.workers if config.data.workers >= 0 else threads.cores()


def build_feed_spec(config: ConfigDict, device_loop: bool, previous_mode: str = '') -> FeedSpec:
  """Returns how batches are made.

  Args:
    config: the experiment.
    device_loop: whether a device loop call takes several steps.
    previous_mode: the mode in which the run was last started, '' if it is new. With the mode
      'auto', a stream remains a stream and bank and mapped do not become one, so that the
      batches do not change.
  """
  data, mode = config.data, config.data.mode
  degradation = degrading.build_degradation(config)
  if mode == 'auto' and previous_mode:
    mode = 'stream' if previous_mode == 'stream' else 'packed'
  return FeedSpec(
      crop_spec=build_crop_spec(config), batch_size=config.batch_size,
      augmentation=build_augmentation(config), seed=config.seed, mode=mode,
      window=MAX_WINDOW if device_loop else 1, crops_per_image=data.crops_per_picture,
      workers=workers(config),
      cache=files.expand(data.cache) if data.cache else None,
      degrader=degradation and Degrader(degradation, config.scale, config.hr_patch))
