"""The trunk and the tail of a generator, compiled for given shapes."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax import images
from sr_jax.errors import InputError, brief
from sr_jax.inference import locality, tiles
from sr_jax.inference.locality import Locality
from sr_jax.models import failures
from sr_jax.system import user_failures
from sr_jax.system.memory import exhausted

MAX_LEVELS = {'uint8': 255, 'uint16': 65535}  # white, by the name of an image's dtype
TRACED_SIDE = 96  # of the image that shows the features' shape; a multiple of common windows
MAX_PROGRAMS = 24  # compiled programs that are kept; the least recently used one is dropped


class Program(NamedTuple):
  """A compiled function, and the bytes that it needs for its temporaries and its result."""

  run: Callable[..., jax.Array] | None  # None where compiling it already exhausts the memory
  bytes: float


class CompiledParts:
  """Compiles and caches the trunk and the tail of one generator.

  A generator without these two methods, or whose `__call__` is not one after the other, has a trunk
  that returns the image, and a tail that is the entire network.

  Attributes:
    generator: the network.
    name: of its class, for messages.
    variables: its variables, on the device; the first argument of every program.
    unshuffle: side of the block of LR pixels that becomes one pixel of the features.
    multiple: number whose multiples the sides of the features are.
    features: shape and dtype of the trunk's features [1, n, n, F]; only F and the dtype matter.
    has_trunk: whether the generator has a trunk and a tail.
  """

  def __init__(self, generator: nn.Module, variables: dict) -> None:
    self.generator, self.variables = generator, jax.device_put(variables)
    self.name = type(generator).__name__
    self.unshuffle = getattr(generator, 'unshuffle', 1)
    self.multiple = getattr(generator, 'feature_multiple', 1)
    self._programs: dict[tuple, Program] = {}
    sides = (-(-TRACED_SIDE // self.multiple) * self.multiple,) * 2
    lr = _shape((1, *(side * self.unshuffle for side in sides), 3))
    features = _trunk_features(generator, self.variables, lr)
    self.has_trunk = features is not None and (
        features.ndim == 4 and features.shape[:3] == (1, *sides))
    if self.has_trunk:
      self.features = jax.ShapeDtypeStruct(features.shape, features.dtype)
      self._trunk = functools.partial(generator.apply, method='trunk')
      self._tail = functools.partial(generator.apply, method='tail')
    else:
      self.unshuffle, self.multiple = 1, 1
      self.features = _shape((1, TRACED_SIDE, TRACED_SIDE, 3))
      self._trunk = lambda variables, lr: lr
      self._tail = lambda variables, features, lr: generator.apply(variables, lr)

  @functools.cached_property
  def trunk_locality(self) -> Locality:
    """Whether the trunk may run in windows; its reach is in pixels of the features."""
    return locality.examine(self._trunk, self.variables, (self.unshuffle, 3, jnp.float32))

  @functools.cached_property
  def tail_locality(self) -> Locality:
    """Whether the tail may run in windows; its reach is in pixels of the features."""
    return locality.examine(self._tail, self.variables,
                            (1, self.features.shape[3], self.features.dtype),
                            (self.unshuffle, 3, jnp.float32))

  def feature_size(self, size: Sequence[int]) -> tuple[int, int]:
    """Returns height and width of the features of an image with this height and width."""
    return tuple(self.multiple * math.ceil(side / self.unshuffle / self.multiple) for side in size)

  def trunk(self, batch: int, sides: tuple[int, int], canvas: bool = False) -> Program:
    """Returns the program run(variables, lr, size) -> features [batch, *sides, F].

    Args:
      batch: number of images.
      sides: height and width in pixels of the features; lr has `unshuffle` times as many.
      canvas: whether lr is an image of `size` ([2], in LR pixels) that is padded with zeros at
        the bottom and right. Otherwise `size` has no effect.
    """
    lr_sides = tuple(side * self.unshuffle for side in sides)

    def run(variables: dict, lr: jax.Array, size: jax.Array) -> jax.Array:
      if not canvas:
        return self._trunk(variables, lr)
      with nn.intercept_methods(tiles.inside(size, lr_sides)):
        return self._trunk(variables, lr)

    return self._program(('trunk', batch, sides, canvas), run, _shape((batch, *lr_sides, 3)),
                         _shape((2,), jnp.int32))

  def tail(self, batch: int, sides: tuple[int, int], channels: int, dtype: str) -> Program:
    """Returns the program run(variables, features, lr) -> sr [batch, H, W, channels].

    Args:
      batch: number of images.
      sides: height and width in pixels of the features; lr has `unshuffle` times as many.
      channels: 3, or 1 for a grey image, whose result is the mean over the three channels.
      dtype: name of sr's dtype; 'uint8' and 'uint16' are clipped and rounded.
    """
    max_level = MAX_LEVELS.get(dtype)

    def run(variables: dict, features: jax.Array, lr: jax.Array) -> jax.Array:
      sr = self._tail(variables, features, lr)
      expected = (batch, *(side * self.generator.scale for side in lr.shape[1:3]), 3)
      if sr.shape != expected:
        raise InputError(f'{self.name}: the result for an image of {list(lr.shape)} is '
                         f'{list(sr.shape)}, expected {list(expected)}')
      sr = sr.mean(-1, keepdims=True) if channels == 1 else sr
      return images.to_levels(sr, max_level).astype(dtype) if max_level else sr

    lr = _shape((batch, *(side * self.unshuffle for side in sides), 3))
    features = _shape((batch, *sides, self.features.shape[3]), self.features.dtype)
    return self._program(('tail', batch, sides, channels, dtype), run, features, lr)

  def _program(self, key: tuple, run: Callable[..., jax.Array],
               *inputs: jax.ShapeDtypeStruct) -> Program:
    """Returns the program of `key`, which it compiles if it is not cached."""
    if key in self._programs:
      self._programs[key] = self._programs.pop(key)  # a dict keeps the order: most recent last
      return self._programs[key]
    while len(self._programs) >= MAX_PROGRAMS:
      self._programs.pop(next(iter(self._programs)))
    try:
      # A GPU would use TF32 for float32 by default; the result must not depend on the device.
      with jax.default_matmul_precision('highest'):
        compiled = jax.jit(run).lower(self.variables, *inputs).compile()
      use = compiled.memory_analysis()
      program = Program(compiled, use.temp_size_in_bytes + use.output_size_in_bytes)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
      if not exhausted(error):  # XLA autotunes some kernels while it compiles, which takes memory
        raise
      program = Program(None, math.inf)
    except InputError:
      raise
    except user_failures.RAISED as error:  # such as sides that are no multiple of a window's
      refused = isinstance(error, (TypeError, ValueError))
      if not refused and not failures.is_own(self.generator):
        raise
      height, width = inputs[-1].shape[1:3] if key[0] == 'tail' else inputs[0].shape[1:3]
      raise InputError(f'{self.name}: cannot process an image of {width}x{height} pixels: '
                       + (brief(str(error).strip().splitlines()[0], 200) if refused
                          else user_failures.described(error))) from None
    self._programs[key] = program
    return program


def _trunk_features(generator: nn.Module, variables: dict, lr: jax.ShapeDtypeStruct) -> Any:
  """Returns what the trunk returns, if generator(lr) is tail(trunk(lr), lr) and nothing else."""
  calls = {}

  def record(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext
             ) -> Any:
    result = call(*args, **kwargs)
    if type(context.module) is type(generator) and not context.module.path:
      calls[context.method_name] = args, result
    return result

  try:
    with nn.intercept_methods(record):
      # A new function each time: JAX caches traces, and a cached one would call no interceptor.
      jax.eval_shape(lambda *arguments: generator.apply(*arguments), variables, lr)
    (image, *_), result = calls['__call__']
    (first, *_), features = calls['trunk']
    (second, third), sr = calls['tail']
  except user_failures.RAISED:  # an image of this size is refused, or no such methods
    return None
  follows = first is image and second is features and third is image and result is sr
  return features if follows and isinstance(features, jax.Array) else None


def _shape(shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, dtype)
