"""Real-ESRNet: RRDBNet trained with the pixel loss on degraded images, before Real-ESRGAN.

Paper: Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic
Data", ICCVW 2021, section 4.1: L1 to sharpened HR, 48 crops of 256x256 HR pixels, which are
degraded as crops of 400x400 by two orders of blur, resizing, noise and JPEG; Adam 2e-4 (.9, .99),
1e6 steps, weights averaged (.999). The paper starts from ESRGAN's PSNR stage and trains on DIV2K,
Flickr2K and OST. Published: no metrics of this stage.

  sr-jax train --config realesrnet \\
      --config.data.source=hr:data/DIV2K/DIV2K_train_HR
  sr-jax train --config realesrnet:sample        (no download)
  sr-jax train --config realesrnet:small \\
      --config.data.source=folder:PATH
  sr-jax examples --config realesrnet:sample --output examples.png

Variants: `x2` and `x1` (the published networks of these scales fold pixels into channels),
`compact` (SRVGGNetCompact with 32 convolutions, as realesr-general-x4v3 has).

Cost, estimated: 21 TFLOP a step, 24 days at 10 TFLOP/s. Result: unmeasured.

`:small` on the 200 training photographs of BSDS500, 35 minutes on one core, scored on 20 test
photographs that were degraded with a fixed seed
(tests/benchmarks/degraded_photos.py):
                                        luma PSNR / SSIM   LPIPS
  bicubic                               23.151 dB / .5220  .848
  the same training on bicubic LR       23.013 / .5124     .780
  :small                                23.346 / .5395     .753
  L1 to sharpened HR, as published      23.013 / .5354     .751  (2,500 steps)
Noise and blocks are gone, and large edges are sharp; fur, grass and bark are smooth, and coarse
coloured noise leaves soft patches. With sharpened HR edges are crisper, but PSNR against HR is
lower, so `small` and `sample` compare with HR as it is, by squared error. `:sample`: 24.40 dB
(bicubic 24.33), LPIPS .795 (.813) on the degraded validation image, in two minutes.
"""

from ml_collections import ConfigDict

from sr_jax.experiment.base_config import (
  defaults,
  parse_variants,
  use_realesrgan_network,
  use_sample_data,
  use_scale,
  use_small_schedule,
)

VARIANTS = ('small', 'sample', 'compact', 'x1', 'x2')


def get_config(variant: str = '') -> ConfigDict:
  """Returns the config.

  Variants: `small` (an hour on two CPU cores), `sample` (images inside scikit-image, a small
  network; minutes on a CPU), `compact`, `x1`, `x2`.
  """
  variants = parse_variants(variant, VARIANTS)
  config = defaults()
  use_scale(config, variant)
  use_realesrgan_network(config, variants)
  config.data.source = 'hr:data/DIV2K/DIV2K_train_HR'
  config.data.degrade.name = 'realesrgan'
  config.hr_patch, config.batch_size, config.steps = 256, 48, 1_000_000
  adam = config.optimizer.g
  adam.learning_rate, adam.beta2 = 2e-4, 0.99
  if 'small' in variants or 'sample' in variants:
    _compare_with_hr(config)
  if 'small' in variants:
    _small(config)
  if 'sample' in variants:
    _sample(config)
  return config


def _compare_with_hr(config: ConfigDict) -> None:
  """Sets what gives the best PSNR: squared error to HR as it is."""
  config.data.degrade.sharpen_hr, config.loss.pixel.kind = 0.0, 'mse'


def _small(config: ConfigDict) -> None:
  """Sets crops and a schedule for an hour on two CPU cores."""
  config.hr_patch, config.batch_size, config.steps, config.ema = 128, 8, 5_000, 0.995
  use_small_schedule(config)


def _sample(config: ConfigDict) -> None:
  use_sample_data(config)
  config.hr_patch, config.batch_size, config.steps, config.ema = 64, 8, 300, 0.99
  config.data.degrade.margin = 40
  adam = config.optimizer.g
  adam.learning_rate, adam.schedule, adam.ramp = 2e-3, 'cosine', 20
