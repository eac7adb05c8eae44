"""Muon: matrices are updated by their orthogonalised momentum, all other arrays by Adam."""

import collections
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from sr_jax.step.flat import Entry, FlatTree, flatten

ADAM_BETA1 = 0.9  # of the arrays that are no matrices
RMS = 0.2  # root mean square of an update before the learning rate, about that of Adam
IMAGE_CHANNELS = 4  # a kernel with at most as many inputs or outputs reads or writes an image


class MuonState(NamedTuple):
  """The states of the two optimisers.

  `matrices` has the momentum of all kernels of one shape in one array, `others` the moments of the
  other arrays by name.
  """

  matrices: optax.OptState
  others: optax.OptState


def scale_by_muon(beta1: float = 0.95, beta2: float = 0.999,
                  epsilon: float = 1e-8) -> optax.GradientTransformation:
  """Returns Muon (Jordan et al. 2024) for the weights of a network, before the learning rate.

  The Nesterov momentum of each kernel is orthogonalised by five Newton-Schulz iterations
  (`optax.contrib.scale_by_muon`). A kernel of a convolution [h, w, I, O] is the matrix [h * w * I,
  O], as in the authors' code. The update is multiplied by 0.2 * sqrt(larger side of the matrix)
  (Liu et al. 2025), so that its size, and with it the learning rate, is that of Adam. The authors
  leave the first and the last layer, embeddings, biases and scales to Adam, and so does
  `is_matrix`.

  Kernels of one shape are orthogonalised together: a few large products on a GPU in place of
  hundreds of small ones, and the same for vectors of joined arrays and for separate ones. With
  several devices each of them does all of it, on the sum of their gradients.

  Args:
    beta1: decay of the momentum of matrices; the other arrays have `ADAM_BETA1`.
    beta2, epsilon: of Adam.
  """
  orthogonalise = optax.contrib.scale_by_muon(
      beta=beta1, weight_dimension_numbers=lambda stacks: jax.tree.map(
          lambda _: optax.contrib.MuonDimensionNumbers(1, 2), stacks))
  adam = optax.scale_by_adam(ADAM_BETA1, beta2, epsilon)

  def init(params: FlatTree) -> MuonState:
    stacks, others = _split(params)
    return MuonState(orthogonalise.init(stacks), adam.init(others))

  def update(grads: FlatTree, state: MuonState, params: FlatTree | None = None
             ) -> tuple[FlatTree, MuonState]:
    del params
    stacks, others = _split(grads)
    stacks, matrices_state = orthogonalise.update(stacks, state.matrices)
    others, others_state = adam.update(others, state.others)
    stacks = {shape: RMS * max(stack.shape[1:])**0.5 * stack for shape, stack in stacks.items()}
    return grads.store(_unstacked(grads, stacks) | others.arrays()), MuonState(
        matrices_state, others_state)

  return optax.GradientTransformation(init, update)


def is_matrix(entry: Entry) -> bool:
  """Returns whether Muon orthogonalises an array: the kernel of a hidden layer.

  It is called 'kernel', as in Flax, and multiplies more than `IMAGE_CHANNELS` channels to more than
  as many. Tables of position biases are no kernels, and depthwise kernels have one input each.
  """
  return (entry.name.rpartition('/')[2] == 'kernel' and len(entry.shape) > 1
          and min(entry.shape[-2:]) > IMAGE_CHANNELS)


def _matrices(tree: FlatTree) -> dict[str, list[Entry]]:
  """Returns {'576x64': entries} of the matrices that a tree has, by their shapes."""
  groups = collections.defaultdict(list)
  for entry in tree.layout.entries:
    if entry.vector in tree.vectors and is_matrix(entry):
      *inputs, outputs = entry.shape
      groups[f'{math.prod(inputs)}x{outputs}'].append(entry)
  return groups


def _split(tree: FlatTree) -> tuple[dict[str, jax.Array], FlatTree]:
  """Returns ({'576x64': [n, 576, 64]}, the arrays that are no matrices)."""
  arrays, groups = tree.arrays(), _matrices(tree)
  stacks = {shape: jnp.stack([arrays[entry.name].reshape(-1, entry.shape[-1])
                              for entry in entries]) for shape, entries in groups.items()}
  matrices = {entry.name for entries in groups.values() for entry in entries}
  return stacks, flatten({name: array for name, array in arrays.items() if name not in matrices},
                         joined=tree.layout.joined)


def _unstacked(tree: FlatTree, stacks: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """Returns the matrices in `stacks` by name, each in the shape that it has in `tree`."""
  return {entry.name: matrix.reshape(entry.shape)
          for shape, entries in _matrices(tree).items()
          for entry, matrix in zip(entries, stacks[shape], strict=True)}
