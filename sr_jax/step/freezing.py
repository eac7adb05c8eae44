"""Which arrays of a generator are trained: `config.train_only` and `config.freeze`.

A frozen array gets no gradient, no update, no weight decay and no optimiser state, and keeps its
bits. A BatchNorm whose scale and bias are both frozen also keeps its running statistics and
normalises with them, as it does at inference.
"""

import contextlib
import difflib
import fnmatch
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import linen as nn
from flax import traverse_util
from jax import lax

from sr_jax.errors import InputError, listed
from sr_jax.models.batch_norm import BatchNorm

PyTree = Any


class Trainable(NamedTuple):
  """Trees of bool with the structure of a generator's variables: whether an array is trained.

  Functions take None to mean that all arrays are.
  """

  params: PyTree
  batch_stats: PyTree


def select(shapes: dict, train_only: str, freeze: str) -> Trainable:
  """Selects the trainable arrays by two lists of patterns.

  A pattern is a glob that matches a name, as `sr-jax summary` prints it, or the beginning of one up
  to a slash: 'head' and 'body_*' select everything in these layers. Commas separate patterns.

  Args:
    shapes: {'params', 'batch_stats'} of the generator, arrays or shapes.
    train_only: the arrays to train; '' selects all of them.
    freeze: the arrays among these not to train.

  Returns:
    True for each trainable array, and for BatchNorm's statistics if its scale or bias is trainable.

  Raises:
    InputError: a pattern matches nothing, or no array is left to train.
  """
  names = list(traverse_util.flatten_dict(shapes['params'], sep='/'))
  selected, excluded = (_matching(names, text, key) for key, text in (
      ('train_only', train_only), ('freeze', freeze)))
  trained = {name for name in names
             if (not train_only or name in selected) and name not in excluded}
  if not trained:
    raise InputError(f'config.train_only={train_only!r}, config.freeze={freeze!r}: every array '
                     'is frozen, nothing is left to train')
  modules = {name.rpartition('/')[0] for name in trained}
  stats = traverse_util.flatten_dict(shapes['batch_stats'], sep='/')
  return Trainable(*(traverse_util.unflatten_dict(flags, sep='/') for flags in (
      {name: name in trained for name in names},
      {name: name.rpartition('/')[0] in modules for name in stats})))


def _matching(names: list[str], text: str, key: str) -> set[str]:
  """Returns the names that match a pattern in `text`; every pattern must match at least one."""
  found, patterns = set(), [part.strip() for part in text.split(',') if part.strip()]
  if text and not patterns:
    raise InputError(f'config.{key}={text!r}: contains no pattern')
  for pattern in patterns:
    matched = {name for name in names
               if any(fnmatch.fnmatchcase(name, glob) for glob in (pattern, f'{pattern}/*'))}
    if not matched:
      prefixes = ['/'.join(name.split('/')[:depth]) for name in names
                  for depth in range(1, name.count('/') + 2)]
      close = difflib.get_close_matches(pattern, dict.fromkeys(prefixes), n=5, cutoff=0.4)
      close = close or list(dict.fromkeys(name.split('/')[0] for name in names))
      raise InputError(f'config.{key}: {pattern!r} matches no array of the generator; did you mean '
                       f'{listed(close, most=5)}?')
    found |= matched
  return found


def frozen_names(trainable: Trainable | None) -> list[str]:
  """Returns the names of the frozen arrays, such as 'params/head/kernel'."""
  flags = traverse_util.flatten_dict(trainable.params, sep='/') if trainable else {}
  return [f'params/{name}' for name, is_trained in flags.items() if not is_trained]


def stop_frozen_gradients(params: PyTree, trainable: Trainable | None) -> PyTree:
  """Stops the gradients of the frozen arrays, so that they are not computed."""
  if trainable is None:
    return params
  return jax.tree.map(lambda array, is_trained: array if is_trained else lax.stop_gradient(array),
                      params, trainable.params)


def freeze_norms(trainable: Trainable | None) -> contextlib.AbstractContextManager[None]:
  """Makes frozen BatchNorms use their running statistics inside the context, whatever `train`."""
  if trainable is None:
    return contextlib.nullcontext()
  frozen = {path[:-1] for path, is_trained in traverse_util.flatten_dict(
      trainable.batch_stats).items() if not is_trained}

  def call(next_function: Callable, args: tuple, kwargs: dict[str, Any],
           context: nn.module.InterceptorContext) -> Any:
    if isinstance(context.module, (BatchNorm, nn.BatchNorm)) and context.module.path in frozen:
      kwargs = kwargs | {'use_running_average': True}
    return next_function(*args, **kwargs)

  return nn.intercept_methods(call)
