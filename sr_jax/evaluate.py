"""Runs a generator over benchmark sets and hands the pictures to the scorer."""

import collections
import functools
import pathlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

import jax
import numpy as np

from sr_jax import build, images, score
from sr_jax.checkpoints import Checkpoints
from sr_jax.data.sources import open_source
from sr_jax.errors import InputError
from sr_jax.logs import write_json


class Pair(NamedTuple):
  """One picture of a set: uint8 [h, w, C] and [h * scale, w * scale, C]."""

  name: str
  lr: np.ndarray
  hr: np.ndarray


def read_set(spec: str, scale: int, limit: int | None = None,
             skipped: list[str] | None = None) -> Iterator[Pair]:
  """The pictures of a set, read one by one.

  Args:
    spec: a data source ('sample:valid', 'folder:PATH') or a folder. A folder that holds
      `HR_x4` and `LRbicx4` (for scale 4) is read as pairs of files with the same name;
      any other is HR, cropped to a multiple of the scale, with MATLAB's bicubic as LR.
    limit: the first so many files.
    skipped: takes a line for each unusable picture, which is otherwise an error.

  Yields:
    Pairs named by their path in the set, without the suffix where that is unambiguous.

  Raises:
    InputError: a folder that is missing or empty, a damaged picture, pairs that don't fit.
  """
  for name, path, lr_path in _files(spec, scale)[:limit]:
    try:
      pair = _from_hr(name, path, scale) if lr_path is None else _pair(name, path, lr_path, scale)
      if min(pair.hr.shape[:2]) <= 2 * scale:
        raise InputError(f'{path}: {pair.hr.shape[0]}x{pair.hr.shape[1]} is too small for scale '
                         f'{scale}')
      yield pair
    except InputError as error:
      if skipped is None:
        raise
      skipped.append(str(error))


def _files(spec: str, scale: int) -> list[tuple[str, pathlib.Path, pathlib.Path | None]]:
  """(name, HR file, its LR file or None) of each picture of a set."""
  if spec.partition(':')[0] == 'sample':
    return [(path.stem, path, None) for path in open_source(spec)]
  folder = pathlib.Path(spec.removeprefix('folder:')).expanduser()
  scales = sorted(path.name.removeprefix('HR_x') for path in folder.glob('HR_x*')
                  if (folder / path.name.replace('HR_x', 'LRbicx')).is_dir())
  if scales and str(scale) not in scales:
    raise InputError(f'{folder}: has pictures for scale {", ".join(scales)}, not {scale}')
  root = folder / f'HR_x{scale}' if scales else folder
  paths = open_source(f'folder:{root}')
  stems = collections.Counter(path.with_suffix('') for path in paths)
  files = []
  for path in paths:
    inside = path.relative_to(root)
    alone = stems[path.with_suffix('')] == 1
    files.append(((inside.with_suffix('') if alone else inside).as_posix(), path,
                  folder / f'LRbicx{scale}' / inside if scales else None))
  return files


def _from_hr(name: str, path, scale: int) -> Pair:
  hr = images.crop_to_multiple(images.read_image(path), scale)
  return Pair(name, images.imresize(hr, Fraction(1, scale)), hr)


def _pair(name: str, path, lr_path, scale: int) -> Pair:
  pair = Pair(name, images.read_image(lr_path), images.read_image(path))
  wanted = (pair.lr.shape[0] * scale, pair.lr.shape[1] * scale, pair.lr.shape[2])
  if pair.hr.shape != wanted:
    raise InputError(f'{path}: {pair.hr.shape}, expected {scale} times its LR, {wanted}')
  return pair


def make_upscaler(generator) -> Callable[[dict, np.ndarray], np.ndarray]:
  """upscale(variables, lr) -> sr, uint8 [h, w, C] to [h * s, w * s, C]; grey stays grey."""
  @jax.jit
  def forward(variables, lr):
    return generator.apply(variables, lr)

  def upscale(variables, lr):
    sr = forward(variables, images.to_float(images.as_rgb(lr))[None])[0]
    if lr.shape[-1] == 1:
      sr = np.asarray(sr).mean(-1, keepdims=True)
    return images.to_uint8(sr)

  return upscale


def bicubic(lr: np.ndarray, scale: int) -> np.ndarray:
  """The baseline of every table: MATLAB's bicubic enlargement of uint8 [h, w, C]."""
  return images.imresize(lr, scale)


def score_set(pairs, upscale: Callable[[np.ndarray], np.ndarray], scorer,
              keep: Callable[[Pair, np.ndarray], None] | None = None) -> dict[str, dict]:
  """{picture: figures} of `upscale` over pairs; `keep` is shown every result."""
  scores = {}
  for pair in pairs:
    sr = upscale(pair.lr)
    scores[pair.name] = scorer(sr, pair.hr)
    if keep:
      keep(pair, sr)
  return scores


def evaluate_run(config, workdir, step: str = 'latest') -> dict[str, dict]:
  """Scores a run's averaged generator on `config.eval.sets`; no training data is needed.

  The architecture is the run's own (its config.json); one that differs in the config
  given is refused, because figures would be read as the config's.

  Args:
    step: a checkpoint's step, 'latest' or 'best'.

  Raises:
    InputError: no run there, another architecture, no such step, a set that can't be read.
  """
  build.check(config)
  workdir = pathlib.Path(workdir).expanduser()
  trained = build.check_against(workdir, config, ('generator', 'scale'))
  generator = build.build_generator(config)
  lr = jax.ShapeDtypeStruct((1, 16, 16, 3), np.float32)
  variables = jax.eval_shape(generator.init, jax.random.key(0), lr)
  target = {'params': variables['params'], 'batch_stats': variables.get('batch_stats', {})}
  checkpoints = Checkpoints(workdir, trained['best_metric'], read_only=True)
  try:
    if step == 'best':
      number = checkpoints.best()
      if number is None:
        raise InputError(f'{workdir}: no checkpoint has a validation figure to be best by')
    elif step == 'latest' or step.isdecimal():
      number = None if step == 'latest' else int(step)
    else:
      raise InputError(f"--step={step}: expected a number, 'latest' or 'best'")
    variables, number = checkpoints.restore_ema(target, number)
  finally:
    checkpoints.close()
  sets = [part.strip() for part in config.eval.sets.split(',') if part.strip()]
  if not sets:
    raise InputError('config.eval.sets is empty: name folders, comma between')
  try:
    return evaluate(generator, variables, sets, config.scale, config.eval.lpips,
                    workdir / 'eval', number)
  except OSError as error:
    raise InputError(f'{error.filename}: can not be written ({error.strerror})') from None


def _set_name(spec: str) -> str:
  path = pathlib.Path(spec.replace(':', '-') if spec.startswith('sample') else spec)
  return path.parent.name if path.name == 'HR' else path.name


def evaluate(generator, variables: dict, sets: list[str], scale: int, lpips: str, output,
             step: int) -> dict[str, dict]:
  """Scores a generator on sets, prints a table for each, writes JSON and pictures.

  Args:
    variables: the generator's, of `step`.
    output: folder for `SET-STEP.json` and `SET-STEP/PICTURE.png`.

  Returns:
    {set: what its JSON holds}.
  """
  upscale, scorer = make_upscaler(generator), score.make_scorer(scale, lpips)
  names = [_set_name(spec) for spec in sets]
  for name, spec in zip(names, sets, strict=True):
    _files(spec, scale)  # a mistyped one is refused before the first is scored
    if names.count(name) > 1:
      raise InputError(f'config.eval.sets: two sets are called {name}')
  results = {}
  for name, spec in zip(names, sets, strict=True):
    folder = pathlib.Path(output) / f'{name}-{step}'
    pairs = list(read_set(spec, scale))  # all of it, before anything is written
    base = score_set(pairs, lambda lr: bicubic(lr, scale), scorer)
    model = score_set(pairs, functools.partial(upscale, variables), scorer,
                      lambda pair, sr, folder=folder: images.write_image(
                          folder / f'{pair.name}.png', sr))
    results[name] = {
        'protocol': score.protocol(scale, lpips), 'scale': scale, 'step': step,
        'images': model, 'mean': score.mean(model),
        'bicubic': {'images': base, 'mean': score.mean(base)}}
    write_json(folder.with_name(f'{folder.name}.json'), results[name])
    print(f'\n{name}, x{scale}, step {step}\n{score.table({"bicubic": base, "model": model})}')
    print(f'pictures: {folder}')
  for figure, meaning in score.protocol(scale, lpips).items():
    print(f'{figure}: {meaning}')
  return results
