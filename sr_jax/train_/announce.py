"""What is printed before and after a run."""

import dataclasses

from clu import parameter_overview
from flax import traverse_util

from sr_jax.runs.metrics_log import read_metrics
from sr_jax.step.freezing import Trainable


@dataclasses.dataclass
class _Row:
  name: str
  shape: str
  size: str
  trains: str


def overview(params, trainable: Trainable | None = None) -> str:
  """A table of a network's arrays; where some are frozen, it says which."""
  if trainable is None:
    return parameter_overview.get_parameter_overview(params)
  arrays, learns = (traverse_util.flatten_dict(tree, sep='/')
                    for tree in (params, trainable.params))
  rows = [_Row(name, str(array.shape), f'{array.size:,}', 'yes' if learns[name] else 'frozen')
          for name, array in sorted(arrays.items())]
  sizes = [sum(array.size for name, array in arrays.items() if learns[name] == kind)
           for kind in (True, False)]
  return (f'{parameter_overview.make_table(rows)}\n'
          f'Total: {sum(sizes):,}, of which {sizes[0]:,} train and {sizes[1]:,} are frozen')


def print_validations(workdir) -> None:
  """The run at a glance: figures against step, bicubic first; a table for each set."""
  lines = read_metrics(workdir)
  rows = {kind: [line for line in lines if any(name.startswith(f'{kind}/') for name in line)]
          for kind in ('valid', 'test')}
  for kind in filter(rows.get, rows):
    _print_table(rows[kind], f'{kind}/', f'data.{kind}' if rows['test'] else '')


def _print_table(rows: list[dict], prefix: str, title: str) -> None:
  names = dict.fromkeys(name for row in rows for name in row if name.startswith(prefix))
  heads = (name.removeprefix(prefix) for name in names)
  print(f'\n{title}' if title else '')
  print(f'{"step":>8}  {"phase":10}' + ''.join(f'  {head:>10}' for head in heads))
  for row in rows:  # null is an infinite PSNR; a figure may be missing of an earlier start
    cells = (f'{row[name]:.4f}' if row.get(name) is not None else '' for name in names)
    print(f'{row["step"]:>8}  {row["phase"]:10}' + ''.join(f'  {cell:>10}' for cell in cells))
