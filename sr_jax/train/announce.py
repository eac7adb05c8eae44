"""What is printed before and after a run."""

import dataclasses

from clu import parameter_overview
from flax import traverse_util

from sr_jax.runs.metrics_log import read_metrics
from sr_jax.step import freezing
from sr_jax.step.freezing import Trainable
from sr_jax.train import announce
from sr_jax.train.start import layers


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


def opening(experiment, state, skipped, workdir, begin) -> str:
  """The networks, what was left out of the data, the phases."""
  lines = ['Generator', announce.overview(state.g.params, experiment.trainable)]
  if state.d is not None:
    lines += ['Discriminator', announce.overview(state.d.params)]
  lines += [f'skipped {reason}' for reason in skipped]
  if skipped:
    lines.append(f'{len(skipped)} skipped')
  phases = ', '.join(f'{phase.name} to step {phase.stop}' for phase in experiment.phases)
  lines.append(f'{workdir}: {f"goes on from step {begin}" if begin else "begins"}; {phases}')
  return '\n'.join(lines)


def devices(around: dict, last: dict) -> list[str]:
  """On how many a run trains, where they are several; that it goes on with another number.

  Args:
    around, last: of run.json, of this start and of the one before.
  """
  lines, count, processes = [], around['devices'], around['processes']
  if count > 1:
    lines.append(f'{count} devices share each batch' + (
        f', in {processes} processes' if processes > 1 else ''))
  if last.get('devices', count) != count:
    lines.append(f'goes on with {count} of the devices where it had {last["devices"]}: sums are '
                 'rounded in another order, so bits will differ')
  return lines


def start(config, experiment, resumes, initial, taken, fresh, changed) -> list[str]:
  """Where a start takes its weights and settings from.

  Args:
    initial, taken, fresh: of `restore.start_from`; None and [] where it does not.
    changed: of `runs.differences`.
  """
  lines = [f'config.{key} was {before!r} and is {now!r}' for key, (before, now) in changed.items()]
  if resumes and config.init_from:
    lines.append('config.init_from is for the start alone, and not read again')
  random = set(freezing.frozen_names(experiment.trainable)) - set(taken)
  if random and not resumes:
    lines.append(f'frozen as they are at random: {layers(sorted(random))}; '
                 'config.init_from gives them no weights')
  if initial:
    lines.append(
        f'starts from {initial.origin}: {len(taken)} arrays taken ({layers(taken)})'
        + (f', {len(fresh)} fresh ({layers(fresh)})' if fresh else '')
        + ''.join(f'; {field} {initial.fields[field]}, which the file does not tell'
                  for field in initial.assumed))
  return lines
