"""Translates the operations of JAX, its primitives, to nodes."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from sr_jax.pretrained.export import movements
from sr_jax.pretrained.export.builder import Builder, Compared, Moved, Resampled

ARRAYS = np.ndarray | np.generic | jax.Array  # numbers that were computed from weights alone


class Operations(Builder):
  """A method do_NAME for each primitive; arguments are values, keywords its parameters."""

  def do_conv_general_dilated(self, x: Any, kernel: np.ndarray, *, dimension_numbers: Any,
                              window_strides: Sequence[int], padding: Sequence[Sequence[int]],
                              lhs_dilation: Sequence[int], rhs_dilation: Sequence[int],
                              feature_group_count: int, batch_group_count: int,
                              **_: Any) -> Moved:
    specs = (dimension_numbers.lhs_spec, dimension_numbers.rhs_spec, dimension_numbers.out_spec)
    if (specs != ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)) or batch_group_count != 1
        or not isinstance(kernel, ARRAYS)):
      raise self.refused('a convolution that is not of [B, h, w, C] with trained weights')
    if set(lhs_dilation) != {1}:
      raise self.refused('a transposed convolution')
    (top, bottom), (left, right) = padding
    return self.image(self.add(
        'conv', self.resolve(x), shape=self.result_shape, bias=None,
        weight=np.asarray(kernel).transpose(3, 2, 0, 1), strides=tuple(window_strides),
        dilation=tuple(rhs_dilation), groups=feature_group_count,
        pads=(top, left, bottom, right)))

  def do_dot_general(self, a: Any, b: Any, *, dimension_numbers: Any, **_: Any
                     ) -> Moved | Resampled:
    (a_axes, b_axes), batches = dimension_numbers
    swapped = not isinstance(a, Moved | Resampled)
    x, matrix, axes, matrix_axes = (b, a, b_axes, a_axes) if swapped else (a, b, a_axes, b_axes)
    if batches != ((), ()) or np.ndim(matrix) != 2 or len(axes) != 1 or isinstance(
        matrix, Moved | Resampled):
      raise self.refused('a product of two computed arrays')
    x, axis = self.resolve(x), axes[0]
    matrix = np.asarray(matrix) if matrix_axes[0] == 1 else np.asarray(matrix).T
    others = [at for at in range(4) if at != axis]
    order = (axis, *others) if swapped else (*others, axis)
    if axis == 3 and order == (0, 1, 2, 3):
      values = movements.plain_conv(matrix[:, :, None, None], None)
      return self.image(self.add('conv', x, shape=self.result_shape, **values))
    return Resampled(x, axis, np.float64(matrix), order)

  def do_normalise(self, x: Any, scale: Any, bias: Any, *, groups: int, epsilon: float) -> Moved:
    kind, values = ('group_norm', {'groups': groups}) if groups else ('layer_norm', {})
    return self.image(self.add(kind, self.resolve(x), scale=np.asarray(scale),
                               bias=np.asarray(bias), epsilon=epsilon, **values))

  def do_concatenate(self, *parts: Any, dimension: int) -> Moved:
    if not self.greedy and all(isinstance(part, Moved) for part in parts) and len(
        {part.node for part in parts}) == 1:
      return Moved(parts[0].node, np.concatenate([self.moved(part).index for part in parts],
                                                 dimension))
    if dimension != 3 or any(isinstance(part, ARRAYS) for part in parts):
      raise self.refused('a concatenation along another axis than channels')
    return self.image(self.add('concat', *map(self.resolve, parts), shape=self.result_shape))

  def do_pad(self, x: Any, value: Any, *, padding_config: Sequence[Sequence[int]]) -> Moved:
    if np.any(value) or any(inner or min(sides) < 0 for *sides, inner in padding_config):
      raise self.refused('a padding that is not of zeros')
    x = self.moved(x)
    index = np.pad(x.index, [sides[:2] for sides in padding_config],
                   constant_values=movements.ZERO)
    return self.recognised(Moved(x.node, index))

  def do_convert_element_type(self, x: Any, *, new_dtype: Any, **_: Any) -> Any:
    if not np.issubdtype(new_dtype, np.floating):
      raise self.refused(f'numbers of type {new_dtype}')
    return x

  def do_add(self, a: Any, b: Any, **_: Any) -> Any:
    if isinstance(a, Resampled) and isinstance(b, Resampled) and (a.node, a.axis) == (
        b.node, b.axis):
      return dataclasses.replace(a, matrix=a.matrix + b.matrix)
    return self.with_constant('offset', a, b) or self.binary('add', a, b)

  def do_sub(self, a: Any, b: Any, **_: Any) -> Any:
    if isinstance(b, ARRAYS):
      return self.with_constant('offset', a, -np.asarray(b))
    if isinstance(a, ARRAYS):
      return self.do_add(self.do_mul(b, np.float32(-1)), a)
    return self.binary('sub', a, b)

  def do_mul(self, a: Any, b: Any, **_: Any) -> Any:
    return self.with_constant('times', a, b) or self.binary('mul', a, b)

  def do_div(self, a: Any, b: Any, **_: Any) -> Any:
    if isinstance(b, ARRAYS):
      return self.with_constant('times', a, np.float32(1 / np.float64(b)))
    if isinstance(a, ARRAYS):
      raise self.refused('a division by an image')
    return self.binary('div', a, b)

  def do_neg(self, x: Any, **_: Any) -> Any:
    return self.do_mul(x, np.float32(-1))

  def do_square(self, x: Any, **_: Any) -> Any:
    return self.binary('mul', x, x)

  def do_integer_pow(self, x: Any, *, y: int, **_: Any) -> Any:
    if y not in (2, 3):
      raise self.refused(f'a power of {y}')
    square = self.binary('mul', x, x)
    return square if y == 2 else self.binary('mul', square, x)

  def do_max(self, a: Any, b: Any, **_: Any) -> Any:
    x, limit = (b, a) if isinstance(a, ARRAYS) else (a, b)
    if not isinstance(limit, ARRAYS) or np.any(limit):
      raise self.refused('a maximum that is not ReLU')
    return self.image(self.add('relu', self.resolve(x)))

  def do_tanh(self, x: Any, **_: Any) -> Any:
    return self.image(self.add('tanh', self.resolve(x)))

  def do_logistic(self, x: Any, **_: Any) -> Any:
    return self.image(self.add('sigmoid', self.resolve(x)))

  def do_erfc(self, x: Any, **_: Any) -> Any:
    return self.image(self.add('erfc', self.resolve(x)))

  def do_ge(self, a: Any, b: Any, **_: Any) -> Compared:
    if not isinstance(b, ARRAYS) or np.any(b):
      raise self.refused('a comparison')
    return Compared(self.resolve(a))

  do_gt = do_ge

  def do_select_n(self, condition: Any, otherwise: Any, chosen: Any) -> Any:
    if isinstance(condition, Compared) and isinstance(otherwise, Moved) and isinstance(
        chosen, Moved):
      x, scaled = self.resolve(chosen), self.graph.nodes[self.resolve(otherwise)]
      if condition.node == x and (scaled.kind, scaled.inputs) == ('times', (x,)):
        slope = scaled.values['value']
        return self.image(self.add('prelu', x, slope=slope) if np.ndim(slope) else
                          self.add('leaky', x, slope=float(slope)))
    raise self.refused('a choice between two arrays')

  def binary(self, kind: str, a: Any, b: Any) -> Moved:
    a, b = self.resolve(a), self.resolve(b)
    if self.shapes[a] != self.shapes[b]:
      raise self.refused('an operation on images of different shapes')
    half, error = (self.graph.nodes[at] for at in (a, b))
    if kind == 'mul' and half.kind == 'times' and error.kind == 'erfc':  # x / 2 * erfc(-x / sqrt 2)
      inner = self.graph.nodes[error.inputs[0]]
      if (inner.kind, inner.inputs) == ('times', half.inputs) and np.allclose(
          (half.values['value'], inner.values['value']), (0.5, -np.sqrt(0.5))):
        return self.image(self.add('gelu', *half.inputs))
    return self.image(self.add(kind, a, b))

  def with_constant(self, kind: str, a: Any, b: Any) -> Any:
    """Returns a + b or a * b where one is a constant, else None."""
    x, value = (b, a) if isinstance(a, ARRAYS) else (a, b)
    if isinstance(value, Moved | Resampled):
      return None
    value = np.asarray(value)
    if kind == 'offset' and not value.any():
      return x
    if isinstance(x, Moved) and kind == 'times' and value.ndim == 4 and max(value.shape[1:3]) > 1:
      resampled = self.weighted(self.moved(x), value)
      if resampled:
        return resampled
    x = self.resolve(x)
    channels = self.shapes[x][3]
    if value.size > 1:
      flat = np.broadcast_to(value, (*value.shape[:-1], channels)).reshape(-1, channels)
      if not (flat == flat[0]).all():
        raise self.refused('numbers that depend on the position in the image')
      value = flat[0]
    elif value.ndim and channels > 1:
      value = value.reshape(())
    elif value.ndim and channels == 1:
      value = value.reshape(1)
    return self.image(self.add(kind, x, value=value if value.ndim else float(value)))

  def weighted(self, x: Moved, weights: np.ndarray) -> Resampled | None:
    """Returns chosen rows or columns of an image times weights of theirs, or None if it is not."""
    shape = self.shapes[x.node]
    for axis in (1, 2):
      rest = [at for at in range(4) if at != axis]
      if [x.index.shape[at] for at in rest] != [shape[at] for at in rest] or any(
          weights.shape[at] != 1 and np.ptp(weights, at).any() for at in rest):
        continue
      chosen = np.moveaxis(x.index, axis, 0)[:, 0, 0, 0] // int(np.prod(shape[axis + 1:]))
      if len(chosen) != shape[axis] and np.array_equal(
          x.index, movements.numbered(shape).take(chosen, axis)):
        column = np.broadcast_to(np.moveaxis(weights, axis, 0)[:, 0, 0, 0], len(chosen))
        matrix = np.zeros((len(chosen), shape[axis]))
        matrix[np.arange(len(chosen)), chosen] = column
        return Resampled(x.node, axis, matrix, (0, 1, 2, 3))
    return None
