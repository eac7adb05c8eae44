"""The networks and training steps of the paper configs in plain PyTorch, for versus_torch.py.

The code follows the conventions of well-known PyTorch repositories. Submodules have the names of
sr_jax's variables, so that `copy_weights` needs no table of names. Images are [B, C, H, W] in
[0, 1].
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sr_jax.losses import GeneratorLoss
from sr_jax.models.edsr import DIV2K_MEAN
from sr_jax.models.vgg import MEAN, STD

Losses = dict[str, torch.Tensor]
Step = Callable[[torch.Tensor, torch.Tensor], Losses]  # (lr, hr) -> losses
Autocast = Callable[[], AbstractContextManager]


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
  return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)


def per_channel(values: Sequence[float]) -> torch.Tensor:
  """Returns values as [C, 1, 1], which broadcasts with images."""
  return torch.tensor(np.asarray(values, np.float32)).reshape(-1, 1, 1)


class PixelShuffle(nn.Module):
  """Upscales by 2 with a convolution and a pixel shuffle, followed by a PReLU in SRResNet."""

  def __init__(self, features: int, activation: bool) -> None:
    super().__init__()
    self.Conv_0 = conv(features, 4 * features)
    self.Activation_0 = nn.PReLU() if activation else nn.Identity()

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return self.Activation_0(F.pixel_shuffle(self.Conv_0(x), 2))


class SRResNetBlock(nn.Module):
  """Residual block with batch normalisation."""

  def __init__(self, features: int) -> None:
    super().__init__()
    self.Conv_0, self.Conv_1 = conv(features, features), conv(features, features)
    self.BatchNorm_0, self.BatchNorm_1 = nn.BatchNorm2d(features), nn.BatchNorm2d(features)
    self.Activation_0 = nn.PReLU()

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    y = self.Activation_0(self.BatchNorm_0(self.Conv_0(x)))
    return x + self.BatchNorm_1(self.Conv_1(y))


class SRResNet(nn.Module):
  """SRResNet x4, with the tanh output of SRGAN."""

  def __init__(self, features: int, blocks: int) -> None:
    super().__init__()
    self.head, self.head_activation = conv(3, features, 9), nn.PReLU()
    self.body = nn.ModuleList(SRResNetBlock(features) for _ in range(blocks))
    self.body_end, self.body_end_norm = conv(features, features), nn.BatchNorm2d(features)
    self.stages = nn.ModuleList(PixelShuffle(features, True) for _ in range(2))
    self.last = conv(features, 3, 9)

  def forward(self, lr: torch.Tensor) -> torch.Tensor:
    first = x = self.head_activation(self.head(lr))
    for block in self.body:
      x = block(x)
    x = self.body_end_norm(self.body_end(x)) + first
    for stage in self.stages:
      x = stage(x)
    return (torch.tanh(self.last(x).float()) + 1) / 2


class EDSRBlock(nn.Module):
  """Residual block without normalisation."""

  def __init__(self, features: int) -> None:
    super().__init__()
    self.Conv_0, self.Conv_1 = conv(features, features), conv(features, features)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return x + self.Conv_1(F.relu(self.Conv_0(x)))


class EDSR(nn.Module):
  """The EDSR baseline x4, whose residual scale is 1."""

  def __init__(self, features: int, blocks: int) -> None:
    super().__init__()
    self.head = conv(3, features)
    self.body = nn.ModuleList(EDSRBlock(features) for _ in range(blocks))
    self.body_end = conv(features, features)
    self.stages = nn.ModuleList(PixelShuffle(features, False) for _ in range(2))
    self.last = conv(features, 3)
    self.register_buffer('mean', per_channel(DIV2K_MEAN), persistent=False)

  def forward(self, lr: torch.Tensor) -> torch.Tensor:
    first = x = self.head((lr - self.mean) * 255)
    for block in self.body:
      x = block(x)
    x = self.body_end(x) + first
    for stage in self.stages:
      x = stage(x)
    return self.last(x).float() / 255 + self.mean


class DenseBlock(nn.Module):
  """Residual dense block of five convolutions."""

  def __init__(self, features: int, growth: int) -> None:
    super().__init__()
    for index in range(4):
      setattr(self, f'Conv_{index}', conv(features + index * growth, growth))
    self.Conv_4 = conv(features + 4 * growth, features)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    features = [x]
    for layer in (self.Conv_0, self.Conv_1, self.Conv_2, self.Conv_3):
      features.append(F.leaky_relu(layer(torch.cat(features, 1)), 0.2))
    return x + 0.2 * self.Conv_4(torch.cat(features, 1))


class DenseBlocks(nn.Module):
  """Residual-in-residual dense block: three dense blocks in a row."""

  def __init__(self, features: int, growth: int) -> None:
    super().__init__()
    for index in range(3):
      setattr(self, f'DenseBlock_{index}', DenseBlock(features, growth))

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return x + 0.2 * self.DenseBlock_2(self.DenseBlock_1(self.DenseBlock_0(x)))


class NearestUpsample(nn.Module):
  """Upscales by 2 with nearest-neighbour interpolation and a convolution."""

  def __init__(self, features: int) -> None:
    super().__init__()
    self.Conv_0 = conv(features, features)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return F.leaky_relu(self.Conv_0(F.interpolate(x, scale_factor=2, mode='nearest')), 0.2)


class RRDB(nn.Module):
  """ESRGAN's generator x4."""

  def __init__(self, features: int, blocks: int, growth: int) -> None:
    super().__init__()
    self.head = conv(3, features)
    self.body = nn.ModuleList(DenseBlocks(features, growth) for _ in range(blocks))
    self.body_end = conv(features, features)
    self.stages = nn.ModuleList(NearestUpsample(features) for _ in range(2))
    self.refinement, self.last = conv(features, features), conv(features, 3)

  def forward(self, lr: torch.Tensor) -> torch.Tensor:
    first = x = self.head(lr)
    for block in self.body:
      x = block(x)
    x = self.body_end(x) + first
    for stage in self.stages:
      x = stage(x)
    return self.last(F.leaky_relu(self.refinement(x), 0.2)).float()


class Discriminator(nn.Module):
  """SRGAN's VGG-style discriminator with a dense head, for crops of one size."""

  def __init__(self, widths: Sequence[int], hidden: int, patch: int) -> None:
    super().__init__()
    channels, side = 3, patch
    layers = [(width, stride) for width in widths for stride in (1, 2)]
    for index, (width, stride) in enumerate(layers):
      setattr(self, f'Conv_{index}', conv(channels, width, 3, stride))
      if index:
        setattr(self, f'BatchNorm_{index - 1}', nn.BatchNorm2d(width))
      channels, side = width, -(-side // stride)
    self.depth = len(layers)
    self.Dense_0, self.Dense_1 = nn.Linear(channels * side**2, hidden), nn.Linear(hidden, 1)

  def forward(self, images: torch.Tensor) -> torch.Tensor:
    x = 2 * images - 1
    for index in range(self.depth):
      x = getattr(self, f'Conv_{index}')(x)
      if index:
        x = getattr(self, f'BatchNorm_{index - 1}')(x)
      x = F.leaky_relu(x, 0.2)
    x = x.permute(0, 2, 3, 1).flatten(1)  # no copy in channels_last
    return self.Dense_1(F.leaky_relu(self.Dense_0(x), 0.2)).flatten().float()


class VGG19(nn.Module):
  """The features conv5_4 of VGG19, before or after its ReLU."""

  def __init__(self, relu: bool) -> None:
    super().__init__()
    channels, self.relu, self.names = 3, relu, []
    for block, depth in enumerate((2, 2, 4, 4, 4), 1):
      for index in range(1, depth + 1):
        self.names.append(f'conv{block}_{index}')
        setattr(self, self.names[-1], conv(channels, min(32 << block, 512)))
        channels = min(32 << block, 512)
    self.register_buffer('mean', per_channel(MEAN), persistent=False)
    self.register_buffer('std', per_channel(STD), persistent=False)
    self.requires_grad_(False)

  def forward(self, images: torch.Tensor) -> torch.Tensor:
    x = (images - self.mean) / self.std
    for name in self.names:
      if name.endswith('_1') and name != 'conv1_1':
        x = F.max_pool2d(x, 2)
      x = getattr(self, name)(x)
      if self.relu or name != self.names[-1]:
        x = F.relu(x)
    return x.float()


def copy_weights(module: nn.Module, variables: Mapping[str, Any]) -> None:
  """Copies Flax variables into one of the modules above.

  Raises:
    KeyError: an array has no counterpart in the module.
    ValueError: a parameter or buffer of the module has no array.
  """
  import jax
  state = module.state_dict()
  missing = {name for name in state if not name.endswith('num_batches_tracked')}
  leaves = {kind: jax.tree_util.tree_flatten_with_path(tree)[0]
            for kind, tree in variables.items()}
  for path, array in leaves.get('params', []) + leaves.get('batch_stats', []):
    *layers, kind = (key.key for key in path)
    kind = {'kernel': 'weight', 'scale': 'weight', 'negative_slope': 'weight',
            'mean': 'running_mean', 'var': 'running_var'}.get(kind, kind)
    name = re.sub(r'^(body|stages)_(\d+)', r'\1.\2', '.'.join([*layers, kind]))
    array = np.asarray(array, np.float32)  # PyTorch does not read NumPy's bfloat16
    if array.ndim == 4:  # [H, W, inputs, outputs] to [outputs, inputs, H, W]
      array = array.transpose(3, 2, 0, 1)
    elif array.ndim == 2:
      array = array.T
    state[name].copy_(torch.from_numpy(array.copy()))
    missing.remove(name)
  if missing:
    raise ValueError(f'no arrays for {sorted(missing)}')


# Steps -------------------------------------------------------------------------------------


def pixel_step(g: nn.Module, optimizer: torch.optim.Optimizer, kind: str,
               autocast: Autocast) -> Step:
  """Returns the step of a pixel loss.

  Args:
    kind: 'mse' or 'l1'.
  """
  distance = {'mse': F.mse_loss, 'l1': F.l1_loss}[kind]

  def step(lr: torch.Tensor, hr: torch.Tensor) -> Losses:
    optimizer.zero_grad(set_to_none=True)
    with autocast():
      sr = g(lr)
    loss = distance(sr, hr)
    loss.backward()
    optimizer.step()
    return {'g/total': loss.detach()}

  return step


def srgan_step(g: nn.Module, d: nn.Module, vgg: nn.Module, g_optimizer: torch.optim.Optimizer,
               d_optimizer: torch.optim.Optimizer, loss: GeneratorLoss,
               autocast: Autocast) -> Step:
  """Returns SRGAN's step: G with the perceptual and adversarial loss, then D.

  As in BasicSR's SRGANModel, D is evaluated three times.
  """
  bce = F.binary_cross_entropy_with_logits

  def step(lr: torch.Tensor, hr: torch.Tensor) -> Losses:
    d.requires_grad_(False)
    g_optimizer.zero_grad(set_to_none=True)
    with autocast():
      sr = g(lr)
      with torch.no_grad():
        target = vgg(hr)
      features, fake = vgg(sr), d(sr)
    total = loss.perceptual_weight * F.mse_loss(loss.scale * features, loss.scale * target)
    total = total + loss.adversarial_weight * bce(fake, torch.ones_like(fake))
    total.backward()
    g_optimizer.step()

    d.requires_grad_(True)
    d_optimizer.zero_grad(set_to_none=True)
    with autocast():
      real = d(hr)
    d_real = bce(real, torch.ones_like(real))
    d_real.backward()
    with autocast():
      fake = d(sr.detach())
    d_fake = bce(fake, torch.zeros_like(fake))
    d_fake.backward()
    d_optimizer.step()
    return {'g/total': total.detach(), 'd/total': (d_real + d_fake).detach()}

  return step


def esrgan_step(g: nn.Module, d: nn.Module, vgg: nn.Module, g_optimizer: torch.optim.Optimizer,
                d_optimizer: torch.optim.Optimizer, loss: GeneratorLoss,
                autocast: Autocast) -> Step:
  """Returns ESRGAN's step: G with the pixel, perceptual and relativistic loss, then D.

  As in BasicSR's ESRGANModel, D is evaluated five times.
  """
  bce = F.binary_cross_entropy_with_logits

  def step(lr: torch.Tensor, hr: torch.Tensor) -> Losses:
    d.requires_grad_(False)
    g_optimizer.zero_grad(set_to_none=True)
    with autocast():
      sr = g(lr)
      with torch.no_grad():
        target, real = vgg(hr), d(hr)
      features, fake = vgg(sr), d(sr)
    total = loss.pixel_weight * F.l1_loss(sr, hr)
    total = total + loss.perceptual_weight * F.l1_loss(loss.scale * features, loss.scale * target)
    adversarial = (bce(real - fake.mean(), torch.zeros_like(real))
                   + bce(fake - real.mean(), torch.ones_like(fake))) / 2
    total = total + loss.adversarial_weight * adversarial
    total.backward()
    g_optimizer.step()

    d.requires_grad_(True)
    d_optimizer.zero_grad(set_to_none=True)
    with autocast():
      with torch.no_grad():
        fake = d(sr)
      real = d(hr)
    d_real = bce(real - fake.mean(), torch.ones_like(real)) / 2
    d_real.backward()
    with autocast():
      fake = d(sr.detach())
    d_fake = bce(fake - real.detach().mean(), torch.zeros_like(fake)) / 2
    d_fake.backward()
    d_optimizer.step()
    return {'g/total': total.detach(), 'd/total': (d_real + d_fake).detach()}

  return step
