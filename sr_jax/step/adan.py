"""Adan, an adaptive optimiser with Nesterov's momentum."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

PyTree = Any


class AdanState(NamedTuple):
  """The means of gradients, of their differences and of squares, and the last gradient."""

  count: jax.Array  # int32: steps taken
  mean: PyTree
  difference: PyTree
  square: PyTree
  last: PyTree


def scale_by_adan(beta1: float = 0.98, beta2: float = 0.92, beta3: float = 0.99,
                  epsilon: float = 1e-8) -> optax.GradientTransformation:
  """Returns Adan (Xie et al. 2022, algorithm 1) before weight decay and the learning rate.

  Decays are those of the authors' code: 0.98, 0.92, 0.99 are 0.02, 0.08, 0.01 in the paper. The
  difference of two gradients counts `beta2` times, as in the paper and in that code.
  `optax.scale_by_adan` (0.2.8) takes 1 - beta2 there, 0.08 in place of 0.92 (google-deepmind/optax
  #1715).

  Args:
    beta1, beta2, beta3: decays of the means of gradients, differences and squares.
    epsilon: added to the root of the mean square.
  """
  def init(params: PyTree) -> AdanState:
    return AdanState(jnp.int32(0), *(jax.tree.map(jnp.zeros_like, params) for _ in range(4)))

  def update(grads: PyTree, state: AdanState, params: PyTree | None = None
             ) -> tuple[PyTree, AdanState]:
    del params
    difference = jax.tree.map(lambda new, old: jnp.where(state.count == 0, 0, new - old), grads,
                              state.last)
    nesterov = jax.tree.map(lambda grad, change: grad + beta2 * change, grads, difference)
    count = state.count + 1
    means = [optax.tree.update_moment(new, old, beta, order) for new, old, beta, order in (
        (grads, state.mean, beta1, 1), (difference, state.difference, beta2, 1),
        (nesterov, state.square, beta3, 2))]
    unbiased = [optax.tree.bias_correction(mean, beta, count)
                for mean, beta in zip(means, (beta1, beta2, beta3), strict=True)]
    updates = jax.tree.map(lambda mean, change, square: (mean + beta2 * change) / (
        jnp.sqrt(square) + epsilon), *unbiased)
    return updates, AdanState(count, *means, grads)

  return optax.GradientTransformation(init, update)
