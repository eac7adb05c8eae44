"""The feed: where a run's images are kept, chosen by their size, and batches for each step.

  bank    packed, all in device memory; batches are cut inside the step
  mapped  packed, in a file mapped into memory; the same batches, copied a few steps ahead
  stream  not packed; decoded while training
"""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sr_jax.data import bank, mapped, pack_layout, packed, stream
from sr_jax.data.array_image import ArrayImage
from sr_jax.data.augment import Augmentation, Crops, augment
from sr_jax.data.bank import CropSpec
from sr_jax.data.degradations.chains import Degrader
from sr_jax.data.degradations.steps import degrade_steps
from sr_jax.data.packed import Packed
from sr_jax.data.pictures import Picture
from sr_jax.data.prefetcher import Prefetcher
from sr_jax.errors import InputError, count_of
from sr_jax.images import dropped
from sr_jax.system import files, sharding

MODES = ('auto', 'bank', 'mapped', 'stream')
MAX_WINDOW = 16  # most steps of one device loop call if batches are made on the host


@dataclasses.dataclass(frozen=True)
class FeedSpec:
  """How batches are made.

  Attributes:
    crop_spec: the crops that are cut for a batch.
    batch_size: examples in a batch.
    augmentation: what the examples are augmented with.
    seed: seed of the run.
    mode: 'auto' chooses the first of bank, mapped and stream that fits, 'packed' the first of
      bank and mapped; otherwise 'bank', 'mapped' or 'stream'.
    window: the most steps that one device loop call takes if batches are made on the host.
    crops_per_image: number of consecutive batches that an image decoded for the stream gives a
      crop to.
    workers: number of processes that decode for the stream.
    cache: folder of packed sets; None is `packed.default_cache()`.
    degrader: makes LR of HR crops, which are then cut without LR and larger than the batch's: a
      `Degrader`, or its `with_draws`, so that `Feed.batch_at` returns the draws as well; None takes
      LR as it is cut.
  """

  crop_spec: CropSpec
  batch_size: int
  augmentation: Augmentation
  seed: int
  mode: str = 'auto'
  window: int = MAX_WINDOW
  crops_per_image: int = 4
  workers: int = 0
  cache: pathlib.Path | None = None
  degrader: Degrader | Callable[[jax.Array, jax.Array], Any] | None = None


class Feed(NamedTuple):
  """The batches of a run.

  Attributes:
    mode: 'bank', 'mapped' or 'stream'.
    batch_at: (source, seed, step) -> {'lr', 'hr'}, float32 in [0, 1], and 'target' if HR is
      sharpened; a pure function, called inside the step.
    source_for: (start, stop) -> source for the steps start .. stop - 1; each call must begin
      where the last one ended.
    max_steps: the most steps that one source may be for.
    skipped: a line for each image that was skipped; a stream adds lines while it runs.
    digest: hash of everything that batches depend on except seed and step.
    close: stops background work.
    notes: lines on what reading the images loses (`images.dropped.summary`).
  """

  mode: str
  batch_at: Callable[[Any, jax.Array, jax.Array], Crops]
  source_for: Callable[[int, int], Any]
  max_steps: int
  skipped: list[str]
  digest: str
  close: Callable[[], None]
  notes: Sequence[str] = ()


class Batches(NamedTuple):
  """Crops made on the host for the steps from `first` on: a pytree, the source of one call."""

  first: jax.Array  # int32
  crops: Crops  # uint8 [steps, n, ...]; sharded along n on a mesh


def open_feed(found: Sequence[Picture], spec: FeedSpec, start: int = 0,
              log: Callable[[str], None] = print, mesh: jax.sharding.Mesh | None = None) -> Feed:
  """Opens the images for training; packs them first unless that was done or they are streamed.

  Args:
    found: the images.
    spec: how batches are made.
    start: the first step that will be asked for.
    log: called with a line about what will be used, in bytes, before it is allocated.
    mesh: a mesh of `sharding.make_mesh`: a bank is replicated on all of its devices, batches are
      sharded over them, and each device degrades its own crops.

  Raises:
    InputError: no usable image; not enough space for the mode; fewer images than crops in a
      batch of a stream.
  """
  mode, packed_set, digest_source = spec.mode, None, None
  if mode != 'stream':
    mode, packed_set, digest_source = _pack(found, spec, log)
  if mode == 'stream':  # whose files are not read at this point
    digest_source = [identity for picture in found for identity in _identities(picture)]
  digest = _digest(digest_source, spec, mode)
  if mode == 'bank':
    return _bank_feed(packed_set, spec, digest, mesh)._replace(notes=_notes(packed_set))
  rows = sharding.process_rows(spec.crop_spec.count, mesh)
  if mode == 'mapped':
    skipped, notes = packed_set.skipped, _notes(packed_set)
    batches = mapped.batches(packed_set, spec.seed, start, spec.crop_spec, rows)
  else:
    skipped, notes = [], stream.sampled_notes(found)
    batches = _stream(found, spec, start, rows, skipped, log)
  ahead = Prefetcher(batches, 2 * spec.window)
  source_for = functools.partial(_take, ahead, spec.window, spec.crop_spec.count, mesh)
  return Feed(mode, host_batches(spec, mesh), source_for, spec.window, skipped, digest, ahead.close,
              notes)


def _identities(picture: Picture) -> list[str]:
  """Returns what identifies an image that is streamed: the path of HR, and hashes of arrays."""
  hr, lr = picture.hr, picture.lr
  return [hr.stamp if isinstance(hr, ArrayImage) else str(hr),
          *([lr.stamp] if isinstance(lr, ArrayImage) else [])]


def bank_batches(spec: FeedSpec, mesh: jax.sharding.Mesh | None = None) -> Callable:
  """Returns the `Feed.batch_at` of a bank, which cuts a step's crops out of the bank."""
  return _batches(functools.partial(bank.crops_at, crop_spec=spec.crop_spec), spec, mesh)


def host_batches(spec: FeedSpec, mesh: jax.sharding.Mesh | None = None) -> Callable:
  """Returns a `Feed.batch_at` that takes a step's crops from the `Batches` made on the host."""
  def crops_at(source: Batches, seed: int | jax.Array, step: int | jax.Array) -> Crops:
    return {name: crop[step - source.first] for name, crop in source.crops.items()}

  return _batches(crops_at, spec, mesh)


def _batches(crops_at: Callable[[Any, int | jax.Array, int | jax.Array], Crops], spec: FeedSpec,
             mesh: jax.sharding.Mesh | None) -> Callable:
  """Returns a `Feed.batch_at` that augments a step's crops and, if asked, degrades them."""
  degrade = spec.degrader and degrade_steps(spec.degrader, mesh)

  def batch_at(source: Any, seed: int | jax.Array, step: int | jax.Array) -> Crops:
    batch = augment(crops_at(source, seed, step), seed, step, spec.batch_size, spec.augmentation)
    return degrade(batch['hr'], seed, step) if degrade else batch

  return batch_at


def _digest(digest_source: str | list[str], spec: FeedSpec, mode: str) -> str:
  """Returns a hash of everything that batches depend on except seed and step."""
  crops_per_image = spec.crops_per_image if mode == 'stream' else None
  # Plain tuples, so that renaming a class or a field does not change the hash; with degradations it
  # does. Without them the hash is that of the time before there were any.
  crops, degraded = tuple(spec.crop_spec), () if spec.degrader is None else (spec.degrader,)
  text = repr((digest_source, crops if degraded else crops[:-1], spec.batch_size,
               tuple(spec.augmentation), crops_per_image, *degraded))
  return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


# Modes ---------------------------------------------------------------------------------


def _pack(found: Sequence[Picture], spec: FeedSpec,
          log: Callable[[str], None]) -> tuple[str, Packed | None, str | None]:
  """Chooses between the modes that pack, and packs the images unless that was done before.

  Returns:
    ('bank' or 'mapped', the packed set, its digest); ('stream', None, None) if `spec.mode` is
    'auto' and the images fit neither the device nor the disk.
  """
  cache = spec.cache or packed.default_cache()
  _, patch, scale, channels, with_lr = spec.crop_spec
  packed.remove_leftovers(cache)
  budget, free = bank.device_budget(), files.free_bytes(cache)
  if spec.mode == 'auto':
    stored = sum(packed.stored_bytes(picture.hr) for picture in found)
    if stored > max(budget, free):  # decoded images need even more
      _refuse_few(found, spec, stored, free)
      log(f'{len(found):,} images take {stored:,} bytes in their files, too many to pack')
      return 'stream', None, None
  folder = packed.packed_folder(found, scale, channels, cache, with_lr)
  packed_set = packed.open_packed(folder, found)
  layout = None if packed_set else pack_layout.lay_out(found, scale, channels, with_lr)
  needed = packed_set.pixels.nbytes if packed_set else layout.bytes
  mode = _choose_mode(spec.mode, needed, budget, bool(packed_set) or needed <= free // 2)
  where = {'bank': f'kept in device memory, which has space for {budget:,}',
           'mapped': f'mapped from {folder}; device memory has space for {budget:,}',
           'stream': f'too many for the free disk space of config.data.cache, {cache} ({free:,})'}
  if mode == 'stream':
    _refuse_few(found, spec, needed, free)
  log(f'{len(packed_set.names if packed_set else layout.indices):,} images take {needed:,} bytes '
      f'packed, {where[mode]}')
  if mode == 'stream':
    return mode, None, None
  packed_set = packed_set or packed.pack(layout, scale, channels, folder)
  return mode, packed.drop_too_small(packed_set, scale, patch), folder.name


def _refuse_few(found: Sequence[Picture], spec: FeedSpec, needed: int, free: int) -> None:
  """Refuses a set that is too small for the stream that lack of disk space would make of it.

  Args:
    found, spec: see `open_feed`.
    needed, free: bytes of the packed images, and bytes that are free where they would be packed.

  Raises:
    InputError: a batch has more crops than there are images.
  """
  if len(found) < spec.crop_spec.count:
    raise InputError(
        f'config.data.cache={spec.cache or packed.default_cache()}: its disk has {free:,} bytes '
        f'free; packing {count_of(found, "image")} needs {2 * needed:,}, half of which stays free. '
        'Free some space, or set --config.data.cache=FOLDER to a folder on another disk')


def _choose_mode(mode: str, needed: int, budget: int, fits_disk: bool) -> str:
  """Returns the mode in which `needed` bytes of packed images are used.

  Args:
    mode: the mode asked for, as in `FeedSpec`.
    needed: bytes of the packed images.
    budget: bytes that a bank may occupy on the device.
    fits_disk: whether the set is packed already or there is space on the disk to pack it.

  Raises:
    InputError: the mode is 'bank' and the images do not fit the device.
  """
  if mode == 'bank' and needed > budget:
    raise InputError(f'config.data.mode=bank: the images need {needed:,} bytes in device memory, '
                     f'which has space for {budget:,}; mapped keeps them on the disk')
  if mode == 'auto' and not fits_disk:
    return 'stream'
  if mode in ('auto', 'packed'):
    return 'bank' if needed <= budget else 'mapped'
  return mode


def _bank_feed(packed_set: Packed, spec: FeedSpec, digest: str,
               mesh: jax.sharding.Mesh | None) -> Feed:
  """Returns the feed of a packed set that is copied to the device, or to each of a mesh."""
  pixels = bank.to_device(packed_set) if mesh is None else bank.Bank(
      *sharding.replicate((packed_set.pixels, packed_set.table), mesh))
  batch_at = bank_batches(spec, mesh)
  return Feed('bank', batch_at, lambda start, stop: pixels, 2**31, packed_set.skipped, digest,
              lambda: None)


def _stream(found: Sequence[Picture], spec: FeedSpec, start: int, rows: Sequence[int],
            skipped: list[str],
            log: Callable[[str], None]) -> Iterator[dict[str, np.ndarray]]:
  """Returns the batches of a stream; `skipped` receives a line for each unusable image."""
  crop_spec = spec.crop_spec
  if len(found) < crop_spec.count:
    raise InputError(f'config.data.mode=stream: {len(found)} images are fewer than a batch of '
                     f'{crop_spec.count}; use bank for small sets')
  ahead = stream.PENDING_PER_WORKER * max(spec.workers, 1) * spec.crops_per_image
  ahead += 2 * spec.window * len(rows)
  crop_bytes = crop_spec.channels * crop_spec.patch**2 * (
      1 + crop_spec.with_lr / crop_spec.scale**2)
  log(f'{len(found):,} images, decoded by {spec.workers} workers while training; prefetched crops '
      f'take {int(ahead * crop_bytes):,} bytes')
  source = stream.CropSource(found, spec.seed, crop_spec, spec.crops_per_image)
  return stream.batches(source, start, spec.workers, skipped, rows)


def _notes(packed_set: Packed) -> list[str]:
  """Returns lines on what reading the images of a packed set has lost."""
  return dropped.summary(dict(zip(packed_set.names, packed_set.notes, strict=True)))


def _take(ahead: Prefetcher, window: int, count: int, mesh: jax.sharding.Mesh | None,
          start: int, stop: int) -> Batches:
  """Returns the batches of the steps start .. stop - 1 as arrays on the device.

  Args:
    ahead: the batches.
    window: the last batch is repeated until there are this many, so that all windows have one
      shape and nothing is compiled again.
    count: crops in a batch, over all processes.
    mesh: mesh over which crops are sharded.
    start, stop: steps.
  """
  taken = [ahead.next() for _ in range(stop - start)]
  taken += [taken[-1]] * (window - len(taken))
  crops = {name: sharding.scatter(np.stack([batch[name] for batch in taken]), count, mesh)
           for name in taken[0]}
  return Batches(sharding.replicate(jnp.int32(start), mesh), crops)
