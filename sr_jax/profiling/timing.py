"""Times compiled programs: one by one, waiting for each, and in a row, as training runs them."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from sr_jax.data.feed import Batches, Feed
from sr_jax.profiling.products import products
from sr_jax.step.state import TrainState

PyTree = Any
DONATING = 'step', 'update'  # programs whose first argument is donated


class Timed:
  """Runs functions by name, compiles each once and records the duration of each run.

  Attributes:
    programs: the compiled programs by name.
    products: FLOPs and bytes of the programs' convolutions and matrix products by name; only on
      accelerators, where XLA does not count them.
    seconds: durations by name, without that of the first run, which also loads the program.
  """

  def __init__(self, programs: Mapping[str, jax.stages.Compiled]) -> None:
    self.programs: dict[str, jax.stages.Compiled] = dict(programs)
    self.products: dict[str, dict[str, float]] = {}
    self.seconds: dict[str, list[float]] = {}

  def __call__(self, name: str, function: Callable, *arguments: PyTree) -> PyTree:
    if name not in self.programs:
      donated = 0 if name in DONATING else ()
      traced = jax.jit(function, donate_argnums=donated).trace(*arguments)
      if jax.default_backend() != 'cpu':
        self.products[name] = products(traced.jaxpr)
      self.programs[name] = traced.lower().compile()
    start = time.perf_counter()
    result = jax.block_until_ready(self.programs[name](*arguments))
    if name in self.seconds:
      self.seconds[name].append(time.perf_counter() - start)
    self.seconds.setdefault(name, [])
    return result

  def median(self, name: str) -> float:
    """Returns the median duration of a program in seconds."""
    return statistics.median(self.seconds[name])


def cost(program: jax.stages.Compiled,
         uncounted: Mapping[str, float] | None = None) -> dict[str, float]:
  """Returns {'flops', 'bytes'} of a compiled program by XLA's cost analysis.

  The body of a loop counts once.

  Args:
    uncounted: the program's `products`, which are added if XLA has counted less than half of their
      FLOPs.
  """
  analysis = program.cost_analysis() or {}
  counted = {'flops': max(analysis.get('flops', 0.0), 0.0),
             'bytes': max(analysis.get('bytes accessed', 0.0), 0.0)}
  if uncounted and counted['flops'] < uncounted['flops'] / 2:
    counted = {key: value + uncounted[key] for key, value in counted.items()}
  return counted


def time_calls(program: Callable, state: TrainState, frozen: PyTree,
               source_for: Callable[[int, int], Any], calls: int,
               steps_per_call: int) -> tuple[TrainState, dict[str, float]]:
  """Times calls in a row, as in training: the next call is dispatched before one is waited for.

  Args:
    program: what `phases.jit_step` returns, compiled.
    source_for: that of a feed.

  Returns:
    (state, {'step': seconds of a step, 'take': those of them spent on getting its batch}).
  """
  step, getting, previous = int(state.step), 0.0, None
  start = time.perf_counter()
  for _ in range(calls):
    asked = time.perf_counter()
    source = source_for(step, step + steps_per_call)
    getting += time.perf_counter() - asked
    state, metrics = program(state, source, frozen, step, step + steps_per_call)
    step += steps_per_call
    if previous:
      jax.device_get(previous)
    previous = metrics
  jax.block_until_ready((state, metrics))
  steps = calls * steps_per_call
  return state, {'step': (time.perf_counter() - start) / steps, 'take': getting / steps}


def repeated(source: Any) -> Callable[[int, int], Any]:
  """Returns a `source_for` that gives the same batches again and again, so that nothing waits."""
  def source_for(start: int, stop: int) -> Any:
    return source._replace(first=jnp.int32(start)) if isinstance(source, Batches) else source
  return source_for


def time_host_batches(feed: Feed, batches: int, step: int) -> float:
  """Returns the seconds in which the host makes a batch while the device is idle.

  Batches that the feed has prepared in advance are used up first.
  """
  for _ in range(2 * feed.max_steps + 1):
    feed.source_for(step, step + 1)
  start = time.perf_counter()
  for _ in range(batches):
    jax.block_until_ready(feed.source_for(step, step + 1))
  return (time.perf_counter() - start) / batches


def empty_step(state: TrainState, source: Any, frozen: PyTree, start: int,
               stop: int) -> tuple[TrainState, dict[str, jax.Array]]:
  """Computes nothing, with the arguments and results of a step, to measure what a call costs."""
  del source, frozen, start, stop
  state = jax.lax.optimization_barrier(state._replace(step=state.step + 1))
  return state, {'step': state.step.astype(jnp.float32)}
