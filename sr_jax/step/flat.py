"""A network's arrays as long vectors, for operations that treat all numbers alike.

On a GPU each operation is a kernel, which takes some microseconds to start whatever its size.
Adam, the moving average, the non-finite guard and the norms do the same to every weight: a few
kernels if all weights are in two vectors, thousands if each layer has arrays of its own. A FlatTree
is a pytree of such vectors, so `jax.tree.map` and Optax work on it; `FlatTree.tree` gives the named
arrays back, where a network is applied. Checkpoints, exports and tables have the named arrays.
"""

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

PyTree = Any


class Entry(NamedTuple):
  """One array of a network: its path such as 'head/kernel', its shape, and where it is stored."""

  name: str
  shape: tuple[int, ...]
  vector: str  # the key in FlatTree.vectors
  trained: bool


@dataclasses.dataclass(frozen=True)
class Layout:
  """The arrays of a network, in the order of its leaves; static, part of a FlatTree's type."""

  entries: tuple[Entry, ...]
  structure: jax.tree_util.PyTreeDef
  joined: bool


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FlatTree:
  """A nested dict of arrays, stored as vectors.

  Attributes:
    vectors: 'trained kernels' [n], 'trained others' [m] (arrays of at most one dimension: biases,
      scales, slopes) and the same of 'frozen', without empty ones. XLA cuts a bias out of a short
      vector within the operation that adds it, but copies it out of one with all kernels first:
      37 of the 733 kernels of an SRResNet step, 281 of ESRGAN's 3,373. Unless `layout.joined`,
      each array in its shape by its name.
    layout: names and shapes of the arrays.
  """

  vectors: dict[str, jax.Array]
  layout: Layout = dataclasses.field(metadata={'static': True})

  def tree(self) -> PyTree:
    """Returns the nested dict of arrays."""
    return jax.tree.unflatten(self.layout.structure, self.arrays().values())

  def arrays(self) -> dict[str, jax.Array]:
    """Returns {name: array}, in the order of the leaves, of the vectors that this tree has."""
    arrays = {}
    for vector, entries in self._by_vector().items():
      array = self.vectors[vector]
      parts = (_split(array, [entry.shape for entry in entries]) if self.layout.joined
               else [array])
      arrays |= zip((entry.name for entry in entries), parts, strict=True)
    # `vectors`, like any dict in JAX, may be sorted by its keys, which is another order.
    return {entry.name: arrays[entry.name] for entry in self.layout.entries
            if entry.name in arrays}

  @property
  def size(self) -> int:
    """The number of numbers."""
    return sum(vector.size for vector in self.vectors.values())

  def store(self, arrays: Mapping[str, jax.Array]) -> 'FlatTree':
    """Stores arrays of these names and shapes in the vectors that this tree has."""
    vectors = {vector: [arrays[entry.name] for entry in entries]
               for vector, entries in self._by_vector().items()}
    return FlatTree({vector: _join(parts) if self.layout.joined else parts[0]
                     for vector, parts in vectors.items()}, self.layout)

  def flatten(self, tree: PyTree) -> 'FlatTree':
    """Stores a nested dict of the same structure, such as a gradient."""
    names = [entry.name for entry in self.layout.entries]
    return self.store(dict(zip(names, jax.tree.leaves(tree), strict=True)))

  def trained(self) -> 'FlatTree':
    """Returns the part that is trained, which is what optimisers see."""
    trained = {entry.vector for entry in self.layout.entries if entry.trained}
    return FlatTree({name: vector for name, vector in self.vectors.items() if name in trained},
                    self.layout)

  def replace(self, part: 'FlatTree') -> 'FlatTree':
    """Returns this tree with the vectors of `part`; the others keep their bits."""
    return FlatTree(self.vectors | part.vectors, self.layout)

  def _by_vector(self) -> dict[str, list[Entry]]:
    entries = collections.defaultdict(list)
    for entry in self.layout.entries:
      if entry.vector in self.vectors:
        entries[entry.vector].append(entry)
    return entries


def flatten(tree: PyTree, trained: PyTree | None = None, joined: bool = True) -> FlatTree:
  """Stores a nested dict of arrays.

  Args:
    trained: tree of bool of the same structure: arrays that are trained, or statistics of these.
      None is all of them.
    joined: False keeps each array by itself. That is for the CPU, where an operation costs next to
      nothing to start, but XLA took 24 s to compile the slices of RRDB's 702 arrays.
  """
  leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
  flags = [True] * len(leaves) if trained is None else jax.tree.leaves(trained)
  entries = []
  for (path, leaf), flag in zip(leaves, flags, strict=True):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    vector = ('trained' if flag else 'frozen') + (' kernels' if len(leaf.shape) > 1 else ' others')
    entries.append(Entry(name, leaf.shape, vector if joined else name, flag))
  arrays = {entry.name: leaf for entry, (_, leaf) in zip(entries, leaves, strict=True)}
  empty = FlatTree(dict.fromkeys(entry.vector for entry in entries),
                   Layout(tuple(entries), structure, joined))
  return empty.store(arrays)


def vector(tree: PyTree) -> jax.Array:
  """Returns all numbers of a tree of arrays in one vector [n], for sums over all of them.

  XLA takes ten times as long to compile one reduction for each array of a deep network.
  """
  return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def named_arrays(tree: PyTree) -> dict[str, jax.Array]:
  """Returns the arrays of a pytree by their paths, such as 'g/params/head/kernel'.

  A FlatTree counts as the nested dict that it stores.
  """
  arrays = {}
  for path, node in jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_flat):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    arrays |= ({_path(name, inner): array for inner, array in node.arrays().items()}
               if _is_flat(node) else {name: node})
  return arrays


def store_named(target: PyTree, arrays: Mapping[str, jax.Array]) -> PyTree:
  """Returns a pytree of the structure of `target` with arrays named as by `named_arrays`."""
  def stored(path: tuple, node: Any) -> Any:
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    if not _is_flat(node):
      return arrays[name]
    return node.store({entry.name: arrays.get(_path(name, entry.name))
                       for entry in node.layout.entries})

  return jax.tree_util.tree_map_with_path(stored, target, is_leaf=_is_flat)


def by_array(tx: optax.GradientTransformation) -> optax.GradientTransformation:
  """Makes an optimiser see the named arrays of a FlatTree, not its vectors.

  Adam treats every number alike and does not need this. `optax.contrib.muon` takes matrices, and
  `optax.adaptive_grad_clip` the norm of each array.
  """
  def update(grads: FlatTree, state: optax.OptState, params: FlatTree
             ) -> tuple[FlatTree, optax.OptState]:
    updates, state = tx.update(grads.arrays(), state, params.arrays())
    return grads.store(updates), state

  return optax.GradientTransformation(lambda params: tx.init(params.arrays()), update)


def _is_flat(node: Any) -> bool:
  return isinstance(node, FlatTree)


def _path(*names: str) -> str:
  return '/'.join(filter(None, names))


# Kernels of convolutions [h, w, I, O] are stored as [O, h, w, I], which cuDNN takes: in their own
# order, each kernel and each kernel gradient would be transposed by an operation of its own.


def _ravel(array: jax.Array) -> jax.Array:
  numbers = jnp if isinstance(array, jax.Array) else np
  return numbers.ravel(numbers.moveaxis(array, -1, 0) if array.ndim == 4 else array)


def _unravel(vector: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  numbers = jnp if isinstance(vector, jax.Array) else np
  if len(shape) != 4:
    return vector.reshape(shape)
  return numbers.moveaxis(vector.reshape(shape[-1], *shape[:-1]), 0, -1)


def _split(vector: jax.Array | np.ndarray | jax.ShapeDtypeStruct,
           shapes: Sequence[tuple[int, ...]]) -> list[jax.Array]:
  ends = np.cumsum([math.prod(shape) for shape in shapes])
  if isinstance(vector, jax.ShapeDtypeStruct):
    return [jax.ShapeDtypeStruct(shape, vector.dtype, sharding=vector.sharding)
            for shape in shapes]
  if isinstance(vector, jax.core.Tracer):
    # The gradient of `lax.split` is one concatenation, that of slices a sum of padded arrays.
    parts = lax.split(vector, np.diff(ends, prepend=0))
    return [_unravel(part, shape) for part, shape in zip(parts, shapes, strict=True)]
  # Outside of jit on the host: a program of hundreds of slices would take seconds to compile. The
  # copy is needed because a step overwrites its state, whose memory NumPy may share.
  on_device = isinstance(vector, jax.Array)
  parts = np.split(np.array(vector) if on_device else vector, ends[:-1])
  arrays = [_unravel(part, shape) for part, shape in zip(parts, shapes, strict=True)]
  return jax.device_put(arrays, vector.sharding) if on_device else arrays


def _join(arrays: Sequence[jax.Array | np.ndarray]) -> jax.Array:
  if any(isinstance(array, jax.core.Tracer) for array in arrays):
    return jnp.concatenate([_ravel(array) for array in arrays])
  joined = np.concatenate([_ravel(np.asarray(array)) for array in arrays])
  placed = next((array.sharding for array in arrays if isinstance(array, jax.Array)), None)
  return jax.device_put(joined, placed) if placed else joined
