"""Runs a generator over benchmark sets and hands the pictures to the scorer."""

import functools
import pathlib
import re
from collections.abc import Callable

import numpy as np
import tqdm

from sr_jax import build, build_data, files, images, restore, runs, score
from sr_jax.data.benchmarks import read_set
from sr_jax.data.pictures import Pair, Picture
from sr_jax.errors import InputError, listed

BASELINES = ('bilinear', 'bicubic')  # of every table, by MATLAB's imresize


def score_set(pairs, upscale: Callable[[np.ndarray], np.ndarray], scorer,
              keep: Callable[[Pair, np.ndarray], None] | None = None) -> dict[str, dict]:
  """{picture: figures} of `upscale` over pairs; `keep` is shown every result."""
  scores = {}
  for pair in pairs:
    sr = upscale(pair.lr)
    scores[pair.name] = scorer(sr, pair.hr, pair.lr)
    if keep:
      keep(pair, sr)
  return scores


def evaluate_run(config, workdir, step: str = 'latest') -> dict[str, dict]:
  """Scores a run's averaged generator on `config.eval.sets`; no training data is needed.

  The architecture is the run's own (its config.json); one that differs in the config
  given is refused, because figures would be read as the config's. A run of imported weights
  has no config to be taken for: it is scored with its network and scale, whatever the config.

  Args:
    step: a checkpoint's step, 'latest' or 'best'.

  Raises:
    InputError: no run there, another architecture, no such step, a set that can't be read.
  """
  build.check(config)
  workdir = files.expand(workdir)
  trained = runs.run_config(workdir)
  if not trained.get('imported'):
    runs.check_against(workdir, config, ('generator', 'scale'))
  model = restore.load_run(workdir, step)
  if 'data' in trained:  # what is left to test is the run's to say
    config = build_data.with_split_of(config, trained)
  sets = open_sets(config, model.scale)  # a mistyped one is refused before any is scored
  generator = model.generator.clone(dtype=np.dtype(config.dtype))
  return evaluate(generator, model.variables, sets, model.scale, config.eval.lpips,
                  workdir / 'eval', model.step)


def open_sets(config, scale: int) -> dict[str, list[Picture]]:
  """The sets of `config.eval.sets`, by name."""
  sets = {}
  for spec in build_data.split_sets(config.eval.sets):
    name = set_name(spec)
    if name in sets:
      raise InputError(f'config.eval.sets: two sets are called {name}')
    sets[name] = build_data.open_set(config, spec, scale)
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


def _score_methods(name: str, pairs: list[Pair], upscalers: dict[str, Callable], scorer,
                   folder: pathlib.Path) -> dict[str, dict]:
  """{method: {picture: figures}} behind a progress bar; the model's pictures go to folder."""
  def keep(pair, sr):
    images.write_image(folder / f'{pair.name}.png', sr)

  methods = {}
  for method, upscale in upscalers.items():
    watched = tqdm.tqdm(pairs, f'{name} {method}', leave=False, disable=None, unit=' pictures')
    methods[method] = score_set(watched, upscale, scorer, keep if method == 'model' else None)
  return methods


def evaluate(generator, variables: dict, sets: dict[str, list[Picture]], scale: int, lpips: str,
             output, step: int) -> dict[str, dict]:
  """Scores a generator on sets beside bilinear and bicubic; prints and writes the tables.

  Args:
    variables: the generator's, of `step`.
    sets: pictures by the name of their set.
    output: folder for `SET-STEP.json`, `SET-STEP.md` and `SET-STEP/PICTURE.png`.

  Returns:
    {set: what its JSON holds}: the model's `score.summary`, those of `bilinear` and
    `bicubic` under their names, and the protocol.
  """
  upscale, scorer = restore.make_upscaler(generator), score.make_scorer(scale, lpips)
  results = {}
  for name, found in sets.items():
    folder = pathlib.Path(output) / f'{name}-{step}'
    pairs = list(read_set(found, scale))  # all of it, before anything is written
    upscalers = {method: functools.partial(images.imresize, scale=scale, method=method)
                 for method in BASELINES} | {'model': functools.partial(upscale, variables)}
    methods = _score_methods(name, pairs, upscalers, scorer, folder)
    protocol = score.protocol(scale, lpips, found[0].lr is not None)
    results[name] = {
        'protocol': protocol, 'scale': scale, 'step': step, **score.summary(methods['model']),
        **{method: score.summary(methods[method]) for method in BASELINES}}
    title = f'{name}, x{scale}, step {step}'
    files.write_json(folder.with_name(f'{folder.name}.json'), results[name])
    files.write_text(folder.with_name(f'{folder.name}.md'), f'## {title}\n\n' + '\n\n'.join(
        (score.table(methods, markdown=True), score.legend(protocol, markdown=True))) + '\n')
    print(f'\n{title}\n{score.table(methods)}')
    cropped = [pair.name for pair in pairs if pair.cropped]
    if cropped:
      print(f'HR cropped to a multiple of {scale}: {listed(cropped)}')
    print(f'LR: {protocol["lr"]}; pictures: {folder}')
  meanings = {name: text for name, text in protocol.items() if name != 'lr'}  # each set has its own
  print(f'\n{score.legend(meanings)}')
  return results
