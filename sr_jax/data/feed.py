"""How a run's pictures are held, chosen by their size, and what each dispatch is given of them.

  bank    packed, all on the device; batches are cut inside the step
  mapped  packed, in a file mapped into memory; the same batches, copied a few steps ahead
  stream  not packed; decoded while training
"""

import functools
import hashlib
import pathlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sr_jax.data import bank, mapped, packed, stream
from sr_jax.data.augment import Augmentation, augment
from sr_jax.data.bank import CropSpec
from sr_jax.data.pictures import Picture
from sr_jax.errors import InputError
from sr_jax.system import files, sharding

MODES = ('auto', 'bank', 'mapped', 'stream')
WINDOW = 16  # batches that a dispatch is given at most, where the host makes them


class Feed(NamedTuple):
  """What training sees of the data.

  Attributes:
    mode: 'bank', 'mapped' or 'stream'.
    batch_at: (source, seed, step) -> {'lr', 'hr'}, float32 in [0, 1]: pure, for the step.
    source_for: (start, stop) -> source, for steps start .. stop - 1; each goes on where the last
      one ended.
    max_steps: the most steps that one source may be for.
    skipped: a line for each picture left out; a stream meets them as it goes.
    digest: of all that batches are made of, but seed and step.
    close: ends what works in the background.
  """

  mode: str
  batch_at: Callable
  source_for: Callable[[int, int], Any]
  max_steps: int
  skipped: list[str]
  digest: str
  close: Callable[[], None]


class Batches(NamedTuple):
  """Crops made on the host for the steps from `first` on: a pytree, the source of a dispatch."""

  first: jax.Array  # int32
  crops: dict[str, jax.Array]  # uint8 [steps, n, ...]; on a mesh n is cut


def open_feed(found: Sequence[Picture], cut: CropSpec, batch_size: int, kinds: Augmentation, *,
              mode: str, seed: int, begin: int, window: int = WINDOW, share: int = 4,
              workers: int = 0, cache: pathlib.Path | None = None, say=print,
              mesh: jax.sharding.Mesh | None = None) -> Feed:
  """Packs the pictures, unless that was done before or they are streamed, and opens them.

  Args:
    cut: what is cut out of them for a batch of `batch_size`.
    mode: 'auto' takes the first of bank, mapped and stream that there is room for, 'packed'
      of the first two.
    begin: the first step that will be asked for.
    window: steps that one dispatch may take, where the host makes batches.
    share: batches that a picture decoded for the stream gives a crop to.
    workers: processes that decode for the stream.
    cache: folder of packed sets; None is `packed.default_cache()`.
    say: is told what will be used, in bytes, before it is.
    mesh: of `parallel.make_mesh`: a bank lies on each of its devices, batches are cut over them.

  Raises:
    InputError: no usable picture; no room for what was asked for; more crops in a streamed
      batch than there are pictures.
  """
  held = told = None
  if mode != 'stream':
    mode, held, told = _packed(found, cut, mode, cache or packed.default_cache(), say)
  if mode == 'stream':  # whose files are not read now
    told = [str(picture.hr) for picture in found]
  made_of = repr((told, cut, batch_size, kinds, share if mode == 'stream' else None))
  digest = hashlib.blake2b(made_of.encode(), digest_size=8).hexdigest()
  if mode == 'bank':
    pictures = bank.to_device(held) if mesh is None else bank.Bank(
        *sharding.replicate((held.pixels, held.table), mesh))
    return Feed(mode, bank_batches(cut, batch_size, kinds), lambda start, stop: pictures, 2**31,
                held.skipped, digest, lambda: None)
  batch_at = functools.partial(batch_of_host, size=batch_size, kinds=kinds)
  rows = sharding.process_rows(cut.count, mesh)
  if mode == 'mapped':
    skipped, made = held.skipped, mapped.batches(held, seed, begin, cut, rows)
  else:
    if len(found) < cut.count:
      raise InputError(f'config.data.mode=stream: {len(found)} pictures are fewer than a batch of '
                       f'{cut.count}; bank is for small sets')
    needed = stream.AHEAD * max(workers, 1) * share + 2 * window * len(rows)
    needed *= cut.channels * cut.patch**2 * (1 + 1 / cut.scale**2)
    say(f'{len(found):,} pictures, decoded by {workers} workers while training, crops of '
        f'{int(needed):,} bytes ahead')
    skipped = []
    made = stream.batches(found, seed, begin, cut, share, workers, skipped, rows)
  ahead = Prefetcher(made, 2 * window)
  take = functools.partial(_take, ahead, window, cut.count, mesh)
  return Feed(mode, batch_at, take, window, skipped, digest, ahead.close)


def bank_batches(cut: CropSpec, size: int, kinds: Augmentation) -> Callable:
  """A bank's `batch_at`."""
  return functools.partial(batch_of_bank, cut=cut, size=size, kinds=kinds)


def batch_of_bank(source: bank.Bank, seed, step, *, cut: CropSpec, size: int, kinds: Augmentation):
  return augment(bank.crops_at(source, seed, step, cut), seed, step, size, kinds)


def batch_of_host(source: Batches, seed, step, *, size: int, kinds: Augmentation):
  crops = {name: crop[step - source.first] for name, crop in source.crops.items()}
  return augment(crops, seed, step, size, kinds)


def _packed(found, cut: CropSpec, mode: str, cache: pathlib.Path, say):
  """(bank or mapped, the packed set, its digest); ('stream', None, None) if 'auto' finds no
  room."""
  packed.remove_leftovers(cache)
  room, free = bank.device_budget(), files.free_bytes(cache)
  if mode == 'auto':
    stored = sum(packed.stored_bytes(picture.hr) for picture in found)
    if stored > max(room, free):  # and more when it is decoded
      say(f'{len(found):,} pictures are {stored:,} bytes in their files, too many to pack')
      return 'stream', None, None
  folder = packed.folder_of(found, cut.scale, cut.channels, cache)
  held = packed.open_packed(folder)
  planned = None if held else packed.lay_out(found, cut.scale, cut.channels)
  needed = held.pixels.nbytes if held else planned.bytes
  if mode == 'bank' and needed > room:
    raise InputError(f'config.data.mode=bank: the pictures need {needed:,} bytes on the device, '
                     f'which has room for {room:,}; mapped leaves them on the disk')
  if mode in ('auto', 'packed'):
    fits = held or needed <= free // 2 or mode == 'packed'
    mode = ('bank' if needed <= room else 'mapped') if fits else 'stream'
  where = {'bank': f'held on the device, which has room for {room:,}',
           'mapped': f'mapped from {folder}; the device has room for {room:,}',
           'stream': f'too many for the free disk ({free:,})'}
  say(f'{len(held.names if held else planned.pictures):,} pictures are {needed:,} bytes packed, '
      f'{where[mode]}')
  if mode == 'stream':
    return mode, None, None
  held = held or packed.pack(planned, cut.scale, cut.channels, folder)
  return mode, packed.with_crops(held, cut.scale, cut.patch), folder.name


def _take(ahead: 'Prefetcher', window: int, count: int, mesh, start: int, stop: int) -> Batches:
  made = [ahead.next() for _ in range(stop - start)]
  made += [made[-1]] * (window - len(made))  # of one shape, so that nothing is compiled anew
  crops = {name: sharding.scatter(np.stack([batch[name] for batch in made]), count, mesh)
           for name in made[0]}
  return Batches(sharding.replicate(jnp.int32(start), mesh), crops)


class Prefetcher:
  """An iterator whose items a thread makes before they are asked for."""

  def __init__(self, made: Iterator, most: int):
    self._items = queue.Queue(most)
    self._ended = threading.Event()
    self._thread = threading.Thread(target=self._run, args=(made,), daemon=True)
    self._thread.start()

  def next(self):
    """The next item, or the error that was raised in making it."""
    item = self._items.get()
    if isinstance(item, BaseException):
      self._items.put(item)  # nothing comes after it
      raise item
    return item

  def close(self) -> None:
    self._ended.set()
    while self._thread.is_alive():
      try:
        self._items.get(timeout=0.05)  # it may wait for a place
      except queue.Empty:
        continue

  def _run(self, made):
    try:
      while not self._ended.is_set():
        self._items.put(next(made))
    except BaseException as error:  # raised where the item is asked for
      self._items.put(error)
    finally:
      made.close()
