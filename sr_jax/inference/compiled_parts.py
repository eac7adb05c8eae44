"""The trunk and the tail of a generator, compiled for shapes, with the bytes that they take."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax import images
from sr_jax.inference import tiles
from sr_jax.system.memory import exhausted

LEVELS = {'uint8': 255, 'uint16': 65535}
MAX_PROGRAMS = 24  # programs; of those used least lately the memory is given back


class Program(NamedTuple):
  run: Callable | None  # None where even compiling it exhausts the memory
  bytes: float


class CompiledParts:
  """Of one generator; `variables` are theirs, on the device."""

  def __init__(self, generator, variables):
    self.generator, self.variables = generator, jax.device_put(variables)
    self.unfold = getattr(generator, 'unshuffle', 1)  # LR pixels to one of the features
    self._compiled, self._trunk = {}, functools.partial(generator.apply, method='trunk')

  @functools.cached_property
  def features(self) -> jax.ShapeDtypeStruct:
    """Of one LR of as many pixels as make one of theirs: their number and type."""
    lr = _like((1, 4 * self.unfold, 4 * self.unfold, 3))
    return jax.eval_shape(self._trunk, self.variables, lr)

  def trunk(self, batch: int, sides: tuple[int, int], canvas: bool = False) -> Program:
    """run(variables, lr, size) -> features [batch, *sides, F].

    Args:
      sides: in pixels of the features; lr has `unfold` times as many.
      canvas: lr is a picture of `size` ([2], LR pixels) and nothing below and right of it.
    """
    lr = tuple(side * self.unfold for side in sides)

    def run(variables, x, size):
      if not canvas:
        return self._trunk(variables, x)
      with nn.intercept_methods(tiles.inside(size, lr)):
        return self._trunk(variables, x)

    return self._program(('trunk', batch, sides, canvas), run, _like((batch, *lr, 3)),
                         _like((2,), jnp.int32))

  def tail(self, batch: int, sides: tuple[int, int], channels: int, kind: str) -> Program:
    """run(variables, features, lr) -> sr [batch, ., ., channels] of a dtype's name.

    Args:
      sides: of the features; lr has `unfold` times as many pixels.
      channels: 1, the mean of what is made of a grey picture, or 3.
      kind: of 'uint8' and 'uint16' sr is clipped and rounded.
    """
    most = LEVELS.get(kind)

    def run(variables, features, x):
      sr = self.generator.apply(variables, features, x, method='tail')
      sr = sr.mean(-1, keepdims=True) if channels == 1 else sr
      return images.to_levels(sr, most).astype(kind) if most else sr

    lr = (batch, *(side * self.unfold for side in sides), 3)
    features = _like((batch, *sides, self.features.shape[3]), self.features.dtype)
    return self._program(('tail', batch, sides, channels, kind), run, features, _like(lr))

  def _program(self, key, run, *inputs) -> Program:
    if key in self._compiled:
      self._compiled[key] = self._compiled.pop(key)  # the latest last
      return self._compiled[key]
    while len(self._compiled) >= MAX_PROGRAMS:
      self._compiled.pop(next(iter(self._compiled)))
    try:
      # Not in TF32, which a GPU would choose for float32: pictures are the weights', not its.
      with jax.default_matmul_precision('highest'):
        compiled = jax.jit(run).lower(self.variables, *inputs).compile()
      use = compiled.memory_analysis()
      program = Program(compiled, use.temp_size_in_bytes + use.output_size_in_bytes)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
      if not exhausted(error):  # some are tried out when they are compiled
        raise
      program = Program(None, math.inf)
    self._compiled[key] = program
    return program


def _like(shape, dtype=jnp.float32) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(tuple(shape), dtype)
