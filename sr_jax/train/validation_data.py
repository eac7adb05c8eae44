"""What a run is validated on: scored sets, fixed crops and images without HR, read once."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from sr_jax import images
from sr_jax.data import benchmarks, pictures
from sr_jax.data.bank import CropSpec
from sr_jax.data.degradations import fixed
from sr_jax.data.degradations.chains import Degradation, Degrader
from sr_jax.data.pictures import Pair, Picture, refuse_empty
from sr_jax.errors import InputError, count_of
from sr_jax.experiment import degrading, inputs, own_functions
from sr_jax.images import dropped
from sr_jax.metrics.own import OwnMetric, own_scores
from sr_jax.metrics.scorer import NO_METRICS
from sr_jax.train.lr_images import LRImage, open_lr_images

CROPS = 8  # of each kind, or as many as a batch has: they go through the networks at once


class ValidationData(NamedTuple):
  """What a run is validated on, read once.

  Attributes:
    sets: the pairs of 'valid' and 'test', those that are configured. With degradations their LR is
      degraded, and 'clean' has the images of 'valid' with bicubic LR.
    crops: {'train': batch, 'valid': batch} as a step takes them; {} if one of them is missing.
    skipped: one line for each unusable image of the sets.
    own: metrics of the user's own by name.
    lr_images: images without HR.
  """

  sets: dict[str, list[Pair]]
  crops: dict[str, dict[str, np.ndarray]]
  skipped: list[str]
  own: Mapping[str, OwnMetric] = NO_METRICS
  lr_images: Sequence[LRImage] = ()

  @property
  def is_empty(self) -> bool:
    """Whether nothing is scored or upscaled."""
    return not (self.sets or self.lr_images)

  @property
  def valid(self) -> list[Pair]:
    return self.sets.get('valid', [])


def open_validation(config: ConfigDict, training_set: Sequence[Picture],
                    notes: list[str] | None = None) -> ValidationData:
  """Reads the sets that `config` names, and crops of them and of the training set.

  Args:
    config: the experiment.
    training_set: the images that crops are taken from.
    notes: receives lines on what is used and what is skipped, see `sources.open_source`.

  Raises:
    InputError: a set can't be read or has no usable image, or a metric of the user's own cannot be
      used.
  """
  own, notes, skipped = own_functions.find_metrics(config), [] if notes is None else notes, []
  pictures_of = {key: inputs.scored_set(config, key, notes)[:config.eval.pictures]
                 for key in ('valid', 'test') if config.data[key]}
  degradation = degrading.build_degradation(config)
  if degradation:
    pictures_of = {key: _without_lr(members, key, notes) for key, members in pictures_of.items()}
  sets = {key: _read_set(config, key, members, notes, skipped)
          for key, members in pictures_of.items()}
  crops = (_read_crops(config, training_set, pictures_of['valid'], skipped)
           if 'valid' in pictures_of else {})
  if degradation:
    sets = _degraded_sets(sets, pictures_of, degradation, config.scale)
  for pair in next(iter(sets.values()), [])[:1] if own else ():
    # A trial, so that a function that fails does so before anything is written.
    own_scores(own, images.imresize(pair.lr, config.scale), pair.hr, pair.name)
  return ValidationData(sets, crops, skipped, own, open_lr_images(config, notes, skipped))


def _without_lr(members: Sequence[Picture], key: str, notes: list[str]) -> list[Picture]:
  """Returns the images without the LR files that they may have, which is noted."""
  with_lr = [picture for picture in members if picture.lr is not None]
  if with_lr:
    notes.append(f'config.data.{key}: the LR files of {count_of(with_lr, "image")} are not used, '
                 'since config.data.degrade makes LR of HR')
  return [picture._replace(lr=None) for picture in members]


def _read_set(config: ConfigDict, key: str, members: Sequence[Picture], notes: list[str],
              skipped: list[str]) -> list[Pair]:
  """Reads the usable images of a set; `skipped` receives a line for each of the others."""
  unusable: list[str] = []
  pairs = list(benchmarks.read_set(members, config.scale, unusable))
  skipped += unusable
  notes += dropped.summary({pair.name: pair.notes for pair in pairs},
                           f'images of config.data.{key}')
  if not pairs:
    refuse_empty(unusable, f'config.data.{key}')
  return pairs


def _degraded_sets(sets: Mapping[str, list[Pair]], pictures_of: Mapping[str, Sequence[Picture]],
                   degradation: Degradation, scale: int) -> dict[str, list[Pair]]:
  """Returns the sets with degraded LR, and the validation set as it is as 'clean'."""
  degraded = {}
  for key, pairs in sets.items():
    places = {picture.name: place for place, picture in enumerate(pictures_of[key])}
    degraded[key] = fixed.degrade_pairs(pairs, places, degradation, scale)
    if key == 'valid':
      degraded['clean'] = pairs
  return degraded


def _read_crops(config: ConfigDict, training_set: Sequence[Picture], valid: Sequence[Picture],
                skipped: list[str]) -> dict[str, dict[str, np.ndarray]]:
  """Returns `ValidationData.crops`; `skipped` receives a line if there are none."""
  count = min(config.eval.pictures, max(CROPS, config.batch_size))
  spec = inputs.build_crop_spec(config)
  crops = {kind: centre_crops(members[:count], spec)
           for kind, members in (('train', training_set), ('valid', valid))}
  if not all(crops.values()):
    skipped.append(f'no loss terms for validation: none of the first {count} images of '
                   f'config.data.valid is large enough for a crop of {spec.patch} pixels')
    return {}
  # The same number of both, so that their means are comparable and one program serves both.
  count = min(len(batch['hr']) for batch in crops.values())
  crops = {kind: {name: array[:count] for name, array in batch.items()}
           for kind, batch in crops.items()}
  degradation = degrading.build_degradation(config)
  if degradation:
    degrader = Degrader(degradation, config.scale, config.hr_patch)
    crops = {kind: fixed.degrade_crops(batch['hr'], degrader) for kind, batch in crops.items()}
  return crops


def centre_crops(members: Sequence[Picture], spec: CropSpec) -> dict[str, np.ndarray]:
  """Returns a batch of the centres of the usable images, {'lr', 'hr'} float32 in [0, 1], or {}."""
  crops = []
  for picture in members:
    try:
      crops.append(pictures.read_crops(picture, spec.scale, spec.channels, spec.patch,
                                       [(0.5, 0.5)]))
    except InputError:  # damaged, which is reported elsewhere, or too small for a crop
      continue
  return {name: images.to_float(np.concatenate([crop[name] for crop in crops]))
          for name in crops[0]} if crops else {}
