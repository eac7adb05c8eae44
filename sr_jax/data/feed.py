"""The feed: where a run's images are kept, chosen by their size, and batches for each step.

  bank    packed, all in device memory; batches are cut inside the step
  mapped  packed, in a file mapped into memory; the same batches, copied a few steps ahead
  stream  not packed; decoded while training
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sr_jax.data import bank, feed_mode, mapped, packed, stream
from sr_jax.data.array_image import ArrayImage
from sr_jax.data.augment import Crops, augment
from sr_jax.data.degradations.steps import degrade_steps
from sr_jax.data.feed_mode import FeedSpec
from sr_jax.data.packed import Packed
from sr_jax.data.pictures import Picture
from sr_jax.data.prefetcher import Prefetcher
from sr_jax.errors import InputError
from sr_jax.images import dropped
from sr_jax.system import sharding


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
    digest_of: returns the digest that the feed would have with other crops; raises InputError if
      the images cannot give these.
    reopen: (crops, start) -> a feed of the same images, in the same mode, with other crops, from a
      step on. It adds its lines to `skipped`. Close this one first, which frees its workers.
  """

  mode: str
  batch_at: Callable[[Any, jax.Array, jax.Array], Crops]
  source_for: Callable[[int, int], Any]
  max_steps: int
  skipped: list[str]
  digest: str
  close: Callable[[], None]
  notes: Sequence[str] = ()
  digest_of: Callable[[FeedSpec], str] | None = None
  reopen: Callable[[FeedSpec, int], 'Feed'] | None = None


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
    mode, packed_set, digest_source = feed_mode.open_or_pack(found, spec, log)
  if mode == 'stream':  # whose files are not read at this point
    digest_source = [identity for picture in found for identity in _identities(picture)]
  return _Opened(found, mode, packed_set, digest_source, log, mesh).feed(spec, start)


@dataclasses.dataclass(frozen=True)
class _Opened:
  """The images of a run, from which feeds of different crops are made.

  Attributes:
    found, log, mesh: arguments of `open_feed`.
    mode: of the feeds.
    packed_set: None for a stream.
    digest_source: of `_digest`.
    skipped: of all feeds.
  """

  found: Sequence[Picture]
  mode: str
  packed_set: Packed | None
  digest_source: str | list[str]
  log: Callable[[str], None]
  mesh: jax.sharding.Mesh | None
  skipped: list[str] = dataclasses.field(default_factory=list)

  @functools.cached_property
  def pixels(self) -> jax.Array:
    """The pixels of the bank, on the device or on each of a mesh."""
    if self.mesh is None:
      return bank.to_device(self.packed_set).pixels
    return sharding.replicate(self.packed_set.pixels, self.mesh)

  def digest_of(self, spec: FeedSpec) -> str:
    """Returns the digest of a feed; raises InputError if the images cannot give its crops."""
    self._large_enough(spec)
    return _digest(self.digest_source, spec, self.mode)

  def feed(self, spec: FeedSpec, start: int) -> Feed:
    """Returns a feed whose first step is `start`."""
    rows = sharding.process_rows(spec.crop_spec.count, self.mesh)
    large = self._large_enough(spec)
    digest = _digest(self.digest_source, spec, self.mode)
    shared = {'digest_of': self.digest_of, 'reopen': self.feed}
    if self.mode == 'stream':
      batches = _stream(self.found, spec, start, rows, self.skipped, self.log)
      shared['notes'] = stream.sampled_notes(self.found)
    else:
      self.skipped.extend([line for line in large.skipped if line not in self.skipped])
      shared['notes'] = _notes(large)
    if self.mode == 'bank':
      images = bank.Bank(self.pixels, sharding.replicate(jnp.asarray(large.table), self.mesh))
      return Feed('bank', bank_batches(spec, self.mesh), lambda start, stop: images, 2**31,
                  self.skipped, digest, lambda: None, **shared)
    if self.mode == 'mapped':
      batches = mapped.batches(large, spec.seed, start, spec.crop_spec, rows)
    ahead = Prefetcher(batches, 2 * spec.window)
    source_for = functools.partial(_take, ahead, spec.window, spec.crop_spec.count, self.mesh)
    return Feed(self.mode, host_batches(spec, self.mesh), source_for, spec.window, self.skipped,
                digest, ahead.close, **shared)

  def _large_enough(self, spec: FeedSpec) -> Packed | None:
    """Returns the packed images that can give the crops; None for a stream."""
    if self.mode == 'stream':
      _refuse_fewer_than_crops(self.found, spec)
      return None
    return packed.drop_too_small(self.packed_set, spec.crop_spec.scale, spec.crop_spec.patch)


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


def _stream(found: Sequence[Picture], spec: FeedSpec, start: int, rows: Sequence[int],
            skipped: list[str],
            log: Callable[[str], None]) -> Iterator[dict[str, np.ndarray]]:
  """Returns the batches of a stream; `skipped` receives a line for each unusable image."""
  crop_spec = spec.crop_spec
  ahead = stream.PENDING_PER_WORKER * max(spec.workers, 1) * spec.crops_per_image
  ahead += 2 * spec.window * len(rows)
  crop_bytes = crop_spec.channels * crop_spec.patch**2 * (
      1 + crop_spec.with_lr / crop_spec.scale**2)
  log(f'{len(found):,} images, decoded by {spec.workers} workers while training; prefetched crops '
      f'take {int(ahead * crop_bytes):,} bytes')
  source = stream.CropSource(found, spec.seed, crop_spec, spec.crops_per_image)
  return stream.batches(source, start, spec.workers, skipped, rows)


def _refuse_fewer_than_crops(found: Sequence[Picture], spec: FeedSpec) -> None:
  if len(found) < spec.crop_spec.count:
    raise InputError(f'config.data.mode=stream: {len(found)} images are fewer than a batch of '
                     f'{spec.crop_spec.count}; use bank for small sets')


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
