"""Pictures of a run, or of several runs: the same crop by each method, small enough for a page."""

import base64
import io
import math
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from sr_jax import images
from sr_jax.errors import InputError
from sr_jax.report.history import Evaluation, History
from sr_jax.runs.progress import quarters, read_of_step

QUALITY = 90  # of JPEG, colours at full resolution: what it changes is below what is looked for


class Compared(NamedTuple):
  """One crop in several versions.

  Attributes:
    name: of the picture.
    of: what it is a picture of: 'validation' or a set.
    layers: {label: uint8 [H, W, 3]}, all of one size: low, bicubic, ..., original.
    figures: {label: {'psnr_y': ...}} of those layers that have any, of the whole picture.
  """

  name: str
  of: str
  layers: dict[str, np.ndarray]
  figures: dict[str, dict[str, float]]


def progress(histories: Sequence[History]) -> Iterator[Compared]:
  """The validation pictures: of one run as they came out at each quarter, of several each one's
  last.
  """
  for name in _common([_names(history.workdir / 'progress', 'original.png')
                       for history in histories]):
    versions = [_progress_of(history.workdir / 'progress' / name, history)
                for history in histories]
    yield from _compared(name, 'validation', histories, versions, [{} for _ in histories])


def _progress_of(folder: pathlib.Path, history: History) -> dict[str, np.ndarray | None]:
  layers = {label: _read(folder / f'{label}.png') for label in ('low', 'bicubic')}
  for percent, step in quarters(history.steps).items():
    layers[f'{percent}%, step {step:,}' if percent else 'step 0'] = read_of_step(
        folder / f'{percent:03}.png', step)
  return layers | {'original': _read(folder / 'original.png')}


def evaluated(histories: Sequence[History], most: int) -> Iterator[Compared]:
  """The pictures of the sets that all the runs were scored on, `most` of a set: those with the
  least gain over bicubic and those with the most, from the least up.
  """
  by_set = [{evaluation.set: evaluation for evaluation in history.evaluations}
            for history in histories]
  for name in _common([list(mine) for mine in by_set]):
    mine = [evaluations[name] for evaluations in by_set]
    there = _common([_names(evaluation.strips, '*.png') for evaluation in mine])
    for picture in _ends(sorted(there, key=lambda one: gain(mine[0], one)), most):
      versions = [_strip(evaluation.strips / picture) for evaluation in mine]
      figures = [_figures(evaluation, picture.removesuffix('.png')) for evaluation in mine]
      yield from _compared(picture.removesuffix('.png'), name, histories, versions, figures)


def gain(evaluation: Evaluation, picture: str) -> float:
  """PSNR over bicubic in dB; 0 where it is not known."""
  ours, theirs = (_figures(evaluation, picture.removesuffix('.png')).get(label, {}).get('psnr_y')
                  for label in ('model', 'bicubic'))
  return 0.0 if ours is None or theirs is None else ours - theirs


def _figures(evaluation: Evaluation, picture: str) -> dict[str, dict]:
  tables = {'model': evaluation.scores, 'bicubic': evaluation.scores.get('bicubic', {})}
  return {label: table['images'][picture] for label, table in tables.items()
          if picture in table.get('images', {})}


def _strip(path: pathlib.Path) -> dict[str, np.ndarray]:
  """The parts of what `logs.strip` put together."""
  whole = _read(path)
  if whole is None or (whole.shape[1] - 12) % 4:
    return {}
  width = (whole.shape[1] - 12) // 4
  return {label: whole[:, place * (width + 4):place * (width + 4) + width]
          for place, label in enumerate(('low', 'bicubic', 'model', 'original'))}


def _compared(name, of, histories, versions, figures) -> Iterator[Compared]:
  """Versions of one run as they are; of several the last of each, under the run's name.

  Nothing, where a run has no such picture, or one of another size: of another picture.
  """
  versions = [{label: layer for label, layer in layers.items() if layer is not None}
              for layers in versions]
  if not all('original' in layers and len(layers) > 1 for layers in versions):
    return
  if len(histories) == 1:
    layers, told = versions[0], figures[0]
  else:
    ends = {label: versions[0][label] for label in ('low', 'bicubic') if label in versions[0]}
    told = {'bicubic': figures[0]['bicubic']} if 'bicubic' in figures[0] else {}
    layers = dict(ends)
    for label, mine, theirs in zip(labels(histories), versions, figures, strict=True):
      results = [layer for kind, layer in mine.items() if kind not in (*ends, 'original')]
      if results:
        layers[label] = results[-1]
      if 'model' in theirs:
        told[label] = theirs['model']
    layers['original'] = versions[0]['original']
  if len({layer.shape for layer in layers.values()}) == 1:
    yield Compared(name, of, layers, told)


def labels(histories: Sequence[History]) -> list[str]:
  """The runs' names; with their folder where two are called alike."""
  names = [history.name for history in histories]
  return [name if names.count(name) == 1 else str(history.workdir)
          for name, history in zip(names, histories, strict=True)]


def _names(folder: pathlib.Path, pattern: str) -> list[str]:
  """Below folder: files of a pattern with a *, or the folders of files that are called so."""
  try:
    found = sorted(folder.rglob(pattern))
  except OSError:
    return []
  return [str((path if '*' in pattern else path.parent).relative_to(folder)) for path in found]


def _common(names: Sequence[list[str]]) -> list[str]:
  return [name for name in names[0] if all(name in others for others in names[1:])]


def _ends(sequence: Sequence, most: int) -> list:
  """All of it, or as many of either end."""
  if len(sequence) <= most:
    return list(sequence)
  first = math.ceil(most / 2)
  return [*sequence[:first], *sequence[len(sequence) - (most - first):]]


def _read(path) -> np.ndarray | None:
  try:
    return images.as_rgb(images.read_image(path))
  except InputError:
    return None


def as_uri(image: np.ndarray) -> str:
  """A picture as what an <img> takes as its source."""
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, 'JPEG', quality=QUALITY, subsampling=0)
  return f'data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}'


def within(pictures: Iterable[Compared], budget: int) -> tuple[list, int]:
  """([(picture, {label: URI})], how many did not fit), as many as `budget` characters hold."""
  found, left = [], 0
  for picture in pictures:
    uris = {label: as_uri(layer) for label, layer in picture.layers.items()}
    size = sum(map(len, uris.values()))
    if size > budget:
      left += 1
      continue
    budget -= size
    found.append((picture, uris))
  return found, left
