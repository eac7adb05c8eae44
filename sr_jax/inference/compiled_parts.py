"""The trunk and the tail of a generator, compiled for given shapes."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax import images
from sr_jax.inference import tiles
from sr_jax.system.memory import exhausted

MAX_LEVELS = {'uint8': 255, 'uint16': 65535}  # white, by the name of an image's dtype
MAX_PROGRAMS = 24  # compiled programs that are kept; the least recently used one is dropped


class Program(NamedTuple):
  """A compiled function, and the bytes that it needs for its temporaries and its result."""

  run: Callable[..., jax.Array] | None  # None where compiling it already exhausts the memory
  bytes: float


class CompiledParts:
  """Compiles and caches the trunk and the tail of one generator.

  Attributes:
    generator: the network.
    variables: its variables, on the device; the first argument of every program.
    unshuffle: side of the block of LR pixels that becomes one pixel of the features.
  """

  def __init__(self, generator: nn.Module, variables: dict) -> None:
    self.generator, self.variables = generator, jax.device_put(variables)
    self.unshuffle = getattr(generator, 'unshuffle', 1)
    self._programs: dict[tuple, Program] = {}
    self._trunk = functools.partial(generator.apply, method='trunk')

  @functools.cached_property
  def features(self) -> jax.ShapeDtypeStruct:
    """Shape and dtype of the trunk's features [1, 4, 4, F]; only F and the dtype matter."""
    lr = _shape((1, 4 * self.unshuffle, 4 * self.unshuffle, 3))
    return jax.eval_shape(self._trunk, self.variables, lr)

  def feature_size(self, size: Sequence[int]) -> tuple[int, int]:
    """Returns height and width of the features of an image with this height and width."""
    return tuple(math.ceil(side / self.unshuffle) for side in size)

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
      sr = self.generator.apply(variables, features, lr, method='tail')
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
    self._programs[key] = program
    return program


def _shape(shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, dtype)
