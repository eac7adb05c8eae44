"""The stream: pictures decoded while training, in worker processes, for sets too large to pack.

A decoded picture gives a crop to each of `share` batches in a row, so a batch costs
`count / share` decodings and no two crops of it are of one picture. What is decoded and cut
for which step depends on the seed and the step alone, however many workers there are.
"""

import contextlib
import ctypes
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from multiprocessing import util

import grain
import numpy as np
from absl import flags

from sr_jax.data import pictures
from sr_jax.data.bank import Cut
from sr_jax.data.pictures import Picture
from sr_jax.errors import InputError

BUFFER = 4  # decoded pictures, their crops alone, that a worker may be ahead
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
TOLERATED = 0.01  # share of a set's pictures that may be unusable; one always may


class Crops:
  """Random access to decoded pictures: item i is what slot i % count of group i // count holds.

  A group is `share` batches. Each of its slots is a picture of its own, of an order of all
  pictures that is drawn anew when all were seen.
  """

  def __init__(self, found: Sequence[Picture], seed: int, cut: Cut, share: int, first: int = 0):
    self.found, self.seed, self.cut, self.share, self.first = found, seed, cut, share, first
    self.groups = len(found) // cut.count  # of one order; a rest smaller than a batch is left

  def __len__(self) -> int:
    return 2**31  # no end

  def __getitem__(self, item: int):
    """(LR crops, HR crops, a line for each unusable picture), the crops' bytes one by one.

    Arrays would travel through shared memory, which a process that is killed leaves behind.
    """
    group, slot = divmod(item, self.cut.count)
    group += self.first
    epoch, place = divmod(group, self.groups)
    order = _order(self.seed, epoch, len(self.found))
    places = np.random.default_rng((self.seed, 1, group, slot)).random((self.share, 2))
    unusable = []
    # In place of an unusable one comes the next of the same slot, which no other slot holds.
    slots = np.roll(order[slot::self.cut.count], -place)
    for index in slots:
      try:
        crops = pictures.read_crops(self.found[index], self.cut.scale, self.cut.channels,
                                    self.cut.patch, places.tolist())
        return *([crop.tobytes() for crop in crops[name]] for name in ('lr', 'hr')), unusable
      except InputError as error:
        unusable.append(str(error))
    raise InputError(f'too few usable pictures for a batch: {unusable[0]}')


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
  # By sorting numbers: the bits of NumPy's generators are promised to stay, `permutation` not.
  return np.argsort(np.random.default_rng((seed, 0, epoch)).random(count), kind='stable')


def batches(found: Sequence[Picture], seed: int, begin: int, cut: Cut, share: int, workers: int,
            skipped: list[str]) -> Iterator[dict[str, np.ndarray]]:
  """The crops of step `begin`, of the one after it and so on, without end.

  Args:
    found: pictures, in an order that is always the same.
    cut: `bank.Cut`; no more crops than there are pictures.
    share: batches in a row that a decoded picture gives a crop to.
    workers: processes; 0 decodes here.
    skipped: takes a line for each unusable picture that is met.

  Yields:
    {'lr': uint8 [count, patch / scale, patch / scale, C], 'hr': uint8 [count, patch, patch, C]}.

  Raises:
    InputError: more than 1% of the pictures are unusable.
  """
  group, first = divmod(begin, share)
  dataset = grain.MapDataset.source(Crops(found, seed, cut, share, group)).to_iter_dataset(
      grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
  if workers:
    if not flags.FLAGS.is_parsed():
      flags.FLAGS.mark_as_parsed()  # the workers are started with absl's flags
    dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(workers, BUFFER), _begin_worker)
  items = iter(dataset)
  side, patch = cut.patch // cut.scale, cut.patch
  try:
    while True:
      lrs, hrs, unusable = zip(*(next(items) for _ in range(cut.count)), strict=True)
      for line in (line for lines in unusable for line in lines):
        _note(line, skipped, len(found))
      for place in range(first, share):
        yield {'lr': _together([crops[place] for crops in lrs], side, cut.channels),
               'hr': _together([crops[place] for crops in hrs], patch, cut.channels)}
      first = 0
  except RuntimeError as error:
    raise InputError(f'a worker that decodes pictures was lost ({error})') from None
  finally:
    if workers:
      items.close()


def _together(crops: list[bytes], side: int, channels: int) -> np.ndarray:
  return np.frombuffer(b''.join(crops), np.uint8).reshape(-1, side, side, channels)


def _note(line: str, skipped: list[str], count: int) -> None:
  if line not in skipped:
    skipped.append(line)
    if len(skipped) > max(1, TOLERATED * count):
      raise InputError(f'{len(skipped)} of {count} pictures are unusable, more than '
                       f'{TOLERATED:.0%}; the last: {line}')


def _begin_worker(worker: int, workers: int) -> None:
  """Leaves Ctrl-C, which goes to every process of a terminal, to the training process, and
  ends with it, however that ends."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  with contextlib.suppress(AttributeError):  # glibc alone has it
    # Memory of decoded pictures is used again; to give it back and fault it in anew takes
    # half as long as decoding a large PNG.
    for option, size in ((M_MMAP_THRESHOLD, 1 << 25), (M_TRIM_THRESHOLD, 1 << 28)):
      ctypes.CDLL(None).mallopt(option, size)

  def follow():
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=follow, daemon=True).start()
  # Before anything else at its end, or it would wait until somebody read what it has made.
  util.Finalize(None, os._exit, (1,), exitpriority=1000)
