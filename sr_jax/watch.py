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
from sr_jax.runs import metrics_log
from sr_jax.step.state import TrainState

CROPS = 8  # of a kind, or as many as a batch has: they go through the networks at once


class Watched(NamedTuple):
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


def open_watched(config, found: Sequence[Picture]) -> Watched:
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
  return Watched(sets, crops, skipped)


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


def print_terms(workdir, crops: Mapping[str, dict]) -> None:
  """At a run's end: `describe_terms`, and of what they are."""
  lines = metrics_log.read_metrics(workdir)
  described = describe_terms(lines)
  if described and crops:
    train, valid = (len(crops[kind]['hr']) for kind in ('train', 'valid'))
    print(f'\nLoss terms of the phase {lines[-1]["phase"]}, raw weights, on the middle of pictures '
          f'({train} for training, {valid} for validation)')
    print('\n'.join(described))


def describe_terms(lines: Sequence[dict]) -> list[str]:
  """A line for each term of the last phase: where it began and ended, and the lowest.

  Args:
    lines: of metrics.jsonl.
  """
  lines = [line for line in lines if any(name.startswith('terms/') for name in line)]
  last = [lines[-1]['phase']] if lines else []
  if {line['phase'] for line in lines} == {'start', *last}:  # the same loss, before its first step
    last.append('start')
  lines = [line for line in lines if line['phase'] in last]
  terms = dict.fromkeys(name.split('/')[1] for line in lines for name in line
                        if name.startswith('terms/'))
  described = []
  for term in terms:
    curve = [(line['step'], *values) for line in lines if None not in (
        values := [line.get(f'terms/{term}/{kind}') for kind in ('train', 'valid')])]
    if curve:  # null is no number: the run came to nothing there
      described.append(f'{term}: {_describe(term, *zip(*curve, strict=True))}')
  return described


def _describe(term: str, steps: Sequence[int], train: Sequence[float],
              valid: Sequence[float]) -> str:
  share = term in ('d_real', 'd_fake')
  ends = [' to '.join(f'{value:.0%}' if share else f'{value:.4g}' for value in (
      (curve[0], curve[-1]) if len(curve) > 1 else curve)) for curve in (train, valid)]
  text = f'train {ends[0]}, validation {ends[1]}'
  if share:  # of right answers, not to be low
    return text
  lowest = int(np.argmin(valid))
  text += f', lowest {valid[lowest]:.4g} at step {steps[lowest]}'
  if term in ('pixel', 'perceptual') and overfits(train, valid):
    text += ': it rose while train fell on, the generator overfits'
  return text


def overfits(train: Sequence[float], valid: Sequence[float]) -> bool:
  """Whether a loss fell on where it was trained on while, for good, it rose elsewhere.

  The last quarter of the validations, four at least, is held against as many in a row whose
  validation values are the lowest. Every validation value of the one must lie above every one
  of the other, on average by 1%, and every training value below: what goes up and down by
  chance does not keep apart so, and on pictures that a network has learnt by heart it does.

  A term that rises on both has been given up for another (pixels, in an adversarial phase);
  one that falls on both is learnt, however far apart the two are. Neither is overfitting.

  Args:
    train, valid: values of one term, oldest first.
  """
  train, valid = np.asarray(train), np.asarray(valid)
  count = max(4, len(valid) // 4)
  if len(valid) < 2 * count:
    return False
  start = min(range(len(valid) - 2 * count + 1), key=lambda i: valid[i:i + count].mean())
  lowest, last = slice(start, start + count), slice(-count, None)
  return bool(valid[last].min() > valid[lowest].max() and train[last].max() < train[lowest].min()
              and valid[last].mean() > 1.01 * valid[lowest].mean())
