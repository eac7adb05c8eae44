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

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from sr_jax.inference.marks_walk import NotLocalError, Walk
from sr_jax.inference.probes import Marks, Probes
from sr_jax.system import user_failures

# Sides of the probed images. What depends on the side differs between the two of a pair; the second
# pair is for networks that see further than the first shows.
SIDES = (24, 32), (64, 80)


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
  probes = Probes(side)
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
  except user_failures.RAISED as error:  # an image of this size is refused
    return Locality(None, reason=f'an image of {images[0].shape[1]}x{images[0].shape[2]} is not '
                    f'accepted: {user_failures.shortened(error)}'), None
  free = [_stand_in(leaf) for leaf in jax.tree.leaves(variables)]
  marked = [Marks(probes.single(*image.shape[1:])) for image in images]
  walk = Walk(probes)
  try:
    with (jax.default_device(jax.devices('cpu')[0]), jax.ensure_compile_time_eval(),
          np.errstate(over='ignore', invalid='ignore')):
      results = walk.run(jaxpr, [*free, *marked])
  except NotLocalError as error:
    return Locality(None, reason=str(error)), walk.operations
  settled = isinstance(results[0], Marks) and probes.settle(results[0])
  if not settled or len(results) > 1:
    return Locality(None, reason=walk.suspect or 'its pixels depend on their position'), (
        None if probes.too_far else walk.operations)
  zero_padded = walk.zero_padded and walk.convolutions == padded_by_layers[0]
  return Locality(settled.reach, zero_padded), walk.operations


def _stand_in(leaf: Any) -> np.ndarray:
  """Returns different positive numbers in place of weights, whose values must not matter."""
  numbers = np.random.default_rng(0).uniform(0.5, 1.5, 997)  # a prime: no two rows are equal
  return np.resize(numbers, leaf.shape).astype(leaf.dtype)
