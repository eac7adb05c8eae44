"""Losses, metrics and data sources such as users write; specs are 'tests.own_code:NAME'."""

import itertools
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

SEED = 0  # of the images of `arrays`


def l1(sr: jax.Array, hr: jax.Array) -> jax.Array:
  return jnp.mean(jnp.abs(sr - hr))


def edges(sr: jax.Array, hr: jax.Array) -> jax.Array:
  return l1(sr[:, 1:] - sr[:, :-1], hr[:, 1:] - hr[:, :-1])


def per_image(sr: jax.Array, hr: jax.Array) -> jax.Array:
  return jnp.mean(jnp.abs(sr - hr), (1, 2, 3))


def count(sr: jax.Array, hr: jax.Array) -> jax.Array:
  return jnp.sum(sr > hr)


def pair(sr: jax.Array, hr: jax.Array) -> tuple[jax.Array, jax.Array]:
  return l1(sr, hr), l1(hr, sr)


def of_numpy(sr: jax.Array, hr: jax.Array) -> float:
  return np.abs(np.asarray(sr) - hr).mean()


def of_one(sr: jax.Array) -> jax.Array:
  return sr.mean()


def broken(sr: jax.Array, hr: jax.Array) -> jax.Array:
  return l1(sr, hr) / (1 // 0)


def to_number(sr: jax.Array, hr: jax.Array) -> float:
  return float(l1(sr, hr))


def no_gradient(sr: jax.Array, hr: jax.Array) -> jax.Array:
  return jax.lax.while_loop(lambda x: x < 1, lambda x: x + 1, l1(sr, hr))


NUMBER = 3


def leaves(*_: object) -> None:
  sys.exit(0)


def edge_error(sr: np.ndarray, hr: np.ndarray) -> float:
  assert sr.dtype == hr.dtype == np.float32
  assert sr.shape == hr.shape
  return np.abs(np.diff(sr, axis=0) - np.diff(hr, axis=0)).mean()


def three_numbers(sr: np.ndarray, hr: np.ndarray) -> np.ndarray:
  return np.abs(sr - hr).mean((0, 1))


def changes_hr(sr: np.ndarray, hr: np.ndarray) -> float:
  hr -= sr
  return hr.mean()


def always_nan(sr: np.ndarray, hr: np.ndarray) -> float:
  return float('nan')


def nothing(sr: np.ndarray, hr: np.ndarray) -> None:
  return None


def arrays() -> list[np.ndarray]:
  rng = np.random.default_rng(SEED)
  return [rng.integers(0, 256, (40 + index, 48, 3), np.uint8) for index in range(5)]


def array_pairs() -> list[tuple[np.ndarray, np.ndarray]]:
  return [(hr[:40], hr[:40:2, ::2]) for hr in arrays()]


def stacked() -> np.ndarray:
  return np.stack([hr[:40, :, :1] for hr in arrays()])


def endless() -> Iterator[str]:
  return map(str, itertools.count())


def empty() -> list:
  return []


def floats() -> list[np.ndarray]:
  return [*arrays(), np.float32(arrays()[0] / 255)]


def flat_grey() -> list[np.ndarray]:
  return [arrays()[0][..., 0]]


class OnDevice:
  dtype, shape = np.dtype(np.uint8), (40, 48, 3)

  def __array__(self, *_: object, **__: object) -> np.ndarray:
    raise RuntimeError('on another device')


def elsewhere() -> list:
  return [arrays()[0], OnDevice()]


def missing() -> list[str]:
  return ['missing.png']


def mixed() -> list:
  return [arrays()[0], array_pairs()[0]]


def three_sides() -> list[tuple]:
  return [(*array_pairs()[0], 'mask.png')]


def of_folder(folder: str) -> list[str]:
  return [folder]


def unreadable() -> list[str]:
  raise FileNotFoundError(2, 'No such file', 'list.txt')
