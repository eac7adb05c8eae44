"""Degraded LR that is the same at every validation, after a resume and in runs that are compared.

The random numbers come from a constant and from the image's place in its set. They do not depend
on `config.seed`, so that runs with other seeds are scored on the same LR.
"""

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sr_jax import images
from sr_jax.data.degradations import chains
from sr_jax.data.degradations.chains import Degradation, Degrader
from sr_jax.data.pictures import Pair

SEED = 24  # never to be changed: scores of earlier runs could not be compared any more


def degrade_pairs(pairs: Sequence[Pair], places: Mapping[str, int], degradation: Degradation,
                  scale: int) -> list[Pair]:
  """Returns the pairs with LR that is made of HR by a chain; HR stays as it is.

  Args:
    pairs: HR uint8 [h, w, C], with sides that are multiples of `scale`.
    places: the place of each pair in its set, by name.
    degradation: the chain. If it sharpens HR, LR is made of the sharpened HR.
    scale: HR / LR.
  """
  return [pair._replace(lr=_degraded(pair.hr, places[pair.name], degradation, scale))
          for pair in pairs]


def degrade_crops(hr: np.ndarray, degrader: Degrader) -> dict[str, np.ndarray]:
  """Returns a batch of degraded crops, as the degrader makes it: float32 in [0, 1].

  Args:
    hr: float32 [B, P, P, C] in [0, 1], crops with the degrader's margin.
    degrader: makes the batch.
  """
  keys = jax.vmap(functools.partial(jax.random.fold_in, _keys()[1]))(jnp.arange(len(hr)))
  return jax.device_get(jax.jit(degrader)(hr, keys))


def canvas_side(size: Sequence[int], scale: int) -> int:
  """Returns the side of the square that an image is degraded in, a multiple of `scale`.

  It is a power of two or 1.5 times that, so that a set of mixed sizes needs few programs. It
  depends on the size of the image alone, because random numbers depend on the canvas.

  Args:
    size: (height, width).
    scale: HR / LR.
  """
  longest, side = max(size), 64
  while side < longest:
    side = side * 3 // 2 if side * 3 // 2 >= longest else side * 2
  return -(-side // scale) * scale


def _degraded(hr: np.ndarray, place: int, degradation: Degradation, scale: int) -> np.ndarray:
  height, width, channels = hr.shape
  side = canvas_side((height, width), scale)
  canvas = np.zeros((1, side, side, channels), np.float32)
  # Sharpened without a canvas, whose border would show.
  canvas[:, :height, :width] = _sharpened(images.to_float(hr)[None], degradation)
  sizes, keys = np.array([[height, width]], np.int32), jax.random.fold_in(_keys()[0], place)[None]
  lr = images.to_uint8(np.asarray(_degrade(canvas, sizes, keys, degradation, scale))[0])
  return lr[:height // scale, :width // scale]


def _keys() -> jax.Array:
  """Returns the key of images and that of crops."""
  return jax.random.split(jax.random.key(SEED))


_sharpened = jax.jit(chains.sharpened, static_argnames='degradation')


@functools.partial(jax.jit, static_argnames=('degradation', 'scale'))
def _degrade(hr: jax.Array, sizes: jax.Array, keys: jax.Array, degradation: Degradation,
             scale: int) -> jax.Array:
  canvas, _ = chains.degrade(hr, sizes, keys, degradation, scale)
  return canvas.pixels
