"""Prints the rank correlation of our NIQE with BasicSR's on distorted photographs, as Markdown.

  git clone https://github.com/XPixelGroup/BasicSR     (with PyTorch installed)
  python -m tests.benchmarks.niqe_correlation data/BSDS500/test BasicSR

The first 100 photographs are blurred (Gaussian), given Gaussian noise, or compressed as JPEG, each
at five strengths. Spearman's correlation is printed over all of the 1,500 results, over those of
each kind and strength, and over 100 images of which each has one of the 15 distortions. The same is
printed for our algorithm with the model that the authors of NIQE published and that BasicSR has.
"""

import io
import pathlib
import sys
from collections.abc import Callable, Iterator
from unittest import mock

import numpy as np
from PIL import Image
from scipy import ndimage, stats

from sr_jax import images
from sr_jax.metrics import niqe
from sr_jax.system import cli, threads
from tests.golden import make_niqe

COUNT = 100
STRENGTHS = {'blur, sigma': (0.5, 1, 1.5, 2.5, 4), 'noise, levels': (3, 6, 12, 25, 50),
             'JPEG, quality': (90, 60, 40, 20, 10)}


def distort(image: np.ndarray, kind: str, strength: float, seed: int) -> np.ndarray:
  """Returns uint8 [H, W, 3] with one of the distortions in STRENGTHS."""
  if kind.startswith('JPEG'):
    file = io.BytesIO()
    Image.fromarray(image).save(file, 'JPEG', quality=strength)
    return np.asarray(Image.open(file))
  if kind.startswith('blur'):
    changed = ndimage.gaussian_filter(np.float64(image), (strength, strength, 0))
  else:
    changed = image + np.random.default_rng(seed).normal(0, strength, image.shape)
  return images.to_uint8(changed / 255)


def scores_of(path: pathlib.Path, seed: int, measures: dict[str, Callable]
              ) -> dict[str, np.ndarray]:
  """Returns the scores of the 15 distorted versions of a photograph, [kinds, strengths]."""
  image = images.read_image(path)
  distorted = [[distort(image, kind, strength, seed) for strength in strengths]
               for kind, strengths in STRENGTHS.items()]
  return {name: np.array([[measure(version) for version in versions] for versions in distorted])
          for name, measure in measures.items()}


def designs(shape: tuple[int, ...]) -> Iterator[tuple[str, np.ndarray]]:
  """Yields (name, mask [COUNT, kinds, strengths]) of the sets of images to correlate."""
  photo, kind_index, strength_index = np.indices(shape)
  combination = kind_index * shape[2] + strength_index
  yield 'all', np.ones(shape, bool)
  for offset in range(0, 15, 5):
    yield f'one distortion of each photograph, {offset + 1}', (
        (photo + offset) % 15 == combination)
  for index, (kind, strengths) in enumerate(STRENGTHS.items()):
    yield kind, kind_index == index
    for at, strength in enumerate(strengths):
      yield f'{kind} {strength}', (kind_index == index) & (strength_index == at)


def main() -> None:
  """Runs the command line."""
  parser = cli.Parser('python -m tests.benchmarks.niqe_correlation', __doc__)
  parser.add_argument('photographs', type=cli.path, help='a folder')
  parser.add_argument('basicsr', type=cli.path, help="a clone of BasicSR's repository")
  args = parser.parse_args()
  with np.load(args.basicsr / 'basicsr/metrics/niqe_pris_params.npz') as file:
    model = file['mu_pris_param'][0], file['cov_pris_param']
  paths = sorted(args.photographs.iterdir())[:COUNT]

  def measure_all(measures: dict[str, Callable]) -> dict[str, np.ndarray]:
    found = threads.on_all_cores(lambda item: scores_of(item[1], item[0], measures),
                                 [*enumerate(paths)])
    return {name: np.stack([scores[name] for scores in found]) for name in measures}

  found = measure_all({'ours': niqe.niqe, 'basicsr': make_niqe.published(args.basicsr)})
  with mock.patch.object(niqe, '_pristine', return_value=model):
    found |= measure_all({'same model': niqe.niqe})
  rows = ['| images | count | Spearman | the same with the published model '
          '| mean NIQE, ours | BasicSR |', '|---|---|---|---|---|---|']
  for name, mask in designs(found['ours'].shape):
    ours, same, theirs = (found[key][mask] for key in ('ours', 'same model', 'basicsr'))
    rows.append(f'| {name} | {mask.sum():,} | {stats.spearmanr(ours, theirs).statistic:.3f} '
                f'| {stats.spearmanr(same, theirs).statistic:.4f} | {ours.mean():.2f} '
                f'| {theirs.mean():.2f} |')
  print('\n'.join(rows))


if __name__ == '__main__':
  sys.exit(cli.run(main))
