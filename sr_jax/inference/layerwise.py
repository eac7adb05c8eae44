"""A trunk layer by layer, over features in the host's memory, where it does not fit whole.

Each layer of a trunk (a residual block, an RRDB) sees a few pixels, where the trunk sees hundreds.
So each passes over the features of the whole picture in windows with a short halo of its own;
between the layers the network's own code runs, on NumPy arrays.
"""

import contextlib
import functools
from collections.abc import Callable

import jax
import numpy as np
from flax import linen as nn

from sr_jax.inference import tiles


def _apply(layer, rest, keywords, variables, x):
  with jax.default_matmul_precision('highest'):
    return layer.apply(variables, x, *rest, **dict(keywords))


_compiled = jax.jit(_apply, static_argnums=(0, 1, 2))


def _on_each_layer(generator, do: Callable):
  """In its block, do((layer, *its other arguments), variables, x) takes the place of each of the
  generator's layers; what is inside them is left alone.
  """
  def replace(call, args, kwargs, context):
    layer = context.module
    if context.method_name != '__call__' or not isinstance(layer.parent, type(generator)):
      return call(*args, **kwargs)
    x, *rest = args
    # Layers that are alike are equal once they have no name, and share what is compiled.
    plain = layer.clone(parent=None, name=None)
    return do((plain, tuple(rest), tuple(sorted(kwargs.items()))), layer.variables, x)

  return nn.intercept_methods(replace)


def _halo(layer, variables, x) -> int:
  return tiles.ceil_pixels(tiles.reach(functools.partial(_apply, *layer), variables, x))


def longest_reach(generator, variables) -> int:
  """Of the trunk's layers, in pixels of the features."""
  found = [0]

  def note(layer, variables, x):
    found.append(_halo(layer, variables, x))
    return _apply(*layer, variables, x)

  def trunk(variables, lr):
    with _on_each_layer(generator, note):
      return generator.apply(variables, lr, method='trunk')

  jax.eval_shape(trunk, variables, jax.ShapeDtypeStruct((1, 48, 48, 3), np.float32))
  return max(found)


def trunk(generator, variables, lr: np.ndarray, side: int) -> np.ndarray:
  """generator.trunk of lr float32 [B, h, w, C], its features [B, h, w, F] on the host.

  Args:
    side: of the windows, halo included; a layer that sees more has larger ones.
  """
  def in_windows(layer, variables, x):
    halo = _halo(layer, variables, x)
    window = [min(full, max(side, 2 * halo + 1)) for full in x.shape[1:3]]
    result = None
    for row in tiles.spans(x.shape[1], window[0], halo):
      for column in tiles.spans(x.shape[2], window[1], halo):
        part = x[:, row.start:row.start + window[0], column.start:column.start + window[1]]
        y = np.asarray(_compiled(*layer, variables, jax.device_put(part, jax.devices()[0])))
        if result is None:
          result = np.empty((*x.shape[:3], y.shape[3]), y.dtype)
        result[:, row.begin:row.end, column.begin:column.end] = y[
            :, row.begin - row.start:row.end - row.start,
            column.begin - column.start:column.end - column.start]
    return result

  try:  # what lies between the layers is to stay on the host, where there is JAX for it
    host = jax.default_device(jax.devices('cpu')[0])
  except RuntimeError:
    host = contextlib.nullcontext()
  with _on_each_layer(generator, in_windows), host:
    return np.asarray(generator.apply(variables, lr, method='trunk'))
