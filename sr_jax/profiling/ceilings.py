"""Measures the highest rates of a device: matrix products, copies and small operations."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from sr_jax.system.memory import free_memory

ROUNDS = 5  # the fastest one counts
CALLS = 4  # of a round, each with the result of the previous one as its input
MATRIX_SIDE = {'cpu': 1536}  # 8192 on other devices
COPY_BYTES = {'cpu': 2**28}  # 2 GiB on other devices
CHAIN_LENGTHS = 4, 36  # small operations in the two programs that `launch` compares


def measure(dtype: str) -> dict[str, float]:
  """Measures the ceilings of the first device.

  Args:
    dtype: type of the matrix product. Its precision is JAX's default, as in the networks: on NVIDIA
      GPUs that support it, float32 products use TF32.

  Returns:
    'flops': FLOP/s of a matrix product; 'bytes': bytes/s of a copy, reads and writes added up;
    'launch': seconds that one small operation adds to a program; on accelerators also
    'flops_bfloat16'.
  """
  backend = jax.default_backend()
  side = MATRIX_SIDE.get(backend, 8192)
  size = min(COPY_BYTES.get(backend, 2**31), free_memory(jax.devices()[0]) // 8)
  ceilings = {'flops': product(dtype, side), 'bytes': copy(size), 'launch': launch()}
  if backend != 'cpu':
    ceilings['flops_bfloat16'] = (ceilings['flops'] if dtype == 'bfloat16'
                                  else product('bfloat16', side))
  return ceilings


def measure_again(ceilings: dict[str, float], dtype: str) -> dict[str, float]:
  """Measures once more and returns the better values, in case the device was shared before."""
  new = measure(dtype)
  return {name: (min if name == 'launch' else max)(ceilings[name], new[name]) for name in ceilings}


def product(dtype: str, side: int) -> float:
  """Returns the FLOP/s of a product of two [side, side] matrices."""
  # Random numbers, because a device may be faster with zeros.
  matrix = jax.random.normal(jax.random.key(0), (side, side), jnp.dtype(dtype)) / side**0.5
  multiply = jax.jit(lambda a, b: a @ b)
  return 2 * side**3 / _seconds_per_call(lambda result: multiply(matrix, result), matrix)


def copy(size: int) -> float:
  """Returns the bytes/s, reads and writes added up, of updating `size` bytes in place."""
  array = jnp.zeros(size // 4, jnp.float32)
  increment = jax.jit(lambda array: array + 1, donate_argnums=0)
  return 2 * array.nbytes / _seconds_per_call(increment, array)


def launch() -> float:
  """Returns the seconds that one more small operation takes in a program."""
  def seconds(length: int) -> float:
    def chain(value: jax.Array) -> jax.Array:
      for _ in range(length):
        value = value + jnp.sum(value)
      return value
    return _seconds_per_call(jax.jit(chain), jnp.zeros((8, 8)), calls=10)
  short, long = CHAIN_LENGTHS
  return max(seconds(long) - seconds(short), 0.0) / (long - short)


def _seconds_per_call(function: Callable[[jax.Array], jax.Array], value: jax.Array,
                      calls: int = CALLS) -> float:
  """Returns the seconds of a call in the fastest round; each call is given the previous result."""
  seconds = []
  for _ in range(ROUNDS + 1):  # the first round compiles
    start = time.perf_counter()
    for _ in range(calls):
      value = function(value)
    jax.block_until_ready(value)
    seconds.append((time.perf_counter() - start) / calls)
  return min(seconds[1:])
