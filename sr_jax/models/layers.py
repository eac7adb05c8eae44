"""Layers and checks that more than one network uses."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from sr_jax import images
from sr_jax.models.convolution import Conv, ConvTranspose

# Factors of the upsampling stages that make up each scale.
STAGES = {1: (), 2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2), 16: (2, 2, 2, 2)}

# White minus black in the luma of `images.luma`.
LUMA_RANGE = float(images.LUMA.sum())  # 219 / 255

# Kaiming's variance times 0.1^2, with which networks without BatchNorm start near the identity
# (ESRGAN, Wang et al. 2018, section 3.1 and its supplement).
SMALL_KAIMING = nn.initializers.variance_scaling(0.02, 'fan_in', 'normal')
# PyTorch's default for kernels, used for networks whose papers don't name an initialiser.
PYTORCH_UNIFORM = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
KAIMING = nn.initializers.he_normal()  # He et al. 2015, equation 10
# Kernel initialisers by the names that configs use.
INITIALIZERS = {
    'xavier': nn.initializers.xavier_uniform(),  # Glorot and Bengio 2010, equation 16
    'xavier_normal': nn.initializers.xavier_normal(),
    'kaiming': KAIMING,
    'kaiming_uniform': nn.initializers.he_uniform(),
    'kaiming_0.1': SMALL_KAIMING,
    'lecun': nn.initializers.lecun_normal(),
    'pytorch': PYTORCH_UNIFORM}


def check_choices(module: nn.Module, **allowed: Sequence[Any]) -> None:
  """Raises ValueError if a field of a module has a value that is not among those allowed."""
  for field, values in allowed.items():
    if getattr(module, field) not in values:
      raise ValueError(f'{field}={getattr(module, field)!r}: expected '
                       f'{", ".join(map(repr, values[:-1]))} or {values[-1]!r}')


def pixel_shuffle(x: jax.Array, scale: int) -> jax.Array:
  """Moves channels into space: [B, h, w, C * s * s] to [B, h * s, w * s, C].

  Channel c * s * s + i * s + j goes to row i, column j of its block. This is PyTorch's order,
  so weights trained there need no permutation (Shi et al. 2016, equation 4).
  """
  batch, height, width, channels = x.shape
  x = x.reshape(batch, height, width, channels // scale**2, scale, scale)
  x = x.transpose(0, 1, 4, 2, 5, 3)
  return x.reshape(batch, height * scale, width * scale, channels // scale**2)


def pixel_unshuffle(x: jax.Array, factor: int) -> jax.Array:
  """Inverts `pixel_shuffle`: [B, H, W, C] to [B, H / f, W / f, C * f * f]."""
  batch, height, width, channels = x.shape
  x = x.reshape(batch, height // factor, factor, width // factor, factor, channels)
  x = x.transpose(0, 1, 3, 5, 2, 4)
  return x.reshape(batch, height // factor, width // factor, channels * factor**2)


def fold(x: jax.Array, factor: int, multiple: int = 1) -> jax.Array:
  """Folds blocks of pixels into channels: [B, h, w, C] to [B, ceil(h / f), ceil(w / f), C * f * f].

  Sides that are not multiples of `factor` are padded by reflection at the bottom and right, so that
  what is computed from the result has to be cropped.

  Args:
    x: the images.
    factor: side f of the blocks.
    multiple: number whose multiples the sides of the result are; further padding makes them so.
  """
  if factor == multiple == 1:
    return x
  rows, columns = (-side % (factor * multiple) for side in x.shape[1:3])
  return pixel_unshuffle(jnp.pad(x, ((0, 0), (0, rows), (0, columns), (0, 0)), 'reflect'), factor)


def repeat_pixels(x: jax.Array, scale: int) -> jax.Array:
  """Upscales by nearest neighbour: [B, h, w, C] to [B, h * s, w * s, C]."""
  return x.repeat(scale, axis=1).repeat(scale, axis=2)


def double_bilinear(x: jax.Array) -> jax.Array:
  """Doubles the resolution by bilinear interpolation: [B, h, w, C] to [B, 2 h, 2 w, C].

  Each new pixel is 3/4 of the nearest pixel and 1/4 of the next one; borders are replicated. It is
  `images.resize(x, 2, 'bilinear')` in the dtype of x, without matrix products.
  """
  for axis in (1, 2):
    size = x.shape[axis]
    around = jnp.pad(x, [(int(at == axis),) * 2 for at in range(4)], 'edge')
    before, centre, after = (lax.slice_in_dim(around, start, start + size, axis=axis)
                             for start in range(3))
    pairs = jnp.stack([0.25 * before + 0.75 * centre, 0.75 * centre + 0.25 * after], axis + 1)
    x = pairs.reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1:])
  return x


def match_channels(lr: jax.Array, channels: int, full_range: bool = True) -> jax.Array:
  """Converts an image to the channels that the layers of a network process.

  Args:
    lr: [B, h, w, 3] in RGB, or [B, h, w, 1] as luma in [16 / 255, 235 / 255] (`images.luma`).
    channels: 3, or 1 for luma.
    full_range: the luma that is returned ranges from 0 (black) to 1 (white), like the grey images
      that other projects give to networks of one channel. False: it stays in [16 / 255, 235 / 255].

  Raises:
    ValueError: the network has three channels and the image one, or either number is neither
      one nor three; or the image is not float.
  """
  if not jnp.issubdtype(lr.dtype, jnp.floating):
    raise ValueError(f'{lr.dtype}: expected float in [0, 1]; images.to_float converts uint8')
  if channels == 1 and lr.shape[-1] == 3:
    lr = images.luma(lr)
  if channels not in (1, 3) or lr.shape[-1] != channels:
    raise ValueError(f'channels={channels}: cannot process an image of {lr.shape[-1]} channels')
  return (lr - images.BLACK) / LUMA_RANGE if channels == 1 and full_range else lr


def crop(x: jax.Array, lr: jax.Array, scale: int) -> jax.Array:
  """Crops [B, H, W, C] to the sides of lr times `scale`, after `fold` has padded it."""
  height, width = (side * scale for side in lr.shape[1:3])
  return x[:, :height, :width]


def stages_of(module: nn.Module) -> tuple[int, ...]:
  """Returns the factors of the upsampling stages for the fields `scale` and `unshuffle`.

  Raises:
    ValueError: no stages have this product.
  """
  if module.scale * module.unshuffle not in STAGES:
    raise ValueError(f'unshuffle={module.unshuffle} at scale {module.scale}: expected their '
                     f'product to be one of {tuple(STAGES)}')
  return STAGES[module.scale * module.unshuffle]


def add_chroma(sr: jax.Array, lr: jax.Array, scale: int, full_range: bool = True) -> jax.Array:
  """Inverts `match_channels` for a result of the layers.

  Args:
    sr: [B, h * s, w * s, 3 or 1], what the layers computed from `match_channels(lr, ...)`.
    lr: [B, h, w, 3 or 1].
    scale: s.
    full_range: as for `match_channels`.

  Returns:
    [B, h * s, w * s, C] with the channels of lr. If lr is RGB and sr luma, Cb and Cr of lr are
    upscaled by bicubic.
  """
  if sr.shape[-1] == 1 and full_range:
    sr = sr * LUMA_RANGE + images.BLACK
  if sr.shape[-1] == lr.shape[-1]:
    return sr
  chroma = images.rgb_to_ycbcr(images.resize(lr, scale, 'bicubic'))[..., 1:]
  return images.ycbcr_to_rgb(jnp.concatenate([sr, chroma], axis=-1))


LEAKY_SLOPES = {'leaky_relu': 0.1, 'leaky_relu_0.2': 0.2}


class Activation(nn.Module):
  """Activation function that is chosen by name.

  Attributes:
    kind: 'none', 'relu', 'leaky_relu' (slope 0.1), 'leaky_relu_0.2' or 'prelu' (trainable
      slope, initially 0.25).
    slopes: number of slopes of 'prelu': 1 for all channels together, or one per channel.

  Raises:
    ValueError: another kind, on the first call.
  """

  kind: str
  slopes: int = 1

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    if self.kind == 'none':
      return x
    if self.kind == 'relu':
      return nn.relu(x)
    if self.kind in LEAKY_SLOPES:
      return nn.leaky_relu(x, LEAKY_SLOPES[self.kind])
    if self.kind == 'prelu':
      slope = self.param('negative_slope', nn.initializers.constant(0.25), (self.slopes,),
                         jnp.float32)
      # In float32, because the gradient of a slope is a sum over all pixels, as in `Conv`.
      return jnp.where(x >= 0, x, (slope * x).astype(x.dtype))
    raise ValueError(f"activation={self.kind!r}: expected 'none', 'relu', 'prelu', "
                     f'{" or ".join(map(repr, LEAKY_SLOPES))}')


class ResidualConv(nn.Module):
  """The convolutions before the residual of many layers is added, [B, h, w, C] to the same shape.

  Attributes:
    kind: '1conv', one 3x3 convolution; '3conv', a 1x1 convolution of a quarter of the channels
      between two 3x3 convolutions, with fewer parameters.
  """

  kind: str
  kernel_init: Callable
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    features = x.shape[-1]
    conv = functools.partial(Conv, kernel_init=self.kernel_init, dtype=self.dtype)
    if self.kind == '1conv':
      return conv(features, (3, 3))(x)
    activation = Activation('leaky_relu_0.2')
    x = activation(conv(features // 4, (3, 3))(x))
    x = activation(conv(features // 4, (1, 1))(x))
    return conv(features, (3, 3))(x)


def check_drop_path(module: nn.Module) -> None:
  """Raises ValueError if the field drop_path of a network is no probability below 1."""
  if not 0 <= module.drop_path < 1:
    raise ValueError(f'drop_path={module.drop_path}: expected a number from 0 to below 1')


def residual_scales(module: nn.Module, batch: int, train: bool) -> jax.Array | None:
  """Returns the factors of all residuals of a transformer, or None if all are 1.

  In training, stochastic depth (Huang et al. 2016) leaves residuals out of an image of the batch,
  with a probability that rises from 0 at the first block to `module.drop_path` at the last, and
  multiplies the others by the inverse of theirs to be kept.

  Args:
    module: a bound network with the fields drop_path, groups and blocks.
    batch: number of images.
    train: whether the network is trained.

  Returns:
    [groups, blocks, 2, batch], for the residuals of attention and of the feed-forward network.
  """
  if not train or not module.drop_path:
    return None
  kept = 1 - np.linspace(0, module.drop_path, module.groups * module.blocks, dtype=np.float32)
  kept = kept.reshape(module.groups, module.blocks, 1, 1)
  draws = jax.random.bernoulli(module.make_rng('drop_path'), kept,
                               (module.groups, module.blocks, 2, batch))
  return draws / kept


def scale_residual(x: jax.Array, scales: jax.Array | None, index: int) -> jax.Array:
  """Multiplies [B, h, w, C] by scales[index], of `residual_scales` [2, B] or None for 1."""
  return x if scales is None else x * scales[index].astype(x.dtype)[:, None, None, None]


class Upsample(nn.Module):
  """Doubles or triples the resolution: [B, h, w, C] to [B, h * s, w * s, C].

  Attributes:
    scale: 2 or 3.
    features: number of channels C.
    method: 'shuffle' is a 3x3 convolution to C * s * s channels and a PixelShuffle;
      'nearest' repeats every pixel, then applies a 3x3 convolution (Odena et al. 2016, ESRGAN);
      'transposed' is a 3x3 convolution and a transposed one of stride s and kernel 4 (s = 2)
      or 9 (s = 3). A kernel size that is a multiple of the stride avoids checkerboard
      artefacts, and one that exceeds the stride by an even number doesn't shift the image.
    activation: kind of the `Activation` after the upsampling.
  """

  scale: int
  features: int
  method: str
  activation: str
  kernel_init: Callable
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    options = {'kernel_init': self.kernel_init, 'dtype': self.dtype}
    if self.method == 'shuffle':
      x = Conv(self.features * self.scale**2, (3, 3), **options)(x)
      x = pixel_shuffle(x, self.scale)
    elif self.method == 'nearest':
      x = Conv(self.features, (3, 3), **options)(repeat_pixels(x, self.scale))
    else:
      x = Conv(self.features, (3, 3), **options)(x)
      side = {2: 4, 3: 9}[self.scale]
      x = ConvTranspose(self.features, (side, side), (self.scale, self.scale), **options)(x)
    return Activation(self.activation)(x)
