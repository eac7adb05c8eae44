"""Degradations of the HR crops of a training step."""

from collections.abc import Callable
from typing import Any

import jax

from sr_jax.data.augment import step_keys
from sr_jax.system import sharding

# (HR crops [B, P, P, C], seed, step) -> what the degrader returns for them
DegradeStep = Callable[[jax.Array, int | jax.Array, int | jax.Array], Any]


def degrade_steps(degrader: Callable[[jax.Array, jax.Array], Any],
                  mesh: jax.sharding.Mesh | None) -> DegradeStep:
  """Returns a function that degrades the HR crops of a step, each device its own crops.

  What is drawn for a crop depends on the seed, the step and its place in the batch alone.

  Args:
    degrader: a `Degrader`, or its `with_draws`.
    mesh: the devices that share a batch; None is one device.
  """
  degrade = sharding.on_each_device(degrader, mesh)

  def degrade_step(hr: jax.Array, seed: int | jax.Array, step: int | jax.Array) -> Any:
    keys = jax.random.split(step_keys(seed, step).degradation, len(hr))
    return degrade(hr, keys)

  return degrade_step
