"""What XLA fuses into one loop, where its own choice would be several times slower."""

from collections.abc import Callable

import jax


def run_apart(run: jax.Array, function: Callable[[jax.Array], jax.Array], array: jax.Array
              ) -> jax.Array:
  """Computes `function(array)`, on a CPU without fusing it with what comes before and after.

  XLA for the CPU fuses a function into each that reads its result, and computes it again for each
  sample that these read; it also fuses a reshaping of the result, whose last axis becomes the
  inner loop. Both can take four times as long.

  Args:
    run: bool, whether to compute the function; otherwise the array is returned. It may only be
      False where both are the same, because a GPU computes the function in any case.
    function: keeps shape and type.
    array: its argument.
  """
  if jax.default_backend() == 'cpu':
    # XLA for the CPU removes barriers before it fuses, but it fuses nothing with a branch.
    return jax.lax.cond(run, function, lambda array: array, array)
  # On a GPU a branch would wait for the host, and XLA knows what fusing costs.
  return function(array)
