"""The stream: images decoded while training, in worker processes, for sets too large to pack.

A decoded image gives a crop to each of `crops_per_image` consecutive batches, so a batch costs
`count / crops_per_image` decodings and no two of its crops come from the same image. What is
decoded and cut for a step depends on the seed and the step alone, whatever the number of workers.
"""

import collections
import contextlib
import ctypes
import dataclasses
import functools
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import numpy as np

from sr_jax import images
from sr_jax.data import pictures
from sr_jax.data.bank import CropSpec
from sr_jax.data.pictures import Picture
from sr_jax.errors import InputError
from sr_jax.images import dropped
from sr_jax.system import threads

PENDING_PER_WORKER = 4  # images that each worker decodes before they are asked for
MAX_SAMPLE = 2000  # images whose headers are read before training
MAX_DAMAGED_SHARE = 0.01  # share of a set's images that may be damaged; one always may
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # options of glibc's mallopt


class Skipped(NamedTuple):
  """An image that could not be used."""

  line: str
  damaged: bool  # whether it is damaged rather than too small


# The crops of one decoded image, and the images that were skipped before it.
Item = tuple[dict[str, np.ndarray], list[Skipped]]


@dataclasses.dataclass(frozen=True)
class CropSource:
  """Random access to decoded images: item i is slot i % count of group i // count.

  A group is `crops_per_image` consecutive batches. In each of the `count` slots of a group is a
  different image; images come in a random order, and a new order is drawn once all were used.

  Attributes:
    found: images, in an order that is always the same.
    seed: seed of the run.
    crop_spec: the crops of a batch; no more crops than there are images.
    crops_per_image: number of consecutive batches that an image gives a crop to.
  """

  found: Sequence[Picture]
  seed: int
  crop_spec: CropSpec
  crops_per_image: int

  def item(self, index: int) -> Item:
    """Decodes an image and cuts its crops.

    Returns:
      ({'lr': uint8 [crops_per_image, h, w, C], 'hr': ...}, images that were skipped).

    Raises:
      InputError: no usable image, or a pair that does not match.
    """
    found, (count, patch, scale, channels, _) = self.found, self.crop_spec
    group, slot = divmod(index, count)
    # Groups per order of all images; an incomplete last group is dropped.
    epoch, place = divmod(group, len(found) // count)
    order = _order(self.seed, epoch, len(found))
    rng = np.random.default_rng((self.seed, 1, group, slot))
    positions = rng.random((self.crops_per_image, 2)).tolist()
    skipped = []
    # An unusable image is replaced by the next one of the same slot, which no other slot uses.
    # If all of the slot are unusable, any image is taken, those of the dropped group first.
    slot_images = np.roll(order[slot::count], -place)
    for candidate in (*slot_images, *order[::-1]):
      try:
        crops = pictures.read_crops(found[candidate], scale, channels, patch, positions)
        return crops, skipped
      except (images.DamagedImageError, pictures.TooSmallError) as error:
        skipped.append(Skipped(str(error), isinstance(error, images.DamagedImageError)))
    pictures.refuse_empty([image.line for image in skipped])


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
  """Returns a random order of `count` images."""
  # NumPy promises to keep the bits of its generators, but not the result of `permutation`.
  return np.argsort(np.random.default_rng((seed, 0, epoch)).random(count), kind='stable')


def batches(source: CropSource, start: int, workers: int, skipped: list[str],
            rows: Sequence[int] | None = None) -> Iterator[dict[str, np.ndarray]]:
  """Yields the crops of step `start` and of every later step, without end.

  Args:
    source: the images and how they are cut.
    start: the first step.
    workers: number of processes that decode; 0 decodes in this process.
    skipped: receives a line for each unusable image that is met.
    rows: which crops of each batch are made; None makes all. The images of a slot belong to it
      alone, so the other crops make no difference.

  Yields:
    {'lr': uint8 [n, patch / scale, patch / scale, C], 'hr': uint8 [n, patch, patch, C]}, n being
    the length of `rows`; the first only `with_lr`.

  Raises:
    InputError: more than one image and more than 1% of them are damaged, or all are unusable; a
      pair does not match; a worker process died.
  """
  count, crops_per_image = source.crop_spec.count, source.crops_per_image
  names = ('lr', 'hr') if source.crop_spec.with_lr else ('hr',)
  group, first = divmod(start, crops_per_image)
  damaged = 0
  rows = range(count) if rows is None else rows
  indices = (number * count + slot for number in itertools.count(group) for slot in rows)
  items = _in_order(source, indices, workers)
  with contextlib.closing(items):
    while True:
      slots = [next(items) for _ in rows]
      for line, is_damaged in itertools.chain.from_iterable(lines for _, lines in slots):
        if line not in skipped:
          skipped.append(line)
          damaged += is_damaged
          if damaged > max(1, MAX_DAMAGED_SHARE * len(source.found)):
            raise InputError(f'{damaged} of {len(source.found)} images are damaged, more than '
                             f'{MAX_DAMAGED_SHARE:.0%}; the last one: {line}')
      for place in range(first, crops_per_image):
        yield {name: np.stack([crops[name][place] for crops, _ in slots]) for name in names}
      first = 0  # only a run that resumes within a group skips batches


def sampled_notes(found: Sequence[Picture]) -> list[str]:
  """Returns lines on what reading a stream's images loses, from the headers of at most MAX_SAMPLE.

  Alpha counts as lost although it may turn out to be opaque.
  """
  sample = found[::-(-len(found) // MAX_SAMPLE)]
  lost = threads.on_all_cores(pictures.header_notes, sample)
  unit = 'images' if len(sample) == len(found) else f'images, a sample of {len(found):,}'
  return dropped.summary({str(picture.hr): notes
                          for picture, notes in zip(sample, lost, strict=True)}, unit)


# Workers -------------------------------------------------------------------------------


def _in_order(source: CropSource, indices: Iterator[int], workers: int) -> Iterator[Item]:
  """Yields the items with these indices, decoding a few ahead in each worker."""
  if not workers:
    yield from map(source.item, indices)
    return
  pool = ProcessPoolExecutor(workers, multiprocessing.get_context('spawn'), _start_worker,
                             (source,))
  pending = collections.deque()
  try:
    for index in indices:
      with _block_sigint():
        pending.append(pool.submit(_decode, index))
      if len(pending) == workers * PENDING_PER_WORKER:
        yield pending.popleft().result()
  except BrokenProcessPool:
    raise InputError('a worker process that decodes images died: it was killed or ran out of '
                     'memory (--config.data.workers sets the number of workers), or the program '
                     "lacks `if __name__ == '__main__':` around its calls, which each process that "
                     'Python starts would run again') from None
  finally:
    pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _block_sigint() -> Iterator[None]:
  """Makes processes that are started inside ignore Ctrl-C, which a terminal sends to all."""
  mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


_source: CropSource | None = None  # in a worker; sent once and not with each item


def _start_worker(source: CropSource) -> None:
  """Prepares a worker process."""
  global _source
  _source = source

  def exit_with_parent() -> None:
    """Ends this process when the training process ends, however that happens."""
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=exit_with_parent, daemon=True).start()
  with contextlib.suppress(AttributeError):  # only glibc has mallopt
    # Keeps the memory of decoded images for the next one. Returning it to the system and faulting
    # it in again takes half as long as decoding a large PNG file.
    for option, size in ((M_MMAP_THRESHOLD, 1 << 25), (M_TRIM_THRESHOLD, 1 << 28)):
      ctypes.CDLL(None).mallopt(option, size)


def _decode(index: int) -> Item:
  return _source.item(index)
