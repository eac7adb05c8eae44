"""Kills runs at random instants and checks how they end.

  python -m tests.faults.kill [--kills 30] [--seed 0] [--variant degraded]

A run is killed with SIGKILL, or ended with SIGTERM or Ctrl-C, started again with the same command,
killed again, and so on until it finishes. Then its state must have the same bits and its log the
same metrics as those of an undisturbed run, and no unfinished files may be left. The variant trains
with Real-ESRGAN's degradations, a sharpened target and a U-Net with spectral normalisation.
"""

import argparse
import collections
import dataclasses
import pathlib
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.conftest import same_bits
from tests.faults import Run, table

UNFINISHED = '*orbax-checkpoint-tmp*'
MAX_KILLS = 8  # of one run; then it may finish
POLL_SECONDS = 0.0005


# An instant waits until a run has reached it: it yields as long as it has not, and may sleep.


def at_any_time(run: Run, rng: random.Random, seconds: float) -> Iterator[None]:
  """Waits for a random part of `seconds`, the duration of an undisturbed start."""
  time.sleep(rng.uniform(0, seconds))
  yield from ()


def while_training(run: Run, rng: random.Random, seconds: float) -> Iterator[None]:
  """Waits until this start has logged a step, and up to a second more."""
  while not run.has_trained:
    yield
  time.sleep(rng.uniform(0, 1))


def while_compiling(run: Run, rng: random.Random, seconds: float) -> Iterator[None]:
  """Waits until run.json has this start, and up to two seconds more."""
  while run.began_at is None:
    yield
  time.sleep(rng.uniform(0, 2))


def while_saving(run: Run, rng: random.Random, seconds: float) -> Iterator[None]:
  """Waits until Orbax is writing one of the next four checkpoints."""
  seen, count = set(), rng.randint(1, 4)
  while len(seen) < count:
    seen |= {path.name for path in run.workdir.glob(f'checkpoints/{UNFINISHED}')}
    yield
  time.sleep(rng.uniform(0, 0.01))


def before_the_manifest(run: Run, rng: random.Random, seconds: float) -> Iterator[None]:
  """Waits until Orbax has finished a checkpoint that has no manifest or not its final name."""
  while not any(run.workdir.glob('checkpoints/*.saving')):
    yield


class Kill(NamedTuple):
  """A way to end a run."""

  instant: Callable[[Run, random.Random, float], Iterator[None]]
  signal: int
  share: float  # of all kills
  use_compile_cache: bool = True


KILLS = {
    'at any instant': Kill(at_any_time, signal.SIGKILL, 0.2),
    'while it compiles': Kill(while_compiling, signal.SIGKILL, 0.1, use_compile_cache=False),
    'inside a save': Kill(while_saving, signal.SIGKILL, 0.2),
    'between a save and its manifest': Kill(before_the_manifest, signal.SIGKILL, 0.1),
    'while it trains': Kill(while_training, signal.SIGKILL, 0.2),
    'SIGTERM, at any instant': Kill(at_any_time, signal.SIGTERM, 0.05),
    'SIGTERM, while it trains': Kill(while_training, signal.SIGTERM, 0.1),
    'Ctrl-C, at any instant': Kill(at_any_time, signal.SIGINT, 0.05),
    'Ctrl-C, while it trains': Kill(while_training, signal.SIGINT, 0.1)}
# Exit status of a run that trains and receives a signal that it can handle.
HANDLED = {signal.SIGTERM: 143, signal.SIGINT: 130}


class Outcome(NamedTuple):
  """How a start ended.

  Attributes:
    killed: whether the signal arrived before the process ended by itself.
    trained: whether it was training then, and not about to finish.
    status: its exit status.
  """

  killed: bool
  trained: bool
  status: int


def start_and_kill(run: Run, kill: Kill, rng: random.Random, seconds: float) -> Outcome:
  """Starts a run and ends it at the instant of `kill`."""
  process = run.start(kill.use_compile_cache)
  for _ in kill.instant(run, rng, seconds):
    if process.poll() is not None:
      break
    time.sleep(POLL_SECONDS)
  trained = run.has_trained and run.last_step <= 50
  killed = process.poll() is None
  process.send_signal(kill.signal)
  return Outcome(killed, trained, process.wait(timeout=300))


def start_and_wait(run: Run) -> Outcome:
  """Starts a run and lets it finish."""
  return Outcome(False, False, run.start().wait())


@dataclasses.dataclass
class Campaign:
  """Runs that are killed, and what was found.

  Attributes:
    folder: contains the runs.
    undisturbed: a run to compare with.
    counts: {name of a kill: {'times': how often, 'lost': steps lost at most}}.
    finished: number of runs that finished after having been killed.
    faults: descriptions of what went wrong.
  """

  folder: pathlib.Path
  undisturbed: Run
  say: Callable[[str], None] = print
  counts: dict[str, dict[str, int]] = dataclasses.field(
      default_factory=lambda: {name: {'times': 0, 'lost': 0} for name in KILLS})
  finished: int = 0
  faults: list[str] = dataclasses.field(default_factory=list)

  def __post_init__(self) -> None:
    self._metrics, self._state = self.undisturbed.metrics(), self.undisturbed.state()
    self._number = 0
    self._next_run()

  def _next_run(self) -> None:
    self._run = Run(self.folder, f'killed-{self._number}', variant=self.undisturbed.variant)
    self._kills = []  # names of the kills of this run
    self._must_be_saved = False  # the last signal was handled: no step may be lost
    self._number += 1

  def kill_all(self, names: list[str], rng: random.Random, seconds: float) -> None:
    """Kills runs in the ways that `names` lists, last one first, until each has finished."""
    while names or self._kills:
      name = names[-1] if names and len(self._kills) < MAX_KILLS else None
      last_step = self._run.last_step
      outcome = (start_and_kill(self._run, KILLS[name], rng, seconds) if name
                 else start_and_wait(self._run))
      self._count_lost_steps(last_step)
      handled = outcome.killed and KILLS[name].signal in HANDLED
      self._must_be_saved = (handled and outcome.trained
                             and outcome.status == HANDLED[KILLS[name].signal])
      if outcome.killed:
        names.pop()
        self._check_kill(name, outcome)
      if outcome.status == 0:
        self._check_finished()
        self._next_run()
      elif not outcome.killed:
        self._fail(f'exit status {outcome.status}: {self._run.output[-500:]}')
        self._next_run()

  def _fail(self, fault: str) -> None:
    self.faults.append(f'{self._run.workdir.name}: {fault}')

  def _count_lost_steps(self, last_step: int) -> None:
    """Counts the steps that the kill before this start lost; `last_step` was logged before it."""
    if self._run.began_at is None or not self._kills:
      return
    lost, row = last_step - self._run.began_at, self.counts[self._kills[-1]]
    row['lost'] = max(row['lost'], lost)
    if self._must_be_saved and lost:
      self._fail(f'{self._kills[-1]}: {lost} steps were not saved')

  def _check_kill(self, name: str, outcome: Outcome) -> None:
    number, handled = KILLS[name].signal, HANDLED.get(KILLS[name].signal)
    self._kills.append(name)
    self.counts[name]['times'] += 1
    expected = {0, handled} | (set() if handled and outcome.trained else {-number})
    if outcome.status not in expected:
      self._fail(f'{name}: exit status {outcome.status}: {self._run.output[-300:]}')
    self.say(f'{self._run.workdir.name}: {name}: status {outcome.status}, '
             f'step {self._run.last_step}')

  def _check_finished(self) -> None:
    """Compares a run that has finished with the undisturbed one."""
    self.finished += bool(self._kills)
    for name in same_bits(self._run.state(), self._state):
      self._fail(f'other bits in {name}')
    if self._run.metrics() != self._metrics:
      self._fail('another log')
    for path in self._run.leftovers():
      self._fail(f'left over: {path}')
    self.say(f'{self._run.workdir.name}: finished after {dict(collections.Counter(self._kills))}; '
             f'{len(self.faults)} faults so far')


def campaign(folder: pathlib.Path, kills: int, seed: int, say: Callable[[str], None] = print,
             variant: str = '') -> tuple[dict[str, dict[str, int]], int, list[str]]:
  """Kills runs about `kills` times; each run may finish after MAX_KILLS of them.

  Returns:
    (`Campaign.counts`, `finished` and `faults`).
  """
  rng = random.Random(seed)
  Run(folder, 'undisturbed', variant=variant).start().wait()  # fills the compile cache
  undisturbed = Run(folder, 'undisturbed-again', variant=variant)
  began = time.monotonic()
  assert undisturbed.start().wait() == 0, undisturbed.output
  seconds = time.monotonic() - began
  names = [name for name, kill in KILLS.items() for _ in range(max(1, round(kills * kill.share)))]
  rng.shuffle(names)
  done = Campaign(folder, undisturbed, say)
  done.kill_all(names, rng, seconds)
  return done.counts, done.finished, done.faults


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--kills', type=int, default=30)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--variant', default='', choices=('', 'degraded'), help='of the config')
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    counts, finished, faults = campaign(pathlib.Path(folder), options.kills, options.seed,
                                        variant=options.variant)
  print(table(['killed', 'times', 'steps lost at most'],
              [[name, row['times'], row['lost']] for name, row in counts.items()]))
  print(f'{finished} runs finished after kills; {len(faults)} differences from an undisturbed run')
  print('\n'.join(faults))
  return int(bool(faults))


if __name__ == '__main__':
  sys.exit(main())
