"""Which checkpoints a run has, which of them are intact and which is the best.

Works on files alone, without Orbax. A checkpoint is intact if its files match its manifest
(sr_jax/runs/manifest.py). Checks are lazy and their results are cached: `latest` checks the newest
checkpoint and falls back to older ones, `best` and a number check only the one that they need.
"""

import json
import math
import pathlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence

from sr_jax.errors import InputError, listed
from sr_jax.runs import manifest
from sr_jax.system.text import better_when_lower

# Suffixes of folders that an interrupted save or deletion leaves behind.
LEFTOVER_SUFFIXES = ('.saving', '.deleted', '.orbax-checkpoint-tmp')


class CheckpointIndex:
  """The checkpoints in a folder, each in a subfolder named by its step.

  Attributes:
    damaged: {step: description of its first fault} of the checkpoints checked so far.
  """

  def __init__(self, folder: pathlib.Path, best_metric: str, warn: Callable[[str], None],
               lower_is_better: bool | None = None) -> None:
    self.folder, self.best_metric, self.damaged = folder, best_metric, {}
    self._lower_is_better = (better_when_lower(best_metric) if lower_is_better is None
                             else lower_is_better)
    self._warn, self._warned = warn, set()  # steps whose damage has been reported
    self._intact, self._scores = set(), {}

  def path(self, step: int) -> pathlib.Path:
    """Returns the folder of a step."""
    return self.folder / str(step)

  def steps(self) -> list[int]:
    """Returns the steps that have a folder, intact or not.

    Raises:
      InputError: the folder cannot be read.
    """
    try:
      names = [path.name for path in self.folder.iterdir() if path.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
      return []
    except OSError as error:
      raise InputError(f'{self.folder}: cannot read ({error.strerror})') from None
    return sorted(int(name) for name in names if re.fullmatch('0|[1-9][0-9]*', name))

  def is_intact(self, step: int) -> bool:
    """Returns whether the checkpoint of `step` exists and matches its manifest."""
    if step not in self._intact and step not in self.damaged:
      faults = manifest.faults(self.path(step))
      if not faults:
        self._intact.add(step)
      elif not self.path(step).exists():  # the run that owns the folder has just deleted it
        return False
      else:
        self.damaged[step] = faults[0]
    return step not in self.damaged

  def latest(self) -> int | None:
    """Returns the last intact step; None if there is no checkpoint at all.

    Raises:
      InputError: there are checkpoints, and none is intact.
    """
    steps = self.steps()
    latest = next((step for step in reversed(steps) if self.is_intact(step)), None)
    later = [step for step in steps if step in self.damaged and (latest is None or step > latest)]
    if latest is None and later:
      raise InputError(
          f'{self.folder}: none of its checkpoints is intact, and training does not overwrite '
          'them; choose a new --workdir, or delete this folder ('
          + listed([f'{step}: {self.damaged[step]}' for step in later]) + ')')
    for step in later:
      self._warn_of_damage(step, f'using the checkpoint of step {latest}')
    return latest

  def best(self) -> int | None:
    """Returns the intact step with the best metric; None if no checkpoint has the metric."""
    for _, step in self._ranked():
      if self.is_intact(step):
        return step
      if step in self.damaged:
        self._warn_of_damage(step, 'skipped when choosing the best checkpoint')
    return None

  def best_score(self) -> float:
    """Returns the score of the best checkpoint; -inf if there is none."""
    best = self.best()
    return -math.inf if best is None else self._scores[best]

  def score(self, metrics: Mapping[str, float] | None) -> float:
    """Returns the value that ranks checkpoints, higher is better; -inf without a finite metric."""
    value = (metrics or {}).get(self.best_metric)
    if value is None or not math.isfinite(value):
      return -math.inf
    return -value if self._lower_is_better else value

  def resolve_step(self, step: str | int | None) -> int:
    """Returns the step that 'latest' (or None), 'best' or a number refers to.

    Raises:
      InputError: there is no such checkpoint, it is damaged, or `step` is another word.
    """
    if step == 'best':
      ranked = self._ranked()
      if not ranked:
        raise InputError(f'{self.folder}: no checkpoint has the validation metric that decides '
                         'which one is best')
      step = ranked[0][1]
    elif step is None or step == 'latest':
      step = self.latest()
    elif not str(step).isdecimal():
      raise InputError(f"--step {step}: expected a number, 'latest' or 'best'")
    steps = self.steps()
    if not steps:
      raise InputError(f'{self.folder}: contains no checkpoint')
    step = int(step)
    if step not in steps:
      intact = [number for number in steps if self.is_intact(number)]
      raise InputError(f'{self.folder}: contains no checkpoint of step {step}, expected one of '
                       f'{intact}')
    if not self.is_intact(step):
      raise InputError(f'{self.path(step)}: damaged ({self.damaged.get(step, "just deleted")})')
    return step

  # For training -----------------------------------------------------------------------------------

  def remove_leftovers(self) -> None:
    """Deletes the folders that interrupted saves and deletions left behind."""
    for path in self.folder.glob('[0-9]*'):
      if path.suffix in LEFTOVER_SUFFIXES:
        shutil.rmtree(path, ignore_errors=True)

  def move_damaged(self, after: float, target: pathlib.Path) -> None:
    """Moves damaged checkpoints of steps after `after` to `target`, to make way for new ones."""
    for step in self.steps():
      if step > after and not self.is_intact(step):
        shutil.rmtree(target / str(step), ignore_errors=True)
        target.mkdir(exist_ok=True)
        # shutil.move, because checkpoints/ may be a link to another disk.
        shutil.move(self.path(step), target / str(step))
        self._warn(f'{self.path(step)}: damaged ({self.damaged.pop(step)}); moved to '
                   f'{target / str(step)}')

  def add(self, step: int, folder: pathlib.Path, score: float) -> None:
    """Writes the manifest of a finished checkpoint and moves it from `folder` to its place.

    The move is one rename, so that the checkpoint is there completely or not at all.

    Raises:
      OSError, InputError: the disk cannot be written.
    """
    manifest.write(folder)
    folder.rename(self.path(step))
    manifest.fsync_folder(self.folder)
    self._intact.add(step)
    self._scores[step] = score

  def delete_old(self, keep_steps: Sequence[int]) -> None:
    """Deletes all but the last two, the best, `keep_steps` and damaged checkpoints."""
    try:
      best = self.best()  # may find further damaged checkpoints
      steps = [step for step in self.steps() if step not in self.damaged]
      for step in {*steps} - {*steps[-2:], *keep_steps, best}:
        # Renamed first: an interrupted deletion must not look like a damaged checkpoint.
        deleted = self.folder / f'{step}.deleted'
        self.path(step).rename(deleted)
        shutil.rmtree(deleted)
    except OSError as error:
      self._warn(f'{error.filename}: cannot delete ({error.strerror})')
    except InputError as error:
      self._warn(str(error))

  # ------------------------------------------------------------------------------------------------

  def _warn_of_damage(self, step: int, consequence: str) -> None:
    """Reports a damaged checkpoint, once."""
    if step not in self._warned:
      self._warned.add(step)
      self._warn(f'{self.path(step)}: damaged ({self.damaged[step]}); {consequence}')

  def _ranked(self) -> list[tuple[float, int]]:
    """Returns (score, step) of the checkpoints that have a score, the best first.

    A checkpoint whose metrics are damaged could be the best and has the score inf.
    """
    steps = self.steps()
    for step in steps:
      if step not in self._scores:
        self._scores[step] = self._read_score(step)
    return sorted(((self._scores[step], step) for step in steps if self._scores[step] > -math.inf),
                  key=lambda pair: (-pair[0], pair[1]))

  def _read_score(self, step: int) -> float:
    """Reads the score of a checkpoint from its metrics, whose files alone are checked."""
    faults = manifest.faults(self.path(step), 'metrics/')
    file = self.path(step) / 'metrics' / 'metrics'
    if not faults:
      try:
        return self.score(json.loads(file.read_text()) if file.exists() else None)
      except (OSError, ValueError, TypeError, AttributeError):
        faults = [f'{file.relative_to(self.path(step))} is damaged']
    if not self.path(step).exists():
      return -math.inf
    self.damaged[step] = faults[0]
    return math.inf
