"""Compiles a step, and says what that took and what the step needs."""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import monitoring

from sr_jax.system import memory


class Compiled(NamedTuple):
  """A program, what it took and what it needs.

  Attributes:
    program: to be called with arguments of those shapes alone.
    seconds: to trace, lower and compile; xla_seconds: of them XLA's, or for reading the cache.
    read: whether it was in the cache.
    argument_bytes: bytes of its arguments: the state, frozen arrays, pictures.
    working_bytes: bytes beside them while it runs: activations, gradients, the new state where it is
      not in the old one's place.
  """

  program: jax.stages.Compiled
  seconds: float
  xla_seconds: float
  read: bool
  argument_bytes: int
  working_bytes: int


def compile_step(run: Callable, *arguments) -> Compiled:
  """Compiles a jitted function for arguments; the call with them compiles nothing more.

  Raises:
    JaxRuntimeError: of XLA, such as no memory for it.
  """
  read, begin = [], time.perf_counter()

  def listen(event, **_):
    if event == '/jax/compilation_cache/cache_hits':
      read.append(event)

  lowered = run.lower(*arguments)
  lowering = time.perf_counter() - begin
  monitoring.register_event_listener(listen)
  try:
    compiled = lowered.compile()
  finally:
    monitoring.unregister_event_listener(listen)
  seconds = time.perf_counter() - begin
  needs = compiled.memory_analysis()
  held = needs.argument_size_in_bytes if needs else 0
  working = needs and (needs.temp_size_in_bytes + needs.output_size_in_bytes
                       - needs.alias_size_in_bytes)
  return Compiled(compiled, seconds, seconds - lowering, bool(read), held, working or 0)


def describe_compilation(name: str, compiled: Compiled) -> str:
  """A line of what a step took to compile, what it will use and what the device has free."""
  free = memory.free_memory(jax.local_devices()[0])
  took = f'{"read from the cache" if compiled.read else "compiled"} in {compiled.xla_seconds:.1f} s'
  needs, held, working = map(mebibytes, (compiled.argument_bytes + compiled.working_bytes,
                                         compiled.argument_bytes, compiled.working_bytes))
  return (f'{name} step: {took}; needs {needs}: {held} of weights, moments '
          f'and pictures, {working} of activations and gradients; beside the '
          f'former {mebibytes(free)} are free'
          + (', which is too little' if compiled.working_bytes > free else ''))


def mebibytes(count: int) -> str:
  return f'{count / 2**20:,.0f} MiB'
