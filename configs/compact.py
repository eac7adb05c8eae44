"""SRVGGNetCompact, a small and fast network, trained with the pixel loss.

Paper: Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure
Synthetic Data", ICCVW 2021, whose repository contains the network. Published: no metrics for
bicubic LR. The recipe here is that of ESRGAN's PSNR stage: L1, 16 crops of 128x128 HR pixels, Adam
2e-4.

  sr-jax train --config compact                  (DIV2K)
  sr-jax train --config compact:sample           (no download)
  sr-jax train --config compact \\
      --config.init_from=realesr-animevideov3-x4                     (a published network)

Cost, estimated: 59 GFLOP a step, half an hour at 10 TFLOP/s. Result: unmeasured.
`:sample`: twenty seconds on two CPU cores; 31.97 dB on the validation image (bicubic 31.47).
"""

from ml_collections import ConfigDict

from sr_jax.experiment.base_config import (
  defaults,
  parse_variants,
  use_sample_compact,
  use_sample_data,
  use_scale,
)

VARIANTS = ('sample', 'x2', 'x3')


def get_config(variant: str = '') -> ConfigDict:
  """Returns the config. Variants: `sample` (small data and network), `x2`, `x3`."""
  variants = parse_variants(variant, VARIANTS)
  config = defaults()
  config.generator.name = 'compact'
  use_scale(config, variant)
  config.hr_patch = 32 * config.scale
  config.steps = 300_000
  adam = config.optimizer.g
  adam.learning_rate, adam.schedule = 2e-4, 'cosine'
  if 'sample' in variants:
    use_sample_data(config)
    config.hr_patch = 16 * config.scale
    config.steps, config.batch_size = 600, 8
    use_sample_compact(config)
    adam.learning_rate, adam.ramp = 2e-3, 20
  return config
