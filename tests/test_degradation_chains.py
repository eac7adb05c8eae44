"""Chains of degradations: draws, orders, sizes, and the batches of a feed with them."""

import dataclasses
import functools
import hashlib
import itertools
import shutil
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr_jax import images
from sr_jax.data import feed
from sr_jax.data.augment import Augmentation
from sr_jax.data.bank import CropSpec
from sr_jax.data.degradations import chains
from sr_jax.data.degradations.chains import PRESETS, Degradation, Degrader, make_chain
from sr_jax.data.degradations.jpeg import Jpeg
from sr_jax.data.degradations.resizing import Resize
from sr_jax.data.feed import FeedSpec
from sr_jax.data.sources import open_source
from sr_jax.errors import InputError
from sr_jax.experiment import degrade_keys, degrading, inputs
from sr_jax.experiment.base_config import defaults
from sr_jax.experiment.check import check

SMALL = dataclasses.replace(PRESETS['realesrgan'], margin=8)
CHEAP = make_chain(('resize', 'reduce', 'jpeg'), margin=8)  # compiles fast


@pytest.fixture(scope='module')
def crops(picture):
  """float32 [4, 48, 48, 3]."""
  return np.stack([images.to_float(picture(48, 48, seed)) for seed in range(4)])


@functools.cache
def compiled(degradation: Degradation, scale: int = 4) -> jax.stages.Wrapped:
  return jax.jit(Degrader(degradation, scale, 32))


def keys_of(count, seed=0):
  return jax.random.split(jax.random.key(seed), count)


def test_a_degraded_batch_has_the_sizes_and_the_levels_of_files(crops):
  batch = compiled(SMALL)(crops, keys_of(4))
  assert {name: array.shape for name, array in batch.items()} == {
      'lr': (4, 8, 8, 3), 'hr': (4, 32, 32, 3), 'target': (4, 32, 32, 3)}
  levels = np.asarray(batch['lr']) * 255
  np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)
  assert 0 <= levels.min() < levels.max() <= 255
  assert np.abs(batch['target'] - batch['hr']).max() > 0.02


def test_an_image_depends_on_its_own_key_and_crop_alone(crops):
  function = compiled(SMALL)
  whole = function(crops, keys_of(4))
  again = function(crops, keys_of(4))
  others = function(crops[::-1].copy(), keys_of(4)[::-1])
  for name in whole:
    assert (np.asarray(whole[name]) == again[name]).all()
    assert (np.asarray(whole[name]) == others[name][::-1]).all()
  assert (function(crops, keys_of(4, seed=1))['lr'] != whole['lr']).mean() > 0.5


def test_every_image_has_draws_of_its_own():
  keys = keys_of(64)
  stage = dict(SMALL.stages)['resize']
  draws = jax.vmap(stage.draw)(keys)
  assert len(np.unique(draws['factor'])) > 40
  assert set(np.asarray(draws['method']).tolist()) == {0, 1, 2}


def test_lr_lies_where_hr_lies(crops):
  """Crops at random places of a chain that only reduces equal the reduced crops."""
  chain = make_chain(('reduce',), margin=8)
  batch = compiled(chain)(crops, keys_of(4))
  for lr, hr in zip(batch['lr'], batch['hr'], strict=True):
    reduced = images.imresize(images.to_uint8(hr), Fraction(1, 4))
    np.testing.assert_allclose(np.asarray(lr)[2:-2, 2:-2] * 255, reduced[2:-2, 2:-2], atol=1.01)


def test_reduce_is_the_bicubic_lr_of_other_experiments(picture):
  hr = picture(40, 56, 3)
  chain = make_chain(('reduce',))
  degrade = jax.jit(lambda hr, size: chains.degrade(hr, size, keys_of(1), chain, 4)[0].pixels)
  lr = degrade(images.to_float(hr)[None], jnp.array([[40, 56]]))
  difference = np.abs(np.asarray(lr[0]) * 255 - images.imresize(hr, Fraction(1, 4)))
  assert difference.max() <= 1.01  # imresize rounds after each of its two passes
  assert (difference > 0.5).mean() < 0.2


@pytest.mark.slow
def test_a_smaller_image_in_a_larger_canvas_is_degraded_as_by_itself(crops):
  chain = make_chain(('blur', 'resize', 'final'))  # final has the other kinds of stages
  size = jnp.array([[32, 40]])
  padded = jnp.asarray(crops[:1]).at[:, 32:].set(7.0).at[:, :, 40:].set(-3.0)
  degrade = jax.jit(lambda hr, size: chains.degrade(hr, size, keys_of(1), chain, 4)[0].pixels)
  alone, inside = degrade(crops[:1, :32, :40], size), degrade(padded, size)
  assert inside.shape == (1, 12, 12, 3)
  levels = np.abs(np.asarray(alone[0]) - inside[0, :8, :10]) * 255
  assert (levels > 0.5).mean() < 0.02  # rounding, where sums of a Fourier transform differ


def test_scale_1_and_grey_images(crops):
  grey = images.luma(crops)
  batch = jax.jit(Degrader(dataclasses.replace(PRESETS['jpeg'], margin=8), 1, 32))(grey, keys_of(4))
  assert batch['lr'].shape == batch['hr'].shape == (4, 32, 32, 1)
  assert set(batch) == {'lr', 'hr'}
  assert 0.002 < np.abs(batch['lr'] - batch['hr']).mean() < 0.1


def test_no_border_shows_in_the_smallest_margin(picture):
  """LR of crops equals a part of LR of the whole image, up to its outermost samples."""
  whole = picture(128, 128)
  margin = PRESETS['jpeg'].margin
  crop = images.to_float(whole[32:96, 32:96])
  degrader = Degrader(make_chain(('reduce',), margin=margin), 4, 64 - 2 * margin)
  batch = jax.jit(degrader)(jnp.stack([crop] * 30), keys_of(30))
  expected, places = images.imresize(whole, Fraction(1, 4)), set()
  for lr, hr in zip(batch['lr'], np.round(np.asarray(batch['hr']) * 255), strict=True):
    place, = ((y, x) for y in range(32) for x in range(32)
              if np.array_equal(whole[4 * y:4 * y + 32, 4 * x:4 * x + 32], hr))
    part = expected[place[0]:place[0] + 8, place[1]:place[1] + 8]
    np.testing.assert_allclose(np.asarray(lr) * 255, part, atol=1.01)
    places.add(place)
  assert {y for y, _ in places} == {x for _, x in places} == {10, 11, 12, 13, 14}


def test_places_of_crops_cover_all_phases_of_jpeg_blocks():
  hr = jnp.broadcast_to(jnp.arange(64.0)[:, None, None] / 255, (200, 64, 64, 1))
  batch = jax.jit(Degrader(make_chain(('impulse',), margin=16), 1, 32))(hr, keys_of(200))
  first = np.round(np.asarray(batch['hr'])[:, 0, 0, 0] * 255).astype(int)
  assert set(first) == set(range(8, 25))


# Random order -----------------------------------------------------------------------------


def test_shuffled_stages_keep_the_order_of_those_that_change_the_size():
  names = ('blur', 'resize', 'reduce', 'jpeg')
  stages = [stage for _, stage in make_chain(names).stages]
  orders = np.asarray(chains._draw_orders(keys_of(3000), stages))
  assert set(map(tuple, orders.tolist())) == {
      order for order in itertools.permutations(range(4)) if order.index(1) < order.index(2)}
  _, counts = np.unique(orders, axis=0, return_counts=True)
  assert counts.min() > 180  # of 250 on average


@pytest.mark.slow
def test_shuffled_stages_are_applied_in_the_drawn_order(crops):
  shrink = Resize(directions=(0.0, 1.0, 0.0), factor=(0.4, 0.6))
  chain = make_chain(('resize', 'jpeg', 'reduce'),
                     {'jpeg': Jpeg(quality=(10, 10)), 'resize': shrink}, shuffled=(0, 2), margin=8)
  sizes = jnp.full((4, 2), 48)
  canvas, draws = jax.jit(lambda hr, keys: chains.degrade(hr, sizes, keys, chain, 4))(
      crops, keys_of(4, 5))
  orders = np.asarray(draws[-1]['order'])
  assert len(set(map(tuple, orders.tolist()))) == 2
  stages = [stage for _, stage in chain.stages]

  def apply_in(order, hr, draws):  # none of these stages uses keys
    state = chains.Canvas(hr, sizes)
    for place in (*order, 2):
      state = stages[place].apply(state, draws[place], None, chains.Goal(sizes // 4, (12, 12)))
    return state.pixels[:, :12, :12]

  in_order = {order: jax.jit(functools.partial(apply_in, order))(crops, draws[:3])
              for order in ((0, 1), (1, 0))}
  for index in range(4):
    words = chains.describe(chain, draws, index)
    assert words[0].startswith('JPEG') == (orders[index, 0] == 1)
    expected = in_order[tuple(orders[index].tolist())][index]
    assert np.percentile(np.abs(np.asarray(expected) - canvas.pixels[index]) * 255, 99) <= 1


def test_bsrgan_draws_by_what_an_image_is_divided():
  draws = jax.vmap(dict(PRESETS['bsrgan'].stages)['resize2'].draw)(keys_of(4000))
  factor = np.asarray(draws['factor'])
  assert abs((factor == 1).mean() - 0.25) < 0.03
  np.testing.assert_allclose(np.quantile(1 / factor[factor < 1], (0, 0.25, 0.5, 0.75, 1)),
                             (1, 2.75, 4.5, 6.25, 8), atol=0.25)


@pytest.mark.slow
def test_bsrgan_makes_lr_and_describes_it(crops):
  chain = PRESETS['bsrgan']
  canvas, draws = jax.jit(lambda hr, keys: chains.degrade(
      hr, jnp.full((4, 2), 48), keys, chain, 4))(crops, keys_of(4))
  assert np.abs(canvas.pixels - images.resize(crops, Fraction(1, 4))).mean() < 0.2
  for index in range(4):
    words = chains.describe(chain, draws, index)
    assert len(words) == len(chain.stages)
    assert all(words)


# Feed ------------------------------------------------------------------------------------


def degraded_spec(cache, mode, seed=3):
  return FeedSpec(CropSpec(4, 32, 1, with_lr=False), 4, Augmentation(), seed, mode, window=1,
                  cache=cache, degrader=Degrader(CHEAP, 4, 16))


@functools.cache
def batch_function(in_bank):
  """What feeds of one kind call for each batch, compiled once for all of them."""
  spec = degraded_spec(None, '')
  return jax.jit((feed.bank_batches if in_bank else feed.host_batches)(spec))


def hashes(folder, cache, mode, start, count, workers=0):
  spec = dataclasses.replace(degraded_spec(cache, mode), workers=workers)
  made = feed.open_feed(open_source(f'folder:{folder}', 4), spec, start, lambda line: None)
  try:
    batch_at = batch_function(mode == 'bank')
    batches = [batch_at(made.source_for(step, step + 1), 3, step)
               for step in range(start, start + count)]
    return [hashlib.sha256(np.asarray(batch['lr']).tobytes() + np.asarray(batch['hr']).tobytes())
            .hexdigest() for batch in batches]
  finally:
    made.close()


def test_degraded_batches_are_the_same_in_the_bank_and_mapped_and_after_a_restart(folder, tmp_path):
  bank = hashes(folder, tmp_path, 'bank', 0, 4)
  assert len(set(bank)) == 4
  assert hashes(folder, tmp_path, 'mapped', 0, 4) == bank
  assert hashes(folder, tmp_path, 'mapped', 2, 2) == bank[2:]
  stream = hashes(folder, tmp_path, 'stream', 0, 4)
  assert hashes(folder, tmp_path, 'stream', 3, 1) == stream[3:]


@pytest.mark.slow
def test_degraded_batches_do_not_depend_on_the_number_of_workers(folder, tmp_path):
  assert hashes(folder, tmp_path, 'stream', 0, 3, workers=2) == hashes(
      folder, tmp_path, 'stream', 0, 3)


def test_lr_takes_no_room_in_the_bank(folder, tmp_path):
  lines = []
  spec = degraded_spec(tmp_path, 'bank')
  made = feed.open_feed(open_source(f'folder:{folder}', 4), spec, 0, lines.append)
  pixels = 3 * sum(image.shape[0] * image.shape[1]
                   for image in map(images.read_image, folder.glob('*.png')))
  assert made.source_for(0, 1).pixels.size == pixels
  assert f'{pixels:,} bytes' in lines[0]


# Config ----------------------------------------------------------------------------------


def degraded_config(**keys):
  config = defaults()
  config.data.degrade.name = 'realesrgan'
  for key, value in keys.items():
    *sections, last = key.split('__')
    section = config.data.degrade
    for name in sections:
      section = section[name]
    section[last] = value
  return config


def test_keys_replace_the_values_of_a_chain():
  config = check(degraded_config(blur2__sigma=(0.5, 0.5), margin=8, final__quality=(50, 60)))
  chain = degrading.build_degradation(config)
  stages = dict(chain.stages)
  assert (stages['blur2'].sigma, stages['blur2'].probability) == ((0.5, 0.5), 0.8)
  assert stages['final'].quality == (50, 60)
  assert stages['blur'] == dict(PRESETS['realesrgan'].stages)['blur']
  assert (chain.margin, chain.sharpen) == (8, 0.5)
  assert inputs.build_crop_spec(config) == (16, 96 + 16, 1, 3, False)


@pytest.mark.parametrize('name', PRESETS)
@pytest.mark.parametrize('scale', [1, 2, 3, 4])
def test_presets_suit_every_scale(name, scale):
  config = degraded_config(name=name)
  config.scale = scale
  chain = degrading.build_degradation(check(config))
  assert chain.margin % scale == 0
  assert not chains.size_fault(chain, scale)


@pytest.mark.parametrize(('keys', 'named'), [
    ({'blur__sigma': (3.0, 0.2)}, 'blur.sigma'), ({'jpeg__quality': (0, 50)}, 'jpeg.quality'),
    ({'jpeg__quality': (50, 101)}, 'jpeg.quality'), ({'blur__size': (7, 20)}, 'blur.size'),
    ({'name': 'custom', 'stages': ('blur', 'smear')}, 'stages'),
    ({'name': 'custom', 'stages': ()}, 'stages'), ({'stages': ('blur',)}, 'stages'),
    ({'name': 'custom', 'stages': ('blur', 'jpeg')}, 'stages'),
    ({'name': 'custom', 'stages': ('reduce', 'resize')}, 'stages'),
    ({'name': 'jpeg', 'blur__sigma': (1.0, 2.0)}, 'blur.sigma'),
    ({'name': 'none', 'margin': 8}, 'margin'), ({'margin': 10}, 'margin'),
    ({'blur__kinds': (0.0,) * 6}, 'blur.kinds'), ({'blur__kinds': (1.0, 1.0)}, 'blur.kinds'),
    ({'resize__methods': ('sharp',)}, 'resize.methods'), ({'resize__methods': ()}, 'methods'),
    ({'name': 'bsrgan', 'resize2__factor': (0.5, 2.0), 'resize2__directions': (1.0, 1.0, 0.0)},
     'resize2.factor'),
    ({'noise__correlated': 0.7}, 'noise.grey'), ({'name': 'blurry'}, 'name')])
def test_a_value_that_makes_no_sense_is_named(keys, named):
  with pytest.raises(InputError, match=rf'config\.data\.degrade\.(\w+\.)?{named}') as error:
    check(degraded_config(**keys))
  assert '\n' not in str(error.value)


def test_the_keys_are_the_chains_the_stages_and_their_fields():
  assert tuple(PRESETS) == degrade_keys.CHAINS
  assert tuple(chains.STAGES) == degrade_keys.STAGES == tuple(degrade_keys.FIELDS)
  for name, stage in chains.STAGES.items():
    keys = {key.name for key in degrade_keys.FIELDS[name]}
    assert keys == {field.name for field in dataclasses.fields(stage)} - {'radius', 'threshold'}


def test_cutblur_and_lr_files_are_refused(folder, tmp_path):
  config = degraded_config()
  config.data.augment.cutblur = (0.5, 0.7)
  with pytest.raises(InputError, match='cutblur'):
    check(config)
  config = degraded_config()
  lr = shutil.copytree(folder, tmp_path / 'lr')
  config.scale, config.data.source = 1, f'pairs:HR={folder},LR={lr}'
  with pytest.raises(InputError, match=r'degrade\.name.*5 images.*LR of their own'):
    inputs.training_set(check(config))


def test_lr_that_would_be_hr_is_refused(folder):
  config = defaults()
  config.scale, config.data.source = 1, f'folder:{folder}'
  with pytest.raises(InputError, match=r'^config\.scale=1: .*config\.data\.degrade\.name=jpeg'):
    inputs.training_set(check(config))
