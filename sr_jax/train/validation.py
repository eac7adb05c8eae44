"""What is looked at while a run trains: sets that are scored, pictures, loss terms on fixed crops.

  valid, test   figures of whole pictures, by the averaged weights
  progress/     the same pictures at the start and at each quarter of the run
  terms         the loss on crops that were trained on and on crops that were not
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from sr_jax import images
from sr_jax.data import benchmarks, pictures
from sr_jax.data.pictures import Pair, Picture
from sr_jax.errors import InputError
from sr_jax.experiment import inputs
from sr_jax.step.state import TrainState

CROPS = 8  # of a kind, or as many as a batch has: they go through the networks at once


class Validation(NamedTuple):
  """What a run is watched by, read once.

  Attributes:
    sets: 'valid' and 'test', those that there are, as `evaluate.score_set` takes them.
    crops: {'train': batch, 'valid': batch}, as a step takes them; {} where one is missing.
    skipped: a line for each unusable picture of the sets.
  """

  sets: dict[str, list[Pair]]
  crops: dict[str, dict[str, np.ndarray]]
  skipped: list[str]

  @property
  def valid(self) -> list[Pair]:
    return self.sets.get('valid', [])


def open_validation(config, found: Sequence[Picture]) -> Validation:
  """Reads the sets that `config` names, and crops of them and of `found`, the training set.

  Raises:
    InputError: a set that can't be read, or with no usable picture.
  """
  named = {key: inputs.scored_set(config, key)[:config.eval.pictures]
           for key in ('valid', 'test') if config.data[key]}
  skipped, sets = [], {}
  for key, mine in named.items():
    before = len(skipped)
    sets[key] = list(benchmarks.read_set(mine, config.scale, skipped))
    if not sets[key]:
      raise InputError(f'config.data.{key}: no usable picture'
                       + ''.join(f': {reason}' for reason in skipped[before:before + 1]))
  crops = {}
  if 'valid' in named:
    most = min(config.eval.pictures, max(CROPS, config.batch_size))
    crops = {kind: centre_crops(mine[:most], inputs.build_cut(config))
             for kind, mine in (('train', found), ('valid', named['valid']))}
    if not all(crops.values()):
      skipped.append('no loss terms on pictures that are not trained on: none of the first of '
                     f'config.data.valid holds a {config.hr_patch}-pixel crop')
      crops = {}
    # As many of either: means over a batch are then of the same kind, and compiled once.
    count = min((len(batch['hr']) for batch in crops.values()), default=0)
    crops = {kind: {name: array[:count] for name, array in batch.items()}
             for kind, batch in crops.items()}
  return Validation(sets, crops, skipped)


def centre_crops(found: Sequence[Picture], cut) -> dict[str, np.ndarray]:
  """A batch of the middles of the usable pictures: {'lr', 'hr'}, float32 in [0, 1]; or {}."""
  crops = []
  for picture in found:
    try:
      crops.append(pictures.read_crops(picture, cut.scale, cut.channels, cut.patch, [(0.5, 0.5)]))
    except InputError:  # damaged, which is told elsewhere, or too small for a crop
      continue
  return {name: images.to_float(np.concatenate([crop[name] for crop in crops]))
          for name in crops[0]} if crops else {}


# Pictures ----------------------------------------------------------------------------------


# Loss terms --------------------------------------------------------------------------------


def terms_of(measure: Callable, state: TrainState, crops: Mapping[str, dict],
             frozen) -> dict[str, float]:
  """{'terms/<term>/train': ..., 'terms/<term>/valid': ...} of the weights as they are.

  Args:
    measure: a `build.Phase`'s `terms`, jitted.
    crops: of `Watched`.
  """
  found = {kind: measure(state, batch, frozen) for kind, batch in crops.items()}
  return {f'terms/{name}/{kind}': float(value) for kind, terms in jax.device_get(found).items()
          for name, value in terms.items()}


