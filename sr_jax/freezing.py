"""Which arrays of a generator train: `config.train_only` and `config.freeze`.

A frozen array gets no gradient, no update, no weight decay and no moments, and keeps its bits.
A BatchNorm whose scale and bias are both frozen keeps its running statistics too and
normalises by them, as it will when the network is used.
"""

import dataclasses
import difflib
import fnmatch
from typing import Any, NamedTuple

import jax
import optax
from clu import parameter_overview
from flax import linen as nn
from flax import traverse_util
from jax import lax

from sr_jax.errors import InputError, listed

PyTree = Any


class Trains(NamedTuple):
  """For each array, whether it trains: trees of bool beside a generator's variables."""

  params: PyTree
  batch_stats: PyTree


def select(shapes: dict, train_only: str, freeze: str) -> Trains:
  """The arrays that two lists of patterns leave to train.

  A pattern is a glob over the names that are printed when a run starts, or over the front
  of one: 'head' and 'body_*' mean all that is in them. Several are joined by commas.

  Args:
    shapes: {'params', 'batch_stats'} of the generator, arrays or shapes.
    train_only: what trains, and nothing else; '' is everything.
    freeze: what of that does not train.

  Raises:
    InputError: a pattern that matches nothing, or nothing is left to train.
  """
  names = list(traverse_util.flatten_dict(shapes['params'], sep='/'))
  only, never = (_matching(names, text, key) for key, text in (
      ('train_only', train_only), ('freeze', freeze)))
  left = {name for name in names if (not train_only or name in only) and name not in never}
  if not left:
    raise InputError(f'config.train_only={train_only!r}, config.freeze={freeze!r}: every array '
                     'is frozen, nothing is left to train')
  norms = {name.rpartition('/')[0] for name in left}
  stats = traverse_util.flatten_dict(shapes['batch_stats'], sep='/')
  return Trains(
      traverse_util.unflatten_dict({name: name in left for name in names}, sep='/'),
      traverse_util.unflatten_dict({name: name.rpartition('/')[0] in norms for name in stats},
                                   sep='/'))


def _matching(names: list[str], text: str, key: str) -> set[str]:
  """The names that one of the patterns in text matches, each of which must match some."""
  found = set()
  for pattern in (part.strip() for part in text.split(',') if part.strip()):
    matched = {name for name in names
               if any(fnmatch.fnmatchcase(name, wanted) for wanted in (pattern, f'{pattern}/*'))}
    if not matched:
      fronts = ['/'.join(name.split('/')[:depth]) for name in names
                for depth in range(1, name.count('/') + 2)]
      near = difflib.get_close_matches(pattern, dict.fromkeys(fronts), n=5, cutoff=0.4)
      near = near or list(dict.fromkeys(name.split('/')[0] for name in names))
      raise InputError(f'config.{key}: no array of the generator is called {pattern!r}; there '
                       f'is {listed(near, most=5)}')
    found |= matched
  return found


def optimizer(tx: optax.GradientTransformation, trains: Trains | None):
  """tx for the arrays that train; the others have no place in its state, and no update."""
  if trains is None:
    return tx
  labels = jax.tree.map(lambda trains: 'trains' if trains else 'frozen', trains.params)
  return optax.partition({'trains': tx, 'frozen': optax.set_to_zero()}, labels)


def held(params: PyTree, trains: Trains | None) -> PyTree:
  """params, through whose frozen arrays no gradient flows, so that none is computed."""
  if trains is None:
    return params
  return jax.tree.map(lambda array, trains: array if trains else lax.stop_gradient(array),
                      params, trains.params)


def changed(old: dict, new: dict, trains: Trains | None) -> dict:
  """{'params', 'batch_stats'} of `new`, but the frozen arrays of `old`.

  An update of zero would do but for the sign of a zero.
  """
  if trains is None:
    return new
  return jax.tree.map(lambda old, new, trains: new if trains else old, old, new,
                      trains._asdict())


def still_norms(trains: Trains | None):
  """A context in which a frozen BatchNorm is called as in evaluation, whatever `train`."""
  stats = traverse_util.flatten_dict(trains.batch_stats if trains else {})
  still = {path[:-1] for path, trains in stats.items() if not trains}

  def call(next_function, args, kwargs, context):
    if isinstance(context.module, nn.BatchNorm) and context.module.path in still:
      kwargs = kwargs | {'use_running_average': True}
    return next_function(*args, **kwargs)

  return nn.intercept_methods(call)


@dataclasses.dataclass
class _Row:
  name: str
  shape: str
  size: str
  trains: str


def overview(params: PyTree, trains: Trains | None) -> str:
  """A table of the arrays; where some are frozen, it says which."""
  if trains is None:
    return parameter_overview.get_parameter_overview(params)
  arrays, flags = (traverse_util.flatten_dict(tree, sep='/') for tree in (params, trains.params))
  rows = [_Row(name, str(array.shape), f'{array.size:,}', 'yes' if flags[name] else 'frozen')
          for name, array in sorted(arrays.items())]
  training = sum(array.size for name, array in arrays.items() if flags[name])
  total = sum(array.size for array in arrays.values())
  return (f'{parameter_overview.make_table(rows)}\n'
          f'Total: {total:,}, of which {training:,} train and {total - training:,} are frozen')
