"""Resizing of a batch whose images have their own sizes, factors and methods."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sr_jax import images
from sr_jax.data.degradations.canvas import Canvas, Goal
from sr_jax.data.degradations.resampling import METHODS, Resampling
from sr_jax.data.degradations.resizing import Resize, ResizeToGoal, resize

SIZES = ((40, 52), (61, 34), (33, 33), (17, 64), (5, 3), (64, 61))
FACTORS = (0.15, 1.5, 0.43, 1.1, 0.7, 0.9)
CANVAS, SHAPE = (64, 66), (96, 99)
GARBAGE = 7.0
TOLERANCE = 2e-6

run = jax.jit(resize, static_argnames=('shape', 'resampling'))


def batch(channels):
  """Returns images of SIZES, and the canvas that holds them twice, with garbage around them."""
  rng = np.random.default_rng(channels)
  found = [np.float32(rng.random((*size, channels))) for size in SIZES]
  pixels = np.full((len(found), *CANVAS, channels), GARBAGE, np.float32)
  for number, image in enumerate(found):
    pixels[number, :image.shape[0], :image.shape[1]] = image
  return found, Canvas(jnp.asarray(pixels), jnp.asarray(SIZES, jnp.int32))


def results(canvas, new_sizes, method, resampling, ratios=None):
  """Returns the valid areas of one call in which all images have one method, and then of one call
  in which each image has another method; both give what the method gives for the image."""
  number = resampling.methods.index(method)
  output = []
  mixed = (np.arange(len(SIZES)) + number) % len(resampling.methods)
  for chosen in (np.full(len(SIZES), number), mixed):
    result = run(canvas, jnp.asarray(new_sizes, jnp.int32), SHAPE, jnp.asarray(chosen, jnp.int32),
                 resampling, ratios)
    assert result.pixels.shape == (len(SIZES), *SHAPE, canvas.pixels.shape[-1])
    assert np.isfinite(result.pixels).all()
    output += [(i, np.asarray(result.pixels[i, :new_sizes[i][0], :new_sizes[i][1]]))
               for i in range(len(SIZES)) if chosen[i] == number]
  return output


def sizes_by_factor():
  return [(max(1, math.floor(h * np.float32(f))), max(1, math.floor(w * np.float32(f))))
          for (h, w), f in zip(SIZES, FACTORS, strict=True)]


def axis_matrix(old, new, inverse, method):
  """Returns the weights [new, old] of PyTorch's F.interpolate, in float64, sample by sample."""
  matrix = np.zeros((new, old))
  for out in range(new):
    centre = (out + 0.5) * inverse - 0.5
    left = math.floor(centre)
    t = centre - left
    if method == 'area':
      start, end = math.floor(out * old / new), math.ceil((out + 1) * old / new)
      matrix[out, start:end] = 1 / (end - start)
    elif method == 'nearest':
      matrix[out, min(math.floor(np.float32(out) * np.float32(inverse)), old - 1)] = 1
    else:
      a = -0.75
      taps = {'bilinear': {0: 1 - t, 1: t}, 'bicubic': {
          -1: a * ((t + 1)**3 - 5 * (t + 1)**2 + 8 * (t + 1) - 4),
          0: (a + 2) * t**3 - (a + 3) * t**2 + 1,
          1: (a + 2) * (1 - t)**3 - (a + 3) * (1 - t)**2 + 1,
          2: a * ((2 - t)**3 - 5 * (2 - t)**2 + 8 * (2 - t) - 4)}}[method]
      for step, weight in taps.items():
        matrix[out, min(max(left + step, 0), old - 1)] += weight
  return matrix


@pytest.mark.parametrize('by_factor', [False, True])
@pytest.mark.parametrize('method', ['area', 'bilinear', 'bicubic', 'nearest'])
def test_resizing_follows_the_rules_of_interpolate(method, by_factor):
  found, canvas = batch(3)
  sizes = sizes_by_factor()
  ratios = jnp.asarray(FACTORS, jnp.float32)[:, None] * jnp.ones(2) if by_factor else None
  for number, result in results(canvas, sizes, method, Resampling(METHODS), ratios):
    image = np.float64(found[number])
    for axis, letters in ((0, 'oh,hwc->owc'), (1, 'ow,hwc->hoc')):
      old, new = image.shape[axis], sizes[number][axis]
      inverse = 1 / np.float32(FACTORS[number]) if by_factor else old / new
      image = np.einsum(letters, axis_matrix(old, new, inverse, method), image)
    np.testing.assert_allclose(result, image, rtol=0, atol=5e-6, err_msg=str(number))


@pytest.mark.slow
@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('method', ['area', 'bilinear', 'bicubic', 'nearest'])
def test_resizing_equals_interpolate(method, channels):
  torch = pytest.importorskip('torch')
  found, canvas = batch(channels)
  ratios = jnp.asarray(FACTORS, jnp.float32)[:, None] * jnp.ones(2)
  sizes = sizes_by_factor()
  for by_factor in (False, True):
    for number, result in results(canvas, sizes, method, Resampling(METHODS),
                                  ratios if by_factor else None):
      how = ({'scale_factor': float(np.float32(FACTORS[number]))} if by_factor
             else {'size': sizes[number]})
      expected = torch.nn.functional.interpolate(
          torch.from_numpy(found[number].transpose(2, 0, 1)[None]), mode=method, **how)
      np.testing.assert_allclose(result, expected[0].permute(1, 2, 0).numpy(), rtol=0,
                                 atol=TOLERANCE, err_msg=f'{number} {by_factor}')


@pytest.mark.slow
@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('method', ['bilinear', 'bicubic'])
def test_antialiasing_equals_interpolate(method, channels):
  torch = pytest.importorskip('torch')
  found, canvas = batch(channels)
  for number, result in results(canvas, sizes_by_factor(), method, Resampling(METHODS, True)):
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(found[number].transpose(2, 0, 1)[None]), mode=method, antialias=True,
        size=sizes_by_factor()[number])
    np.testing.assert_allclose(result, expected[0].permute(1, 2, 0).numpy(), rtol=0,
                               atol=2 * TOLERANCE, err_msg=str(number))


@pytest.mark.parametrize('method', ['bilinear', 'bicubic', 'lanczos'])
def test_antialiasing_equals_pillow(method):
  found, canvas = batch(3)
  pillow = getattr(Image.Resampling, method.upper())
  for number, result in results(canvas, sizes_by_factor(), method, Resampling(METHODS, True)):
    height, width = sizes_by_factor()[number]
    for channel in range(3):
      expected = Image.fromarray(found[number][..., channel]).resize((width, height), pillow)
      np.testing.assert_allclose(result[..., channel], np.asarray(expected), rtol=0, atol=5e-6,
                                 err_msg=str(number))


def test_lanczos_without_antialiasing_equals_pillow_where_images_grow():
  found, canvas = batch(3)
  sizes = [(height * 5 // 4, width * 3 // 2) for height, width in SIZES]
  for number, result in results(canvas, sizes, 'lanczos', Resampling(METHODS)):
    for channel in range(3):
      expected = Image.fromarray(found[number][..., channel]).resize(
          sizes[number][::-1], Image.Resampling.LANCZOS)
      np.testing.assert_allclose(result[..., channel], np.asarray(expected), rtol=0, atol=5e-6)


@pytest.mark.parametrize('method', ['bilinear', 'bicubic'])
def test_repeated_borders_equal_imresize(method):
  found, canvas = batch(1)
  resampling = Resampling(('nearest', 'bilinear', 'bicubic'), True, math.ceil(2 / 0.15))
  sizes = [(math.ceil(h * f), math.ceil(w * f)) for (h, w), f in zip(SIZES, FACTORS, strict=True)]
  for number, result in results(canvas, sizes, method, resampling):
    expected = images.imresize(found[number], method=method, size=sizes[number])
    np.testing.assert_allclose(result, expected, rtol=0, atol=3e-6, err_msg=str(number))


@pytest.mark.parametrize('antialias', [False, True])
@pytest.mark.parametrize('method', METHODS)
def test_an_image_of_the_same_size_keeps_its_bits(method, antialias):
  found, canvas = batch(3)
  for number, result in results(canvas, SIZES, method, Resampling(METHODS, antialias)):
    np.testing.assert_array_equal(result, found[number])


def test_what_lies_outside_an_image_does_not_matter():
  found, canvas = batch(3)
  other = np.array(canvas.pixels)
  for number, image in enumerate(found):
    other[number, image.shape[0]:] = -3
    other[number, :, image.shape[1]:] = 5
  sizes = np.int32(sizes_by_factor())
  chosen = jnp.arange(len(SIZES), dtype=jnp.int32) % len(METHODS)
  first, second = (run(Canvas(pixels, canvas.sizes), sizes, SHAPE, chosen, Resampling(METHODS))
                   for pixels in (canvas.pixels, jnp.asarray(other)))
  for a, b, (height, width) in zip(first.pixels, second.pixels, sizes, strict=True):
    np.testing.assert_array_equal(a[:height, :width], b[:height, :width])


@pytest.mark.parametrize(('shape', 'new_shape'), [((270, 14), (90, 12)), ((80, 12), (270, 15))])
def test_parts_of_a_large_canvas(shape, new_shape, monkeypatch):
  rng = np.random.default_rng(0)
  # Images that fit into half, two thirds and all of the canvas, in both directions.
  shares = np.array([(0.3, 0.4), (0.5, 0.5), (0.6, 0.3), (0.3, 0.6), (0.67, 0.6), (0.2, 1), (1, 1)])
  large = shape if shape[0] > new_shape[0] else new_shape
  sizes = np.ceil(shares * np.array(large)).astype(np.int32)
  others = np.ceil(shares * np.array(min(shape, new_shape))).astype(np.int32)
  old, new = (sizes, others) if large == shape else (others, sizes)
  pixels = np.float32(rng.random((len(old), *shape, 1)))
  canvas = Canvas(jnp.asarray(pixels), jnp.asarray(old))
  chosen = jnp.zeros(len(old), jnp.int32)
  results = []
  for backend in ('cpu', 'gpu'):  # the form of a GPU, run here
    monkeypatch.setattr(jax, 'default_backend', lambda backend=backend: backend)
    results.append(jax.jit(lambda: resize(canvas, jnp.asarray(new), new_shape, chosen,
                                          Resampling(('bilinear',))).pixels)())
  for number, (height, width) in enumerate(new):
    image = np.float64(pixels[number, :old[number, 0], :old[number, 1]])
    for axis, letters in ((0, 'oh,hwc->owc'), (1, 'ow,hwc->hoc')):
      before, after = image.shape[axis], new[number, axis]
      image = np.einsum(letters, axis_matrix(before, after, before / after, 'bilinear'), image)
    for result in results:  # float32 has a sample's position to about 1e-5 here
      np.testing.assert_allclose(result[number, :height, :width], image, rtol=0, atol=2e-5)


def draw_many(stage, count=20000):
  draws = jax.jit(jax.vmap(stage.draw))(jax.random.split(jax.random.key(1), count))
  return {name: np.asarray(value) for name, value in draws.items()}


def test_factors_and_methods_are_drawn_with_their_probabilities():
  draws = draw_many(Resize())
  factor = draws['factor']
  for share, expected in (((factor > 1), 0.2), ((factor < 1), 0.7), ((factor == 1), 0.1)):
    assert abs(share.mean() - expected) < 0.02
  assert factor.min() >= 0.15
  assert factor.max() < 1.5
  assert abs(factor[factor > 1].mean() - 1.25) < 0.01
  assert abs(factor[factor < 1].mean() - 0.575) < 0.01
  np.testing.assert_allclose(np.bincount(draws['method']) / len(factor), 1 / 3, atol=0.02)


@pytest.mark.parametrize(('stage', 'shape'), [
    (Resize(), (96, 99)),
    (Resize(directions=(0, 1, 1)), CANVAS),
    (Resize(of_lr=True, factor=(0.3, 1.2)), (20, 22))])
def test_the_stage_resizes_by_its_factor(stage, shape):
  _, canvas = batch(3)
  goal = Goal(canvas.sizes // 4, (16, 18))
  factors = np.minimum(np.float32(FACTORS), 1 if stage.directions[0] == 0 else stage.factor[1])
  draws = {'factor': jnp.asarray(factors), 'method': jnp.zeros(len(SIZES), jnp.int32)}
  result = jax.eval_shape(lambda: stage.apply(canvas, draws, None, goal))
  assert result.pixels.shape[1:3] == shape
  sizes = jax.jit(lambda: stage.apply(canvas, draws, None, goal).sizes)()
  base = np.asarray(goal.sizes if stage.of_lr else canvas.sizes)
  np.testing.assert_array_equal(sizes, np.maximum(np.floor(base * factors[:, None]), 1))


def test_images_stay_in_their_place_unless_samples_go_by_the_factor():
  columns = jnp.broadcast_to(jnp.arange(40.0)[:, None] + 0.5, (1, 40, 40, 1))  # their own positions
  canvas, goal = Canvas(columns, jnp.array([[40, 40]])), Goal(jnp.array([[10, 10]]), (10, 10))
  draws = {'factor': jnp.array([0.39]), 'method': jnp.array([1])}  # 15.6 columns, rounded down
  for stage, shift in ((Resize(), 0), (Resize(by_factor=True), 0.3 / 0.39)):
    small = stage.apply(canvas, draws, None, goal).pixels[0, 0, :15, 0]
    assert np.mean(small) == pytest.approx(20 - shift, abs=0.05)


def test_images_that_are_kept_keep_their_bits():
  found, canvas = batch(3)
  keep = np.array([True, False] * 3)
  goal = Goal(jnp.full((len(SIZES), 2), 20, jnp.int32), (20, 20))
  stage = ResizeToGoal()
  draws = {'method': jnp.arange(len(SIZES), dtype=jnp.int32) % 3}
  resize_some = jax.jit(stage.apply_except, static_argnames='shape')
  first = resize_some(canvas, draws, goal, jnp.asarray(keep), shape=CANVAS)
  for number, image in enumerate(found):
    height, width = SIZES[number] if keep[number] else (20, 20)
    assert tuple(first.sizes[number]) == (height, width)
    if keep[number]:
      np.testing.assert_array_equal(first.pixels[number, :height, :width], image)
  second = resize_some(first, draws, goal, jnp.asarray(~keep), shape=goal.shape)
  whole = jax.jit(lambda: stage.apply(canvas, draws, None, goal))()
  np.testing.assert_array_equal(second.sizes, goal.sizes)
  np.testing.assert_allclose(second.pixels, whole.pixels, rtol=0, atol=1e-6)


def test_draws_in_words():
  assert Resize().describe({'factor': 0.43, 'method': 0}) == 'resized by 0.43, area'
  assert Resize().describe({'factor': 1.0, 'method': 1}) == 'not resized'
  assert 'bicubic' in Resize(of_lr=True).describe({'factor': 1.0, 'method': 2})
  assert 'bilinear' in ResizeToGoal().describe({'method': 1})
