"""Data augmentation on the device, seeded for each example of each step.

The LR and HR crops of an example are changed in the same way. Colour changes are affine in R, G
and B, so the LR of a changed HR crop equals the changed LR crop, except where values are clipped
to [0, 1].
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sr_jax import images

# Weights of R, G and B in a grey image of the same luma (ITU-R BT.601).
GREY = (0.299, 0.587, 0.114)

# The orders of R, G and B, without the identity, which would leave an example as it is.
PERMUTATIONS = tuple(itertools.permutations(range(3)))[1:]

# Crops by name, 'lr' and 'hr': uint8 [n, h, w, C], or float32 in [0, 1].
Crops = dict[str, jax.Array]


class StepKeys(NamedTuple):
  """The random keys of one training step, one for each kind of random draw."""

  image: jax.Array
  row: jax.Array
  column: jax.Array
  symmetry: jax.Array
  colour: jax.Array
  mixup: jax.Array
  cutblur: jax.Array
  degradation: jax.Array


def step_keys(seed: int | jax.Array, step: int | jax.Array) -> StepKeys:
  """Returns the random keys of a step, which depend only on the run's seed and the step."""
  key = jax.random.fold_in(jax.random.key(seed), step)
  return StepKeys(*jax.random.split(key, len(StepKeys._fields)))


class Augmentation(NamedTuple):
  """The augmentations applied to each example; the values of `config.data.augment`.

  Attributes:
    flip: whether to mirror half of the examples left to right.
    turn: whether to rotate by 0 to 3 quarter turns, uniformly. Together with `flip` this gives
      the eight symmetries of the square.
    brightness: (probability, a): multiplies by a factor in [1, 1 + a].
    darkening: (probability, a): multiplies by a factor in [1 - a, 1].
    contrast: (probability, a): multiplies distances from the crop's mean by a factor in
      [1 - a, 1 + a].
    saturation: (probability, a): multiplies distances from each pixel's grey value by a factor in
      [1 - a, 1 + a].
    shuffle: probability of permuting R, G and B, by one of the five orders other than R, G, B.
    mixup: (probability, a): mixes the example with the next one of the batch, with weights drawn
      from Beta(a, a) (Zhang et al. 2018, mixup, equation 1; for super-resolution Yoo et al.
      2020).
    cutblur: (probability, a): CutBlur (Yoo et al. 2020, equation 1) at the resolution of LR.
      Inside a rectangle whose area is a share of at most `a`, or everywhere outside it, LR is
      replaced by HR reduced with bicubic interpolation; at scale 1 this is HR itself, as in the
      paper. It has no effect where LR was made from HR by bicubic interpolation, so it is only
      useful for data sets with separate LR files.
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


NO_AUGMENTATION = Augmentation(flip=False, turn=False)


def augment(crops: Crops, seed: int | jax.Array, step: int | jax.Array, batch_size: int,
            augmentation: Augmentation) -> Crops:
  """Returns the augmented batch of a step.

  Args:
    crops: {'lr': uint8 [n, h, w, C], 'hr': uint8 [n, H, W, C]}, or 'hr' alone, without CutBlur. n
      is `batch_size`, or 1; then the batch consists of this crop and variants of it, and its first
      example is the crop itself.
    seed: seed of the run.
    step: training step.
    batch_size: number of examples in the batch.
    augmentation: what is applied.

  Returns:
    The same keys, float32 [batch_size, ...] in [0, 1].
  """
  keys, variants_of_one = step_keys(seed, step), len(crops['hr']) < batch_size
  unchanged = {name: images.to_float(jnp.broadcast_to(crop, (batch_size, *crop.shape[1:])))
               for name, crop in crops.items()}
  batch = _flip_and_turn(unchanged, keys.symmetry, augmentation)
  batch = _change_colour(batch, keys.colour, augmentation)
  batch = _mixup(batch, keys.mixup, augmentation)
  batch = _cutblur(batch, keys.cutblur, augmentation)
  if variants_of_one:
    is_first = _per_example(jnp.arange(batch_size) == 0)
    batch = {name: jnp.where(is_first, unchanged[name], batch[name]) for name in batch}
  return batch


def _flip_and_turn(batch: Crops, key: jax.Array, augmentation: Augmentation) -> Crops:
  """Transposes, mirrors and turns upside down at random: the eight symmetries of the square."""
  if not (augmentation.flip or augmentation.turn):
    return batch
  size = len(batch['hr'])
  transpose, mirror, upside_down = jax.random.bits(key, (3, size), jnp.uint8) & 1 == 1
  if not augmentation.turn:
    transpose = upside_down = jnp.zeros(size, bool)
  if not augmentation.flip:
    mirror = transpose ^ upside_down  # an even number of reflections is a rotation
  for flag, reflect in ((transpose, lambda x: x.swapaxes(1, 2)), (mirror, lambda x: x[:, :, ::-1]),
                        (upside_down, lambda x: x[:, ::-1])):
    batch = {name: jnp.where(_per_example(flag), reflect(crop), crop)
             for name, crop in batch.items()}
  return batch


def _change_colour(batch: Crops, key: jax.Array, augmentation: Augmentation) -> Crops:
  """Applies brightness, darkening, contrast, saturation and the permutation of channels."""
  size = len(batch['hr'])
  (brightness, lighter), (darkening, darker), (contrast, spread), (saturation, vividness) = (
      augmentation.brightness, augmentation.darkening, augmentation.contrast,
      augmentation.saturation)
  changes = (  # probability, smallest and largest factor, the centre that distances are from
      (brightness, 1, 1 + lighter, _black),
      (darkening, 1 - darker, 1, _black),
      (contrast, 1 - spread, 1 + spread, _mean_grey),
      (saturation, 1 - vividness, 1 + vividness, _pixel_grey))
  *change_keys, shuffle_key = jax.random.split(key, len(changes) + 1)
  for change_key, (probability, low, high, centre) in zip(change_keys, changes, strict=True):
    if probability:
      chosen_key, factor_key = jax.random.split(change_key)
      factor = jax.random.uniform(factor_key, (size,), minval=low, maxval=high)
      chosen = jax.random.bernoulli(chosen_key, probability, (size,))
      factor = _per_example(jnp.where(chosen, factor, 1))
      batch = {name: jnp.clip(centre(crop, batch) * (1 - factor) + crop * factor, 0, 1)
               for name, crop in batch.items()}
  if augmentation.shuffle and batch['hr'].shape[-1] == 3:
    batch = _shuffle_channels(batch, shuffle_key, augmentation.shuffle)
  return batch


def _shuffle_channels(batch: Crops, key: jax.Array, probability: float) -> Crops:
  """Permutes R, G and B of randomly chosen examples, each by one of `PERMUTATIONS`."""
  size = len(batch['hr'])
  chosen_key, order_key = jax.random.split(key)
  orders = jax.random.choice(order_key, jnp.array(PERMUTATIONS), (size,))
  chosen = _per_example(jax.random.bernoulli(chosen_key, probability, (size,)))
  return {name: jnp.where(chosen, jnp.take_along_axis(crop, orders[:, None, None], -1), crop)
          for name, crop in batch.items()}


def _black(crop: jax.Array, batch: Crops) -> float:
  return 0.0


def _mean_grey(crop: jax.Array, batch: Crops) -> jax.Array:
  return _grey(batch['hr']).mean((1, 2), keepdims=True)  # the mean of HR, for LR as well


def _pixel_grey(crop: jax.Array, batch: Crops) -> jax.Array:
  return _grey(crop)


def _grey(crop: jax.Array) -> jax.Array:
  """Converts [B, H, W, C] to [B, H, W, 1]; a sum, because a matrix product may run in TF32."""
  weights = GREY if crop.shape[-1] == 3 else (1.0,)
  return sum(weight * crop[..., i:i + 1] for i, weight in enumerate(weights))


def _mixup(batch: Crops, key: jax.Array, augmentation: Augmentation) -> Crops:
  """Mixes randomly chosen examples with the next example of the batch."""
  (probability, alpha), size = augmentation.mixup, len(batch['hr'])
  if not probability:
    return batch
  chosen_key, weight_key = jax.random.split(key)
  weight = jax.random.beta(weight_key, alpha, alpha, (size,))
  chosen = jax.random.bernoulli(chosen_key, probability, (size,))
  weight = _per_example(jnp.where(chosen, weight, 1.0))
  return {name: weight * crop + (1 - weight) * jnp.roll(crop, -1, 0)
          for name, crop in batch.items()}


def _cutblur(batch: Crops, key: jax.Array, augmentation: Augmentation) -> Crops:
  """Replaces LR inside or outside a random rectangle by HR reduced with bicubic interpolation."""
  (probability, max_area), size = augmentation.cutblur, len(batch['hr'])
  if not probability:
    return batch
  chosen_key, area_key, top_key, left_key, inside_key = jax.random.split(key, 5)
  lr, hr = batch['lr'], batch['hr']
  height, width = lr.shape[1:3]
  reduced_hr = jnp.clip(images.resize(hr, height / hr.shape[1]), 0, 1)
  # A rectangle with the proportions of LR, at a random position. Sides are shares of LR's.
  side = jnp.sqrt(jax.random.uniform(area_key, (size,), maxval=max_area))
  top, left = (jax.random.uniform(place_key, (size,)) * (1 - side)
               for place_key in (top_key, left_key))
  rows, columns = (jnp.arange(height) + 0.5) / height, (jnp.arange(width) + 0.5) / width
  inside = _in_interval(rows, top, side)[:, :, None] & _in_interval(columns, left, side)[:, None]
  replaced = inside ^ jax.random.bernoulli(inside_key, 0.5, (size,))[:, None, None]
  replaced &= jax.random.bernoulli(chosen_key, probability, (size,))[:, None, None]
  return {'lr': jnp.where(replaced[..., None], reduced_hr, lr), 'hr': hr}


def _in_interval(positions: jax.Array, start: jax.Array, length: jax.Array) -> jax.Array:
  """Returns [B, n]: whether each of n positions lies in [start, start + length) of each example."""
  return (positions >= start[:, None]) & (positions < (start + length)[:, None])


def _per_example(values: jax.Array) -> jax.Array:
  """Reshapes [B] to [B, 1, 1, 1], to broadcast against [B, H, W, C]."""
  return values[:, None, None, None]
