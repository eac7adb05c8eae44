"""What a function's convolutions and matrix products cost, counted before XLA has them.

On a GPU they are calls of cuDNN and cuBLAS in the compiled program, of which XLA's own account
knows neither operations nor bytes.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax.extend as jex

LOOPS = 'scan', 'while'  # whose results of one turn the next one takes


def products(jaxpr, used: Sequence[bool] | None = None) -> dict[str, float]:
  """{'flops', 'bytes'} of the convolutions and products in a (closed) jaxpr and those inside it.

  Two operations for each multiplied pair, padding counted as pixels; bytes are those of operands
  and results. A scan's body counts as often as it runs, a while loop's once; what no result comes
  of, not at all.

  Args:
    used: which of its results are; None is all.
  """
  jaxpr, total = getattr(jaxpr, 'jaxpr', jaxpr), {'flops': 0.0, 'bytes': 0.0}
  needed = {id(variable) for variable, wanted in zip(
      jaxpr.outvars, used or [True] * len(jaxpr.outvars), strict=True) if wanted}
  for equation in reversed(jaxpr.eqns):
    name, parameters = equation.primitive.name, equation.params
    wanted = [id(variable) in needed for variable in equation.outvars]
    if not any(wanted):
      continue
    needed |= {id(variable) for variable in equation.invars}
    if name in ('conv_general_dilated', 'dot_general'):
      count = _convolved if name == 'conv_general_dilated' else _multiplied
      total['flops'] += count(equation)
      total['bytes'] += sum(variable.aval.size * variable.aval.dtype.itemsize
                            for variable in (*equation.invars, *equation.outvars))
    times = parameters.get('length', 1) if name == 'scan' else 1
    for inner in _inside(parameters):
      same = len(getattr(inner, 'jaxpr', inner).outvars) == len(wanted) and name not in LOOPS
      for key, value in products(inner, wanted if same else None).items():
        total[key] += times * value
  return total


def _convolved(equation) -> float:
  kernel, made = equation.invars[1].aval.shape, equation.outvars[0].aval.shape
  outputs = kernel[equation.params['dimension_numbers'].rhs_spec[0]]
  # A dilated picture, as where a stride's gradient is taken, is zeros in between.
  return 2 * math.prod(made) * math.prod(kernel) / outputs / math.prod(
      equation.params['lhs_dilation'])


def _multiplied(equation) -> float:
  (contracted, _), _ = equation.params['dimension_numbers']
  operand = equation.invars[0].aval.shape
  return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(
      operand[axis] for axis in contracted)


def _inside(parameters: dict[str, Any]):
  for value in parameters.values():
    for one in value if isinstance(value, (list, tuple)) else (value,):
      if isinstance(one, (jex.core.Jaxpr, jex.core.ClosedJaxpr)):
        yield one
