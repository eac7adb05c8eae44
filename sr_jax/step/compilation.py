"""Compiles a step, and reports how long that took and how much memory the step needs."""

import time
from typing import Any, NamedTuple

import jax
from jax import monitoring

from sr_jax.system import memory
from sr_jax.system.text import format_bytes


class Compiled(NamedTuple):
  """A compiled step.

  Attributes:
    program: accepts arguments of the shapes that it was compiled for.
    seconds: time to trace, lower and compile.
    xla_seconds: the part of it that XLA compiled, or that the cache was read.
    from_cache: whether the program was read from the compile cache.
    argument_bytes: size of the arguments: state, frozen arrays, images.
    working_bytes: memory that running it needs besides: activations, gradients, and the new state
      where it can't be written over the old one.
  """

  program: jax.stages.Compiled
  seconds: float
  xla_seconds: float
  from_cache: bool
  argument_bytes: int
  working_bytes: int


def compile_step(run: jax.stages.Wrapped, *arguments: Any) -> Compiled:
  """Compiles a jitted function for these arguments; calling it with them compiles nothing more.

  Raises:
    JaxRuntimeError: XLA fails, for example for want of memory.
  """
  hits, begin = [], time.perf_counter()

  def listen(event: str, **_: Any) -> None:
    if event == '/jax/compilation_cache/cache_hits':
      hits.append(event)

  lowered = run.lower(*arguments)
  lowering = time.perf_counter() - begin
  monitoring.register_event_listener(listen)
  try:
    compiled = lowered.compile()
  finally:
    monitoring.unregister_event_listener(listen)
  seconds = time.perf_counter() - begin
  return Compiled(compiled, seconds, seconds - lowering, bool(hits), *memory_needs(compiled))


def memory_needs(compiled: jax.stages.Compiled) -> tuple[int, int]:
  """Returns `Compiled.argument_bytes` and `working_bytes` of a program; zeros if unknown."""
  needs = compiled.memory_analysis()
  if not needs:
    return 0, 0
  return needs.argument_size_in_bytes, (
      needs.temp_size_in_bytes + needs.output_size_in_bytes - needs.alias_size_in_bytes)


def describe_compilation(name: str, compiled: Compiled) -> str:
  """Returns one line: time to compile a step, memory that it needs, memory that is free."""
  free = memory.free_memory(jax.local_devices()[0])
  total, state, working = map(format_bytes, (compiled.argument_bytes + compiled.working_bytes,
                                             compiled.argument_bytes, compiled.working_bytes))
  source = 'read from the compile cache' if compiled.from_cache else 'compiled'
  return (f'{name} step: {source} in {compiled.xla_seconds:.1f} s; needs {total}: {state} for '
          f'weights, optimiser state and images (allocated), {working} for activations and '
          f'gradients ({format_bytes(free)} free'
          + (', which is too little)' if compiled.working_bytes > free else ')'))
