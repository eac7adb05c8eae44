"""Trains for 20,000 small steps and checks that memory does not grow.

  python -m tests.faults.long [--steps 20000]

A small GAN is trained, and a hundred times validated, sampled, saved and reported. Measured are the
resident memory of the process, the bytes of the device's arrays, open files, threads and the log
files; compared are the medians of the second to fourth tenth of the steps and of the last three
tenths. A reading is 15 MB higher while a checkpoint is being written, so that medians of twenty
readings vary by -1 to +4% from run to run. Nothing but the files may grow by more than 2%.
"""

import argparse
import os
import pathlib
import statistics
import sys
import tempfile
import threading
from unittest import mock

import jax

from sr_jax import train
from sr_jax.runs import logs
from sr_jax.runs.folder import RunFolder
from tests.faults import Run, table

MAX_GROWTH = 0.02
EARLY, LATE = (2, 3, 4), (8, 9, 10)  # tenths
MAY_GROW = ('metrics.jsonl', 'TensorBoard')


def measure(workdir: pathlib.Path) -> dict[str, int]:
  """Returns what the process and the logs of its run use at this moment."""
  run = RunFolder(workdir)
  pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
  arrays = jax.live_arrays()
  return {
      "resident memory": pages * os.sysconf("SC_PAGESIZE"),
      'arrays on the device': sum(array.nbytes for array in arrays if not array.is_deleted()),
      'open files': len(os.listdir('/proc/self/fd')),
      'threads': threading.active_count(),
      'metrics.jsonl': run.metrics.stat().st_size,
      'TensorBoard': sum(path.stat().st_size for path in run.tensorboard.iterdir())}


def campaign(folder: pathlib.Path, steps: int) -> tuple[list, list[str]]:
  """Trains and measures; returns (rows of the table, descriptions of what grew)."""
  config = Run(folder, 'long').config()
  config.steps, config.warmup_steps = steps, steps // 50
  config.log_every, config.checkpoint_every = 100, steps // 100
  config.eval.every = config.sample_every = steps // 100
  config.data.cache = str(folder / 'cache')
  readings, scalars = {EARLY: [], LATE: []}, logs.Logs.scalars

  def scalars_and_measure(self: logs.Logs, step: int, phase: str,
                          metrics: dict[str, float]) -> None:
    scalars(self, step, phase, metrics)
    for tenths in readings:
      if -(-10 * step // steps) in tenths:
        readings[tenths].append(measure(self.workdir))

  with mock.patch.object(logs.Logs, 'scalars', scalars_and_measure):
    train.train(config, folder / 'long')
  early, late = ({name: int(statistics.median(reading[name] for reading in part))
                  for name in part[0]} for part in readings.values())
  rows = [[name, f'{early[name]:,}', f'{late[name]:,}', f'{late[name] / early[name] - 1:+.1%}']
          for name in early]
  grown = [f'{name} grew from {early[name]:,} to {late[name]:,}' for name in early
           if name not in MAY_GROW and late[name] > early[name] * (1 + MAX_GROWTH)]
  return rows, grown


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--steps', type=int, default=20_000)
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    rows, grown = campaign(pathlib.Path(folder), options.steps)
  print(table(['', 'second to fourth tenth', 'last three tenths', ''], rows))
  print('\n'.join(grown))
  return int(bool(grown))


if __name__ == '__main__':
  sys.exit(main())
