"""What a run's folder tells of the run: its log, its starts, its evaluations."""

import array
import datetime
import fcntl
import json
import math
import pathlib
import re
from typing import NamedTuple

import numpy as np

from sr_jax.errors import InputError
from sr_jax.report.curves import Curve
from sr_jax.runs import metadata, metrics_log
from sr_jax.system import files

# What is drawn of a log; in a log that something else wrote there may be anything.
DRAWN = ('g/', 'd/', 'learning_rate/', 'valid/', 'test/', 'terms/', 'images_per_second', 'skipped')
MOST_CURVES = 200


class Evaluation(NamedTuple):
  """A set that was scored by --mode evaluate: what its JSON holds, and where its pictures are."""

  set: str
  step: int
  scores: dict
  strips: pathlib.Path


class History(NamedTuple):
  """A run, as its folder tells it.

  Attributes:
    workdir: its folder.
    config: its config.json.
    starts: its run.json, oldest first.
    curves: of each figure that was logged, bicubic's and the start's at step 0 aside.
    before: {'bicubic': {'valid/psnr_y': ...}, 'start': ...}: figures of no step of training.
    phases: [(name, first logged step)].
    checkpoints: steps of those there.
    evaluations: the latest of each set.
    running: somebody trains there now, and is not just ending.
  """

  workdir: pathlib.Path
  config: dict
  starts: list[dict]
  curves: dict[str, Curve]
  before: dict[str, dict[str, float]]
  phases: list[tuple[str, int]]
  checkpoints: list[int]
  evaluations: list[Evaluation]
  running: bool

  @property
  def name(self) -> str:
    return self.workdir.resolve().name

  @property
  def step(self) -> int:
    """The last that was logged; 0 where none was."""
    return max((int(curve.steps[-1]) for curve in self.curves.values()), default=0)

  @property
  def steps(self) -> int:
    """That it is to have."""
    return max(int(self.config.get('steps', 0)), 0)

  @property
  def boundary(self) -> int | None:
    """The step at which the warm-up ends, where there is one."""
    warmup = self.config.get('warmup_steps', 0)
    return warmup if 0 < warmup < self.steps else None

  @property
  def seconds(self) -> float:
    """Of all starts whose end is known."""
    return sum(map(_seconds, self.starts))


def read(workdir) -> History:
  """Reads a run's folder. What is damaged in it, or missing, is left out.

  Raises:
    InputError: there is no run.
  """
  workdir = files.expand(workdir)
  config = metadata.read_config(workdir)
  curves, before, phases = _read_log(workdir)
  starts = metadata.start_records(workdir)
  return History(workdir, config, starts, curves, before, phases,
                 _checkpoints(workdir), _evaluations(workdir),
                 'ended' not in (starts[-1] if starts else {}) and _is_running(workdir))


def _read_log(workdir):
  columns, before, phases = {}, {}, []
  for line in metrics_log.iter_metrics(workdir):
    step, phase = line['step'], line['phase']
    if step == 0 and phase in ('bicubic', 'start'):
      figures = before.setdefault(phase, {})
      figures |= {name: value for name, value in line.items() if _is_number(value)
                  and name.startswith(('valid/', 'test/', 'terms/'))}
      continue
    if not phases or phases[-1][0] != phase:
      phases.append((phase, step))
    for name, value in line.items():
      column = columns.get(name)
      if column is None:
        drawn = name.startswith(DRAWN) and len(columns) < MOST_CURVES
        column = columns[name] = (array.array('q'), array.array('d')) if drawn else ()
      if column and (value is None or _is_number(value)):
        column[0].append(step)
        column[1].append(math.nan if value is None else value)
  return ({name: _rising(*map(np.array, column)) for name, column in columns.items()
           if column and column[0]}, before, phases)


def _rising(steps: np.ndarray, values: np.ndarray) -> Curve:
  """One value a step, the last that was written."""
  order = np.argsort(steps, kind='stable')
  steps, values = steps[order], values[order]
  last = np.append(steps[1:] != steps[:-1], True)
  return Curve(steps[last], values[last])


def _is_number(value) -> bool:
  return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _checkpoints(workdir: pathlib.Path) -> list[int]:
  try:
    names = [path.name for path in (workdir / 'checkpoints').iterdir()]
  except OSError:
    return []
  return sorted(int(name) for name in names if re.fullmatch('0|[1-9][0-9]{0,17}', name))


def _evaluations(workdir: pathlib.Path) -> list[Evaluation]:
  latest = {}
  for path in sorted((workdir / 'eval').glob('*-*.json')):
    name, _, step = path.stem.rpartition('-')
    try:
      scores = json.loads(path.read_text('utf-8'))
      if not step.isdecimal() or not _is_table(scores):
        continue
    except (OSError, ValueError, RecursionError):
      continue
    if name not in latest or latest[name].step < int(step):
      latest[name] = Evaluation(name, int(step), scores, path.with_name(f'{path.stem}-strips'))
  return list(latest.values())


def _is_table(scores) -> bool:
  """Whether it has the shape of what `evaluate` writes."""
  def figures(found):
    return isinstance(found, dict) and all(value is None or _is_number(value)
                                           for value in found.values())

  def summary(found):
    return (isinstance(found, dict) and figures(found.get('mean'))
            and isinstance(found.get('images'), dict)
            and all(map(figures, found['images'].values())))

  protocol = scores.get('protocol') if isinstance(scores, dict) else None
  return (isinstance(protocol, dict) and all(isinstance(text, str) for text in protocol.values())
          and summary(scores) and all(summary(scores[key]) for key in METHODS if key in scores))


METHODS = ('bilinear', 'bicubic', 'corrected')  # beside the model's own, in a set's JSON


def _is_running(workdir: pathlib.Path) -> bool:
  try:
    with open(workdir / '.lock', 'rb') as file:
      fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
  except BlockingIOError:
    return True
  except OSError:
    return False
  return False


def _seconds(start: dict) -> float:
  try:
    begin, end = (datetime.datetime.fromisoformat(start[key]) for key in ('started', 'ended'))
    return max((end - begin).total_seconds(), 0.0)
  except (KeyError, ValueError, TypeError):
    return 0.0


def status(history: History) -> str:
  """Where the run stands, in a sentence."""
  step, steps = history.step, history.steps
  if history.config.get('imported'):
    return 'Imported weights: nothing was trained here.'
  where = f'step {step:,} of {steps:,}'
  if history.running:
    return f'Running: {where}.' if step else 'Running; nothing has been logged yet.'
  if not history.curves:
    return 'Nothing has been logged: the run was stopped before its first step, or its log is gone.'
  if step >= steps:
    return f'Done: {steps:,} steps.'
  last = history.starts[-1] if history.starts else {}
  if last.get('bad_steps'):
    return f'Stopped after {where}: {last["bad_steps"]} steps in a row had no finite numbers.'
  if history.starts and 'ended' not in last:
    return (f'Killed, or its machine stopped, after {where}; the same command goes on from the '
            'last checkpoint.')
  return f'Stopped at {where}; the same command goes on.'


def gaps(history: History) -> list[str]:
  """What the log lacks: a second step; a line for each training figure that was no number."""
  steps = {step for curve in history.curves.values() for step in curve.steps[:2].tolist()}
  lines = [f'Only step {step:,} has been logged.' for step in steps if len(steps) == 1]
  for name, curve in history.curves.items():
    missing = np.isnan(curve.values)
    if missing.any() and name.startswith(('g/', 'd/', 'terms/')):  # an infinite PSNR is none either
      lines.append(f'{name} was no number at {missing.sum():,} of {len(missing):,} logged steps, '
                   f'first at step {curve.steps[missing.argmax()]:,}.')
  skipped = history.curves.get('skipped')
  if skipped is not None and skipped.finite.values.size and skipped.finite.values[-1]:
    lines.append(f'{skipped.finite.values[-1]:,.0f} steps without finite numbers were left out.')
  return lines


def open_all(workdirs) -> list[History]:
  """Each once, whatever way it is named.

  Raises:
    InputError: there is no run in one of them.
  """
  found = {path.resolve(): path for path in map(files.expand, workdirs)}
  if not found:
    raise InputError('name a run')
  return [read(path) for path in found.values()]
