"""Reads metrics.jsonl, and cuts it back."""

import json
import pathlib
from collections.abc import Iterator

from sr_jax.system import files


def read_metrics(workdir) -> list[dict]:
  """The lines of metrics.jsonl; what a kill cut off, or is no such line, is left out."""
  return list(iter_metrics(workdir))


def iter_metrics(workdir) -> Iterator[dict]:
  """The same one by one: a log of weeks is hundreds of megabytes as a list."""
  path = pathlib.Path(workdir) / 'metrics.jsonl'
  if path.exists():
    with open(path, encoding='utf-8', errors='replace', newline='\n') as file:
      yield from filter(None, map(_parsed, file))


def _parsed(text: str) -> dict | None:
  """A line as `Logs` writes them: a step, a phase, figures that are numbers or null; else None."""
  try:
    line = json.loads(text, parse_constant=lambda name: None)  # NaN, which is no JSON
    numbers = [line['step'], *(value for name, value in line.items() if value is not None
                               and name.startswith(('valid/', 'test/', 'terms/')))]
    fits = (type(line['step']) is int and line['step'] >= 0 and all(
        isinstance(number, float) or (isinstance(number, int) and number < 2**63)
        for number in numbers)
        and all(name.isprintable() for name in (line['phase'], *line)))
  except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
    return None
  return line if fits else None


def _forget_after(path: pathlib.Path, step: int) -> None:
  """Drops what a lost piece of the run wrote; where there is no checkpoint, all of it, of which the
  longest is left in metrics.jsonl.lost: the checkpoints' disk may only be away.
  """
  lost = path.with_name(f'{path.name}.lost')
  if not step and path.is_file() and path.stat().st_size > (
      lost.stat().st_size if lost.exists() else 0):
    path.replace(lost)
  kept = [line for line in read_metrics(path.parent) if line['step'] <= step and step]
  if path.exists():
    files.write_text(path, ''.join(json.dumps(line) + '\n' for line in kept))
