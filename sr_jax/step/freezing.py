"""Which arrays of a generator train: `config.train_only` and `config.freeze`.

A frozen array gets no gradient, no update, no weight decay and no moments, and keeps its bits.
A BatchNorm whose scale and bias are both frozen keeps its running statistics too and
normalises by them, as it will when the network is used.
"""

import contextlib
import difflib
import fnmatch
from typing import Any, NamedTuple

import jax
import optax
from flax import linen as nn
from flax import traverse_util
from jax import lax

from sr_jax.errors import InputError, listed

PyTree = Any


class Trainable(NamedTuple):
  """Trees of bool beside a generator's variables: whether an array trains. None is all do."""

  params: PyTree
  batch_stats: PyTree


def select(shapes: dict, train_only: str, freeze: str) -> Trainable:
  """The arrays that two lists of patterns leave to train.

  A pattern is a glob over the names that are printed when a run starts, or over the front
  of one: 'head' and 'body_*' mean all that is in them. Several are joined by commas.

  Args:
    shapes: {'params', 'batch_stats'} of the generator, arrays or shapes.
    train_only: what trains, and nothing else; '' is everything.
    freeze: what of that does not train.

  Returns:
    True for each array that trains; of BatchNorm's statistics, where its scale or bias does.

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
  modules = {name.rpartition('/')[0] for name in left}
  stats = traverse_util.flatten_dict(shapes['batch_stats'], sep='/')
  return Trainable(*(traverse_util.unflatten_dict(flags, sep='/') for flags in (
      {name: name in left for name in names},
      {name: name.rpartition('/')[0] in modules for name in stats})))


def _matching(names: list[str], text: str, key: str) -> set[str]:
  """The names that one of the patterns in text matches, each of which must match some."""
  found, patterns = set(), [part.strip() for part in text.split(',') if part.strip()]
  if text and not patterns:
    raise InputError(f'config.{key}={text!r}: no pattern in it')
  for pattern in patterns:
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


def frozen_names(trainable: Trainable | None) -> list[str]:
  """'params/head/kernel', ... of the arrays that do not train."""
  flags = traverse_util.flatten_dict(trainable.params, sep='/') if trainable else {}
  return [f'params/{name}' for name, learns in flags.items() if not learns]


def optimizer(tx: optax.GradientTransformation,
              trainable: Trainable | None) -> optax.GradientTransformation:
  """tx for the arrays that train; the others have no place in its state, and no update."""
  if trainable is None:
    return tx
  labels = jax.tree.map(lambda learns: 'trains' if learns else 'frozen', trainable.params)
  return optax.partition({'trains': tx, 'frozen': optax.set_to_zero()}, labels)


def stop_frozen_gradients(params: PyTree, trainable: Trainable | None) -> PyTree:
  """params, through whose frozen arrays no gradient flows, so that none is computed."""
  if trainable is None:
    return params
  return jax.tree.map(lambda array, learns: array if learns else lax.stop_gradient(array),
                      params, trainable.params)


def keep_frozen(old: dict, new: dict, trainable: Trainable | None) -> dict:
  """{'params', 'batch_stats'} of `new`, but the frozen arrays of `old`.

  An update of zero would do but for the sign of a zero.
  """
  if trainable is None:
    return new
  return jax.tree.map(lambda old, new, learns: new if learns else old, old, new,
                      trainable._asdict())


def freeze_norms(trainable: Trainable | None):
  """A context in which a frozen BatchNorm is called as in evaluation, whatever `train`."""
  if trainable is None:
    return contextlib.nullcontext()
  still = {path[:-1] for path, learns in traverse_util.flatten_dict(
      trainable.batch_stats).items() if not learns}

  def call(next_function, args, kwargs, context):
    if isinstance(context.module, nn.BatchNorm) and context.module.path in still:
      kwargs = kwargs | {'use_running_average': True}
    return next_function(*args, **kwargs)

  return nn.intercept_methods(call)
