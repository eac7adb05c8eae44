"""What a run carries from step to step, and nothing else. All of it is in the checkpoint."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

PyTree = Any


class NetState(NamedTuple):
  """One network: its weights, its BatchNorm statistics, its optimiser's moments."""

  params: PyTree
  batch_stats: PyTree  # {} without BatchNorm
  opt_state: PyTree


class Health(NamedTuple):
  """How a run has fared, counted on the device; int32 (sr_jax/step/nonfinite.py counts)."""

  skipped: jax.Array = np.int32(0)  # updates that were left out, in all
  bad: jax.Array = np.int32(0)  # of them, the last in a row, up to now
  # Steps in a row in which D took every real and every generated picture for what it is.
  saturated: jax.Array = np.int32(0)


class TrainState(NamedTuple):
  """A run. `d` is None where there is no discriminator."""

  step: jax.Array  # int32: steps done, which is also the number of the next batch
  seed: jax.Array  # int32: with `step`, all the randomness there is
  g: NetState
  d: NetState | None
  ema: dict[str, PyTree]  # {'params', 'batch_stats'}: the generator's moving average
  health: Health = Health()


def init_state(seed: int, generator, g_tx, lr_shape, discriminator=None, d_tx=None,
               hr_shape=None) -> TrainState:
  """The state at step 0, a function of the seed alone.

  Args:
    lr_shape, hr_shape: [B, H, W, C] of what generator and discriminator will see.
  """
  @jax.jit  # both in one program: most of the time goes into compiling the random numbers
  def variables():
    g_key, d_key = jax.random.split(jax.random.key(seed))
    return (generator.init(g_key, jnp.zeros(lr_shape)),
            discriminator and discriminator.init(d_key, jnp.zeros(hr_shape)))

  g, d = (found and NetState(found['params'], found.get('batch_stats', {}),
                             tx.init(found['params']))
          for found, tx in zip(variables(), (g_tx, d_tx), strict=True))
  # Copies: the step donates the state, and a buffer can't be given away twice.
  ema = jax.tree.map(jnp.copy, {'params': g.params, 'batch_stats': g.batch_stats})
  return TrainState(jnp.int32(0), jnp.int32(seed), g, d, ema,
                    Health(jnp.int32(0), jnp.int32(0), jnp.int32(0)))
