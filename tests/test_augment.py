"""Augmentation: what each kind does to LR and HR, and how often."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr_jax import images
from sr_jax.data.augment import NO_AUGMENTATION, PERMUTATIONS, Augmentation, augment

COUNT = 64


@pytest.fixture(scope='module')
def crops() -> dict[str, np.ndarray]:
  """Random crops with medium values, so that nothing is clipped; LR is made by bicubic."""
  hr = np.random.default_rng(0).integers(90, 130, (COUNT, 16, 16, 3), np.uint8)
  return {'lr': np.stack([images.imresize(crop, 1 / 2) for crop in hr]), 'hr': hr}


@functools.partial(jax.jit, static_argnums=(3, 4))
def augmented(crops: dict[str, np.ndarray], seed: int, step: int, augmentation: Augmentation,
              size: int = COUNT) -> dict[str, jax.Array]:
  return augment(crops, seed, step, size, augmentation)


def run(crops: dict[str, np.ndarray], step: int = 0, size: int = COUNT,
        **kinds: Any) -> tuple[np.ndarray, np.ndarray]:
  """(lr, hr) of a batch with these kinds of augmentation and no others."""
  batch = augmented(crops, 0, step, NO_AUGMENTATION._replace(**kinds), size)
  return np.asarray(batch['lr'], np.float64), np.asarray(batch['hr'], np.float64)


def plain(crops: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
  return crops['lr'] / 255, crops['hr'] / 255


def symmetry(crop: np.ndarray, kind: int) -> np.ndarray:
  crop = crop.swapaxes(0, 1) if kind & 1 else crop
  crop = crop[:, ::-1] if kind & 2 else crop
  return crop[::-1] if kind & 4 else crop


def test_without_augmentation_crops_are_scaled_to_0_to_1(crops: dict[str, np.ndarray]) -> None:
  for got, wanted in zip(run(crops), plain(crops), strict=True):
    np.testing.assert_allclose(got, wanted, atol=1e-7)


@pytest.mark.parametrize(('kinds', 'wanted'), [
    ({'flip': True, 'turn': True}, set(range(8))), ({'flip': True}, {0, 2}),
    ({'turn': True}, {0, 3, 5, 6})])  # an even number of reflections
def test_flips_and_turns(crops: dict[str, np.ndarray], kinds: dict[str, bool],
                         wanted: set[int]) -> None:
  seen = []
  for lr, hr, plain_lr, plain_hr in zip(*run(crops, **kinds), *plain(crops), strict=True):
    kind, = (kind for kind in range(8) if np.allclose(hr, symmetry(plain_hr, kind), atol=1e-6))
    np.testing.assert_allclose(lr, symmetry(plain_lr, kind), atol=1e-6)
    seen.append(kind)
  assert set(seen) == wanted
  assert max(seen.count(kind) for kind in wanted) < 2.5 * COUNT / len(wanted)


def factors(changed: np.ndarray, given: np.ndarray) -> np.ndarray:
  """The factor between two arrays of distances, one for each example; it must be uniform."""
  changed, given = (array.reshape(COUNT, -1) for array in (changed, given))
  found = (changed * given).sum(1) / (given * given).sum(1)
  np.testing.assert_allclose(changed, found[:, None] * given, atol=1e-6)
  return found


@pytest.mark.parametrize(('name', 'low', 'high'), [
    ('brightness', 1, 1.4), ('darkening', 0.6, 1)])
def test_brightness_is_the_same_factor_for_lr_and_hr(crops: dict[str, np.ndarray], name: str,
                                                     low: float, high: float) -> None:
  (lr, hr), (plain_lr, plain_hr) = run(crops, **{name: (1.0, 0.4)}), plain(crops)
  found = factors(hr, plain_hr)
  np.testing.assert_allclose(factors(lr, plain_lr), found, rtol=1e-5)
  assert low <= found.min() < low + 0.1 < high - 0.1 < found.max() <= high


def grey(picture: np.ndarray) -> np.ndarray:
  return picture @ np.array([[0.299], [0.587], [0.114]])


def test_saturation_keeps_grey_and_contrast_keeps_the_mean(crops: dict[str, np.ndarray]) -> None:
  for kind, centre in (('saturation', lambda crop, hr: grey(crop)),
                       ('contrast', lambda crop, hr: grey(hr).mean((1, 2), keepdims=True))):
    (lr, hr), (plain_lr, plain_hr) = run(crops, **{kind: (1.0, 0.3)}), plain(crops)
    found = factors(hr - centre(hr, hr), plain_hr - centre(plain_hr, plain_hr))
    np.testing.assert_allclose(
        factors(lr - centre(plain_lr, plain_hr), plain_lr - centre(plain_lr, plain_hr)), found,
        rtol=1e-3)
    assert 0.7 <= found.min() < 0.8 < 1.2 < found.max() <= 1.3


def test_channels_of_lr_and_hr_are_permuted_alike(crops: dict[str, np.ndarray]) -> None:
  orders = set()
  for lr, hr, plain_lr, plain_hr in zip(*run(crops, shuffle=1.0), *plain(crops), strict=True):
    order = tuple(next(i for i in range(3) if np.allclose(hr[..., c], plain_hr[..., i], atol=1e-6))
                  for c in range(3))
    np.testing.assert_allclose(lr, plain_lr[..., list(order)], atol=1e-6)
    orders.add(order)
  assert orders == set(PERMUTATIONS)


def test_shuffle_draws_each_of_the_five_other_orders_equally_often() -> None:
  pixels = {name: np.full((5000, 1, 1, 3), (0, 128, 255), np.uint8) for name in ('lr', 'hr')}
  _, shuffled = run(pixels, size=5000, shuffle=1.0)
  orders, counts = np.unique(shuffled.reshape(-1, 3), axis=0, return_counts=True)
  assert len(orders) == 5
  assert not (abs(orders - [0, 128 / 255, 1]) < 0.1).all(1).any()
  assert abs(counts - 1000).max() < 5 * np.sqrt(1000 * 4 / 5)  # standard deviations


def test_lr_of_a_changed_hr_is_the_changed_lr(crops: dict[str, np.ndarray]) -> None:
  """The augmented pair is one that could have been in the data set."""
  kinds = dict.fromkeys(('brightness', 'darkening', 'contrast', 'saturation'), (1.0, 0.2))
  lr, hr = run(crops, shuffle=1.0, flip=True, turn=True, **kinds)
  assert 0 < hr.min() < hr.max() < 1  # nothing was clipped
  lr_of_hr = images.resize(jnp.asarray(hr), 1 / 2)
  assert np.abs(lr_of_hr - lr).max() < 1.5 / 255  # imresize rounds, twice
  assert np.abs(plain(crops)[0] - lr).max() > 20 / 255


@pytest.mark.parametrize('name', ['brightness', 'darkening', 'contrast', 'saturation', 'shuffle'])
def test_probability(crops: dict[str, np.ndarray], name: str) -> None:
  changed = 0
  for step in range(4):
    hr = run(crops, step, **{name: 0.25 if name == 'shuffle' else (0.25, 0.5)})[1]
    changed += (np.abs(hr - plain(crops)[1]).max((1, 2, 3)) > 1e-3).sum()
  assert 0.15 < changed / (4 * COUNT) < 0.35


def test_mixup_mixes_lr_and_hr_with_the_next_example_alike(crops: dict[str, np.ndarray]) -> None:
  (lr, hr), (plain_lr, plain_hr) = run(crops, mixup=(1.0, 1.2)), plain(crops)
  share = factors(hr - np.roll(plain_hr, -1, 0), plain_hr - np.roll(plain_hr, -1, 0))
  np.testing.assert_allclose(
      factors(lr - np.roll(plain_lr, -1, 0), plain_lr - np.roll(plain_lr, -1, 0)), share,
      atol=1e-4)
  assert 0 <= share.min() < 0.2 < 0.8 < share.max() <= 1
  # The variance of Beta(a, a) is 1 / (4 (2 a + 1)).
  assert abs(np.var(share) - 1 / (4 * 3.4)) < 0.03


def test_cutblur_puts_reduced_hr_inside_or_outside_a_rectangle(
    crops: dict[str, np.ndarray]) -> None:
  inverted = {'lr': 255 - crops['lr'], 'hr': crops['hr']}
  lr, hr = run(inverted, cutblur=(1.0, 0.7))
  np.testing.assert_allclose(hr, plain(crops)[1], atol=1e-7)
  clean = np.asarray(images.resize(jnp.asarray(hr), 1 / 2))
  within = 0
  for got, reduced_hr, original in zip(lr, clean, plain(inverted)[0], strict=True):
    is_clean = np.abs(got - reduced_hr).max(-1) < 1e-5
    np.testing.assert_allclose(got[~is_clean], original[~is_clean], atol=1e-6)
    assert is_rectangle(is_clean) or is_rectangle(~is_clean)
    within += is_rectangle(is_clean)
  assert 0.25 < within / COUNT < 0.75


def is_rectangle(part: np.ndarray) -> bool:
  rows, columns = part.any(1), part.any(0)
  return part.sum() == rows.sum() * columns.sum() and part.mean() <= 0.8


def test_a_batch_of_one_crop_and_its_variants(crops: dict[str, np.ndarray]) -> None:
  one = {name: crop[:1] for name, crop in crops.items()}
  lr, hr = run(one, size=8, flip=True, turn=True, brightness=(1.0, 0.5))
  assert (lr.shape, hr.shape) == ((8, 8, 8, 3), (8, 16, 16, 3))
  np.testing.assert_allclose(hr[0], one['hr'][0] / 255, atol=1e-6)
  np.testing.assert_allclose(lr[0], one['lr'][0] / 255, atol=1e-6)
  assert len({crop.tobytes() for crop in hr}) == 8


def test_seed_and_step_determine_the_augmentation(crops: dict[str, np.ndarray]) -> None:
  kinds = Augmentation(brightness=(1.0, 0.4))
  first = augmented(crops, 3, 5, kinds)
  np.testing.assert_array_equal(first['hr'], augmented(crops, 3, 5, kinds)['hr'])
  for other in (augmented(crops, 3, 6, kinds), augmented(crops, 4, 5, kinds)):
    assert (np.asarray(first['hr']) != other['hr']).any()


def test_one_channel(crops: dict[str, np.ndarray]) -> None:
  grey_crops = {name: crop[..., :1] for name, crop in crops.items()}
  lr, hr = run(grey_crops, shuffle=1.0, saturation=(1.0, 0.5), darkening=(1.0, 0.4))
  assert (lr.shape[-1], hr.shape[-1]) == (1, 1)
  found = factors(hr, grey_crops['hr'] / 255)
  assert 0.6 <= found.min() < 0.7 < 0.9 < found.max() <= 1


def test_values_stay_in_0_to_1(crops: dict[str, np.ndarray]) -> None:
  white = {name: np.full_like(crop, 250) for name, crop in crops.items()}
  assert run(white, brightness=(1.0, 0.5))[1].max() == 1
