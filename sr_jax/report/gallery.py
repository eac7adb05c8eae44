"""Selects images of one or several runs and encodes them for the page.

Each entry is one crop in several versions: low resolution, bicubic, results, original.
"""

import base64
import io
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from sr_jax import images
from sr_jax.errors import InputError
from sr_jax.images import montage
from sr_jax.report.history import Evaluation, History
from sr_jax.runs import lr_strips
from sr_jax.runs.folder import RunFolder
from sr_jax.runs.progress import quarters, read_progress_image

JPEG_QUALITY = 90  # with colours at full resolution: its artefacts are below those of interest
MAX_STEPS = 5  # at which an image without HR is shown
MONTAGE_LABELS = ('low', 'bicubic', 'model', 'original')  # as sr-jax evaluate writes them

Scores = dict[str, dict[str, float]]  # {label: {'psnr_y': ...}}


class Comparison(NamedTuple):
  """One crop in several versions.

  Attributes:
    name: name of the image.
    group: 'validation', 'no HR' or the name of a set.
    layers: {label: uint8 [H, W, 3]}, all of one size: low, bicubic, ..., and original if there
      is HR.
    scores: scores of those layers that have any, computed on the full image.
  """

  name: str
  group: str
  layers: dict[str, np.ndarray]
  scores: Scores


def progress(histories: Sequence[History]) -> Iterator[Comparison]:
  """Yields the validation images.

  For a single run the layers are its results at each quarter; for several runs, the last result of
  each.
  """
  folders = [RunFolder(history.workdir).progress for history in histories]
  for name in _common([_image_folders(folder) for folder in folders]):
    versions = [_progress_layers(folder / name, history)
                for folder, history in zip(folders, histories, strict=True)]
    yield from _compare(name, 'validation', histories, versions, [{} for _ in histories])


def _progress_layers(folder: pathlib.Path, history: History) -> dict[str, np.ndarray | None]:
  layers = {label: _read(folder / f'{label}.png') for label in ('low', 'bicubic')}
  for percent, step in quarters(history.steps).items():
    layers[f'{percent}%, step {step:,}' if percent else 'step 0'] = read_progress_image(
        folder / f'{percent:03}.png', step)
  return layers | {'original': _read(folder / 'original.png')}


def upscaled(histories: Sequence[History]) -> Iterator[Comparison]:
  """Yields the images without HR, at up to `MAX_STEPS` steps for a single run."""
  found = [lr_strips.find_strips(RunFolder(history.workdir).lr_images) for history in histories]
  for name in _common([list(strips) for strips in found]):
    versions = [_strip_layers(strips[name]) for strips in found]
    yield from _compare(name, 'no HR', histories, versions, [{} for _ in histories], ('low',))


def _strip_layers(strips: Mapping[int, pathlib.Path]) -> dict[str, np.ndarray]:
  """Returns LR, bicubic and the results at steps that are evenly spread, with both ends."""
  steps, count = list(strips), min(len(strips), MAX_STEPS)
  chosen = [steps[round(place)] for place in np.linspace(0, len(steps) - 1, count)]
  parts = {step: read for step in chosen if (read := lr_strips.read_strip(strips[step]))}
  if not parts:
    return {}
  last = parts[max(parts)]
  # A step with another LR: an image of this name was replaced since.
  return {label: last[label] for label in ('low', 'bicubic')} | {
      f'step {step:,}': read['result'] for step, read in parts.items()
      if np.array_equal(read['low'], last['low'])}


def evaluated(histories: Sequence[History], max_images: int) -> Iterator[Comparison]:
  """Yields images of the sets that all runs were evaluated on, at most `max_images` of each set.

  These are the images with the smallest and with the largest gain over bicubic, in increasing
  order.
  """
  by_set = [{evaluation.set: evaluation for evaluation in history.evaluations}
            for history in histories]
  for set_name in _common([list(evaluations) for evaluations in by_set]):
    evaluations = [of_run[set_name] for of_run in by_set]
    names = _common([_montage_names(evaluation.strips) for evaluation in evaluations])
    names = sorted(names, key=lambda name: psnr_gain(evaluations[0], name))
    for name in _both_ends(names, max_images):
      versions = [_evaluation_layers(evaluation.strips / f'{name}.png')
                  for evaluation in evaluations]
      scores = [_scores(evaluation, name) for evaluation in evaluations]
      yield from _compare(name, set_name, histories, versions, scores)


def psnr_gain(evaluation: Evaluation, name: str) -> float:
  """Returns the gain in PSNR over bicubic in dB; 0 if one of the scores is missing."""
  scores = _scores(evaluation, name)
  model, bicubic = (scores.get(label, {}).get('psnr_y') for label in ('model', 'bicubic'))
  return 0.0 if model is None or bicubic is None else model - bicubic


def _scores(evaluation: Evaluation, name: str) -> Scores:
  tables = {'model': evaluation.scores, 'bicubic': evaluation.scores.get('bicubic', {})}
  return {label: table['images'][name] for label, table in tables.items()
          if name in table.get('images', {})}


def _evaluation_layers(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Returns the images of a montage, or {} if the file is damaged."""
  row = _read(path)
  if row is None:
    return {}
  try:
    layers = montage.split_side_by_side(row, len(MONTAGE_LABELS))
  except ValueError:
    return {}
  return dict(zip(MONTAGE_LABELS, layers, strict=True))


def _compare(name: str, group: str, histories: Sequence[History],
             versions: Sequence[Mapping[str, np.ndarray | None]],
             scores: Sequence[Scores], needed: Sequence[str] = ('original',)
             ) -> Iterator[Comparison]:
  """Yields the versions of one run as they are, or the last result of each of several runs.

  Yields nothing if a run lacks the image, or has it in another size: then it is a different image.

  Args:
    needed: labels of the layers that must be there, and others.
  """
  versions = [{label: layer for label, layer in layers.items() if layer is not None}
              for layers in versions]
  if not all({*needed} < layers.keys() for layers in versions):
    return
  if len(histories) == 1:
    layers, shown_scores = versions[0], scores[0]
  else:
    layers, shown_scores = _merge_runs(run_labels(histories), versions, scores)
  if histories[0].config.get('scale') == 1 and 'bicubic' in layers:  # equal to 'low'
    layers, shown_scores = (
        {images.baseline_name(label, 1) if label == 'bicubic' else label: of_label
         for label, of_label in labelled.items() if label != 'low'}
        for labelled in (layers, shown_scores))
  if len({layer.shape for layer in layers.values()}) == 1:
    yield Comparison(name, group, layers, shown_scores)


def _merge_runs(labels: Sequence[str], versions: Sequence[Mapping[str, np.ndarray]],
                scores: Sequence[Scores]) -> tuple[dict[str, np.ndarray], Scores]:
  """Returns (layers, scores): inputs and original of the first run, the last result of each."""
  inputs = {label: versions[0][label] for label in ('low', 'bicubic') if label in versions[0]}
  layers = dict(inputs)
  merged = {'bicubic': scores[0]['bicubic']} if 'bicubic' in scores[0] else {}
  for label, of_run, run_scores in zip(labels, versions, scores, strict=True):
    results = [layer for kind, layer in of_run.items() if kind not in (*inputs, 'original')]
    if results:
      layers[label] = results[-1]
    if 'model' in run_scores:
      merged[label] = run_scores['model']
  if 'original' in versions[0]:
    layers['original'] = versions[0]['original']
  return layers, merged


def run_labels(histories: Sequence[History]) -> list[str]:
  """Returns the runs' names, or their folders where two runs have the same name."""
  names = [history.name for history in histories]
  return [name if names.count(name) == 1 else str(history.workdir)
          for name, history in zip(names, histories, strict=True)]


def _image_folders(folder: pathlib.Path) -> list[str]:
  """Returns the relative paths of the folders that hold an original.png."""
  return [str(path.parent.relative_to(folder)) for path in _files_below(folder, 'original.png')]


def _montage_names(folder: pathlib.Path) -> list[str]:
  """Returns the relative paths of the PNG files, without their suffix."""
  return [str(path.relative_to(folder)).removesuffix('.png')
          for path in _files_below(folder, '*.png')]


def _files_below(folder: pathlib.Path, pattern: str) -> list[pathlib.Path]:
  try:
    return sorted(folder.rglob(pattern))
  except OSError:
    return []


def _common(names: Sequence[list[str]]) -> list[str]:
  return [name for name in names[0] if all(name in others for others in names[1:])]


def _both_ends(names: Sequence[str], count: int) -> list[str]:
  """Returns `count` names, half of them from either end, or all if there are no more."""
  if len(names) <= count:
    return list(names)
  first = math.ceil(count / 2)
  return [*names[:first], *names[len(names) - (count - first):]]


def _read(path: os.PathLike | str) -> np.ndarray | None:
  try:
    return images.as_rgb(images.read_image(path))
  except InputError:
    return None


def data_uri(image: np.ndarray) -> str:
  """Returns an image as a JPEG in a data: URI."""
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, 'JPEG', quality=JPEG_QUALITY, subsampling=0)
  return f'data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}'


def encode_within(comparisons: Iterable[Comparison],
                  budget: int) -> tuple[list[tuple[Comparison, dict[str, str]]], int]:
  """Encodes as many comparisons as fit into `budget` characters.

  Returns:
    ([(comparison, {label: URI})], the number of comparisons that did not fit).
  """
  encoded, left = [], 0
  for comparison in comparisons:
    uris = {label: data_uri(layer) for label, layer in comparison.layers.items()}
    size = sum(map(len, uris.values()))
    if size > budget:
      left += 1
      continue
    budget -= size
    encoded.append((comparison, uris))
  return encoded, left
