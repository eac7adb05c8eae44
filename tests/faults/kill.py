"""Kills runs at random instants, and looks at what they end with.

  python -m tests.faults.kill [--kills 30] [--seed 0]

A run is killed with SIGKILL, or asked to end by SIGTERM or Ctrl-C, started again by the same
command, killed again, and so on until it comes to its end. Then its state must have the bits, and
its log the figures, of a run that nobody touched, and nothing half-written may lie about.
"""

import argparse
import collections
import pathlib
import random
import signal
import sys
import tempfile
import time

from tests.conftest import same_bits
from tests.faults import Run, table

TMP = '*orbax-checkpoint-tmp*'


def anywhere(run: Run, rng: random.Random, seconds: float):
  """At any instant of a start that would take so many seconds."""
  time.sleep(rng.uniform(0, seconds))


def training(run: Run, rng: random.Random, seconds: float):
  """A step of this start is in the log."""
  while not run.has_trained:
    yield
  time.sleep(rng.uniform(0, 1))


def compiling(run: Run, rng: random.Random, seconds: float):
  """After the first line of the log, before the first step is done."""
  while run.began_at is None:
    yield
  time.sleep(rng.uniform(0, 2))


def saving(run: Run, rng: random.Random, seconds: float):
  """Orbax is writing a checkpoint, one of the next four."""
  seen, wanted = set(), rng.randint(1, 4)
  while len(seen) < wanted:
    seen |= {path.name for path in run.workdir.glob(f'checkpoints/{TMP}')}
    yield
  time.sleep(rng.uniform(0, 0.01))


def committing(run: Run, rng: random.Random, seconds: float):
  """Orbax has done, and the checkpoint has no manifest, or not its own name."""
  while not any(run.workdir.glob('checkpoints/*.saving')):
    yield


KINDS = {'at any instant': (anywhere, signal.SIGKILL, True),
         'while it compiles': (compiling, signal.SIGKILL, False),
         'inside a save': (saving, signal.SIGKILL, True),
         "between a save and its manifest": (committing, signal.SIGKILL, True),
         'while it trains': (training, signal.SIGKILL, True),
         'SIGTERM, at any instant': (anywhere, signal.SIGTERM, True),
         'SIGTERM, while it trains': (training, signal.SIGTERM, True),
         'Ctrl-C, at any instant': (anywhere, signal.SIGINT, True),
         'Ctrl-C, while it trains': (training, signal.SIGINT, True)}
SHARES = {'at any instant': 0.2, 'while it trains': 0.2, 'while it compiles': 0.1,
          'inside a save': 0.2, "between a save and its manifest": 0.1,
          'SIGTERM, at any instant': 0.05, 'SIGTERM, while it trains': 0.1,
          'Ctrl-C, at any instant': 0.05, 'Ctrl-C, while it trains': 0.1}
ASKED = {signal.SIGTERM: 143, signal.SIGINT: 130}  # exit status, once it trains


def strike(run: Run, kind: str, rng: random.Random, seconds: float):
  """Starts the run and ends it: (whether it was ended, and trained then; its exit status)."""
  instant, number, compiled = KINDS[kind]
  process = run.start(compiled)
  for _ in instant(run, rng, seconds) or ():
    if process.poll() is not None:
      break
    time.sleep(0.0005)
  trained = run.has_trained and run.reached <= 50  # and is not about to end
  struck = process.poll() is None
  process.send_signal(number)
  return struck, trained, process.wait(timeout=300)


def campaign(folder: pathlib.Path, kills: int, seed: int, say=print):
  """({kind: {'times', 'lost'}}, runs that came to their end, faults found) of so many kills, with
  an untroubled start after each eight of them.
  """
  rng = random.Random(seed)
  whole = Run(folder, 'whole')
  whole.start().wait()  # compiles
  whole = Run(folder, 'whole-again')
  began = time.monotonic()
  assert whole.start().wait() == 0, whole.said
  seconds = time.monotonic() - began
  wanted, state = whole.metrics(), whole.state()
  faults = []
  found = {kind: {'times': 0, 'lost': 0} for kind in KINDS}
  todo = [kind for kind in KINDS for _ in range(max(1, round(kills * SHARES[kind])))]
  rng.shuffle(todo)
  ended = number = saved = 0
  run, since = Run(folder, 'killed-0'), []
  while todo or since:
    kind = todo[-1] if todo and len(since) < 8 else None
    before = run.reached
    if kind:
      struck, trained, status = strike(run, kind, rng, seconds)
    else:
      struck, trained, status = False, False, run.start().wait()
    if run.began_at is not None:  # what the kill before this start had lost
      lost = before - run.began_at
      if since:
        found[since[-1]]['lost'] = max(found[since[-1]]['lost'], lost)
        if saved and lost:
          faults.append(f'{run.workdir.name}: {since[-1]}: {lost} steps were not saved')
    sent = KINDS[kind][1] if struck else None
    asked = sent in ASKED
    saved = asked and trained and status == ASKED[sent]
    if struck:
      todo.pop()
      since.append(kind)
      found[kind]['times'] += 1
      if status not in {0, ASKED.get(sent)} | (set() if asked and trained else {-sent}):
        faults.append(f'{run.workdir.name}: {kind}: exit status {status}: {run.said[-300:]}')
      say(f'{run.workdir.name}: {kind}: status {status}, step {run.reached}')
    if status == 0:
      ended += bool(since)
      faults += [f'{run.workdir.name}: other bits in {name}' for name in same_bits(
          run.state(), state)]
      if run.metrics() != wanted:
        faults.append(f'{run.workdir.name}: another log')
      faults += [f'{run.workdir.name}: left over: {path}' for path in run.left_over()]
      say(f'{run.workdir.name}: ended after {dict(collections.Counter(since))}; '
          f'{len(faults)} faults so far')
      number += 1
      run, since = Run(folder, f'killed-{number}'), []
    elif not struck:
      faults.append(f'{run.workdir.name}: exit status {status}: {run.said[-500:]}')
      number += 1
      run, since = Run(folder, f'killed-{number}'), []
  return found, ended, faults


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--kills', type=int, default=30)
  parser.add_argument('--seed', type=int, default=0)
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    found, ended, faults = campaign(pathlib.Path(folder), options.kills, options.seed)
  print(table(['killed', 'times', 'steps lost at most'],
              [[kind, row['times'], row['lost']] for kind, row in found.items()]))
  print(f'{ended} runs came to their end after it, {len(faults)} of them otherwise than one that '
        'nobody touched')
  print('\n'.join(faults))
  return int(bool(faults))


if __name__ == '__main__':
  sys.exit(main())
