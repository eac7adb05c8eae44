"""What is said before the first step of a run."""

from sr_jax import restore
from sr_jax.step import freezing
from sr_jax.train_ import announce


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
    lines.append(f'frozen as they are at random: {restore.layers(sorted(random))}; '
                 'config.init_from gives them no weights')
  if initial:
    lines.append(
        f'starts from {initial.origin}: {len(taken)} arrays taken ({restore.layers(taken)})'
        + (f', {len(fresh)} fresh ({restore.layers(fresh)})' if fresh else '')
        + ''.join(f'; {field} {initial.fields[field]}, which the file does not tell'
                  for field in initial.usual))
  return lines
