"""Real-ESRGAN's degradations of one image in NumPy, PyTorch and Pillow, to compare sr_jax's with.

Written from the paper (Wang et al., "Real-ESRGAN", 2021) and its published options and code,
without a look at sr_jax.data.degradations, so that the two share no error. As published, the chain
begins with the sharpened image; nothing is rounded to 8 bits before the end, except what is
compressed. torch_chain.py beside this file degrades whole batches as published.
"""

import dataclasses
import io
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import special

SIZES = tuple(range(7, 23, 2))  # of blur kernels, equally likely
METHODS = ('area', 'bilinear', 'bicubic')  # of resizing, equally likely, without antialiasing
KINDS = ('gaussian', 'gaussian', 'generalised', 'generalised', 'plateau', 'plateau')
GREY = (0.2989, 0.587, 0.114)


@dataclasses.dataclass(frozen=True)
class Order:
  """Probabilities and ranges of one order of degradations; the defaults are the first order's.

  Attributes:
    blur_prob, noise_prob, jpeg_prob: whether there is such a degradation at all.
    sinc_prob: of a sinc kernel instead of a Gaussian-like one.
    kernel_probs: isotropic and anisotropic Gaussian, generalised Gaussian, plateau.
    sigma, beta_generalised, beta_plateau: ranges in pixels; of exponents.
    resize_probs: up, down, keep.
    resize_range: lowest and highest factor.
    gaussian_prob: of Gaussian noise; otherwise Poisson noise.
    noise_range, poisson_range, grey_prob: sigma in levels of 255; scale; one noise for R, G and B.
    jpeg_range: quality.
  """

  blur_prob: float = 1.0
  sinc_prob: float = 0.1
  kernel_probs: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
  sigma: tuple[float, float] = (0.2, 3.0)
  beta_generalised: tuple[float, float] = (0.5, 4.0)
  beta_plateau: tuple[float, float] = (1.0, 2.0)
  resize_probs: tuple[float, float, float] = (0.2, 0.7, 0.1)
  resize_range: tuple[float, float] = (0.15, 1.5)
  noise_prob: float = 1.0
  gaussian_prob: float = 0.5
  noise_range: tuple[float, float] = (1.0, 30.0)
  poisson_range: tuple[float, float] = (0.05, 3.0)
  grey_prob: float = 0.4
  jpeg_prob: float = 1.0
  jpeg_range: tuple[float, float] = (30.0, 95.0)


SECOND = Order(blur_prob=0.8, sigma=(0.2, 1.5), resize_probs=(0.3, 0.4, 0.3),
               resize_range=(0.3, 1.2), noise_range=(1.0, 25.0), poisson_range=(0.05, 2.5))


@dataclasses.dataclass(frozen=True)
class Options:
  """Both orders, the final sinc filter, and whether the image is sharpened first."""

  first: Order = Order()
  second: Order = SECOND
  final_sinc_prob: float = 0.8
  jpeg_last_prob: float = 0.5  # resize and sinc filter, then JPEG; otherwise JPEG first
  sharpen: bool = True
  scale: int = 4


# Blur and sharpening -----------------------------------------------------------------------


def gaussian_kernel(kind: str, size: int, sigma_x: float, sigma_y: float, angle: float,
                    beta: float = 1.0) -> np.ndarray:
  """Returns a 'gaussian', 'generalised' or 'plateau' kernel [size, size] of sum 1."""
  axis = np.arange(size) - (size - 1) / 2
  x, y = np.meshgrid(axis, axis)
  along = (math.cos(angle) * x + math.sin(angle) * y) / sigma_x
  across = (-math.sin(angle) * x + math.cos(angle) * y) / sigma_y
  distance = along**2 + across**2
  kernel = {'gaussian': lambda: np.exp(-distance / 2),
            'generalised': lambda: np.exp(-distance**beta / 2),
            'plateau': lambda: 1 / (1 + distance**beta)}[kind]()
  return kernel / kernel.sum()


def sinc_kernel(size: int, cutoff: float) -> np.ndarray:
  """Returns the circular low-pass filter [size, size] of a cut-off in radians, of sum 1."""
  axis = np.arange(size) - (size - 1) / 2
  radius = np.hypot(*np.meshgrid(axis, axis))
  radius[size // 2, size // 2] = 1
  kernel = cutoff * special.j1(cutoff * radius) / (2 * np.pi * radius)
  kernel[size // 2, size // 2] = cutoff**2 / (4 * np.pi)
  return kernel / kernel.sum()


def padded(kernel: np.ndarray, size: int = SIZES[-1]) -> np.ndarray:
  return np.pad(kernel, (size - len(kernel)) // 2).astype(np.float32)


def draw_kernel(rng: np.random.Generator, order: Order) -> np.ndarray:
  """Returns a random blur kernel, float32 [21, 21]."""
  size = int(rng.choice(SIZES))
  if rng.random() < order.sinc_prob:
    return padded(sinc_kernel(size, rng.uniform(np.pi / (3 if size < 13 else 5), np.pi)))
  number = rng.choice(len(KINDS), p=order.kernel_probs)
  kind = KINDS[number]
  sigma_x = sigma_y = rng.uniform(*order.sigma)
  angle, beta = 0.0, 1.0
  if number % 2:
    sigma_y, angle = rng.uniform(*order.sigma), rng.uniform(-np.pi, np.pi)
  if kind != 'gaussian':
    low, high = order.beta_generalised if kind == 'generalised' else order.beta_plateau
    beta = rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high)
  return padded(gaussian_kernel(kind, size, sigma_x, sigma_y, angle, beta))


def draw_final_sinc(rng: np.random.Generator, prob: float) -> np.ndarray:
  """Returns the kernel of the last filter, float32 [21, 21]; a single 1 if there is none."""
  if rng.random() < prob:
    return padded(sinc_kernel(int(rng.choice(SIZES)), rng.uniform(np.pi / 3, np.pi)))
  return padded(np.ones((1, 1)))


def correlate(images: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
  """Filters each image of [B, C, H, W] with its kernel of [B, k, l], mirrored at the border."""
  batch, channels, height, width = images.shape
  _, rows, columns = kernels.shape
  images = F.pad(images, (columns // 2, columns // 2, rows // 2, rows // 2), mode='reflect')
  weights = kernels[:, None].repeat_interleave(channels, 0)
  return F.conv2d(images.reshape(1, batch * channels, *images.shape[2:]), weights,
                  groups=batch * channels).view(batch, channels, height, width)


def gaussian_blur(images: torch.Tensor, separable: bool) -> torch.Tensor:
  """Blurs [B, C, H, W] by 51x51 taps of sigma 8, which OpenCV takes for 51 taps."""
  taps = torch.from_numpy(gaussian_kernel('gaussian', 51, 8, 8, 0).sum(0)).float()
  shape = images.shape
  images = F.pad(images.reshape(-1, 1, *shape[2:]), (25,) * 4, mode='reflect')
  if separable:
    images = F.conv2d(F.conv2d(images, taps[None, None, :, None]), taps[None, None, None])
  else:
    images = F.conv2d(images, torch.outer(taps, taps)[None, None])
  return images.view(shape)


def sharpened(images: torch.Tensor, separable: bool = True) -> torch.Tensor:
  """Applies the unsharp mask of weight 0.5 where it exceeds 10 levels, with a blurred mask."""
  residual = images - gaussian_blur(images, separable)
  mask = gaussian_blur(((residual * 255).abs() > 10).float(), separable)
  return mask * (images + 0.5 * residual).clamp(0, 1) + (1 - mask) * images


# Resizing and noise ------------------------------------------------------------------------


def draw_factor(rng: np.random.Generator, order: Order) -> float:
  kind = rng.choice(3, p=order.resize_probs)
  low, high = order.resize_range
  return (rng.uniform(1, high), rng.uniform(low, 1), 1.0)[kind]


def resized(rng: np.random.Generator, images: torch.Tensor, height: int,
            width: int) -> torch.Tensor:
  """Resizes to height and width by a random method."""
  return F.interpolate(images, size=(height, width), mode=str(rng.choice(METHODS)))


def rounded(image: np.ndarray) -> np.ndarray:
  return np.clip(np.round(image * 255), 0, 255)


def noisy(rng: np.random.Generator, image: np.ndarray, order: Order) -> np.ndarray:
  """Adds Gaussian or Poisson noise to float32 [H, W, 3] and clips it to [0, 1]."""
  grey = rng.random() < order.grey_prob
  if rng.random() < order.gaussian_prob:
    sigma = rng.uniform(*order.noise_range) / 255
    noise = sigma * rng.standard_normal((*image.shape[:2], 1 if grey else 3))
  else:
    scale = rng.uniform(*order.poisson_range)
    # The mean number of photons at white is the number of levels in use, up to a power of two.
    levels = rounded((image @ np.array(GREY, np.float32))[..., None] if grey else image)
    photons = 2**math.ceil(math.log2(len(np.unique(levels))))
    noise = scale * (rng.poisson(levels / 255 * photons) / photons - levels / 255)
  return np.clip(image + noise, 0, 1).astype(np.float32)


# One image ---------------------------------------------------------------------------------


def pillow_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
  """Compresses float32 [H, W, 3] in [0, 1] with 4:2:0 after rounding it to 8 bits."""
  buffer = io.BytesIO()
  Image.fromarray(rounded(image).astype(np.uint8)).save(buffer, 'jpeg', quality=quality,
                                                        subsampling='4:2:0')
  return np.asarray(Image.open(buffer), np.float32) / 255


def _tensor(image: np.ndarray) -> torch.Tensor:
  return torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()


def _array(images: torch.Tensor) -> np.ndarray:
  return images[0].permute(1, 2, 0).contiguous().numpy()


def _compressed(rng: np.random.Generator, image: torch.Tensor, order: Order) -> torch.Tensor:
  if rng.random() >= order.jpeg_prob:
    return image
  quality = round(rng.uniform(*order.jpeg_range))
  return _tensor(pillow_jpeg(_array(image), quality))


def degrade_one(hr: np.ndarray, rng: np.random.Generator,
                options: Options = Options()) -> np.ndarray:
  """Returns the degraded uint8 [H / scale, W / scale, 3] of uint8 [H, W, 3]."""
  def blurred(image: torch.Tensor, kernel: np.ndarray) -> torch.Tensor:
    return correlate(image, torch.from_numpy(kernel)[None])

  def last_size(image: torch.Tensor) -> torch.Tensor:
    image = resized(rng, image, height, width)
    return blurred(image, draw_final_sinc(rng, options.final_sinc_prob))

  height, width = (side // options.scale for side in hr.shape[:2])
  image = _tensor(hr.astype(np.float32) / 255)
  if options.sharpen:
    image = sharpened(image)
  for number, order in enumerate((options.first, options.second)):
    if rng.random() < order.blur_prob:
      image = blurred(image, draw_kernel(rng, order))
    factor = draw_factor(rng, order)
    if number == 0:
      image = F.interpolate(image, scale_factor=factor, mode=str(rng.choice(METHODS)))
    else:
      image = resized(rng, image, int(hr.shape[0] / options.scale * factor),
                      int(hr.shape[1] / options.scale * factor))
    if rng.random() < order.noise_prob:
      image = _tensor(noisy(rng, _array(image), order))
    if number == 0:
      image = _compressed(rng, image, order)
  if rng.random() < options.jpeg_last_prob:
    image = _compressed(rng, last_size(image), options.second)
  else:
    image = last_size(_compressed(rng, image, options.second))
  return rounded(_array(image)).astype(np.uint8)
