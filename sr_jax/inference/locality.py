"""Finds out from a network's jaxpr whether it may be computed in windows, and with which halo.

A window of an image gives the result of the whole image only if each pixel of the result depends on
pixels nearby, in the same way everywhere. `examine` follows single pixels through the jaxpr of a
network and notes which elements of each array depend on them. Operations that only move elements
are applied to these marks themselves; convolutions and pooling spread them; whatever else mixes
positions (a mean over the image, attention, an FFT, a cumulative sum, a loop) makes the network
'not local'. So do marks that two neighbouring pixels don't leave alike, which is what strides,
windows with fixed borders and shifts do, and arrays that differ from position to position, such as
a position embedding. The weights have no effect: nothing is concluded from values that happen to
be small.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend as jex
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

# Sides of the probed images. What depends on the side differs between the two of a pair; the second
# pair is for networks that see further than the first shows.
SIDES = (24, 32), (64, 80)

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


class Locality(NamedTuple):
  """What a pixel of the result depends on.

  Attributes:
    reach: how far it sees, in pixels of the probes; None: not local, so that the call needs the
      whole image.
    zero_padded: the only thing that notices the image's border is the zero padding of `nn.Conv`
      at the resolution of the probes.
    reason: why the call is not local, or ''.
  """

  reach: float | None
  zero_padded: bool = False
  reason: str = ''


class _NotLocalError(Exception):
  """The call is not local; the argument says why."""


class _Marks(NamedTuple):
  """An array that depends on the image.

  Attributes:
    marks: float32, of the array's shape: above 0 where an element depends on the marked pixel.
    reach: how far the marks had spread before they were last set back to single pixels.
  """

  marks: np.ndarray
  reach: float = 0


def examine(call: Callable[..., jax.Array], variables: Any, *inputs: tuple[int, int, Any]
            ) -> Locality:
  """Returns whether a call is local, and its reach.

  Nothing is computed but marks on small arrays, on the CPU.

  Args:
    call: a function of (variables, *images) such as a flax module's `apply`.
    variables: the module's variables, or their shapes.
    *inputs: for each image (unit, channels, dtype): it is [B, n * unit, n * unit, channels], and
      a pixel that is marked is a block of `unit` x `unit` of its pixels.
  """
  for sides in SIDES:
    first, walked = _examine_at(sides[0], call, variables, inputs)
    if walked is None:
      continue
    if first.reach is not None:
      second, walked_again = _examine_at(sides[1], call, variables, inputs)
      if second.reach is None or abs(second.reach - first.reach) > 1e-6 or walked != walked_again:
        return Locality(None, reason='what it computes depends on the size of the image')
    break
  return first


def _examine_at(side: int, call: Callable[..., jax.Array], variables: Any,
                inputs: Sequence[tuple[int, int, Any]]) -> tuple[Locality, list | None]:
  """Returns `examine`'s result from images of n = side, and the operations.

  None instead of operations says that larger images might give another result.
  """
  probes = _Probes(side)
  images = [jax.ShapeDtypeStruct((probes.count, side * unit, side * unit, channels), dtype)
            for unit, channels, dtype in inputs]
  padded_by_layers = [0]

  def count(next_call: Callable, args: tuple, kwargs: dict,
            context: nn.module.InterceptorContext) -> Any:
    padded_by_layers[0] += isinstance(
        context.module, nn.Conv) and context.method_name == '__call__'
    return next_call(*args, **kwargs)

  try:
    with nn.intercept_methods(count):
      # A new function each time: JAX caches traces, and a cached one would call no interceptor.
      jaxpr = jax.make_jaxpr(lambda *arguments: call(*arguments))(variables, *images)
  except (TypeError, ValueError) as error:  # an image of this size is refused
    return Locality(None, reason=f'an image of {images[0].shape[1]}x{images[0].shape[2]} is not '
                    f'accepted: {str(error).splitlines()[0]}'), None
  free = [_stand_in(leaf) for leaf in jax.tree.leaves(variables)]
  marked = [_Marks(probes.single(*image.shape[1:])) for image in images]
  walk = _Walk(probes)
  try:
    with (jax.default_device(jax.devices('cpu')[0]), jax.ensure_compile_time_eval(),
          np.errstate(over='ignore', invalid='ignore')):
      results = walk.run(jaxpr, [*free, *marked])
  except _NotLocalError as error:
    return Locality(None, reason=str(error)), walk.operations
  settled = isinstance(results[0], _Marks) and probes.settle(results[0])
  if not settled or len(results) > 1:
    return Locality(None, reason=walk.suspect or 'its pixels depend on their position'), (
        None if probes.too_far else walk.operations)
  zero_padded = walk.zero_padded and walk.convolutions == padded_by_layers[0]
  return Locality(settled.reach, zero_padded), walk.operations


def _stand_in(leaf: Any) -> np.ndarray:
  """Returns different positive numbers in place of weights, whose values must not matter."""
  numbers = np.random.default_rng(0).uniform(0.5, 1.5, 997)  # a prime: no two rows are equal
  return np.resize(numbers, leaf.shape).astype(leaf.dtype)


class _Probes:
  """The pixels that are followed, one in each image of a batch.

  The first two are neighbours in the middle; the others are near the border, where an image that
  is rolled or padded circularly shows what it takes from the opposite border.
  """

  def __init__(self, side: int) -> None:
    middle, last = side // 2, side - 1
    self.side = side
    self.rows = np.array([middle, middle + 1, 0, last, 1, last - 1])
    self.columns = np.array([middle, middle + 1, 0, last, last - 1, middle])
    self.count = len(self.rows)
    self.single = functools.lru_cache(self._single)
    self.too_far = False  # marks were found further away than these images show

  def _single(self, height: int, width: int, channels: int) -> np.ndarray:
    """Returns marks [B, h, w, C] of the probed pixels alone, at this resolution."""
    y, x = (np.arange(length) * self.side // length for length in (height, width))
    marks = ((y == self.rows[:, None])[:, :, None, None]
             & (x == self.columns[:, None])[:, None, :, None])
    return np.broadcast_to(np.float32(marks), (self.count, height, width, channels))

  def settle(self, value: _Marks) -> _Marks | None:
    """Adds the spread of the marks to the reach, and sets them back to single pixels.

    Returns:
      None if the array is no image, or its marks differ from pixel to pixel or are far away.
    """
    marks = value.marks
    if (marks.ndim != 4 or len(marks) != self.count or marks.shape[1] % self.side
        or marks.shape[1] != marks.shape[2] or not marks.size):
      return None
    zoom = marks.shape[1] // self.side
    single = self.single(*marks.shape[1:])
    if marks is single:
      return value
    flat = marks[..., :1] if not marks.strides[3] else marks
    # Neighbours leave the same marks, one pixel apart.
    if not np.allclose(flat[1, zoom:, zoom:], flat[0, :-zoom, :-zoom], rtol=1e-3, atol=1e-6):
      return None
    spread = 0
    for positions, seen in ((self.rows, flat.max((2, 3)) > 0), (self.columns,
                                                               flat.max((1, 3)) > 0)):
      if not seen.any(1).all():  # a border is cut off
        return None
      for position, line in zip(positions, seen, strict=True):
        index = np.flatnonzero(line)
        spread = max(spread, position * zoom - index[0], index[-1] + 1 - (position + 1) * zoom)
    if spread >= (self.side // 2 - 1) * zoom:
      self.too_far = True
      return None
    return _Marks(single, value.reach + float(spread) / zoom)


class _Walk:
  """Follows marks through a jaxpr.

  Attributes:
    suspect: the first operation that may be why the result is not local, or ''.
    zero_padded: no operation but convolutions at the probes' resolution mixed positions.
    convolutions: number of convolutions of arrays that depend on the image.
    operations: of such arrays, with the numbers that could depend on the image's size.
  """

  def __init__(self, probes: _Probes) -> None:
    self._probes = probes
    self.suspect, self.zero_padded, self.convolutions = '', True, 0
    self.operations: list[tuple] = []
    self._outer: list[str] = []  # the modules and functions whose jaxpr is being followed

  def run(self, closed: jex.core.ClosedJaxpr, arguments: Sequence[Any]) -> list[Any]:
    """Returns the results of a jaxpr: `_Marks`, or arrays that don't depend on the image."""
    jaxpr = closed.jaxpr
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*closed.consts, *arguments],
                      strict=True))

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
    marked = [value for value in inputs if isinstance(value, _Marks)]
    where = self._where(equation)
    if marked:
      numbers = [value.item() for value in inputs
                 if not isinstance(value, _Marks) and not value.ndim]
      self.operations.append((name, numbers, parameters.get('padding'),
                              parameters.get('rhs_dilation')))
    if name in _VIEWS:
      if not marked:
        return [_view(name, np.asarray(inputs[0]), shape, parameters)]
      self._suspect(where, name == 'rev' or (
          name == 'slice' and shape[:-1] != marked[0].marks.shape[:-1]))
      return [_Marks(_view(name, marked[0].marks, shape, parameters), marked[0].reach)]
    if not marked:
      results = equation.primitive.bind(*inputs, **parameters)
      results = results if equation.primitive.multiple_results else [results]
      return [np.asarray(result) if not jnp.issubdtype(result.dtype, jax.dtypes.prng_key)
              else result for result in results]
    if name in _ELEMENTWISE or name == 'concatenate':
      return [self._combine(name, parameters, inputs, shape, where)]
    if name in _REDUCTIONS:
      return [_reduce(marked[0], parameters['axes'], where)]
    if len(marked) > 1 or (not isinstance(inputs[0], _Marks) and name != 'dot_general'):
      raise _NotLocalError(where)  # such as attention, or filters that depend on the image
    value = marked[0]
    if name in _INDEXING:
      self._suspect(where)
      known = [jnp.asarray(value.marks), *inputs[1:]]
      return [_Marks(np.asarray(equation.primitive.bind(*known, **parameters)), value.reach)]
    if name == 'split':
      self._suspect(where, parameters['axis'] != value.marks.ndim - 1)
      ends = np.cumsum(parameters['sizes'])[:-1]
      return [_Marks(part, value.reach)
              for part in np.split(value.marks, ends, parameters['axis'])]
    if name == 'pad':
      self._suspect(where)
      return [_Marks(np.asarray(lax.pad(value.marks, np.float32(0), parameters['padding_config'])),
                     value.reach)]
    spread = {'conv_general_dilated': self._convolve, 'dot_general': self._multiply}.get(
        name, self._pool if name in _POOLING else None)
    if not spread:
      raise _NotLocalError(where)
    result = _Marks(np.broadcast_to(spread(parameters, inputs, where), shape), value.reach)
    return [self._probes.settle(result) or result]

  def _where(self, equation: jex.core.JaxprEqn) -> str:
    """Returns 'reduce_sum in body_0/attention': the operation and the module that uses it."""
    path = '/'.join(filter(None, [*self._outer, str(equation.source_info.name_stack)]))
    return equation.primitive.name + (f' in {path}' if path else '')

  def _suspect(self, where: str, is_suspect: bool = True) -> None:
    if is_suspect:
      self.suspect, self.zero_padded = self.suspect or where, False

  def _combine(self, name: str, parameters: dict, inputs: list[Any], shape: Sequence[int],
               where: str) -> _Marks:
    """Returns the marks of a result that combines elements of equal position, or of several."""
    for value in inputs:
      if not isinstance(value, _Marks) and self._depends_on_position(np.asarray(value)):
        raise _NotLocalError(f'{where} of an array that differs from position to position')
    if len({value.reach for value in inputs if isinstance(value, _Marks)}) > 1:
      # Otherwise the spread of one and the reach of the other would be added.
      inputs = [value if not isinstance(value, _Marks) else self._probes.settle(value) or value
                for value in inputs]
    reach = max(value.reach for value in inputs if isinstance(value, _Marks))
    if name == 'concatenate':
      axis = parameters['dimension']
      if axis != len(shape) - 1:
        self._suspect(where)
      marks = [value.marks if isinstance(value, _Marks) else np.zeros(np.shape(value), np.float32)
               for value in inputs]
      if axis == len(shape) - 1 and not any(array.strides[-1] for array in marks):
        first = functools.reduce(np.maximum, [array[..., :1] for array in marks])
        return _Marks(np.broadcast_to(first, shape), reach)  # of all channels; never too few
      return _Marks(np.concatenate(marks, axis), reach)
    marks = [value.marks[..., :1] if value.marks.ndim and not value.marks.strides[-1]
             else value.marks for value in inputs if isinstance(value, _Marks)]
    marks = list({id(array.base if array.base is not None else array): array
                  for array in marks}.values())
    return _Marks(np.broadcast_to(functools.reduce(np.maximum, marks), shape), reach)

  def _depends_on_position(self, array: np.ndarray) -> bool:
    """Returns whether an array differs along an axis but the last, which holds the channels.

    It may repeat at each pixel, such as the weights of an interpolation at a higher resolution.
    """
    for axis in range(array.ndim - 1):
      if array.strides[axis] and array.shape[axis] > 1:
        zoom, rest = divmod(array.shape[axis], self._probes.side)
        period = zoom if array.ndim == 4 and axis in (1, 2) and zoom and not rest else 1
        moved = np.moveaxis(array, axis, 0)
        if not np.allclose(moved[period:], moved[:-period], rtol=1e-5, atol=1e-7):
          return True
    return False

  def _convolve(self, parameters: dict, inputs: list[Any], where: str) -> np.ndarray:
    marks, numbers = inputs[0].marks, parameters['dimension_numbers']
    if (marks.ndim != 4 or numbers.lhs_spec != (0, 3, 1, 2) or numbers.out_spec != (0, 3, 1, 2)
        or parameters['batch_group_count'] != 1):
      raise _NotLocalError(where)
    if math.prod(parameters['window_strides']) > 1:
      self._suspect(where)
    self.convolutions += 1
    marks = marks[..., :1] if not marks.strides[3] else marks.max(3, keepdims=True)
    kernel = tuple(np.shape(inputs[1])[axis] for axis in numbers.rhs_spec[2:])
    result = np.asarray(lax.conv_general_dilated(
        marks, np.ones((*kernel, 1, 1), np.float32), parameters['window_strides'],
        parameters['padding'], parameters['lhs_dilation'], parameters['rhs_dilation'],
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'), precision='highest'))
    if not marks.shape[1:3] == result.shape[1:3] == (self._probes.side,) * 2:
      self.zero_padded = False
    return np.maximum(np.rint(result), 0) if kernel == (1, 1) else result

  def _pool(self, parameters: dict, inputs: list[Any], where: str) -> np.ndarray:
    self._suspect(where)
    return np.asarray(lax.reduce_window(
        inputs[0].marks, np.float32(0), lax.add, parameters['window_dimensions'],
        parameters['window_strides'], parameters['padding'], parameters['base_dilation'],
        parameters['window_dilation']))

  def _multiply(self, parameters: dict, inputs: list[Any], where: str) -> np.ndarray:
    """Returns the marks of a matrix product with an array that doesn't depend on the image."""
    ((left, right), (left_batch, _)) = parameters['dimension_numbers']
    first = isinstance(inputs[0], _Marks)
    contracted = left if first else right
    if contracted != (inputs[not first].marks.ndim - 1,) or left_batch:
      self._suspect(where)
    arrays = [value.marks if isinstance(value, _Marks) else np.abs(np.float32(value))
              for value in inputs]
    return np.asarray(lax.dot_general(*arrays, parameters['dimension_numbers'],
                                      precision='highest'))


def _nested(parameters: dict) -> jex.core.ClosedJaxpr:
  """Returns the function that an operation such as `jit` or `custom_jvp_call` calls."""
  for key in ('jaxpr', 'call_jaxpr', 'fun_jaxpr'):
    if key in parameters:
      inner = parameters[key]
      return inner if isinstance(inner, jex.core.ClosedJaxpr) else jex.core.ClosedJaxpr(inner, ())
  raise _NotLocalError('a function that cannot be followed')


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


def _reduce(value: _Marks, axes: Sequence[int], where: str) -> _Marks:
  first = value.marks[tuple(slice(0, 1) if axis in axes else slice(None)
                            for axis in range(value.marks.ndim))]
  if any(axis != value.marks.ndim - 1 for axis in axes) and (value.marks != first).any():
    raise _NotLocalError(where)
  return _Marks(value.marks.max(tuple(axes)), value.reach)
