"""Recognises a function of single numbers, such as GELU, by its values, however it is written."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from scipy import special

POINTS = np.float32(np.concatenate([np.linspace(-9, 9, 109), [-30, 30]]))


def _sigmoid(x: np.ndarray) -> np.ndarray:
  return special.expit(x)


def _softplus(x: np.ndarray) -> np.ndarray:
  return np.logaddexp(x, 0)


FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    'relu': lambda x: np.maximum(x, 0), 'sigmoid': _sigmoid, 'tanh': np.tanh,
    'silu': lambda x: x * _sigmoid(x), 'softplus': _softplus,
    'gelu': lambda x: x * special.ndtr(x),
    'gelu_tanh': lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    'mish': lambda x: x * np.tanh(_softplus(x))}


def recognise(function: Callable[[Any], Any], shape: tuple[int, ...]
              ) -> tuple[str, dict[str, Any]] | None:
  """Returns the kind and values of the node that computes a function of an array, or None.

  Args:
    function: maps a float32 array of `shape` to one of the same shape, each number by itself.
  """
  x = np.resize(POINTS, shape)
  if x.size < POINTS.size:
    return None
  with jax.default_device(jax.devices('cpu')[0]):
    y = np.asarray(function(x))
  wide = np.float64(x)
  for kind, known in FUNCTIONS.items():
    if np.allclose(y, known(wide), rtol=1e-5, atol=1e-6):
      return kind, {}
  slope = float(y.ravel()[0] / x.ravel()[0])
  if np.allclose(y, np.where(wide < 0, slope * wide, wide), rtol=1e-5, atol=1e-6):
    return 'leaky', {'slope': slope}
  return None
