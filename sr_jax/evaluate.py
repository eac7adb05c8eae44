"""Runs a generator on benchmark sets and scores the results beside bilinear and bicubic."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from sr_jax import images, restore
from sr_jax.data.benchmarks import read_set, set_name
from sr_jax.data.degradations import fixed
from sr_jax.data.degradations.chains import Degradation
from sr_jax.data.pictures import Pair, Picture
from sr_jax.errors import InputError, listed
from sr_jax.experiment import compatibility, config_file, degrading, inputs, own_functions
from sr_jax.experiment.check import check_given
from sr_jax.images import dropped, montage
from sr_jax.inference import correction, upscaler
from sr_jax.metrics import tables
from sr_jax.metrics.own import OwnMetric
from sr_jax.metrics.scorer import (
  Scorer,
  Scores,
  against_clean_lr,
  make_scorer,
  protocol,
  summaries,
  with_nulls,
)
from sr_jax.runs import metadata
from sr_jax.runs.evaluation_folders import image_folders, replaced_folders
from sr_jax.runs.folder import RunFolder
from sr_jax.system import files
from sr_jax.system.progress import progress


def evaluate(workdir: os.PathLike | str,
             sets: str | os.PathLike | Sequence[str | os.PathLike] | None = None, *,
             step: str | int = 'latest', lpips: str | None = None, niqe: bool | None = None,
             config: ConfigDict | None = None) -> dict[str, dict[str, Any]]:
  """Scores the EMA generator of a run on benchmark sets, beside bilinear and bicubic.

    results = sr_jax.evaluate.evaluate('runs/srgan', ['data/Set5', 'data/Set14'], step='best')
    results['Set5']['mean']['psnr_y'], results['Set5']['bicubic']['mean']['psnr_y']

  Prints the tables and writes them, with the images, to the folder `eval` of the run. No training
  data is needed.

  The network is the run's, from its config.json. A config with another network is refused, since
  the scores would be taken for those of the config. Only another `config.generator.window` is used
  (`Model.with_window`); the results then have names such as SET-window16. A run of imported weights
  has no config that describes it, so its network and scale are used. What else the config sets
  differently from the run is printed, for it is not used.

  Args:
    workdir: the folder of a run.
    sets: folders or other specs as for `config.eval.sets`, separated by commas or as a sequence;
      None takes those of the config.
    step: a checkpoint's step, 'latest' or 'best'.
    lpips: the network of LPIPS, 'alex', 'vgg' or 'none'; None takes that of the config.
    niqe: whether to compute NIQE; None takes what the config says.
    config: settings of the evaluation, `config.eval`, and others that must fit the run; None takes
      the settings of the run.

  Returns:
    {set: result}, named after the folder. A result has 'images', {image: scores}; 'mean', scores;
    'excluded', lines on images that a mean leaves out; the same three under 'bilinear', 'bicubic'
    and, if there is a correction, 'corrected'; 'protocol', {metric: how it is computed}; 'scale';
    'step'. Scores are {'psnr_y', 'ssim_y', 'psnr_rgb', 'ssim_rgb', 'psnr_lr', 'lpips_alex': float},
    and 'niqe' if it is computed.
    The JSON file has the same, with null for an infinite PSNR.

  Raises:
    InputError: no run in `workdir`, another network, no such step, or an unreadable set.
  """
  workdir = files.expand(workdir)
  trained = metadata.read_config(workdir)
  # Sets that are given replace those of the run, which may name code that is not allowed.
  replaced = {} if sets is None else {'eval.sets': inputs.join_sets(sets)}
  config = (config_file.load_run(workdir, 'evaluate', replaced) if config is None
            else config.copy_and_resolve_references())
  if replaced:
    config.eval.sets = replaced['eval.sets']
  if lpips is not None:
    config.eval.lpips = lpips
  if niqe is not None:
    config.eval.niqe = niqe
  config = check_given(config, 'evaluate')
  if not trained.get('imported'):
    compatibility.check_against(workdir, config, ('generator', 'scale'),
                                'without --config the settings of the run are used',
                                ('generator.window',))
  if unused := compatibility.describe_unused(trained, config, 'evaluate'):
    print(f'{workdir}: settings of the run that are used instead of those of the config: {unused}')
  model = restore.load_run(workdir, step)
  window, side = config.generator.get('window'), getattr(model.generator, 'window', None)
  other_window = window not in (None, side) and model.name == config.generator.name
  if other_window:
    model = model.with_window(window)
    print(f'{workdir}: windows of attention of {window} instead of {side} pixels')
  if 'data' in trained:  # the run determines which part of its data is left for tests
    config = inputs.with_split_from(config, trained)
  degradation = degrading.evaluated_degradation(config)
  opened = open_sets(config, model.scale)  # refuses a mistyped set before any is scored
  if degradation:
    opened = {f'{name}-{config.data.degrade.name}': [picture._replace(lr=None) for picture in found]
              for name, found in opened.items()}
  if other_window:
    opened = {f'{name}-window{window}': found for name, found in opened.items()}
  evaluator = SetEvaluator(
      model.generator.clone(dtype=np.dtype(config.dtype)), model.variables, model.step,
      RunFolder(workdir).eval, config.eval.lpips, config.eval.correct.kind,
      tuple(config.eval.correct.thresholds), own_functions.find_metrics(config), config.eval.niqe,
      degradation)
  return evaluator.run_all(opened)


def open_sets(config: ConfigDict, scale: int) -> dict[str, list[Picture]]:
  """Opens the sets of `config.eval.sets`; returns {name: images}.

  Prints which folders were chosen in a set, and which files are skipped.

  Raises:
    InputError: no sets, two of one name, or a set that cannot be read.
  """
  sets, notes = {}, []
  for spec in inputs.parse_sets(config.eval.sets):
    name = set_name(spec)
    if name in sets:
      raise InputError(f'config.eval.sets: two sets are called {name}, so their results would have '
                       'the same paths; rename one of the folders')
    sets[name] = inputs.open_set(config, spec, scale, config.eval.resize, notes)
  if not sets:
    raise InputError('config.eval.sets: is empty; expected folders, separated by commas')
  for note in dict.fromkeys(notes):
    print(note)
  return sets


def score_methods(pairs: Iterable[Pair], upscale: Callable[[np.ndarray], dict[str, np.ndarray]],
                  scorer: Scorer,
                  on_results: Callable[[Pair, dict[str, np.ndarray]], None] | None = None
                  ) -> dict[str, dict[str, Scores]]:
  """Scores several methods on the same pairs.

  Args:
    upscale: maps LR to {method: SR}, so that methods can share intermediate results.
    on_results: is called with each pair and its {method: SR}.

  Returns:
    {method: {image: scores}}.
  """
  scores = {}
  for pair in pairs:
    results = upscale(pair.lr)
    for method, sr in results.items():
      scores.setdefault(method, {})[pair.name] = scorer(sr, pair.hr, pair.lr, image=pair.name)
    if on_results:
      on_results(pair, results)
  return scores


@dataclasses.dataclass(frozen=True)
class SetEvaluator:
  """Scores a generator on benchmark sets; prints and writes the tables.

  For each set, the output folder receives `SET-STEP.json`, `SET-STEP.md`, the model's results in
  `SET-STEP/IMAGE.png`, the centres of LR, bicubic, model and HR side by side in
  `SET-STEP-strips/IMAGE.png` and, with a correction, `SET-STEP-corrected/IMAGE.png`.

  Attributes:
    variables: the generator's, of `step`.
    output: the folder to write to.
    lpips: 'alex', 'vgg' or 'none'.
    correct: kind of the `correction.correct` to evaluate beside the model, or 'none'.
    thresholds: thresholds of the correction.
    own: metrics of the user's own by name.
    niqe: also computes NIQE.
    degradation: makes LR of HR, always the same (`fixed`); None takes LR as it is.
  """

  generator: nn.Module
  variables: Mapping[str, Any]
  step: int
  output: pathlib.Path
  lpips: str = 'alex'
  correct: str = 'none'
  thresholds: Sequence[float] = ()
  own: Mapping[str, OwnMetric] = dataclasses.field(default_factory=dict)
  niqe: bool = False
  degradation: Degradation | None = None

  def run_all(self, sets: Mapping[str, Sequence[Picture]]) -> dict[str, dict[str, Any]]:
    """Evaluates all sets; prints the protocol and a table of the means over each set and all sets.

    Returns:
      {set: result of `run`}.
    """
    results, scores = {}, {}
    for name, pictures in sets.items():
      results[name], scores[name] = self.run(name, pictures)
      if len(sets) > 1:  # the last table has all of them
        print(tables.means_table({name: self._shown(scores[name])}), flush=True)
    meanings = {metric: text for result in results.values()
                for metric, text in result['protocol'].items() if metric != 'lr'}
    print(f'\n{tables.legend(meanings)}\n\n'
          f'Means, x{self.generator.scale}, step {self.step}\n' + tables.means_table(
              {name: self._shown(methods) for name, methods in scores.items()}))
    return results

  def run(self, name: str, pictures: Sequence[Picture]
          ) -> tuple[dict[str, Any], dict[str, dict[str, Scores]]]:
    """Evaluates one set, and replaces what an earlier evaluation of a set of this name has written.

    Returns:
      (the contents of its JSON file: the `summary` of the model's scores, those of `bilinear`,
      `bicubic` and `corrected` under these keys, and the protocol; {method: {image: scores}}).
    """
    scale = self.generator.scale
    scorer = self._scorer  # first, since it refuses a missing LPIPS package
    pairs = list(read_set(pictures, scale))  # reads all images before anything is written
    if self.degradation:
      places = {pair.name: place for place, pair in enumerate(pairs)}
      pairs = fixed.degrade_pairs(pairs, places, self.degradation, scale)
    folder = self.output / f'{name}-{self.step}'
    with replaced_folders(folder) as unfinished:
      methods = score_methods(_with_progress(name, pairs), self.upscale, scorer,
                              functools.partial(self._write_images, unfinished))
    meanings = protocol(scale, self.lpips, pictures[0].lr is not None, own=self.own,
                        niqe=self.niqe)
    if self.degradation:
      meanings['lr'] = f'HR degraded: {", ".join(name for name, _ in self.degradation.stages)}'
    if 'corrected' in methods:
      meanings['corrected'] = correction.describe(self.thresholds, self.correct)
    written = summaries(methods)
    result = {'protocol': meanings, 'scale': scale, 'step': self.step,
              'better': {name: metric.better for name, metric in self.own.items()},
              **written.pop('model'), **written}
    title = f'{name}, x{scale}, step {self.step}'
    files.write_json(folder.with_name(f'{folder.name}.json'), with_nulls(result))
    table = folder.with_name(f'{folder.name}.md')
    parts = tables.table(self._shown(methods), True), tables.legend(meanings, True)
    files.write_text(table, f'## {title}\n\n' + '\n\n'.join(parts) + '\n')
    print(f'\n{title}')
    cropped = [pair.name for pair in pairs if pair.cropped]
    if cropped:
      print(f'HR cropped to a multiple of {scale}: {listed(cropped)}')
    for note in dropped.summary({pair.name: pair.notes for pair in pairs}):
      print(note)
    folders = ', '.join(str(path) for path in image_folders(folder).values() if path.is_dir())
    print(f'LR: {meanings["lr"]}; scores of each image: {table}; images: {folders}')
    return result, methods

  def upscale(self, lr: np.ndarray) -> dict[str, np.ndarray]:
    """Maps lr, uint8 [h, w, C], to {method: sr}, uint8 [h * scale, w * scale, C].

    The methods are `tables.BASELINES`, 'model' and, with a correction, 'corrected', which is
    computed from the results of the model and of bilinear.
    """
    results = {method: images.imresize(lr, self.generator.scale, method)
               for method in tables.BASELINES}
    results['model'] = self._forward(self.variables, lr)
    if self.correct != 'none':
      pair = (images.to_float(results[method]) for method in ('model', 'bilinear'))
      results['corrected'] = images.to_uint8(
          correction.correct(*pair, self.thresholds, self.correct))
    return results

  def _shown(self, methods: Mapping[str, Mapping[str, Scores]]
             ) -> dict[str, Mapping[str, Scores]]:
    return tables.shown(methods, self.generator.scale)

  @functools.cached_property
  def _forward(self) -> Callable[[Mapping[str, Any], np.ndarray], np.ndarray]:
    return upscaler.make_upscaler(self.generator)

  @functools.cached_property
  def _scorer(self) -> Scorer:
    score = make_scorer(self.generator.scale, self.lpips, own=self.own, niqe=self.niqe)
    return against_clean_lr(score) if self.degradation else score

  def _write_images(self, places: Mapping[str, pathlib.Path], pair: Pair,
                    results: Mapping[str, np.ndarray]) -> None:
    row = montage.centre_row(pair.lr, pair.hr, results['bicubic'], results['model'])
    for kind, image in {**results, 'strips': montage.side_by_side(row)}.items():
      if kind in places:
        images.write_image(places[kind] / f'{pair.name}.png', image)


def _with_progress(name: str, pairs: Sequence[Pair]) -> Iterator[Pair]:
  """Yields the pairs and shows how many of them are done."""
  with progress(name, len(pairs), 'images') as state:
    for index, pair in enumerate(pairs):
      yield pair
      state.update(index + 1)
