"""Augmentation on the device: what a step's crops are changed into, seeded for each example.

LR and HR of an example undergo the same. Changes of colour are affine in R, G and B, so that
the LR of a changed HR is the changed LR, but where values are cut off at 0 or 1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sr_jax import images
from sr_jax.errors import InputError

# Weights of R, G and B in a grey picture of the same luma (ITU-R BT.601).
GREY = (0.299, 0.587, 0.114)


class Keys(NamedTuple):
  """Of one step."""

  picture: jax.Array
  row: jax.Array
  column: jax.Array
  turn: jax.Array
  colour: jax.Array
  mixup: jax.Array
  cutblur: jax.Array


def step_keys(seed, step) -> Keys:
  """A step's random keys: of the run's seed and the step alone."""
  return Keys(*jax.random.split(jax.random.fold_in(jax.random.key(seed), step), len(Keys._fields)))


class Augmentation(NamedTuple):
  """What may happen to an example; `config.data.augment`.

  Attributes:
    flip: mirrored left to right, half of them.
    turn: by 0 to 3 quarter turns, evenly. With `flip`: the eight symmetries of the square.
    brightness: (probability, a): times a factor in [1, 1 + a].
    darkening: (probability, a): times a factor in [1 - a, 1].
    contrast: (probability, a): distances from the crop's mean times a factor in [1 - a, 1 + a].
    saturation: (probability, a): distances from each pixel's grey likewise.
    shuffle: probability that R, G and B change places.
    mixup: (probability, a): mixed with the next example, shares drawn from Beta(a, a) (Zhang
      et al. 2018, mixup, equation 1; for super-resolution Yoo et al. 2020).
    cutblur: (probability, a): CutBlur (Yoo et al. 2020, equation 1) at LR's resolution. In a
      rectangle whose area is a share of at most `a`, or everywhere but in it, LR becomes the
      bicubic reduction of HR; at scale 1 that is HR itself, as in the paper. Where LR was made
      by bicubic it is that already, and nothing changes: this is for an LR of its own.
  """

  flip: bool = True
  turn: bool = True
  brightness: tuple[float, float] = (0.0, 0.5)
  darkening: tuple[float, float] = (0.0, 0.5)
  contrast: tuple[float, float] = (0.0, 0.3)
  saturation: tuple[float, float] = (0.0, 0.5)
  shuffle: float = 0.0
  mixup: tuple[float, float] = (0.0, 1.2)
  cutblur: tuple[float, float] = (0.0, 0.7)


MOST = Augmentation(brightness=10, darkening=1, contrast=1, saturation=1, mixup=10, cutblur=1)
NOTHING = Augmentation(flip=False, turn=False)


def check(kinds: Augmentation) -> None:
  """Refuses probabilities that are none, and amounts beyond `MOST`.

  Raises:
    InputError: naming the key.
  """
  for name, value in kinds._asdict().items():
    if name in ('flip', 'turn'):
      continue
    numbers = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(number, (int, float)) for number in numbers):
      raise InputError(f'config.data.augment.{name}={value}: expected numbers')
    if name == 'shuffle':
      fits, wanted = 0 <= value <= 1, 'a probability'
    else:
      most = getattr(MOST, name)
      least = 1e-3 if name == 'mixup' else 0
      fits = len(value) == 2 and 0 <= value[0] <= 1 and least <= value[1] <= most
      wanted = f"a probability and an amount from {least} to {most}, such as '(0.5, 0.3)'"
    if not fits:
      raise InputError(f'config.data.augment.{name}={value}: expected {wanted}')


def augment(crops, seed, step, size: int, kinds: Augmentation) -> dict[str, jax.Array]:
  """The batch of a step.

  Args:
    crops: {'lr': uint8 [n, h, w, C], 'hr': uint8 [n, H, W, C]}, n being `size`, or 1: then the
      batch is that crop and its variants, of which the first is the crop itself.
    size: examples in the batch.

  Returns:
    The same keys, float32 [size, ...] in [0, 1].
  """
  keys, alone = step_keys(seed, step), len(crops['hr']) < size
  plain = {name: images.to_float(jnp.broadcast_to(crop, (size, *crop.shape[1:])))
           for name, crop in crops.items()}
  batch = _turned(plain, keys.turn, kinds)
  batch = _coloured(batch, keys.colour, kinds)
  batch = _mixed_up(batch, keys.mixup, kinds)
  batch = _cut_blurred(batch, keys.cutblur, kinds)
  if alone:
    first = _each(jnp.arange(size) == 0)
    batch = {name: jnp.where(first, plain[name], batch[name]) for name in batch}
  return batch


def _turned(batch, key, kinds):
  """Transposes each example or not, mirrors it, turns it upside down: the eight symmetries."""
  if not (kinds.flip or kinds.turn):
    return batch
  size = len(batch['hr'])
  across, mirror, upset = jax.random.bits(key, (3, size), jnp.uint8) & 1 == 1
  if not kinds.turn:
    across = upset = jnp.zeros(size, bool)
  if not kinds.flip:
    mirror = across ^ upset  # an even number of reflections is a turn
  for flag, turned in ((across, lambda x: x.swapaxes(1, 2)), (mirror, lambda x: x[:, :, ::-1]),
                       (upset, lambda x: x[:, ::-1])):
    batch = {name: jnp.where(_each(flag), turned(crop), crop) for name, crop in batch.items()}
  return batch


def _coloured(batch, key, kinds):
  size = len(batch['hr'])
  changes = (  # probability, least and largest factor of the distances from what
      (kinds.brightness[0], 1, 1 + kinds.brightness[1], _black),
      (kinds.darkening[0], 1 - kinds.darkening[1], 1, _black),
      (kinds.contrast[0], 1 - kinds.contrast[1], 1 + kinds.contrast[1], _mean_grey),
      (kinds.saturation[0], 1 - kinds.saturation[1], 1 + kinds.saturation[1], _own_grey))
  *change_keys, shuffle_key = jax.random.split(key, len(changes) + 1)
  for change_key, (probability, low, high, centre) in zip(change_keys, changes, strict=True):
    if probability:
      chosen, amount = jax.random.split(change_key)
      factor = jax.random.uniform(amount, (size,), minval=low, maxval=high)
      factor = _each(jnp.where(jax.random.bernoulli(chosen, probability, (size,)), factor, 1))
      batch = {name: jnp.clip(centre(crop, batch) * (1 - factor) + crop * factor, 0, 1)
               for name, crop in batch.items()}
  if kinds.shuffle and batch['hr'].shape[-1] == 3:
    chosen, orders = jax.random.split(shuffle_key)
    orders = jax.vmap(lambda key: jax.random.permutation(key, 3))(jax.random.split(orders, size))
    chosen = _each(jax.random.bernoulli(chosen, kinds.shuffle, (size,)))
    batch = {name: jnp.where(chosen, jnp.take_along_axis(crop, orders[:, None, None], -1), crop)
             for name, crop in batch.items()}
  return batch


def _black(crop, batch):
  return 0.0


def _mean_grey(crop, batch):
  return _grey(batch['hr']).mean((1, 2), keepdims=True)  # HR's for LR too


def _own_grey(crop, batch):
  return _grey(crop)


def _grey(crop):
  """[B, H, W, C] to [B, H, W, 1], summed without a matrix product, which may be in TF32."""
  weights = GREY if crop.shape[-1] == 3 else (1.0,)
  return sum(weight * crop[..., i:i + 1] for i, weight in enumerate(weights))


def _mixed_up(batch, key, kinds):
  (probability, alpha), size = kinds.mixup, len(batch['hr'])
  if not probability:
    return batch
  chosen, shares = jax.random.split(key)
  share = jax.random.beta(shares, alpha, alpha, (size,))
  share = _each(jnp.where(jax.random.bernoulli(chosen, probability, (size,)), share, 1.0))
  return {name: share * crop + (1 - share) * jnp.roll(crop, -1, 0) for name, crop in batch.items()}


def _cut_blurred(batch, key, kinds):
  (probability, largest), size = kinds.cutblur, len(batch['hr'])
  if not probability:
    return batch
  chosen, areas, top, left, inside = jax.random.split(key, 5)
  lr, hr = batch['lr'], batch['hr']
  height, width = lr.shape[1:3]
  clean = jnp.clip(images.resize(hr, height / hr.shape[1]), 0, 1)
  # A rectangle of LR's proportions, somewhere in it.
  extent = jnp.sqrt(jax.random.uniform(areas, (size,), maxval=largest))
  down, right = (jax.random.uniform(place, (size,)) * (1 - extent) for place in (top, left))
  rows, columns = (jnp.arange(height) + 0.5) / height, (jnp.arange(width) + 0.5) / width
  within = _between(rows, down, extent)[:, :, None] & _between(columns, right, extent)[:, None]
  where = within ^ jax.random.bernoulli(inside, 0.5, (size,))[:, None, None]
  where &= jax.random.bernoulli(chosen, probability, (size,))[:, None, None]
  return {'lr': jnp.where(where[..., None], clean, lr), 'hr': hr}


def _between(places, start, extent):
  return (places >= start[:, None]) & (places < (start + extent)[:, None])


def _each(values):
  """[B] against [B, H, W, C]."""
  return values[:, None, None, None]
