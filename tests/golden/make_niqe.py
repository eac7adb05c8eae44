"""Fits NIQE's model of sharp patches, and computes NIQE by BasicSR with this model for the tests.

  python tests/golden/make_niqe.py model data/BSDS500/train     writes sr_jax/metrics/niqe.npz
  git clone https://github.com/XPixelGroup/BasicSR              (with PyTorch installed)
  python tests/golden/make_niqe.py values BasicSR               writes tests/golden/niqe.json

The model is the mean and the covariance of the features of those patches of each photograph whose
sharpness exceeds 0.75 of that of its sharpest patch (Mittal et al. 2013). After a new model the
values must be computed again. BasicSR reproduces the values of the authors' MATLAB code.
"""

import importlib
import json
import pathlib
import sys
import types
from collections.abc import Callable

import numpy as np
from skimage import data

from sr_jax import images
from sr_jax.metrics import niqe

HERE = pathlib.Path(__file__).parent
SHARP = 0.75  # of the sharpness of the sharpest patch


def fit_model(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """Returns {'mean': [36], 'covariance': [36, 36]} of the images of a folder."""
  found = []
  for path in sorted(folder.iterdir()):
    features, sharpness = niqe.patch_features(niqe.grey_levels(images.read_image(path)))
    found.append(features[sharpness > SHARP * sharpness.max()])
  features = np.concatenate(found)
  features = features[np.isfinite(features).all(axis=1)]
  print(f'{len(features)} patches of {len(found)} images')
  return {'mean': features.mean(axis=0), 'covariance': np.cov(features, rowvar=False)}


def published(folder: pathlib.Path, model: tuple[np.ndarray, np.ndarray] | None = None
              ) -> Callable[[np.ndarray], float]:
  """Returns BasicSR's NIQE of uint8 [H, W, 3].

  Args:
    folder: a clone of its repository.
    model: mean and covariance to use instead of those that BasicSR has.
  """
  for name in ('basicsr', 'basicsr.metrics', 'basicsr.utils'):  # without their imports
    module = types.ModuleType(name)
    module.__path__ = [str(folder / name.replace('.', '/'))]
    sys.modules[name] = module
  sys.modules.setdefault('cv2', types.ModuleType('cv2'))  # used for another kind of grey only
  colours = importlib.import_module('basicsr.utils.color_util')
  sys.modules['basicsr.utils'].bgr2ycbcr = colours.bgr2ycbcr
  module = importlib.import_module('basicsr.metrics.niqe')
  if model:
    compute = module.niqe
    module.niqe = lambda levels, mean, covariance, window: compute(levels, *model, window)
  return lambda image: module.calculate_niqe(image[..., ::-1], 0)  # it takes B, G, R


def pictures() -> dict[str, np.ndarray]:
  """Returns the images of the tests, {name: uint8 [H, W, 3]}."""
  cat = data.chelsea()
  noise = np.random.default_rng(0).normal(0, 12, cat.shape)
  return {'astronaut': data.astronaut()[:, :300],  # with flat areas
          'noise': images.to_uint8((cat + noise) / 255),
          'bicubic': images.imresize(images.imresize(cat[:300, :448], 1 / 4), 4)}


def main(kind: str, folder: str) -> None:
  if kind == 'model':
    np.savez(niqe.MODEL, **fit_model(pathlib.Path(folder)))
  else:
    with np.load(niqe.MODEL) as file:
      measure = published(pathlib.Path(folder), (file['mean'], file['covariance']))
    values = {name: measure(picture) for name, picture in pictures().items()}
    (HERE / 'niqe.json').write_text(json.dumps(values, indent=1) + '\n')


if __name__ == '__main__':
  main(*sys.argv[1:])
