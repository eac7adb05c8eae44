"""The user's own loss and metric functions that a config names as 'module:name'."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sr_jax import losses
from sr_jax.errors import InputError
from sr_jax.metrics.own import OwnMetric, find_metric
from sr_jax.system import user_code, user_failures

EXPECTED = ('a function of (sr, hr), float32 JAX arrays [B, H, W, C] in [0, 1], that returns a '
            'float scalar')


def find_pixel(config: ConfigDict, shape: Sequence[int]) -> str | losses.Distance:
  """Returns `config.loss.pixel.kind`: a name in `losses.PIXEL`, or the user's own function.

  Args:
    shape: of the HR batches that the function is tried with.

  Raises:
    InputError: as for `find_distance`.
  """
  kind, is_used = config.loss.pixel.kind, config.loss.pixel.weight or config.warmup_steps
  if kind in losses.PIXEL or not is_used:
    return kind
  return find_distance(kind, 'config.loss.pixel.kind', shape)


def find_terms(config: ConfigDict, shape: Sequence[int]) -> dict[str, losses.Term]:
  """Returns the terms of `config.loss.extra` whose weight is not zero, by name."""
  return {name: losses.Term(find_distance(term.fn, f'config.loss.extra.{name}.fn', shape),
                            term.weight)
          for name, term in config.loss.extra.items() if term.weight}


def find_distance(spec: str, key: str, shape: Sequence[int]) -> losses.Distance:
  """Returns the loss function that 'module:name' names, after a trial without computing anything.

  Args:
    key: full name of the key that contains `spec`.
    shape: [B, H, W, C] that the function is traced with.

  Raises:
    InputError: the function cannot be found, raises an exception, cannot be traced or
      differentiated by JAX, or does not return a float scalar.
  """
  function, where = user_code.find_function(spec, key, EXPECTED), f'{key}={spec!r}'
  images = [jax.ShapeDtypeStruct(tuple(shape), jnp.float32)] * 2
  with user_failures.one_line(where, EXPECTED):
    # Traced anew in each trial: JAX keeps the result of a function that it has traced before.
    result = jax.eval_shape(lambda sr, hr: function(sr, hr), *images)
  if (not isinstance(result, jax.ShapeDtypeStruct) or result.shape
      or not jnp.issubdtype(result.dtype, jnp.floating)):
    shown = (f'{result.dtype} {list(result.shape)}' if isinstance(result, jax.ShapeDtypeStruct)
             else f'a {type(result).__name__}')
    raise InputError(f'{where}: returns {shown}; expected {EXPECTED}')
  with user_failures.one_line(f'{where}: its gradient', EXPECTED):
    jax.eval_shape(jax.grad(lambda sr, hr: jnp.float32(function(sr, hr))), *images)
  return function


def find_metrics(config: ConfigDict) -> dict[str, OwnMetric]:
  """Returns the metrics of `config.eval.extra` by name, without those whose function is ''.

  Raises:
    InputError: a function cannot be found, or its module may not be imported.
  """
  return {name: find_metric(fields.fn, f'config.eval.extra.{name}.fn', fields.better)
          for name, fields in config.eval.extra.items() if fields.fn}
