"""SwinIR (Liang et al. 2021, "SwinIR: Image Restoration Using Swin Transformer").

Features of a 3x3 convolution pass through groups of Swin Transformer blocks (attention in windows
of 8x8 pixels, every second block shifted by half a window), each group with a convolution at its
end and a residual around it; then the features are upsampled. `SWINIR_M`, `SWINIR_LIGHT`,
`SWINIR_REAL_M`, `SWINIR_REAL_L` and `SWINIR_X1` are the paper's networks.

Sides that are not multiples of the window are padded by reflection at the bottom and right, as the
authors' `forward` does, and the features keep that padding until the result is cropped. Their
published figures come from a test script that pads differently, by a flipped copy of the image up
to (h // 8 + 1) * 8, which is a whole window where the side is a multiple already.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from sr_jax.models.attention import POSITIONS, LayerNorm, check_heads, transformer_mean
from sr_jax.models.convolution import Conv
from sr_jax.models.layers import (
  PYTORCH_UNIFORM,
  ResidualConv,
  Upsample,
  add_chroma,
  check_choices,
  check_drop_path,
  crop,
  fold,
  match_channels,
  pixel_shuffle,
  residual_scales,
  stages_of,
)
from sr_jax.models.stem import apply_stem, stem_features, stem_network
from sr_jax.models.swin_blocks import BlockFields, SwinGroup

TAIL_FEATURES = 64  # channels of the upsampling, in all of the authors' networks


class SwinIR(nn.Module):
  """Transformer generator: lr [B, h, w, C] to sr [B, h * scale, w * scale, C].

  Attributes:
    features: channels of the trunk.
    groups: groups of blocks.
    blocks: blocks of each group.
    heads: attention heads of each block, a divisor of `features`; where `position` rotates,
      features / heads must be a multiple of 4.
    window: side of the windows in pixels of the features.
    mlp_ratio: channels of the hidden layer of each MLP for each feature.
    position: how attention tells positions apart, see `attention.POSITIONS`: 'bias' (the authors'),
      'rope_axial', 'rope_mixed' or 'none'.
    residual_conv: kind of the `ResidualConv` of each group and of the trunk, '1conv' or '3conv'.
    upsample: 'shuffle' (convolutions of 64 features and PixelShuffles: "pixelshuffle", classical
      SR), 'direct' (one convolution and one PixelShuffle: "pixelshuffledirect", lightweight SR),
      'nearest' (pixels are repeated, then convolved: "nearest+conv", real-world SR), or 'none'
      (scale 1 only: what the last convolution computes is added to lr).
    scale: 1 (restoration), 2, 3, 4 or 8; with 'nearest' 2, 4 or 8.
    unshuffle: factor by which the image is first folded into channels, see `layers.fold`.
    drop_path: probability in training with which the residuals of the last block are left out of
      an image of the batch (stochastic depth, Huang et al. 2016); it rises linearly from 0 at the
      first block. Those that are kept are scaled up. Calls with `train=True` then need an rng
      named 'drop_path'.
    image_range: value of white inside the network; 255 in the authors' networks that remove JPEG
      artefacts.
    stem: what computes the features that the blocks get, 'conv' (the authors', a 3x3 convolution),
      or the trunk of an 'edsr' or 'rrdb', see `models.stem`.
    stem_blocks: number of blocks of that trunk.
    stem_features: its channels; None for `features`. Other than those, a 1x1 convolution follows.
    kernel_init: of the convolutions; the paper names none, and PyTorch's default is that of its
      code. Dense layers start from a normal distribution of 0.02.
    channels, remat, dtype: see `sr_jax.models`.
  """

  features: int = 180
  groups: int = 6
  blocks: int = 6
  heads: int = 6
  window: int = 8
  mlp_ratio: float = 2.0
  position: str = 'bias'
  residual_conv: str = '1conv'
  upsample: str = 'shuffle'
  scale: int = 4
  unshuffle: int = 1
  channels: int = 3
  drop_path: float = 0.1
  image_range: float = 1.0
  stem: str = 'conv'
  stem_blocks: int | None = None
  stem_features: int | None = None
  remat: bool = False
  kernel_init: Callable = PYTORCH_UNIFORM
  dtype: jnp.dtype = jnp.float32

  @property
  def feature_multiple(self) -> int:
    """Number whose multiples the sides of the features are, see `sr_jax.models`."""
    return self.window

  stem_network = nn.nowrap(stem_network)

  def setup(self) -> None:
    self._check()
    options = {'kernel_init': self.kernel_init, 'dtype': self.dtype}
    fields = BlockFields(self.features, self.heads, self.window, self.mlp_ratio, self.position,
                         self.dtype)
    self.stem_trunk = self.stem_network()
    if self.stem == 'conv':
      self.head = Conv(self.features, (3, 3), **options)
    elif stem_features(self) != self.features:
      self.stem_join = Conv(self.features, (1, 1), **options)
    self.embed_norm, self.norm = LayerNorm(dtype=self.dtype), LayerNorm(dtype=self.dtype)
    self.body = [self._new_group(fields) for _ in range(self.groups)]
    self.body_end = ResidualConv(self.residual_conv, **options)
    outputs = self.channels
    if self.upsample == 'direct':
      outputs *= (self.scale * self.unshuffle)**2
    elif self.upsample != 'none':
      activation = 'leaky_relu_0.2' if self.upsample == 'nearest' else 'none'
      self.widen = Conv(TAIL_FEATURES, (3, 3), **options)
      self.stages = [Upsample(stage, TAIL_FEATURES, self.upsample, activation, **options)
                     for stage in stages_of(self)]
    if self.upsample == 'nearest':
      self.refinement = Conv(TAIL_FEATURES, (3, 3), **options)
    self.last = Conv(outputs, (3, 3), **options)

  def trunk(self, lr: jax.Array, train: bool = False) -> jax.Array:
    """Maps lr [B, h, w, C] to [B, H, W, features].

    H and W are the smallest multiples of `window` that are at least h / unshuffle and
    w / unshuffle.
    """
    first = self._first_features(lr)
    x, scales = self.embed_norm(first), residual_scales(self, len(lr), train)
    for index, group in enumerate(self.body):
      x = group(x, None if scales is None else scales[index])
    return self.body_end(self.norm(x)) + first

  def tail(self, features: jax.Array, lr: jax.Array) -> jax.Array:
    """Maps features and the lr [B, h, w, C] they were computed from to float32 sr."""
    x = features
    if self.upsample in ('shuffle', 'nearest'):
      x = nn.leaky_relu(self.widen(x), 0.01)
      for stage in self.stages:
        x = stage(x)
    if self.upsample == 'nearest':
      x = nn.leaky_relu(self.refinement(x), 0.2)
    x = self.last(x)
    if self.upsample == 'direct':
      x = pixel_shuffle(x, self.scale * self.unshuffle)
    x = crop(x, lr, self.scale).astype(jnp.float32) / self.image_range
    x = x + (match_channels(lr, self.channels) if self.upsample == 'none' else self._mean())
    return add_chroma(x, lr, self.scale)

  def __call__(self, lr: jax.Array, train: bool = False) -> jax.Array:
    return self.tail(self.trunk(lr, train), lr)

  def _first_features(self, lr: jax.Array) -> jax.Array:
    if self.stem != 'conv':
      x = apply_stem(self.stem_trunk, lr, self.window, self.image_range)
      return x if stem_features(self) == self.features else self.stem_join(x)
    x = (match_channels(lr, self.channels).astype(jnp.float32) - self._mean()) * self.image_range
    return self.head(fold(x, self.unshuffle, self.window).astype(self.dtype))

  @nn.nowrap
  def _new_group(self, fields: BlockFields) -> nn.Module:
    return SwinGroup(fields, self.blocks, self.residual_conv, self.remat, self.kernel_init)

  def _mean(self) -> np.ndarray:
    return transformer_mean(self.channels)

  def _check(self) -> None:
    check_choices(self, scale=(1, 2, 3, 4, 8), position=POSITIONS,
                  residual_conv=('1conv', '3conv'),
                  upsample=('shuffle', 'direct', 'nearest', 'none'))
    check_heads(self.features, self.heads, self.position)
    if self.window < 2:
      raise ValueError(f'window={self.window}: expected at least 2')
    check_drop_path(self)
    if self.image_range <= 0:
      raise ValueError(f'image_range={self.image_range}: expected a number above 0')
    if int(self.features * self.mlp_ratio) < 1:
      raise ValueError(f'mlp_ratio={self.mlp_ratio}: expected at least 1 / features')
    if self.residual_conv == '3conv' and self.features < 4:
      raise ValueError(f'features={self.features}: expected at least 4 with residual_conv=3conv')
    factor = self.scale * self.unshuffle
    if self.upsample == 'none' and factor != 1:
      raise ValueError(f"upsample='none' with scale={self.scale}, unshuffle={self.unshuffle}: "
                       'expected both to be 1')
    if self.upsample == 'nearest' and factor not in (2, 4, 8):
      raise ValueError(f"upsample='nearest' with scale={self.scale}, unshuffle={self.unshuffle}: "
                       'expected their product to be 2, 4 or 8')


SWINIR_M = partial(SwinIR)
SWINIR_LIGHT = partial(SwinIR, features=60, groups=4, upsample='direct')
SWINIR_REAL_M = partial(SwinIR, upsample='nearest')
SWINIR_REAL_L = partial(SwinIR, features=240, groups=9, heads=8, residual_conv='3conv',
                        upsample='nearest')
SWINIR_X1 = partial(SwinIR, scale=1, upsample='none')  # for JPEG: window=7, image_range=255
