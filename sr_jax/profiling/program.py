"""Counts what one training step launches, from the text of a program compiled for a GPU.

Starting a kernel takes 2 to 5 microseconds whatever its size, so their number matters as much as
their FLOPs and bytes. Works on the text alone, for a GPU that is not present as well.
"""

import collections
import re
from collections.abc import Iterator
from typing import NamedTuple

from sr_jax.profiling import hlo, kernel_costs

# The named scopes of a step, see step/ and losses/; 'other' is what has none of them.
PARTS = ('batch', 'generator', 'discriminator', 'vgg', 'losses', 'optimiser', 'ema', 'guard')


class Counts(NamedTuple):
  """What one step launches; dicts by part have those of `PARTS` and 'other' that occur.

  Attributes:
    kernels: instructions that start a kernel or a library's call.
    kernels_by_part: their number by part.
    convolutions: number by library, dtype and layout, such as {'cuDNN bfloat16 NHWC': 37}; those
      that XLA computes itself begin with 'XLA'.
    copies, transposes: kernels that only move data, see `kernel_costs.moved`. Casts are copies.
    flops, bytes: by part, see kernel_costs.py.
    product_flops: of convolutions and matrix products, by the dtype of their operands.
    unknown_loops: loops in the step whose number of iterations the program does not contain; their
      body counts once.
  """

  kernels: int
  kernels_by_part: dict[str, int]
  convolutions: dict[str, int]
  copies: int
  transposes: int
  flops: dict[str, float]
  bytes: dict[str, float]
  product_flops: dict[str, float]
  unknown_loops: int


class Launch(NamedTuple):
  """An instruction that a step launches.

  Attributes:
    kernel: the instruction.
    table: all instructions of its computation, where its operands are found.
    times: how often; more than 1 in the body of a loop.
  """

  kernel: hlo.Instruction
  table: kernel_costs.Instructions
  times: int


def read(text: str) -> Counts:
  """Counts the kernels of one training step, their FLOPs and their bytes.

  A step is the body of the loop of step/device_loop.py, which is the loop of the entry with an
  unknown number of iterations and the most kernels, if that is most of the program's. Otherwise
  it is the entry. Within the step the body of a loop counts once for each iteration, the largest
  branch of a conditional once, and tests of a loop's end do not count.

  Args:
    text: of `compiled.as_text()`, for a GPU and one device.

  Raises:
    InputError: the text is not that of a compiled program.
  """
  program = hlo.Program(text)
  kernels, convolutions, moved = (collections.Counter() for _ in range(3))
  flops, moved_bytes, product_flops = (collections.Counter() for _ in range(3))
  unknown_loops = 0
  for launch in launches(program, step(program)):
    kernel, table, times = launch
    if kernel.opcode == 'while':
      unknown_loops += 1
      continue
    name = part(program, kernel)
    kernels[name] += times
    if found := kernel_costs.convolution(program, kernel, table):
      convolutions[found] += times
    moved[kernel_costs.moved(program, kernel, table)] += times
    moved_bytes[name] += times * kernel_costs.moved_bytes(program, kernel, table)
    for dtype, count in kernel_costs.flops(program, kernel, table):
      flops[name] += times * count
      if dtype:
        product_flops[dtype] += times * count
  return Counts(kernels.total(), dict(kernels), dict(convolutions), moved['copy'],
                moved['transpose'], dict(flops), dict(moved_bytes), dict(product_flops),
                unknown_loops)


def step(program: hlo.Program) -> str:
  """Returns the name of the computation that takes one step, see `read`."""
  def size(computation: str) -> int:
    return sum(launch.times for launch in launches(program, computation)
               if launch.kernel.opcode != 'while')

  loops = [found.called('body') for found in program.instructions(program.entry).values()
           if found.opcode == 'while' and not _iterations(found)]
  largest = max(loops, key=size, default=program.entry)
  return largest if 2 * size(largest) > size(program.entry) else program.entry


def launches(program: hlo.Program, computation: str, times: int = 1) -> Iterator[Launch]:
  """Yields what a computation launches, with what it calls and the bodies of its loops.

  A loop with an unknown number of iterations is yielded as well, before its body.
  """
  table = program.instructions(computation)
  for found in table.values():
    if not hlo.starts_work(found):
      continue
    if found.opcode == 'while':
      iterations = _iterations(found)
      if not iterations:
        yield Launch(found, table, times)
      yield from launches(program, found.called('body'), times * (iterations or 1))
    elif found.opcode == 'call':
      yield from launches(program, found.called('to_apply'), times)
    elif found.opcode == 'conditional':
      yield from max((list(launches(program, branch, times)) for branch in _branches(found)),
                     key=len)
    else:
      yield Launch(found, table, times)


def part(program: hlo.Program, kernel: hlo.Instruction) -> str:
  """Returns the part of a step that a kernel belongs to, by the named scope of its operation.

  XLA gives a fusion the name of one of its operations. Of one without a name it is the first part
  that is found among its operations.
  """
  names = [kernel.op_name] if kernel.op_name else [
      found.op_name for found in kernel_costs.body(program, kernel).values()]
  for name in names:
    scope = hlo.readable_scope(name)
    if found := re.search(rf'(?:^|[/(])({"|".join(PARTS)})(?=[ /)]|$)', scope):
      return found[1]
  return 'other'


def _iterations(loop: hlo.Instruction) -> int:
  """Returns how often a loop runs; 0 if unknown."""
  found = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
  return int(found[1]) if found else 0


def _branches(conditional: hlo.Instruction) -> list[str]:
  found = re.search(r'branch_computations=\{([^}]*)\}', conditional.attributes)
  return re.findall(r'%?([\w.\-]+)', found[1]) if found else [
      conditional.called('true_computation'), conditional.called('false_computation')]
