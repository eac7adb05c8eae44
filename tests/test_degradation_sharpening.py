"""The unsharp mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr_jax.data.degradations.canvas import Canvas
from sr_jax.data.degradations.sharpening import Sharpen, opencv_sigma, unsharp_mask

run = jax.jit(unsharp_mask, static_argnames=('weight', 'radius', 'threshold'))


def blocks(height, width, channels, seed=0):
  """Returns [H, W, C] in [0, 1]: flat blocks and a little noise, so that some edges are strong."""
  rng = np.random.default_rng(seed)
  coarse = rng.random((height // 12 + 1, width // 12 + 1, channels))
  image = coarse.repeat(12, 0).repeat(12, 1)[:height, :width]
  return np.float32(np.clip(0.2 + 0.6 * image + rng.normal(0, 0.02, image.shape), 0, 1))


def gaussian(side):
  line = np.exp(-(np.arange(side) - side // 2)**2 / (2 * (0.3 * ((side - 1) / 2 - 1) + 0.8)**2))
  return np.outer(line, line) / line.sum()**2


def blur(image, kernel):
  """Filters [H, W, C] by a 2-D kernel in float64."""
  reach = len(kernel) // 2
  padded = np.pad(np.float64(image), ((reach, reach), (reach, reach), (0, 0)), mode='reflect')
  windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape, (0, 1))
  return np.einsum('hwcij,ij->hwc', windows, kernel)


def clear_threshold(images, side, near):
  """Returns a threshold near `near` that no residual is close to.

  Otherwise float32 may decide differently, and the results differ by more than rounding.
  """
  values = np.concatenate([np.abs(image - blur(image, gaussian(side))).ravel() for image in images])
  values = np.sort(values[np.abs(values * 255 - near) < 0.5]) * 255
  gap = np.argmax(np.diff(values))
  assert values[gap + 1] - values[gap] > 2e-4
  return float(values[gap] + values[gap + 1]) / 2


def expected_mask(image, weight, side, threshold):
  """Returns BasicSR's USMSharp of [H, W, C] in float64."""
  residual = image - blur(image, gaussian(side))
  mask = blur(np.abs(residual) * 255 > threshold, gaussian(side))
  return mask * np.clip(image + weight * residual, 0, 1) + (1 - mask) * image


@pytest.mark.parametrize(('size', 'channels', 'weight', 'radius', 'near'), [
    ((70, 56), 3, 0.5, 50, 10), ((33, 80), 1, 1.5, 21, 4), ((20, 15), 3, 0.5, 50, 10),
    ((1, 40), 3, 0.5, 11, 2), ((219, 30), 1, 0.5, 50, 10)])
def test_the_mask_equals_the_published_one(size, channels, weight, radius, near):
  images = np.stack([blocks(*size, channels, seed) for seed in range(2)])
  side = radius + 1 - radius % 2
  threshold = clear_threshold(images, side, near)
  result = run(images, weight, radius, threshold)
  for image, found in zip(images, result, strict=True):
    expected = expected_mask(image, weight, side, threshold)
    assert np.abs(expected - image).max() > 0.005
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


@pytest.mark.slow
def test_the_mask_equals_pytorch():
  torch = pytest.importorskip('torch')
  functional = torch.nn.functional
  image = blocks(130, 111, 3)
  threshold = clear_threshold([image], 51, 10)
  assert opencv_sigma(51) == pytest.approx(8)
  kernel = torch.from_numpy(gaussian(51)).float()[None, None]

  def torch_blur(x):
    return functional.conv2d(functional.pad(x, (25,) * 4, mode='reflect'), kernel)

  x = torch.from_numpy(image.transpose(2, 0, 1)[:, None])
  residual = x - torch_blur(x)
  mask = torch_blur((residual.abs() * 255 > threshold).float())
  expected = mask * torch.clip(x + 0.5 * residual, 0, 1) + (1 - mask) * x
  np.testing.assert_allclose(run(image[None], threshold=threshold)[0],
                             expected[:, 0].permute(1, 2, 0).numpy(), rtol=0, atol=2e-6)


def test_flat_images_and_weak_edges_stay():
  flat = np.full((1, 30, 40, 3), 0.3, np.float32)
  np.testing.assert_allclose(run(flat), flat, rtol=0, atol=1e-7)
  step = np.float32(np.where(np.arange(40) < 20, 0.5, 0.53))[:, None] * np.ones((1, 30, 1, 1))
  step = np.float32(step)
  np.testing.assert_array_equal(run(step), step)


def test_the_stage_sharpens_images_of_different_sizes():
  sizes = ((40, 52), (31, 47), (44, 12))
  images = [blocks(*size, 3, seed) for seed, size in enumerate(sizes)]
  pixels = np.full((3, 44, 53, 3), 7, np.float32)
  for number, image in enumerate(images):
    pixels[number, :image.shape[0], :image.shape[1]] = image
  stage = Sharpen(radius=20, threshold=clear_threshold(images, 21, 10))
  draws = {'sharpened': np.array([True, False, True]), 'weight': np.float32([0.3, 0.5, 1.2])}
  canvas = Canvas(jnp.asarray(pixels), jnp.asarray(sizes, jnp.int32))
  result = jax.jit(lambda: stage.apply(canvas, draws, None, None))()
  for number, image in enumerate(images):
    expected = expected_mask(image, draws['weight'][number], 21, stage.threshold) if (
        draws['sharpened'][number]) else image
    found = result.pixels[number, :image.shape[0], :image.shape[1]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_weights_are_drawn_from_their_range():
  draws = jax.vmap(Sharpen().draw)(jax.random.split(jax.random.key(0), 5000))
  assert abs(np.mean(draws['sharpened']) - 0.5) < 0.03
  np.testing.assert_allclose(np.quantile(draws['weight'], (0, 0.5, 1)), (0.2, 0.6, 1), atol=0.03)
  assert Sharpen().describe({'sharpened': True, 'weight': 0.62}) == 'sharpened, weight 0.62'
  assert Sharpen().describe({'sharpened': False, 'weight': 0.62}) == 'not sharpened'
