"""Makes a `Graph` of a generator from the operations that JAX traces, its jaxpr.

What is computed from weights alone becomes numbers. What moves pixels is recognised by `movements`,
functions of single numbers by `pointwise`, normalisations by their modules. Other operations are
refused. The graph is traced from images of two sizes and must be the same.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.extend import core as jax_core
from jax.extend.core import Primitive

from sr_jax import images
from sr_jax.errors import InputError
from sr_jax.models import failures
from sr_jax.models.group_norm import GroupNorm
from sr_jax.models.layers import LUMA_RANGE
from sr_jax.pretrained.export import movements, pointwise
from sr_jax.pretrained.export.builder import Moved, Resampled
from sr_jax.pretrained.export.graph import Graph, differing, simplified
from sr_jax.pretrained.export.operations import ARRAYS, Operations

SIZES = (13, 11), (19, 14)  # of the images
BATCH = 2
CALLS = ('jit', 'pjit', 'custom_jvp_call', 'custom_vjp_call', 'closed_call', 'remat', 'checkpoint',
         'remat2')

normalise = Primitive('normalise')  # stands for a module of NORMS in the jaxpr
normalise.def_abstract_eval(lambda x, *_, **__: x)


def _bind_norm(next_call: Callable, args: tuple, kwargs: dict,
               context: nn.module.InterceptorContext) -> Any:
  """Replaces calls of GroupNorm and LayerNorm by `normalise`, for `nn.intercept_methods`."""
  module = context.module
  if context.method_name != '__call__' or len(args) != 1 or kwargs:
    return next_call(*args, **kwargs)
  plain = type(module) is nn.LayerNorm and (module.reduction_axes, module.feature_axes) == (-1, -1)
  if type(module) is not GroupNorm and not plain:
    return next_call(*args, **kwargs)
  given = module.variables.get('params', {})
  ones, zeros = np.ones(args[0].shape[-1], np.float32), np.zeros(args[0].shape[-1], np.float32)
  return normalise.bind(args[0], given.get('scale', ones), given.get('bias', zeros),
                        groups=getattr(module, 'groups', 0), epsilon=module.epsilon)


def channels_of(generator: nn.Module) -> int:
  """Returns the channels of the images that the file of a network has as its input."""
  return 1 if getattr(generator, 'luma_only', False) else getattr(generator, 'channels', 3)


def apply(generator: nn.Module, variables: dict[str, Any], x: jax.Array) -> jax.Array:
  """Computes what a file of a network does, in float32.

  Networks of one channel get luma, of which their layers get grey from 0 to 1 (SRCNN excepted). A
  file gets grey, so both conversions cancel.

  Args:
    x: [B, h, w, C] in [0, 1] with C = `channels_of(generator)`.
  """
  generator = generator.clone(dtype=jnp.float32)
  if channels_of(generator) == 1 and not hasattr(generator, 'luma_only'):
    x = x * LUMA_RANGE + images.BLACK
    return (generator.apply(variables, x) - images.BLACK) / LUMA_RANGE
  return generator.apply(variables, x)


def trace(generator: nn.Module, variables: dict[str, Any]) -> Graph:
  """Returns the graph of a generator.

  Args:
    variables: its variables.

  Raises:
    InputError: the network does what no node does, with the layer's name.
  """
  call = functools.partial(apply, generator, variables)
  graphs = [_trace(generator, call, size) for size in SIZES]
  node = differing(*graphs)
  if node is not None:
    raise InputError(f'layer {node.layer or node.kind} depends on the size of the image in a way '
                     'that cannot be exported')
  return graphs[0]


def _trace(generator: nn.Module, call: Callable, size: tuple[int, int]) -> Graph:
  channels = channels_of(generator)
  lr = jax.ShapeDtypeStruct((BATCH, *size, channels), np.float32)
  with failures.one_line(generator), nn.intercept_methods(_bind_norm):
    # A new function each time: JAX caches traces, and a cached one would call no interceptor.
    jaxpr = jax.make_jaxpr(lambda x: call(x))(lr)
  walk = Walk(size)
  start = Moved(walk.add('input', channels=channels, shape=lr.shape))
  with jax.default_device(jax.devices('cpu')[0]):
    output = walk.resolve(walk.run(jaxpr.jaxpr, jaxpr.consts, [start])[0])
  return simplified(walk.graph.pruned(output))


class Walk(Operations):
  """Translates the equations of a jaxpr to nodes, for a network's input of one size."""

  def run(self, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
    """Returns the results of a jaxpr, arrays of NumPy or of one of the classes above."""
    environment = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *inputs), strict=True))

    def read(atom: Any) -> Any:
      return np.asarray(atom.val) if isinstance(atom, jax_core.Literal) else environment[atom]

    for equation in jaxpr.eqns:
      layer = str(equation.source_info.name_stack)
      outer, self.layer = self.layer, layer.partition('/')[2] or self.layer
      results = self.equation(equation, [read(atom) for atom in equation.invars])
      environment.update(zip(equation.outvars, results, strict=True))
      self.layer = outer
    return [read(atom) for atom in jaxpr.outvars]

  def equation(self, equation: Any, inputs: list[Any]) -> list[Any]:
    """Returns the results of one equation."""
    name, parameters = equation.primitive.name, equation.params
    if name in CALLS:
      return self.call(equation, inputs)
    if all(isinstance(value, ARRAYS) for value in inputs):
      return self.constant(equation, inputs)
    self.result_shape = equation.outvars[0].aval.shape
    if name in movements.MOVES and isinstance(inputs[0], Resampled) and name == 'transpose':
      return [self.reordered(inputs[0], parameters['permutation'])]
    method = getattr(self, f'do_{name}', None)
    if method:
      return [method(*inputs, **parameters)]
    if name in movements.MOVES:
      value = self.moved(inputs[0])
      return [self.recognised(Moved(value.node, movements.MOVES[name](value.index, **parameters)))]
    if name == 'gather' and isinstance(inputs[1], ARRAYS):
      value = self.moved(inputs[0])
      index = np.asarray(equation.primitive.bind(
          *map(jnp.asarray, (value.index, inputs[1])),
          **parameters | {'fill_value': movements.ZERO}))
      return [self.recognised(Moved(value.node, index))]
    raise self.refused(f'the operation {name}')

  def constant(self, equation: Any, inputs: list[Any]) -> list[Any]:
    name = equation.primitive.name
    if name in movements.MOVES:
      return [movements.MOVES[name](np.asarray(inputs[0]), **equation.params)]
    results = equation.primitive.bind(*inputs, **equation.params)
    results = results if equation.primitive.multiple_results else [results]
    return [np.asarray(result) for result in results]

  def call(self, equation: Any, inputs: list[Any]) -> list[Any]:
    """Inlines a call, unless it is a function of single numbers or only moves pixels."""
    parameters = equation.params
    closed = next(parameters[key] for key in ('jaxpr', 'call_jaxpr', 'fun_jaxpr')
                  if key in parameters)
    jaxpr, consts = getattr(closed, 'jaxpr', closed), getattr(closed, 'consts', ())
    nodes = [at for at, value in enumerate(inputs)
             if not isinstance(value, ARRAYS)]
    if len(nodes) == 1 and len(equation.outvars) == 1 and self.greedy:
      at, aval = nodes[0], equation.outvars[0].aval
      if isinstance(inputs[at], Moved) and self.is_function(jaxpr, aval.shape):
        found = self.function(jax_core.ClosedJaxpr(jaxpr, consts), inputs, at)
        if found:
          source = self.resolve(inputs[at])
          return [self.image(self.add(found[0], source, **found[1]))]
      if _only_moves(jaxpr):
        self.greedy = False
        try:
          result = self.run(jaxpr, consts, inputs)[0]
        finally:
          self.greedy = True
        return [self.recognised(self.moved(result)) if isinstance(result, Moved) else result]
    return self.run(jaxpr, consts, inputs)

  def is_function(self, jaxpr: Any, shape: tuple[int, ...]) -> bool:
    """Returns whether a jaxpr is a function of single numbers that cannot be inlined."""
    equations = _equations(jaxpr)
    return len(shape) == 4 and all(
        variable.aval.shape in (shape, ()) for equation in equations
        for variable in (*equation.invars, *equation.outvars)) and not all(
            equation.primitive.name in movements.MOVES
            or hasattr(self, f'do_{equation.primitive.name}') for equation in equations)

  def function(self, jaxpr: Any, inputs: Sequence[Any], at: int
               ) -> tuple[str, dict[str, Any]] | None:
    """Returns the kind and values of the node that computes a function of single numbers."""
    others = [*inputs[:at], *inputs[at + 1:]]
    key = str((jaxpr, [np.asarray(value).tobytes() for value in (*jaxpr.consts, *others)]))
    if key not in self.functions:
      call = jax_core.jaxpr_as_fun(jaxpr)
      self.functions[key] = pointwise.recognise(
          lambda x: call(*inputs[:at], x, *inputs[at + 1:])[0], jaxpr.out_avals[0].shape)
    return self.functions[key]


def _equations(jaxpr: Any) -> list[Any]:
  """Returns the equations of a jaxpr and of those that it calls, without the calls."""
  found = []
  for equation in jaxpr.eqns:
    inner = [value for value in equation.params.values() if hasattr(value, 'eqns') or hasattr(
        value, 'jaxpr')] if equation.primitive.name in CALLS else []
    found += [one for part in inner for one in _equations(getattr(part, 'jaxpr', part))] or (
        [] if equation.primitive.name in CALLS else [equation])
  return found


def _only_moves(jaxpr: Any) -> bool:
  return all(equation.primitive.name in (*movements.MOVES, 'concatenate', 'pad', 'gather')
             for equation in _equations(jaxpr))
