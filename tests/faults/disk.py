"""Takes the disk away from runs for a while and checks how they end.

  python -m tests.faults.disk [--times 10] [--seed 0]

  full       the run is on a small tmpfs, which is filled to the last byte (needs root)
  limited    no file of the process may grow (RLIMIT_FSIZE), as with a quota
  moved      checkpoints/, samples/ and tensorboard/ are moved away, and files take their places

Each fault lasts for some tenths of a second and is repeated while a run trains. The run must report
it, continue, and end with the same bits and log as an undisturbed run; its older checkpoints must
stay intact meanwhile. If the fault lasts until the end, the run must end with a message and an exit
status, and the same command must resume it once there is space.
"""

import argparse
import contextlib
import functools
import pathlib
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from sr_jax.runs import manifest
from tests.conftest import same_bits
from tests.faults import Run, table

STEPS = 300


@contextlib.contextmanager
def full(run: Run, process: subprocess.Popen) -> Iterator[Callable[[], None]]:
  """Fills the disk of the run; yields a function that fills space that the run has freed."""
  filler = run.workdir.parent / 'filler'
  with filler.open('wb', buffering=0) as file:
    def fill() -> None:
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
def limited(run: Run, process: subprocess.Popen) -> Iterator[Callable[[], None]]:
  """Limits the size of all files that the process writes to one byte."""
  unlimited = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
  resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1, unlimited[1]))
  try:
    yield lambda: None
  finally:
    with contextlib.suppress(ProcessLookupError):
      resource.prlimit(process.pid, resource.RLIMIT_FSIZE, unlimited)


@contextlib.contextmanager
def moved(run: Run, process: subprocess.Popen) -> Iterator[Callable[[], None]]:
  """Renames the folders of the run and creates empty files in their places."""
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


FAULTS = {'full': full, 'limited': limited, 'moved': moved}


@contextlib.contextmanager
def small_disk(folder: pathlib.Path) -> Iterator[pathlib.Path | None]:
  """Mounts a tmpfs of 8 MB; yields None if mounting is not permitted."""
  folder.mkdir()
  command = ['mount', '-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', str(folder)]
  if subprocess.run(command, check=False, capture_output=True).returncode:
    yield None
    return
  try:
    yield folder
  finally:
    subprocess.run(['umount', '-l', str(folder)], check=False)


def disturb(run: Run, kind: str, times: int, rng: random.Random) -> tuple[int, int, list[str]]:
  """Starts a run and applies a fault up to `times` times.

  Returns:
    (how often the fault was applied, exit status, descriptions of damaged checkpoints).
  """
  process, count, problems = run.start(), 0, []
  while not (run.began_at is not None and run.last_step) and process.poll() is None:
    time.sleep(0.01)
  while count < times and process.poll() is None:
    with FAULTS[kind](run, process) as repeat:
      count += 1
      until = time.monotonic() + rng.uniform(0.1, 1)
      while time.monotonic() < until:
        repeat()
        time.sleep(0.01)
      for path in run.workdir.glob('*checkpoints/*/' + manifest.NAME):
        found = manifest.faults(path.parent)
        if found and path.exists():  # the run may just have deleted it
          problems.append(f'{path.parent}: {found[0]}')
    time.sleep(rng.uniform(0, 0.5))
  return count, process.wait(timeout=300), problems


def compare(run: Run, undisturbed: Run) -> list[str]:
  """Returns descriptions of how two finished runs differ."""
  problems = [f'other bits in {name}' for name in same_bits(run.state(), undisturbed.state())]
  if run.metrics() != undisturbed.metrics():
    problems.append('another log')
  return problems + [f'left over: {path}' for path in run.leftovers()]


def could_not_save_the_end(run: Run, status: int) -> bool:
  """Returns whether a run ended because its last checkpoint could not be written."""
  return status == 1 and 'cannot save step' in run.output


def disturb_repeatedly(kind: str, new_run: Callable[[str], Run], times: int, rng: random.Random,
                       undisturbed: Run, say: Callable[[str], None]) -> tuple[list, list[str]]:
  """Applies a fault `times` times, to as many runs as that takes.

  Args:
    new_run: creates a run with a name.

  Returns:
    (row of the table, problems).
  """
  total = intact = runs = 0
  problems = []
  while total < times:
    run = new_run(f'{kind}-{total}')
    count, status, found = disturb(run, kind, times - total, rng)
    total += count
    if could_not_save_the_end(run, status):  # the fault lasted until the end
      status = run.start().wait()
    found += [f'exit status {status}'] if status else compare(run, undisturbed)
    intact, runs = intact + (not found), runs + 1
    reports = run.output.count('training continues')
    say(f'{kind}: {count} times, reported {reports} times; {found}')
    problems += [f'{kind}: {problem}' for problem in found]
  return [kind, total, f'{intact} of {runs}'], problems


def disturb_until_the_end(folder: pathlib.Path) -> tuple[list, list[str]]:
  """Moves the folders of a run away until it ends, then starts it again; returns as above."""
  run = Run(folder, 'to-the-end', steps=60)
  process = run.start()
  while not run.last_step and process.poll() is None:
    time.sleep(0.01)
  with moved(run, process):
    status = process.wait(timeout=300)
  problems = [] if could_not_save_the_end(run, status) else [
      f'moved, to the end: exit status {status}: {run.output[-300:]}']
  status = run.start().wait()
  undisturbed = Run(folder, 'undisturbed-60', steps=60)
  undisturbed.start().wait()
  problems += [f'exit status {status}'] if status else compare(run, undisturbed)
  return ['moved, to the end', 1, f'{int(not problems)} of 1'], problems


def campaign(folder: pathlib.Path, times: int, seed: int, steps: int = STEPS,
             say: Callable[[str], None] = print) -> tuple[list, list[str]]:
  """Applies every fault; returns (rows of the table, problems)."""
  rng = random.Random(seed)
  undisturbed = Run(folder, 'undisturbed', steps=steps)
  assert undisturbed.start().wait() == 0, undisturbed.output
  results = []
  with small_disk(folder / 'disk') as disk:
    for kind in FAULTS:
      if kind == 'full' and not disk:
        say('full: cannot mount a tmpfs here; skipped')
        continue
      new_run = functools.partial(Run, folder, disk=disk if kind == 'full' else None, steps=steps)
      results.append(disturb_repeatedly(kind, new_run, times, rng, undisturbed, say))
    results.append(disturb_until_the_end(folder))
  return [row for row, _ in results], [problem for _, found in results for problem in found]


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--times', type=int, default=10)
  parser.add_argument('--seed', type=int, default=0)
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    rows, problems = campaign(pathlib.Path(folder), options.times, options.seed)
  print(table(['disk', 'times', 'runs that ended like an undisturbed run'], rows))
  print('\n'.join(problems))
  return int(bool(problems))


if __name__ == '__main__':
  sys.exit(main())
