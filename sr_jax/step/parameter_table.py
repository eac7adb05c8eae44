"""A table of a network's arrays by name, as `config.train_only` and `config.freeze` match them."""

import dataclasses

from clu import parameter_overview
from flax import traverse_util

from sr_jax.step.freezing import PyTree, Trainable


@dataclasses.dataclass
class _Row:  # the names of its fields are the heads of clu's table
  name: str
  shape: str
  size: str


@dataclasses.dataclass
class _RowWithFlag(_Row):
  trainable: str


def parameter_table(params: PyTree, trainable: Trainable | None = None) -> str:
  """Returns a table of a network's arrays; if some are frozen, it states which.

  Args:
    params: arrays or shapes.
  """
  arrays = traverse_util.flatten_dict(params, sep='/')
  cells = {name: (name, str(array.shape), f'{array.size:,}')
           for name, array in sorted(arrays.items())}
  total = sum(array.size for array in arrays.values())
  if trainable is None:
    rows = [_Row(*of) for of in cells.values()]
    return f'{parameter_overview.make_table(rows)}\nTotal: {total:,}'
  flags = traverse_util.flatten_dict(trainable.params, sep='/')
  rows = [_RowWithFlag(*of, 'yes' if flags[name] else 'frozen') for name, of in cells.items()]
  trained = sum(array.size for name, array in arrays.items() if flags[name])
  return (f'{parameter_overview.make_table(rows)}\n'
          f'Total: {total:,} ({trained:,} trainable, {total - trained:,} frozen)')
