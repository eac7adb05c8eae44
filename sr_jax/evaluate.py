"""Runs a generator over benchmark sets and hands the pictures to the scorer."""

import pathlib
import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tqdm

from sr_jax import images, restore
from sr_jax.data.benchmarks import read_set
from sr_jax.data.pictures import Pair, Picture
from sr_jax.errors import InputError, listed
from sr_jax.experiment import compatibility, inputs
from sr_jax.experiment.check import check
from sr_jax.images import montage
from sr_jax.inference import correction, upscaler
from sr_jax.metrics import tables
from sr_jax.metrics.scorer import make_scorer, protocol, summary
from sr_jax.report import page
from sr_jax.runs import metadata
from sr_jax.system import files

BASELINES = ('bilinear', 'bicubic')  # of every table, by MATLAB's imresize


def score_methods(pairs: Iterable[Pair], upscale: Callable[[np.ndarray], dict[str, np.ndarray]],
                  scorer, keep: Callable[[str, str, np.ndarray], None] | None = None
                  ) -> dict[str, dict[str, dict]]:
  """{method: {picture: figures}} over pairs.

  Args:
    upscale: LR to {method: SR}, so that what several methods need is made once.
    keep: is shown every result: method, picture's name, SR.
  """
  scores = {}
  for pair in pairs:
    for method, sr in upscale(pair.lr).items():
      scores.setdefault(method, {})[pair.name] = scorer(sr, pair.hr, pair.lr)
      if keep:
        keep(method, pair.name, sr)
  return scores


def evaluate_run(config, workdir, step: str = 'latest') -> dict[str, dict]:
  """Scores a run's averaged generator on `config.eval.sets`; no training data is needed.

  The architecture is the run's own (its config.json); one that differs in the config
  given is refused, because figures would be read as the config's. A run of imported weights
  has no config to be taken for: it is scored with its network and scale, whatever the config.
  The run's page, report.html, is written anew.

  Args:
    step: a checkpoint's step, 'latest' or 'best'.

  Raises:
    InputError: no run there, another architecture, no such step, a set that can't be read.
  """
  check(config)
  workdir = files.expand(workdir)
  trained = metadata.read_config(workdir)
  if not trained.get('imported'):
    compatibility.check_against(workdir, config, ('generator', 'scale'))
  model = restore.load_run(workdir, step)
  if 'data' in trained:  # what is left to test is the run's to say
    config = inputs.with_split_of(config, trained)
  sets = open_sets(config, model.scale)  # a mistyped one is refused before any is scored
  generator = model.generator.clone(dtype=np.dtype(config.dtype))
  correct = config.eval.correct
  results = evaluate(generator, model.variables, sets, model.scale, config.eval.lpips,
                     workdir / 'eval', model.step, correct.kind, tuple(correct.thresholds))
  print(f'\n{page.write([workdir])}')
  return results


def open_sets(config, scale: int) -> dict[str, list[Picture]]:
  """The sets of `config.eval.sets`, by name."""
  sets = {}
  for spec in inputs.split_sets(config.eval.sets):
    name = set_name(spec)
    if name in sets:
      raise InputError(f'config.eval.sets: two sets are called {name}')
    sets[name] = inputs.open_set(config, spec, scale, config.eval.resize)
  if not sets:
    raise InputError('config.eval.sets is empty: name folders, comma between')
  return sets


def set_name(spec: str) -> str:
  """What a set's table is called: its folder, also where its HR folder was named."""
  kind = spec.partition(':')[0]
  if kind in ('sample', 'split', 'tfds'):
    return re.sub(r'[^\w.-]+', '-', spec)
  if kind == 'div2k':
    return 'DIV2K-valid' if spec.endswith(':valid') else 'DIV2K-train'
  if kind == 'pairs':
    spec = re.search('HR=([^,]*)', spec + ',HR=')[1]
  path = files.expand(spec.removeprefix('folder:')).resolve()
  inside = re.fullmatch(r'HR(_x\d+)?|GT(mod12)?|original|image_SRF_\d+', path.name)
  return path.parent.name if inside else path.name


def make_methods(generator, variables: dict, scale: int, correct: str = 'none',
                 thresholds: Sequence[float] = ()) -> Callable[[np.ndarray], dict]:
  """upscale(lr) -> {method: sr}, uint8 [h, w, C] to [h * s, w * s, C]: `BASELINES`, 'model' and,
  with a kind in `correction.KINDS`, 'corrected', made of the model's and of bilinear's result.
  """
  forward = upscaler.make_upscaler(generator)

  def upscale(lr):
    results = {method: images.imresize(lr, scale, method) for method in BASELINES}
    results['model'] = forward(variables, lr)
    if correct != 'none':
      pair = (images.to_float(results[method]) for method in ('model', 'bilinear'))
      results['corrected'] = images.to_uint8(correction.correct(*pair, thresholds, correct))
    return results

  return upscale


def evaluate(generator, variables: dict, sets: dict[str, list[Picture]], scale: int, lpips: str,
             output, step: int, correct: str = 'none',
             thresholds: Sequence[float] = ()) -> dict[str, dict]:
  """Scores a generator on sets beside bilinear and bicubic; prints and writes the tables.

  Args:
    variables: the generator's, of `step`.
    sets: pictures by the name of their set.
    output: folder for `SET-STEP.json`, `SET-STEP.md`, `SET-STEP/PICTURE.png`, of the middle low /
      bicubic / model / original side by side in `SET-STEP-strips/PICTURE.png` and, where there is
      a correction, `SET-STEP-corrected/PICTURE.png`.
    correct, thresholds: of `correction.correct`; 'none' leaves it out.

  Returns:
    {set: what its JSON holds}: the model's `score.summary`, those of `bilinear`, `bicubic`
    and `corrected` under their names, and the protocol.
  """
  upscale = make_methods(generator, variables, scale, correct, thresholds)
  scorer = make_scorer(scale, lpips)
  results = {}
  for name, found in sets.items():
    folder = pathlib.Path(output) / f'{name}-{step}'
    folders = {'model': folder, 'corrected': folder.with_name(f'{folder.name}-corrected')}
    strips = folder.with_name(f'{folder.name}-strips')
    pairs = list(read_set(found, scale))  # all of it, before anything is written
    by_name, last = {pair.name: pair for pair in pairs}, {}

    def keep(method, picture, sr, folders=folders, strips=strips, by_name=by_name, last=last):
      last[method] = sr
      if method in folders:
        images.write_image(folders[method] / f'{picture}.png', sr)
      if method == 'model':  # after bicubic
        pair = by_name[picture]
        row = montage.centre_row(pair.lr, pair.hr, last['bicubic'], sr)
        images.write_image(strips / f'{picture}.png', montage.side_by_side(row))

    watched = tqdm.tqdm(pairs, name, leave=False, disable=None, unit=' pictures')
    methods = score_methods(watched, upscale, scorer, keep)
    meaning = protocol(scale, lpips, found[0].lr is not None)
    if 'corrected' in methods:
      meaning['corrected'] = correction.describe(thresholds, correct)
    summaries = {method: summary(scores) for method, scores in methods.items()}
    results[name] = {'protocol': meaning, 'scale': scale, 'step': step,
                     **summaries.pop('model'), **summaries}
    title = f'{name}, x{scale}, step {step}'
    files.write_json(folder.with_name(f'{folder.name}.json'), results[name])
    files.write_text(folder.with_name(f'{folder.name}.md'), f'## {title}\n\n' + '\n\n'.join(
        (tables.table(methods, markdown=True), tables.legend(meaning, markdown=True))) + '\n')
    print(f'\n{title}\n{tables.table(methods)}')
    cropped = [pair.name for pair in pairs if pair.cropped]
    if cropped:
      print(f'HR cropped to a multiple of {scale}: {listed(cropped)}')
    kept = ', '.join(str(folders[method]) for method in folders if method in methods)
    print(f'LR: {meaning["lr"]}; pictures: {kept}')
  meanings = {name: text for name, text in meaning.items() if name != 'lr'}  # each set has its own
  print(f'\n{tables.legend(meanings)}')
  return results
