"""Times compiled programs: one by one, waiting for each, and in a row, as train dispatches them."""

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from sr_jax.data.feed import Batches, Feed
from sr_jax.profiling.products import products

DONATING = 'step', 'update'  # programs that take their first argument for good


class Timed:
  """Runs functions by name, each compiled once, and notes how long each run takes.

  Attributes:
    programs: what was compiled, by name.
    products: on accelerators, where XLA counts none, FLOPs and bytes of their convolutions and
      matrix products, by name.
    seconds: of each run but the first, which also loads the program.
  """

  def __init__(self, programs: dict):
    self.programs, self.products, self.seconds = dict(programs), {}, {}

  def __call__(self, name: str, function: Callable, *arguments):
    if name not in self.programs:
      donated = 0 if name in DONATING else ()
      traced = jax.jit(function, donate_argnums=donated).trace(*arguments)
      if jax.default_backend() != 'cpu':
        self.products[name] = products(traced.jaxpr)
      self.programs[name] = traced.lower().compile()
    begin = time.perf_counter()
    made = jax.block_until_ready(self.programs[name](*arguments))
    if name in self.seconds:
      self.seconds[name].append(time.perf_counter() - begin)
    self.seconds.setdefault(name, [])
    return made

  def median(self, name: str) -> float:
    return statistics.median(self.seconds[name])


def cost(program, unseen: dict[str, float] | None = None) -> dict[str, float]:
  """{'flops', 'bytes'} of a compiled program, by XLA's cost analysis: a loop's body counts once.

  Args:
    unseen: of its `products`, which are added where XLA has counted less than half of them.
  """
  found = program.cost_analysis() or {}
  counted = {'flops': max(found.get('flops', 0.0), 0.0),
             'bytes': max(found.get('bytes accessed', 0.0), 0.0)}
  if unseen and counted['flops'] < unseen['flops'] / 2:
    counted = {key: value + unseen[key] for key, value in counted.items()}
  return counted


def row(dispatch: Callable, state, frozen, take: Callable, dispatches: int, count: int) -> tuple:
  """Dispatches in a row, as train has them: the next is on its way when one is looked at.

  Args:
    dispatch: of `build.dispatcher`, compiled.
    take: of a feed.
    count: steps of a dispatch.

  Returns:
    (state, {'step', 'take': seconds of a step, in all and in taking its batch}).
  """
  step, taking, before = int(state.step), 0.0, None
  begin = time.perf_counter()
  for _ in range(dispatches):
    asked = time.perf_counter()
    source = take(step, step + count)
    taking += time.perf_counter() - asked
    state, metrics = dispatch(state, source, frozen, step, step + count)
    step += count
    if before:
      jax.device_get(before)
    before = metrics
  jax.block_until_ready((state, metrics))
  taken = dispatches * count
  return state, {'step': (time.perf_counter() - begin) / taken, 'take': taking / taken}


def lying(source) -> Callable:
  """A feed's `take` that has nothing to wait for: the same batches, again and again."""
  def take(start, stop):
    return source._replace(first=jnp.int32(start)) if isinstance(source, Batches) else source
  return take


def made_alone(feed: Feed, batches: int, step: int) -> float:
  """Seconds in which the host makes a batch while the device rests.

  What it had made ahead is used up first.
  """
  for _ in range(2 * feed.max_steps + 1):
    feed.source_for(step, step + 1)
  begin = time.perf_counter()
  for _ in range(batches):
    jax.block_until_ready(feed.source_for(step, step + 1))
  return (time.perf_counter() - begin) / batches


def idle_step(state, source, frozen, start, stop):
  """A step that does nothing, with the arguments and the results of one: what a dispatch costs."""
  del source, frozen, start, stop
  state = jax.lax.optimization_barrier(state._replace(step=state.step + 1))
  return state, {'step': state.step.astype(jnp.float32)}
