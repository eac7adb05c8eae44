"""Compiles small functions for an H200 and writes the programs to hopper-*.hlo.txt here.

  pip install "jax[cuda13]"   (no GPU is needed)
  python -m tests.golden.make_programs

tests/test_program.py reads the programs, and the functions, whose FLOPs it counts in their jaxprs.
"""

import pathlib
import re

import jax
import jax.numpy as jnp
from jax import lax

from sr_jax.profiling import gpu_compiler

FOLDER = pathlib.Path(__file__).parent
LOOP_SHAPES = {'kernel': ('float32', 3, 3, 32, 32), 'bank': ('uint8', 1, 2**24),
               'start': ('int32',), 'stop': ('int32',)}
LAYERS_SHAPES = {'x': ('bfloat16', 2, 8, 8, 32), 'kernel': ('bfloat16', 3, 3, 32, 32),
                 'bias': ('bfloat16', 32), 'dense': ('bfloat16', 2048, 64),
                 'a': ('float32', 128, 256), 'b': ('float32', 100)}


def shapes(given: dict[str, tuple]) -> list[jax.ShapeDtypeStruct]:
  return [jax.ShapeDtypeStruct(shape, dtype) for dtype, *shape in given.values()]


def loop(kernel: jax.Array, bank: jax.Array, start: jax.Array, stop: jax.Array) -> jax.Array:
  """Trains a kernel on slices of a bank, three parts a step: two convolutions, one of stride 2."""
  @jax.named_scope('generator')
  def network(kernel: jax.Array, x: jax.Array) -> jax.Array:
    kernel = kernel.astype('bfloat16')
    return convolve(jnp.tanh(convolve(x, kernel, 2)), kernel)

  def loss(kernel: jax.Array, x: jax.Array) -> jax.Array:
    y = network(kernel, x)
    with jax.named_scope('losses'):
      return jnp.mean(jnp.square(y.astype('float32')))

  def add(total: jax.Array, x: jax.Array) -> tuple[jax.Array, None]:
    return total + jax.grad(loss)(kernel, x), None

  def step(carry: tuple) -> tuple:
    nonlocal kernel
    index, kernel = carry
    with jax.named_scope('batch'):
      x = lax.dynamic_slice(bank, (0, index * 100), (1, 3 * 2 * 8 * 8 * 32))
      x = x.reshape(3, 2, 8, 8, 32).astype('bfloat16') / 255
    gradient, _ = lax.scan(add, jnp.zeros_like(kernel), x)
    with jax.named_scope('optimiser'):
      return index + 1, kernel - 1e-3 * gradient

  return lax.while_loop(lambda carry: carry[0] < stop, step, (start, kernel))[1]


def layers(x: jax.Array, kernel: jax.Array, bias: jax.Array, dense: jax.Array, a: jax.Array,
           b: jax.Array) -> tuple[jax.Array, ...]:
  """A convolution with bias and activation, a product, a transpose, a concatenation."""
  y = jax.nn.relu(convolve(x, kernel) + bias)
  return y, y.reshape(2, -1) @ dense, a.T, jnp.concatenate([jnp.ravel(a), b])


def convolve(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
  return lax.conv_general_dilated(x, kernel, (stride, stride), 'SAME',
                                  dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def shorten(text: str) -> str:
  """Removes positions in source files and names of the scheduler."""
  text = re.sub(r'\n\nFileNames\n.*?\n\n(?=%|ENTRY)', '\n\n', text, flags=re.DOTALL)
  text = re.sub(r' ?(scheduling_name|deduplicated_name)="[^"]*"| ?stack_frame_id=\d+', '', text)
  return text.replace('metadata={ ', 'metadata={').replace(', metadata={}', '')


def main() -> None:
  from tests.benchmarks import kernels
  place = jax.sharding.SingleDeviceSharding(kernels.gpu())
  for function, given in ((loop, LOOP_SHAPES), (layers, LAYERS_SHAPES)):
    jitted = jax.jit(function, in_shardings=place, out_shardings=place)
    text = gpu_compiler.compile_for_gpu(jitted, *shapes(given)).text
    (FOLDER / f'hopper-{function.__name__}.hlo.txt').write_text(shorten(text))


if __name__ == '__main__':
  main()
