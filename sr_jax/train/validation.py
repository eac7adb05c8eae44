"""Validation while a run trains: scored sets, sample images, loss terms on fixed crops.

- 'valid' and 'test': metrics of complete images, with the averaged weights.
- samples/: one image every `sample_every` steps; progress/: several at each quarter of the run.
- lr_images/: images without HR at each validation.
- terms: the loss on crops of the training set and on crops of the validation set.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from sr_jax import images
from sr_jax.data import benchmarks, pictures
from sr_jax.data.bank import CropSpec
from sr_jax.data.pictures import Pair, Picture, refuse_empty
from sr_jax.errors import InputError
from sr_jax.experiment import inputs, own_functions
from sr_jax.experiment.phases import Experiment, Phase
from sr_jax.images import dropped, montage
from sr_jax.inference.upscaler import make_upscaler
from sr_jax.metrics import scorer
from sr_jax.metrics.own import OwnMetric, own_scores
from sr_jax.metrics.scorer import NO_METRICS
from sr_jax.runs import lr_strips, progress
from sr_jax.runs.folder import RunFolder
from sr_jax.runs.logs import Logs
from sr_jax.step.state import PyTree, TrainState, variables
from sr_jax.system import sharding
from sr_jax.train.lr_images import LRImage, open_lr_images

CROPS = 8  # of each kind, or as many as a batch has: they go through the networks at once


class ValidationData(NamedTuple):
  """What a run is validated on, read once.

  Attributes:
    sets: the pairs of 'valid' and 'test', those that are configured.
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
  own = own_functions.find_metrics(config)
  pictures_of = {key: inputs.scored_set(config, key, notes)[:config.eval.pictures]
                 for key in ('valid', 'test') if config.data[key]}
  skipped, sets = [], {}
  for key, members in pictures_of.items():
    before = len(skipped)
    sets[key] = list(benchmarks.read_set(members, config.scale, skipped))
    if notes is not None:
      notes += dropped.summary({pair.name: pair.notes for pair in sets[key]},
                               f'images of config.data.{key}')
    if not sets[key]:
      refuse_empty(skipped[before:], f'config.data.{key}')
  crops = {}
  if 'valid' in pictures_of:
    count = min(config.eval.pictures, max(CROPS, config.batch_size))
    spec = inputs.build_crop_spec(config)
    crops = {'train': centre_crops(training_set[:count], spec),
             'valid': centre_crops(pictures_of['valid'][:count], spec)}
    if not all(crops.values()):
      skipped.append(f'no loss terms for validation: none of the first {count} images of '
                     f'config.data.valid is large enough for a crop of {config.hr_patch} pixels')
      crops = {}
    # The same number of both, so that their means are comparable and one program serves both.
    count = min((len(batch['hr']) for batch in crops.values()), default=0)
    crops = {kind: {name: array[:count] for name, array in batch.items()}
             for kind, batch in crops.items()}
  for pair in next(iter(sets.values()), [])[:1] if own else ():
    # A trial, so that a function that fails does so before anything is written.
    own_scores(own, images.imresize(pair.lr, config.scale), pair.hr, pair.name)
  lr_images = open_lr_images(config, [] if notes is None else notes, skipped)
  return ValidationData(sets, crops, skipped, own, lr_images)


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


class Validator:
  """Scores, samples and measures the networks of a run. Without data it does nothing."""

  def __init__(self, config: ConfigDict, experiment: Experiment, data: ValidationData, log: Logs,
               is_best: Callable[[dict[str, float]], bool] = lambda scores: False) -> None:
    """Prepares a validator.

    Args:
      is_best: returns whether these mean metrics of 'valid' are the best so far.
    """
    self._is_best = is_best
    self._names = {kind: config.data[kind] for kind in data.sets}
    self._config, self._experiment, self._data, self._log = config, experiment, data, log
    self._upscale = make_upscaler(experiment.generator)
    self._score = (scorer.make_scorer(config.scale, config.eval.lpips, own=data.own,
                                      niqe=config.eval.niqe) if data.sets else None)
    self._terms = {phase.name: jax.jit(phase.terms) for phase in experiment.phases}
    self._bicubic: dict[str, dict[str, scorer.Scores]] = {}  # of each set
    self._excluded: dict[str, list[str]] = {}  # lines on the means of each set, already logged

  def before_training(self, state: TrainState) -> None:
    """Scores bicubic and the initial weights, for comparison, and keeps progress images."""
    if self._config.init_from:
      self._upscale_lr_images(0, state)
    if not self._data.sets:
      return
    self._score_sets(0, 'bicubic', self._upscale_bicubic)
    if self._config.init_from:
      terms = self._loss_terms(state, self._experiment.phase_at(0))
      self._score_sets(0, 'start', self._upscaler(state), terms)
    self.keep_progress(0, state)

  def validate(self, step: int, phase: Phase, state: TrainState) -> dict[str, float]:
    """Scores the sets, logs the result, and returns the mean metrics of 'valid'.

    The test set is logged too; it decides nothing. Images without HR are upscaled.
    """
    self._upscale_lr_images(step, state)
    if not self._data.sets:
      return {}
    return self._score_sets(step, phase.name, self._upscaler(state),
                            self._loss_terms(state, phase))

  def sample(self, step: int, state: TrainState) -> None:
    """Writes a low / bicubic / generated / original montage of the first validation image."""
    upscale = self._upscaler(state)
    for pair in self._data.valid[:1]:
      row = montage.centre_row(pair.lr, pair.hr, images.imresize(pair.lr, self._config.scale),
                               upscale(pair.lr))
      self._log.picture(step, pair.name, montage.side_by_side(row))

  def keep_progress(self, step: int, state: TrainState) -> None:
    """Writes the progress montages of the first `config.progress_pictures` images."""
    upscale = self._upscaler(state)
    for pair in self._data.valid[:self._config.progress_pictures]:
      folder = RunFolder(self._log.workdir).progress
      sr = upscale(pair.lr)
      with self._log.trying(folder):
        row = progress.keep_progress(folder, pair, sr, step, self._config.steps)
        self._log.show(step, f'progress/{pair.name}', row)

  def _upscale_lr_images(self, step: int, state: TrainState) -> None:
    """Writes the strips of the images without HR."""
    upscale = self._upscaler(state)
    for image in self._data.lr_images:
      folder = RunFolder(self._log.workdir).lr_images
      sr = upscale(image.lr)
      with self._log.trying(folder):
        strip = lr_strips.keep_strip(folder, image.name, image.lr, sr, step)
        self._log.show(step, f'lr_images/{image.name}', strip)

  def _score_sets(self, step: int, name: str, upscale: Callable[[np.ndarray], np.ndarray],
                  terms: Mapping[str, float] | None = None) -> dict[str, float]:
    """Scores the sets and logs their means.

    Images that bicubic reproduces exactly, such as black ones, have an infinite PSNR in some
    validations and not in others. They are left out of all, so that means can be compared.
    """
    means = {}
    for kind, pairs in self._data.sets.items():
      scores = scorer.score_set(pairs, upscale, self._score)
      bicubic = self._bicubic_scores(kind, scores if name == 'bicubic' else None)
      means[kind] = scorer.mean(scores, bicubic)
      excluded = scorer.exclusions({name: scores, 'bicubic': bicubic})
      if excluded != self._excluded.setdefault(kind, []):
        self._excluded[kind] = excluded
        for line in excluded:
          self._log.say(f'config.data.{kind}: {line}')
    found = means.get('valid', {})
    self._log.validation(step, name, means, terms or {}, self._names,
                         is_best=step > 0 and self._is_best(found))
    return found

  def _bicubic_scores(self, kind: str, scores: dict[str, scorer.Scores] | None
                      ) -> dict[str, scorer.Scores]:
    """Returns bicubic's scores of a set, which a resumed run computes again, without LPIPS."""
    if kind not in self._bicubic:
      self._bicubic[kind] = scores or scorer.score_set(
          self._data.sets[kind], self._upscale_bicubic,
          scorer.make_scorer(self._config.scale, 'none', own=self._data.own,
                             niqe=self._config.eval.niqe))
    return self._bicubic[kind]

  def _upscaler(self, state: TrainState) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function that upscales an image with the averaged weights."""
    return functools.partial(self._upscale, variables(sharding.local_copy(state.ema)))

  def _upscale_bicubic(self, lr: np.ndarray) -> np.ndarray:
    return images.imresize(lr, self._config.scale)

  def _loss_terms(self, state: TrainState, phase: Phase) -> dict[str, float]:
    return loss_terms(self._terms[phase.name], sharding.local_copy(state), self._data.crops,
                      sharding.local_copy(self._experiment.frozen))


def loss_terms(terms: Callable[[TrainState, Any, PyTree], dict[str, jax.Array]],
               state: TrainState, crops: Mapping[str, dict[str, np.ndarray]],
               frozen: PyTree) -> dict[str, float]:
  """Returns {'terms/<term>/train': ..., 'terms/<term>/valid': ...} of the weights without EMA.

  Args:
    terms: of a `Phase`, jitted.
    crops: of `ValidationData`.
  """
  measured = {kind: terms(state, batch, frozen) for kind, batch in crops.items()}
  return {f'terms/{name}/{kind}': float(value) for kind, values in jax.device_get(measured).items()
          for name, value in values.items()}
