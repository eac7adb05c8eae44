"""Reads what a run's folder records: its log, its starts, its evaluations."""

import array
import datetime
import fcntl
import json
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sr_jax.errors import InputError
from sr_jax.metrics.tables import BASELINES
from sr_jax.report.curves import Curve
from sr_jax.runs import metadata, metrics_log
from sr_jax.runs.checkpoint_index import CheckpointIndex
from sr_jax.runs.folder import RunFolder
from sr_jax.system import files

# Only these are read from a log, and a limited number of them: a log that another program wrote
# may contain anything.
DRAWN = ('g/', 'd/', 'learning_rate/', *metrics_log.SETS, 'terms/', 'images_per_second', 'skipped')
MAX_CURVES = 200


class Evaluation(NamedTuple):
  """The evaluation of a set by sr-jax evaluate.

  Attributes:
    set: name of the set.
    step: step of the evaluated checkpoint.
    scores: content of the JSON file.
    strips: folder of the montages, one for each image.
  """

  set: str
  step: int
  scores: dict[str, Any]
  strips: pathlib.Path


class History(NamedTuple):
  """A run as recorded in its folder.

  Attributes:
    workdir: the folder.
    config: content of config.json.
    starts: content of run.json, oldest first.
    curves: logged values of each metric, without the baselines of step 0.
    baselines: {'bicubic': {'valid/psnr_y': ...}, 'start': ...}: scores before the first step.
    phases: [(name, first logged step)].
    checkpoints: steps of the existing checkpoints.
    evaluations: the latest evaluation of each set.
    running: whether a process is training in the folder and not about to end.
  """

  workdir: pathlib.Path
  config: dict[str, Any]
  starts: list[dict[str, Any]]
  curves: dict[str, Curve]
  baselines: dict[str, dict[str, float]]
  phases: list[tuple[str, int]]
  checkpoints: list[int]
  evaluations: list[Evaluation]
  running: bool

  @property
  def name(self) -> str:
    """The name of the run's folder."""
    return self.workdir.resolve().name

  @property
  def step(self) -> int:
    """The last logged step; 0 if none was logged."""
    return max((int(curve.steps[-1]) for curve in self.curves.values()), default=0)

  @property
  def steps(self) -> int:
    """Total training steps, from config.json."""
    return max(int(self.config.get('steps', 0)), 0)

  @property
  def boundary(self) -> int | None:
    """The step at which the warm-up ends; None without a warm-up."""
    warmup = self.config.get('warmup_steps', 0)
    return warmup if 0 < warmup < self.steps else None

  @property
  def borders(self) -> dict[int, str]:
    """The steps at which the warm-up or a part of the main phase ends, and what ends there."""
    found = {self.boundary: 'end of the warm-up'} if self.boundary else {}
    phases = self.config.get('phases')
    lengths = phases.get('steps') if isinstance(phases, dict) else None
    at = self.boundary or 0
    for number, length in enumerate(lengths if isinstance(lengths, list) else (), 1):
      at += length if type(length) is int else 0
      if 0 < at < self.steps:
        found.setdefault(at, f'end of phase {number}')
    return found

  @property
  def main_phase(self) -> str:
    """The last logged phase, of which parts with other crops are one."""
    return metrics_log.kind_of_phase(self.phases[-1][0])

  @property
  def seconds(self) -> float:
    """Seconds trained, summed over starts that ended."""
    return sum(map(_seconds, self.starts))


def read(workdir: os.PathLike | str) -> History:
  """Reads a run's folder. Damaged or missing files other than config.json are skipped.

  Raises:
    InputError: the folder contains no run.
  """
  workdir = files.expand(workdir)
  config = metadata.read_config(workdir)
  curves, baselines, phases = _read_log(workdir)
  starts = metadata.start_records(workdir)
  running = 'ended' not in (starts[-1] if starts else {}) and _is_locked(workdir)
  return History(workdir, config, starts, curves, baselines, phases, _checkpoints(workdir),
                 _evaluations(workdir), running)


def _read_log(workdir: pathlib.Path) -> tuple[
    dict[str, Curve], dict[str, dict[str, float]], list[tuple[str, int]]]:
  columns, baselines, phases = {}, {}, []
  for line in metrics_log.iter_metrics(workdir):
    step, phase = line['step'], line['phase']
    if step == 0 and phase in ('bicubic', 'start'):
      baselines.setdefault(phase, {}).update(
          (name, value) for name, value in line.items()
          if _is_number(value) and name.startswith((*metrics_log.SETS, 'terms/')))
      continue
    if not phases or phases[-1][0] != phase:
      phases.append((phase, step))
    for name, value in line.items():
      column = columns.get(name)
      if column is None:
        drawn = name.startswith(DRAWN) and len(columns) < MAX_CURVES
        column = columns[name] = (array.array('q'), array.array('d')) if drawn else ()
      if column and (value is None or type(value) in (int, float)):
        column[0].append(step)
        column[1].append(value if _is_number(value) else math.nan)
  curves = {name: _one_value_per_step(*map(np.array, column))
            for name, column in columns.items() if column and column[0]}
  return curves, baselines, phases


def _one_value_per_step(steps: np.ndarray, values: np.ndarray) -> Curve:
  """Returns the curve in order of its steps; of several values of a step, the last one written."""
  order = np.argsort(steps, kind='stable')
  steps, values = steps[order], values[order]
  is_last = np.append(steps[1:] != steps[:-1], True)
  return Curve(steps[is_last], values[is_last])


def _is_number(value: Any) -> bool:
  """Returns whether a JSON value is a finite number; 1e999 is read as infinity."""
  return (type(value) is float and math.isfinite(value)) or (
      type(value) is int and abs(value) < 2**63)


def _checkpoints(workdir: pathlib.Path) -> list[int]:
  try:
    return CheckpointIndex(RunFolder(workdir).checkpoints, '', lambda message: None).steps()
  except InputError:
    return []


def _evaluations(workdir: pathlib.Path) -> list[Evaluation]:
  latest = {}
  for path in sorted(RunFolder(workdir).eval.glob('*-*.json')):
    name, _, step = path.stem.rpartition('-')
    try:
      scores = json.loads(path.read_text('utf-8'), parse_constant=lambda name: None)
      if not step.isdecimal() or not _is_score_table(scores):
        continue
    except (OSError, ValueError, RecursionError):
      continue
    if name not in latest or latest[name].step < int(step):
      latest[name] = Evaluation(name, int(step), scores, path.with_name(f'{path.stem}-strips'))
  return list(latest.values())


def _is_score_table(scores: Any) -> bool:
  """Returns whether a JSON value has the structure that sr-jax evaluate writes."""
  def is_scores(value: Any) -> bool:
    return isinstance(value, dict) and all(score is None or _is_number(score)
                                           for score in value.values())

  def is_summary(value: Any) -> bool:
    return (isinstance(value, dict) and is_scores(value.get('mean'))
            and isinstance(value.get('images'), dict)
            and all(map(is_scores, value['images'].values())))

  protocol = scores.get('protocol') if isinstance(scores, dict) else None
  return (isinstance(protocol, dict) and all(isinstance(text, str) for text in protocol.values())
          and is_summary(scores)
          and all(is_summary(scores[key]) for key in (*BASELINES, 'corrected') if key in scores))


def _is_locked(workdir: pathlib.Path) -> bool:
  try:
    with open(RunFolder(workdir).lock, 'rb') as file:
      fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
  except BlockingIOError:
    return True
  except OSError:
    return False
  return False


def _seconds(start: dict[str, Any]) -> float:
  try:
    started, ended = (datetime.datetime.fromisoformat(start[key]) for key in ('started', 'ended'))
    return max((ended - started).total_seconds(), 0.0)
  except (KeyError, ValueError, TypeError):
    return 0.0


def is_finished(history: History) -> bool:
  """Returns whether the run has all its steps, or nothing to train."""
  return bool(history.config.get('imported')) or (
      bool(history.curves) and not history.running and history.step >= history.steps)


def status(history: History) -> str:
  """Returns a sentence on the state of the run: running, finished, stopped or killed."""
  step, steps = history.step, history.steps
  if history.config.get('imported'):
    return 'Imported weights: nothing was trained here.'
  progress = f'step {step:,} of {steps:,}'
  if history.running:
    return f'Running: {progress}.' if step else 'Running; nothing has been logged yet.'
  if not history.curves:
    return ('Nothing has been logged: the run was stopped before its first step, or its log was '
            'deleted.')
  if step >= steps:
    return f'Finished: {steps:,} steps.'
  last = history.starts[-1] if history.starts else {}
  if last.get('bad_steps'):
    return f'Stopped after {progress}: {last["bad_steps"]} consecutive non-finite steps (NaN/Inf).'
  if history.starts and 'ended' not in last:
    return (f'Killed, or the machine stopped, after {progress}. Run the same command to resume '
            'from the last checkpoint.')
  return f'Stopped at {progress}. Run the same command to resume.'


def warnings(history: History) -> list[str]:
  """Returns a line for each thing that is wrong with the log, such as non-finite losses."""
  steps = {step for curve in history.curves.values() for step in curve.steps[:2].tolist()}
  lines = [f'Only step {step:,} has been logged.' for step in steps if len(steps) == 1]
  for name, curve in history.curves.items():
    missing = np.isnan(curve.values)
    # A validation metric may be infinite without anything being wrong: PSNR of equal images.
    if missing.any() and name.startswith(('g/', 'd/', 'terms/')):
      lines.append(f'{name} was non-finite (NaN/Inf) at {missing.sum():,} of {len(missing):,} '
                   f'logged steps, first at step {curve.steps[missing.argmax()]:,}.')
  skipped = history.curves.get('skipped')
  if skipped is not None and skipped.finite.values.size and skipped.finite.values[-1]:
    lines.append(f'{skipped.finite.values[-1]:,.0f} non-finite steps (NaN/Inf) were skipped.')
  return lines


def read_all(workdirs: Sequence[os.PathLike | str]) -> list[History]:
  """Reads several runs; a folder that is given twice, under whatever path, is read once.

  Raises:
    InputError: no folder is given, or one contains no run.
  """
  by_folder = {path.resolve(): path for path in map(files.expand, workdirs)}
  if not by_folder:
    raise InputError('RUN is missing: expected at least one run folder')
  return [read(path) for path in by_folder.values()]
