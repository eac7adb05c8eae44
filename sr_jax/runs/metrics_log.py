"""Reads metrics.jsonl, and truncates it when a run resumes."""

import json
import os
import pathlib
import re
from collections.abc import Iterator

from sr_jax.runs.folder import RunFolder
from sr_jax.system import files

# Prefixes of the metrics of sets that are scored.
SETS = ('valid/', 'clean/', 'test/', 'lr_images/')


def read_metrics(workdir: os.PathLike | str) -> list[dict]:
  """Reads metrics.jsonl; lines that a kill truncated or that are invalid are skipped."""
  return list(iter_metrics(workdir))


def iter_metrics(workdir: os.PathLike | str) -> Iterator[dict]:
  """Yields the lines of `read_metrics`: as a list, a log of weeks takes hundreds of megabytes."""
  path = RunFolder(pathlib.Path(workdir)).metrics
  if path.exists():
    with open(path, encoding='utf-8', errors='replace', newline='\n') as file:
      yield from filter(None, map(_parse_line, file))


def kind_of_phase(name: str) -> str:
  """Returns 'pixel' for 'pixel-2', a part of the main phase (`config.phases`)."""
  return re.sub(r'-\d+$', '', name)


def read_baselines(workdir: os.PathLike | str) -> dict[str, dict[str, float | None]]:
  """Returns the lines with the scores before the first step, by phase: 'bicubic' and 'start'."""
  baselines = {}
  for line in iter_metrics(workdir):
    if line['step'] or line['phase'] not in ('bicubic', 'start'):
      break
    baselines[line['phase']] = line
  return baselines


def _parse_line(text: str) -> dict | None:
  """Parses a line as `Logs` writes it: a step, a phase and metrics that are numbers or null.

  Returns None for any other text.
  """
  try:
    line = json.loads(text, parse_constant=lambda name: None)  # NaN is not valid JSON
    numbers = [line['step'], *(value for name, value in line.items() if value is not None
                               and name.startswith((*SETS, 'terms/')))]
    valid = (type(line['step']) is int and line['step'] >= 0 and all(
        isinstance(number, float) or (isinstance(number, int) and number < 2**63)
        for number in numbers)
        and all(name.isprintable() for name in (line['phase'], *line)))
  except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
    return None
  return line if valid else None


def forget_after(workdir: os.PathLike | str, step: int) -> None:
  """Removes the lines that a killed run logged after `step`, the checkpoint it resumes from.

  At step 0, where the run starts over, all lines are removed, and the longest log is kept as
  metrics.jsonl.lost: the disk with the checkpoints may only be missing temporarily.
  """
  run = RunFolder(pathlib.Path(workdir))
  path, lost = run.metrics, run.lost_metrics
  if not step and path.is_file() and path.stat().st_size > (
      lost.stat().st_size if lost.exists() else 0):
    path.replace(lost)
  lines = [line for line in read_metrics(workdir) if line['step'] <= step and step]
  if path.exists():
    files.write_text(path, ''.join(json.dumps(line) + '\n' for line in lines))
