"""Validation while a run trains: scored sets, sample images, loss terms on fixed crops.

- 'valid', 'clean' and 'test': metrics of complete images, with the averaged weights.
- samples/: one image every `sample_every` steps; progress/: several at each quarter of the run.
- lr_images/: images without HR at each validation, and their mean NIQE if it is asked for.
- terms: the loss on crops of the training set and on crops of the validation set.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from sr_jax import images
from sr_jax.experiment.phases import Experiment, Phase
from sr_jax.images import montage
from sr_jax.inference.upscaler import make_upscaler
from sr_jax.metrics import scorer
from sr_jax.metrics.niqe import is_large_enough, niqe
from sr_jax.metrics.scorer import Scorer
from sr_jax.runs import lr_strips, progress
from sr_jax.runs.folder import RunFolder
from sr_jax.runs.logs import Logs
from sr_jax.step.state import PyTree, TrainState, variables
from sr_jax.system import sharding
from sr_jax.train.validation_data import ValidationData


class Validator:
  """Scores, samples and measures the networks of a run. Without data it does nothing."""

  def __init__(self, config: ConfigDict, experiment: Experiment, data: ValidationData, log: Logs,
               is_best: Callable[[dict[str, float]], bool] = lambda scores: False) -> None:
    """Prepares a validator.

    Args:
      is_best: returns whether these mean metrics of 'valid' are the best so far.
    """
    self._is_best = is_best
    self._names = {kind: config.data['valid' if kind == 'clean' else kind] for kind in data.sets}
    self._names['lr_images'] = config.eval.lr_images
    self._config, self._experiment, self._data, self._log = config, experiment, data, log
    self._upscale = make_upscaler(experiment.generator)
    self._score = (scorer.make_scorer(config.scale, config.eval.lpips, own=data.own,
                                      niqe=config.eval.niqe) if data.sets else None)
    self._terms = {phase.name: jax.jit(phase.terms) for phase in experiment.phases}
    # Clean LR is HR itself: bicubic has nothing to do, and its PSNR is infinite.
    self._without_bicubic = ('clean',) if config.scale == 1 else ()
    self._bicubic: dict[str, dict[str, scorer.Scores]] = {}  # of each set
    self._excluded: dict[str, list[str]] = {}  # lines on the means of each set, already logged

  def before_training(self, state: TrainState) -> None:
    """Scores bicubic and the initial weights, for comparison, and keeps progress images."""
    if self._data.is_empty:
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
    if self._data.is_empty:
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

  def _upscale_lr_images(self, step: int, name: str,
                         upscale: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
    """Writes the strips of the images without HR; returns {'niqe': mean} if it is computed."""
    scores, with_niqe = {}, self._config.eval.niqe
    for image in self._data.lr_images if name != 'bicubic' or with_niqe else ():
      folder, sr = RunFolder(self._log.workdir).lr_images, upscale(image.lr)
      if with_niqe and is_large_enough(sr):
        scores[image.name] = {'niqe': niqe(sr)}
      if name != 'bicubic':  # it is in every strip
        with self._log.trying(folder):
          strip = lr_strips.keep_strip(folder, image.name, image.lr, sr, step)
          self._log.show(step, f'lr_images/{image.name}', strip)
    return scorer.mean(scores) if scores else {}

  def _score_sets(self, step: int, name: str, upscale: Callable[[np.ndarray], np.ndarray],
                  terms: Mapping[str, float] | None = None) -> dict[str, float]:
    """Scores the sets, upscales the images without HR, and logs the means.

    Images that bicubic reproduces exactly, such as black ones, have an infinite PSNR in some
    validations and not in others. They are left out of all, so that means can be compared.
    """
    means = {}
    for kind, pairs in self._data.sets.items():
      if name == 'bicubic' and kind in self._without_bicubic:
        continue
      scores = scorer.score_set(pairs, upscale, self._scorer(kind, self._score))
      compared = {} if kind in self._without_bicubic else {
          'bicubic': self._bicubic_scores(kind, scores if name == 'bicubic' else None)}
      means[kind] = scorer.mean(scores, compared.get('bicubic'))
      excluded = scorer.exclusions({name: scores} | compared)
      if excluded != self._excluded.setdefault(kind, []):
        self._excluded[kind] = excluded
        key = 'config.data.valid, clean LR' if kind == 'clean' else f'config.data.{kind}'
        for line in excluded:
          self._log.say(f'{key}: {line}')
    found = means.get('valid', {})
    if of_lr_images := self._upscale_lr_images(step, name, upscale):
      means['lr_images'] = of_lr_images
    if not means:
      return {}
    self._log.validation(step, name, means, terms or {}, self._names,
                         is_best=step > 0 and self._is_best(found))
    return found

  def _bicubic_scores(self, kind: str, scores: dict[str, scorer.Scores] | None
                      ) -> dict[str, scorer.Scores]:
    """Returns bicubic's scores of a set, which a resumed run computes again, without LPIPS."""
    if kind not in self._bicubic:
      self._bicubic[kind] = scores or scorer.score_set(
          self._data.sets[kind], self._upscale_bicubic, self._scorer(
              kind, scorer.make_scorer(self._config.scale, 'none', own=self._data.own,
                                        niqe=self._config.eval.niqe)))
    return self._bicubic[kind]

  def _scorer(self, kind: str, score: Scorer) -> Scorer:
    """Returns a scorer that compares with clean LR in psnr_lr, where LR of a set is degraded."""
    if kind == 'clean' or 'clean' not in self._data.sets:
      return score
    return scorer.against_clean_lr(score)

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
