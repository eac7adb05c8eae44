"""SPAN (Wan et al. 2024, "Swift Parameter-free Attention Network for Efficient Super-Resolution").

The winner of NTIRE 2024's challenge on efficient super-resolution. Every block computes three
convolutions; the last one gives both the residual and, by a sigmoid around zero, the attention that
it is multiplied by, so attention needs no parameters of its own.

While it trains, each convolution has two branches: a 1x1, a 3x3 and a 1x1 convolution that widen
the features to twice their number, and a 1x1 convolution beside them. There is no activation in
between, so both together are one 3x3 convolution, to which `fuse` turns them.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from sr_jax.models.convolution import Conv, convolve
from sr_jax.models.edsr import DIV2K_MEAN
from sr_jax.models.layers import PYTORCH_UNIFORM, add_chroma, match_channels, pixel_shuffle

GAIN = 2  # factor by which the branch of three convolutions widens the features
EXPAND, MIDDLE, REDUCE, SKIP = BRANCHES = 'expand', 'middle', 'reduce', 'skip'
CENTRE = np.zeros((3, 3, 1, 1), np.float32)
CENTRE[1, 1] = 1

Layer = Mapping[str, Any]  # 'kernel' and 'bias' of a convolution


class BranchConv(Conv):
  """A 3x3 convolution, [B, h, w, C] to features, whose kernel is made of those of its branches.

  It computes reduce(middle(expand(x))) + skip(x), with 3x3 kernels in `middle` and 1x1 in the
  others. Zero padding goes before `expand`, whose bias therefore reaches the pixels around the
  image too. So the branches equal one 3x3 convolution at the border as well, and only that one is
  applied: the gradients of the branches are those of its kernel, passed on. In training this is
  about a fifth of the operations, and nothing of the branches' features is stored.
  """

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    inputs, outputs = x.shape[-1], self.features
    shapes = {EXPAND: (1, 1, inputs, GAIN * inputs),
              MIDDLE: (3, 3, GAIN * inputs, GAIN * outputs),
              REDUCE: (1, 1, GAIN * outputs, outputs), SKIP: (1, 1, inputs, outputs)}
    branches = {name: self.param(name, self._initial, shape) for name, shape in shapes.items()}
    with jax.default_matmul_precision('highest'):  # a GPU would fuse in TF32
      layer = fuse_branches(branches)
    y = convolve(x.astype(self.dtype), layer['kernel'].astype(self.dtype), (1, 1), 'SAME',
                 lhs_dilation=(1, 1), rhs_dilation=(1, 1), feature_group_count=1,
                 dimension_numbers=('NHWC', 'HWIO', 'NHWC'), precision=None)
    return (y + layer['bias']).astype(self.dtype)

  def _initial(self, key: jax.Array, shape: tuple[int, ...]) -> Layer:
    return {'kernel': self.kernel_init(key, shape, jnp.float32),
            'bias': jnp.zeros(shape[-1:], jnp.float32)}


def fuse_branches(branches: Mapping[str, Layer]) -> Layer:
  """Returns kernel [3, 3, C, O] and bias [O] of the convolution that equals its branches.

  Args:
    branches: kernel and bias of each of BRANCHES, NumPy or JAX arrays; 'middle' has a kernel
      [3, 3, m, n], the others have kernels [1, 1, ...].
  """
  expand, middle, reduce, skip = (branches[name] for name in BRANCHES)
  inner = middle['kernel'] @ reduce['kernel']
  bias = (expand['bias'] @ inner.sum((0, 1)) + middle['bias'] @ reduce['kernel'][0, 0]
          + reduce['bias'] + skip['bias'])
  return {'kernel': expand['kernel'] @ inner + CENTRE * skip['kernel'], 'bias': bias}


def split_layer(layer: Layer) -> dict[str, Layer]:
  """Returns branches that equal a 3x3 convolution: its kernel in the middle of identities."""
  inputs, outputs = np.shape(layer['kernel'])[2:]

  def padded(array: np.ndarray, *sides: int) -> np.ndarray:
    sides = np.shape(array)[:-len(sides)] + sides
    return np.pad(array, [(0, side - length)
                          for side, length in zip(sides, np.shape(array), strict=True)])

  kernels = {
      EXPAND: padded(np.eye(inputs)[None, None], inputs, GAIN * inputs),
      MIDDLE: padded(np.asarray(layer['kernel']), GAIN * inputs, GAIN * outputs),
      REDUCE: padded(np.eye(outputs)[None, None], GAIN * outputs, outputs),
      SKIP: np.zeros((1, 1, inputs, outputs))}
  branches = {name: {'kernel': np.float32(kernel), 'bias': np.zeros(kernel.shape[-1], np.float32)}
              for name, kernel in kernels.items()}
  return branches | {REDUCE: branches[REDUCE] | {'bias': np.float32(layer['bias'])}}


def fuse(variables: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the variables of the same network with `fused=True`: one 3x3 kernel for all branches.

    generator, variables = generator.clone(fused=True), fuse(variables)

  The result is equal up to rounding, at the borders too. Kernels are NumPy arrays, computed in
  float64 and rounded to float32.
  """
  def fused(node: Any) -> Any:
    if not isinstance(node, Mapping):
      return node
    if node.keys() != set(BRANCHES):
      return {name: fused(child) for name, child in node.items()}
    exact = fuse_branches(jax.tree.map(np.float64, node))
    return {name: np.float32(array) for name, array in exact.items()}

  return fused(variables)


def split(variables: Mapping[str, Any]) -> dict[str, Any]:
  """Inverts `fuse`, for tools that know only networks with branches; see `split_layer`.

  Its result is not for training: one half of the widened features is zero and stays so.
  """
  def replaced(name: str, node: Any) -> Any:
    if not isinstance(node, Mapping):
      return node
    if node.keys() == {'kernel', 'bias'}:
      return node if name in ('merge', 'last') else split_layer(node)
    return {name: replaced(name, child) for name, child in node.items()}

  return replaced('', variables)


class AttentionBlock(nn.Module):
  """A "SPAB" (section 3.2): (y + x) * (sigmoid(y) - 1/2) with y = three convolutions of x.

  SiLU comes after the first two of them. The shape [B, h, w, features] stays; with `tap`, the
  activations after the first convolution are appended to the features.
  """

  features: int
  conv: Callable[..., nn.Module]
  tap: bool

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    first = nn.silu(self.conv(self.features, (3, 3), name='layers_0')(x))
    y = nn.silu(self.conv(self.features, (3, 3), name='layers_1')(first))
    y = self.conv(self.features, (3, 3), name='layers_2')(y)
    y = (y + x) * (nn.sigmoid(y) - 0.5)
    return jnp.concatenate([y, first], axis=-1) if self.tap else y


class SPAN(nn.Module):
  """Generator of attention blocks: lr [B, h, w, C] to sr [B, h * scale, w * scale, C].

  The results of the first layer, the first block, the first convolution of the last block, and a
  convolution of the last block's result are joined (section 3.1 and the authors' code).

  Attributes:
    features: channels of the trunk: 48 or, in `SPAN_52`, 52.
    blocks: attention blocks; the authors' networks have six.
    scale: any positive integer; one PixelShuffle makes it.
    fused: whether each convolution has one 3x3 kernel, which `fuse` makes of the branches and with
      which the networks of ncnn are published. It is used and trained as it is.
    channels, dtype: see `sr_jax.models`.
    mean: RGB value in [0, 1] that is subtracted from the input; with one channel, its luma is used.
      It is not added to the output.
    image_range: factor of the input after that; the output is in [0, 1].
    kernel_init: the paper names none; PyTorch's default is that of its code.
  """

  features: int = 48
  blocks: int = 6
  scale: int = 4
  fused: bool = False
  channels: int = 3
  mean: tuple[float, ...] = DIV2K_MEAN
  image_range: float = 255.0
  kernel_init: Callable = PYTORCH_UNIFORM
  dtype: jnp.dtype = jnp.float32

  def setup(self) -> None:
    for field in ('features', 'blocks', 'scale'):
      if getattr(self, field) < 1:
        raise ValueError(f'{field}={getattr(self, field)}: expected at least 1')
    if len(self.mean) != 3:
      raise ValueError(f'mean={self.mean}: expected three numbers')
    if self.image_range <= 0:
      raise ValueError(f'image_range={self.image_range}: expected a number above 0')
    options = {'kernel_init': self.kernel_init, 'dtype': self.dtype}
    conv = partial(Conv if self.fused else BranchConv, **options)
    self.head = conv(self.features, (3, 3))
    self.body = [AttentionBlock(self.features, conv, tap=index == self.blocks - 1)
                 for index in range(self.blocks)]
    self.body_end = conv(self.features, (3, 3))
    self.merge = Conv(self.features, (1, 1), **options)
    self.last = Conv(self.channels * self.scale**2, (3, 3), **options)

  def trunk(self, lr: jax.Array, train: bool = False) -> jax.Array:
    """Maps lr [B, h, w, C] to [B, h, w, features]."""
    mean = match_channels(np.array(self.mean, np.float32), self.channels)
    x = (match_channels(lr, self.channels).astype(jnp.float32) - mean) * self.image_range
    outputs = [self.head(x.astype(self.dtype))]
    for block in self.body:
      outputs.append(block(outputs[-1]))
    last, tapped = outputs[-1][..., :self.features], outputs[-1][..., self.features:]
    first_block = outputs[1][..., :self.features]
    return self.merge(jnp.concatenate(
        [outputs[0], self.body_end(last), first_block, tapped], axis=-1))

  def tail(self, features: jax.Array, lr: jax.Array) -> jax.Array:
    """Maps features and the lr [B, h, w, C] they were computed from to float32 sr."""
    x = pixel_shuffle(self.last(features), self.scale).astype(jnp.float32)
    return add_chroma(x, lr, self.scale)

  def __call__(self, lr: jax.Array, train: bool = False) -> jax.Array:
    return self.tail(self.trunk(lr, train), lr)


SPAN_52 = partial(SPAN, features=52)
