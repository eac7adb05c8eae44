"""Parses the text of a program that XLA compiled (`compiled.as_text()`), without jax.

The text is a list of computations: the entry, bodies of loops, and what fusions compute. An
instruction is a line of a computation, such as

  %fusion.3 = f32[3,64]{1,0} fusion(%a, %b), kind=kLoop, calls=%fused_add, metadata={...}

The grammar is that of `HloModule::ToString`, jax 0.10; operands are names.
"""

import functools
import math
import re
from typing import NamedTuple

from sr_jax.errors import InputError

DTYPES = {'bf16': 'bfloat16', 'f16': 'float16', 'f32': 'float32', 'f64': 'float64'}
NAMES_VALUES = {'parameter', 'get-tuple-element', 'tuple', 'bitcast', 'constant'}  # launch nothing


class Array(NamedTuple):
  """An array's type.

  Attributes:
    dtype: XLA's name, such as 'bf16'.
    shape: its dimensions.
    order: the dimensions from the slowest to the fastest in memory; () if the text has no layout.
  """

  dtype: str
  shape: tuple[int, ...]
  order: tuple[int, ...]

  @property
  def size(self) -> int:
    """The number of elements."""
    return math.prod(self.shape)

  @property
  def nbytes(self) -> float:
    """The number of bytes."""
    return self.size * _item_bytes(self.dtype)


class Instruction(NamedTuple):
  """A line of a computation.

  Attributes:
    results: the arrays that it returns, those of a nested tuple in a row.
    operands: names of instructions of the same computation.
    attributes: the text after the operands, or the value of a constant or parameter.
    is_root: whether it is what the computation returns.
  """

  name: str
  opcode: str
  results: tuple[Array, ...]
  operands: tuple[str, ...]
  attributes: str
  is_root: bool

  def called(self, key: str) -> str:
    """Returns the computation that an attribute such as `calls` or `body` names; '' if none."""
    found = re.search(rf'\b{key}=%?([\w.\-]+)', self.attributes)
    return found[1] if found else ''

  @property
  def op_name(self) -> str:
    """The operation in the code, such as 'jit(f)/generator/add'; '' if XLA added it."""
    found = re.search(r'op_name="([^"]*)"', self.attributes)
    return found[1] if found else ''

  @property
  def target(self) -> str:
    """The function of a custom call, such as '__cudnn$convForward'; '' of other instructions."""
    found = re.search(r'custom_call_target="([^"]*)"', self.attributes)
    return found[1] if found else ''


class Program:
  """The computations of a compiled program; each is parsed when it is first asked for.

  Raises:
    InputError: the text has no entry computation.
  """

  def __init__(self, text: str) -> None:
    self.entry, self._lines = '', {}
    lines = None
    for line in text.splitlines():
      if line.startswith((' ', '}')):
        if line.startswith('}'):
          lines = None
        elif lines is not None:
          lines.append(line)
      elif head := re.match(r'(ENTRY )?%?([\w.\-]+) (?:\(.*)?\{\s*$', line):
        lines = self._lines[head[2]] = []
        self.entry = head[2] if head[1] else self.entry
    if not self.entry:
      raise InputError('no ENTRY computation: expected the text of a compiled XLA program')
    self._parsed = {}

  def instructions(self, computation: str) -> dict[str, Instruction]:
    """Returns the instructions of a computation by name, in the order in which they run."""
    if computation not in self._parsed:
      parsed = map(_parse, self._lines[computation])
      self._parsed[computation] = {found.name: found for found in parsed if found}
    return self._parsed[computation]


def readable_scope(op_name: str) -> str:
  """Returns the scope in the code of an operation's name.

  'jit(one_step)/transpose(jvp(generator))/SRResNet/...' becomes 'generator backward/SRResNet/...';
  the prefixes of loops, 'while/body/closed_call/', are removed as well.
  """
  for pattern, replacement in ((r'^jit\(\w+\)/(?:while/body/(?:closed_call/)?)*', ''),
                               (r'transpose\(jvp\((\w+)\)\)', r'\1 backward'),
                               (r'jvp\((\w+)\)', r'\1 forward')):
    op_name = re.sub(pattern, replacement, op_name)
  return op_name


def starts_work(instruction: Instruction) -> bool:
  """Returns whether an instruction starts a kernel or a computation.

  Two halves of an asynchronous operation, such as copy-start and copy-done, count as one.
  """
  return instruction.opcode not in NAMES_VALUES and not instruction.opcode.endswith('-done')


def _parse(line: str) -> Instruction | None:
  head = re.match(r'\s+(ROOT )?%?([\w.\-]+) = ', line)
  if not head:
    return None
  start = head.end()
  end = _closing(line, start) + 1 if line[start] == '(' else line.index(' ', start)
  opening = line.index('(', end)
  closing = _closing(line, opening)
  opcode, inside = line[end:opening].strip(), line[opening + 1:closing]
  is_value = opcode in ('constant', 'parameter')
  return Instruction(
      head[2], opcode, _arrays(line[start:end]),
      () if is_value else tuple(re.findall(r'%([\w.\-]+)', inside)),
      inside + line[closing + 1:] if is_value else line[closing + 1:], bool(head[1]))


def _closing(text: str, opening: int) -> int:
  """Returns the index of the parenthesis that closes the one at `opening`."""
  depth = 0
  for found in re.compile(r'[()]').finditer(text, opening):
    depth += 1 if found[0] == '(' else -1
    if not depth:
      return found.start()
  return len(text) - 1  # the value of a constant may contain anything


@functools.lru_cache(maxsize=4096)
def _arrays(text: str) -> tuple[Array, ...]:
  found = re.findall(r'\b([a-z]\w*)\[([\d,<=]*)\](?:\{([\d,]*))?', text)
  return tuple(Array(dtype, _numbers(shape), _numbers(layout)[::-1])
               for dtype, shape, layout in found)


def _numbers(text: str) -> tuple[int, ...]:
  return tuple(int(number) for number in re.findall(r'\d+', text))


def _item_bytes(dtype: str) -> float:
  if dtype == 'pred':
    return 1
  bits = re.search(r'\d+', dtype)  # of 'f8e4m3fn' the first number
  return int(bits[0]) / 8 if bits else 0  # a token has no bytes
