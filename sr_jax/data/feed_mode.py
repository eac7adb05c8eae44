"""How batches are made, and in which mode: what fits the device, what fits the disk."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax

from sr_jax.data import bank, pack_layout, packed
from sr_jax.data.augment import Augmentation
from sr_jax.data.bank import CropSpec
from sr_jax.data.degradations.chains import Degrader
from sr_jax.data.packed import Packed
from sr_jax.data.pictures import Picture
from sr_jax.errors import InputError, count_of
from sr_jax.system import files

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


def open_or_pack(found: Sequence[Picture], spec: FeedSpec,
                 log: Callable[[str], None]) -> tuple[str, Packed | None, str | None]:
  """Chooses between the modes that pack, and packs the images unless that was done before.

  Args:
    found, spec, log: of `feed.open_feed`; the mode is another one than 'stream'.

  Returns:
    ('bank' or 'mapped', the packed set, its digest); ('stream', None, None) if `spec.mode` is
    'auto' and the images fit neither the device nor the disk.
  """
  cache = spec.cache or packed.default_cache()
  _, _, scale, channels, with_lr = spec.crop_spec
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
  return mode, packed_set or packed.pack(layout, scale, channels, folder), folder.name


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
