"""Takes the disk away from runs for a while, and looks at what they end with.

  python -m tests.faults.disk [--times 10] [--seed 0]

  full       the run lies on a small tmpfs, which is filled to the last byte (needs root)
  limited    no file of the process may grow (RLIMIT_FSIZE): what a quota does
  moved      checkpoints/, samples/ and tensorboard/ are moved away, and files lie in their places

Each lasts for some tenths of a second, again and again while a run trains. It must say so, go on,
and end with the bits and the log of a run with all the disk of the world; its older checkpoints
stay whole meanwhile. Where the disk stays full to the end, the run must end with a line and a
status, and the same command must go on once there is room.
"""

import argparse
import contextlib
import pathlib
import random
import resource
import subprocess
import sys
import tempfile
import time

from sr_jax.runs import manifest
from tests.conftest import same_bits
from tests.faults import Run, table

STEPS = 300


@contextlib.contextmanager
def full(run: Run, process: subprocess.Popen):
  """The disk that the run lies on has no byte left; what it frees is taken as well."""
  filler = run.workdir.parent / 'filler'
  with filler.open('wb', buffering=0) as file:
    def fill():
      for size in (2**16, 2**12, 1):
        with contextlib.suppress(OSError):
          while file.write(bytes(size)) == size:
            pass
    fill()
    try:
      yield fill
    finally:
      filler.unlink()


@contextlib.contextmanager
def limited(run: Run, process: subprocess.Popen):
  unlimited = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
  resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1, unlimited[1]))
  try:
    yield lambda: None
  finally:
    with contextlib.suppress(ProcessLookupError):
      resource.prlimit(process.pid, resource.RLIMIT_FSIZE, unlimited)


@contextlib.contextmanager
def moved(run: Run, process: subprocess.Popen):
  names = [name for name in ('checkpoints', 'samples', 'tensorboard')
           if (run.workdir / name).is_dir()]
  for name in names:
    (run.workdir / name).rename(run.workdir / f'away-{name}')
    (run.workdir / name).write_text('')
  try:
    yield lambda: None
  finally:
    for name in names:
      (run.workdir / name).unlink()
      (run.workdir / f'away-{name}').rename(run.workdir / name)


KINDS = {'full': full, 'limited': limited, 'moved': moved}


@contextlib.contextmanager
def small_disk(folder: pathlib.Path):
  """A tmpfs of 8 MB; None where mounting is not allowed."""
  folder.mkdir()
  command = ['mount', '-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', str(folder)]
  if subprocess.run(command, check=False, capture_output=True).returncode:
    yield None
    return
  try:
    yield folder
  finally:
    subprocess.run(['umount', '-l', str(folder)], check=False)


def suffer(run: Run, kind: str, times: int, rng: random.Random) -> tuple[int, int, list[str]]:
  """(how often the disk was gone, exit status, faults) of one start of a run."""
  process, gone, faults = run.start(), 0, []
  while not (run.began_at is not None and run.reached) and process.poll() is None:
    time.sleep(0.01)
  while gone < times and process.poll() is None:
    with KINDS[kind](run, process) as again:
      gone += 1
      until = time.monotonic() + rng.uniform(0.1, 1)
      while time.monotonic() < until:
        again()
        time.sleep(0.01)
      for path in run.workdir.glob('*checkpoints/*/' + manifest.NAME):
        # One that is deleted meanwhile is none.
        found = manifest.faults(path.parent)
        if found and path.exists():
          faults.append(f'{path.parent}: {found[0]}')
    time.sleep(rng.uniform(0, 0.5))
  return gone, process.wait(timeout=300), faults


def compare(run: Run, whole: Run) -> list[str]:
  faults = [f'other bits in {name}' for name in same_bits(run.state(), whole.state())]
  if run.metrics() != whole.metrics():
    faults.append('another log')
  return faults + [f'left over: {path}' for path in run.left_over()]


def campaign(folder: pathlib.Path, times: int, seed: int, steps: int = STEPS,
             say=print) -> tuple[list, list[str]]:
  """(rows of the table, faults)."""
  rng = random.Random(seed)
  whole = Run(folder, 'whole', steps=steps)
  assert whole.start().wait() == 0, whole.said
  rows, faults = [], []
  with small_disk(folder / 'disk') as disk:
    for kind in KINDS:
      if kind == 'full' and not disk:
        say('full: a tmpfs can not be mounted here; left out')
        continue
      total = ended = count = 0
      while total < times:
        run = Run(folder, f'{kind}-{total}', disk if kind == 'full' else None, steps=steps)
        gone, status, found = suffer(run, kind, times - total, rng)
        total += gone
        if status == 1 and 'could not be saved' in run.said:  # it was gone at the very end
          status = run.start().wait()
        found += [f'exit status {status}'] if status else compare(run, whole)
        ended, count = ended + (not found), count + 1
        said = run.said.count('training continues')
        say(f'{kind}: gone {gone} times, said {said} times; {found}')
        faults += [f'{kind}: {fault}' for fault in found]
      rows.append([kind, total, f'{ended} of {count}'])
    run = Run(folder, 'to-the-end', steps=60)
    process = run.start()
    while not run.reached and process.poll() is None:
      time.sleep(0.01)
    with moved(run, process):
      status = process.wait(timeout=300)
    found = [] if status == 1 and 'could not be saved' in run.said else [
        f'moved, to the end: exit status {status}: {run.said[-300:]}']
    status = run.start().wait()
    whole = Run(folder, 'whole-60', steps=60)
    whole.start().wait()
    found += [f'exit status {status}'] if status else compare(run, whole)
    rows.append(['moved, to the end', 1, f'{int(not found)} of 1'])
    faults += found
  return rows, faults


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--times', type=int, default=10)
  parser.add_argument('--seed', type=int, default=0)
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    rows, faults = campaign(pathlib.Path(folder), options.times, options.seed)
  print(table(['disk', 'times', 'runs that ended as if nothing had been'], rows))
  print('\n'.join(faults))
  return int(bool(faults))


if __name__ == '__main__':
  sys.exit(main())
