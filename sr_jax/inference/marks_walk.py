"""Follows marks through a jaxpr, one operation at a time; see `locality`."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.extend as jex
import jax.numpy as jnp
import numpy as np
from jax import lax

from sr_jax.inference.probes import Marks, Probes

_ELEMENTWISE = frozenset({
    'abs', 'acos', 'acosh', 'add', 'and', 'asin', 'asinh', 'atan', 'atan2', 'atanh', 'cbrt',
    'ceil', 'clamp', 'convert_element_type', 'copy', 'cos', 'cosh', 'div', 'eq', 'erf',
    'erf_inv', 'erfc', 'exp', 'exp2', 'expm1', 'floor', 'ge', 'gt', 'integer_pow', 'is_finite',
    'le', 'log', 'log1p', 'logistic', 'lt', 'max', 'min', 'mul', 'ne', 'neg', 'not', 'or',
    'pow', 'reduce_precision', 'rem', 'round', 'rsqrt', 'select_n', 'sign', 'sin', 'sinh',
    'sqrt', 'square', 'stop_gradient', 'sub', 'tan', 'tanh', 'xor'})
_REDUCTIONS = 'reduce_sum', 'reduce_max', 'reduce_min', 'reduce_prod', 'reduce_and', 'reduce_or'
_POOLING = 'reduce_window', 'reduce_window_sum', 'reduce_window_max', 'reduce_window_min'
_VIEWS = 'reshape', 'squeeze', 'expand_dims', 'broadcast_in_dim', 'transpose', 'slice', 'rev'
_INDEXING = 'gather', 'dynamic_slice'  # all arguments but the first are known numbers
_CALLS = ('jit', 'pjit', 'closed_call', 'core_call', 'checkpoint', 'remat', 'remat2',
          'custom_jvp_call', 'custom_vjp_call', 'custom_vjp_call_jaxpr')


class NotLocalError(Exception):
  """The call is not local; the argument says why."""


class Walk:
  """Follows marks through a jaxpr.

  Attributes:
    suspect: the first operation that may be why the result is not local, or ''.
    zero_padded: no operation but convolutions at the probes' resolution mixed positions.
    convolutions: number of convolutions of arrays that depend on the image.
    operations: of such arrays, with the numbers that could depend on the image's size.
  """

  def __init__(self, probes: Probes) -> None:
    self._probes = probes
    self.suspect, self.zero_padded, self.convolutions = '', True, 0
    self.operations: list[tuple] = []
    self._outer: list[str] = []  # the modules and functions whose jaxpr is being followed

  def run(self, closed: jex.core.ClosedJaxpr, arguments: Sequence[Any]) -> list[Any]:
    """Returns the results of a jaxpr: `Marks`, or arrays that don't depend on the image."""
    jaxpr = closed.jaxpr
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars],
                      [*map(_array, closed.consts), *arguments], strict=True))

    def read(atom: Any) -> Any:
      return np.asarray(atom.val) if isinstance(atom, jex.core.Literal) else values[atom]

    for equation in jaxpr.eqns:
      results = self._apply(equation, [read(atom) for atom in equation.invars])
      values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]

  def _apply(self, equation: jex.core.JaxprEqn, inputs: list[Any]) -> list[Any]:
    name, parameters = equation.primitive.name, equation.params
    if not equation.outvars:
      return []
    shape = equation.outvars[0].aval.shape
    if name in _CALLS:
      self._outer.append('/'.join(filter(None, [str(equation.source_info.name_stack),
                                                parameters.get('name', '')])))
      results = self.run(_nested(parameters), inputs)
      self._outer.pop()
      return results
    marked = [value for value in inputs if isinstance(value, Marks)]
    where = self._where(equation)
    if marked:
      self._record(equation, inputs)
    if name in _VIEWS:
      if not marked:
        return [_view(name, np.asarray(inputs[0]), shape, parameters)]
      self._suspect(where, name == 'rev' or (
          name == 'slice' and shape[:-1] != marked[0].marks.shape[:-1]))
      return [Marks(_view(name, marked[0].marks, shape, parameters), marked[0].reach)]
    if not marked:
      results = equation.primitive.bind(*inputs, **parameters)
      return [_array(result) for result in
              (results if equation.primitive.multiple_results else [results])]
    if name in _ELEMENTWISE or name == 'concatenate':
      return [self._combine(name, parameters, inputs, shape, where)]
    if name in _REDUCTIONS:
      return [_reduce(marked[0], parameters['axes'], where)]
    if len(marked) > 1 or (not isinstance(inputs[0], Marks) and name != 'dot_general'):
      raise NotLocalError(where)  # such as attention, or filters that depend on the image
    value = marked[0]
    if name in _INDEXING:
      self._suspect(where)
      known = [jnp.asarray(value.marks), *inputs[1:]]
      return [Marks(np.asarray(equation.primitive.bind(*known, **parameters)), value.reach)]
    if name == 'split':
      self._suspect(where, parameters['axis'] != value.marks.ndim - 1)
      ends = np.cumsum(parameters['sizes'])[:-1]
      return [Marks(part, value.reach)
              for part in np.split(value.marks, ends, parameters['axis'])]
    if name == 'pad':
      self._suspect(where)
      return [Marks(np.asarray(lax.pad(value.marks, np.float32(0), parameters['padding_config'])),
                     value.reach)]
    spread = {'conv_general_dilated': self._convolve, 'dot_general': self._multiply}.get(
        name, self._pool if name in _POOLING else None)
    if not spread:
      raise NotLocalError(where)
    result = Marks(np.broadcast_to(spread(parameters, inputs, where), shape), value.reach)
    return [self._probes.settle(result) or result]

  def _record(self, equation: jex.core.JaxprEqn, inputs: Sequence[Any]) -> None:
    """Notes an operation with those of its numbers that could depend on the image's size."""
    name, parameters = equation.primitive.name, equation.params
    numbers = [value.flat[0] for value in inputs
               if name in _ELEMENTWISE and isinstance(value, np.ndarray) and value.size]
    options = [parameters.get(key) for key in ('padding', 'rhs_dilation', 'window_dimensions')]
    self.operations.append((name, numbers, options))

  def _where(self, equation: jex.core.JaxprEqn) -> str:
    """Returns 'reduce_sum in body_0/attention': the operation and the module that uses it."""
    path = '/'.join(filter(None, [*self._outer, str(equation.source_info.name_stack)]))
    return equation.primitive.name + (f' in {path}' if path else '')

  def _suspect(self, where: str, is_suspect: bool = True) -> None:
    if is_suspect:
      self.suspect, self.zero_padded = self.suspect or where, False

  def _combine(self, name: str, parameters: dict, inputs: list[Any], shape: Sequence[int],
               where: str) -> Marks:
    """Returns the marks of a result that combines elements of equal position, or of several."""
    marked = [value for value in inputs if isinstance(value, Marks)]
    for value in inputs:
      if not isinstance(value, Marks) and self._depends_on_position(np.asarray(value), marked):
        raise NotLocalError(f'{where} of an array that differs from position to position')
    if len({value.reach for value in marked}) > 1:
      # Otherwise the spread of one and the reach of the other would be added.
      inputs = [value if not isinstance(value, Marks) else self._probes.settle(value) or value
                for value in inputs]
    reach = max(value.reach for value in inputs if isinstance(value, Marks))
    if name == 'concatenate':
      axis = parameters['dimension']
      self._suspect(where, axis != len(shape) - 1)
      marks = [value.marks if isinstance(value, Marks) else np.zeros(np.shape(value), np.float32)
               for value in inputs]
      if axis == len(shape) - 1 and not any(array.strides[-1] for array in marks):
        # The sum of all channels stands for each of them: never too few marks.
        return Marks(np.broadcast_to(sum(array[..., :1] for array in marks), shape), reach)
      return Marks(np.concatenate(marks, axis), reach)
    distinct = {id(value.marks): value.marks for value in inputs if isinstance(value, Marks)}
    total = sum(array[..., :1] if array.ndim and not array.strides[-1] else array
                for array in distinct.values())
    return Marks(np.broadcast_to(total, shape), reach)

  def _depends_on_position(self, array: np.ndarray, marked: Sequence[Marks]) -> bool:
    """Returns whether an array that is combined with others differs from position to position.

    It may differ along the last axis if that holds the channels, and repeat at each pixel, such as
    the weights of an interpolation at a higher resolution.
    """
    for axis in range(array.ndim):
      if array.strides[axis] and array.shape[axis] > 1:
        zoom, rest = divmod(array.shape[axis], self._probes.side)
        period = zoom if array.ndim == 4 and axis in (1, 2) and zoom and not rest else 1
        moved = np.moveaxis(array, axis, 0)
        is_constant = np.allclose(moved[period:], moved[:-period], rtol=1e-5, atol=1e-7)
        holds_channels = axis == array.ndim - 1 and all(map(self._has_channels, marked))
        if not is_constant and not holds_channels:
          return True
    return False

  def _has_channels(self, value: Marks) -> bool:
    """Returns whether the last axis does not hold positions."""
    return (not value.marks.strides[-1] or (value.marks == value.marks[..., :1]).all()
            or self._probes.settle(value) is not None)

  def _convolve(self, parameters: dict, inputs: list[Any], where: str) -> np.ndarray:
    marks, numbers = inputs[0].marks, parameters['dimension_numbers']
    if (marks.ndim != 4 or numbers.lhs_spec != (0, 3, 1, 2) or numbers.out_spec != (0, 3, 1, 2)
        or parameters['batch_group_count'] != 1):
      raise NotLocalError(where)
    self._suspect(where, math.prod(parameters['window_strides']) > 1)
    self.convolutions += 1
    marks = marks[..., :1] if not marks.strides[3] else marks.max(3, keepdims=True)
    kernel = tuple(np.shape(inputs[1])[axis] for axis in numbers.rhs_spec[2:])
    result = np.asarray(lax.conv_general_dilated(
        marks, np.ones((*kernel, 1, 1), np.float32), parameters['window_strides'],
        parameters['padding'], parameters['lhs_dilation'], parameters['rhs_dilation'],
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'), precision='highest'))
    if not marks.shape[1:3] == result.shape[1:3] == (self._probes.side,) * 2:
      self.zero_padded = False
    return result

  def _pool(self, parameters: dict, inputs: list[Any], where: str) -> np.ndarray:
    self._suspect(where)
    return np.asarray(lax.reduce_window(
        inputs[0].marks, np.float32(0), lax.add, parameters['window_dimensions'],
        parameters['window_strides'], parameters['padding'], parameters['base_dilation'],
        parameters['window_dilation']))

  def _multiply(self, parameters: dict, inputs: list[Any], where: str) -> np.ndarray:
    """Returns the marks of a matrix product with an array that doesn't depend on the image."""
    contracted, batch = parameters['dimension_numbers']
    side = 0 if isinstance(inputs[0], Marks) else 1
    self._suspect(where, contracted[side] != (inputs[side].marks.ndim - 1,))
    arrays = [value.marks if isinstance(value, Marks) else np.abs(np.float32(value))
              for value in inputs]
    for axes in zip(*batch, strict=True):
      if not any(_is_constant(*pair) for pair in zip(arrays, axes, strict=True)):
        raise NotLocalError(where)  # other weights at other positions
    return np.asarray(lax.dot_general(*arrays, parameters['dimension_numbers'],
                                      precision='highest'))


def _is_constant(array: np.ndarray, axis: int) -> bool:
  return not array.strides[axis] or (array == array.take([0], axis)).all()


def _nested(parameters: dict) -> jex.core.ClosedJaxpr:
  """Returns the function that an operation such as `jit` or `custom_jvp_call` calls."""
  for key in ('jaxpr', 'call_jaxpr', 'fun_jaxpr'):
    if key in parameters:
      inner = parameters[key]
      return inner if isinstance(inner, jex.core.ClosedJaxpr) else jex.core.ClosedJaxpr(inner, ())
  raise NotLocalError('a function that cannot be followed')


def _array(value: Any) -> Any:
  """Returns a NumPy array; a key of random numbers cannot be one."""
  is_key = hasattr(value, 'dtype') and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
  return value if is_key else np.asarray(value)


def _view(name: str, array: np.ndarray, shape: Sequence[int], parameters: dict) -> np.ndarray:
  """Returns what an operation that moves elements makes of an array, by NumPy."""
  if name == 'broadcast_in_dim':
    expanded = [1] * len(shape)
    for axis, length in zip(parameters['broadcast_dimensions'], array.shape, strict=True):
      expanded[axis] = length
    return np.broadcast_to(array.reshape(expanded), shape)
  if name == 'transpose':
    return array.transpose(parameters['permutation'])
  if name == 'slice':
    bounds = parameters['start_indices'], parameters['limit_indices'], (
        parameters['strides'] or [1] * array.ndim)
    return array[tuple(slice(*bound) for bound in zip(*bounds, strict=True))]
  return np.flip(array, parameters['dimensions']) if name == 'rev' else array.reshape(shape)


def _reduce(value: Marks, axes: Sequence[int], where: str) -> Marks:
  first = value.marks[tuple(slice(0, 1) if axis in axes else slice(None)
                            for axis in range(value.marks.ndim))]
  if any(axis != value.marks.ndim - 1 for axis in axes) and (value.marks != first).any():
    raise NotLocalError(where)
  return Marks(value.marks.max(tuple(axes)), value.reach)
