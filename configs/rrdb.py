"""RRDBNet trained with the pixel loss: the PSNR stage that ESRGAN starts from.

Paper: Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks",
ECCVW 2018: 23 blocks, 64 features, growth 32; 16 crops of 128x128 HR pixels, L1, Adam 2e-4,
halved every 2e5 of 1e6 steps. Published (DF2K): 32.73 dB / .9011 on Set5 x4, 28.99 / .7917 on
Set14.

  sr-jax train --config rrdb                     (DIV2K)
  sr-jax train --config rrdb --config.generator.blocks=6
  sr-jax train --config rrdb:sample              (no download)
  sr-jax train --config rrdb:small --config.data.source=folder:PATH

If GPU memory does not suffice, --config.generator.remat=True recomputes the blocks' activations
instead of storing them.

Cost, estimated: 1.7 TFLOP a step, 47 hours at 10 TFLOP/s. Result: unmeasured.
`:small`, on the 400 training and test photographs of BSDS500: 22 minutes of one CPU's time;
29.25 dB / .8312 on Set5 x4 (bicubic 28.43 / .8111), LPIPS .318 (bicubic .340).
`:sample`: two minutes on two CPU cores; 31.89 dB on the validation image (bicubic 31.47).
"""

from ml_collections import ConfigDict

from sr_jax.experiment.base_config import (
  defaults,
  parse_variants,
  use_sample_data,
  use_sample_rrdb,
  use_scale,
  use_small_rrdb,
  use_small_schedule,
)

VARIANTS = ('small', 'sample', 'x2', 'x8')


def get_config(variant: str = '') -> ConfigDict:
  """Returns the config.

  Variants: `small` (minutes on a CPU), `sample` (small data and network), `x2`, `x8`.
  """
  variants = parse_variants(variant, VARIANTS)
  config = defaults()
  config.generator.name = 'rrdb'
  config.hr_patch = 128
  config.steps = 1_000_000
  adam = config.optimizer.g
  adam.learning_rate = 2e-4
  adam.schedule, adam.boundaries = 'multistep', (200_000, 400_000, 600_000, 800_000)
  use_scale(config, variant)
  if config.scale == 2:
    config.generator.unshuffle = 2  # as in Real-ESRGAN's x2, so that BasicSR can read the weights
  if 'small' in variants:
    use_small_rrdb(config)
    config.hr_patch, config.steps, config.batch_size, config.ema = 96, 1_000, 16, 0.99
    use_small_schedule(config, ramp=50, every=250)
  if 'sample' in variants:
    use_sample_data(config)
    config.hr_patch = 64
    config.steps, config.batch_size, config.ema = 800, 8, 0.99
    use_sample_rrdb(config)
    adam.learning_rate, adam.schedule, adam.ramp = 2e-3, 'cosine', 50
  return config
