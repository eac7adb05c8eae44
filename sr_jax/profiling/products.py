"""Counts FLOPs and bytes of the convolutions and matrix products of a function, in its jaxpr.

On a GPU these operations become calls of cuDNN and cuBLAS, of which XLA's cost analysis of the
compiled program counts neither FLOPs nor bytes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax.extend as jex

LOOPS = 'scan', 'while'  # a result that is unused outside may be needed by the next iteration


def products(jaxpr: jex.core.Jaxpr | jex.core.ClosedJaxpr,
             used: Sequence[bool] | None = None) -> dict[str, float]:
  """Returns {'flops', 'bytes'} of the convolutions and products in a jaxpr, including nested ones.

  Counts two FLOPs for each multiplied pair, padding included, and the bytes of operands and
  results. The body of a scan counts once for each iteration, the body of a while loop counts once.
  Operations whose results are not used do not count.

  Args:
    used: which results of the jaxpr are used; None means all.
  """
  jaxpr, total = getattr(jaxpr, 'jaxpr', jaxpr), {'flops': 0.0, 'bytes': 0.0}
  needed = {id(variable) for variable, is_used in zip(
      jaxpr.outvars, used or [True] * len(jaxpr.outvars), strict=True) if is_used}
  for equation in reversed(jaxpr.eqns):
    name, parameters = equation.primitive.name, equation.params
    used_outputs = [id(variable) in needed for variable in equation.outvars]
    if not any(used_outputs):
      continue
    needed |= {id(variable) for variable in equation.invars}
    if name in ('conv_general_dilated', 'dot_general'):
      count = _convolution_flops if name == 'conv_general_dilated' else _product_flops
      total['flops'] += count(equation)
      total['bytes'] += sum(variable.aval.size * variable.aval.dtype.itemsize
                            for variable in (*equation.invars, *equation.outvars))
    times = parameters.get('length', 1) if name == 'scan' else 1
    for nested in _nested_jaxprs(parameters):
      same_outputs = len(getattr(nested, 'jaxpr', nested).outvars) == len(used_outputs)
      counted = products(nested, used_outputs if same_outputs and name not in LOOPS else None)
      for key, value in counted.items():
        total[key] += times * value
  return total


def _convolution_flops(equation: jex.core.JaxprEqn) -> float:
  kernel, result = equation.invars[1].aval.shape, equation.outvars[0].aval.shape
  outputs = kernel[equation.params['dimension_numbers'].rhs_spec[0]]
  # The gradient of a strided convolution dilates its input with zeros, which do not count.
  return 2 * math.prod(result) * math.prod(kernel) / outputs / math.prod(
      equation.params['lhs_dilation'])


def _product_flops(equation: jex.core.JaxprEqn) -> float:
  (contracted, _), _ = equation.params['dimension_numbers']
  operand = equation.invars[0].aval.shape
  return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(
      operand[axis] for axis in contracted)


def _nested_jaxprs(parameters: Mapping[str, Any]) -> Iterator[
    jex.core.Jaxpr | jex.core.ClosedJaxpr]:
  for value in parameters.values():
    for item in value if isinstance(value, (list, tuple)) else (value,):
      if isinstance(item, (jex.core.Jaxpr, jex.core.ClosedJaxpr)):
        yield item
