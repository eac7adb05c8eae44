"""FLOPs and bytes of one kernel of a compiled program, and what kind of kernel it is.

What a kernel costs follows from shapes alone:
  - a convolution or matrix product takes two FLOPs for each multiplied pair, padding included, as
    in products.py; every other operation takes one for each element of its result, a reduction
    one for each element that it reads;
  - a kernel reads its operands and writes its results once. Of an operand from which it only takes
    slices it reads those, and of a result that is an operand with a part replaced (in place) it
    writes that part. The workspace of a library's call does not count.
Attention that is one call of cuDNN, and functions of other libraries, count bytes but no FLOPs.
"""

import collections
import math
import re
from collections.abc import Iterator, Mapping

from sr_jax.profiling.hlo import DTYPES, NAMES_VALUES, Array, Instruction, Program

Instructions = Mapping[str, Instruction]

RENAMES = {'bitcast', 'reshape'}  # the same elements in the same order
MOVES = NAMES_VALUES | RENAMES | {
    'copy', 'copy-start', 'transpose', 'slice', 'dynamic-slice', 'dynamic-update-slice',
    'concatenate', 'convert', 'broadcast', 'pad', 'reverse'}
NO_FLOPS = MOVES | {'gather', 'scatter', 'iota', 'sort', 'custom-call', 'fusion'}
# Those whose result may have the size of an operand of which each element may be needed.
NEED_ALL = {'tuple', 'fusion', 'custom-call', 'convolution', 'dot', 'sort', 'reduce-window',
            'scatter', 'gather', 'while'}
SLICES = {'slice', 'dynamic-slice', 'gather'}  # they read of their first operand what they return


def body(program: Program, kernel: Instruction) -> Instructions:
  """Returns the instructions that a kernel runs, those of a fusion or itself, by name."""
  called = kernel.called('calls') if kernel.opcode == 'fusion' else ''
  return program.instructions(called) if called else {kernel.name: kernel}


# The kind of a kernel ----------------------------------------------------------------------


def convolution(program: Program, kernel: Instruction, table: Instructions) -> str:
  """Returns who computes a convolution, its dtype and layout: 'cuDNN bfloat16 NHWC'; '' if none.

  Args:
    table: the instructions of the kernel's computation.
  """
  if kernel.target.startswith('__cudnn$conv'):
    return f'cuDNN {_convolution_type(kernel, table)}'
  inside = body(program, kernel)
  for found in inside.values():
    if found.opcode == 'convolution':
      is_library = '__cudnn$fusion' in kernel.attributes
      return f'{"cuDNN" if is_library else "XLA"} ' + _convolution_type(
          found, table if found is kernel else inside)
  return ''


def _convolution_type(call: Instruction, table: Instructions) -> str:
  images = table[call.operands[0]].results[0]
  labels = re.search(r'dim_labels=(\w+)_', call.attributes)[1]
  letters = {'b': 'N', 'f': 'C'} | ({'0': 'H', '1': 'W'} if len(labels) == 4 else {})
  order = images.order or range(len(labels))
  layout = ''.join(letters.get(labels[axis], labels[axis]) for axis in order)
  return f'{DTYPES.get(images.dtype, images.dtype)} {layout}'


def moved(program: Program, kernel: Instruction, table: Instructions) -> str:
  """Returns 'transpose', 'copy' or '' for a kernel that computes nothing but moves data.

  Such a kernel consists of copies, transposes, slices, concatenations, broadcasts, pads, reversals
  and conversions of the dtype. It is a transpose if it changes the order of the dimensions in
  memory, otherwise a copy.
  """
  inside = body(program, kernel)
  if any(found.opcode not in MOVES for found in inside.values()):
    return ''
  table = table if kernel.name in inside else inside
  is_transpose = any(
      found.opcode == 'transpose' or (found.opcode.startswith('copy') and found.results[0].order
                                      != table[found.operands[0]].results[0].order)
      for found in inside.values())
  return 'transpose' if is_transpose else 'copy'


# FLOPs -------------------------------------------------------------------------------------


def flops(program: Program, kernel: Instruction,
          table: Instructions) -> Iterator[tuple[str, float]]:
  """Yields (dtype of a convolution's or matrix product's operands, or '', FLOPs).

  Args:
    table: the instructions of the kernel's computation.
  """
  inside = body(program, kernel)
  for found in inside.values():
    arrays = [(table if found is kernel else inside)[name].results[0] for name in found.operands
              ] if found.operands else []
    if (count := _product_flops(found, arrays)) is not None:
      yield DTYPES.get(arrays[0].dtype, arrays[0].dtype), count
    else:
      yield '', _arithmetic_flops(found, arrays)


def _product_flops(call: Instruction, operands: list[Array]) -> float | None:
  if call.opcode == 'convolution' or call.target.startswith('__cudnn$conv'):
    return _convolution_flops(call, operands)
  if call.opcode == 'dot' or call.target.startswith('__cublas$'):
    dimensions = (re.search(r'lhs_contracting_dimensions":\[([^\]]*)', call.attributes)
                  or re.search(r'lhs_contracting_dims=\{([^}]*)', call.attributes))
    if dimensions:
      return 2 * call.results[0].size * math.prod(
          operands[0].shape[int(axis)] for axis in re.findall(r'\d+', dimensions[1]))
  return None


def _convolution_flops(call: Instruction, operands: list[Array]) -> float:
  # The labels of a gradient's call are those of the convolution that it belongs to.
  result = call.results[0]
  outputs, kernel = {'__cudnn$convBackwardInput': (operands[0], operands[1]),
                     '__cudnn$convBackwardFilter': (operands[1], result)}.get(
                         call.target, (result, operands[1]))
  labels = re.search(r'dim_labels=\w+_(\w+)->', call.attributes)[1]
  dilated = re.search(r'lhs_dilate=([\dx]+)', call.attributes)
  zeros = math.prod(map(int, dilated[1].split('x'))) if dilated else 1
  return 2 * outputs.size * kernel.size / kernel.shape[labels.index('o')] / zeros


def _arithmetic_flops(found: Instruction, operands: list[Array]) -> float:
  if found.opcode in NO_FLOPS or not found.results:
    return 0
  if found.opcode == 'reduce':
    return sum(array.size for array in operands[:len(operands) // 2])
  window = re.search(r'window=\{size=([\dx]+)', found.attributes)
  inputs = math.prod(map(int, window[1].split('x'))) if window else 1
  return found.results[0].size * inputs


# Bytes -------------------------------------------------------------------------------------


def moved_bytes(program: Program, kernel: Instruction, table: Instructions) -> float:
  """Returns the bytes that a kernel reads and writes.

  Args:
    table: the instructions of the kernel's computation.
  """
  inside = body(program, kernel)
  if kernel.name in inside:
    elements = _needed(inside, table)
    needed = {name: elements[name] for name in kernel.operands}
  else:
    elements = _needed(inside, inside)
    parameters = {int(re.match(r'\d+', found.attributes)[0]): found.name
                  for found in inside.values() if found.opcode == 'parameter'}
    needed = dict.fromkeys(kernel.operands, 0.0)  # an operand that is passed twice is read once
    for index, name in enumerate(kernel.operands):
      needed[name] += elements[parameters[index]]
  read = sum(min(count / max(_size(table[name]), 1), 1) * sum(
      array.nbytes for array in table[name].results) for name, count in needed.items())
  table = table if kernel.name in inside else inside
  root = next((found for found in inside.values() if found.is_root), kernel)
  outputs = [inside[name] for name in root.operands] if root.opcode == 'tuple' else [root]
  return read + sum(_written(inside, output, table) for output in outputs)


def _needed(inside: Instructions, table: Instructions) -> collections.Counter[str]:
  """Returns how many elements of each array a kernel evaluates; a few may count twice.

  A fusion evaluates only what its outputs need: of an array that is cast and then sliced, the
  slice.
  """
  needed = collections.Counter()
  for user in reversed(inside.values()):
    made = _size(user)
    is_output = user.is_root or len(inside) == 1
    wanted = made if is_output else min(needed[user.name], made)
    for index, name in enumerate(user.operands):
      size = _size(table[name])
      if user.opcode in SLICES and not index:
        needed[name] += wanted
      elif user.opcode == 'dynamic-update-slice' and not index:
        needed[name] += 0 if _is_output(inside, user) else size
      else:
        needed[name] += wanted if made == size and user.opcode not in NEED_ALL else size
  return needed


def _size(instruction: Instruction) -> int:
  return sum(array.size for array in instruction.results)


def _is_output(users: Instructions, instruction: Instruction) -> bool:
  if instruction.is_root or len(users) == 1:
    return True
  following = [user for user in users.values() if instruction.name in user.operands]
  return all(user.opcode in RENAMES | {'tuple', 'dynamic-update-slice'}
             and _is_output(users, user) for user in following)


def _written(inside: Instructions, output: Instruction, table: Instructions) -> float:
  """Returns the bytes that a kernel `inside` writes for an output."""
  updates, last = 0.0, output
  while last and last.operands and last.opcode in RENAMES | {'dynamic-update-slice'}:
    if last.opcode == 'dynamic-update-slice':
      updates += table[last.operands[1]].results[0].nbytes
    last = inside.get(last.operands[0])
  if updates and (last is None or last.opcode == 'parameter'):  # in place
    return updates
  results = output.results
  if output.opcode == 'copy-start':  # also returns what it reads, and a counter
    return results[0].nbytes
  if output.target.startswith(('__cudnn', '__cublas')):  # the workspace is an array of bytes
    results = [array for array in results if array.dtype not in ('u8', 's8')] or results
  return sum(array.nbytes for array in results)
