"""Real-ESRGAN's degradations of a batch as its published code runs them, for the speed comparison.

All images of a batch share the resize factors and methods, the kinds of noise, the second blur and
the order at the end. Kernels, strengths of noise and JPEG qualities are each image's own. The
compression is a JPEG in floating point, whose quality need not be an integer.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from tests.benchmarks import torch_degradations as reference
from tests.benchmarks.torch_degradations import Options, Order

LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56), (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99))
CHROMA_CORNER = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))
TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
TO_RGB = ((1, 0, 1.402), (1, -0.344136, -0.714136), (1, 1.772, 0))


def _dct() -> torch.Tensor:
  """Returns the two-dimensional DCT of flattened 8x8 blocks, [64, 64]."""
  frequency, sample = np.mgrid[:8, :8]
  matrix = np.cos((2 * sample + 1) * frequency * np.pi / 16) / 2
  matrix[0] /= math.sqrt(2)
  return torch.from_numpy(np.kron(matrix, matrix)).float()


class FloatJpeg:
  """JPEG with 4:2:0 in floating point; only the coefficients are rounded."""

  def __init__(self) -> None:
    self.dct = _dct()
    chroma = np.full((8, 8), 99)
    chroma[:4, :4] = CHROMA_CORNER
    self.tables = [torch.tensor(np.array(table)).float().view(1, 1, 64)
                   for table in (LUMA_TABLE, chroma, chroma)]

  def _plane(self, plane: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Compresses [B, H, W] of values around 0 with a table [B, 1, 64]."""
    batch, height, width = plane.shape
    blocks = plane.view(batch, height // 8, 8, width // 8, 8).transpose(2, 3)
    blocks = blocks.reshape(batch, -1, 64) @ self.dct.T
    blocks = (torch.round(blocks / table) * table) @ self.dct
    blocks = blocks.view(batch, height // 8, width // 8, 8, 8).transpose(2, 3)
    return blocks.reshape(batch, height, width)

  def __call__(self, images: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
    """Returns compressed [B, 3, H, W] in [0, 1]; the quality of each is in [B]."""
    height, width = images.shape[2:]
    factor = torch.where(quality < 50, 50 / quality, 2 - quality / 50).view(-1, 1, 1)
    padded = F.pad(images * 255, (0, -width % 16, 0, -height % 16))  # black, as published
    ycc = torch.einsum('bchw,dc->bdhw', padded, torch.tensor(TO_YCC))
    halved = F.avg_pool2d(ycc[:, 1:], 2)
    planes = (ycc[:, 0] - 128, halved[:, 0], halved[:, 1])  # chroma is around 0 here
    y, *chroma = (self._plane(plane.contiguous(), table * factor)
                  for plane, table in zip(planes, self.tables, strict=True))
    chroma = F.interpolate(torch.stack(chroma, 1), scale_factor=2, mode='nearest')
    rgb = torch.einsum('bchw,dc->bdhw', torch.cat((y[:, None] + 128, chroma), 1),
                       torch.tensor(TO_RGB, dtype=torch.float32))
    return rgb[:, :, :height, :width].clamp(0, 255) / 255


def _levels(images: torch.Tensor) -> torch.Tensor:
  return (images * 255).round().clamp(0, 255) / 255


def _poisson_noise(images: torch.Tensor) -> torch.Tensor:
  """Returns Poisson noise of scale 1 for [B, C, H, W] in [0, 1]."""
  images = _levels(images)
  photons = torch.tensor([2.0**math.ceil(math.log2(len(torch.unique(image)))) for image in images])
  photons = photons.view(-1, 1, 1, 1)
  return torch.poisson(images * photons) / photons - images


class TorchChain:
  """Degrades batches with PyTorch.

  Attributes:
    separable: the unsharp mask's Gaussian is two passes instead of 51x51 taps as published.
    patch: side of the HR crops.
  """

  def __init__(self, options: Options = Options(), separable: bool = False,  # noqa: B008, frozen
               patch: int = 256) -> None:
    self.options, self.separable, self.patch = options, separable, patch
    self.jpeg = FloatJpeg()

  def kernels(self, rng: np.random.Generator, count: int) -> list[torch.Tensor]:
    """Draws the kernels [count, 21, 21] of both blurs and of the last filter.

    As published, the workers of the data loader do this.
    """
    options = self.options
    drawn = ([reference.draw_kernel(rng, options.first) for _ in range(count)],
             [reference.draw_kernel(rng, options.second) for _ in range(count)],
             [reference.draw_final_sinc(rng, options.final_sinc_prob) for _ in range(count)])
    return [torch.from_numpy(np.stack(kernels)) for kernels in drawn]

  def _noise(self, rng: np.random.Generator, images: torch.Tensor, order: Order) -> torch.Tensor:
    batch, _, height, width = images.shape
    gaussian = rng.random() < order.gaussian_prob
    low, high = order.noise_range if gaussian else order.poisson_range
    strength = (low + (high - low) * torch.rand(batch)).view(-1, 1, 1, 1)
    is_grey = (torch.rand(batch) < order.grey_prob).float().view(-1, 1, 1, 1)
    if gaussian:
      strength = strength / 255
      grey, colour = torch.randn(batch, 1, height, width), torch.randn(images.shape)
    else:
      grey = torch.einsum('bchw,c->bhw', images, torch.tensor(reference.GREY))[:, None]
      grey, colour = _poisson_noise(grey), _poisson_noise(images)
    return (images + strength * (colour * (1 - is_grey) + grey * is_grey)).clamp(0, 1)

  def _compressed(self, images: torch.Tensor, order: Order) -> torch.Tensor:
    low, high = order.jpeg_range
    return self.jpeg(images.clamp(0, 1), low + (high - low) * torch.rand(len(images)))

  @torch.no_grad()
  def __call__(self, hr: torch.Tensor, rng: np.random.Generator,
               kernels: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns crops {'lr', 'hr', 'target'} of [B, 3, H, W] in [0, 1]; 'target' is sharpened HR."""
    def last_size(images: torch.Tensor) -> torch.Tensor:
      return reference.correlate(reference.resized(rng, images, height, width), last_kernels)

    options, (first, second, last_kernels) = self.options, kernels
    height, width = (side // options.scale for side in hr.shape[2:])
    target = reference.sharpened(hr, self.separable)
    images = reference.correlate(target, first)
    images = F.interpolate(images, scale_factor=reference.draw_factor(rng, options.first),
                           mode=str(rng.choice(reference.METHODS)))
    images = self._compressed(self._noise(rng, images, options.first), options.first)
    if rng.random() < options.second.blur_prob:
      images = reference.correlate(images, second)
    factor = reference.draw_factor(rng, options.second)
    images = reference.resized(rng, images, *(int(side / options.scale * factor)
                                              for side in hr.shape[2:]))
    images = self._noise(rng, images, options.second)
    if rng.random() < options.jpeg_last_prob:
      images = self._compressed(last_size(images), options.second)
    else:
      images = last_size(self._compressed(images, options.second))
    return self._cropped(rng, _levels(images), hr, target)

  def _cropped(self, rng: np.random.Generator, lr: torch.Tensor, hr: torch.Tensor,
               target: torch.Tensor) -> dict[str, torch.Tensor]:
    scale, side = self.options.scale, self.patch // self.options.scale
    top, left = (int(rng.integers(0, full - side + 1)) for full in lr.shape[2:])
    def crop(images: torch.Tensor, by: int) -> torch.Tensor:
      return images[..., by * top:by * (top + side), by * left:by * (left + side)].contiguous()
    return {'lr': crop(lr, 1), 'hr': crop(hr, scale), 'target': crop(target, scale)}
