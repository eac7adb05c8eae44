"""Damages the checkpoints of a small run in many ways and counts how often it is detected.

  python -m tests.faults.damage

Every file of the latest two checkpoints is flipped in many places, truncated, emptied, extended and
removed; files are added; folders are emptied and removed. Each time the run is opened as at a
start. For each kind of damage some runs are trained to their end, which must have the same bits as
an undisturbed run. The exit status is 1 if any damage is not detected.
"""

import contextlib
import dataclasses
import functools
import io
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from sr_jax import train
from sr_jax.errors import InputError
from sr_jax.runs.checkpoints import Checkpoints
from sr_jax.step.state import TrainState
from sr_jax.train import previous
from tests.conftest import same_bits
from tests.faults import Run, table

EVERY, STEPS = 4, 12  # steps between checkpoints and in all; the damaged run ends at LATEST
PREVIOUS, LATEST = EVERY, 2 * EVERY
FLIPS = 48  # places in a file at which a bit is flipped
TRAINED = 2  # runs of each kind of damage that are trained to the end


class Damage(NamedTuple):
  """A way to damage a checkpoint."""

  kind: str
  apply: Callable[[], object]
  undo: Callable[[], object]


@dataclasses.dataclass
class Row:
  """Counts for one kind of damage.

  Attributes:
    times: how often it was applied.
    detected: how often it was detected.
    trained: how many runs were trained to the end from there.
    same: how many of them have the bits of an undisturbed run.
    lost: steps lost at most.
  """

  times: int = 0
  detected: int = 0
  trained: int = 0
  same: int = 0
  lost: int = 0


def train_until(config: ml_collections.ConfigDict, workdir: pathlib.Path,
                stop: int = STEPS) -> TrainState | None:
  """Trains, and aborts after the checkpoint of `stop`.

  Returns:
    The state at the end; None if the run was aborted.
  """
  class Aborted(Exception):  # noqa: N818, not an error
    pass

  save = Checkpoints.save

  def save_and_abort(self: Checkpoints, state: TrainState,
                     metrics: dict[str, float] | None = None) -> None:
    save(self, state, metrics)
    if int(state.step) == stop < STEPS:
      self.wait()
      raise Aborted

  Checkpoints.save = save_and_abort
  try:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
      return train.train(config.copy_and_resolve_references(), workdir)
  except Aborted:
    return None
  finally:
    Checkpoints.save = save


def damages(checkpoint: pathlib.Path) -> Iterator[Damage]:
  """Yields the ways to damage the folder of a checkpoint."""
  for path in sorted(path for path in checkpoint.rglob('*') if path.is_file()):
    yield from damages_of_file(path)
  away = checkpoint.parent.parent / 'away'
  for folder in sorted(path for path in (checkpoint, *checkpoint.rglob('*')) if path.is_dir()):
    def empty(folder: pathlib.Path = folder) -> None:
      folder.rename(away)
      folder.mkdir()

    def undo(folder: pathlib.Path = folder) -> None:
      folder.rmdir()
      away.rename(folder)

    yield Damage('an emptied folder', empty, undo)
    if folder != checkpoint:
      yield Damage('a removed folder', functools.partial(folder.rename, away),
                   functools.partial(away.rename, folder))


def damages_of_file(path: pathlib.Path) -> Iterator[Damage]:
  """Yields the ways to damage a file."""
  data = path.read_bytes()

  def rewritten(kind: str, changed: bytes) -> Damage:
    return Damage(kind, functools.partial(path.write_bytes, changed),
                  functools.partial(path.write_bytes, data))

  for position in sorted({int(place) for place in np.linspace(0, len(data) - 1, FLIPS)}):
    changed = bytearray(data)
    changed[position] ^= 1 << position % 8
    yield rewritten('a flipped bit', bytes(changed))
  for size in sorted({len(data) - 1, len(data) // 2}):
    yield rewritten('truncated', data[:size])
  yield rewritten('emptied', b'')
  yield rewritten('longer', data + b'\0')
  yield Damage('removed', path.unlink, functools.partial(path.write_bytes, data))
  added = path.with_name('more')
  yield Damage('an added file', added.touch, added.unlink)


def opened(workdir: pathlib.Path) -> tuple[int | None, str]:
  """Returns (the step that a start would resume from, what it prints or raises)."""
  printed = io.StringIO()
  with contextlib.redirect_stdout(printed):
    try:
      return previous.stopped_at(workdir)[0], printed.getvalue()
    except InputError as error:
      return None, str(error)


def refusal(workdir: pathlib.Path, step: int) -> str:
  """Returns why the checkpoint of `step` is refused; '' if it is not."""
  checkpoints = Checkpoints(workdir, read_only=True)
  try:
    checkpoints.resolve_step(step)
    return ''
  except InputError as error:
    return str(error)


class Campaign:
  """Damages a run in FOLDER/run, which was aborted at LATEST, and counts.

  Attributes:
    rows: {kind of damage: its counts}.
    problems: descriptions of damage that was not detected.
  """

  def __init__(self, folder: pathlib.Path) -> None:
    self.rows, self.problems = {}, []
    self._run, self._copy = folder / 'run', folder / 'copy'
    self._config = Run(folder, 'run').config()
    self._config.data.valid, self._config.data.cache = '', str(folder / 'cache')
    self._config.steps, self._config.warmup_steps = STEPS, EVERY
    self._config.checkpoint_every = EVERY
    self._undisturbed = train_until(self._config, folder / 'undisturbed')
    train_until(self._config, self._run, LATEST)

  def _checkpoint(self, step: int) -> pathlib.Path:
    return self._run / 'checkpoints' / str(step)

  def damage_one(self, step: int) -> None:
    """Damages the checkpoint of `step` in every way, one after another."""
    which = 'the latest' if step == LATEST else 'the previous'
    for damage in damages(self._checkpoint(step)):
      damage.apply()
      row = self.rows.setdefault(f'{damage.kind}, {which}', Row())
      row.times += 1
      resumed, text = opened(self._run)
      detected = self._is_detected(step, resumed, text)
      row.detected += detected
      row.lost = max(row.lost, LATEST - (resumed or 0))
      if not detected:
        self.problems.append(f'{self._checkpoint(step)}: {damage.kind}: {text}')
      if row.times <= TRAINED and step == LATEST:
        self._train_copy(row)
      damage.undo()

  def _is_detected(self, step: int, resumed: int | None, text: str) -> bool:
    path = self._checkpoint(step)
    if str(path) not in refusal(self._run, step):
      return False
    if step == LATEST:
      return resumed == PREVIOUS and str(path) in text
    return resumed == LATEST

  def _train_copy(self, row: Row) -> None:
    """Trains a copy of the damaged run to its end, because a start moves damaged checkpoints."""
    shutil.rmtree(self._copy, ignore_errors=True)
    shutil.copytree(self._run, self._copy)
    row.trained += 1
    row.same += same_bits(train_until(self._config, self._copy), self._undisturbed) == []

  def damage_all(self) -> None:
    """Damages every checkpoint at once: the run must be refused rather than started over."""
    if opened(self._run) != (LATEST, ''):
      self.problems.append(f'undone, and not intact: {opened(self._run)}')
    for step in (PREVIOUS, LATEST):
      (self._checkpoint(step) / 'manifest.txt').write_bytes(b'')
    resumed, text = opened(self._run)
    detected = resumed is None and all(
        f'{step}: manifest.txt is damaged' in text for step in (PREVIOUS, LATEST))
    self.rows['all are damaged'] = Row(times=1, detected=int(detected))
    if not detected:
      self.problems.append(f'all damaged: {resumed}, {text}')


def main() -> int:
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    jax.config.update('jax_compilation_cache_dir', str(folder / 'xla'))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    campaign = Campaign(folder)
    for step in (LATEST, PREVIOUS):
      campaign.damage_one(step)
    campaign.damage_all()
  print(table(['damage', 'times', 'detected', 'trained on from there', 'with the same bits',
               'steps lost at most'],
              [[kind, *dataclasses.astuple(row)] for kind, row in campaign.rows.items()]))
  print(*campaign.problems[:20], sep='\n')
  return int(bool(campaign.problems)
             or any(row.same != row.trained for row in campaign.rows.values()))


if __name__ == '__main__':
  sys.exit(main())
