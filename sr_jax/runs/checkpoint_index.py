"""Which checkpoints a run has and which of them are whole. Files alone, without Orbax.

A checkpoint is whole if its files are as its manifest says (sr_jax/runs/manifest.py). What is looked
into is what is asked for, once: for the latest that one, and the one before where it is damaged;
for the best or a number that one. A run of an older version has no manifests: where no
checkpoint has one, those are taken as they are that count no bad steps, which versions with
manifests do, until the first to be saved writes theirs too.
"""

import contextlib
import json
import math
import pathlib
import re
import shutil
from collections.abc import Callable, Sequence

from sr_jax.errors import InputError, listed
from sr_jax.runs import manifest

LOWER_IS_BETTER = ('lpips_alex', 'lpips_vgg')
LEFTOVERS = ('.saving', '.deleted', '.orbax-checkpoint-tmp')  # of a save or of a deletion


class CheckpointIndex:
  """The checkpoints in a folder, each in a folder of its step's number.

  Attributes:
    damaged: {step: its first fault, in words} of those looked into.
  """

  def __init__(self, folder: pathlib.Path, best_metric: str, warn: Callable[[str], None]):
    self.folder, self.best_metric, self.damaged = folder, best_metric, {}
    self._warn, self._said = warn, set()
    self._intact, self._scores = set(), {}

  def place(self, step: int) -> pathlib.Path:
    return self.folder / str(step)

  def steps(self) -> list[int]:
    """The steps that have a folder, whatever is in it.

    Raises:
      InputError: that can not be read.
    """
    try:
      names = [path.name for path in self.folder.iterdir() if path.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
      return []
    except OSError as error:
      raise InputError(f'{self.folder}: can not be read ({error.strerror})') from None
    return sorted(int(name) for name in names if re.fullmatch('0|[1-9][0-9]*', name))

  def is_intact(self, step: int) -> bool:
    if step not in self._intact and step not in self.damaged:
      if self._has_manifests():
        found = manifest.faults(self.place(step))
      else:
        # Of this version, it has lost its manifest.
        found = manifest.faults(self.place(step)) if self._is_empty_or_ours(step) else []
      if not found:
        self._intact.add(step)
      elif not self.place(step).exists():  # its run has deleted it meanwhile
        return False
      else:
        self.damaged[step] = found[0]
    return step not in self.damaged

  def latest(self) -> int | None:
    """The last whole one; None where there is none at all.

    Raises:
      InputError: there are some, and none is whole.
    """
    there = self.steps()
    step = next((step for step in reversed(there) if self.is_intact(step)), None)
    later = [number for number in there if number in self.damaged
             and (step is None or number > step)]
    if step is None and later:
      raise InputError(
          f'{self.folder}: none of the checkpoints in it is whole, and nothing is begun anew over '
          'them: name a new --workdir, or delete this folder ('
          + listed([f'{number}: {self.damaged[number]}' for number in later]) + ')')
    for number in later:
      if number not in self._said:
        self._said.add(number)
        self._warn(f'{self.place(number)}: damaged ({self.damaged[number]}); the one of step '
                   f'{step} is used')
    return step

  def best(self) -> int | None:
    """The whole one with the best metric; None where none has it."""
    for _, step in self._ranked():
      if self.is_intact(step):
        return step
      if step in self.damaged and step not in self._said:
        self._said.add(step)
        self._warn(f'{self.place(step)}: damaged ({self.damaged[step]}); of those with a figure it '
                   'is passed over')
    return None

  def best_score(self) -> float:
    best = self.best()
    return -math.inf if best is None else self._scores[best]

  def score(self, metrics) -> float:
    """The higher the better; -inf without a figure."""
    value = (metrics or {}).get(self.best_metric)
    if value is None or math.isnan(value):
      return -math.inf
    return -value if self.best_metric in LOWER_IS_BETTER else value

  def named(self, step: str | int | None) -> int:
    """The step that 'latest' (or None), 'best' or a number names.

    Raises:
      InputError: there is none such, it is damaged, or it is no such word.
    """
    if step == 'best':
      ranked = self._ranked()
      if not ranked:
        raise InputError(f'{self.folder}: no checkpoint has a validation figure to be best by')
      step = ranked[0][1]
    elif step is None or step == 'latest':
      step = self.latest()
    elif not str(step).isdecimal():
      raise InputError(f"--step={step}: expected a number, 'latest' or 'best'")
    there = self.steps()
    if not there:
      raise InputError(f'{self.folder}: no checkpoint in it')
    step = int(step)
    if step not in there:
      whole = [number for number in there if self.is_intact(number)]
      raise InputError(f'{self.folder}: no checkpoint of step {step}, but of {whole}')
    if not self.is_intact(step):
      raise InputError(f'{self.place(step)}: damaged ({self.damaged.get(step, "just deleted")})')
    return step

  # For training ----------------------------------------------------------------------------

  def clear(self) -> None:
    """Deletes what a save or a deletion that was cut short has left."""
    for path in self.folder.glob('[0-9]*'):
      if path.suffix in LEFTOVERS:
        shutil.rmtree(path, ignore_errors=True)

  def move_damaged(self, begin: int, to: pathlib.Path) -> None:
    """Makes way for the steps after `begin`; those there have once been passed over."""
    for step in self.steps():
      if step > begin and not self.is_intact(step):
        shutil.rmtree(to / str(step), ignore_errors=True)
        to.mkdir(exist_ok=True)
        shutil.move(self.place(step), to / str(step))  # checkpoints/ may be a link to a disk
        self._warn(f'{self.place(step)}: damaged ({self.damaged.pop(step)}); moved to '
                   f'{to / str(step)}')

  def add(self, step: int, made: pathlib.Path, score: float) -> None:
    """Takes in a finished folder, with a manifest; in one move, so that it is whole or not there.

    Raises:
      OSError, InputError: what is wrong with the disk.
    """
    if not self._has_manifests():
      for older in reversed(self.steps()):  # of an older version, and used until now
        with contextlib.suppress(OSError, InputError):
          manifest.write(self.place(older))
    manifest.write(made)
    made.rename(self.place(step))
    manifest.fsync_folder(self.folder)
    self._intact.add(step)
    self._scores[step] = score

  def delete_old(self, keep_steps: Sequence[int]) -> None:
    """All but the last two, the best and `keep_steps`; damaged ones stay."""
    try:
      best = self.best()  # which may find that others are damaged
      there = [step for step in self.steps() if step not in self.damaged]
      for step in {*there} - {*there[-2:], *keep_steps, best}:
        gone = self.folder / f'{step}.deleted'  # cut short, it is no damaged checkpoint
        self.place(step).rename(gone)
        shutil.rmtree(gone)
    except OSError as error:
      self._warn(f'{error.filename}: can not be deleted ({error.strerror})')
    except InputError as error:
      self._warn(str(error))

  # ------------------------------------------------------------------------------------------

  def _is_empty_or_ours(self, step: int) -> bool:
    if not any(self.place(step).rglob('*')):
      return True
    try:
      return b'health' in (self.place(step) / 'state' / '_METADATA').read_bytes()
    except OSError:
      return False

  def _has_manifests(self) -> bool:
    return any((self.place(step) / manifest.NAME).exists() for step in self.steps())

  def _ranked(self) -> list[tuple[float, int]]:
    """(score, step) of those with a figure, the best first. A damaged figure may be the best."""
    there = self.steps()
    for step in there:
      if step not in self._scores:
        self._scores[step] = self._score_of(step)
    return sorted(((self._scores[step], step) for step in there if self._scores[step] > -math.inf),
                  key=lambda pair: (-pair[0], pair[1]))

  def _score_of(self, step: int) -> float:
    found = manifest.faults(self.place(step), 'metrics/') if self._has_manifests() else []
    file = self.place(step) / 'metrics' / 'metrics'
    if not found:
      try:
        return self.score(json.loads(file.read_text()) if file.exists() else None)
      except (OSError, ValueError, TypeError, AttributeError):
        found = [f'{file.relative_to(self.place(step))} is damaged']
    if not self.place(step).exists():
      return -math.inf
    self.damaged[step] = found[0]
    return math.inf
