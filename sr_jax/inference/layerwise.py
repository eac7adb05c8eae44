"""Runs a trunk layer by layer, with the features in host memory, where it does not fit at once.

Each layer of a trunk (a residual block, an RRDB) sees a few pixels, where the whole trunk sees
hundreds. So each layer passes over the features of the whole image in windows with a short halo;
between the layers, the network's own code runs on NumPy arrays.

A layer with the methods `statistics` and `apply_statistics` (see `sr_jax.models`), such as a
normalisation over the image, takes two passes: the first adds up the statistics of disjoint
windows, in float64; given these, the layer is local.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from sr_jax.inference import locality, tiles


class _Layer(NamedTuple):
  """A layer and all arguments of its call but the first; hashable, and equal for equal calls."""

  module: nn.Module
  args: tuple
  kwargs: tuple[tuple[str, Any], ...]


def _apply(layer: _Layer, variables: dict, x: jax.Array) -> jax.Array:
  with jax.default_matmul_precision('highest'):
    return layer.module.apply(variables, x, *layer.args, **dict(layer.kwargs))


def _needs_statistics(layer: _Layer) -> bool:
  return hasattr(layer.module, 'apply_statistics')


def _statistics(layer: _Layer, variables: dict, x: jax.Array) -> Any:
  with jax.default_matmul_precision('highest'):
    return layer.module.apply(variables, x, method='statistics')


def _apply_statistics(layer: _Layer, variables: dict, x: jax.Array, sums: Any, count: Any
                      ) -> jax.Array:
  with jax.default_matmul_precision('highest'):
    return layer.module.apply(variables, x, sums, count, method='apply_statistics')


_jit_apply, _jit_statistics, _jit_apply_statistics = (
    jax.jit(function, static_argnums=0) for function in (_apply, _statistics, _apply_statistics))


def _on_each_layer(generator: nn.Module,
                   function: Callable[[_Layer, dict, jax.Array | np.ndarray], Any]
                   ) -> contextlib.AbstractContextManager[None]:
  """Replaces the call of each of the generator's layers by function(layer, variables, x).

  Calls inside a layer are not replaced.
  """
  def replace(call: Callable, args: tuple, kwargs: dict,
              context: nn.module.InterceptorContext) -> Any:
    module = context.module
    if context.method_name != '__call__' or not isinstance(module.parent, type(generator)):
      return call(*args, **kwargs)
    x, *rest = args
    # Without their names, layers with equal fields are equal and share what is compiled.
    anonymous = module.clone(parent=None, name=None)
    layer = _Layer(anonymous, tuple(rest), tuple(sorted(kwargs.items())))
    return function(layer, module.variables, x)

  return nn.intercept_methods(replace)


def _halo(layer: _Layer, variables: dict, x: jax.Array | np.ndarray) -> int | None:
  """Returns the halo of a layer's windows, in its own pixels; None: it can't run in windows."""
  leaves, tree = jax.tree.flatten(variables)
  shapes = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)
  try:
    hash(layer)
  except TypeError:  # a field or an argument such as a second array
    return None
  if _needs_statistics(layer) and (layer.args or layer.kwargs):
    return None  # its methods don't have these arguments
  return _halo_of(layer, tree, shapes, x.shape[3], np.dtype(x.dtype)) if np.ndim(x) == 4 else None


@functools.lru_cache(maxsize=256)
def _halo_of(layer: _Layer, tree: Any, shapes: tuple[jax.ShapeDtypeStruct, ...], channels: int,
             dtype: np.dtype) -> int | None:
  def given_statistics(variables: dict, x: jax.Array) -> jax.Array:
    sums = jax.eval_shape(functools.partial(_statistics, layer), variables, x)
    # As if they did not depend on x, and the same for each image.
    sums = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), sums)
    return _apply_statistics(layer, variables, x, sums, 1.0)

  call = given_statistics if _needs_statistics(layer) else functools.partial(_apply, layer)
  reach = locality.examine(call, jax.tree.unflatten(tree, shapes), (1, channels, dtype)).reach
  return None if reach is None else tiles.ceil_pixels(reach)


def longest_reach(generator: nn.Module, variables: dict) -> int | None:
  """Returns the longest reach of the trunk's layers, in pixels of the features.

  None: a layer is not local, or is not called with one image, so that it can't run in windows.
  """
  reaches = [0]

  def measure(layer: _Layer, variables: dict, x: jax.Array) -> jax.Array:
    y = _apply(layer, variables, x)
    same_size = np.ndim(y) == 4 and y.shape[:3] == np.shape(x)[:3]
    reaches.append(_halo(layer, variables, x) if same_size else None)
    return y

  def trunk(variables: dict, lr: jax.Array) -> jax.Array:
    with _on_each_layer(generator, measure):
      return generator.apply(variables, lr, method='trunk')

  jax.eval_shape(trunk, variables, jax.ShapeDtypeStruct((1, 96, 96, 3), np.float32))
  return None if None in reaches else max(reaches)


def trunk(generator: nn.Module, variables: dict, lr: np.ndarray, side: int) -> np.ndarray:
  """Returns generator.trunk(lr), computed layer by layer, as features [B, h, w, F] on the host.

  Args:
    generator: the network.
    variables: its variables.
    lr: float32 [B, h, w, C].
    side: of the square windows, halo included; a layer that sees further has larger ones.
  """
  def in_windows(layer: _Layer, variables: dict, x: np.ndarray) -> np.ndarray:
    halo, apply = _halo(layer, variables, x), _jit_apply
    if _needs_statistics(layer):
      sums, count = _sum_windows(layer, variables, x, side), np.float32(x.shape[1] * x.shape[2])
      apply = functools.partial(_jit_apply_statistics, sums=sums, count=count)
    window = [min(full, max(side, 2 * halo + 1)) for full in x.shape[1:3]]
    result = None
    for row in tiles.spans(x.shape[1], window[0], halo):
      for column in tiles.spans(x.shape[2], window[1], halo):
        part = x[:, row.start:row.start + window[0], column.start:column.start + window[1]]
        y = np.asarray(apply(layer, variables, jax.device_put(part, jax.devices()[0])))
        if result is None:
          result = np.empty((*x.shape[:3], y.shape[3]), y.dtype)
        result[:, row.begin:row.end, column.begin:column.end] = y[
            :, row.begin - row.start:row.end - row.start,
            column.begin - column.start:column.end - column.start]
    return result

  try:  # JAX operations between the layers must not move the features to the device
    host = jax.default_device(jax.devices('cpu')[0])
  except RuntimeError:  # this JAX has no CPU backend
    host = contextlib.nullcontext()
  with _on_each_layer(generator, in_windows), host:
    return np.asarray(generator.apply(variables, lr, method='trunk'))


def _sum_windows(layer: _Layer, variables: dict, x: np.ndarray, side: int) -> Any:
  """Returns the layer's statistics of the whole x [B, h, w, C], from square windows."""
  total = None
  for row in tiles.spans(x.shape[1], min(side, x.shape[1]), 0):
    for column in tiles.spans(x.shape[2], min(side, x.shape[2]), 0):
      part = x[:, row.begin:row.end, column.begin:column.end]
      sums = _jit_statistics(layer, variables, jax.device_put(part, jax.devices()[0]))
      sums = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), sums)
      total = sums if total is None else jax.tree.map(np.add, total, sums)
  return jax.tree.map(np.float32, total)
