"""Damages the checkpoints of a small run in every way there is, and counts what becomes of it.

  python -m tests.faults.damage

Every file of the latest checkpoint, and of the one before, is flipped at many places, cut off,
emptied and removed; files are added; folders are emptied and removed. Each time the run is opened
as a start opens it; of each kind of damage some are trained on from to the end, which must have
the bits of a run that nothing happened to. Exit status 1 where one is taken for whole.
"""

import contextlib
import io
import pathlib
import shutil
import sys
import tempfile

import jax
import numpy as np

from sr_jax import train
from sr_jax.errors import InputError
from sr_jax.runs.checkpoints import Checkpoints
from sr_jax.train import start
from tests.conftest import same_bits
from tests.faults import Run, table

EVERY, STEPS = 4, 12  # the plug is taken out at 8
PLACES = 48  # of a file, at which a bit is flipped


def run_to(config, workdir, stop: int = STEPS):
  """The state at the end, or None of a run that is cut off after the checkpoint of `stop`."""
  class Unplugged(Exception):  # noqa: N818
    pass

  save = Checkpoints.save

  def save_and_stop(self, state, metrics=None):
    save(self, state, metrics)
    if int(state.step) == stop < STEPS:
      self.wait()
      raise Unplugged

  Checkpoints.save = save_and_stop
  try:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
      return train.train(config.copy_and_resolve_references(), workdir)
  except Unplugged:
    return None
  finally:
    Checkpoints.save = save


def faults(place: pathlib.Path):
  """(kind, what does it, what undoes it) of a checkpoint's folder."""
  def putting_back(path, kind, change):
    whole = path.read_bytes()
    return kind, change, lambda: path.write_bytes(whole)

  for path in sorted(path for path in place.rglob('*') if path.is_file()):
    data = path.read_bytes()
    for at in sorted({int(at) for at in np.linspace(0, len(data) - 1, PLACES)}):
      changed = bytearray(data)
      changed[at] ^= 1 << at % 8
      yield putting_back(path, 'a flipped bit', lambda p=path, d=changed: p.write_bytes(d))
    for size in sorted({len(data) - 1, len(data) // 2}):
      yield putting_back(path, 'cut off', lambda p=path, d=data[:size]: p.write_bytes(d))
    yield putting_back(path, 'emptied', lambda p=path: p.write_bytes(b''))
    yield putting_back(path, 'longer', lambda p=path, d=data: p.write_bytes(d + b'\0'))
    yield putting_back(path, 'removed', path.unlink)
    more = path.with_name('more')
    yield 'a file too many', more.touch, more.unlink
  away = place.parent.parent / 'away'
  for folder in sorted(path for path in (place, *place.rglob('*')) if path.is_dir()):
    def empty(folder=folder):
      folder.rename(away)
      folder.mkdir()

    def undo(folder=folder):
      folder.rmdir()
      away.rename(folder)

    yield 'an emptied folder', empty, undo
    if folder != place:
      yield ('a removed folder', lambda folder=folder: folder.rename(away),
             lambda folder=folder: away.rename(folder))


def opened(workdir) -> tuple[int | None, str]:
  """(the step that a start would go on from, what it says)."""
  said = io.StringIO()
  with contextlib.redirect_stdout(said):
    try:
      return start.stopped_at(workdir)[0], said.getvalue()
    except InputError as error:
      return None, str(error)


def refused(workdir, step: int) -> str:
  """Why the checkpoint of `step` is; '' where it is not."""
  checkpoints = Checkpoints(workdir, read_only=True)
  try:
    checkpoints.resolve_step(step)
    return ''
  except InputError as error:
    return str(error)


def main() -> int:
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    jax.config.update('jax_compilation_cache_dir', str(folder / 'xla'))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    config = Run(folder, 'run').config()
    config.data.valid, config.data.cache = '', str(folder / 'cache')
    config.steps, config.warmup_steps, config.checkpoint_every = STEPS, EVERY, EVERY
    whole = run_to(config, folder / 'whole')
    run, copy = folder / 'run', folder / 'copy'
    run_to(config, run, 2 * EVERY)
    shutil.copytree(run, copy)
    before, latest = (run / 'checkpoints' / str(step) for step in (EVERY, 2 * EVERY))
    rows, wrong = {}, []
    for place, (kind, change, undo) in (
        (damaged, fault) for damaged in (latest, before) for fault in faults(damaged)):
      change()
      row = rows.setdefault(f'{kind}, the {"latest" if place == latest else "one before"}',
                            {'times': 0, 'found': 0, 'trained': 0, 'same': 0, 'lost': 0})
      row['times'] += 1
      step, said = opened(run)
      fine = str(place) in refused(run, int(place.name))  # asked for by number
      fine &= (step == EVERY and str(latest) in said) if place == latest else step == 2 * EVERY
      row['found'] += fine
      row['lost'] = max(row['lost'], 2 * EVERY - (step or 0))
      if not fine:
        wrong.append(f'{place}: {kind}: {said}')
      if row['times'] in (1, 2) and place == latest:  # copied, for a start moves what is damaged
        shutil.rmtree(copy)
        shutil.copytree(run, copy)
        row['trained'] += 1
        row['same'] += same_bits(run_to(config, copy), whole) == []
      undo()
    if opened(run) != (2 * EVERY, ''):
      wrong.append(f'put back, and not whole: {opened(run)}')
    # All of them: refused, and nothing is begun anew.
    for place in (before, latest):
      (place / 'manifest.txt').write_bytes(b'')
    none = rows.setdefault('all are damaged', dict.fromkeys(('trained', 'same', 'lost'), 0))
    step, said = opened(run)
    none |= {'times': 1, 'found': int(step is None and all(
        f'{place.name}: manifest.txt is damaged' in said for place in (before, latest)))}
    if not none['found']:
      wrong.append(f'all damaged: {step}, {said}')
  print(table(['damage', 'times', 'found', 'trained on from there', 'with the same bits',
               'steps lost at most'],
              [[kind, *(row[name] for name in ('times', 'found', 'trained', 'same', 'lost'))]
               for kind, row in rows.items()]))
  print(*wrong[:20], sep='\n')
  return int(bool(wrong) or any(row['same'] != row['trained'] for row in rows.values()))


if __name__ == '__main__':
  sys.exit(main())
