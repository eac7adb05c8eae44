"""Writes foreign.npz and wrapped.pth: small networks with other projects' layer names.

  pip install torch==2.13.0 && python tests/golden/make_foreign.py [FOLDER]

Each network is implemented here in PyTorch from its published description, independently of
sr_jax, with the layer names of that project's state dicts. For each, the file holds the state dict
as one array of `numbers` and the JSON of its `shapes`, an input `lr` and PyTorch's `sr`, both
[1, H, W, C].
"""

import json
import pathlib
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

HERE = pathlib.Path(__file__).parent
WIDTH, GROWTH, BLOCKS = 4, 1, 2  # RRDBNet and OldESRGAN have one block
DIV2K_MEAN = (0.4488, 0.4371, 0.4040)


def conv(inputs: int, outputs: int, side: int = 3) -> nn.Conv2d:
  return nn.Conv2d(inputs, outputs, side, padding=side // 2)


def leaky(slope: float) -> nn.LeakyReLU:
  return nn.LeakyReLU(slope)


class ResidualConvolutions(nn.Module):
  """The block of BasicSR's EDSR and MSRResNet: conv1, ReLU, conv2."""

  def __init__(self, factor: float = 1.0) -> None:
    super().__init__()
    self.conv1, self.conv2, self.factor = conv(WIDTH, WIDTH), conv(WIDTH, WIDTH), factor

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return x + self.factor * self.conv2(F.relu(self.conv1(x)))


def shuffle_stages(scale: int) -> nn.Sequential:
  """Returns EDSR's tail: a convolution and a PixelShuffle per factor, at indices 0, 2, ..."""
  layers = []
  for factor in {2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}[scale]:
    layers += [conv(WIDTH, WIDTH * factor**2), nn.PixelShuffle(factor)]
  return nn.Sequential(*layers)


class EDSR(nn.Module):
  """BasicSR's EDSR. The mean isn't in the state dict; inputs are 0 to 255. Residual scale 0.1."""

  def __init__(self, scale: int, channels: int = 3) -> None:
    super().__init__()
    self.conv_first = conv(channels, WIDTH)
    self.body = nn.Sequential(*[ResidualConvolutions(0.1) for _ in range(BLOCKS)])
    self.conv_after_body = conv(WIDTH, WIDTH)
    self.upsample = shuffle_stages(scale)
    self.conv_last = conv(WIDTH, channels)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    mean = torch.tensor(DIV2K_MEAN)[:, None, None]
    first = self.conv_first((x - mean) * 255)
    x = self.conv_after_body(self.body(first)) + first
    return self.conv_last(self.upsample(x)) / 255 + mean


class MeanShift(nn.Conv2d):
  """A 1x1 convolution that adds sign * 255 * mean and isn't trained."""

  def __init__(self, sign: int) -> None:
    super().__init__(3, 3, 1)
    self.weight.data = torch.eye(3)[:, :, None, None]
    self.bias.data = sign * 255 * torch.tensor(DIV2K_MEAN)
    self.requires_grad_(False)


class ResidualBody(nn.Module):
  def __init__(self) -> None:
    super().__init__()
    self.body = nn.Sequential(conv(WIDTH, WIDTH), nn.ReLU(), conv(WIDTH, WIDTH))

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return x + 0.1 * self.body(x)


class EDSRPyTorch(nn.Module):
  """EDSR-PyTorch's EDSR. Inputs and outputs are 0 to 255. Residual scale 0.1."""

  def __init__(self, scale: int) -> None:
    super().__init__()
    self.sub_mean, self.add_mean = MeanShift(-1), MeanShift(1)
    self.head = nn.Sequential(conv(3, WIDTH))
    self.body = nn.Sequential(*[ResidualBody() for _ in range(BLOCKS)], conv(WIDTH, WIDTH))
    self.tail = nn.Sequential(shuffle_stages(scale), conv(WIDTH, 3))

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    x = self.head(self.sub_mean(x * 255))
    return self.add_mean(self.tail(self.body(x) + x)) / 255


class MSRResNet(nn.Module):
  """BasicSR's SRResNet without BatchNorm, added to the bilinearly upscaled input."""

  def __init__(self, scale: int) -> None:
    super().__init__()
    self.scale, factor = scale, 3 if scale == 3 else 2
    self.conv_first = conv(3, WIDTH)
    self.body = nn.Sequential(*[ResidualConvolutions() for _ in range(BLOCKS)])
    self.upconv1 = conv(WIDTH, WIDTH * factor**2)
    if scale == 4:
      self.upconv2 = conv(WIDTH, WIDTH * 4)
    self.conv_hr, self.conv_last = conv(WIDTH, WIDTH), conv(WIDTH, 3)

  def forward(self, lr: torch.Tensor) -> torch.Tensor:
    x = self.body(F.leaky_relu(self.conv_first(lr), 0.1))
    x = F.leaky_relu(F.pixel_shuffle(self.upconv1(x), 3 if self.scale == 3 else 2), 0.1)
    if self.scale == 4:
      x = F.leaky_relu(F.pixel_shuffle(self.upconv2(x), 2), 0.1)
    x = self.conv_last(F.leaky_relu(self.conv_hr(x), 0.1))
    return x + F.interpolate(lr, scale_factor=self.scale, mode='bilinear')


class Compact(nn.Module):
  """SRVGGNetCompact: alternating convolutions and PReLU, PixelShuffle, nearest-neighbour skip."""

  def __init__(self, scale: int) -> None:
    super().__init__()
    self.scale, layers = scale, [conv(3, WIDTH), nn.PReLU(WIDTH)]
    for _ in range(BLOCKS):
      layers += [conv(WIDTH, WIDTH), nn.PReLU(WIDTH)]
    self.body = nn.Sequential(*layers, conv(WIDTH, 3 * scale**2))
    for layer in layers[1::2]:
      nn.init.uniform_(layer.weight, -0.3, 0.6)

  def forward(self, lr: torch.Tensor) -> torch.Tensor:
    x = F.pixel_shuffle(self.body(lr), self.scale)
    return x + F.interpolate(lr, scale_factor=self.scale, mode='nearest')


class ShrunkCompact(Compact):
  """The x2 and x3 of realesr-animevideov3: the result of the x4 network, downscaled."""

  def __init__(self, scale: int) -> None:
    super().__init__(4)
    self.outer = scale

  def forward(self, lr: torch.Tensor) -> torch.Tensor:
    size = [side * self.outer for side in lr.shape[2:]]
    return F.interpolate(super().forward(lr), size, mode='bicubic')


class DenseBlock(nn.Module):
  """Five convolutions, each of all earlier outputs; `wrap` adds a level to the layer names."""

  def __init__(self, wrap: Callable) -> None:
    super().__init__()
    for index in range(5):
      layer = conv(WIDTH + index * GROWTH, GROWTH if index < 4 else WIDTH)
      setattr(self, f'conv{index + 1}', wrap(layer))

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    known = [x]
    for index in range(4):
      y = getattr(self, f'conv{index + 1}')(torch.cat(known, 1))
      known.append(F.leaky_relu(y, 0.2))
    return x + 0.2 * self.conv5(torch.cat(known, 1))


class Block(nn.Module):
  def __init__(self, word: str, wrap: Callable = lambda layer: layer) -> None:
    super().__init__()
    self.parts = [f'{word}{index}' for index in (1, 2, 3)]
    for part in self.parts:
      setattr(self, part, DenseBlock(wrap))

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    y = x
    for part in self.parts:
      y = getattr(self, part)(y)
    return x + 0.2 * y


class RRDBNet(nn.Module):
  """BasicSR's RRDBNet; at scales 2 and 1 the input is folded by 2x2 and 4x4, as in Real-ESRGAN.

  The later names of ESRGAN differ only in `words`.
  """

  def __init__(self, scale: int, words: Sequence[str] = ('body', 'rdb', 'conv_body', 'conv_up',
               'conv_hr')) -> None:
    super().__init__()
    self.fold, self.words = 4 // scale, words
    blocks = nn.Sequential(Block(words[1]))
    layers = {'conv_first': conv(3 * self.fold**2, WIDTH), words[0]: blocks,
              words[2]: conv(WIDTH, WIDTH), f'{words[3]}1': conv(WIDTH, WIDTH),
              f'{words[3]}2': conv(WIDTH, WIDTH), words[4]: conv(WIDTH, WIDTH),
              'conv_last': conv(WIDTH, 3)}
    for name, layer in layers.items():
      setattr(self, name, layer)

  def forward(self, lr: torch.Tensor) -> torch.Tensor:
    height, width = lr.shape[2:]
    x = F.pad(lr, [0, -width % self.fold, 0, -height % self.fold], mode='reflect')
    first = self.conv_first(F.pixel_unshuffle(x, self.fold))
    blocks, _, body_end, stage, refinement = self.words
    x = first + getattr(self, body_end)(getattr(self, blocks)(first))
    for index in (1, 2):
      x = F.interpolate(x, scale_factor=2, mode='nearest')
      x = F.leaky_relu(getattr(self, f'{stage}{index}')(x), 0.2)
    x = self.conv_last(F.leaky_relu(getattr(self, refinement)(x), 0.2))
    return x[:, :, :height * 4 // self.fold, :width * 4 // self.fold]


class Shortcut(nn.Module):
  def __init__(self, sub: nn.Module) -> None:
    super().__init__()
    self.sub = sub

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return x + self.sub(x)


class OldESRGAN(nn.Module):
  """The network of ESRGAN's first code: one Sequential, with layers named by position."""

  def __init__(self, scale: int, shuffle: bool = False) -> None:
    super().__init__()
    trunk = nn.Sequential(Block('RDB', nn.Sequential), conv(WIDTH, WIDTH))
    layers = [conv(3, WIDTH), Shortcut(trunk)]
    for factor in {1: (), 2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}[scale]:
      if shuffle:
        layers += [conv(WIDTH, WIDTH * factor**2), nn.PixelShuffle(factor), leaky(0.2)]
      else:
        layers += [nn.Upsample(scale_factor=factor), conv(WIDTH, WIDTH), leaky(0.2)]
    self.model = nn.Sequential(*layers, conv(WIDTH, WIDTH), leaky(0.2), conv(WIDTH, 3))

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return self.model(x)


LATER = ('RRDB_trunk', 'RDB', 'trunk_conv', 'upconv', 'HRconv')
NETWORKS = {
    **{f'edsr-x{scale}': lambda scale=scale: EDSR(scale) for scale in (2, 3, 4)},
    **{f'edsr-pytorch-x{scale}': lambda scale=scale: EDSRPyTorch(scale) for scale in (2, 3, 4)},
    **{f'msrresnet-x{scale}': lambda scale=scale: MSRResNet(scale) for scale in (2, 3, 4)},
    **{f'compact-x{scale}': lambda scale=scale: Compact(scale) for scale in (2, 3, 4)},
    'compact-shrunk-x3': lambda: ShrunkCompact(3),
    **{f'rrdb-x{scale}': lambda scale=scale: RRDBNet(scale) for scale in (1, 2, 4)},
    'esrgan-x4': lambda: RRDBNet(4, LATER),
    **{f'esrgan-old-x{scale}': lambda scale=scale: OldESRGAN(scale) for scale in (1, 2, 3, 4, 8)},
    'esrgan-old-shuffle-x3': lambda: OldESRGAN(3, True),
    'esrgan-old-shuffle-x4': lambda: OldESRGAN(4, True)}


def main(folder: pathlib.Path) -> None:
  torch.manual_seed(0)
  torch.set_num_threads(1)
  found = {}
  with torch.no_grad():
    for name, make in NETWORKS.items():
      network, lr = make().eval(), torch.rand(1, 3, 5, 3)
      for parameter in network.parameters():
        if parameter.requires_grad:  # rounded to bfloat16, which halves the size of the file
          parameter.data = parameter.data.bfloat16().float()
      state = network.state_dict()
      shapes = json.dumps({key: list(value.shape) for key, value in state.items()})
      numbers = torch.cat([value.flatten() for value in state.values()]).numpy()
      lr, sr = (x.permute(0, 2, 3, 1).numpy() for x in (lr, network(lr)))
      found |= {f'{name}/{key}': value for key, value in (
          ('shapes', np.array(shapes)), ('numbers', numbers), ('lr', lr), ('sr', sr))}
    np.savez_compressed(folder / 'foreign.npz', **found)
    # Like a training framework's file: weights and their average, from a DataParallel.
    state = OrderedDict((f'module.{name}', value)
                        for name, value in Compact(2).state_dict().items())
    averaged = OrderedDict((name, value + 1) for name, value in state.items())
    torch.save({'params': state, 'params_ema': averaged, 'epoch': 3,
                'optimizer': {'state': {0: {'exp_avg': torch.zeros(5)}}, 'param_groups': [{}]}},
               folder / 'wrapped.pth')


if __name__ == '__main__':
  main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
