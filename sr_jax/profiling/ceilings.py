"""What a device does at best, measured: a large matrix product, a large copy, starting work."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from sr_jax.system.memory import free_memory

ROUNDS, ROW = 5, 4
SIDE = {'cpu': 1536}  # of the matrices; 8192 elsewhere
COPIED = {'cpu': 2**28}  # bytes; 2 GiB elsewhere
CHAIN = 4, 36  # operations


def measured(dtype: str) -> dict[str, float]:
  """The first device's ceilings.

  Args:
    dtype: of the product, whose precision is JAX's default, as in the networks: on NVIDIA GPUs
      that have it, float32 is TF32.

  Returns:
    flops: FLOP/s of a product; bytes: bytes/s, read and written, of a copy; launch: seconds for
    each of many small operations of one program. On accelerators also flops_bfloat16.
  """
  backend = jax.default_backend()
  found = {'flops': product(dtype, SIDE.get(backend, 8192)),
           'bytes': copy(min(COPIED.get(backend, 2**31), free_memory(jax.devices()[0]) // 8)),
           'launch': launch()}
  if backend != 'cpu':
    found['flops_bfloat16'] = (found['flops'] if dtype == 'bfloat16'
                               else product('bfloat16', SIDE.get(backend, 8192)))
  return found


def again(found: dict[str, float], dtype: str) -> dict[str, float]:
  """What `measured` found, or better: others may have been at work on the device then."""
  now = measured(dtype)
  return {name: (min if name == 'launch' else max)(found[name], now[name]) for name in found}


def product(dtype: str, side: int) -> float:
  """FLOP/s of a [side, side] matrix with another."""
  # Random numbers: a device may do zeros faster.
  matrix = jax.random.normal(jax.random.key(0), (side, side), jnp.dtype(dtype)) / side**0.5
  multiply = jax.jit(lambda a, b: a @ b)
  return 2 * side**3 / _best(lambda made: multiply(matrix, made), matrix)


def copy(size: int) -> float:
  """Bytes/s, those read and those written, of going through `size` bytes in place."""
  array = jnp.zeros(size // 4, jnp.float32)
  return 2 * array.nbytes / _best(jax.jit(lambda array: array + 1, donate_argnums=0), array)


def launch() -> float:
  """Seconds that one more small operation takes in a program."""
  def chained(count):
    def chain(value):
      for _ in range(count):
        value = value + jnp.sum(value)
      return value
    return _best(jax.jit(chain), jnp.zeros((8, 8)), 10)
  short, long = map(chained, CHAIN)
  return max(long - short, 0.0) / (CHAIN[1] - CHAIN[0])


def _best(function: Callable, value, row: int = ROW) -> float:
  """Seconds of a call, of a row of them that are each given what the last one made; the least."""
  seconds = []
  for _ in range(ROUNDS + 1):  # the first compiles
    begin = time.perf_counter()
    for _ in range(row):
      value = function(value)
    jax.block_until_ready(value)
    seconds.append((time.perf_counter() - begin) / row)
  return min(seconds[1:])
