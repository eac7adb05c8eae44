"""JPEG on the device: the bits of Pillow (libjpeg-turbo), and the stage that draws its values."""

import io
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage import data

from sr_jax import images
from sr_jax.data.degradations.canvas import Canvas, Goal
from sr_jax.data.degradations.jpeg import Jpeg, jpeg

CANVAS = 66, 70  # not multiples of 8
# Multiples of 16, of 8 and of neither; one block; chroma of one, two and three columns.
SIZES = [(64, 64), (48, 56), (61, 47), (33, 50), (15, 31), (7, 5), (9, 6), (16, 4), (20, 1),
         (1, 40), (1, 1)]
QUALITIES = [1, 5, 10, 30, 49, 50, 60, 75, 90, 95, 100]


def through_pillow(image: np.ndarray, quality: int, halved: bool) -> np.ndarray:
  """Saves uint8 [h, w, C] as a JPEG file with Pillow and reads it."""
  file = io.BytesIO()
  grey = image.shape[-1] == 1
  Image.fromarray(image[..., 0] if grey else image).save(
      file, 'JPEG', quality=quality, subsampling='4:2:0' if halved else '4:4:4')
  return np.asarray(Image.open(file)).reshape(image.shape)


def pictures(channels: int) -> list[tuple[np.ndarray, int, bool]]:
  """Returns uint8 images of every size with every quality and subsampling, in turn crops of a
  photograph, uniform noise, and noise of the levels 0 and 255."""
  rng, photograph = np.random.default_rng(0), data.astronaut()
  found = []
  for number, (size, quality, halved) in enumerate(
      itertools.product(SIZES, QUALITIES, (False, True))):
    y, x = rng.integers(0, 440, 2)
    image = [photograph[y:y + size[0], x:x + size[1]], rng.integers(0, 256, (*size, 3), np.uint8),
             rng.integers(0, 2, (*size, 3), np.uint8) * 255][number // 2 % 3]
    found.append((np.ascontiguousarray(image[..., :channels]), quality, halved))
  return found


@pytest.mark.parametrize('channels', [3, 1])
def test_equals_pillow_bit_for_bit(channels: int):
  """All sizes, qualities and subsamplings in one call, with garbage outside of the images."""
  cases = pictures(channels)
  rng = np.random.default_rng(1)
  pixels = rng.uniform(-2, 3, (len(cases), *CANVAS, channels)).astype(np.float32)
  for canvas, (image, _, _) in zip(pixels, cases, strict=True):
    canvas[:image.shape[0], :image.shape[1]] = (image + rng.uniform(-.4, .4, image.shape)) / 255
  sizes = np.array([image.shape[:2] for image, _, _ in cases], np.int32)
  quality = np.array([quality for _, quality, _ in cases], np.int32)
  halved = np.array([halved for _, _, halved in cases])
  coded = np.asarray(jax.jit(jpeg)(pixels, sizes, quality, halved))
  assert coded.dtype == np.float32
  assert np.isfinite(coded).all()
  np.testing.assert_allclose(coded, images.to_float(images.to_uint8(coded)), atol=1e-7)
  for result, (image, *settings) in zip(images.to_uint8(coded), cases, strict=True):
    np.testing.assert_array_equal(result[:image.shape[0], :image.shape[1]],
                                  through_pillow(image, *settings), f'{image.shape}, {settings}')


def test_stage_compresses_the_images_that_drew_it():
  stage = Jpeg(probability=.5, quality=(30., 40.), subsampling=.5)
  draws = jax.jit(jax.vmap(stage.draw))(jax.random.split(jax.random.key(0), 8))
  keys = jax.random.split(jax.random.key(1), 8)
  pixels = np.random.default_rng(0).random((8, 16, 24, 3), np.float32)
  canvas = Canvas(jnp.asarray(pixels), jnp.full((8, 2), 16))
  goal = Goal(canvas.sizes, (16, 24))
  out = jax.jit(stage.apply)(canvas, draws, keys, goal)
  assert 0 < draws['apply'].sum() < 8
  for index, applied in enumerate(np.asarray(draws['apply'])):
    expected = pixels[index, :, :16]
    if applied:
      expected = images.to_float(through_pillow(images.to_uint8(expected),
                                                int(draws['quality'][index]),
                                                bool(draws['halved'][index])))
    np.testing.assert_allclose(out.pixels[index, :, :16], expected, atol=1e-7 * applied)


def test_draws_are_uniform_over_the_range():
  stage = Jpeg(probability=.8, quality=(30., 34.), subsampling=.3)
  draws = jax.vmap(stage.draw)(jax.random.split(jax.random.key(3), 5000))
  share = np.bincount(draws['quality'], minlength=36)[30:35] / 5000
  np.testing.assert_allclose(share, .2, atol=.025)  # four standard deviations
  assert abs(draws['apply'].mean() - .8) < .025
  assert abs(draws['halved'].mean() - .3) < .027


def test_description_names_quality_and_subsampling():
  draws = {'apply': np.True_, 'quality': np.int32(43), 'halved': np.True_}
  assert Jpeg().describe(draws) == 'JPEG of quality 43, 4:2:0'
  assert '4:4:4' in Jpeg().describe(draws | {'halved': np.False_})
  assert Jpeg().describe(draws | {'apply': np.False_}) == 'no JPEG'
