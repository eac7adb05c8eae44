"""The degradations beside an independent implementation of Real-ESRGAN's (tests/benchmarks)."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

pytestmark = pytest.mark.slow  # needs PyTorch


def test_kernels_of_the_reference():
  from tests.benchmarks import torch_degradations as reference
  rng = np.random.default_rng(0)
  kernels = np.stack([reference.draw_kernel(rng, reference.Order()) for _ in range(300)])
  np.testing.assert_allclose(kernels.sum((1, 2)), 1, rtol=1e-5)
  np.testing.assert_allclose(kernels, kernels[:, ::-1, ::-1], atol=1e-7)
  low_pass = (kernels.min((1, 2)) < -1e-4).mean()  # only sinc kernels have negative lobes
  assert 0.04 < low_pass < 0.16


def test_the_unsharp_mask_in_two_passes_equals_the_published_one(picture: Callable):
  from tests.benchmarks import torch_degradations as reference
  image = reference._tensor(picture(64, 80).astype(np.float32) / 255)
  two_passes = reference.sharpened(image, separable=True).numpy()
  np.testing.assert_allclose(two_passes, reference.sharpened(image, False).numpy(), atol=1e-5)
  assert np.abs(two_passes - image.numpy()).max() > 10 / 255


@pytest.mark.parametrize('quality', [30, 60, 90])
def test_jpeg_in_floating_point_is_near_pillows(picture: Callable, quality: int):
  import torch

  from tests.benchmarks import torch_chain
  from tests.benchmarks import torch_degradations as reference
  # Grey: Pillow interpolates the chroma. Multiples of 16: the published padding is black.
  image = np.repeat(picture(64, 96)[..., :1], 3, -1).astype(np.float32) / 255
  pillow = reference.pillow_jpeg(image, quality)
  ours = torch_chain.FloatJpeg()(reference._tensor(image), torch.tensor([float(quality)]))
  error = reference._array(ours) - pillow
  assert np.square(error).mean() < 0.2 * np.square(pillow - image).mean()


def test_the_batch_chain_resembles_the_chain_of_one_image(picture: Callable):
  import torch

  from tests.benchmarks import torch_chain
  from tests.benchmarks import torch_degradations as reference
  options = reference.Options(first=dataclasses.replace(reference.Order(), grey_prob=0.0))
  images = np.stack([picture(64, 64) for _ in range(4)])
  rng, chain = np.random.default_rng(0), torch_chain.TorchChain(options, patch=48)
  torch.manual_seed(0)
  tensor = torch.cat([reference._tensor(image.astype(np.float32) / 255) for image in images])
  batch = chain(tensor, rng, chain.kernels(rng, 4))
  assert [tuple(batch[name].shape[1:]) for name in ('lr', 'hr', 'target')] == [
      (3, 12, 12), (3, 48, 48), (3, 48, 48)]
  levels = batch['lr'].numpy() * 255
  np.testing.assert_allclose(levels, np.rint(levels), atol=1e-3)
  one = reference.degrade_one(images[0], rng, options)
  assert one.shape == (16, 16, 3)
  assert abs(one.mean() - levels.mean()) < 40


def test_sr_jax_degrades_as_the_reference_does(picture: Callable):
  from scipy import stats

  from sr_jax import images
  from tests.benchmarks import degradations, lr_statistics
  crops = np.stack([picture(128, 128, seed) for seed in range(100)])
  clean = [images.imresize(crop, 1 / 4) for crop in crops]
  reference, ours = (
      np.array([lr_statistics.of(*pair) for pair in zip(chain((), crops, 0), clean, strict=True)])
      for chain in (degradations.reference_chain, degradations.our_chain))
  distances = {name: stats.ks_2samp(reference[:, column], ours[:, column]).statistic
               for column, name in enumerate(lr_statistics.NAMES)}
  # Of two samples of 100 from one distribution, one pair in 1,000 is farther apart than .28.
  assert max(distances.values()) < 0.28, distances
