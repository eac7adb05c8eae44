"""Trains for 20,000 small steps, and looks at what grows.

  python -m tests.faults.long [--steps 20000]

Resident memory of the process, bytes in the device's arrays, open files and threads while a small
GAN is trained, and validated, sampled, saved and drawn as a page a hundred times: medians of the
second to fourth tenth of the steps and of the last three; and what the log's files have grown by. A
reading is 15 MB higher where a checkpoint is being written just then, so that medians of twenty
differ by -1 to +4% from run to run. Nothing but the files may grow by more than 2%.
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
from tests.faults import Run, table

ALLOWED = 0.02
EARLY, LATE = (2, 3, 4), (8, 9, 10)  # tenths


def measured(workdir: pathlib.Path) -> dict[str, int]:
  pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
  devices = jax.live_arrays()
  return {
      "resident memory": pages * os.sysconf("SC_PAGESIZE"),
      'arrays on the device': sum(array.nbytes for array in devices if not array.is_deleted()),
      'open files': len(os.listdir('/proc/self/fd')),
      'threads': threading.active_count(),
      'metrics.jsonl': (workdir / 'metrics.jsonl').stat().st_size,
      'TensorBoard': sum(path.stat().st_size for path in workdir.glob('tensorboard/*'))}


def campaign(folder: pathlib.Path, steps: int) -> tuple[list, list[str]]:
  """(rows of the table, faults)."""
  config = Run(folder, 'long').config()
  config.steps, config.warmup_steps = steps, steps // 50
  config.log_every, config.checkpoint_every = 100, steps // 100
  config.eval.every = config.sample_every = steps // 100
  config.data.cache = str(folder / 'cache')
  tenths, scalars = {EARLY: [], LATE: []}, logs.Logs.scalars

  def noted(self, step, phase, metrics):
    scalars(self, step, phase, metrics)
    for part in tenths:
      if -(-10 * step // steps) in part:
        tenths[part].append(measured(self.workdir))

  with mock.patch.object(logs.Logs, 'scalars', noted):
    train.train(config, folder / 'long')
  first, last = ({name: int(statistics.median(reading[name] for reading in readings))
                  for name in readings[0]} for readings in tenths.values())
  rows = [[name, f'{first[name]:,}', f'{last[name]:,}', f'{last[name] / first[name] - 1:+.1%}']
          for name in first]
  faults = [f'{name} grew from {first[name]:,} to {last[name]:,}' for name in list(first)[:4]
            if last[name] > first[name] * (1 + ALLOWED)]
  return rows, faults


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--steps', type=int, default=20_000)
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    rows, faults = campaign(pathlib.Path(folder), options.steps)
  print(table(['', 'second to fourth tenth', 'last three', ''], rows))
  print('\n'.join(faults))
  return int(bool(faults))


if __name__ == '__main__':
  sys.exit(main())
