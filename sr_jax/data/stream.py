"""The stream: pictures decoded while training, in worker processes, for sets too large to pack.

A decoded picture gives a crop to each of `share` batches in a row, so a batch costs
`count / share` decodings and no two crops of it are of one picture. What is decoded and cut
for which step depends on the seed and the step alone, however many workers there are.
"""

import collections
import contextlib
import ctypes
import functools
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np

from sr_jax import images
from sr_jax.data import pictures
from sr_jax.data.bank import CropSpec
from sr_jax.data.pictures import Picture
from sr_jax.errors import InputError

AHEAD = 4  # pictures that are decoded for each worker before they are asked for
TOLERATED = 0.01  # share of a set's pictures that may be damaged; one always may
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


class CropSource:
  """Random access to decoded pictures: item i is what slot i % count of group i // count holds.

  A group is `share` batches. Each of its slots is a picture of its own, of an order of all
  pictures that is drawn anew when all were seen.
  """

  def __init__(self, found: Sequence[Picture], seed: int, cut: CropSpec, share: int):
    self.found, self.seed, self.cut, self.share = found, seed, cut, share
    self.groups = len(found) // cut.count  # of one order; a rest smaller than a batch is left

  def __getitem__(self, item: int) -> tuple[dict[str, np.ndarray], list[tuple[str, bool]]]:
    """({'lr': uint8 [share, h, w, C], 'hr': ...}, a line for each unusable picture, and whether
    it is damaged rather than too small)."""
    group, slot = divmod(item, self.cut.count)
    epoch, place = divmod(group, self.groups)
    order = _order(self.seed, epoch, len(self.found))
    places = np.random.default_rng((self.seed, 1, group, slot)).random((self.share, 2))
    unusable = []
    # In place of an unusable one comes the next of the same slot, which no other slot holds; if
    # all of the slot are, any: those left over first.
    slots = np.roll(order[slot::self.cut.count], -place)
    for index in (*slots, *order[::-1]):
      try:
        crops = pictures.read_crops(self.found[index], self.cut.scale, self.cut.channels,
                                    self.cut.patch, places.tolist())
        return crops, unusable
      except (images.DamagedPicture, pictures.TooSmall) as error:
        unusable.append((str(error), isinstance(error, images.DamagedPicture)))
    pictures.refuse_empty([line for line, _ in unusable])


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
  # By sorting numbers: the bits of NumPy's generators are promised to stay, `permutation` not.
  return np.argsort(np.random.default_rng((seed, 0, epoch)).random(count), kind='stable')


def batches(found: Sequence[Picture], seed: int, begin: int, cut: CropSpec, share: int, workers: int,
            skipped: list[str],
            mine: Sequence[int] | None = None) -> Iterator[dict[str, np.ndarray]]:
  """The crops of step `begin`, of the one after it and so on, without end.

  Args:
    found: pictures, in an order that is always the same.
    cut: `bank.Cut`; no more crops than there are pictures.
    share: batches in a row that a decoded picture gives a crop to.
    workers: processes; 0 decodes here.
    skipped: takes a line for each unusable picture that is met.
    mine: which of a batch's crops are made (None: all); a slot's pictures are its alone, so the
      others make no difference.

  Yields:
    {'lr': uint8 [count, patch / scale, patch / scale, C], 'hr': uint8 [count, patch, patch, C]},
    count being the length of `mine`.

  Raises:
    InputError: more than one picture and 1% of them are damaged, or all unusable; a pair does
      not fit; a worker was lost.
  """
  (group, first), damaged = divmod(begin, share), 0
  mine = range(cut.count) if mine is None else mine
  wanted = (number * cut.count + slot for number in itertools.count(group) for slot in mine)
  items = _in_order(CropSource(found, seed, cut, share), wanted, workers)
  with contextlib.closing(items):
    while True:
      slots = [next(items) for _ in mine]
      for line, is_damaged in itertools.chain.from_iterable(lines for _, lines in slots):
        if line not in skipped:
          skipped.append(line)
          damaged += is_damaged
          if damaged > max(1, TOLERATED * len(found)):
            raise InputError(f'{damaged} of {len(found)} pictures are damaged, more than '
                             f'{TOLERATED:.0%}; the last: {line}')
      for place in range(first, share):  # a run that goes on within a group skips its first
        yield {name: np.stack([crops[name][place] for crops, _ in slots]) for name in ('lr', 'hr')}
      first = 0


# Workers -------------------------------------------------------------------------------


def _in_order(crops: CropSource, wanted: Iterator[int], workers: int) -> Iterator:
  """crops[item] of each item that is wanted, each worker a few ahead."""
  if not workers:
    yield from map(crops.__getitem__, wanted)
    return
  pool = ProcessPoolExecutor(workers, multiprocessing.get_context('spawn'), _begin_worker, (crops,))
  pending = collections.deque()
  try:
    for item in wanted:
      with _ctrl_c_left_to_us():
        pending.append(pool.submit(_decode, item))
      if len(pending) == workers * AHEAD:
        yield pending.popleft().result()
  except BrokenProcessPool:
    raise InputError('a worker that decodes pictures was lost: killed, or out of memory; '
                     '--config.data.workers sets how many there are') from None
  finally:
    pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _ctrl_c_left_to_us():
  """Ctrl-C goes to every process of a terminal; those started in here never see it."""
  mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


_crops: CropSource | None = None  # of a worker; sent once, not with each item


def _begin_worker(crops: CropSource) -> None:
  global _crops
  _crops = crops

  def follow():
    """Ends with the training process, however that ends."""
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=follow, daemon=True).start()
  with contextlib.suppress(AttributeError):  # glibc alone has it
    # Memory of decoded pictures is used again; to give it back and fault it in anew takes
    # half as long as decoding a large PNG.
    for option, size in ((M_MMAP_THRESHOLD, 1 << 25), (M_TRIM_THRESHOLD, 1 << 28)):
      ctypes.CDLL(None).mallopt(option, size)


def _decode(item: int):
  return _crops[item]
