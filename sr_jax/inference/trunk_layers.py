"""The layers of a trunk, and what is compiled of each of them; see `layerwise`."""

import contextlib
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from sr_jax.errors import InputError
from sr_jax.inference import locality, tiles
from sr_jax.system.memory import exhausted

MAX_PROGRAMS = 96  # compiled programs that are kept; the least recently used one is dropped


class Layer(NamedTuple):
  """A layer and all arguments of its call but the first; hashable, and equal for equal calls."""

  module: nn.Module
  args: tuple
  kwargs: tuple[tuple[str, Any], ...]

  @property
  def needs_statistics(self) -> bool:
    return hasattr(self.module, 'apply_statistics')

  @property
  def stated_grid(self) -> tiles.Grid | None:
    """What the layer itself says about its windows.

    Raises:
      InputError: it says something else.
    """
    stated = getattr(self.module, 'window_grid', None)
    if stated is None:
      return None
    is_pair = isinstance(stated, tuple) and len(stated) == 2 and all(
        isinstance(number, int) for number in stated)
    if not is_pair or stated[0] < 1 or stated[1] < 0:
      raise InputError(f'{type(self.module).__name__}.window_grid is {stated!r}; expected two '
                       'integers, (multiple, halo), the first at least 1 and the second at least 0')
    return tiles.Grid(*stated)


def on_each_layer(generator: nn.Module, function: Callable[[Layer, dict, Any], Any]
                  ) -> contextlib.AbstractContextManager[None]:
  """Replaces the call of each of the generator's layers by function(layer, variables, x).

  Layers are the submodules that the trunk calls; those with `layered`, and networks of which it
  calls the trunk, consist of layers instead. Calls inside a layer are not replaced.
  """
  def is_layered(module: Any) -> bool:
    while not isinstance(module, type(generator)) and (
        getattr(module, 'layered', False) or hasattr(module, 'trunk')):
      module = module.parent
    return isinstance(module, type(generator))

  def replace(call: Callable, args: tuple, kwargs: dict,
              context: nn.module.InterceptorContext) -> Any:
    module = context.module
    if (context.method_name != '__call__' or getattr(module, 'layered', False)
        or not is_layered(module.parent)):
      return call(*args, **kwargs)
    x, *rest = args
    # Without their names, layers with equal fields are equal and share what is compiled.
    layer = Layer(module.clone(parent=None, name=None), tuple(rest), tuple(sorted(kwargs.items())))
    return function(layer, module.variables, x)

  return nn.intercept_methods(replace)


def apply(layer: Layer, variables: dict, x: jax.Array) -> jax.Array:
  with jax.default_matmul_precision('highest'):
    return layer.module.apply(variables, x, *layer.args, **dict(layer.kwargs))


def statistics(layer: Layer, variables: dict, x: jax.Array, *inside: jax.Array) -> Any:
  with jax.default_matmul_precision('highest'):
    return layer.module.apply(variables, x, *inside, method='statistics')


def apply_statistics(layer: Layer, variables: dict, x: jax.Array, sums: Any, count: Any
                     ) -> jax.Array:
  with jax.default_matmul_precision('highest'):
    return layer.module.apply(variables, x, sums, count, method='apply_statistics')


class Program(NamedTuple):
  """A compiled function, and the bytes that it needs for its input, temporaries and result."""

  run: Callable[..., Any] | None  # None where compiling it already exhausts the memory
  bytes: float


def compiled(function: Callable[..., Any], layer: Layer, *arguments: Any) -> Program:
  """Returns the program of function(layer, *arguments); the arguments may be shapes."""
  leaves, tree = jax.tree.flatten(arguments)
  shapes = tuple(jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype) for leaf in leaves)
  return _compiled(function, layer, tree, shapes)


@functools.lru_cache(MAX_PROGRAMS)
def _compiled(function: Callable[..., Any], layer: Layer, tree: Any,
              shapes: tuple[jax.ShapeDtypeStruct, ...]) -> Program:
  arguments = jax.tree.unflatten(tree, shapes)
  try:
    with jax.default_device(jax.devices()[0]):
      run = jax.jit(functools.partial(function, layer)).lower(*arguments).compile()
  except (MemoryError, jax.errors.JaxRuntimeError) as error:
    if not exhausted(error):
      raise
    return Program(None, math.inf)
  use, x = run.memory_analysis(), arguments[1]
  return Program(run, math.prod(x.shape) * x.dtype.itemsize
                 + use.temp_size_in_bytes + use.output_size_in_bytes)


def run(function: Callable[..., Any], layer: Layer, *arguments: Any) -> Any:
  """Returns function(layer, *arguments).

  Raises:
    MemoryError: it does not fit in memory.
  """
  program = compiled(function, layer, *arguments)
  if program.run is None:
    raise MemoryError
  return program.run(*arguments)


def grid_of(layer: Layer, variables: dict, x: jax.Array | np.ndarray) -> tiles.Grid | None:
  """Returns where the layer's windows may lie, in its own pixels; None: it can't run in windows."""
  leaves, tree = jax.tree.flatten(variables)
  shapes = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)
  try:
    hash(layer)
  except TypeError:  # a field or an argument such as a second array
    return None
  if np.ndim(x) != 4 or (layer.needs_statistics and not _has_defaults(layer)):
    return None
  return layer.stated_grid or _derived_grid(layer, tree, shapes, x.shape[3], np.dtype(x.dtype))


def _has_defaults(layer: Layer) -> bool:
  """Returns whether all arguments but the first have the defaults of the layer's `__call__`.

  Its other methods do not have these arguments.
  """
  signature = inspect.signature(layer.module.__call__)
  given = signature.bind(None, *layer.args, **dict(layer.kwargs)).arguments
  return all(signature.parameters[name].default is value
             for name, value in list(given.items())[1:])


@functools.lru_cache(maxsize=256)
def _derived_grid(layer: Layer, tree: Any, shapes: tuple[jax.ShapeDtypeStruct, ...],
                  channels: int, dtype: np.dtype) -> tiles.Grid | None:
  def given_statistics(variables: dict, x: jax.Array) -> jax.Array:
    sums = jax.eval_shape(functools.partial(statistics, layer), variables, x)
    # As if they did not depend on x, and the same for each image.
    sums = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), sums)
    return apply_statistics(layer, variables, x, sums, 1.0)

  call = given_statistics if layer.needs_statistics else functools.partial(apply, layer)
  reach = locality.examine(call, jax.tree.unflatten(tree, shapes), (1, channels, dtype)).reach
  return None if reach is None else tiles.Grid(1, tiles.ceil_pixels(reach))
