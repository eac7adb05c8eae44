"""Restoration at the same size: a network that removes JPEG artefacts or noise.

Paper: Zhang et al., "Beyond a Gaussian Denoiser: Residual Learning of Deep CNN for Image
Denoising", TIP 2017: one network for a range of noise levels and qualities of JPEG. The network
here is Compact at scale 1 (18 convolutions of 64 features; DnCNN-3 has 20, with BatchNorm); squared
error, 16 crops of 128x128 pixels, Adam 2e-4. JPEG has qualities from 10 to 95, half of the files
4:2:0; noise is Gaussian with a sigma of 0 to 50 levels. Published (DnCNN-3, grey images of LIVE1):
29.19 dB / .8123 at quality 10, 32.98 / .9090 at 30 (AR-CNN: 28.96 / .8076, 32.67 / .9043).

  sr-jax train --config restore:jpeg --config.data.source=hr:data/DIV2K/DIV2K_train_HR
  sr-jax train --config restore:noise --config.data.source=hr:data/DIV2K/DIV2K_train_HR
  sr-jax train --config restore:sample           (no download)
  sr-jax train --config restore:jpeg,small \\
      --config.data.source=folder:PATH
  sr-jax upscale photo.jpg --workdir runs/restore-jpeg --output out    (the same size)

Other chains of data.degrade restore other damage (docs/degradations.md), and other networks have
scale 1 too.

Cost, estimated: 0.9 TFLOP a step, 8 hours at 10 TFLOP/s. Result: unmeasured.

`:small` on the 200 training photographs of BSDS500, after 4,000 of its 12,000 steps with a schedule
of that length (40 minutes of one core), scored on 20 test photographs saved as JPEG 4:2:0:
  luma PSNR / SSIM   quality 10      grey            quality 30      grey
  the files          28.53 / .7706   27.98 / .7462   32.13 / .8887   31.57 / .8755
  :small             29.27 / .7946   28.72 / .7729   33.17 / .9038   32.63 / .8925
At quality 30 blocks and ringing are gone; at 10 they are softer but visible, above all the 16x16
blocks of colour. EDSR on blocks of 2x2 pixels gained .58 and .87 dB in that time (here .73 and
1.04); on the validation image 16 blocks were no better than 8. `:sample`: 35.96 dB (the JPEG files:
35.39) on the validation image, in two minutes.
"""

from ml_collections import ConfigDict

from sr_jax.experiment.base_config import (
  defaults,
  parse_variants,
  use_sample_compact,
  use_sample_data,
  use_small_schedule,
)

VARIANTS = ('jpeg', 'noise', 'small', 'sample')


def get_config(variant: str = '') -> ConfigDict:
  """Returns the config.

  Variants: `jpeg` (the default), `noise`, `small` (an hour on two CPU cores), `sample` (images
  inside scikit-image, a small network; a minute on a CPU).
  """
  variants = parse_variants(variant, VARIANTS)
  if {'jpeg', 'noise'} <= variants:
    raise ValueError(f'variant {variant!r}: expected jpeg or noise')
  config = defaults()
  config.scale = 1
  config.generator.update({'name': 'compact', 'features': 64, 'blocks': 16})
  config.loss.pixel.kind = 'mse'
  config.data.source = 'hr:data/DIV2K/DIV2K_train_HR'
  degrade = config.data.degrade
  if 'noise' in variants:
    degrade.name = 'noise'
    degrade.noise.gaussian, degrade.noise.grey, degrade.noise.sigma = 1.0, 0.0, (0.0, 50.0)
  else:
    degrade.name = 'jpeg'
    degrade.jpeg.quality, degrade.jpeg.subsampling = (10, 95), 0.5
  config.hr_patch, config.steps = 128, 300_000
  adam = config.optimizer.g
  adam.learning_rate, adam.schedule = 2e-4, 'cosine'
  if 'small' in variants or 'sample' in variants:
    _small(config)
  if 'sample' in variants:
    use_sample_data(config)
    use_sample_compact(config)
    config.steps, config.batch_size, config.hr_patch = 400, 8, 48
    adam.learning_rate, adam.ramp = 1e-3, 20
  return config


def _small(config: ConfigDict) -> None:
  """Sets a network and a schedule for an hour on two CPU cores."""
  config.generator.features, config.generator.blocks = 48, 8
  config.hr_patch, config.batch_size, config.steps, config.ema = 64, 16, 12_000, 0.995
  use_small_schedule(config, rate=1.5e-3)
